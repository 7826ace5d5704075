"""Layers: the contract suite, parameters, copies; and torch's layers, where torch can be imported."""

import copy
import pickle

import numpy as np
import pytest

import rnncore as rc
from cases import worst_error
from rnncore.testing import check_layer

LAYERS = {
    "rnn": lambda **options: rc.RNN(5, 9, rng=1, **options),
    "rnn_relu": lambda **options: rc.RNN(5, 9, nonlinearity="relu", rng=1, **options),
    "lstm": lambda **options: rc.LSTM(5, 9, rng=1, **options),
    "gru": lambda **options: rc.GRU(5, 9, rng=1, **options),
}
OPTIONS = [
    {},
    {"num_layers": 3},
    {"bidirectional": True},
    {"num_layers": 2, "bidirectional": True, "batch_first": False},
    {"bias": False},
]


@pytest.fixture(params=LAYERS)
def make(request):
    return LAYERS[request.param]


def options_id(options):
    return ",".join(f"{k}={v}" for k, v in options.items()) or "plain"


def random_state(layer, rng, batch, dtype=np.float64):
    shape = (layer.num_layers * (1 + layer.bidirectional), *batch, layer.hidden_size)
    parts = tuple(rng.standard_normal(shape).astype(dtype) for _ in range(2 if isinstance(layer, rc.LSTM) else 1))
    return parts if isinstance(layer, rc.LSTM) else parts[0]


@pytest.mark.parametrize("options", OPTIONS, ids=options_id)
@pytest.mark.parametrize("ragged", [False, True])
def test_contract(make, options, dtype, ragged, rng):
    layer = make(dtype=dtype, **options)
    N, T = 4, 6
    x = rng.standard_normal((N, T, 5) if layer.batch_first else (T, N, 5)).astype(dtype)
    kinked = isinstance(layer, rc.RNN) and layer.nonlinearity == "relu" and dtype == np.float32
    check_layer(
        layer,
        x,
        state=random_state(layer, rng, (N,), dtype),
        lengths=[6, 2, 0, 5] if ragged else None,
        causal=not layer.bidirectional,
        batch_first=layer.batch_first,
        # a shorter step crosses fewer kinks of relu, at the price of more rounding
        **({"eps": 2e-4, "rtol": 3e-2, "atol": 1e-2} if kinked else {}),
    )


def test_unbatched(make, rng):
    layer = make(num_layers=2, bidirectional=True)
    x = rng.standard_normal((6, 5), dtype=np.float32)
    state = random_state(layer, rng, ())
    y, last = layer(x, state)
    batched_state = tuple(s[:, None] for s in state) if isinstance(state, tuple) else state[:, None]
    y_batched, _ = layer(x[None], batched_state)
    assert y.shape == (6, 18)
    assert np.array_equal(y, y_batched[0])
    assert np.shape(last[0] if isinstance(last, tuple) else last) == (4, 9)


def test_initialisation_is_uniform_and_reproducible(make):
    layer, again = make(), make()
    bound = 1 / np.sqrt(9)
    assert np.array_equal(layer.flat_parameters, again.flat_parameters)
    assert np.abs(layer.flat_parameters).max() <= bound
    assert np.abs(layer.flat_parameters).max() > 0.9 * bound
    assert abs(layer.flat_parameters.mean()) < 0.1 * bound
    generator = np.random.default_rng(0)
    first, second = rc.GRU(3, 4, rng=generator), rc.GRU(3, 4, rng=generator)
    assert not np.array_equal(first.flat_parameters, second.flat_parameters)


def test_load_parameters_is_all_or_nothing(make, rng):
    layer = make(num_layers=2)
    before = layer.flat_parameters.copy()
    good = {name: rng.standard_normal(p.shape) for name, p in layer.parameters.items()}
    for wrong, message in (
        ({k: v for k, v in good.items() if k != "bias_hh_l1"}, r"missing \['bias_hh_l1'\]"),
        ({**good, "weight_hr_l0": 1.0}, r"unknown \['weight_hr_l0'\]"),
        ({**good, "bias_ih_l1": np.zeros(1)}, r"parameters\['bias_ih_l1'\]: expected real numbers"),
        ({**good, "bias_ih_l1": good["bias_ih_l1"] * 1j}, r"parameters\['bias_ih_l1'\]"),
    ):
        with pytest.raises(ValueError, match=message):
            layer.load_parameters(wrong)
        assert np.array_equal(layer.flat_parameters, before)
    layer.load_parameters(good)
    for name, value in good.items():
        assert np.array_equal(layer.parameters[name], value.astype(np.float32))


def test_copies_own_their_parameters(make, rng):
    layer = make(num_layers=2, dropout=0.3)
    x = rng.standard_normal((2, 4, 5), dtype=np.float32)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert repr(twin) == repr(layer)
        assert np.array_equal(twin(x)[0], layer(x)[0])
        assert np.array_equal(twin.vjp(x)[0][0], copy.deepcopy(layer).vjp(x)[0][0])  # the same dropout
        twin.parameters["weight_hh_l1"][...] = 0
        assert not np.array_equal(twin(x)[0], layer(x)[0])


def test_repr_reads_like_the_constructor(make):
    assert eval(repr(rc.LSTM(3, 4)), {"LSTM": rc.LSTM}).hidden_size == 4
    text = repr(rc.RNN(3, 4, num_layers=2, dropout=0.5, nonlinearity="relu", dtype=np.float64))
    assert text == "RNN(3, 4, num_layers=2, dropout=0.5, nonlinearity='relu', dtype='float64')"


