"""What training data is made of: batches, epochs of them, and the one method that a data set has.

The form alone; `sequences` and `series` have the data sets, and `data` is where to import all of it from.
"""

from __future__ import annotations  # np.random in annotations would import it

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol, overload

import numpy as np
from numpy.typing import NDArray

__all__ = ["Batch", "DataSet", "Epoch"]

Array = NDArray[Any]


class Batch(NamedTuple):
    """Some sequences side by side, as a model and a loss take them: n rows of at most T steps.

    Attributes
    ----------
    x : ndarray, (n, T, ...), a pair of such, or Trees
        Inputs; zero at padded steps.
    targets : ndarray (n, ...) or (n, T, ...), list of ndarray, or None
        What the outputs are compared with: of each sequence, of each step (zero at padded ones), or one array of any
        length for each sequence, as CTC takes them.
    lengths : ndarray of int64, (n,), or a pair of such, or None
        Valid steps of each sequence. None: all T are.
    weights : ndarray (n,) or (n, T), Trees, or None
        How much each sequence or step counts in the loss. None: all alike.
    carry : bool
        Whether row k continues row k of the batch before, so that the recurrent state is carried over. If not, states
        start from zero.
    """

    x: Any
    targets: Any = None
    lengths: Any = None
    weights: Any = None
    carry: bool = False


class DataSet(Protocol):
    """Whatever has this method can be trained on; the data sets of this package are examples.

    Methods
    -------
    epoch(rng=None)
        The batches of one pass over the data, in an order drawn from `rng`, or in the order of the data if it is None.
        All draws happen in this call and none when a batch is indexed: the state of `rng` before it and the index of
        a batch tell everything, so a run that was interrupted goes on with the same bits.
    """

    def epoch(self, rng: np.random.Generator | None = None) -> Sequence[Batch]:
        """Return the batches of one pass over the data."""
        ...


class Epoch(Sequence[Batch]):
    """The batches of one pass over a data set, each made when it is indexed. A slice is an Epoch too.

    Parameters
    ----------
    make : callable
        ``make(start)`` returns the batch of that start. Called at each indexing, from any thread.
    starts : range
        One start for each batch.

    Examples
    --------
    >>> import numpy as np
    >>> import rnncore as rc
    >>> epoch = rc.data.Sequences(np.ones((10, 5, 3)), batch_size=4).epoch()
    >>> len(epoch), epoch[0].x.shape, epoch[-1].x.shape
    (3, (4, 5, 3), (2, 5, 3))
    >>> [batch.x.shape[0] for batch in epoch[1:]]
    [4, 2]
    """

    def __init__(self, make: Callable[[int], Batch], starts: range) -> None:
        self._make = make
        self._starts = starts

    def __len__(self) -> int:
        """Return the number of batches."""
        return len(self._starts)

    @overload
    def __getitem__(self, index: int) -> Batch: ...
    @overload
    def __getitem__(self, index: slice) -> Epoch: ...
    def __getitem__(self, index: int | slice) -> Batch | Epoch:
        """Make a batch."""
        if isinstance(index, slice):
            return Epoch(self._make, self._starts[index])
        return self._make(self._starts[index])

    def __iter__(self) -> Iterator[Batch]:
        """Make one batch after the other."""
        return map(self._make, self._starts)  # Sequence's own would take an IndexError of `make` for the end


class Batches:
    """What the data sets share: items (sequences, windows, steps) cut into batches of `size`, the last one shorter."""

    def __init__(self, items: int, size: int, drop_last: bool) -> None:
        if drop_last and items < size:
            raise ValueError(f"drop_last: expected at least one whole batch, got {items} of {size} items")
        self._starts = range(0, items - items % size if drop_last else items, size)

    def epoch(self, rng: np.random.Generator | None = None) -> Epoch:
        """Return the batches of one pass over the data."""
        raise NotImplementedError

    def __iter__(self) -> Iterator[Batch]:
        """Go through the batches in the order of the data."""
        return iter(self.epoch())


