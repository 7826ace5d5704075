"""Arguments of functions on arrays as the core takes them. This is the only module that converts."""

from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "Array",
    "as_array",
    "as_lengths",
    "as_parts",
    "as_real",
    "as_resets",
    "as_scalars",
    "batched",
    "named",
    "scalar_dtype",
    "valid_steps",
]

Array = NDArray[Any]

_FLOAT32 = np.dtype(np.float32)
_FLOAT64 = np.dtype(np.float64)


def as_real(name: str, value: ArrayLike) -> Array:
    """Prepare the array whose dtype, float32 or float64, is that of the computation."""
    w = np.asarray(value)
    return as_array(name, w, _real_dtype(name, w))


def _real_dtype(name: str, w: Array) -> np.dtype[Any]:
    dtype = w.dtype
    if dtype != _FLOAT32 and dtype != _FLOAT64:
        dtype = np.result_type(dtype, _FLOAT32) if dtype.kind in "biuf" else dtype
        if dtype != _FLOAT32 and dtype != _FLOAT64:
            raise TypeError(f"{name}: expected real numbers of at most 64 bits, got {w.dtype}")
    return dtype


def as_parts(name: str, value: ArrayLike, dtype: np.dtype[Any] | None = None) -> Array:
    """Prepare an array with a part for each network: parts are contiguous, but may lie apart from each other."""
    array = np.asarray(value)
    dtype = _real_dtype(name, array) if dtype is None else dtype
    if array.ndim and array.size and array.dtype == dtype and array.flags.aligned and array[0].flags.c_contiguous:
        return array
    return as_array(name, array, dtype)


def as_array(name: str, value: ArrayLike, dtype: np.dtype[Any]) -> Array:
    """Prepare an array of this dtype: C-contiguous and aligned. No copy if it is so already."""
    array = np.asarray(value)
    if array.dtype != dtype and array.dtype.kind not in "biuf":
        raise TypeError(f"{name}: expected real numbers, got {array.dtype}")
    return np.require(array, dtype, ["C", "A"]) if not _fits(array, dtype) else array


def _fits(array: Array, dtype: np.dtype[Any]) -> bool:
    return array.dtype == dtype and array.flags.carray


def as_lengths(value: ArrayLike, N: int, T: int, unbatched: bool = False) -> NDArray[np.int64]:
    """Prepare the numbers of valid steps, (N,) from 0 to T, or what says it of one sequence alone.

    Or a mask (N, T) that is True at valid steps, which are the first of each row: those are counted.
    """
    array = np.asarray(value)
    if array.dtype == np.bool_:
        return _counts(batched("lengths", array, 1, 0) if unbatched else array, N, T)
    if array.dtype.kind not in "iu" and array.size:
        raise TypeError(f"lengths: expected integers, got {array.dtype}")
    if unbatched:
        array = batched("lengths", array, 0, 0)
    if array.shape != (N,):
        raise ValueError(f"lengths: expected integers ({N},), got {array.dtype} {array.shape}")
    wrong = np.flatnonzero((array < 0) | (array > T))
    if wrong.size:
        raise ValueError(f"lengths: expected values from 0 to T = {T}, got {array[wrong[0]]} at row {wrong[0]}")
    return np.ascontiguousarray(array, dtype=np.int64)


def _counts(mask: Array, N: int, T: int) -> NDArray[np.int64]:
    """Return the number of steps at the beginning of each row that are True; there must be none after them."""
    if mask.shape != (N, T):
        raise ValueError(f"lengths: expected a mask ({N}, {T}), got bool {mask.shape}")
    rows, steps = np.nonzero(mask[:, 1:] & ~mask[:, :-1])
    if rows.size:
        raise ValueError(
            "lengths: expected a mask that is True up to some step of each row and False from there on, "
            f"got True at step {steps[0] + 1} of row {rows[0]} after False"
        )
    counts: NDArray[np.int64] = mask.sum(axis=1, dtype=np.int64)
    return counts


def valid_steps(lengths: Array, T: int) -> Array:
    """Return whether each step is one of its sequence, (N, T)."""
    return np.arange(T) < lengths[:, None]


def as_resets(value: ArrayLike, batch_axis: int | None) -> Array:
    """Prepare the mask of steps before which states start anew; a batch axis of 1 is to be added where one is named."""
    array = np.asarray(value)
    if array.dtype != np.bool_:
        raise TypeError(f"reset_mask: expected bool, got {array.dtype}")
    array = np.require(array, None, ["C", "A"])
    return array if batch_axis is None else batched("reset_mask", array, 1, batch_axis)


def batched(name: str, array: Array, ndim: int, axis: int) -> Array:
    """Give an array of an unbatched sequence a batch axis of 1."""
    if array.ndim != ndim:
        raise ValueError(f"{name}: expected {ndim} dimensions since x has no batch axis, got {array.shape}")
    return np.expand_dims(array, axis)


def scalar_dtype(name: str, array: Array, is_complex: bool) -> np.dtype[Any]:
    """Return the dtype of a computation in this array's precision, complex if it is or has to be."""
    dtype = np.result_type(array.dtype, np.float32) if array.dtype.kind in "biufc" else array.dtype
    if dtype.char not in "fdFD":
        raise TypeError(f"{name}: expected real or complex numbers of at most 64 bits a part, got {array.dtype}")
    return np.result_type(dtype, np.complex64) if is_complex else dtype


def as_scalars(name: str, value: Array, dtype: np.dtype[Any]) -> Array:
    """Prepare an array of this dtype, real or complex: C-contiguous and aligned. No copy if it is so already."""
    if value.dtype.kind not in "biufc" or (value.dtype.kind == "c") > (dtype.kind == "c"):
        expected = "real or complex" if dtype.kind == "c" else "real"
        raise TypeError(f"{name}: expected {expected} numbers, got {value.dtype}")
    return np.require(value, dtype, ["C", "A"])


if TYPE_CHECKING:
    _Named = TypeVar("_Named", bound=tuple[Any, ...])

    def named(kind: type[_Named], values: tuple[Any, ...]) -> _Named:
        """Make a named tuple of a tuple: in half the time of calling its class with the elements."""
else:
    named = tuple.__new__
