"""Batches cut into pieces at their resets, longest first, step by step: what `scan` goes through.

The core's plan (`plan.cpp`, `pieces.cpp`) in NumPy: rows alive at a step are a prefix of those at the step before, and
one index says where in the caller's array each of them lies. Not public.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rnncore.packed import _structure, _within

__all__: list[str] = []  # for modules of this package

Array = NDArray[Any]


class Cuts(NamedTuple):
    """P pieces of N sequences, one sequence after the other. Without resets a piece is a sequence."""

    first: Array  # (P,) where the first step of each lies, of the steps of all sequences one after the other
    length: Array  # (P,)
    sequence: Array  # (P,) of which each is
    fresh: Array  # (P,) bool: whether it starts from the state after a reset
    last: Array  # (N,) the piece that leaves the final state of each sequence

    @classmethod
    def of(cls, lengths: Array, resets: Array | None, reverse: bool) -> Cuts:
        """Cut sequences before their resets; parameters as of `Pieces.of`."""
        N, begins = len(lengths), np.cumsum(lengths) - lengths
        first, sequence, anew = begins, np.arange(N), np.zeros(N, bool)
        if resets is not None:
            inner, some = resets.copy(), lengths > 0
            anew[some] = resets[begins[some]]
            inner[begins[some]] = False  # no cut: a sequence begins there anyway
            cuts = np.flatnonzero(inner)
            first = np.concatenate([begins, cuts])
            sequence = np.concatenate([sequence, np.repeat(sequence, lengths)[cuts]])
            by_sequence = np.lexsort((first, sequence))
            first, sequence = first[by_sequence], sequence[by_sequence]
        length = np.diff(first, append=lengths.sum())  # pieces lie without gaps
        begin_one, end_one = np.diff(sequence, prepend=-1) > 0, np.diff(sequence, append=N) > 0
        # What is read first starts from the initial state: read from the end, the last piece. There a reset before the
        # first step comes after everything.
        fresh = ~end_one if reverse else ~begin_one | anew[sequence]
        return cls(first, length, sequence, fresh, np.flatnonzero(begin_one if reverse else end_one))


class Pieces(NamedTuple):
    """P pieces of N sequences, longest first. Without resets a piece is a sequence."""

    sizes: list[int]  # pieces that have a step t, for each t
    rows: Array  # (R,) where the row of each step of each piece lies, the first step of all pieces first
    sequence: Array  # (P,) of which each piece is
    fresh: Array  # (P,) bool: whether it starts from the state after a reset
    last: Array  # (N,) the piece that leaves the final state of each sequence

    @classmethod
    def of(cls, places: Array, lengths: Array, resets: Array | None, reverse: bool) -> Pieces:
        """Cut sequences before their resets.

        Parameters
        ----------
        places : ndarray of int64, (R,)
            Where the row of each step lies, one sequence after the other.
        lengths : ndarray of int64, (N,)
        resets : ndarray of bool, (R,), optional
            In the same order, whether states start anew before a step.
        reverse : bool
            Whether each piece is read from its end.
        """
        first, length, sequence, fresh, last = Cuts.of(lengths, resets, reverse)
        sizes, order = _structure(length)
        step, piece = np.repeat(np.arange(len(sizes)), sizes), order[_within(sizes)]
        rows = places[first[piece] + (length[piece] - 1 - step if reverse else step)]
        place_of = np.empty_like(order)
        place_of[order] = np.arange(len(order))
        return cls(sizes.tolist(), rows, sequence[order], fresh[order], place_of[last])
