"""Bits of layers with options: a row's result is its own, whatever is computed beside it, before it, or by whom."""

import copy
import pickle

import numpy as np
import pytest

import rnncore as rc
from cases import random_like
from option_cases import layer_of, options_id
from stacks import parts_of, sizes_of, states_of

# Every kind of cell with every option between them; what is random is tried with the same masks.
STACKED = {"num_layers": 2, "skip": True, "learn_initial_state": True}
LAYERS = [
    (rc.RNN, {"nonlinearity": "softsign", "leak": 0.4, "layer_norm": True, "gate_clip": 0.8}),
    (rc.RNN, {"zoneout": 0.3, "recurrent_dropout": 0.2, **STACKED}),
    (rc.LSTM, {"peephole": True, "cell_clip": 0.5, "layer_norm": True}),
    (rc.LSTM, {"proj_size": 5, "peephole": True, "gate_clip": 0.7, **STACKED}),
    (rc.LSTM, {"coupled_gates": True, "proj_size": 3, "layer_norm": True, "peephole": True}),
    (rc.LSTM, {"zoneout": (0.2, 0.5), "recurrent_dropout": 0.2, "input_dropout": 0.3, "coupled_gates": True}),
    (rc.LSTM, {"skip": True, "num_layers": 3}),  # of the plain cell
    (rc.RNN, {"transition_depth": 3, "shortcut": True, "leak": 0.7, "recurrent_dropout": 0.2}),
    (rc.LSTM, {"transition_depth": 2, "shortcut": True, "peephole": True, "layer_norm": True, **STACKED}),
    (rc.GRU, {"transition_depth": 2, "shortcut": True, "zoneout": 0.3}),
    (rc.MGU, {"transition_depth": 2, "gate_clip": 0.8}),
    (rc.LSTM, {"input_depth": 2, "output_depth": 3, "num_layers": 2, "input_dropout": 0.3}),
    (rc.RNN, {"output_depth": 2, "nonlinearity": "relu", **STACKED}),
    (rc.GRU, {"recurrent_activation": "hard_sigmoid", "activation": ("elu", 0.5), "layer_norm": True, **STACKED}),
    (rc.GRU, {"reset_after": False, "gate_clip": 0.9}),
    (rc.GRU, {"reset_after": False, "layer_norm": True, "zoneout": 0.4, "recurrent_dropout": 0.3, **STACKED}),
    (rc.GRU, {"learn_initial_state": True}),
    (rc.MGU, {"layer_norm": True, "recurrent_dropout": 0.2, **STACKED}),
    (rc.SLSTM, STACKED),
    (rc.IndRNN, {"nonlinearity": "tanh", **STACKED}),
    (rc.MinGRU, {"input_dropout": 0.3, **STACKED}),
    (rc.MinLSTM, {}),
    (rc.SRU, STACKED),
    (rc.QRNN, {}),
    (rc.LRU, STACKED),
    (rc.LRU, {"complex": False}),
]
RANDOM = ("zoneout", "recurrent_dropout", "input_dropout")
layers = pytest.mark.parametrize("case", LAYERS, ids=options_id)
HIDDEN = [7, 16, 33]


def make(case, I, H, dtype, **options):
    return layer_of(case[0], {**case[1], **options}, I, H, dtype)


def without_masks(case):
    """The layer in which nothing is random in training."""
    return case[0], {name: value for name, value in case[1].items() if name not in RANDOM}


def random_state(layer, rng, *axes):
    passes = len(layer._weights)
    sizes = sizes_of(layer)[: len(states_of(layer))]
    parts = [rng.standard_normal((passes, *axes, size)).astype(layer.dtype) for size in sizes]
    if "n" in states_of(layer):  # sLSTM divides by it
        parts[2] = np.abs(parts[2]) + 1
    parts = tuple(parts)
    return parts if len(parts) > 1 else parts[0]


def arrays(*values):
    """All arrays in nested tuples and lists, in their order."""
    found = []
    for value in values:
        if isinstance(value, tuple | list):
            found += arrays(*value)
        elif isinstance(value, rc.Packed):
            found += value.to_list()
        elif value is not None:
            found.append(value)
    return found


def assert_same(got, expected):
    got, expected = arrays(got), arrays(expected)
    assert len(got) == len(expected)
    for a, b in zip(got, expected, strict=True):
        assert a.dtype == b.dtype
        assert np.array_equal(a, b)


def rows_of(state, rows):
    return tuple(rows_of(part, rows) for part in state) if isinstance(state, tuple) else state[:, rows]


def train(layer, *arguments, seed=0):
    """Output, gradients of the arguments and of parameters; the layer draws as a new copy would."""
    layer = copy.deepcopy(layer)
    output, pull_back = layer.vjp(*arguments)
    rng = np.random.default_rng(seed)
    y, state = output
    dy = [rng.standard_normal(a.shape).astype(a.dtype) for a in y] if isinstance(y, list) else y * 0.5
    gradients = pull_back(
        dy, tuple(random_like(rng, state)) if isinstance(state, tuple) else random_like(rng, [state])[0]
    )
    return output, gradients, layer.flat_gradients.copy()


