"""Initialisation: bounds and bits, what is touched and what is not, models of several layers, errors."""

import copy

import numpy as np
import pytest

import rnncore as rc
from rnncore import init

LAYERS = {
    "rnn": lambda **options: rc.RNN(5, 9, **options),
    "lstm": lambda **options: rc.LSTM(5, 9, **options),
    "gru": lambda **options: rc.GRU(5, 9, **options),
}
GATES = {"rnn": 1, "lstm": 4, "gru": 3}
RANDOM = [init.uniform, init.glorot, init.orthogonal]


class Model:
    """Two recurrent layers and a linear one, named as a model of layers names them."""

    def __init__(self, dtype=np.float32):
        self.layers = rc.LSTM(3, 4, dtype=dtype, rng=1), rc.RNN(4, 6, dtype=dtype, rng=2)
        linear = {"2.weight": np.full((5, 6), 9, dtype), "2.bias": np.full(5, 9, dtype)}
        named = ((i, layer.parameters.items()) for i, layer in enumerate(self.layers))
        self.parameters = {f"{i}.{name}": array for i, items in named for name, array in items} | linear


class Bare:
    def __init__(self, **parameters):
        self.parameters = parameters


def copies(layer):
    return {name: array.copy() for name, array in layer.parameters.items()}


def changed(layer, before):
    return {name for name, array in layer.parameters.items() if not np.array_equal(array, before[name])}


@pytest.fixture(params=LAYERS)
def name(request):
    return request.param


@pytest.mark.parametrize("function", RANDOM)
def test_a_seed_means_bits(name, function):
    options = {"num_layers": 2, "bidirectional": True}
    one, two, wide = LAYERS[name](**options), LAYERS[name](**options), LAYERS[name](**options, dtype=np.float64)
    for layer in (one, two, wide):
        layer.flat_parameters.fill(0.5)
    function(one, 7)
    function(two, np.random.default_rng(7))
    function(wide, np.int64(7))
    assert np.array_equal(one.flat_parameters, two.flat_parameters)
    assert np.array_equal(one.flat_parameters, wide.flat_parameters.astype(np.float32))
    function(two, 8)
    assert not np.array_equal(one.flat_parameters, two.flat_parameters)


def test_stored_values():
    layer = rc.GRU(2, 3, dtype=np.float64)
    init.uniform(layer, 5)
    np.testing.assert_allclose(layer.parameters["weight_ih_l0"][0], UNIFORM, rtol=1e-12)
    init.glorot(layer, 5)
    np.testing.assert_allclose(layer.parameters["weight_ih_l0"][0], GLOROT, rtol=1e-12)
    init.orthogonal(layer, 5)
    np.testing.assert_allclose(layer.parameters["weight_hh_l0"][0], ORTHOGONAL, rtol=1e-10)


UNIFORM = [0.3521870402560363, 0.3555793956976613]
GLOROT = [0.6682279257614911, 0.6746644676585318]
ORTHOGONAL = [-0.7559716855415088, 0.1834403985228726, -0.6283760266347689]


def assert_uniform(array, bound):
    assert np.abs(array).max() <= bound
    if array.size > 20:
        assert np.abs(array).max() > 0.8 * bound
        assert abs(array.mean()) < 4 * bound / np.sqrt(3 * array.size)  # so many standard deviations


def test_uniform_is_that_of_the_constructor(name):
    layer, again = LAYERS[name](rng=3, num_layers=2), LAYERS[name](num_layers=2)
    init.uniform(again, 3)
    assert np.array_equal(layer.flat_parameters, again.flat_parameters)


def test_uniform_goes_by_the_layer():
    model = Model()
    init.uniform(model, 0)
    for parameter, array in model.parameters.items():
        assert_uniform(array, {"0": 4, "1": 6, "2": 6}[parameter[0]] ** -0.5)


def test_glorot(name):
    layer = LAYERS[name](num_layers=2)
    init.glorot(layer, 0)
    for parameter, array in layer.parameters.items():
        if parameter.startswith("bias"):
            assert not array.any()
        else:
            for gate in array.reshape(GATES[name], 9, -1):
                assert_uniform(gate, np.sqrt(6 / (9 + gate.shape[1])))


def test_glorot_of_a_model_and_without_recurrent_weights():
    model = Model()
    before = copies(model)
    init.glorot(model, 0, recurrent=False)
    assert set(before) - changed(model, before) == {"0.weight_hh_l0", "1.weight_hh_l0"}
    assert_uniform(model.parameters["2.weight"], np.sqrt(6 / 11))
    assert not model.parameters["2.bias"].any()


