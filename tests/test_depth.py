"""Feed-forward layers around the passes of layers: against the oracle, the same layers one by one, and in streams."""

import copy
import itertools

import numpy as np
import pytest

import rnncore as rc
from layer_agreement import assert_agrees
from option_cases import FORMS, RESETS, STATES, Call, layer_of
from rnncore.testing import check_layer

DEEP = {"input_depth": 3, "output_depth": 2}
BOTH = {"bidirectional": True}
kinds = pytest.mark.parametrize("kind", [rc.RNN, rc.LSTM, rc.GRU, rc.MGU])

# ------------------------------------------------------------------------------------------------------------ values

AROUND = [
    (rc.RNN, {"nonlinearity": "relu", **BOTH, "merge": "sum"}),
    (rc.LSTM, {"proj_size": 5, **BOTH, "merge": "multiply", "skip": True}),
    (rc.GRU, {"look_back": 2, "chunk": 2}),
    (rc.LSTM, {**BOTH, "look_ahead": 1, "input_dropout": 0.3, "bias": False}),
    (rc.GRU, {**BOTH, "look_ahead": 2, "look_back": 0, "merge": "mean", "learn_initial_state": True, "skip": True}),
    (rc.MGU, {**BOTH, "checkpoint_every": 2, "dropout": 0.3, "recurrent_dropout": 0.2}),
    (rc.RNN, {"transition_depth": 2, "shortcut": True, "leak": 0.5, "zoneout": 0.2, "checkpoint_every": 3}),
    (rc.LSTM, {**BOTH, "layer_norm": True, "learn_initial_state": True, "activation": "sigmoid"}),
]
CASES = list(itertools.product(AROUND, [{"input_depth": 2}, {"output_depth": 2}, DEEP]))


@pytest.mark.parametrize(("around", "depth"), CASES, ids=str)
def test_agrees_with_the_oracle(around, depth, dtype):
    turn, (kind, options) = CASES.index((around, depth)), around
    H, form = [7, 16, 17, 33, 1][turn % 5], FORMS[turn % len(FORMS)]
    shape = {"num_layers": 1 + turn % 3, "batch_first": not form.startswith("time")}
    layer = layer_of(kind, {**options, **depth, **shape}, 5, H, dtype)
    assert_agrees(layer, Call(layer, ([1, 5, 9, 0][turn % 4], 3), form, STATES[turn % 3], RESETS[turn % 5], seed=turn))


@kinds
@pytest.mark.parametrize("form", FORMS)
def test_agrees_in_all_forms(kind, form, dtype):
    layer = layer_of(kind, {**DEEP, **BOTH, "batch_first": not form.startswith("time")}, 3, 17, dtype)
    assert_agrees(layer, Call(layer, (6, 4), form, "given", "given"))


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize(("N", "T"), [(1, 1), (0, 4), (2, 0), (0, 0)])
@pytest.mark.parametrize("options", [{}, BOTH, {"look_back": 1}], ids=str)
def test_sizes(options, N, T, ragged):
    layer = rc.GRU(3, 1, 2, **DEEP, **options, rng=0)
    lengths = np.zeros(N, int) if ragged else None
    (y, state), pull_back = layer.vjp(np.ones((N, T, 3)), None, lengths)
    assert y.shape == (N, T, layer.output_size)
    assert state.shape == (2 * layer.output_size, N, 1)
    assert pull_back(np.ones_like(y))[0].shape == (N, T, 3)
    assert not (ragged and y.any())


@kinds
@pytest.mark.parametrize("bidirectional", [False, True])
def test_contract(kind, bidirectional, rng):
    layer = kind(3, 4, 2, **DEEP, bidirectional=bidirectional, dtype="float64", rng=1)
    x = rng.standard_normal((4, 6, 3))
    check_layer(layer, x, lengths=[6, 2, 0, 5], causal=not bidirectional)


@kinds
def test_bits_of_the_same_layers_one_by_one(kind, threads, dtype):
    """One layer with depth, and a model of `Linear` layers around one without."""
    deep = layer_of(kind, DEEP, 5, 17, dtype)
    parameters = deep.parameters
    model = rc.Sequential(
        rc.Linear(5, 17, activation="tanh", dtype=dtype),
        rc.Linear(17, 17, activation="tanh", dtype=dtype),
        kind(17, 17, dtype=dtype),
        rc.Linear(17, 17, activation="tanh", dtype=dtype),
    )
    for index, name in (0, "input1"), (1, "input2"), (3, "output1"):
        one = model.layers[index]
        one.load_parameters({what: parameters[f"{what}_{name}_l0"] for what in ("weight", "bias")})
    model.layers[2].load_parameters({name: parameters[name] for name in model.layers[2].parameters})
    x, lengths = np.random.default_rng(0).standard_normal((4, 9, 5)).astype(dtype), [9, 0, 4, 1]
    expected, states = model.run(x, None, lengths)
    frozen = deep.frozen()
    deep_copy = copy.deepcopy(deep)
    deep.flat_parameters[...] = 0  # which is nothing to what is frozen
    for count in (1, 3):
        threads(count)
        for got, state in (deep_copy(x, None, lengths), frozen(x, None, lengths)):
            np.testing.assert_array_equal(got, expected)
            np.testing.assert_array_equal(state, states[2])


