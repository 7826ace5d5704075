"""The float64 oracle of connectionist temporal classification: NumPy, one sequence, written as the paper has it.

For tests and for reading; nothing of the library calls it. The other losses are one line of NumPy each, and their own
oracle.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["ctc"]

Array = NDArray[Any]


def ctc(outputs: ArrayLike, target: ArrayLike, blank: int = 0) -> tuple[float, Array]:
    """Return -log P(target | outputs) of one sequence, and its gradient with respect to the logits.

    Parameters
    ----------
    outputs : array_like, (T, C)
        Logits.
    target : array_like of int, (L,)
        Labels, none of them blank.
    blank : int
        The class that stands for no label.

    Returns
    -------
    loss : float
        Not divided by the number of labels; infinite if no way leads to the target.
    gradient : ndarray, (T, C)
        Zero if the loss is infinite.

    Examples
    --------
    >>> import rnncore as rc
    >>> from rnncore import reference_losses
    >>> loss, _ = reference_losses.ctc([[0.0, 0.0], [0.0, 0.0]], [1])  # 1 1, 1 -, - 1 of four ways
    >>> round(loss, 6)
    0.287682
    """
    x = np.asarray(outputs, np.float64)
    labels = np.asarray(target, np.int64)
    T, C = x.shape
    # the labels, with blanks before, between and after them
    states = np.full(2 * len(labels) + 1, blank)
    states[1::2] = labels
    S = len(states)

    # log softmax
    log_y = x - x.max(axis=1, keepdims=True) if T else x
    log_y = log_y - np.log(np.exp(log_y).sum(axis=1, keepdims=True))

    def may_skip(s: int) -> bool:  # from s - 2, over the blank between two labels that differ
        return s >= 2 and states[s] != blank and states[s] != states[s - 2]

    # alpha[t, s]: log of the sum over all ways from the beginning that are in state s after t steps
    alpha = np.full((T + 1, S), -np.inf)
    alpha[0, 0] = 0.0
    for t in range(T):
        for s in range(S):
            sources = [alpha[t, s]]
            if s >= 1:
                sources.append(alpha[t, s - 1])
            if may_skip(s):
                sources.append(alpha[t, s - 2])
            alpha[t + 1, s] = np.logaddexp.reduce(sources) + log_y[t, states[s]]
    log_p = float(np.logaddexp.reduce(alpha[T, -2:]))
    if log_p == -np.inf:
        return np.inf, np.zeros((T, C))

    # beta[t, s]: log of the sum over all ways from state s after t steps to the end
    beta = np.full((T + 1, S), -np.inf)
    beta[T, -2:] = 0.0
    for t in reversed(range(T)):
        for s in range(S):
            targets = [s]
            if s + 1 < S:
                targets.append(s + 1)
            if s + 2 < S and may_skip(s + 2):
                targets.append(s + 2)
            beta[t, s] = np.logaddexp.reduce([beta[t + 1, r] + log_y[t, states[r]] for r in targets])

    # d(-log P) / d x[t, c] = y[t, c] - sum of exp(alpha + beta - log P) over the states that read c
    gradient = np.exp(log_y)
    for t in range(T):
        np.subtract.at(gradient[t], states, np.exp(alpha[t + 1] + beta[t + 1] - log_p))
    return -log_p, gradient
