"""The core against the float64 oracle: every cell, type, instruction set and shape; layouts, options, defaults."""

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rnncore as rc
from cases import (
    ALL_SHAPES,
    CELLS,
    COVERING_SHAPES,
    DTYPES,
    assert_matches_reference,
    random_like,
    worst_error,
)
from rnncore import reference
from rnncore.testing import check_gradients

SHAPE = (6, 3, 5, 19)


@pytest.mark.parametrize("shape", COVERING_SHAPES, ids=str)
def test_matches_reference(cell, dtype, isa, shape, rng):
    T, N, _, _ = shape
    arguments = cell.arguments(rng, shape, dtype)
    lengths = rng.integers(0, T + 1, N) if N > 1 else None
    assert_matches_reference(cell, arguments, dtype, rng, lengths=lengths, reverse=bool(T % 2))


def test_a_large_batch_matches_reference(cell, dtype, isa, rng):
    # more rows than a tape keeps in one group
    arguments = cell.arguments(rng, (4, 1030, 3, 17), dtype)
    assert_matches_reference(cell, arguments, dtype, rng, lengths=rng.integers(0, 5, 1030))


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 2, 7])
def test_matches_reference_at_every_shape(cell, dtype, isa, batch, rng):
    for shape in ALL_SHAPES:
        if shape[1] != batch:
            continue
        arguments = cell.arguments(rng, shape, dtype)
        assert_matches_reference(cell, arguments, dtype, rng, reverse=bool(rng.integers(2)))


@pytest.mark.parametrize("cell", CELLS, ids=str)
@given(
    data=st.data(),
    shape=st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 6), st.integers(1, 40)),
    reverse=st.booleans(),
    batch_first=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
    dtype=st.sampled_from(DTYPES),
)
@settings(deadline=None, max_examples=60)
def test_matches_reference_at_random(data, shape, reverse, batch_first, seed, dtype, cell):
    T, N, _, _ = shape
    rng = np.random.default_rng(seed)
    arguments = cell.arguments(rng, shape, dtype, batch_first)
    for name in data.draw(st.sets(st.sampled_from(["b_ih", "b_hh", "h_0", "c_0"]))):
        arguments.pop(name, None)
    lengths = data.draw(st.none() | st.lists(st.integers(0, T), min_size=N, max_size=N))
    assert_matches_reference(cell, arguments, dtype, rng, lengths=lengths, reverse=reverse, batch_first=batch_first)


def test_large_inner_size_is_blocked_alike(cell, isa, rng):
    """Above 1024 the micro-kernel passes over k in blocks; G*H and I both exceed it here."""
    arguments = cell.arguments(rng, (3, 11, 1100, 1030))
    assert_matches_reference(cell, arguments, np.float64, rng)


def test_gradients_by_projection(cell, rng):
    arguments = cell.arguments(rng, SHAPE)
    names = list(arguments)

    def function(*values):
        return cell.vjp(rc.functional, dict(zip(names, values, strict=True)), lengths=[6, 0, 4])

    check_gradients(function, list(arguments.values()), names=names)


def test_absent_cotangents_are_zeros(cell, rng):
    outputs, vjp = cell.vjp(rc.functional, cell.arguments(rng, SHAPE))
    zeros = [np.zeros_like(a) for a in outputs]
    for index in range(len(outputs)):
        given_one = [None] * len(outputs)
        given_one[index] = zeros[index] + 1
        full = list(zeros)
        full[index] = given_one[index]
        for got, expected in zip(vjp(*given_one), vjp(*full), strict=True):
            assert np.array_equal(got, expected)
    assert not any(g.any() for g in vjp()[: 5 + cell.states])


