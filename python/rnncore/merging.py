"""How the outputs of a layer's two directions become the output of the layer. Not public: layers say what it means."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from rnncore._conversion import Array

__all__: list[str] = []  # for recurrent layers

MERGES = ("concat", "sum", "mean", "multiply")


def checked(merge: Any, bidirectional: bool) -> str:
    """Check the name of a way to merge."""
    if not isinstance(merge, str) or merge not in MERGES:
        raise ValueError(f"merge: expected one of {', '.join(map(repr, MERGES))}, got {merge!r}")
    if merge != "concat" and not bidirectional:
        raise ValueError(f"merge: expected 'concat' unless the layer is bidirectional, got {merge!r}")
    return merge


def merged(merge: str, outputs: list[Array]) -> Array:
    """Return the output of a layer: those of its directions, (..., P) each, side by side or of the size of one."""
    if len(outputs) == 1:
        return outputs[0]
    a, b = outputs
    if merge == "concat":
        return np.concatenate([a, b], axis=-1)
    if merge == "multiply":
        return a * b
    return a + b if merge == "sum" else 0.5 * (a + b)


def merged_vjp(merge: str, outputs: list[Array]) -> tuple[Array, Callable[[Array], list[Array]]]:
    """Return it with the function that takes its gradient apart into those of the directions' outputs."""
    P, D = outputs[0].shape[-1], len(outputs)

    def apart(dy: Array) -> list[Array]:
        return [dy] if D == 1 else [np.ascontiguousarray(dy[..., d * P : (d + 1) * P]) for d in range(D)]

    def alike(dy: Array) -> list[Array]:
        return [dy, dy]

    def halved(dy: Array) -> list[Array]:
        return [0.5 * dy, 0.5 * dy]

    def crossed(dy: Array) -> list[Array]:
        a, b = outputs
        return [dy * b, dy * a]

    return merged(merge, outputs), {"concat": apart, "sum": alike, "mean": halved, "multiply": crossed}[merge]
