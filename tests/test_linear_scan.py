"""The linear scan: against the oracle, bits that no neighbour, thread or padding changes, chunks, what is refused."""

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rnncore as rc
from cases import DTYPES, ISAS, worst_error
from rnncore import _core, reference_scan
from rnncore.testing import check_gradients

linear_scan, linear_scan_vjp = rc.functional.linear_scan, rc.functional.linear_scan_vjp

COMPLEX = {np.float32: np.complex64, np.float64: np.complex128}
CHANNELS = [1, 7, 16, 17, 33, 140]
STEPS = [0, 1, 2, 5, 64, 1000]
BATCHES = [0, 1, 3, 9]
# Each number of channels with each of steps, and the sizes of the batch take turns.
COVERING = [(BATCHES[(i + j) % 4], T, C) for i, C in enumerate(CHANNELS) for j, T in enumerate(STEPS)]
KINDS = ["real", "complex"]


def numbers(rng, shape, dtype, kind="real"):
    x = rng.standard_normal(shape)
    if kind == "real":
        return x.astype(dtype)
    return (x + 1j * rng.standard_normal(shape)).astype(COMPLEX[dtype])


def draw(rng, N, T, C, dtype, kind="real", constant=False):
    """a with magnitudes from 0.3 to 0.99, b, h_0, dy and dh_n."""
    a = numbers(rng, C if constant else (N, T, C), dtype, kind)
    a = (a / np.maximum(np.abs(a), 1e-3) * rng.uniform(0.3, 0.99, a.shape)).astype(a.dtype)
    return [a, *(numbers(rng, shape, dtype, kind) for shape in [(N, T, C), (N, C), (N, T, C), (N, C)])]


def assert_matches_reference(a, b, h_0, dy, dh_n, chunk=None, **options):
    output_bound, gradient_bound = (1e-13, 1e-11) if b.real.dtype == np.float64 else (2e-6, 2e-5)
    outputs, vjp = linear_scan_vjp(a, b, h_0, chunk=chunk, **options)
    expected, expected_vjp = reference_scan.linear_scan_vjp(a, b, h_0, **options)
    scale = max(1.0, *(np.abs(e).max(initial=0) for e in expected))
    alone = linear_scan(a, b, h_0, chunk=chunk, **options)
    for name, got, want, again in zip(outputs._fields, outputs, expected, alone, strict=True):
        assert got.dtype == b.dtype
        assert worst_error(got, want, scale) <= output_bound, name
        assert np.array_equal(got, again)
    gradients, expected = vjp(dy, dh_n), expected_vjp(dy, dh_n)
    scale = max(1.0, *(np.abs(g).max(initial=0) for g in expected))
    if a.ndim == 1:  # a sum whose terms may cancel
        _, parts = reference_scan.linear_scan_vjp(np.broadcast_to(a, b.shape), b, h_0, **options)
        scale = max(scale, np.abs(parts(dy, dh_n)[0]).sum(axis=tuple(range(b.ndim - 1))).max(initial=0))
    for name, got, want in zip(gradients._fields, gradients, expected, strict=True):
        assert got.dtype == b.dtype
        assert worst_error(got, want, scale) <= gradient_bound, f"gradient of {name}"


