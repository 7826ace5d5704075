"""Checkpoints in long sequences: less memory, and the same bits."""

import pickle
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import rnncore as rc
from cases import random_like
from rnncore.testing import check_layer

LONG = 10**30  # longer than any sequence, and than any integer of the core


def assert_same(got, expected):
    assert got._fields == expected._fields
    for name, a, b in zip(got._fields, got, expected, strict=True):
        assert np.array_equal(a, b), name


def assert_same_bits(cell, arguments, rng, every, **options):
    """Outputs and gradients with checkpoints against those without, on this number of threads."""
    outputs, vjp = cell.vjp(rc.functional, arguments, **options)
    cotangents = random_like(rng, outputs)
    gradients = vjp(*cotangents)
    for k in every:
        again, pull_back = cell.vjp(rc.functional, arguments, checkpoint_every=k, **options)
        assert_same(again, outputs)
        for y in again:
            y[...] = np.nan  # the caller's to change: neither read nor written again
        assert_same(pull_back(*cotangents), gradients)
        assert all(np.isnan(y).all() for y in again)
        assert_same(pull_back(*cotangents), gradients)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("ragged", [False, True])
def test_bits(cell, isa, dtype, ragged, reverse, threads, rng):
    T, N, I, H = 130, 19, 6, 21  # chunks of 26 steps
    arguments = cell.arguments(rng, (T, N, I, H), dtype)
    lengths = rng.integers(0, T, N) if ragged else None
    for n in (1, 2, 3):
        threads(n)
        assert_same_bits(cell, arguments, rng, (1, 7, 64, LONG), lengths=lengths, reverse=reverse)


@pytest.mark.parametrize(
    ("shape", "lengths"),
    [
        ((1100, 1, 3, 136), None),  # hidden units in slices, and few inputs
        ((600, 2, 9, 160), [600, 530]),
        ((7, 1100, 5, 9), None),  # three groups of rows, of a chunk for each step
        ((3000, 3, 2, 5), [3000, 1, 1400]),
        ((1, 3, 4, 8), None),  # weights that are not packed
        ((1, 700, 4, 8), None),
        ((0, 3, 4, 8), None),
        ((5, 0, 4, 8), None),
        ((600, 3, 4, 8), [0, 0, 0]),
    ],
    ids=str,
)
def test_bits_of_other_shapes(cell, shape, lengths, threads, rng):
    arguments = cell.arguments(rng, shape, np.float32)
    for n in (1, 2, 3):
        threads(n)
        assert_same_bits(cell, arguments, rng, (1, 600, LONG), lengths=lengths)


def test_without_what_is_optional(cell, rng):
    arguments = {name: value for name, value in cell.arguments(rng, (300, 9, 6, 21)).items() if name[0] in "xw"}
    outputs, vjp = cell.vjp(rc.functional, arguments)
    again, pull_back = cell.vjp(rc.functional, arguments, checkpoint_every=60)
    assert_same(again, outputs)
    assert_same(pull_back(outputs.y), vjp(outputs.y))
    assert_same(pull_back(dh_n=outputs.h_n), vjp(dh_n=outputs.h_n))


def test_unbatched_converted_and_time_major(cell, rng):
    arguments = cell.arguments(rng, (700, 2, 4, 8), np.float32, batch_first=False)
    assert_same_bits(cell, arguments, rng, (7,), batch_first=False)
    one = {
        name: value if name[0] in "wb" else value[:, 0] if name == "x" else value[0]
        for name, value in arguments.items()
    }
    assert_same_bits(cell, one, rng, (7,), lengths=650)
    assert_same_bits(cell, dict(arguments, x=arguments["x"].astype(np.float64)), rng, (7,), batch_first=False)


def test_instruction_set_of_the_forward_pass(cell, rng):
    """What is run again is run as the first time, whatever was chosen since."""
    arguments = cell.arguments(rng, (300, 9, 6, 21), np.float32)
    outputs, vjp = cell.vjp(rc.functional, arguments)
    _, pull_back = cell.vjp(rc.functional, arguments, checkpoint_every=60)
    expected = vjp(outputs.y)
    for isa in rc.available_isas():
        try:
            rc.use_isa(isa)
            assert_same(pull_back(outputs.y), expected)
        finally:
            rc.use_isa(rc.available_isas()[0])


def test_pull_back_from_several_threads(cell, rng):
    outputs, vjp = cell.vjp(rc.functional, cell.arguments(rng, (300, 9, 6, 21), np.float32), checkpoint_every=60)
    expected = vjp(outputs.y)
    with ThreadPoolExecutor(4) as pool:
        for gradients in pool.map(vjp, [outputs.y] * 8):
            assert_same(gradients, expected)


