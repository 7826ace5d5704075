"""torch.nn.LSTM, GRU and RNN, time-major."""

from typing import Any

import torch

from libraries import Task
from problems import Array, Problem

__all__ = ["forward", "new_layer", "training"]

PARAMETERS = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")


def new_layer(problem: Problem) -> Any:
    """Make the layer."""
    layer = getattr(torch.nn, problem.cell.upper())(problem.shape.I, problem.shape.H)
    with torch.no_grad():
        for name, weights in zip(PARAMETERS, problem.weights, strict=True):
            getattr(layer, name).copy_(torch.from_numpy(weights))
    return layer


def forward(problem: Problem, threads: int) -> Task:
    """Make ready a call of the layer under inference_mode."""
    torch.set_num_threads(threads)
    layer = new_layer(problem).eval()
    x = torch.from_numpy(problem.x)

    def results(returned: Any) -> dict[str, Array]:
        y, final = returned
        final = final if problem.cell == "lstm" else (final,)
        states = zip(("h_n", "c_n"), final, strict=False)
        return {"y": y.numpy()} | {name: state[0].numpy() for name, state in states}

    return Task(lambda: layer(x), results, torch.inference_mode)


def training(problem: Problem, threads: int) -> Task:
    """Make ready a call of the layer and ``y.backward(dy)``, gradients set to None before."""
    torch.set_num_threads(threads)
    layer = new_layer(problem)
    x = torch.from_numpy(problem.x).requires_grad_()
    dy = torch.from_numpy(problem.dy)
    leaves = (x, *(getattr(layer, name) for name in PARAMETERS))

    def run() -> Any:
        for leaf in leaves:
            leaf.grad = None
        y, _ = layer(x)
        y.backward(dy)
        return y

    def results(y: Any) -> dict[str, Array]:
        names = ("dx", "dw_ih", "dw_hh", "db_ih", "db_hh")
        gradients = (leaf.grad.numpy() for leaf in leaves)
        return {"y": y.detach().numpy()} | dict(zip(names, gradients, strict=True))

    return Task(run, results)
