"""Stacks of recurrent layers run one layer after the other: for training, and where layers are more than their passes.

A pass is one layer in one direction. `_core.Stack` runs a whole stack, whose layers are the outputs of their passes
side by side, in one call. Here there is room for what else a layer may do: around each pass, where it says itself how
one runs (`_Recurrent._runners`, `_Recurrent._record_pass`), and where the outputs of a layer's directions become its
own (`merging`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from rnncore._conversion import Array, as_array
from rnncore.calls import Call, of_pass
from rnncore.layer import PullBack, State
from rnncore.masks import drop_mask
from rnncore.merging import merged, merged_vjp

if TYPE_CHECKING:
    from rnncore.recurrent import _Recurrent

__all__: list[str] = []  # for recurrent layers

Parts = tuple[Array | None, ...]  # of a state


class Layers:
    """What `_core.Stack` is to a stack that one call of the core cannot run. Takes what a `Call` has, and no else."""

    def __init__(self, layer: _Recurrent) -> None:
        self._layer = layer
        self._runners = [layer._runners(k) for k in range(layer.num_layers)]

    def forward(self, x: Any, state: State, rows: Any, *resets: Any) -> tuple[Array, State]:
        """Return y and the final state; `resets` are a mask and a state, or nothing."""
        layer = self._layer
        D, S, P = layer._directions, layer._states, layer._output_width
        parts: Parts = (None,) * S if state is None else layer._parts(state)
        mask, starts = (resets[0], layer._parts(resets[1])) if resets else (None, ())
        series, finals = x, []
        for k, runners in enumerate(self._runners):
            below, outputs = series, []
            for i, runner in enumerate(runners):  # one for all directions, or one for each
                begin, end = k * D + i * D // len(runners), k * D + (i + 1) * D // len(runners)
                arguments = (series, _some(layer, parts, begin, end), rows)
                if mask is None:
                    y, final = runner.forward(*arguments)
                else:
                    y, final = runner.forward_with_resets(*arguments, mask, _some(layer, starts, begin, end))
                outputs += [y[..., d * P : (d + 1) * P] for d in range(end - begin)]
                finals.append(layer._parts(final))
            series = merged(layer.merge, outputs)
            if layer.skip and k > 0:
                series = series + below
        return series, layer._joined(tuple(np.concatenate(part) for part in zip(*finals, strict=True)))

    forward_with_resets = forward


def _some(layer: _Recurrent, parts: Parts, begin: int, end: int) -> State:
    """Return the state of some passes."""
    return layer._joined(tuple(None if part is None else part[begin:end] for part in parts))


class LayerTape(NamedTuple):
    """What one layer of a stack leaves for its pull-back."""

    recordings: list[Any]  # of each direction
    apart: Callable[[Array], list[Array]]  # the gradient of its output, into those of the directions'
    dropped: Array | None  # masks of what it read
    masked: Array | None
    skips: bool


class Pass(NamedTuple):
    """A pass that is to be recorded: what `_core.record_layer` takes, as far as it is not the layer's own."""

    place: int  # among the passes
    series: Any
    state: Parts
    rows: Any
    reverse: bool
    resets: tuple[Array, Parts] | None
    N: int


