"""Resets inside a sequence: what the oracle says of them, and the very bits of cutting the sequence there by hand."""

import copy
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rnncore as rc
from cases import CELLS, DTYPES, assert_matches_reference, largest, random_like
from rnncore import _core, reference
from rnncore.testing import check_gradients

SHAPE = N, T, I, H = 5, 13, 3, 17
RAGGED = np.array([13, 0, 4, 1, 9])
TOLERANCE = {np.float32: 2e-5, np.float64: 1e-11}  # relative to the largest gradient of a kind, as everywhere


def states_of(cell, kind):
    """Names of a cell's states: before the first step, with kind "0", or after a reset."""
    return [f"{s}_{kind}" for s in ("h", "c")[: cell.states]]


def with_starts(cell, arguments, rng, shared=False):
    """The arguments, with random states after resets: of each sequence, or one for all."""
    starts = {name: rng.standard_normal((N, H)[shared:]) for name in states_of(cell, "reset")}
    starts = {name: value.astype(arguments["x"].dtype) for name, value in starts.items()}
    return {**arguments, **starts}


def pieces_of(mask, lengths, reverse):
    """(row, begin, end, whether the initial state is taken, whether the final one is left) of each piece."""
    for n, row in enumerate(mask):
        length = mask.shape[1] if lengths is None else int(lengths[n])
        inner = [t for t in range(1, length) if row[t]]
        ends = list(zip([0, *inner], [*inner, length], strict=True))
        for begin, end in ends:
            first, last = begin == 0, end == length
            anew = bool(length and row[0])
            yield (n, begin, end, last, first) if reverse else (n, begin, end, first and not anew, last)


def cut(cell, arguments, mask, module=rc.functional, lengths=None, reverse=False):
    """What one gets by calling the function for one piece after the other: outputs, and the pull-back."""
    x, dtype = arguments["x"], arguments["x"].dtype
    weights = {name: value for name, value in arguments.items() if name[0] in "wb"}
    first = [arguments.get(name) for name in states_of(cell, "0")]
    starts = [arguments.get(name) for name in states_of(cell, "reset")]
    hidden = weights["w_hh"].shape[1]
    y = np.zeros((*mask.shape, hidden), dtype)
    final = [np.zeros((len(mask), hidden), dtype) for _ in first]
    kept = []
    for n, begin, end, initial, last in pieces_of(mask, lengths, reverse):
        states = [None if s is None else s[n] for s in (first if initial else starts)]
        named = dict(zip(states_of(cell, "0"), states, strict=True))
        outputs, vjp = cell.vjp(module, {"x": x[n, begin:end], **weights, **named}, reverse=reverse)
        y[n, begin:end] = outputs[0]
        for array, state in zip(final, outputs[1:], strict=True):
            if last:
                array[n] = state
        kept.append((n, begin, end, initial, last, vjp))

    def pull_back(dy, *dfinal):
        dx = np.zeros_like(x)
        dweights = [np.zeros(np.shape(value)) for value in weights.values()]
        dfirst = [np.zeros((len(mask), hidden), dtype) for _ in first]
        dstarts = [np.zeros((len(mask), hidden)) for _ in starts]
        for n, begin, end, initial, last, vjp in kept:
            gradients = vjp(dy[n, begin:end], *(d[n] if last else np.zeros_like(d[n]) for d in dfinal))
            dx[n, begin:end] = gradients[0]
            for total, gradient in zip(dweights, gradients[1:5], strict=False):
                total += gradient
            for total, gradient in zip(dfirst if initial else dstarts, gradients[5:], strict=False):
                total[n] += gradient
        return dx, dweights, dfirst, dstarts

    return (y, *final), pull_back


def same(got, expected):
    return all(np.array_equal(a, b) for a, b in zip(got, expected, strict=True))


def close(got, expected, dtype):
    bound = TOLERANCE[dtype] * max(1.0, largest(*expected))
    return all(largest(a - b) <= bound for a, b in zip(got, expected, strict=True))


def assert_as_cut(cell, arguments, mask, rng, **options):
    """Bits of outputs and of the gradients of x and of initial states; the other gradients to rounding."""
    dtype = arguments["x"].dtype.type
    outputs, vjp = cell.vjp(rc.functional, arguments, reset_mask=mask, **options)
    expected, expected_vjp = cut(cell, arguments, mask, **options)
    assert same(outputs, expected)
    assert same(outputs, cell.forward(rc.functional, arguments, reset_mask=mask, **options))
    cotangents = random_like(rng, outputs)
    gradients = vjp(*cotangents)
    dx, dweights, dfirst, dstarts = expected_vjp(*cotangents)
    assert same([gradients.x], [dx])
    assert same(gradients[5 : 5 + cell.states], dfirst)
    assert close(gradients[1:5], dweights, dtype)
    for name, gradient, expected in zip(states_of(cell, "reset"), gradients[5 + cell.states :], dstarts, strict=True):
        assert (gradient is None) == (name not in arguments)
        assert gradient is None or close([gradient], [expected], dtype)


