"""Nested operations on digits, [MAX 2 9 [MIN 4 7] 0], read along their tree and along the string.

Nangia & Bowman (2018) asked whether networks find such structure; here it is given to one network and not to the other.
A node's value is the least, the largest, the median or the sum modulo ten of its children's. The tree's nodes are the
operations and digits; the string has a bracket at each end of an operation too.
"""

from functools import partial
from typing import Any

import numpy as np

import rnncore as rc
from reproductions.experiment import Experiment, Figures, mean_of

__all__ = ["OPERATIONS", "experiments", "expression", "parents_and_tokens", "string_tokens", "value"]

OPERATIONS = ("MIN", "MAX", "MED", "SUM")
CLOSE = 10 + len(OPERATIONS)  # tokens: the digits, the operations with their opening brackets, the closing one
KINDS = CLOSE + 1
DEPTH, ARGUMENTS, NESTED = 5, (2, 4), 0.4  # of an expression, of an operation; how often an argument is an operation
HELD_OUT, HIDDEN, EMBEDDING, BATCH = 0.1, 64, 32, 64

Expression = Any  # a digit, or (operation, [expression, ...])


def expression(rng: np.random.Generator, depth: int = DEPTH) -> Expression:
    """Draw an operation whose arguments are digits or, down to a depth, operations."""
    arguments = [
        expression(rng, depth - 1) if depth > 1 and rng.random() < NESTED else int(rng.integers(10))
        for _ in range(rng.integers(ARGUMENTS[0], 1 + ARGUMENTS[1]))
    ]
    return int(rng.integers(len(OPERATIONS))), arguments


def value(of: Expression) -> int:
    """Work an expression out; of an even number of arguments the median is the lower of the two in the middle."""
    if isinstance(of, int):
        return of
    values = sorted(value(argument) for argument in of[1])
    return (values[0], values[-1], values[(len(values) - 1) // 2], sum(values) % 10)[of[0]]


def string_tokens(of: Expression) -> list[int]:
    """Write an expression as a string with brackets."""
    if isinstance(of, int):
        return [of]
    return [10 + of[0], *(token for argument in of[1] for token in string_tokens(argument)), CLOSE]


def parents_and_tokens(of: Expression) -> tuple[list[int], list[int]]:
    """Return the parent of each node, -1 of the root, which is the first, and what stands at each."""
    parents: list[int] = []
    tokens: list[int] = []

    def add(node: Expression, parent: int) -> None:
        own = len(parents)
        parents.append(parent)
        tokens.append(node if isinstance(node, int) else 10 + node[0])
        for argument in () if isinstance(node, int) else node[1]:
            add(argument, own)

    add(of, -1)
    return parents, tokens


def _drawn(count: int, rng: np.random.Generator) -> list[Expression]:
    """Draw so many different expressions."""
    found: dict[tuple[int, ...], Expression] = {}
    while len(found) < count:
        each = expression(rng)
        found[tuple(string_tokens(each))] = each
    return list(found.values())


def _run(kind: str, count: int, epochs: int, seed: int) -> Figures:
    rng = np.random.default_rng(seed)
    drawn = _drawn(count, rng)
    y = np.array([value(each) for each in drawn])
    rows, rows_out = rc.data.split(np.arange(count), validation=HELD_OUT, rng=rng)
    embedding, linear = rc.Embedding(KINDS, EMBEDDING, rng=rng), rc.Linear(HIDDEN, 10, rng=rng)
    if kind == "tree":
        pairs = [parents_and_tokens(each) for each in drawn]
        trees = rc.Trees(rc.Forest([parents for parents, _ in pairs]), np.concatenate([each for _, each in pairs]))
        model = rc.Sequential(embedding, rc.ChildSumTreeLSTM(EMBEDDING, HIDDEN, rng=rng), rc.Root(), linear)
        data, data_out = (rc.data.Forests(trees, y, batch_size=BATCH, rows=part) for part in (rows, rows_out))
    else:
        strings = [np.array(string_tokens(each)) for each in drawn]
        model = rc.Sequential(embedding, rc.LSTM(EMBEDDING, HIDDEN, rng=rng), rc.Last(), linear)
        data, data_out = (rc.data.Sequences(strings, y, batch_size=BATCH, rows=part) for part in (rows, rows_out))
    rate = rc.schedules.Cosine(3e-3, steps=epochs * len(data.epoch()))
    trainer = rc.Trainer(model, rc.CrossEntropy(), rc.Adam(rate), clip_norm=1.0, metrics=["accuracy"], rng=rng)
    trainer.fit(data, epochs, progress=False)
    return {"accuracy": trainer.evaluate(data_out)["accuracy"]}


def experiments(quick: bool) -> list[Experiment]:
    """Return the network along the trees and the one along the strings."""
    count, epochs = (2000, 4) if quick else (20_000, 15)
    names = {"tree": f"child-sum tree LSTM({HIDDEN})", "chain": f"LSTM({HIDDEN}) along the string"}
    return [
        Experiment(
            key=kind,
            task=f"nested operations up to depth {DEPTH}",
            network=name,
            run=partial(_run, kind, count, epochs),
            ours=mean_of("accuracy", ".1%"),
            seeds=1 if quick else 3,
        )
        for kind, name in names.items()
    ]
