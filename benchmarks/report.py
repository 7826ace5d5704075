"""The numbers as text: a line for each point, then geometric means of ratios."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from agreement import TOLERANCE
from libraries import OURS, PEERS
from problems import Shape

__all__ = ["geometric_means", "heading", "notes", "opening", "point_lines", "summary"]

Message = Mapping[str, Any]

FASTEST = "fastest"  # the fastest peer at each point
LABEL = "{:<5}{:<9}{:<17}{:<8}"  # cell, mode, shape, ours
WIDTH = 12
BUSY = "(!)"  # marks points timed while other processes ran
BUSY_CPUS = 0.2


def opening(machine: Message, versions: Mapping[str, str], missing: Sequence[str], peers: Sequence[str]) -> str:
    """Say what is compared, where and how."""
    used = {name: library for name, library in (OURS | PEERS).items() if name in OURS or name in peers}
    lines = [
        f"CPU: {machine['cpu']}, {machine['cpus']} usable; load average {machine['load_average']}",
        f"system: {machine['system']}, Python {machine['python']}, NumPy's BLAS: {machine['numpy_blas']}",
        "versions: " + ", ".join(f"{name} {version}" for name, version in versions.items()),
        *(f"threads of {name}: {library.threads}" for name, library in used.items()),
        *([f"not installed, left out: {', '.join(missing)}"] if missing else []),
        f"float32; every result is checked before timing ({TOLERANCE})",
        "training: forward, then backward to x, weights and biases. Ratios: time of the peer / ours",
    ]
    return "\n".join(lines)


def heading(start: Message, peers: Sequence[str]) -> str:
    """Open the table of one number of threads."""
    columns = "".join(f"{name:>{WIDTH}}" for name in ["us", "GFLOP/s", "% of sgemm", *peers])
    return "\n".join(
        [
            "",
            f"{_plural(start['threads'])}; sgemm rate {start['sgemm_flops_per_second'] / 1e9:.0f} "
            f"GFLOP/s; {'; '.join(start['rnncore_config'])}",
            LABEL.format("cell", "mode", "T,N,I,H", "ours") + columns,
        ]
    )


def point_lines(point: Message, start: Message, peers: Sequence[str]) -> Iterator[str]:
    """Show one point: a line for each of ours."""
    shape = Shape(*(point[size] for size in Shape._fields))
    timings = point["timings"]
    for ours in (name for name in OURS if name in timings):
        seconds = timings[ours]["seconds"]
        rate = point["flops"] / seconds
        numbers = [
            f"{seconds * 1e6:.4g}" if seconds < 1e-2 else f"{seconds * 1e6:.0f}",
            f"{rate / 1e9:.1f}",
            f"{100 * rate / start['sgemm_flops_per_second']:.0f}",
            *(f"{timings[peer]['seconds'] / seconds:.2f}" if peer in timings else "-" for peer in peers),
        ]
        label = LABEL.format(point["cell"], point["mode"], str(shape), ours)
        mark = f" {BUSY}" if _disturbed(point) else ""
        yield label + "".join(f"{number:>{WIDTH}}" for number in numbers) + mark


def geometric_means(points: Sequence[Message], peers: Sequence[str]) -> list[dict[str, Any]]:
    """Return the geometric means of ratios, per threads, mode, cell (and all cells) and one of ours."""
    groups: dict[tuple[Any, ...], list[Message]] = {}
    for point in points:
        for cell in ("all", point["cell"]):
            for ours in (name for name in OURS if name in point["timings"]):
                groups.setdefault((point["threads"], point["mode"], cell, ours), []).append(point)
    return [
        dict(zip(("threads", "mode", "cell", "ours"), key, strict=True))
        | {"points": len(members), "ratios": _mean_ratios(members, key[-1], peers)}
        for key, members in groups.items()
    ]


def _mean_ratios(points: Sequence[Message], ours: str, peers: Sequence[str]) -> dict[str, float]:
    logs: dict[str, list[float]] = {}
    for point in points:
        seconds = {name: timing["seconds"] for name, timing in point["timings"].items()}
        ratios = {peer: seconds[peer] / seconds[ours] for peer in peers if peer in seconds}
        if ratios:
            ratios[FASTEST] = min(ratios.values())
        for name, ratio in ratios.items():
            logs.setdefault(name, []).append(math.log(ratio))
    return {name: math.exp(math.fsum(values) / len(values)) for name, values in logs.items()}


def summary(means: Sequence[Mapping[str, Any]], peers: Sequence[str]) -> str:
    """Show what `geometric_means` returned."""
    columns = [*peers, FASTEST]
    head = f"{'threads':<9}{'mode':<10}{'cell':<6}{'ours':<10}{'points':>6}"
    lines = ["", "geometric means of ratios; fastest: the fastest peer at each point"]
    lines.append(head + "".join(f"{name:>{WIDTH}}" for name in columns))
    for row in means:
        label = f"{row['threads']:<9}{row['mode']:<10}{row['cell']:<6}{row['ours']:<10}{row['points']:>6}"
        ratios = (f"{row['ratios'][name]:.2f}" if name in row["ratios"] else "-" for name in columns)
        lines.append(label + "".join(f"{ratio:>{WIDTH}}" for ratio in ratios))
    return "\n".join(lines)


def notes(points: Sequence[Message]) -> Iterator[str]:
    """Say what makes numbers doubtful: other processes, and libraries that used more CPUs than threads."""
    busy = [point["others_cpus"] for point in points if _disturbed(point)]
    if busy:
        yield (
            f"{BUSY} {len(busy)} of {len(points)} points were timed while other processes kept {BUSY_CPUS} "
            f"CPUs or more busy, up to {max(busy):.1f}: repeat them on an idle machine"
        )
    totals: dict[tuple[int, str], tuple[float, float]] = {}
    for point in points:
        for name, timing in point["timings"].items():
            key = point["threads"], name
            cpu, elapsed = totals.get(key, (0.0, 0.0))
            elapsed += sum(timing["samples"]) * timing["calls_per_sample"]
            totals[key] = cpu + timing["cpu_seconds"], elapsed
    for (threads, name), (cpu, elapsed) in totals.items():
        if cpu > 1.05 * threads * elapsed:
            yield f"note: {name} set to {_plural(threads)} kept {cpu / elapsed:.2f} CPUs busy"


def _disturbed(point: Message) -> bool:
    return point["others_cpus"] is not None and point["others_cpus"] >= BUSY_CPUS


def _plural(threads: int) -> str:
    return f"{threads} thread{'s' if threads > 1 else ''}"
