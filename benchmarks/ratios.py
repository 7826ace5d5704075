"""Times of the peers over ours, and geometric means of them."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from libraries import OURS, PEERS
from problems import CELLS, MODES

__all__ = ["FASTEST", "Row", "geometric_means", "ours_of", "ratios", "ratios_of_points"]

FASTEST = "fastest"  # the fastest peer at each point


class Row(NamedTuple):
    """The ratios of one of ours at one point."""

    threads: int
    mode: str
    cell: str
    ours: str
    ratios: Mapping[str, float]  # by peer, and `FASTEST`


def ours_of(timings: Mapping[str, Any]) -> list[str]:
    """Return which of ours were timed, the headline first."""
    return [name for name in OURS if name in timings]


def ratios(timings: Mapping[str, Any], ours: str) -> dict[str, float]:
    """Return the time of each peer over that of one of ours, and `FASTEST` if there is any peer."""
    seconds = timings[ours]["seconds"]
    found: dict[str, float] = {peer: timings[peer]["seconds"] / seconds for peer in PEERS if peer in timings}
    return found | ({FASTEST: min(found.values())} if found else {})


def ratios_of_points(points: Iterable[Mapping[str, Any]]) -> list[Row]:
    """Return a row for each of ours at each point of one run."""
    return [
        Row(point["threads"], point["mode"], point["cell"], ours, ratios(point["timings"], ours))
        for point in points
        for ours in ours_of(point["timings"])
    ]


def geometric_means(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return the geometric means of ratios, per threads, mode, cell (and all cells) and one of ours."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        for cell in ("all", row.cell):
            groups.setdefault((row.threads, row.mode, cell, row.ours), []).append(row)
    return [
        dict(zip(("threads", "mode", "cell", "ours"), key, strict=True))
        | {"points": len(members), "ratios": _means([member.ratios for member in members])}
        for key, members in sorted(groups.items(), key=lambda group: _place(*group[0]))
    ]


def _place(threads: int, mode: str, cell: str, ours: str) -> tuple[int, ...]:
    return threads, MODES.index(mode), list(OURS).index(ours), ["all", *CELLS].index(cell)


def _means(several: Sequence[Mapping[str, float]]) -> dict[str, float]:
    logs: dict[str, list[float]] = {}
    for one in several:
        for name, ratio in one.items():
            logs.setdefault(name, []).append(math.log(ratio))
    return {name: math.exp(math.fsum(values) / len(values)) for name, values in logs.items()}
