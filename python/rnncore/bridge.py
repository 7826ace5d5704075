"""From the final state of an encoder to the initial state of a decoder."""

from __future__ import annotations  # np.random in annotations would import it

from collections.abc import Callable
from typing import Any

import numpy as np

from rnncore import affine
from rnncore.layer import Array, Layer, State
from rnncore.models import Container
from rnncore.recurrent import _Recurrent

__all__: list[str] = []  # for seq2seq

_KINDS = ("auto", "copy", "linear", "zeros")


class StateOf:
    """Where the state of a model's last recurrent layer is among the states of its layers."""

    def __init__(self, model: Layer) -> None:
        found = _last_recurrent(model)
        if found is None:
            raise ValueError(f"encoder: expected a recurrent layer, or a model with one in it, got {model!r}")
        self.layer, self._path = found
        self._model = model

    def of(self, state: State) -> State:
        """Return the layer's state of the model's."""
        for index in self._path:
            state = state[index]
        return state

    def within(self, state: State) -> State:
        """Return a state of the model that has this one of the layer, and None elsewhere."""
        return _within(self._model, self._path, state)


def _last_recurrent(model: Layer) -> tuple[_Recurrent, tuple[int, ...]] | None:
    if isinstance(model, _Recurrent):
        return model, ()
    if not isinstance(model, Container):
        return None
    for index in reversed(range(len(model.layers))):
        found = _last_recurrent(model.layers[index])
        if found is not None:
            return found[0], (index, *found[1])
    return None


def _within(model: Layer, path: tuple[int, ...], state: State) -> State:
    if not path:
        return state
    assert isinstance(model, Container)
    return tuple(
        _within(layer, path[1:], state) if index == path[0] else None for index, layer in enumerate(model.layers)
    )


class Bridge(Layer):
    """From a state of one recurrent layer, each array (D*L, N, size), to one of another.

    Parameters
    ----------
    kind : {"auto", "copy", "linear", "zeros"}
        See `Seq2Seq`. "linear" has a weight (all numbers of the state made, all of the one read) and a bias.
    source, target : _Recurrent
        The layers whose states they are.
    rng : numpy.random.Generator
        Source of the initial parameters, uniform in +-1/sqrt(n) for n columns.
    """

    def __init__(self, kind: str, source: _Recurrent, target: _Recurrent, *, rng: np.random.Generator) -> None:
        if kind not in _KINDS:
            raise ValueError(f"bridge: expected one of {', '.join(map(repr, _KINDS))}, got {kind!r}")
        from_shapes, self._shapes_made = _shapes_of(source), _shapes_of(target)
        same = from_shapes == self._shapes_made
        if kind == "copy" and not same:
            raise ValueError(
                f"bridge: expected states of the same shapes for 'copy', got (layers, size) {from_shapes} and "
                f"{self._shapes_made}"
            )
        self.kind = ("copy" if same else "linear") if kind == "auto" else kind
        shapes: dict[str, tuple[int, ...]] = {}
        if self.kind == "linear":
            columns, rows = (sum(count * size for count, size in each) for each in (from_shapes, self._shapes_made))
            shapes = {"weight": (rows, columns), "bias": (rows,)}
        super().__init__(shapes, target.dtype)
        if shapes:
            self.flat_parameters[...] = rng.uniform(-1, 1, self.flat_parameters.size) / np.sqrt(columns)

    def made_of(self, state: State) -> State:
        """Return the state made of one, None for zeros."""
        if self.kind != "linear":
            return state if self.kind == "copy" else None
        return self._apart(affine.linear(_joined(state), *self.parameters.values(), activation="tanh"))

    def made_of_vjp(self, state: State) -> tuple[State, Callable[[State], State]]:
        """Return the state made of one, and the function that pulls its gradient back."""
        if self.kind != "linear":
            return self.made_of(state), lambda dstate: dstate if self.kind == "copy" else None
        y, vjp = affine.linear_vjp(_joined(state), *self.parameters.values(), activation="tanh")

        def pull_back(dstate: State) -> State:
            gradients = vjp(_joined(dstate))
            self.gradients["weight"] += gradients.weight
            self.gradients["bias"] += gradients.bias
            return _apart(gradients.x, [(len(part), part.shape[2]) for part in _parts(state)])

        return self._apart(y), pull_back

    def _apart(self, rows: Array) -> State:
        return _apart(rows, self._shapes_made)


def _shapes_of(layer: _Recurrent) -> list[tuple[int, int]]:
    """Return how many passes a layer has, and the size of each state in them."""
    return [(len(layer._passes()), size) for size in layer._state_sizes]


def _parts(state: State) -> tuple[Any, ...]:
    return state if isinstance(state, tuple) else (state,)


def _joined(state: State) -> Array:
    """Return all numbers of a state, (N, ...)."""
    return np.concatenate([part.swapaxes(0, 1).reshape(part.shape[1], -1) for part in _parts(state)], axis=1)


def _apart(rows: Array, shapes: list[tuple[int, int]]) -> State:
    """Return a state of such shapes, of all its numbers."""
    parts, begin = [], 0
    for count, size in shapes:
        part = rows[:, begin : begin + count * size].reshape(len(rows), count, size)
        parts.append(np.ascontiguousarray(part.swapaxes(0, 1)))
        begin += count * size
    return tuple(parts) if len(parts) > 1 else parts[0]
