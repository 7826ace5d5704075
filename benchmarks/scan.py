"""The linear scan: its kernel against the bandwidth of caches, one long sequence by chunks, calls beside peers."""

import argparse
import json
import os
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from agreement import check_agreement
from environment import enter_environment
from libraries import Task
from limits import NoLimitsError, compile_program, run_program
from problems import Array
from timing import time_interleaved

__all__ = ["main"]

SOURCE = Path(__file__).resolve().with_suffix(".cpp")
# As the package builds its kernels, but for this machine alone.
FLAGS = ("-std=c++20", "-O3", "-march=native", "-mprefer-vector-width=512", "-ffp-contract=off", "-fno-math-errno")
KERNEL_FLAGS = (*FLAGS, "-fno-trapping-math", "-DRNNCORE_ISA=native", "-pthread")

SHAPES = ("1,100000,8", "1,1000,128", "8,1000,128", "32,250,16", "32,100,128")
LONG = (1, 100_000, 8)
CHUNKS = (None, 100, 250, 500, 1000, 2000)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description="The linear scan, float32: bandwidth, calls, chunks, peers.")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--shapes", nargs="+", default=SHAPES, metavar="N,T,C", help="batch, steps, channels")
    parser.add_argument("--repeats", type=int, default=20, help="samples of each; default: 20")
    parser.add_argument("--only", choices=("kernel", "chunks", "peers"), help="a part of it")
    arguments = parser.parse_args()
    enter_environment(arguments.threads)
    parts: dict[str, Callable[[], None]] = {
        "kernel": lambda: _kernel(arguments.threads),
        "chunks": lambda: _chunks(arguments.repeats),
        "peers": lambda: _peers(arguments.shapes, arguments.repeats),
    }
    print(f"threads: {arguments.threads}")
    for name, part in parts.items():
        if arguments.only in (None, name):
            part()


def _kernel(threads: int) -> None:
    print("\nThe kernel alone: bytes of a, b and y a second, and of plain reads of as many, each thread its own")
    try:
        with tempfile.TemporaryDirectory() as folder:
            program = os.path.join(folder, "scan")
            compile_program(SOURCE, program, KERNEL_FLAGS)
            rows = json.loads(run_program(program, threads))
    except NoLimitsError as error:
        print(error)
        return
    print(f"{'':<22}{'N,T,C':>14}{'KiB':>8}{'scan GB/s':>11}{'read GB/s':>11}{'ratio':>8}")
    for row in rows:
        shape = f"{row['N']},{row['T']},{row['C']}"
        rates = f"{row['scan'] / 1e9:>11.0f}{row['read'] / 1e9:>11.0f}{row['scan'] / row['read']:>8.0%}"
        print(f"{row['name']:<22}{shape:>14}{row['bytes'] >> 10:>8}{rates}")


def _chunks(repeats: int) -> None:
    N, T, C = LONG
    print(f"\nOne long sequence, (N, T, C) = {LONG}, by the steps of a chunk: us, and error over the largest value")
    a, b = _draw(N, T, C)
    import rnncore as rc

    exact = rc.functional.linear_scan(a.astype(np.float64), b.astype(np.float64)).y
    tasks, pull_backs, errors = {}, {}, {}
    for chunk in CHUNKS:
        output, vjp = rc.functional.linear_scan_vjp(a, b, chunk=chunk)
        tasks[str(chunk)] = _rnncore(a, b, chunk)
        pull_backs[str(chunk)] = Task(partial(vjp, output.y), lambda _: {})
        errors[str(chunk)] = np.abs(output.y - exact).max() / np.abs(exact).max()
    forward, backward = (time_interleaved(each, repeats).tasks for each in (tasks, pull_backs))
    print(f"{'chunk':<10}{'forward':>10}{'backward':>10}{'error':>10}")
    for name, error in errors.items():
        times = f"{forward[name].seconds * 1e6:>10.0f}{backward[name].seconds * 1e6:>10.0f}"
        print(f"{name:<10}{times}{error:>10.1e}")


def _peers(shapes: list[str], repeats: int) -> None:
    makers = {"rnncore": _rnncore, "numpy loop": _numpy_loop}
    try:
        import jax  # noqa: F401

        makers |= {"jax scan": _jax_scan, "jax associative": _jax_associative_scan}
    except ImportError:
        print("\njax is not installed")
    print("\nCalls from Python, forward: us; ratios to rnncore's")
    print(f"{'N,T,C':<14}" + "".join(f"{name:>17}" for name in makers) + f"{'GB/s':>8}")
    for shape in shapes:
        N, T, C = map(int, shape.split(","))
        a, b = _draw(N, T, C)
        tasks = {name: make(a, b) for name, make in makers.items()}
        results = {name: task.results(task.run()) for name, task in tasks.items()}
        for name, result in results.items():
            check_agreement(name, results["rnncore"], result)
        times = {name: timing.seconds for name, timing in time_interleaved(tasks, repeats).tasks.items()}
        ours = times["rnncore"]
        cells = "".join(f"{time * 1e6:>10.0f} {time / ours:>5.1f}x" for time in times.values())
        print(f"{shape:<14}{cells}{3 * b.nbytes / ours / 1e9:>8.0f}", flush=True)


def _draw(N: int, T: int, C: int) -> tuple[Array, Array]:
    rng = np.random.default_rng(0)
    return rng.uniform(0.5, 0.99, (N, T, C)).astype(np.float32), rng.standard_normal((N, T, C), dtype=np.float32)


def _rnncore(a: Array, b: Array, chunk: int | None = None) -> Task:
    import rnncore as rc

    return Task(lambda: rc.functional.linear_scan(a, b, chunk=chunk).y, lambda y: {"y": y})


def _numpy_loop(a: Array, b: Array) -> Task:
    def run() -> Array:
        y, h = np.empty_like(b), np.zeros_like(b[:, 0])
        for t in range(b.shape[1]):
            h = y[:, t] = a[:, t] * h + b[:, t]
        return y

    return Task(run, lambda y: {"y": y})


def _jax_task(function: Callable[..., Any], a: Array, b: Array) -> Task:
    import jax

    wait: Callable[[Any], Any] = jax.block_until_ready
    compiled, arrays = jax.jit(function), (jax.numpy.array(a), jax.numpy.array(b))
    return Task(lambda: wait(compiled(*arrays)), lambda y: {"y": np.asarray(y)})


def _jax_scan(a: Array, b: Array) -> Task:
    import jax

    def scan(a: Any, b: Any) -> Any:
        def step(h: Any, ab: Any) -> Any:
            h = ab[0] * h + ab[1]
            return h, h

        _, y = jax.lax.scan(step, jax.numpy.zeros_like(b[:, 0]), (a.swapaxes(0, 1), b.swapaxes(0, 1)))
        return y.swapaxes(0, 1)

    return _jax_task(scan, a, b)


def _jax_associative_scan(a: Array, b: Array) -> Task:
    import jax

    def combine(first: Any, second: Any) -> Any:
        return first[0] * second[0], second[0] * first[1] + second[1]

    return _jax_task(lambda a, b: jax.lax.associative_scan(combine, (a, b), axis=1)[1], a, b)


if __name__ == "__main__":
    main()
