"""What is refused, and how; sizes of zero; values that are not finite; threads and processes at once."""

import os
import subprocess
import sys
import threading
from functools import partial

import numpy as np
import pytest

import rnncore as rc
from cases import CELLS
from rnncore import _core

SHAPE = (6, 3, 5, 8)


@pytest.fixture
def arguments(rng, cell):
    return cell.arguments(rng, SHAPE, np.float32)


def raises(error, argument, *words):
    return pytest.raises(error, match=f"^{argument}: .*" + ".*".join(words))


@pytest.mark.parametrize("axis_of", ["x", "w_hh", "b_ih", "b_hh", "h_0", "c_0", "w_ih"])
def test_wrong_shapes_are_refused_by_name(cell, arguments, axis_of):
    if axis_of not in arguments:
        pytest.skip("the cell has no such argument")
    wrong = dict(arguments)
    wrong[axis_of] = np.concatenate([arguments[axis_of]] * 2, axis=-1)
    name = "x" if axis_of == "w_ih" else axis_of  # I is read off w_ih
    with raises((ValueError), name, "expected float32", "got float32"):
        cell.forward(rc.functional, wrong)
    wrong[axis_of] = arguments[axis_of][..., None, None]
    with raises(ValueError, axis_of, "got float32"):
        cell.forward(rc.functional, wrong)


def test_message_names_what_was_expected_and_what_came(arguments, cell):
    x = np.zeros((3, 6, 4), np.float32)
    with pytest.raises(ValueError, match=r"^x: expected float32 \(N, T, 5\), got float32 \(3, 6, 4\)$"):
        cell.forward(rc.functional, dict(arguments, x=x))
    with pytest.raises(ValueError, match=r"^x: expected float32 \(T, N, 5\), got float32 \(3, 6, 4\)$"):
        cell.forward(rc.functional, dict(arguments, x=x), batch_first=False)


@pytest.mark.parametrize("name", ["x", "w_ih", "w_hh", "b_ih", "h_0"])
@pytest.mark.parametrize("bad", [np.complex64, object, "U3"])
def test_wrong_dtypes_are_refused_by_name(cell, arguments, name, bad):
    with raises(TypeError, name, "real numbers"):
        cell.forward(rc.functional, dict(arguments, **{name: arguments[name].astype(bad)}))


def test_long_double_weights_are_refused(cell, arguments):
    with raises(TypeError, "w_ih"):
        cell.forward(rc.functional, dict(arguments, w_ih=arguments["w_ih"].astype(np.longdouble)))


@pytest.mark.parametrize(
    ("lengths", "error"),
    [
        ([6, -1, 2], ValueError),
        ([6, 7, 2], ValueError),
        ([6, 2], ValueError),
        ([[6, 2, 1]], ValueError),
        (4, ValueError),
        ([6.0, 2.0, 1.0], TypeError),
        (["a", "b", "c"], TypeError),
        (np.array([2**63, 1, 1], np.uint64), ValueError),
    ],
)
def test_wrong_lengths_are_refused(cell, arguments, lengths, error):
    with raises(error, "lengths"):
        cell.forward(rc.functional, arguments, lengths=lengths)


def test_wrong_cotangents_are_refused(cell, arguments):
    outputs, vjp = cell.vjp(rc.functional, arguments)
    with raises(ValueError, "dy"):
        vjp(outputs.y[:, :-1])
    with raises(ValueError, "dh_n"):
        vjp(None, outputs.h_n[:-1])
    with raises(TypeError, "dy"):
        vjp(outputs.y.astype(complex))
    if cell.states == 2:
        with raises(ValueError, "dc_n"):
            vjp(None, None, outputs.c_n[:-1])


def test_unknown_nonlinearity_is_refused(rng):
    with raises(ValueError, "nonlinearity", "tanh"):
        rc.functional.rnn(np.zeros((1, 1, 1)), [[1.0]], [[1.0]], nonlinearity="sine")