# ------------------------------------------------------------------------------------------------------------- values


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", COVERING, ids=str)
def test_matches_reference(isa, dtype, kind, case, rng):
    N, T, C = case
    turn = N + T + C
    a, b, h_0, dy, dh_n = draw(rng, N, T, C, dtype, kind, constant=turn % 2 == 0)
    assert_matches_reference(a, b, h_0 if turn % 5 else None, dy, dh_n, reverse=turn % 3 == 0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("constant", [False, True], ids=["varying", "constant"])
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("chunk", [None, 4], ids=str)
def test_ragged_matches_reference(isa, dtype, kind, constant, reverse, chunk, rng):
    """Lines of a tile end at different steps, with one vector of channels and with several."""
    for C in (1, 7, 17, 140):
        arguments = draw(rng, 7, 23, C, dtype, kind, constant)
        assert_matches_reference(*arguments, lengths=[23, 4, 0, 1, 22, 9, 8], reverse=reverse, chunk=chunk)


@given(
    data=st.data(),
    N=st.integers(0, 9),
    T=st.integers(0, 20),
    C=st.integers(1, 150),
    dtype=st.sampled_from(DTYPES),
    kind=st.sampled_from(KINDS),
    constant=st.booleans(),
    reverse=st.booleans(),
    chunk=st.one_of(st.none(), st.integers(1, 25)),
    isa=st.sampled_from(ISAS),
)
@settings(max_examples=80, deadline=None)
def test_any_shape_matches_reference(data, N, T, C, dtype, kind, constant, reverse, chunk, isa):
    rc.use_isa(isa)
    try:
        rng = np.random.default_rng(data.draw(st.integers(0, 99)))
        lengths = None
        if data.draw(st.booleans()):
            lengths = data.draw(st.lists(st.integers(0, T), min_size=N, max_size=N))
        arguments = draw(rng, N, T, C, dtype, kind, constant)
        assert_matches_reference(*arguments, lengths=lengths, reverse=reverse, chunk=chunk)
    finally:
        rc.use_isa(ISAS[0])


@pytest.mark.parametrize("constant", [False, True], ids=["varying", "constant"])
@pytest.mark.parametrize("options", [{}, {"reverse": True}, {"chunk": 2}, {"lengths": [4, 0, 3]}], ids=str)
def test_gradients_are_those_of_finite_differences(dtype, constant, options, rng):
    a, b, h_0, *_ = draw(rng, 3, 4, 5, dtype, constant=constant)
    check_gradients(lambda *x: linear_scan_vjp(*x, **options), [a, b, h_0], names=["a", "b", "h_0"])
    check_gradients(
        lambda *x: reference_scan.linear_scan_vjp(*x, **{k: v for k, v in options.items() if k != "chunk"}),
        [x.astype(np.float64) for x in (a, b, h_0)],
    )


@pytest.mark.parametrize("constant", [False, True], ids=["varying", "constant"])
def test_complex_gradients_are_those_of_finite_differences(dtype, constant, rng):
    """By the real and the imaginary parts."""
    a, b, h_0, *_ = draw(rng, 2, 4, 3, dtype, "complex", constant)

    def of_parts(*parts):
        (y, h_n), vjp = linear_scan_vjp(*(x.view(b.dtype) for x in parts))
        return (y.view(dtype), h_n.view(dtype)), lambda dy, dh_n: tuple(
            g.view(dtype) for g in vjp(dy.view(b.dtype), dh_n.view(b.dtype))
        )

    check_gradients(of_parts, [x.view(dtype) for x in (a, b, h_0)], names=["a", "b", "h_0"])


# --------------------------------------------------------------------------------------------------------------- bits


def all_results(arguments, **options):
    a, b, h_0, dy, dh_n = arguments
    outputs, vjp = linear_scan_vjp(a, b, h_0, **options)
    return *outputs, *vjp(dy, dh_n)


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_has_the_bits_it_has_alone(isa, dtype, kind, rng):
    for C in (7, 17, 33, 140):
        arguments = draw(rng, 6, 30, C, dtype, kind)
        lengths = [30, 30, 3, 29, 30, 0]
        batch = all_results(arguments, lengths=lengths)
        for n in range(6):
            alone = all_results([x[n : n + 1, : lengths[n]] if x.ndim == 3 else x[n : n + 1] for x in arguments])
            unbatched = all_results([x[n, : lengths[n]] if x.ndim == 3 else x[n] for x in arguments])
            for one, same, of_batch in zip(alone, unbatched, batch, strict=True):
                expected = of_batch[n, : lengths[n]] if of_batch.ndim == 3 else of_batch[n]
                assert np.array_equal(one[0], expected)
                assert np.array_equal(same, expected)


def test_channels_do_not_change_each_other(isa, dtype, rng):
    arguments = draw(rng, 2, 50, 140, dtype)
    whole = all_results(arguments)
    for channels in (slice(0, 1), slice(3, 20), slice(5, 133)):
        for part, expected in zip(all_results([x[..., channels] for x in arguments]), whole, strict=True):
            assert np.array_equal(part, expected[..., channels])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("chunk", [None, 100], ids=str)
@pytest.mark.parametrize("shape", [(1, 20000, 70), (40, 900, 33), (3, 60000, 4)], ids=str)
def test_threads_do_not_change_bits(dtype, kind, chunk, shape, threads, rng):
    """By lines, by channels, or, with chunks, both."""
    constant = shape[0] == 40
    arguments = draw(rng, *shape, dtype, kind, constant)
    lengths = rng.integers(0, shape[1] + 1, shape[0])
    results = []
    for count in (1, 2, 3, 7):
        threads(count)
        results.append(all_results(arguments, chunk=chunk, lengths=lengths))
    for other in results[1:]:
        for got, expected in zip(other, results[0], strict=True):
            assert np.array_equal(got, expected)


def test_parts_of_a_series_have_the_bits_of_the_whole(isa, dtype, rng):
    a, b, h_0, *_ = draw(rng, 2, 50, 17, dtype)
    whole = linear_scan(a, b, h_0)
    first = linear_scan(a[:, :20], b[:, :20], h_0)
    rest = linear_scan(a[:, 20:], b[:, 20:], first.h_n)
    assert np.array_equal(np.concatenate([first.y, rest.y], axis=1), whole.y)
    assert np.array_equal(rest.h_n, whole.h_n)


def test_a_constant_has_the_bits_of_equal_factors(isa, dtype, rng):
    for kind in KINDS:
        a, b, h_0, dy, dh_n = draw(rng, 5, 20, 33, dtype, kind, constant=True)
        constant = all_results((a, b, h_0, dy, dh_n))
        varying = all_results((np.broadcast_to(a, b.shape), b, h_0, dy, dh_n))
        for index in (0, 1, 3, 4):
            assert np.array_equal(constant[index], varying[index])


# ------------------------------------------------------------------------------------------------------------- chunks


@pytest.mark.parametrize("kind", KINDS)
def test_chunks_differ_from_the_plain_scan_by_rounding_alone(isa, dtype, kind, rng):
    bound = 50 * np.finfo(dtype).eps
    for C, chunk in ((1, 7), (8, 64), (33, 250)):
        arguments = draw(rng, 1, 1000, C, dtype, kind)
        plain, chunked = all_results(arguments), all_results(arguments, chunk=chunk)
        for got, expected in zip(chunked, plain, strict=True):
            assert worst_error(got, expected) <= bound


def test_one_chunk_is_the_plain_scan(isa, dtype, rng):
    arguments = draw(rng, 3, 40, 17, dtype)
    expected = all_results(arguments, lengths=[40, 3, 0])
    for chunk in (40, 41, np.int64(1000), 10**30):
        for got, want in zip(all_results(arguments, lengths=[40, 3, 0], chunk=chunk), expected, strict=True):
            assert np.array_equal(got, want)


def test_steps_of_a_chunk_follow_from_the_state_before_it(isa, dtype, rng):
    """Every step within a chunk is the plain step, so sums of integers are exact."""
    b = rng.integers(-5, 6, (1, 300, 3)).astype(dtype)
    y, h_n = linear_scan(np.ones(3), b, chunk=7)
    assert np.array_equal(y, b.cumsum(axis=1))
    assert np.array_equal(h_n, y[:, -1])


# ------------------------------------------------------------------------------------------- padding, and what is odd


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("chunk", [None, 3], ids=str)
def test_padding_is_not_read(isa, dtype, reverse, chunk, rng):
    a, b, h_0, dy, dh_n = draw(rng, 4, 9, 17, dtype)
    lengths = np.array([9, 4, 0, 1])
    expected = all_results((a, b, h_0, dy, dh_n), lengths=lengths, reverse=reverse, chunk=chunk)
    padding = np.arange(9) >= lengths[:, None]
    for array in (a, b, dy):
        array[padding] = np.nan
    mask = ~padding
    got = all_results((a, b, h_0, dy, dh_n), lengths=mask, reverse=reverse, chunk=chunk)
    for one, other in zip(got, expected, strict=True):
        assert np.array_equal(one, other)
        assert one.ndim < 3 or not one[padding].any()
    assert np.array_equal(got[1][2], h_0[2])
    assert np.array_equal(got[4][2], dh_n[2])


@pytest.mark.parametrize("chunk", [None, 4], ids=str)
def test_values_that_are_not_finite_go_on_in_their_channel(isa, dtype, chunk, rng):
    a, b, h_0, *_ = draw(rng, 2, 20, 33, dtype)
    expected = linear_scan(a, b, h_0, chunk=chunk)
    b[0, 5, 3], b[1, 7, 32], a[1, 9, 0] = np.nan, np.inf, np.nan
    y, h_n = linear_scan(np.abs(a), b, h_0, chunk=chunk)
    assert np.isnan(y[0, 5:, 3]).all()
    assert (y[1, 7:, 32] == np.inf).all()
    assert np.isnan(y[1, 9:, 0]).all()
    assert np.isfinite(np.delete(h_n[0], 3)).all()
    y = linear_scan(a, b, h_0, chunk=chunk).y
    fine = [c for c in range(33) if c not in (0, 3, 32)]
    assert np.array_equal(y[..., fine], expected.y[..., fine])


def test_denormals_are_zero_and_the_callers_state_comes_back(isa):
    tiny = np.float32(1e-38)
    y, _ = linear_scan([0.5], np.zeros((1, 4, 1), np.float32), [[tiny * 2]])
    assert y.ravel().tolist() == [0, 0, 0, 0] or y[0, 0, 0] > 0
    assert y[0, -1, 0] == 0
    assert tiny * np.float32(0.5) > 0


def test_types_follow_b(rng):
    a, b, h_0, dy, dh_n = draw(rng, 2, 3, 4, np.float32)
    assert linear_scan(a.astype(np.float64), b, h_0).y.dtype == np.float32
    assert linear_scan(a, b.astype(np.float16)).y.dtype == np.float32
    assert linear_scan(a, b.astype(np.int64)).y.dtype == np.float64
    assert linear_scan(a.astype(np.complex128), b).y.dtype == np.complex64
    expected = all_results((a, b, h_0, dy, dh_n))
    odd = np.asfortranarray(a), b[..., ::-1][..., ::-1], h_0.tolist(), dy.astype(np.float64), dh_n.astype(">f4")
    for got, want in zip(all_results(odd), expected, strict=True):
        assert np.array_equal(got, want)


def test_real_arguments_of_a_complex_scan_have_real_gradients(rng):
    a, b, h_0, dy, dh_n = draw(rng, 2, 5, 3, np.float64, "complex")
    whole = linear_scan_vjp(a, b.real.astype(np.complex128), h_0)[1](dy, dh_n)
    gradients = linear_scan_vjp(a, b.real, h_0)[1](dy, dh_n)
    assert np.array_equal(gradients.a, whole.a)
    assert np.array_equal(gradients.b, whole.b.real)
    assert linear_scan_vjp(a.real, b)[1](dy).a.dtype == np.float64


def test_cotangents_may_be_none_and_vjp_called_often(rng):
    a, b, h_0, dy, dh_n = draw(rng, 3, 9, 17, np.float32)
    _, vjp = linear_scan_vjp(a, b, h_0)
    zeros = [np.zeros_like(dy), np.zeros_like(dh_n)]
    for given_, explicit in (((None, dh_n), (zeros[0], dh_n)), ((dy,), (dy, zeros[1])), ((None, None), zeros)):
        for got, want in zip(vjp(*given_), vjp(*explicit), strict=True):
            assert np.array_equal(got, want)
    expected, results = vjp(dy, dh_n), []
    callers = [threading.Thread(target=lambda: results.append(vjp(dy, dh_n))) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(results) == 4
    for gradients in results:
        assert all(np.array_equal(got, want) for got, want in zip(gradients, expected, strict=True))


# ----------------------------------------------------------------------------------------------------- what is refused

A, B, H = np.ones((2, 3, 5), np.float32), np.ones((2, 3, 5), np.float32), np.ones((2, 5), np.float32)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"a": A[:1]}, ValueError, "a: expected (2, 3, 5) as b, or (5,), got (1, 3, 5)"),
        ({"a": A[0, 0, :4]}, ValueError, "a: expected (2, 3, 5) as b, or (5,), got (4,)"),
        ({"a": A.astype(object)}, TypeError, "a: expected real numbers, got object"),
        ({"b": B[0, 0]}, ValueError, "b: expected (N, T, C) or (T, C), at least one channel, got (5,)"),
        ({"b": B[..., :0]}, ValueError, "b: expected (N, T, C) or (T, C), at least one channel, got (2, 3, 0)"),
        (
            {"b": B.astype("U3")},
            TypeError,
            f"b: expected real or complex numbers of at most 64 bits a part, got {B.astype('U3').dtype}",
        ),
        (
            {"b": B.astype(np.longdouble)},
            TypeError,
            f"b: expected real or complex numbers of at most 64 bits a part, got {np.dtype(np.longdouble)}",
        ),
        ({"h_0": H[:1]}, ValueError, "h_0: expected float32 (2, 5), got float32 (1, 5)"),
        ({"h_0": H[0]}, ValueError, "h_0: expected float32 (2, 5), got float32 (5,)"),
        ({"h_0": 1.0}, ValueError, "h_0: expected (N, C), got ()"),
        ({"h_0": H.astype(np.complex64)}, TypeError, "h_0: expected real numbers, got complex64"),
        ({"lengths": [3, 1, 2]}, ValueError, "lengths: expected integers (2,), got int64 (3,)"),
        ({"lengths": [3, 4]}, ValueError, "lengths: expected values from 0 to T = 3, got 4 at row 1"),
        ({"chunk": 0}, ValueError, "chunk: expected a positive integer or None, got 0"),
        ({"chunk": 2.0}, ValueError, "chunk: expected a positive integer or None, got 2.0"),
        ({"chunk": True}, ValueError, "chunk: expected a positive integer or None, got True"),
        (
            {"a": A[0], "b": B[0]},
            ValueError,
            "h_0: expected 1 dimensions since x has no batch axis, got (2, 5)",
        ),
    ],
)
@pytest.mark.parametrize("function", [linear_scan, linear_scan_vjp])
def test_wrong_arguments_are_refused_by_name(function, changes, error, message):
    with pytest.raises(error) as raised:
        function(**{"a": A, "b": B, "h_0": H, **changes})
    assert str(raised.value) == message


