"""What a recurrent layer may add to the equations of its cell: checks, and the form in which the core takes it.

Not public: the layers say what their options mean.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from rnncore._arguments import number
from rnncore._core import Activation, Cell, Spec

__all__: list[str] = []  # for recurrent layers

# By name: the core's, and the default of each parameter that it has, with the condition on it.
_FINITE, _POSITIVE, _FROM_0 = "finite", "finite and > 0", "finite and >= 0"
_ACTIVATIONS: dict[str, tuple[Activation, tuple[tuple[float, str], ...]]] = {
    "identity": (Activation.none, ()),
    "tanh": (Activation.tanh, ()),
    "sigmoid": (Activation.sigmoid, ()),
    "relu": (Activation.relu, ()),
    "hard_sigmoid": (Activation.hard_sigmoid, ((0.2, _POSITIVE), (0.5, _FINITE))),
    "hard_sigmoid_keras3": (Activation.hard_sigmoid, ((1 / 6, _POSITIVE), (0.5, _FINITE))),
    "softsign": (Activation.softsign, ()),
    "affine": (Activation.affine, ((1.0, _FINITE), (0.0, _FINITE))),
    "leaky_relu": (Activation.leaky_relu, ((0.01, _FROM_0),)),
    "thresholded_relu": (Activation.thresholded_relu, ((1.0, _FROM_0),)),
    "scaled_tanh": (Activation.scaled_tanh, ((1.0, _POSITIVE), (1.0, _FINITE))),
    "elu": (Activation.elu, ((1.0, _FROM_0),)),
    "softplus": (Activation.softplus, ()),
}
Curve = str | tuple[Any, ...]  # a name, or a name and its parameters
CoreCurve = tuple[Activation, float, float]


def curve(name: str, value: Any) -> tuple[Curve, CoreCurve]:
    """Check an activation: return it as a layer keeps it, and as the core takes it."""
    given = tuple(value) if isinstance(value, tuple | list) else (value,)
    kind = given[0] if given else None
    if not isinstance(kind, str) or kind not in _ACTIVATIONS:
        known = ", ".join(map(repr, _ACTIVATIONS))
        raise ValueError(f"{name}: expected one of {known}, or a tuple of one and its parameters, got {value!r}")
    core, parameters = _ACTIVATIONS[kind]
    if len(given) > 1 + len(parameters):
        raise ValueError(f"{name}: expected at most {len(parameters)} parameters of {kind!r}, got {value!r}")
    numbers = [
        number(name, given[1 + k], condition) if k + 1 < len(given) else default
        for k, (default, condition) in enumerate(parameters)
    ]
    alpha, beta = [*numbers, 0.0, 0.0][:2]
    return (kind if len(given) == 1 else (kind, *numbers[: len(given) - 1])), (core, alpha, beta)


_FEED_FORWARD = {"identity": None, "tanh": "tanh", "sigmoid": "sigmoid", "relu": "relu"}  # as `Linear` has them


def of_feed_forward(depths: dict[str, int], name: str, activation: Curve) -> str | None:
    """Return the activation of layers around a pass: the cell's, the argument `name`; check it if there are such."""
    for argument, depth in depths.items():
        if depth > 1 and activation not in _FEED_FORWARD:
            known = ", ".join(map(repr, _FEED_FORWARD))
            raise ValueError(f"{argument}: expected 1 unless {name} is one of {known}, got {depth} and {activation!r}")
    return _FEED_FORWARD.get(activation) if isinstance(activation, str) else None


def bound(name: str, value: Any) -> float | None:
    """Check a bound, None for none."""
    return None if value is None else number(name, value, "finite and > 0")


def probability(name: str, value: Any) -> float:
    """Check a probability that must not be 1."""
    return number(name, value, "in [0, 1)")


def zoneout_probabilities(value: Any, states: int) -> tuple[float | tuple[float, ...], tuple[float, float]]:
    """Check the probability or probabilities of zoneout: as a layer keeps it, and those of h and of c."""
    if not isinstance(value, tuple | list):
        p = number("zoneout", value, "in [0, 1]")
        return p, (p, p)
    if states < 2 or len(value) != 2:
        raise ValueError(
            f"zoneout: expected a probability{', or two, of h and c' if states > 1 else ''}, got {value!r}"
        )
    h, c = (number("zoneout", p, "in [0, 1]") for p in value)
    return (h, c), (h, c)


class Options(NamedTuple):
    """What one layer has. The defaults are the equations of the cell by itself."""

    activation: CoreCurve = (Activation.tanh, 0.0, 0.0)
    recurrent_activation: CoreCurve = (Activation.sigmoid, 0.0, 0.0)
    peephole: bool = False
    layer_norm: bool = False
    gate_clip: float | None = None
    cell_clip: float | None = None
    zoneout: tuple[float, float] = (0.0, 0.0)
    leak: float = 1.0
    depth: int = 1
    shortcut: bool = False

    def spec(self, cell: Cell, training: bool, skip: bool) -> Spec:
        """Return what the core takes. In training masks do what in inference is done by their mean."""
        h, c = (1.0, 1.0) if training else (1.0 - self.zoneout[0], 1.0 - self.zoneout[1])
        return Spec(
            cell,
            self.activation,
            self.recurrent_activation,
            self.peephole,
            self.layer_norm,
            self.gate_clip or 0.0,
            self.cell_clip or 0.0,
            self.leak * h,
            c,
            skip,
            self.depth,
            self.shortcut,
        )
