"""The specification of every cell and every option: one layer in one direction, in float64 NumPy.

`layer` runs the cells of `reference_gated`, which have a dense recurrent matrix, those that `reference_deep` makes of
them, and those of `reference_elementwise`, which have none. Nothing here is fast, and nothing here uses the compiled
core.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from rnncore.reference_deep import Deep
from rnncore.reference_elementwise import LRU, QRNN, SRU, IndRNN, MinGRU, MinLSTM
from rnncore.reference_gated import GRU, LSTM, MGU, RNN, SLSTM
from rnncore.reference_loop import Array, Masks, OptionalArray, Parameters, Pull, State, run_layer
from rnncore.reference_parts import OneCell, activation

__all__ = [
    "GRU",
    "LRU",
    "LSTM",
    "MGU",
    "QRNN",
    "RNN",
    "SLSTM",
    "SRU",
    "Deep",
    "IndRNN",
    "MinGRU",
    "MinLSTM",
    "activation",
    "layer",
]

Pullback = Callable[..., tuple[Parameters, State, tuple[Array | None, ...] | None]]


class InputMasked:
    """A cell behind input dropout: one mask of the inputs for all steps (Gal & Ghahramani, 2016)."""

    def __init__(self, cell: OneCell) -> None:
        self.cell = cell

    def step(self, w: Parameters, x: Array, state: State, masks: Masks) -> tuple[Array, State, Pull]:
        """Return y, the new state, and the pull of the step."""
        mask = masks.get("input", np.ones_like(x))
        y, current, pull_cell = self.cell.step(w, x * mask, state, masks)

        def pull(dy: Array, dstate: State, dw: Parameters) -> tuple[Array, State]:
            dx, dprevious = pull_cell(dy, dstate, dw)
            return dx * mask, dprevious

        return y, current, pull


def layer(
    cell: OneCell, x: ArrayLike, weights: Mapping[str, OptionalArray], state: Sequence[OptionalArray] | None = None, *,
    lengths: ArrayLike | None = None, reverse: bool = False, batch_first: bool = True,
    reset_mask: ArrayLike | None = None, state_reset: Sequence[OptionalArray] | None = None,
    masks: Mapping[str, OptionalArray] | None = None,
) -> tuple[Array, State, Pullback]:  # fmt: skip
    """Run a cell over sequences.

    Parameters
    ----------
    cell : cell
        One of the classes of this module, with its options.
    x : array_like, (N, T, I), or (T, N, I) if not `batch_first`, or (T, I)
        The sequences. Two dimensions are one sequence alone; then every N below is absent, also from results.
    weights : mapping of str to array_like
        The parameters by name, as ``cell.shapes(I, H, P)`` has them; P, the size of h, is `proj_size` of the cell, or
        else H. Names that begin with bias may be absent or None, which stands for zeros.
    state : sequence of array_like, (N, size), optional
        The initial states, ``cell.states`` by name, of ``cell.sizes(H, P)``; zeros by default.
    lengths : array_like of int, (N,), optional
        How many steps of each row are valid, 0 to T; all T by default. What lies after is padding: `y` is
        zero there, its gradient ignored, and that of `x` zero. A row of length 0 ends in its initial state.
    reverse : bool, default False
        Read each row from its last valid step to its first. ``y[t]`` is the output after reading ``x[t]``.
    batch_first : bool, default True
        Whether three-dimensional `x`, `y` and masks begin with N or with T. States always begin with N.
    reset_mask : array_like of bool, of the shape of `x` without its last axis, optional
        Where an episode begins: the sequence is cut before such a step, and what is read first after the cut, the step
        or in reverse the one before it, starts from `state_reset`. In padding it means nothing.
    state_reset : sequence of array_like, (N, size), or (size,) for all rows, optional
        The states after a reset; zeros by default.
    masks : mapping of str to array_like, optional
        Of training. "h" (N, T, P) and "c" (N, T, H), laid out like `y`: zoneout, 0 where a unit keeps its old state and
        1 where it takes the new one; without it, `zoneout` of the cell gives the mean. "recurrent" (N, P) and "input"
        (N, I): factors of dropout for all steps, 0 or 1 / (1 - p). ``cell.masks`` has the names that a cell takes.

    Returns
    -------
    y : ndarray
        The outputs, with the size of the first state in the place of I in `x`.
    state_n : tuple of ndarray, (N, size)
        The states after the last step read.
    pullback : callable, ``pullback(dy=None, *dstate_n) -> (gradients, dstate_0, dstate_reset)``
        Takes the gradients of `y` and of the final states, None or absent for zero. Returns a dict of the gradients of
        "x" and of every parameter, also of the ones that were not given; those of the initial states; and those of
        the states after resets, each None if it was not given, or None if `state_reset` was not.

    Raises
    ------
    ValueError
        If an array has another shape than stated, or a name is unknown or missing.

    Examples
    --------
    >>> weights = {"weight_ih": [[1.0]], "weight_hh": [[1.0]]}
    >>> y, (h_n,), pullback = layer(RNN(activation="relu"), [[1], [2], [3]], weights)  # a running sum
    >>> y.ravel(), h_n
    (array([1., 3., 6.]), array([6.]))
    >>> gradients, (dh_0,), _ = pullback([[1], [1], [1]])
    >>> gradients["x"].ravel(), dh_0
    (array([3., 2., 1.]), array([3.]))
    """
    given = {name: np.asarray(array) for name, array in weights.items() if array is not None}
    H = cell.hidden(given)
    P = cell.proj_size or H
    I = np.shape(x)[-1]
    shapes, sizes = cell.shapes(I, H, P), cell.sizes(H, P)
    missing = [name for name in shapes if name not in given and not name.startswith("bias_")]
    if missing or not given.keys() <= shapes.keys():
        raise ValueError(f"weights: expected {list(shapes)}, got {list(given)}")
    if masks is not None and not set(masks) <= set(cell.masks):
        raise ValueError(f"masks: expected some of {cell.masks}, got {tuple(masks)}")

    def named(suffix: str, states: Sequence[OptionalArray] | None) -> dict[str, OptionalArray]:
        values = [None] * len(cell.states) if states is None else states
        if len(values) != len(cell.states):
            raise ValueError(f"states {suffix}: expected {len(cell.states)} of them, got {len(values)}")
        return {f"{name}_{suffix}": value for name, value in zip(cell.states, values, strict=True)}

    size_of = {"h": P, "c": H, "recurrent": P, "input": I}
    with_sizes = {name: (mask, name in ("h", "c"), size_of[name]) for name, mask in (masks or {}).items()}
    y, final, pull = run_layer(
        InputMasked(cell), x, {name: given.get(name) for name in shapes}, shapes, named("0", state), sizes,
        lengths, reverse, batch_first, reset_mask, named("reset", state_reset), with_sizes,
    )  # fmt: skip

    def pullback(
        dy: OptionalArray = None, *dstate_n: OptionalArray
    ) -> tuple[Parameters, State, tuple[Array | None, ...] | None]:
        dfinal = {f"d{name}": ds for name, ds in named("n", dstate_n or None).items()}
        dx, dw, dstate_0, dstate_reset = pull(dy, **dfinal)
        return {"x": dx, **dw}, dstate_0, None if state_reset is None else dstate_reset

    return y, final, pullback
