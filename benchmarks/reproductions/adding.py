"""The adding problem: the sum of the two numbers that are marked in a long series of random ones.

Hochreiter & Schmidhuber (1997) asked it first; in this form, with the marks anywhere, it is that of Bai, Kolter &
Koltun (2018). Every batch is new. Guessing 1 has the variance of the sum for an error, 1/6.

The IRNN of Le, Jaitly & Hinton (2015) has relu and begins with the identity for recurrent weights. LSTM runs with the
usual initial values, and with forget gates that begin open.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

import rnncore as rc
from reproductions.experiment import Experiment, Figures, mean_of

__all__ = ["draw", "experiments"]

BATCH, TESTED = 32, 2000
BAI = "Bai et al. (2018), arXiv:1803.01271, 70,000 parameters"
PUBLISHED = {
    ("gru", 600): ("5.3e-5", BAI),
    ("lstm", 600): ("0.164", BAI),
    ("rnn", 600): ("0.177", BAI),
    ("irnn", 150): ("comparable to LSTM", "Le et al. (2015), arXiv:1504.00941, abstract"),
}
FORGET_BIAS = 4.0
SMALL = 0.001  # deviation of the IRNN's other weights at the start


def draw(T: int, N: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return series (N, T, 2) of numbers from 0 to 1 and of marks, two of which are 1, and the sums (N, 1)."""
    x = np.zeros((N, T, 2), np.float32)
    x[..., 0] = rng.random((N, T), dtype=np.float32)
    rows, first = np.arange(N), rng.integers(T, size=N)
    second = (first + rng.integers(1, T, size=N)) % T
    x[rows, first, 1] = x[rows, second, 1] = 1
    return x, (x[rows, first, 0] + x[rows, second, 0])[:, np.newaxis]


class Network(NamedTuple):
    """How a network is made and trained; at the lengths in `lengths`."""

    name: str
    layer: Callable[..., rc.Layer]
    learning_rate: float
    clip_norm: float
    updates: int
    lengths: tuple[int, ...]


NETWORKS = {
    "rnn": Network("RNN({}), tanh", rc.RNN, 1e-3, 1.0, 4000, (100, 200, 600)),
    "irnn": Network("IRNN({})", partial(rc.RNN, nonlinearity="relu"), 3e-4, 10.0, 20_000, (100, 150, 200, 600)),
    "lstm": Network("LSTM({})", rc.LSTM, 3e-3, 1.0, 8000, (100, 200, 600)),
    "lstm-forget": Network(f"LSTM({{}}), forget bias {FORGET_BIAS:g}", rc.LSTM, 3e-3, 1.0, 8000, (100, 200, 600)),
    "gru": Network("GRU({})", rc.GRU, 3e-3, 1.0, 8000, (100, 200, 600)),
}


def _model(kind: str, H: int, rng: np.random.Generator) -> rc.Sequential:
    layer = NETWORKS[kind].layer(2, H, rng=rng)
    model = rc.Sequential(layer, rc.Last(), rc.Linear(H, 1, rng=rng))
    if kind == "irnn":
        rc.init.identity(layer)
        for name in ("0.weight_ih_l0", "2.weight"):
            model.parameters[name][...] = SMALL * rng.standard_normal(model.parameters[name].shape)
    if kind == "lstm-forget":
        rc.init.forget_bias(layer, FORGET_BIAS)
    return model


def _run(kind: str, T: int, H: int, updates: int, seed: int) -> Figures:
    rng = np.random.default_rng(seed)
    network = NETWORKS[kind]
    adam = rc.Adam(rc.schedules.Cosine(network.learning_rate, steps=updates))
    trainer = rc.Trainer(_model(kind, H, rng), rc.MSE(), adam, clip_norm=network.clip_norm)
    for _ in range(updates):
        trainer.step(*draw(T, BATCH, rng))
    x, sums = draw(T, TESTED, np.random.default_rng([seed, 1]))
    return {"mse": float(np.square(trainer.predict(x) - sums).mean())}


def _ours(figures: Sequence[Figures]) -> str:
    return f"MSE {mean_of('mse', '.2g')(figures)}"


def experiments(quick: bool) -> list[Experiment]:
    """Return all networks at all lengths."""
    H = 16 if quick else 100
    return [
        Experiment(
            key=f"{kind}-{T}",
            task=f"adding problem, T = {T}",
            network=network.name.format(H),
            run=partial(_run, kind, T, H, 1200 if quick else network.updates),
            ours=_ours,
            published=PUBLISHED.get((kind, T), ("", ""))[0],
            source=PUBLISHED.get((kind, T), ("", ""))[1],
        )
        for kind, network in NETWORKS.items()
        for T in ((8,) if quick else network.lengths)
    ]
