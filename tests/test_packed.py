"""Sequences without padding: `Packed`, lists of arrays and masks, against padded batches and single sequences."""

import pickle
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import rnncore as rc
from cases import CELLS, DTYPES
from rnncore import _core

LENGTHS = np.array([4, 0, 9, 9, 1, 6, 9])
N, T, I, H = 7, 11, 5, 17
MASK = np.arange(T) < LENGTHS[:, None]
SHAPES = st.tuples(st.lists(st.integers(0, 6), max_size=6), st.integers(0, 2), st.booleans())
LAYERS = [rc.RNN, rc.LSTM, rc.GRU]


def same(a, b):
    """Whether two results, of any kind, have the same bits and the same kind."""
    if isinstance(a, tuple | list):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, rc.Packed):
        return isinstance(b, rc.Packed) and a.arranged("", b) is b.data and same(a.data, b.data)
    return a is b is None or (a.dtype == b.dtype and np.array_equal(a, b))


def pieces(x, lengths=LENGTHS):
    return [row[:length].copy() for row, length in zip(x, lengths, strict=True)]


def draw(rng, dtype=np.float32, width=I):
    """A padded batch, with what must not be read as padding, and the same as each kind of series."""
    x = rng.standard_normal((N, T, width)).astype(dtype)
    x[~MASK] = np.nan
    return x, {"list": pieces(x), "Packed": rc.Packed.from_padded(x, LENGTHS)}


def as_padded(series, steps=T):
    packed = rc.Packed.from_list(series) if isinstance(series, list) else series
    return packed.to_padded(steps)[0]


# ------------------------------------------------------------------------------------------------ Packed itself


@given(SHAPES, st.integers(0, 3))
def test_padded_and_back(shape, more):
    lengths, axes, batch_first = shape
    lengths = np.array(lengths, np.int64)
    steps = int(lengths.max(initial=0)) + more
    x = np.arange(1, len(lengths) * steps * 3**axes + 1).reshape(len(lengths), steps, *[3] * axes)
    given_x = x if batch_first else x.swapaxes(0, 1)
    mask = np.arange(steps) < lengths[:, None]
    packed = rc.Packed.from_padded(given_x, lengths, batch_first)
    assert len(packed) == packed.N == len(lengths)
    assert packed.lengths.tolist() == lengths.tolist()
    assert packed.data.shape == (lengths.sum(), *x.shape[2:])
    assert packed.batch_sizes.tolist() == [(lengths > t).sum() for t in range(lengths.max(initial=0))]
    assert (np.diff(lengths[packed.sorted_indices]) <= 0).all()
    assert packed.sorted_indices[packed.unsorted_indices].tolist() == list(range(len(lengths)))
    assert same(packed, rc.Packed.from_padded(given_x, mask, batch_first))
    back, back_lengths = packed.to_padded(steps, batch_first, fill=-1)
    expected = np.where(mask.reshape(*mask.shape, *[1] * axes), x, -1)
    assert np.array_equal(back if batch_first else back.swapaxes(0, 1), expected)
    assert back_lengths.tolist() == lengths.tolist()
    sequences = packed.to_list()
    assert same(sequences, pieces(x, lengths))
    if sequences:
        assert same(rc.Packed.from_list(sequences), packed)
    assert same(packed.with_data(packed.data), packed)
    assert same(pickle.loads(pickle.dumps(packed)), packed)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=6), st.randoms())
def test_any_order_of_equal_lengths(lengths, random):
    keys = [(-length, random.random()) for length in lengths]
    order = sorted(range(len(lengths)), key=keys.__getitem__)
    sizes = [sum(length > t for length in lengths) for t in range(max(lengths))]
    data = np.array([(n, t) for t, size in enumerate(sizes) for n in order[:size]], int).reshape(-1, 2)
    packed = rc.Packed(data, sizes, order)
    expected = [np.array([(n, t) for t in range(length)], int).reshape(-1, 2) for n, length in enumerate(lengths)]
    assert same(packed.to_list(), expected)
    assert same(packed.arranged("x", expected), data)


