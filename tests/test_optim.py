"""Optimisers and clipping: torch's numbers, the same bits however vectors are cut, states, configurations, errors."""

import copy
import json
import pickle

import numpy as np
import pytest

import rnncore as rc
from rnncore import _core, optim, schedules

OPTIMIZERS = {
    "sgd": lambda rate=0.05: rc.SGD(rate),
    "sgd_decay": lambda rate=0.05: rc.SGD(rate, weight_decay=0.1),
    "momentum": lambda rate=0.01: rc.SGD(rate, momentum=0.9, weight_decay=0.1),
    "nesterov": lambda rate=0.01: rc.SGD(rate, momentum=0.8, nesterov=True, weight_decay=0.02),
    "rmsprop": lambda rate=0.01: rc.RMSprop(rate, alpha=0.9),
    "rmsprop_all": lambda rate=0.01: rc.RMSprop(rate, 0.95, 1e-6, momentum=0.9, centered=True, weight_decay=0.1),
    "adam": lambda rate=0.01: rc.Adam(rate),
    "adam_all": lambda rate=0.01: rc.Adam(rate, betas=(0.3, 0.9), eps=1e-4, weight_decay=0.1),
    "adamw": lambda rate=0.01: rc.AdamW(rate, weight_decay=0.2),
}


@pytest.fixture(params=OPTIMIZERS)
def make(request):
    return OPTIMIZERS[request.param]


def problem(n, dtype=np.float32, seed=0):
    """Parameters, and gradients that depend on them and on the step."""
    rng = np.random.default_rng(seed)
    parameters, target = rng.standard_normal((2, n)).astype(dtype)

    def gradients(p, step):
        noise = np.random.default_rng(step).standard_normal(n).astype(dtype)
        return (p - target) + noise

    return parameters, gradients


def train(optimizer, parameters, gradients, steps):
    for _ in range(steps):
        optimizer.step(parameters, gradients(parameters, optimizer.steps))


def as_torch(torch, optimizer, parameter):
    """The optimizer of the same arguments, to be given the learning rate at every step."""
    arguments = optimizer.config()
    kind = getattr(torch.optim, arguments.pop("type"))
    del arguments["learning_rate"]
    if "betas" in arguments:
        arguments["betas"] = tuple(arguments["betas"])
    return kind([parameter], lr=0.0, foreach=False, **arguments)


RATES = {
    "constant": lambda: 0.01,
    "step": lambda: schedules.Step(0.02, every=30, factor=0.5),
    "multistep": lambda: schedules.MultiStep(0.02, [50, 180], factor=0.3),
    "cosine": lambda: schedules.Cosine(0.02, steps=250, final=1e-3),
    "warm_up": lambda: schedules.WarmUp(40, schedules.Cosine(0.02, steps=200)),
    "one_cycle": lambda: schedules.OneCycle(0.03, steps=300),
    "on_plateau": lambda: schedules.OnPlateau(0.02, factor=0.5, patience=2),
}


@pytest.mark.parametrize("rate", RATES)
def test_steps_are_those_of_torch(make, dtype, rate):
    torch = pytest.importorskip("torch")
    optimizer = make(RATES[rate]())
    parameters, gradients = problem(37, dtype)
    parameter = torch.nn.Parameter(torch.from_numpy(parameters.copy()))
    peer = as_torch(torch, optimizer, parameter)
    bound = 1e-6 if dtype == np.float32 else 1e-13
    for step in range(300):
        peer.param_groups[0]["lr"] = optimizer.current_learning_rate
        g = gradients(parameters, step)
        optimizer.step(parameters, g)
        parameter.grad = torch.from_numpy(g)
        peer.step()
        if rate == "on_plateau" and step % 10 == 0:
            optimizer.learning_rate.observe(1.0)
        expected = parameter.detach().numpy()
        assert np.abs(parameters - expected).max() <= bound * np.abs(expected).max(), step


