"""The embedded Reber grammar: which symbols may come next, the last but one of which depends on the second.

Cleeremans, Servan-Schreiber & McClelland (1989) gave it to Elman nets, Hochreiter & Schmidhuber (1997) to LSTM. At each
node of the grammar there are up to two symbols to go on with. A string is right if at every step the most probable
symbols, as many as there are, are those of the grammar.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np

import rnncore as rc
from reproductions.experiment import Experiment, Figures

__all__ = ["REBER", "SYMBOLS", "EmbeddedReber", "experiments", "right"]

SYMBOLS = "BTPSXVE"
REBER: tuple[dict[str, int], ...] = (  # symbols that leave each node, and where they lead
    {"B": 1},
    {"T": 2, "P": 3},
    {"S": 2, "X": 4},
    {"T": 3, "V": 5},
    {"X": 3, "S": 6},
    {"P": 4, "V": 6},
    {"E": 7},
    {},
)
STRINGS, HELD_OUT = 2500, 500
HIDDEN, BATCH, CLIP_NORM = 32, 20, 1.0
SOURCE = "Hochreiter & Schmidhuber (1997), abstract"
PUBLISHED = "LSTM: many more successful runs than Elman nets"


class EmbeddedReber:
    """Strings B T <Reber string> T E and B P <Reber string> P E, and what may come after each of their symbols."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.text, self.legal = "B", ["TP"]
        outer = self._take("TP", rng)
        node = 0
        while REBER[node]:
            self.legal.append("".join(REBER[node]))
            node = REBER[node][self._take(self.legal[-1], rng)]
        self.text += outer + "E"
        self.legal += [outer, "E"]

    def _take(self, symbols: str, rng: np.random.Generator) -> str:
        self.text += symbols[rng.integers(len(symbols))]
        return self.text[-1]

    @property
    def tokens(self) -> np.ndarray:
        """Indices of the symbols."""
        return np.array([SYMBOLS.index(symbol) for symbol in self.text])

    @property
    def successors(self) -> np.ndarray:
        """Whether each symbol may come after each but the last, bool (T - 1, 7)."""
        return np.array([[symbol in legal for symbol in SYMBOLS] for legal in self.legal])


def right(scores: np.ndarray, successors: np.ndarray) -> bool:
    """Return whether the largest scores (T, 7) of each step are those of the successors."""
    least = np.where(successors, scores, np.inf).min(axis=1)
    return bool((least > np.where(successors, -np.inf, scores).max(axis=1)).all())


def _share_right(model: rc.Sequential, x: list[np.ndarray], successors: list[np.ndarray]) -> float:
    return float(np.mean([right(*pair) for pair in zip(model(x), successors, strict=True)]))


def _run(cell: str, strings: int, epochs: int, seed: int) -> Figures:
    """Train until all training strings are right after two epochs in a row, or for so many epochs."""
    rng = np.random.default_rng(seed)
    drawn: dict[str, EmbeddedReber] = {}
    while len(drawn) < strings:  # none twice, so that no string held out is learnt from
        string = EmbeddedReber(rng)
        drawn[string.text] = string
    inputs = [np.eye(len(SYMBOLS), dtype=np.float32)[string.tokens[:-1]] for string in drawn.values()]
    following = [string.tokens[1:] for string in drawn.values()]
    successors = [string.successors for string in drawn.values()]
    x, x_out, y, _, legal, legal_out = rc.data.split(
        inputs, following, successors, validation=HELD_OUT / STRINGS, rng=rng
    )
    layer = (rc.LSTM if cell == "LSTM" else rc.RNN)(len(SYMBOLS), HIDDEN, rng=rng)
    model = rc.Sequential(layer, rc.Linear(HIDDEN, len(SYMBOLS), rng=rng))
    if cell == "LSTM":
        rc.init.forget_bias(model, 2.0)
    trainer = rc.Trainer(
        model,
        rc.CrossEntropy(),
        rc.Adam(0.01 if cell == "LSTM" else 0.003),
        clip_norm=CLIP_NORM,
        tbptt=1 if cell == "Elman" else None,
        rng=rng,
    )
    data = rc.data.Sequences(x, y, per_step=True, batch_size=BATCH)
    epoch = in_a_row = 0
    while epoch < epochs and in_a_row < 2:
        trainer.fit(data, 1, progress=False)
        epoch += 1
        in_a_row = in_a_row + 1 if _share_right(model, x, legal) == 1 else 0
    return {"right": _share_right(model, x_out, legal_out), "epochs": epoch}


def _ours(figures: Sequence[Figures]) -> str:
    solved = sum(each["right"] == 1 for each in figures)
    mean = np.mean([each["right"] for each in figures])
    return f"all strings right in {solved} of {len(figures)} runs; {mean:.1%} of strings"


def experiments(quick: bool) -> list[Experiment]:
    """Return an LSTM, a tanh network trained alike, and one trained as Elman did, without gradients to steps before."""
    strings, epochs, seeds = (1000, 60, 1) if quick else (STRINGS, 200, 10)
    names = {
        "LSTM": f"LSTM({HIDDEN})",
        "RNN": f"RNN({HIDDEN}), tanh",
        "Elman": f"RNN({HIDDEN}), tanh, gradients of one step",
    }
    return [
        Experiment(
            key=cell.lower(),
            task="embedded Reber grammar",
            network=name,
            run=partial(_run, cell, strings, epochs if cell != "Elman" else epochs // 5),
            ours=_ours,
            published=PUBLISHED,
            source=SOURCE,
            seeds=seeds,
        )
        for cell, name in names.items()
    ]