def test_memory_is_shared_where_it_can_be(rng):
    x = rng.standard_normal((3, 5, 2))
    for packed in (
        rc.Packed.from_padded(x, batch_first=False),
        rc.Packed.from_padded(x, [2] * 5, batch_first=False),
        rc.Packed.from_padded(x[:1], [4]),
        rc.Packed.from_list([x[0]]),
        rc.Packed(x[0], [5]),
    ):
        assert np.shares_memory(packed.data, x)
        batch_first = packed.N == 1
        assert np.shares_memory(packed.to_padded(batch_first=batch_first)[0], x)
    assert np.shares_memory(rc.Packed.from_list([x[0]]).to_list()[0], x)


def test_functions_of_elements(rng):
    _, series = draw(rng)
    a = series["Packed"]
    scale = np.arange(5, dtype=np.float32)
    assert same(2 * a + a, a.with_data(2 * a.data + a.data))
    assert same(np.tanh(a * scale), a.with_data(np.tanh(a.data * scale)))
    assert same(np.divmod(a, 2)[1], a.with_data(np.divmod(a.data, 2)[1]))
    other = rc.Packed.from_list([np.ones((3, 5))])
    for make, error, message in [
        (lambda: a + other, ValueError, r"operand: expected the structure of Packed\(7 seq.*, got Packed\(1 seq"),
        (lambda: a + a.data, ValueError, "operand: expected fewer axes than the rows"),
        (lambda: np.add.reduce(a), TypeError, "not implemented|__array_ufunc__"),
        (lambda: np.asarray(a), TypeError, r"expected an array, got Packed\(7 sequences, 38 steps"),
    ]:
        with pytest.raises(error, match=message):
            make()


def test_packed_is_immutable_and_says_what_it_is():
    packed = rc.Packed([[1.0], [2.0], [3.0]], [2, 1], [1, 0, 2])
    assert repr(packed) == "Packed(3 sequences, 3 steps, data=float64 (3, 1))"
    assert packed.dtype == np.float64
    with pytest.raises(AttributeError):
        packed.data = 1
    for array in (packed.batch_sizes, packed.sorted_indices):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 5


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: rc.Packed([1, 2], [1, 2]),
            ValueError,
            "batch_sizes: .* from 1 to 1, since .* got 2 at step 1",
        ),
        (lambda: rc.Packed([1, 2], [2, 0]), ValueError, "batch_sizes: expected values from 1 to 2, .* got 0 at step 1"),
        (lambda: rc.Packed([1, 2], [2], [0]), ValueError, "batch_sizes: .* the number of sequences, got 2 at step 0"),
        (lambda: rc.Packed([1, 2], [1.0]), TypeError, "batch_sizes: expected integers, got float64"),
        (lambda: rc.Packed([1, 2], [[1]]), ValueError, r"batch_sizes: expected one axis, got \(1, 1\)"),
        (
            lambda: rc.Packed([1, 2], [2], [0, 0]),
            ValueError,
            "sorted_indices: .* each of 0 to 1 once, got 0 at 1",
        ),
        (lambda: rc.Packed([1, 2], [2], [0, 2]), ValueError, "sorted_indices: .*, got 2 at 1"),
        (lambda: rc.Packed([1, 2], [2], [1, 0], [0, 1]), ValueError, "unsorted_indices: expected the inverse"),
        (lambda: rc.Packed([1, 2, 3], [2]), ValueError, r"data: expected 2 rows, the sum of batch_sizes, got \(3,\)"),
        (lambda: rc.Packed([1, 2], [2]).with_data([1]), ValueError, r"data: expected 2 rows, got \(1,\)"),
        (lambda: rc.Packed.from_list([]), ValueError, "arrays: expected at least one, got none"),
        (
            lambda: rc.Packed.from_list([np.ones((2, 3)), np.ones((2, 4))]),
            ValueError,
            r"arrays\[1\]: expected \(T, 3\) as arrays\[0\], got \(2, 4\)",
        ),
        (lambda: rc.Packed.from_padded([1, 2]), ValueError, r"x: expected \(N, T, \.\.\.\), got \(2,\)"),
        (lambda: rc.Packed.from_padded([[1, 2]], [3]), ValueError, "lengths: .* 0 to T = 2, got 3 at row 0"),
        (lambda: rc.Packed([1, 2], [1, 1]).to_padded(1), ValueError, "steps: expected 2 or more, .* got 1"),
        (lambda: rc.Packed.from_torch_packed(3), TypeError, "packed: expected a PackedSequence, got int"),
    ],
)
def test_what_is_no_packed_is_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


