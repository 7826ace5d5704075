"""Many networks of one shape in one call: each has the bits of a call of its own, forward, states and gradients."""

import copy
import pickle

import numpy as np
import pytest

import rnncore as rc
from cases import assert_matches_reference, random_like, worst_error
from rnncore import reference

M = 3
# Single steps of few rows (weights as they are) and of many, few inputs, ragged panels, several chunks and groups.
SHAPES = [(1, 1, 8, 16), (1, 6, 3, 7), (5, 1, 17, 33), (9, 7, 5, 17), (64, 2, 1, 16), (3, 520, 2, 5)]
ALL_LENGTHS = ["none", "shared", "own"]


def equal(got, expected):
    return all(np.array_equal(a, b) for a, b in zip(got, expected, strict=True))


def arguments_of(cell, rng, shape, dtype, x_is_shared, strided=True):
    """Arguments of M networks, weights lying as they do in an (M, P) vector; and those of each alone."""
    each = [cell.arguments(rng, shape, dtype) for _ in range(M)]
    stacked = {name: np.stack([arguments[name] for arguments in each]) for name in each[0]}
    if strided:
        for name in ("w_ih", "w_hh", "b_ih", "b_hh"):
            padded = np.full((M, stacked[name][0].size + 5), np.nan, dtype)
            part = padded[:, 2:-3]
            part[...] = stacked[name].reshape(M, -1)
            stacked[name] = part.reshape(stacked[name].shape)
            assert np.shares_memory(stacked[name], padded)
    if x_is_shared:
        stacked["x"] = each[0]["x"]
        for arguments in each:
            arguments["x"] = stacked["x"]
    return stacked, each


def lengths_of(kind, rng, N, T):
    if kind == "none":
        return None, [None] * M
    lengths = rng.integers(0, T + 1, (M, N))
    return (lengths, list(lengths)) if kind == "own" else (lengths[0], [lengths[0]] * M)


def summed(parts):
    total = parts[0].copy()
    for part in parts[1:]:
        total += part
    return total


def given(gradients):
    """Those of arguments that were given."""
    return [gradient for gradient in gradients if gradient is not None]