# ------------------------------------------------------------------------------------------------------- the oracle


@pytest.mark.parametrize(
    ("reverse", "mask", "start", "expected"),
    [
        (False, [0, 1, 0], None, [1, 2, 5]),
        (False, [0, 1, 0], [10.0], [1, 12, 15]),
        (False, [1, 0, 1], [10.0], [11, 13, 13]),  # the initial state of 100 is replaced
        (True, [0, 1, 0], None, [1, 105, 103]),
        (True, [0, 1, 0], [10.0], [11, 105, 103]),
        (True, [1, 0, 1], [10.0], [13, 12, 103]),  # nothing is left to read before step 0
    ],
)
@pytest.mark.parametrize("module", [reference, rc.functional], ids=["oracle", "library"])
def test_a_running_sum_by_hand(module, reverse, mask, start, expected):
    initial = [100.0] if reverse or mask[0] else [0.0]
    y, h_n = module.rnn(
        [[1.0], [2.0], [3.0]],
        [[1.0]],
        [[1.0]],
        h_0=initial,
        nonlinearity="relu",
        reverse=reverse,
        reset_mask=np.array(mask, bool),
        h_reset=start,
    )
    assert y.ravel().tolist() == expected
    assert h_n.tolist() == [expected[0 if reverse else -1]]


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("lengths", [None, RAGGED])
def test_the_oracle_is_cutting(cell, lengths, reverse, rng):
    arguments = with_starts(cell, cell.arguments(rng, (T, N, I, H)), rng)
    mask = rng.random((N, T)) < 0.3
    outputs, vjp = cell.vjp(reference, arguments, lengths=lengths, reverse=reverse, reset_mask=mask)
    expected, expected_vjp = cut(cell, arguments, mask, reference, lengths, reverse)
    assert close(outputs, expected, np.float64)
    cotangents = random_like(rng, outputs)
    dx, dweights, dfirst, dstarts = expected_vjp(*cotangents)
    assert close(vjp(*cotangents), [dx, *dweights, *dfirst, *dstarts], np.float64)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("module", [reference, rc.functional], ids=["oracle", "library"])
@pytest.mark.parametrize("shared", [False, True])
def test_gradients_by_projection(cell, module, reverse, shared, rng):
    arguments = with_starts(cell, cell.arguments(rng, (T, N, I, H)), rng, shared)
    mask = rng.random((N, T)) < 0.3

    def function(*values):
        named = dict(zip(arguments, values, strict=True))
        return cell.vjp(module, named, lengths=RAGGED, reverse=reverse, reset_mask=mask)

    kinked = {"eps": 1e-7, "rtol": 1e-4} if cell.name == "rnn_relu" else {}
    check_gradients(function, list(arguments.values()), names=list(arguments), **kinked)


# ---------------------------------------------------------------------------------------------- against the oracle


@pytest.mark.parametrize("starts", ["zero", "of each", "of all"])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("lengths", [None, RAGGED], ids=["dense", "ragged"])
def test_every_cell_and_type_on_every_instruction_set(cell, isa, dtype, lengths, reverse, starts, rng):
    arguments = cell.arguments(rng, (T, N, I, H), dtype)
    if starts != "zero":
        arguments = with_starts(cell, arguments, rng, starts == "of all")
    mask = rng.random((N, T)) < 0.3
    assert_matches_reference(cell, arguments, dtype, rng, lengths=lengths, reverse=reverse, reset_mask=mask)


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("shape", [(13, 1, 3, 17), (1, 4, 1, 16), (40, 2, 5, 70), (0, 3, 4, 8), (5, 0, 4, 8)], ids=str)
def test_other_shapes(cell, dtype, shape, batch_first, rng):
    arguments = cell.arguments(rng, shape, dtype, batch_first)
    mask = rng.random(arguments["x"].shape[:2]) < 0.4
    assert_matches_reference(cell, arguments, dtype, rng, reset_mask=mask, batch_first=batch_first)


# ------------------------------------------------------------------------------------------- against cutting by hand


