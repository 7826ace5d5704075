"""Losses of steps: values and gradients, what counts and what does not, and what is refused."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rnncore as rc
from cases import DTYPES, ISAS, worst_error
from rnncore.testing import check_gradients

# A loss, the shape of its outputs and what draws targets for N rows and T steps.
LOSSES = {
    "cross_entropy": (rc.CrossEntropy(), (7,), lambda rng, *NT: rng.integers(0, 7, NT)),
    "smoothed": (rc.CrossEntropy(label_smoothing=0.2), (7,), lambda rng, *NT: rng.integers(0, 7, NT)),
    "soft": (rc.CrossEntropy(label_smoothing=0.1), (19,), lambda rng, *NT: rng.dirichlet(np.ones(19), NT)),
    "binary": (rc.BinaryCrossEntropy(0.1, 2.5), (3,), lambda rng, *NT: rng.uniform(0, 1, (*NT, 3))),
    "mse": (rc.MSE(), (3,), lambda rng, *NT: rng.standard_normal((*NT, 3))),
    "mse_no_features": (rc.MSE(), (), lambda rng, *NT: rng.standard_normal(NT)),
    "mae": (rc.MAE(), (3,), lambda rng, *NT: rng.standard_normal((*NT, 3))),
    "huber": (rc.Huber(0.7), (3, 2), lambda rng, *NT: rng.standard_normal((*NT, 3, 2))),
    "quantile": (rc.Quantile([0.1, 0.5, 0.9]), (3,), lambda rng, *NT: rng.standard_normal(NT)),
    "quantile_features": (rc.Quantile([0.3, 0.8]), (4, 2), lambda rng, *NT: rng.standard_normal((*NT, 4))),
    "gaussian": (rc.GaussianNLL(), (6,), lambda rng, *NT: rng.standard_normal((*NT, 3))),
}
N, T = 4, 5
LENGTHS = np.array([5, 2, 0, 3])
WEIGHTS = np.array([1.0, 0.5, 2.0, 0.25])


@pytest.fixture(params=LOSSES)
def case(request):
    return LOSSES[request.param]


def draw(case, rng, dtype=np.float64):
    loss, shape, targets = case
    y = targets(rng, N, T)
    return loss, rng.standard_normal((N, T, *shape)).astype(dtype), y if y.dtype == np.int64 else y.astype(dtype)


def rubbish(array):
    """What padding may hold."""
    return -(10**6) if array.dtype == np.int64 else np.nan


# ------------------------------------------------------------------------------------------- values and gradients


@pytest.mark.parametrize("options", [{}, {"lengths": LENGTHS}, {"weights": WEIGHTS}], ids=lambda o: "".join(o))
def test_gradient_by_central_differences(case, options, rng):
    loss, x, y = draw(case, rng)

    def function(outputs):
        value, _, gradient = loss.with_gradient(outputs, y, **options)
        return np.float64(value), lambda d: (d * gradient,)

    check_gradients(function, [x], rng=rng)


def test_value_with_gradient_is_the_value(case, dtype, rng):
    loss, x, y = draw(case, rng, dtype)
    for options in ({}, {"lengths": LENGTHS}, {"lengths": LENGTHS, "weights": WEIGHTS}):
        value, weight, gradient = loss.with_gradient(x, y, **options)
        assert type(value) is type(weight) is float
        assert value == loss(x, y, **options)
        assert gradient.dtype == dtype
        assert gradient.shape == x.shape


def softmax_cross_entropy(x, q, smoothing):
    """The definition, in float64."""
    x = x.astype(np.float64)
    q = q * (1 - smoothing) + smoothing / x.shape[-1]
    shifted = x - x.max(-1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    gradient = np.exp(log_p) * q.sum(-1, keepdims=True) - q
    return -(q * log_p).sum(-1), gradient


@pytest.mark.parametrize("C", [1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 33, 100, 1000])
def test_cross_entropy_at_every_width(isa, dtype, C, rng):
    x = (rng.standard_normal((6, C)) * 4).astype(dtype)
    classes = rng.integers(0, C, 6)
    soft = rng.dirichlet(np.ones(C), 6).astype(dtype)
    for targets, q in ((classes, np.eye(C)[classes]), (soft, soft)):
        for smoothing in (0.0, 0.3):
            value, weight, gradient = rc.CrossEntropy(label_smoothing=smoothing).with_gradient(x, targets)
            expected, expected_gradient = softmax_cross_entropy(x, q, smoothing)
            assert weight == 6
            assert abs(value - expected.mean()) <= (1e-14 if dtype == np.float64 else 2e-6) * max(1, expected.mean())
            assert worst_error(gradient, expected_gradient / 6, 1.0) <= (1e-15 if dtype == np.float64 else 3e-7)


@settings(max_examples=60, deadline=None)
@given(st.data(), st.sampled_from(DTYPES), st.integers(1, 40), st.sampled_from([1e-3, 1.0, 1e4]))
def test_gradient_of_cross_entropy_sums_to_zero(data, dtype, C, scale):
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    x = (rng.standard_normal((3, C)) * scale).astype(dtype)
    value, _, gradient = rc.CrossEntropy(label_smoothing=0.1).with_gradient(x, rng.integers(0, C, 3))
    assert np.isfinite(value)
    assert np.abs(gradient.sum(-1)).max() <= 1e2 * np.finfo(dtype).eps


def test_cross_entropy_of_large_logits(isa, dtype):
    x = np.array([[1e4, -1e4, 0.0], [-1e4, 1e4, 0.0]], dtype)
    loss = rc.CrossEntropy()
    value, _, gradient = loss.with_gradient(x, [0, 1])
    assert value == 0
    assert np.array_equal(gradient, np.zeros((2, 3)))
    value, _, gradient = loss.with_gradient(x, [1, 0])
    assert value == 20000
    assert np.array_equal(gradient, np.array([[0.5, -0.5, 0], [-0.5, 0.5, 0]]))
    value, _, gradient = rc.BinaryCrossEntropy().with_gradient(x, np.array([[0, 1, 0], [0, 1, 1]]))
    assert abs(value - (2e4 + 2 * np.log(2)) / 6) <= 1e-3
    assert np.allclose(gradient * 6, [[1, -1, 0.5], [0, 0, -0.5]])


def test_forbidden_classes(isa, dtype):
    x = np.array([[0.0, -np.inf, 0.0]], dtype)
    for targets in ([0], [[1.0, 0.0, 0.0]]):
        value, _, gradient = rc.CrossEntropy().with_gradient(x, targets)
        assert abs(value - np.log(2)) < 1e-6
        assert np.allclose(gradient, [[-0.5, 0, 0.5]])
    assert rc.CrossEntropy()(x, [1]) == np.inf


def test_a_nan_that_counts_shows(isa, case, dtype, rng):
    loss, x, y = draw(case, rng, dtype)
    x[(0, 0) + (-1,) * (x.ndim - 2)] = np.nan
    value, _, gradient = loss.with_gradient(x, y)
    assert np.isnan(value)
    assert np.isnan(gradient).any()


def test_zero_slope_where_there_is_a_kink():
    for loss in (rc.MAE(), rc.Quantile([0.2])):
        targets = [[1.0]] if isinstance(loss, rc.MAE) else [1.0]
        assert loss.with_gradient([[1.0]], targets).gradient == 0


def test_classes_and_their_one_hot_probabilities_agree(isa, dtype, rng):
    x = rng.standard_normal((N, T, 9)).astype(dtype)
    classes = rng.integers(0, 9, (N, T))
    loss = rc.CrossEntropy(label_smoothing=0.1)
    a, b = (loss.with_gradient(x, y, LENGTHS) for y in (classes, np.eye(9, dtype=np.int64)[classes]))
    assert abs(a.value - b.value) < 1e-6
    assert worst_error(a.gradient, b.gradient) < 1e-6


# ------------------------------------------------------------------------------------------------ what counts


@pytest.mark.parametrize("weights", [None, WEIGHTS, "steps"], ids=["plain", "rows", "steps"])
def test_padding_is_never_read(case, dtype, weights, isa, rng):
    loss, x, y = draw(case, rng, dtype)
    w = rng.uniform(0.5, 2, (N, T)) if isinstance(weights, str) else weights
    clean = loss.with_gradient(x, y, LENGTHS, w)
    x, y = x.copy(), y.copy()
    for n, length in enumerate(LENGTHS):
        x[n, length:], y[n, length:] = rubbish(x), rubbish(y)
    dirty = loss.with_gradient(x, y, LENGTHS, w)
    assert dirty[:2] == clean[:2]
    assert np.array_equal(dirty.gradient, clean.gradient)
    for n, length in enumerate(LENGTHS):
        assert not dirty.gradient[n, length:].any()


def test_steps_of_weight_zero_are_never_read(case, dtype, rng):
    loss, x, y = draw(case, rng, dtype)
    weights = (np.arange(T) < LENGTHS[:, None]) * WEIGHTS[:, None]
    expected = loss.with_gradient(x, y, LENGTHS, WEIGHTS)
    x[weights == 0], y[weights == 0] = rubbish(x), rubbish(y)
    got = loss.with_gradient(x, y, weights=weights)
    assert got[:2] == expected[:2]
    assert np.array_equal(got.gradient, expected.gradient)


def test_the_mean_is_over_steps_that_count(case, rng):
    """Whatever the batch: weights are those of its steps, taken one by one."""
    loss, x, y = draw(case, rng)
    weights = rng.uniform(0.1, 2, (N, T))
    value, weight, gradient = loss.with_gradient(x, y, LENGTHS, weights)
    steps = [(n, t) for n in range(N) for t in range(LENGTHS[n])]
    parts = [loss.with_gradient(x[n : n + 1, t : t + 1], y[n : n + 1, t : t + 1]) for n, t in steps]
    w = [p.weight * weights[step] for p, step in zip(parts, steps, strict=True)]
    assert weight == pytest.approx(sum(w), rel=1e-12)
    assert value == pytest.approx(sum(a * p.value for a, p in zip(w, parts, strict=True)) / sum(w), rel=1e-12)
    for a, p, (n, t) in zip(w, parts, steps, strict=True):
        assert np.allclose(gradient[n, t], p.gradient[0, 0] * a / sum(w), rtol=1e-12, atol=1e-15)


def test_batches_combine(case, rng):
    loss, x, y = draw(case, rng)
    whole = loss.with_gradient(x, y, LENGTHS, WEIGHTS)
    a, b = (loss.with_gradient(x[k], y[k], LENGTHS[k], WEIGHTS[k]) for k in (np.s_[:1], np.s_[1:]))
    assert whole.weight == pytest.approx(a.weight + b.weight)
    assert whole.value == pytest.approx((a.value * a.weight + b.value * b.weight) / whole.weight)
    joined = np.concatenate([a.gradient * a.weight, b.gradient * b.weight]) / whole.weight
    assert np.allclose(whole.gradient, joined)


def test_nothing_counts(case, dtype, rng):
    loss, x, y = draw(case, rng, dtype)
    for arguments in ((x, y, np.zeros(N, np.int64)), (x, y, None, np.zeros(N)), (x[:0], y[:0]), (x[:, :0], y[:, :0])):
        value, weight, gradient = loss.with_gradient(*arguments)
        assert (value, weight) == (0.0, 0.0)
        assert gradient.shape == arguments[0].shape
        assert not gradient.any()


def test_without_a_time_axis(case, rng):
    loss, x, y = draw(case, rng)
    if x.ndim == 2:
        pytest.skip("outputs have neither time nor features")
    flat = loss.with_gradient(x.reshape(-1, *x.shape[2:]), y.reshape(-1, *y.shape[2:]), weights=np.repeat(WEIGHTS, T))
    series = loss.with_gradient(x, y, weights=WEIGHTS)
    assert flat.value == pytest.approx(series.value, rel=1e-14)
    assert np.allclose(flat.gradient, series.gradient.reshape(flat.gradient.shape), rtol=1e-14)


def test_ignored_class(isa, dtype, rng):
    x, y = rng.standard_normal((N, T, 5)).astype(dtype), rng.integers(0, 5, (N, T))
    for ignored in (2, -100):
        y[rng.uniform(size=(N, T)) < 0.3] = ignored
        got = rc.CrossEntropy(ignore_index=ignored).with_gradient(x, y)
        expected = rc.CrossEntropy().with_gradient(x, np.maximum(y, 0), weights=(y != ignored).astype(float))
        assert got[:2] == expected[:2]
        assert np.array_equal(got.gradient, expected.gradient)
        y[y == ignored] = 0


def test_threads_change_no_bit(isa, dtype, threads, rng):
    x, y = rng.standard_normal((30, 100, 97)).astype(dtype), rng.integers(0, 97, (30, 100))
    threads(1)
    alone = rc.CrossEntropy().with_gradient(x, y)
    threads(3)
    together = rc.CrossEntropy().with_gradient(x, y)
    assert alone[:2] == together[:2]
    assert np.array_equal(alone.gradient, together.gradient)


# ------------------------------------------------------------------------------------------------- conversions


def test_arguments_are_converted(case, rng):
    loss, x, y = draw(case, rng)
    expected = loss.with_gradient(x, y, LENGTHS, WEIGHTS)
    narrow = y.astype(np.int8) if y.dtype == np.int64 else y
    variants = (
        (x.tolist(), y.tolist(), LENGTHS.tolist(), WEIGHTS.tolist()),
        (np.asfortranarray(x), np.asfortranarray(narrow), LENGTHS.astype(np.uint8), WEIGHTS.astype(np.float32)),
        (np.repeat(x, 2, 0)[::2], np.repeat(y, 2, 0)[::2], np.repeat(LENGTHS, 2)[::2], np.repeat(WEIGHTS, 2)[::2]),
    )
    for arguments in variants:
        got = loss.with_gradient(*arguments)
        assert got[:2] == expected[:2]
        assert np.array_equal(got.gradient, expected.gradient)
    half = loss.with_gradient(x.astype(np.float16), y)
    assert half.gradient.dtype == np.float32


def test_arguments_are_not_written(case, dtype, rng):
    loss, x, y = draw(case, rng, dtype)
    for array in (x, y):
        array.flags.writeable = False
    loss.with_gradient(x, y, LENGTHS, WEIGHTS)


def test_losses_are_plain_values(case):
    loss = case[0]
    assert repr(pickle.loads(pickle.dumps(loss))) == repr(loss)
    assert repr(eval(repr(loss), vars(rc))) == repr(loss)


# ------------------------------------------------------------------------------------------------------ errors

X = np.zeros((2, 3, 4))
CLASSES = np.zeros((2, 3), np.int64)
BAD_CLASS = np.array([[0, 1, 2], [0, 4, 0]])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: rc.CrossEntropy()(X, BAD_CLASS), ValueError, r"targets: .* from 0 to 3, got 4 at row 1, step 1"),
        (lambda: rc.CrossEntropy()(X, -BAD_CLASS), ValueError, r"targets: .* got -1 at row 0, step 1"),
        (lambda: rc.CrossEntropy()(X[0], BAD_CLASS[1]), ValueError, r"targets: .* got 4 at row 1$"),
        (lambda: rc.CrossEntropy()(X, X - 0.5), ValueError, r"targets: expected probabilities, got -0.5.* at row 0"),
        (lambda: rc.CrossEntropy()(X, CLASSES + 0.5), TypeError, r"targets: expected integers for classes \(2, 3\)"),
        (
            lambda: rc.CrossEntropy()(X, CLASSES[:, :2]),
            ValueError,
            r"targets: expected classes \(2, 3\) or prob.*, got \(2, 2",
        ),
        (
            lambda: rc.CrossEntropy()(X, [0, 1]),
            ValueError,
            r"targets: expected classes \(2, 3\) or probabilities \(2, 3",
        ),
        (lambda: rc.CrossEntropy()(X, X[:1]), ValueError, r"targets: expected .* \(2, 3, 4\), got \(1, 3, 4\)"),
        (lambda: rc.CrossEntropy()(X[0, 0], [0]), ValueError, r"outputs: expected \(N, T, C\) or \(N, C\), got \(4,\)"),
        (lambda: rc.CrossEntropy()(X[..., :0], CLASSES), ValueError, r"outputs: expected .* got \(2, 3, 0\)"),
        (lambda: rc.CrossEntropy()(X * 1j, CLASSES), TypeError, "outputs: expected real numbers"),
        (lambda: rc.CrossEntropy()(X, CLASSES, [3, 4]), ValueError, "lengths: expected values from 0 to T = 3, got 4"),
        (lambda: rc.CrossEntropy()(X, CLASSES, [-1, 3]), ValueError, "lengths: .* got -1 at row 0"),
        (
            lambda: rc.CrossEntropy()(X, CLASSES, [3]),
            ValueError,
            r"lengths: expected integers \(2,\), got int64 \(1,\)",
        ),
        (lambda: rc.CrossEntropy()(X, CLASSES, [1.0, 2.0]), TypeError, "lengths: expected integers, got float64"),
        (
            lambda: rc.CrossEntropy()(X[0], CLASSES[0], [3]),
            ValueError,
            r"lengths: expected None, since .* no time axis",
        ),
        (
            lambda: rc.CrossEntropy()(X, CLASSES, None, [1, -1]),
            ValueError,
            "weights: expected finite values of at least",
        ),
        (lambda: rc.CrossEntropy()(X, CLASSES, None, [1, np.nan]), ValueError, "weights: expected finite values"),
        (lambda: rc.CrossEntropy()(X, CLASSES, None, [1] * 3), ValueError, r"weights: expected float64 \(2,\), got"),
        (
            lambda: rc.CrossEntropy()(X, CLASSES, None, X[..., 0].T),
            ValueError,
            r"weights: expected float64 \(2, 3\), g",
        ),
        (lambda: rc.CrossEntropy(label_smoothing=1.0), ValueError, r"label_smoothing: .* from 0 to below 1, got 1.0"),
        (lambda: rc.CrossEntropy(ignore_index=0.5), TypeError, "float"),
        (lambda: rc.BinaryCrossEntropy(-0.1), ValueError, "label_smoothing: expected"),
        (
            lambda: rc.BinaryCrossEntropy(positive_weight=0),
            ValueError,
            "positive_weight: expected a positive finite num",
        ),
        (
            lambda: rc.BinaryCrossEntropy()(X, X + 1.5),
            ValueError,
            "targets: expected probabilities from 0 to 1, got 1.5",
        ),
        (
            lambda: rc.BinaryCrossEntropy()(X, X * np.nan),
            ValueError,
            "targets: expected probabilities from 0 to 1, got n",
        ),
        (lambda: rc.MSE()(X, X[0]), ValueError, r"targets: expected \(2, 3, 4\), got \(3, 4\)"),
        (lambda: rc.MSE()(1.0, 1.0), ValueError, r"outputs: expected \(N, \.\.\.\), got \(\)"),
        (lambda: rc.MSE()(X, X, [3, 4]), ValueError, "lengths: expected values from 0 to T = 3, got 4 at row 1"),
        (lambda: rc.MSE()(X, X, [3]), ValueError, r"lengths: expected integers \(2,\), got int64 \(1,\)"),
        (lambda: rc.MSE()(X[0, 0], X[0, 0], [3] * 4), ValueError, "lengths: expected None, since .* no time axis"),
        (lambda: rc.MSE()(X, X, None, X), ValueError, r"weights: expected \(2,\) or \(2, 3\), got \(2, 3, 4\)"),
        (lambda: rc.MSE()(X, X, None, [-1, 1]), ValueError, "weights: expected finite values of at least 0, got -1"),
        (lambda: rc.MSE()(X, X * 1j), TypeError, "targets: expected real numbers, got complex128"),
        (lambda: rc.Huber(0), ValueError, "delta: expected a positive finite number, got 0"),
        (lambda: rc.Quantile([]), ValueError, "levels: expected values between 0 and 1"),
        (lambda: rc.Quantile([0.5, 1.0]), ValueError, "levels: expected values between 0 and 1"),
        (lambda: rc.Quantile([0.5])(X, CLASSES), ValueError, r"outputs: expected \(N, \.\.\., 1\)"),
        (lambda: rc.Quantile([0.5])(X[..., :1], X), ValueError, r"targets: expected \(2, 3\), got \(2, 3, 4\)"),
        (lambda: rc.GaussianNLL()(X[..., :3], X), ValueError, r"outputs: expected \(N, \.\.\., 2 D\)"),
        (lambda: rc.GaussianNLL()(X, X), ValueError, r"targets: expected \(2, 3, 2\), got \(2, 3, 4\)"),
    ],
)
def test_what_does_not_fit_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


# ------------------------------------------------------------------------------------------------------- torch


def torch_value(name, torch, x, y):
    functional = torch.nn.functional
    if name in ("cross_entropy", "smoothed", "soft"):
        target = y.reshape(-1) if y.ndim == 2 else y.reshape(-1, y.shape[-1])
        smoothing = LOSSES[name][0].label_smoothing
        return functional.cross_entropy(x.reshape(-1, x.shape[-1]), target, label_smoothing=smoothing)
    if name == "binary":
        smoothed = y * 0.9 + 0.05
        return functional.binary_cross_entropy_with_logits(x, smoothed, pos_weight=torch.tensor(2.5, dtype=x.dtype))
    if name == "gaussian":
        mean, log_variance = x.chunk(2, -1)
        return functional.gaussian_nll_loss(mean, y, log_variance.exp(), full=True)
    if name.startswith("quantile"):
        levels = torch.tensor(LOSSES[name][0].levels, dtype=x.dtype)
        missing = y.unsqueeze(-1) - x
        return torch.maximum(levels * missing, (levels - 1) * missing).mean()
    losses = {"mse": functional.mse_loss, "mae": functional.l1_loss, "huber": functional.huber_loss}
    return losses[name.split("_")[0]](x, y, **({"delta": 0.7} if name == "huber" else {}))


@pytest.mark.parametrize("name", LOSSES)
def test_equals_torch(name, isa, dtype, rng):
    torch = pytest.importorskip("torch")
    loss, x, y = draw(LOSSES[name], rng, dtype)
    value, _, gradient = loss.with_gradient(x, y)
    outputs = torch.tensor(x, requires_grad=True)
    expected = torch_value(name, torch, outputs, torch.tensor(y))
    expected.backward()
    tolerance = 1e-12 if dtype == np.float64 else 1e-5
    assert abs(value - expected.item()) <= tolerance * max(1, abs(value))
    assert worst_error(gradient, outputs.grad.numpy()) <= tolerance


def test_instruction_sets_agree(rng):
    """All at once, since each is compared with float64 NumPy above: no ISA counts differently."""
    x, y = rng.standard_normal((N, T, 21)), rng.integers(0, 21, (N, T))
    values = []
    for isa in ISAS:
        rc.use_isa(isa)
        values.append(rc.CrossEntropy().with_gradient(x, y, LENGTHS, WEIGHTS))
    rc.use_isa(ISAS[0])
    for other in values[1:]:
        assert other.weight == values[0].weight
        assert worst_error(other.gradient, values[0].gradient) < 1e-13
