"""Frozen layers and stacks of layers: the bits of the passes one by one, and what frozen promises besides."""

import copy
import pickle
import threading
from functools import partial

import numpy as np
import pytest

import rnncore as rc

LAYERS = [
    pytest.param(rc.RNN, id="RNN"),
    pytest.param(partial(rc.RNN, nonlinearity="relu"), id="RNN relu"),
    pytest.param(rc.LSTM, id="LSTM"),
    pytest.param(rc.GRU, id="GRU"),
]


def states(state):
    return state if isinstance(state, tuple) else (state,)


def same(got, expected):
    """Whether two results (y, state) have the same bits."""
    (y, state), (y_expected, state_expected) = got, expected
    pairs = zip((y, *states(state)), (y_expected, *states(state_expected)), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


def random_state(layer, rng, N):
    passes = layer.num_layers * (1 + layer.bidirectional)
    arrays = tuple(rng.standard_normal((passes, N, layer.hidden_size)).astype(layer.dtype) for _ in range(2))
    return arrays if isinstance(layer, rc.LSTM) else arrays[0]


@pytest.mark.parametrize("layer_class", LAYERS)
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("num_layers", [1, 2, 3])
@pytest.mark.parametrize("batch_first", [False, True])
def test_a_stack_has_the_bits_of_its_passes(layer_class, bidirectional, num_layers, batch_first, dtype, isa, rng):
    for input_size, hidden_size, bias in [(3, 7, True), (17, 16, False), (5, 33, True)]:
        layer = layer_class(
            input_size, hidden_size, num_layers, bias, batch_first, 0.0, bidirectional, dtype=dtype, rng=rng
        )
        frozen = layer.frozen()
        for T, N, lengths in [(6, 3, None), (6, 3, [6, 0, 2]), (1, 1, None), (0, 2, None), (4, 0, None)]:
            shape = (N, T, input_size) if batch_first else (T, N, input_size)
            x = rng.standard_normal(shape).astype(dtype)
            state = random_state(layer, rng, N)
            passes, _ = layer.vjp(x, state, lengths)  # runs them one after the other
            assert same(layer(x, state, lengths), passes)
            assert same(frozen(x, state, lengths), passes)
            assert same(frozen(x), layer(x))
            if isinstance(state, tuple):
                for some in ((state[0], None), (None, state[1])):
                    assert same(frozen(x, some, lengths), layer.vjp(x, some, lengths)[0])


@pytest.mark.parametrize("layer_class", LAYERS)
@pytest.mark.parametrize(
    "options",
    [
        {"num_layers": 3},  # side by side, or slices of hidden units
        {"num_layers": 2},
        {"num_layers": 2, "bidirectional": True},
        {"num_layers": 1},  # slices of hidden units
    ],
    ids=str,
)
def test_threads_change_no_bit_of_a_stack(layer_class, options, dtype, threads, rng):
    for T, N, I, H in [(200, 1, 3, 128), (100, 2, 9, 130), (40, 1, 1, 256), (120, 5, 9, 96), (4, 600, 9, 40)]:
        layer = layer_class(I, H, dtype=dtype, rng=rng, **options)
        x = rng.standard_normal((N, T, I)).astype(dtype)
        lengths = rng.integers(0, T + 1, N)
        lengths[0] = T
        threads(1)
        frozen = layer.frozen()
        expected = frozen(x, None, lengths)
        for n in (2, 3, 4, 5):
            threads(n)
            assert same(frozen(x, None, lengths), expected)
            assert same(layer(x, None, lengths), expected)


@pytest.mark.parametrize("layer_class", LAYERS)
def test_converts_what_the_layer_converts(layer_class, rng):
    layer = layer_class(5, 8, num_layers=2, rng=0)
    frozen = layer.frozen()
    x = rng.standard_normal((3, 6, 5)).astype(np.float32)
    state = random_state(layer, rng, 3)
    expected = frozen(x, state, np.array([6, 2, 1]))
    wide = tuple(s.astype(np.float64) for s in states(state))
    wide = wide if isinstance(state, tuple) else wide[0]
    assert same(frozen(x.astype(np.float64), wide, [6, 2, 1]), expected)
    assert same(frozen(x.tolist(), state, np.array([6, 2, 1], np.int32)), expected)
    assert same(frozen(np.repeat(x, 2, axis=1)[:, ::2], state, (6, 2, 1)), expected)
    if isinstance(state, tuple):
        assert same(frozen(x, list(state), [6, 2, 1]), expected)
    y, last = frozen(x[0], tuple(s[:, 0] for s in state) if isinstance(state, tuple) else state[:, 0], 6)
    assert np.array_equal(y, expected[0][0])
    assert all(np.array_equal(a, b[:, 0]) for a, b in zip(states(last), states(expected[1]), strict=True))


@pytest.mark.parametrize("make", [lambda layer: layer, lambda layer: layer.frozen()], ids=["layer", "frozen"])
def test_refuses_what_does_not_fit(make, rng):
    layer = make(rc.GRU(5, 8, rng=0))
    x = np.zeros((2, 4, 5), np.float32)
    with pytest.raises(ValueError, match=r"^x: expected \(N, T, 5\) or \(T, 5\), got \(2, 4, 3\)"):
        layer(x[..., :3])
    with pytest.raises(ValueError, match=r"^state: expected shape \(1, 2, 8\), got \(1, 1, 8\)"):
        layer(x, np.zeros((1, 1, 8)))
    with pytest.raises(ValueError, match=r"^lengths: expected integers \(2,\), got int64 \(3,\)"):
        layer(x, None, [1, 2, 3])
    with pytest.raises(ValueError, match=r"^lengths: expected values from 0 to T = 4, got 5 at row 1"):
        layer(x, None, [1, 5])
    with pytest.raises(TypeError, match=r"^lengths: expected integers"):
        layer(x, None, [1.0, 2.0])
    with pytest.raises(TypeError, match=r"^x: expected real numbers"):
        layer(x.astype(complex))


def test_keeps_the_parameters_it_was_made_with(rng):
    layer = rc.LSTM(5, 8, rng=0)
    x = rng.standard_normal((2, 4, 5)).astype(np.float32)
    frozen, before = layer.frozen(), layer(x)
    kept = layer.flat_parameters.copy()
    layer.flat_parameters *= 2
    assert not same(layer(x), before)
    assert same(frozen(x), before)
    flat = np.concatenate([array.ravel() for array in frozen.parameters.values()])
    assert np.array_equal(flat, kept)
    with pytest.raises(ValueError, match="read-only"):
        frozen.parameters["weight_ih_l0"][0, 0] = 1
    with pytest.raises(ValueError, match="read-only"):
        frozen.parameters["weight_ih_l0"] = layer.parameters["weight_ih_l0"]
    for twin in (pickle.loads(pickle.dumps(frozen)), copy.deepcopy(frozen)):
        assert same(twin(x), before)
        assert not twin.parameters["weight_ih_l0"].flags.writeable


def test_keeps_its_instruction_set(rng):
    x = rng.standard_normal((2, 9, 5)).astype(np.float32)
    layer = rc.LSTM(5, 40, rng=0)
    frozen = layer.frozen()
    before = frozen(x)
    in_use = rc._core.active_isa()
    try:
        for isa in rc.available_isas():
            rc.use_isa(isa)
            assert same(frozen(x), before)
    finally:
        rc.use_isa(in_use)


def test_many_threads_may_call_it(threads, rng):
    threads(2)
    frozen = rc.LSTM(16, 128, num_layers=2, rng=0).frozen()
    inputs = [rng.standard_normal((1 + i % 3, 60, 16)).astype(np.float32) for i in range(4)]
    expected = [frozen(x) for x in inputs]
    wrong = []

    def call(index):
        for turn in range(20):
            k = (index + turn) % len(inputs)
            if not same(frozen(inputs[k]), expected[k]):
                wrong.append(k)

    workers = [threading.Thread(target=call, args=(i,)) for i in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert not worker.is_alive()
    assert wrong == []


def test_large_results_of_many_threads_are_their_own(threads, rng):
    threads(2)
    frozen = rc.RNN(3, 64, rng=0).frozen()
    inputs = [rng.standard_normal((9, 500 + 20 * k, 3)).astype(np.float32) for k in range(3)]
    expected = [frozen(x) for x in inputs]
    wrong = []

    def call(index):
        kept = []
        for turn in range(30):
            k = (index + turn) % len(inputs)
            kept.append((k, frozen(inputs[k])))
            for j, result in kept:
                if not same(result, expected[j]):
                    wrong.append(j)
            del kept[: turn % 3]

    workers = [threading.Thread(target=call, args=(i,)) for i in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert not worker.is_alive()
    assert wrong == []


def test_results_are_arrays_of_their_own(rng):
    frozen = rc.GRU(4, 64, rng=0).frozen()
    for T in (3, 5000):  # y of 5000 steps has more than 1 MB, whose memory is kept when the array is gone
        x = rng.standard_normal((2, T, 4)).astype(np.float32)
        first = frozen(x)
        copied = first[0].copy(), first[1].copy()
        second = frozen(-x)
        assert not np.shares_memory(first[0], second[0])
        assert same(first, copied)
        view = first[0][0, -1:]
        del first
        third = frozen(x * 2)
        assert not np.shares_memory(view, third[0])
        assert np.array_equal(view, copied[0][0, -1:])
        assert third[0].flags.writeable


def test_memory_of_a_living_array_is_not_used_again(rng):
    layer = rc.GRU(300, 256, rng=0)
    frozen = layer.frozen()
    kept = []

    def keep(*arrays):
        kept.extend((array, np.array(array)) for array in arrays)

    for turn in range(6):
        x = rng.standard_normal((1100, 2, 300)).astype(np.float32)
        y, h_n = frozen(x, rng.standard_normal((1, 1100, 256)))  # each of more than 1 MB
        (y_again, _), pull_back = layer.vjp(x)
        dx, dh_0 = pull_back(y)
        assert min(a.nbytes for a in (y, h_n, y_again, dx, dh_0)) > 1 << 20
        if turn % 2:
            keep(memoryview(y), h_n[-1, -1], dx.T, dh_0)  # what is left of an array keeps its memory
        else:
            keep(y, y_again)
    for array, copied in kept:
        assert np.array_equal(array, copied)