@settings(max_examples=120, deadline=None)
@given(data=st.data())
def test_bits_of_cutting(data):
    cell, dtype = data.draw(st.sampled_from(CELLS)), data.draw(st.sampled_from(DTYPES))
    shape = tuple(data.draw(st.integers(least, most)) for least, most in ((0, 12), (0, 6), (1, 6), (1, 20)))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    arguments = cell.arguments(rng, shape, dtype)
    steps, batch, _, hidden = shape
    for name in (*states_of(cell, "0"), *states_of(cell, "reset")):
        arguments[name] = rng.standard_normal((batch, hidden)).astype(dtype)
        if data.draw(st.booleans()):
            del arguments[name]
    mask = rng.random((batch, steps)) < data.draw(st.sampled_from([0.0, 0.1, 0.5, 1.0]))
    lengths = rng.integers(0, steps + 1, batch) if data.draw(st.booleans()) else None
    assert_as_cut(cell, arguments, mask, rng, lengths=lengths, reverse=data.draw(st.booleans()))


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(
    "shape",
    [
        (300, 7, 5, 21),  # several chunks of backward
        (60, 40, 5, 9),  # several groups of a tape, and slices in cache
        (200, 1, 2, 130),  # few inputs, and hidden units in slices
        (4, 600, 5, 9),
    ],
    ids=str,
)
def test_bits_of_larger_batches(cell, shape, reverse, threads, rng):
    steps, batch, _, hidden = shape
    arguments = cell.arguments(rng, shape, np.float32)
    for name in states_of(cell, "reset"):
        arguments[name] = rng.standard_normal((batch, hidden), dtype=np.float32)
    mask = rng.random((batch, steps)) < 0.3
    lengths = rng.integers(0, steps + 1, batch)
    lengths[0] = steps
    results = []
    for n in (1, 2, 3):
        threads(n)
        outputs, vjp = cell.vjp(rc.functional, arguments, reset_mask=mask, lengths=lengths, reverse=reverse)
        gradients = vjp(*random_like(np.random.default_rng(0), outputs))
        alone = cell.forward(rc.functional, arguments, reset_mask=mask, lengths=lengths, reverse=reverse)
        results.append((*outputs, *gradients, *alone))
    assert same(results[0], results[1])
    assert same(results[0], results[2])
    threads(1)
    some = rng.permutation(batch)[:8]  # cutting all would take long
    part = {k: v if k[0] in "wb" else v[some] for k, v in arguments.items()}
    expected, _ = cut(cell, part, mask[some], lengths=lengths[some], reverse=reverse)
    assert same([array[some] for array in results[0][: 1 + cell.states]], expected)


@pytest.mark.parametrize("reverse", [False, True])
def test_no_reset_is_no_mask(cell, dtype, reverse, rng):
    arguments = with_starts(cell, cell.arguments(rng, (T, N, I, H), dtype), rng)
    plain = {name: value for name, value in arguments.items() if not name.endswith("reset")}
    options = {"lengths": RAGGED, "reverse": reverse}
    outputs, vjp = cell.vjp(rc.functional, plain, **options)
    got, got_vjp = cell.vjp(rc.functional, arguments, reset_mask=np.zeros((N, T), bool), **options)
    assert same(got, outputs)
    cotangents = random_like(rng, outputs)
    gradients, expected = got_vjp(*cotangents), vjp(*cotangents)
    assert same(gradients[: 5 + cell.states], expected[: 5 + cell.states])
    assert expected[5 + cell.states :] == (None,) * cell.states
    assert largest(*gradients[5 + cell.states :]) == 0.0


def test_a_reset_at_every_step(cell, dtype, rng):
    arguments = with_starts(cell, cell.arguments(rng, (T, N, I, H), dtype), rng)
    outputs, vjp = cell.vjp(rc.functional, arguments, reset_mask=np.ones((N, T), bool))
    for t in range(T):
        step = {name: value for name, value in arguments.items() if name[0] in "wb"}
        step |= {
            zero: arguments[start] for zero, start in zip(states_of(cell, "0"), states_of(cell, "reset"), strict=True)
        }
        y, *last = cell.forward(rc.functional, {**step, "x": arguments["x"][:, t : t + 1]})
        assert np.array_equal(outputs.y[:, t], y[:, 0])
    assert same(outputs[1:], last)
    assert largest(*vjp(*outputs)[5 : 5 + cell.states]) == 0.0  # the initial states are replaced
    assert_as_cut(cell, arguments, np.ones((N, T), bool), rng)


@pytest.mark.parametrize("reverse", [False, True])
def test_padding_means_nothing(cell, reverse, rng):
    arguments = with_starts(cell, cell.arguments(rng, (T, N, I, H), np.float32), rng)
    padding = np.arange(T) >= RAGGED[:, None]
    mask = rng.random((N, T)) < 0.3
    options = {"lengths": RAGGED, "reverse": reverse}
    outputs, vjp = cell.vjp(rc.functional, arguments, reset_mask=mask & ~padding, **options)
    arguments["x"][padding] = np.nan
    dirty, dirty_vjp = cell.vjp(rc.functional, arguments, reset_mask=mask | padding, **options)
    assert same(dirty, outputs)
    cotangents = random_like(rng, outputs)
    gradients = vjp(*cotangents)
    cotangents[0][padding] = np.nan
    assert same(dirty_vjp(*cotangents), gradients)
    assert not gradients.x[padding].any()
    assert np.array_equal(outputs.h_n[1], arguments["h_0"][1])  # of the row without steps