CORE_NAMES = ("x", "w_ih", "w_hh", "b_ih", "b_hh", "h_0", "c_0")


def core_arguments(arguments):
    return [arguments.get(name) for name in CORE_NAMES]


def changed(arguments, index, value):
    return [*arguments[:index], value, *arguments[index + 1 :]]


def unready(array, other_dtype):
    """What the core would have to convert before it could take it for this array."""
    misaligned = np.zeros(array.nbytes + 1, np.uint8)[1:].view(array.dtype).reshape(array.shape)
    misaligned[...] = array
    yield array.astype(other_dtype)
    yield array.astype(array.dtype.newbyteorder())
    yield np.repeat(array, 2, axis=-1)[..., ::2]
    yield misaligned
    yield array.tolist()


def test_the_core_converts_nothing(rng):
    arguments = core_arguments(_lstm(rng))
    lengths = np.array([1, 1, 1])
    for function in (_core.forward, partial(_core.record, 0)):
        assert function(_core.Cell.lstm, *arguments, lengths, False, True) is not None
        for index, argument in enumerate(arguments):
            for wrong in unready(argument, np.float64):
                assert function(_core.Cell.lstm, *changed(arguments, index, wrong), lengths, False, True) is None
        for other in (np.int32, np.uint64, np.float64):
            for wrong in unready(lengths, other):
                assert function(_core.Cell.lstm, *arguments, wrong, False, True) is None
        assert function(_core.Cell.lstm, *changed(arguments, 0, arguments[0][0]), None, False, True) is None
    outputs, recording = _core.record(0, _core.Cell.lstm, *arguments, None, False, True)
    expected = recording.backward(*outputs)
    for index, cotangent in enumerate(outputs):
        for wrong in unready(cotangent, np.float64):
            assert recording.backward(*changed(outputs, index, wrong)) is None
    for got, want in zip(recording.backward(*outputs), expected, strict=True):
        assert np.array_equal(got, want)


def test_the_core_refuses_wrong_shapes_by_name(rng):
    arguments = core_arguments(_lstm(rng))
    for function in (_core.forward, partial(_core.record, 0)):
        for index, name in enumerate(CORE_NAMES):
            wider = np.concatenate([arguments[index]] * 2, axis=-1)
            blamed = "x" if name == "w_ih" else name  # I is read off w_ih
            with raises(ValueError, blamed, "expected float32", "got float32"):
                function(_core.Cell.lstm, *changed(arguments, index, wider), None, False, True)
            deeper = arguments[index][None]
            if name == "w_ih":  # weights of many networks are for others
                assert function(_core.Cell.lstm, *changed(arguments, index, deeper), None, False, True) is None
                continue
            with raises(ValueError, name, "expected float32", "got float32"):
                function(_core.Cell.lstm, *changed(arguments, index, deeper), None, False, True)
        for lengths, words in (([1, 1], "expected int64"), ([[1, 1, 1]], "expected int64"), ([1, 7, 1], "0 to T = 6")):
            with raises(ValueError, "lengths", words):
                function(_core.Cell.lstm, *arguments, np.array(lengths), False, True)
        with raises(ValueError, "cell", "99"):
            function(_core.Cell(99), *arguments, None, False, True)
        with raises(TypeError, "c_0", "no cell state"):
            rnn = [a[:8] if index in (1, 2, 3, 4) else a for index, a in enumerate(arguments)]
            function(_core.Cell.rnn_tanh, *rnn, None, False, True)
    with raises(ValueError, "cell", "-1"):
        _core.Stack(_core.Cell(-1), [tuple(arguments[1:5])], 1, True)
    outputs, recording = _core.record(0, _core.Cell.lstm, *arguments, None, False, True)
    for index, name in enumerate(("dy", "dh_n", "dc_n")):
        with raises(ValueError, name, "expected float32", "got float32"):
            recording.backward(*changed(outputs, index, outputs[index][:-1]))


