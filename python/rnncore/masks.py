"""Masks that layers draw in training: of dropout, and of the units that keep their state."""

from __future__ import annotations  # np.random in annotations would import it

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__: list[str] = []  # for layers

Array = NDArray[Any]


def drop_mask(rng: np.random.Generator, probability: float, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Zero with a probability, else 1 / (1 - probability), so that the mean is 1."""
    return keep_mask(rng, probability, shape, dtype) / (1.0 - probability if probability < 1.0 else 1.0)


def keep_mask(rng: np.random.Generator, probability: float, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Zero with a probability, else 1."""
    return (rng.random(shape, dtype=np.float32) >= probability).astype(dtype)
