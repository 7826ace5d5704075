"""rnncore's pure functions: weights are packed in every call, as they may have changed."""

from functools import partial
from typing import Any

import rnncore as rc
from libraries import Task
from problems import Array, Problem

__all__ = ["check_threads", "forward", "training"]


def forward(problem: Problem, threads: int) -> Task:
    """Make ready ``functional.<cell>``."""
    check_threads(threads)
    function = getattr(rc.functional, problem.cell)
    run = partial(function, problem.x, *problem.weights, batch_first=False)
    return Task(run, lambda output: output._asdict())


def training(problem: Problem, threads: int, checkpoint_every: int | None = None) -> Task:
    """Make ready ``functional.<cell>_vjp`` and the call of its vjp."""
    check_threads(threads)
    function = partial(getattr(rc.functional, f"{problem.cell}_vjp"), checkpoint_every=checkpoint_every)
    x, weights, dy = problem.x, problem.weights, problem.dy

    def run() -> Any:
        output, vjp = function(x, *weights, batch_first=False)
        return output, vjp(dy)

    def results(returned: Any) -> dict[str, Array]:
        output, gradients = returned
        names = ("x", "w_ih", "w_hh", "b_ih", "b_hh")
        return {"y": output.y} | {f"d{name}": getattr(gradients, name) for name in names}

    return Task(run, results)


def check_threads(threads: int) -> None:
    """Check that rnncore has taken the number of threads over."""
    if rc.get_num_threads() != threads:
        raise RuntimeError(f"rnncore: expected {threads} threads, got {rc.get_num_threads()}")
