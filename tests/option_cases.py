"""Layers with options, each alone and combined at random, and ways to call them: what tests of options run over."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

import rnncore as rc
from stacks import sizes_of, states_of

HIDDEN, BATCHES, STEPS, INPUTS = [1, 3, 7, 16, 17, 33], [1, 2, 7], [0, 1, 5, 13], [1, 3, 17]
FORMS = ["padded", "ragged", "list", "packed", "unbatched", "time-major", "time-major ragged"]
STATES = ["given", "none", "partly"]
RESETS = ["none", "zeros", "given", "shared", "partly"]  # by the states that follow them

# With numbers, so that slopes matter, and such that a few values fall on each side of each kink.
ACTIVATIONS = [
    "identity", "tanh", "sigmoid", "relu", "hard_sigmoid", "hard_sigmoid_keras3", "softsign", "softplus", "elu",
    ("affine", 0.6, 0.1), ("leaky_relu", 0.2), ("thresholded_relu", 0.3), ("scaled_tanh", 1.2, 0.7),
    ("hard_sigmoid", 0.4, 0.3), ("elu", 0.5),
]  # fmt: skip
_UNBOUNDED = {"identity", "relu", "softplus", "elu", "affine", "leaky_relu", "thresholded_relu"}

FEED_FORWARD = {"identity", "tanh", "sigmoid", "relu"}  # what layers around a pass may have

_DEEP = [
    {"transition_depth": 2},
    {"transition_depth": 2, "shortcut": True},
    {"transition_depth": 3, "shortcut": True, "layer_norm": True, "recurrent_dropout": 0.3},
    {"transition_depth": 3, "zoneout": 0.3, "gate_clip": 0.6, "bias": False},
]
_FEED_FORWARD = [
    {"input_depth": 2},
    {"output_depth": 3, "bias": False},
    {"input_depth": 3, "output_depth": 2, "input_dropout": 0.3, "transition_depth": 2, "skip": True},
]
_OF_ALL = [
    *_FEED_FORWARD,
    *_DEEP,
    {"layer_norm": True},
    {"gate_clip": 0.6},
    {"zoneout": 0.3},
    {"zoneout": 1.0},
    {"recurrent_dropout": 0.3},
    {"input_dropout": 0.3},
    {"skip": True},
    {"learn_initial_state": True},
    {"bias": False, "layer_norm": True},
]
SINGLE: list[tuple[type, dict[str, Any]]] = [
    *((rc.RNN, options) for options in [*_OF_ALL, {"leak": 0.3}]),
    *((rc.RNN, {"nonlinearity": curve}) for curve in ACTIVATIONS),
    *(
        (rc.LSTM, options)
        for options in [
            *_OF_ALL,
            {"proj_size": 1},
            {"proj_size": -1},  # H - 1, see `layer_of`
            {"peephole": True},
            {"coupled_gates": True},
            {"coupled_gates": True, "peephole": True},
            {"cell_clip": 0.4},
            {"transition_depth": 2, "peephole": True, "cell_clip": 0.4, "layer_norm": True},
            {"transition_depth": 3, "coupled_gates": True, "peephole": True, "shortcut": True},
            {"transition_depth": 8, "shortcut": True},
            {"zoneout": (0.5, 0.0)},
            {"zoneout": (0.0, 0.5)},
        ]
    ),
    *((rc.GRU, options) for options in [*_OF_ALL, {"reset_after": False}, {"reset_after": False, "zoneout": 0.3}]),
    *((rc.GRU, {"reset_after": False, **options}) for options in _OF_ALL[7:12:2]),
    *((rc.GRU, {"reset_after": False, **options}) for options in _DEEP),
    (rc.MGU, {"transition_depth": 4, "shortcut": True}),
    *((rc.MGU, options) for options in [{}, *_OF_ALL]),
    *(
        (kind, options)
        for kind in (rc.SLSTM, rc.IndRNN, rc.MinGRU, rc.MinLSTM, rc.SRU, rc.QRNN, rc.LRU)
        for options in [{}, {"bias": False}, {"input_dropout": 0.3}, {"skip": True, "learn_initial_state": True}]
    ),
    *(
        (rc.RNN, {"input_depth": 2, "output_depth": 2, "nonlinearity": curve})
        for curve in ("relu", "sigmoid", "identity")
    ),
    (rc.LSTM, {"input_depth": 2, "output_depth": 2, "proj_size": -1}),
    (rc.IndRNN, {"nonlinearity": "tanh"}),
    (rc.LRU, {"complex": False}),
    *((kind, {"activation": curve}) for kind in (rc.LSTM, rc.GRU) for curve in ACTIVATIONS),
    *((kind, {"recurrent_activation": curve}) for kind in (rc.LSTM, rc.GRU) for curve in ACTIVATIONS),
]


def options_id(case):
    kind, options = case
    return kind.__name__ + "-" + ",".join(f"{k}={v}".replace(" ", "") for k, v in options.items())


def layer_of(kind, options, I, H, dtype, seed=1):
    """A layer whose parameters are all random, those of options too."""
    options = dict(options)
    if H == 1:  # one unit cannot be normalised, nor projected to less
        options = {name: value for name, value in options.items() if name not in ("layer_norm", "proj_size")}
    if "proj_size" in options:
        options["proj_size"] = min(options["proj_size"] % H, H - 1)
    layer = kind(I, H, **options, dtype=dtype, rng=seed)
    rng = np.random.default_rng(seed)
    curve = options.get("recurrent_activation", "sigmoid")
    if (curve if isinstance(curve, str) else curve[0]) in _UNBOUNDED:
        layer.flat_parameters *= 0.5  # gates that multiply what they see grow beyond all bounds in a few steps
    for name, array in layer.parameters.items():
        if name.startswith("weight_norm") or name.startswith("initial_n"):
            array[...] = rng.uniform(0.5, 1.5, array.shape)
        elif name.startswith(("bias_norm", "initial_")):
            array[...] = rng.uniform(-0.5, 0.5, array.shape)
    return layer


@dataclass
class Combination:
    """A layer and a call of it, drawn at random; the number says all."""

    number: int
    kind: type = field(init=False)
    options: dict[str, Any] = field(init=False)
    shape: tuple[int, int, int, int] = field(init=False)  # T, N, I, H
    form: str = field(init=False)
    state: str = field(init=False)
    resets: str = field(init=False)

    def __post_init__(self):
        rng = np.random.default_rng(self.number)

        def one_of(values):
            return values[rng.integers(len(values))]

        def chance(p=0.4):
            return rng.random() < p

        self.kind = one_of([rc.RNN, rc.LSTM, rc.LSTM, rc.GRU, rc.GRU])
        options = {"num_layers": int(rng.integers(1, 4)), "bidirectional": chance(), "bias": not chance(0.2)}
        options |= {"layer_norm": chance(), "skip": chance(), "learn_initial_state": chance()}
        if chance():
            options["gate_clip"] = float(rng.uniform(0.3, 2))
        for name in ("dropout", "input_dropout", "recurrent_dropout", "zoneout"):
            if chance(0.3):
                options[name] = float(rng.uniform(0.1, 0.6))
        if self.kind is rc.RNN:
            if chance():
                options["nonlinearity"] = one_of(ACTIVATIONS)
            if chance():
                options["leak"] = float(rng.uniform(0.1, 0.9))
        else:
            for name in ("activation", "recurrent_activation"):
                if chance():
                    options[name] = one_of(ACTIVATIONS)
        if self.kind is rc.LSTM:
            options |= {"peephole": chance(0.5), "coupled_gates": chance()}
            if chance():
                options["cell_clip"] = float(rng.uniform(0.3, 2))
            if chance():
                options["proj_size"] = int(rng.integers(1, 34))
            if "zoneout" in options and chance(0.5):
                options["zoneout"] = (options["zoneout"], float(rng.uniform(0, 1)))
        if self.kind is rc.GRU:
            options["reset_after"] = chance(0.5)
        if "proj_size" not in options and chance(0.3):
            options["transition_depth"] = int(rng.integers(2, 4))
            options["shortcut"] = chance(0.5)
        self.options = options
        if {options.get("nonlinearity", "tanh"), options.get("activation", "tanh")} <= FEED_FORWARD and chance(0.3):
            options["input_depth"], options["output_depth"] = (int(rng.integers(1, 4)) for _ in "ab")
        self.shape = one_of(STEPS[1:] if chance(0.9) else [0]), one_of(BATCHES), one_of(INPUTS), one_of(HIDDEN)
        self.form, self.state, self.resets = one_of(FORMS), one_of(STATES), one_of(RESETS)

    def __str__(self):
        return str(self.number)

    def layer(self, dtype, **more):
        I, H = self.shape[2:]
        return layer_of(self.kind, {**self.options, "batch_first": "time" not in self.form, **more}, I, H, dtype)

    def call(self, layer):
        return Call(layer, self.shape[:2], self.form, self.state, self.resets, self.number)


class Call:
    """Arguments of a layer in one of the forms that it takes, and as the oracle has them: (N, T, C), float64."""

    def __init__(self, layer, steps, form="padded", state="given", resets="none", seed=0):
        self.layer, self.form, self.seed = layer, form, seed
        rng = np.random.default_rng(seed)
        T, N = steps
        N = 1 if form == "unbatched" else N
        self.lengths = None
        if form in ("ragged", "list", "packed", "time-major ragged"):
            self.lengths = rng.integers(0, T + 1, N)
            if form in ("list", "packed"):
                T = int(self.lengths.max(initial=0))
        self.N, self.T = N, T
        self.dtype = layer.dtype
        self.x = self.numbers(rng, (N, T, layer.input_size))
        self.states = self.some_states(rng, state)
        self.reset_mask = None if resets == "none" else rng.random((N, T)) < 0.3
        self.starts = None
        if resets not in ("none", "zeros"):
            self.starts = self.some_states(rng, "partly" if resets == "partly" else "given", shared=resets == "shared")

    def numbers(self, rng, shape):
        return rng.standard_normal(shape).astype(self.dtype).astype(np.float64)

    def some_states(self, rng, which, shared=False):
        """States of all passes, the parts of a tuple; None, or None for the first of several, by `which`."""
        if which == "none":
            return None
        axes = (len(self.layer._weights), *(() if shared else (self.N,)))
        names = states_of(self.layer)
        parts = [self.numbers(rng, (*axes, size)) for size in sizes_of(self.layer)]
        if "n" in names:  # sLSTM divides by it
            parts[2] = np.abs(parts[2]) + 0.5
        if which == "partly":
            parts[0] = None
        return None if all(part is None for part in parts) else tuple(parts)

    # ---------------------------------------------------------------------------------- to what the layer takes

    def series(self, array):
        """(N, T, ...) in the form of the call."""
        if array.dtype == np.float64:
            array = array.astype(self.dtype)
        if self.form == "unbatched":
            return array[0]
        if self.form.startswith("time"):
            return array.swapaxes(0, 1)
        if self.form == "list":
            return [array[n, :length] for n, length in enumerate(self.lengths)]
        if self.form == "packed":
            return rc.Packed.from_padded(array, self.lengths)
        return array

    def as_state(self, parts):
        if parts is None:
            return None
        arrays = [None if part is None else part.astype(self.dtype) for part in parts]
        if self.form == "unbatched":
            arrays = [array if array is None or array.ndim == 2 else array[:, 0] for array in arrays]
        return tuple(arrays) if len(arrays) > 1 else arrays[0]

    def arguments(self):
        """The positional arguments of a call of the layer."""
        lengths = self.lengths if self.form.endswith("ragged") else None
        mask = None if self.reset_mask is None else self.series(self.reset_mask)
        return self.series(self.x), self.as_state(self.states), lengths, mask, self.as_state(self.starts)

    # ---------------------------------------------------------------------------------- and back

    def padded(self, series):
        if self.form == "unbatched":
            return series[np.newaxis]
        if self.form.startswith("time"):
            return series.swapaxes(0, 1)
        if self.form == "list":
            series = rc.Packed.from_list(series)
        return series if isinstance(series, np.ndarray) else series.to_padded()[0]
