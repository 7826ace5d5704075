"""What the cells of `reference_cells` are made of: activations, products, gates, and what a cell says of itself.

A part is a function that returns its value and the function that pulls gradients back through it, written one under
the other.
"""

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from rnncore.reference import sigmoid
from rnncore.reference_loop import Array, Masks, Parameters, Pull, Shape, State

__all__ = ["ACTIVATIONS", "GatedCell", "OneCell", "activation", "product"]

Activation = str | tuple[str] | tuple[str, float] | tuple[str, float, float]
PullOne = Callable[[Array, Parameters], Array]  # (dv, dw) -> da: the gradients of parameters are added to dw

EPS = 1e-5  # of layer norm, inside the root


# ------------------------------------------------------------------------------------------------- activations

# By name: alpha and beta where they are not given, the value of a, and the slope of the value y.
Function = Callable[[Array, float, float], Array]
ACTIVATIONS: dict[str, tuple[tuple[float, ...], Function, Function]] = {
    "identity": ((), lambda a, *_: a, lambda y, *_: np.ones_like(y)),
    "tanh": ((), lambda a, *_: np.tanh(a), lambda y, *_: 1.0 - y * y),
    "sigmoid": ((), lambda a, *_: sigmoid(a), lambda y, *_: y * (1.0 - y)),
    "relu": ((), lambda a, *_: np.maximum(a, 0.0), lambda y, *_: np.where(y > 0.0, 1.0, 0.0)),
    "hard_sigmoid": (
        (0.2, 0.5),
        lambda a, alpha, beta: np.clip(alpha * a + beta, 0.0, 1.0),
        lambda y, alpha, _: np.where((y > 0.0) & (y < 1.0), alpha, 0.0),
    ),
    # a / (1 + |a|), whose slope is 1 / (1 + |a|)^2, and 1 - |y| = 1 / (1 + |a|)
    "softsign": ((), lambda a, *_: a / (1.0 + np.abs(a)), lambda y, *_: (1.0 - np.abs(y)) ** 2),
    "affine": ((1.0, 0.0), lambda a, alpha, beta: alpha * a + beta, lambda y, alpha, _: np.full_like(y, alpha)),
    "leaky_relu": (
        (0.01,),
        lambda a, alpha, _: np.where(a > 0.0, a, alpha * a),
        lambda y, alpha, _: np.where(y > 0.0, 1.0, alpha),
    ),
    "thresholded_relu": (
        (1.0,),
        lambda a, alpha, _: np.where(a > alpha, a, 0.0),
        lambda y, *_: np.where(y > 0.0, 1.0, 0.0),
    ),
    # alpha tanh(beta a), whose slope is alpha beta (1 - tanh^2)
    "scaled_tanh": (
        (1.0, 1.0),
        lambda a, alpha, beta: alpha * np.tanh(beta * a),
        lambda y, alpha, beta: beta * (alpha - y * y / alpha),
    ),
    # alpha (exp(a) - 1) up to 0, whose slope is alpha exp(a) = y + alpha
    "elu": (
        (1.0,),
        lambda a, alpha, _: np.where(a > 0.0, a, alpha * np.expm1(np.minimum(a, 0.0))),
        lambda y, alpha, _: np.where(y > 0.0, 1.0, y + alpha),
    ),
    # log(1 + exp(a)), whose slope is sigmoid(a) = 1 - exp(-y)
    "softplus": ((), lambda a, *_: np.logaddexp(0.0, a), lambda y, *_: -np.expm1(-y)),
}
NAMED = {"hard_sigmoid_keras3": ("hard_sigmoid", 1.0 / 6.0, 0.5)}


