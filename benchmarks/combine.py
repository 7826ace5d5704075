"""Several runs of the comparison on one machine as one: medians over the runs."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median, mode
from typing import Any, NamedTuple, Self

from libraries import PEERS
from limits import Limits
from problems import Shape
from ratios import Row, ours_of, ratios
from tables import disturbed

__all__ = ["Key", "Point", "Runs", "combine", "load"]

Message = Mapping[str, Any]


class Key(NamedTuple):
    """What was timed."""

    threads: int
    mode: str
    cell: str
    shape: Shape

    @classmethod
    def of(cls, point: Message) -> Self:
        """Return that of a point of one run."""
        return cls(point["threads"], point["mode"], point["cell"], Shape(*(point[size] for size in Shape._fields)))


@dataclass(frozen=True)
class Point:
    """The medians of one point."""

    key: Key
    seconds: Mapping[str, float]  # by library
    ratios: Mapping[str, Mapping[str, float]]  # of each run, then the median; by one of ours, then by peer
    percent_of_fma: Mapping[str, float]  # by library; empty where limits were not known
    percent_of_bound: Mapping[str, float]
    recurrent_bound: str | None  # "fma" or "bandwidth"
    speed_ups: Mapping[str, float]  # over one thread in the same run, by one of ours

    @property
    def ours(self) -> list[str]:
        """Which of ours were timed, the headline first."""
        return ours_of(self.seconds)

    @property
    def rows(self) -> list[Row]:
        """Its ratios as `ratios.geometric_means` takes them."""
        key = self.key
        return [Row(key.threads, key.mode, key.cell, ours, self.ratios[ours]) for ours in self.ours]


@dataclass(frozen=True)
class Runs:
    """All that is told of several runs."""

    count: int
    machine: Message
    versions: Mapping[str, str]
    peers: Sequence[str]
    limits: Mapping[int, Limits]  # by number of threads; those that are known
    points: Sequence[Point]
    disturbed: int  # points of single runs that were timed while other processes ran
    incomplete: int  # runs that were interrupted


def load(paths: Iterable[Path]) -> list[Message]:
    """Read what run.py wrote.

    Raises
    ------
    ValueError
        If the runs are of different machines or versions, or one has no points.
    """
    runs: list[Message] = []
    for path in paths:
        run = json.loads(path.read_text(encoding="utf-8"))
        if runs and _identity(run) != _identity(runs[0]):
            raise ValueError(f"{path}: {_identity(run)} is not {_identity(runs[0])}, where the first run was made")
        if not run["points"]:
            raise ValueError(f"{path}: has no points")
        runs.append(run)
    return runs


def _identity(run: Message) -> str:
    machine = run["machine"]
    return f"{machine['cpu']} x {machine['cpus']}, Python {machine['python']}, {run['versions']}"


def combine(runs: Sequence[Message]) -> Runs:
    """Combine runs that `load` returned: each point is the median over those runs that have it."""
    found: dict[Key, list[Message]] = {}
    one_thread = [{Key.of(point): point for point in run["points"] if point["threads"] == 1} for run in runs]
    for run, base in zip(runs, one_thread, strict=True):
        for point in run["points"]:
            key = Key.of(point)
            extra = {"one_thread": base.get(key._replace(threads=1))}
            found.setdefault(key, []).append({**point, **extra})
    points = [point for run in runs for point in run["points"]]
    return Runs(
        count=len(runs),
        machine=runs[0]["machine"],
        versions=runs[0]["versions"],
        peers=[peer for peer in PEERS if any(peer in point["timings"] for point in points)],
        limits=_limits(runs),
        points=[_point(key, members) for key, members in found.items()],
        disturbed=sum(disturbed(point) for point in points),
        incomplete=sum(not run["complete"] for run in runs),
    )


def _point(key: Key, points: Sequence[Message]) -> Point:
    timings = [point["timings"] for point in points]
    ours = ours_of(timings[0])
    bounds = [point["floor"]["recurrent_bound"] for point in points if "floor" in point]
    return Point(
        key=key,
        seconds=_medians(timings, lambda timing: timing["seconds"]),
        ratios={name: _medians([ratios(each, name) for each in timings], float) for name in ours},
        percent_of_fma=_medians(timings, lambda timing: timing.get("percent_of_fma")),
        percent_of_bound=_medians(timings, lambda timing: timing.get("percent_of_bound")),
        recurrent_bound=mode(bounds) if bounds else None,
        speed_ups=_medians([_speed_ups(point, ours) for point in points], float),
    )


def _speed_ups(point: Message, ours: Sequence[str]) -> dict[str, float]:
    base = point["one_thread"]
    if base is None or point["threads"] == 1:
        return {}
    return {name: base["timings"][name]["seconds"] / point["timings"][name]["seconds"] for name in ours}


def _medians(several: Sequence[Mapping[str, Any]], value: Callable[[Any], float | None]) -> dict[str, float]:
    """Return the median of the values under each name, leaving out those that are not known."""
    values: dict[str, list[float]] = {}
    for one in several:
        for name, item in one.items():
            if (number := value(item)) is not None:
                values.setdefault(name, []).append(number)
    return {name: median(numbers) for name, numbers in values.items()}


def _limits(runs: Sequence[Message]) -> dict[int, Limits]:
    found: dict[int, list[Limits]] = {}
    for run in runs:
        for start in run["threads"]:
            if start["limits"]:
                found.setdefault(start["threads"], []).append(Limits.from_dict(start["limits"]))
    return {threads: _median_limits(several) for threads, several in found.items()}


def _median_limits(several: Sequence[Limits]) -> Limits:
    first = several[0]
    return Limits(
        threads=first.threads,
        vector_bytes=first.vector_bytes,
        float32=median(each.float32 for each in several),
        float64=median(each.float64 for each in several),
        float32_half_width=median(each.float32_half_width for each in several),
        read={size: median(each.read[size] for each in several) for size in first.read},
    )