def test_a_stack_takes_arguments_as_they_are_or_not_at_all(rng):
    arguments = core_arguments(_lstm(rng))
    x, h, c = arguments[0], arguments[5][None], arguments[6][None]
    lengths = np.array([1, 6, 0])
    stack = _core.Stack(_core.Cell.lstm, [tuple(arguments[1:5])], 1, True)
    for state in (None, (None, None), (h, None), (None, c), (h, c)):
        assert stack.forward(x, state, lengths) is not None
        assert stack.forward(x, state, None) is not None
    for wrong in (*unready(x, np.float64), None, x[0], x[..., :-1].copy(), x[:-1]):
        assert stack.forward(wrong, (h, c), lengths) is None
    assert stack.forward(x[:-1], None, None) is not None
    for wrong in (h, [h, c], (h,), (h, c, c), (h[0], c), (h[:, :-1].copy(), c), (h, np.concatenate([c, c]))):
        assert stack.forward(x, wrong, lengths) is None
    for wrong in unready(h, np.float64):
        assert stack.forward(x, (wrong, c), lengths) is None
        assert stack.forward(x, (h, wrong), lengths) is None
    for wrong in (*unready(lengths, np.int32), lengths[:2], lengths[None]):
        assert stack.forward(x, (h, c), wrong) is None
    with raises(ValueError, "lengths", "0 to T = 6", "got 99 at row 2"):
        stack.forward(x, None, np.array([1, 1, 99]))
    rnn = _core.Stack(_core.Cell.rnn_tanh, [tuple(a[:8] for a in arguments[1:5])], 1, True)
    assert rnn.forward(x, h, None) is not None
    assert rnn.forward(x, (h,), None) is None


def test_a_stack_refuses_weights_that_do_not_fit(rng):
    w_ih, w_hh, b_ih, b_hh = good = tuple(core_arguments(_lstm(rng))[1:5])
    above = (np.zeros((32, 8), np.float32), w_hh, None, None)
    above_two = (np.zeros((32, 16), np.float32), w_hh, None, None)
    narrow = tuple(core_arguments(_lstm(rng, (6, 3, 5, 7)))[1:5])
    empty = (np.zeros((0, 5), np.float32), np.zeros((0, 0), np.float32), None, None)
    lstm = _core.Cell.lstm
    for weights, directions in (([good, above, above], 1), ([good, good, above_two, above_two], 2)):
        assert _core.Stack(lstm, weights, directions, True) is not None
    for weights, directions in [
        ([], 1),
        ([], 0),
        ([good], 0),
        ([good], -1),
        ([good], 2),
        ([good] * 3, 3),
        ([good, good, above_two], 2),
        ([good, above], 2),
        ([good, good], 1),
        ([good, above_two], 1),
        ([good, narrow], 2),
        ([empty], 1),
        ([(w_ih[:-1], *good[1:])], 1),
        ([(w_ih[:, 0].copy(), *good[1:])], 1),
        ([(w_ih, w_hh[:-1], b_ih, b_hh)], 1),
        ([(w_ih, w_hh[:, :-1].copy(), b_ih, b_hh)], 1),
        ([(w_ih, w_hh, b_ih[:-1], b_hh)], 1),
        ([(w_ih, w_hh, b_ih, b_hh[None])], 1),
    ]:
        with pytest.raises(ValueError, match=r"expected|fit"):
            _core.Stack(lstm, weights, directions, True)
    with pytest.raises(ValueError, match=r"expected|fit"):
        _core.Stack(_core.Cell.gru, [good], 1, True)
    for weights in (
        None,
        good,
        [w_ih],
        [list(good)],
        [good[:3]],
        [(*good, b_hh)],
        [(None, *good[1:])],
        [(w_ih, None, *good[2:])],
        [(w_ih.astype(np.float64), *good[1:])],
        [tuple(a.astype(np.int32) for a in good)],
        [good, (above[0].astype(np.float64), w_hh.astype(np.float64), None, None)],
    ):
        with pytest.raises(TypeError):
            _core.Stack(lstm, weights, 1, True)
    for index in range(4):
        for wrong in unready(good[index], np.float64):
            with pytest.raises((TypeError, ValueError)):
                _core.Stack(lstm, [tuple(changed(good, index, wrong))], 1, True)