@layers
@pytest.mark.parametrize("H", HIDDEN)
def test_a_row_alone_equals_the_row_in_any_batch(case, dtype, isa, H, rng):
    layer = make(without_masks(case), 5, H, dtype, bidirectional=H == 16)
    x, state = rng.standard_normal((29, 9, 5)).astype(dtype), random_state(layer, rng, 29)
    lengths = rng.integers(0, 10, 29)
    y, last = layer(x, state, lengths)
    (y_vjp, last_vjp), pull_back = layer.vjp(x, state, lengths)
    assert_same((y_vjp, last_vjp), (y, last))
    dy, dlast = random_like(rng, [y])[0], random_state(layer, rng, 29)
    dx, dstate = pull_back(dy, dlast)
    for rows in ([3], [4], rng.permutation(29)[:2], rng.permutation(29)[:13]):
        part = layer(x[rows], rows_of(state, rows), lengths[rows])
        assert_same(part, (y[rows], rows_of(last, rows)))
        _, pull_back = layer.vjp(x[rows], rows_of(state, rows), lengths[rows])
        assert_same(pull_back(dy[rows], rows_of(dlast, rows)), (dx[rows], rows_of(dstate, rows)))


@layers
@pytest.mark.parametrize("shape", [(40, 130, 21, 33), (560, 1, 1, 128), (6, 600, 5, 17)], ids=str)
def test_thread_count_changes_no_bit(case, isa, shape, rng, threads):
    T, N, I, H = shape
    layer = make(case, I, H, np.float32)
    x, lengths = rng.standard_normal((N, T, I)).astype(np.float32), rng.integers(T // 2, T + 1, N)
    resets = rng.random((N, T)) < 0.05 if N > 1 else None
    results = []
    for n in (1, 2, 3):
        threads(n)
        results.append((train(layer, x, None, lengths, resets), layer(x, None, lengths, resets)))
    assert_same(results[1], results[0])
    assert_same(results[2], results[0])


@layers
def test_padded_packed_and_listed_sequences_agree(case, dtype, isa, rng):
    layer = make(without_masks(case), 5, 17, dtype, bidirectional=True)
    lengths = np.array([4, 0, 9, 9, 1, 6])
    x, state = rng.standard_normal((6, 9, 5)).astype(dtype), random_state(layer, rng, 6)
    mask, start = rng.random((6, 9)) < 0.2, random_state(layer, rng)
    listed = [x[n, :length] for n, length in enumerate(lengths)]
    masks = [mask[n, :length] for n, length in enumerate(lengths)]
    for resets in ((), (mask, start)):
        y, last = layer(x, state, lengths, *resets)
        y_of = [y[n, :length] for n, length in enumerate(lengths)]
        of_list = (masks, start) if resets else ()
        of_packed = (rc.Packed.from_list(masks), start) if resets else ()
        packed = rc.Packed.from_list(listed)
        assert_same(layer(listed, state, None, *of_list), (y_of, last))
        assert_same(layer(packed, state, None, *of_packed), (y_of, last))
        assert_same(layer.vjp(listed, state, None, *of_list)[0], (y_of, last))
        assert_same(layer.vjp(packed, state, None, *of_packed)[0], (y_of, last))
        gradients = []
        for series, kind, of_kind in (
            (x, None, resets),
            (listed, lambda a: a, of_list),
            (packed, rc.Packed, of_packed),
        ):
            layer.zero_gradients()
            _, pull_back = layer.vjp(series, state, lengths if kind is None else None, *of_kind)
            dy = y if kind is None else y_of if series is listed else rc.Packed.from_list(y_of)
            dx, *rest = pull_back(dy, last)
            if kind is None:
                dx = [dx[n, :length] for n, length in enumerate(lengths)]
            gradients.append((arrays(dx), rest, layer.flat_gradients.copy()))
        assert_same(gradients[1], gradients[0])
        assert_same(gradients[2], gradients[0])


@layers
@pytest.mark.parametrize("N", [1, 6])
def test_chunks_with_carried_state_and_streams(case, dtype, isa, N, rng):
    layer = make(case, 5, 17, dtype)
    x = rng.standard_normal((N, 300, 5)).astype(dtype)
    for state in (None, random_state(layer, rng, N)):
        y, last = whole = layer(x, state)
        pieces, carried = [], state
        for begin, end in ((0, 1), (1, 2), (2, 200), (200, 300)):
            piece, carried = layer(x[:, begin:end], carried)
            pieces.append(piece)
        assert_same((np.concatenate(pieces, axis=1), carried), whole)
        assert_same(layer.frozen()(x, state), whole)
        assert_same(pickle.loads(pickle.dumps(layer.frozen()))(x, state), whole)

        stream = layer.stream(N)
        if state is not None:
            stream.state = state
        assert_same(np.stack([stream.step(x[:, t]) for t in range(20)], axis=1), y[:, :20])
        assert_same((stream.process(x[:, 20:]), stream.state), (y[:, 20:], last))
    alone = layer.stream()
    assert_same([alone.step(x_t) for x_t in x[0, :9]], list(layer(x[:1, :9])[0][0]))


@layers
def test_resets_are_calls_of_their_own(case, dtype, isa, rng):
    layer = make(without_masks(case), 5, 17, dtype, bidirectional=True)
    x, state, start = rng.standard_normal((1, 12, 5)).astype(dtype), random_state(layer, rng, 1), None
    mask = np.zeros((1, 12), bool)
    mask[0, [0, 5]] = True  # before the first step too
    layer = make(without_masks(case), 5, 17, dtype)
    state = random_state(layer, rng, 1)
    for start in (None, random_state(layer, rng, 1)):
        first, _ = layer(x[:, :5], start)
        second, last = layer(x[:, 5:], start)
        expected = np.concatenate([first, second], axis=1), last
        assert_same(layer(x, state, None, mask, start), expected)
        assert_same(layer.frozen()(x, state, None, mask, start), expected)
        assert_same(layer.vjp(x, state, None, mask, start)[0], expected)
        if start is None:
            stream = layer.stream(1)
            stream.state = state
            assert_same((stream.process(x, reset_mask=mask), stream.state), expected)


@layers
@pytest.mark.parametrize("every", [1, 100, 1000])
def test_checkpoints_change_no_bit(case, dtype, isa, every, rng):
    x, lengths = rng.standard_normal((7, 300, 4)).astype(dtype), rng.integers(0, 301, 7)
    for resets in (None, rng.random((7, 300)) < 0.02):
        plain, checkpointed = (make(case, 4, 9, dtype, checkpoint_every=k) for k in (None, every))
        assert_same(train(checkpointed, x, None, lengths, resets), train(plain, x, None, lengths, resets))


@layers
def test_time_major_and_unbatched_calls(case, dtype, isa, rng):
    layer, other = (make(without_masks(case), 5, 17, dtype, bidirectional=True, batch_first=b) for b in (True, False))
    x, state = rng.standard_normal((3, 8, 5)).astype(dtype), random_state(layer, rng, 3)
    y, last = layer(x, state)
    y_other, last_other = other(x.swapaxes(0, 1), state)
    assert_same((y_other.swapaxes(0, 1), last_other), (y, last))
    assert_same(layer(x[1], rows_of(state, 1)), (y[1], rows_of(last, 1)))
    assert_same(layer.vjp(x[1], rows_of(state, 1))[0], (y[1], rows_of(last, 1)))


@layers
def test_a_tape_may_be_pulled_back_twice(case, dtype, rng):
    layer = make(case, 5, 17, dtype)
    x = rng.standard_normal((3, 8, 5)).astype(dtype)
    (y, last), pull_back = layer.vjp(x)
    first = pull_back(y, last)
    gradients = layer.flat_gradients.copy()
    assert_same(pull_back(y, last), first)
    assert np.array_equal(layer.flat_gradients, 2 * gradients)


@pytest.mark.parametrize("kind", [rc.RNN, rc.LSTM, rc.GRU])
def test_states_of_a_stream_begin_as_learned(kind, dtype, rng):
    layer = make((kind, {"learn_initial_state": True, "num_layers": 2}), 3, 8, dtype)
    names = states_of(layer)
    learned = tuple(
        np.stack([np.tile(layer.parameters[f"initial_{name}_l{k}"], (2, 1)) for k in range(2)]) for name in names
    )
    stream = layer.stream(2)
    assert_same(parts_of(stream.state, len(names)), learned)
    x = rng.standard_normal((2, 3)).astype(dtype)
    stream.step(x)
    assert not np.array_equal(parts_of(stream.state, len(names))[0], learned[0])
    assert stream.attach() == 2
    assert_same(parts_of(stream.row_state(2), len(names)), tuple(part[:, 0] for part in learned))
    stream.reset(1)
    assert_same(parts_of(stream.row_state(1), len(names)), tuple(part[:, 0] for part in learned))
    stream.detach(2)
    before = stream.state
    stream.state = None
    assert_same(parts_of(stream.state, len(names)), learned)
    stream.state = before
    stream.set_row_state(0, None)
    assert_same(parts_of(stream.row_state(0), len(names)), tuple(part[:, 0] for part in learned))
    if kind is rc.LSTM:  # a part that is given, and one that is not
        stream.state = (None, before[1])
        assert_same(stream.state, (learned[0], before[1]))
    fresh = layer.stream(2)
    fresh.from_bytes(stream.to_bytes())
    assert_same(fresh.state, stream.state)
    assert_same(fresh.fork().step(x), stream.step(x))
    layer.flat_parameters += 1  # what becomes of the model does not change a stream
    stream.reset()
    assert_same(parts_of(stream.state, len(names)), learned)
