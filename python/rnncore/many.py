"""Many networks of one shape in one call: weights with an axis of M networks in front. Not public.

Each network has the bits of a call of its own. What is here converts arguments for the core and names what is wrong;
`functional` and the layers come here when weights have the axis. x is (N, T, I) for all networks, or (M, N, T, I).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rnncore._conversion import Array, as_array, as_lengths, as_parts
from rnncore._core import Activation, Cell, LinearNetworks, Networks

__all__: list[str] = []  # for functional and layers


def series(name: str, value: Any, M: int, size: int, batch_first: bool = True) -> Array:
    """Check x, of all networks or of each."""
    array = np.asarray(value)
    if array.ndim not in (3, 4) or array.shape[-1] != size or (array.ndim == 4 and array.shape[0] != M):
        axes = f"N, T, {size}" if batch_first else f"T, N, {size}"
        raise ValueError(f"{name}: expected ({axes}), or ({M}, {axes}) for each network, got {array.shape}")
    return array


def _state(name: str, value: ArrayLike | None, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array | None:
    """Prepare a state of one pass, (M, N, H), for the core, which has an axis of passes."""
    if value is None:
        return None
    array = as_array(name, value, dtype)
    if array.shape != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {array.shape}")
    return array[:, np.newaxis]


class _Call:
    """A call of one layer in one direction: its arguments in the form the core takes."""

    def __init__(
        self,
        cell: Cell,
        x: ArrayLike,
        w_ih: ArrayLike,
        w_hh: ArrayLike,
        b_ih: ArrayLike | None,
        b_hh: ArrayLike | None,
        h_0: ArrayLike | None,
        c_0: ArrayLike | None,
        lengths: ArrayLike | None,
        reverse: bool,
        batch_first: bool,
    ) -> None:
        w = as_parts("w_ih", w_ih)
        self.dtype, M = w.dtype, len(w)
        u = as_parts("w_hh", w_hh, self.dtype)
        biases = [None if b is None else as_parts(name, b, self.dtype) for name, b in (("b_ih", b_ih), ("b_hh", b_hh))]
        self.networks = Networks(cell, [(w, u, *biases)], 1, batch_first, False)
        array = as_array("x", series("x", x, M, w.shape[2], batch_first), self.dtype)
        self.state_shape = M, array.shape[-3 if batch_first else -2], u.shape[2]
        self.positional = (
            array,
            self.state("h_0", h_0),
            self.state("c_0", c_0),
            _lengths(lengths, array, batch_first),
            bool(reverse),
        )

    def state(self, name: str, value: ArrayLike | None) -> Array | None:
        return _state(name, value, self.dtype, self.state_shape)


def _lengths(value: ArrayLike | None, x: Array, batch_first: bool = True) -> Array | None:
    """Prepare numbers of valid steps, (N,) or (M, N), or a mask (N, T) or (M, N, T)."""
    if value is None:
        return None
    array = np.asarray(value)
    shape = array.shape[:-1] if array.dtype == np.bool_ else array.shape
    flat = array.reshape(-1, *array.shape[len(shape) :])
    return as_lengths(flat, len(flat), x.shape[-2 if batch_first else -3]).reshape(shape)


def forward(*arguments: Any) -> tuple[Array, ...]:
    """Run a layer in one direction; the arguments are those of `_core.forward`."""
    call = _Call(*arguments)
    y, *last = call.networks.forward(*call.positional)
    return (y, *(part[:, 0] for part in last))


def record(checkpoint_every: int, *arguments: Any) -> tuple[tuple[Array, ...], Callable[..., tuple[Any, ...]]]:
    """Run a layer in one direction and return, with its output, the function that pulls gradients back."""
    call = _Call(*arguments)
    (y, *last), recording = call.networks.record(checkpoint_every, *call.positional)

    def pull_back(
        dy: ArrayLike | None = None, dh_n: ArrayLike | None = None, dc_n: ArrayLike | None = None
    ) -> tuple[Any, ...]:
        gradients = recording.backward(
            None if dy is None else as_array("dy", dy, call.dtype), call.state("dh_n", dh_n), call.state("dc_n", dc_n)
        )
        states = tuple(part[:, 0] for part in gradients[5:])
        return (*gradients[:5], *states, *(None,) * len(states))  # no gradients of states after resets

    return (y, *(part[:, 0] for part in last)), pull_back


def linear(
    activation: Activation, x: ArrayLike, weight: ArrayLike, bias: ArrayLike | None, lengths: ArrayLike | None
) -> tuple[Array, Callable[[ArrayLike], tuple[Array, ...]]]:
    """Run affine maps and return, with their output, the function that pulls a gradient back."""
    w = as_parts("weight", weight)
    array = as_array("x", series("x", x, len(w), w.shape[2]), w.dtype)
    call = LinearNetworks(
        activation,
        array,
        w,
        None if bias is None else as_parts("bias", bias, w.dtype),
        _lengths(lengths, array),
    )
    return call.y, lambda dy: call.backward(as_array("dy", dy, w.dtype))


class Stack:
    """Recurrent layers of many networks, run as one: what `_core.Stack` is to one network."""

    def __init__(self, layer: Any, packed: bool) -> None:
        self.layer = layer
        self.networks = Networks(layer._cell, layer._weights, 1 + layer.bidirectional, layer.batch_first, packed)

    def forward(self, x: ArrayLike, state: Any, lengths: ArrayLike | None) -> tuple[Array, Any]:
        """Return y and the final state as the layer does."""
        layer = self.layer
        array = layer._input(x)
        h, c = (*layer._state_parts("state", state, layer._batch(x, array)), None)[:2]
        y, *last = self.networks.forward(
            as_array("x", array, layer.dtype),
            None if h is None else as_array("state", h, layer.dtype),
            None if c is None else as_array("state", c, layer.dtype),
            _lengths(lengths, array, layer.batch_first),
            False,
        )
        return y, tuple(last) if len(last) > 1 else last[0]
