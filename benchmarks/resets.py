"""An LSTM whose state starts anew inside sequences: one call with a mask, a loop over the pieces, and torch's loop."""

import argparse
import itertools
from collections.abc import Callable

import numpy as np

from agreement import check_agreement
from environment import enter_environment
from libraries import Task
from problems import MODES, Array
from timing import time_interleaved

__all__ = ["main"]

SHAPES = ("128,32,64,64", "128,32,128,128", "1000,1,128,128")


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description="An LSTM with resets: least times, in ms.")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--shapes", nargs="+", default=SHAPES, metavar="T,N,I,H", help="steps, batch, ...")
    parser.add_argument("--probability", type=float, default=0.02, help="of a reset at a step; default: 0.02")
    parser.add_argument("--repeats", type=int, default=20, help="samples of each; default: 20")
    arguments = parser.parse_args()
    enter_environment(arguments.threads)

    import torch

    torch.set_num_threads(arguments.threads)
    print(f"LSTM(I, H), float32, a reset at a step with probability {arguments.probability:g}")
    print(
        f"threads: {arguments.threads}; the least of {arguments.repeats} samples, ms; ratios: time over that of a mask"
    )
    print(f"{'T,N,I,H':<18}{'mode':<10}{'a mask':>9}{'none':>9}{'loop':>9}{'torch':>9}", end="")
    print(f"{'none':>8}{'loop':>8}{'torch':>8}")
    for shape in arguments.shapes:
        for mode in MODES:
            tasks = _tasks([int(size) for size in shape.split(",")], arguments.probability, mode)
            results = {name: task.results(task.run()) for name, task in tasks.items()}
            for name in ("loop", "torch"):
                check_agreement(f"{shape}, {mode}, {name}", results[name], results["a mask"])
            timings = time_interleaved(tasks, arguments.repeats).tasks.values()
            milliseconds = [timing.seconds * 1e3 for timing in timings]
            print(f"{shape:<18}{mode:<10}", *(f"{ms:>9.3f}" for ms in milliseconds), sep="", end="")
            print(*(f"{ms / milliseconds[0]:>8.2f}" for ms in milliseconds[1:]), sep="", flush=True)


def _tasks(sizes: list[int], probability: float, mode: str) -> dict[str, Task]:
    import torch

    import rnncore as rc

    T, N, I, H = sizes
    rng = np.random.default_rng(0)
    x, dy = rng.standard_normal((N, T, I), dtype=np.float32), rng.standard_normal((N, T, H), dtype=np.float32)
    mask = rng.random((N, T)) < probability
    layer, torch_layer = rc.LSTM(I, H, rng=1), torch.nn.LSTM(I, H, batch_first=True)
    torch_layer.load_state_dict({name: torch.tensor(value) for name, value in layer.parameters.items()})
    torch_x, torch_dy = torch.tensor(x), torch.tensor(dy)
    pieces = []  # rows and their steps
    for n in range(N):
        bounds = [0, *(t for t in range(1, T) if mask[n, t]), T]
        pieces += [(slice(n, n + 1), slice(*ends)) for ends in itertools.pairwise(bounds)]

    def ours(reset_mask: Array | None) -> Callable[[], Array]:
        def run() -> Array:
            if mode == "forward":
                return layer(x, None, None, reset_mask)[0]
            layer.zero_gradients()
            (y, _), pull_back = layer.vjp(x, None, None, reset_mask)
            pull_back(dy)
            return y

        return run

    def loop() -> Array:
        y = np.empty_like(dy)
        if mode == "forward":
            for piece in pieces:
                y[piece] = layer(x[piece])[0]
            return y
        layer.zero_gradients()
        pull_backs = []
        for piece in pieces:
            (y[piece], _), pull_back = layer.vjp(x[piece])
            pull_backs.append(pull_back)
        for piece, pull_back in zip(pieces, pull_backs, strict=True):
            pull_back(dy[piece])
        return y

    def of_torch() -> list[torch.Tensor]:
        if mode == "forward":
            with torch.inference_mode():
                return [torch_layer(torch_x[piece])[0] for piece in pieces]
        for parameter in torch_layer.parameters():
            parameter.grad = None
        ys = [torch_layer(torch_x[piece])[0] for piece in pieces]
        torch.autograd.backward(ys, [torch_dy[piece] for piece in pieces])
        return ys

    def results(y: Array) -> dict[str, Array]:
        gradients = {} if mode == "forward" else {name: value.copy() for name, value in layer.gradients.items()}
        return {"y": y, **gradients}

    def results_of_torch(ys: list[torch.Tensor]) -> dict[str, Array]:
        y = np.empty_like(dy)
        for piece, value in zip(pieces, ys, strict=True):
            y[piece] = value.detach().numpy()
        gradients = [p.grad.numpy() for p in torch_layer.parameters() if p.grad is not None]
        return {"y": y, **dict(zip(layer.parameters, gradients, strict=False))}

    return {
        "a mask": Task(ours(mask), results),
        "none": Task(ours(None), results),
        "loop": Task(loop, results),
        "torch": Task(of_torch, results_of_torch),
    }


if __name__ == "__main__":
    main()