# --------------------------------------------------------------------------------------------------- functional


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("every", [None, 3])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_functions_have_the_bits_of_padded_batches(cell, dtype, every, reverse, rng):
    arguments = cell.arguments(rng, (T, N, I, H), dtype)
    arguments["x"], series = draw(rng, dtype)
    options = {"reverse": reverse, "checkpoint_every": every}
    outputs, vjp = cell.vjp(rc.functional, arguments, lengths=LENGTHS, **options)
    dy, dys = draw(rng, dtype, H)
    dlast = [rng.standard_normal((N, H)).astype(dtype) for _ in outputs[1:]]
    gradients = vjp(dy, *dlast)
    masked = cell.vjp(rc.functional, arguments, lengths=MASK, **options)
    assert same(masked[0], outputs)
    assert same(masked[1](dy, *dlast), gradients)
    for kind, x in series.items():
        got, vjp = cell.vjp(rc.functional, {**arguments, "x": x}, **options)
        assert type(got) is type(outputs)
        assert type(got.y).__name__ == kind
        assert same(as_padded(got.y), outputs.y)
        assert same(got[1:], outputs[1:])
        assert same(cell.forward(rc.functional, {**arguments, "x": x}, reverse=reverse), got)
        pulled = vjp(dys[kind], *dlast)
        assert type(pulled.x).__name__ == kind
        assert same(as_padded(pulled.x), gradients.x)
        assert same(pulled[1:], gradients[1:])
        assert same(vjp(None, *dlast)[1:], masked[1](None, *dlast)[1:])


def test_large_batches_are_kept_in_groups(rng, threads):
    lengths = rng.integers(0, 7, 700)
    cell = CELLS[2]
    arguments = cell.arguments(rng, (6, 700, I, H), np.float32)
    outputs, vjp = cell.vjp(rc.functional, arguments, lengths=lengths)
    gradients = vjp(outputs.y)
    for n in (1, 2):
        threads(n)
        for x in (rc.Packed.from_padded(arguments["x"], lengths), pieces(arguments["x"], lengths)):
            got, vjp = cell.vjp(rc.functional, {**arguments, "x": x})
            assert same(as_padded(got.y, 6), outputs.y)
            assert same(vjp(got.y)[1:], gradients[1:])


def test_linear_on_rows(rng):
    x, series = draw(rng)
    weight, bias = rng.standard_normal((H, I), np.float32), rng.standard_normal(H, np.float32)
    y, vjp = rc.functional.linear_vjp(x, weight, bias, activation="tanh", lengths=MASK)
    gradients = vjp(y)
    for kind, rows in series.items():
        got, vjp = rc.functional.linear_vjp(rows, weight, bias, activation="tanh")
        assert type(got).__name__ == kind
        assert same(as_padded(got), y)
        assert same(rc.functional.linear(rows, weight, bias, activation="tanh"), got)
        assert same(as_padded(vjp(got).x), gradients.x)
        if kind == "list":
            assert same(vjp(got)[1:], gradients[1:])


def test_rows_of_another_dtype_are_converted(rng):
    cell = CELLS[3]
    arguments = cell.arguments(rng, (T, N, I, H), np.float64)
    _, series = draw(rng, np.float32)
    for x in series.values():
        (y, h_n), vjp = cell.vjp(rc.functional, {**arguments, "x": x})
        assert same(h_n, cell.forward(rc.functional, {**arguments, "x": as_padded(x)}, lengths=LENGTHS).h_n)
        assert vjp(y).w_ih.dtype == np.float64


