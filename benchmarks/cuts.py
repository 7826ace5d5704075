"""What a second thread gains at every number of rows and hidden units, beside what the cost model expects.

The constants of src/cpp/schedule.cpp are read off such tables.
"""

import argparse

from environment import enter_environment
from problems import CELLS, Problem, Shape

__all__ = ["main"]

ROWS = (1, 2, 4, 8, 16, 32, 64)
HIDDEN = (32, 64, 128, 256, 512)
WORK = 40_000_000  # multiply-adds of a call at least, for which threads are woken
LANES, GATE_BLOCKS = 16, 4  # of AVX-512: units of a block, and gates times blocks of a panel


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description="Time of a step of the frozen layer on 1 thread and on several.")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cell", choices=CELLS, default="lstm")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    enter_environment(arguments.threads)

    import rnncore as rc
    from libraries import OURS
    from timing import time_interleaved

    def timed(problem: Problem, threads: int) -> float:
        rc.set_num_threads(threads)
        task = OURS["frozen"].task(problem, "forward", threads)
        return time_interleaved({"frozen": task}, arguments.repeats).tasks["frozen"].seconds / problem.shape.T

    several = f"{arguments.threads} threads"
    print(f"{arguments.cell}, us a step; model: by how U is cut, and what it expects of the recurrent product")
    print(f"{'N':>4}{'H':>6}{'1 thread':>10}{several:>11}{'gain':>7}{'cut':>8}{'model, 1':>10}{'model':>8}")
    gates = CELLS[arguments.cell]
    for hidden in HIDDEN:
        for rows in ROWS:
            steps = max(100, WORK // (rows * gates * hidden * 2 * hidden))
            problem = Problem.draw(arguments.cell, Shape(steps, rows, hidden, hidden))
            one, many = timed(problem, 1), timed(problem, arguments.threads)
            u_bytes = 4 * gates * hidden * hidden
            panels = -(-hidden // (LANES * (GATE_BLOCKS // gates)))
            _, _, alone = rc._core.cut_pass(1, rows, u_bytes, panels)
            _, units, together = rc._core.cut_pass(arguments.threads, rows, u_bytes, panels)
            print(
                f"{rows:>4}{hidden:>6}{one * 1e6:>10.2f}{many * 1e6:>11.2f}{one / many:>7.2f}"
                f"{'units' if units > 1 else 'rows':>8}{alone / 1e3:>10.2f}{together / 1e3:>8.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
