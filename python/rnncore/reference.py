"""The specification: every cell in float64 NumPy, forward and backward, and the affine map that follows.

This file is written to be read. A cell is two functions next to each other, its equations as comments; the loop
over time is that of `reference_loop`, where any cell runs; the public functions mirror those of
`rnncore.functional`, argument by argument. Options of these cells, and other cells, are in `reference_cells`.
The library is tested against these files and never calls them: nothing here is fast, and nothing here uses the
compiled core.

Letters: T steps, N batch rows, I inputs, H hidden units, G gates. `dv` is the gradient of `v`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike

from rnncore.reference_loop import (
    Array,
    Masks,
    OptionalArray,
    Parameters,
    Pull,
    State,
    checked,
    checked_lengths,
    run_layer,
)

__all__ = ["gru", "gru_vjp", "linear", "linear_vjp", "lstm", "lstm_vjp", "rnn", "rnn_vjp"]

Saved = tuple[Array, ...]  # what a step keeps for its backward


# -------------------------------------------------------------------------------------------------- the cells


class Cell(Protocol):
    """One step of a recurrent network, pointwise in rows and hidden units.

    A step sees its two gate inputs apart, ``x_gates = W x_t + b_ih`` and ``u_gates = U h_{t-1} + b_hh``, each
    (rows, G*H), and gives back a gradient for each. The two gradients differ only where the cell treats the
    inputs differently, as the candidate of GRU does. The third value of `backward` is the gradient that
    reaches the previous state directly; what reaches it through ``U h_{t-1}`` is the time loop's business.
    """

    gates: int

    def forward(self, x_gates: Array, u_gates: Array, state: State) -> tuple[State, Saved]:
        """Return the new state, and the values `backward` needs."""

    def backward(self, saved: Saved, dstate: State) -> tuple[Array, Array, State]:
        """Return (dx_gates, du_gates, dprevious), given the gradient of the new state."""


class RNNCell:
    """The simple recurrent network of Elman (1990), "Finding structure in time"."""

    gates = 1

    def __init__(self, nonlinearity: str) -> None:
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(f'nonlinearity: expected "tanh" or "relu", got {nonlinearity!r}')
        self.nonlinearity = nonlinearity

    def forward(self, x_gates: Array, u_gates: Array, state: State) -> tuple[State, Saved]:
        # h' = act(x + u)
        a = x_gates + u_gates
        h = np.tanh(a) if self.nonlinearity == "tanh" else np.maximum(a, 0.0)
        return (h,), (h,)

    def backward(self, saved: Saved, dstate: State) -> tuple[Array, Array, State]:
        # tanh'(a) = 1 - h'^2;  relu'(a) = [h' > 0], so 0 at the kink
        (h,), (dh,) = saved, dstate
        da = dh * (1.0 - h * h) if self.nonlinearity == "tanh" else np.where(h > 0.0, dh, 0.0)
        return da, da, (np.zeros_like(dh),)


class LSTMCell:
    """Long short-term memory of Hochreiter & Schmidhuber (1997), with a forget gate (Gers et al., 2000)."""

    gates = 4  # i, f, g, o

    def forward(self, x_gates: Array, u_gates: Array, state: State) -> tuple[State, Saved]:
        # i, f, o = sigmoid(x + u);  g = tanh(x + u)
        # c' = f c + i g;  h' = o tanh(c')
        _, c = state
        a_i, a_f, a_g, a_o = np.split(x_gates + u_gates, 4, axis=1)
        i, f, g, o = sigmoid(a_i), sigmoid(a_f), np.tanh(a_g), sigmoid(a_o)
        c_next = f * c + i * g
        tanh_c = np.tanh(c_next)
        return (o * tanh_c, c_next), (i, f, g, o, c, tanh_c)

    def backward(self, saved: Saved, dstate: State) -> tuple[Array, Array, State]:
        # h' = o tanh(c'):   do = dh' tanh(c');  dc' += dh' o (1 - tanh(c')^2)
        # c' = f c + i g:    di = dc' g;  df = dc' c;  dg = dc' i;  dc = dc' f
        i, f, g, o, c, tanh_c = saved
        dh, dc_next = dstate
        dc_next = dc_next + dh * o * (1.0 - tanh_c * tanh_c)
        da_i = dc_next * g * i * (1.0 - i)
        da_f = dc_next * c * f * (1.0 - f)
        da_g = dc_next * i * (1.0 - g * g)
        da_o = dh * tanh_c * o * (1.0 - o)
        da = np.concatenate([da_i, da_f, da_g, da_o], axis=1)
        return da, da, (np.zeros_like(dh), dc_next * f)


class GRUCell:
    """Gated recurrent unit of Cho et al. (2014), the reset gate applied after the recurrent product."""

    gates = 3  # r, z, n

    def forward(self, x_gates: Array, u_gates: Array, state: State) -> tuple[State, Saved]:
        # r, z = sigmoid(x + u);  n = tanh(x_n + r u_n)
        # h' = z h + (1 - z) n
        (h,) = state
        x_r, x_z, x_n = np.split(x_gates, 3, axis=1)
        u_r, u_z, u_n = np.split(u_gates, 3, axis=1)
        r, z = sigmoid(x_r + u_r), sigmoid(x_z + u_z)
        n = np.tanh(x_n + r * u_n)
        return (z * h + (1.0 - z) * n,), (r, z, n, h, u_n)

    def backward(self, saved: Saved, dstate: State) -> tuple[Array, Array, State]:
        # h' = z h + (1 - z) n:     dz = dh' (h - n);  dn = dh' (1 - z);  dh = dh' z
        # n = tanh(x_n + r u_n):    dx_n = dn (1 - n^2);  dr = dx_n u_n;  du_n = dx_n r
        r, z, n, h, u_n = saved
        (dh,) = dstate
        da_z = dh * (h - n) * z * (1.0 - z)
        dx_n = dh * (1.0 - z) * (1.0 - n * n)
        da_r = dx_n * u_n * r * (1.0 - r)
        dx_gates = np.concatenate([da_r, da_z, dx_n], axis=1)
        du_gates = np.concatenate([da_r, da_z, dx_n * r], axis=1)
        return dx_gates, du_gates, (dh * z,)


def sigmoid(a: Array) -> Array:
    """Return 1 / (1 + exp(-a)), with full relative accuracy and no overflow at either end."""
    e = np.exp(-np.abs(a))
    return np.where(a >= 0.0, 1.0, e) / (1.0 + e)


# ------------------------------------------------------------------------------------------------- one layer


class Layer:
    """A cell with its two products: a step of the time loop."""

    def __init__(self, cell: Cell) -> None:
        self.cell = cell

    def step(self, w: Parameters, x: Array, state: State, masks: Masks) -> tuple[Array, State, Pull]:
        x_gates = x @ w["w_ih"].T + w["b_ih"]
        u_gates = state[0] @ w["w_hh"].T + w["b_hh"]
        current, saved = self.cell.forward(x_gates, u_gates, state)

        def pull(dy: Array, dstate: State, dw: Parameters) -> tuple[Array, State]:
            dh, *dmemory = dstate
            dx_gates, du_gates, direct = self.cell.backward(saved, (dh + dy, *dmemory))
            dw["w_ih"] += dx_gates.T @ x
            dw["w_hh"] += du_gates.T @ state[0]
            dw["b_ih"] += dx_gates.sum(axis=0)
            dw["b_hh"] += du_gates.sum(axis=0)
            return dx_gates @ w["w_ih"], (direct[0] + du_gates @ w["w_hh"], *direct[1:])

        return current[0], current, pull


def run(
    cell: Cell, x: ArrayLike, weights: tuple[ArrayLike, ArrayLike, OptionalArray, OptionalArray],
    state_0: dict[str, OptionalArray], lengths: ArrayLike | None, reverse: bool, batch_first: bool,
    reset_mask: ArrayLike | None, state_reset: dict[str, OptionalArray],
) -> tuple[Array, State, Callable[..., tuple[Any, ...]]]:  # fmt: skip
    """Return y, the final state and a pullback.

    The pullback takes dy and the gradient of each final state, and returns the gradients of x, w_ih, w_hh,
    b_ih, b_hh, of each initial state and of each state after resets, None where that was not given.
    """
    H = np.shape(weights[1])[-1]
    GH = cell.gates * H
    shapes = {"w_ih": (GH, *np.shape(x)[-1:]), "w_hh": (GH, H), "b_ih": (GH,), "b_hh": (GH,)}
    named = dict(zip(shapes, weights, strict=True))
    layout = lengths, reverse, batch_first, reset_mask, state_reset
    y, final, pullback = run_layer(Layer(cell), x, named, shapes, state_0, [H] * len(state_0), *layout)

    def pull(dy: OptionalArray, **dstate_n: OptionalArray) -> tuple[Any, ...]:
        dx, dw, dinitial, dstarts = pullback(dy, **dstate_n)
        return dx, *dw.values(), *dinitial, *dstarts

    return y, final, pull


# --------------------------------------------------------------------------------------- the public functions


class RNNOutput(NamedTuple):
    """What `rnn` returns."""

    y: Array  # as x, with H for I
    h_n: Array  # (N, H)


class LSTMOutput(NamedTuple):
    """What `lstm` returns."""

    y: Array  # as x, with H for I
    h_n: Array  # (N, H)
    c_n: Array  # (N, H)


class GRUOutput(RNNOutput):
    """What `gru` returns; the fields are those of `RNNOutput`."""


class RNNGradients(NamedTuple):
    """The gradients of the arguments of `rnn`, each of its argument's shape; of `h_reset` if it was given."""

    x: Array
    w_ih: Array
    w_hh: Array
    b_ih: Array
    b_hh: Array
    h_0: Array
    h_reset: Array | None = None


