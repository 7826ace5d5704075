"""Pictures of what models do, with matplotlib, which is imported when one is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["plot_attention"]


def plot_attention(
    weights: ArrayLike, source: Sequence[Any] | None = None, target: Sequence[Any] | None = None, ax: Any = None
) -> Any:
    """Plot where a decoder looked at each of its steps, with matplotlib (``pip install 'rnncore[plot]'``).

    Parameters
    ----------
    weights : array_like, (T, S)
        Of every target step, a row, the attention to every source step. White is 0, black 1.
    source, target : sequence, optional
        What was read and what was written, to be put at columns and rows: S and T labels, or fewer, in which case the
        columns and rows without any are left out as padding.
    ax : matplotlib.axes.Axes, optional
        Where to. Default: new axes.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError
        If `weights` has not two dimensions, or there are more labels than rows or columns.

    Examples
    --------
    >>> import numpy as np
    >>> import rnncore as rc
    >>> ax = rc.plot_attention(np.eye(3)[::-1], source="abc", target="cba")  # doctest: +SKIP
    >>> ax.figure.savefig("attention.png")  # doctest: +SKIP
    """
    w = np.asarray(weights, np.float64)
    if w.ndim != 2:
        raise ValueError(f"weights: expected shape (T, S), got {w.shape}")
    T, S = w.shape
    rows, columns = _labels("target", target, T), _labels("source", source, S)
    if rows is not None:
        w = w[: len(rows)]
    if columns is not None:
        w = w[:, : len(columns)]
    if ax is None:
        from matplotlib import pyplot

        _, ax = pyplot.subplots()
    ax.imshow(w, cmap="Greys", vmin=0.0, vmax=1.0, aspect="auto", interpolation="nearest")
    ax.set_xlabel("source")
    ax.set_ylabel("target")
    if columns is not None:
        ax.set_xticks(range(len(columns)), columns)
    if rows is not None:
        ax.set_yticks(range(len(rows)), rows)
    return ax


def _labels(name: str, labels: Sequence[Any] | None, most: int) -> list[str] | None:
    if labels is None:
        return None
    if len(labels) > most:
        raise ValueError(f"{name}: expected at most {most} labels, as weights has, got {len(labels)}")
    return [str(label) for label in labels]
