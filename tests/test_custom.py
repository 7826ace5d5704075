"""Steps in Python: `scan`, layers made of them, checks of cells. The compiled LSTM is what they are held against."""

import copy
import pickle

import numpy as np
import pytest

import rnncore as rc
from cases import worst_error
from rnncore import functional, reference, reference_cells
from rnncore.testing import check_cell, check_layer


class PyLSTM(rc.Recurrent):
    """LSTM by the oracle's pointwise formulas."""

    def __init__(self, input_size, hidden_size, **options):
        I, H = input_size, hidden_size
        self.hidden_size = H
        shapes = {"weight_ih": (4 * H, I), "weight_hh": (4 * H, H), "bias_ih": (4 * H,), "bias_hh": (4 * H,)}
        super().__init__(shapes, I, (H, H), **options)

    def step_vjp(self, x, state):
        w_ih, w_hh, b_ih, b_hh = self.parameters.values()
        h, _ = state
        x_gates, back_x = functional.linear_vjp(x, w_ih, b_ih)
        u_gates, back_u = functional.linear_vjp(h, w_hh, b_hh)
        cell = reference.LSTMCell()
        new, saved = cell.forward(x_gates, u_gates, state)

        def pull_back(dy, dstate):
            dh, dc = dstate
            dx_gates, du_gates, (dh_direct, dc) = cell.backward(saved, (dy + dh, dc))
            of_x, of_u = back_x(dx_gates), back_u(du_gates)
            gradients = of_x.weight, of_u.weight, of_x.bias, of_u.bias
            return of_x.x, (dh_direct + of_u.x, dc), dict(zip(self.parameters, gradients, strict=True))

        return (new[0], new), pull_back


class Memory(rc.Recurrent):
    """A state that is a matrix and one that is a vector, and outputs of another size: M' = d M + h x', y = M'x."""

    def __init__(self, size, hidden_size, **options):
        self.size, self.hidden_size = size, hidden_size
        shapes = {"weight": (hidden_size, size), "decay": (hidden_size, 1)}
        super().__init__(shapes, size, (hidden_size, (hidden_size, size)), hidden_size, **options)

    def step_vjp(self, x, state):
        (h, M), d = state, self.parameters["decay"]
        a, back_a = functional.linear_vjp(x, self.parameters["weight"])
        new_h = np.tanh(a) + 0 * h
        new_M = d * M + h[:, :, None] * x[:, None, :]
        y = (new_M * x[:, None, :]).sum(axis=2)

        def pull_back(dy, dstate):
            dh, dM = dstate
            dM = dM + dy[:, :, None] * x[:, None, :]
            of_a = back_a(dh * (1 - new_h * new_h))
            dx = of_a.x + (dy[:, :, None] * new_M).sum(axis=1) + (dM * h[:, :, None]).sum(axis=1)
            dold = (dM * x[:, None, :]).sum(axis=2), dM * d
            return dx, dold, {"weight": of_a.weight, "decay": (dM * M).sum(axis=(0, 2))[:, None]}

        return (y, (new_h, new_M)), pull_back


class Sum(rc.Recurrent):
    """No parameters: the sum so far."""

    def __init__(self, size, **options):
        self.size = size
        super().__init__({}, size, size, **options)

    def step_vjp(self, x, h):
        return (h + x, h + x), lambda dy, dh: (dy + dh, dy + dh)


CELLS = {
    "lstm": lambda **options: PyLSTM(3, 5, rng=1, **options),
    "memory": lambda **options: Memory(3, 7, rng=1, **options),
    "sum": lambda **options: Sum(3, **options),
}


@pytest.fixture(params=CELLS)
def make(request):
    return CELLS[request.param]


def pair(dtype=np.float64, **options):
    """The layer in Python and the compiled one, with the same parameters."""
    ours, compiled = PyLSTM(3, 5, dtype=dtype, **options), rc.LSTM(3, 5, dtype=dtype, rng=3)
    ours.flat_parameters[...] = compiled.flat_parameters
    return ours, compiled


def leaves(state):
    return [leaf for part in state for leaf in leaves(part)] if isinstance(state, tuple) else [state]


# ---------------------------------------------------------------------------------------------------------- scan

SHAPES = [(4, 6), (1, 1), (3, 0), (0, 4), (0, 0), (5, 1), (1, 13), (7, 9)]


