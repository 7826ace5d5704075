"""Packed sequences: those of torch's `PackedSequence`, in NumPy, with sequences of no steps too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rnncore import _core
from rnncore._conversion import as_lengths
from rnncore.ragged import Array, Joined, Ragged

__all__ = ["Packed"]


class Packed(Ragged):
    """N sequences of any lengths without padding: the first step of all, then the second of those that have one, ...

    The layout of torch's ``PackedSequence`` and of the core itself, so that functions and layers read and write the
    rows where they are. Sequences are sorted by length inside, and keep their order outside: lengths, states and what
    is one vector for each sequence are in the order of the caller. Immutable, but for the numbers in `data`.

    Functions of single elements work as on arrays: ``2 * a``, ``a + b`` of two with the same structure,
    ``np.tanh(a)``.

    Parameters
    ----------
    data : array_like, (R, ...)
        The rows, one for each step of each sequence. Not copied if it is an array.
    batch_sizes : array_like of int, (T,)
        Sequences that have a step t: positive, and never more than at the step before.
    sorted_indices : array_like of int, (N,), optional
        The caller's index of each sequence, longest first. Sequences of no steps come last: those beyond
        ``batch_sizes[0]``, which torch cannot have. Default: 0 to ``batch_sizes[0] - 1``.
    unsorted_indices : array_like of int, (N,), optional
        The inverse of `sorted_indices`, which is all that is taken for granted; must be it.

    Attributes
    ----------
    data : ndarray, (R, ...)
    batch_sizes, sorted_indices, unsorted_indices : ndarray of int64
        As above. Read-only.
    lengths : ndarray of int64, (N,)
        Steps of each sequence, in the order of the caller.
    N : int
        The number of sequences, as ``len()``.
    dtype : dtype
        That of `data`.

    Raises
    ------
    ValueError, TypeError
        If the sizes grow or are not positive, the indices are not each of 0 to N - 1 once, or there are not as many
        rows as the sizes say.

    See Also
    --------
    rnncore.LSTM : Layers take lists of arrays as well, at the same cost but for a copy.

    Examples
    --------
    >>> import numpy as np
    >>> import rnncore as rc
    >>> packed = rc.Packed.from_list([np.zeros((2, 3)), np.ones((4, 3)), np.zeros((0, 3))])
    >>> packed
    Packed(3 sequences, 6 steps, data=float64 (6, 3))
    >>> packed.batch_sizes, packed.sorted_indices, packed.lengths
    (array([2, 2, 1, 1]), array([1, 0, 2]), array([2, 4, 0]))
    >>> y, h_n = rc.GRU(3, 8, rng=0)(packed)
    >>> y, h_n.shape
    (Packed(3 sequences, 6 steps, data=float32 (6, 8)), (1, 3, 8))
    >>> [sequence.shape for sequence in y.to_list()]
    [(2, 8), (4, 8), (0, 8)]
    """

    __slots__ = ("_batch_sizes", "_sorted_indices")

    def __init__(
        self,
        data: ArrayLike,
        batch_sizes: ArrayLike,
        sorted_indices: ArrayLike | None = None,
        unsorted_indices: ArrayLike | None = None,
    ) -> None:
        sizes = _indices("batch_sizes", batch_sizes)
        order = _indices(
            "sorted_indices",
            np.arange(sizes[0] if sizes.size else 0) if sorted_indices is None else sorted_indices,
        )
        super().__init__(np.asarray(data), _core.Ragged.packed(sizes, order))
        self._batch_sizes, self._sorted_indices = sizes, order
        if self.data.shape[:1] != (self._rows.rows,):
            raise ValueError(f"data: expected {self._rows.rows} rows, the sum of batch_sizes, got {self.data.shape}")
        if unsorted_indices is not None:
            given = _indices("unsorted_indices", unsorted_indices)
            if not np.array_equal(given, self.unsorted_indices):
                raise ValueError("unsorted_indices: expected the inverse of sorted_indices")

    def _with(self, data: Any) -> Packed:
        other = super()._with(data)
        other._batch_sizes, other._sorted_indices = self._batch_sizes, self._sorted_indices
        return other

    @property
    def batch_sizes(self) -> NDArray[np.int64]:
        """Sequences that have a step t, (T,)."""
        return self._batch_sizes

    @property
    def sorted_indices(self) -> NDArray[np.int64]:
        """The caller's index of each sequence, longest first, (N,)."""
        return self._sorted_indices

    @property
    def unsorted_indices(self) -> NDArray[np.int64]:
        """Where each of the caller's sequences is in that order, (N,)."""
        inverse = np.empty_like(self._sorted_indices)
        inverse[self._sorted_indices] = np.arange(len(inverse))
        return inverse

    # ------------------------------------------------------------------------------------------------- from

    @classmethod
    def from_padded(cls, x: ArrayLike, lengths: ArrayLike | None = None, batch_first: bool = True) -> Packed:
        """Pack an array with padding.

        Parameters
        ----------
        x : array_like, (N, T, ...)
            (T, N, ...) if not `batch_first`.
        lengths : array_like of int (N,) or of bool (N, T), optional
            Valid steps of each sequence, 0 to T, or which steps are valid, a first part of each row. Default: T for
            all.
        batch_first : bool
            Whether the batch axis comes first or the time axis.

        Returns
        -------
        Packed
            Its data is a view where that is possible: of one sequence, or of sequences of equal length if the time axis
            comes first.

        Raises
        ------
        ValueError, TypeError
            If x has no axes of batch and time, or lengths do not fit.

        Examples
        --------
        >>> import numpy as np
        >>> import rnncore as rc
        >>> rc.Packed.from_padded([[1, 2, 0], [3, 4, 5]], [2, 3]).data
        array([3, 1, 4, 2, 5])
        """
        array = np.asarray(x)
        if array.ndim < 2:
            raise ValueError(f"x: expected {'(N, T, ...)' if batch_first else '(T, N, ...)'}, got {array.shape}")
        N, T = array.shape[:2] if batch_first else array.shape[1::-1]
        steps = np.full(N, T, np.int64) if lengths is None else as_lengths(lengths, N, T)
        sizes, order = _structure(steps)
        longest = len(sizes)
        if (steps == longest).all() and (N == 1 or longest == 1 or not batch_first):
            by_step = array.swapaxes(0, 1) if batch_first else array
            return cls(by_step[:longest].reshape(-1, *array.shape[2:]), sizes, order)
        step = np.repeat(np.arange(longest), sizes)
        sequence = order[_within(sizes)]
        rows = sequence * T + step if batch_first else step * N + sequence
        return cls(array.reshape(N * T, *array.shape[2:])[rows], sizes, order)

    @classmethod
    def from_list(cls, arrays: Sequence[ArrayLike]) -> Packed:
        """Pack a list of sequences.

        Parameters
        ----------
        arrays : sequence of array_like, (T_n, ...) each
            At least one, of the same shape but for T_n, which may be 0.

        Returns
        -------
        Packed
            Its data is a view if there is one sequence alone.

        Raises
        ------
        ValueError
            If there are none, or their steps differ in shape; the message names the first that does.

        Examples
        --------
        >>> import rnncore as rc
        >>> rc.Packed.from_list([[1, 2], [3, 4, 5]]).data
        array([3, 1, 4, 2, 5])
        """
        if not len(arrays):
            raise ValueError("arrays: expected at least one, got none")
        joined = Joined.of("arrays", [np.asarray(array) for array in arrays])
        sizes, order = _structure(joined.lengths)
        if len(arrays) == 1:
            return cls(joined.data, sizes, order)
        first = np.cumsum(joined.lengths) - joined.lengths
        return cls(joined.data[first[order][_within(sizes)] + np.repeat(np.arange(len(sizes)), sizes)], sizes, order)

    @classmethod
    def from_torch_packed(cls, packed: Any) -> Packed:
        """Take torch's ``PackedSequence``, whose memory is shared.

        Parameters
        ----------
        packed : torch.nn.utils.rnn.PackedSequence
            Or whatever has its four attributes, in memory that NumPy can read: detached, and not on another device.

        Returns
        -------
        Packed

        Raises
        ------
        TypeError
            If it has not.

        Examples
        --------
        With torch, ``rc.Packed.from_torch_packed(torch.nn.utils.rnn.pack_sequence(tensors, enforce_sorted=False))``.
        """
        try:
            data, *structure = packed.data, packed.batch_sizes, packed.sorted_indices, packed.unsorted_indices
        except AttributeError as error:
            raise TypeError(f"packed: expected a PackedSequence, got {type(packed).__name__}") from error
        sizes, order, inverse = (None if part is None else np.asarray(part) for part in structure)
        return cls(np.asarray(data), np.asarray(sizes), order, inverse)

    # --------------------------------------------------------------------------------------------------- to

    def _joined_index(self) -> Array | slice:
        if self.N == 1:
            return slice(None)
        first = np.cumsum(self._batch_sizes) - self._batch_sizes
        lengths = self.lengths
        return first[_within(lengths)] + np.repeat(self.unsorted_indices, lengths)

    def _lies_as_padded(self, batch_first: bool) -> bool:
        N = self.N
        one_axis = N == 1 or len(self._batch_sizes) == 1
        return (one_axis or not batch_first) and bool((self._sorted_indices == np.arange(N)).all())

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the arrays."""
        return Packed, (self._data, self._batch_sizes, self._sorted_indices)


def _indices(name: str, values: ArrayLike) -> NDArray[np.int64]:
    """Return integers (K,) that nobody can change."""
    array = np.asarray(values)
    if array.ndim != 1:
        raise ValueError(f"{name}: expected one axis, got {array.shape}")
    if array.dtype.kind not in "iu" and array.size:
        raise TypeError(f"{name}: expected integers, got {array.dtype}")
    own = array.astype(np.int64)
    own.flags.writeable = False
    return own


def _structure(lengths: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return batch_sizes and sorted_indices of sequences of these lengths; of equal ones the first comes first."""
    order = np.argsort(-lengths, kind="stable")
    ended = np.bincount(lengths, minlength=1)[:-1]  # after so many steps, but for the longest
    return len(lengths) - np.cumsum(ended), order


def _within(sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return 0 to size - 1 for one size after the other."""
    return np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
