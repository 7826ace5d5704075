"""Copy memory: ten symbols out of eight, T - 1 blanks, and then the ten again.

Hochreiter & Schmidhuber (1997) and Arjovsky et al. (2016) asked it; lengths and figures are those of Bai, Kolter &
Koltun (2018). The loss is a mean over all T + 20 steps, so a network that knows where it is and remembers nothing has
10 ln 8 / (T + 20): blanks are sure, and each of the ten is one of eight. Every batch is new.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np

import rnncore as rc
from reproductions.experiment import Experiment, Figures, mean_of

__all__ = ["draw", "experiments", "memoryless"]

COPIED, SYMBOLS, BLANK, ASK = 10, 8, 0, 9
BATCH, TESTED = 32, 500
RATE = 3e-3
SOURCE = "Bai et al. (2018), arXiv:1803.01271"
PUBLISHED = {("LSTM", 1000): "0.0204", ("GRU", 1000): "0.0197"}


def draw(T: int, N: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return tokens (N, T + 20) and what should be said at each step: the symbols are 1 to 8."""
    symbols = rng.integers(1, 1 + SYMBOLS, (N, COPIED))
    tokens, targets = np.full((2, N, T + 2 * COPIED), BLANK)
    tokens[:, :COPIED] = targets[:, -COPIED:] = symbols
    tokens[:, -COPIED - 1 :] = ASK
    return tokens, targets


def memoryless(T: int) -> float:
    """Return the loss of a network that remembers nothing."""
    return COPIED * float(np.log(SYMBOLS)) / (T + 2 * COPIED)


def _run(cell: str, T: int, H: int, updates: int, seed: int) -> Figures:
    rng = np.random.default_rng(seed)
    kinds = SYMBOLS + 2
    layer = {"LSTM": rc.LSTM, "GRU": rc.GRU}[cell](kinds, H, rng=rng)
    model = rc.Sequential(rc.Embedding(kinds, kinds, rng=rng), layer, rc.Linear(H, kinds, rng=rng))
    if cell == "LSTM":
        rc.init.forget_bias(model)
    loss = rc.CrossEntropy()
    trainer = rc.Trainer(model, loss, rc.Adam(rc.schedules.Cosine(RATE, steps=updates)), clip_norm=1.0)
    for _ in range(updates):
        trainer.step(*draw(T, BATCH, rng))
    tokens, targets = draw(T, TESTED, np.random.default_rng([seed, 1]))
    outputs = trainer.predict(tokens)
    said = outputs[:, -COPIED:].argmax(axis=2) == targets[:, -COPIED:]
    return {"loss": loss(outputs, targets), "memoryless": memoryless(T), "symbols right": float(said.mean())}


def _ours(figures: Sequence[Figures]) -> str:
    right = np.mean([each["symbols right"] for each in figures])
    line = figures[0]["memoryless"]
    return f"loss {mean_of('loss', '.3g')(figures)}, {right:.0%} of the ten right; memoryless: {line:.3g}"


def experiments(quick: bool) -> list[Experiment]:
    """Return both networks at the published length, and at one that they learn."""
    lengths = {2: (32, 1500)} if quick else {20: (128, 12_000), 1000: (64, 2000)}  # units and updates
    return [
        Experiment(
            key=f"{cell}-{T}".lower(),
            task=f"copy memory, T = {T}",
            network=f"{cell}({H})",
            run=partial(_run, cell, T, H, updates),
            ours=_ours,
            published=PUBLISHED.get((cell, T), ""),
            source=SOURCE if (cell, T) in PUBLISHED else "",
        )
        for T, (H, updates) in lengths.items()
        for cell in ("LSTM", "GRU")
    ]
