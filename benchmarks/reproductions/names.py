"""Where a name is from: first names and family names of faker's providers for locales that write Latin letters.

A name that several of the locales have is left out, and of the others a fifth is held out, so that no name is in both
parts. Beside the network stands what its characters alone tell to a model of 4-grams for each locale: P(name | locale)
is the product of P(character | the three before), smoothed as Witten & Bell (1991) do it, and the prior is counted.
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
HELD_OUT, SPLIT_SEED = 0.2, 0
EMBEDDING, BATCH = 64, 64
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


def split(share: float) -> tuple[list[str], list[str], np.ndarray, np.ndarray]:
    """Return names to learn from and held out, and the locales of both; of a share of all."""
    names, locales = read()
    some = np.random.default_rng(SPLIT_SEED).permutation(len(names))[: int(share * len(names))]
    return rc.data.split([names[i] for i in some], locales[some], validation=HELD_OUT, rng=SPLIT_SEED)


def _ngrams(share: float, order: int, seed: int) -> Figures:
    x, x_out, y, y_out = split(share)
    characters = len(set("".join(x))) + 2  # the end, and all that were never seen
    models = [NGrams([x[i] for i in np.flatnonzero(y == locale)], order, characters) for locale in range(max(y) + 1)]
    prior = np.log(np.bincount(y) / len(y))
    found = [np.argmax(prior + [model.log_probability(name) for model in models]) for name in x_out]
    return {"accuracy": float(np.mean(found == y_out))}


def _networks(share: float, members: int, H: int, epochs: int, seed: int) -> Figures:
    """Train some networks, and take the mean of the probabilities that they give."""
    x, x_out, y, y_out = split(share)
    number = {character: i for i, character in enumerate(sorted(set("".join(x)) | {START, END}), 1)}
    tokens, tokens_out = (
        [np.array([number.get(c, 0) for c in START + name + END]) for name in part] for part in (x, x_out)
    )
    train = rc.data.Sequences(tokens, y, batch_size=BATCH)
    rng = np.random.default_rng(seed)
    probabilities = []
    for _ in range(members):
        model = rc.Sequential(
            rc.Embedding(len(number) + 1, EMBEDDING, rng=rng),
            rc.GRU(EMBEDDING, H, bidirectional=True, input_dropout=0.2, recurrent_dropout=0.3, rng=rng),
            rc.Dropout(0.5, rng=rng),
            rc.MeanPool(),
            rc.Linear(2 * H, int(max(y)) + 1, rng=rng),
        )
        rate = rc.schedules.Cosine(2e-3, steps=epochs * len(train.epoch()))
        trainer = rc.Trainer(model, rc.CrossEntropy(), rc.AdamW(rate), clip_norm=1.0, rng=rng)
        trainer.fit(train, epochs, progress=False)
        scores = trainer.predict(tokens_out)
        exponentials = np.exp(scores - scores.max(axis=1, keepdims=True))
        probabilities.append(exponentials / exponentials.sum(axis=1, keepdims=True))
    alone = [np.mean(each.argmax(axis=1) == y_out) for each in probabilities]
    together = np.mean(probabilities, axis=0).argmax(axis=1) == y_out
    return {"accuracy": float(together.mean()), "accuracy of one": float(np.mean(alone))}


def _ours(figures: Sequence[Figures]) -> str:
    return f"{mean_of('accuracy', '.1%')(figures)}, one alone {mean_of('accuracy of one', '.1%')(figures)}"


def experiments(quick: bool) -> list[Experiment]:
    """Return the networks and the 4-grams."""
    share, members, H, epochs = (0.2, 1, 96, 5) if quick else (1.0, 3, 256, 20)
    task = f"names of {len(LOCALES.split())} locales"
    return [
        Experiment(
            key="gru",
            task=task,
            network=f"{members} GRU({H}), both directions, mean over steps",
            run=partial(_networks, share, members, H, epochs),
            ours=_ours,
        ),
        Experiment(
            key="4-gram",
            task=task,
            network="none: character 4-grams, naive Bayes",
            run=partial(_ngrams, share, 4),
            ours=mean_of("accuracy", ".1%"),
            drawn=False,
        ),
    ]
