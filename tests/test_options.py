"""Cells and options against the float64 oracle, each alone and options in 200 combinations; what masks do."""

import itertools

import numpy as np
import pytest

import rnncore as rc
from cases import ISAS, largest, worst_error
from option_cases import BATCHES, FORMS, HIDDEN, RESETS, SINGLE, STATES, STEPS, Call, Combination, layer_of, options_id
from rnncore.ragged import Joined
from stacks import draw, parts_of, run, sizes_of, states_of

singles = pytest.mark.parametrize("case", SINGLE, ids=options_id)
COMBINATIONS = range(200)


def bounds(layer):
    """Of outputs and gradients, those of the project. Layer norm multiplies what goes into it, and its rounding, by one
    over a standard deviation, which of few units, or of a cell state near its start, may be far below 1."""
    widened = 10 if getattr(layer, "layer_norm", False) else 1
    output, gradient = (1e-13, 1e-11) if layer.dtype == np.float64 else (2e-6, 2e-5)
    return output * widened, gradient * widened


def is_random(layer):
    probabilities = (
        layer.dropout,
        layer.input_dropout,
        layer.recurrent_dropout,
        *np.ravel(getattr(layer, "zoneout", 0.0)),
    )
    return any(p > 0 for p in probabilities[1:]) or (layer.dropout > 0 and layer.num_layers > 1)


def assert_agrees(layer, call):
    """Inference, training and its gradients, of a layer called so, against the oracle."""
    output_bound, gradient_bound = bounds(layer)
    names = states_of(layer)
    x, state, _, _, reset_state = arguments = call.arguments()
    of_oracle = call.x, call.states, call.lengths, call.reset_mask, call.starts

    def check_outputs(got, expected, expected_final):
        y, final = got
        y, final = call.padded(y), parts_of(final, len(names))
        scale = max(1.0, largest(expected, *expected_final))
        assert y.dtype == layer.dtype
        assert worst_error(y, expected, scale) <= output_bound, "y"
        for name, a, b in zip(names, final, expected_final, strict=True):
            assert a.dtype == layer.dtype
            assert worst_error(a.reshape(b.shape), b, scale) <= output_bound, f"{name}_n"

    inference = layer(*arguments)
    check_outputs(inference, *run(layer, *of_oracle)[:2])

    masks = draw(layer, Joined.of("x", x) if isinstance(x, list) else x)
    output, pull_back = layer.vjp(*arguments)
    expected, expected_final, expected_pull_back = run(layer, *of_oracle, masks)
    check_outputs(output, expected, expected_final)
    if not is_random(layer):
        assert np.array_equal(call.padded(output[0]), call.padded(inference[0]))
        for a, b in zip(parts_of(output[1], len(names)), parts_of(inference[1], len(names)), strict=True):
            assert np.array_equal(a, b)

    rng = np.random.default_rng(1)
    dy = call.numbers(rng, expected.shape)
    dfinal = tuple(call.numbers(rng, part.shape) for part in expected_final)
    if call.seed % 5 == 1:  # gradients of outputs that a loss does not use
        dy = None
    elif call.seed % 5 == 2:
        dfinal = (None, *dfinal[1:])
    layer.zero_gradients()
    given_dfinal = call.as_state(dfinal)
    dx, *dstates = pull_back(None if dy is None else call.series(dy), given_dfinal)
    assert len(dstates) == (1 if reset_state is None else 2)
    gradients = expected_pull_back(dy, *dfinal)
    got = {"x": call.padded(dx), **layer.gradients}
    for when, given, of_states in zip(("0", "reset"), (state, reset_state), dstates, strict=False):
        for name, a, b in zip(names, parts_of(given, len(names)), parts_of(of_states, len(names)), strict=True):
            if a is not None:
                assert a.shape == b.shape
                got[f"{name}_{when}"] = b
    assert got.keys() >= gradients.keys()
    scale = max(1.0, largest(*gradients.values()))
    for name, expected in gradients.items():
        assert got[name].dtype == layer.dtype
        assert worst_error(got[name].reshape(expected.shape), expected, scale) <= gradient_bound, f"gradient of {name}"


# ------------------------------------------------------------------------------------------------- against the oracle


@singles
def test_an_option_alone(case, dtype, isa):
    turn = SINGLE.index(case)
    kind, options = case
    H = HIDDEN[1:][turn % 5]
    for form, layers, bidirectional in (("ragged", 2, True), (FORMS[turn % len(FORMS)], 1, False)):
        shape = {"num_layers": layers, "bidirectional": bidirectional, "batch_first": not form.startswith("time")}
        layer = layer_of(kind, {**options, **shape}, 5, H, dtype)
        assert_agrees(layer, Call(layer, (6, 4), form, STATES[turn % 3], RESETS[(turn + layers) % 5], seed=turn))