def test_time_major_and_batch_first_agree(cell, isa, dtype, rng):
    arguments = cell.arguments(rng, SHAPE, dtype)
    outputs, vjp = cell.vjp(rc.functional, arguments, lengths=[2, 6, 3])
    swapped = dict(arguments, x=np.ascontiguousarray(arguments["x"].swapaxes(0, 1)))
    swapped_outputs, swapped_vjp = cell.vjp(rc.functional, swapped, lengths=[2, 6, 3], batch_first=False)
    assert np.array_equal(outputs.y, swapped_outputs.y.swapaxes(0, 1))
    assert np.array_equal(outputs.h_n, swapped_outputs.h_n)
    dy = random_like(rng, outputs)[0]
    gradients, swapped_gradients = vjp(dy), swapped_vjp(dy.swapaxes(0, 1))
    assert np.array_equal(gradients.x, swapped_gradients.x.swapaxes(0, 1))
    for got, expected in zip(swapped_gradients[1:], gradients[1:], strict=True):
        assert np.array_equal(got, expected)


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("lengths", [None, 4])
def test_one_unbatched_sequence(cell, batch_first, lengths, rng):
    arguments = cell.arguments(rng, (6, 1, 5, 19))
    one = {k: v[0] if k in ("x", "h_0", "c_0") else v for k, v in arguments.items()}
    outputs, vjp = cell.vjp(rc.functional, one, lengths=lengths, batch_first=batch_first)
    batch_lengths = None if lengths is None else [lengths]
    batched, batched_vjp = cell.vjp(rc.functional, arguments, lengths=batch_lengths)
    for got, expected in zip(outputs, batched, strict=True):
        assert np.array_equal(got, expected[0])
    cotangents = random_like(rng, outputs)
    expected_gradients = batched_vjp(*(c[None] for c in cotangents))
    for name, got, expected in zip(batched_vjp()._fields, vjp(*cotangents), expected_gradients, strict=True):
        assert np.array_equal(got, expected[0] if name in ("x", "h_0", "c_0") else expected)


def test_padding_is_neither_read_nor_written_twice(cell, isa, dtype, rng):
    arguments = cell.arguments(rng, SHAPE, dtype)
    lengths = np.array([4, 0, 6])
    clean, clean_vjp = cell.vjp(rc.functional, arguments, lengths=lengths)
    padding = np.arange(6) >= lengths[:, None]
    dirty_x = arguments["x"].copy()
    dirty_x[padding] = np.nan
    outputs, vjp = cell.vjp(rc.functional, dict(arguments, x=dirty_x), lengths=lengths)
    assert not outputs.y[padding].any()
    dy = random_like(rng, outputs)[0]
    dirty_dy = dy.copy()
    dirty_dy[padding] = np.nan
    assert not vjp(dirty_dy).x[padding].any()
    for got, expected in zip((*outputs, *vjp(dirty_dy)), (*clean, *clean_vjp(dy)), strict=True):
        assert np.array_equal(got, expected)


def test_vjp_may_be_called_twice_and_from_other_threads(cell, isa, dtype, rng):
    outputs, vjp = cell.vjp(rc.functional, cell.arguments(rng, (40, 9, 5, 33), dtype))
    cotangents = random_like(rng, outputs)
    expected = vjp(*cotangents)
    results = []
    workers = [threading.Thread(target=lambda: results.append(vjp(*cotangents))) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(results) == 4
    for gradients in results:
        for got, want in zip(gradients, expected, strict=True):
            assert np.array_equal(got, want)


def test_dtype_is_that_of_the_input_weights(cell, rng):
    arguments = cell.arguments(rng, SHAPE, np.float64)
    mixed = dict(arguments, w_ih=arguments["w_ih"].astype(np.float32))
    outputs, vjp = cell.vjp(rc.functional, mixed)
    gradients = vjp(outputs.y.astype(np.float64))[: 5 + cell.states]
    assert {a.dtype for a in (*outputs, *gradients)} == {np.dtype(np.float32)}
    assert worst_error(outputs.y, cell.forward(reference, arguments).y) < 1e-5
    halves = {k: v.astype(np.float16) for k, v in arguments.items()}
    assert cell.forward(rc.functional, halves).y.dtype == np.float32
    lists = {k: v.tolist() for k, v in arguments.items()}
    assert np.array_equal(cell.forward(rc.functional, lists).y, cell.forward(rc.functional, arguments).y)


def test_strided_and_misaligned_arrays_are_converted(cell, rng):
    arguments = cell.arguments(rng, SHAPE, np.float32)
    expected = cell.forward(rc.functional, arguments).y

    def misaligned(a):
        raw = np.zeros(a.nbytes + 1, np.uint8)[1:].view(a.dtype).reshape(a.shape)
        raw[...] = a
        return raw

    reversed_twice = {k: np.ascontiguousarray(v[::-1])[::-1] for k, v in arguments.items()}
    fortran = {k: np.asfortranarray(v) for k, v in arguments.items()}
    big_endian = {k: v.astype(v.dtype.newbyteorder(">")) for k, v in arguments.items() if k != "w_ih"}
    for variant in (
        reversed_twice,
        fortran,
        {k: misaligned(v) for k, v in arguments.items()},
        {**arguments, **big_endian},
    ):
        assert np.array_equal(cell.forward(rc.functional, variant).y, expected)


def test_read_only_arguments_are_accepted(cell, rng):
    arguments = cell.arguments(rng, SHAPE, np.float32)
    expected = cell.forward(rc.functional, arguments).y
    for array in arguments.values():
        array.setflags(write=False)
    assert np.array_equal(cell.forward(rc.functional, arguments).y, expected)