# ------------------------------------------------------------------------------------------- layers and models


def models(kind, dtype):
    make = partial(kind, dtype=dtype, rng=0)
    yield make(I, H)
    yield make(I, H, num_layers=2, bidirectional=True, checkpoint_every=4)
    yield make(I, H, bias=False).frozen()
    yield rc.Sequential(make(I, H), rc.LayerNorm(H, dtype=dtype), rc.Activation("relu"), rc.Linear(H, 3, dtype=dtype))
    yield rc.Sequential(make(I, H), rc.Last())
    yield rc.Sequential(make(I, H), rc.MeanPool(), rc.Linear(H, 3, dtype=dtype))
    yield rc.Residual(make(I, I))
    yield rc.Concat(make(I, H), rc.Linear(I, 2, dtype=dtype))


@pytest.mark.parametrize("which", range(8))
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", LAYERS)
def test_layers_have_the_bits_of_padded_batches(kind, dtype, which, rng):
    model = list(models(kind, dtype))[which]
    run = model if isinstance(model, rc.Frozen) else model.run
    x, series = draw(rng, dtype)
    y, state = run(x, None, LENGTHS)
    assert same(run(x, None, MASK), (y, state))
    for n, alone in enumerate(series["list"]):
        got, _ = run(alone[None])
        assert same(got[0], y[n] if y.ndim == 2 else y[n, : LENGTHS[n]])
    if not isinstance(model, rc.Frozen):
        dy = rng.standard_normal(y.shape).astype(dtype)
        dys = {"list": pieces(dy), "Packed": rc.Packed.from_padded(dy, LENGTHS)} if y.ndim == 3 else {}
        model.zero_gradients()
        dx, dstate = model.vjp(x, None, LENGTHS)[1](dy)
        gradients = {name: value.copy() for name, value in model.gradients.items()}
    for name, rows in series.items():
        got, new = run(rows)
        assert type(got).__name__ == (name if y.ndim == 3 else "ndarray")
        assert same(got if y.ndim == 2 else as_padded(got), y)
        assert same(new, state)
        if isinstance(model, rc.Frozen):
            continue
        model.zero_gradients()
        output, pull_back = model.vjp(rows)
        assert same(output, (got, new))
        got_dx, got_dstate = pull_back(dys.get(name, dy))
        assert type(got_dx).__name__ == name
        assert same(as_padded(got_dx), dx)
        assert same(got_dstate, dstate)
        for parameter, gradient in model.gradients.items():
            # where rows are summed step by step in the one and sequence by sequence in the other, digits may differ
            in_order = "_hh_" in parameter or "_ih_" in parameter or name == "list"
            expected = gradients[parameter]
            assert same(gradient, expected) if in_order else np.allclose(gradient, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("vocabulary", [3, 500])  # far fewer than steps, and more
@pytest.mark.parametrize("padding_index", [None, 0])
def test_tokens(vocabulary, padding_index, rng):
    tokens = rng.integers(0, vocabulary, (N, T))
    tokens[~MASK] = -9
    embedding = rc.Embedding(vocabulary, I, padding_index, rng=0)
    model = rc.Sequential(embedding, rc.GRU(I, H, rng=0), rc.Last())
    y, _ = model.run(tokens, None, LENGTHS)
    model.vjp(tokens, None, LENGTHS)[1](y)
    gradients = model.flat_gradients.copy()
    for x in (pieces(tokens), rc.Packed.from_padded(tokens, LENGTHS)):
        model.zero_gradients()
        (got, _), pull_back = model.vjp(x)
        assert pull_back(got)[0] is None
        assert same(got, y)
        assert same(model.flat_gradients, gradients)
        assert same(as_padded(embedding(x)), embedding(tokens, LENGTHS))
    with pytest.raises(ValueError, match=f"x: expected tokens from 0 to {vocabulary - 1}, got 500 at row 1"):
        model([np.array([0, 500]), np.array([0])])


def test_dropout_draws_for_valid_steps_alone(rng):
    _, series = draw(rng)
    layer = rc.LSTM(I, H, num_layers=2, dropout=0.5, rng=0)
    layer.rng = np.random.default_rng(3)
    (y, _), pull_back = layer.vjp(series["Packed"])
    assert pull_back(y)[0].data.shape == (LENGTHS.sum(), I)
    drawn = np.random.default_rng(3)
    drawn.random((LENGTHS.sum(), H), np.float32)
    assert layer.rng.bit_generator.state == drawn.bit_generator.state


@pytest.mark.parametrize("lengths", [[], [0], [0, 0, 0]], ids=str)
def test_nothing_to_compute(lengths, rng):
    x = np.zeros((len(lengths), 4, I), np.float32)
    packed = rc.Packed.from_padded(x, np.array(lengths, np.int64))
    assert packed.data.shape == (0, I)
    layer = rc.LSTM(I, H, num_layers=2, bidirectional=True, rng=0)
    state = tuple(rng.standard_normal((4, len(lengths), H)).astype(np.float32) for _ in range(2))
    for series in [packed, pieces(x, lengths)][: 2 if lengths else 1]:
        (y, last), pull_back = layer.vjp(series, state)
        assert same(last, state)
        assert same(layer.run(series, state), (y, last))
        dx, dstate = pull_back(y, last)
        assert type(dx) is type(series)
        assert same(dstate, state)
        assert not layer.flat_gradients.any()
        assert rc.Sequential(rc.MeanPool())(series).shape == (len(lengths), I)


def test_layers_of_ones_own_take_what_has_no_padding(rng):
    class Scale(rc.Layer):
        def __call__(self, x, lengths=None):
            return 0.5 * x

        def vjp(self, x, state=None, lengths=None):
            return (self(x), None), lambda dy=None, dstate=None: (0.5 * dy, None)

    model = rc.Sequential(Scale(), rc.GRU(I, H, rng=0))
    x, series = draw(rng)
    y, _ = model.run(x, None, LENGTHS)
    for rows in series.values():
        (got, _), pull_back = model.vjp(rows)
        assert same(as_padded(got), y)
        assert type(pull_back(got)[0]) is type(rows)


def test_what_looks_like_a_list_but_is_an_array():
    layer = rc.GRU(2, 3, rng=0)
    steps = [np.array([1.0, 2.0]), np.array([3.0, 4.0])]
    assert same(layer(steps)[0], layer(np.array(steps))[0])
    assert same(layer([[[1.0, 2.0]]])[0], layer(np.array([[[1.0, 2.0]]]))[0])
    assert rc.Sequential(rc.Repeat(2))(steps).shape == (2, 2, 2)


X, PACKED = np.ones((2, 3, I), np.float32), rc.Packed.from_padded(np.ones((2, 3, I), np.float32), [3, 1])
LAYER, LINEAR = rc.GRU(I, H, rng=0), rc.Linear(I, 2, rng=0)
BAD_MASK = np.array([[True, True, True], [True, False, True]])


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: LAYER(PACKED, None, [3, 1]), ValueError, "lengths: expected None, since x has its own, got list"),
        (lambda: LINEAR(PACKED, [3, 1]), ValueError, "lengths: expected None, since x has its own"),
        (lambda: LAYER([X[0]], None, [3]), ValueError, "lengths: expected None, since x has its own"),
        (lambda: rc.Sequential(rc.Linear(I, 2))([X[0]], [3]), ValueError, "lengths: ex"),
        (
            lambda: LAYER(PACKED.with_data(PACKED.data[:, :2])),
            ValueError,
            r"x: expected steps of 5 values, got .* \(4, 2",
        ),
        (lambda: LAYER([X[0], X[1, :, :2]]), ValueError, r"x\[1\]: expected \(T, 5\) as x\[0\], got \(3, 2\)"),
        (lambda: LAYER([X[0], X[0, 0]]), ValueError, r"x\[1\]: expected \(T, 5\) as x\[0\], got \(5,\)"),
        (
            lambda: LAYER(PACKED, np.zeros((1, 3, H))),
            ValueError,
            r"state: expected shape \(1, 2, 17\), got \(1, 3",
        ),
        (lambda: LAYER.vjp(PACKED)[1](X), TypeError, r"dy: expected a list of 2 arrays or Packed, got an array"),
        (lambda: LAYER.vjp(PACKED)[1]([X[0]]), ValueError, r"dy: expected arrays of \[3, 1\] steps, got 1 arrays"),
        (lambda: LAYER.vjp([X[0]])[1](PACKED), ValueError, "dy: expected the structure of Joined"),
        (lambda: rc.Repeat(2)(PACKED), ValueError, r"x: expected \(N, C\), got Packed"),
        (lambda: LAYER(X, None, BAD_MASK), ValueError, "lengths: expected a mask .* got True at step 2 of row 1 after"),
        (lambda: LINEAR(X, BAD_MASK), ValueError, "lengths: expected a mask .* got True at step 2 of row 1 after"),
        (lambda: rc.MSE()(X, X, BAD_MASK), ValueError, "lengths: expected a mask .* got True at step 2 of row 1 after"),
        (lambda: LAYER(X, None, BAD_MASK[:, :2]), ValueError, r"lengths: expected a mask \(2, 3\), got bool \(2, 2\)"),
        (lambda: LAYER(X[0], None, BAD_MASK), ValueError, "lengths: expected 1 dimensions since x has no batch axis"),
    ],
)
def test_what_does_not_fit_is_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_the_core_refuses_rows_that_do_not_fit(rng):
    joined, weights = _core.Ragged.joined, (np.zeros((3 * H, I)), np.zeros((3 * H, H)))
    for lengths, message in [([-1], "lengths: .* got -1"), ([2**60, 2**60], "lengths: .* got")]:
        with pytest.raises(ValueError, match=message):
            joined(np.array(lengths))
    rest = (*weights, *(None,) * 4)
    with pytest.raises(ValueError, match=r"x: expected 3 rows, got float64 \(2, 5\)"):
        _core.forward(_core.Cell.gru, np.zeros((2, I)), *rest, joined(np.array([3])), False, True)
    with pytest.raises(ValueError, match="x: expected float64 \\(R, 5\\), got float64 \\(1, 2, 5\\)"):
        _core.forward(_core.Cell.gru, np.zeros((1, 2, I)), *rest, joined(np.array([2])), False, True)
    table = np.zeros((4, I))
    for tokens, lengths in [(np.zeros(3, np.int64), None), (np.zeros((1, 3), np.int64), joined(np.array([1])))]:
        lookup = _core.Lookup(table, tokens, np.zeros_like(table))
        with pytest.raises(ValueError, match="x: expected tokens"):
            _core.forward(_core.Cell.gru, lookup, *rest, lengths, False, True)


