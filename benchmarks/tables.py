"""The numbers as text for the console: a line for each point, then geometric means of ratios."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from agreement import TOLERANCE
from libraries import OURS, PEERS
from limits import Limits
from problems import Shape
from ratios import FASTEST, ours_of, ratios

__all__ = [
    "BUSY",
    "BUSY_CPUS",
    "disturbed",
    "heading",
    "microseconds",
    "notes",
    "opening",
    "plural",
    "point_lines",
    "summary",
]

Message = Mapping[str, Any]

LABEL = "{:<5}{:<9}{:<17}{:<8}"  # cell, mode, shape, ours
NUMBER = "{:>9}{:>9}{:>8}{:>9}"  # us, GFLOP/s, % of FMA, % of bound
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
        "frozen: a layer whose weights were packed once; rnncore: they are packed in every call",
        "training: forward, then backward to x, weights and biases. Ratios: time of the peer / ours",
    ]
    return "\n".join(lines)


def heading(start: Message, limits: Limits | None, peers: Sequence[str]) -> str:
    """Open the table of one number of threads."""
    numbers = NUMBER.format("us", "GFLOP/s", "% fma", "% bound")
    return "\n".join(
        [
            "",
            f"{plural(start['threads'])}; {'; '.join(start['rnncore_config'])}",
            *(_limit_lines(limits) if limits else []),
            LABEL.format("cell", "mode", "T,N,I,H", "ours") + numbers + "".join(f"{name:>{WIDTH}}" for name in peers),
        ]
    )


def _limit_lines(limits: Limits) -> Iterator[str]:
    yield (
        f"multiply-adds, all threads together: {limits.float32 / 1e9:.0f} GFLOP/s in float32 ({limits.vector_bytes} "
        f"bytes wide), {limits.float32_half_width / 1e9:.0f} at half that width, {limits.float64 / 1e9:.0f} in float64"
    )
    rates = (f"{size >> 10}: {rate / 1e9:.0f}" for size, rate in limits.read.items())
    yield f"reads, all threads together, GB/s by KiB in each thread: {', '.join(rates)}"


def point_lines(point: Message, peers: Sequence[str]) -> Iterator[str]:
    """Show one point: a line for each of ours."""
    shape = Shape(*(point[size] for size in Shape._fields))
    for ours in ours_of(point["timings"]):
        timing = point["timings"][ours]
        numbers = NUMBER.format(
            microseconds(timing["seconds"]),
            f"{point['flops'] / timing['seconds'] / 1e9:.1f}",
            *(f"{timing[name]:.1f}" if name in timing else "-" for name in ("percent_of_fma", "percent_of_bound")),
        )
        over_ours = ratios(point["timings"], ours)
        columns = (f"{over_ours[peer]:.2f}" if peer in over_ours else "-" for peer in peers)
        label = LABEL.format(point["cell"], point["mode"], str(shape), ours)
        mark = f" {BUSY}" if disturbed(point) else ""
        yield label + numbers + "".join(f"{column:>{WIDTH}}" for column in columns) + mark


def microseconds(seconds: float) -> str:
    """Write a time with four digits, or all before the point."""
    return f"{seconds * 1e6:.4g}" if seconds < 1e-2 else f"{seconds * 1e6:.0f}"


def summary(means: Sequence[Mapping[str, Any]], peers: Sequence[str]) -> str:
    """Show what `ratios.geometric_means` returned."""
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
    busy = [point["others_cpus"] for point in points if disturbed(point)]
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
            yield f"note: {name} set to {plural(threads)} kept {cpu / elapsed:.2f} CPUs busy"


def disturbed(point: Message) -> bool:
    """Return whether other processes kept the machine busy."""
    return point["others_cpus"] is not None and point["others_cpus"] >= BUSY_CPUS


def plural(number: int, noun: str = "thread") -> str:
    """Write how many of something there are."""
    return f"{number} {noun}{'s' if number > 1 else ''}"
