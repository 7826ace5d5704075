"""The affine map: against the oracle, bits that no neighbour changes, padding that is not read, what is refused."""

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rnncore as rc
from cases import DTYPES, ISAS, worst_error
from rnncore import _core, reference
from rnncore.testing import check_gradients

linear, linear_vjp = rc.functional.linear, rc.functional.linear_vjp

ACTIVATIONS = [None, "tanh", "sigmoid", "relu"]
SIZES = [1, 7, 16, 17, 33, 128]
ROWS = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 33]
# Each size of I with each of O, and the numbers of rows and the activations take turns.
COVERING = [
    (ROWS[(5 * i + 2 * j) % len(ROWS)], I, O, ACTIVATIONS[(i + j) % 4])
    for i, I in enumerate(SIZES)
    for j, O in enumerate(SIZES)
]


def draw(rng, rows, I, O, dtype):
    """x, weight, bias and dy; rows is a number or a shape."""
    shape = (rows,) if isinstance(rows, int) else rows
    arrays = (
        rng.standard_normal((*shape, I)),
        rng.standard_normal((O, I)) / np.sqrt(max(I, 1)),
        rng.standard_normal(O),
        rng.standard_normal((*shape, O)),
    )
    return [a.astype(dtype) for a in arrays]


def assert_matches_reference(x, weight, bias, dy, **options):
    output_bound, gradient_bound = (1e-13, 1e-11) if weight.dtype == np.float64 else (2e-6, 2e-5)
    y, vjp = linear_vjp(x, weight, bias, **options)
    expected, expected_vjp = reference.linear_vjp(x, weight, bias, **options)
    assert y.dtype == weight.dtype
    assert worst_error(y, expected, max(1.0, np.abs(expected).max(initial=0))) <= output_bound
    assert np.array_equal(linear(x, weight, bias, **options), y)
    gradients, expected = vjp(dy), expected_vjp(dy)
    scale = max(1.0, *(np.abs(g).max(initial=0) for g in expected))
    for name, got, want in zip(gradients._fields, gradients, expected, strict=True):
        assert got.dtype == weight.dtype
        assert worst_error(got, want, scale) <= gradient_bound, f"gradient of {name}"


# ------------------------------------------------------------------------------------------------------------- values


@pytest.mark.parametrize("case", COVERING, ids=str)
def test_matches_reference(isa, dtype, case, rng):
    rows, I, O, activation = case
    x, weight, bias, dy = draw(rng, rows, I, O, dtype)
    assert_matches_reference(x, weight, bias if rows % 3 else None, dy, activation=activation)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("lengths", [[9, 4, 0, 1], [0, 0, 0, 0], [9, 9, 9, 9]], ids=str)
def test_ragged_matches_reference(isa, dtype, activation, lengths, rng):
    arguments = draw(rng, (4, 9), 17, 33, dtype)
    assert_matches_reference(*arguments, activation=activation, lengths=lengths)


def test_long_sums_match_reference(isa, rng):
    """Blocks of k in the product with W (1024) and in that with x; several chunks of rows."""
    assert_matches_reference(*draw(rng, 40, 2100, 5, np.float64))
    assert_matches_reference(*draw(rng, 40, 5, 2100, np.float64), activation="tanh")
    assert_matches_reference(*draw(rng, (3, 3000), 5, 3, np.float64), lengths=[3000, 17, 2999])


