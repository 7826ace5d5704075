"""Echo state networks: reservoirs against the oracle, read-outs against least squares, and what an estimator owes."""

import copy
import pickle

import numpy as np
import pytest

import rnncore as rc
from cases import ISAS
from rnncore import _core
from rnncore.reference_esn import esn_states
from rnncore.sparse import CSR, as_csr, random_csr, spectral_radius

UNITS = (1, 2, 7, 17, 33, 64, 100, 500)
TOPOLOGIES = ("diagonals", "random")


def draw(rng, units, topology="random", inputs=2, **options):
    """Draw a network whose weights all matter."""
    options = {"leak": 0.3, "density": 0.2, "bias_scaling": 0.5, "spectral_radius": 1.2, **options}
    return rc.ESN(units, topology=topology, rng=rng, **options).draw(inputs)


def oracle(esn, x, state=None):
    return esn_states(x, esn.w_in_, esn.w_.to_dense(), esn.bias_, esn.leak, state)


def reservoir(w_in, w, bias=None, leak=0.5):
    return _core.Reservoir(w_in, bias, *w, leak)


# ------------------------------------------------------------------------------------------------------- the states


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("units", UNITS)
def test_states_are_the_oracles(isa, rng, units, topology):
    esn = draw(rng, units, topology)
    x, first = rng.standard_normal((70, 2)), rng.uniform(-1, 1, units)
    states, last = esn.states(x, state=first, return_state=True)
    np.testing.assert_allclose(states, oracle(esn, x, first), rtol=0, atol=1e-13)
    np.testing.assert_array_equal(last, states[-1])


@pytest.mark.parametrize("leak", [1e-3, 1.0])
@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_states_at_both_ends_of_leak(isa, rng, topology, leak):
    esn = draw(rng, 40, topology, leak=leak)
    x = rng.standard_normal((200, 2))
    np.testing.assert_allclose(esn.states(x), oracle(esn, x), rtol=0, atol=1e-13)


@pytest.mark.parametrize("density", [1e-9, 0.5, 1.0])
@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_states_whatever_the_density(isa, rng, topology, density):
    esn = draw(rng, 37, topology, density=density, spectral_radius=0.8)
    assert esn.w_.data.size == 37 * max(1, round(37 * density))
    x = rng.standard_normal((20, 2))
    np.testing.assert_allclose(esn.states(x), oracle(esn, x), rtol=0, atol=1e-13)


def test_diagonals_are_found(rng):
    assert draw(rng, 50, "diagonals")._reservoir().diagonals == 10
    assert draw(rng, 50, "random")._reservoir().diagonals == 0
    w = random_csr(50, 0.2, "diagonals", rng)
    w = CSR(np.delete(w.data, 3), np.delete(w.indices, 3), w.indptr - (w.indptr > 0))
    assert reservoir(np.ones((50, 1)), w).diagonals == 0  # one is missing


def test_rows_without_entries(isa, rng):
    dense = rng.standard_normal((21, 21)) * (rng.random((21, 21)) < 0.2)
    dense[[0, 4, 5, 20]] = 0
    x, w_in, bias = rng.standard_normal((30, 1)), rng.standard_normal((21, 1)), rng.standard_normal(21)
    for w in (dense, 0 * dense):
        states = rc.ESN(w=w, w_in=w_in, bias=bias, leak=0.7).draw(1).states(x)
        np.testing.assert_allclose(states, esn_states(x, w_in, w, bias, 0.7), rtol=0, atol=1e-13)