def _lstm(rng, shape=SHAPE):
    return CELLS[2].arguments(rng, shape, np.float32)


@pytest.mark.parametrize("shape", [(0, 3, 5, 8), (6, 0, 5, 8), (0, 0, 5, 8), (6, 3, 0, 8)], ids=str)
def test_sizes_of_zero(cell, isa, dtype, shape, rng):
    T, N, I, H = shape
    arguments = cell.arguments(rng, shape, dtype)
    outputs, vjp = cell.vjp(rc.functional, arguments)
    assert outputs.y.shape == (N, T, H)
    gradients = vjp(*(np.ones_like(a) for a in outputs))
    assert gradients.x.shape == (N, T, I)
    if T == 0:
        assert np.array_equal(outputs.h_n, arguments["h_0"])
        assert np.array_equal(gradients.h_0, np.ones_like(outputs.h_n))
        assert not gradients.w_hh.any()


def test_no_hidden_units_are_refused(cell, rng):
    with raises(ValueError, "w_hh", "at least one"):
        cell.forward(rc.functional, {"x": np.zeros((1, 1, 1)), "w_ih": np.zeros((0, 1)), "w_hh": np.zeros((0, 0))})


def test_sizes_beyond_memory_are_errors(cell, arguments):
    plain = {k: v for k, v in arguments.items() if k not in ("h_0", "c_0")}
    huge = np.broadcast_to(np.float32(0), (2**20, 2**30, 5))  # 2**50 rows in the memory of one number
    with pytest.raises(MemoryError):
        cell.forward(rc.functional, dict(plain, x=huge))
    empty = np.zeros((2**57, 0, 5), np.float32)  # no elements, yet a batch whose sizes overflow
    with raises(ValueError, "x", "too large"):
        cell.forward(rc.functional, dict(plain, x=empty))


def test_nan_stays_in_its_row(cell, isa, dtype, rng):
    arguments = cell.arguments(rng, (6, 9, 5, 33), dtype)
    clean, clean_vjp = cell.vjp(rc.functional, arguments)
    x = arguments["x"].copy()
    x[4, 2, 1] = np.nan
    outputs, vjp = cell.vjp(rc.functional, dict(arguments, x=x))
    others = np.arange(9) != 4
    assert np.isnan(outputs.y[4, 2:]).all()
    assert np.array_equal(outputs.y[4, :2], clean.y[4, :2])
    for got, expected in zip(outputs, clean, strict=True):
        assert np.array_equal(got[others], expected[others])
    gradients, expected = vjp(np.ones_like(outputs.y)), clean_vjp(np.ones_like(outputs.y))
    assert np.isnan(gradients.x[4, 2]).all()
    assert np.array_equal(gradients.x[others], expected.x[others])
    assert np.array_equal(gradients.h_0[others], expected.h_0[others])


def test_infinite_inputs_saturate(isa, dtype):
    one = np.ones((1, 1), dtype)
    for x, expected in ((np.inf, 1.0), (-np.inf, -1.0)):
        y = rc.functional.rnn(np.full((1, 1, 1), x), one, one).y
        assert y.item() == expected


def test_denormals_are_flushed_inside_and_only_inside(isa):
    tiny = np.finfo(np.float32).smallest_subnormal
    y = rc.functional.rnn(np.full((1, 1, 1), tiny), np.ones((1, 1), np.float32), np.ones((1, 1)), nonlinearity="relu").y
    assert y.item() == 0.0
    assert np.float32(tiny) * np.float32(1) == tiny  # here they live


def test_long_doubles_of_the_caller_survive(cell, isa, dtype, rng):
    # x87 registers are those of MMX, and a kernel that touched one of them would leave them in use
    outputs, vjp = cell.vjp(rc.functional, cell.arguments(rng, (3, 7, 5, 9), dtype))
    vjp(*outputs)
    assert np.longdouble(1) / np.longdouble(4) == 0.25


