"""Layers from one vector to another: an affine map, and vectors of tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from rnncore import functional
from rnncore._conversion import valid_steps
from rnncore.affine import activation_of
from rnncore.layer import Array, _size
from rnncore.stateless import Stateless
from rnncore.streaming import Stages

__all__ = ["Embedding", "Linear"]


class Linear(Stateless):
    """Affine map of every step: y = act(x W' + b), on the core's own matrix product.

    Parameters
    ----------
    input_size, output_size : int
        I and O, the sizes of the last axis of x and y.
    bias : bool
        Whether there is a bias.
    activation : {None, "tanh", "sigmoid", "relu"}
        Applied to the result.
    models : int, optional
        M, for M maps in one call, each in the bits of a layer of its own: parameters are (M, ...), x is (N, T, I) for
        all or (M, N, T, I), lengths (N,) or (M, N), and y (M, N, T, O). Default: one, on x (..., I).
    dtype : {float32, float64}
        Of the parameters, the computation and the results.
    rng : numpy.random.Generator or int, optional
        Source of the initial parameters, each uniform in +-1/sqrt(input_size), as torch has it.

    Attributes
    ----------
    parameters : Views
        ``weight`` (O, I) and ``bias`` (O,).

    Examples
    --------
    >>> import numpy as np
    >>> import rnncore as rc
    >>> layer = rc.Linear(3, 2, activation="tanh", rng=0)
    >>> layer(np.ones((4, 5, 3), dtype=np.float32)).shape
    (4, 5, 2)
    """

    input_size: int
    output_size: int

    def __init__(
        self,
        input_size: int,
        output_size: int,
        bias: bool = True,
        activation: str | None = None,
        *,
        models: int | None = None,
        dtype: DTypeLike = np.float32,
        rng: np.random.Generator | int | None = None,
    ) -> None:
        self.input_size = _size("input_size", input_size)
        self.output_size = _size("output_size", output_size)
        self.bias = bool(bias)
        self.activation = activation
        if activation not in (None, "tanh", "sigmoid", "relu"):
            raise ValueError(f"activation: expected None, 'tanh', 'sigmoid' or 'relu', got {activation!r}")
        shapes: dict[str, tuple[int, ...]] = {"weight": (self.output_size, self.input_size)}
        if self.bias:
            shapes["bias"] = (self.output_size,)
        super().__init__(shapes, dtype, models)
        bound = 1.0 / np.sqrt(self.input_size)
        self.flat_parameters[...] = np.random.default_rng(rng).uniform(-bound, bound, self.flat_parameters.shape)

    def _lengths(self, lengths: ArrayLike | None, x: Array) -> Array | None:
        if self.models is None:
            return super()._lengths(lengths, x)
        return None if lengths is None else np.asarray(lengths)  # one for each row, or each of each network

    def _forward(self, x: Array, lengths: Array | None, training: bool) -> tuple[Array, Callable[[Array], Array]]:
        weight, bias = self.parameters["weight"], self.parameters.get("bias")
        if not training:
            return functional.linear(x, weight, bias, activation=self.activation, lengths=lengths), _no_gradient
        y, pull_back = functional.linear_vjp(x, weight, bias, activation=self.activation, lengths=lengths)

        def back(dy: Array) -> Array:
            gradients = pull_back(dy)
            self.gradients["weight"] += gradients.weight
            if self.bias:
                self.gradients["bias"] += gradients.bias
            return gradients.x

        return y, back

    def _stream_stages(self, stages: Stages) -> None:
        weight, bias = self.parameters["weight"], self.parameters.get("bias")
        stages.append(("linear", weight, bias, activation_of(self.activation)))


class Embedding(Stateless):
    """A learnt vector for each of a set of tokens.

    Parameters
    ----------
    num_embeddings : int
        V, the number of tokens: x has integers from 0 to V - 1.
    embedding_size : int
        E, the size of a token's vector.
    padding_index : int, optional
        A token whose vector begins as zeros and is never trained.
    dtype : {float32, float64}
        Of the vectors.
    rng : numpy.random.Generator or int, optional
        Source of the initial vectors, drawn from the standard normal distribution.

    Attributes
    ----------
    parameters : Views
        ``weight`` (V, E).

    Notes
    -----
    x may have any shape, (N, T) in a model; y has one axis more. x has no gradient: pull-backs return None for it.
    Right before a recurrent layer in a `Sequential`, the two run as one, and y is not made.

    Examples
    --------
    >>> import rnncore as rc
    >>> layer = rc.Embedding(97, 32, rng=0)
    >>> layer([[5, 3, 96]]).shape
    (1, 3, 32)
    """

    output_size: int

    def __init__(
        self,
        num_embeddings: int,
        embedding_size: int,
        padding_index: int | None = None,
        *,
        dtype: DTypeLike = np.float32,
        rng: np.random.Generator | int | None = None,
    ) -> None:
        self.num_embeddings = _size("num_embeddings", num_embeddings)
        self.output_size = self.embedding_size = _size("embedding_size", embedding_size)
        self.padding_index = None if padding_index is None else _size("padding_index", padding_index, least=0)
        if self.padding_index is not None and self.padding_index >= self.num_embeddings:
            raise ValueError(f"padding_index: expected less than {num_embeddings}, got {padding_index}")
        super().__init__({"weight": (self.num_embeddings, self.embedding_size)}, dtype)
        self.flat_parameters[...] = np.random.default_rng(rng).standard_normal(self.flat_parameters.size)
        if self.padding_index is not None:
            self.parameters["weight"][self.padding_index] = 0

    def _input(self, x: ArrayLike) -> Array:
        tokens = np.asarray(x)
        if tokens.dtype.kind not in "iu":
            raise TypeError(f"x: expected integers, the tokens, got {tokens.dtype} {tokens.shape}")
        return tokens

    def _forward(self, x: Array, lengths: Array | None, training: bool) -> tuple[Array, Callable[[Array], None]]:
        valid = Ellipsis if lengths is None else valid_steps(lengths, x.shape[1])
        tokens = x[valid]
        if tokens.size and (tokens.min() < 0 or tokens.max() >= self.num_embeddings):
            wrong = (x < 0) | (x >= self.num_embeddings)
            if lengths is not None:
                wrong &= valid_steps(lengths, x.shape[1])
            first = tuple(int(i) for i in np.argwhere(wrong)[0])
            raise ValueError(f"x: expected tokens from 0 to {self.num_embeddings - 1}, got {x[first]} at {first}")
        y = np.zeros((*x.shape, self.embedding_size), self.dtype) if lengths is not None else None
        rows = self.parameters["weight"][tokens]
        if y is None:
            y = rows
        else:
            y[valid] = rows

        def back(dy: Array) -> None:
            drows = dy[valid].reshape(-1, self.embedding_size)
            flat = tokens.ravel()
            if self.padding_index is not None:
                kept = flat != self.padding_index
                flat, drows = flat[kept], drows[kept]
            if not flat.size:
                return
            order = np.argsort(flat, kind="stable")  # rows of one token lie together, and are summed
            ordered = flat[order]
            first = np.flatnonzero(np.diff(ordered, prepend=-1))
            self.gradients["weight"][ordered[first]] += np.add.reduceat(drows[order], first, axis=0)

        return y, back

    def _stream_stages(self, stages: Stages) -> None:
        if stages:
            raise TypeError(f"model: expected {self!r} to be its first layer")
        stages.append(("embedding", self.parameters["weight"]))

    def input_shape(self) -> tuple[Any, ...]:
        """Return the shape of the tokens of a batch."""
        return "N", "T"

    def output_shape(self, shape: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return the shape of the output: one axis more."""
        return *shape, self.embedding_size


def _no_gradient(dy: Array) -> Array:
    raise AssertionError("nothing was kept for a gradient")
