"""Data sets of one long series, or a few: windows for forecasting, and streams for truncated back-propagation.

Import from `data`. Many sequences that each have a beginning and an end are the matter of `sequences`.
"""

from __future__ import annotations  # np.random in annotations would import it

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rnncore.batches import (
    Batch,
    Batches,
    Epoch,
    held_out,
    is_list,
    numbers,
    padded,
    permuted,
    positive,
    same_length,
    series_of,
    with_channel,
)

__all__ = ["Streams", "Windows", "split_series"]

Array = NDArray[Any]


class Windows(Batches):
    """Windows that slide over a series, each with what comes after it: for forecasting.

    A window that begins at step s has x = series[s : s + length] and targets = series[s + length : s + length +
    horizon]. Windows are copied when a batch is indexed and not before, so memory maps larger than memory will do.

    Parameters
    ----------
    series : array_like (T, C) or (T,), or a list of them
        Floats (T,) are taken as one channel, (T, 1); integers are tokens. No window reaches from one series of a list
        into the next.
    length : int
        Steps of a window.
    horizon : int
        Steps to forecast; with `per_step`, how many steps ahead.
    stride : int
        Steps from the beginning of a window to that of the next.
    per_step : bool
        Whether there is a target at every step instead: the window moved on by `horizon` steps,
        series[s + horizon : s + length + horizon].
    batch_size : int
        Windows in a batch.
    targets : array_like (T, ...), or a list of them, optional
        A second series, of as many steps, whose values are the targets. Default: `series` itself. For those at the last
        step of a window instead of the one after it give ``series[1:]`` and ``targets[:-1]``.
    shuffle : bool
        Whether an epoch with a generator is shuffled.
    drop_last : bool
        Whether windows that do not fill a batch are left out.

    Raises
    ------
    ValueError, TypeError
        If a series is shorter than one window with its targets, arrays disagree in number, length, shape or kind of
        dtype, or an option is out of range. The message names the argument and the index.

    Examples
    --------
    >>> import numpy as np
    >>> import rnncore as rc
    >>> series = np.arange(8.0)
    >>> batch = rc.data.Windows(series, length=4, horizon=2, batch_size=32).epoch()[0]
    >>> batch.x.shape, batch.targets.shape
    ((3, 4, 1), (3, 2, 1))
    >>> batch.x[0, :, 0], batch.targets[0, :, 0]
    (array([0., 1., 2., 3.]), array([4., 5.]))
    """

    def __init__(
        self,
        series: Any,
        *,
        length: int,
        horizon: int = 1,
        stride: int = 1,
        batch_size: int,
        targets: Any = None,
        per_step: bool = False,
        shuffle: bool = True,
        drop_last: bool = False,
    ) -> None:
        self._batch_size = positive("batch_size", batch_size)
        self._length, self._horizon = positive("length", length), positive("horizon", horizon)
        self._stride = positive("stride", stride)
        self._per_step, self._shuffle = bool(per_step), bool(shuffle)
        arrays, self._dtype = _several("series", series)
        self._series = [with_channel(array, self._dtype) for array in arrays]
        self._targets, self._target_dtype = self._series, self._dtype
        if targets is not None:
            self._targets, self._target_dtype = _several("targets", targets)
            _check_aligned(self._series, self._targets)
        span = self._length + self._horizon
        for i, array in enumerate(self._series):
            if len(array) < span:
                name = f"series[{i}]" if is_list(series) else "series"
                raise ValueError(f"{name}: expected at least {span} steps, window and targets, got {len(array)}")
        counts = [(len(array) - span) // self._stride + 1 for array in self._series]
        self._first = np.cumsum([0, *counts[:-1]])  # window of each series
        self._windows = sum(counts)
        super().__init__(self._windows, self._batch_size, bool(drop_last))

    def epoch(self, rng: np.random.Generator | None = None) -> Epoch:
        """Draw an order of the windows and return its batches.

        Parameters
        ----------
        rng : numpy.random.Generator, optional
            Default: the windows are in the order of the series.

        Returns
        -------
        Epoch
            Of `Batch`: x (n, length, ...), targets (n, horizon, ...) or with `per_step` (n, length, ...).
        """
        order: range | Array = range(self._windows)
        if rng is not None and self._shuffle:
            order = permuted(self._windows, rng)
        return Epoch(partial(self._batch, order), self._starts)

    def _batch(self, order: range | Array, start: int) -> Batch:
        windows = np.asarray(order[start : start + self._batch_size])
        which = np.searchsorted(self._first, windows, side="right") - 1
        begins = (windows - self._first[which]) * self._stride
        x, targets = [], []
        ahead, steps = (self._horizon, self._length) if self._per_step else (self._length, self._horizon)
        for k, s in zip(which.tolist(), begins.tolist(), strict=True):
            x.append(self._series[k][s : s + self._length])
            targets.append(self._targets[k][s + ahead : s + ahead + steps])
        return Batch(padded(x, self._length, self._dtype), padded(targets, steps, self._target_dtype))


def _several(name: str, values: Any) -> tuple[list[Array], np.dtype[Any]]:
    """One series or a list of them, as a list, and their dtype."""
    return series_of(name, values if is_list(values) else [_one_series(name, values)])


def _check_aligned(series: list[Array], targets: list[Array]) -> None:
    if len(targets) != len(series):
        raise ValueError(f"targets: expected one for each of the {len(series)} series, got {len(targets)}")
    for i, (array, target) in enumerate(zip(series, targets, strict=True)):
        if len(target) != len(array):
            raise ValueError(f"targets[{i}]: expected {len(array)} steps as series[{i}] has, got {len(target)}")


class Streams(Batches):
    """A long series read as contiguous streams, for truncated back-propagation through time with carried state.

    The series is cut into `batch_size` lanes of L steps, one after the other. Batch i has the steps from i * steps to
    (i + 1) * steps of every lane, so each row continues that of the batch before: `carry` is true for all batches but
    the first. There is one order that allows it, so nothing is shuffled. What does not fill a lane is left out, fewer
    than `batch_size` steps at the end.

    Parameters
    ----------
    series : array_like, (T, C) or (T,)
        Features or tokens. Floats (T,) are taken as one channel, (T, 1). Of a memory map a batch reads its own steps.
    targets : array_like (T, ...), optional
        The target at each step; L = T // batch_size. Default: the next element of the series;
        L = (T - 1) // batch_size.
    batch_size : int
        Lanes.
    steps : int
        Steps in a batch, over which gradients are propagated.
    drop_last : bool
        Whether the last batch is left out if it has fewer steps.

    Raises
    ------
    ValueError, TypeError
        If the series has too few steps for one of each lane, `targets` has not as many steps, or an option is out of
        range.

    Examples
    --------
    >>> import numpy as np
    >>> import rnncore as rc
    >>> for batch in rc.data.Streams(np.arange(11), batch_size=2, steps=3):
    ...     print(batch.x.tolist(), batch.targets.tolist(), batch.carry)
    [[0, 1, 2], [5, 6, 7]] [[1, 2, 3], [6, 7, 8]] False
    [[3, 4], [8, 9]] [[4, 5], [9, 10]] True
    """

    def __init__(
        self,
        series: ArrayLike,
        targets: ArrayLike | None = None,
        *,
        batch_size: int,
        steps: int,
        drop_last: bool = False,
    ) -> None:
        lanes = positive("batch_size", batch_size)
        self._steps = positive("steps", steps)
        x = _one_series("series", series)
        x = y = with_channel(x, x.dtype)
        ahead = 1
        if targets is not None:
            y, ahead = _one_series("targets", targets), 0
            if len(y) != len(x):
                raise ValueError(f"targets: expected {len(x)} steps as series has, got {len(y)}")
        length = (len(x) - ahead) // lanes
        if length < 1:
            raise ValueError(f"series: expected at least {lanes + ahead} steps for {lanes} lanes, got {len(x)}")
        # views, as the first axis of any array can be cut in two
        self._x = x[: lanes * length].reshape(lanes, length, *x.shape[1:])
        self._targets = y[ahead : lanes * length + ahead].reshape(lanes, length, *y.shape[1:])
        super().__init__(length, self._steps, bool(drop_last))

    def epoch(self, rng: np.random.Generator | None = None) -> Epoch:
        """Return the batches from the first steps of the lanes to the last.

        Parameters
        ----------
        rng : numpy.random.Generator, optional
            Not used.

        Returns
        -------
        Epoch
            Of `Batch`: x and targets (batch_size, steps, ...).
        """
        return Epoch(self._batch, self._starts)

    def _batch(self, start: int) -> Batch:
        now = slice(start, start + self._steps)
        return Batch(self._x[:, now].copy(), self._targets[:, now].copy(), carry=start > 0)


def _one_series(name: str, values: ArrayLike) -> Array:
    array = numbers(name, values)
    if array.ndim < 1:
        raise ValueError(f"{name}: expected (T, ...), got a single number")
    return array


def split_series(*series: ArrayLike, validation: float = 0.1, gap: int = 0) -> tuple[Array, ...]:
    """Set the end of a series aside for validation, so that no model is asked about a time before its training.

    Parameters
    ----------
    *series : array_like, (T, ...)
        One series, or several that belong together, such as inputs and targets.
    validation : float
        Fraction of the steps set aside, in (0, 1).
    gap : int
        Steps left out in between, where what follows depends on what came before more than it will in use.

    Returns
    -------
    tuple of ndarray
        Training and validation part of the first series, then of the second, ... Views: nothing is copied.

    Raises
    ------
    ValueError
        If the series differ in length, nothing is left for training, `gap` is negative, or `validation` is not between
        0 and 1.

    Examples
    --------
    >>> import numpy as np
    >>> import rnncore as rc
    >>> train, validation = rc.data.split_series(np.arange(10), validation=0.3, gap=1)
    >>> train, validation
    (array([0, 1, 2, 3, 4, 5]), array([7, 8, 9]))
    """
    if not isinstance(gap, int | np.integer) or gap < 0:
        raise ValueError(f"gap: expected a number of steps from 0, got {gap!r}")
    arrays = [np.asarray(values) for values in series]
    steps = same_length("series", arrays, "steps")
    begin = steps - held_out(validation, steps, "steps")
    if begin - gap < 1:
        raise ValueError(f"gap: expected at most {begin - 1} of {steps} steps, {steps - begin} set aside, got {gap}")
    return tuple(part for array in arrays for part in (array[: begin - gap], array[begin:]))