@pytest.mark.parametrize("H", [1, 5, 17])
def test_sru_skips_its_input_where_sizes_agree(H, dtype, isa):
    layer = layer_of(rc.SRU, {"num_layers": 3}, H, H, dtype)
    assert layer.parameters["weight_ih_l0"].shape == (3 * H, H)
    assert_agrees(layer, Call(layer, (6, 4), "ragged"))


@pytest.mark.slow
@singles
def test_an_option_alone_in_every_shape(case, dtype, isa):
    turns = itertools.cycle(itertools.product(STATES, FORMS, RESETS))
    for H, N, T in itertools.product(HIDDEN, BATCHES, STEPS):
        state, form, resets = next(turns)
        layer = layer_of(*case[:1], {**case[1], "batch_first": not form.startswith("time")}, 3, H, dtype)
        assert_agrees(layer, Call(layer, (T, N), form, state, resets, seed=T))


@pytest.mark.parametrize("number", COMBINATIONS)
def test_a_combination(number):
    """Instruction sets and types take turns."""
    combination = Combination(number)
    try:
        rc.use_isa(ISAS[number % len(ISAS)])
        layer = combination.layer([np.float32, np.float64][number // len(ISAS) % 2])
        assert_agrees(layer, combination.call(layer))
    finally:
        rc.use_isa(ISAS[0])


@pytest.mark.slow
@pytest.mark.parametrize("number", COMBINATIONS)
def test_a_combination_everywhere(number, dtype, isa):
    layer = Combination(number).layer(dtype)
    assert_agrees(layer, Combination(number).call(layer))


# --------------------------------------------------------------------------------------------------- what masks do

KINDS = pytest.mark.parametrize("kind", [rc.RNN, rc.LSTM, rc.GRU])


def random_state(layer, rng, N):
    parts = tuple(rng.standard_normal((len(layer._weights), N, size)).astype(layer.dtype) for size in sizes_of(layer))
    return parts if isinstance(layer, rc.LSTM) else parts[0]


@KINDS
def test_zoneout_of_everything_keeps_the_state(kind, dtype, isa, rng):
    layer = layer_of(kind, {"zoneout": 1.0, "bidirectional": True}, 3, 17, dtype)
    x, state = rng.standard_normal((4, 6, 3)), random_state(layer, rng, 4)
    for y, last in (layer(x, state, [6, 2, 0, 5]), layer.vjp(x, state, [6, 2, 0, 5])[0]):
        h = parts_of(state, len(states_of(layer)))[0]
        for n, length in enumerate([6, 2, 0, 5]):
            assert np.array_equal(y[n, :length], np.tile(np.concatenate(list(h[:, n])), (length, 1)))
        for a, b in zip(parts_of(last, 2), parts_of(state, 2), strict=True) if kind is rc.LSTM else ((last, state),):
            assert np.array_equal(a, b)
    (_, _), pull_back = layer.vjp(x, state)
    dx, dstate = pull_back(None, state)
    assert not dx.any()
    assert not layer.flat_gradients.any()
    for a, b in zip(parts_of(dstate, 2), parts_of(state, 2), strict=True) if kind is rc.LSTM else ((dstate, state),):
        assert np.array_equal(a, b)


@KINDS
def test_nothing_is_drawn_for_a_probability_of_zero(kind, rng):
    x = rng.standard_normal((2, 5, 3))
    layer = kind(3, 8, zoneout=0.0, input_dropout=0.0, recurrent_dropout=0.0, dropout=0.0, num_layers=2, rng=0)
    plain = kind(3, 8, num_layers=2, rng=0)
    assert np.array_equal(layer.vjp(x)[0][0], plain(x)[0])
    assert layer.rng.random() == plain.rng.random()
    if kind is rc.LSTM:
        only_c, only_h = (rc.LSTM(3, 8, zoneout=p, rng=0) for p in ((0.0, 1.0), (1.0, 0.0)))
        state = random_state(only_c, rng, 2)
        assert np.array_equal(only_c.vjp(x, state)[0][1][1], state[1])
        assert not np.array_equal(only_c.vjp(x, state)[0][1][0], state[0])
        assert np.array_equal(only_h.vjp(x, state)[0][1][0], state[0])
        assert not np.array_equal(only_h.vjp(x, state)[0][1][1], state[1])


NEUTRAL = [
    (rc.RNN, {"gate_clip": 1e30}),
    (rc.RNN, {"nonlinearity": ("scaled_tanh", 1.0, 1.0)}),
    (rc.LSTM, {"cell_clip": 1e30}),
    (rc.LSTM, {"gate_clip": 1e30}),
    (rc.LSTM, {"recurrent_activation": "sigmoid", "activation": ("scaled_tanh",), "cell_clip": 1e30}),
    (rc.GRU, {"gate_clip": 1e30}),
]


@pytest.mark.parametrize("case", NEUTRAL, ids=options_id)
def test_options_that_change_nothing_leave_the_plain_cell(case, dtype, isa, rng):
    kind, options = case
    layer, plain = kind(5, 17, **options, dtype=dtype, rng=0), kind(5, 17, dtype=dtype, rng=0)
    assert list(layer.parameters) == list(plain.parameters)
    x = rng.standard_normal((3, 9, 5)).astype(dtype)
    results = []
    for each in (layer, plain):
        (y, _), pull_back = each.vjp(x)
        results.append((y, pull_back(y)[0], each.flat_gradients))
    for a, b in zip(*results, strict=True):
        assert worst_error(a, b, max(1.0, largest(b))) <= (1e-13 if dtype == np.float64 else 1e-5)


def mean_over_masks(layer, state, N):
    """The mean of many draws of one step, and of inference; with it the error that is to be expected of the mean."""
    x = np.tile(np.linspace(-1, 1, layer.input_size), (N, 1, 1))
    state = None if state is None else np.tile(state, (1, N, 1))
    y = layer.vjp(x, state)[0][0][:, 0]
    return y.mean(axis=0), layer(x, state)[0][0, 0], y.std(axis=0) / np.sqrt(N)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (rc.RNN, {"zoneout": 0.3}),
        (rc.RNN, {"zoneout": 0.3, "leak": 0.4}),
        (rc.GRU, {"zoneout": 0.7}),
        (rc.GRU, {"zoneout": 0.7, "reset_after": False}),
        # linear in what is dropped
        (rc.RNN, {"nonlinearity": "identity", "input_dropout": 0.4}),
        (rc.RNN, {"nonlinearity": "identity", "recurrent_dropout": 0.4}),
        (rc.RNN, {"nonlinearity": ("affine", 0.5, 0.2), "input_dropout": 0.2, "recurrent_dropout": 0.6}),
    ],
    ids=str,
)
def test_a_call_gives_the_mean_over_masks(kind, options, rng):
    layer = kind(5, 8, **options, dtype=np.float64, rng=0)
    mean, expected, error = mean_over_masks(layer, rng.standard_normal((1, 1, 8)), 20000)
    assert (np.abs(mean - expected) <= 5 * error + 1e-12).all()
    assert (error > 0).any()


