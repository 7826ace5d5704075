"""Streams beside other libraries that carry a state from call to call: latencies, their tail, and many sessions."""

import argparse
import time
from array import array
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from environment import enter_environment
from libraries import PEERS, Task
from problems import Array, Problem, Shape
from timing import time_interleaved

__all__ = ["main"]

SIZES = (16, 32, 64, 128)  # inputs and hidden units
BLOCK = 64
ATOL = 1e-5
TAIL_SIZE = 32
SESSIONS, SESSION_SIZE = 10_000, 64
SESSION_SECONDS = 50e-3  # of a sample: several steps in a row, as they come


def layer_of(problem: Problem) -> Any:
    """Make rnncore's layer, which takes (N, T, I)."""
    import rnncore as rc

    layer = getattr(rc, problem.cell.upper())(problem.shape.I, problem.shape.H)
    for name, weights in zip(("weight_ih", "weight_hh", "bias_ih", "bias_hh"), problem.weights, strict=True):
        layer.parameters[f"{name}_l0"][...] = weights
    return layer


# ------------------------------------------------------------------------------------------------------------- peers

# Each makes a task that takes the series x (T, N, I) of its problem again and again, and carries its state: the first
# results are those of x, then of x once more, and so on, (T, N, H).


def rnncore_task(problem: Problem, threads: int) -> Task:
    """Make ready a stream, and an output that it writes: `step` of one step, `process` of several."""
    import rnncore as rc

    rc.set_num_threads(threads)
    T, N, _, H = problem.shape
    stream = layer_of(problem).stream(N)
    if T == 1:
        x_t, y_t = problem.x[0], np.empty((N, H), np.float32)
        return Task(partial(stream.step, x_t, y_t), lambda y: {"y": y.copy()[None]})
    x, y = problem.x.swapaxes(0, 1).copy(), np.empty((N, T, H), np.float32)
    return Task(partial(stream.process, x, y), lambda y: {"y": y.swapaxes(0, 1).copy()})


def torch_task(problem: Problem, threads: int) -> Task:
    """Make ready a layer under inference_mode."""
    import torch

    from libraries.torch_nn import new_layer

    torch.set_num_threads(threads)
    layer, x = new_layer(problem).eval(), torch.from_numpy(problem.x)
    state: Any = None

    def run() -> Any:
        nonlocal state
        y, state = layer(x, state)
        return y

    return Task(run, lambda y: {"y": y.numpy()}, torch.inference_mode)


def onnxruntime_task(problem: Problem, threads: int) -> Task:
    """Make ready a session with two bindings: each writes the state that the other reads."""
    from onnxruntime import OrtValue

    from libraries.onnxruntime_node import new_session

    session = new_session(problem, threads, carried=True)
    T, N, _, H = problem.shape
    names = ("h", "c") if problem.cell == "lstm" else ("h",)
    y = np.empty((T, 1, N, H), np.float32)
    slots = [{name: OrtValue.ortvalue_from_numpy(np.zeros((1, N, H), np.float32)) for name in names} for _ in "01"]
    bindings = []
    for read, write in (slots, slots[::-1]):
        binding = session.io_binding()
        binding.bind_ortvalue_input("X", OrtValue.ortvalue_from_numpy(problem.x))
        binding.bind_ortvalue_output("Y", OrtValue.ortvalue_from_numpy(y))
        for name in names:
            binding.bind_ortvalue_input(f"initial_{name}", read[name])
            binding.bind_ortvalue_output(f"Y_{name}", write[name])
        bindings.append(binding)
    turn = 0

    def run() -> Array:
        nonlocal turn
        session.run_with_iobinding(bindings[turn])
        turn = 1 - turn
        return y

    return Task(run, lambda y: {"y": y[:, 0].copy()})


TASKS: dict[str, Callable[[Problem, int], Task]] = {
    "rnncore": rnncore_task,
    "torch": torch_task,
    "onnxruntime": onnxruntime_task,
}


def make_tasks(problem: Problem, threads: int) -> dict[str, Task]:
    """Make ready all that are installed, and see that their first calls agree: ours in bits with the layer's own."""
    calls = 3
    x = np.concatenate([problem.x] * calls)
    expected = np.split(layer_of(problem)(x.swapaxes(0, 1))[0].swapaxes(0, 1), calls)
    tasks = {}
    for name, make in TASKS.items():
        if name != "rnncore" and not PEERS[name].installed():
            continue
        tasks[name] = task = make(problem, threads)
        for part in expected:
            with task.context():
                y = task.results(task.run())["y"]
            agree = np.array_equal(y, part) if name == "rnncore" else np.allclose(y, part, rtol=0, atol=ATOL)
            assert agree, f"{name}, {problem.cell} {problem.shape}: differs by {np.abs(y - part).max():.3g}"
    return tasks


