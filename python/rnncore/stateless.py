"""What layers without recurrence have in common: each works on every step, and knows no state.

They take x (N, T, C), or any other leading axes where there are no lengths. With lengths, padded steps are neither
read nor computed, and zero in the output.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rnncore.layer import Array, Layer, PullBack, State, _no_state, _valid

__all__: list[str] = []  # for layers of this package


class Stateless(Layer):
    """A layer whose subclasses say in `_forward` what it computes, with the function that pulls dy back to dx."""

    def _forward(self, x: Array, lengths: Array | None, training: bool) -> tuple[Array, Callable[[Array], Any]]:
        raise NotImplementedError

    def _input(self, x: ArrayLike) -> Array:
        array = np.asarray(x)
        size = self.input_size
        if array.dtype.kind not in "biuf" or array.ndim == 0 or (size is not None and array.shape[-1] != size):
            expected = f"real numbers (..., {'C' if size is None else size})"
            raise ValueError(f"x: expected {expected}, got {array.dtype} {array.shape}")
        return array if array.dtype.kind == "f" else array.astype(self.dtype)

    def _lengths(self, lengths: ArrayLike | None, x: Array) -> Array | None:
        return _checked_lengths(lengths, x)

    def __call__(self, x: ArrayLike, lengths: ArrayLike | None = None) -> Array:
        """Run the layer on x. Nothing is kept and nothing is dropped out.

        Parameters
        ----------
        x : array_like, (N, T, input_size)
            The class says which other shapes it takes.
        lengths : array_like of int, (N,), optional
            Valid steps of each sequence, 0 to T. Default: T for all.

        Returns
        -------
        y : ndarray, (N, T, output_size)
        """
        array = self._input(x)
        return self._forward(array, self._lengths(lengths, array), False)[0]

    def vjp(
        self, x: ArrayLike, state: State = None, lengths: ArrayLike | None = None
    ) -> tuple[tuple[Array, State], PullBack]:
        """Run the layer on x for training, with the function that pulls gradients back; see `Layer.vjp`."""
        _no_state(self, state)
        array = self._input(x)
        y, back = self._forward(array, self._lengths(lengths, array), True)

        def pull_back(dy: ArrayLike | None = None, dstate: State = None) -> tuple[Any, State]:
            gradient = np.zeros_like(y) if dy is None else np.asarray(dy)
            if gradient.shape != y.shape:
                raise ValueError(f"dy: expected shape {y.shape}, got {gradient.shape}")
            return back(gradient), None

        return (y, None), pull_back


def _checked_lengths(lengths: ArrayLike | None, x: Array) -> Array | None:
    """Lengths as an array, or None if no step is padded."""
    if lengths is None:
        return None
    array = np.asarray(lengths)
    if x.ndim < 2 or array.shape != x.shape[:1] or array.dtype.kind not in "iu":
        raise ValueError(f"lengths: expected integers ({x.shape[0]},) for x {x.shape}, got {array.dtype} {array.shape}")
    T = x.shape[1]
    if array.size and (array.min() < 0 or array.max() > T):
        raise ValueError(f"lengths: expected values from 0 to T = {T}, got {array.min()} to {array.max()}")
    return None if (array == T).all() else array.astype(np.int64)


class RowWise(Stateless):
    """A layer that computes each row (C,) by itself; subclasses say in `_rows` how."""

    def _rows(self, x: Array, training: bool) -> tuple[Array, Callable[[Array], Array]]:
        raise NotImplementedError

    def _forward(self, x: Array, lengths: Array | None, training: bool) -> tuple[Array, Callable[[Array], Array]]:
        if lengths is None:
            return self._rows(x, training)
        valid = _valid(lengths, x.shape[1])
        rows, back = self._rows(x[valid], training)
        y = np.zeros_like(x)
        y[valid] = rows

        def back_to_x(dy: Array) -> Array:
            dx = np.zeros_like(x)
            dx[valid] = back(dy[valid])
            return dx

        return y, back_to_x