def activation(given: Activation) -> tuple[Callable[[Array], Array], Callable[[Array], Array]]:
    """Return a function, and its slope as a function of what it returned.

    Parameters
    ----------
    given : str or tuple
        A name, or ``(name, alpha)`` or ``(name, alpha, beta)``: "identity", "tanh", "sigmoid", "relu", "hard_sigmoid"
        (alpha 0.2, beta 0.5), "hard_sigmoid_keras3" (1/6, 0.5), "softsign", "affine" (1, 0), "leaky_relu" (0.01),
        "thresholded_relu" (1), "scaled_tanh" (1, 1), "elu" (1), "softplus".

    Returns
    -------
    value, slope : callable
        ``y = value(a)`` and ``dy/da = slope(y)``; at a kink, the slope on the left.

    Raises
    ------
    ValueError
        If there is no such function, or none with these numbers.

    Examples
    --------
    >>> value, slope = activation(("leaky_relu", 0.1))
    >>> value(np.array([2.0, -2.0])), slope(np.array([2.0, -0.2]))
    (array([ 2. , -0.2]), array([1. , 0.1]))
    """
    name, *numbers = (given,) if isinstance(given, str) else given
    if name in NAMED and not numbers:
        name, *numbers = NAMED[name]
    if name not in ACTIVATIONS:
        raise ValueError(f"activation: expected one of {[*ACTIVATIONS, *NAMED]}, got {given!r}")
    defaults, value, slope = ACTIVATIONS[name]
    if len(numbers) > len(defaults):
        raise ValueError(f"activation: expected {name} with at most {len(defaults)} numbers, got {given!r}")
    alpha, beta = (*numbers, *defaults[len(numbers) :], 0.0, 0.0)[:2]
    if name in ("scaled_tanh", "hard_sigmoid") and not alpha > 0.0:
        raise ValueError(f"activation: expected {name} with alpha > 0, got {given!r}")
    if name in ("leaky_relu", "elu", "thresholded_relu") and not alpha >= 0.0:
        raise ValueError(f"activation: expected {name} with alpha >= 0, got {given!r}")
    return lambda a: value(a, alpha, beta), lambda y: slope(y, alpha, beta)


# ---------------------------------------------------------------------------------------------------- the parts


def product(w: Parameters, kind: str, v: Array, gates: slice = slice(None)) -> tuple[Array, PullOne]:
    """Return ``v W' + b`` of weight_{kind} and bias_{kind}, or of some of their rows, and its pull.

    Examples
    --------
    >>> a, pull = product({"weight_ih": np.array([[2.0]]), "bias_ih": np.array([1.0])}, "ih", np.array([[3.0]]))
    >>> a
    array([[7.]])
    """
    weight, bias = w[f"weight_{kind}"][gates], w[f"bias_{kind}"][gates]

    def pull(da: Array, dw: Parameters) -> Array:
        # a = v W' + b:    dW = da' v;  db = sum of da over rows;  dv = da W
        dw[f"weight_{kind}"][gates] += da.T @ v
        dw[f"bias_{kind}"][gates] += da.sum(axis=0)
        return da @ weight

    return v @ weight.T + bias, pull


def layer_norm(w: Parameters, kind: str, a: Array, units: slice) -> tuple[Array, PullOne]:
    """Normalise every row of `a`, with gain weight_{kind}[units] and shift bias_{kind}[units] (Ba et al., 2016)."""
    # a^ = (a - mean) / sqrt(variance + eps);  s = gain a^ + shift
    gain, shift = w[f"weight_{kind}"][units], w[f"bias_{kind}"][units]
    centred = a - a.mean(axis=1, keepdims=True)
    root = np.sqrt((centred * centred).mean(axis=1, keepdims=True) + EPS)
    normal = centred / root

    def pull(ds: Array, dw: Parameters) -> Array:
        # da^ = ds gain;  da = (da^ - mean(da^) - a^ mean(da^ a^)) / root
        dw[f"weight_{kind}"][units] += (ds * normal).sum(axis=0)
        dw[f"bias_{kind}"][units] += ds.sum(axis=0)
        dnormal = ds * gain
        along = normal * (dnormal * normal).mean(axis=1, keepdims=True)
        da: Array = (dnormal - dnormal.mean(axis=1, keepdims=True) - along) / root
        return da

    return normal * gain + shift, pull


def clip(a: Array, bound: float | None) -> tuple[Array, Callable[[Array], Array]]:
    """Return `a` within -bound and bound, whose gradient passes where nothing was cut."""
    if bound is None:
        return a, lambda ds: ds
    return np.clip(a, -bound, bound), lambda ds: np.where(np.abs(a) <= bound, ds, 0.0)