@pytest.mark.parametrize(("N", "T"), SHAPES)
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("resets", [False, True])
def test_scan_is_the_compiled_loop(N, T, batch_first, reverse, resets, rng):
    cell = PyLSTM(3, 5, dtype="float64", rng=0)
    x = rng.standard_normal((N, T, 3) if batch_first else (T, N, 3))
    h, c, c_reset, h_reset = (rng.standard_normal(shape) for shape in ((N, 5), (N, 5), (N, 5), 5))
    lengths = rng.integers(0, T + 1, N)
    options = {"reverse": reverse, "batch_first": batch_first}
    mask = rng.random(x.shape[:2]) < 0.4 if resets else None
    starts = (h_reset, c_reset) if resets else None
    ours = cell, x, (h, c), lengths, mask, starts
    (y, state), pull_back = rc.scan_vjp(*ours, **options)
    assert all(map(np.array_equal, leaves((y, state)), leaves(rc.scan(*ours, **options))))

    options |= {"reset_mask": mask, "h_reset": h_reset, "c_reset": c_reset} if resets else {}
    arrays = x, *cell.parameters.values(), h, c
    outputs, vjp = functional.lstm_vjp(*arrays, lengths=lengths, **options)
    for got, expected in zip((y, *state), outputs, strict=True):
        assert worst_error(got, expected, 1.0) < 1e-13
    dy, dh, dc = (rng.standard_normal(array.shape) for array in outputs)
    got, expected = pull_back(dy, (dh, dc)), vjp(dy, dh, dc)
    starts = got.reset_state if resets else (None, None)
    flat = got.x, *got.parameters.values(), *got.state, *starts
    for mine, theirs in zip(flat, expected, strict=True):
        assert (mine is None) == (theirs is None)
        assert mine is None or worst_error(mine, theirs, 1.0) < 1e-11


class OfOracle:
    """A cell of the oracle as `scan` takes one: not a layer."""

    def __init__(self, cell, I, H, rng):
        self.cell, self.state_size = cell, cell.sizes(H, H)
        self.parameters = {name: rng.uniform(-0.5, 0.5, shape) for name, shape in cell.shapes(I, H, H).items()}

    def step_vjp(self, x, state):
        y, new, pull = self.cell.step(self.parameters, x, state, {})

        def pull_back(dy, dstate):
            dparameters = {name: np.zeros_like(parameter) for name, parameter in self.parameters.items()}
            return *pull(dy, dstate, dparameters), dparameters

        return (y, new), pull_back

    def step(self, x, state):
        return self.step_vjp(x, state)[0]


ORACLE = [name for name in reference_cells.__all__ if isinstance(getattr(reference_cells, name), type)]


@pytest.mark.parametrize("name", ORACLE)
@pytest.mark.parametrize("reverse", [False, True])
def test_scan_runs_every_cell_of_the_oracle(name, reverse, rng):
    N, T, I, H = 4, 7, 6, 6
    kind = getattr(reference_cells, name)
    cell = OfOracle(kind(reference_cells.GRU(), 2, shortcut=True) if name == "Deep" else kind(), I, H, rng)
    check_cell(cell, rng.standard_normal((3, I)), tuple(rng.uniform(0.1, 1, (3, size)) for size in cell.state_size))
    x, lengths, mask = rng.standard_normal((N, T, I)), [5, 7, 0, 1], rng.random((N, T)) < 0.3
    state, start = (tuple(rng.uniform(0.1, 1, (N, size)) for size in cell.state_size) for _ in range(2))
    (y, last), pull_back = rc.scan_vjp(cell, x, state, lengths, mask, start, reverse=reverse)
    options = {"lengths": lengths, "reverse": reverse, "reset_mask": mask, "state_reset": start}
    y_oracle, last_oracle, pull_oracle = reference_cells.layer(cell.cell, x, cell.parameters, state, **options)
    dy, *dlast = (rng.standard_normal(array.shape) for array in (y, *last))
    got, (gradients, *dstates) = pull_back(dy, tuple(dlast)), pull_oracle(dy, *dlast)
    mine = y, *last, got.x, *got.parameters.values(), *got.state, *got.reset_state
    oracle = y_oracle, *last_oracle, *gradients.values(), *dstates[0], *dstates[1]
    for a, b in zip(mine, oracle, strict=True):
        assert worst_error(a, b, max(1.0, float(np.abs(b).max()))) < 1e-12


