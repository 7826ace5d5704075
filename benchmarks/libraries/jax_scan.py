"""jax.jit of a lax.scan over the steps, the input product of all steps made before it."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from libraries import Task
from problems import Array, Problem

__all__ = ["STEPS", "forward", "scan_layer", "training"]

Step = Callable[..., Any]  # (states, gate inputs from x, w_hh transposed, b_hh) -> states


def _lstm(states: Any, gates_x: Any, u: Any, b: Any) -> Any:
    h, c = states
    i, f, g, o = jnp.split(gates_x + h @ u + b, 4, axis=-1)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(c), c


def _gru(states: Any, gates_x: Any, u: Any, b: Any) -> Any:
    (h,) = states
    x_r, x_z, x_n = jnp.split(gates_x, 3, axis=-1)
    u_r, u_z, u_n = jnp.split(h @ u + b, 3, axis=-1)
    r, z = jax.nn.sigmoid(x_r + u_r), jax.nn.sigmoid(x_z + u_z)
    n = jnp.tanh(x_n + r * u_n)
    return (z * h + (1 - z) * n,)


def _rnn(states: Any, gates_x: Any, u: Any, b: Any) -> Any:
    (h,) = states
    return (jnp.tanh(gates_x + h @ u + b),)


_wait: Callable[[Any], Any] = jax.block_until_ready

STEPS: dict[str, Step] = {"lstm": _lstm, "gru": _gru, "rnn": _rnn}


def scan_layer(step: Step, num_states: int, x: Any, w: Any, u: Any, b_ih: Any, b_hh: Any) -> Any:
    """Return y (T, N, H) and the final states, from w (I, G*H) and u (H, G*H)."""

    def body(states: Any, gates_x: Any) -> Any:
        states = step(states, gates_x, u, b_hh)
        return states, states[0]

    zeros = jnp.zeros((x.shape[1], u.shape[0]), x.dtype)
    final, y = jax.lax.scan(body, (zeros,) * num_states, x @ w + b_ih)
    return y, final


def _make_ready(problem: Problem) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    layer = partial(scan_layer, STEPS[problem.cell], 2 if problem.cell == "lstm" else 1)
    w_ih, w_hh, b_ih, b_hh = problem.weights
    return layer, tuple(jnp.array(array) for array in (problem.x, w_ih.T, w_hh.T, b_ih, b_hh))


def forward(problem: Problem, threads: int) -> Task:
    """Make ready the compiled layer; the number of threads is that of the process."""
    layer, arguments = _make_ready(problem)
    compiled = jax.jit(layer).lower(*arguments).compile()

    def results(returned: Any) -> dict[str, Array]:
        y, final = jax.device_get(returned)
        return {"y": y} | dict(zip(("h_n", "c_n"), final, strict=False))

    return Task(lambda: _wait(compiled(*arguments)), results)


def training(problem: Problem, threads: int) -> Task:
    """Make ready the compiled layer and its vjp, in one function."""
    layer, arguments = _make_ready(problem)
    dy = jnp.array(problem.dy)

    def output_and_gradients(dy: Any, *arguments: Any) -> Any:
        y, vjp = jax.vjp(lambda *a: layer(*a)[0], *arguments)
        return y, vjp(dy)

    compiled = jax.jit(output_and_gradients).lower(dy, *arguments).compile()

    def results(returned: Any) -> dict[str, Array]:
        y, (dx, dw, du, db_ih, db_hh) = jax.device_get(returned)
        return {"y": y, "dx": dx, "dw_ih": dw.T, "dw_hh": du.T, "db_ih": db_ih, "db_hh": db_hh}

    return Task(lambda: _wait(compiled(dy, *arguments)), results)
