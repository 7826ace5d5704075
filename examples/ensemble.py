"""Forecast a noisy chaotic series a step ahead with an ensemble, and say how sure the forecast is.

A deep ensemble (Lakshminarayanan et al. 2017): networks of one shape that differ in their initial values and batches,
each with a mean and a variance at every step by the Gaussian likelihood. They are one model with ``models=M``, trained
at once, with x (M, N, T, 1). The forecast is their mixture: its variance is the mean of theirs and how far their means
are apart. Prints, for steps that were held out, the negative log-likelihood of the ensemble beside that of its members,
and how many of the values lie in its band of 90 %. The series is that of Mackey & Glass (1977), with noise that grows
with its value.
"""

import argparse

import numpy as np

import rnncore as rc

HIDDEN, WINDOW, BATCH, TRAINED, HELD_OUT = 16, 40, 16, 400, 1000


def mackey_glass(steps: int, rng: np.random.Generator) -> np.ndarray:
    """Return every third value of dx/dt = 0.2 x(t - 17) / (1 + x(t - 17)^10) - 0.1 x, with noise."""
    values = [1.2] * 18
    for _ in range(3 * (steps + 100)):
        late = values[-18]
        values.append(values[-1] + 0.2 * late / (1 + late**10) - 0.1 * values[-1])
    series = np.array(values[-3 * steps :: 3])
    return (series - 0.9 + 0.1 * series * rng.standard_normal(steps)).astype(np.float32)


def draw(path: str, truth: np.ndarray, mean: np.ndarray, band: np.ndarray) -> None:
    """Plot the first held-out values and what was forecast of them."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    ax, steps = figure.subplots(), np.arange(150)
    ax.fill_between(steps, (mean - band)[:150], (mean + band)[:150], alpha=0.3, label="90 % band, a step ahead")
    ax.plot(steps, mean[:150], label="mean of the ensemble")
    ax.plot(steps, truth[:150], "k.", label="values")
    ax.legend()
    figure.savefig(path)


def main() -> None:
    """Train all members at once, and forecast what was held out."""
    parser = argparse.ArgumentParser(description="Forecast with a deep ensemble.")
    parser.add_argument("--members", type=int, default=8)
    parser.add_argument("--steps", type=int, default=400, help="of the optimiser")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plot", metavar="FILE", help="where to draw the forecasts; needs matplotlib")
    options = parser.parse_args()
    M, rng = options.members, np.random.default_rng(options.seed)
    series = mackey_glass(TRAINED + HELD_OUT + 1, rng)

    model = rc.Sequential(rc.GRU(1, HIDDEN, models=M, rng=rng), rc.Linear(HIDDEN, 2, models=M, rng=rng))
    optimizer, loss = rc.Adam(rc.schedules.Cosine(0.02, steps=options.steps)), rc.GaussianNLL()
    windows = np.lib.stride_tricks.sliding_window_view(series[:TRAINED], WINDOW + 1)
    for step in range(1, options.steps + 1):
        batch = windows[rng.integers(len(windows), size=(M, BATCH))][..., np.newaxis]  # its own for each member
        (y, _), pull_back = model.vjp(batch[:, :, :-1])
        graded = loss.with_gradient(y, batch[:, :, 1:])
        model.zero_gradients()
        pull_back(graded.gradient)
        optimizer.step(model.flat_parameters, model.flat_gradients)
        if step % 100 == 0:
            print(f"step {step}: {graded.value:.3f} nats a value, on average over {M} members")

    # one pass over the series, which all members read; what comes out at a step is of the next one
    means, log_variances = np.moveaxis(model(series[np.newaxis, :-1, np.newaxis])[:, 0, TRAINED:], -1, 0)
    truth, variances = series[TRAINED + 1 :], np.exp(log_variances)
    mean = means.mean(axis=0)
    variance = variances.mean(axis=0) + means.var(axis=0)
    single, together = (
        float(np.mean(0.5 * (np.log(2 * np.pi * v) + np.square(truth - m) / v)))
        for m, v in ((means, variances), (mean, variance))
    )
    band = 1.645 * np.sqrt(variance)
    print(f"held out: {together:.3f} nats a value by the ensemble, {single:.3f} by a member on average")
    print(f"{np.mean(np.abs(truth - mean) <= band):.0%} of {len(truth)} values in the band of 90%")
    if options.plot:
        draw(options.plot, truth, mean, band)


if __name__ == "__main__":
    main()
