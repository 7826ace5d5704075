"""Keep learning while a stream runs: two forecasters, one frozen and one that learns, meet a machine that changes.

A sensor's next value is to be forecast at every step. A GRU learns on the first regime, step by step. From then on one
stream of it is frozen, as deployed models are, and another learns on. Then the machine changes: its period gets
shorter, and peaks become troughs. Prints the mean squared errors of both before the change, right after it, and later,
over the variance of the series: 1 is what forecasting the mean would get.
"""

import argparse
import copy
from itertools import pairwise

import numpy as np

import rnncore as rc


def sensor(rng: np.random.Generator, steps: int, period: float, sign: float) -> np.ndarray:
    """Return a wave of two harmonics with noise, of mean 0, (steps, 1)."""
    phase = np.arange(steps) * 2 * np.pi / period
    wave = sign * (np.sin(phase) + 0.7 * np.cos(2 * phase))
    return (wave + 0.1 * rng.standard_normal(steps)).astype(np.float32)[:, np.newaxis]


def main() -> None:
    """Learn, freeze one of two, and let both run through the change."""
    parser = argparse.ArgumentParser(description="Learn on a stream whose regime changes.")
    parser.add_argument("--steps", type=int, default=4000, help="of each of three spans: to learn, before, and after")
    parser.add_argument("--window", type=int, default=20, help="steps that a gradient goes through")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    steps, rng = options.steps, np.random.default_rng(options.seed)
    series = np.concatenate([sensor(rng, 2 * steps, 25.0, 1.0), sensor(rng, steps + 1, 16.0, -1.0)])

    model = rc.Sequential(rc.GRU(1, 16, rng=rng), rc.Linear(16, 1, rng=rng))
    online = model.stream(loss=rc.MSE(), optimizer=rc.Adam(0.005), window=options.window, clip_norm=1.0)
    for now, following in pairwise(series[: steps + 1]):
        online.learn(now, following)

    frozen = copy.deepcopy(model).stream()
    frozen.state = online.state
    errors = np.empty((2 * steps, 2))  # of the frozen, and of the one that learns
    for t, (now, following) in enumerate(pairwise(series[steps:])):
        errors[t] = np.square(frozen.step(now) - following).item(), online.learn(now, following).loss

    relative = errors / series.var()
    for name, span in (
        ("before the change", slice(0, steps)),
        ("just after it", slice(steps, steps + 100)),
        ("at the end", slice(2 * steps - steps // 4, 2 * steps)),
    ):
        print("{:>17}: frozen {:.3f}, learning {:.3f}".format(name, *relative[span].mean(axis=0)))


if __name__ == "__main__":
    main()
