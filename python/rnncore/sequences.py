"""Data sets of many sequences, of equal or different lengths: classification, regression, tagging, transcription.

Import from `data`. One long series instead of many sequences is the matter of `series`.
"""

from __future__ import annotations  # np.random in annotations would import it

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rnncore._conversion import as_lengths
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
from rnncore.ragged import Ragged

__all__ = ["Sequences", "split"]

Array = NDArray[Any]


class _PerSequence:
    """Values of whole sequences: an array (N, ...), or a list of arrays, which batches have as a list too."""

    def __init__(self, values: Array | list[Array]) -> None:
        self.values = values

    def take(self, rows: Array, lengths: Array) -> Any:
        if isinstance(self.values, list):
            return [self.values[row] for row in rows]
        return self.values[rows]


class _PerStep:
    """Values of steps: a list of arrays (T_i, ...), or an array (N, T, ...) of whose rows the first steps are valid."""

    def __init__(self, values: Array | list[Array], dtype: np.dtype[Any]) -> None:
        self.values = values
        self.dtype = dtype

    def take(self, rows: Array, lengths: Array) -> Array:
        steps = int(lengths.max())
        if isinstance(self.values, list):
            return padded([self.values[row] for row in rows], steps, self.dtype)
        batch = self.values[rows, :steps]  # a copy, as rows is an array: of a memory map no other rows are read
        for k in np.flatnonzero(lengths < steps):
            batch[k, lengths[k] :] = 0  # whatever the caller's padding is
        return batch


