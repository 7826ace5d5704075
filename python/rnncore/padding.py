"""Sequences of any kind as one array with padding, for what takes no other."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rnncore._conversion import Array, as_lengths
from rnncore.ragged import Joined, Ragged

__all__: list[str] = []  # for seq2seq


def padded(name: str, value: Any, lengths: ArrayLike | None) -> tuple[Array, Array | None]:
    """Return sequences in one array (N, T, ...), and their lengths if there is padding."""
    if isinstance(value, list) and value and all(isinstance(item, np.ndarray) and item.ndim for item in value):
        value = Joined.of(name, value)
    if isinstance(value, Ragged):
        if lengths is not None:
            raise ValueError(f"lengths: expected None for a {name} that has its own")
        return value.to_padded()
    array = np.asarray(value)
    if array.ndim < 2:
        raise ValueError(f"{name}: expected an array (N, T, ...), got {array.shape}")
    return array, None if lengths is None else as_lengths(lengths, *array.shape[:2])


def padded_pair(x: Any, lengths: Any) -> tuple[Array, Array, Array | None, Array | None]:
    """Return the source and the target of a pair so, and the lengths of both."""
    if not isinstance(x, tuple | list) or len(x) != 2:
        raise TypeError(f"x: expected a pair (source, target), got {type(x).__name__}")
    given = (None, None) if lengths is None else lengths
    if not isinstance(given, tuple | list) or len(given) != 2:
        raise TypeError(f"lengths: expected None or a pair, of sources and targets, got {type(lengths).__name__}")
    source, source_lengths = padded("source", x[0], given[0])
    target, target_lengths = padded("target", x[1], given[1])
    if len(source) != len(target):
        raise ValueError(f"target: expected {len(source)} sequences as there are sources, got {len(target)}")
    return source, target, source_lengths, target_lengths


def lengths_of(lengths: Any, memory: Array) -> Array:
    """Return the lengths of a memory (N, S, E)."""
    N, S = memory.shape[:2]
    return np.full(N, S, np.int64) if lengths is None else as_lengths(lengths, N, S)