def test_a_mask_of_one_sequence(rng):
    layer, x = rc.LSTM(I, H, rng=0), rng.standard_normal((T, I)).astype(np.float32)
    mask = np.arange(T) < 4
    assert same(layer(x, None, mask), layer(x, None, 4))
    w = [rng.standard_normal(shape) for shape in [(4 * H, I), (4 * H, H)]]
    assert same(rc.functional.lstm(x, *w, lengths=mask), rc.functional.lstm(x, *w, lengths=4))


# ------------------------------------------------------------------------------------------ losses and training

LOSSES = [
    (rc.CrossEntropy(label_smoothing=0.1), 4, lambda rng, y: rng.integers(0, 4, y.shape[:2])),
    (rc.CrossEntropy(ignore_index=2), 4, lambda rng, y: rng.integers(0, 4, y.shape[:2])),
    (rc.BinaryCrossEntropy(), 4, lambda rng, y: rng.random(y.shape)),
    (rc.MSE(), 4, lambda rng, y: rng.standard_normal(y.shape)),
    (rc.Quantile([0.1, 0.9]), 2, lambda rng, y: rng.standard_normal(y.shape[:2])),
    (rc.GaussianNLL(), 4, lambda rng, y: rng.standard_normal((N, T, 2))),
    (rc.CTC(), 4, lambda rng, y: [[1, 2], [], [3, 1, 2], [2], [1], [], [3]]),
]


