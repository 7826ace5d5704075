"""The core's own functions, against values computed in higher precision; the largest errors are printed (-s)."""

import numpy as np
import pytest

from rnncore import _core


def float32_in_blocks(begin, end, stride, block=1 << 16):
    """Every stride-th float32 from begin to end, both >= 0, in order; blocks small enough to stay in cache."""
    first, last = (int(np.float32(x).view(np.uint32)) for x in (begin, end))
    for start in range(first, last + 1, block * stride):
        stop = min(start + block * stride, last + 1)
        yield np.arange(start, stop, stride, dtype=np.uint32).view(np.float32)


# The default suite takes a sample that meets every binade at many places; the long one takes every number.
every = pytest.mark.parametrize(
    "stride", [pytest.param(1, marks=pytest.mark.slow, id="every"), pytest.param(61, id="sample")]
)


def ulp_error(got, true):
    """Distance in units of the last place of the true value, in the precision of `got`."""
    ulp = np.spacing(np.maximum(np.abs(true).astype(got.dtype), np.finfo(got.dtype).tiny)).astype(true.dtype)
    return float(np.max(np.abs(got.astype(true.dtype) - true) / ulp))


@every
@pytest.mark.parametrize("sign", [1, -1])
def test_float32_tanh_everywhere(isa, sign, stride):
    """Every float32 from -20 to 20 that is not subnormal: at most 3 ulp."""
    worst = 0.0
    for magnitude in float32_in_blocks(np.finfo(np.float32).tiny, 20.0, stride):
        x = magnitude * np.float32(sign)
        y = _core.tanh(x)
        assert np.abs(y).max() <= 1
        worst = max(worst, ulp_error(y, np.tanh(x.astype(np.float64))))
    print(f"{isa}: float32 tanh within {worst:.2f} ulp")
    assert worst <= 3


@every
def test_float32_sigmoid_everywhere(isa, stride):
    """Every float32 from -infinity to infinity: at most 1.2e-7, in [0, 1], never decreasing."""
    worst, previous = 0.0, np.float32(0)
    tail = np.array([-np.inf, -3e38, -1e10, -1e5], np.float32)  # 0 from about -88 on: no need for each of them

    def in_order():
        yield tail
        starts = range(0, int(np.float32(128).view(np.uint32)), stride << 16)
        for start in reversed(starts):  # the negative numbers, from -128 up to -0
            bits = np.arange(start, start + (stride << 16), stride, dtype=np.uint32)[::-1]
            yield -bits.view(np.float32)
        yield from float32_in_blocks(0.0, 128.0, stride)
        yield -tail[::-1]

    for x in in_order():
        y = _core.sigmoid(x)
        with np.errstate(over="ignore"):
            worst = max(worst, float(np.abs(y - 1 / (1 + np.exp(-x.astype(np.float64)))).max()))
        assert y.min() >= 0
        assert y.max() <= 1
        assert y[0] >= previous
        assert (y[1:] >= y[:-1]).all()
        previous = y[-1]
    print(f"{isa}: float32 sigmoid within {worst:.3g}")
    assert worst <= 1.2e-7


def test_float64_within_two_ulp(isa, rng):
    x = np.concatenate(
        [rng.uniform(-40, 40, 500_000), rng.standard_normal(500_000) * 2.0 ** rng.uniform(-40, 3, 500_000)]
    )
    wide = x.astype(np.longdouble)
    if np.finfo(np.longdouble).eps >= np.finfo(np.float64).eps:
        pytest.skip("long double is no wider than double here")
    tanh = ulp_error(_core.tanh(x), np.tanh(wide))
    sigmoid = ulp_error(_core.sigmoid(x), 1 / (1 + np.exp(-wide)))
    print(f"{isa}: float64 tanh within {tanh:.2f} ulp, sigmoid within {sigmoid:.2f} ulp")
    assert tanh <= 2
    assert sigmoid <= 2


def test_limits(isa, dtype):
    x = np.array([-np.inf, np.inf, np.nan, 0.0, -0.0, -1e30, 1e30], dtype)
    assert np.array_equal(_core.sigmoid(x), np.array([0, 1, np.nan, 0.5, 0.5, 0, 1], dtype), equal_nan=True)
    assert np.array_equal(_core.tanh(x), np.array([-1, 1, np.nan, 0, 0, -1, 1], dtype), equal_nan=True)


@pytest.mark.parametrize("n", range(40))
def test_every_length_of_vector(isa, dtype, n, rng):
    x = rng.standard_normal(n).astype(dtype)
    for function in (_core.sigmoid, _core.tanh, _core.exp):
        y = function(x)
        assert y.shape == (n,)
        assert np.array_equal(y, [function(x[i : i + 1])[0] for i in range(n)])


def within_one_ulp(function, true, x, isa):
    wide = np.longdouble if x.dtype == np.float64 else np.float64
    if np.finfo(wide).eps >= np.finfo(x.dtype).eps:
        pytest.skip("long double is no wider than double here")
    worst = ulp_error(function(x), true(x.astype(wide)))
    print(f"{isa}: {x.dtype} {true.__name__} within {worst:.3f} ulp")
    assert worst <= 1


def test_exp_within_one_ulp(isa, dtype, rng):
    low, high = (-87.3, 88.3) if dtype == np.float32 else (-708.0, 709.0)
    spread = rng.standard_normal(300_000) * 2.0 ** rng.uniform(-30, 2, 300_000)
    x = np.concatenate([rng.uniform(low, high, 500_000), spread]).astype(dtype)
    within_one_ulp(_core.exp, np.exp, x, isa)


def test_log_within_one_ulp(isa, dtype, rng):
    low, high = (-87.3, 88.3) if dtype == np.float32 else (-708.0, 709.0)
    around_one = 1 + rng.uniform(-0.5, 0.5, 300_000) * 2.0 ** rng.uniform(-20, 0, 300_000)
    x = np.concatenate([np.exp(rng.uniform(low, high, 300_000)), rng.uniform(0.4, 3, 300_000), around_one])
    within_one_ulp(_core.log, np.log, x.astype(dtype), isa)


def test_limits_of_exp_and_log(isa, dtype):
    x = np.array([-np.inf, -1e30, -800, 0.0, -0.0, 800, np.inf, np.nan], dtype)
    assert np.array_equal(_core.exp(x), np.array([0, 0, 0, 1, 1, np.inf, np.inf, np.nan], dtype), equal_nan=True)
    x = np.array([1.0, np.inf, np.nan], dtype)
    assert np.array_equal(_core.log(x), np.array([0, np.inf, np.nan], dtype), equal_nan=True)
