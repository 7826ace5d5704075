"""Layers that compute every row by itself, in NumPy: dropout, layer normalisation, activations."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import DTypeLike

from rnncore import _core
from rnncore._conversion import as_real
from rnncore.affine import activation_of
from rnncore.layer import Array, _size
from rnncore.masks import drop_mask
from rnncore.stateless import RowWise
from rnncore.streaming import Stages

__all__ = ["Activation", "Dropout", "LayerNorm"]


class Dropout(RowWise):
    """Set elements to zero at random in training, and scale the others so that the mean stays; else do nothing.

    Srivastava et al. 2014. Between the layers of a stack, the recurrent layers have a `dropout` of their own.

    Parameters
    ----------
    probability : float
        Of an element to be dropped, from 0 to 1.
    rng : numpy.random.Generator or int, optional
        Source of what is dropped.

    Examples
    --------
    >>> import numpy as np
    >>> import rnncore as rc
    >>> layer = rc.Dropout(0.5, rng=0)
    >>> (y, _), pull_back = layer.vjp(np.ones((1, 4, 4)))
    >>> sorted(set(y.ravel().tolist()))
    [0.0, 2.0]
    >>> float(layer(np.ones((1, 4, 4))).mean())
    1.0
    """

    rng: np.random.Generator

    def __init__(self, probability: float = 0.5, *, rng: np.random.Generator | int | None = None) -> None:
        super().__init__()
        self.probability = float(probability)
        if not 0.0 <= self.probability <= 1.0:
            raise ValueError(f"probability: expected a number from 0 to 1, got {probability}")
        self.rng = np.random.default_rng(rng)

    def _rows(self, x: Array, training: bool) -> tuple[Array, Callable[[Array], Array]]:
        if not training or self.probability == 0.0:
            return x.copy(), _unchanged
        mask = drop_mask(self.rng, self.probability, x.shape, x.dtype)
        return x * mask, lambda dy: dy * mask

    def _stream_stages(self, stages: Stages) -> None:
        pass  # nothing is dropped out


class LayerNorm(RowWise):
    """Bring every row to mean 0 and variance 1, then scale and shift it: y = (x - m) / sqrt(v + eps) * weight + bias.

    Ba, Kiros & Hinton 2016. m and v are mean and variance (divided by C) over the last axis.

    Parameters
    ----------
    size : int
        C, the size of the last axis.
    eps : float
        Keeps a constant row from a division by zero.
    dtype : {float32, float64}
        Of the parameters.

    Attributes
    ----------
    parameters : Views
        ``weight`` (C,), ones at first, and ``bias`` (C,), zeros.

    Examples
    --------
    >>> import numpy as np
    >>> import rnncore as rc
    >>> y = rc.LayerNorm(4)(np.arange(8.0).reshape(1, 2, 4))
    >>> np.round(y[0, 1], 3)
    array([-1.342, -0.447,  0.447,  1.342])
    """

    def __init__(self, size: int, eps: float = 1e-5, *, dtype: DTypeLike = np.float32) -> None:
        self.size = self.input_size = self.output_size = _size("size", size)
        self.eps = float(eps)
        if not self.eps > 0.0:
            raise ValueError(f"eps: expected a positive number, got {eps}")
        super().__init__({"weight": (self.size,), "bias": (self.size,)}, dtype)
        self.parameters["weight"][...] = 1

    def _rows(self, x: Array, training: bool) -> tuple[Array, Callable[[Array], Array]]:
        weight = self.parameters["weight"]
        centred = x - x.mean(axis=-1, keepdims=True)
        scale = 1.0 / np.sqrt(np.mean(centred * centred, axis=-1, keepdims=True) + self.eps)
        normal = centred * scale

        def back(dy: Array) -> Array:
            axes = tuple(range(dy.ndim - 1))
            self.gradients["weight"] += (dy * normal).sum(axis=axes)
            self.gradients["bias"] += dy.sum(axis=axes)
            # dx = (g - mean(g) - n mean(g n)) / sqrt(v + eps), with g = dy weight and n the normalised row
            g = dy * weight
            dx: Array = (
                g - g.mean(axis=-1, keepdims=True) - normal * (g * normal).mean(axis=-1, keepdims=True)
            ) * scale
            return dx

        return (normal * weight + self.parameters["bias"]).astype(x.dtype, copy=False), back


class Activation(RowWise):
    """A function of every element.

    Parameters
    ----------
    function : {"tanh", "sigmoid", "relu"}
        Which. `Linear` has the same as an argument, which is faster.

    Examples
    --------
    >>> import numpy as np
    >>> import rnncore as rc
    >>> rc.Activation("relu")(np.array([[-1.0, 2.0]]))
    array([[0., 2.]])
    """

    def __init__(self, function: str) -> None:
        super().__init__()
        self.function = function
        if function not in ("tanh", "sigmoid", "relu"):
            raise ValueError(f"function: expected 'tanh', 'sigmoid' or 'relu', got {function!r}")

    def _rows(self, x: Array, training: bool) -> tuple[Array, Callable[[Array], Array]]:
        if self.function == "tanh":
            y = _core.tanh(as_real("x", x).ravel()).reshape(x.shape)
            return y, lambda dy: dy * (1 - y * y)
        if self.function == "sigmoid":
            y = _core.sigmoid(as_real("x", x).ravel()).reshape(x.shape)
            return y, lambda dy: dy * (y * (1 - y))
        y = np.maximum(x, 0)
        return y, lambda dy: dy * (y > 0)

    def _stream_stages(self, stages: Stages) -> None:
        if not stages:
            raise TypeError(f"model: expected {self!r} to follow a layer that has a size")
        stages.append(("activation", activation_of(self.function)))


def _unchanged(dy: Array) -> Array:
    return dy
