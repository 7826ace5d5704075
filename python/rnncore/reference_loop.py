"""The time loop of the oracle, forward and backward, and the caller's layout around it.

Any cell runs in it, those of `reference` and those of `reference_cells`. Nothing here is fast, and nothing here uses
the compiled core.

Letters: T steps, N batch rows, I inputs, S size of a state. `dv` is the gradient of `v`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Cell", "checked", "checked_lengths"]

Array = NDArray[np.float64]
OptionalArray = ArrayLike | None  # None stands for zeros
Shape = tuple[int, ...]
State = tuple[Array, ...]  # (h,), (h, c), ..., each (rows, S)
Parameters = dict[str, Array]  # by name; gradients too
Masks = dict[str, Array]  # by name, each (rows, S)
Pull = Callable[[Array, State, Parameters], tuple[Array, State]]


class Cell(Protocol):
    """One step of a recurrent network, in all rows."""

    def step(self, w: Parameters, x: Array, state: State, masks: Masks) -> tuple[Array, State, Pull]:
        """Return the output, the new state and `pull`, for the inputs of one time step, (rows, I).

        ``pull(dy, dstate, dw)`` takes the gradients of the output and of the new state, adds those of the parameters to
        `dw`, and returns those of the inputs and of the state before.
        """


# ---------------------------------------------------------------------------------------------- the time loop


class Step(NamedTuple):
    """What the backward loop must know of one step."""

    t: int
    rows: NDArray[np.intp]  # the batch rows with a valid input at t
    anew: NDArray[np.bool_]  # (rows,), whether the state before it was that after a reset
    pull: Pull


def run_forward(
    cell: Cell, w: Parameters, x: Array, state_0: State, lengths: NDArray[np.intp], reverse: bool,
    resets: NDArray[np.bool_], state_reset: State, masks: Masks,
) -> tuple[Array, State, list[Step]]:  # fmt: skip
    """Return y (T, N, S), the final state and the steps taken, for x (T, N, I) and resets (T, N).

    Only rows with t < length take part in step t; the others keep their state. Counting t downwards, this
    alone lets every row begin at its own last valid step, from its initial state.

    A reset at t parts the steps t - 1 and t: forward, the state is `state_reset` before t is read, and in
    reverse before t - 1 is.

    Masks are (T, N, S), or (N, S) for all steps.
    """
    T = len(x)
    y = np.zeros((T, *state_0[0].shape))
    state = tuple(s.copy() for s in state_0)
    steps = []
    for t in reversed(range(T)) if reverse else range(T):
        rows = np.flatnonzero(t < lengths)
        if not reverse:
            anew = resets[t, rows]
        else:
            anew = resets[t + 1, rows] & (t + 1 < lengths[rows]) if t + 1 < T else np.full(len(rows), False)
        previous = tuple(
            np.where(anew[:, None], start[rows], s[rows]) for start, s in zip(state_reset, state, strict=True)
        )
        masks_t = {name: (mask[t] if mask.ndim == 3 else mask)[rows] for name, mask in masks.items()}
        y[t, rows], current, pull = cell.step(w, x[t, rows], previous, masks_t)
        for s, s_t in zip(state, current, strict=True):
            s[rows] = s_t
        steps.append(Step(t, rows, anew, pull))
    return y, state, steps


def run_backward(
    w: Parameters, x: Array, steps: list[Step], dy: Array, dstate_n: State
) -> tuple[Array, Parameters, State, State]:
    """Return dx (T, N, I), the gradients of the weights, of the initial state and of the state after resets."""
    dx = np.zeros_like(x)
    dw = {name: np.zeros_like(array) for name, array in w.items()}
    dstate = tuple(ds.copy() for ds in dstate_n)
    dstate_reset = tuple(np.zeros_like(ds) for ds in dstate_n)
    for t, rows, anew, pull in reversed(steps):
        dx[t, rows], dprevious = pull(dy[t, rows], tuple(ds[rows] for ds in dstate), dw)
        for ds, ds_reset, ds_t in zip(dstate, dstate_reset, dprevious, strict=True):
            ds[rows] = np.where(anew[:, None], 0.0, ds_t)
            ds_reset[rows] += np.where(anew[:, None], ds_t, 0.0)
    return dx, dw, dstate, dstate_reset


# ---------------------------------------------------------------------------------------- the caller's layout


def run_layer(
    cell: Cell,
    x: ArrayLike,
    weights: Mapping[str, OptionalArray],
    shapes: Mapping[str, Shape],
    state_0: Mapping[str, OptionalArray],
    sizes: Sequence[int],
    lengths: ArrayLike | None,
    reverse: bool,
    batch_first: bool,
    reset_mask: ArrayLike | None,
    state_reset: Mapping[str, OptionalArray],
    masks: Mapping[str, tuple[OptionalArray, bool, int]] | None = None,
) -> tuple[Array, State, Callable[..., tuple[Array, Parameters, State, tuple[Array | None, ...]]]]:
    """Return y, the final state and a pullback, all in the layout of the caller.

    `shapes` are those of the weights, `sizes` those of rows of the states; `y` is as wide as the first state. `masks`
    come with whether there is one for every step, and their size; one that is None is left out.

    The pullback takes dy and the gradient of each final state, and returns the gradients of x, of the weights, of each
    initial state and of each state after resets, None where that was not given. Arguments are copied: changing
    them later does not change it.
    """
    x = np.array(x, dtype=np.float64)
    if x.ndim not in (2, 3):
        raise ValueError(f"x: expected 2 or 3 dimensions, got shape {x.shape}")
    batched = x.ndim == 3

    # Inside, sequences are (T, N, ...) and states (N, S); one sequence alone is a batch of one row.
    def to_steps(array: NDArray[Any]) -> NDArray[Any]:
        return array[:, None] if not batched else array.swapaxes(0, 1) if batch_first else array

    def from_steps(array: Array) -> Array:
        return array[:, 0] if not batched else array.swapaxes(0, 1) if batch_first else array

    x_steps = to_steps(x)
    T, N, _ = x_steps.shape
    batch = (N,) if batched else ()

    def rows_of(states: Mapping[str, OptionalArray]) -> State:
        named = zip(states.items(), sizes, strict=True)
        return tuple(checked(name, s, (*batch, size)).reshape(N, size) for (name, s), size in named)

    def checked_mask(name: str, mask: ArrayLike, of_steps: bool, size: int) -> Array:
        if of_steps:
            return to_steps(checked(name, mask, (*x.shape[:-1], size)))
        return checked(name, mask, (*batch, size)).reshape(N, size)

    w = {name: checked(name, weights[name], shape) for name, shape in shapes.items()}
    initial = rows_of(state_0)
    rows = checked_lengths(lengths, batch, T).reshape(N)
    resets = to_steps(_checked_resets(reset_mask, x.shape[:-1]))
    starts = rows_of({
        name: _start_of_rows(name, s, (*batch, size), reset_mask)
        for (name, s), size in zip(state_reset.items(), sizes, strict=True)
    })  # fmt: skip
    m = {name: checked_mask(name, mask[0], *mask[1:]) for name, mask in (masks or {}).items() if mask[0] is not None}
    y_steps, final, steps = run_forward(cell, w, x_steps, initial, rows, reverse, resets, starts, m)
    y = from_steps(y_steps)

    def start_gradient(given: OptionalArray, gradient: Array) -> Array | None:
        if given is None:
            return None
        return gradient.sum(axis=0) if np.ndim(given) == 1 else gradient  # of one state for all rows

    def pullback(
        dy: OptionalArray, **dstate_n: OptionalArray
    ) -> tuple[Array, Parameters, State, tuple[Array | None, ...]]:
        dy_steps = to_steps(checked("dy", dy, y.shape))
        dx, dw, dinitial, dstarts = run_backward(w, x_steps, steps, dy_steps, rows_of(dstate_n))
        of_starts = tuple(map(start_gradient, state_reset.values(), dstarts))
        return from_steps(dx), dw, tuple(ds.reshape(*batch, ds.shape[1]) for ds in dinitial), of_starts

    return y, tuple(s.reshape(*batch, s.shape[1]) for s in final), pullback


def checked(name: str, value: OptionalArray, shape: Shape) -> Array:
    """Return a float64 copy of `value` of exactly this shape: an oracle must not broadcast.

    Examples
    --------
    >>> checked("bias", None, (2,))
    array([0., 0.])
    """
    array = np.zeros(shape) if value is None else np.array(value, dtype=np.float64)
    if array.shape != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {array.shape}")
    return array


def checked_lengths(lengths: ArrayLike | None, shape: Shape, T: int, name: str = "lengths") -> NDArray[np.intp]:
    """Return how many of T steps are valid, an integer of each row.

    Examples
    --------
    >>> checked_lengths(None, (2,), 5)
    array([5, 5])
    """
    array = np.full(shape, T) if lengths is None else np.asarray(lengths)
    if array.shape != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {array.shape}")
    if array.size and (array.dtype.kind not in "iu" or array.min() < 0 or array.max() > T):
        raise ValueError(f"{name}: expected integers from 0 to {T}, got {array}")
    return array.astype(np.intp)


def _checked_resets(reset_mask: ArrayLike | None, shape: Shape) -> NDArray[np.bool_]:
    array = np.full(shape, False) if reset_mask is None else np.array(reset_mask)
    if array.dtype != np.bool_ or array.shape != shape:
        raise ValueError(f"reset_mask: expected bool {shape}, got {array.dtype} {array.shape}")
    return array


def _start_of_rows(name: str, value: OptionalArray, shape: Shape, reset_mask: ArrayLike | None) -> OptionalArray:
    """Return a state after resets, which may be one for all rows."""
    if value is not None and reset_mask is None:
        raise ValueError(f"{name}: expected None, since there is no reset_mask")
    if value is None or np.ndim(value) != 1:
        return value
    return np.broadcast_to(checked(name, value, shape[-1:]), shape)