class LSTMGradients(NamedTuple):
    """The gradients of the arguments of `lstm`, each of its argument's shape; of states after resets, if given."""

    x: Array
    w_ih: Array
    w_hh: Array
    b_ih: Array
    b_hh: Array
    h_0: Array
    c_0: Array
    h_reset: Array | None = None
    c_reset: Array | None = None


class GRUGradients(RNNGradients):
    """The gradients of the arguments of `gru`; the fields are those of `RNNGradients`."""


def rnn(
    x: ArrayLike, w_ih: ArrayLike, w_hh: ArrayLike,
    b_ih: OptionalArray = None, b_hh: OptionalArray = None, h_0: OptionalArray = None, *,
    nonlinearity: str = "tanh", lengths: ArrayLike | None = None, reverse: bool = False,
    batch_first: bool = True, reset_mask: ArrayLike | None = None, h_reset: OptionalArray = None,
) -> RNNOutput:  # fmt: skip
    """Run one layer of a simple recurrent network in one direction (Elman, 1990).

    ``h_t = act(w_ih x_t + b_ih + w_hh h_{t-1} + b_hh)``, and ``y_t = h_t``.

    Parameters
    ----------
    x : array_like, (N, T, I), or (T, N, I) if not `batch_first`, or (T, I)
        The sequences. Two dimensions are one sequence alone; then every N below is absent, also from results.
    w_ih, w_hh : array_like, (H, I) and (H, H)
        Weights of the input and of the previous state.
    b_ih, b_hh : array_like, (H,), optional
        Biases; zeros by default.
    h_0 : array_like, (N, H), optional
        Initial state; zeros by default.
    nonlinearity : {"tanh", "relu"}
        The activation; tanh by default.
    lengths : array_like of int, (N,), optional
        How many steps of each row are valid, 0 to T; all T by default. What lies after is padding: `y` is
        zero there, its gradient ignored, and that of `x` zero. A row of length 0 ends in its initial state.
    reverse : bool, default False
        Read each row from its last valid step to its first. ``y[t]`` is the state after reading ``x[t]``.
    batch_first : bool, default True
        Whether three-dimensional `x` and `y` begin with N or with T. States always begin with N.
    reset_mask : array_like of bool, of the shape of `x` without its last axis, optional
        Where an episode begins: the sequence is cut before such a step, and what is read first after the cut, the step
        or in reverse the one before it, starts from `h_reset`. In padding it means nothing.
    h_reset : array_like, (N, H), or (H,) for all rows, optional
        The state after a reset; zeros by default.

    Returns
    -------
    RNNOutput
        `y`, with H in the place of I in `x`; and `h_n` (N, H), the state after the last step read.

    Examples
    --------
    >>> y, h_n = rnn([[1], [2], [3]], w_ih=[[1]], w_hh=[[1]], nonlinearity="relu")  # a running sum
    >>> y.ravel(), h_n
    (array([1., 3., 6.]), array([6.]))
    """
    cell, weights, state_0 = RNNCell(nonlinearity), (w_ih, w_hh, b_ih, b_hh), {"h_0": h_0}
    resets = reset_mask, {"h_reset": h_reset}
    y, (h_n,), _ = run(cell, x, weights, state_0, lengths, reverse, batch_first, *resets)
    return RNNOutput(y, h_n)