@pytest.mark.parametrize("reverse", [False, True])
def test_scan_takes_lists_and_packed(rng, reverse):
    cell = PyLSTM(3, 5, rng=0)
    lengths = [4, 0, 6, 1]
    x = [rng.standard_normal((T, 3), dtype=np.float32) for T in lengths]
    resets = [rng.random(T) < 0.3 for T in lengths]
    packed = rc.Packed.from_list(x)
    padded, _ = packed.to_padded()
    mask, _ = rc.Packed.from_list(resets).to_padded()
    options = {"reverse": reverse}
    (y, state), back = rc.scan_vjp(cell, padded, None, lengths, mask.astype(bool), **options)
    (y_list, state_list), back_list = rc.scan_vjp(cell, x, None, None, resets, **options)
    (y_packed, state_packed), back_packed = rc.scan_vjp(
        cell, packed, None, None, rc.Packed.from_list(resets), **options
    )
    assert isinstance(y_list, list)
    assert isinstance(y_packed, rc.Packed)
    dy = [rng.standard_normal(part.shape, dtype=np.float32) for part in y_list]
    dy_packed = rc.Packed.from_list(dy)
    gradients = back(dy_packed.to_padded()[0]), back_list(dy), back_packed(dy_packed)
    for n, length in enumerate(lengths):
        assert np.array_equal(y[n, :length], y_list[n])
        assert np.array_equal(y[n, :length], y_packed.to_list()[n])
        assert not y[n, length:].any()
        assert np.array_equal(gradients[0].x[n, :length], gradients[1].x[n])
        assert np.array_equal(gradients[0].x[n, :length], gradients[2].x.to_list()[n])
        assert not gradients[0].x[n, length:].any()
    for other in (state_list, state_packed):
        assert all(map(np.array_equal, state, other))
    for other in gradients[1:]:
        assert all(map(np.array_equal, gradients[0].state, other.state))
        assert all(map(np.array_equal, gradients[0].parameters.values(), other.parameters.values()))


def test_scan_runs_functions(rng):
    x, s = rng.standard_normal((2, 5, 3)), np.ones((2, 3))
    y, last = rc.scan(lambda x, s: (2 * s, s + x), x, s)
    assert np.allclose(last, 1 + x.sum(axis=1))
    assert np.allclose(y[:, 3], 2 + 2 * x[:, :3].sum(axis=1))

    # the gradient of sum(last * dstate), of parameters that only the pull-back names
    def step_vjp(x, state):
        (s,) = state
        return (s, (s * x,)), lambda dy, d: (dy * 0 + d[0] * s, (dy + d[0] * x,), {"steps": np.array(len(x))})

    (_, (last,)), pull_back = rc.scan_vjp(step_vjp, x, (s,), [2, 4])
    assert np.allclose(last, [x[0, :2].prod(axis=0), x[1, :4].prod(axis=0)])
    gradients = pull_back(dstate=(np.ones((2, 3)),))
    assert np.allclose(gradients.state[0], last)
    assert np.allclose(gradients.x[1, :4] * x[1, :4], last[1])
    assert gradients.parameters == {"steps": 6}
    assert gradients.reset_state is None


def test_no_row_computes_a_step_it_has_not():
    seen = []

    def step(x, s):
        seen.append(len(x))
        assert np.isfinite(x).all()
        return s, s

    x = np.full((4, 5, 1), np.nan)
    lengths = [2, 0, 5, 3]
    for n, length in enumerate(lengths):
        x[n, :length] = 1
    rc.scan(step, x, np.zeros((4, 1)), lengths)
    assert seen == [3, 3, 2, 1, 1]
    mask = np.zeros((4, 5), bool)
    mask[2, [0, 2, 4]] = True  # three pieces, of 2, 2 and 1 steps
    seen.clear()
    rc.scan(step, x, np.zeros((4, 1)), np.arange(5) < np.array(lengths)[:, None], mask)
    assert seen == [5, 4, 1]


def test_unbatched(rng):
    cell = PyLSTM(3, 5, rng=0)
    x, state = rng.standard_normal((6, 3), dtype=np.float32), tuple(rng.standard_normal((2, 5), dtype=np.float32))
    mask = np.arange(6) == 2
    (y, last), back = rc.scan_vjp(cell, x, state, 4, mask, state)
    batched = tuple(part[None] for part in state)
    (expected, last_expected), back_expected = rc.scan_vjp(cell, x[None], batched, [4], mask[None], batched)
    assert np.array_equal(y, expected[0])
    got, expected = back(y, last), back_expected(expected, last_expected)
    for a, b in zip(leaves((last, got.x, got.state)), leaves((last_expected, expected.x, expected.state)), strict=True):
        assert np.array_equal(a, b[0])
    assert [part.shape for part in got.reset_state] == [(5,), (5,)]
    layer, dlayer = cell.vjp(x, tuple(part[None] for part in state), 4)
    assert layer[0].shape == (6, 5)
    assert [part.shape for part in layer[1]] == [(1, 5), (1, 5)]
    assert dlayer(y)[1][0].shape == (1, 5)
    time_major = rc.scan(cell, x, state, batch_first=False)[0]
    assert np.array_equal(time_major, rc.scan(cell, x, state)[0])


