"""Limited context: against an oracle that reads every step in a window of its own, and what a step must not see."""

import itertools

import numpy as np
import pytest

import rnncore as rc
from layer_agreement import assert_agrees
from option_cases import FORMS, RESETS, STATES, Call, layer_of
from rnncore import context
from rnncore.testing import check_layer

LAYERS = [
    (rc.RNN, {}),
    (rc.LSTM, {}),
    (rc.GRU, {}),
    (rc.MGU, {}),
    (rc.SLSTM, {}),
    (rc.IndRNN, {}),
    (rc.MinGRU, {"dropout": 0.3}),
    (rc.SRU, {"skip": True}),
    (rc.QRNN, {"learn_initial_state": True}),
    (rc.LRU, {"input_dropout": 0.3}),
    (rc.LSTM, {"proj_size": 5, "peephole": True, "learn_initial_state": True}),
    (rc.LSTM, {"zoneout": (0.3, 0.2), "skip": True, "coupled_gates": True}),
    (rc.GRU, {"recurrent_dropout": 0.3, "layer_norm": True, "checkpoint_every": 2}),
    (rc.GRU, {"reset_after": False, "bias": False, "zoneout": 0.4}),
]
CONTEXTS = [
    {"look_ahead": 0},
    {"look_ahead": 2},
    {"look_ahead": 2, "chunk": 3},
    {"look_ahead": 1, "look_back": 3, "merge": "sum"},
    {"look_back": 0},
    {"look_back": 2},
    {"look_back": 4, "chunk": 2},
    {"look_back": 1, "chunk": 3, "bidirectional": True, "merge": "multiply"},
    {"look_ahead": 1, "look_back": 1, "chunk": 2},
    {"look_ahead": 4, "chunk": 100},
]
CASES = [(layer, CONTEXTS[(i + j) % len(CONTEXTS)]) for i, layer in enumerate(LAYERS) for j in (0, 3, 6, 9)]


def named(value):
    return value if isinstance(value, str) else str(value)


def with_directions(options):
    return {"bidirectional": "look_ahead" in options, **options}


@pytest.mark.parametrize(("layer", "limits"), CASES, ids=named)
def test_agrees_with_the_oracle(layer, limits, dtype):
    turn, (kind, options) = CASES.index((layer, limits)), layer
    H, form = [7, 16, 17, 33, 1][turn % 5], FORMS[turn % len(FORMS)]
    shape = {"num_layers": 1 + turn % 2, "batch_first": not form.startswith("time")}
    made = layer_of(kind, {**options, **with_directions(limits), **shape}, 5, H, dtype)
    assert_agrees(made, Call(made, ([7, 1, 9, 0][turn % 4], 3), form, STATES[turn % 3], RESETS[turn % 5], seed=turn))


@pytest.mark.slow
@pytest.mark.parametrize("limits", CONTEXTS[1::2], ids=named)
@pytest.mark.parametrize(("kind", "options"), LAYERS, ids=named)
def test_agrees_with_the_oracle_in_every_form(kind, options, limits, dtype):
    turns = itertools.cycle(itertools.product(STATES, RESETS, [1, 2], [1, 7, 16, 33]))
    for seed, form in enumerate(FORMS):
        state, resets, layers, H = next(turns)
        shape = {"num_layers": layers, "batch_first": not form.startswith("time")}
        made = layer_of(kind, {**options, **with_directions(limits), **shape}, 3, H, dtype)
        assert_agrees(made, Call(made, (8, 3), form, state, resets, seed=seed))


@pytest.mark.parametrize("limits", CONTEXTS[::2], ids=named)
@pytest.mark.parametrize(("kind", "H"), [(rc.RNN, 17), (rc.LSTM, 33), (rc.GRU, 16)])
def test_cells_agree_on_all_instruction_sets(kind, H, limits, isa):
    layer = layer_of(kind, with_directions(limits), 3, H, np.float64)
    assert_agrees(layer, Call(layer, (12, 4), "ragged", seed=H))


# ------------------------------------------------------------------------------------------------------- what is seen


def series(T=11, N=4, I=5, seed=1):
    return np.random.default_rng(seed).standard_normal((N, T, I), dtype=np.float32)


LENGTHS = np.array([11, 0, 5, 8])


