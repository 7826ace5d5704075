"""The cost of a call: every library on one step of 32 units, where arithmetic takes almost nothing."""

import argparse

from environment import enter_environment
from libraries import OURS, PEERS
from problems import MODES, Problem, Shape
from timing import time_interleaved

__all__ = ["main"]

SHAPE = Shape(1, 1, 32, 32)
NAMES = {
    ("frozen", "forward"): "frozen(x)",
    ("rnncore", "forward"): "functional.lstm",
    ("rnncore", "training"): "functional.lstm_vjp, vjp(dy)",
}


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description="The cost of a call of each library at T,N,I,H = 1,1,32,32.")
    parser.add_argument("--repeats", type=int, default=100, help="samples of each; default: 100")
    arguments = parser.parse_args()
    enter_environment(1)

    problem = Problem.draw("lstm", SHAPE)
    libraries = OURS | {name: library for name, library in PEERS.items() if library.installed()}
    print(f"LSTM, T,N,I,H = {SHAPE}, 1 thread, the least of {arguments.repeats} samples, us")
    for mode in MODES:
        tasks = {
            NAMES.get((name, mode), name): library.task(problem, mode, 1)
            for name, library in libraries.items()
            if mode in library.modes
        }
        for task in tasks.values():
            with task.context():
                task.run()
        for name, timing in time_interleaved(tasks, arguments.repeats).tasks.items():
            print(f"{mode:<10}{name:<30}{timing.seconds * 1e6:>10.2f}")


if __name__ == "__main__":
    main()
