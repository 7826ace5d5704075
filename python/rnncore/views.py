"""Named views into a flat vector: how layers keep their parameters and gradients."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Views"]

Array = NDArray[Any]


class Views(Mapping[str, Array]):
    """Named views into one flat vector. What is assigned to a name is copied into the vector.

    Parameters
    ----------
    flat : ndarray, (P,) or (M, P)
        The vector, or one for each of M networks: views then have an axis of M in front.
    shapes : mapping of str to tuple of int
        Names and shapes of the views, in their order in the vector, without that axis.

    Examples
    --------
    >>> import numpy as np
    >>> flat = np.zeros(5)
    >>> views = Views(flat, {"weight": (2, 2), "bias": (1,)})
    >>> views["weight"] = [[1, 2], [3, 4]]
    >>> views["bias"] += 7
    >>> flat
    array([1., 2., 3., 4., 7.])
    """

    __slots__ = ("_arrays",)

    def __init__(self, flat: Array, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self._arrays: dict[str, Array] = {}
        begin = 0
        for name, shape in shapes.items():
            end = begin + math.prod(shape)
            self._arrays[name] = flat[..., begin:end].reshape(flat.shape[:-1] + shape)
            begin = end

    def __getitem__(self, name: str) -> Array:
        """Return the view of this name."""
        return self._arrays[name]

    def __setitem__(self, name: str, value: ArrayLike) -> None:
        """Copy a value into the view of this name, which must have its shape."""
        array = self._arrays[name]
        if value is array:  # after an operation in place
            return
        if np.shape(value) != array.shape:
            raise ValueError(f"{name}: expected shape {array.shape}, got {np.shape(value)}")
        array[...] = value

    def __iter__(self) -> Iterator[str]:
        """Go through the names."""
        return iter(self._arrays)

    def __len__(self) -> int:
        """Return the number of views."""
        return len(self._arrays)

    def __repr__(self) -> str:
        """Return names and shapes."""
        return f"Views({ ({name: array.shape for name, array in self._arrays.items()}) })"