@pytest.mark.parametrize("n", [0, 1, 7, 16, 2200, 400_003])
def test_bits_depend_neither_on_threads_nor_on_place(make, dtype, n, threads, isa):
    parameters, gradients = problem(n, dtype)
    g = gradients(parameters, 0)
    threads(1)
    whole, cut, shifted = parameters.copy(), parameters.copy(), np.zeros(n + 1, dtype)[1:]
    optimizer = make()
    for _ in range(2):
        optimizer.step(whole, g)
    threads(3)
    parts = [slice(0, n // 3), slice(n // 3, n)]
    optimizers = [make() for _ in parts]
    for _ in range(2):
        for one, part in zip(optimizers, parts, strict=True):
            one.step(cut[part], g[part])
    assert np.array_equal(cut, whole)
    shifted[...], g_shifted = parameters, np.zeros(n + 3, dtype)[3:]
    g_shifted[...] = g
    optimizer = make()
    for _ in range(2):
        optimizer.step(shifted, g_shifted)
    assert np.array_equal(shifted, whole)
    assert n == 0 or not np.array_equal(whole, parameters)


def test_nothing_beyond_the_vector_is_written(make, dtype, isa):
    for n in range(34):
        around = np.full((2, n + 40), 7, dtype)
        parameters, gradients = around[:, 20 : 20 + n]
        make().step(parameters, gradients)
        assert np.all(gradients == 7)
        assert np.all(around[0, :20] == 7)
        assert np.all(around[0, 20 + n :] == 7)
        assert np.all(parameters != 7)


def test_zero_gradients_change_nothing_without_decay(dtype):
    for optimizer in (rc.SGD(0.1, momentum=0.9), rc.RMSprop(centered=True, momentum=0.5), rc.Adam(), rc.AdamW(0.0)):
        parameters = np.ones(5, dtype)
        optimizer.step(parameters, np.zeros(5, dtype))
        assert np.array_equal(parameters, np.ones(5))


def test_nan_is_not_hidden(make, isa):
    parameters, gradients = np.ones((2, 40), np.float32)
    gradients[17] = np.nan
    make().step(parameters, gradients)
    assert np.flatnonzero(np.isnan(parameters)).tolist() == [17]


def test_constant_gradients_do_not_break_centering():
    """Rounding may leave the variance below zero, where a root is not a number."""
    parameters, gradients = np.zeros(1000, np.float32), np.linspace(0.1, 3, 1000, dtype=np.float32)
    optimizer = rc.RMSprop(1e-12, alpha=0.5, eps=1.0, centered=True)
    for _ in range(200):
        optimizer.step(parameters, gradients)
    assert np.isfinite(parameters).all()


def test_the_callers_floating_point_state_comes_back(make):
    make().step(np.ones(3), np.ones(3))
    assert np.float64(5e-324) * np.float64(1.0) > 0


def test_schedules_are_asked_for_the_steps_taken():
    asked = []

    def rate(step):
        asked.append(step)
        return 0.5**step

    optimizer, parameters = rc.SGD(rate), np.zeros(1)
    for _ in range(3):
        optimizer.step(parameters, np.ones(1))
    assert asked == [0, 1, 2]
    assert parameters[0] == -1.75
    assert optimizer.steps == 3
    assert optimizer.current_learning_rate == 0.125
    optimizer.learning_rate = 2
    assert optimizer.current_learning_rate == 2.0


# ------------------------------------------------------------------------------------------------ states


def with_schedule(make):
    return make(schedules.WarmUp(3, schedules.OnPlateau(0.1, factor=0.5, patience=0)))


def observed(optimizer, parameters, gradients, steps):
    for _ in range(steps):
        train(optimizer, parameters, gradients, 1)
        optimizer.learning_rate.observe(1.0)  # each halves the rate but the first


@pytest.mark.parametrize("through", ["dict", "pickle", "deepcopy"])
def test_a_resumed_run_has_the_same_bits(make, dtype, through):
    parameters, gradients = problem(53, dtype)
    optimizer = with_schedule(make)
    observed(optimizer, parameters, gradients, 5)
    resumed_parameters = parameters.copy()
    if through == "dict":
        resumed = with_schedule(make)
        state = optimizer.state_dict()
        assert json.loads(json.dumps({k: v for k, v in state.items() if k != "moments"}))["steps"] == 5
        resumed.load_state_dict(state)
        for moment in state["moments"].values():
            moment.fill(np.nan)  # it was copied
    else:
        resumed = copy.deepcopy(optimizer) if through == "deepcopy" else pickle.loads(pickle.dumps(optimizer))
    assert resumed.current_learning_rate == optimizer.current_learning_rate < 0.1
    observed(optimizer, parameters, gradients, 5)
    observed(resumed, resumed_parameters, gradients, 5)
    assert np.array_equal(resumed_parameters, parameters)
    assert resumed.steps == optimizer.steps == 10


def test_a_state_is_a_copy(make):
    optimizer = make()
    optimizer.step(np.ones(3), np.ones(3))
    state = optimizer.state_dict()
    kept = copy.deepcopy(state)
    optimizer.step(np.ones(3), np.ones(3))
    for name, moment in state["moments"].items():
        assert np.array_equal(moment, kept["moments"][name])


def test_the_state_before_the_first_step(make):
    optimizer, used = make(), make()
    state = optimizer.state_dict()
    assert state["moments"] == {}
    used.step(np.ones(3), np.ones(3))
    used.load_state_dict(state)
    parameters, fresh = np.ones((2, 4), np.float32)  # of another size and dtype than `used` had
    used.step(parameters, parameters + 1)
    optimizer.step(fresh, fresh + 1)
    assert np.array_equal(parameters, fresh)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda s: 3, TypeError, "state: expected a mapping, got int"),
        (lambda s: {k: v for k, v in s.items() if k != "steps"}, ValueError, "state: expected the keys .*'steps'"),
        (lambda s: {**s, "more": 1}, ValueError, "state: expected the keys .* got .*'more'"),
        (lambda s: {**s, "type": "AdamW"}, ValueError, "state.*expected 'Adam', got 'AdamW'"),
        (lambda s: {**s, "steps": -1}, ValueError, "steps.*expected an integer >= 0, got -1"),
        (lambda s: {**s, "steps": 1.5}, TypeError, "steps.*expected an integer >= 0, got float"),
        (lambda s: {**s, "moments": {}}, ValueError, r"moments.*expected the keys \['exp_avg', 'exp_avg_sq'\], got"),
        (lambda s: {**s, "moments": None}, TypeError, "moments.*expected a mapping, got NoneType"),
        (lambda s: {**s, "steps": 0}, ValueError, r"moments.*expected the keys \[\], got"),
        (
            lambda s: {**s, "moments": {**s["moments"], "exp_avg": np.zeros((2, 2))}},
            ValueError,
            r"exp_avg'\]: expected float32 or float64 \(P,\), got float64 \(2, 2\)",
        ),
        (
            lambda s: {**s, "moments": {**s["moments"], "exp_avg": np.zeros(4, int)}},
            ValueError,
            r"exp_avg'\]: expected float32 or float64 \(P,\), got int64 \(4,\)",
        ),
        (
            lambda s: {**s, "moments": {**s["moments"], "exp_avg": np.zeros(9)}},
            ValueError,
            r"one dtype and size, got \['float64 \(4,\)', 'float64 \(9,\)'\]",
        ),
        (lambda s: {**s, "schedule": {}}, ValueError, "state of OnPlateau: expected the keys"),
        (
            lambda s: {**s, "schedule": {**s["schedule"], "current": np.nan}},
            ValueError,
            "current'.*expected a number finite and >= 0, got nan",
        ),
    ],
)
def test_a_bad_state_changes_nothing(change, error, message):
    optimizer = rc.Adam(schedules.OnPlateau(0.1))
    optimizer.step(np.ones(4), np.ones(4))
    optimizer.learning_rate.observe(1.0)
    before = optimizer.state_dict()
    other = copy.deepcopy(optimizer)
    other.step(np.ones(4), np.ones(4))
    with pytest.raises(error, match=message):
        optimizer.load_state_dict(change(other.state_dict()))
    after = optimizer.state_dict()
    moments, moments_before = after.pop("moments"), before.pop("moments")
    assert after == before
    assert all(np.array_equal(moments[name], moments_before[name]) for name in moments_before)