@pytest.mark.parametrize("gain", [1.0, 0.5])
def test_orthogonal(name, gain, dtype):
    layer = LAYERS[name](num_layers=2, bidirectional=True, dtype=dtype)
    before = copies(layer)
    init.orthogonal(layer, 0, gain)
    assert changed(layer, before) == {parameter for parameter in before if parameter.startswith("weight_hh")}
    blocks = [b for p in changed(layer, before) for b in layer.parameters[p].reshape(-1, 9, 9).astype(np.float64)]
    assert len(blocks) == 4 * GATES[name]
    for block in blocks:
        np.testing.assert_allclose(block @ block.T, gain**2 * np.eye(9), atol=20 * np.finfo(dtype).eps)
    assert not np.allclose(blocks[0], blocks[1])


def test_orthogonal_has_signs_of_both_kinds():
    """Without the correction of signs, LAPACK's Q would be of one half of all orthogonal matrices only."""
    layer = rc.RNN(1, 1)
    signs = set()
    for seed in range(20):
        init.orthogonal(layer, seed)
        signs.add(float(layer.parameters["weight_hh_l0"][0, 0]))
    assert signs == {-1.0, 1.0}


def test_forget_bias():
    layer = rc.LSTM(3, 4, num_layers=2, bidirectional=True)
    before = copies(layer)
    init.forget_bias(layer, 1.5)
    for parameter, array in layer.parameters.items():
        if parameter.startswith("bias"):
            assert np.all(array[4:8] == (1.5 if parameter.startswith("bias_ih") else 0.0))
            before[parameter][4:8] = array[4:8]
    assert not changed(layer, before)


def test_identity():
    layer = rc.RNN(3, 4, num_layers=2, nonlinearity="relu")
    before = copies(layer)
    init.identity(layer, 0.5)
    for suffix in ("_l0", "_l1"):
        assert np.array_equal(layer.parameters["weight_hh" + suffix], 0.5 * np.eye(4))
        assert not layer.parameters["bias_ih" + suffix].any()
        assert not layer.parameters["bias_hh" + suffix].any()
        assert "weight_ih" + suffix not in changed(layer, before)


def test_in_a_model_only_the_layers_of_the_kind_are_touched():
    model = Model()
    before = copies(model)
    init.identity(model)
    assert changed(model, before) == {"1.weight_hh_l0", "1.bias_ih_l0", "1.bias_hh_l0"}
    before = copies(model)
    init.forget_bias(model)
    assert changed(model, before) == {"0.bias_ih_l0", "0.bias_hh_l0"}
    before = copies(model)
    init.orthogonal(model, 0)
    assert changed(model, before) == {"0.weight_hh_l0", "1.weight_hh_l0"}


@pytest.mark.parametrize("function", RANDOM)
@pytest.mark.parametrize("rng", [None, 1.5, True, "0"])
def test_rng_is_explicit(function, rng):
    with pytest.raises(TypeError, match=r"rng: expected a numpy.random.Generator or a seed, got"):
        function(rc.GRU(2, 3), rng)


