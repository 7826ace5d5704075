"""Layers beside the recurrent ones, and models made of them: the contract suite, shapes, errors; and torch's layers."""

import copy
import pickle

import numpy as np
import pytest

import rnncore as rc
from rnncore.testing import check_layer

F64 = np.float64


def linear(*sizes, **options):
    return rc.Linear(*sizes, dtype=F64, rng=3, **options)


def gru(*sizes, **options):
    return rc.GRU(*sizes, dtype=F64, rng=4, **options)


def embedding(*sizes, **options):
    return rc.Embedding(*sizes, dtype=F64, rng=5, **options)


def layer_norm(size):
    layer = rc.LayerNorm(size, dtype=F64)
    layer.flat_parameters += np.random.default_rng(6).uniform(-0.3, 0.3, 2 * size)
    return layer


# Name, layer, shape of x or None for tokens, and whether it can be cut in time.
LAYERS = [
    ("linear", linear(4, 3), 4, True),
    ("linear without bias", linear(4, 3, bias=False), 4, True),
    *((f"linear, {name}", linear(4, 3, activation=name), 4, True) for name in ("tanh", "sigmoid", "relu")),
    ("embedding", embedding(6, 3), None, True),
    ("dropout of nothing", rc.Dropout(0.0), 4, True),
    ("layer norm", layer_norm(4), 4, True),
    *((name, rc.Activation(name), 4, True) for name in ("tanh", "sigmoid", "relu")),
    ("last", rc.Last(), 4, False),
    ("mean", rc.MeanPool(), 4, False),
    ("sequential", rc.Sequential(gru(4, 5), linear(5, 3)), 4, True),
    ("tokens", rc.Sequential(embedding(6, 3), gru(3, 4, num_layers=2), linear(4, 6)), None, True),
    (
        "two-way lstm",
        rc.Sequential(rc.LSTM(4, 3, bidirectional=True, dtype=F64, rng=1), layer_norm(6), rc.MeanPool(), linear(6, 2)),
        4,
        False,
    ),
    ("residual", rc.Residual(rc.Sequential(layer_norm(4), gru(4, 4))), 4, True),
    ("concat", rc.Concat(gru(4, 3), linear(4, 2), rc.Activation("tanh")), 4, True),
    ("nested", rc.Sequential(rc.Residual(gru(4, 4)), rc.Concat(gru(4, 2), rc.Sequential(linear(4, 3)))), 4, True),
]


@pytest.mark.parametrize("lengths", [None, [5, 0, 3]], ids=["dense", "ragged"])
@pytest.mark.parametrize(("layer", "size", "causal"), [case[1:] for case in LAYERS], ids=[case[0] for case in LAYERS])
def test_contract(layer, size, causal, lengths, rng):
    x = rng.integers(0, 6, (3, 5)) if size is None else rng.standard_normal((3, 5, size))
    check_layer(layer, x, lengths=lengths, causal=causal)


def test_contract_of_a_layer_used_twice(rng):
    shared = gru(4, 4)
    model = rc.Sequential(shared, rc.Activation("tanh"), shared)
    assert list(model.parameters) == [f"0.{name}" for name in shared.parameters]
    assert np.shares_memory(shared.flat_parameters, model.flat_parameters)
    check_layer(model, rng.standard_normal((2, 4, 4)))
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert twin.layers[0] is twin.layers[2]


def test_padding_tokens_are_not_trained():
    layer = embedding(6, 3, padding_index=2)
    (y, _), pull_back = layer.vjp([[2, 1, 1, 4]])
    assert not y[0, 0].any()
    dx, _ = pull_back(np.ones_like(y))
    assert dx is None
    assert layer.gradients["weight"].tolist() == [[0] * 3, [2] * 3, [0] * 3, [0] * 3, [1] * 3, [0] * 3]


def test_repeat(rng):
    layer = rc.Repeat(4)
    x = rng.standard_normal((2, 3))
    (y, state), pull_back = layer.vjp(x)
    assert state is None
    assert np.array_equal(y, np.stack([x] * 4, axis=1))
    dy = rng.standard_normal(y.shape)
    assert np.allclose(pull_back(dy)[0], dy.sum(axis=1), rtol=1e-14)
    with pytest.raises(ValueError, match=r"x: expected \(N, C\), got \(2, 3, 4\)"):
        layer(np.zeros((2, 3, 4)))