class Sequences(Batches):
    """Many sequences, of equal or different lengths, in batches padded to their own longest.

    The arrays are kept, not copied, and a batch reads its own rows alone: memory maps larger than memory will do.

    Shuffled batches of sequences of different lengths are bucketed, so that there is little padding and still a
    random order: the sequences are shuffled, sorted by length within pools of `bucket` batches, cut into batches, and
    the batches are shuffled. Sequences that do not fill a batch come last.

    Parameters
    ----------
    x : list of array_like (T_i, ...), or ndarray (N, T, ...), or Packed
        Inputs: features (T_i, C), or tokens (T_i,), which are integers. Floats (T_i,) are taken as one channel,
        (T_i, 1). T_i may be 0.
    targets : optional
        Of each sequence: an array (N, ...) or a list of N numbers. Of each step: a list of arrays (T_i, ...), a
        padded array (N, T, ...) or a `Packed`. Or a list of arrays of other lengths, such as the label sequences of
        CTC, of which a batch has the list. Default: none, as for prediction.
    batch_size : int
        Sequences in a batch.
    per_step : bool, optional
        Whether targets are of each step. Needed where both could be meant: for a list of arrays, and for an array
        whose second axis is as long as that of x.
    lengths : array_like of int (N,) or of bool (N, T), optional
        Valid steps of each row of an array x, 0 to T, or a mask that is True at them, the first of each row. What x
        and the targets have after them is not looked at. Default: T for all.
    weights : optional
        How much each sequence counts in the loss, (N,), or each step, (N, T) or a list of arrays (T_i,).
    rows : array_like of int, optional
        Indices of the sequences to take, such as a fold of a cross-validation. Default: all.
    bucket : int
        Batches in a pool. The larger, the less padding (of uniform lengths 1 to 100, in batches of 32, padding is 48 %
        of all steps for 1, which is no bucketing, 11 % for 8 and 3 % for 32), and the less random who shares a batch.
    shuffle : bool
        Whether an epoch with a generator is shuffled.
    drop_last : bool
        Whether sequences that do not fill a batch are left out.

    Raises
    ------
    ValueError, TypeError
        If there are no sequences, arrays disagree in number, length, shape or kind of dtype, `per_step` is needed, or
        an option is out of range. The message names the argument and the index.

    Examples
    --------
    >>> import numpy as np
    >>> import rnncore as rc
    >>> x = [np.ones((length, 3)) for length in (5, 2, 4)]
    >>> for batch in rc.data.Sequences(x, [0, 1, 0], batch_size=2):
    ...     print(batch.x.shape, batch.targets, batch.lengths)
    (2, 5, 3) [0 1] [5 2]
    (1, 4, 3) [0] [4]

    A tag for each word of a sentence:

    >>> words, tags = [[7, 1, 4], [2, 5]], [[0, 0, 1], [1, 0]]
    >>> batch = rc.data.Sequences(words, tags, per_step=True, batch_size=2).epoch()[0]
    >>> batch.x.tolist(), batch.targets.tolist()
    ([[7, 1, 4], [2, 5, 0]], [[0, 0, 1], [1, 0, 0]])
    """

    def __init__(
        self,
        x: Any,
        targets: Any = None,
        *,
        batch_size: int,
        per_step: bool | None = None,
        lengths: ArrayLike | None = None,
        weights: Any = None,
        rows: ArrayLike | None = None,
        bucket: int = 32,
        shuffle: bool = True,
        drop_last: bool = False,
    ) -> None:
        self._batch_size = positive("batch_size", batch_size)
        self._bucket = positive("bucket", bucket)
        self._shuffle = bool(shuffle)
        x, targets, weights = (each.to_list() if isinstance(each, Ragged) else each for each in (x, targets, weights))
        self._set_inputs(x, lengths)
        self._rows = _checked_rows(rows, len(self._lengths))
        self._ragged = bool((self._lengths[self._rows] != self._lengths[self._rows[0]]).any())
        self._targets = None if targets is None else self._column("targets", targets, per_step)
        self._weights = None if weights is None else self._weights_column(weights)
        super().__init__(len(self._rows), self._batch_size, bool(drop_last))

    def _set_inputs(self, x: Any, lengths: ArrayLike | None) -> None:
        values: Array | list[Array]
        if is_list(x):
            values, dtype = series_of("x", x)
            if lengths is not None:
                raise ValueError("lengths: expected None, since x is a list of sequences that have their own")
            values = [with_channel(array, dtype) for array in values]
            self._lengths = np.array([len(array) for array in values], np.int64)
            self._steps = int(self._lengths.max())
        else:
            values = numbers("x", x)
            if values.ndim < 2:
                raise ValueError(f"x: expected a list of sequences or an array (N, T, ...), got {values.shape}")
            if len(values) == 0:
                raise ValueError("x: expected at least one sequence, got none")
            dtype = values.dtype
            values = with_channel(values, dtype, batch_axes=1)
            self._steps = values.shape[1]
            self._lengths = _checked_lengths(lengths, len(values), self._steps)
        self._x = _PerStep(values, dtype)

    def _column(self, name: str, values: Any, per_step: bool | None) -> _PerSequence | _PerStep:
        """Check values that belong to the sequences or to their steps."""
        count = len(self._lengths)
        if is_list(values) and _axes(name, values) > 1:
            arrays, dtype = series_of(name, values)
            _check_count(name, len(arrays), count)
            if per_step is None:
                raise ValueError(
                    f"{name}: say per_step=True if each array has an element for each step of its sequence, "
                    "per_step=False if not"
                )
            if not per_step:
                return _PerSequence(arrays)
            for i, (array, length) in enumerate(zip(arrays, self._lengths, strict=True)):
                if len(array) != length:
                    raise ValueError(f"{name}[{i}]: expected {length} steps as x[{i}] has, got {len(array)}")
            return _PerStep(arrays, dtype)

        array = numbers(name, list(values) if is_list(values) else values)
        _check_count(name, len(array) if array.ndim else 0, count)
        if per_step is None and array.shape[1:2] == (self._steps,):
            raise ValueError(
                f"{name}: say per_step=True if axis 1 of {array.shape} is the {self._steps} steps of x, "
                "per_step=False if not"
            )
        if not per_step:
            return _PerSequence(array)
        if array.shape[1:2] != (self._steps,):
            raise ValueError(f"{name}: expected ({count}, {self._steps}, ...) for the steps of x, got {array.shape}")
        return _PerStep(array, array.dtype)

    def _weights_column(self, weights: Any) -> _PerSequence | _PerStep:
        axes = _axes("weights", weights)
        if axes not in (1, 2):
            raise ValueError(f"weights: expected (N,), (N, T) or a list of arrays (T_i,), got {axes} axes")
        return self._column("weights", weights, per_step=axes == 2)

    def epoch(self, rng: np.random.Generator | None = None) -> Epoch:
        """Draw an order and return its batches.

        Parameters
        ----------
        rng : numpy.random.Generator, optional
            Default: the batches are in the order of the data, without bucketing.

        Returns
        -------
        Epoch
            Of `Batch`. `lengths` is None if all sequences of the data set have the same.
        """
        order = self._rows if rng is None or not self._shuffle else self._shuffled(rng)
        return Epoch(partial(self._batch, order), self._starts)

    def _shuffled(self, rng: np.random.Generator) -> Array:
        order = permuted(self._rows, rng)
        whole = order[: len(order) - len(order) % self._batch_size]
        if self._ragged and self._bucket > 1 and len(whole):
            pool = np.arange(len(whole)) // (self._batch_size * self._bucket)
            by_length = whole[np.lexsort((self._lengths[whole], pool))]
            whole[:] = rng.permutation(by_length.reshape(-1, self._batch_size)).ravel()
        return order

    def _batch(self, order: Array, start: int) -> Batch:
        rows = order[start : start + self._batch_size]
        lengths = self._lengths[rows]
        return Batch(
            self._x.take(rows, lengths),
            None if self._targets is None else self._targets.take(rows, lengths),
            lengths if self._ragged else None,
            None if self._weights is None else self._weights.take(rows, lengths),
        )


