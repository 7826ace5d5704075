"""Passes of recurrent layers with limited context: every step is read as the last of a window of its own.

Read from the end with a context of k, y[t] is what there is after x[t+k], ..., x[t], from the state that sequences
begin with. In chunks of c steps (Zhang et al. 2016), steps share windows: chunk j, steps j c to (j + 1) c - 1, is read
together with the k steps beyond it, so that a step sees k to k + c - 1 others, and a pass costs (c + k) / c times as
much as a plain one. Windows that begin (are read from) where their sequence does collapse into one, which gives the
outputs of all their steps. Read from the beginning it is the same the other way round, with the k steps before a chunk.

A window is a sequence of its own, of rows that the core looks up in the series: where there are far more steps in the
windows than in the series, the products with the input are made once for each row of it. Not public.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from rnncore import _core as core
from rnncore._conversion import Array, valid_steps
from rnncore._core import Cell, Lookup, Spec, Stack
from rnncore.layerwise import Parts, Pass
from rnncore.packed import _within
from rnncore.pieces import Cuts

if TYPE_CHECKING:
    from rnncore.recurrent import _Recurrent

__all__: list[str] = []  # for recurrent layers

MOST_ROWS = 1 << 14  # of windows that a call of the core runs in inference, unless one has more


class Windows(NamedTuple):
    """The windows of a batch, in the order of its steps, where those lie one sequence after the other."""

    begin: Array  # (W,) the first step of each
    length: Array  # (W,)
    kept: Array  # (W,) of so many steps, those that are read last, outputs are taken
    sequence: Array  # (W,) of which each is
    fresh: Array  # (W,) bool: whether it starts from the state after a reset
    last: Array  # (N,) the window that leaves the final state of each sequence
    reverse: bool

    @classmethod
    def of(cls, lengths: Array, resets: Array | None, reverse: bool, context: int | None, chunk: int) -> Windows:
        """Return the windows of sequences that are cut before resets (R,); a context of None is without a limit."""
        cuts = Cuts.of(lengths, resets, reverse)
        longest = int(cuts.length.max(initial=0))
        k = longest if context is None else min(context, longest)
        c = max(min(chunk, longest), 1)
        if reverse:
            # chunk j sees step (j + 1) c + k - 1; the last window is of all chunks that see the last step
            count = np.maximum(-((k - cuts.length) // c), 1)
        else:
            # chunk j sees step j c - k; the first window is of all chunks that see the first step
            head = (k // c + 1) * c
            count = 1 + np.maximum(-((head - cuts.length) // c), 0)
        piece, i = np.repeat(np.arange(len(count)), count), _within(count)
        length = cuts.length[piece]
        if reverse:
            begin = i * c
            whole = i == count[piece] - 1
            end = np.where(whole, length, begin + c + k)
            kept = np.where(whole, length - begin, c)
        else:
            chunk_begin = np.where(i == 0, 0, head + (i - 1) * c)
            end = np.minimum(head + i * c, length)
            begin = np.where(i == 0, 0, chunk_begin - k)
            kept = end - chunk_begin
        first = np.cumsum(count) - count
        last = first[cuts.last] if reverse else (first + count - 1)[cuts.last]
        return cls(cuts.first[piece] + begin, end - begin, kept, cuts.sequence[piece], cuts.fresh[piece], last, reverse)

    def read(self, some: slice = slice(None)) -> tuple[Array, Array]:
        """Return the steps that windows read, one after the other, and whether the output of each is taken."""
        length = self.length[some]
        before = _within(length)
        after = np.repeat(length, length) - 1 - before
        steps = np.repeat(self.begin[some], length) + (after if self.reverse else before)
        return steps, after < np.repeat(self.kept[some], length)

    def groups(self, most: int) -> list[slice]:
        """Cut the windows into groups of at most so many steps, or of one window."""
        group = np.cumsum(self.length) // most
        ends = [*(np.flatnonzero(np.diff(group)) + 1).tolist(), len(group)]
        return [slice(begin, end) for begin, end in zip([0, *ends], ends, strict=False)]

    def states(self, first: Parts, start: Parts | None, some: slice = slice(None)) -> Parts:
        """Return what windows begin with, of the states (N, size) of sequences and those after resets."""
        sequence, fresh = self.sequence[some], self.fresh[some]
        found: list[Array | None] = []
        for a, b in zip(first, first if start is None else start, strict=True):
            given = a if a is not None else b
            if given is None:
                found.append(None)
                continue
            state = np.zeros((len(sequence), given.shape[1]), given.dtype)
            for part, own in ((a, ~fresh), (b, fresh)):
                if part is not None:
                    state[own] = part[sequence[own]]
            found.append(state)
        return tuple(found)

    def sums(self, gradient: Array, own: Array) -> Array:
        """Return the sums over some windows of each sequence, (N, size), of what belongs to what they begin with."""
        begins = np.searchsorted(self.sequence, np.arange(len(self.last)))
        if not len(begins):
            return gradient[:0]
        return np.add.reduceat(np.where(own[:, np.newaxis], gradient, 0), begins, axis=0)


class Batch:
    """A series with its steps one sequence after the other, and the way back."""

    def __init__(self, series: Array, rows: Any, batch_first: bool) -> None:
        self.shape = series.shape[:-1]
        self.places: Array | slice = slice(None)  # of the steps, in the order of the sequences
        if isinstance(rows, core.Ragged):
            self.places, self.lengths = rows.places, rows.lengths
        else:
            N, T = self.shape[:: 1 if batch_first else -1]
            self.lengths = np.full(N, T, np.int64) if rows is None else rows
            if rows is not None or not batch_first:
                sequence, step = np.nonzero(valid_steps(self.lengths, T))
                self.places = sequence * T + step if batch_first else step * N + sequence
        self.x = self.joined(series)

    def joined(self, series: Array) -> Array:
        """Return the steps of a series (..., C) of this shape, one sequence after the other."""
        return series.reshape(-1, *series.shape[len(self.shape) :])[self.places]

    def series(self, joined: Array) -> Array:
        """Return these steps where the caller has them; zeros where he has padding."""
        if isinstance(self.places, slice):  # he has them so
            return joined.reshape(*self.shape, joined.shape[1])
        array = np.zeros((*self.shape, joined.shape[1]), joined.dtype)
        array.reshape(-1, joined.shape[1])[self.places] = joined
        return array

    def windows(self, reverse: bool, mask: Array | None, context: int | None, chunk: int) -> Windows:
        return Windows.of(self.lengths, None if mask is None else self.joined(mask), reverse, context, chunk)


class WindowedPass:
    """One pass in inference, weights packed once: for `layerwise.Layers`, what a `Stack` of the pass would be."""

    def __init__(self, layer: _Recurrent, weights: tuple[Array | None, ...], reverse: bool) -> None:
        self._layer, self._reverse = layer, reverse
        self._stack = Stack(layer._spec(), [weights], 1, True)

    def forward(self, series: Array, state: Any, rows: Any, *resets: Any) -> tuple[Array, Any]:
        """Return y and the final state (1, N, size); `resets` are a mask and a state, or nothing."""
        layer = self._layer
        mask, start = (resets[0], _alone(layer, resets[1])) if resets else (None, None)
        batch = Batch(series, rows, layer.batch_first)
        windows = batch.windows(self._reverse, mask, layer._context(self._reverse), layer.chunk)
        first = _alone(layer, state)
        y = np.empty((len(batch.x), layer._output_width), layer.dtype)
        final = tuple(np.empty((1, len(batch.lengths), size), layer.dtype) for size in layer._state_sizes)
        for group in windows.groups(MOST_ROWS):
            steps, kept = windows.read(group)
            begin, end = int(steps.min(initial=len(batch.x))), int(steps.max(initial=-1)) + 1
            table = batch.x[begin : max(end, begin)]  # the part of the series that the group reads
            states = windows.states(first, start, group)
            part = layer._joined(tuple(None if a is None else a[np.newaxis] for a in states))
            lengths = core.Ragged.joined(windows.length[group])
            result = self._stack.forward(Lookup(table, steps - begin, np.empty_like(table)), part, lengths)
            assert result is not None
            y[steps[kept]] = result[0][kept]
            ends = (windows.last >= group.start) & (windows.last < group.stop)
            for whole, of_group in zip(final, layer._parts(result[1]), strict=True):
                whole[:, ends] = of_group[:, windows.last[ends] - group.start]
        return batch.series(y), layer._joined(final)

    forward_with_resets = forward


def _alone(layer: _Recurrent, state: Any) -> Parts:
    """Return the parts of the state of one pass, (1, N, size) each or None, without the axis of passes."""
    return tuple(None if part is None else part[0] for part in layer._parts(state))


def record(layer: _Recurrent, one: Pass, spec: Spec | Cell, weights: tuple[Array | None, ...]) -> tuple[Any, Any]:
    """Run a pass for training: as `_Recurrent._record_pass`."""
    batch = Batch(one.series, one.rows, layer.batch_first)
    mask, start = (None, None) if one.resets is None else one.resets
    windows = batch.windows(one.reverse, mask, layer._context(one.reverse), layer.chunk)
    steps, kept = windows.read()
    take_h, take_c, recurrent = layer._masks(one.N, batch.shape)
    dx = np.empty_like(batch.x)
    result = core.record_layer(
        layer._every,
        spec,
        Lookup(batch.x, steps, dx),
        weights,
        windows.states(one.state, start),
        core.Ragged.joined(windows.length),
        False,
        True,
        None,
        (
            None if take_h is None else batch.joined(take_h)[steps],
            None if take_c is None else batch.joined(take_c)[steps],
            None if recurrent is None else recurrent[windows.sequence],
        ),
    )
    assert result is not None
    (y, *finals), recording = result
    joined = np.empty((len(batch.x), y.shape[1]), y.dtype)
    joined[steps[kept]] = y[kept]
    with_start = tuple(part is not None for part in start or ())
    final = tuple(part[windows.last] for part in finals)
    return (batch.series(joined), *final), WindowedRecording(recording, dx, batch, windows, with_start)


class WindowedRecording(NamedTuple):
    """What a recorded pass leaves for its pull-back."""

    recording: core.Recording
    dx: Array  # (R, I) where backward adds the gradient of the series
    batch: Batch
    windows: Windows
    with_start: tuple[bool, ...]  # of each state, whether one after resets was given

    def pull_back(self, dy: Array | None, dlast: Parts) -> tuple[Any, ...]:
        """Return what `pull_back` of a `Recording` does."""
        windows, W = self.windows, len(self.windows.sequence)
        dy_read = None
        if dy is not None:
            steps, kept = windows.read()
            dy_read = np.zeros((len(steps), dy.shape[-1]), dy.dtype)
            dy_read[kept] = self.batch.joined(dy)[steps[kept]]
        dfinal: list[Array | None] = []
        for part in dlast:
            whole = None if part is None else np.zeros((W, part.shape[1]), part.dtype)
            if whole is not None and part is not None:
                whole[windows.last] = part
            dfinal.append(whole)
        self.dx.fill(0)
        result = self.recording.pull_back(dy_read, tuple(dfinal))
        assert result is not None
        _, dweights, dbegin, _ = result
        dfirst = tuple(windows.sums(part, ~windows.fresh) for part in dbegin)
        dstart: Parts = (None,) * len(dbegin)
        if self.with_start:
            some = zip(dbegin, self.with_start, strict=True)
            dstart = tuple(windows.sums(part, windows.fresh) if given else None for part, given in some)
        return self.batch.series(self.dx), dweights, dfirst, dstart
