"""What limited context costs: the time of bidirectional layers over that of the full one, forward and in training.

Before anything is timed, every layer is checked against a plain layer that reads each window as a sequence of its own.
"""

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np

from environment import enter_environment
from libraries import Task
from timing import time_interleaved

__all__ = ["main"]

LIMITS: list[dict[str, int]] = [
    {},
    {"look_ahead": 0},
    {"look_ahead": 4},
    {"look_ahead": 16},
    {"look_ahead": 16, "chunk": 16},
    {"look_ahead": 16, "chunk": 64},
    {"look_ahead": 16, "look_back": 16, "chunk": 16},
]


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description="Limited context: least times, in ms, and ratios to the full layer.")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--shape", default="200,16,128,128", metavar="T,N,I,H", help="default: 200,16,128,128")
    parser.add_argument("--cells", nargs="+", choices=["RNN", "LSTM", "GRU"], default=["LSTM", "GRU"])
    parser.add_argument("--repeats", type=int, default=7, help="samples of each; default: 7")
    arguments = parser.parse_args()
    enter_environment(arguments.threads)

    T, N, I, H = (int(size) for size in arguments.shape.split(","))
    print(f"T, N, I, H = {arguments.shape}; float32; threads: {arguments.threads}; least times, ms")
    print(f"{'layer':<68}{'forward':>9}{'training':>10}{'forward':>9}{'training':>10}")
    x = np.random.default_rng(0).standard_normal((N, T, I), dtype=np.float32)
    for cell in arguments.cells:
        layers = [_layer(cell, limits, I, H) for limits in LIMITS]
        for layer in layers:
            _check(layer, layers[0], x)
        modes = [_times(layers, mode, x, arguments.repeats) for mode in (_forward, _training)]
        for layer, *times in zip(layers, *modes, strict=True):
            ratios = [time / of_all[0] for time, of_all in zip(times, modes, strict=True)]
            print(f"{layer!r:<68}{times[0]:>9.3f}{times[1]:>10.3f}{ratios[0]:>9.2f}{ratios[1]:>10.2f}", flush=True)


def _layer(cell: str, limits: dict[str, int], I: int, H: int) -> Any:
    import rnncore as rc

    return getattr(rc, cell)(I, H, bidirectional=True, rng=0, **limits)


def _check(layer: Any, full: Any, x: Any) -> None:
    """Compare some steps with what the full layer makes of their windows alone."""
    y, T, H, c = layer(x)[0], x.shape[1], layer.hidden_size, layer.chunk
    for t in (0, T // 2, T - 1):
        begin = t // c * c
        first = 0 if layer.look_back is None else max(0, begin - layer.look_back)
        end = T if layer.look_ahead is None else min(T, begin + c + layer.look_ahead)
        forward, backward = full(x[:, first : t + 1])[0][:, -1, :H], full(x[:, t:end])[0][:, 0, H:]
        if not np.array_equal(y[:, t], np.concatenate([forward, backward], axis=-1)):
            raise AssertionError(f"{layer!r} differs from the full layer on the windows of step {t}")


def _forward(layer: Any, x: Any) -> Callable[[], Any]:
    frozen = layer.frozen()
    return lambda: frozen(x)


def _training(layer: Any, x: Any) -> Callable[[], Any]:
    dy = np.random.default_rng(2).standard_normal((*x.shape[:2], layer.output_size), dtype=np.float32)

    def run() -> None:
        layer.zero_gradients()
        _, pull_back = layer.vjp(x)
        pull_back(dy)

    return run


def _times(layers: list[Any], mode: Any, x: Any, repeats: int) -> list[float]:
    tasks = {repr(layer): Task(mode(layer, x), lambda _: {}) for layer in layers}
    for task in tasks.values():
        task.run()
    return [timing.seconds * 1e3 for timing in time_interleaved(tasks, repeats).tasks.values()]


if __name__ == "__main__":
    main()