@pytest.mark.parametrize("every", [1, 7, 64, 10**30])
@pytest.mark.parametrize("shape", [(130, 19, 6, 21), (6, 700, 3, 9), (1100, 1, 3, 136)], ids=str)
def test_checkpoints_change_no_bit(cell, every, shape, threads, rng):
    steps, batch, _, hidden = shape
    arguments = cell.arguments(rng, shape, np.float32)
    arguments["h_reset"] = rng.standard_normal((batch, hidden), dtype=np.float32)
    options = {"reset_mask": rng.random((batch, steps)) < 0.01, "reverse": every == 7}
    for n in (1, 2):
        threads(n)
        outputs, vjp = cell.vjp(rc.functional, arguments, **options)
        again, again_vjp = cell.vjp(rc.functional, arguments, checkpoint_every=every, **options)
        assert same(again, outputs)
        cotangents = random_like(rng, outputs)
        expected = vjp(*cotangents)
        assert same(again_vjp(*cotangents), expected)
        assert same(again_vjp(*cotangents), expected)


def test_pull_back_from_several_threads(cell, rng):
    arguments = with_starts(cell, cell.arguments(rng, (T, N, I, H)), rng)
    outputs, vjp = cell.vjp(rc.functional, arguments, reset_mask=rng.random((N, T)) < 0.3)
    expected = vjp(*outputs)
    with ThreadPoolExecutor(4) as pool:
        for gradients in pool.map(lambda _: vjp(*outputs), range(8)):
            assert same(gradients, expected)
    nothing = vjp()
    assert largest(*nothing) == 0.0


# --------------------------------------------------------------------------------------- forms of arguments, and errors


def test_unbatched(cell, rng):
    arguments = with_starts(cell, cell.arguments(rng, (T, 1, I, H)), rng, shared=True)
    mask = rng.random((1, T)) < 0.3
    one = {name: value if name[0] in "wb" or name.endswith("reset") else value[0] for name, value in arguments.items()}
    for batch_first in (True, False):
        outputs, vjp = cell.vjp(rc.functional, one, reset_mask=mask[0].tolist(), lengths=9, batch_first=batch_first)
        batched, batched_vjp = cell.vjp(rc.functional, arguments, reset_mask=mask, lengths=[9])
        assert same(outputs, [array[0] for array in batched])
        gradients, expected = vjp(*outputs), batched_vjp(*batched)
        for name, got, want in zip(gradients._fields, gradients, expected, strict=True):
            assert np.array_equal(got, want[0] if name in ("x", "h_0", "c_0") else want), name


def test_what_has_to_be_converted(cell, rng):
    arguments = with_starts(cell, cell.arguments(rng, (T, N, I, H), np.float32), rng)
    mask = rng.random((N, T)) < 0.3
    outputs, vjp = cell.vjp(rc.functional, arguments, reset_mask=mask)
    gradients = vjp(*outputs)
    double = {k: v.astype(np.float64) if k.endswith("reset") else v for k, v in arguments.items()}
    major = {**arguments, "x": arguments["x"].swapaxes(0, 1)}
    for other, options in (
        (arguments, {"reset_mask": mask.tolist()}),
        (arguments, {"reset_mask": np.repeat(mask, 2, axis=1)[:, ::2]}),
        (double, {"reset_mask": mask}),
        (major, {"reset_mask": mask.T, "batch_first": False}),
    ):
        again, again_vjp = cell.vjp(rc.functional, other, **options)
        axes = (1, 0, 2) if "batch_first" in options else (0, 1, 2)
        assert same([again.y.transpose(axes), *again[1:]], outputs)
        assert same(again, cell.forward(rc.functional, other, **options))
        got = again_vjp(*again)
        assert same([got.x.transpose(axes), *got[1:]], gradients)


def test_one_start_for_all(cell, rng):
    arguments = with_starts(cell, cell.arguments(rng, (T, N, I, H)), rng, shared=True)
    each = {name: np.tile(value, (N, 1)) if name.endswith("reset") else value for name, value in arguments.items()}
    mask = rng.random((N, T)) < 0.3
    outputs, vjp = cell.vjp(rc.functional, arguments, reset_mask=mask)
    expected, expected_vjp = cell.vjp(rc.functional, each, reset_mask=mask)
    assert same(outputs, expected)
    gradients, of_each = vjp(*outputs), expected_vjp(*outputs)
    assert gradients.h_reset.shape == (H,)
    assert same(gradients[5 + cell.states :], [gradient.sum(axis=0) for gradient in of_each[5 + cell.states :]])