# ---------------------------------------------------------------------------------------------------------- measures


def print_latencies(steps: int, repeats: int) -> None:
    """Print microseconds a step of one sequence, `steps` in a call."""
    method = "step" if steps == 1 else f"process, {steps} steps"
    print(f"\n{method}: us a step, and the time of each peer over ours; 1 row, 1 thread")
    for cell in ("lstm", "gru"):
        for size in SIZES:
            tasks = make_tasks(Problem.draw(cell, Shape(steps, 1, size, size)), 1)
            timings = time_interleaved(tasks, repeats).tasks
            us = {name: timing.seconds / steps * 1e6 for name, timing in timings.items()}
            peers = "".join(f"{name:>16}{us[name]:>9.2f} ({us[name] / us['rnncore']:.1f})" for name in list(us)[1:])
            print(f"{cell.upper():<6}I = H = {size:<5}{us['rnncore']:>8.3f}{peers}", flush=True)


def print_tail(count: int) -> None:
    """Print how long single steps take, the reading of the clock included, and calls of NumPy in turn with them."""
    step = make_tasks(Problem.draw("lstm", Shape(1, 1, TAIL_SIZE, TAIL_SIZE)), 1)["rnncore"].run
    row = np.zeros(TAIL_SIZE, np.float32)
    # the latter says what the machine does to both
    calls: dict[str, Callable[[], object]] = {"step": step, "np.add": partial(np.add, row, row, row)}
    times = {name: array("q", bytes(8 * count)) for name in calls}
    clock = time.perf_counter_ns
    for i in range(count):
        for name, call in calls.items():
            begin = clock()
            call()
            times[name][i] = clock() - begin
    print(f"\n{count:,} steps, LSTM({TAIL_SIZE}, {TAIL_SIZE}), 1 row, and as many small calls of NumPy in between: us")
    print(f"{'':<8}{'p50':>8}{'p99':>14}{'p99.9':>14}{'max':>14}   (over p50)")
    for name, samples in times.items():
        p50, *above = np.percentile(samples, [50, 99, 99.9, 100]) / 1e3
        print(f"{name:<8}{p50:>8.2f}" + "".join(f"{us:>8.2f} ({us / p50:.1f})" for us in above))


def print_sessions(repeats: int) -> None:
    """Print the throughput of many sequences in one stream."""
    problem = Problem.draw("lstm", Shape(1, SESSIONS, SESSION_SIZE, SESSION_SIZE))
    print(f"\n{SESSIONS:,} sequences in a step, LSTM({SESSION_SIZE}, {SESSION_SIZE}): million sequence-steps a second")
    for threads in (1, 2):
        timings = time_interleaved(make_tasks(problem, threads), repeats, SESSION_SECONDS).tasks
        rates = "".join(f"{name:>16}{SESSIONS / t.seconds / 1e6:>8.2f}" for name, t in timings.items())
        print(f"{threads} thread{'s' if threads > 1 else ' '}{rates}", flush=True)


def print_rows(repeats: int) -> None:
    """Print how long it takes for a row to come and to go, where there is room for it."""
    stream = layer_of(Problem.draw("lstm", Shape(1, 1, SESSION_SIZE, SESSION_SIZE))).stream(SESSIONS)
    rng, half = np.random.default_rng(0), SESSIONS // 2
    least = {"detach": float("inf"), "attach": float("inf")}
    for _ in range(repeats):
        gone = rng.integers(0, half, half).tolist()
        begin = time.perf_counter()
        for row in gone:
            stream.detach(row)
        between = time.perf_counter()
        for _ in gone:
            stream.attach()
        end = time.perf_counter()
        for name, seconds in (("detach", between - begin), ("attach", end - between)):
            least[name] = min(least[name], seconds / half)
    print(f"\nrows of that stream: attach {least['attach'] * 1e9:.0f} ns, detach {least['detach'] * 1e9:.0f} ns")


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description="Streams of rnncore, and peers that carry a state; float32.")
    parser.add_argument("--repeats", type=int, default=30, help="samples of each; default: 30")
    parser.add_argument("--quick", action="store_true", help="5 samples of each, a tenth of the single steps")
    arguments = parser.parse_args()
    enter_environment(1)

    repeats = 5 if arguments.quick else arguments.repeats
    print(f"the least of {repeats} samples; ours has the bits of the layer's own call, peers are within {ATOL:g}")
    for steps in (1, BLOCK):
        print_latencies(steps, repeats)
    print_tail(100_000 if arguments.quick else 1_000_000)
    print_sessions(repeats)
    print_rows(repeats)


if __name__ == "__main__":
    main()