def permuted(order: Array | int, rng: np.random.Generator) -> Array:
    """Return these indices, or those from 0 to a number, in random order."""
    if not isinstance(rng, np.random.Generator):
        raise TypeError(f"rng: expected a numpy.random.Generator or None, got {type(rng).__name__}")
    return rng.permutation(order)


def positive(name: str, value: int) -> int:
    """Check a number of things of which there is at least one."""
    if not isinstance(value, int | np.integer) or value < 1:
        raise ValueError(f"{name}: expected a positive integer, got {value!r}")
    return int(value)


def is_list(values: Any) -> bool:
    """Whether these are several values, each an array of its own, instead of one array."""
    return isinstance(values, list | tuple) or (isinstance(values, np.ndarray) and values.dtype == object)


def numbers(name: str, value: Any) -> Array:
    """`value` as a plain array of real numbers: a view if it is an array, so a memory map is not read."""
    try:
        array = np.asarray(value)
    except ValueError as error:  # NumPy's word for nested lists of unequal lengths
        raise ValueError(f"{name}: expected an array of numbers, got a ragged {type(value).__name__}") from error
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name}: expected real numbers, got {array.dtype}")
    return array


def series_of(name: str, values: Any) -> tuple[list[Array], np.dtype[Any]]:
    """Check a list of arrays (T_i, ...) that differ in length alone; return them, and the dtype that holds them all."""
    arrays = [numbers(f"{name}[{i}]", value) for i, value in enumerate(values)]
    if not arrays:
        raise ValueError(f"{name}: expected at least one sequence, got none")
    # what has no elements has no dtype to speak of: np.asarray([]) is float64
    model = next((i for i, array in enumerate(arrays) if array.size), 0)
    kind, shape = arrays[model].dtype.kind, arrays[model].shape[1:]
    for i, array in enumerate(arrays):
        if array.ndim == 0:
            raise ValueError(f"{name}[{i}]: expected an array (T, ...), got a single number")
        if array.shape[1:] != shape:
            raise ValueError(
                f"{name}[{i}]: expected steps of shape {shape} as in {name}[{model}], got {array.shape[1:]}"
            )
        if array.size and array.dtype.kind != kind:
            raise TypeError(
                f"{name}[{i}]: expected a kind of {arrays[model].dtype} as {name}[{model}], got {array.dtype}"
            )
    return arrays, np.result_type(*{array.dtype for array in arrays if array.size} or {arrays[0].dtype})


def same_length(name: str, columns: Sequence[Any], what: str) -> int:
    """Check lists and arrays that belong together, element for element; return how many elements each has."""
    counts = [len(column) if is_list(column) or np.ndim(column) else 0 for column in columns]
    if not counts:
        raise ValueError(f"{name}: expected at least one list or array, got none")
    for i, count in enumerate(counts):
        if count != counts[0]:
            raise ValueError(f"{name}[{i}]: expected {counts[0]} {what} as {name}[0] has, got {count}")
    return counts[0]


def with_channel(array: Array, dtype: np.dtype[Any], batch_axes: int = 0) -> Array:
    """Return inputs (T,) of floats as (T, 1), one channel; integers are tokens and stay as they are."""
    return array[..., np.newaxis] if array.ndim == 1 + batch_axes and dtype.kind == "f" else array


def padded(pieces: list[Array], steps: int, dtype: np.dtype[Any]) -> Array:
    """Copy pieces (T_i, ...) into one array (n, steps, ...), with zeros after the end of each."""
    batch = np.zeros((len(pieces), steps, *pieces[0].shape[1:]), dtype)
    for row, piece in zip(batch, pieces, strict=True):
        row[: len(piece)] = piece
    return batch


def held_out(validation: float, count: int, what: str) -> int:
    """How many of `count` things the fraction `validation` sets aside: neither none nor all."""
    if not 0 < validation < 1:
        raise ValueError(f"validation: expected a fraction between 0 and 1, got {validation!r}")
    if count < 2:
        raise ValueError(f"validation: expected at least 2 {what} to split, got {count}")
    return min(max(1, round(validation * count)), count - 1)
