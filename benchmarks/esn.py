"""Echo state networks: states beside reservoirpy's at the same weights, and errors of NARMA-10 beside the published."""

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from environment import enter_environment
from libraries import Task
from problems import Array
from timing import time_interleaved

if TYPE_CHECKING:
    import rnncore as rc

__all__ = ["main"]

LEAK, RADIUS = 0.3, 0.9
AGREEMENT = 1e-10  # of states, absolute: they are between -1 and 1
PUBLISHED = "Rodan & Tino (2011): 0.0425 for the ESN of 200 units"
SEEDS, TRAINED, WASHED_OUT, TESTED = 10, 2000, 200, 2000


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description="Echo state networks, rnncore and reservoirpy: least times of a step.")
    parser.add_argument("--threads", type=int, default=1, help="one series has one thread whatever this is; default: 1")
    parser.add_argument("--units", type=int, default=500, help="default: 500")
    parser.add_argument("--density", type=float, default=0.1, help="default: 0.1")
    parser.add_argument("--steps", type=int, default=10_000, help="of all series together; default: 10000")
    parser.add_argument("--repeats", type=int, default=10, help="samples of each; default: 10")
    parser.add_argument("--no-narma", action="store_true", help="leave the errors of NARMA-10 out")
    arguments = parser.parse_args()
    enter_environment(arguments.threads)
    print(f"H = {arguments.units}, {arguments.density:.0%} of W, T = {arguments.steps}, threads: {arguments.threads};")
    print(f"states agree within {AGREEMENT}; us a step, the least of {arguments.repeats} samples")
    print(f"{'W from':<24}{'series':>8}{'rnncore':>10}{'reservoirpy':>13}{'ratio':>8}{'differ by':>12}")
    for series in (1, 8):
        for name in ("rnncore, diagonals", "rnncore, random", "reservoirpy"):
            _compare(name, series, arguments)
    if not arguments.no_narma:
        _narma()


def _compare(name: str, N: int, arguments: argparse.Namespace) -> None:
    import rnncore as rc

    T = arguments.steps // N
    x = np.random.default_rng(0).uniform(0, 0.5, (N, T, 1))
    options = {"spectral_radius": RADIUS, "leak": LEAK, "density": arguments.density, "bias_scaling": 0.2, "rng": 0}
    ours = rc.ESN(arguments.units, topology=name.partition(", ")[2] or "random", **options).draw(1)
    if name == "reservoirpy":
        theirs = _reservoirpy(arguments.units, arguments.density)
        theirs.run(x[0, :1])  # draws
        bias = np.full(arguments.units, theirs.bias, float)  # one number for all
        ours = rc.ESN(w_in=theirs.Win, w=theirs.W, bias=bias, leak=LEAK).draw(1)
    else:
        theirs = _reservoirpy_of(ours)
    theirs.run(x[0, :1])  # makes it ready
    start = np.zeros(arguments.units)

    def run() -> Array:
        states = []
        for series in x:
            theirs.state = {"out": start}
            states.append(theirs.run(series))
        return np.stack(states)

    tasks = {
        "rnncore": Task(lambda: ours.states(x), lambda states: {"states": states}),
        "reservoirpy": Task(run, lambda states: {"states": states}),
    }
    difference = float(np.abs(tasks["rnncore"].run() - tasks["reservoirpy"].run()).max())
    if not difference <= AGREEMENT:
        raise AssertionError(f"{name}: states differ by {difference}")
    timings = time_interleaved(tasks, arguments.repeats).tasks
    us, their_us = (timings[library].seconds / (N * T) * 1e6 for library in tasks)
    print(f"{name:<24}{N:>8}{us:>10.3f}{their_us:>13.3f}{their_us / us:>8.1f}{difference:>12.1e}", flush=True)


def _reservoirpy(units: int, density: float) -> Any:
    from reservoirpy.nodes import Reservoir

    return Reservoir(units, lr=LEAK, sr=RADIUS, rc_connectivity=density, input_connectivity=1.0, seed=0)


def _reservoirpy_of(ours: "rc.ESN") -> Any:
    from reservoirpy.nodes import Reservoir
    from scipy.sparse import csr_array

    w = csr_array(tuple(ours.w_), shape=(ours.bias_.size,) * 2)
    return Reservoir(lr=LEAK, W=w, Win=ours.w_in_, bias=ours.bias_)


def _narma() -> None:
    """Print the normalised mean squared error of NARMA-10 for each kind of reservoir."""
    import rnncore as rc

    print(f"\nNARMA-10, NMSE of {TESTED} steps after {TRAINED} to learn from, {SEEDS} seeds; published: {PUBLISHED}")
    print(f"{'units':<8}{'topology':<12}{'mean':>8}{'deviation':>11}{'least':>8}{'most':>8}")
    for units in (50, 100, 200, 500):
        for topology in ("diagonals", "random"):
            errors = []
            for seed, (u, y) in enumerate(_series()):
                esn = rc.ESN(
                    units,
                    topology=topology,
                    input_scaling=0.1,
                    bias_scaling=0.2,
                    ridge=1e-9,
                    washout=WASHED_OUT,
                    rng=seed,
                )
                learnt = WASHED_OUT + TRAINED
                _, state = esn.fit(u[:learnt], y[:learnt]).predict(u[:learnt], return_state=True)
                rest = y[learnt:]
                errors.append(np.mean((esn.predict(u[learnt:], state=state) - rest) ** 2) / rest.var())
            row = (np.mean(errors), np.std(errors), min(errors), max(errors))
            print(f"{units:<8}{topology:<12}{row[0]:>8.4f}{row[1]:>11.4f}{row[2]:>8.4f}{row[3]:>8.4f}", flush=True)


def _series() -> Iterator[tuple[Array, Array]]:
    """Yield u, uniform from 0 to 1/2, and y for each seed.

    y(t + 1) = 0.3 y(t) + 0.05 y(t) (y(t - 9) + ... + y(t)) + 1.5 u(t - 9) u(t) + 0.1
    """
    for seed in range(SEEDS):
        T = WASHED_OUT + TRAINED + TESTED
        u, y = np.random.default_rng(seed).uniform(0, 0.5, T), np.zeros(T)
        for t in range(9, T - 1):
            y[t + 1] = 0.3 * y[t] + 0.05 * y[t] * y[t - 9 : t + 1].sum() + 1.5 * u[t - 9] * u[t] + 0.1
        yield u[:, np.newaxis], y


if __name__ == "__main__":
    main()
