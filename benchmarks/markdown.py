"""Combined runs as Markdown: the machine, a table for each number of threads and mode, means, scaling."""

import textwrap
from collections.abc import Iterator, Sequence

from combine import Point, Runs
from limits import Limits
from problems import MODES
from ratios import FASTEST, geometric_means
from tables import microseconds, plural

__all__ = ["BEHIND", "markdown"]

LINE = 120
BEHIND = 0.95  # a ratio to the fastest peer below this is shown in bold
HEADINGS = {"frozen": "frozen", "rnncore": "ordinary"}


def markdown(runs: Runs) -> str:
    """Return all of it, without a heading of the whole."""
    blocks = [*_opening(runs), *_point_tables(runs), *_means(runs), *_scaling(runs)]
    return "\n\n".join(blocks) + "\n"


def _table(head: Sequence[str], texts: int, rows: Sequence[Sequence[str]]) -> str:
    """Write a table whose first columns, so many, are texts and all others numbers."""
    ruler = ["---"] * texts + ["---:"] * (len(head) - texts)
    return "\n".join(f"| {' | '.join(row)} |".replace("|  |", "| |") for row in (head, ruler, *rows))


# ------------------------------------------------------------------------------------------------------- the machine


def _opening(runs: Runs) -> Iterator[str]:
    machine = runs.machine
    system = machine["system"].partition("-")[0]
    versions = ", ".join(f"{name} {version}" for name, version in runs.versions.items())
    taken = f"medians over {runs.count} runs of the minimum" if runs.count > 1 else "one run, minima"
    yield _fill(
        f"{machine['cpu']}, {plural(machine['cpus'], 'usable CPU')}; {system}; Python {machine['python']}; "
        f"{versions}; NumPy's BLAS {machine['numpy_blas']}. float32, {taken}."
    )
    yield _fill(
        "Ratios are the time of a peer over ours, in forward over that of the frozen layer unless a column says "
        f"ordinary; in bold where a peer takes less than {BEHIND} of our time. "
        "benchmarks/README.md defines % fma and % bound."
    )
    if runs.limits:
        yield _limits(list(runs.limits.values()))
    doubts = []
    if runs.disturbed:
        doubts.append(f"{plural(runs.disturbed, 'point')} of single runs: timed while other processes ran.")
    if runs.incomplete:
        doubts.append(f"{plural(runs.incomplete, 'run')} did not end.")
    if doubts:
        yield " ".join(doubts)


def _fill(text: str) -> str:
    return textwrap.fill(text, LINE, break_long_words=False, break_on_hyphens=False)


def _limits(several: Sequence[Limits]) -> str:
    first = several[0]
    width = 8 * first.vector_bytes
    head = ["limit, all threads together", *(plural(limits.threads) for limits in several)]
    rows = [
        [f"float32 multiply-adds, {width}-bit vectors", *(f"{each.float32 / 1e9:.0f} GFLOP/s" for each in several)],
        [
            f"float32 multiply-adds, {width // 2}-bit vectors",
            *(f"{each.float32_half_width / 1e9:.0f} GFLOP/s" for each in several),
        ],
        [f"float64 multiply-adds, {width}-bit vectors", *(f"{each.float64 / 1e9:.0f} GFLOP/s" for each in several)],
    ]
    for size in first.read:
        kibibytes = size >> 10
        text = f"{kibibytes} KiB" if kibibytes < 1024 or kibibytes % 1024 else f"{kibibytes >> 10} MiB"
        rows.append([f"reads of {text} in each thread", *(f"{each.read[size] / 1e9:.0f} GB/s" for each in several)])
    return _table(head, 1, rows)


# -------------------------------------------------------------------------------------------------------- the points


def _point_tables(runs: Runs) -> Iterator[str]:
    for threads in sorted({point.key.threads for point in runs.points}):
        for mode in MODES:
            points = [point for point in runs.points if point.key.threads == threads and point.key.mode == mode]
            if points:
                yield f"### {plural(threads)}, {mode}"
                yield _points(points, runs.peers)


def _points(points: Sequence[Point], peers: Sequence[str]) -> str:
    ours = points[0].ours
    headline, others = ours[0], ours[1:]
    peers = [peer for peer in peers if any(peer in point.seconds for point in points)]
    head = ["cell", "T,N,I,H"]
    head += [f"{HEADINGS[name]}, us" for name in ours] if others else ["us"]
    head += [*peers, FASTEST, *(f"{FASTEST}, {HEADINGS[name]}" for name in others), "% fma", "% bound", "bound by"]
    rows = []
    for point in points:
        ratios = point.ratios[headline]
        shape = str(point.key.shape)
        rows.append(
            [
                point.key.cell.upper(),
                f"**{shape}**" if ratios.get(FASTEST, 1.0) < BEHIND else shape,
                *(microseconds(point.seconds[name]) for name in ours),
                *(_ratio(ratios.get(peer)) for peer in peers),
                *(_marked(point.ratios[name].get(FASTEST)) for name in ours),
                *(_percent(of.get(headline)) for of in (point.percent_of_fma, point.percent_of_bound)),
                {"fma": "fma", "bandwidth": "reads", None: "-"}[point.recurrent_bound],
            ]
        )
    return _table(head, 2, rows)


def _ratio(ratio: float | None) -> str:
    if ratio is None:
        return "-"
    return f"{ratio:.2f}" if ratio < 9.995 else f"{ratio:.1f}" if ratio < 99.95 else f"{ratio:.0f}"


def _marked(ratio: float | None) -> str:
    return f"**{_ratio(ratio)}**" if ratio is not None and ratio < BEHIND else _ratio(ratio)


def _percent(percent: float | None) -> str:
    return "-" if percent is None else f"{percent:.0f}" if percent >= 9.5 else f"{percent:.1f}"


# -------------------------------------------------------------------------------------------------- means and scaling


def _means(runs: Runs) -> Iterator[str]:
    columns = [*runs.peers, FASTEST]
    rows = [
        [
            str(mean["threads"]),
            mean["mode"],
            mean["cell"] if mean["cell"] == "all" else mean["cell"].upper(),
            HEADINGS[mean["ours"]],
            str(mean["points"]),
            *(_ratio(mean["ratios"].get(name)) for name in columns),
        ]
        for mean in geometric_means([row for point in runs.points for row in point.rows])
    ]
    yield "### Geometric means of ratios"
    yield _table(["threads", "mode", "cell", "ours", "points", *columns], 4, rows)


def _scaling(runs: Runs) -> Iterator[str]:
    for threads in sorted({point.key.threads for point in runs.points if point.speed_ups}):
        points = [point for point in runs.points if point.key.threads == threads]
        columns = [(mode, name) for mode in MODES for name in HEADINGS]
        found = {
            (point.key.cell, point.key.shape, point.key.mode, name): speed_up
            for point in points
            for name, speed_up in point.speed_ups.items()
        }
        columns = [(mode, name) for mode, name in columns if any(key[2:] == (mode, name) for key in found)]
        layers = dict.fromkeys((cell, shape) for cell, shape, _, _ in found)
        rows = [
            [cell.upper(), str(shape), *(_ratio(found.get((cell, shape, mode, name))) for mode, name in columns)]
            for cell, shape in layers
        ]
        yield f"### {plural(threads)} over one: how many times as fast"
        yield _table(["cell", "T,N,I,H", *(_column(mode, name) for mode, name in columns)], 2, rows)


def _column(mode: str, name: str) -> str:
    return mode if mode == "training" else f"{mode}, {HEADINGS[name]}"