def rnn_vjp(
    x: ArrayLike, w_ih: ArrayLike, w_hh: ArrayLike,
    b_ih: OptionalArray = None, b_hh: OptionalArray = None, h_0: OptionalArray = None, *,
    nonlinearity: str = "tanh", lengths: ArrayLike | None = None, reverse: bool = False,
    batch_first: bool = True, reset_mask: ArrayLike | None = None, h_reset: OptionalArray = None,
) -> tuple[RNNOutput, Callable[..., RNNGradients]]:  # fmt: skip
    """Run `rnn`, and return its output with the function that pulls gradients back.

    Parameters are those of `rnn`.

    Returns
    -------
    out : RNNOutput
        As `rnn` returns it.
    vjp : callable, ``vjp(dy=None, dh_n=None) -> RNNGradients``
        Takes the gradients of `y` and `h_n`, None standing for zero, and returns those of the array
        arguments, also of the ones that were not given.

    Examples
    --------
    >>> out, vjp = rnn_vjp([[1], [2], [3]], w_ih=[[1]], w_hh=[[1]], nonlinearity="relu")
    >>> vjp(dy=[[1], [1], [1]]).x.ravel()  # x_t is in the sums of all steps from t on
    array([3., 2., 1.])
    """
    cell, weights, state_0 = RNNCell(nonlinearity), (w_ih, w_hh, b_ih, b_hh), {"h_0": h_0}
    resets = reset_mask, {"h_reset": h_reset}
    y, (h_n,), pullback = run(cell, x, weights, state_0, lengths, reverse, batch_first, *resets)

    def vjp(dy: OptionalArray = None, dh_n: OptionalArray = None) -> RNNGradients:
        return RNNGradients(*pullback(dy, dh_n=dh_n))

    return RNNOutput(y, h_n), vjp


