"""Layers between those of many networks: they see the networks as more of a batch. Not public.

`Sequential` runs its layers in these stages where some have an axis of M networks. What is shared by all networks, x
and whatever layers without networks make of it, has no such axis yet; from the first layer of many networks on, arrays
are (M, N, T, C), or (M, N, C) where there are no steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rnncore.layer import Layer, PullBack, State

__all__: list[str] = []  # for models


class Folded:
    """A layer that has no networks: it takes (M * N, ...) for (M, N, ...)."""

    resets = False

    def __init__(self, layer: Layer, models: int, rank: int) -> None:
        self.layer = layer
        self.models = models
        self.rank = rank  # dimensions of an input that all networks share

    def run(self, x: Any, state: State = None, lengths: ArrayLike | None = None) -> tuple[Any, State]:
        """Run the layer on x."""
        array = np.asarray(x)
        if array.ndim != self.rank + 1:
            return self.layer.run(array, state, lengths)
        y, new = self.layer.run(self._fold(array), state, self._fold_lengths(array, lengths))
        return self._unfold(y), new

    def vjp(self, x: Any, state: State = None, lengths: ArrayLike | None = None) -> tuple[tuple[Any, State], PullBack]:
        """Run the layer on x for training, with the function that pulls gradients back; see `Layer.vjp`."""
        array = np.asarray(x)
        if array.ndim != self.rank + 1:
            return self.layer.vjp(array, state, lengths)
        (y, new), pull_back = self.layer.vjp(self._fold(array), state, self._fold_lengths(array, lengths))

        def pull_back_unfolded(dy: Any = None, dstate: State = None) -> tuple[Any, State]:
            dx, dinitial = pull_back(None if dy is None else self._fold(np.asarray(dy)), dstate)
            return self._unfold(dx), dinitial

        return (self._unfold(y), new), pull_back_unfolded

    def output_lengths(self, lengths: ArrayLike | None) -> ArrayLike | None:
        """Return the lengths of the output."""
        return self.layer.output_lengths(lengths)

    def output_resets(self, reset_mask: ArrayLike | None) -> ArrayLike | None:
        """Return the mask of resets of the output."""
        return self.layer.output_resets(reset_mask)

    def _fold(self, x: Any) -> Any:
        if x.shape[0] != self.models:
            raise ValueError(f"x: expected ({self.models}, ...), one for each network, got {x.shape}")
        return x.reshape(-1, *x.shape[2:]) if x.size else x.reshape(x.shape[0] * x.shape[1], *x.shape[2:])

    def _unfold(self, y: Any) -> Any:
        return y.reshape(self.models, -1 if y.size else len(y) // self.models, *y.shape[1:])

    def _fold_lengths(self, x: Any, lengths: ArrayLike | None) -> ArrayLike | None:
        return None if lengths is None else np.broadcast_to(lengths, x.shape[:2]).reshape(-1)


class OneStep:
    """A layer of many networks on rows (N, C) or (M, N, C): it takes them for series of one step."""

    resets = False

    def __init__(self, layer: Layer) -> None:
        self.layer = layer

    def run(self, x: Any, state: State = None, lengths: ArrayLike | None = None) -> tuple[Any, State]:
        """Run the layer on x."""
        y, new = self.layer.run(np.asarray(x)[..., np.newaxis, :], state, lengths)
        return y[..., 0, :], new

    def vjp(self, x: Any, state: State = None, lengths: ArrayLike | None = None) -> tuple[tuple[Any, State], PullBack]:
        """Run the layer on x for training, with the function that pulls gradients back; see `Layer.vjp`."""
        (y, new), pull_back = self.layer.vjp(np.asarray(x)[..., np.newaxis, :], state, lengths)

        def pull_back_rows(dy: Any = None, dstate: State = None) -> tuple[Any, State]:
            dx, dinitial = pull_back(None if dy is None else np.asarray(dy)[..., np.newaxis, :], dstate)
            return dx[..., 0, :], dinitial

        return (y[..., 0, :], new), pull_back_rows

    def output_lengths(self, lengths: ArrayLike | None) -> ArrayLike | None:
        """Return the lengths of the output."""
        return self.layer.output_lengths(lengths)

    def output_resets(self, reset_mask: ArrayLike | None) -> ArrayLike | None:
        """Return the mask of resets of the output."""
        return self.layer.output_resets(reset_mask)


def stages(layers: Sequence[Layer], models: int) -> list[tuple[int, Layer | Folded | OneStep]]:
    """Return what runs the layers, one after the other, each with its index."""
    found: list[tuple[int, Layer | Folded | OneStep]] = []
    shape = layers[0].input_shape()
    for index, layer in enumerate(layers):
        rank = len(shape)
        if layer.models is None:
            found.append((index, Folded(layer, models, rank)))
        else:
            found.append((index, OneStep(layer) if rank < len(layer.input_shape()) else layer))
        shape = layer.output_shape(shape)
    return found
