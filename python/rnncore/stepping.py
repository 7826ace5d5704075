"""A decoder for inference, with weights packed once: over whole targets, or one step of all rows at a time."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from rnncore._conversion import as_array
from rnncore.attention import Attention, Attentive, Memory, state_parts
from rnncore.decoder import DecoderParts, run_through
from rnncore.layer import Array, State

__all__: list[str] = []  # for seq2seq


class StepState(NamedTuple):
    """What a step goes on from, for R rows."""

    recurrent: tuple[Array | None, ...]  # each (L, R, size)
    fed: Array | None  # (R, C)
    source: Array  # (R,) the source of each row


class Stepping:
    """The layers of a decoder with their weights packed, at what an encoder made of N sources."""

    def __init__(
        self,
        parts: DecoderParts,
        attention: Attention | None,
        first: State,
        values: Array | None,
        steps: Array | None,
        N: int,
    ) -> None:
        self._front, self._recurrent, self._head = parts
        recurrent = parts.recurrent
        self._frozen: Any = None
        if attention is None:
            self._frozen = recurrent.frozen()
        else:
            assert values is not None
            assert steps is not None
            attentive = Attentive(recurrent, attention)
            self._packed, self._memory = attentive.pack(), attentive.memory(values, steps)
        states = state_parts(first, recurrent._states)
        if first is None:
            sizes = recurrent._state_sizes
            states = tuple(np.zeros((recurrent.num_layers, N, size), recurrent.dtype) for size in sizes)
            if recurrent.learn_initial_state:
                states = recurrent._with_initial((None,) * len(sizes), N)
        fed = None
        if attention is not None and attention.feed.name == "output":
            fed = np.zeros((N, recurrent._output_width), recurrent.dtype)
        self.first = StepState(states, fed, np.arange(N))

    def whole(self, target: Array, lengths: Array | None) -> tuple[Array, Array | None]:
        """Return the outputs of whole targets, from the first state, and the weights (N, T, S) of attention."""
        y, _, weights = self._run(target, lengths, self.first)
        return y, weights

    def step(self, tokens: Array, state: StepState) -> tuple[Any, ...]:
        """Take one step of R rows: ``(y (R, ...), state)``, and the weights (R, S) of attention."""
        y, new, weights = self._run(tokens[:, np.newaxis], None, state)
        return (y[:, 0], new) if weights is None else (y[:, 0], new, weights[:, 0])

    def mixed(self, target: Array, own: Array) -> Array:
        """Return a target (N, T, ...) in which, where `own` (N, T) says so, the output of the step before stands.

        Of tokens that is the most probable one. The first step stays.
        """
        state, mixed, tokens = self.first, target.copy(), target.dtype.kind in "iu"
        for t in range(target.shape[1] - 1):
            y, state, *_ = self.step(mixed[:, t], state)
            if not tokens and y.shape != target[:, t].shape:
                raise ValueError(
                    f"teacher_forcing: expected 1 where outputs {y.shape[1:]} are no tokens and cannot stand for "
                    f"targets {target.shape[2:]}"
                )
            mixed[:, t + 1][own[:, t + 1]] = (y.argmax(axis=1) if tokens else y)[own[:, t + 1]]
        return mixed

    @staticmethod
    def select(state: StepState, rows: Array) -> StepState:
        """Return the state of some rows."""
        parts = tuple(None if part is None else part.take(rows, axis=1) for part in state.recurrent)
        return StepState(parts, None if state.fed is None else state.fed[rows], state.source[rows])

    def _run(self, x: Array, lengths: Array | None, state: StepState) -> tuple[Array, StepState, Array | None]:
        x = as_array("target", run_through(self._front, x, lengths), self._recurrent.dtype)
        weights = None
        if self._frozen is not None:
            given = state.recurrent if len(state.recurrent) > 1 else state.recurrent[0]
            y, last = self._frozen(x, given, lengths)
            new = state._replace(recurrent=state_parts(last, self._recurrent._states))
        else:
            memory: Memory = self._memory
            y, weights, last, fed = self._packed.forward(
                x, state.recurrent, state.fed, lengths, memory.values, memory.keys, memory.lengths, state.source
            )
            new = state._replace(recurrent=last, fed=fed)
        return run_through(self._head, y, lengths), new, weights
