"""Sequences that grow a token at a time, side by side as the rows of a step: what `rnncore.decoding` is made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rnncore._arguments import count

__all__ = ["Hypothesis", "Walk", "log_softmax", "rows_on_axis"]

Array = NDArray[Any]
Indices = NDArray[np.intp]
State = Any  # what the step makes of it
Step = Callable[[NDArray[np.int64], State], tuple[Any, ...]]
Select = Callable[[State, Indices], State]


class Hypothesis(NamedTuple):
    """One decoded sequence.

    Parameters
    ----------
    tokens : ndarray of int64, (L,)
        Without the start and without the end.
    log_probability : float
        Of the tokens and, if there is one, the end, by the step's own probabilities.
    score : float
        What beams are ranked by; elsewhere the log-probability.
    ended : bool
        Whether the end came, and not the last step that was allowed.
    attention : ndarray, (L, ...), or None
        What the step returned besides, for each token.
    """

    tokens: NDArray[np.int64]
    log_probability: float
    score: float
    ended: bool
    attention: Array | None = None


# ------------------------------------------------------------------------------------------------------ states


def rows_on_axis(axis: int) -> Select:
    """Return a function that takes some rows of a state: None, an array, or tuples or lists of such.

    Parameters
    ----------
    axis : int
        Which axis of all arrays has the rows: 1 in states of recurrent layers, (L, N, H).

    Returns
    -------
    callable, ``select(state, rows) -> state``

    Examples
    --------
    >>> import numpy as np
    >>> from rnncore.hypotheses import rows_on_axis
    >>> h, c = rows_on_axis(1)((np.zeros((2, 3, 4)), np.zeros((2, 3, 4))), np.array([0, 0, 2, 1]))
    >>> h.shape
    (2, 4, 4)
    """

    def select(state: State, rows: Indices) -> State:
        if state is None:
            return None
        if isinstance(state, tuple | list):
            return tuple(select(part, rows) for part in state)
        if not isinstance(state, np.ndarray):
            raise TypeError(f"state: expected None, arrays, or tuples of them, got {type(state).__name__}")
        if not -state.ndim <= axis < state.ndim or (len(rows) and rows.max() >= state.shape[axis]):
            raise ValueError(f"state: expected {rows.max() + 1} rows or more on axis {axis}, got shape {state.shape}")
        return state.take(rows, axis=axis)

    return select


# ------------------------------------------------------------------------------------------------- hypotheses


def log_softmax(logits: Array) -> Array:
    """Return log-probabilities of logits (R, V), in float64.

    Examples
    --------
    >>> import numpy as np
    >>> from rnncore.hypotheses import log_softmax
    >>> np.exp(log_softmax(np.log([[2.0, 6.0]])))
    array([[0.25, 0.75]])
    """
    x = np.ascontiguousarray(logits, np.float64)  # a row's sum has one order, whatever the others
    x = x - x.max(axis=1, keepdims=True)
    result: Array = x - np.log(np.exp(x).sum(axis=1, keepdims=True))
    return result


class _Taken(NamedTuple):
    """What was taken at one step: K tokens, each in continuation of one of the rows alive."""

    rows: Indices  # (K,)
    tokens: NDArray[np.int64]  # (K,)
    attention: Array | None  # (R, ...)
    kept: Indices  # of the K, those that are the rows of the next step


class Walk:
    """The hypotheses alive, each a row of the next step, and how they came about.

    Parameters
    ----------
    step, state, start, end, select
        As in `rnncore.decoding.greedy`.

    Attributes
    ----------
    of : ndarray of int, (R,)
        Which element of `start` each row continues; in order.
    log_probability : ndarray, (R,)
        Of each row so far.
    steps : int
        How many were taken.

    Examples
    --------
    >>> import numpy as np
    >>> from rnncore.hypotheses import Walk, rows_on_axis
    >>> walk = Walk(lambda tokens, state: (np.zeros((len(tokens), 2)), state), None, [0, 0], None, rows_on_axis(0))
    >>> np.exp(walk.expand())
    array([[0.5, 0.5],
           [0.5, 0.5]])
    >>> walk.take(np.array([0, 0, 1]), np.array([0, 1, 1]))
    >>> walk.hypothesis(1).tokens
    array([1])
    >>> walk.keep(np.array([1, 2]))
    >>> walk.of, np.exp(walk.log_probability)
    (array([0, 1]), array([0.5, 0.5]))
    """

    def __init__(self, step: Step, state: State, start: ArrayLike, end: int | None, select: Select) -> None:
        self._step, self._select, self._state = step, select, state
        self._end = None if end is None else count("end", end, least=0)
        tokens = np.asarray(start)
        if tokens.ndim != 1 or (tokens.size and tokens.dtype.kind not in "iu"):
            raise ValueError(f"start: expected integers (N,), got {tokens.dtype} {tokens.shape}")
        self._last = tokens.astype(np.int64)
        self._taken: list[_Taken] = []
        self.of = np.arange(len(tokens))
        self.log_probability = np.zeros(len(tokens))
        self.steps = 0

    def expand(self) -> Array:
        """Return the log-probabilities of every next token of every row, (R, V)."""
        result = self._step(self._last, self._state)
        if not isinstance(result, tuple) or len(result) not in (2, 3):
            raise TypeError("step: expected (logits, state) or (logits, state, attention)")
        logits, self._state = np.asarray(result[0]), result[1]
        R = len(self.of)
        if logits.ndim != 2 or logits.shape[0] != R or not logits.shape[1]:
            raise ValueError(f"step: expected logits ({R}, V) of {R} tokens, got shape {logits.shape}")
        if self._end is not None and self._end >= logits.shape[1]:
            raise ValueError(f"end: expected a token below V = {logits.shape[1]}, got {self._end}")
        if not np.isfinite(logits.max(axis=1)).all():
            raise ValueError("step: expected a finite largest logit in every row, got NaN or an infinity")
        self._attention = None if len(result) == 2 else np.asarray(result[2])
        if self._attention is not None and self._attention.shape[:1] != (R,):
            raise ValueError(f"step: expected attention ({R}, ...), got shape {self._attention.shape}")
        self._log_p = log_softmax(logits)
        return self._log_p

    def take(self, rows: Indices, tokens: Indices) -> None:
        """Continue rows by tokens; a row may be continued more than once, or not at all."""
        self.steps += 1
        self._taken.append(_Taken(rows, tokens.astype(np.int64), self._attention, np.arange(0)))
        self.log_probability = self.log_probability[rows] + self._log_p[rows, tokens]
        self.of = self.of[rows]

    def ended(self) -> NDArray[np.bool_]:
        """Return whether each of what was taken last is an end."""
        ends: NDArray[np.bool_] = self._taken[-1].tokens == (-1 if self._end is None else self._end)
        return ends

    def hypothesis(self, k: int, score: float | None = None) -> Hypothesis:
        """Return number k of what was taken last."""
        log_p, ended = float(self.log_probability[k]), bool(self.ended()[k])
        tokens, attention = [], []
        for n, taken in reversed([*enumerate(self._taken)]):
            tokens.append(taken.tokens[k])
            k = taken.rows[k]
            if taken.attention is not None:
                attention.append(taken.attention[k])
            if n:  # that row is one of what was taken before
                k = self._taken[n - 1].kept[k]
        without_end = slice(0, self.steps - ended)
        return Hypothesis(
            np.array(tokens[::-1], np.int64)[without_end],
            log_p,
            log_p if score is None else score,
            ended,
            np.array(attention[::-1])[without_end] if attention else None,
        )

    def keep(self, kept: Indices) -> None:
        """Let only some of what was taken last live on."""
        last = self._taken[-1]
        self._taken[-1] = last._replace(kept=kept)
        rows = last.rows[kept]
        if len(rows) and not np.array_equal(rows, np.arange(len(self._last))):
            self._state = self._select(self._state, rows)
        self._last, self.of, self.log_probability = last.tokens[kept], self.of[kept], self.log_probability[kept]