def blend(old: Array, new: Array, share: Array | float | None) -> tuple[Array, Callable[[Array], tuple[Array, Array]]]:
    """Return the state that takes only a share of the new one; None stands for all of it."""
    # v' = v + k (v~ - v):    dv = (1 - k) dv';  dv~ = k dv'
    if share is None:
        return new, lambda dv: (np.zeros_like(dv), dv)
    return old + share * (new - old), lambda dv: ((1.0 - share) * dv, share * dv)


# ----------------------------------------------------------------------------------- what a cell says of itself


class OneCell:
    """A cell of `reference_cells`: what `layer` must know of it, and a step as the time loop wants it.

    Examples
    --------
    >>> OneCell().states, OneCell().sizes(H=3, P=2)
    (('h',), (2,))
    """

    states: ClassVar[tuple[str, ...]] = ("h",)
    masks: ClassVar[tuple[str, ...]] = ("input",)
    gates: int = 1
    proj_size: int = 0

    def hidden(self, weights: dict[str, Any]) -> int:
        """Return H."""
        return len(weights["weight_ih"]) // self.gates

    def shapes(self, I: int, H: int, P: int) -> dict[str, Shape]:
        """Return the shape of every parameter by name."""
        GH = self.gates * H
        return {"weight_ih": (GH, I), "weight_hh": (GH, P), "bias_ih": (GH,), "bias_hh": (GH,)}

    def sizes(self, H: int, P: int) -> tuple[int, ...]:
        """Return the size of every state, that of `y` first."""
        return tuple(P if name == "h" else H for name in self.states)

    def step(self, w: Parameters, x: Array, state: State, masks: Masks) -> tuple[Array, State, Pull]:
        """Return y, the new state, and the pull of the step."""
        raise NotImplementedError


class GatedCell(OneCell):
    """A cell of gates with the options that all of those have.

    Parameters
    ----------
    activation, recurrent_activation : str or tuple
        In the place of tanh and of sigmoid.
    layer_norm : bool
        Whether the input of every gate is normalised over its H units.
    gate_clip : float, optional
        The bound of the inputs of gates, after layer norm.
    zoneout : float or (float, float)
        The probability that a unit keeps its old state, of h and of c. Without masks the state moves by the mean share.

    Examples
    --------
    >>> GatedCell(zoneout=0.25).share({}, "h"), GatedCell(zoneout=(0.25, 0.0)).share({}, "c")
    (0.75, None)
    """

    masks: ClassVar[tuple[str, ...]] = ("input", "recurrent", "h")
    leak = 1.0

    def __init__(
        self, *,
        activation: Activation = "tanh", recurrent_activation: Activation = "sigmoid",
        layer_norm: bool = False, gate_clip: float | None = None, zoneout: float | tuple[float, float] = 0.0,
    ) -> None:  # fmt: skip
        self.activation, self.recurrent_activation = activation, recurrent_activation
        self.layer_norm, self.gate_clip = layer_norm, gate_clip
        p_h, p_c = zoneout if isinstance(zoneout, tuple) else (zoneout, zoneout)
        self.zoneout = {"h": p_h, "c": p_c}

    def shapes(self, I: int, H: int, P: int) -> dict[str, Shape]:
        """Return the shape of every parameter by name."""
        norm = {"weight_norm": (self.gates * H,), "bias_norm": (self.gates * H,)} if self.layer_norm else {}
        return super().shapes(I, H, P) | norm

    def gate(self, w: Parameters, k: int, a: Array, function: Activation) -> tuple[Array, PullOne]:
        """Return gate number k of its input (rows, H)."""
        # v = act(clip(LN(a)))
        value, slope = activation(function)
        H = a.shape[1]
        pull_norm = None
        if self.layer_norm:
            a, pull_norm = layer_norm(w, "norm", a, slice(k * H, (k + 1) * H))
        s, pull_clip = clip(a, self.gate_clip)
        v = value(s)

        def pull(dv: Array, dw: Parameters) -> Array:
            ds = pull_clip(dv * slope(v))
            return pull_norm(ds, dw) if pull_norm else ds

        return v, pull

    def share(self, masks: Masks, name: str) -> Array | float | None:
        """Return how much of a new state is taken, k of `blend`, None for all of it."""
        if name in masks:
            return self.leak * masks[name]
        k = self.leak * (1.0 - self.zoneout[name])
        return None if k == 1.0 else k
