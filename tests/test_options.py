"""Cells and options against the float64 oracle, each alone and options in 200 combinations; what masks do."""

import itertools

import numpy as np
import pytest

import rnncore as rc
from cases import ISAS, largest, worst_error
from layer_agreement import assert_agrees
from option_cases import BATCHES, FORMS, HIDDEN, RESETS, SINGLE, STATES, STEPS, Call, Combination, layer_of, options_id
from stacks import parts_of, sizes_of, states_of

singles = pytest.mark.parametrize("case", SINGLE, ids=options_id)
COMBINATIONS = range(200)


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
