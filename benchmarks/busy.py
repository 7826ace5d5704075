"""How much slower calls get while other processes keep CPUs busy: rnncore beside torch."""

import argparse
import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from statistics import median

import machine
from environment import enter_environment
from libraries import OURS, PEERS, Task
from problems import Problem, Shape
from timing import time_interleaved

__all__ = ["main"]

SHAPES = (Shape(100, 1, 128, 128), Shape(100, 32, 128, 128), Shape(50, 32, 512, 512))
SUBJECTS = (("frozen", "forward"), ("torch", "forward"), ("rnncore", "training"), ("torch", "training"))
SAMPLE_SECONDS = 50e-3  # several turns of the scheduler
# Keeps a CPU busy for as long as the process that started it lives.
BUSY_LOOP = """
import os
parent = os.getppid()
while os.getppid() == parent:
    for _ in range(100_000):
        pass
"""


def main() -> None:
    """Run the command."""
    cpus = machine.cpu_count()
    parser = argparse.ArgumentParser(description="Slow-down of an LSTM while other processes keep CPUs busy.")
    parser.add_argument("--threads", type=int, default=cpus, help="default: the usable CPUs")
    parser.add_argument("--busy", type=int, nargs="+", default=range(1, cpus + 1), help="default: 1 to the usable CPUs")
    parser.add_argument("--shapes", type=Shape.parse, nargs="+", default=SHAPES, metavar="T,N,I,H")
    parser.add_argument("--repeats", type=int, default=9, help="samples of each; default: 9")
    arguments = parser.parse_args()
    enter_environment(arguments.threads)

    subjects = [(name, mode) for name, mode in SUBJECTS if name in OURS or PEERS[name].installed()]
    print(f"LSTM, threads: {arguments.threads}, usable CPUs: {cpus}; medians of {arguments.repeats} samples")
    print(f"{'T,N,I,H':<16}{'mode':<10}{'library':<10}{'quiet, ms':>12}", end="")
    print("".join(f"{f'{count} busy':>10}" for count in arguments.busy))
    for shape in arguments.shapes:
        problem = Problem.draw("lstm", shape)
        tasks = {
            f"{mode:<10}{name:<10}": _library_task(name, mode, problem, arguments.threads) for name, mode in subjects
        }
        quiet = _seconds(tasks, arguments.repeats)
        slower = []
        for count in arguments.busy:
            with _busy_processes(count):
                slower.append(_seconds(tasks, arguments.repeats))
        for label, seconds in quiet.items():
            factors = "".join(f"{times[label] / seconds:>10.2f}" for times in slower)
            print(f"{shape!s:<16}{label}{seconds * 1e3:>12.3f}{factors}", flush=True)


def _library_task(name: str, mode: str, problem: Problem, threads: int) -> Task:
    task = (OURS | PEERS)[name].task(problem, mode, threads)
    with task.context():
        task.run()
    return task


def _seconds(tasks: Mapping[str, Task], repeats: int) -> dict[str, float]:
    timings = time_interleaved(tasks, repeats, SAMPLE_SECONDS).tasks
    return {label: median(timing.samples) for label, timing in timings.items()}


@contextlib.contextmanager
def _busy_processes(count: int) -> Iterator[None]:
    processes = [subprocess.Popen([sys.executable, "-c", BUSY_LOOP]) for _ in range(count)]
    time.sleep(0.3)  # for them to start
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


if __name__ == "__main__":
    main()
