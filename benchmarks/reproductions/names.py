"""Where a name is from: first names and family names of faker's providers for locales that write Latin letters.

A name that several of the locales have is left out, and of the others a fifth, drawn from the seed, is held out, so
that no name is in both parts. Beside the network stands what characters alone tell to a model of 4-grams for each
locale: P(name | locale) is the product of P(character | the three before), smoothed as Witten & Bell (1991) do it, and
the prior is counted.
"""

import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import cache, partial
from importlib import import_module
from importlib.util import find_spec

import numpy as np

import rnncore as rc
from reproductions.experiment import Experiment, Figures, mean_of

__all__ = ["LOCALES", "NGrams", "experiments", "read", "split"]

LOCALES = "az_AZ de_DE en_US es_ES et_EE fi_FI fr_FR ga_IE hr_HR id_ID is_IS it_IT nl_NL ro_RO sk_SK sv_SE tr_TR zu_ZA"
KINDS = ("first_names", "last_names")
HELD_OUT, ORDER = 0.2, 4
START, END = "\n", "\r"  # around every name, so that where it begins and ends counts too


@cache
def read() -> tuple[list[str], np.ndarray]:
    """Return the names in small letters, each once, and the number of the locale of each."""
    if not find_spec("faker"):
        sys.exit("needs the names that faker ships: pip install faker")
    locales_of = defaultdict(set)
    for number, locale in enumerate(LOCALES.split()):
        provider = import_module(f"faker.providers.person.{locale}").Provider
        for kind in KINDS:
            for suffix in ("", "_male", "_female", "_nonbinary"):
                for name in getattr(provider, kind + suffix, ()):
                    locales_of[name.lower()].add(number)
    names = sorted(name for name, locales in locales_of.items() if len(locales) == 1 and len(name) > 1)
    return names, np.array([next(iter(locales_of[name])) for name in names])


class NGrams:
    """One model of n-grams, with P(c | context) = (count(context c) + kinds P(c | shorter)) / (count(context) + kinds).

    `kinds` is how many different characters came after the context (Witten & Bell 1991); the shortest gives 1/V.
    """

    def __init__(self, names: list[str], order: int, characters: int) -> None:
        self.order, self.characters = order, characters
        self.after: dict[str, Counter[str]] = defaultdict(Counter)
        for context, character in (pair for name in names for pair in self._contexts(name)):
            for begin in range(len(context) + 1):
                self.after[context[begin:]][character] += 1

    def _contexts(self, name: str) -> list[tuple[str, str]]:
        text = START + name + END
        return [(text[max(0, i - self.order + 1) : i], text[i]) for i in range(1, len(text))]

    def log_probability(self, name: str) -> float:
        """Return log P(name)."""
        return float(sum(np.log(self.probability(character, context)) for context, character in self._contexts(name)))

    def probability(self, character: str, context: str) -> float:
        """Return P(character | context)."""
        result = 1.0 / self.characters
        for begin in range(len(context), -1, -1):
            after = self.after.get(context[begin:])
            if after is not None:
                result = (after[character] + len(after) * result) / (after.total() + len(after))
        return result


def split(share: float, seed: int) -> tuple[list[str], list[str], np.ndarray, np.ndarray]:
    """Return names to learn from and held out, and the locales of both; of a share of all."""
    names, locales = read()
    rng = np.random.default_rng([seed, 1])
    some = rng.permutation(len(names))[: int(share * len(names))]
    return rc.data.split([names[i] for i in some], locales[some], validation=HELD_OUT, rng=rng)


class Masked:
    """A data set of tokens, some of which are hidden in training, others in each epoch: they are unknown, 0."""

    def __init__(self, data: rc.data.Sequences, hidden: float) -> None:
        self.data, self.hidden = data, hidden

    def epoch(self, rng: np.random.Generator | None = None) -> Sequence[rc.data.Batch]:
        """Return the batches of one pass over the data."""
        batches = self.data.epoch(rng)
        if rng is None:
            return batches
        seeds = rng.integers(2**32, size=len(batches))

        def make(index: int) -> rc.data.Batch:
            batch = batches[index]
            shown = np.random.default_rng(seeds[index]).random(batch.x.shape) >= self.hidden
            return batch._replace(x=batch.x * shown)

        return rc.data.Epoch(make, range(len(batches)))


def _ngrams(share: float, seed: int) -> Figures:
    x, x_out, y, y_out = split(share, seed)
    characters = len(set("".join(x))) + 2  # the end, and all that were never seen
    models = [NGrams([x[i] for i in np.flatnonzero(y == locale)], ORDER, characters) for locale in range(max(y) + 1)]
    prior = np.log(np.bincount(y) / len(y))
    found = [np.argmax(prior + [model.log_probability(name) for model in models]) for name in x_out]
    return {"accuracy": float(np.mean(found == y_out))}


def _networks(share: float, members: int, H: int, epochs: int, seed: int) -> Figures:
    """Train several networks, and take what they expect together: the mean of their logits."""
    x, x_out, y, y_out = split(share, seed)
    number = {character: i for i, character in enumerate(sorted(set("".join(x)) | {START, END}), 1)}
    tokens, tokens_out = (
        [np.array([number.get(c, 0) for c in START + name + END]) for name in part] for part in (x, x_out)
    )
    logits = sum(
        _logits(tokens, y, tokens_out, len(number) + 1, H, epochs, np.random.default_rng([seed, member]))
        for member in range(members)
    )
    return {"accuracy": float(np.mean(logits.argmax(axis=1) == y_out))}


def _logits(
    tokens: list[np.ndarray],
    y: np.ndarray,
    tokens_out: list[np.ndarray],
    V: int,
    H: int,
    epochs: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Train a network, and return what it says of names held out."""
    model = rc.Sequential(
        rc.Embedding(V, 32, rng=rng),
        rc.GRU(32, H, num_layers=2, dropout=0.4, bidirectional=True, recurrent_dropout=0.2, rng=rng),
        rc.Dropout(0.5, rng=rng),
        rc.MeanPool(),
        rc.Linear(2 * H, int(max(y)) + 1, rng=rng),
    )
    data = Masked(rc.data.Sequences(tokens, y, batch_size=32), hidden=0.1)
    adam = rc.AdamW(rc.schedules.Cosine(2e-3, steps=epochs * len(data.epoch())), weight_decay=0.05)
    trainer = rc.Trainer(model, rc.CrossEntropy(), adam, clip_norm=1.0, rng=rng)
    trainer.fit(data, epochs, progress=False)
    return trainer.predict(tokens_out)


def experiments(quick: bool) -> list[Experiment]:
    """Return the networks and the 4-grams."""
    share, members, H, epochs = (0.2, 1, 96, 5) if quick else (1.0, 4, 192, 36)
    task = f"names of {len(LOCALES.split())} locales"
    runs = {
        f"{members} x GRU({H}), 2 layers, both directions, mean over steps": partial(
            _networks, share, members, H, epochs
        ),
        f"none: character {ORDER}-grams, naive Bayes": partial(_ngrams, share),
    }
    return [
        Experiment(key=key, task=task, network=network, run=run, ours=mean_of("accuracy", ".1%"))
        for key, (network, run) in zip(("gru", f"{ORDER}-gram"), runs.items(), strict=True)
    ]