def test_names(cell, rng):
    _, vjp = cell.vjp(rc.functional, cell.arguments(rng, (T, N, I, H)))
    assert vjp()._fields[5:] == (*states_of(cell, "0"), *states_of(cell, "reset"))
    assert vjp().h_reset is None


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"reset_mask": np.zeros((N, T))}, TypeError, r"reset_mask: expected bool, got float64"),
        ({"reset_mask": np.zeros((N, T), int)}, TypeError, r"reset_mask: expected bool, got int64"),
        (
            {"reset_mask": np.zeros((T, N), bool)},
            ValueError,
            r"reset_mask: expected bool \(5, 13\), got bool \(13, 5\)",
        ),
        ({"reset_mask": np.zeros(T, bool)}, ValueError, r"reset_mask: expected bool \(5, 13\), got bool \(13,\)"),
        ({"h_reset": np.zeros((N, H))}, ValueError, r"h_reset: expected None, since there is no reset_mask"),
        (
            {"reset_mask": np.zeros((N, T), bool), "h_reset": np.zeros((N, H + 1))},
            ValueError,
            r"h_reset: expected float64 \(5, 17\), got float64 \(5, 18\)",
        ),
        (
            {"reset_mask": np.zeros((N, T), bool), "h_reset": np.zeros(H + 1)},
            ValueError,
            r"h_reset: expected float64 \(5, 17\), got float64 \(5, 18\)",
        ),
        (
            {"reset_mask": np.zeros((N, T), bool), "h_reset": np.zeros((N, H), "U3")},
            TypeError,
            r"h_reset: expected real numbers, got <U3",
        ),
    ],
)
def test_wrong_arguments_are_refused_by_name(cell, change, error, message, rng):
    arguments = cell.arguments(rng, (T, N, I, H))
    for call in (cell.forward, cell.vjp):
        with pytest.raises(error, match=f"^{message}$"):
            call(rc.functional, {**arguments, **change})


def test_the_oracle_refuses_by_name(cell, rng):
    arguments = cell.arguments(rng, (T, N, I, H))
    for change, message in (
        ({"reset_mask": np.zeros((N, T))}, r"reset_mask: expected bool \(5, 13\), got float64 \(5, 13\)"),
        ({"reset_mask": np.zeros((T, N), bool)}, r"reset_mask: expected bool \(5, 13\), got bool \(13, 5\)"),
        ({"h_reset": np.zeros((N, H))}, r"h_reset: expected None, since there is no reset_mask"),
        ({"reset_mask": np.zeros((N, T), bool), "h_reset": np.zeros((1, H))}, r"h_reset: expected shape \(5, 17\)"),
    ):
        with pytest.raises(ValueError, match=f"^{message}"):
            cell.forward(reference, {**arguments, **change})


def test_wrong_arguments_of_one_sequence_are_refused(cell, rng):
    arguments = {k: v[0] if k in ("x", "h_0", "c_0") else v for k, v in cell.arguments(rng, (T, 1, I, H)).items()}
    for change, message in (
        ({"reset_mask": np.zeros((1, T), bool)}, r"reset_mask: expected 1 dimensions .* got \(1, 13\)"),
        ({"reset_mask": np.zeros(T, bool), "h_reset": np.zeros((1, H))}, r"h_reset: expected 1 dimensions"),
    ):
        with pytest.raises(ValueError, match=f"^{message}"):
            cell.forward(rc.functional, {**arguments, **change})


def test_the_core_converts_nothing(rng):
    cell = CELLS[2]
    arguments = with_starts(cell, cell.arguments(rng, (T, N, I, H), np.float32), rng)
    mask = rng.random((N, T)) < 0.3
    weights = tuple(arguments[name] for name in ("w_ih", "w_hh", "b_ih", "b_hh"))
    state = arguments["h_0"], arguments["c_0"]
    rest = (_core.Cell.lstm, arguments["x"], weights, state, None, False, True)
    h, c = arguments["h_reset"], arguments["c_reset"]
    no_masks = (None, None, None)
    assert _core.forward_layer(*rest, (mask, (h, c))) is not None
    for wrong in ((None, (h, c)), (mask.tolist(), (h, c)), (mask.view(np.uint8), (h, c)), (mask, (h.astype(float), c))):
        assert _core.forward_layer(*rest, wrong) is None
        assert _core.record_layer(0, *rest, wrong, no_masks) is None
    gru = (_core.Cell.gru, arguments["x"], tuple(w[: 3 * H] for w in weights), (state[0],), None, False, True)
    with pytest.raises(TypeError, match=r"^c_reset: expected None, since this cell has no cell state"):
        _core.forward_layer(*gru, (mask, (h, c)))
    with pytest.raises(ValueError, match=r"^checkpoint_every: "):
        _core.record_layer(-1, *rest, (mask, (h, c)), no_masks)


# ------------------------------------------------------------------------------------------------------------ layers

LAYERS = {
    "rnn": lambda **options: rc.RNN(I, 9, rng=1, **options),
    "lstm": lambda **options: rc.LSTM(I, 9, rng=1, **options),
    "gru": lambda **options: rc.GRU(I, 9, rng=1, **options),
}
OPTIONS = [
    {},
    {"num_layers": 3},
    {"bidirectional": True},
    {"num_layers": 2, "bidirectional": True, "batch_first": False},
    {"num_layers": 2, "checkpoint_every": 4, "bias": False},
]


@pytest.fixture(params=LAYERS)
def make(request):
    return LAYERS[request.param]


def leaves(state):
    return [] if state is None else list(state) if isinstance(state, tuple) else [state]