LAYERS = {
    "rnn": lambda **options: rc.RNN(5, 9, rng=1, **options),
    "lstm": lambda **options: rc.LSTM(5, 9, rng=1, **options),
    "gru": lambda **options: rc.GRU(5, 9, rng=1, **options),
}


@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
@pytest.mark.parametrize("options", [{}, {"num_layers": 3, "dropout": 0.2}, {"num_layers": 2, "bidirectional": True}])
def test_layers(make, options, rng):
    plain, layer = make(**options), make(checkpoint_every=40, **options)
    x = rng.standard_normal((17, 200, 5), dtype=np.float32)
    lengths = rng.integers(0, 201, 17)
    (y, _), pull_back = plain.vjp(x, lengths=lengths)
    (y_again, _), pull_back_again = layer.vjp(x, lengths=lengths)
    assert np.array_equal(y_again, y)
    assert np.array_equal(pull_back_again(2 * y)[0], pull_back(2 * y)[0])
    assert np.array_equal(layer.flat_gradients, plain.flat_gradients)
    assert layer.flat_gradients.any()


@pytest.mark.parametrize("vocabulary", [11, 5000])  # the products of its table are made at once, or those of each step
def test_tokens(vocabulary, rng):
    models = [
        rc.Sequential(rc.Embedding(vocabulary, 6, rng=0), rc.LSTM(6, 9, rng=1, checkpoint_every=k)) for k in (None, 40)
    ]
    tokens, lengths = rng.integers(0, vocabulary, (17, 200)), rng.integers(0, 201, 17)
    dy = rng.standard_normal((17, 200, 9), dtype=np.float32)
    for model in models:
        _, pull_back = model.vjp(tokens, lengths=lengths)
        pull_back(dy)
    assert models[0].flat_gradients.any()
    assert np.array_equal(models[0].flat_gradients, models[1].flat_gradients)


@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
def test_contract(make, rng):
    layer = make(num_layers=2, bidirectional=True, checkpoint_every=2, dtype=np.float64)
    x = rng.standard_normal((4, 6, 5))
    check_layer(layer, x, lengths=[6, 2, 0, 5], causal=False)


def test_description(tmp_path):
    layer = rc.LSTM(3, 4, checkpoint_every=np.int64(32))
    assert repr(layer) == "LSTM(3, 4, checkpoint_every=32)"
    assert repr(rc.RNN(3, 4, nonlinearity="relu", checkpoint_every=8)) == (
        "RNN(3, 4, nonlinearity='relu', checkpoint_every=8)"
    )
    assert "checkpoint_every" not in repr(rc.GRU(3, 4))
    layer.save(tmp_path / "layer.safetensors")
    assert rc.load(tmp_path / "layer.safetensors").checkpoint_every == 32
    assert pickle.loads(pickle.dumps(layer)).checkpoint_every == 32


@pytest.mark.parametrize("wrong", [0, -3, 2.0, "4", True])
def test_wrong_numbers_are_refused(cell, wrong, rng):
    message = "^" + re.escape(f"checkpoint_every: expected a positive integer or None, got {wrong!r}") + "$"
    with pytest.raises(ValueError, match=message):
        cell.vjp(rc.functional, cell.arguments(rng, (3, 2, 4, 8)), checkpoint_every=wrong)
    with pytest.raises(ValueError, match=message):
        LAYERS[cell.function](checkpoint_every=wrong)


MEASURE = """
import sys
import numpy as np
import rnncore as rc

def status(name):
    with open("/proc/self/status") as file:
        return next(1024 * int(line.split()[1]) for line in file if line.startswith(name + ":"))

rc.set_num_threads(1)
T, N, H = 4096, 16, 128
layer = rc.LSTM(H, H, checkpoint_every=int(sys.argv[1]) or None, rng=0)
x = np.zeros((N, T, H), np.float32) + 1
dy = x.copy()
(y, state), pull_back = layer.vjp(x[:, :2])  # so that all code is loaded
pull_back(y)
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")
before = status("VmRSS")
(y, state), pull_back = layer.vjp(x)
dx, dstate = pull_back(dy)
print(status("VmHWM") - before - y.nbytes - dx.nbytes)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_memory_beyond_outputs():
    def measure(every):
        command = [sys.executable, "-c", MEASURE, str(every)]
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    assert measure(64) <= measure(0) / 5