def test_a_constant_rate_has_no_use_for_the_state_of_a_schedule():
    state = rc.SGD(schedules.OnPlateau(0.1)).state_dict()
    with pytest.raises(ValueError, match=r"schedule'\]: expected the keys \[\], got \['current'"):
        rc.SGD(0.1).load_state_dict(state)


# ------------------------------------------------------------------------------- configurations and repr


@pytest.mark.parametrize("rate", RATES)
def test_configurations_come_back(make, rate):
    optimizer = make(RATES[rate]())
    config = json.loads(json.dumps(optimizer.config()))
    again = optim.from_config(config)
    assert type(again) is type(optimizer)
    assert again.config() == optimizer.config() == config
    assert repr(again) == repr(optimizer)
    parameters, gradients = problem(5)
    twin = parameters.copy()
    train(optimizer, parameters, gradients, 3)
    train(again, twin, gradients, 3)
    assert np.array_equal(parameters, twin)


@pytest.mark.parametrize(
    ("config", "error", "message"),
    [
        ([], TypeError, "config: expected a mapping, got list"),
        ({"learning_rate": 0.1}, ValueError, r"config\['type'\]: expected one of \['SGD'.*, got None"),
        ({"type": "Adagrad"}, ValueError, "got 'Adagrad'"),
        ({"type": "SGD", "learning_rate": {"type": "SGD"}}, ValueError, r"expected one of \['Constant'.*got 'SGD'"),
        ({"type": "Adam", "beta": 1}, TypeError, "beta"),
    ],
)
def test_bad_configurations(config, error, message):
    with pytest.raises(error, match=message):
        optim.from_config(config)


