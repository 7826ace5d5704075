"""An embedding and the recurrent layer that reads it, run as one: the core finds the rows of the table by their tokens.

So the series of vectors between the two is never made, nor its gradient; and where the table has far fewer rows than
the batch has steps, the product with the input weights is made once for each row of the table. Not public: `Sequential`
runs its layers in these stages.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rnncore._core import Lookup
from rnncore.feedforward import Embedding
from rnncore.layer import Array, Layer, PullBack, State
from rnncore.ragged import Ragged
from rnncore.recurrent import _Recurrent

__all__: list[str] = []  # for models


class Embedded:
    """An embedding and a recurrent layer. State, output and bits are those of the one after the other."""

    resets = True

    def __init__(self, embedding: Embedding, recurrent: _Recurrent) -> None:
        self.embedding = embedding
        self.recurrent = recurrent

    def _lookup(self, x: ArrayLike | Ragged) -> Lookup | Ragged | None:
        """Return what the recurrent layer takes for its input; None for what is not a batch of tokens."""
        ragged = x if isinstance(x, Ragged) else None
        tokens = self.embedding._input(x if ragged is None else ragged.data)
        if tokens.ndim != (2 if ragged is None else 1) or not np.can_cast(tokens.dtype, np.int64):
            return None
        # (a copy: tokens that changed after they were checked would lead the core out of the table)
        tokens = np.array(tokens, np.int64, order="C")
        lookup = Lookup(self.embedding.parameters["weight"], tokens, self.embedding.gradients["weight"])
        return lookup if ragged is None else ragged._with(lookup)

    def run(
        self, x: ArrayLike, state: State = None, lengths: ArrayLike | None = None, reset_mask: ArrayLike | None = None
    ) -> tuple[Array, State]:
        """Run both from a state of the recurrent layer."""
        series: Any
        series, resets = self._lookup(x), resets_of(self, reset_mask)
        return self.recurrent.run(self.embedding(x, lengths) if series is None else series, state, lengths, *resets)

    def vjp(
        self, x: ArrayLike, state: State = None, lengths: ArrayLike | None = None, reset_mask: ArrayLike | None = None
    ) -> tuple[tuple[Array, State], PullBack]:
        """Run both for training, with the function that pulls gradients back; see `Layer.vjp`."""
        resets = resets_of(self, reset_mask)
        # (dropout of inputs needs vectors that are the sequences' own)
        series = None if self.recurrent.input_dropout > 0.0 else self._lookup(x)
        if series is None:
            (vectors, _), pull_back_embedding = self.embedding.vjp(x, None, lengths)
            output, pull_back_recurrent = self.recurrent.vjp(vectors, state, lengths, *resets)

            def pull_back_both(dy: Any = None, dstate: State = None) -> tuple[None, State]:
                dvectors, dinitial = pull_back_recurrent(dy, dstate)
                pull_back_embedding(dvectors)
                return None, dinitial

            return output, pull_back_both

        output, pull_back = self.recurrent.vjp(series, state, lengths, *resets)
        padding = self.embedding.padding_index

        def pull_back_lookup(dy: Any = None, dstate: State = None) -> tuple[None, State]:
            untrained = slice(0) if padding is None else slice(padding, padding + 1)
            gradient = self.embedding.gradients["weight"]
            kept = gradient[untrained].copy()
            _, dinitial = pull_back(dy, dstate)
            gradient[untrained] = kept
            return None, dinitial

        return output, pull_back_lookup

    def output_lengths(self, lengths: ArrayLike | None) -> ArrayLike | None:
        """Return the lengths of the output."""
        return self.recurrent.output_lengths(lengths)

    def output_resets(self, reset_mask: ArrayLike | None) -> ArrayLike | None:
        """Return the mask of resets of the output."""
        return self.recurrent.output_resets(reset_mask)


def resets_of(layer: Any, reset_mask: ArrayLike | None) -> tuple[ArrayLike, ...]:
    """Return what a layer is given of a mask, after the lengths: nothing if it has no use for one."""
    return (reset_mask,) if reset_mask is not None and layer.resets else ()


def stages(layers: Sequence[Layer]) -> list[tuple[int, Layer | Embedded]]:
    """Return what runs the layers, one after the other, each with the index of the layer whose state it has."""
    found: list[tuple[int, Layer | Embedded]] = []
    for index, layer in enumerate(layers):
        before = layers[index - 1] if index else None
        if type(before) is Embedding and isinstance(layer, _Recurrent) and _as_here(layer):
            found[-1] = index, Embedded(before, layer)
        else:
            found.append((index, layer))
    return found


def _as_here(layer: _Recurrent) -> bool:
    """Whether gates read what is looked up: with no windows, no layers before them, in no class of the user's."""
    kind = type(layer)
    return (
        not layer._has_context
        and layer.input_depth == 1
        and kind.run is _Recurrent.run
        and kind.vjp is _Recurrent.vjp
        and kind._input is _Recurrent._input
    )