def lstm(
    x: ArrayLike, w_ih: ArrayLike, w_hh: ArrayLike,
    b_ih: OptionalArray = None, b_hh: OptionalArray = None,
    h_0: OptionalArray = None, c_0: OptionalArray = None, *,
    lengths: ArrayLike | None = None, reverse: bool = False, batch_first: bool = True,
    reset_mask: ArrayLike | None = None, h_reset: OptionalArray = None, c_reset: OptionalArray = None,
) -> LSTMOutput:  # fmt: skip
    """Run one layer of long short-term memory in one direction (Hochreiter & Schmidhuber, 1997).

    With ``a = w_ih x_t + b_ih + w_hh h_{t-1} + b_hh`` cut into the gates i, f, g, o in this order::

        i, f, o = sigmoid(a_i), sigmoid(a_f), sigmoid(a_o);  g = tanh(a_g)
        c_t = f * c_{t-1} + i * g
        h_t = o * tanh(c_t)

    Parameters are those of `rnn`, with weights (4*H, I) and (4*H, H), biases (4*H,), and `c_0` (N, H), the
    initial cell state, and `c_reset`, that after a reset, zeros by default.

    Returns
    -------
    LSTMOutput
        `y`, with H in the place of I in `x`; `h_n` and `c_n` (N, H), the state after the last step read.

    Examples
    --------
    >>> x, w_ih, w_hh = np.zeros((3, 1)), np.zeros((4, 1)), np.zeros((4, 1))
    >>> lstm(x, w_ih, w_hh, c_0=[8]).c_n  # gates of zero input are half open: c halves three times
    array([1.])
    """
    cell, weights, state_0 = LSTMCell(), (w_ih, w_hh, b_ih, b_hh), {"h_0": h_0, "c_0": c_0}
    resets = reset_mask, {"h_reset": h_reset, "c_reset": c_reset}
    y, (h_n, c_n), _ = run(cell, x, weights, state_0, lengths, reverse, batch_first, *resets)
    return LSTMOutput(y, h_n, c_n)