@pytest.mark.parametrize("units", [5, 8, 33, 100])
@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_the_bits_of_a_series_are_its_own(isa, rng, threads, topology, units):
    """Several are side by side in the lanes of vectors, if there are as many units as lanes."""
    esn = draw(rng, units, topology)
    series = [rng.standard_normal((n, 2)) for n in (300, 0, 1, 77, 200, 60, 77, 130, 64, 33, 90)]
    first = rng.uniform(-1, 1, (11, units))
    threads(2)
    together, last = esn.states(series, state=first, return_state=True)
    for number in (1, 2):
        threads(number)
        for n, x in enumerate(series):
            alone, alone_last = esn.states(x, state=first[n], return_state=True)
            np.testing.assert_array_equal(alone, together[n])
            np.testing.assert_array_equal(alone_last, last[n])
    begin, state = esn.states(series[0][:123], state=first[0], return_state=True)
    np.testing.assert_array_equal(begin, together[0][:123])
    np.testing.assert_array_equal(esn.states(series[0][123:], state=state), together[0][123:])
    batch = np.stack([series[0][:50], series[4][:50]])
    np.testing.assert_array_equal(esn.states(batch, state=first[[0, 4]])[1], together[4][:50])


def test_a_series_without_steps(isa, rng):
    esn = draw(rng, 9)
    state = rng.uniform(-1, 1, 9)
    states, last = esn.states(np.empty((0, 2)), state=state, return_state=True)
    assert states.shape == (0, 9)
    np.testing.assert_array_equal(last, state)
    np.testing.assert_array_equal(esn.states(np.empty((0, 2)), return_state=True)[1], np.zeros(9))


def test_another_instruction_set_takes_over(rng):
    esn, x = draw(rng, 30), rng.standard_normal((10, 2))
    try:
        for name in (*ISAS, *ISAS):
            rc.use_isa(name)
            np.testing.assert_allclose(esn.states(x), oracle(esn, x), rtol=0, atol=1e-13)
    finally:
        rc.use_isa(ISAS[0])


# ------------------------------------------------------------------------------------------------------ the weights


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_drawn_weights_are_as_asked_for(topology):
    options = {"spectral_radius": 0.7, "density": 0.1, "topology": topology}
    esn = rc.ESN(200, input_scaling=0.3, bias_scaling=0.2, input_density=0.5, rng=3, **options).draw(4)
    assert (np.diff(esn.w_.indptr) == 20).all()
    assert np.abs(np.linalg.eigvals(esn.w_.to_dense())).max() == pytest.approx(0.7)
    assert 0.25 < np.abs(esn.w_in_).max() <= 0.3
    assert 0.15 < np.abs(esn.bias_).max() <= 0.2
    assert np.count_nonzero(esn.w_in_) == pytest.approx(400, abs=80)
    reach = esn.w_.to_dense() != 0  # there is a way from every unit to every other
    ways = np.linalg.matrix_power(reach.astype(float) + np.eye(200), 12)
    assert (ways > 0).all()
    again = rc.ESN(200, input_scaling=0.3, bias_scaling=0.2, input_density=0.5, rng=3, **options).draw(4)
    for mine, other in zip((esn.w_in_, esn.bias_, *esn.w_), (again.w_in_, again.bias_, *again.w_), strict=True):
        np.testing.assert_array_equal(mine, other)


def test_spectral_radius_of_complex_and_of_nilpotent_matrices(rng):
    turn = np.kron(np.eye(3), [[0.0, -1.5], [1.5, 0.0]]) + np.diag([0.5] * 6)
    assert spectral_radius(as_csr("w", turn)) == pytest.approx(np.hypot(1.5, 0.5))
    assert spectral_radius(as_csr("w", np.diag([1.0, 2.0], 1))) == 0
    assert rc.ESN(w=None, units=1, rng=0).draw(1).w_.data == pytest.approx(0.9, abs=2)


def test_spectral_radius_of_large_matrices(rng, monkeypatch):
    monkeypatch.setattr("rnncore.sparse._DENSE_ROWS", 10)
    for matrix in (
        random_csr(150, 0.1, "random", rng),
        random_csr(151, 0.05, "diagonals", rng),
        as_csr("w", np.kron(np.eye(10), [[0.0, -1.5], [1.5, 0.0]])),
        as_csr("w", np.zeros((20, 20))),
    ):
        expected = np.abs(np.linalg.eigvals(matrix.to_dense())).max()
        assert spectral_radius(matrix) == pytest.approx(expected, rel=1e-5, abs=1e-12)


