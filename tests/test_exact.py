"""Bits, not tolerances: a row's result is its own, whatever is computed beside it, before it or by whom."""

import numpy as np
import pytest

import rnncore as rc
from cases import CELLS, random_like

# Batches around the sizes of row tiles, hidden sizes around those of vectors and panels.
HIDDEN = [1, 7, 16, 17, 33, 64, 100]
BATCH, STEPS, INPUTS = 29, 9, 5


def equal(got, expected):
    return all(np.array_equal(a, b) for a, b in zip(got, expected, strict=True))


def rows_of(cell, arguments, rows, **changes):
    taken = {k: v[rows] if k in ("x", "h_0", "c_0") else v for k, v in arguments.items()}
    return {**taken, **changes}


@pytest.mark.parametrize("H", HIDDEN)
def test_a_row_alone_equals_the_row_in_any_batch(cell, dtype, isa, H, rng):
    arguments = cell.arguments(rng, (STEPS, BATCH, INPUTS, H), dtype)
    whole = cell.forward(rc.functional, arguments)
    for size in (1, 2, 3, 5, 8, 13):
        rows = rng.permutation(BATCH)[:size]
        part = cell.forward(rc.functional, rows_of(cell, arguments, rows))
        assert equal(part, [a[rows] for a in whole])


@pytest.mark.parametrize("H", HIDDEN)
def test_gradients_of_a_row_are_its_own(cell, dtype, isa, H, rng):
    arguments = cell.arguments(rng, (STEPS, BATCH, INPUTS, H), dtype)
    outputs, vjp = cell.vjp(rc.functional, arguments)
    cotangents = random_like(rng, outputs)
    whole = vjp(*cotangents)
    for rows in ([3], rng.permutation(BATCH)[:7]):
        _, part_vjp = cell.vjp(rc.functional, rows_of(cell, arguments, rows))
        part = part_vjp(*(c[rows] for c in cotangents))
        assert np.array_equal(part.x, whole.x[rows])
        assert equal(part[5 : 5 + cell.states], [a[rows] for a in whole[5 : 5 + cell.states]])


@pytest.mark.parametrize("H", [16, 33, 100])
def test_thread_count_changes_no_bit(cell, dtype, isa, H, rng, threads):
    # 130 rows of 40 steps: enough work for the calls to be shared out, several chunks of backward
    arguments = cell.arguments(rng, (40, 130, 21, H), dtype)
    lengths = rng.integers(0, 41, 130)
    results = []
    for n in (1, 2, 7):
        threads(n)
        outputs, vjp = cell.vjp(rc.functional, arguments, lengths=lengths)
        cotangents = random_like(np.random.default_rng(0), outputs)
        inference = cell.forward(rc.functional, arguments, lengths=lengths)
        results.append((*outputs, *vjp(*cotangents), *inference))
    assert equal(results[0], results[1])
    assert equal(results[0], results[2])


@pytest.mark.parametrize("N", [257, 600])
def test_slices_of_a_large_batch_change_no_bit(cell, dtype, isa, N, rng, threads):
    arguments = cell.arguments(rng, (6, N, INPUTS, 33), dtype)
    lengths = rng.integers(0, 7, N)
    gradients = []
    for n in (1, 3):
        threads(n)
        whole = cell.forward(rc.functional, arguments, lengths=lengths)
        outputs, vjp = cell.vjp(rc.functional, arguments, lengths=lengths)
        assert equal(outputs, whole)
        gradients.append(vjp(*random_like(np.random.default_rng(0), outputs)))
        assert equal(gradients[0], gradients[-1])
        for rows in np.array_split(rng.permutation(N), 5):
            part = cell.forward(rc.functional, rows_of(cell, arguments, rows), lengths=lengths[rows])
            assert equal(part, [a[rows] for a in whole])