@pytest.mark.parametrize("weighted", ["no", "sequences", "steps"])
@pytest.mark.parametrize(("loss", "width", "targets_for"), LOSSES, ids=lambda value: str(value)[:20])
def test_losses_on_rows(loss, width, targets_for, weighted, rng):
    y, series = draw(rng, np.float64, width)
    targets = targets_for(rng, y)
    weights = {"no": None, "sequences": rng.random(N), "steps": rng.random((N, T))}[weighted]
    ctc = isinstance(loss, rc.CTC)
    if ctc and weighted == "steps":
        pytest.skip("CTC weighs sequences")
    expected = loss.with_gradient(y, targets, LENGTHS, weights)
    assert expected.weight > 0
    masked = loss.with_gradient(y, targets, MASK, weights)
    assert masked[:2] == expected[:2]
    assert same(masked.gradient, expected.gradient)
    for kind, rows in series.items():
        of_rows = targets if ctc else pieces(targets)
        of_steps = pieces(weights) if weighted == "steps" else weights
        as_packed = of_rows if ctc or kind == "list" else rc.Packed.from_list(of_rows)
        for given_targets in (of_rows, as_packed):
            got = loss.with_gradient(rows, given_targets, None, of_steps)
            assert np.allclose(got[:2], expected[:2], rtol=1e-13)
            assert type(got.gradient).__name__ == kind
            assert np.allclose(as_padded(got.gradient), expected.gradient, rtol=1e-13, atol=0)
            assert loss(rows, given_targets, None, of_steps) == got.value