def test_matrices_in_every_form_are_the_same(rng):
    dense = rng.standard_normal((12, 12)) * (rng.random((12, 12)) < 0.3)
    expected = as_csr("w", dense)
    np.testing.assert_array_equal(expected.to_dense(), dense)
    shuffled = [rng.permutation(np.arange(*span)) for span in zip(expected.indptr, expected.indptr[1:], strict=False)]
    order = np.concatenate(shuffled)
    unsorted = (expected.data[order], expected.indices[order].astype(np.int32), expected.indptr.astype(np.int32))

    class Matrix:  # as SciPy has it
        format = "csr"
        data, indices, indptr = unsorted

    for form in (tuple(expected), unsorted, Matrix()):
        for got, wanted in zip(as_csr("w", form), expected, strict=True):
            np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize(
    ("w", "error"),
    [
        (np.ones((2, 3)), ValueError),
        (np.ones((0, 0)), ValueError),
        ([["a"]], TypeError),
        (np.array([[np.nan]]), ValueError),
        (([1.0], [0]), ValueError),
        (([1.0], [0, 1], [0, 1]), ValueError),
        (([1.0], [0.0], [0, 1]), TypeError),
        (([1.0], [1], [0, 1]), ValueError),
        (([1.0], [-1], [0, 1]), ValueError),
        (([1.0], [0], [0, 2]), ValueError),
        (([1.0], [0], [1, 1]), ValueError),
        (([1.0, 2.0], [0, 0], [0, 2, 1, 2]), ValueError),
        (([1.0, 2.0], [1, 1], [0, 2, 2]), ValueError),  # one place twice
        (([np.inf], [0], [0, 1]), ValueError),
    ],
)
def test_wrong_matrices_are_refused(w, error):
    with pytest.raises(error, match=r"^w\b"):
        rc.ESN(w=w).draw(1)


def test_the_core_reads_nothing_out_of_bounds():
    w_in, data = np.ones((2, 1)), np.ones(2)
    for indices, indptr, name in (
        ([0, 2], [0, 1, 2], "indices"),
        ([0, -1], [0, 1, 2], "indices"),
        ([1, 0], [0, 2, 2], "indices"),
        ([0, 0], [0, 2, 2], "indices"),
        ([0, 1], [0, 1, 3], "indptr"),
        ([0, 1], [0, 2, 1], "indptr"),
        ([0, 1], [1, 1, 2], "indptr"),
        ([0, 1], [0, 1, 1], "indptr"),
        ([0, 1], [0, 1], "indptr"),
    ):
        with pytest.raises(ValueError, match=name):
            _core.Reservoir(w_in, None, data, np.array(indices), np.array(indptr), 0.5)
    good = _core.Reservoir(w_in, None, data, np.array([0, 1]), np.array([0, 1, 2]), 0.5)
    for lengths in ([2], [4], [-1, 4], [2**62, 2**62, 3]):
        with pytest.raises(ValueError, match="lengths"):
            good.run(np.ones((3, 1)), np.array(lengths), None)
    with pytest.raises(ValueError, match="leak"):
        _core.Reservoir(w_in, None, data, np.array([0, 1]), np.array([0, 1, 2]), 0.0)
    with pytest.raises(ValueError, match="w_in"):
        _core.Reservoir(w_in[:0], None, data, np.array([0, 1]), np.array([0, 1, 2]), 0.5)


# ----------------------------------------------------------------------------------------------------- the read-out