@pytest.mark.parametrize("kind", [rc.RNN, rc.LSTM, rc.GRU, rc.SLSTM, rc.SRU])
@pytest.mark.parametrize("chunk", [1, 4, 50])
def test_a_context_of_all_steps_is_the_full_layer(kind, chunk):
    x = series()
    for k in (10, 11, 1000, 2**60):
        for options in ({"look_ahead": k}, {"look_back": k}, {"look_ahead": k, "look_back": k}):
            full = kind(5, 17, 2, bidirectional=True, rng=0)
            layer = kind(5, 17, 2, bidirectional=True, chunk=chunk, rng=0, **options)
            for got, expected in ((layer(x, None, LENGTHS), full(x, None, LENGTHS)),
                                  (layer.vjp(x, None, LENGTHS)[0], full.vjp(x, None, LENGTHS)[0])):  # fmt: skip
                np.testing.assert_array_equal(got[0], expected[0])
                for a, b in zip(layer._parts(got[1]), full._parts(expected[1]), strict=True):
                    np.testing.assert_array_equal(a, b)


def seen(layer, x):
    """Which steps of y differ in a bit if a step of x does: (T of x, T of y)."""
    y = layer(x)[0]
    found = []
    for t in range(x.shape[1]):
        other = x.copy()
        other[:, t] += 1
        found.append((layer(other)[0] != y).any(axis=(0, 2)))
    return np.array(found)


@pytest.mark.parametrize(("ahead", "back", "chunk"), [(0, 0, 1), (2, None, 1), (0, 3, 1), (3, 1, 1), (2, 2, 4)])
@pytest.mark.parametrize("layers", [1, 2])
def test_a_step_sees_its_window_and_no_more(ahead, back, chunk, layers):
    x, T = series(T=17), 17
    options = {"look_ahead": ahead, "look_back": back, "chunk": chunk}
    layer = rc.GRU(5, 8, layers, bidirectional=True, rng=0, **options)
    expected = np.zeros((T, T), bool)
    for t in range(T):  # one direction sees what is before the step, the other what is after it
        begin, end = t // chunk * chunk, (t // chunk + 1) * chunk
        first = 0 if back is None else max(0, begin - back)
        expected[first : end + ahead, t] = True
    expected = np.linalg.matrix_power(expected.astype(int), layers) > 0
    np.testing.assert_array_equal(seen(layer, x), expected)


def test_a_step_sees_the_steps_before_it_alone_with_no_look_ahead_and_one_direction():
    layer = rc.LSTM(5, 8, look_back=2, rng=0)
    T = 9
    steps = np.arange(T)
    distance = steps - steps[:, np.newaxis]  # from a step of x to one of y
    np.testing.assert_array_equal(seen(layer, series(T=T)), (distance >= 0) & (distance <= 2))


