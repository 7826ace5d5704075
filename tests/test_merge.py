"""Ways to merge the outputs of two directions: against the oracle, in all forms of a call, in stacks and in models."""

import itertools

import numpy as np
import pytest

import rnncore as rc
from layer_agreement import assert_agrees
from option_cases import FORMS, RESETS, STATES, Call, layer_of
from rnncore.testing import check_layer

MERGES = ["sum", "mean", "multiply"]
merges = pytest.mark.parametrize("merge", MERGES)
LAYERS = [
    (rc.RNN, {}),
    (rc.LSTM, {}),
    (rc.GRU, {"dropout": 0.3}),
    (rc.MGU, {"skip": True}),
    (rc.SLSTM, {"learn_initial_state": True}),
    (rc.IndRNN, {"bias": False}),
    (rc.SRU, {"input_dropout": 0.3}),
    (rc.LRU, {}),
    (rc.LSTM, {"proj_size": 5, "peephole": True, "zoneout": 0.3, "skip": True}),
    (rc.GRU, {"recurrent_dropout": 0.3, "layer_norm": True, "learn_initial_state": True}),
]
CASES = list(itertools.product(LAYERS, MERGES))


@pytest.mark.parametrize(("layer", "merge"), CASES, ids=lambda value: value if isinstance(value, str) else str(value))
def test_agrees_with_the_oracle(layer, merge, dtype):
    turn, (kind, options) = CASES.index((layer, merge)), layer
    H, form = [7, 16, 17, 33][turn % 4], FORMS[turn % len(FORMS)]
    shape = {"num_layers": 1 + turn % 3, "bidirectional": True, "batch_first": not form.startswith("time")}
    made = layer_of(kind, {**options, **shape, "merge": merge}, 5, H, dtype)
    call = Call(made, ([0, 1, 5, 9][turn % 4], 3), form, STATES[turn % 3], RESETS[turn % 5], seed=turn)
    assert_agrees(made, call)


@merges
@pytest.mark.parametrize(("N", "T"), [(1, 1), (0, 4), (2, 0)])
def test_sizes(merge, N, T):
    layer = rc.GRU(3, 1, 2, bidirectional=True, merge=merge, rng=0)
    (y, state), pull_back = layer.vjp(np.ones((N, T, 3)))
    assert y.shape == (N, T, 1)
    assert state.shape == (4, N, 1)
    assert pull_back(np.ones_like(y))[0].shape == (N, T, 3)


def test_shapes_of_parameters():
    layer = rc.LSTM(3, 8, 2, bidirectional=True, merge="sum", proj_size=5, rng=0)
    assert layer.output_size == 5
    assert layer.parameters["weight_ih_l1_reverse"].shape == (32, 5)
    assert rc.LRU(3, 8, bidirectional=True, merge="mean").output_size == 16
    assert layer.config() == {
        "input_size": 3, "hidden_size": 8, "num_layers": 2, "bidirectional": True, "merge": "sum", "proj_size": 5,
    }  # fmt: skip
    assert repr(rc.GRU(3, 8, bidirectional=True)) == "GRU(3, 8, bidirectional=True)"


@merges
def test_one_layer_is_made_of_its_directions(merge, threads):
    plain = rc.LSTM(5, 17, bidirectional=True, rng=0)
    layer = rc.LSTM(5, 17, bidirectional=True, merge=merge, rng=0)
    x = np.random.default_rng(0).standard_normal((3, 9, 5), dtype=np.float32)
    y, state = plain(x, lengths=[9, 0, 4])
    a, b = np.split(y, 2, axis=-1)
    expected = {"sum": a + b, "mean": (a + b) / 2, "multiply": a * b}[merge]
    frozen = layer.frozen()
    for count in (1, 3):
        threads(count)
        for got, final in (layer(x, lengths=[9, 0, 4]), frozen(x, lengths=[9, 0, 4])):
            np.testing.assert_array_equal(got, expected)
            np.testing.assert_array_equal(final, state)


@merges
@pytest.mark.parametrize("kind", [rc.RNN, rc.LSTM, rc.SRU])
def test_promises_of_layers(kind, merge, tmp_path):
    layer = kind(3, 4, 2, bidirectional=True, merge=merge, skip=True, dtype="float64", rng=0)
    layer.flat_parameters[...] = np.random.default_rng(3).uniform(0.2, 0.9, layer.flat_parameters.shape)
    x = np.random.default_rng(1).standard_normal((3, 5, 3))
    check_layer(layer, x, lengths=[5, 0, 2], causal=False)
    layer.save(tmp_path / "layer.safetensors")
    again = rc.load(tmp_path / "layer.safetensors")
    assert again.merge == merge
    np.testing.assert_array_equal(again(x)[0], layer(x)[0])


@merges
def test_behind_an_embedding(merge):
    """Tokens are looked up by the core in the first layer; bits are those of vectors."""
    embedding = rc.Embedding(7, 3, rng=0)
    layer = rc.GRU(3, 4, 2, bidirectional=True, merge=merge, rng=1)
    tokens = np.random.default_rng(2).integers(0, 7, (3, 50))
    expected, _ = layer(embedding(tokens))
    (y, _), pull = layer.vjp(embedding(tokens))
    dvectors, _ = pull(np.ones_like(y))
    model = rc.Sequential(embedding, layer)
    np.testing.assert_array_equal(model(tokens), expected)
    model.zero_gradients()
    (y, _), pull_back = model.vjp(tokens)
    pull_back(np.ones_like(y))
    by_token = np.zeros((7, 3), np.float64)
    np.add.at(by_token, tokens, dvectors)
    np.testing.assert_allclose(model.gradients["0.weight"], by_token, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"merge": "sum"}, "^merge: expected 'concat' unless the layer is bidirectional, got 'sum'"),
        ({"merge": "ave", "bidirectional": True}, "^merge: expected one of 'concat', .*, got 'ave'"),
        ({"merge": None, "bidirectional": True}, "^merge: expected one of 'concat', .*, got None"),
        ({"merge": "sum", "bidirectional": True, "models": 2}, "^models: expected None for a layer with options"),
    ],
)
def test_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        rc.GRU(3, 4, **options)