def series_of(rng, lengths):
    xs = [rng.uniform(-1, 1, (n, 2)) for n in lengths]
    return xs, [np.stack([np.roll(x[:, 0], 2), x[:, 1] * np.roll(x[:, 0], 1)], axis=1) for x in xs]


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("ridge", [1e-3, 1.0])
def test_the_read_out_solves_least_squares(rng, ridge, intercept):
    xs, ys = series_of(rng, (3000, 5, 40, 0, 800))
    esn = draw(rng, 30, "diagonals", ridge=ridge, intercept=intercept, washout=20)
    esn.rng = 4
    esn.fit(xs, ys)
    rows = np.concatenate([states[20:] for states in esn.states(xs)])
    columns = np.column_stack([rows, np.ones(len(rows))])[:, : 30 + intercept]
    penalty = np.sqrt(ridge) * np.eye(30, 30 + intercept)
    wanted = np.concatenate([*(y[20:] for y in ys), np.zeros((30, 2))])
    solution = np.linalg.lstsq(np.concatenate([columns, penalty]), wanted)[0]
    np.testing.assert_allclose(esn.coef_, solution[:30].T, rtol=0, atol=1e-8)
    np.testing.assert_allclose(esn.intercept_, solution[30] if intercept else [0, 0], rtol=0, atol=1e-8)
    predicted = esn.predict(xs)
    for states, y in zip(esn.states(xs), predicted, strict=True):
        np.testing.assert_allclose(y, states @ esn.coef_.T + esn.intercept_, rtol=0, atol=1e-10)


def test_units_that_do_the_same_without_a_ridge(rng):
    x = rng.uniform(-1, 1, (200, 1))
    esn = rc.ESN(w=np.zeros((3, 3)), w_in=np.ones((3, 1)), bias=np.zeros(3), ridge=0, washout=0)
    fitted = esn.fit(x, np.tanh(x)).predict(x)
    np.testing.assert_allclose(fitted, np.tanh(x), atol=1e-9)


def test_predictions_take_the_shape_of_what_came(rng):
    x, y = rng.uniform(-1, 1, (3, 150, 2)), rng.uniform(-1, 1, (3, 150, 2))
    esn = rc.ESN(20, washout=10, rng=0)
    assert esn.fit(x[0], y[0]).predict(x[0]).shape == (150, 2)
    assert esn.fit(x[0], y[0, :, 0]).predict(x[0]).shape == (150,)
    assert esn.fit(x, y).predict(x).shape == (3, 150, 2)
    batch = esn.fit(x, y[..., 0]).predict(x)
    assert batch.shape == (3, 150)
    listed, state = esn.fit(list(x), list(y[..., 0])).predict([x[0], x[1, :7]], return_state=True)
    assert [part.shape for part in listed] == [(150,), (7,)]
    assert state.shape == (2, 20)
    np.testing.assert_array_equal(listed[0], batch[0])
    np.testing.assert_array_equal(listed[1], batch[1, :7])
    assert esn.fit(x[0].tolist(), y[0].tolist()).predict(x[0].tolist()).shape == (150, 2)


def test_predictions_go_on_from_a_state(rng):
    xs, ys = series_of(rng, (5000,))
    esn = rc.ESN(20, rng=0).fit(xs[0], ys[0])
    whole = esn.predict(xs[0])
    begin, state = esn.predict(xs[0][:3001], return_state=True)
    np.testing.assert_array_equal(np.concatenate([begin, esn.predict(xs[0][3001:], state=state)]), whole)


def narma10(T, rng):
    u, y = rng.uniform(0, 0.5, T), np.zeros(T)
    for t in range(9, T - 1):
        y[t + 1] = 0.3 * y[t] + 0.05 * y[t] * y[t - 9 : t + 1].sum() + 1.5 * u[t - 9] * u[t] + 0.1
    return u[:, np.newaxis], y


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_narma_10_is_learnt(topology):
    u, y = narma10(3000, np.random.default_rng(1))
    esn = rc.ESN(200, input_scaling=0.1, bias_scaling=0.2, ridge=1e-9, washout=200, topology=topology, rng=1)
    _, state = esn.fit(u[:2000], y[:2000]).predict(u[:2000], return_state=True)
    error = esn.predict(u[2000:], state=state) - y[2000:]
    assert np.mean(error**2) / y[2000:].var() < 0.1


# -------------------------------------------------------------------------------------------------- the estimator