def test_windows_begin_with_the_initial_state_and_the_final_state_is_of_the_last():
    layer = rc.GRU(5, 8, bidirectional=True, look_ahead=2, dtype="float64", rng=0)
    x = series().astype(np.float64)
    h_0 = np.random.default_rng(2).standard_normal((2, 4, 8))
    y, h_n = layer(x, h_0)
    weights = [layer.parameters[name + "_l0_reverse"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    for t in (0, 5, 10):
        expected, last = rc.functional.gru(x[:, t : t + 3], *weights, h_0[1], reverse=True)
        np.testing.assert_array_equal(y[:, t, 8:], expected[:, 0])
        if t == 0:
            np.testing.assert_array_equal(h_n[1], last)
    np.testing.assert_array_equal(h_n[0], y[:, -1, :8])


# ---------------------------------------------------------------------------------------------------- bits and groups


@pytest.mark.parametrize("limits", [{"look_ahead": 3}, {"look_ahead": 2, "chunk": 4}, {"look_back": 5}], ids=named)
def test_bits_are_those_of_a_row_alone_whatever_threads_and_groups(limits, threads, monkeypatch):
    layer = rc.LSTM(5, 33, 2, rng=0, **with_directions(limits))
    x = series()
    y, state = layer(x, None, LENGTHS)
    frozen = layer.frozen()
    assert not y[1].any()
    for most, count in itertools.product((1, 7, 40), (1, 3)):
        monkeypatch.setattr(context, "MOST_ROWS", most)
        threads(count)
        for got, final in (frozen(x, None, LENGTHS), layer.vjp(x, None, LENGTHS)[0]):
            np.testing.assert_array_equal(got, y)
            np.testing.assert_array_equal(final, state)
    for n, length in enumerate(LENGTHS):
        alone, final = layer(x[n, :length])
        np.testing.assert_array_equal(alone, y[n, :length])
        np.testing.assert_array_equal(np.stack(final), np.stack(state)[:, :, n])
    packed = rc.Packed.from_padded(x, LENGTHS)
    np.testing.assert_array_equal(layer(packed)[0].to_padded()[0], y)


@pytest.mark.parametrize("limits", [{"look_ahead": 7}, {"look_back": 2, "chunk": 3}], ids=named)
def test_gradients_have_the_same_bits_on_any_threads_and_again(limits, threads):
    """With far more steps in windows than in the series, and without."""
    layer = rc.LSTM(5, 33, 2, rng=0, **with_directions(limits))
    x = series(T=40)
    results = []
    for count in (1, 3):
        threads(count)
        (y, state), pull_back = layer.vjp(x)
        for _ in range(2):
            layer.zero_gradients()
            dx, dstate = pull_back(y, state)
            results.append([layer.flat_gradients.copy(), dx, *dstate])
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_padding_is_not_read():
    x = series()
    layer = rc.GRU(5, 8, bidirectional=True, look_ahead=3, rng=0)
    y = layer(x, None, LENGTHS)[0]
    x[np.arange(11) >= LENGTHS[:, np.newaxis]] = np.nan
    np.testing.assert_array_equal(layer(x, None, LENGTHS)[0], y)
    (_, _), pull_back = layer.vjp(x, None, LENGTHS)
    dx, _ = pull_back(np.ones_like(y))
    assert np.isfinite(dx).all()
    assert np.isfinite(layer.flat_gradients).all()


@pytest.mark.parametrize(("N", "T"), [(0, 4), (2, 0), (1, 1), (0, 0)])
def test_empty_batches(N, T):
    layer = rc.GRU(3, 1, 2, bidirectional=True, look_ahead=2, look_back=1, rng=0)
    h_0 = np.ones((4, N, 1))
    assert layer(np.ones((N, T, 3)), h_0)[0].shape == (N, T, 2)
    (y, h_n), pull_back = layer.vjp(np.ones((N, T, 3)), h_0)
    dx, dh_0 = pull_back(np.ones_like(y), np.ones_like(h_n))
    assert (y.shape, h_n.shape, dx.shape, dh_0.shape) == ((N, T, 2), (4, N, 1), (N, T, 3), (4, N, 1))
    if T == 0:
        assert (h_n == 1).all()
        assert (dh_0 == 1).all()


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (rc.GRU, {"look_ahead": 2}),
        (rc.LSTM, {"look_ahead": 1, "look_back": 2, "merge": "mean", "num_layers": 2}),
        (rc.RNN, {"look_back": 1, "chunk": 2}),
        (rc.SRU, {"look_ahead": 1, "chunk": 3, "learn_initial_state": True}),
    ],
    ids=named,
)
def test_promises_of_layers(kind, options, tmp_path):
    layer = kind(3, 4, dtype="float64", rng=0, **with_directions(options))
    layer.flat_parameters[...] = np.random.default_rng(3).uniform(0.2, 0.9, layer.flat_parameters.shape)
    x = np.random.default_rng(1).standard_normal((3, 6, 3))
    check_layer(layer, x, lengths=[6, 0, 2], causal=False)
    layer.save(tmp_path / "layer.safetensors")
    again = rc.load(tmp_path / "layer.safetensors")
    assert again.config() == layer.config()
    np.testing.assert_array_equal(again(x)[0], layer(x)[0])


def test_in_a_model_behind_an_embedding():
    embedding, layer = rc.Embedding(7, 3, rng=0), rc.GRU(3, 4, bidirectional=True, look_ahead=2, rng=1)
    tokens = np.random.default_rng(2).integers(0, 7, (3, 50))
    expected, _ = layer(embedding(tokens))
    model = rc.Sequential(embedding, layer, rc.Linear(8, 2, rng=2))
    np.testing.assert_array_equal(model(tokens), model.layers[2](expected))
    (y, _), pull_back = model.vjp(tokens)
    pull_back(np.ones_like(y))
    assert model.gradients["0.weight"].any()


# ------------------------------------------------------------------------------------------------------------ refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"look_ahead": 2}, "^look_ahead: expected None unless the layer is bidirectional, got 2"),
        ({"look_ahead": -1, "bidirectional": True}, "^look_ahead: expected an integer from 0, got -1"),
        ({"look_ahead": 1.5, "bidirectional": True}, "^look_ahead: expected an integer from 0, got 1.5"),
        ({"look_back": True}, "^look_back: expected an integer from 0, got True"),
        ({"look_back": 1, "chunk": 0}, "^chunk: expected a positive integer, got 0"),
        ({"chunk": 2}, "^chunk: expected 1 unless there is a look_ahead or a look_back, got 2"),
        ({"look_back": 1, "models": 2}, "^models: expected None for a layer with options"),
    ],
)
def test_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        rc.GRU(3, 4, **options)
