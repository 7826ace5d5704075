"""Layers that change the number of steps: many to one, and one to many.

There is nothing to reset in them, nor in what follows: a mask of resets ends here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rnncore._conversion import valid_steps
from rnncore.layer import Array, _size
from rnncore.ragged import Ragged
from rnncore.stateless import Stateless
from rnncore.streaming import Stages

__all__ = ["Last", "MeanPool", "Repeat"]


class _Pool(Stateless):
    """Many to one: (N, T, C) becomes (N, C)."""

    def _input(self, x: ArrayLike) -> Array:
        array = super()._input(x)
        if array.ndim != 3:
            raise ValueError(f"x: expected (N, T, C), got {array.shape}")
        return array

    def _on_ragged(self, x: Ragged, training: bool) -> tuple[Array, Callable[[Array], Any]]:
        padded, lengths = x.with_data(super()._input(x.data)).to_padded()
        y, back = self._forward(self._input(padded), lengths, training)
        valid = valid_steps(lengths, padded.shape[1])

        def back_to_x(dy: Array) -> Ragged:
            return x.from_joined(back(dy)[valid])

        return y, back_to_x

    def output_lengths(self, lengths: ArrayLike | None) -> None:
        """Return None: the output has no steps."""
        return

    def output_resets(self, reset_mask: ArrayLike | None) -> None:
        """Return None: the output has no steps."""
        return

    def output_shape(self, shape: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return the shape without the axis of time."""
        return shape[0], *shape[2:]


class Last(_Pool):
    """The last valid step of every sequence, (N, T, C) to (N, C): many to one. Zeros for a sequence of no steps.

    Examples
    --------
    >>> import numpy as np
    >>> import rnncore as rc
    >>> x = np.arange(6.0).reshape(2, 3, 1)
    >>> rc.Last()(x, lengths=[3, 1])
    array([[2.],
           [3.]])
    """

    def _forward(self, x: Array, lengths: Array | None, training: bool) -> tuple[Array, Callable[[Array], Array]]:
        N, T, C = x.shape
        ends = np.full(N, T) if lengths is None else lengths
        rows = np.flatnonzero(ends)
        y = np.zeros((N, C), x.dtype)
        y[rows] = x[rows, ends[rows] - 1]

        def back(dy: Array) -> Array:
            dx = np.zeros_like(x)
            dx[rows, ends[rows] - 1] = dy[rows]
            return dx

        return y, back

    def _stream_stages(self, stages: Stages) -> None:
        pass  # each step is the last so far

    def _on_ragged(self, x: Ragged, training: bool) -> tuple[Array, Callable[[Array], Any]]:
        data = Stateless._input(self, x.data)
        sequences, rows = x.last_rows()
        y = np.zeros((x.N, *data.shape[1:]), data.dtype)
        y[sequences] = data[rows]

        def back(dy: Array) -> Ragged:
            dx = np.zeros_like(data)
            dx[rows] = dy[sequences]
            return x.with_data(dx)

        return y, back


class MeanPool(_Pool):
    """The mean over the valid steps of every sequence, (N, T, C) to (N, C): many to one. Zeros where there are none.

    Examples
    --------
    >>> import numpy as np
    >>> import rnncore as rc
    >>> x = np.arange(6.0).reshape(2, 3, 1)
    >>> rc.MeanPool()(x, lengths=[3, 2])
    array([[1. ],
           [3.5]])
    """

    def _forward(self, x: Array, lengths: Array | None, training: bool) -> tuple[Array, Callable[[Array], Array]]:
        N, T, _ = x.shape
        count = np.full(N, T) if lengths is None else lengths
        share = (1.0 / np.maximum(count, 1)).astype(x.dtype)[:, None]
        valid: Any = True if lengths is None else valid_steps(lengths, T)[..., None]
        y = np.sum(x, axis=1, where=valid) * share

        def back(dy: Array) -> Array:
            dx = np.zeros_like(x)
            np.copyto(dx, (dy * share)[:, None], where=valid)
            return dx

        return y, back


class Repeat(Stateless):
    """The same vector at every step, (N, C) to (N, steps, C): one to many.

    Parameters
    ----------
    steps : int
        T of the output.

    Examples
    --------
    >>> import numpy as np
    >>> import rnncore as rc
    >>> rc.Repeat(5)(np.ones((2, 3))).shape
    (2, 5, 3)
    """

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = _size("steps", steps)

    def _input(self, x: ArrayLike) -> Array:
        array = super()._input(x)
        if array.ndim != 2:
            raise ValueError(f"x: expected (N, C), got {array.shape}")
        return array

    def _on_ragged(self, x: Ragged, training: bool) -> tuple[Any, Callable[[Any], Any]]:
        raise ValueError(f"x: expected (N, C), got {x!r}")

    def _forward(self, x: Array, lengths: Array | None, training: bool) -> tuple[Array, Callable[[Array], Array]]:
        if lengths is not None:
            raise ValueError("lengths: expected None, since x has no steps")
        return np.repeat(x[:, None], self.steps, axis=1), lambda dy: dy.sum(axis=1)

    def output_resets(self, reset_mask: ArrayLike | None) -> None:
        """Return None: the steps of the output are not those that a mask was made for."""
        return

    def input_shape(self) -> tuple[Any, ...]:
        """Return the shape of a batch: it has no axis of time."""
        return "N", "C"

    def output_shape(self, shape: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return the shape with an axis of time."""
        return shape[0], self.steps, *shape[1:]