@pytest.mark.parametrize("lengths", ALL_LENGTHS)
@pytest.mark.parametrize("x_is_shared", [False, True], ids=["own", "shared"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_each_network_has_the_bits_of_its_own_call(cell, dtype, shape, x_is_shared, lengths, rng):
    stacked, each = arguments_of(cell, rng, shape, dtype, x_is_shared)
    of_all, of_each = lengths_of(lengths, rng, shape[1], shape[0])
    options = {"reverse": lengths == "own"}
    outputs, vjp = cell.vjp(rc.functional, stacked, lengths=of_all, **options)
    inference = cell.forward(rc.functional, stacked, lengths=of_all, **options)
    cotangents = random_like(rng, outputs)
    gradients = given(vjp(*cotangents))
    assert equal(gradients, given(vjp(*cotangents)))
    dx = []
    for m in range(M):
        alone, vjp_alone = cell.vjp(rc.functional, each[m], lengths=of_each[m], **options)
        gradients_alone = given(vjp_alone(*(c[m] for c in cotangents)))
        assert equal([a[m] for a in outputs], alone)
        assert equal([a[m] for a in inference], alone)
        assert equal([a[m] for a in gradients[1:]], gradients_alone[1:])
        dx.append(gradients_alone[0])
    assert np.array_equal(gradients[0], summed(dx) if x_is_shared else np.stack(dx))


@pytest.mark.parametrize("isa", rc.available_isas(), indirect=True)
def test_every_instruction_set(cell, isa, rng):
    stacked, each = arguments_of(cell, rng, (9, 7, 5, 17), np.float32, False)
    outputs, vjp = cell.vjp(rc.functional, stacked)
    gradients = given(vjp(*outputs))
    for m in range(M):
        alone, vjp_alone = cell.vjp(rc.functional, each[m])
        assert equal([a[m] for a in (*outputs, *gradients)], (*alone, *given(vjp_alone(*alone))))


@pytest.mark.parametrize("count", [1, 2, 3, 5, 40])
@pytest.mark.parametrize("H", [16, 200])
def test_threads_change_no_bit(cell, count, H, rng, threads):
    each = [cell.arguments(rng, (11, 7, 5, H), np.float32) for _ in range(count)]
    stacked = {name: np.stack([arguments[name] for arguments in each]) for name in each[0]}
    stacked["x"] = stacked["x"][0]
    results = []
    for n in (1, 2, 4):
        threads(n)
        outputs, vjp = cell.vjp(rc.functional, stacked)
        results.append((*outputs, *cell.forward(rc.functional, stacked), *vjp(*outputs)))
    assert equal(results[0], results[1])
    assert equal(results[0], results[2])


def test_checkpoints_change_no_bit(cell, rng):
    stacked, _ = arguments_of(cell, rng, (900, 2, 5, 7), np.float32, False)
    outputs, vjp = cell.vjp(rc.functional, stacked)
    others, vjp_checkpointed = cell.vjp(rc.functional, stacked, checkpoint_every=100)
    assert equal(outputs, others)
    assert equal(vjp(*outputs), vjp_checkpointed(*outputs))


def test_time_major(cell, rng):
    stacked, _ = arguments_of(cell, rng, (5, 4, 3, 7), np.float32, False)
    y, *last = cell.forward(rc.functional, stacked)
    turned = dict(stacked, x=np.ascontiguousarray(stacked["x"].swapaxes(1, 2)))
    y_turned, *last_turned = cell.forward(rc.functional, turned, batch_first=False)
    assert np.array_equal(y, y_turned.swapaxes(1, 2))
    assert equal(last, last_turned)


def test_against_the_oracle(cell, dtype, rng):
    """The same check that the cells have, network by network: the functions of one network alone are the oracle."""
    _, each = arguments_of(cell, rng, (7, 3, 5, 9), dtype, False)
    stacked, _ = {name: np.stack([a[name] for a in each]) for name in each[0]}, None
    outputs, vjp = cell.vjp(rc.functional, stacked)
    for m in range(M):
        assert_matches_reference(cell, each[m], dtype, rng)
        expected, expected_vjp = cell.vjp(reference, each[m])
        bound = 1e-13 if dtype == np.float64 else 2e-6
        for got, wanted in zip(outputs, expected, strict=True):
            assert worst_error(got[m], wanted, 1.0) <= bound
        for got, wanted in zip(given(vjp(*outputs)), given(expected_vjp(*(a[m] for a in outputs))), strict=True):
            assert worst_error(got[m], wanted, max(1.0, float(np.abs(wanted).max()))) <= 100 * bound


def test_arguments_are_converted(rng):
    weights = rng.standard_normal((2, 8, 3)), rng.standard_normal((2, 8, 2))
    x = rng.integers(-3, 4, (4, 5, 3))
    y, h_n, c_n = rc.functional.lstm(x.tolist(), *(w.tolist() for w in weights), lengths=np.int32([5, 1, 0, 2]))
    again = rc.functional.lstm(
        x.astype(np.float64)[::-1][::-1], *(np.asfortranarray(w) for w in weights), lengths=[5, 1, 0, 2]
    )
    assert y.shape == (2, 4, 5, 2)
    assert h_n.shape == c_n.shape == (2, 4, 2)
    assert equal((y, h_n, c_n), again)


def test_no_gradients_are_zeros(cell, rng):
    stacked, _ = arguments_of(cell, rng, (4, 2, 3, 5), np.float64, False)
    outputs, vjp = cell.vjp(rc.functional, stacked)
    zeros = [np.zeros_like(output) for output in outputs]
    assert equal(vjp(), vjp(*zeros))
    one = vjp(None, outputs[1])
    assert equal(one, vjp(zeros[0], outputs[1], *zeros[2:]))


@pytest.mark.parametrize("lengths", ALL_LENGTHS)
@pytest.mark.parametrize("x_is_shared", [False, True], ids=["own", "shared"])
@pytest.mark.parametrize("activation", [None, "tanh"])
@pytest.mark.parametrize("shape", [(1, 1, 16, 4), (5, 7, 3, 17), (64, 9, 33, 50)], ids=str)
def test_linear(dtype, shape, activation, x_is_shared, lengths, rng):
    T, N, I, O = shape
    flat = rng.standard_normal((M, O * (I + 1))).astype(dtype)
    weight, bias = flat[:, : O * I].reshape(M, O, I), flat[:, O * I :]
    x = rng.standard_normal((N, T, I) if x_is_shared else (M, N, T, I)).astype(dtype)
    of_all, of_each = lengths_of(lengths, rng, N, T)
    y, vjp = rc.functional.linear_vjp(x, weight, bias, activation=activation, lengths=of_all)
    assert np.array_equal(y, rc.functional.linear(x, weight, bias, activation=activation, lengths=of_all))
    dy = rng.standard_normal(y.shape).astype(dtype)
    gradients = vjp(dy)
    dx = []
    for m in range(M):
        alone, vjp_alone = rc.functional.linear_vjp(
            x if x_is_shared else x[m], weight[m], bias[m], activation=activation, lengths=of_each[m]
        )
        gradients_alone = vjp_alone(dy[m])
        assert np.array_equal(y[m], alone)
        assert equal([g[m] for g in gradients[1:]], gradients_alone[1:])
        dx.append(gradients_alone.x)
    assert np.array_equal(gradients.x, summed(dx) if x_is_shared else np.stack(dx))


# ----------------------------------------------------------------------------------------------------------- layers

LAYERS = {
    "rnn": lambda **options: rc.RNN(5, 9, nonlinearity="relu", **options),
    "lstm": lambda **options: rc.LSTM(5, 9, **options),
    "gru": lambda **options: rc.GRU(5, 9, **options),
}
OPTIONS = [
    {},
    {"num_layers": 3},
    {"bidirectional": True, "bias": False},
    {"num_layers": 2, "bidirectional": True, "batch_first": False},
    {"checkpoint_every": 2, "num_layers": 2},
]


@pytest.fixture(params=LAYERS)
def make(request):
    return LAYERS[request.param]


def parts(state):
    return state if isinstance(state, tuple) else (state,)


def state_of(layer, rng, M, N, dtype):
    shape = (M, layer.num_layers * (1 + layer.bidirectional), N, layer.hidden_size)
    made = tuple(rng.standard_normal(shape).astype(dtype) for _ in range(2 if isinstance(layer, rc.LSTM) else 1))
    return made if len(made) > 1 else made[0]


def network(state, m):
    return None if state is None else tuple(part[m] for part in state) if isinstance(state, tuple) else state[m]


@pytest.mark.parametrize("lengths", ALL_LENGTHS)
@pytest.mark.parametrize("x_is_shared", [False, True], ids=["own", "shared"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_layers(make, options, x_is_shared, lengths, dtype, rng):
    N, T = 4, 6
    layer, single = make(models=M, dtype=dtype, rng=0, **options), make(dtype=dtype, rng=0, **options)
    assert layer.flat_parameters.shape == (M, single.flat_parameters.size)
    assert np.array_equal(layer.flat_parameters[0], single.flat_parameters)
    shape = (N, T, 5) if layer.batch_first else (T, N, 5)
    x = rng.standard_normal(shape if x_is_shared else (M, *shape)).astype(dtype)
    state = None if lengths == "none" else state_of(layer, rng, M, N, dtype)
    of_all, of_each = lengths_of(lengths, rng, N, T)
    (y, last), pull_back = layer.vjp(x, state, of_all)
    for other, final in (layer(x, state, of_all), layer.frozen()(x, state, of_all)):
        assert np.array_equal(y, other)
        assert equal(parts(last), parts(final))
    dx, dinitial = pull_back(y, last)
    for m in range(M):
        single.flat_parameters[...] = layer.flat_parameters[m]
        single.zero_gradients()
        (y_alone, last_alone), back = single.vjp(x if x_is_shared else x[m], network(state, m), of_each[m])
        dx_alone, dinitial_alone = back(y_alone, last_alone)
        assert np.array_equal(y[m], y_alone)
        assert equal(parts(network(last, m)), parts(last_alone))
        assert np.array_equal(layer.flat_gradients[m], single.flat_gradients)
        assert equal(parts(network(dinitial, m)), parts(dinitial_alone))
        assert x_is_shared or np.array_equal(dx[m], dx_alone)
    assert dx.shape == x.shape


def make_model(models, **options):
    return rc.Sequential(
        rc.Activation("tanh"),
        rc.LSTM(5, 9, models=models, rng=0, **options),
        rc.Dropout(0.0, rng=1),
        rc.GRU(9, 4, models=models, rng=2),
        rc.Last(),
        rc.Linear(4, 2, models=models, rng=3),
        rc.Repeat(3),
        rc.Sequential(rc.Linear(2, 2, models=models, rng=4)),
    )


@pytest.mark.parametrize("lengths", ALL_LENGTHS)
@pytest.mark.parametrize("x_is_shared", [False, True], ids=["own", "shared"])
def test_models(x_is_shared, lengths, rng):
    model, single = make_model(M), make_model(None)
    x = rng.standard_normal((4, 6, 5) if x_is_shared else (M, 4, 6, 5), dtype=np.float32)
    of_all, of_each = lengths_of(lengths, rng, 4, 6)
    if x_is_shared and lengths == "own":
        with pytest.raises(ValueError, match=r"^lengths: expected integers"):
            model(x, of_all)
        return
    y = model(x, of_all)
    (recorded, state), pull_back = model.vjp(x, None, of_all)
    dx, dstate = pull_back(y)
    assert y.shape == (M, 4, 3, 2)
    assert dx.shape == x.shape
    assert np.array_equal(y, recorded)
    for m in range(M):
        single.flat_parameters[...] = model.flat_parameters[m]
        single.zero_gradients()
        (y_alone, state_alone), back = single.vjp(x if x_is_shared else x[m], None, of_each[m])
        _, dstate_alone = back(y_alone)
        assert np.array_equal(y[m], y_alone)
        assert np.array_equal(model.flat_gradients[m], single.flat_gradients)
        for index in (1, 3):
            assert equal(parts(network(state[index], m)), parts(state_alone[index]))
            assert equal(parts(network(dstate[index], m)), parts(dstate_alone[index]))


def test_a_population_steps_with_carried_states(rng):
    population = rc.Sequential(rc.RNN(3, 7, models=5, rng=0), rc.Linear(7, 2, models=5, rng=1))
    x = rng.standard_normal((5, 1, 6, 3), dtype=np.float32)
    whole, state = population(x), None
    for t in range(6):
        y, state = population.run(x[:, :, t : t + 1], state)
        assert np.array_equal(y[:, :, 0], whole[:, :, t])


def test_flat_vectors_are_views(rng):
    model = make_model(M)
    centre = rng.standard_normal(model.flat_parameters.shape[1], dtype=np.float32)
    model.flat_parameters[...] = centre + 0.1 * rng.standard_normal(model.flat_parameters.shape, dtype=np.float32)
    weight = model.parameters["1.weight_hh_l0"]
    assert weight.shape == (M, 36, 9)
    assert np.shares_memory(weight, model.flat_parameters)
    assert np.shares_memory(model.layers[1].parameters["weight_hh_l0"], model.flat_parameters)
    begin = 36 * 5
    assert np.array_equal(weight.reshape(M, -1), model.flat_parameters[:, begin : begin + 36 * 9])
    model.parameters["5.bias"] = np.ones((M, 2))
    assert (model.parameters["5.bias"] == 1).all()


def test_copies_and_files(tmp_path, rng):
    model = make_model(M, bidirectional=False)
    x = rng.standard_normal((2, 4, 5), dtype=np.float32)
    model.save(tmp_path / "model.safetensors")
    twins = [copy.deepcopy(model), pickle.loads(pickle.dumps(model)), rc.load(tmp_path / "model.safetensors")]
    other = make_model(M)
    other.load_parameters({name: array.copy() for name, array in model.parameters.items()})
    for twin in (*twins, other):
        assert repr(twin) == repr(model)
        assert np.array_equal(twin(x), model(x))
        assert twin.flat_parameters.shape == twin.flat_gradients.shape == model.flat_parameters.shape
        twin.flat_parameters[...] = 0
        assert not np.array_equal(twin(x), model(x))
    layer = model.layers[1]
    frozen = pickle.loads(pickle.dumps(layer.frozen()))
    assert repr(frozen) == "Frozen(LSTM(5, 9, models=3))"
    assert np.array_equal(frozen(x)[0], layer(x)[0])
    layer.flat_parameters[...] = 0
    assert frozen(x)[0].any()


def test_dropout_between_layers(rng):
    layer = rc.GRU(5, 9, num_layers=2, dropout=0.5, models=M, rng=0)
    x = rng.standard_normal((4, 6, 5), dtype=np.float32)
    (y, _), pull_back = layer.vjp(x)
    assert not np.array_equal(y, layer(x)[0])
    assert pull_back(y)[0].shape == x.shape


def test_initial_values(rng):
    layer, single = rc.LSTM(3, 4, models=2, rng=5), rc.LSTM(3, 4, rng=5)
    for initialise in (rc.init.uniform, rc.init.glorot, rc.init.orthogonal):
        initialise(layer, np.random.default_rng(1))
        assert not np.array_equal(layer.parameters["weight_hh_l0"][0], layer.parameters["weight_hh_l0"][1])
    rc.init.forget_bias(layer)
    rc.init.forget_bias(single)
    for name in ("bias_ih_l0", "bias_hh_l0"):
        assert (layer.parameters[name][:, 4:8] == single.parameters[name][4:8]).all()


def test_summary():
    text = make_model(M).summary()
    assert "5 Linear(4, 2, models=3)" in text
    assert text.splitlines()[-1].startswith("total, of each of 3 networks ")
    assert text.splitlines()[-1].endswith(f"{make_model(None).flat_parameters.size:,}")


@pytest.mark.parametrize("make_optimizer", [lambda: rc.SGD(0.1, momentum=0.9), lambda: rc.Adam(0.01), rc.RMSprop])
def test_an_optimiser_steps_all_networks(make_optimizer, rng):
    parameters, gradients = rng.standard_normal((2, M, 11))
    flat, optimizer, single = parameters.ravel().copy(), make_optimizer(), make_optimizer()
    for _ in range(3):
        optimizer.step(parameters, gradients)
        single.step(flat, gradients.ravel())
    assert np.array_equal(parameters.ravel(), flat)


def test_training_by_hand(rng):
    model = rc.Sequential(rc.GRU(1, 8, models=M, rng=0), rc.Linear(8, 1, models=M, rng=1))
    x = rng.standard_normal((M, 16, 5, 1), dtype=np.float32)
    target, optimizer, losses = np.cumsum(x, axis=2), rc.Adam(0.02), []
    for _ in range(60):
        (y, _), pull_back = model.vjp(x)
        model.zero_gradients()
        pull_back(2 * (y - target) / target[0].size)
        optimizer.step(model.flat_parameters, model.flat_gradients)
        losses.append(np.square(y - target).mean(axis=(1, 2, 3)))
    assert (losses[-1] < 0.3 * losses[0]).all()


# ----------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (
            {"x": np.zeros((2, 5))},
            ValueError,
            r"^x: expected \(N, T, 5\), or \(3, N, T, 5\) for each network, got \(2, 5\)",
        ),
        ({"x": np.zeros((2, 4, 6, 5))}, ValueError, r"^x: expected .* got \(2, 4, 6, 5\)"),
        ({"x": np.zeros((4, 6, 4))}, ValueError, r"^x: expected .* got \(4, 6, 4\)"),
        ({"w_hh": np.zeros((2, 36, 9))}, ValueError, r"^w_hh: expected float64 \(3, 36, 9\), got float64 \(2, 36, 9\)"),
        ({"w_hh": np.zeros((36, 9))}, ValueError, r"^w_hh: expected float64 \(M, G\*H, H\), got float64 \(36, 9\)"),
        ({"w_ih": np.zeros((3, 35, 5))}, ValueError, r"^w_ih: expected float64 \(3, 36, 5\), got"),
        ({"w_ih": np.zeros((0, 36, 5))}, ValueError, r"^w_ih: expected one network at least, got float64 \(0, 36, 5\)"),
        ({"b_ih": np.zeros(36)}, ValueError, r"^b_ih: expected float64 \(3, 36\), got float64 \(36,\)"),
        ({"w_ih": np.zeros((3, 36, 5), complex)}, TypeError, "^w_ih: expected real numbers"),
        ({"h_0": np.zeros((4, 9))}, ValueError, r"^h_0: expected shape \(3, 4, 9\), got \(4, 9\)"),
        ({"c_0": np.zeros((3, 4, 8))}, ValueError, r"^c_0: expected shape \(3, 4, 9\), got \(3, 4, 8\)"),
        ({"lengths": [6, 6]}, ValueError, r"^lengths: expected int64 \(4,\), got int64 \(2,\)"),
        ({"lengths": np.ones((2, 4), int)}, ValueError, r"^lengths: expected int64 \(3, 4\), got int64 \(2, 4\)"),
        ({"lengths": [[1, 2, 3, 7]] * 3}, ValueError, "^lengths: expected values from 0 to T = 6, got 7 at row 3"),
        ({"lengths": [0.5] * 4}, TypeError, "^lengths: expected integers"),
    ],
)
def test_wrong_arguments_are_refused(changes, error, message):
    arguments = {"x": np.zeros((4, 6, 5)), "w_ih": np.zeros((3, 36, 5)), "w_hh": np.zeros((3, 36, 9))} | changes
    for function in (rc.functional.lstm, rc.functional.lstm_vjp):
        with pytest.raises(error, match=message):
            function(**arguments)


def test_wrong_gradients_are_refused(rng):
    _, vjp = rc.functional.gru_vjp(np.zeros((4, 6, 5)), np.zeros((3, 27, 5)), np.zeros((3, 27, 9)))
    with pytest.raises(ValueError, match=r"^dy: expected float64 \(3, 4, 6, 9\), got float64 \(4, 6, 9\)"):
        vjp(np.zeros((4, 6, 9)))
    with pytest.raises(ValueError, match=r"^dh_n: expected shape \(3, 4, 9\), got \(4, 9\)"):
        vjp(None, np.zeros((4, 9)))
    with pytest.raises(TypeError, match=r"^c_0: expected None"):
        rc._core.Networks(
            rc._core.Cell.gru, [(np.zeros((3, 27, 5)), np.zeros((3, 27, 9)), None, None)], 1, True, False
        ).forward(np.zeros((4, 6, 5)), None, np.zeros((3, 1, 4, 9)), None, False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": np.zeros(5)}, r"^x: expected \(N, T, 5\), or \(3, N, T, 5\) for each network, got \(5,\)"),
        ({"weight": np.zeros((3, 0, 5))}, r"^weight: expected at least one output"),
        ({"weight": np.zeros((0, 2, 5))}, r"^weight: expected one network at least"),
        ({"bias": np.zeros(2)}, r"^bias: expected float64 \(3, 2\), got float64 \(2,\)"),
        ({"lengths": [1]}, r"^lengths: expected int64 \(4,\), got int64 \(1,\)"),
    ],
)
def test_wrong_arguments_of_linear_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        rc.functional.linear(**{"x": np.zeros((4, 6, 5)), "weight": np.zeros((3, 2, 5))} | changes)


