"""A step that a stream learns from, by a window of truncated BPTT: `stream.learn`, and the same in torch."""

import argparse
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from itertools import cycle
from typing import Any

import numpy as np

from agreement import TOLERANCE, check_agreement
from environment import enter_environment
from libraries import Task
from problems import Array
from timing import time_interleaved

__all__ = ["main"]

RATE = 1e-3
# Rows, window, inputs and hidden units of an LSTM, before a map to one output.
GRID = ((1, 1, 8, 32), (1, 20, 8, 32), (1, 100, 8, 32), (16, 20, 8, 32), (1, 20, 32, 128), (16, 20, 32, 128))


def rnncore_learn(model: Any, batch_size: int, window: int) -> Callable[[Array, Array], Any]:
    """Make ready a stream."""
    import rnncore as rc

    return model.stream(batch_size, loss=rc.MSE(), optimizer=rc.Adam(RATE), window=window).learn


def torch_learn(
    parameters: dict[str, Array], batch_size: int, window: int
) -> tuple[Any, Callable[[Array, Array], Any]]:
    """Make ready the same of torch: the window as tensors, its states detached; parameters, and what learns."""
    import torch

    (_, inputs), hidden = parameters["0.weight_ih_l0"].shape, parameters["0.weight_hh_l0"].shape[1]
    lstm, linear = torch.nn.LSTM(inputs, hidden, batch_first=True), torch.nn.Linear(hidden, 1)
    both = torch.nn.ModuleList([lstm, linear])
    both.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in parameters.items()})
    optimizer = torch.optim.Adam(both.parameters(), RATE)
    steps: deque[tuple[Any, Any]] = deque(maxlen=window)
    state = tuple(torch.zeros(1, batch_size, hidden) for _ in range(2))

    def learn(x: Array, target: Array) -> Any:
        nonlocal state
        steps.append((torch.from_numpy(x), state))
        y, last = lstm(torch.stack([x_t for x_t, _ in steps], 1), steps[0][1])
        loss = torch.nn.functional.mse_loss(linear(y[:, -1]), torch.from_numpy(target))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        state = tuple(part.detach() for part in last)
        return loss.item()

    return both, learn


def learn_next(learn: Callable[[Array, Array], Any], series: Iterator[tuple[Array, Array]]) -> None:
    """Learn from the next step of a series."""
    learn(*next(series))


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description="Learning at every step, LSTM and Linear, MSE, Adam, float32.")
    parser.add_argument("--threads", type=int, default=1, help="default: 1")
    parser.add_argument("--repeats", type=int, default=20, help="samples of each; default: 20")
    arguments = parser.parse_args()
    enter_environment(arguments.threads)
    import torch

    import rnncore as rc

    torch.set_num_threads(arguments.threads)
    print(f"threads: {arguments.threads}; the least of {arguments.repeats} samples; parameters agree ({TOLERANCE})")
    print(f"{'N,window,I,H':<16}{'us a learn':>12}{'torch, us':>12}{'torch/ours':>12}")
    for N, window, inputs, hidden in GRID:
        rng = np.random.default_rng(0)
        model = rc.Sequential(rc.LSTM(inputs, hidden, rng=rng), rc.Linear(hidden, 1, rng=rng))
        modules, theirs = torch_learn(dict(model.parameters), N, window)
        ours = rnncore_learn(model, N, window)
        # (targets that stay would be learnt, until gradients are too small for the speed of this processor)
        x, targets = (rng.standard_normal((500, N, size), dtype=np.float32) for size in (inputs, 1))
        for x_t, target in zip(x[: max(30, window)], targets, strict=False):  # the window is full afterwards
            ours(x_t, target)
            theirs(x_t, target)
        shape = f"{N},{window},{inputs},{hidden}"
        state = {name: tensor.numpy() for name, tensor in modules.state_dict().items()}
        check_agreement(shape, dict(model.parameters), state)
        tasks = {
            name: Task(partial(learn_next, learn, cycle(zip(x, targets, strict=True))), lambda learnt: {})
            for name, learn in (("rnncore", ours), ("torch", theirs))
        }
        seconds = {name: timing.seconds for name, timing in time_interleaved(tasks, arguments.repeats).tasks.items()}
        ratio = seconds["torch"] / seconds["rnncore"]
        print(f"{shape:<16}{seconds['rnncore'] * 1e6:>12.1f}{seconds['torch'] * 1e6:>12.1f}{ratio:>12.1f}", flush=True)


if __name__ == "__main__":
    main()
