"""Attention in the time loop of a decoder: its parameters, and a recurrent layer run with it as one.

Not public: `Seq2Seq` is made of it. The core runs whole targets in one call, and what decodes step by step packs the
weights once.
"""

from __future__ import annotations  # np.random in annotations would import it

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from rnncore import _core, affine
from rnncore._core import Feed, Score
from rnncore.layer import Array, Layer, State, _size
from rnncore.recurrent import _Recurrent

__all__: list[str] = []  # for seq2seq

KINDS = ("dot", "general", "concat", "bahdanau", "location")
_SCORES = {
    "dot": Score.dot,
    "general": Score.dot,  # of W_a m
    "concat": Score.additive,
    "bahdanau": Score.additive,
    "location": Score.location,
}


class Attention(Layer):
    """The parameters of an attention over a memory (N, S, E), for queries of P numbers, and of what it is combined by.

    Parameters
    ----------
    kind : str
        One of `KINDS`.
    query_size, memory_size : int
        P and E.
    gates_size : int
        G*H of the layer that is fed.
    attention_size : int, optional
        A of "concat" and "bahdanau". Default: P.
    longest_source : int, optional
        M of "location", which cannot do without.
    input_feeding : bool
        Whether outputs are fed ("bahdanau" feeds contexts whatever this is).
    dtype, rng
        As of any layer. Initial values are uniform in +-1/sqrt(n) for a matrix of n columns.
    """

    def __init__(
        self,
        kind: str,
        query_size: int,
        memory_size: int,
        gates_size: int,
        *,
        attention_size: int | None = None,
        longest_source: int | None = None,
        input_feeding: bool = True,
        dtype: DTypeLike = np.float32,
        rng: np.random.Generator | int | None = None,
    ) -> None:
        if kind not in KINDS:
            raise ValueError(f"attention: expected None or one of {', '.join(map(repr, KINDS))}, got {kind!r}")
        P, E = query_size, memory_size
        A = P if attention_size is None else _size("attention_size", attention_size)
        if attention_size is not None and _SCORES[kind] != Score.additive:
            raise ValueError(f"attention_size: expected None for attention={kind!r}, got {attention_size!r}")
        if (longest_source is None) != (kind != "location"):
            expected = "a positive integer" if kind == "location" else "None"
            raise ValueError(f"longest_source: expected {expected} for attention={kind!r}, got {longest_source!r}")
        if kind == "dot" and P != E:
            raise ValueError(
                f"attention: expected a memory of the size of the decoder's h, {P}, for 'dot', got {E}; 'general' "
                "takes any"
            )
        self.kind = kind
        self.feed = Feed.context if kind == "bahdanau" else Feed.output if input_feeding else Feed.nothing
        self.fed_size = {Feed.context: E, Feed.output: P, Feed.nothing: 0}[self.feed]
        of_scores = {
            "dot": {},
            "general": {"weight_attention": (P, E)},
            "location": {
                "weight_attention": (1 if longest_source is None else _size("longest_source", longest_source), P)
            },
        }.get(kind, {"weight_query": (A, P), "weight_memory": (A, E), "bias_attention": (A,), "weight_score": (A,)})
        of_feed = {"weight_feed": (gates_size, self.fed_size)} if self.fed_size else {}
        super().__init__(of_scores | of_feed | {"weight_combine": (P, E + P), "bias_combine": (P,)}, dtype)
        generator = np.random.default_rng(rng)
        for name, array in self.parameters.items():
            columns = E + P if name == "bias_combine" else E if name == "bias_attention" else array.shape[-1]
            array[...] = generator.uniform(-1, 1, array.shape) / np.sqrt(columns)

    def keys(self, memory: Array, lengths: Array) -> tuple[Array | None, Callable[[Array], Array] | None]:
        """Return what queries meet at each step of the memory, if that is not the memory, and its pull-back."""
        if self.kind in ("dot", "location"):
            return None, None
        name, bias = ("weight_attention", None) if self.kind == "general" else ("weight_memory", "bias_attention")
        arrays = self.parameters[name], None if bias is None else self.parameters[bias]
        keys, vjp = affine.linear_vjp(memory, *arrays, lengths=lengths)

        def pull_back(dkeys: Array) -> Array:
            gradients = vjp(dkeys)
            self.gradients[name] += gradients.weight
            if bias is not None:
                self.gradients[bias] += gradients.bias
            return gradients.x

        return keys, pull_back

    def query_weight(self) -> str | None:
        """Return the name of what h is multiplied by to make a query."""
        return {"concat": "weight_query", "bahdanau": "weight_query", "location": "weight_attention"}.get(self.kind)