# Few rows of many hidden units, which threads share. Up to 4 inputs, up to 4 rows of a single step, and up to 8 rows in
# backward take ways of their own.
@pytest.mark.parametrize(
    "shape",
    [
        (560, 1, 1, 128),  # more than one chunk of backward
        (200, 2, 5, 130),
        (60, 3, 21, 200),
        (60, 1, 3, 256),
        (50, 2, 2, 320),
        (4, 2, 4, 512),
        (1, 4, 5, 512),
    ],
    ids=str,
)
def test_slices_of_hidden_units_change_no_bit(cell, dtype, isa, shape, rng, threads):
    arguments = cell.arguments(rng, shape, dtype)
    T, N = shape[:2]
    options = {"lengths": np.array([T, T // 2, 1, T])[:N], "reverse": N == 2}
    results = []
    for n in (1, 2, 3, 4, 5):
        threads(n)
        outputs, vjp = cell.vjp(rc.functional, arguments, **options)
        cotangents = random_like(np.random.default_rng(0), outputs)
        inference = cell.forward(rc.functional, arguments, **options)
        results.append((*outputs, *vjp(*cotangents), *inference))
    for other in results[1:]:
        assert equal(results[0], other)


# Single steps of up to 4 rows take the weights as they are, and calls of up to 8 rows make gradients without packing.
@pytest.mark.parametrize("H", HIDDEN)
def test_single_steps_equal_the_whole_sequence(cell, dtype, isa, H, rng):
    for N, I in [(1, 1), (3, 5), (4, 16), (5, 33)]:
        arguments = cell.arguments(rng, (3, N, I, H), dtype)
        y, *last = cell.forward(rc.functional, arguments)
        state = [arguments[name] for name in ("h_0", "c_0") if name in arguments]
        for t in range(3):
            now = dict(zip(("h_0", "c_0"), state, strict=False), x=arguments["x"][:, t : t + 1])
            y_t, *state = cell.forward(rc.functional, {**arguments, **now})
            assert np.array_equal(y_t[:, 0], y[:, t])
        assert equal(state, last)


@pytest.mark.parametrize("H", HIDDEN)
def test_gradients_of_few_rows_equal_those_of_many(cell, dtype, isa, H, rng):
    # nine rows, of which the gradients of all but `few` are zero: their terms add nothing to the sums
    for few, I in [(1, 1), (3, 16), (8, 5)]:
        arguments = cell.arguments(rng, (1, 9, I, H), dtype)
        outputs, vjp = cell.vjp(rc.functional, arguments)
        cotangents = random_like(rng, outputs)
        for cotangent in cotangents:
            cotangent[few:] = 0
        whole = vjp(*cotangents)
        _, vjp = cell.vjp(rc.functional, rows_of(cell, arguments, slice(0, few)))
        part = vjp(*(c[:few] for c in cotangents))
        assert equal(part[1:5], whole[1:5])
        of_states = slice(5, 5 + cell.states)
        assert equal([part[0], *part[of_states]], [a[:few] for a in (whole[0], *whole[of_states])])


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("H", [7, 17, 64])
def test_ragged_equals_each_sequence_alone(cell, dtype, isa, H, reverse, rng):
    arguments = cell.arguments(rng, (STEPS, BATCH, INPUTS, H), dtype)
    lengths = rng.integers(0, STEPS + 1, BATCH)
    y, *last = cell.forward(rc.functional, arguments, lengths=lengths, reverse=reverse)
    for n, length in enumerate(lengths):
        alone = rows_of(cell, arguments, [n], x=arguments["x"][n : n + 1, :length])
        y_alone, *last_alone = cell.forward(rc.functional, alone, reverse=reverse)
        assert np.array_equal(y[n, :length], y_alone[0])
        assert equal([a[n] for a in last], [a[0] for a in last_alone])


@pytest.mark.parametrize("N", [1, 6])
@pytest.mark.parametrize("H", [7, 33, 64])
def test_whole_sequence_equals_chunks_with_carried_state(cell, dtype, isa, N, H, rng):
    arguments = cell.arguments(rng, (700, N, INPUTS, H), dtype)  # longer than one chunk of the input product
    y, *last = cell.forward(rc.functional, arguments)
    pieces, state = [], {k: arguments[k] for k in ("h_0", "c_0") if k in arguments}
    for begin, end in ((0, 1), (1, 2), (2, 300), (300, 700)):
        part = {**arguments, **state, "x": arguments["x"][:, begin:end]}
        piece, *carried = cell.forward(rc.functional, part)
        state = dict(zip(state, carried, strict=True))
        pieces.append(piece)
    assert np.array_equal(y, np.concatenate(pieces, axis=1))
    assert equal(last, carried)


def test_reverse_equals_forward_over_the_reversed_series(cell, dtype, isa, rng):
    arguments = cell.arguments(rng, (STEPS, 5, INPUTS, 33), dtype)
    y, *last = cell.forward(rc.functional, arguments, reverse=True)
    flipped = dict(arguments, x=arguments["x"][:, ::-1])
    y_flipped, *last_flipped = cell.forward(rc.functional, flipped)
    assert np.array_equal(y, y_flipped[:, ::-1])
    assert equal(last, last_flipped)


def test_inner_blocks_change_no_bit(isa, rng):
    """A layer of 1100 inputs is summed in blocks; with 1100 - 1024 leading zeros the blocks fall elsewhere."""
    cell = CELLS[2]
    arguments = cell.arguments(rng, (3, 7, 1100, 20), np.float32)
    moved = dict(
        arguments,
        x=np.concatenate([np.zeros((7, 3, 76), np.float32), arguments["x"]], axis=2),
        w_ih=np.concatenate([np.zeros((80, 76), np.float32), arguments["w_ih"]], axis=1),
    )
    assert equal(cell.forward(rc.functional, arguments), cell.forward(rc.functional, moved))