def random_state(layer, rng, *batch):
    shape = (layer.num_layers * (1 + layer.bidirectional), *batch, layer.hidden_size)
    parts = tuple(rng.standard_normal(shape).astype(layer.dtype) for _ in range(1 + isinstance(layer, rc.LSTM)))
    return parts if len(parts) > 1 else parts[0]


def cut_layer(layer, x, state, lengths, mask, start):
    """y and the final state of a batch-first layer by calls for one piece after the other."""
    y = np.zeros((*x.shape[:2], layer.output_size), x.dtype)
    final = [np.zeros_like(part) for part in leaves(state)]
    backward = np.arange(len(final[0])) % 2 == 1 if layer.bidirectional else np.zeros(len(final[0]), bool)
    for (n, begin, end, initial, last), (*_, initial_back, last_back) in zip(
        pieces_of(mask, lengths, False), pieces_of(mask, lengths, True), strict=True
    ):
        takes, leaves_it = np.where(backward, initial_back, initial), np.where(backward, last_back, last)
        parts = [np.where(takes[:, None], a[:, n], b[:, n]) for a, b in zip(leaves(state), leaves(start), strict=True)]
        y[n, begin:end], new = layer(x[n, begin:end], tuple(parts) if isinstance(state, tuple) else parts[0])
        for array, part in zip(final, leaves(new), strict=True):
            array[leaves_it, n] = part[leaves_it]
    return y, final


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("lengths", [None, RAGGED], ids=["dense", "ragged"])
def test_layers(make, options, lengths, rng):
    layer = make(**options)
    x, mask = rng.standard_normal((N, T, I), dtype=np.float32), rng.random((N, T)) < 0.3
    state, start = random_state(layer, rng, N), random_state(layer, rng, N)
    twin = make(**{**options, "batch_first": True})
    expected_y, expected = cut_layer(twin, x, state, lengths, mask, start)
    if not layer.batch_first:
        x, mask, expected_y = x.swapaxes(0, 1).copy(), mask.T.copy(), expected_y.swapaxes(0, 1)
    arguments = x, state, lengths, mask, start
    converted = x.astype(np.float64), state, lengths, mask.tolist(), start
    for y, final in (
        layer(*arguments),
        layer.run(*arguments),
        layer.frozen()(*arguments),
        layer.frozen()(*converted),
        layer.vjp(*arguments)[0],
    ):
        assert np.array_equal(y, expected_y)
        assert same(leaves(final), expected)


@pytest.mark.parametrize("options", [{**options, "dtype": np.float64} for options in OPTIONS], ids=str)
@pytest.mark.parametrize("shared", [False, True])
def test_gradients_of_layers(make, options, shared, rng):
    layer = make(**options)
    x = rng.standard_normal((N, T, I) if layer.batch_first else (T, N, I))
    mask = rng.random(x.shape[:2]) < 0.3
    state, start = random_state(layer, rng, N), random_state(layer, rng, *() if shared else (N,))
    count = len(leaves(state))

    def form(parts):
        return tuple(parts) if count > 1 else parts[0]

    def function(x, parameters, *states):
        layer.flat_parameters[...] = parameters
        first, starts = form(states[:count]), form(states[count:])
        (y, final), pull_back = layer.vjp(x, first, RAGGED, mask, starts)

        def vjp(dy, *dfinal):
            layer.zero_gradients()
            dx, dfirst, dstarts = pull_back(dy, form(dfinal))
            return dx, layer.flat_gradients.copy(), *leaves(dfirst), *leaves(dstarts)

        return (y, *leaves(final)), vjp

    check_gradients(function, [x, layer.flat_parameters.copy(), *leaves(state), *leaves(start)])


def test_forms_of_layers(make, rng):
    layer = make(num_layers=2, bidirectional=True)
    x, mask = rng.standard_normal((T, I), dtype=np.float32), rng.random(T) < 0.3
    state, start = random_state(layer, rng), random_state(layer, rng)

    def batched(state):
        return tuple(part[:, None] for part in state) if isinstance(state, tuple) else state[:, None]

    y, final = layer(x, state, T - 2, mask, start)
    for shared in (batched(start), start):
        y_batched, final_batched = layer(x[None], batched(state), [T - 2], mask[None], shared)
        assert np.array_equal(y, y_batched[0])
        assert same(leaves(batched(final)), leaves(final_batched))
    (y_vjp, _), pull_back = layer.vjp(x, state, T - 2, mask, start)
    assert np.array_equal(y, y_vjp)
    dx, _, dstart = pull_back(y)
    assert dx.shape == x.shape
    assert [a.shape for a in leaves(dstart)] == [a.shape for a in leaves(start)]
    assert len(layer.vjp(x, state, T - 2, mask)[1](y)) == 2  # as ever