class Memory(NamedTuple):
    """What a decoder attends to: steps of sources."""

    values: Array  # (N, S, E)
    lengths: Array  # (N,)
    keys: Array | None


class Attentive:
    """A recurrent layer whose time loop has an attention in it."""

    def __init__(self, recurrent: _Recurrent, attention: Attention) -> None:
        self.recurrent = recurrent
        self.attention = attention

    def pack(self) -> _core.Decoder:
        """Pack the weights as they are now."""
        first, *others = self.recurrent._core_weights()
        p = self.attention.parameters
        if self.attention.fed_size:
            first = (np.concatenate([first[0], p["weight_feed"]], axis=1), *first[1:])
        query = self.attention.query_weight()
        return _core.Decoder(
            self.recurrent._spec(),
            [first, *others],
            _SCORES[self.attention.kind],
            self.attention.feed,
            None if query is None else p[query],
            p.get("weight_score"),
            p["weight_combine"],
            p["bias_combine"],
        )

    def memory(self, values: Array, lengths: Array) -> Memory:
        """Prepare a memory for `forward` of what `pack` returns."""
        return Memory(values, lengths, self.attention.keys(values, lengths)[0])

    def vjp(
        self, x: Array, lengths: Array | None, state: tuple[Array | None, ...], memory: Array, source_lengths: Array
    ) -> tuple[tuple[Array, Array], Callable[[Array], tuple[Array, tuple[Array, ...], Array]]]:
        """Run whole targets: ``(y, weights), pull_back``, and ``pull_back(dy) -> (dx, dstate_0, dmemory)``."""
        keys, pull_keys = self.attention.keys(memory, source_lengths)
        (y, weights, *_), recording = self.pack().record(x, state, None, lengths, memory, keys, source_lengths)

        def pull_back(dy: Array) -> tuple[Array, tuple[Array, ...], Array]:
            nothing = (None,) * len(state)
            dx, dstate, _, dmemory, dkeys, *dparameters, dlayers = recording.backward(dy, nothing, None)
            if pull_keys is not None:
                dmemory += pull_keys(dkeys)
            names = self.attention.query_weight(), "weight_score", "weight_combine", "bias_combine"
            for name, gradient in zip(names, dparameters, strict=True):
                if name is not None and gradient is not None:
                    self.attention.gradients[name] += gradient
            for index, dweights in enumerate(dlayers):
                if index == 0 and self.attention.fed_size:
                    I = self.recurrent.input_size
                    self.attention.gradients["weight_feed"] += dweights[0][:, I:]
                    dweights = (dweights[0][:, :I], *dweights[1:])
                self.recurrent._add_gradients(index, dweights[: len(self.recurrent._weights[index])])
            return dx, dstate, dmemory

        return (y, weights), pull_back


def check_decoder(recurrent: _Recurrent) -> None:
    """Check that a layer can have an attention in its time loop."""
    plain = {
        "bidirectional": False,
        "dropout": 0.0,
        "input_dropout": 0.0,
        "recurrent_dropout": 0.0,
        "skip": False,
        "learn_initial_state": False,
        "checkpoint_every": None,
        "look_back": None,
        "input_depth": 1,
        "output_depth": 1,
        "models": None,
    }
    zoneout = any(recurrent._options.zoneout)
    wrong = [name for name, value in plain.items() if getattr(recurrent, name) != value] + ["zoneout"] * zoneout
    if wrong:
        raise ValueError(
            f"decoder: expected a layer without {', '.join(wrong)} where there is attention, got {recurrent!r}"
        )


def state_parts(state: State, count: int) -> tuple[Any, ...]:
    """Return the arrays of a state of `count` of them."""
    if state is None:
        return (None,) * count
    return state if count > 1 else (state,)
