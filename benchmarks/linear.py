"""The affine map beside torch.nn.functional.linear: forward, and forward with backward, over shapes of read-outs."""

import argparse
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self

import numpy as np

from agreement import TOLERANCE, check_agreement
from environment import enter_environment
from libraries import Task
from problems import MODES, Array
from timing import time_interleaved

__all__ = ["main"]

NAMES = ("dx", "dweight", "dbias")


class Shape(NamedTuple):
    """Rows, inputs and outputs."""

    R: int
    I: int
    O: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``"R,I,O"``."""
        sizes = [int(size) for size in text.split(",")]
        if len(sizes) != 3 or min(sizes) < 1:
            raise ValueError(f"shape: expected R,I,O of at least 1 each, got {text!r}")
        return cls(*sizes)


GRID = (
    Shape(1, 128, 97),
    Shape(1, 512, 10000),
    Shape(20, 16, 16),
    Shape(32, 128, 10),
    Shape(32, 512, 1000),
    Shape(3200, 8, 1),
    Shape(3200, 64, 64),
    Shape(3200, 128, 97),
    Shape(3200, 128, 1000),
    Shape(3200, 512, 512),
    Shape(700, 200, 10000),
)


class Problem(NamedTuple):
    """Arguments and the gradient of y."""

    x: Array  # (R, I)
    weight: Array  # (O, I)
    bias: Array  # (O,)
    dy: Array  # (R, O)

    @classmethod
    def draw(cls, shape: Shape) -> Self:
        """Draw x and dy from a normal distribution, and the parameters as torch initialises them."""
        rng = np.random.default_rng(0)
        R, I, O = shape
        bound = I**-0.5
        return cls(
            rng.standard_normal((R, I), dtype=np.float32),
            rng.uniform(-bound, bound, (O, I)).astype(np.float32),
            rng.uniform(-bound, bound, O).astype(np.float32),
            rng.standard_normal((R, O), dtype=np.float32),
        )


def rnncore_task(problem: Problem, mode: str, activation: str | None) -> Task:
    """Make ready `functional.linear`, or `functional.linear_vjp` and its vjp."""
    from rnncore.functional import linear, linear_vjp

    x, weight, bias, dy = problem
    if mode == "forward":
        return Task(lambda: linear(x, weight, bias, activation=activation), lambda y: {"y": y})

    def run() -> tuple[Array, Sequence[Array]]:
        y, vjp = linear_vjp(x, weight, bias, activation=activation)
        return y, vjp(dy)

    return Task(run, lambda returned: {"y": returned[0], **dict(zip(NAMES, returned[1], strict=True))})


def torch_task(problem: Problem, mode: str, activation: str | None) -> Task:
    """Make ready the same of torch: under inference_mode, or with gradients set to None before."""
    import torch

    x, weight, bias, dy = map(torch.from_numpy, problem)
    act = getattr(torch, activation) if activation else lambda a: a
    function = torch.nn.functional.linear
    if mode == "forward":
        return Task(lambda: act(function(x, weight, bias)), lambda y: {"y": y.numpy()}, torch.inference_mode)
    leaves = tuple(leaf.requires_grad_() for leaf in (x, weight, bias))

    def run() -> Any:
        for leaf in leaves:
            leaf.grad = None
        y = act(function(*leaves))
        y.backward(dy)
        return y

    def results(y: Any) -> Mapping[str, Array]:
        gradients = (leaf.grad.numpy() for leaf in leaves)
        return {"y": y.detach().numpy()} | dict(zip(NAMES, gradients, strict=True))

    return Task(run, results)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description="rnncore.functional.linear and torch's, float32, with a bias.")
    parser.add_argument("--threads", type=int, default=1, help="default: 1")
    parser.add_argument("--repeats", type=int, default=20, help="samples of each; default: 20")
    parser.add_argument("--activation", choices=("tanh", "sigmoid", "relu"), help="default: none")
    parser.add_argument("--shapes", type=Shape.parse, nargs="+", default=GRID, metavar="R,I,O")
    arguments = parser.parse_args()
    enter_environment(arguments.threads)
    import torch

    torch.set_num_threads(arguments.threads)

    print(
        f"y = act(x W' + b), act: {arguments.activation or 'none'}; threads: {arguments.threads}; "
        f"the least of {arguments.repeats} samples;\nresults agree ({TOLERANCE})"
    )
    print(f"{'R,I,O':<16}{'mode':<10}{'us':>10}{'torch, us':>12}{'torch/ours':>12}{'GFLOP/s':>10}")
    for shape in arguments.shapes:
        problem = Problem.draw(shape)
        for mode in MODES:
            tasks = {
                "rnncore": rnncore_task(problem, mode, arguments.activation),
                "torch": torch_task(problem, mode, arguments.activation),
            }
            results = {}
            for name, task in tasks.items():
                with task.context():
                    results[name] = task.results(task.run())
            where = f"{','.join(map(str, shape))}, {mode}"
            check_agreement(where, results["rnncore"], results["torch"])
            timings = time_interleaved(tasks, arguments.repeats).tasks
            ours, torchs = timings["rnncore"].seconds, timings["torch"].seconds
            flops = 2 * shape.R * shape.I * shape.O * (1 if mode == "forward" else 3)
            print(
                f"{','.join(map(str, shape)):<16}{mode:<10}{ours * 1e6:>10.2f}{torchs * 1e6:>12.2f}"
                f"{torchs / ours:>12.2f}{flops / ours / 1e9:>10.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
