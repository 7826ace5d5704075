"""A loop over the steps as a NumPy user would write it: one product for the input, then one a step."""

import numpy as np

from libraries import Task
from problems import Array, Problem

__all__ = ["forward"]


def _sigmoid(a: Array) -> Array:
    return 1 / (1 + np.exp(-a))


def _lstm(x: Array, w_ih: Array, w_hh: Array, b_ih: Array, b_hh: Array) -> dict[str, Array]:
    T, N, H = *x.shape[:2], w_hh.shape[1]
    gates_x = x @ w_ih.T + (b_ih + b_hh)
    h = c = np.zeros((N, H), x.dtype)
    y = np.empty((T, N, H), x.dtype)
    for t in range(T):
        a = gates_x[t] + h @ w_hh.T
        i, f, o = _sigmoid(a[:, :H]), _sigmoid(a[:, H : 2 * H]), _sigmoid(a[:, 3 * H :])
        c = f * c + i * np.tanh(a[:, 2 * H : 3 * H])
        y[t] = h = o * np.tanh(c)
    return {"y": y, "h_n": h, "c_n": c}


def _gru(x: Array, w_ih: Array, w_hh: Array, b_ih: Array, b_hh: Array) -> dict[str, Array]:
    T, N, H = *x.shape[:2], w_hh.shape[1]
    gates_x = x @ w_ih.T + b_ih
    h = np.zeros((N, H), x.dtype)
    y = np.empty((T, N, H), x.dtype)
    for t in range(T):
        u = h @ w_hh.T + b_hh
        rz = _sigmoid(gates_x[t, :, : 2 * H] + u[:, : 2 * H])
        r, z = rz[:, :H], rz[:, H:]
        n = np.tanh(gates_x[t, :, 2 * H :] + r * u[:, 2 * H :])
        y[t] = h = z * h + (1 - z) * n
    return {"y": y, "h_n": h}


def _rnn(x: Array, w_ih: Array, w_hh: Array, b_ih: Array, b_hh: Array) -> dict[str, Array]:
    T, N, H = *x.shape[:2], w_hh.shape[1]
    gates_x = x @ w_ih.T + (b_ih + b_hh)
    h = np.zeros((N, H), x.dtype)
    y = np.empty((T, N, H), x.dtype)
    for t in range(T):
        y[t] = h = np.tanh(gates_x[t] + h @ w_hh.T)
    return {"y": y, "h_n": h}


LAYERS = {"lstm": _lstm, "gru": _gru, "rnn": _rnn}


def forward(problem: Problem, threads: int) -> Task:
    """Make ready the loop; the number of threads of its products is that of the process."""
    layer = LAYERS[problem.cell]
    return Task(lambda: layer(problem.x, *problem.weights), dict)
