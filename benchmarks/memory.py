"""Memory that training an LSTM adds at its peak, beyond inputs and outputs: rnncore beside torch, each on its own."""

import argparse
import os
import resource
import subprocess
import sys

from environment import enter_environment
from libraries import OURS, PEERS, Library
from problems import Problem, Shape

__all__ = ["main"]

SHAPE = Shape(100, 64, 256, 256)
SMALL = Shape(2, 2, 256, 256)  # called before, so that all code is loaded
LIBRARIES: dict[str, Library] = {"rnncore": OURS["rnncore"], "torch": PEERS["torch"]}


def main() -> None:
    """Run the command, or one of its processes."""
    parser = argparse.ArgumentParser(description="Memory that training an LSTM adds, beyond inputs and outputs.")
    parser.add_argument("--shape", type=Shape.parse, default=SHAPE, metavar="T,N,I,H", help=f"default: {SHAPE}")
    parser.add_argument("--threads", type=int, default=1, help="default: 1")
    parser.add_argument("--checkpoint-every", type=int, default=0, metavar="K", help="and rnncore with checkpoints")
    parser.add_argument("--library", choices=LIBRARIES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    enter_environment(arguments.threads)
    shape: Shape = arguments.shape
    if arguments.library:
        _measure(arguments.library, shape, arguments.threads, arguments.checkpoint_every)
        return

    print(f"LSTM training, T,N,I,H = {shape}, threads: {arguments.threads}", flush=True)
    runs = [(name, 0) for name, library in LIBRARIES.items() if library.installed()]
    if arguments.checkpoint_every:
        runs.insert(1, ("rnncore", arguments.checkpoint_every))
    for name, every in runs:
        subprocess.run([*sys.orig_argv, "--library", name, "--checkpoint-every", str(every)], check=True)


def _measure(name: str, shape: Shape, threads: int, checkpoint_every: int) -> None:
    library = LIBRARIES[name]
    options = {"checkpoint_every": checkpoint_every} if checkpoint_every else {}
    small = Problem.draw("lstm", shape._replace(T=SMALL.T, N=SMALL.N))
    library.task(small, "training", threads, **options).run()
    task = library.task(Problem.draw("lstm", shape), "training", threads, **options)
    exact = _reset_peak()
    before = _status("VmRSS") if exact else _peak()
    returned = task.run()
    added = _peak() - before
    outputs = sum(array.nbytes for array in task.results(returned).values())
    beyond = added - outputs
    floats = beyond / 4 / (shape.T * shape.N) / shape.H
    print(
        f"{name:<10}{added / 2**20:>8.1f} MiB at the peak, {outputs / 2**20:.1f} MiB of them outputs; "
        f"beyond: {beyond / 2**20:.1f} MiB, {floats:.2f} H floats for each step and row"
        + (f", with checkpoints every {checkpoint_every} steps" if checkpoint_every else "")
        + ("" if exact else " (the peak cannot be reset here: at least)")
    )


def _reset_peak() -> bool:
    """Let the peak of this process start anew; return whether the system lets us."""
    try:
        with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
            file.write("5")
    except OSError:
        return False
    return True


def _peak() -> int:
    """Return the peak of resident memory in bytes, since it was reset if it could be."""
    try:
        return _status("VmHWM")
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else 1024 * peak


def _status(name: str) -> int:
    with open("/proc/self/status", encoding="ascii") as file:
        for line in file:
            if line.startswith(f"{name}:"):
                return 1024 * int(line.split()[1])
    raise OSError(f"{name} is not known, process {os.getpid()}")


if __name__ == "__main__":
    main()
