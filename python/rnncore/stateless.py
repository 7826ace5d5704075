"""What layers without recurrence have in common: each works on every step, and knows no state.

They take x (N, T, C), or any other leading axes where there are no lengths. With lengths, padded steps are neither
read nor computed, and zero in the output.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rnncore._conversion import as_lengths, valid_steps
from rnncore.layer import Array, Layer, PullBack, State, _no_state
from rnncore.ragged import Ragged, is_list, run_list, vjp_list

__all__: list[str] = []  # for layers of this package


class Stateless(Layer):
    """A layer whose subclasses say in `_forward` what it computes, with the function that pulls dy back to dx."""

    def _forward(self, x: Array, lengths: Array | None, training: bool) -> tuple[Array, Callable[[Array], Any]]:
        raise NotImplementedError

    def _on_ragged(self, x: Ragged, training: bool) -> tuple[Any, Callable[[Any], Any]]:
        """Compute on what has no padding: as on so many single rows, unless a subclass says otherwise."""
        y, back = self._forward(self._input(x.data), None, training)

        def back_to_x(dy: Any) -> Any:
            dx = back(x.arranged("dy", dy))
            return None if dx is None else x.with_data(dx)

        return x.with_data(y), back_to_x

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
            The class says which other shapes it takes. Or a list of N arrays (T_n, input_size), or a `Packed`.
        lengths : array_like of int (N,) or of bool (N, T), optional
            Valid steps of each sequence, 0 to T, or a mask that is True at valid steps, which are the first of each
            row. Default: T for all.

        Returns
        -------
        y : ndarray, (N, T, output_size)
            A list or a `Packed` if x is one and y has steps.
        """
        y: Array = self.run(x, None, lengths)[0]
        return y

    def run(self, x: Any, state: State = None, lengths: ArrayLike | None = None) -> tuple[Any, State]:
        """Run the layer on x; there is no state."""
        _no_state(self, state)
        if isinstance(x, Ragged):
            x.structure(lengths)
            return self._on_ragged(x, False)[0], None
        if is_list(x, self.input_shape):
            return run_list(self.run, x, state, lengths)
        array = self._input(x)
        return self._forward(array, self._lengths(lengths, array), False)[0], None

    def vjp(self, x: Any, state: State = None, lengths: ArrayLike | None = None) -> tuple[tuple[Any, State], PullBack]:
        """Run the layer on x for training, with the function that pulls gradients back; see `Layer.vjp`."""
        _no_state(self, state)
        if is_list(x, self.input_shape):
            return vjp_list(self.vjp, x, state, lengths)
        if isinstance(x, Ragged):
            x.structure(lengths)
            y, back = self._on_ragged(x, True)
        else:
            array = self._input(x)
            y, back = self._forward(array, self._lengths(lengths, array), True)

        def pull_back(dy: Any = None, dstate: State = None) -> tuple[Any, State]:
            if isinstance(y, Ragged):
                return back(y.with_data(np.zeros_like(y.data)) if dy is None else dy), None
            gradient = np.zeros_like(y) if dy is None else np.asarray(dy)
            if gradient.shape != y.shape:
                raise ValueError(f"dy: expected shape {y.shape}, got {gradient.shape}")
            return back(gradient), None

        return (y, None), pull_back


def _checked_lengths(lengths: ArrayLike | None, x: Array) -> Array | None:
    """Lengths as an array, or None if no step is padded."""
    if lengths is None:
        return None
    if x.ndim < 2:
        raise ValueError(f"lengths: expected None for x {x.shape}, which has no axis of time")
    N, T = x.shape[:2]
    steps = as_lengths(lengths, N, T)
    return None if (steps == T).all() else steps


class RowWise(Stateless):
    """A layer that computes each row (C,) by itself; subclasses say in `_rows` how."""

    def _rows(self, x: Array, training: bool) -> tuple[Array, Callable[[Array], Array]]:
        raise NotImplementedError

    def _forward(self, x: Array, lengths: Array | None, training: bool) -> tuple[Array, Callable[[Array], Array]]:
        if lengths is None:
            return self._rows(x, training)
        valid = valid_steps(lengths, x.shape[1])
        rows, back = self._rows(x[valid], training)
        y = np.zeros_like(x)
        y[valid] = rows

        def back_to_x(dy: Array) -> Array:
            dx = np.zeros_like(x)
            dx[valid] = back(dy[valid])
            return dx

        return y, back_to_x
