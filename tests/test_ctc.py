"""CTC: the oracle against every way there is, the kernel against the oracle, and torch's where it can be imported."""

import itertools
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rnncore as rc
from cases import DTYPES, ISAS, worst_error
from rnncore import reference_losses


def every_way(x, target, blank):
    """-log of the sum over all paths that say the target, with its definition and nothing else."""
    log_p = x - np.log(np.exp(x).sum(1, keepdims=True))
    total = 0.0
    for path in itertools.product(range(x.shape[1]), repeat=len(x)):
        read = [label for label, _ in itertools.groupby(path) if label != blank]
        if read == list(target):
            total += np.exp(sum(log_p[t, c] for t, c in enumerate(path)))
    return -np.log(total) if total else np.inf


def expected_mean(x, targets, lengths, weights=None, blank=0, zero_infinity=False):
    """Value and gradient of a batch by the oracle."""
    weights = np.ones(len(x)) if weights is None else weights
    value, gradient = 0.0, np.zeros(x.shape)
    for n, target in enumerate(targets):
        if weights[n] == 0:
            continue
        loss, slope = reference_losses.ctc(x[n, : lengths[n]], target, blank)
        scale = weights[n] / weights.sum() / max(len(target), 1)
        value += 0.0 if zero_infinity and loss == np.inf else scale * loss
        gradient[n, : lengths[n]] = scale * slope
    return value, gradient


def draw(rng, N=5, T=12, C=6, L=4, dtype=np.float64, blank=0):
    x = (rng.standard_normal((N, T, C)) * 2).astype(dtype)
    labels = np.delete(np.arange(C), blank)
    targets = [rng.choice(labels, rng.integers(0, L + 1)) for _ in range(N)]
    return x, targets, rng.integers(min(2 * L, T), T + 1, N)


def assert_agrees(got, expected, dtype):
    value, gradient = expected
    bound = 1e-12 if dtype == np.float64 else 1e-5
    assert abs(got.value - value) <= bound * max(1.0, value)
    assert got.gradient.dtype == dtype
    assert worst_error(got.gradient, gradient, 1.0) <= bound


# -------------------------------------------------------------------------------------------------- the oracle


@pytest.mark.parametrize("target", [(), (1,), (1, 2), (1, 1), (2, 2, 1), (1, 2, 1), (1, 2, 2, 1)])
@pytest.mark.parametrize("T", [0, 1, 3, 5])
def test_oracle_is_the_sum_over_every_way(target, T, rng):
    x = rng.standard_normal((T, 3))
    loss, gradient = reference_losses.ctc(x, target)
    expected = every_way(x, target, 0)
    assert loss == pytest.approx(expected, rel=1e-12, abs=1e-12)
    if expected == np.inf:
        assert not gradient.any()
        return
    step = 1e-6
    for index in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[index] += step
        down[index] -= step
        slope = (every_way(up, target, 0) - every_way(down, target, 0)) / (2 * step)
        assert gradient[index] == pytest.approx(slope, abs=1e-7)


# -------------------------------------------------------------------------------------------------- the kernel


@pytest.mark.parametrize("L", [0, 1, 2, 3, 4, 7, 8, 14, 15, 16, 17, 33])
def test_matches_the_oracle_at_every_number_of_labels(isa, dtype, L, rng):
    C, T = 5, 2 * L + 3
    x = (rng.standard_normal((2, T, C)) * 2).astype(dtype)
    targets = rng.integers(1, C, (2, L))
    got = rc.CTC().with_gradient(x, targets)
    assert_agrees(got, expected_mean(x, targets, [T, T]), dtype)
    assert got.value == rc.CTC()(x, targets)
    assert got.weight == 2


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    dtype=st.sampled_from(DTYPES),
    isa=st.sampled_from(ISAS),
    C=st.integers(2, 20),
    T=st.integers(0, 20),
    L=st.integers(0, 8),
    data=st.data(),
)
def test_matches_the_oracle_at_random(seed, dtype, isa, C, T, L, data):
    """Also where targets are too long for their series."""
    rng = np.random.default_rng(seed)
    blank = data.draw(st.integers(0, C - 1))
    x, targets, _ = draw(rng, 3, T, C, L, dtype, blank)
    lengths = rng.integers(0, T + 1, 3)
    weights = rng.choice([0.0, 0.5, 2.0], 3)
    expected = expected_mean(x, targets, lengths, weights if weights.any() else np.ones(3), blank, True)
    rc.use_isa(isa)
    loss = rc.CTC(blank, zero_infinity=True)
    got = loss.with_gradient(x, targets, lengths, weights if weights.any() else None)
    rc.use_isa(ISAS[0])
    assert_agrees(got, expected, dtype)