# ----------------------------------------------------------------------------------------------------------- padding


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("options", [{}, BOTH, {**BOTH, "look_ahead": 1, "look_back": 1}], ids=str)
def test_padding_is_neither_read_nor_written(options, batch_first):
    layer = rc.LSTM(3, 7, 2, **DEEP, **options, batch_first=batch_first, rng=0)
    rng, lengths = np.random.default_rng(0), np.array([5, 0, 3])
    padding = np.arange(5) >= lengths[:, np.newaxis]
    padding = padding if batch_first else padding.T
    clean = rng.standard_normal((3, 5, 3) if batch_first else (5, 3, 3)).astype(np.float32)
    dirty = clean.copy()
    dirty[padding] = np.nan
    results = []
    for x in (clean, dirty):
        layer.zero_gradients()
        (y, state), pull_back = layer.vjp(x, None, lengths)
        assert not y[padding].any()
        assert y[~padding].all()
        np.testing.assert_array_equal(layer(x, None, lengths)[0], y)
        dy = np.ones_like(y)
        dy[padding] = x[padding][:, :1]
        dx, _ = pull_back(dy)
        assert not dx[padding].any()
        results.append((y, *state, dx, layer.flat_gradients.copy()))
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("lengths", [None, [9, 0, 4]])
def test_outputs_may_be_overwritten_before_the_pull_back(lengths):
    layer, x = rc.RNN(5, 7, **DEEP, rng=0), series()
    gradients = []
    for overwrite in (False, True):
        (y, state), pull_back = layer.vjp(x, None, lengths)
        if overwrite:
            y[...], state[...] = 3, 3
        layer.zero_gradients()
        dx, dstate = pull_back(np.ones_like(y))
        gradients.append((dx, dstate, layer.flat_gradients.copy()))
    for a, b in zip(*gradients, strict=True):
        np.testing.assert_array_equal(a, b)


# -------------------------------------------------------------------------------------------------------- parameters


@pytest.mark.parametrize("bias", [False, True])
def test_names_and_shapes(bias):
    layer = rc.LSTM(3, 8, 2, bias=bias, bidirectional=True, proj_size=5, input_depth=3, output_depth=3)
    expected = {}
    for k, I in ((0, 3), (1, 10)):
        for suffix in (f"_l{k}", f"_l{k}_reverse"):
            of_pass = {
                "weight_ih": (32, 8), "weight_hh": (32, 5), "bias_ih": (32,), "bias_hh": (32,), "weight_hr": (5, 8),
                "weight_input1": (8, I), "bias_input1": (8,), "weight_input2": (8, 8), "bias_input2": (8,),
                "weight_output1": (5, 5), "bias_output1": (5,), "weight_output2": (5, 5), "bias_output2": (5,),
            }  # fmt: skip
            expected |= {name + suffix: shape for name, shape in of_pass.items() if bias or name[0] != "b"}
    assert [(name, array.shape) for name, array in layer.parameters.items()] == list(expected.items())
    assert layer.output_size == 10
    assert repr(rc.GRU(3, 8, input_depth=2, output_depth=1)) == "GRU(3, 8, input_depth=2)"


def test_initialisation():
    layer = rc.LSTM(3, 8, **DEEP, rng=0)
    rc.init.glorot(layer, rng=1, recurrent=False)
    for name, (rows, columns) in {"input1": (8, 3), "input2": (8, 8), "output1": (8, 8)}.items():
        weight, most = layer.parameters[f"weight_{name}_l0"], np.sqrt(6 / (rows + columns))
        assert 0.8 * most < np.abs(weight).max() <= most
        assert not layer.parameters[f"bias_{name}_l0"].any()
    before = {name: array.copy() for name, array in layer.parameters.items()}
    rc.init.orthogonal(layer, rng=1)
    rc.init.forget_bias(layer)
    changed = {name for name, array in layer.parameters.items() if not np.array_equal(array, before[name])}
    assert changed == {"weight_hh_l0", "bias_ih_l0"}
    rc.init.uniform(layer, rng=2)
    assert 1 / np.sqrt(8) < np.abs(layer.parameters["weight_input1_l0"]).max() <= 1 / np.sqrt(3)


# ----------------------------------------------------------------------------------------------------------- streams


def series(N=3, T=9, I=5, dtype=np.float32):
    return np.random.default_rng(2).standard_normal((N, T, I)).astype(dtype)


def parts_of(state):
    return state if isinstance(state, tuple) else (state,)


def assert_same(a, b):
    for one, other in zip(parts_of(a), parts_of(b), strict=True):
        np.testing.assert_array_equal(one, other)


