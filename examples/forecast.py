"""Forecast sunspots a year ahead, with a band that the truth should be in four times out of five.

The yearly numbers from 1700 to 2008 come with statsmodels. A GRU learns the quantiles 0.1, 0.5 and 0.9 of next year's
number on windows of the years to 1920, and forecasts every year since. Prints how many of those were in the band, the
mean absolute error of the median beside that of this year's number taken for next year's, and the figure of the
literature: the mean squared error from 1921 to 1955 over 1535, the variance of the series. That is 0.097 for the
threshold autoregression of Tong & Lim (1980) and 0.086 for the network of Weigend, Huberman & Rumelhart (1990). Size,
dropout and epochs were chosen on years before 1921.
"""

import argparse

import numpy as np

import rnncore as rc

LEVELS, WINDOW, HIDDEN, SPLIT, VARIANCE = (0.1, 0.5, 0.9), 40, 16, 1921, 1535.0


def draw(path: str, years: np.ndarray, numbers: np.ndarray, forecasts: np.ndarray) -> None:
    """Plot the numbers and what was forecast of them."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    ax = figure.subplots()
    ax.fill_between(years, forecasts[:, 0], forecasts[:, 2], alpha=0.3, label="80 % band, a year ahead")
    ax.plot(years, forecasts[:, 1], label="median")
    ax.plot(years, numbers, "k.", label="sunspots")
    ax.legend()
    figure.savefig(path)


def main() -> None:
    """Train, and forecast the years that were held out."""
    parser = argparse.ArgumentParser(description="Forecast sunspots with a band of quantiles.")
    parser.add_argument("--epochs", type=int, default=40, help="times to read the windows")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plot", metavar="FILE", help="where to draw the forecasts; needs matplotlib")
    options = parser.parse_args()
    try:
        from statsmodels.datasets import sunspots
    except ImportError:
        raise SystemExit("needs the series that statsmodels ships: pip install statsmodels") from None
    years, numbers = sunspots.load_pandas().data.to_numpy().T
    past = years < SPLIT
    roots = np.sqrt(numbers)  # vary alike in low years and in high; a quantile of the root is the root of the quantile
    mean, deviation = roots[past].mean(), roots[past].std()
    series = ((roots - mean) / deviation).astype(np.float32)

    rng = np.random.default_rng(options.seed)
    model = rc.Sequential(rc.GRU(1, HIDDEN, rng=rng), rc.Dropout(0.3, rng=rng), rc.Linear(HIDDEN, len(LEVELS), rng=rng))
    windows = rc.data.Windows(series[past], targets=series[past], length=WINDOW, per_step=True, batch_size=16)
    rate = rc.schedules.Cosine(0.01, steps=options.epochs * len(windows.epoch()))
    rc.Trainer(model, rc.Quantile(LEVELS), rc.Adam(rate), clip_norm=1.0, rng=rng).fit(windows, options.epochs)

    # one pass over all years: what comes out at a year was made of it and those before, and is of the year after
    ahead = np.square(np.maximum(model(series[None, :, None])[0] * deviation + mean, 0))
    held_out = np.flatnonzero(~past)
    years, last, numbers, forecasts = years[held_out], numbers[held_out - 1], numbers[held_out], ahead[held_out - 1]
    low, median, high = forecasts.T
    inside = np.mean((low <= numbers) & (numbers <= high))
    print(f"{years[0]:.0f} to {years[-1]:.0f}: {inside:.0%} of {len(years)} years in the band of 80%")
    misses = np.stack([median, last]) - numbers
    print("mean absolute error: {:.1f}, of the year before {:.1f}".format(*np.abs(misses).mean(axis=1)))
    ratios = np.square(misses[:, years <= 1955]).mean(axis=1) / VARIANCE
    print("mean squared error to 1955 over variance: {:.3f}, of the year before {:.3f}".format(*ratios))
    if options.plot:
        draw(options.plot, years, numbers, forecasts)


if __name__ == "__main__":
    main()