def lstm_vjp(
    x: ArrayLike, w_ih: ArrayLike, w_hh: ArrayLike,
    b_ih: OptionalArray = None, b_hh: OptionalArray = None,
    h_0: OptionalArray = None, c_0: OptionalArray = None, *,
    lengths: ArrayLike | None = None, reverse: bool = False, batch_first: bool = True,
    reset_mask: ArrayLike | None = None, h_reset: OptionalArray = None, c_reset: OptionalArray = None,
) -> tuple[LSTMOutput, Callable[..., LSTMGradients]]:  # fmt: skip
    """Run `lstm`, and return its output with ``vjp(dy=None, dh_n=None, dc_n=None) -> LSTMGradients``.

    Otherwise as `rnn_vjp`.

    Examples
    --------
    >>> out, vjp = lstm_vjp(np.zeros((3, 1)), np.zeros((4, 1)), np.zeros((4, 1)), c_0=[8])
    >>> vjp(dc_n=[1]).c_0
    array([0.125])
    """
    cell, weights, state_0 = LSTMCell(), (w_ih, w_hh, b_ih, b_hh), {"h_0": h_0, "c_0": c_0}
    resets = reset_mask, {"h_reset": h_reset, "c_reset": c_reset}
    y, (h_n, c_n), pullback = run(cell, x, weights, state_0, lengths, reverse, batch_first, *resets)

    def vjp(dy: OptionalArray = None, dh_n: OptionalArray = None, dc_n: OptionalArray = None) -> LSTMGradients:
        return LSTMGradients(*pullback(dy, dh_n=dh_n, dc_n=dc_n))

    return LSTMOutput(y, h_n, c_n), vjp


def gru(
    x: ArrayLike, w_ih: ArrayLike, w_hh: ArrayLike,
    b_ih: OptionalArray = None, b_hh: OptionalArray = None, h_0: OptionalArray = None, *,
    lengths: ArrayLike | None = None, reverse: bool = False, batch_first: bool = True,
    reset_mask: ArrayLike | None = None, h_reset: OptionalArray = None,
) -> GRUOutput:  # fmt: skip
    """Run one layer of gated recurrent units in one direction (Cho et al., 2014), reset after the product.

    With ``a = w_ih x_t + b_ih`` and ``u = w_hh h_{t-1} + b_hh`` cut into the gates r, z, n in this order::

        r, z = sigmoid(a_r + u_r), sigmoid(a_z + u_z)
        n = tanh(a_n + r * u_n)
        h_t = z * h_{t-1} + (1 - z) * n

    Parameters are those of `rnn`, with weights (3*H, I) and (3*H, H) and biases (3*H,).

    Returns
    -------
    GRUOutput
        `y`, with H in the place of I in `x`; and `h_n` (N, H), the state after the last step read.

    Examples
    --------
    >>> y, h_n = gru(np.zeros((3, 1)), np.zeros((3, 1)), np.zeros((3, 1)), h_0=[8])
    >>> y.ravel()  # the update gate is half open and the candidate zero, so the state halves
    array([4., 2., 1.])
    """
    cell, weights, state_0 = GRUCell(), (w_ih, w_hh, b_ih, b_hh), {"h_0": h_0}
    resets = reset_mask, {"h_reset": h_reset}
    y, (h_n,), _ = run(cell, x, weights, state_0, lengths, reverse, batch_first, *resets)
    return GRUOutput(y, h_n)


def gru_vjp(
    x: ArrayLike, w_ih: ArrayLike, w_hh: ArrayLike,
    b_ih: OptionalArray = None, b_hh: OptionalArray = None, h_0: OptionalArray = None, *,
    lengths: ArrayLike | None = None, reverse: bool = False, batch_first: bool = True,
    reset_mask: ArrayLike | None = None, h_reset: OptionalArray = None,
) -> tuple[GRUOutput, Callable[..., GRUGradients]]:  # fmt: skip
    """Run `gru`, and return its output with ``vjp(dy=None, dh_n=None) -> GRUGradients``.

    Otherwise as `rnn_vjp`.

    Examples
    --------
    >>> w_ih, w_hh = np.zeros((3, 1)), np.array([[0.0], [0.0], [1.0]])
    >>> out, vjp = gru_vjp(np.zeros((1, 1)), w_ih, w_hh, h_0=[0])
    >>> vjp(dh_n=[1]).h_0  # 1/2 through the update gate, 1/2 * 1/2 through the candidate and the reset gate
    array([0.75])
    """
    cell, weights, state_0 = GRUCell(), (w_ih, w_hh, b_ih, b_hh), {"h_0": h_0}
    resets = reset_mask, {"h_reset": h_reset}
    y, (h_n,), pullback = run(cell, x, weights, state_0, lengths, reverse, batch_first, *resets)

    def vjp(dy: OptionalArray = None, dh_n: OptionalArray = None) -> GRUGradients:
        return GRUGradients(*pullback(dy, dh_n=dh_n))

    return GRUOutput(y, h_n), vjp


