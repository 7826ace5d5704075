"""Sequences as they come, at random for a minute: every one has the bits that it has alone, one piece at a time."""

import time
from itertools import pairwise

import numpy as np
import pytest

import rnncore as rc

pytestmark = pytest.mark.slow
SECONDS = 60


def layer_at_random(rng, **options):
    kind = [rc.RNN, rc.LSTM, rc.GRU][rng.integers(3)]
    inputs, hidden = int(rng.integers(1, 20)), int(rng.integers(1, 40))
    return kind(inputs, hidden, num_layers=int(rng.integers(1, 4)), rng=rng, **options)


def part_of(state, row):
    if isinstance(state, tuple):
        return tuple(part_of(part, row) for part in state)
    return state[:, row : row + 1]


def same(a, b):
    return all(map(np.array_equal, a, b)) if isinstance(a, tuple) else np.array_equal(a, b)


def alone(layer, x, state, start, resets):
    """One sequence of one direction, a call for each piece."""
    ys = [np.zeros((0, layer.output_size), layer.dtype)]
    bounds = sorted({0, *np.flatnonzero(resets).tolist(), len(x)})
    for begin, end in pairwise(bounds):
        if resets[begin]:
            state = start
        y, state = layer(x[np.newaxis, begin:end], state)
        ys.append(y[0])
    return np.concatenate(ys), state


def a_batch(rng):
    layer = layer_at_random(rng, dtype=[np.float32, np.float64][rng.integers(2)])
    N, T = int(rng.integers(1, 40)), int(rng.integers(1, 60))
    lengths = rng.integers(0, T + 1, N)
    x = rng.standard_normal((N, T, layer.input_size)).astype(layer.dtype)
    mask = rng.random((N, T)) < rng.choice([0.0, 0.02, 0.2, 1.0])
    state, start = layer(x[:, :1])[1], layer(x[:, :1] + 1)[1]
    kind = ["lengths", "mask", "list", "packed"][rng.integers(4)]
    if kind in ("lengths", "mask"):
        given = lengths if kind == "lengths" else np.arange(T) < lengths[:, None]
        arguments = x, state, given, mask, start
    else:
        rows, masks = ([a[:n] for a, n in zip(array, lengths, strict=True)] for array in (x, mask))
        if kind == "packed":
            rows, masks = map(rc.Packed.from_list, (rows, masks))
        arguments = rows, state, None, masks, start
    call = [layer, layer.frozen(), lambda *a: layer.vjp(*a)[0]][rng.integers(3)]
    y, last = call(*arguments)
    y = y.to_list() if kind == "packed" else y
    for n, length in enumerate(lengths):
        expected, after = alone(layer, x[n, :length], part_of(state, n), part_of(start, n), mask[n, :length])
        assert np.array_equal(y[n][:length], expected), (layer, kind, n)
        assert same(part_of(last, n), after), (layer, kind, n)


def a_stream(rng):
    first = layer_at_random(rng)
    model = rc.Sequential(first, rc.Linear(first.hidden_size, 3, activation="tanh", rng=rng))
    stream = model.stream(int(rng.integers(0, 5)))
    states = [None] * stream.batch_size

    def take(x, resets):
        """Each row by itself, from the state it is in."""
        ys = []
        for row, (x_row, resets_row) in enumerate(zip(x, resets, strict=True)):
            y = []
            for x_t, reset in zip(x_row, resets_row, strict=True):
                y_t, states[row] = model.run(x_t[np.newaxis, np.newaxis], None if reset else states[row])
                y.append(y_t[0, 0])
            ys.append(y)
        return np.array(ys, np.float32).reshape(*x.shape[:2], 3)

    for _ in range(40):
        N = stream.batch_size
        assert len(states) == N
        action = rng.choice(["step", "step", "block", "attach", "detach", "reset", "fork", "bytes", "move"])
        if action == "attach":
            assert stream.attach() == N
            states.append(None)
        elif action == "detach" and N:
            row = int(rng.integers(N))
            stream.detach(row)
            states[row] = states[-1]
            states.pop()
        elif action == "move" and N:
            row = int(rng.integers(N))
            assert stream.attach(stream.row_state(row)) == N
            states.append(states[row])
        elif action == "reset" and N:
            rows = rng.random(N) < 0.5
            stream.reset(rows if rng.integers(2) else np.flatnonzero(rows))
            states = [None if reset else state for reset, state in zip(rows, states, strict=True)]
        elif action == "fork":
            stream = stream.fork()
        elif action == "bytes":
            other = model.stream(N)
            other.from_bytes(stream.to_bytes())
            stream = other
        elif action in ("step", "block"):
            steps = 1 if action == "step" else int(rng.integers(1, 12))
            x = rng.standard_normal((N, steps, first.input_size)).astype(np.float32)
            resets = (rng.random((N, steps)) < 0.1) & (action == "block")
            y = stream.step(x[:, 0])[:, np.newaxis] if action == "step" else stream.process(x, reset_mask=resets)
            assert np.array_equal(y, take(x, resets)), (model, action)


def test_a_minute_of_anything(threads):
    began, rounds = time.monotonic(), 0
    while time.monotonic() - began < SECONDS:
        rng = np.random.default_rng(rounds)
        threads(int(rng.integers(1, 4)))
        rc.use_isa(rc.available_isas()[rng.integers(len(rc.available_isas()))])
        try:
            (a_batch if rounds % 2 else a_stream)(rng)
        except Exception as error:
            error.add_note(f"round {rounds}")
            raise
        finally:
            rc.use_isa(rc.available_isas()[0])
        rounds += 1
    assert rounds > 20