def test_a_function_has_no_configuration():
    with pytest.raises(TypeError, match="learning_rate: expected a number or a schedule"):
        rc.Adam(lambda step: 0.1).config()


def test_repr_reads_like_the_constructor():
    assert repr(rc.SGD(0.1)) == "SGD(0.1)"
    assert repr(rc.SGD(0.1, momentum=0.9, nesterov=True)) == "SGD(0.1, momentum=0.9, nesterov=True)"
    assert repr(rc.Adam()) == "Adam()"
    assert repr(rc.AdamW(weight_decay=0.01, betas=[0.8, 0.99])) == "AdamW(betas=(0.8, 0.99))"
    rate = schedules.WarmUp(5, schedules.Cosine(0.1, 20))
    assert repr(rc.RMSprop(rate)) == "RMSprop(learning_rate=WarmUp(5, Cosine(0.1, 20)))"


# ------------------------------------------------------------------------------------------------ errors


@pytest.mark.parametrize(
    ("construct", "error", "message"),
    [
        (lambda: rc.SGD(-0.1), ValueError, "learning_rate: expected a number finite and >= 0, got -0.1"),
        (lambda: rc.Adam(np.nan), ValueError, "learning_rate: .* got nan"),
        (lambda: rc.Adam(np.inf), ValueError, "learning_rate: .* got inf"),
        (lambda: rc.Adam("0.1"), TypeError, "learning_rate: expected a number .* got str"),
        (lambda: rc.SGD(0.1, momentum=1.0), ValueError, r"momentum: expected a number in \[0, 1\), got 1.0"),
        (lambda: rc.SGD(0.1, nesterov=True), ValueError, "nesterov: expected a momentum above 0"),
        (lambda: rc.SGD(0.1, weight_decay=-1), ValueError, "weight_decay: .* got -1"),
        (lambda: rc.RMSprop(alpha=1.0), ValueError, "alpha: .* got 1.0"),
        (lambda: rc.RMSprop(eps=0), ValueError, "eps: expected a number finite and > 0, got 0"),
        (lambda: rc.Adam(betas=(0.9, 1.0)), ValueError, r"betas\[1\]: .* got 1.0"),
        (lambda: rc.Adam(betas=(-0.1, 0.9)), ValueError, r"betas\[0\]: .* got -0.1"),
        (lambda: rc.Adam(betas=0.9), TypeError, r"betas: expected two numbers in \[0, 1\), got 0.9"),
        (lambda: rc.AdamW(betas=(0.9,)), TypeError, "betas: "),
        (lambda: rc.AdamW(weight_decay=np.nan), ValueError, "weight_decay: .* got nan"),
    ],
)
def test_bad_arguments(construct, error, message):
    with pytest.raises(error, match=message):
        construct()


def read_only(array):
    array.flags.writeable = False
    return array