@pytest.mark.parametrize(
    ("error", "message", "step"),
    [
        (TypeError, r"step of step: expected it to return \(y, state\), got float64 \(2, 3\)", lambda x, s: x),
        (TypeError, r"y from step of step: expected float64 \(2, O\), got a list of 1", lambda x, s: ([1], s)),
        (TypeError, r"y from .* expected float64 \(2, 3\), got float32 \(2, 3\)", lambda x, s: (x.astype("f"), s)),
        (ValueError, r"y from step of step: expected float64 \(2, O\), got float64 \(2,\)", lambda x, s: (x[:, 0], s)),
        (ValueError, r"y from .* expected float64 \(2, 3\), got float64 \(1, 3\)", lambda x, s: (x[:1], s)),
        (ValueError, r"state from .* expected float64 \(2, 3\), got float64 \(2, 1\)", lambda x, s: (x, s[:, :1])),
        (TypeError, r"state from .* expected one array, got a tuple of 1", lambda x, s: (x, (s,))),
        (TypeError, r"state from .* expected float64 \(2, 3\), got NoneType", lambda x, s: (x, None)),
    ],
)
def test_what_a_step_returns_is_checked(error, message, step):
    step.__name__ = "step"
    with pytest.raises(error, match=message):
        rc.scan(step, np.ones((2, 4, 3)), np.zeros((2, 3)))


@pytest.mark.parametrize(
    ("error", "message", "returned"),
    [
        (TypeError, r"pull_back of Wrong: expected it to return \(dx, dstate\).*, got a tuple of 1", lambda d: (d,)),
        (ValueError, r"dx from pull_back of Wrong: expected float32 \(2, 3\)", lambda d: (d[:, :1], d, {"a": d[0]})),
        (ValueError, r"dstate from pull_back of Wrong", lambda d: (d, d[:1], {"a": d[0]})),
        (ValueError, r"dparameters .*: expected the names \['a'\], got \[\]", lambda d: (d, d)),
        (ValueError, r"dparameters .*: expected the names \['a'\], got \['b'\]", lambda d: (d, d, {"b": d[0]})),
        (ValueError, r"dparameters .*: expected 'a' of shape \(3,\), got \(2, 3\)", lambda d: (d, d, {"a": d})),
        (TypeError, r"dparameters .*: expected a mapping, got float32", lambda d: (d, d, d)),
    ],
)
def test_what_a_pull_back_returns_is_checked(error, message, returned):
    class Wrong(rc.Recurrent):
        def __init__(self):
            super().__init__({"a": (3,)}, 3, 3)

        def step_vjp(self, x, h):
            return (h, h), lambda dy, dh: returned(dy)

    (y, _), pull_back = Wrong().vjp(np.ones((2, 4, 3)))
    with pytest.raises(error, match=message):
        pull_back(y)
    with pytest.raises(ValueError, match=r"dy: expected shape \(2, 4, 3\), got \(2, 4, 1\)"):
        pull_back(y[..., :1])