def test_long_series_stay_accurate(isa, dtype, rng):
    """A log-probability of thousands, near which float32 has steps of 5e-4: errors must not add up."""
    T, C, L = 1500, 12, 60
    x = (rng.standard_normal((1, T, C)) * 3).astype(dtype)
    targets = rng.integers(1, C, (1, L))
    got = rc.CTC().with_gradient(x, targets)
    value, gradient = expected_mean(x, targets, [T])
    assert value * L > 2000
    assert abs(got.value / value - 1) <= (1e-13 if dtype == np.float64 else 1e-6)
    assert worst_error(got.gradient * L, gradient * L, 1.0) <= (1e-10 if dtype == np.float64 else 2e-3)


def test_gradient_of_every_step_sums_to_zero(isa, dtype, rng):
    x, targets, lengths = draw(rng, N=4, T=40, C=30, L=12, dtype=dtype)
    got = rc.CTC().with_gradient(x, targets, lengths)
    assert np.abs(got.gradient.sum(-1)).max() <= (1e-13 if dtype == np.float64 else 1e-6)


def test_large_logits(isa, dtype, rng):
    x, targets, lengths = draw(rng, dtype=dtype)
    x *= 1e4 / np.abs(x).max()
    got = rc.CTC().with_gradient(x, targets, lengths)
    value, gradient = expected_mean(x, targets, lengths)
    assert np.isfinite(value)
    assert got.value == pytest.approx(value, rel=1e-12 if dtype == np.float64 else 1e-5)
    assert worst_error(got.gradient, gradient, 1.0) <= (1e-9 if dtype == np.float64 else 1e-2)


def test_padding_is_never_read(isa, dtype, rng):
    x, targets, lengths = draw(rng, dtype=dtype)
    target_lengths = [len(target) for target in targets]
    weights = np.array([1.0, 0.5, 2.0, 0.0, 3.0])
    clean = rc.CTC().with_gradient(x, targets, lengths, weights)
    padded = np.full((5, 9), -(10**6))
    for n, target in enumerate(targets):
        padded[n, : len(target)] = target
        x[n, lengths[n] :] = np.nan
    x[3], padded[3] = np.nan, 10**6
    dirty = rc.CTC().with_gradient(x, padded, lengths, weights, target_lengths)
    assert dirty[:2] == clean[:2]
    assert np.array_equal(dirty.gradient, clean.gradient)
    assert not dirty.gradient[3].any()


def test_a_sequence_alone_has_the_bits_it_has_in_a_batch(isa, dtype, rng):
    x, targets, lengths = draw(rng, dtype=dtype)
    for n in range(5):
        weights = (np.arange(5) == n).astype(float)
        batch = rc.CTC().with_gradient(x, targets, lengths, weights)
        alone = rc.CTC().with_gradient(x[n : n + 1, : lengths[n]], [targets[n]])
        assert batch.value == alone.value
        assert np.array_equal(batch.gradient[n, : lengths[n]], alone.gradient[0])


def test_threads_change_no_bit(isa, dtype, threads, rng):
    x, targets, lengths = draw(rng, N=16, T=150, C=30, L=30, dtype=dtype)
    threads(1)
    alone = rc.CTC().with_gradient(x, targets, lengths)
    threads(3)
    together = rc.CTC().with_gradient(x, targets, lengths)
    assert alone[:2] == together[:2]
    assert np.array_equal(alone.gradient, together.gradient)


# ---------------------------------------------------------------------------------------------- out of reach


def test_infinity_and_its_gradient(isa, dtype, rng):
    x = rng.standard_normal((3, 3, 4)).astype(dtype)
    targets = [[1, 2], [1, 1, 1], [2, 2]]  # the second needs 5 steps; the third all 3
    value, weight, gradient = rc.CTC().with_gradient(x, targets)
    assert (value, weight) == (np.inf, 3.0)
    assert rc.CTC()(x, targets) == np.inf
    assert not gradient[1].any()
    got = rc.CTC(zero_infinity=True).with_gradient(x, targets)
    assert np.array_equal(got.gradient, gradient)
    assert_agrees(got, expected_mean(x, targets, [3, 3, 3], zero_infinity=True), dtype)