def test_bad_vectors(make):
    vector = np.zeros(6, np.float32)
    pair = np.zeros(9, np.float32)
    other = np.zeros(6, np.float32)
    for parameters, gradients, error, message in [
        ([0.0] * 6, vector, TypeError, r"parameters: expected float32 or float64 \(P,\), got list"),
        (None, vector, TypeError, r"parameters: expected float32 or float64 \(P,\), got NoneType"),
        (vector.astype(int), vector, TypeError, r"parameters: expected float32 or float64 \(P,\), got int64 \(6,\)"),
        (vector.reshape(2, 3), vector, ValueError, r"parameters: .* got float32 \(2, 3\)"),
        (np.zeros(12, np.float32)[::2], vector, ValueError, "parameters: .* not C-contiguous"),
        (read_only(vector.copy()), vector, ValueError, "parameters: expected an array that can be written"),
        (vector, [0.0] * 6, TypeError, r"gradients: expected float32 \(6,\), got list"),
        (vector, np.zeros(6), TypeError, r"gradients: expected float32 \(6,\), got float64 \(6,\)"),
        (vector, np.zeros(5, np.float32), ValueError, r"gradients: expected float32 \(6,\), got float32 \(5,\)"),
        (vector, np.zeros(12, np.float32)[::2], ValueError, "gradients: .* not C-contiguous"),
        (vector, vector, ValueError, "parameters and gradients: expected memory of their own"),
        (pair[:6], pair[3:], ValueError, "parameters and gradients: expected memory of their own"),
    ]:
        optimizer = make()
        with pytest.raises(error, match=message):
            optimizer.step(parameters, gradients)
        assert optimizer.steps == 0
        assert optimizer.state_dict()["moments"] == {}
        optimizer.step(vector, other)  # as if nothing had happened
    optimizer = make()
    optimizer.step(vector, read_only(other.copy()))
    make().step(pair[:3], pair[3:6])  # side by side is fine


@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if not name.startswith("sgd")])
def test_other_vectors_than_before(name):
    optimizer = OPTIMIZERS[name]()
    optimizer.step(*np.ones((2, 6)))
    state = optimizer.state_dict()
    message = r"parameters: expected float64 \(6,\), of which this optimizer keeps moments, got float{} \({},\)"
    with pytest.raises(ValueError, match=message.format(64, 7)):
        optimizer.step(*np.ones((2, 7)))
    with pytest.raises(TypeError, match=message.format(32, 6)):
        optimizer.step(*np.ones((2, 6), np.float32))
    assert optimizer.steps == 1
    for moment, before in zip(optimizer.state_dict()["moments"].values(), state["moments"].values(), strict=True):
        assert np.array_equal(moment, before)


def test_bad_rates_of_a_schedule():
    for rate, error in ((-1.0, ValueError), (np.nan, ValueError), (None, TypeError), ("fast", TypeError)):
        optimizer, parameters = rc.Adam(lambda step, rate=rate: rate), np.ones(3)
        with pytest.raises(error, match="learning_rate: expected a number finite and >= 0"):
            optimizer.step(parameters, np.ones(3))
        assert optimizer.steps == 0
        assert np.array_equal(parameters, np.ones(3))
    with pytest.raises(ValueError, match="learning_rate: "):
        optimizer.learning_rate = -1


def test_the_core_refuses_what_would_be_unsafe():
    p, g, m, v = np.ones((4, 5))
    with pytest.raises(TypeError, match="exp_avg, exp_avg_sq: expected arrays, got None"):
        _core.adam_step(p, g, None, v, 1, 0.1, 0.9, 0.999, 1e-8, 0.0, False)
    with pytest.raises(ValueError, match="exp_avg and exp_avg_sq: expected memory of their own"):
        _core.adam_step(p, g, m, m, 1, 0.1, 0.9, 0.999, 1e-8, 0.0, False)
    with pytest.raises(ValueError, match="parameters and exp_avg_sq: expected memory of their own"):
        _core.adam_step(p, g, m, p, 1, 0.1, 0.9, 0.999, 1e-8, 0.0, False)
    with pytest.raises(ValueError, match="gradients and exp_avg: expected memory of their own"):
        _core.adam_step(p, g, g, v, 1, 0.1, 0.9, 0.999, 1e-8, 0.0, False)
    with pytest.raises(ValueError, match="momentum_buffer: expected an array that can be written"):
        _core.sgd_step(p, g, read_only(m.copy()), 0.1, 0.9, False, 0.0)
    with pytest.raises(TypeError, match="square_avg: expected an array, got None"):
        _core.rmsprop_step(p, g, None, None, None, 0.1, 0.9, 1e-8, 0.0, 0.0)