# ---------------------------------------------------------------------------------------------- the affine map


class LinearGradients(NamedTuple):
    """The gradients of the arguments of `linear`, each of its argument's shape."""

    x: Array
    weight: Array
    bias: Array


# What follows the map, and its slope as a function of what it returned; relu'(0) is 0.
ACTIVATIONS: dict[str | None, tuple[Callable[[Array], Array], Callable[[Array], Array]]] = {
    None: (lambda a: a, np.ones_like),
    "tanh": (np.tanh, lambda y: 1.0 - y * y),
    "sigmoid": (sigmoid, lambda y: y * (1.0 - y)),
    "relu": (lambda a: np.maximum(a, 0.0), lambda y: np.where(y > 0.0, 1.0, 0.0)),
}


def linear(
    x: ArrayLike, weight: ArrayLike, bias: OptionalArray = None, *,
    activation: str | None = None, lengths: ArrayLike | None = None,
) -> Array:  # fmt: skip
    """Map every row of `x`: ``y = act(weight x + bias)``.

    Parameters
    ----------
    x : array_like, (..., I), or (N, T, I) with `lengths`
        The rows.
    weight : array_like, (O, I)
        The matrix.
    bias : array_like, (O,), optional
        What is added; zeros by default.
    activation : {None, "tanh", "sigmoid", "relu"}
        The function that follows; none by default.
    lengths : array_like of int, (N,), optional
        How many steps of each sequence are valid, 0 to T; all T by default. What lies after is padding: `y` is
        zero there, its gradient ignored, and that of `x` zero.

    Returns
    -------
    ndarray, (..., O)
        `y`.

    Examples
    --------
    >>> linear([[1, 2], [3, -4]], weight=[[1, 1]], activation="relu").ravel()
    array([3., 0.])
    """
    return linear_vjp(x, weight, bias, activation=activation, lengths=lengths)[0]


def linear_vjp(
    x: ArrayLike, weight: ArrayLike, bias: OptionalArray = None, *,
    activation: str | None = None, lengths: ArrayLike | None = None,
) -> tuple[Array, Callable[[ArrayLike], LinearGradients]]:  # fmt: skip
    """Run `linear`, and return its output with ``vjp(dy) -> LinearGradients``.

    Examples
    --------
    >>> y, vjp = linear_vjp([[1, 2], [3, -4]], weight=[[1, 1]], activation="relu")
    >>> vjp([[1], [1]]).weight
    array([[1., 2.]])
    """
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation: expected one of {list(ACTIVATIONS)}, got {activation!r}")
    value, slope = ACTIVATIONS[activation]
    x, w = np.array(x, dtype=np.float64), np.array(weight, dtype=np.float64)
    b = checked("bias", bias, w.shape[:1])
    valid = np.full(x.shape[:-1], True)
    if lengths is not None:
        N, T, _ = x.shape
        valid = np.arange(T) < checked_lengths(lengths, (N,), T)[:, None]
    y = np.zeros((*x.shape[:-1], len(w)))
    y[valid] = value(x[valid] @ w.T + b)

    def vjp(dy: ArrayLike) -> LinearGradients:
        # a = w x + b:   dx = w' da;  dw = sum of da x';  db = sum of da
        da = checked("dy", dy, y.shape)[valid] * slope(y[valid])
        dx = np.zeros_like(x)
        dx[valid] = da @ w
        return LinearGradients(dx, da.T @ x[valid], da.sum(axis=0))

    return y, vjp
