"""How a word is spoken: the network that g2p-en 2.1.0 ships, run by rnncore beside the package's own NumPy code.

A GRU reads the letters, another begins in its last state and writes phonemes, each the most probable one. Nothing is
trained. The package's class is taken out of its source, since importing the package would download a dictionary.
"""

import ast
import os
import re
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from pydoc_data.topics import topics
from types import SimpleNamespace
from typing import Any

import numpy as np

import rnncore as rc
from reproductions.experiment import Experiment, Figures

__all__ = ["Speaker", "experiments", "package_speaker", "words"]

START, END, LONGEST = 2, 3, 20  # tokens of phonemes, and how many the package writes at most


def package_speaker() -> Any:
    """Return the package's object, whose `predict` takes a word and returns its phonemes."""
    package = find_spec("g2p_en")
    if package is None or package.origin is None:
        sys.exit("needs the network that g2p-en ships: pip install --no-deps g2p-en==2.1.0")
    folder = Path(package.origin).parent
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of an escape in a string
        tree = ast.parse((folder / "g2p.py").read_text(encoding="utf-8"))
    of_class = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "G2p"]
    names: dict[str, Any] = {
        "np": np,
        "os": os,
        "dirname": str(folder),
        "cmudict": SimpleNamespace(dict=dict),
        "construct_homograph_dictionary": dict,
    }
    exec(compile(ast.Module([*of_class], []), str(folder / "g2p.py"), "exec"), names)
    return names["G2p"]()


class Speaker:
    """The same weights in models of rnncore."""

    def __init__(self, package: Any) -> None:
        self.letters, self.phonemes = package.g2idx, package.idx2p
        weights = dict(package.variables)
        self.encoder = rc.Sequential(*self._embedded_gru(weights, "enc"))
        linear = rc.Linear(*weights["fc_w"].shape[::-1])
        linear.load_parameters({"weight": weights["fc_w"], "bias": weights["fc_b"]})
        self.decoder = rc.Sequential(*self._embedded_gru(weights, "dec"), linear)
        self._reading, self._writing = self.encoder.stream(), self.decoder.stream()

    def _embedded_gru(self, weights: dict[str, np.ndarray], part: str) -> tuple[rc.Embedding, rc.GRU]:
        embedding = rc.Embedding(*weights[f"{part}_emb"].shape)
        gru = rc.GRU(weights[f"{part}_w_ih"].shape[1], weights[f"{part}_w_hh"].shape[1])
        embedding.load_parameters({"weight": weights[f"{part}_emb"]})
        names = {"weight_ih_l0": "w_ih", "weight_hh_l0": "w_hh", "bias_ih_l0": "b_ih", "bias_hh_l0": "b_hh"}
        gru.load_parameters({name: weights[f"{part}_{theirs}"] for name, theirs in names.items()})
        return embedding, gru

    def _tokens(self, word: str) -> np.ndarray:
        return np.array([self.letters[letter] for letter in [*word, "</s>"]])

    def predict(self, word: str) -> list[str]:
        """Return the phonemes of one word."""
        self._reading.reset()
        self._reading.process(self._tokens(word))
        self._writing.state = [*self._reading.state, None]
        written = [START]
        while len(written) <= LONGEST and written[-1] != END:
            written.append(int(self._writing.step(written[-1]).argmax()))
        return [self.phonemes[token] for token in written[1:] if token != END]

    def predict_all(self, of: Sequence[str]) -> list[list[str]]:
        """Return the phonemes of many words, all side by side: those that have ended leave."""
        _, state = self.encoder.run([self._tokens(word) for word in of])
        stream = self.decoder.stream(batch_size=len(of))
        stream.state = [*state, None]
        written: list[list[str]] = [[] for _ in of]
        rows, tokens = np.arange(len(of)), np.full(len(of), START)  # whose rows they are
        for _ in range(LONGEST):
            tokens = stream.step(tokens).argmax(axis=1)
            for row in np.flatnonzero(tokens == END)[::-1]:  # the last row takes the place of one that leaves
                stream.detach(row)
                rows[row], tokens[row] = rows[-1], tokens[-1]
                rows, tokens = rows[:-1], tokens[:-1]
            if not len(rows):
                break
            for row, token in zip(rows, tokens, strict=True):
                written[row].append(self.phonemes[token])
        return written


def words(count: int) -> list[str]:
    """Return different words of CPython's language reference."""
    found = sorted(set(re.findall(r"\b[a-z]{2,15}\b", "\n".join(topics.values()).lower())))
    return [found[i] for i in np.random.default_rng(0).permutation(len(found))[:count]]


def _run(count: int, seed: int) -> Figures:
    package = package_speaker()
    speaker, asked = Speaker(package), words(count)
    ways: dict[str, Callable[[], list[list[str]]]] = {
        "us a word": lambda: [speaker.predict(word) for word in asked],
        "us a word, all at once": lambda: speaker.predict_all(asked),
        "us a word, package": lambda: [package.predict(word) for word in asked],
    }
    written, figures = [], {"words": float(len(asked))}
    for name, way in ways.items():
        start = time.perf_counter()
        written.append(way())
        figures[name] = 1e6 * (time.perf_counter() - start) / len(asked)
    return {**figures, "same": float(np.mean([p == q == r for p, q, r in zip(*written, strict=True)]))}


def _ours(figures: Sequence[Figures]) -> str:
    each = figures[0]
    return (
        f"{each['same']:.1%} of {each['words']:.0f} words the same; {each['us a word']:.0f} us a word, "
        f"{each['us a word, all at once']:.0f} all at once, the package's code {each['us a word, package']:.0f}"
    )


def experiments(quick: bool) -> list[Experiment]:
    """Return the network."""
    return [
        Experiment(
            key="gru",
            task="phonemes of English words",
            network="GRU(256) to GRU(256), weights of g2p-en 2.1.0",
            run=partial(_run, 100 if quick else 2000),
            ours=_ours,
            published="the package's own outputs",
            source="g2p-en 2.1.0, checkpoint20.npz",
            drawn=False,
        )
    ]