# ---------------------------------------------------------------------------------------------- clipping


@pytest.mark.parametrize("n", [0, 1, 5, 16, 63, 2200, 400_003])
def test_clip_norm(n, dtype, isa, threads, rng):
    gradients = (10 * rng.standard_normal(n)).astype(dtype)
    expected = float(np.sqrt(np.sum(np.square(gradients, dtype=np.float64))))
    threads(1)
    clipped = gradients.copy()
    norm = rc.clip_norm(clipped, 1.5)
    assert norm == pytest.approx(expected, rel=1e-14)
    if norm > 1.5:
        np.testing.assert_allclose(clipped, gradients * (1.5 / expected), rtol=4 * np.finfo(dtype).eps)
        assert rc.clip_norm(clipped, np.inf) == pytest.approx(1.5, rel=1e-6)
    threads(3)
    again = gradients.copy()
    assert rc.clip_norm(again, 1.5) == norm
    assert np.array_equal(again, clipped)
    untouched = gradients.copy()
    assert rc.clip_norm(untouched, 1.5 * norm + 1) == norm
    assert np.array_equal(untouched, gradients)


def test_clip_norm_is_that_of_torch(dtype, rng):
    torch = pytest.importorskip("torch")
    gradients = rng.standard_normal(1000).astype(dtype)
    parameter = torch.nn.Parameter(torch.zeros(1000, dtype=getattr(torch, np.dtype(dtype).name)))
    parameter.grad = torch.from_numpy(gradients.copy())
    expected = float(torch.nn.utils.clip_grad_norm_([parameter], 2.0))
    assert rc.clip_norm(gradients, 2.0) == pytest.approx(expected, rel=1e-6)
    np.testing.assert_allclose(gradients, parameter.grad.numpy(), rtol=1e-6)


def test_clip_norm_sums_in_float64():
    gradients = np.full(100_000, 1e30, np.float32)  # whose squares float32 does not have
    norm = rc.clip_norm(gradients, 1.0)
    assert norm == pytest.approx(float(np.float32(1e30)) * 1e5**0.5, rel=1e-14)
    np.testing.assert_allclose(gradients, 1e5**-0.5, rtol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_clip_norm_leaves_gradients_that_are_not_finite(bad, dtype):
    gradients = np.full(20, 3.0, dtype)
    gradients[7] = bad
    before = gradients.copy()
    assert not np.isfinite(rc.clip_norm(gradients, 1.0))
    assert np.array_equal(gradients, before, equal_nan=True)


def test_clip_value(dtype, rng):
    gradients = rng.standard_normal((3, 50)).astype(dtype)
    gradients[0, 0] = np.nan
    expected = np.where(np.abs(gradients) > 0.5, np.sign(gradients) * dtype(0.5), gradients)
    assert rc.clip_value(gradients, 0.5) is None
    assert np.array_equal(gradients, expected, equal_nan=True)


def test_bad_clipping():
    vector = np.ones(4)
    for clip, name in ((rc.clip_norm, "max_norm"), (rc.clip_value, "limit")):
        for limit in (0, -1.0, np.nan):
            with pytest.raises(ValueError, match=f"{name}: expected a number > 0, got {limit}"):
                clip(vector, limit)
        with pytest.raises(TypeError, match=f"{name}: expected a number > 0, got str"):
            clip(vector, "1")
        with pytest.raises(TypeError, match=r"gradients: expected .*, got list"):
            clip([1.0], 1)
        with pytest.raises(TypeError, match=r"gradients: expected .*, got int64"):
            clip(np.ones(3, int), 1)
        with pytest.raises(ValueError, match="gradients: expected an array that can be written"):
            clip(read_only(np.ones(3)), 1)
    with pytest.raises(ValueError, match=r"gradients: .* not C-contiguous"):
        rc.clip_norm(np.ones(8)[::2], 1)
    assert np.array_equal(vector, np.ones(4))
