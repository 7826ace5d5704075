"""Streams: the bits of whole-sequence calls, whatever the steps are taken in; rows that come and go; states; errors."""

import copy
import threading
from itertools import pairwise

import numpy as np
import pytest

import rnncore as rc

RECURRENT = {
    "rnn": lambda I, H, **kw: rc.RNN(I, H, **kw),
    "relu": lambda I, H, **kw: rc.RNN(I, H, nonlinearity="relu", **kw),
    "lstm": lambda I, H, **kw: rc.LSTM(I, H, **kw),
    "gru": lambda I, H, **kw: rc.GRU(I, H, **kw),
}
cells = pytest.mark.parametrize("make", RECURRENT.values(), ids=RECURRENT)
dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def series(*shape, dtype=np.float32, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def tree_equal(a, b):
    if isinstance(a, tuple):
        return isinstance(b, tuple) and len(a) == len(b) and all(map(tree_equal, a, b))
    return a is b is None or np.array_equal(a, b)


def model(dtype=np.float32):
    """Every kind of stage, with a nested model."""
    return rc.Sequential(
        rc.Embedding(11, 5, dtype=dtype, rng=0),
        rc.LSTM(5, 17, num_layers=2, dtype=dtype, rng=1),
        rc.Dropout(0.5, rng=2),
        rc.Activation("tanh"),
        rc.Sequential(rc.Linear(17, 33, activation="relu", dtype=dtype, rng=3), rc.GRU(33, 7, dtype=dtype, rng=4)),
        rc.Activation("sigmoid"),
        rc.Linear(7, 4, bias=False, dtype=dtype, rng=5),
    )


# ------------------------------------------------------------------------------------------------------------- bits


@cells
@dtypes
@pytest.mark.parametrize("hidden", [1, 7, 16, 17, 33])
@pytest.mark.parametrize("inputs", [1, 5])
def test_steps_have_the_bits_of_a_whole_call(make, dtype, isa, hidden, inputs):
    for rows, layers, bias in (1, 1, True), (5, 2, True), (3, 1, False):
        layer = make(inputs, hidden, num_layers=layers, bias=bias, dtype=dtype, rng=1)
        x = series(rows, 9, inputs, dtype=dtype)
        y, state = layer(x)
        stream = layer.stream(rows)
        assert np.array_equal(np.stack([stream.step(x[:, t]) for t in range(9)], axis=1), y)
        assert tree_equal(stream.state, state)
        stream.reset()
        assert np.array_equal(np.concatenate([stream.process(x[:, :4]), stream.process(x[:, 4:])], axis=1), y)
        assert tree_equal(stream.state, state)


@dtypes
def test_a_model_of_every_stage(dtype):
    net = model(dtype)
    tokens = np.random.default_rng(0).integers(0, 11, (6, 20))
    y, state = net.run(tokens)
    stream = net.stream(6)
    assert np.array_equal(stream.process(tokens[:, :7]), y[:, :7])
    assert np.array_equal(np.stack([stream.step(tokens[:, t]) for t in range(7, 20)], axis=1), y[:, 7:])
    assert tree_equal(stream.state, state)
    alone = net.stream()
    assert np.array_equal([alone.step(int(token)) for token in tokens[2]], y[2])
    assert tree_equal(alone.state, net.run(tokens[2:3])[1]) is False  # no axis N
    assert alone.state[1][0].shape == (2, 17)


@pytest.mark.parametrize("rows", [1, 2, 300, 1000])
@pytest.mark.parametrize("count", [1, 2])
def test_large_batches_and_long_blocks(rows, count, threads):
    threads(count)
    net = rc.Sequential(rc.GRU(6, 40, rng=0), rc.Linear(40, 3, rng=1))
    x = series(rows, 2000 // rows + 3, 6)
    stream = net.stream(rows)
    assert np.array_equal(stream.process(x), net(x))
    y = stream.step(x[:, 0])
    assert np.array_equal(y, net.run(x[:, :1], net.run(x)[1])[0][:, 0])


def test_embedding_and_activations_alone():
    table = rc.Embedding(9, 4, rng=0)
    tokens = np.array([[1, 8, 0], [2, 2, 5]])
    assert np.array_equal(table.stream(2).process(tokens), table(tokens))
    net = rc.Sequential(rc.Linear(3, 5, rng=0), rc.Activation("relu"))
    x = series(2, 3, 3)
    assert np.array_equal(net.stream(2).process(x), net(x))


def test_many_to_one_gives_its_answer_at_every_step():
    net = rc.Sequential(rc.GRU(3, 8, rng=0), rc.Last(), rc.Linear(8, 2, rng=1))
    x = series(4, 6, 3)
    y = net.stream(4).process(x)
    for t in range(6):
        assert np.array_equal(y[:, t], net(x[:, : t + 1]))


def test_no_rows_and_no_steps():
    stream = rc.LSTM(3, 4, rng=0).stream(0)
    assert stream.step(np.zeros((0, 3))).shape == (0, 4)
    assert stream.process(np.zeros((0, 5, 3))).shape == (0, 5, 4)
    stream = rc.LSTM(3, 4, rng=0).stream(2)
    assert stream.process(np.zeros((2, 0, 3))).shape == (2, 0, 4)
    assert not stream.state[0].any()


# ---------------------------------------------------------------------------------------------------------- outputs


def test_out_is_written_and_returned():
    layer = rc.GRU(3, 4, rng=0)
    stream = layer.stream(2)
    x, out = series(2, 5, 3), np.full((2, 4), np.nan, np.float32)
    assert stream.step(x[:, 0], out) is out
    assert stream.step(x[:, 1], out=out) is out
    assert stream.step(x=x[:, 2], out=out) is out
    block = np.empty((2, 2, 4), np.float32)
    assert stream.process(x[:, 3:], out=block) is block
    y, _ = layer(x)
    assert np.array_equal(out, y[:, 2])
    assert np.array_equal(block, y[:, 3:])


def test_inputs_are_converted():
    layer = rc.GRU(3, 4, rng=0)
    x = series(2, 3)
    expected = layer.stream(2).step(x)
    for other in (x.astype(np.float64), np.asfortranarray(x), x.tolist(), x[::1]):
        assert np.array_equal(layer.stream(2).step(other), expected)
    net = model()
    assert np.array_equal(net.stream(2).step(np.array([3, 4], np.uint8)), net.stream(2).step([3, 4]))


def test_the_model_may_change_afterwards():
    net = model()
    tokens = np.random.default_rng(0).integers(0, 11, (2, 4))
    y, stream = net(tokens), net.stream(2)
    net.flat_parameters[...] = 0
    assert np.array_equal(stream.process(tokens), y)


# ------------------------------------------------------------------------------------------------------------- rows


@dtypes
def test_rows_come_and_go(dtype):
    net = rc.Sequential(rc.LSTM(3, 9, num_layers=2, dtype=dtype, rng=0), rc.Linear(9, 2, dtype=dtype, rng=1))
    rng = np.random.default_rng(0)
    stream, sessions = net.stream(0), []  # of each row: what it has been given
    for _ in range(150):
        action = rng.integers(3)
        if action == 0 or not sessions:
            assert stream.attach() == len(sessions)
            sessions.append([])
        elif action == 1 and len(sessions) > 1:
            row = int(rng.integers(len(sessions)))
            stream.detach(row)
            sessions[row] = sessions[-1]
            sessions.pop()
        x = rng.standard_normal((len(sessions), 3)).astype(dtype)
        y = stream.step(x)
        for session, x_row, y_row in zip(sessions, x, y, strict=True):
            session.append(x_row)
            assert np.array_equal(net(np.stack(session)[np.newaxis])[0, -1], y_row)


def test_attach_with_a_state():
    layer = rc.LSTM(3, 4, rng=0)
    stream = layer.stream(2)
    stream.step(series(2, 3))
    moved = stream.row_state(1)
    assert stream.attach(moved) == 2
    y = stream.step(np.ones((3, 3)))
    assert np.array_equal(y[1], y[2])
    assert not np.array_equal(y[0], y[1])
    with pytest.raises(ValueError, match=r"state: expected shape \(1, 4\), got \(4,\)"):
        stream.attach((np.zeros(4), np.zeros(4)))
    assert stream.batch_size == 3


def test_reset_of_rows():
    layer = rc.GRU(3, 4, rng=0)
    x = series(4, 3)
    first = layer.stream(4).step(x)
    for rows, back in ((2, [2]), ([0, 3], [0, 3]), (np.array([True, False, True, False]), [0, 2]), (None, range(4))):
        stream = layer.stream(4)
        stream.step(x)
        second = stream.fork().step(x)
        stream.reset(rows)
        y = stream.step(x)
        for row in range(4):
            assert np.array_equal(y[row], (first if row in back else second)[row])


@pytest.mark.parametrize("unbatched", [False, True])
def test_reset_mask_of_a_block_is_a_cut(unbatched):
    net = rc.Sequential(rc.GRU(3, 8, rng=0), rc.Linear(8, 2, rng=1))
    x = series(3, 12, 3)
    mask = np.random.default_rng(1).random((3, 12)) < 0.2
    mask[0, 0] = mask[1, [3, 4]] = mask[2, 11] = True
    y = net.stream(3).process(x, reset_mask=mask)
    for row in range(3):
        bounds = [0, *np.flatnonzero(mask[row]), 12]
        cut = [net(x[row : row + 1, a:b])[0] for a, b in pairwise(bounds)]
        assert np.array_equal(np.concatenate(cut), y[row])
        if unbatched:
            out = np.empty((12, 2), np.float32)
            assert net.stream().process(x[row], out=out, reset_mask=mask[row]) is out
            assert np.array_equal(out, y[row])


def test_a_block_with_resets_that_fails_changes_nothing():
    stream = model().stream(2)
    stream.step([3, 4])
    before = stream.state
    frozen = np.zeros((2, 4, 4), np.float32)
    frozen.flags.writeable = False
    mask = np.array([[False, True, False, False], [True, False, False, True]])
    for tokens, out, message in (
        ([[1, 2, 3, 11], [1, 2, 3, 4]], None, "x: expected tokens from 0 to 10, got 11"),
        ([[1, 2, 3, 4], [1, 2, 3, 4]], frozen, "read-only"),
    ):
        with pytest.raises(ValueError, match=message):
            stream.process(tokens, out, mask)
        assert tree_equal(stream.state, before)


# ----------------------------------------------------------------------------------------------------------- states


def test_states_go_out_and_in():
    net = model()
    tokens = np.random.default_rng(0).integers(0, 11, (3, 12))
    y, stream = net(tokens), net.stream(3)
    stream.process(tokens[:, :5])
    fork, state, data = stream.fork(), stream.state, stream.to_bytes()
    assert np.array_equal(stream.process(tokens[:, 5:]), y[:, 5:])
    assert np.array_equal(fork.process(tokens[:, 5:]), y[:, 5:])
    other = net.stream(3)
    other.state = state
    assert np.array_equal(other.process(tokens[:, 5:]), y[:, 5:])
    other.from_bytes(data)
    assert np.array_equal(other.process(tokens[:, 5:]), y[:, 5:])
    other.set_row_state(0, fork.row_state(2))
    assert tree_equal(other.row_state(0), fork.row_state(2))
    other.state = None
    assert np.array_equal(other.process(tokens), y)


def test_a_copy_is_a_fork_and_a_stream_says_what_it_is():
    stream = rc.GRU(3, 4, rng=0).stream(2)
    stream.step(np.ones((2, 3)))
    twin = copy.copy(stream)
    assert np.array_equal(twin.step(np.ones((2, 3))), stream.fork().step(np.ones((2, 3))))
    assert repr(twin) == "Stream(GRU(3, 4), batch_size=2)"
    assert repr(rc.GRU(3, 4).stream()) == "Stream(GRU(3, 4))"
    with pytest.raises(TypeError, match="cannot pickle"):
        copy.deepcopy(stream)


def test_a_state_that_does_not_fit_changes_nothing():
    net = rc.Sequential(rc.LSTM(3, 4, rng=0), rc.Linear(4, 2, rng=1), rc.GRU(2, 5, rng=2))
    stream = net.stream(2)
    stream.step(np.ones((2, 3)))
    before = stream.state
    lstm, _, gru = before
    for bad, kind, message in (
        ((lstm, None), ValueError, "state: expected a tuple of 3 states"),
        ((lstm, gru, gru), ValueError, "state: expected None for a layer without one"),
        ((lstm[0], None, gru), TypeError, r"state: expected None or a tuple \(h, c\), got ndarray"),
        ((lstm, None, gru[:, :1]), ValueError, r"state: expected shape \(1, 2, 5\), got \(1, 1, 5\)"),
        ((lstm, None, gru.astype(str)), TypeError, "state: expected real numbers"),
    ):
        with pytest.raises(kind, match=message):
            stream.state = bad
        assert tree_equal(stream.state, before)
    for data, message in (
        (b"12", "data: expected bytes of a stream's state"),
        (net.stream(3).to_bytes(), "data: expected states"),
        (rc.GRU(3, 4, rng=0).stream(2).to_bytes(), "data: expected states"),
    ):
        with pytest.raises(ValueError, match=message):
            stream.from_bytes(data)
        assert tree_equal(stream.state, before)


# ---------------------------------------------------------------------------------------------------------- threads


def test_streams_of_one_model_run_at_the_same_time():
    net = rc.Sequential(rc.LSTM(16, 64, rng=0), rc.Linear(64, 4, rng=1))
    x = series(4, 8, 300, 16)
    y = [net(part) for part in x]
    source, found = net.stream(8), {}

    def run(index):
        stream = source.fork()
        found[index] = np.concatenate([stream.process(x[index][:, t : t + 30]) for t in range(0, 300, 30)], axis=1)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(found[index], y[index]) for index in range(4))


def test_one_stream_is_for_one_thread_at_a_time():
    stream = rc.LSTM(64, 256, rng=0).stream(16)
    x = series(16, 400, 64)
    worker = threading.Thread(target=stream.process, args=(x,))
    worker.start()
    with pytest.raises(RuntimeError, match="in use by another thread"):  # noqa: PT012
        while worker.is_alive():
            stream.reset(0)
    worker.join()


# ----------------------------------------------------------------------------------------------------------- errors


def test_what_cannot_be_streamed():
    class Doubled(rc.GRU):
        def __call__(self, x, state=None, lengths=None):
            return super().__call__(2 * np.asarray(x), state, lengths)

    class Named(rc.GRU):
        pass

    for bad, kind, message in (
        (rc.GRU(3, 4, bidirectional=True), ValueError, "model: expected layers of one direction"),
        (rc.MeanPool(), TypeError, "model: expected layers that can be streamed, got MeanPool"),
        (rc.Sequential(rc.GRU(3, 4), rc.LayerNorm(4)), TypeError, "can be streamed, got LayerNorm"),
        (Doubled(3, 4), TypeError, "of a class of its own"),
        (rc.Activation("tanh"), TypeError, "to follow a layer that has a size"),
        (rc.Sequential(rc.Linear(3, 4), rc.Embedding(3, 4)), TypeError, "to be its first layer"),
        (rc.Dropout(0.5), ValueError, "stages: expected at least one"),
    ):
        with pytest.raises(kind, match=message):
            bad.stream()
    assert Named(3, 4).stream().step(np.ones(3)).shape == (4,)
    for size in (-1, 2.0, True):
        with pytest.raises(ValueError, match="batch_size: expected an integer of at least 0 or None"):
            rc.GRU(3, 4).stream(size)


def test_wrong_arguments_change_nothing():
    stream = rc.GRU(3, 4, rng=0).stream(2)
    x = series(2, 3)
    stream.step(x)
    before = stream.state
    own = np.zeros((2, 7), np.float32)
    frozen = np.zeros((2, 4), np.float32)
    frozen.flags.writeable = False
    for call, kind, message in (
        (lambda: stream.step(), TypeError, "step: expected x, and perhaps out"),
        (lambda: stream.step(x, x, x), TypeError, "step: expected x, and perhaps out"),
        (lambda: stream.step(x, y=x), TypeError, "step: expected x, and perhaps out"),
        (lambda: stream.step(x, x=x), TypeError, "step: expected x, and perhaps out"),
        (lambda: stream.step(x[0]), ValueError, r"x: expected float32 \(2, 3\), got float32 \(3,\)"),
        (lambda: stream.step(series(3, 3)), ValueError, r"x: expected float32 \(2, 3\)"),
        (lambda: stream.step("abc"), TypeError, "x: expected real numbers"),
        (lambda: stream.process(out=x), TypeError, "process: expected x, and perhaps out and reset_mask"),
        (lambda: stream.process(x, x, None, x), TypeError, "process: expected x, and perhaps out and reset_mask"),
        (lambda: stream.process(x), ValueError, r"x: expected float32 \(2, T, 3\), got float32 \(2, 3\)"),
        (lambda: stream.step(x, np.zeros((2, 4))), TypeError, r"out: expected float32 \(2, 4\), got float64"),
        (lambda: stream.step(x, np.zeros((4, 2), "f").T), ValueError, "not C-contiguous"),
        (lambda: stream.step(x, [[0.0] * 4] * 2), TypeError, "out: expected float32"),
        (lambda: stream.step(x, frozen), ValueError, "out: expected an array that can be written"),
        (lambda: stream.step(own.ravel()[:6].reshape(2, 3), own.ravel()[4:12].reshape(2, 4)), ValueError, "overlaps x"),
        (lambda: stream.process(x[:, None], reset_mask=[True]), ValueError, r"reset_mask: expected bool \(2, 1\)"),
        (lambda: stream.process(x[:, None], np.zeros((2, 4), "f"), [[True]] * 2), ValueError, "out: expected float32"),
        (lambda: stream.detach(2), IndexError, "row: expected one from 0 to 1, got 2"),
        (lambda: stream.detach(0.5), TypeError, "float"),
        (lambda: stream.detach(-1), IndexError, "row: expected one from 0 to 1, got -1"),
        (lambda: stream.reset([0, 2]), IndexError, "rows: expected some from 0 to 1, got 0 to 2"),
        (lambda: stream.reset([True]), ValueError, r"rows: expected bool \(2,\)"),
        (lambda: stream.reset([0.5]), TypeError, "rows: expected integers or bool"),
        (lambda: stream.row_state(2), IndexError, "row: expected one from 0 to 1, got 2"),
        (lambda: stream.set_row_state(-1, None), IndexError, "row: expected one from 0 to 1, got -1"),
        (lambda: rc.GRU(3, 4).stream().attach(), ValueError, "attach: expected a stream with a batch_size"),
        (lambda: rc.GRU(3, 4).stream().detach(0), ValueError, "detach: expected a stream with a batch_size"),
        (lambda: model().stream(1).step([11]), ValueError, "x: expected tokens from 0 to 10, got 11"),
        (lambda: model().stream(1).step([1.0]), TypeError, "x: expected integers, the tokens, got float64"),
        (lambda: rc.Stream.__new__(rc.Stream).step(x), TypeError, "stream: expected one that was initialised"),
    ):
        with pytest.raises(kind, match=message):
            call()
        assert np.array_equal(stream.state, before)