def test_the_flat_vectors_are_the_layers_own(rng):
    first, second = gru(3, 4), linear(4, 2)
    values = np.concatenate([first.flat_parameters, second.flat_parameters])
    model = rc.Sequential(first, rc.Dropout(0.2, rng=0), second)
    assert np.array_equal(model.flat_parameters, values)
    assert list(model.parameters)[-2:] == ["2.weight", "2.bias"]
    model.flat_parameters[...] = 1
    assert (first.parameters["weight_hh_l0"] == 1).all()
    first.parameters["weight_hh_l0"] = np.full((12, 4), 2.0)
    assert (model.parameters["0.weight_hh_l0"] == 2).all()
    (y, _), pull_back = model.vjp(rng.standard_normal((2, 3, 3)))
    pull_back(y)
    assert np.array_equal(model.flat_gradients[-10:], second.flat_gradients)
    assert second.flat_gradients.any()
    model.zero_gradients()
    assert not first.flat_gradients.any()


def test_copies_of_a_model_are_apart(rng):
    model = rc.Sequential(gru(3, 4), rc.Dropout(0.5, rng=0), linear(4, 2))
    x = rng.standard_normal((2, 3, 3))
    for twin in (copy.copy(model), copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert repr(twin) == repr(model)
        assert np.shares_memory(twin.layers[0].flat_parameters, twin.flat_parameters)
        before = model(x)
        assert np.array_equal(twin(x), before)
        twin.flat_parameters[...] = 0
        assert np.array_equal(model(x), before)
        assert not twin(x).any()


def test_a_state_carries_a_model_on(rng):
    model = rc.Sequential(rc.LSTM(3, 4, rng=0), rc.Activation("tanh"), rc.GRU(4, 2, rng=0))
    x = rng.standard_normal((2, 7, 3), dtype=np.float32)
    y, state = model.run(x)
    assert [np.shape(part) for part in state[0]] == [(1, 2, 4)] * 2
    assert state[1] is None
    y_1, carried = model.run(x[:, :3])
    y_2, _ = model.run(x[:, 3:], carried)
    assert np.array_equal(np.concatenate([y_1, y_2], axis=1), y)
    assert np.array_equal(model(x), y)


def test_dropout_is_for_training(rng):
    layer = rc.Dropout(0.25, rng=0)
    x = np.ones((20, 30, 40), dtype=np.float32)
    assert np.array_equal(layer(x), x)
    assert not np.shares_memory(layer(x), x)
    (y, _), pull_back = layer.vjp(x)
    assert y.dtype == np.float32
    assert set(np.unique(y)) == {np.float32(0), np.float32(1 / 0.75)}
    assert abs((y == 0).mean() - 0.25) < 0.01
    assert np.array_equal(pull_back(x)[0], y)
    lengths = rng.integers(0, 31, 20)
    (y, _), _ = layer.vjp(x, None, lengths)
    assert not any(y[n, length:].any() for n, length in enumerate(lengths))


def test_summary_and_repr():
    model = rc.Sequential(
        rc.Embedding(97, 32), rc.LSTM(32, 128, dropout=0.1), rc.Last(), rc.Linear(128, 97, bias=False)
    )
    assert repr(model) == (
        "Sequential(Embedding(97, 32), LSTM(32, 128, dropout=0.1), Last(), Linear(128, 97, bias=False))"
    )
    assert repr(eval(repr(model), vars(rc))) == repr(model)
    lines = model.summary().splitlines()
    assert [line.split()[-1] for line in lines[1:]] == ["3,104", "82,944", "0", "12,416", "98,464"]
    assert "(N, T, 128)" in lines[2]
    assert "(N, 97)" in lines[4]
    assert "(8, 50, 32)" in model.summary((8, 50))


def test_layers_that_do_not_fit_are_both_named():
    with pytest.raises(ValueError, match=r"layer 1, Linear\(64, 10\), takes 64 .* layer 0, LSTM\(32, 128\), gives 128"):
        rc.Sequential(rc.LSTM(32, 128), rc.Linear(64, 10))
    with pytest.raises(ValueError, match=r"layer 2, Linear.*layer 1, Dropout.*gives 128"):
        rc.Sequential(rc.LSTM(32, 128), rc.Dropout(), rc.Linear(64, 10))
    with pytest.raises(ValueError, match=r"takes 3.*takes 4"):
        rc.Concat(rc.GRU(3, 2), rc.GRU(4, 2))
    with pytest.raises(ValueError, match="as many outputs as inputs"):
        rc.Residual(rc.GRU(3, 2))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: rc.Sequential(), ValueError, "layers: expected at least one"),
        (lambda: rc.Sequential(rc.GRU(2, 2), 7), TypeError, "layers: expected layers, got int at index 1"),
        (lambda: rc.Sequential(rc.GRU(2, 2), rc.Linear(2, 2, dtype=F64)), TypeError, "one dtype.*float32.*float64"),
        (lambda: rc.Sequential(rc.GRU(2, 2, batch_first=False)), ValueError, "layer 0.*batch_first=True"),
        (lambda: rc.Linear(0, 3), ValueError, "input_size: expected a positive integer, got 0"),
        (lambda: rc.Linear(3, 3, activation="gelu"), ValueError, "activation: expected None, 'tanh'.*got 'gelu'"),
        (lambda: rc.Activation("gelu"), ValueError, "function: expected 'tanh'.*got 'gelu'"),
        (lambda: rc.Dropout(1.5), ValueError, "probability: .* got 1.5"),
        (lambda: rc.LayerNorm(4, eps=0.0), ValueError, "eps: expected a positive number, got 0"),
        (lambda: rc.Embedding(5, 2, padding_index=5), ValueError, "padding_index: expected less than 5, got 5"),
        (lambda: rc.Embedding(5, 2)([[0, 5]]), ValueError, r"x: expected tokens from 0 to 4, got 5 at \(0, 1\)"),
        (lambda: rc.Embedding(5, 2)([[0.0]]), TypeError, "x: expected integers.*got float64"),
        (lambda: rc.Linear(3, 2)(np.zeros((2, 4))), ValueError, r"\(2, 4\)"),
        (lambda: rc.LayerNorm(3)(np.zeros((2, 4))), ValueError, r"x: expected real numbers \(..., 3\), got float64"),
        (lambda: rc.Last()(np.zeros((2, 4))), ValueError, r"x: expected \(N, T, C\), got \(2, 4\)"),
        (lambda: rc.Last()(np.zeros((2, 4, 1)), lengths=[1]), ValueError, r"lengths: expected integers \(2,\)"),
        (lambda: rc.Last()(np.zeros((2, 4, 1)), lengths=[1, 5]), ValueError, "lengths: .* 0 to T = 4, got 5 at row 1"),
        (lambda: rc.Last().run(np.zeros((2, 4, 1)), state=1), ValueError, r"state: expected None, since Last\(\)"),
        (lambda: rc.Last().vjp(np.zeros((2, 4, 1)))[1](np.zeros(3)), ValueError, r"dy: expected shape \(2, 1\)"),
        (lambda: rc.Residual(rc.Dropout()).run(np.zeros((1, 1, 1)), ()), ValueError, "state: expected a tuple of 1"),
        (
            lambda: rc.GRU(3, 4).parameters.__setitem__("bias_ih_l0", 0.0),
            ValueError,
            r"bias_ih_l0: expected shape \(12,\), got \(\)",
        ),
    ],
)
def test_errors(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_a_layer_is_in_one_model():
    layer = rc.GRU(2, 2)
    rc.Sequential(layer)
    with pytest.raises(ValueError, match=r"layer 0, GRU\(2, 2\), is part of another model"):
        rc.Sequential(layer)
    rc.Sequential(copy.deepcopy(layer))


class TestTorch:
    """Outputs and gradients of a model in torch, in float64."""

    @pytest.mark.parametrize("ragged", [False, True], ids=["dense", "ragged"])
    def test_model(self, ragged, rng):
        torch = pytest.importorskip("torch")
        model = rc.Sequential(
            embedding(9, 4, padding_index=0), gru(4, 5), layer_norm(5), rc.Activation("sigmoid"), linear(5, 3)
        )
        theirs = torch.nn.ModuleList(
            [
                torch.nn.Embedding(9, 4, padding_idx=0),
                torch.nn.GRU(4, 5, batch_first=True),
                torch.nn.LayerNorm(5),
                torch.nn.Sigmoid(),
                torch.nn.Linear(5, 3),
            ]
        ).double()
        theirs.load_state_dict({name: torch.tensor(value.copy()) for name, value in model.parameters.items()})
        x = rng.integers(0, 9, (3, 6))
        lengths = np.array([6, 2, 4]) if ragged else None
        (y, _), pull_back = model.vjp(x, None, lengths)
        valid = np.ones((3, 6), bool) if lengths is None else np.arange(6) < lengths[:, None]
        hidden = theirs[1](theirs[0](torch.tensor(x)))[0]
        ty = theirs[4](theirs[3](theirs[2](hidden))) * torch.tensor(valid)[..., None]
        np.testing.assert_allclose(y, ty.detach().numpy(), atol=1e-13)
        dy = rng.standard_normal(y.shape)
        pull_back(dy)
        ty.backward(torch.tensor(dy))
        for name, parameter in theirs.named_parameters():
            np.testing.assert_allclose(model.gradients[name], parameter.grad.numpy(), atol=1e-12, err_msg=name)
