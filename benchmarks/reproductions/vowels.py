"""Japanese Vowels: who of nine speakers said a vowel, as in examples/classify_ragged.py, beside the nearest neighbour.

The neighbour is the one of the least dynamic time warping distance, with the squared distances of whole steps and
without a window (DTW_D of Shokoohi-Yekta et al. 2017), measured here on the data as they are.
"""

import importlib.util
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import rnncore as rc
from reproductions.experiment import Experiment, Figures, mean_of

__all__ = ["experiments", "warping_distances"]

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "classify_ragged.py"
EPOCHS, BATCH = 40, 32


def _example() -> Any:
    specification = importlib.util.spec_from_file_location(EXAMPLE.stem, EXAMPLE)
    assert specification is not None
    assert specification.loader is not None
    example = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(example)
    return example


def _network(epochs: int, seed: int) -> Figures:
    example = _example()
    x, speakers = example.read("TRAIN")
    x_test, speakers_test = example.read("TEST")
    steps = np.concatenate(x)
    mean, deviation = steps.mean(axis=0), steps.std(axis=0)
    train = rc.data.Sequences([(series - mean) / deviation for series in x], speakers, batch_size=BATCH)
    test = rc.data.Sequences([(series - mean) / deviation for series in x_test], speakers_test, batch_size=BATCH)
    return {"accuracy": example.accuracy(train, test, epochs, seed)}


def warping_distances(a: list[np.ndarray], b: list[np.ndarray]) -> np.ndarray:
    """Return the dynamic time warping distances of all pairs of series (T_i, C), of all of them at once.

    D[s, t] = |a_s - b_t|^2 + min(D[s-1, t], D[s, t-1], D[s-1, t-1]); the distance is D where both end.
    """
    ends_a, ends_b = (np.array([len(series) for series in of]) for of in (a, b))
    padded_a, padded_b = (
        np.stack([np.resize(series, (max(map(len, of)), series.shape[1])) for series in of]) for of in (a, b)
    )
    distances = np.empty((len(a), len(b)))
    before = [np.full(distances.shape, np.inf) for _ in range(padded_b.shape[1] + 1)]
    before[0][...] = 0  # of no steps of either
    for s in range(padded_a.shape[1]):
        row = [np.full(distances.shape, np.inf)]
        for t in range(padded_b.shape[1]):
            p, q = padded_a[:, s], padded_b[:, t]
            cost = (p**2).sum(axis=1)[:, np.newaxis] - 2 * p @ q.T + (q**2).sum(axis=1)
            row.append(cost + np.minimum(np.minimum(before[t + 1], row[t]), before[t]))
            ended = np.ix_(ends_a == s + 1, ends_b == t + 1)
            distances[ended] = row[-1][ended]
        before = row
    return distances


def _neighbour(share: float, seed: int) -> Figures:
    example = _example()
    x, speakers = example.read("TRAIN")
    x_test, speakers_test = example.read("TEST")
    count = int(share * len(x_test))
    nearest = warping_distances([s.astype(float) for s in x_test[:count]], [s.astype(float) for s in x]).argmin(axis=1)
    return {"accuracy": float((speakers[nearest] == speakers_test[:count]).mean())}


def experiments(quick: bool) -> list[Experiment]:
    """Return the network and the nearest neighbour."""
    task = "Japanese Vowels, 370 test sequences"
    return [
        Experiment(
            key="gru",
            task=task,
            network="GRU(100), both directions, mean over steps",
            run=partial(_network, 5 if quick else EPOCHS),
            ours=mean_of("accuracy", ".1%"),
            seeds=1 if quick else 5,
        ),
        Experiment(
            key="dtw",
            task=task,
            network="none: 1-nearest neighbour by DTW",
            run=partial(_neighbour, 0.2 if quick else 1.0),
            ours=mean_of("accuracy", ".1%"),
            drawn=False,
        ),
    ]