@pytest.mark.parametrize("name", ["accuracy", "perplexity", "mae", "label_error_rate"])
def test_metrics_on_rows(name, rng):
    metric = rc.metrics.named(name)
    y, series = draw(rng, np.float64, 4)
    y[~MASK] = 0
    targets = rng.standard_normal(y.shape) if name == "mae" else rng.integers(1, 4, (N, T))
    expected = metric.measure(y, targets if name != "label_error_rate" else pieces(targets), LENGTHS)
    for rows in series.values():
        assert np.allclose(metric.measure(rows, pieces(targets)), expected, rtol=1e-13)


class OneBatch:
    def __init__(self, *batch):
        self.batch = rc.data.Batch(*batch)

    def epoch(self, rng=None):
        return [self.batch]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_training_on_rows(accumulate, rng):
    x, series = draw(rng)
    targets = rng.integers(0, 3, (N, T))
    results = []
    batches = [(x, targets, LENGTHS), (series["list"], pieces(targets)), (series["Packed"], pieces(targets))]
    for batch in [*batches, (x, targets, MASK)]:
        model = rc.Sequential(rc.GRU(I, H, rng=0, dtype=np.float32), rc.Linear(H, 3, rng=1))
        trainer = rc.Trainer(model, rc.CrossEntropy(), rc.SGD(0.1), metrics=["accuracy"], accumulate=accumulate)
        history = trainer.fit(OneBatch(*batch), epochs=2)
        results.append((model.flat_parameters.copy(), trainer.evaluate(OneBatch(*batch))))
        value, _ = trainer.step(*batch)
        assert np.isfinite(value)
        assert len(history) == 2
    for parameters, figures in results[1:]:
        assert np.allclose(parameters, results[0][0], rtol=1e-4, atol=1e-6)
        assert figures == pytest.approx(results[0][1], rel=1e-5)
    trainer = rc.Trainer(model, rc.CrossEntropy(), rc.SGD(0.1), tbptt=3)
    with pytest.raises(ValueError, match="tbptt: expected batches with padding"):
        trainer.fit(OneBatch(*batches[1]), epochs=1)