@kinds
@pytest.mark.parametrize("num_layers", [1, 3])
@pytest.mark.parametrize("depth", [{"input_depth": 2}, {"output_depth": 2}, DEEP], ids=str)
def test_streams_have_the_bits_of_whole_calls(kind, num_layers, depth, dtype):
    layer = layer_of(kind, {**depth, "num_layers": num_layers, "learn_initial_state": True}, 5, 17, dtype)
    x = series(dtype=dtype)
    y, state = layer(x)
    stream = layer.stream(3)
    assert isinstance(stream, rc.Stream)
    np.testing.assert_array_equal(np.stack([stream.step(x[:, t]) for t in range(9)], axis=1), y)
    assert_same(stream.state, state)
    stream.reset()
    np.testing.assert_array_equal(stream.process(x[:, :4]), y[:, :4])
    middle = stream.fork()
    np.testing.assert_array_equal(stream.process(x[:, 4:]), y[:, 4:])
    for give in (
        lambda other: setattr(other, "state", middle.state),
        lambda other: other.from_bytes(middle.to_bytes()),
        lambda other: [other.set_row_state(row, middle.row_state(row)) for row in range(3)],
    ):
        other = layer.stream(3)
        give(other)
        np.testing.assert_array_equal(other.process(x[:, 4:]), y[:, 4:])
        assert_same(other.state, state)
    alone = layer.stream()
    np.testing.assert_array_equal(alone.process(x[1]), y[1])
    assert_same(alone.state, tuple(part[:, 1] for part in parts_of(state)))


def test_rows_that_come_and_go():
    layer, x = rc.LSTM(5, 7, 2, **DEEP, rng=0), series()
    y, _ = layer(x)
    stream = layer.stream(2)
    stream.process(x[:2, :4])
    assert stream.attach(stream.row_state(1)) == 2
    stream.detach(0)  # the copy of the second row takes its place
    again = stream.process(x[[1, 1], 4:])
    np.testing.assert_array_equal(again, y[[1, 1], 4:])
    before = stream.state
    with pytest.raises(ValueError, match=r"^state: expected shape \(2, 2, 7\), got \(1, 2, 7\)"):
        stream.state = tuple(part[:1] for part in before)
    assert_same(stream.state, before)
    resets = np.zeros((2, 9), bool)
    resets[0, 3] = True
    stream.reset()
    np.testing.assert_array_equal(stream.process(x[:2], reset_mask=resets), layer(x[:2], reset_mask=resets)[0])


def test_streams_of_models_and_that_learn():
    embedding, layer = rc.Embedding(7, 5, rng=0), rc.GRU(5, 7, 2, **DEEP, rng=1)
    model = rc.Sequential(embedding, layer, rc.LSTM(7, 3, output_depth=2, rng=2), rc.Linear(3, 1, rng=3))
    tokens = np.random.default_rng(0).integers(0, 7, (2, 12))
    stream = model.stream(2, loss=rc.MSE(), optimizer=rc.SGD(0.1), window=4)
    np.testing.assert_array_equal(stream.process(tokens), model(tokens))
    _, of_gru, (h, _), _ = stream.state
    assert of_gru.shape == (2, 2, 7)
    assert h.shape == (1, 2, 3)
    losses = [stream.learn(tokens[:, t % 12], np.ones((2, 1))).loss for t in range(60)]
    assert losses[-1] < 0.1 * losses[0]
    stream.reset()
    np.testing.assert_array_equal(stream.process(tokens), model(tokens))


def test_stacks_that_skip_are_streamed_in_python():
    layer, x = layer_of(rc.LSTM, {**DEEP, "num_layers": 2, "skip": True}, 5, 17, np.float32), series()
    for model in (layer, rc.Sequential(layer, rc.Linear(17, 2, rng=0))):
        stream = model.stream(3)
        assert isinstance(stream, rc.PythonStream)
        np.testing.assert_array_equal(stream.process(x), model.run(x)[0])
        with pytest.raises(TypeError, match=r"^model: expected compiled layers, to learn as they stream"):
            model.stream(loss=rc.MSE(), optimizer=rc.SGD(0.1))
    assert type(rc.LSTM(5, 5, **DEEP, skip=True).stream()) is rc.Stream
    with pytest.raises(ValueError, match=r"^model: expected layers of one direction"):
        rc.GRU(5, 7, **DEEP, bidirectional=True).stream()


@pytest.mark.parametrize(
    ("options", "delay"),
    [
        ({"look_back": 2, "num_layers": 2, "skip": True}, 0),
        ({**BOTH, "look_ahead": 2, "num_layers": 2, "learn_initial_state": True}, 4),
        ({**BOTH, "look_ahead": 1, "look_back": 1, "merge": "mean", "num_layers": 3, "skip": True}, 3),
    ],
    ids=str,
)
def test_delayed_streams(options, delay):
    layer, x = layer_of(rc.LSTM, {**DEEP, **options}, 5, 17, np.float32), series()
    expected, _ = layer(x)
    stream = layer.stream(3)
    assert stream.delay == delay
    y = np.concatenate([stream.process(x[:, :4]), stream.process(x[:, 4:]), stream.flush()], axis=1)
    np.testing.assert_array_equal(y, expected)