def test_a_part_of_the_start_of_an_lstm(rng):
    layer = rc.LSTM(I, 9, num_layers=2, rng=1)
    x, mask = rng.standard_normal((N, T, I), dtype=np.float32), rng.random((N, T)) < 0.3
    h, zeros = rng.standard_normal((2, N, 9), dtype=np.float32), np.zeros((2, N, 9), np.float32)
    y, _ = layer(x, None, None, mask, (h, None))
    assert np.array_equal(y, layer(x, None, None, mask, (h, zeros))[0])
    _, pull_back = layer.vjp(x, None, None, mask, (h, None))
    _, _, (dh, dc) = pull_back(y)
    assert dh.any()
    assert dc is None


def test_wrong_calls_of_layers_are_refused(make, rng):
    layer = make(num_layers=2)
    x, mask, good = np.zeros((N, T, I)), np.zeros((N, T), bool), random_state(layer, rng, N)
    wrong = tuple(part[:, :-1] for part in good) if isinstance(good, tuple) else good[:, :-1]
    for call in (layer, layer.run, layer.vjp, layer.frozen()):
        with pytest.raises(ValueError, match=r"^reset_state: expected None, since there is no reset_mask, got"):
            call(x, reset_state=good)
        with pytest.raises(ValueError, match=r"^reset_state: expected shape \(2, 5, 9\) or \(2, 9\), got \(2, 4, 9\)$"):
            call(x, reset_mask=mask, reset_state=wrong)
        with pytest.raises(TypeError, match=r"^reset_mask: expected bool, got float64"):
            call(x, reset_mask=mask.astype(float))
        with pytest.raises(ValueError, match=r"^reset_mask: expected bool \(5, 13\), got bool \(5, 12\)"):
            call(x, reset_mask=mask[:, 1:])
    if isinstance(layer, rc.LSTM):
        with pytest.raises(TypeError, match=r"^reset_state: expected None or a tuple \(h, c\), got ndarray"):
            layer(x, reset_mask=mask, reset_state=good[0])


# ------------------------------------------------------------------------------------------------------------ models


class Doubled(rc.Layer):
    """A layer of the user's that knows nothing of resets."""

    def __call__(self, x, lengths=None):
        return 2 * x

    def vjp(self, x, state=None, lengths=None):
        return (2 * x, None), lambda dy=None, dstate=None: (2 * dy, None)


def model_by_hand(x, mask, lengths, layers):
    """The layers one after the other, of which the recurrent ones are given the mask."""
    for layer in layers:
        x = layer.run(x, None, lengths, mask)[0] if layer.resets else layer.run(x, None, lengths)[0]
    return x


def test_models_hand_the_mask_on(rng):
    layers = (
        rc.Linear(I, 8, rng=0),
        Doubled(),
        rc.Residual(rc.Sequential(rc.LayerNorm(8), rc.GRU(8, 8, rng=1))),
        rc.Concat(rc.LSTM(8, 3, rng=2, bidirectional=True), rc.Linear(8, 2, rng=3)),
    )
    by_hand = copy.deepcopy(layers)
    model = rc.Sequential(*layers)
    x, mask = rng.standard_normal((N, T, I), dtype=np.float32), rng.random((N, T)) < 0.3
    expected = model_by_hand(x, mask, RAGGED, by_hand)
    assert not np.array_equal(expected, model(x, RAGGED))
    assert np.array_equal(model(x, RAGGED, mask), expected)
    assert np.array_equal(model.run(x, None, RAGGED, mask)[0], expected)
    (y, _), pull_back = model.vjp(x, None, RAGGED, mask)
    assert np.array_equal(y, expected)
    assert pull_back(y)[0].shape == x.shape
    with pytest.raises(ValueError, match=r"^reset_mask: expected bool \(5, 13\)"):
        model(x, None, mask[:, 1:])


def test_gradients_of_a_model(rng):
    model = rc.Sequential(
        rc.Residual(rc.GRU(I, I, dtype=np.float64, rng=0)),
        rc.Concat(rc.LSTM(I, 4, dtype=np.float64, rng=1), rc.RNN(I, 2, dtype=np.float64, rng=2)),
        rc.MeanPool(),
        rc.Linear(6, 2, dtype=np.float64, rng=3),
    )
    x, mask = rng.standard_normal((N, T, I)), rng.random((N, T)) < 0.3

    def function(x, parameters):
        model.flat_parameters[...] = parameters
        (y, _), pull_back = model.vjp(x, None, RAGGED, mask)

        def vjp(dy):
            model.zero_gradients()
            dx, _ = pull_back(dy)
            return dx, model.flat_gradients.copy()

        return y, vjp

    check_gradients(function, [x, model.flat_parameters.copy()])


@pytest.mark.parametrize("pool", [rc.Last, rc.MeanPool])
def test_a_mask_ends_where_its_steps_do(pool, rng):
    encoder, decoder = rc.GRU(I, 6, rng=0), rc.GRU(6, 4, rng=1)
    by_hand = copy.deepcopy(encoder), copy.deepcopy(decoder)
    model = rc.Sequential(encoder, pool(), rc.Repeat(7), decoder)
    x, mask = rng.standard_normal((N, T, I), dtype=np.float32), rng.random((N, T)) < 0.3
    code = pool()(by_hand[0].run(x, None, None, mask)[0])
    expected, _ = by_hand[1](np.repeat(code[:, None], 7, axis=1))
    assert np.array_equal(model(x, reset_mask=mask), expected)
    assert model.output_resets(mask) is None
    assert rc.Sequential(rc.GRU(I, 6), rc.Linear(6, 2)).output_resets(mask) is mask
    assert rc.Residual(rc.Sequential(rc.GRU(6, 6))).output_resets(mask) is mask
    assert rc.Concat(rc.Last(), rc.MeanPool()).output_resets(mask) is None


