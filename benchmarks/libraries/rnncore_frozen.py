"""A frozen layer of rnncore: weights are packed once, when it is made."""

from typing import Any

import rnncore as rc
from libraries import Task
from libraries.rnncore_functional import check_threads
from problems import Array, Problem

__all__ = ["forward"]

PARAMETERS = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")


def forward(problem: Problem, threads: int) -> Task:
    """Make ready a call of the frozen layer."""
    check_threads(threads)
    layer = getattr(rc, problem.cell.upper())(problem.shape.I, problem.shape.H, batch_first=False)
    for name, weights in zip(PARAMETERS, problem.weights, strict=True):
        layer.parameters[name][...] = weights
    frozen = layer.frozen()
    x = problem.x

    def results(returned: Any) -> dict[str, Array]:
        y, final = returned
        final = final if problem.cell == "lstm" else (final,)  # each (1, N, H)
        return {"y": y} | {name: state[0] for name, state in zip(("h_n", "c_n"), final, strict=False)}

    return Task(lambda: frozen(x), results)