@pytest.mark.parametrize(
    "call",
    [
        lambda layer: init.uniform(layer, 0),
        lambda layer: init.glorot(layer, 0),
        lambda layer: init.orthogonal(layer, 0),
        lambda layer: init.forget_bias(layer),
        lambda layer: init.identity(layer),
    ],
)
def test_what_cannot_be_initialised_stays_as_it_was(call):
    hh, bias, weight = np.full((4, 2), 3.0), np.full(4, 3.0), np.full((4, 2), 3.0)
    for layer, error, message in [
        (np.ones(3), TypeError, "layer: expected something with a mapping `parameters`, got ndarray"),
        (Bare(), ValueError, "layer: expected .*, got {}"),
        (Bare(weight_hh_l0=hh, scale=bias), ValueError, r"parameters\['scale'\]: expected names"),
        (Bare(weight_hh_l0=hh, bias_ih_l1=bias), ValueError, r"'bias_ih_l1'\]: expected 'weight_hh_l1' beside it"),
        (Bare(weight=weight, **{"1.bias": bias}), ValueError, r"'1.bias'\]: expected '1.weight' beside it"),
        (Bare(weight_hh_l0=np.full((5, 2), 3.0)), ValueError, r"expected a weight \(G\*H, H\) with it, got \(5, 2\)"),
        (Bare(weight=np.full(3, 3.0)), ValueError, r"expected a weight \(out, in\) with it, got \(3,\)"),
    ]:
        with pytest.raises(error, match=message):
            call(layer)
        for array in getattr(layer, "parameters", {}).values():
            assert np.all(array == 3.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: init.forget_bias(rc.GRU(2, 3)), r"layer: expected biases of an LSTM layer.*weight_ih_l0.*\(9, 2\)"),
        (lambda: init.forget_bias(rc.LSTM(2, 3, bias=False)), "layer: expected biases of an LSTM layer"),
        (lambda: init.identity(rc.LSTM(2, 3)), r"layer: expected an RNN layer, whose weight_hh is \(H, H\)"),
        (lambda: init.orthogonal(Bare(weight=np.ones((2, 3))), 0), "layer: expected a recurrent layer's weight_hh"),
        (lambda: init.forget_bias(rc.LSTM(2, 3), np.nan), "value: expected a finite number, got nan"),
        (lambda: init.identity(rc.RNN(2, 3), np.inf), "scale: expected a finite number, got inf"),
        (lambda: init.orthogonal(rc.RNN(2, 3), 0, np.nan), "gain: expected a finite number, got nan"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_embeddings_and_normalisations_keep_what_they_have():
    model = rc.Sequential(rc.Embedding(5, 3, rng=0), rc.LayerNorm(3), rc.Residual(rc.GRU(3, 3, rng=1)), rc.Linear(3, 2))
    before = {name: array.copy() for name, array in model.parameters.items()}
    rc.init.glorot(model, rng=0)
    same = [name for name, array in model.parameters.items() if np.array_equal(array, before[name])]
    assert same == ["0.weight", "1.weight", "1.bias"]
    rc.init.orthogonal(model, rng=0)
    block = model.parameters["2.0.weight_hh_l0"][:3]
    np.testing.assert_allclose(block @ block.T, np.eye(3), atol=1e-6)
    with pytest.raises(ValueError, match="expected parameters"):
        rc.init.glorot(rc.Embedding(5, 3), rng=0)


@pytest.mark.parametrize(
    "layer",
    [
        rc.LSTM(3, 8, proj_size=5, peephole=True, layer_norm=True, learn_initial_state=True, num_layers=2, rng=0),
        rc.LSTM(3, 8, coupled_gates=True, rng=0),
        rc.SLSTM(3, 8, rng=0),
        rc.MGU(3, 8, rng=0),
        *(kind(3, 8, rng=0) for kind in (rc.IndRNN, rc.MinGRU, rc.MinLSTM, rc.SRU, rc.QRNN, rc.LRU)),
    ],
    ids=repr,
)
def test_layers_with_options_keep_the_parameters_of_those(layer):
    layer = copy.deepcopy(layer)
    known = ("weight_ih", "bias_ih", "weight_hh", "bias_hh")
    others = {name: a.copy() for name, a in layer.parameters.items() if not name.startswith(known) or a.ndim > 2}
    others |= {name: a.copy() for name, a in layer.parameters.items() if name.startswith("weight_hh") and a.ndim == 1}
    init.uniform(layer, rng=1)
    bound = 1 / np.sqrt(layer.hidden_size)
    assert abs(layer.parameters["weight_ih_l0"]).max() <= bound
    init.glorot(layer, rng=1)
    assert not layer.parameters["bias_ih_l0"].any()
    if layer.parameters.get("weight_hh_l0", np.zeros(1)).ndim == 2:
        init.orthogonal(layer, rng=1)
        block = layer.parameters["weight_hh_l0"][: layer.hidden_size].astype(np.float64)
        assert np.allclose(block.T @ block, np.eye(block.shape[1]), atol=1e-6)
    for name, before in others.items():
        assert np.array_equal(layer.parameters[name], before), name


def test_orthogonal_covers_deep_transitions():
    layer = rc.GRU(3, 8, transition_depth=3, rng=0)
    rc.init.orthogonal(layer, rng=1)
    for name in ("weight_hh_l0", "weight_transition2_l0", "weight_transition3_l0"):
        for block in np.split(layer.parameters[name], 3):
            np.testing.assert_allclose(block @ block.T, np.eye(8), atol=1e-5)


def test_forget_bias_of_options():
    layer = rc.LSTM(3, 4, proj_size=2, rng=0)
    init.forget_bias(layer, 2.0)
    assert (layer.parameters["bias_ih_l0"][4:8] == 2).all()
    with pytest.raises(ValueError, match=r"^layer: expected biases of an LSTM layer"):
        init.forget_bias(rc.LSTM(3, 4, coupled_gates=True))
