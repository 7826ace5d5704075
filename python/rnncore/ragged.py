"""Sequences of any lengths without padding, and the doors by which functions and layers take lists of them.

Inside the package such sequences go from layer to layer as `Ragged`: one array with a row for each step, and the core's
own record of which row is which step of which sequence. Rows lie step by step in `Packed`, which users see too, and one
sequence after the other in `Joined`, which stands for a list of arrays. No conversion of numbers, no computation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin
from numpy.typing import ArrayLike, NDArray

from rnncore import _core

__all__: list[str] = []  # for modules of this package

Array = NDArray[Any]
State = Any
Run = Callable[..., tuple[Any, State]]
Vjp = Callable[..., tuple[tuple[Any, State], Callable[..., tuple[Any, State]]]]


class Ragged(NDArrayOperatorsMixin):
    """N sequences of any lengths in one array that has a row for each step. What `Packed` and `Joined` share.

    Functions of single elements work as on arrays: ``2 * a``, ``a + b`` of two with the same structure,
    ``np.tanh(a)``.
    """

    __slots__ = ("_data", "_rows")

    def __init__(self, data: Any, rows: _core.Ragged) -> None:
        self._data = data
        self._rows = rows

    @property
    def data(self) -> Array:
        """The rows, (R, ...)."""
        data: Array = self._data
        return data

    @property
    def rows(self) -> _core.Ragged:
        """What the core takes in place of lengths."""
        return self._rows

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Steps of each sequence, (N,), in the order of the caller."""
        return self._rows.lengths

    @property
    def N(self) -> int:
        """The number of sequences."""
        return self._rows.sequences

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the elements."""
        return self.data.dtype

    def __len__(self) -> int:
        """Return the number of sequences."""
        return self.N

    def _joined_index(self) -> Array | slice:
        """Return where the rows are in the order of the sequences, each from its first step to its last."""
        raise NotImplementedError

    def with_data(self, data: Any) -> Self:
        """Return sequences of the same lengths, in rows of the same order.

        Parameters
        ----------
        data : array_like, (R, ...)
            The rows. Not copied if it is an array.

        Raises
        ------
        ValueError
            If it has another number of rows.
        """
        array = np.asarray(data)
        if array.shape[:1] != (self._rows.rows,):
            raise ValueError(f"data: expected {self._rows.rows} rows, got {array.shape}")
        return self._with(array)

    def _with(self, data: Any) -> Self:
        """Return these sequences with other rows, which are not checked."""
        other = type(self).__new__(type(self))
        other._data, other._rows = data, self._rows
        return other

    def structure(self, lengths: Any) -> _core.Ragged:
        """Return what the core takes in place of lengths, of which there must be none beside the sequences' own."""
        if lengths is not None:
            raise ValueError(f"lengths: expected None, since x has its own, got {type(lengths).__name__}")
        return self._rows

    def arranged(self, name: str, value: Any) -> Array:
        """Return the rows of sequences of the same lengths, in the order of the rows here.

        Parameters
        ----------
        name : str
            Of the argument, for messages.
        value : Ragged of the same structure, or sequence of N arrays (T_n, ...)

        Raises
        ------
        ValueError, TypeError
            If it is something else.
        """
        if isinstance(value, Ragged):
            rows, own = value._rows, self._rows
            if rows is not own:
                same_order = type(value) is type(self) and np.array_equal(rows.order, own.order)
                if not (same_order and np.array_equal(rows.lengths, own.lengths)):
                    raise ValueError(f"{name}: expected the structure of {self!r}, got {value!r}")
            return value.data
        if not isinstance(value, list | tuple):
            raise TypeError(f"{name}: expected a list of {self.N} arrays or {type(self).__name__}, got {_kind(value)}")
        joined = Joined.of(name, [np.asarray(array) for array in value]) if len(value) == self.N and value else None
        if joined is None or not np.array_equal(joined.lengths, self.lengths):
            got = [len(array) for array in value] if joined is not None else f"{len(value)} arrays"
            raise ValueError(f"{name}: expected arrays of {self.lengths.tolist()} steps, got {got}")
        return self.from_joined(joined.data).data

    def from_joined(self, data: Array) -> Self:
        """Return sequences of these lengths, whose rows come one sequence after the other."""
        index = self._joined_index()
        if isinstance(index, slice):
            return self.with_data(data)
        rows = np.empty_like(data)
        rows[index] = data
        return self.with_data(rows)

    def sequence_of_rows(self) -> Array:
        """Return which sequence each row belongs to, (R,)."""
        sequence = np.empty(self._rows.rows, np.int64)
        sequence[self._joined_index()] = np.repeat(np.arange(self.N), self.lengths)
        return sequence

    def last_rows(self) -> tuple[Array, Array]:
        """Return the sequences that have a step, and the row of the last step of each."""
        lengths = self.lengths
        some = np.flatnonzero(lengths)
        last = np.cumsum(lengths)[some] - 1
        index = self._joined_index()
        return some, last if isinstance(index, slice) else index[last]

    def to_list(self) -> list[Array]:
        """Return the sequences, (T_n, ...) each; views if their steps lie side by side."""
        data, ends = self.data[self._joined_index()], np.cumsum(self.lengths).tolist()
        return [data[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]

    def parts(self, size: int) -> list[Ragged]:
        """Return the sequences in parts of so many at most."""
        if size >= self.N:
            return [self]
        arrays = self.to_list()
        return [Joined.of("sequences", arrays[n : n + size]) for n in range(0, self.N, size)]

    def to_padded(
        self, steps: int | None = None, batch_first: bool = True, fill: float = 0
    ) -> tuple[Array, NDArray[np.int64]]:
        """Return the sequences in one array with padding, and their lengths.

        Parameters
        ----------
        steps : int, optional
            T of the array. Default: the longest length.
        batch_first : bool
            Whether it is (N, T, ...) or (T, N, ...).
        fill : float
            What padded steps hold.

        Returns
        -------
        x : ndarray, (N, T, ...)
            A view where all sequences have T steps and lie in this order already.
        lengths : ndarray of int64, (N,)

        Raises
        ------
        ValueError
            If a sequence has more than `steps` steps.
        """
        lengths, data = self.lengths, self.data
        longest = int(lengths.max(initial=0))
        T = longest if steps is None else int(steps)
        if longest > T:
            raise ValueError(f"steps: expected {longest} or more, the steps of the longest sequence, got {steps}")
        shape = (self.N, T) if batch_first else (T, self.N)
        if (lengths == T).all() and self._lies_as_padded(batch_first):
            return data.reshape(*shape, *data.shape[1:]), lengths
        x = np.full((*shape, *data.shape[1:]), fill, data.dtype)
        by_sequence = x if batch_first else x.swapaxes(0, 1)
        by_sequence[np.arange(T) < lengths[:, None]] = data[self._joined_index()]
        return x, lengths

    def _lies_as_padded(self, batch_first: bool) -> bool:
        """Whether the rows of sequences of equal length lie as in an array with the axis of the batch first or not."""
        raise NotImplementedError

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        """Apply a function of single elements to the rows."""
        if method != "__call__" or ufunc.signature is not None or "out" in options:
            return NotImplemented
        arrays = []
        for value in inputs:
            if isinstance(value, Ragged):
                arrays.append(self.arranged("operand", value))
            elif np.ndim(value) < self.data.ndim:
                arrays.append(value)
            else:
                raise ValueError(f"operand: expected fewer axes than the rows {self.data.shape}, got {np.shape(value)}")
        result = ufunc(*arrays, **options)
        return tuple(map(self.with_data, result)) if isinstance(result, tuple) else self.with_data(result)

    def __array__(self, *_: Any, **__: Any) -> Array:
        """Raise: the rows are no array of batch and time."""
        raise TypeError(f"expected an array, got {self!r}; its rows are `data`, and `to_padded` makes an array")

    def __repr__(self) -> str:
        """Return the number of sequences and steps, shape and dtype of the rows."""
        return (
            f"{type(self).__name__}({self.N} sequences, {self._rows.rows} steps, data={self.data.dtype} "
            f"{self.data.shape})"
        )


class Joined(Ragged):
    """What stands for a list of arrays inside the package: its sequences one after the other."""

    __slots__ = ()

    @classmethod
    def of(cls, name: str, arrays: Sequence[Array]) -> Joined:
        """Join arrays (T_n, ...), of which there is at least one. A single one is not copied."""
        shape = arrays[0].shape[1:]
        for n, array in enumerate(arrays):
            if array.ndim == 0 or array.shape[1:] != shape:
                expected = "(T, ...)" if not arrays[0].ndim else f"(T{''.join(f', {size}' for size in shape)})"
                raise ValueError(f"{name}[{n}]: expected {expected} as {name}[0], got {array.shape}")
        lengths = np.array([len(array) for array in arrays], np.int64)
        return cls(arrays[0] if len(arrays) == 1 else np.concatenate(arrays), _core.Ragged.joined(lengths))

    def _joined_index(self) -> slice:
        return slice(None)

    def _lies_as_padded(self, batch_first: bool) -> bool:
        return batch_first or self.N == 1


def is_list(x: Any, shape: Callable[[], tuple[Any, ...]]) -> bool:
    """Whether x is a list of sequences, arrays (T, ...), for what takes batches of the shape (N, T, ...).

    A list of single steps, or of nested lists of numbers, is an array_like as ever.
    """
    return isinstance(x, list | tuple) and shape()[1:2] == ("T",) and _has_axes(x, len(shape()) - 1)


def same_kind(name: str, x: Any) -> tuple[Ragged | None, Callable[[Any], Any]]:
    """Return `Ragged` or a list of sequences (T, C, ...) as `Ragged`, and what gives a result the kind of x.

    None for anything else.
    """
    if isinstance(x, Ragged):
        return x, _itself
    if isinstance(x, list | tuple) and _has_axes(x, 2):
        return Joined.of(name, x), listed
    return None, _itself


def _has_axes(x: Sequence[Any], least: int) -> bool:
    """Whether these are arrays, and some have so many axes."""
    return all(isinstance(item, np.ndarray) for item in x) and any(item.ndim >= least for item in x)


def listed(series: Any) -> Any:
    """Return a list of what was made of one; anything else, such as an array (N, C), as it is."""
    return series.to_list() if isinstance(series, Joined) else series


def _itself(value: Any) -> Any:
    return value


def run_list(run: Run, x: Sequence[Array], state: State, lengths: ArrayLike | None, *resets: Any) -> tuple[Any, State]:
    """Run on a list of arrays what runs on `Ragged`."""
    series = Joined.of("x", x)
    series.structure(lengths)
    y, new = run(series, state, None, *_given(resets))
    return listed(y), new


def vjp_list(
    vjp: Vjp, x: Sequence[Array], state: State, lengths: ArrayLike | None, *resets: Any
) -> tuple[tuple[Any, State], Callable[..., Any]]:
    """Do the same for training: gradients of series are lists too."""
    series = Joined.of("x", x)
    series.structure(lengths)
    (y, new), pull_back = vjp(series, state, None, *_given(resets))
    has_steps = isinstance(y, Ragged)

    def pull_back_list(dy: Any = None, dstate: State = None) -> Any:
        if dy is not None and has_steps:
            dy = series.with_data(series.arranged("dy", dy))
        dx, *dstates = pull_back(dy, dstate)
        return listed(dx), *dstates

    return (listed(y), new), pull_back_list


def _given(resets: tuple[Any, ...]) -> tuple[Any, ...]:
    """Nothing where there are none: not everything that runs knows of resets."""
    return resets if any(part is not None for part in resets) else ()


def side_by_side(outputs: Sequence[Any]) -> tuple[Any, list[int]]:
    """Join arrays, or all of them `Ragged`, along the last axis; return their sizes there too."""
    arrays = [y.data if isinstance(y, Ragged) else y for y in outputs]
    joined = np.concatenate(arrays, axis=-1)
    first = outputs[0]
    return first.with_data(joined) if isinstance(first, Ragged) else joined, [array.shape[-1] for array in arrays]


def apart(series: Any, sizes: Sequence[int]) -> list[Any]:
    """Cut along the last axis what was joined there."""
    if isinstance(series, Ragged):
        return [series.with_data(part) for part in apart(series.data, sizes)]
    return np.split(np.asarray(series), np.cumsum(sizes)[:-1], axis=-1)


def _kind(value: Any) -> str:
    return f"an array {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
