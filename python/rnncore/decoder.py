"""What a decoder is made of: its recurrent layer, and the layers without a state before it and after it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from rnncore.layer import Array, Layer
from rnncore.models import Sequential
from rnncore.recurrent import _Recurrent

__all__: list[str] = []  # for seq2seq


class DecoderParts(NamedTuple):
    """The layers of a decoder."""

    front: Sequence[Layer]
    recurrent: _Recurrent
    head: Sequence[Layer]


def parts_of(decoder: Layer) -> DecoderParts:
    """Find the one recurrent layer of a decoder, which is a layer or a `Sequential`, and what stands around it."""
    layers = decoder.layers if isinstance(decoder, Sequential) else (decoder,)
    found = [index for index, layer in enumerate(layers) if isinstance(layer, _Recurrent)]
    if len(found) != 1:
        raise ValueError(f"decoder: expected exactly one recurrent layer, got {decoder!r}")
    recurrent = layers[found[0]]
    assert isinstance(recurrent, _Recurrent)
    if recurrent.bidirectional:
        raise ValueError(f"decoder: expected a layer of one direction, got {recurrent!r}")
    return DecoderParts(layers[: found[0]], recurrent, layers[found[0] + 1 :])


def run_through(layers: Sequence[Layer], x: Any, lengths: Array | None) -> Any:
    """Run layers that have no state, one after the other."""
    for layer in layers:
        x = layer.run(x, None, lengths)[0]
    return x


def vjp_through(layers: Sequence[Layer], x: Any, lengths: Array | None) -> tuple[Any, Callable[[Any], Any]]:
    """Do so for training: the output, and what pulls its gradient back."""
    pull_backs = []
    for layer in layers:
        (x, _), pull_back = layer.vjp(x, None, lengths)
        pull_backs.append(pull_back)

    def back(dy: Any) -> Any:
        for pull_back in reversed(pull_backs):
            dy = pull_back(dy)[0]
        return dy

    return x, back