def test_several_threads_may_use_one_layer(rng):
    layer = rc.LSTM(7, 65, num_layers=2, bidirectional=True, rng=0)
    inputs = [rng.standard_normal((n + 1, 30, 7), dtype=np.float32) for n in range(8)]
    expected = [layer(x)[0] for x in inputs]
    got = [None] * len(inputs)

    def run(n):
        for _ in range(5):
            got[n] = layer(inputs[n])[0]

    workers = [threading.Thread(target=run, args=(n,)) for n in range(len(inputs))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for a, b in zip(got, expected, strict=True):
        assert np.array_equal(a, b)


FORK = """
import os, sys
import numpy as np
import rnncore as rc
rc.set_num_threads(4)
layer = rc.LSTM(16, 64, rng=0)
x = np.ones((96, 50, 16), np.float32)  # y has more than 1 MB
def run():
    (y, state), pull_back = layer.vjp(x)
    return y, pull_back(y)[0]
expected = run()
child = os.fork()
got = run()
same = all(np.array_equal(a, b) for a, b in zip(got, expected))
if child == 0:
    os._exit(0 if same else 1)
_, status = os.waitpid(child, 0)
sys.exit(0 if same and os.waitstatus_to_exitcode(status) == 0 else 1)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_fork_after_use():
    subprocess.run([sys.executable, "-W", "ignore", "-c", FORK], check=True, timeout=60)


# Calls of a few hundred microseconds whose threads wait for each other at every step, with gradients; and threads of
# Python that take the processors and the interpreter away from them.
BUSY = """
import hashlib, sys, threading, time
import numpy as np
import rnncore as rc
seconds, threads = float(sys.argv[1]), int(sys.argv[2])
rc.set_num_threads(1)
sys.setswitchinterval(1e-4)
rng = np.random.default_rng(0)
calls = []
for layer, shape in (
    (rc.LSTM(3, 512, rng=0), (1, 8, 3)),  # slices of hidden units
    (rc.LSTM(5, 512, rng=0), (2, 4, 5)),
    (rc.GRU(9, 128, num_layers=3, rng=0), (1, 40, 9)),  # layers side by side
):
    calls.append((layer.frozen(), rng.standard_normal(shape, dtype=np.float32)))
weights = [rng.standard_normal(shape, dtype=np.float32) / 30 for shape in ((2048, 3), (2048, 512))]
x, dy = rng.standard_normal((1, 8, 3), dtype=np.float32), rng.standard_normal((1, 8, 512), dtype=np.float32)
def run():
    yield from (frozen(x)[0] for frozen, x in calls)
    outputs, vjp = rc.functional.lstm_vjp(x, *weights)
    yield from (*outputs, *vjp(dy))
expected = list(run())
rc.set_num_threads(threads)
end, wrong = time.monotonic() + seconds, []
def burn():  # without the interpreter
    block = bytes(1 << 20)
    while time.monotonic() < end: hashlib.sha256(block)
def spin():  # with it
    while time.monotonic() < end: pass
def repeat():
    while time.monotonic() < end:
        wrong.extend(i for i, (a, b) in enumerate(zip(run(), expected)) if not np.array_equal(a, b))
workers = [threading.Thread(target=f) for f in (burn, burn, burn, spin, repeat)]
for worker in workers: worker.start()
repeat()
for worker in workers: worker.join()
sys.exit(1 if wrong else 0)
"""


@pytest.mark.parametrize(
    ("seconds", "threads"),
    [(1.5, 4), *(pytest.param(30, n, marks=pytest.mark.slow) for n in (2, 3, 8))],
)
def test_threads_finish_on_a_busy_machine(seconds, threads):
    command = [sys.executable, "-c", BUSY, str(seconds), str(threads)]
    subprocess.run(command, check=True, timeout=60 + 4 * seconds)