def test_forbidden_classes(isa, dtype, rng):
    """Logits of -inf: ways that they forbid do not count; if they are all, the loss is infinite."""
    x = rng.standard_normal((1, 4, 4)).astype(dtype)
    x[0, :, 3] = x[0, 2, 1] = -np.inf
    assert_agrees(rc.CTC().with_gradient(x, [[1, 2]]), expected_mean(x, [[1, 2]], [4]), dtype)
    value, _, gradient = rc.CTC().with_gradient(x, [[1, 3]])
    assert value == np.inf
    assert not gradient.any()


@pytest.mark.parametrize("t", [0, 5, 11])
@pytest.mark.parametrize("target", [[], [1], [1, 2, 2, 3]])
def test_a_nan_that_counts_shows(isa, dtype, t, target, rng):
    x = rng.standard_normal((2, 12, 5)).astype(dtype)
    x[0, t, 4] = np.nan
    value, _, gradient = rc.CTC().with_gradient(x, [target, [1, 2]])
    assert np.isnan(value)
    assert np.isnan(gradient[0]).any()
    assert np.isfinite(gradient[1]).all()


def test_nothing_counts(dtype):
    x = np.ones((2, 3, 4), dtype)
    for got in (
        rc.CTC().with_gradient(x, [[1], [2]], weights=[0, 0]),
        rc.CTC().with_gradient(x[:0], []),
        rc.CTC().with_gradient(x[:, :0], [[], []]),
    ):
        assert got.value == 0.0
        assert not got.gradient.any()


# ---------------------------------------------------------------------------------------------- arguments


def test_arguments_are_converted(rng):
    x, targets, lengths = draw(rng)
    expected = rc.CTC().with_gradient(x, targets, lengths)
    narrow = [target.astype(np.int16) for target in targets]
    for arguments in (
        (x.tolist(), [target.tolist() for target in targets], lengths.tolist()),
        (np.asfortranarray(x), tuple(narrow), lengths.astype(np.uint8)),
        (np.repeat(x, 2, 0)[::2], targets, np.repeat(lengths, 2)[::2], np.ones(5, np.float32)),
    ):
        got = rc.CTC().with_gradient(*arguments)
        assert got[:2] == expected[:2]
        assert np.array_equal(got.gradient, expected.gradient)


def test_is_a_plain_value():
    loss = rc.CTC(blank=3, zero_infinity=True)
    assert repr(loss) == repr(pickle.loads(pickle.dumps(loss))) == "CTC(blank=3, zero_infinity=True)"


