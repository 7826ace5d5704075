"""Whether time grows in proportion: an LSTM against the number of steps, then against the number of rows."""

import argparse

from environment import enter_environment
from libraries import OURS
from problems import Problem, Shape
from timing import time_interleaved

__all__ = ["main"]

H = 64
STEPS = (10, 100, 1_000, 10_000, 100_000)  # of one row
ROWS = (1, 4, 16, 64, 256, 1024, 4096)  # of 50 steps
SUBJECTS = (("frozen", "forward"), ("rnncore", "training"))


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description="Time of an LSTM (I = H = 64) for each step and row.")
    parser.add_argument("--threads", type=int, default=1, help="default: 1")
    parser.add_argument("--repeats", type=int, default=5, help="samples of each; default: 5")
    parser.add_argument("--steps", type=int, nargs="+", default=STEPS, metavar="T", help="of one row")
    parser.add_argument("--rows", type=int, nargs="+", default=ROWS, metavar="N", help="of 50 steps")
    arguments = parser.parse_args()
    enter_environment(arguments.threads)

    print(f"LSTM, I = H = {H}, threads: {arguments.threads}; ns for each step and row, least of {arguments.repeats}")
    print(f"{'T':>8}{'N':>8}" + "".join(f"{f'{mode} ({ours})':>22}" for ours, mode in SUBJECTS))
    for T, N in [*((T, 1) for T in arguments.steps), *((50, N) for N in arguments.rows)]:
        problem = Problem.draw("lstm", Shape(T, N, H, H))
        tasks = {mode: OURS[ours].task(problem, mode, arguments.threads) for ours, mode in SUBJECTS}
        for task in tasks.values():
            task.run()
        timings = time_interleaved(tasks, arguments.repeats).tasks
        print(f"{T:>8}{N:>8}" + "".join(f"{timings[mode].seconds / (T * N) * 1e9:>22.1f}" for _, mode in SUBJECTS))


if __name__ == "__main__":
    main()
