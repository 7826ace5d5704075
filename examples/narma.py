"""Learn NARMA-10, the exam of echo state networks: a series made of the last ten steps of itself and of its input.

    y(t+1) = 0.3 y(t) + 0.05 y(t) (y(t-9) + ... + y(t)) + 1.5 u(t-9) u(t) + 0.1,    u uniform from 0 to 1/2

A network with a fixed random reservoir reads u and gives y. Only its read-out is learnt, by ridge regression. Prints
the normalised mean squared error on steps that were held out, over several seeds: 1 is as good as the mean of the
series. Rodan & Tino (2011) have 0.0425 for 200 units.
"""

import argparse
import time

import numpy as np

import rnncore as rc


def narma10(steps: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Make u (T, 1) and y (T,)."""
    u, y = rng.uniform(0, 0.5, steps), np.zeros(steps)
    for t in range(9, steps - 1):
        y[t + 1] = 0.3 * y[t] + 0.05 * y[t] * y[t - 9 : t + 1].sum() + 1.5 * u[t - 9] * u[t] + 0.1
    return u[:, None], y


def main() -> None:
    """Fit a network for each seed."""
    parser = argparse.ArgumentParser(description="Learn NARMA-10 with echo state networks.")
    parser.add_argument("--units", type=int, default=200)
    parser.add_argument("--steps", type=int, default=4200, help="half of them are held out")
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    errors = []
    for seed in range(options.seeds):
        u, y = narma10(options.steps, np.random.default_rng(seed))
        half = options.steps // 2
        esn = rc.ESN(options.units, input_scaling=0.1, bias_scaling=0.2, ridge=1e-9, washout=200, rng=seed)
        start = time.perf_counter()
        _, state = esn.fit(u[:half], y[:half]).predict(u[:half], return_state=True)
        held_out = esn.predict(u[half:], state=state)
        seconds = time.perf_counter() - start
        errors.append(np.mean((held_out - y[half:]) ** 2) / y[half:].var())
        print(f"seed {seed}: NMSE {errors[-1]:.4f}, {seconds:.2f} s")
    print(f"mean of {options.seeds} seeds: NMSE {np.mean(errors):.4f}")


if __name__ == "__main__":
    main()
