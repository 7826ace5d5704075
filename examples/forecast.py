"""Forecast sunspots a year ahead, with a band that the truth should be in four times out of five.

The yearly numbers from 1700 to 2008 come with statsmodels; a GRU learns the quantiles 0.1, 0.5 and 0.9 of next year's
number on windows of the years to 1920, and is asked about every year since. Prints how many of those were in the band, the mean
absolute error of the median beside that of "as this year", and the figure that the literature has: the mean squared
error over 1535, the variance of the series, for 1921 to 1955. There it is 0.097 for the threshold autoregression of Tong & Lim
(1980) and 0.086 for the network of Weigend, Huberman & Rumelhart (1990).
"""

import argparse

import numpy as np

import rnncore as rc

LEVELS, WINDOW, HIDDEN, SPLIT, VARIANCE = (0.1, 0.5, 0.9), 40, 16, 1921, 1535.0


def main() -> None:
    """Train, and forecast the years that were held out."""
    parser = argparse.ArgumentParser(description="Forecast sunspots with a band of quantiles.")
    parser.add_argument("--epochs", type=int, default=100, help="times to read the windows")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plot", metavar="FILE", help="where to draw the forecasts; needs matplotlib")
    options = parser.parse_args()
    try:
        from statsmodels.datasets import sunspots
    except ImportError:
        raise SystemExit("needs the series that statsmodels ships: pip install statsmodels") from None
    years, numbers = sunspots.load_pandas().data.to_numpy().T
    past = years < SPLIT
    mean, deviation = numbers[past].mean(), numbers[past].std()
    series = ((numbers - mean) / deviation).astype(np.float32)

    rng = np.random.default_rng(options.seed)
    model = rc.Sequential(rc.GRU(1, HIDDEN, rng=rng), rc.Linear(HIDDEN, len(LEVELS), rng=rng))
    windows = rc.data.Windows(series[past], targets=series[past], length=WINDOW, per_step=True, batch_size=16)
    rate = rc.schedules.Cosine(0.01, steps=options.epochs * len(windows.epoch()))
    rc.Trainer(model, rc.Quantile(LEVELS), rc.Adam(rate), clip_norm=1.0, rng=rng).fit(windows, options.epochs)

    # at every step the model has read all years before: of what it then says, the last is about a year after the end
    forecasts = model(series[None, :-1, None])[0] * deviation + mean
    years, before, numbers, forecasts = (a[years[1:] >= SPLIT] for a in (years[1:], numbers[:-1], numbers[1:], forecasts))
    low, median, high = forecasts.T
    inside = np.mean((low <= numbers) & (numbers <= high))
    print(f"{years[0]:.0f} to {years[-1]:.0f}: {inside:.0%} of {len(years)} years in the band of 80%")
    errors = [np.abs(numbers - forecast).mean() for forecast in (median, before)]
    print("mean absolute error: {:.1f}, of last year's number {:.1f}".format(*errors))
    early = years <= 1955
    squares = [np.square(numbers - forecast)[early].mean() / VARIANCE for forecast in (median, before)]
    print("mean squared error to 1955 over the variance: {:.3f}, of last year's number {:.3f}".format(*squares))


if __name__ == "__main__":
    main()
