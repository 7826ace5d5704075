"""Decoding from a step function: the most probable token each time, draws, and beam search.

A step takes the tokens that rows have read last and returns what it expects of the next ones, so nothing here knows any
model. All rows go side by side; one that has ended leaves, and costs nothing more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rnncore._arguments import count, number
from rnncore.hypotheses import Hypothesis, Indices, Select, State, Step, Walk, log_softmax, rows_on_axis

__all__ = ["Hypothesis", "beam_search", "greedy", "rows_on_axis", "sample", "sampling_distribution"]

Array = NDArray[Any]

_ROWS_FIRST = rows_on_axis(0)


def greedy(
    step: Step, state: State, start: ArrayLike, end: int | None, max_steps: int, *, select: Select = _ROWS_FIRST
) -> list[Hypothesis]:
    """Take the most probable token at each step, the first of equal ones.

    Parameters
    ----------
    step : callable, ``step(tokens, state) -> (logits, state)`` or ``(logits, state, attention)``
        What follows the tokens (R,), int64, the last of R rows. Logits are (R, V): log-probabilities, but for a
        constant of each row; -inf forbids a token. Attention, if there is any, is an array (R, ...) that hypotheses
        keep.
    state
        The state before the first step: None, an array, or tuples of such.
    start : array_like of int, (N,)
        The tokens that are read first, which say how many sequences there are.
    end : int or None
        The token that ends a sequence; None for none.
    max_steps : int
        How many tokens there may be, the end among them.
    select : callable, ``select(state, rows) -> state``
        Takes rows of a state, by their indices. Default: ``rows_on_axis(0)``. States of recurrent layers, (L, N, H),
        take ``rows_on_axis(1)``.

    Returns
    -------
    list of Hypothesis, N of them

    Raises
    ------
    ValueError
        If an argument is out of its range, or what the step returns has another shape than stated, or a row whose
        largest logit is not finite.
    TypeError
        If an argument, or what the step returns, is of another type.

    Examples
    --------
    A Markov chain has no state: token 0 is followed by 1, 1 by 2 or 0, and 2 ends.

    >>> import numpy as np
    >>> import rnncore as rc
    >>> table = np.array([[0.1, 0.8, 0.1], [0.4, 0.0, 0.6], [0.0, 0.0, 1.0]])
    >>> def step(tokens, state):
    ...     with np.errstate(divide="ignore"):
    ...         return np.log(table[tokens]), state
    >>> (found,) = rc.decoding.greedy(step, None, [0], end=2, max_steps=5)
    >>> found.tokens, round(np.exp(found.log_probability), 2), found.ended
    (array([1]), np.float64(0.48), True)
    """
    return _one_for_each(step, state, start, end, max_steps, select, lambda log_p, _: log_p.argmax(axis=1))


def sample(
    step: Step, state: State, start: ArrayLike, end: int | None, max_steps: int, *,
    rng: np.random.Generator | int, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None,
    select: Select = _ROWS_FIRST,
) -> list[Hypothesis]:  # fmt: skip
    """Draw each token from what the step expects, or from the more probable part of it.

    Parameters
    ----------
    step, state, start, end, max_steps, select
        As in `greedy`.
    rng : numpy.random.Generator or int
        A generator or a seed. Every step draws one number for each of the N sequences, those that have ended
        included, so that no sequence depends on when others end.
    temperature, top_k, top_p
        As in `sampling_distribution`.

    Returns
    -------
    list of Hypothesis, N of them
        Their log-probabilities are those of the step, before temperature and cuts.

    Raises
    ------
    ValueError, TypeError
        As of `greedy` and `sampling_distribution`.

    Examples
    --------
    >>> import numpy as np
    >>> import rnncore as rc
    >>> def fair(tokens, state):
    ...     return np.zeros((len(tokens), 2)), state
    >>> [found.tokens.tolist() for found in rc.decoding.sample(fair, None, [0, 0], None, 4, rng=1)]
    [[1, 0, 0, 1], [1, 1, 0, 0]]
    """
    if not isinstance(rng, np.random.Generator | int | np.integer) or isinstance(rng, bool):
        raise TypeError(f"rng: expected a numpy.random.Generator or a seed, got {type(rng).__name__}")
    generator, N = np.random.default_rng(rng), len(np.atleast_1d(start))

    def draw(log_p: Array, of: Indices) -> Indices:
        # the first token whose cumulative probability is above u, which is below the last
        cumulative = sampling_distribution(log_p, temperature, top_k, top_p).cumsum(axis=1)
        total = cumulative[:, -1]
        u = np.minimum(generator.random(N)[of] * total, np.nextafter(total, 0.0))
        tokens: Indices = (cumulative > u[:, None]).argmax(axis=1)
        return tokens

    return _one_for_each(step, state, start, end, max_steps, select, draw)


def _one_for_each(
    step: Step, state: State, start: ArrayLike, end: int | None, max_steps: int, select: Select,
    choose: Callable[[Array, Indices], Indices],
) -> list[Hypothesis]:  # fmt: skip
    """Continue every row by the one token that `choose` takes, until its end."""
    walk, max_steps = Walk(step, state, start, end, select), count("max_steps", max_steps)
    found: dict[int, Hypothesis] = {}
    N = len(walk.of)
    while len(walk.of):
        log_p = walk.expand()
        walk.take(np.arange(len(log_p)), choose(log_p, walk.of))
        over = walk.ended() | (walk.steps == max_steps)
        for k in np.flatnonzero(over):
            found[int(walk.of[k])] = walk.hypothesis(int(k))
        walk.keep(np.flatnonzero(~over))
    return [found[n] for n in range(N)]


def sampling_distribution(
    logits: ArrayLike, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> Array:
    """Return the probabilities that `sample` draws from.

    Parameters
    ----------
    logits : array_like, (R, V)
        Log-probabilities, but for a constant of each row.
    temperature : float
        What logits are divided by, first.
    top_k : int, optional
        How many tokens of a row keep their share: the most probable ones, of equal ones the first.
    top_p : float, optional
        Then: only the nucleus keeps its share, the fewest tokens whose probabilities sum to `top_p` or more, in (0, 1]
        (Holtzman et al., 2020, "The curious case of neural text degeneration").

    Returns
    -------
    ndarray of float64, (R, V)
        Each row sums to 1.

    Raises
    ------
    ValueError, TypeError
        If an argument is out of its range or of another type.

    Examples
    --------
    >>> import numpy as np
    >>> import rnncore as rc
    >>> logits = np.log([[0.5, 0.3, 0.2]])
    >>> rc.decoding.sampling_distribution(logits, top_p=0.6)
    array([[0.625, 0.375, 0.   ]])
    >>> rc.decoding.sampling_distribution(logits, top_k=1)
    array([[1., 0., 0.]])
    """
    x = np.asarray(logits, np.float64)
    if x.ndim != 2 or not x.shape[1]:
        raise ValueError(f"logits: expected shape (R, V), got {x.shape}")
    x = x / number("temperature", temperature, "finite and > 0")
    V = x.shape[1]
    if top_k is not None and count("top_k", top_k) < V:
        x = np.where(_largest(x, np.full(len(x), top_k)), x, -np.inf)
    p = np.exp(log_softmax(x))
    if top_p is not None and number("top_p", top_p, "in (0, 1]") < 1.0:
        # a token is in the nucleus if those before it, the larger ones, do not sum to top_p
        falling = np.sort(p, axis=1)[:, ::-1]
        p[~_largest(p, 1 + (falling.cumsum(axis=1)[:, :-1] < top_p).sum(axis=1))] = 0.0
    result: Array = p / p.sum(axis=1, keepdims=True)
    return result


def _largest(values: Array, counts: Indices) -> NDArray[np.bool_]:
    """Return which are the largest of each row, so many of it; of equal ones the first."""
    R, V = values.shape
    least = np.sort(values, axis=1)[np.arange(R), V - counts][:, np.newaxis]
    larger, equal = values > least, values == least
    among: NDArray[np.bool_] = larger | (equal & (equal.cumsum(axis=1) <= (counts - larger.sum(axis=1))[:, np.newaxis]))
    return among


# ------------------------------------------------------------------------------------------------- beam search


def beam_search(
    step: Step, state: State, start: ArrayLike, end: int | None, max_steps: int, *,
    beam_width: int = 5, n_best: int = 1, length_penalty: float = 0.0, select: Select = _ROWS_FIRST,
) -> list[list[Hypothesis]]:  # fmt: skip
    """Keep the most probable few of all sequences of each length, and return the best of those that ended.

    The rows of a step are the hypotheses of all sentences. A hypothesis that ends, among the best continuations of
    its sentence, keeps its place in the beam, which has so many fewer for the others. One that can no longer come
    before the `n_best` that have ended, since log-probabilities only fall, is dropped; a sentence without any left is
    over.

    Parameters
    ----------
    step, state, start, end, max_steps, select
        As in `greedy`. What has not ended after `max_steps` tokens counts as it is.
    beam_width : int
        How many hypotheses a sentence has at most. With one, the result is that of `greedy`.
    n_best : int
        How many to return for each sentence, at most `beam_width`.
    length_penalty : float
        alpha >= 0 of Wu et al. (2016), "Google's neural machine translation system": hypotheses of L tokens, their
        end among them, are ranked by log-probability / ((5 + L) / 6)^alpha. Above 0, longer ones gain.

    Returns
    -------
    list of list of Hypothesis
        Of each sentence, best first; fewer than `n_best` if there are no more that are possible.

    Raises
    ------
    ValueError, TypeError
        As of `greedy`.

    Examples
    --------
    The most probable first token is not the beginning of the most probable sequence:

    >>> import numpy as np
    >>> import rnncore as rc
    >>> table = np.array([[0.0, 0.6, 0.4, 0.0], [0.5, 0.0, 0.0, 0.5], [0.1, 0.0, 0.0, 0.9], [0.0, 0.0, 0.0, 1.0]])
    >>> def step(tokens, state):
    ...     with np.errstate(divide="ignore"):
    ...         return np.log(table[tokens]), state
    >>> [found.tokens for found in rc.decoding.greedy(step, None, [0], end=3, max_steps=2)]
    [array([1, 0])]
    >>> ((found,),) = rc.decoding.beam_search(step, None, [0], end=3, max_steps=2, beam_width=2)
    >>> found.tokens, round(np.exp(found.score), 2)
    (array([2]), np.float64(0.36))
    """
    walk, max_steps = Walk(step, state, start, end, select), count("max_steps", max_steps)
    beam_width, n_best = count("beam_width", beam_width), count("n_best", n_best)
    if n_best > beam_width:
        raise ValueError(f"n_best: expected at most beam_width = {beam_width}, got {n_best}")
    alpha = number("length_penalty", length_penalty, "finite and >= 0")

    def penalty(L: int) -> float:
        return float(((5.0 + L) / 6.0) ** alpha)

    found: list[list[Hypothesis]] = [[] for _ in walk.of]
    while len(walk.of):
        log_p = walk.expand()
        total = walk.log_probability[:, None] + log_p
        V = total.shape[1]
        rows, tokens = [], []
        for n, first, last in _groups(walk.of):
            best = _best(total[first:last].ravel(), beam_width - len(found[n]))
            rows.append(first + best // V)
            tokens.append(best % V)
        walk.take(np.concatenate(rows), np.concatenate(tokens))

        over = walk.ended() | (walk.steps == max_steps)
        for k in np.flatnonzero(over):
            score = float(walk.log_probability[k]) / penalty(walk.steps)
            found[walk.of[k]].append(walk.hypothesis(int(k), score))
        # the best that a hypothesis can still come to is to lose nothing, and be as long as may be
        bounds = walk.log_probability / penalty(max_steps)
        for n, first, last in _groups(walk.of):
            found[n].sort(key=lambda hypothesis: -hypothesis.score)
            if len(found[n]) >= n_best:
                over[first:last] |= bounds[first:last] <= found[n][n_best - 1].score
        walk.keep(np.flatnonzero(~over))
    return [of_sentence[:n_best] for of_sentence in found]


def _groups(of: Indices) -> list[tuple[int, int, int]]:
    """Return each number in a sorted array, with where it begins and ends."""
    numbers, first = np.unique(of, return_index=True)
    return list(zip(numbers.tolist(), first.tolist(), [*first[1:].tolist(), len(of)], strict=True))


def _best(values: Array, k: int) -> Indices:
    """Return where the k largest values are, the largest first, of equal ones the first; none that is -inf."""
    kth = np.partition(values, -k)[-k] if k < len(values) else -np.inf
    among = np.flatnonzero((values >= kth) & (values > -np.inf))
    return among[(-values[among]).argsort(kind="stable")][:k]