@given(
    data=st.data(),
    shape=st.lists(st.integers(0, 5), min_size=0, max_size=4),
    I=st.integers(0, 20),
    O=st.integers(1, 40),
    dtype=st.sampled_from(DTYPES),
    activation=st.sampled_from(ACTIVATIONS),
    isa=st.sampled_from(ISAS),
    with_bias=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_any_shape_matches_reference(data, shape, I, O, dtype, activation, isa, with_bias):
    rc.use_isa(isa)
    try:
        x, weight, bias, dy = draw(np.random.default_rng(data.draw(st.integers(0, 99))), tuple(shape), I, O, dtype)
        lengths = None
        if len(shape) == 2 and data.draw(st.booleans()):
            lengths = data.draw(st.lists(st.integers(0, shape[1]), min_size=shape[0], max_size=shape[0]))
        options = {"activation": activation, "lengths": lengths}
        assert_matches_reference(x, weight, bias if with_bias else None, dy, **options)
    finally:
        rc.use_isa(ISAS[0])


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("lengths", [None, [4, 0, 2]], ids=str)
def test_gradients_are_those_of_finite_differences(dtype, activation, lengths, rng):
    x, weight, bias, _ = draw(rng, (3, 4), 5, 6, dtype)
    check_gradients(
        lambda *arguments: linear_vjp(*arguments, activation=activation, lengths=lengths),
        [x, weight, bias],
        names=["x", "weight", "bias"],
    )


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradients_of_the_reference_are_those_of_finite_differences(activation, rng):
    arguments = draw(rng, (3, 4), 5, 6, np.float64)[:3]
    check_gradients(lambda *a: reference.linear_vjp(*a, activation=activation, lengths=[4, 0, 2]), arguments)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_torch_agrees(activation, rng):
    torch = pytest.importorskip("torch")
    x, weight, bias, dy = draw(rng, (5, 9), 33, 17, np.float64)
    tensors = [torch.tensor(a, requires_grad=True) for a in (x, weight, bias)]
    expected = torch.nn.functional.linear(*tensors)
    if activation:
        expected = getattr(torch, activation)(expected)
    expected.backward(torch.tensor(dy))
    y, vjp = linear_vjp(x, weight, bias, activation=activation)
    assert worst_error(y, expected.detach().numpy()) < 1e-13
    for got, tensor in zip(vjp(dy), tensors, strict=True):
        assert worst_error(got, tensor.grad.numpy()) < 1e-12


# --------------------------------------------------------------------------------------------------------------- bits


@pytest.mark.parametrize("O", SIZES)
@pytest.mark.parametrize("I", [1, 17, 128])
def test_a_row_alone_equals_the_row_among_any_others(isa, dtype, I, O, rng):
    x, weight, bias, dy = draw(rng, 33, I, O, dtype)
    whole, vjp = linear_vjp(x, weight, bias, activation="tanh")
    dx = vjp(dy).x
    for size in range(1, 10):
        rows = rng.permutation(33)[:size]
        y, vjp = linear_vjp(x[rows], weight, bias, activation="tanh")
        assert np.array_equal(y, whole[rows])
        assert np.array_equal(vjp(dy[rows]).x, dx[rows])
    assert np.array_equal(linear(x[20], weight, bias, activation="tanh"), whole[20])
    assert np.array_equal(linear(x.reshape(3, 11, I), weight, bias, activation="tanh"), whole.reshape(3, 11, O))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(("N", "T"), [(1, 8), (4, 9), (7, 90)])
def test_ragged_equals_the_valid_rows_alone(isa, dtype, activation, N, T, rng):
    x, weight, bias, dy = draw(rng, (N, T), 17, 33, dtype)
    lengths = rng.integers(0, T + 1, N)
    valid = np.arange(T) < lengths[:, None]
    y, vjp = linear_vjp(x, weight, bias, activation=activation, lengths=lengths)
    gradients = vjp(dy)
    y_alone, vjp = linear_vjp(x[valid], weight, bias, activation=activation)
    alone = vjp(dy[valid])
    assert np.array_equal(y[valid], y_alone)
    assert np.array_equal(gradients.x[valid], alone.x)
    assert np.array_equal(gradients.weight, alone.weight)
    assert np.array_equal(gradients.bias, alone.bias)
    assert not y[~valid].any()
    assert not gradients.x[~valid].any()


@pytest.mark.parametrize("activation", [None, "sigmoid"])
@pytest.mark.parametrize(("N", "T"), [(2, 3), (5, 40)])
def test_padding_is_not_read(isa, dtype, activation, N, T, rng):
    x, weight, bias, dy = draw(rng, (N, T), 7, 20, dtype)
    lengths = rng.integers(0, T, N)
    padding = np.arange(T) >= lengths[:, None]
    y, vjp = linear_vjp(x, weight, bias, activation=activation, lengths=lengths)
    expected = (y, *vjp(dy))
    x[padding], dy[padding] = np.nan, np.nan
    y, vjp = linear_vjp(x, weight, bias, activation=activation, lengths=lengths)
    for got, want in zip((y, *vjp(dy)), expected, strict=True):
        assert np.array_equal(got, want)


# Many rows, few rows of many outputs, several chunks of backward: each large enough for two threads and more.
@pytest.mark.parametrize(
    "shape", [((50, 40), 65, 97), ((1, 3), 700, 900), ((1, 20), 700, 900), ((2, 5000), 30, 40)], ids=str
)
def test_thread_count_changes_no_bit(isa, dtype, shape, rng, threads):
    x, weight, bias, dy = draw(rng, *shape, dtype)
    N, T = shape[0]
    for lengths in (None, rng.integers(T // 2, T + 1, N)):
        results = []
        for n in (1, 2, 7):
            threads(n)
            y, vjp = linear_vjp(x, weight, bias, activation="sigmoid", lengths=lengths)
            results.append((y, linear(x, weight, bias, activation="sigmoid", lengths=lengths), *vjp(dy)))
        assert np.array_equal(results[0][0], results[0][1])
        for other in results[1:]:
            assert all(np.array_equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_rows_without_a_gradient_change_no_bit(isa, dtype, rng):
    """Sums over rows run in one order, whatever way is taken: without packing (up to 8 rows), or in chunks."""
    for rows, more in [(1, 9), (8, 20), (300, 9000)]:
        x, weight, bias, dy = draw(rng, more, 17, 33, dtype)
        dy[rows:] = 0
        whole = linear_vjp(x, weight, bias)[1](dy)
        part = linear_vjp(x[:rows], weight, bias)[1](dy[:rows])
        assert np.array_equal(part.weight, whole.weight)
        assert np.array_equal(part.bias, whole.bias)


def test_pull_back_keeps_its_kernels_and_its_lengths(rng):
    x, weight, bias, dy = draw(rng, (3, 9), 17, 33, np.float32)
    lengths = np.array([9, 2, 5])
    expected = linear_vjp(x, weight, bias, lengths=lengths)[1](dy)
    _, vjp = linear_vjp(x, weight, bias, lengths=lengths)
    lengths[:] = 1
    rc.use_isa(ISAS[-1])
    try:
        results = []
        callers = [threading.Thread(target=lambda: results.append(vjp(dy))) for _ in range(4)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
    finally:
        rc.use_isa(ISAS[0])
    assert len(results) == 4
    for gradients in results:
        assert all(np.array_equal(a, b) for a, b in zip(gradients, expected, strict=True))


# ----------------------------------------------------------------------------------------------- types and what is odd


def test_arrays_are_converted_to_the_dtype_of_the_weight(rng):
    x, weight, bias, dy = draw(rng, (3, 4), 5, 6, np.float64)
    single = weight.astype(np.float32)
    expected_y, expected_vjp = linear_vjp(x.astype(np.float32), single, bias.astype(np.float32))
    y, vjp = linear_vjp(np.asfortranarray(x), single, bias.tolist())
    assert np.array_equal(y, expected_y)
    for got, want in zip(vjp(dy[..., ::-1][..., ::-1]), expected_vjp(dy.astype(np.float32)), strict=True):
        assert np.array_equal(got, want)
    assert linear([1, 2], [[3, 4]]).dtype == np.float64
    assert linear([1, 2], np.float16([[3, 4]])).dtype == np.float32


def test_values_that_are_not_finite_stay_in_their_row(isa, dtype, rng):
    x, weight, bias, _ = draw(rng, 40, 5, 20, dtype)
    expected = linear(x, weight, bias, activation="relu")
    x[3, 2], x[17, 0] = np.nan, np.inf
    y = linear(x, weight, bias, activation="relu")
    assert np.isnan(y[3]).all()
    fine = np.delete(np.arange(40), [3, 17])
    assert np.array_equal(y[fine], expected[fine])


def test_no_inputs_give_the_bias(isa, dtype, rng):
    for rows in (1, 20):
        x, weight, bias, dy = draw(rng, rows, 0, 7, dtype)
        y, vjp = linear_vjp(x, weight, bias)
        assert np.array_equal(y, np.broadcast_to(bias, (rows, 7)))
        gradients = vjp(dy)
        assert gradients.x.shape == (rows, 0)
        assert gradients.weight.shape == (7, 0)
        np.testing.assert_allclose(gradients.bias, dy.sum(axis=0), rtol=1e-4, atol=1e-5)


# ----------------------------------------------------------------------------------------------------- what is refused


X, W, B = np.zeros((2, 3, 5), np.float32), np.zeros((7, 5), np.float32), np.zeros(7, np.float32)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"x": X[..., :4]}, ValueError, r"x: expected float32 (..., 5), got float32 (2, 3, 4)"),
        ({"x": 1.0}, ValueError, r"x: expected float32 (..., 5), got float32 ()"),
        ({"x": X.astype(complex)}, TypeError, r"x: expected real numbers, got complex128"),
        ({"weight": W[0]}, ValueError, r"weight: expected float32 (O, I), got float32 (5,)"),
        ({"weight": W[:0]}, ValueError, r"weight: expected at least one output, got float32 (0, 5)"),
        ({"weight": W.astype(object)}, TypeError, r"weight: expected real numbers of at most 64 bits, got object"),
        ({"bias": B[:6]}, ValueError, r"bias: expected float32 (7,), got float32 (6,)"),
        ({"bias": B[:, None]}, ValueError, r"bias: expected float32 (7,), got float32 (7, 1)"),
        ({"bias": B.astype("U3")}, TypeError, r"bias: expected real numbers, got <U3"),
        ({"lengths": [3, 1, 2]}, ValueError, r"lengths: expected integers (2,), got int64 (3,)"),
        ({"lengths": [3, 4]}, ValueError, r"lengths: expected values from 0 to T = 3, got 4 at row 1"),
        ({"lengths": [-1, 3]}, ValueError, r"lengths: expected values from 0 to T = 3, got -1 at row 0"),
        ({"lengths": [1.0, 3.0]}, TypeError, r"lengths: expected integers, got float64"),
        (
            {"x": X[0], "lengths": [3]},
            ValueError,
            r"x: expected float32 (N, T, 5) since lengths are given, got float32 (3, 5)",
        ),
        ({"activation": "gelu"}, ValueError, r"activation: expected None, 'tanh', 'sigmoid' or 'relu', got 'gelu'"),
        ({"activation": ["tanh"]}, ValueError, r"activation: expected None, 'tanh', 'sigmoid' or 'relu', got ['tanh']"),
    ],
)
@pytest.mark.parametrize("function", [linear, linear_vjp])
def test_wrong_arguments_are_refused_by_name(function, changes, error, message):
    with pytest.raises(error) as raised:
        function(**{"x": X, "weight": W, "bias": B, **changes})
    assert str(raised.value) == message


@pytest.mark.parametrize(
    ("dy", "error", "message"),
    [
        (np.zeros((2, 3, 6)), ValueError, "dy: expected float32 (2, 3, 7), got float32 (2, 3, 6)"),
        (np.zeros((6, 7)), ValueError, "dy: expected float32 (2, 3, 7), got float32 (6, 7)"),
        (0.0, ValueError, "dy: expected float32 (2, 3, 7), got float32 ()"),
        (None, TypeError, "dy: expected real numbers, got object"),
    ],
)
def test_wrong_cotangents_are_refused(dy, error, message):
    _, vjp = linear_vjp(X, W, B)
    with pytest.raises(error) as raised:
        vjp(dy)
    assert str(raised.value) == message


def test_the_core_converts_nothing():
    lengths = np.array([3, 1])
    fine = (_core.Activation.none, X, W, B, lengths)
    for function in (_core.linear, _core.record_linear):
        assert function(*fine) is not None
        for index in (1, 2, 3):
            for wrong in (fine[index].astype(np.float64), fine[index].T[::-1].T, fine[index].tolist()):
                assert function(*fine[:index], wrong, *fine[index + 1 :]) is None
        assert function(*fine[:4], lengths.astype(np.int32)) is None
        for value in (-1, 4):
            with pytest.raises(ValueError, match=f"^activation: .* {value}$"):
                function(_core.Activation(value), *fine[1:])
    y, recording = _core.record_linear(*fine)
    assert recording.backward(y.astype(np.float64)) is None
    assert recording.backward(y.tolist()) is None
    assert recording.backward(y) is not None