def test_zoneout_of_both_states_gives_the_mean_over_masks(rng):
    layer = rc.LSTM(5, 8, zoneout=(0.3, 0.6), dtype=np.float64, rng=0)
    N = 20000
    x, state = np.tile(rng.standard_normal(5), (N, 1, 1)), [np.tile(rng.standard_normal(8), (1, N, 1)) for _ in "hc"]
    (_, drawn), _ = layer.vjp(x, state)
    _, expected = layer(x, state)
    for a, b, kept in zip(drawn, expected, (0.3, 0.6), strict=True):
        assert (np.abs(a[0].mean(axis=0) - b[0, 0]) <= 5 * a[0].std(axis=0) / np.sqrt(N)).all()
        assert abs((a == state[0 if kept == 0.3 else 1]).mean() - kept) < 0.01


def test_dropout_of_inputs_and_of_h_is_the_same_at_every_step(rng):
    layer = rc.RNN(6, 6, nonlinearity="identity", bias=False, input_dropout=0.5, rng=0)
    layer.load_parameters({"weight_ih_l0": np.eye(6), "weight_hh_l0": np.zeros((6, 6))})
    (y, _), pull_back = layer.vjp(np.ones((40, 5, 6)))
    assert set(np.unique(y)) == {0.0, 2.0}
    assert (y == y[:, :1]).all()
    assert np.array_equal(pull_back(np.ones_like(y))[0], y)
    layer = rc.RNN(6, 6, nonlinearity="identity", bias=False, recurrent_dropout=0.5, rng=0)
    layer.load_parameters({"weight_ih_l0": np.zeros((6, 6)), "weight_hh_l0": np.eye(6)})
    (y, _), pull_back = layer.vjp(np.ones((40, 5, 6)), np.ones((1, 40, 6)))
    assert set(np.unique(y[:, 0])) == {0.0, 2.0}
    assert np.array_equal(y, y[:, :1] ** np.arange(1, 6)[:, np.newaxis])