X = np.zeros((2, 3, 4))
Y = np.ones((2, 2), np.int64)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: rc.CTC()(X, [[1], [4]]),
            ValueError,
            "targets: .* from 0 to 3 other than blank = 0, got 4 at row 1, la",
        ),
        (lambda: rc.CTC()(X, [[1, 0], [2]]), ValueError, "targets: .* other than blank = 0, got 0 at row 0, label 1"),
        (lambda: rc.CTC(3)(X, [[1, 0], [3]]), ValueError, "targets: .* other than blank = 3, got 3 at row 1, label 0"),
        (lambda: rc.CTC(4)(X, Y), ValueError, "blank: expected a class from 0 to 3, got 4"),
        (lambda: rc.CTC(-1)(X, Y), ValueError, "blank: expected a class from 0 to 3, got -1"),
        (lambda: rc.CTC(0.5), TypeError, "float"),
        (lambda: rc.CTC()(X[0], Y), ValueError, r"outputs: expected \(N, T, C\), got \(3, 4\)"),
        (lambda: rc.CTC()(X * 1j, Y), TypeError, "outputs: expected real numbers"),
        (lambda: rc.CTC()(X, Y[:1]), ValueError, r"targets: expected int64 \(2, L\), got int64 \(1, 2\)"),
        (lambda: rc.CTC()(X, Y[0]), ValueError, r"targets: expected \(N, L\), got \(2,\)"),
        (lambda: rc.CTC()(X, [1, 2]), ValueError, r"targets\[0\]: expected one axis, got \(\)"),
        (lambda: rc.CTC()(X, Y + 0.5), TypeError, "targets: expected integers, got float64"),
        (lambda: rc.CTC()(X, [[1], [0.5]]), TypeError, r"targets\[1\]: expected integers, got float64"),
        (
            lambda: rc.CTC()(X, Y, target_lengths=[1, 3]),
            ValueError,
            "target_lengths: .* from 0 to L = 2, got 3 at row 1",
        ),
        (
            lambda: rc.CTC()(X, Y, target_lengths=[1]),
            ValueError,
            r"target_lengths: expected int64 \(2,\), got int64 \(1",
        ),
        (
            lambda: rc.CTC()(X, Y, target_lengths=[1.0, 2.0]),
            TypeError,
            "target_lengths: expected integers, got float64",
        ),
        (lambda: rc.CTC()(X, Y, [3, 4]), ValueError, "lengths: expected values from 0 to T = 3, got 4 at row 1"),
        (lambda: rc.CTC()(X, Y, [3]), ValueError, r"lengths: expected integers \(2,\), got int64 \(1,\)"),
        (lambda: rc.CTC()(X, Y, [3.0, 2.0]), TypeError, "lengths: expected integers, got float64"),
        (lambda: rc.CTC()(X, Y, None, [1, -1]), ValueError, "weights: expected finite values of at least 0, got -1"),
        (
            lambda: rc.CTC()(X, Y, None, X[..., 0]),
            ValueError,
            r"weights: expected float64 \(2,\), got float64 \(2, 3\)",
        ),
    ],
)
def test_what_does_not_fit_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


# ------------------------------------------------------------------------------------------------------ torch


@pytest.mark.parametrize("blank", [0, 5])
def test_equals_torch(isa, dtype, blank, rng):
    torch = pytest.importorskip("torch")
    N, T, C, L = 8, 60, 20, 15
    x, targets, lengths = draw(rng, N, T, C, L, dtype, blank)
    padded = np.zeros((N, L), np.int64)
    for row, target in zip(padded, targets, strict=True):
        row[: len(target)] = target
    target_lengths = np.array([len(target) for target in targets])
    lengths[0] = target_lengths[0] = 2
    padded[0, :2] = 1  # out of reach
    outputs = torch.tensor(x, requires_grad=True)
    expected = torch.nn.functional.ctc_loss(
        outputs.log_softmax(-1).transpose(0, 1),
        torch.tensor(padded),
        torch.tensor(lengths),
        torch.tensor(target_lengths),
        blank,
        zero_infinity=True,
    )
    expected.backward()
    got = rc.CTC(blank, zero_infinity=True).with_gradient(x, padded, lengths, target_lengths=target_lengths)
    assert got.value == pytest.approx(expected.item(), rel=1e-5)
    assert worst_error(got.gradient, outputs.grad.numpy(), 1.0) <= 1e-5


def test_decode_reads_the_best_path(rng):
    path = np.array([[0, 3, 3, 0, 3, 1, 1, 2], [2, 2, 0, 0, 1, 1, 1, 3]])
    logits = np.eye(4, dtype=np.float32)[path] * 3
    assert [labels.tolist() for labels in rc.CTC().decode(logits)] == [[3, 3, 1, 2], [2, 1, 3]]
    assert [labels.tolist() for labels in rc.CTC().decode(logits, lengths=[3, 0])] == [[3], []]
    assert [labels.tolist() for labels in rc.CTC(blank=3).decode(logits)] == [[0, 0, 1, 2], [2, 0, 1]]
    metric = rc.metrics.LabelErrorRate()
    rate, labels = metric.measure(logits, [[3, 1, 2], [2, 1, 1, 3]])
    assert (round(rate * labels), labels) == (2, 7)
    assert metric.measure(logits, [[], []]) == (0.0, 0.0)
    with pytest.raises(ValueError, match=r"outputs: expected \(N, T, C\) with C > 4, got \(2, 8, 4\)"):
        rc.CTC(blank=4).decode(logits)
    with pytest.raises(ValueError, match=r"lengths: expected values from 0 to T = 8, got 9 at row 0"):
        rc.CTC().decode(logits, lengths=[9, 0])