@pytest.mark.parametrize("vocabulary", [4, 500])  # the products of the table are made at once, or those of each step
@pytest.mark.parametrize("options", [{}, {"bidirectional": True}, {"checkpoint_every": 4}], ids=str)
def test_tokens(cell, dtype, vocabulary, options, rng):
    kind = {"rnn": rc.RNN, "lstm": rc.LSTM, "gru": rc.GRU}[cell.function]
    options = {**options, **dict(cell.options), "dtype": dtype, "rng": 2}
    model = rc.Sequential(rc.Embedding(vocabulary, 6, dtype=dtype, rng=1), kind(6, H, **options))
    embedding, layer = copy.deepcopy(model.layers)
    tokens, mask = rng.integers(0, vocabulary, (N, T)), rng.random((N, T)) < 0.3
    (vectors, _), back_to_tokens = embedding.vjp(tokens, None, RAGGED)
    (expected, _), back_to_vectors = layer.vjp(vectors, None, RAGGED, mask)
    assert np.array_equal(model(tokens, RAGGED, mask), expected)
    (y, _), pull_back = model.vjp(tokens, None, RAGGED, mask)
    assert np.array_equal(y, expected)
    dy = rng.standard_normal(y.shape).astype(dtype)
    back_to_tokens(back_to_vectors(dy)[0])
    pull_back(dy)
    assert close([model.flat_gradients], [np.concatenate([embedding.flat_gradients, layer.flat_gradients])], dtype)
    letters = tokens[:, :, None] % 5 / 5.0  # what is not a batch of tokens goes through one by one
    assert rc.Sequential(rc.GRU(1, 4, rng=0))(letters, RAGGED, mask).shape == (N, T, 4)


@pytest.mark.parametrize("kind", [list, rc.Packed])
@pytest.mark.parametrize("directions", [1, 2])
def test_sequences_without_padding(kind, directions, rng):
    """Lists and packed sequences, and masks of the same kind, have the bits of padded ones."""
    lengths = [7, 0, 4, 9, 1]
    x, mask = rng.standard_normal((5, 9, 3)), rng.random((5, 9)) < 0.3
    as_kind = rc.Packed.from_list if kind is rc.Packed else list
    rows, masks = (as_kind([a[:n] for a, n in zip(array, lengths, strict=True)]) for array in (x, mask))
    layer = rc.LSTM(3, 4, num_layers=2, bidirectional=directions == 2, dtype=np.float64, rng=0)
    start = tuple(rng.standard_normal((2, 2 * directions, 5, 4)))
    (y, state), pull_back = layer.vjp(x, None, lengths, mask, start)
    dx, dstate, dstart = pull_back(2 * y)
    gradients = layer.flat_gradients.copy()
    layer.zero_gradients()

    def padded(series):
        found = np.zeros((5, 9, series[0].shape[-1] if kind is list else series.data.shape[-1]))
        for n, part in enumerate(series if kind is list else series.to_list()):
            found[n, : len(part)] = part
        return found

    for call in (layer, layer.frozen()):
        y_rows, state_rows = call(rows, None, None, masks, start)
        assert isinstance(y_rows, kind)
        assert np.array_equal(padded(y_rows), y)
        assert np.array_equal(state_rows, state)
    (y_rows, _), pull_back_rows = layer.vjp(rows, None, None, masks, start)
    dx_rows, dstate_rows, dstart_rows = pull_back_rows(
        kind(2 * part for part in y_rows) if kind is list else 2 * y_rows
    )
    assert np.array_equal(padded(dx_rows), dx)
    assert np.array_equal(dstate_rows, dstate)
    assert np.array_equal(dstart_rows, dstart)
    assert np.array_equal(layer.flat_gradients, gradients)
    model = rc.Sequential(rc.Linear(3, 3, dtype=np.float64, rng=1), layer)
    assert np.array_equal(padded(model(rows, None, masks)), model(x, lengths, mask))
    weights = [layer.parameters[f"{name}_l0"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    y, *_ = rc.functional.lstm(x, *weights, lengths=lengths, reset_mask=mask, h_reset=start[0][0], reverse=True)
    y_rows, *_ = rc.functional.lstm(rows, *weights, reset_mask=masks, h_reset=start[0][0], reverse=True)
    assert np.array_equal(padded(y_rows), y)
    with pytest.raises((TypeError, ValueError), match="reset_mask: expected"):
        layer(rows, None, None, mask[:, 0])