def test_parameters_are_kept_as_they_are():
    rng = np.random.default_rng(0)
    esn = rc.ESN(12, leak=0.5, rng=rng)
    parameters = esn.get_params()
    assert parameters["units"] == 12
    assert parameters["rng"] is rng
    assert esn.set_params(leak=0.25, ridge=2) is esn
    assert (esn.leak, esn.ridge) == (0.25, 2)
    assert repr(esn).startswith("ESN(units=12, leak=0.25, ridge=2, rng=")
    with pytest.raises(ValueError, match=r"^leek: "):
        esn.set_params(leek=1)


def test_scikit_learn_takes_it(rng):
    base = pytest.importorskip("sklearn.base")
    esn = rc.ESN(10, ridge=1e-3, w_in=np.ones((10, 2)), rng=np.random.default_rng(0))
    twin = base.clone(esn)
    assert twin.ridge == 1e-3
    x = rng.standard_normal((200, 2))
    np.testing.assert_array_equal(twin.fit(x, x).predict(x), esn.fit(x, x).predict(x))


def test_copies_and_pickles(rng):
    x = rng.standard_normal((200, 2))
    esn = rc.ESN(30, rng=0)
    assert isinstance(pickle.loads(pickle.dumps(esn)), rc.ESN)
    expected = esn.fit(x, x).predict(x)
    for twin in (pickle.loads(pickle.dumps(esn)), copy.deepcopy(esn), copy.copy(esn)):
        np.testing.assert_array_equal(twin.predict(x), expected)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"units": 0}, ValueError),
        ({"units": 1.5}, TypeError),
        ({"spectral_radius": -1}, ValueError),
        ({"leak": 0}, ValueError),
        ({"leak": 1.5}, ValueError),
        ({"leak": "all"}, TypeError),
        ({"density": 0}, ValueError),
        ({"density": 2}, ValueError),
        ({"input_density": 0}, ValueError),
        ({"input_scaling": np.inf}, ValueError),
        ({"bias_scaling": -1}, ValueError),
        ({"ridge": -1}, ValueError),
        ({"washout": -1}, ValueError),
        ({"washout": 50}, ValueError),
        ({"topology": "ring"}, ValueError),
        ({"w_in": np.ones((5, 3))}, ValueError),
        ({"w_in": np.full((5, 2), np.nan)}, ValueError),
        ({"bias": np.ones(4)}, ValueError),
    ],
)
def test_wrong_arguments_are_refused(rng, options, error):
    x = rng.standard_normal((50, 2))
    (name,) = options
    with pytest.raises(error, match=f"^{name}: "):
        rc.ESN(**{"units": 5, "washout": 0, **options}).fit(x, x)


def test_wrong_series_are_refused(rng):
    x = rng.standard_normal((50, 2))
    esn = rc.ESN(5, washout=0)
    for wrong, error in (
        (x[0], ValueError),
        (x[:, :0], ValueError),
        (x[None, :0][:0], ValueError),
        ([x, x[:, :1]], ValueError),
        (x * np.nan, ValueError),
        ([["a"]], TypeError),
    ):
        with pytest.raises(error, match=r"^X"):
            esn.fit(wrong, x)
    for wrong, error in ((x[:-1], ValueError), (x[0], ValueError), (x * np.inf, ValueError), (x[None], ValueError)):
        with pytest.raises(error, match=r"^y"):
            esn.fit(x, wrong)
    for wrong, error in (([x], ValueError), ([x, x[1:]], ValueError), (x, TypeError), ([x, x[:, 0]], ValueError)):
        with pytest.raises(error, match=r"^y"):
            esn.fit([x, x], wrong)
    with pytest.raises(AttributeError):
        esn.predict(x)
    esn.fit(x, x)
    with pytest.raises(ValueError, match=r"^X: expected I = 2"):
        esn.predict(x[:, :1])
    for state in (np.ones(4), np.ones((1, 5)), np.full(5, np.nan)):
        with pytest.raises(ValueError, match=r"^state: "):
            esn.predict(x, state=state)