@pytest.mark.parametrize(
    ("cotangents", "error", "message"),
    [
        ((B[:1],), ValueError, "dy: expected float32 (2, 3, 5), got float32 (1, 3, 5)"),
        ((B.astype(complex),), TypeError, "dy: expected real numbers, got complex128"),
        ((B, H[:1]), ValueError, "dh_n: expected float32 (2, 5), got float32 (1, 5)"),
    ],
)
def test_wrong_cotangents_are_refused(cotangents, error, message):
    _, vjp = linear_scan_vjp(A, B, H)
    with pytest.raises(error) as raised:
        vjp(*cotangents)
    assert str(raised.value) == message


def test_the_core_converts_nothing():
    options = (None, False, False, 0)
    y, _ = _core.linear_scan(A, B, H, *options)
    for wrong in (A.astype(np.float64), A.T.copy().T, A.tolist()):
        with pytest.raises((TypeError, ValueError), match=r"^a: expected float32 \(2, 3, 5\), got "):
            _core.linear_scan(wrong, B, H, *options)
        with pytest.raises((TypeError, ValueError), match=r"^dy: expected float32 \(2, 3, 5\), got "):
            _core.linear_scan_backward(A, y, H, wrong, None, *options)
    with pytest.raises(ValueError, match=r"^b: expected pairs of reals, got float32"):
        _core.linear_scan(A, B, H, None, True, False, 0)
    with pytest.raises(ValueError, match=r"^chunk: expected an integer >= 0, got -1"):
        _core.linear_scan(A, B, H, None, False, False, -1)
    nothing = np.zeros((2, 3, 0))
    with pytest.raises(ValueError, match=r"^b: expected at least one channel, got float64 \(2, 3, 0\)"):
        _core.linear_scan(nothing, nothing, None, None, False, False, 1)
