"""A call of recurrent layers on its way to the core and back."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from rnncore._conversion import Array, as_array
from rnncore.ragged import Ragged

__all__: list[str] = []  # for recurrent layers


def of_pass(part: Array | None, index: int) -> Array | None:
    """Return the state of one pass."""
    return None if part is None else part[index]


class Call(NamedTuple):
    """The arguments of a call as the core takes them, and the way back to what the caller has."""

    x: Any
    series: Any  # (N, T, I), (T, N, I) or (R, I); or a Lookup
    state: tuple[Array | None, ...]  # each (D*L, N, size)
    rows: Any  # lengths, or the structure of ragged sequences
    mask: Array | None
    starts: tuple[Array | None, ...]  # of states after resets, if there is a mask
    N: int
    unbatched: int | None  # the axis of 1 that the caller does not have

    def series_as_given(self, y: Array) -> Any:
        if isinstance(self.x, Ragged):
            return self.x.with_data(y)
        return y if self.unbatched is None else y.squeeze(self.unbatched)

    def state_as_given(self, parts: tuple[Array, ...]) -> tuple[Array, ...]:
        return parts if self.unbatched is None else tuple(part[:, 0] for part in parts)

    def gradient_of_series(self, dy: ArrayLike | None, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array | None:
        if dy is None:
            return None
        if isinstance(self.x, Ragged):
            return as_array("dy", self.x.arranged("dy", dy), dtype)
        array = as_array("dy", dy, dtype)
        expected = shape if self.unbatched is None else shape[: self.unbatched] + shape[self.unbatched + 1 :]
        if array.shape != expected:
            raise ValueError(f"dy: expected shape {expected}, got {array.shape}")
        return array if self.unbatched is None else np.expand_dims(array, self.unbatched)

    def of_steps(self, of_rows: Array, batch_first: bool) -> Array:
        """Return (N, C), one row for each sequence, in a shape that goes with steps."""
        if not isinstance(self.x, Ragged):
            return of_rows[:, np.newaxis] if batch_first else of_rows[np.newaxis]
        rows = np.empty(self.x.rows.rows, np.intp)
        rows[self.x._joined_index()] = np.repeat(np.arange(self.N), self.x.lengths)
        return of_rows[rows]