def test_layers_that_make_no_sense_are_refused(make):
    for models in (0, -1, 2.5, True):
        with pytest.raises(ValueError, match=r"^models: expected a positive integer"):
            make(models=models)
    with pytest.raises(
        ValueError, match=r"^layers: expected the same models=M, or none, of all with parameters, got GRU"
    ):
        rc.Sequential(rc.GRU(5, 9, models=2), rc.Linear(9, 1))
    with pytest.raises(ValueError, match=r"^layers: expected the same models=M"):
        rc.Sequential(rc.Embedding(7, 5), make(models=2))
    for kind in (rc.Residual, rc.Concat):
        with pytest.raises(ValueError, match=f"^layers: expected one network in a {kind.__name__}, got models=2"):
            kind(rc.Linear(5, 5, models=2))
    layer = make(models=2)
    with pytest.raises(ValueError, match=r"^x: expected \(N, T, 5\), or \(2, N, T, 5\) for each network, got \(6, 5\)"):
        layer(np.zeros((6, 5)))
    wrong = np.zeros((1, 4, 9))
    with pytest.raises(ValueError, match=r"^state: expected shape \(2, 1, 4, 9\), got \(1, 4, 9\)"):
        layer(np.zeros((4, 6, 5)), (wrong, wrong) if isinstance(layer, rc.LSTM) else wrong)
    model = rc.Sequential(layer, rc.Last())
    with pytest.raises(ValueError, match=r"^x: expected"):
        model(np.zeros((3, 4, 6, 5)))


