"""The specification of reservoirs: a loop over steps in float64 NumPy, W a dense array. Never called by the library."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["esn_states"]


def esn_states(
    x: ArrayLike, w_in: ArrayLike, w: ArrayLike, bias: ArrayLike, leak: float, state: ArrayLike | None = None
) -> NDArray[Any]:
    """Return the states of a reservoir of leaky units after every step.

        x' = (1 - leak) x + leak tanh(W_in u + W x + b)

    Parameters
    ----------
    x : array_like, (T, I)
        u of every step.
    w_in : array_like, (H, I)
    w : array_like, (H, H)
    bias : array_like, (H,)
    leak : float
    state : array_like, (H,), optional
        The state before the first step. Default: zeros.

    Returns
    -------
    ndarray, (T, H)

    Examples
    --------
    >>> from rnncore.reference_esn import esn_states
    >>> esn_states([[1.0], [0.0]], [[1.0]], [[0.5]], [0.0], leak=1.0).round(4)
    array([[0.7616],
           [0.3634]])
    """
    u, weights, recurrent = (np.asarray(array, np.float64) for array in (x, w_in, w))
    h = np.zeros(len(recurrent)) if state is None else np.asarray(state, np.float64)
    states = np.empty((len(u), len(recurrent)))
    for t, inputs in enumerate(u):
        h = (1 - leak) * h + leak * np.tanh(weights @ inputs + recurrent @ h + bias)
        states[t] = h
    return states
