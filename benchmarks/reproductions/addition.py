"""Sums of two numbers of up to three digits, read and written as strings: "535+61" to "596".

As the Keras example does it, the question is read backwards, of 50,000 different questions a tenth is held out, and an
LSTM of 128 units reads. There its last state is what a second one takes at each of four steps to write the answer,
padded with spaces. The other network is `Seq2Seq`: the second LSTM begins in the state of the first, and reads what it
has written, until it ends.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np

import rnncore as rc
from reproductions.experiment import Experiment, Figures

__all__ = ["CHARACTERS", "experiments", "questions"]

CHARACTERS = " +0123456789"
START, END = len(CHARACTERS), len(CHARACTERS) + 1  # tokens of an answer of its own length
HELD_OUT, HIDDEN, BATCH, LEARNING_RATE, CLIP_NORM = 0.1, 128, 32, 3e-3, 1.0
SOURCE = "keras-io, examples/nlp/addition_rnn.py"
PUBLISHED = "99% of characters in 100 epochs"


def questions(count: int, digits: int, rng: np.random.Generator) -> tuple[list[str], list[str]]:
    """Return questions such as "535+61" and their answers; none comes twice, the other way round neither."""
    asked: set[tuple[int, int]] = set()
    while len(asked) < count:  # one digit is as likely as all
        a, b = (int("".join(map(str, rng.integers(10, size=rng.integers(1, 1 + digits))))) for _ in range(2))
        asked.add((min(a, b), max(a, b)))
    pairs = [
        pair[::-1] if turned else pair for pair, turned in zip(sorted(asked), rng.random(count) < 0.5, strict=True)
    ]
    return [f"{a}+{b}" for a, b in pairs], [str(a + b) for a, b in pairs]


def _tokens(string: str) -> np.ndarray:
    return np.array([CHARACTERS.index(character) for character in string])


def _run(kind: str, digits: int, count: int, epochs: int, seed: int) -> Figures:
    rng = np.random.default_rng(seed)
    parts = rc.data.split(*questions(count, digits, rng), validation=HELD_OUT, rng=rng)
    asked, asked_out, answers, answers_out = parts
    written = (_keras if kind == "keras" else _seq2seq)(asked, answers, asked_out, digits, epochs, rng)
    pairs = [(a.ljust(digits + 1), b.ljust(digits + 1)) for a, b in zip(written, answers_out, strict=True)]
    return {
        "characters": float(np.mean([[p == q for p, q in zip(a, b, strict=True)] for a, b in pairs])),
        "sums": float(np.mean([a == b for a, b in pairs])),
    }


def _keras(
    asked: list[str], answers: list[str], asked_out: list[str], digits: int, epochs: int, rng: np.random.Generator
) -> list[str]:
    """Train the Keras example's network; return what it writes."""
    kinds = len(CHARACTERS)
    x, x_out = (
        np.eye(kinds, dtype=np.float32)[np.stack([_tokens(each.ljust(2 * digits + 1)[::-1]) for each in part])]
        for part in (asked, asked_out)
    )
    model = rc.Sequential(
        rc.LSTM(kinds, HIDDEN, rng=rng),
        rc.Last(),
        rc.Repeat(digits + 1),
        rc.LSTM(HIDDEN, HIDDEN, rng=rng),
        rc.Linear(HIDDEN, kinds, rng=rng),
    )
    y = np.stack([_tokens(each.ljust(digits + 1)) for each in answers])
    trainer = _trained(model, rc.data.Sequences(x, y, per_step=False, batch_size=BATCH), epochs, rng)
    return ["".join(CHARACTERS[token] for token in row) for row in trainer.predict(x_out).argmax(axis=2)]


def _seq2seq(
    asked: list[str], answers: list[str], asked_out: list[str], digits: int, epochs: int, rng: np.random.Generator
) -> list[str]:
    """Train an encoder and a decoder; return what they write."""
    sources, sources_out = ([_tokens(each[::-1]) for each in part] for part in (asked, asked_out))
    kinds = END + 1
    encoder, decoder = (
        [rc.Embedding(kinds, HIDDEN // 4, rng=rng), rc.LSTM(HIDDEN // 4, HIDDEN, rng=rng)] for _ in range(2)
    )
    model = rc.Seq2Seq(
        rc.Sequential(*encoder),
        rc.Sequential(*decoder, rc.Linear(HIDDEN, kinds, rng=rng)),
        start=START,
        end=END,
    )
    targets = [_tokens(each) for each in answers]
    _trained(model, rc.data.Pairs(sources, targets, start=START, end=END, batch_size=BATCH), epochs, rng)
    written = (found.tokens for found in model.greedy(sources_out, max_steps=digits + 2))
    return ["".join(CHARACTERS[token] for token in tokens[: digits + 1] if token < START) for tokens in written]


def _trained(model: rc.Layer, data: rc.data.DataSet, epochs: int, rng: np.random.Generator) -> rc.Trainer:
    rate = rc.schedules.Cosine(LEARNING_RATE, steps=epochs * len(data.epoch()))
    trainer = rc.Trainer(model, rc.CrossEntropy(), rc.Adam(rate), clip_norm=CLIP_NORM, rng=rng)
    trainer.fit(data, epochs, progress=False)
    return trainer


def _ours(figures: Sequence[Figures]) -> str:
    characters, sums = (np.mean([each[name] for each in figures]) for name in ("characters", "sums"))
    return f"{characters:.2%} of characters, {sums:.1%} of sums"


def experiments(quick: bool) -> list[Experiment]:
    """Return the Keras example's network, and one that reads what it writes."""
    digits, count, epochs = (2, 3000, 20) if quick else (3, 50_000, 50)
    names = {
        "keras": f"LSTM({HIDDEN}), last state repeated, LSTM({HIDDEN})",
        "seq2seq": f"Seq2Seq of LSTM({HIDDEN}) and LSTM({HIDDEN})",
    }
    return [
        Experiment(
            key=kind,
            task=f"sums of {digits}-digit numbers as strings, {epochs} epochs",
            network=name,
            run=partial(_run, kind, digits, count, epochs),
            ours=_ours,
            published=PUBLISHED if kind == "keras" else "",
            source=SOURCE if kind == "keras" else "",
        )
        for kind, name in names.items()
    ]
