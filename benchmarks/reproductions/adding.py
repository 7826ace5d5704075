"""The adding problem: the sum of the two numbers that are marked in a long series of random ones.

Hochreiter & Schmidhuber (1997) asked it first; in this form, with the marks anywhere, it is that of Bai, Kolter &
Koltun (2018). Every batch is new. Guessing 1 has the variance of the sum for an error, 1/6.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np

import rnncore as rc
from reproductions.experiment import Experiment, Figures, mean_of

__all__ = ["draw", "experiments"]

BATCH, TESTED = 32, 2000
SOURCE = "Bai et al. (2018), arXiv:1803.01271, 70,000 parameters"
PUBLISHED = {("GRU", 600): "5.3e-5", ("LSTM", 600): "0.164", ("RNN", 600): "0.177"}
SOURCE_IRNN = "Le et al. (2015), arXiv:1504.00941"
PUBLISHED_IRNN = "comparable to LSTM"
SMALL = 0.001  # deviation of the IRNN's other weights at the start


def draw(T: int, N: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return series (N, T, 2) of numbers from 0 to 1 and of marks, two of which are 1, and the sums (N, 1)."""
    x = np.zeros((N, T, 2), np.float32)
    x[..., 0] = rng.random((N, T), dtype=np.float32)
    rows, first = np.arange(N), rng.integers(T, size=N)
    second = (first + rng.integers(1, T, size=N)) % T
    x[rows, first, 1] = x[rows, second, 1] = 1
    return x, (x[rows, first, 0] + x[rows, second, 0])[:, np.newaxis]


def _model(cell: str, H: int, rng: np.random.Generator) -> rc.Sequential:
    layer: rc.Layer
    if cell == "IRNN":
        layer = rc.RNN(2, H, nonlinearity="relu", rng=rng)
    else:
        layer = {"RNN": rc.RNN, "LSTM": rc.LSTM, "GRU": rc.GRU}[cell](2, H, rng=rng)
    model = rc.Sequential(layer, rc.Last(), rc.Linear(H, 1, rng=rng))
    if cell == "IRNN":
        rc.init.identity(layer)
        for name in ("0.weight_ih_l0", "2.weight"):
            model.parameters[name][...] = SMALL * rng.standard_normal(model.parameters[name].shape)
    return model


def _run(cell: str, T: int, H: int, updates: int, seed: int) -> Figures:
    rng = np.random.default_rng(seed)
    model = _model(cell, H, rng)
    rate, clip_norm = {"RNN": (1e-3, 1.0), "IRNN": (3e-4, 10.0), "LSTM": (3e-3, 1.0), "GRU": (3e-3, 1.0)}[cell]
    adam = rc.Adam(rc.schedules.Cosine(rate, steps=updates))
    trainer = rc.Trainer(model, rc.MSE(), adam, clip_norm=clip_norm)
    for _ in range(updates):
        trainer.step(*draw(T, BATCH, rng))
    x, sums = draw(T, TESTED, np.random.default_rng([seed, 1]))
    return {"mse": float(np.square(trainer.predict(x) - sums).mean())}


def _ours(figures: Sequence[Figures]) -> str:
    return f"MSE {mean_of('mse', '.2g')(figures)}"


def experiments(quick: bool) -> list[Experiment]:
    """Return all networks at all lengths."""
    H = 16 if quick else 100
    lengths = {"RNN": (100, 200, 600), "LSTM": (100, 200, 600), "GRU": (100, 200, 600), "IRNN": (100, 150, 200, 600)}
    updates = {"RNN": 4000, "LSTM": 8000, "GRU": 8000, "IRNN": 20_000}
    if quick:
        lengths, updates = dict.fromkeys(lengths, (8,)), dict.fromkeys(lengths, 1200)
    return [
        Experiment(
            key=f"{cell}-{T}".lower(),
            task=f"adding problem, T = {T}",
            network=f"{cell}({H})",
            run=partial(_run, cell, T, H, updates[cell]),
            ours=_ours,
            published=PUBLISHED_IRNN if (cell, T) == ("IRNN", 150) else PUBLISHED.get((cell, T), ""),
            source=SOURCE_IRNN if (cell, T) == ("IRNN", 150) else SOURCE if (cell, T) in PUBLISHED else "",
        )
        for cell in lengths
        for T in lengths[cell]
    ]