def test_dropout(make, rng):
    x = rng.standard_normal((64, 3, 5), dtype=np.float32)
    layer = make(num_layers=2, dropout=0.5)
    plain = make(num_layers=2)
    plain.load_parameters(layer.parameters)
    assert np.array_equal(layer(x)[0], plain(x)[0])  # none in inference
    (y, _), pull_back = layer.vjp(x)
    assert not np.array_equal(y, plain(x)[0])
    assert pull_back(y)[0].shape == x.shape
    everything = make(num_layers=2, dropout=1.0)
    everything.load_parameters(layer.parameters)
    (y, _), pull_back = everything.vjp(x)
    assert not pull_back(np.ones_like(y))[0].any()  # the second layer sees zeros
    assert np.array_equal(make(dropout=0.5)(x)[0], make(dropout=0.5).vjp(x)[0][0])  # one layer: nothing between layers


def test_dropout_gradient_by_finite_differences(rng):
    layer = rc.LSTM(3, 6, num_layers=2, dropout=0.4, dtype=np.float64, rng=0)
    x, direction = rng.standard_normal((2, 2, 5, 3))
    twin = pickle.dumps(layer)  # each evaluation draws the same masks

    def loss(value):
        (y, _), _ = pickle.loads(twin).vjp(value)
        return float((y**2).sum())

    (y, _), pull_back = pickle.loads(twin).vjp(x)
    dx, _ = pull_back(2 * y)
    eps = 1e-6
    expected = (loss(x + eps * direction) - loss(x - eps * direction)) / (2 * eps)
    assert abs(expected - float((dx * direction).sum())) <= 1e-7 * abs(expected)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "word"),
    [
        ((0, 4), {}, ValueError, "input_size"),
        ((3, -1), {}, ValueError, "hidden_size"),
        ((3, 4.5), {}, ValueError, "hidden_size"),
        ((3, 4), {"num_layers": 0}, ValueError, "num_layers"),
        ((3, 4), {"dropout": 1.5}, ValueError, "dropout"),
        ((3, 4), {"dtype": np.int32}, TypeError, "dtype"),
    ],
)
def test_wrong_constructor_arguments_are_refused(arguments, options, error, word):
    with pytest.raises(error, match=f"^{word}: expected"):
        rc.GRU(*arguments, **options)


def test_wrong_calls_are_refused(make, rng):
    layer = make(num_layers=2)
    x = np.zeros((2, 4, 5))
    with pytest.raises(ValueError, match=r"^x: expected \(N, T, 5\) or \(T, 5\), got \(2, 4, 3\)"):
        layer(x[..., :3])
    wrong = np.zeros((1, 2, 9))
    with pytest.raises(ValueError, match=r"^state: expected shape \(2, 2, 9\), got \(1, 2, 9\)"):
        layer(x, (wrong, wrong) if isinstance(layer, rc.LSTM) else wrong)
    if isinstance(layer, rc.LSTM):
        with pytest.raises(TypeError, match=r"^state: expected None or a tuple \(h, c\)"):
            layer(x, np.zeros((2, 2, 9)))
    (y, _), pull_back = layer.vjp(x)
    with pytest.raises(ValueError, match=r"^dy: expected shape"):
        pull_back(y[:, :-1])


class TestAgainstTorch:
    """Outputs and all gradients of torch.nn's layers, in float64."""

    @pytest.mark.parametrize("ragged", [False, True])
    @pytest.mark.parametrize("bidirectional", [False, True])
    @pytest.mark.parametrize("num_layers", [1, 2, 3])
    @pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU"])
    def test_layers(self, name, num_layers, bidirectional, ragged, isa, rng):
        torch = pytest.importorskip("torch")
        from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

        I, H, N, T = 6, 17, 4, 9
        theirs = getattr(torch.nn, name)(
            I, H, num_layers, batch_first=True, bidirectional=bidirectional, dtype=torch.float64
        )
        ours = getattr(rc, name)(I, H, num_layers, bidirectional=bidirectional, dtype=np.float64)
        assert list(ours.parameters) == list(theirs.state_dict())
        ours.load_parameters(theirs.state_dict())
        lengths = [9, 1, 4, 7] if ragged else None
        x = rng.standard_normal((N, T, I))
        state = random_state(ours, rng, (N,))

        tensors = [torch.tensor(s, requires_grad=True) for s in (state if name == "LSTM" else (state,))]
        tx = torch.tensor(x, requires_grad=True)
        sequence = tx
        if ragged:
            sequence = pack_padded_sequence(tx, torch.tensor(lengths), batch_first=True, enforce_sorted=False)
        ty, tstate = theirs(sequence, tuple(tensors) if name == "LSTM" else tensors[0])
        if ragged:
            ty, _ = pad_packed_sequence(ty, batch_first=True, total_length=T)
        tstates = tstate if name == "LSTM" else (tstate,)

        (y, last), pull_back = ours.vjp(x, state, lengths)
        states = last if name == "LSTM" else (last,)
        assert y.shape == ty.shape
        assert worst_error(y, ty.detach().numpy()) < 1e-13
        for got, expected in zip(states, tstates, strict=True):
            assert worst_error(got, expected.detach().numpy()) < 1e-13

        dy = rng.standard_normal(y.shape)
        dstate = random_state(ours, rng, (N,))
        dstates = dstate if name == "LSTM" else (dstate,)
        torch.autograd.backward([ty, *tstates], [torch.tensor(d) for d in (dy, *dstates)])
        dx, dstate_0 = pull_back(dy, dstate)
        assert worst_error(dx, tx.grad.numpy()) < 1e-11
        for got, tensor in zip(dstate_0 if name == "LSTM" else (dstate_0,), tensors, strict=True):
            assert worst_error(got, tensor.grad.numpy()) < 1e-11
        for parameter, tensor in theirs.named_parameters():
            assert worst_error(ours.gradients[parameter], tensor.grad.numpy()) < 1e-11