def test_arguments_are_checked(rng):
    cell = PyLSTM(3, 5, rng=0)
    x = np.ones((2, 4, 3))
    for message, arguments in (
        (r"x: expected \(N, T, 3\) or \(T, 3\), got \(2, 4, 2\)", (x[..., :2],)),
        (r"x: expected rows of 3 values", ([x[0, :, :2]],)),
        (r"state: expected shape \(1, 2, 5\), got \(2, 5\)", (x, (np.ones((2, 5)), None))),
        (r"state: expected a tuple of 2 arrays, got ndarray", (x, np.ones((1, 2, 5)))),
        (r"lengths: expected values from 0 to T = 4", (x, None, [5, 1])),
        (r"lengths: expected None, since x has its own", ([x[0]], None, [4])),
        (r"reset_mask: expected bool \(2, 4\), got \(2, 3\)", (x, None, None, np.ones((2, 3), bool))),
        (r"reset_mask: expected bool, got float64", (x, None, None, np.ones((2, 4)))),
        (r"reset_state: expected None, since there is no reset_mask", (x, None, None, None, (None, None))),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            cell(*arguments)
    with pytest.raises(TypeError, match=r"state: expected an initial state, since max has no state_size"):
        rc.scan(max, x)
    for wrong in (-1, 2.0, (3, "a"), True):
        with pytest.raises(ValueError, match="state_size: expected an integer"):
            rc.Recurrent({}, 3, wrong)
    with pytest.raises(ValueError, match="state_size: expected one state or more"):
        rc.Recurrent({}, 3, ())
    y, state = rc.scan(lambda x, state: (2 * x, ()), x, ())  # a function may have none
    assert np.array_equal(y, 2 * x)
    assert state == ()
    with pytest.raises(NotImplementedError, match="Recurrent has no step_vjp"):
        rc.Recurrent({}, 3, 3)(x)


# --------------------------------------------------------------------------------------------------------- layers


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
def test_contract(make, dtype, ragged, reverse, rng):
    layer = make(dtype=dtype, reverse=reverse)
    x = rng.standard_normal((4, 6, 3)).astype(dtype)
    check_cell(layer)
    check_layer(layer, x, lengths=[6, 2, 0, 5] if ragged else None, causal=not reverse)


def test_layer_is_the_compiled_lstm(dtype, rng):
    ours, compiled = pair(dtype)
    x, lengths = rng.standard_normal((5, 9, 3)).astype(dtype), [9, 0, 4, 9, 1]
    mask = rng.random((5, 9)) < 0.2
    starts = tuple(rng.standard_normal((1, 5)).astype(dtype) for _ in range(2))
    outputs, gradients = [], []
    for layer in (ours, compiled):
        (y, state), pull_back = layer.vjp(x, None, lengths, mask, starts)
        pulled = pull_back(y, state)
        outputs.append(leaves((y, state)))
        gradients.append([*leaves(pulled), layer.flat_gradients])
    bounds = (1e-13, 1e-11) if dtype == np.float64 else (2e-6, 2e-5)
    for (got, expected), bound in zip((outputs, gradients), bounds, strict=True):
        for a, b in zip(got, expected, strict=True):
            assert a.dtype == dtype
            assert worst_error(a, b, max(1.0, float(np.abs(b).max(initial=0)))) <= bound


def test_bidirectional_by_concat(rng):
    ours, compiled = pair()
    both = rc.Concat(ours, PyLSTM(3, 5, reverse=True, dtype="float64", rng=0))
    other = rc.LSTM(3, 5, bidirectional=True, dtype="float64")
    other.flat_parameters[...] = both.flat_parameters
    x, lengths = rng.standard_normal((3, 7, 3)), [7, 2, 0]
    assert worst_error(both(x, lengths), other(x, lengths=lengths)[0], 1.0) < 1e-13
    assert compiled.flat_parameters.size == ours.flat_parameters.size


def test_models_files_and_copies(rng, tmp_path):
    layer = PyLSTM(3, 5, reverse=True, dtype=np.float64, rng=0)
    assert repr(layer) == "PyLSTM(3, 5, reverse=True, dtype='float64')"
    assert repr(Memory(2, 3)) == "Memory(2, 3)"
    model = rc.Sequential(PyLSTM(3, 5, rng=0), rc.Residual(Sum(5)), rc.Last(), rc.Linear(5, 2, rng=1))
    assert "0 PyLSTM(3, 5)       (N, T, 5)          200" in model.summary()
    assert np.shares_memory(model.flat_parameters, model.layers[0].parameters["weight_hh"])
    model.save(tmp_path / "model.safetensors")
    x = rng.standard_normal((2, 4, 3), dtype=np.float32)
    for twin in (rc.load(tmp_path / "model.safetensors"), copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert repr(twin) == repr(model)
        assert np.array_equal(twin(x), model(x))
    tokens = rc.Sequential(rc.Embedding(9, 3, rng=0), PyLSTM(3, 5, rng=0))
    (y, _), pull_back = tokens.vjp([[1, 2, 8], [0, 0, 4]])
    pull_back(y)
    assert tokens.gradients["0.weight"][[0, 1, 2, 4, 8]].all()


def test_own_arguments_stay(rng):
    class Plain(rc.Recurrent):
        def __init__(self, size, scale=2.0, *, dtype="float32"):
            self.size, self.scale = size, scale
            super().__init__({}, size, size, dtype=dtype)

        def step_vjp(self, x, h):
            return (h, x), lambda dy, dh: (dh, dy)

    assert repr(Plain(3, 1.0)) == "Plain(3, scale=1.0)"
    assert Plain._from_config(Plain(3, 1.0).config()).scale == 1.0


def test_arguments_that_a_constructor_hands_on_are_the_layers():
    class Doubled(PyLSTM):
        def __init__(self, size, **options):
            self.size = size
            super().__init__(size, 2 * size, **options)

    layer = Doubled(3, reverse=True, rng=0)
    assert repr(layer) == "Doubled(3, reverse=True)"
    assert Doubled._from_config(layer.config()).reverse


def test_initialisation(rng):
    layer = PyLSTM(3, 16, rng=0)
    assert 0.24 < np.abs(layer.flat_parameters).max() <= 0.25
    assert np.array_equal(layer.flat_parameters, PyLSTM(3, 16, rng=0).flat_parameters)
    rc.init.orthogonal(layer, rng=0)
    rc.init.forget_bias(layer, 1.0)
    block = layer.parameters["weight_hh"][:16]
    assert np.allclose(block @ block.T, np.eye(16), atol=1e-5)


def test_trainer_trains_it(rng):
    x = rng.standard_normal((64, 8, 3), dtype=np.float32)
    lengths = rng.integers(1, 9, 64)
    ragged = [row[:length] for row, length in zip(x, lengths, strict=True)]
    targets = [np.cumsum(row, axis=0)[:, :1] for row in ragged]
    data = rc.data.Sequences(ragged, targets, per_step=True, batch_size=16)
    model, twin = (rc.Sequential(kind, rc.Linear(5, 1, rng=0)) for kind in pair(np.float32))
    losses = [
        rc.Trainer(each, rc.MSE(), rc.Adam(0.02)).fit(copy.deepcopy(data), epochs=8, progress=False)["loss"]
        for each in (model, twin)
    ]
    assert np.allclose(losses[0], losses[1], rtol=1e-3)
    assert losses[0][-1] < 0.5 * losses[0][0]
    trainer = rc.Trainer(model, rc.MSE(), rc.Adam(0.02), tbptt=3)
    long = rc.data.Sequences(x, np.cumsum(x, axis=1)[..., :1], per_step=True, batch_size=64)
    assert np.isfinite(trainer.fit(long, epochs=2, progress=False)["loss"]).all()


# -------------------------------------------------------------------------------------------------------- streams


@pytest.fixture
def model():
    return rc.Sequential(PyLSTM(3, 5, rng=0), rc.Residual(Memory(5, 5, rng=1)), rc.GRU(5, 4, rng=2), rc.Linear(4, 2))


def test_a_stream_is_a_whole_call(model, rng):
    x = rng.standard_normal((3, 9, 3), dtype=np.float32)
    y, state = model.run(x)
    stream = model.stream(3)
    assert isinstance(stream, rc.PythonStream)
    out = np.empty((3, 2), np.float32)
    for t in range(4):
        assert stream.step(x[:, t], out=out) is out
        assert np.array_equal(out, y[:, t])
    assert np.array_equal(stream.process(x[:, 4:]), y[:, 4:])
    assert all(map(np.array_equal, *(filter_none(leaves(s)) for s in (stream.state, state))))
    assert (stream.batch_size, stream.input_size, stream.output_size, stream.dtype) == (3, 3, 2, np.float32)

    alone = model.stream()
    assert np.array_equal(np.stack([alone.step(x_t) for x_t in x[1]]), y[1])
    alone.reset()
    assert np.array_equal(alone.process(x[1]), y[1])
    mask = rng.random((3, 9)) < 0.3
    stream.reset()
    assert np.array_equal(stream.process(x, reset_mask=mask), model(x, None, mask))
    alone.reset()
    assert np.array_equal(alone.process(x[2], reset_mask=mask[2]), model(x, None, mask)[2])


def filter_none(arrays):
    return [array for array in arrays if array is not None]


def test_rows_of_a_stream_come_and_go(model, rng):
    x = rng.standard_normal((4, 6, 3), dtype=np.float32)
    y = model(x)
    stream = model.stream(2)
    stream.process(x[:2, :3])
    assert stream.attach() == 2
    assert np.array_equal(stream.step(np.stack([x[0, 3], x[1, 3], x[2, 0]])), [y[0, 3], y[1, 3], y[2, 0]])
    stream.detach(0)  # row 2 takes its place
    assert np.array_equal(stream.step(np.stack([x[2, 1], x[1, 4]])), [y[2, 1], y[1, 4]])
    saved, row, twin = stream.to_bytes(), stream.row_state(1), stream.fork()
    stream.reset([False, True])
    assert np.array_equal(stream.step(np.stack([x[2, 2], x[3, 0]])), [y[2, 2], y[3, 0]])
    assert np.array_equal(twin.step(np.stack([x[2, 2], x[1, 5]])), [y[2, 2], y[1, 5]])
    stream.from_bytes(saved)
    stream.set_row_state(0, row)
    assert np.array_equal(stream.step(x[[1, 1], 5]), y[[1, 1], 5])
    stream.reset(0)
    state = stream.state
    stream.attach(row)
    assert np.array_equal(stream.step(np.stack([x[0, 0], x[0, 0], x[1, 5]]))[[0, 2]], [y[0, 0], y[1, 5]])
    stream.detach(2)
    stream.state = state
    assert np.array_equal(stream.step(x[:2, 0])[0], y[0, 0])
    for _ in range(2):
        stream.detach(0)
    assert stream.step(np.empty((0, 3))).shape == (0, 2)
    model.flat_parameters[...] = 0  # is not the stream's business
    assert np.array_equal(twin.fork().process(x[2:, :0]), y[2:, :0])


def test_a_stream_of_tokens_to_a_last_step(rng):
    model = rc.Sequential(rc.Embedding(9, 3, rng=0), PyLSTM(3, 5, rng=0), rc.Last(), rc.Linear(5, 2, rng=1))
    tokens = rng.integers(0, 9, (2, 5))
    stream = model.stream(2)
    y = np.stack([model(tokens[:, : t + 1]) for t in range(5)], axis=1)
    assert np.array_equal(stream.step(tokens[:, 0]), y[:, 0])
    assert np.array_equal(stream.process(tokens[:, 1:]), y[:, 1:])
    assert stream.process(tokens[:, :0]).shape == (2, 0, 2)
    assert (stream.input_size, repr(stream)) == (3, f"PythonStream({model!r}, batch_size=2)")
    with pytest.raises(TypeError, match="x: expected integers, the tokens, got float64"):
        stream.step([0.5, 1.0])


def test_what_cannot_be_streamed_is_refused(rng):
    layer, both = PyLSTM(3, 5, rng=0), rc.GRU(3, 4, bidirectional=True)
    for error, message, model in (
        (ValueError, "expected layers of one direction, got PyLSTM", PyLSTM(3, 5, reverse=True)),
        (
            ValueError,
            "expected layers of one direction, got GRU",
            rc.Sequential(Sum(3), both),
        ),
        (TypeError, "expected layers that can be streamed, got MeanPool", rc.Sequential(Sum(3), rc.MeanPool())),
    ):
        with pytest.raises(error, match=message):
            model.stream()
    with pytest.raises(TypeError, match="expected compiled layers, to learn as they stream"):
        layer.stream(loss=rc.MSE(), optimizer=rc.SGD(0.1))
    with pytest.raises(ValueError, match="batch_size: expected an integer"):
        layer.stream(-1)
    stream, alone = layer.stream(2), layer.stream()
    before = stream.to_bytes()
    for error, message, call in (
        (ValueError, r"x: expected \(2, 3\), got \(2, 4\)", lambda: stream.step(np.ones((2, 4)))),
        (ValueError, r"x: expected \(2, T, 3\), got \(2, 3\)", lambda: stream.process(np.ones((2, 3)))),
        (ValueError, r"out: expected float32 \(2, 5\)", lambda: stream.step(np.ones((2, 3)), np.empty((2, 5)))),
        (ValueError, r"reset_mask: expected bool \(2, 4\)", lambda: stream.process(np.ones((2, 4, 3)), None, [[True]])),
        (IndexError, r"row: expected one from 0 to 1, got 2", lambda: stream.detach(2)),
        (IndexError, r"row: expected one from 0 to 1, got -1", lambda: stream.row_state(-1)),
        (IndexError, r"row: expected one from 0 to 1, got 5", lambda: stream.reset([0, 5])),
        (ValueError, r"rows: expected bool \(2,\)", lambda: stream.reset([True])),
        (TypeError, r"rows: expected integers", lambda: stream.reset([0.5])),
        (ValueError, r"state: expected shape \(1, 5\)", lambda: stream.set_row_state(0, (np.ones((1, 4)), None))),
        (ValueError, r"state: expected a tuple of 2 states", lambda: stream.set_row_state(0, np.ones((1, 5)))),
        (ValueError, r"data: expected bytes", lambda: stream.from_bytes(b"")),
        (ValueError, r"data: expected states", lambda: stream.from_bytes(alone.to_bytes())),
        (ValueError, r"attach: expected a stream with a batch_size", alone.attach),
        (ValueError, r"learn: expected", lambda: stream.learn(np.ones((2, 3)), 0)),
    ):
        with pytest.raises(error, match=message):
            call()
    assert stream.to_bytes() == before


# ------------------------------------------------------------------------------------------------------- check_cell


def altered(change):
    """A cell whose step_vjp is changed in one place."""

    class Altered(Sum):
        def __init__(self):
            rc.Recurrent.__init__(self, {"w": (3,)}, 3, 3, dtype="float64", rng=0)

        def step_vjp(self, x, h):
            w = self.parameters["w"]
            a = w * h + x

            def pull_back(dy, dh):
                da = dy + dh
                return change.get("pulled", lambda *pulled: pulled)(da, w * da, {"w": (da * h).sum(axis=0)})

            return change.get("output", lambda a, x, w: (a, a))(a, x, w), change.get("pull_back", pull_back)

    return Altered()


def in_place(array, result):
    array += 1
    return result


@pytest.mark.parametrize(
    ("message", "change"),
    [
        (None, {}),
        ("gradient of x", {"pulled": lambda dx, dh, dw: (2 * dx, dh, dw)}),
        ("gradient of state", {"pulled": lambda dx, dh, dw: (dx, 2 * dh, dw)}),
        ("gradient of w", {"pulled": lambda dx, dh, dw: (dx, dh, {"w": 2 * dw["w"]})}),
        (r"dparameters: expected the names \['w'\], got \[\]", {"pulled": lambda dx, dh, dw: (dx, dh, {})}),
        ("the pull-back: expected .*, got 2", {"pulled": lambda dx, dh, dw: (dx, dh)}),
        (r"dparameters\['w'\]: expected .*\(3,\)", {"pulled": lambda dx, dh, dw: (dx, dh, {"w": dx})}),
        ("dx from the pull-back", {"pulled": lambda dx, dh, dw: (dx[:1], dh, dw)}),
        ("dstate from the pull-back", {"pulled": lambda dx, dh, dw: (dx, (dh,), dw)}),
        ("state from step_vjp: expected .*float64.*, got .*float32", {"output": lambda a, x, w: (a, a.astype("f"))}),
        ("y from step_vjp: expected 3 outputs, got 1", {"output": lambda a, x, w: (a[:, :1], a)}),
        (r"y from step_vjp: expected \(n, O\)", {"output": lambda a, x, w: (a[0], a)}),
        ("step_vjp: expected argument 0 unchanged", {"output": lambda a, x, w: in_place(x, (a, a))}),
        (r"step_vjp: expected parameters\['w'\] unchanged", {"output": lambda a, x, w: in_place(w, (a, a))}),
        ("row 0 alone and in its batch", {"output": lambda a, x, w: (a - a.mean(axis=0), a), "skip": True}),
    ],
)
def test_check_cell_finds_errors(message, change):
    cell = altered(change)
    before = cell.flat_parameters.copy()
    if message is None:
        check_cell(cell)
        return
    if change.get("skip"):  # its gradients are right: centring over the batch is its own transpose
        plain = cell.step_vjp

        def step_vjp(x, h):
            output, pull_back = plain(x, h)
            return output, lambda dy, dh: pull_back(dy - dy.mean(axis=0), dh)

        cell.step_vjp = step_vjp
    with pytest.raises(AssertionError, match=message):
        check_cell(cell)
    assert "parameters" in message or np.array_equal(cell.flat_parameters, before)


def test_check_cell_wants_step_as_step_vjp():
    cell = PyLSTM(3, 5, dtype="float64", rng=0)
    plain = cell.step
    cell.step = lambda x, state: (2 * plain(x, state)[0], state)
    with pytest.raises(AssertionError, match="the output of step_vjp and that of step"):
        check_cell(cell)


def test_check_cell_takes_what_it_is_given(rng):
    cell = PyLSTM(3, 5, dtype="float64", rng=0)
    check_cell(cell, rng.standard_normal((7, 3)), tuple(rng.standard_normal((2, 7, 5))), rng=1, eps=1e-5, rtol=1e-5)