def test_data_sets_take_packed_and_masks(rng):
    x, series = draw(rng)
    targets = rng.integers(0, 3, (N, T))
    from_list = rc.data.Sequences(series["list"], pieces(targets), per_step=True, batch_size=3)
    packed_targets = rc.Packed.from_padded(targets, LENGTHS)
    for data in (
        rc.data.Sequences(series["Packed"], packed_targets, per_step=True, batch_size=3),
        rc.data.Sequences(x, targets, per_step=True, lengths=MASK, batch_size=3),
    ):
        assert same([tuple(batch[:3]) for batch in data], [tuple(batch[:3]) for batch in from_list])


def test_truncated_bptt_takes_masks(rng):
    x, _ = draw(rng)
    targets = rng.integers(0, 3, (N, T))
    results = []
    for lengths in (LENGTHS, MASK):
        model = rc.Sequential(rc.GRU(I, H, rng=0), rc.Linear(H, 3, rng=1))
        rc.Trainer(model, rc.CrossEntropy(), rc.SGD(0.1), tbptt=4).fit(OneBatch(x, targets, lengths), epochs=2)
        results.append(model.flat_parameters)
    assert same(*results)


def test_predictions_on_rows(rng):
    x, series = draw(rng)
    many, one = rc.Sequential(rc.GRU(I, H, rng=0)), rc.Sequential(rc.GRU(I, H, rng=0), rc.Last())
    for model in (many, one):
        trainer = rc.Trainer(model, rc.MSE(), rc.SGD(0.1))
        expected = trainer.predict(x, LENGTHS)
        assert same(trainer.predict(x, MASK, batch_size=3), expected)
        for kind, rows in series.items():
            got = trainer.predict(rows, batch_size=3)
            assert type(got).__name__ == (kind if model is many else "ndarray")
            assert same(as_padded(got) if model is many else got, expected)


# --------------------------------------------------------------------------------------------------------- torch


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True}], ids=str)
def test_packed_agrees_with_torch(kind, options, rng):
    torch = pytest.importorskip("torch")
    lengths = [4, 9, 9, 1, 6]
    tensors = [torch.tensor(rng.standard_normal((n, I)), dtype=torch.float32) for n in lengths]
    theirs = torch.nn.utils.rnn.pack_sequence(tensors, enforce_sorted=False)
    packed = rc.Packed.from_torch_packed(theirs)
    assert np.shares_memory(packed.data, theirs.data.numpy())
    assert packed.lengths.tolist() == lengths
    assert same(packed.to_list(), [tensor.numpy() for tensor in tensors])
    assert packed.batch_sizes.tolist() == rc.Packed.from_list(packed.to_list()).batch_sizes.tolist()
    layer, torch_layer = kind(I, H, **options, rng=0), getattr(torch.nn, kind.__name__)(I, H, **options)
    torch_layer.load_state_dict({name: torch.tensor(value) for name, value in layer.parameters.items()})
    data = theirs.data.clone().requires_grad_()
    their_y, their_state = torch_layer(torch.nn.utils.rnn.PackedSequence(data, *theirs[1:]))
    (y, state), pull_back = layer.vjp(packed)
    close = {"rtol": 1e-5, "atol": 1e-5}
    assert np.allclose(y.data, their_y.data.detach(), **close)
    parts = zip(state, their_state, strict=True) if isinstance(state, tuple) else [(state, their_state)]
    assert all(np.allclose(ours, other.detach(), **close) for ours, other in parts)
    their_y.data.square().sum().backward()
    dx, _ = pull_back(2 * y)
    assert np.allclose(dx.data, data.grad, **close)
    for name, parameter in torch_layer.named_parameters():
        assert np.allclose(layer.gradients[name], parameter.grad, rtol=1e-4, atol=1e-4), name