@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU"])
def test_torch_layers_one_by_one(name, rng):
    """torch.vmap does not reach its recurrent layers, so a loop over them is what there is to compare with."""
    torch = pytest.importorskip("torch")
    ours = getattr(rc, name)(6, 11, num_layers=2, bidirectional=True, models=M, dtype=np.float64, rng=0)
    x = rng.standard_normal((M, 4, 9, 6))
    (y, _), pull_back = ours.vjp(x)
    dy = rng.standard_normal(y.shape)
    dx, _ = pull_back(dy)
    for m in range(M):
        theirs = getattr(torch.nn, name)(6, 11, 2, batch_first=True, bidirectional=True, dtype=torch.float64)
        theirs.load_state_dict({key: torch.tensor(array[m]) for key, array in ours.parameters.items()})
        tx = torch.tensor(x[m], requires_grad=True)
        ty, _ = theirs(tx)
        ty.backward(torch.tensor(dy[m]))
        assert worst_error(y[m], ty.detach().numpy()) < 1e-13
        assert worst_error(dx[m], tx.grad.numpy()) < 1e-11
        for key, parameter in theirs.named_parameters():
            assert worst_error(ours.gradients[key][m], parameter.grad.numpy()) < 1e-11


def test_no_resets_and_no_streams(rng):
    x, w_ih, w_hh = (rng.standard_normal(shape) for shape in [(2, 5, 3), (7, 12, 3), (7, 12, 4)])
    mask = np.zeros((2, 5), bool)
    for call in (rc.functional.gru, rc.functional.gru_vjp):
        with pytest.raises(ValueError, match="reset_mask: expected None, since the weights are those of many"):
            call(x, w_ih, w_hh, reset_mask=mask)
    layer = rc.GRU(3, 4, models=7, rng=0)
    for call in (layer, layer.vjp, layer.frozen(), rc.Sequential(layer)):
        with pytest.raises(ValueError, match="reset_mask: expected None for many networks, got ndarray"):
            call(x, reset_mask=mask)
    for model in (rc.GRU(3, 4, models=7), rc.Linear(3, 4, models=7)):
        with pytest.raises(ValueError, match="model: expected one network, got"):
            model.stream()