def vjp(layer: _Recurrent, call: Call, reset_state: State) -> tuple[tuple[Any, State], PullBack]:
    """Run a stack for training; `_Recurrent.vjp` says what is returned."""
    first, starts = layer._beginnings(call)
    D = layer._directions
    tapes: list[LayerTape] = []
    last: list[tuple[Array, ...]] = []
    series: Any = call.series
    spec, weights = layer._spec(training=True), layer._core_weights()
    for k in range(layer.num_layers):
        below, dropped = series, None
        if k > 0 and layer.dropout > 0.0:
            dropped = drop_mask(layer.rng, layer.dropout, series.shape, layer.dtype)
            series = series * dropped
        masked = None
        if layer.input_dropout > 0.0:
            of_rows = drop_mask(layer.rng, layer.input_dropout, (call.N, series.shape[-1]), layer.dtype)
            masked = call.of_steps(of_rows, layer.batch_first)
            series = series * masked
        outputs, recordings = [], []
        for index in range(k * D, (k + 1) * D):
            resets = None if call.mask is None else (call.mask, tuple(of_pass(part, index) for part in starts))
            state = tuple(of_pass(part, index) for part in first)
            one = Pass(index, series, state, call.rows, index % D == 1, resets, call.N)
            (y, *final), recording = layer._record_pass(one, spec, weights[index])
            outputs.append(y)
            recordings.append(recording)
            last.append(tuple(final))
        series, apart = merged_vjp(layer.merge, outputs)
        skips = layer.skip and k > 0
        if skips:
            series = series + below
        tapes.append(LayerTape(recordings, apart, dropped, masked, skips))
    finals = tuple(np.stack(parts) for parts in zip(*last, strict=True))
    pull_back = partial(_pull_back, layer, call, tapes, series.shape, reset_state)
    return (call.series_as_given(series), layer._joined(call.state_as_given(finals))), pull_back


def _pull_back(
    layer: _Recurrent,
    call: Call,
    tapes: list[LayerTape],
    y_shape: tuple[int, ...],
    reset_state: State,
    dy: ArrayLike | None = None,
    dstate: State = None,
) -> Any:
    dseries = call.gradient_of_series(dy, y_shape, layer.dtype)
    batch = (call.N,) if call.unbatched is None else ()
    dlast = []
    for part in layer._state_parts("dstate", dstate, batch):
        if part is not None:
            part = as_array("dstate", part if batch else part[:, np.newaxis], layer.dtype)
        dlast.append(part)
    D, passes = layer._directions, layer._passes()
    dfirst: list[tuple[Array, ...]] = [()] * len(passes)
    dstarts: list[Parts] = [()] * len(passes)
    for k in reversed(range(layer.num_layers)):
        tape = tapes[k]
        dx: Array | None = None
        doutputs = [None] * D if dseries is None else tape.apart(dseries)
        for d in range(D):
            index = k * D + d
            result = tape.recordings[d].pull_back(doutputs[d], tuple(of_pass(part, index) for part in dlast))
            assert result is not None
            dx_pass, dweights, dfirst[index], dstarts[index] = result
            dx = dx_pass if dx is None else dx + dx_pass  # both None if x is a lookup
            layer._add_gradients(index, dweights)
        if dx is not None:
            if tape.masked is not None:
                dx = dx * tape.masked
            if tape.dropped is not None:
                dx = dx * tape.dropped
            if tape.skips and dseries is not None:
                dx = dx + dseries
        dseries = dx
    if layer.learn_initial_state:
        _add_initial_gradients(layer, call, dfirst, dstarts)
    dinput = None if dseries is None else call.series_as_given(dseries)
    dinitial = tuple(np.stack(parts) for parts in zip(*dfirst, strict=True))
    result = dinput, layer._joined(call.state_as_given(dinitial))
    if reset_state is None:
        return result
    given = layer._state_parts("reset_state", reset_state, batch, shared=True)
    dreset: list[Array | None] = []
    for part, parts in zip(given, zip(*dstarts, strict=True), strict=True):
        if part is None:
            dreset.append(None)
        elif batch and part.ndim == 2:  # one for all sequences
            dreset.append(np.stack([gradient.sum(axis=0) for gradient in parts]))
        else:
            dreset.append(call.state_as_given((np.stack(parts),))[0])
    return *result, layer._joined(tuple(dreset))


def _add_initial_gradients(
    layer: _Recurrent, call: Call, dfirst: list[tuple[Array, ...]], dstarts: list[Parts]
) -> None:
    """Add the gradients of states that learned ones stood in for."""
    for index, (_, suffix, _) in enumerate(layer._passes()):
        for s, name in enumerate(layer._state_names):
            total = layer.gradients[f"initial_{name}{suffix}"]
            if call.state[s] is None:
                total += dfirst[index][s].sum(axis=0)
            start = dstarts[index][s]
            if call.starts and call.starts[s] is None and start is not None:
                total += start.sum(axis=0)