def _axes(name: str, values: Any) -> int:
    """Count the axes of an array, or of a list of arrays and the arrays in it."""
    if is_list(values) and len(values):
        return 1 + numbers(f"{name}[0]", values[0]).ndim
    return numbers(name, values).ndim


def _check_count(name: str, got: int, expected: int) -> None:
    if got != expected:
        raise ValueError(f"{name}: expected one for each of the {expected} sequences, got {got}")


def _integers(name: str, values: ArrayLike) -> Array:
    array = np.asarray(values)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name}: expected integers, got {array.dtype}")
    return array.astype(np.int64)


def _checked_lengths(lengths: ArrayLike | None, count: int, steps: int) -> Array:
    if lengths is None:
        return np.full(count, steps, np.int64)
    if np.asarray(lengths).dtype == np.bool_:
        return as_lengths(lengths, count, steps)
    array = _integers("lengths", lengths)
    if array.shape != (count,):
        raise ValueError(f"lengths: expected ({count},), got {array.shape}")
    _check_range("lengths", array, steps)
    return array


def _checked_rows(rows: ArrayLike | None, count: int) -> Array:
    if rows is None:
        return np.arange(count)
    array = _integers("rows", rows)
    if array.ndim != 1 or not len(array):
        raise ValueError(f"rows: expected at least one index, (K,), got {array.shape}")
    _check_range("rows", array, count - 1)
    return array


def _check_range(name: str, array: Array, last: int) -> None:
    wrong = np.flatnonzero((array < 0) | (array > last))
    if len(wrong):
        raise ValueError(f"{name}[{wrong[0]}]: expected 0 to {last}, got {array[wrong[0]]}")


def split(
    *data: Any, validation: float = 0.1, rng: np.random.Generator | int, groups: ArrayLike | None = None
) -> tuple[Any, ...]:
    """Set sequences aside for validation, drawn at random. For one long series see `split_series`.

    Parameters
    ----------
    *data : list, tuple or array_like, each with N sequences
        Such as x, targets and lengths. A list gives lists, an array gives arrays, which are copies: to split memory
        maps, split ``np.arange(N)`` and give each part to `Sequences` as `rows`.
    validation : float
        Fraction set aside, in (0, 1): of the sequences, or of the groups. At least one is, and at least one is not.
    rng : numpy.random.Generator or int
        Source of the draw. It has no default, since a program that is started again has to set aside the same
        sequences.
    groups : array_like, (N,), optional
        A label of each sequence, such as the person it was recorded from. Those of one label stay together, so that
        validation is done on persons that training has not seen.

    Returns
    -------
    tuple
        Training and validation part of the first of `data`, then of the second, ... as scikit-learn's
        ``train_test_split`` returns them. Each is in the order of the data.

    Raises
    ------
    ValueError
        If `data` or `groups` differ in their numbers of sequences, there is one sequence or group alone, or
        `validation` is not between 0 and 1.

    Examples
    --------
    >>> import numpy as np
    >>> import rnncore as rc
    >>> x, targets = [[3, 1], [4], [1, 5, 9], [2, 6]], np.array([0, 1, 1, 0])
    >>> x_train, x_val, targets_train, targets_val = rc.data.split(x, targets, validation=0.25, rng=0)
    >>> x_train, x_val
    ([[3, 1], [4], [2, 6]], [[1, 5, 9]])
    >>> targets_train, targets_val
    (array([0, 1, 0]), array([1]))
    """
    columns = [column if isinstance(column, list | tuple) else np.asarray(column) for column in data]
    count = same_length("data", columns, "sequences")
    labels = np.arange(count) if groups is None else np.asarray(groups)
    if labels.shape != (count,):
        raise ValueError(f"groups: expected ({count},), got {labels.shape}")
    _, labels = np.unique(labels, return_inverse=True)
    classes = int(labels.max(initial=-1)) + 1
    aside = np.random.default_rng(rng).permutation(classes)[: held_out(validation, classes, "sequences or groups")]
    chosen = np.isin(labels, aside)
    return tuple(_take(column, np.flatnonzero(part)) for column in columns for part in (~chosen, chosen))


def _take(column: Any, rows: Array) -> Any:
    return column[rows] if isinstance(column, np.ndarray) else [column[row] for row in rows]
