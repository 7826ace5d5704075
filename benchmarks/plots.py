"""Combined runs as plots: the ratios by shape, and where the recurrent products stand under their rooflines."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator

from combine import Point, Runs
from limits import Limits
from problems import CELLS, MODES
from roofline import floor, intensity, recurrent_flops, share_of_u
from tables import plural

__all__ = ["plot_ratios", "plot_roofline"]

# Text stays text, and the same numbers give the same bytes.
STYLE: Any = {"svg.fonttype": "none", "svg.hashsalt": "rnncore", "font.family": "sans-serif", "font.size": 9}
# Of Okabe and Ito's palette, which colour-blind readers can tell apart; the forms differ too.
PEER_STYLES = {
    "torch": ("#d55e00", "o"),
    "onnxruntime": ("#0072b2", "s"),
    "jax": ("#009e73", "^"),
    "numpy": ("#56b4e9", "D"),
}
CELL_MARKERS = {"lstm": "o", "gru": "^", "rnn": "s"}
# By the bytes that each thread reads.
ROOFS = {32 << 10: "#d55e00", 256 << 10: "#e69f00", 1 << 20: "#009e73", 4 << 20: "#56b4e9", 16 << 20: "#0072b2"}
GREY = "#777777"
PALE = "#e4e4e4"


@mpl.rc_context(STYLE)
def plot_ratios(runs: Runs, path: Path) -> None:
    """Draw a panel for each mode and number of threads: shapes downwards, time of each peer over ours to the right."""
    panels = _panels(runs)
    layers = list(dict.fromkeys((point.key.cell, point.key.shape) for point in runs.points))
    layers.sort(key=lambda layer: list(CELLS).index(layer[0]))  # stable: shapes stay in order
    rows = {layer: place + 0.8 * list(CELLS).index(layer[0]) for place, layer in enumerate(layers)}
    every = [ratio for point in runs.points for ratio in point.ratios[point.ours[0]].values()]
    subs = (1.0, 2.0, 5.0) if max(every, default=1.0) < 40 * min(every, default=1.0) else (1.0,)
    figure = Figure((2.2 + 2.4 * len(panels), 1.3 + 0.165 * len(rows)), layout="constrained")
    all_axes = figure.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)
    for axes, (title, points) in zip(all_axes[0], panels, strict=True):
        axes.axvline(1, color="black", linewidth=1)
        across, down = [0.0, 1.0, float("nan")] * len(rows), [height for height in rows.values() for _ in range(3)]
        axes.plot(across, down, color=PALE, linewidth=0.6, zorder=0, transform=axes.get_yaxis_transform())
        for peer in runs.peers:
            with_peer = [point for point in points if peer in point.seconds]
            values = [point.ratios[point.ours[0]][peer] for point in with_peer]
            heights = [rows[point.key.cell, point.key.shape] for point in with_peer]
            colour, marker = PEER_STYLES.get(peer, (GREY, "x"))
            axes.plot(values, heights, marker, color=colour, markersize=4)
        axes.set(title=title, xscale="log")
        axes.xaxis.set_major_locator(LogLocator(subs=subs))
        axes.xaxis.set_major_formatter(lambda ratio, _: f"{ratio:g}")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.tick_params(axis="y", left=False)
        axes.grid(True, axis="x", color=PALE, linewidth=0.6)
        axes.set_axisbelow(True)
    first = all_axes[0][0]
    first.set_yticks(list(rows.values()), [f"{cell.upper()} {shape}" for cell, shape in rows], fontsize=8)
    first.set_ylim(max(rows.values()) + 0.8, -0.8)
    figure.supxlabel("time of the peer over ours: right of the line, rnncore is faster", fontsize=9)
    _legend(figure, [_key(peer, *PEER_STYLES.get(peer, (GREY, "x"))) for peer in runs.peers])
    _save(figure, path)


@mpl.rc_context(STYLE)
def plot_roofline(runs: Runs, path: Path) -> None:
    """Draw a panel for each mode and number of threads: what each recurrent product reaches, below its roofs.

    Its rate is taken over the time that is left when the input product is taken off at the peak: at least that.
    """
    panels = [panel for panel in _panels(runs) if panel[1][0].key.threads in runs.limits]
    columns = min(2, len(panels))
    lines = -(-len(panels) // columns)
    figure = Figure((1 + 3.9 * columns, 1 + 3.1 * lines), layout="constrained")
    all_axes = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
    for axes, (title, points) in zip(all_axes.flat, panels, strict=False):
        axes.set(title=title, yscale="log")
        axes.set_xscale("log", base=2)
        limits = runs.limits[points[0].key.threads]
        _draw_roofs(axes, points, limits)
        _draw_points(axes, points, limits)
        axes.xaxis.set_major_formatter(lambda intensity, _: f"{intensity:g}")
        axes.yaxis.set_major_formatter(lambda rate, _: f"{rate:g}")
        axes.grid(True, color=PALE, linewidth=0.6)
        axes.set_axisbelow(True)
    below = "operations of the recurrent step for each byte of U read; colours: the least reads that U fits in"
    figure.supxlabel(below, fontsize=9)
    figure.supylabel("GFLOP/s of the recurrent product", fontsize=9)
    cells = [_key(cell.upper(), "black", marker) for cell, marker in CELL_MARKERS.items()]
    roofs = [_key(f"reads of {_size(size)}", colour, "") for size, colour in ROOFS.items()]
    _legend(figure, [*cells, *roofs])
    _save(figure, path)


def _draw_roofs(axes: Any, points: Sequence[Point], limits: Limits) -> None:
    found = [intensity(point.key.cell, point.key.mode, point.key.shape) for point in points]
    low, high = min(found) / 2, max(found) * 1.5
    axes.plot([low, high], [limits.float32 / 1e9] * 2, color="black", linewidth=1.2)
    axes.text(high, limits.float32 / 1e9, "FMA ", ha="right", va="bottom", fontsize=8)
    for size, colour in ROOFS.items():
        bandwidth = limits.bandwidth(size)
        ridge = limits.float32 / bandwidth
        axes.plot([low, ridge], [low * bandwidth / 1e9, limits.float32 / 1e9], color=colour, linewidth=1.2)


def _draw_points(axes: Any, points: Sequence[Point], limits: Limits) -> None:
    places: dict[tuple[str, str], list[tuple[float, float]]] = {}  # by marker and colour
    for point in points:
        cell, mode, shape = point.key.cell, point.key.mode, point.key.shape
        remaining = point.seconds[point.ours[0]] - floor(cell, mode, shape, limits).input_seconds
        if remaining > 0:
            share = share_of_u(cell, shape, limits.threads)
            colour = next((colour for size, colour in ROOFS.items() if share <= size), GREY)
            rate = recurrent_flops(cell, mode, shape) / remaining / 1e9
            places.setdefault((CELL_MARKERS[cell], colour), []).append((intensity(cell, mode, shape), rate))
    for (marker, colour), found in places.items():
        axes.plot(*zip(*found, strict=True), marker, color=colour, markersize=4.5)


def _panels(runs: Runs) -> list[tuple[str, list[Point]]]:
    """Return the points of each mode and number of threads, with a title, in order."""
    panels = []
    for mode in MODES:
        for threads in sorted({point.key.threads for point in runs.points}):
            points = [point for point in runs.points if (point.key.mode, point.key.threads) == (mode, threads)]
            if points:
                panels.append((f"{mode}, {plural(threads)}", points))
    return panels


def _size(size: int) -> str:
    return f"{size >> 10} KiB" if size < 1 << 20 else f"{size >> 20} MiB"


def _key(label: str, colour: str, marker: str) -> Line2D:
    """Return an entry of a legend: a mark, or a line if there is none."""
    return Line2D([], [], color=colour, marker=marker, linestyle="" if marker else "-", label=label)


def _legend(figure: Figure, keys: Sequence[Line2D]) -> None:
    if keys:
        figure.legend(
            handles=keys, loc="outside upper center", ncols=min(4, len(keys)), frameon=False, columnspacing=1.2
        )


def _save(figure: Any, path: Path) -> None:
    """Write the same bytes for the same numbers."""
    figure.savefig(path, format="svg", metadata={"Date": None})
