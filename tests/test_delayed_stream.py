"""Streams of layers that see steps to come: the bits of whole calls, some steps late."""

import copy

import numpy as np
import pytest

import rnncore as rc

LAYERS = [
    (rc.GRU, {"look_ahead": 2}, 2),
    (rc.GRU, {"look_ahead": 0}, 0),
    (rc.LSTM, {"look_ahead": 3, "num_layers": 2}, 6),
    (rc.LSTM, {"look_ahead": 1, "look_back": 2, "merge": "sum", "num_layers": 3, "skip": True}, 3),
    (rc.RNN, {"look_back": 3}, 0),
    (rc.RNN, {"look_back": 0, "num_layers": 2}, 0),
    (rc.SRU, {"look_ahead": 2, "learn_initial_state": True, "num_layers": 2}, 4),
    (rc.SLSTM, {"look_back": 1, "look_ahead": 2}, 2),
    (rc.LRU, {"look_ahead": 2, "merge": "mean"}, 2),
    (rc.LSTM, {"look_ahead": 1, "peephole": True, "proj_size": 3, "zoneout": 0.2}, 1),
    (rc.GRU, {"look_ahead": 2, "batch_first": False}, 2),
]


def layer_of(kind, options):
    layer = kind(5, 17, bidirectional="look_ahead" in options, rng=0, **options)
    rng = np.random.default_rng(1)
    for name, array in layer.parameters.items():
        if name.startswith("initial_"):
            array[...] = rng.uniform(0.2, 0.8, array.shape)
    return layer


def series(N=3, T=9, I=5):
    return np.random.default_rng(2).standard_normal((N, T, I), dtype=np.float32)


@pytest.mark.parametrize(("kind", "options", "delay"), LAYERS, ids=lambda value: getattr(value, "__name__", str(value)))
def test_bits_are_those_of_a_whole_call(kind, options, delay):
    layer, x = layer_of(kind, options), series()
    first = options.get("batch_first", True)
    expected = layer(x)[0] if first else layer(x.swapaxes(0, 1))[0].swapaxes(0, 1)
    stream = layer.stream(batch_size=3)
    assert isinstance(stream, rc.DelayedStream)
    assert stream.delay == delay
    for _ in range(2):  # after `flush` it begins anew
        outputs = [stream.step(x[:, t]) for t in range(9)]
        assert [y is None for y in outputs] == [t < delay for t in range(9)]
        rest = stream.flush()
        assert rest.shape == (3, delay, expected.shape[2])
        np.testing.assert_array_equal(np.concatenate([np.stack(outputs[delay:], axis=1), rest], axis=1), expected)
    alone = layer.stream()
    y = np.concatenate([alone.process(x[1, :4]), alone.process(x[1, 4:]), alone.flush()])
    np.testing.assert_array_equal(y, expected[1])


@pytest.mark.parametrize("T", [0, 1, 2, 5])
def test_sequences_shorter_than_the_delay(T):
    layer = layer_of(rc.GRU, {"look_ahead": 2, "num_layers": 2})
    x = series(T=T)
    stream = layer.stream(3)
    y = np.concatenate([stream.process(x), stream.flush()], axis=1)
    np.testing.assert_array_equal(y, layer(x)[0])
    assert stream.flush().shape == (3, 0, 34)


def model_of(*layers):
    return rc.Sequential(*layers)


MODELS = {
    "feed-forward": lambda: model_of(
        rc.Linear(5, 4, activation="tanh", rng=0),
        rc.GRU(4, 8, bidirectional=True, look_ahead=2, rng=1),
        rc.LayerNorm(16),
        rc.Dropout(0.5, rng=5),
        rc.LSTM(16, 8, bidirectional=True, look_ahead=1, merge="sum", rng=2),
        rc.Activation("relu"),
        rc.Linear(8, 2, rng=3),
    ),
    "others between": lambda: model_of(
        rc.LSTM(5, 8, rng=0),
        model_of(rc.GRU(8, 8, bidirectional=True, look_ahead=3, merge="mean", rng=1), rc.Residual(rc.GRU(8, 8, rng=2))),
        rc.RNN(8, 4, look_back=2, rng=3),
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_models(name):
    model, x = MODELS[name](), series()
    expected = model(x)
    stream = model.stream(batch_size=3)
    assert stream.delay == 3
    y = np.concatenate([stream.process(x[:, :2]), stream.process(x[:, 2:]), stream.flush()], axis=1)
    np.testing.assert_array_equal(y, expected)


def test_a_step_in_python_before_it():
    class Sum(rc.Recurrent):
        def __init__(self, size):
            self.size = size
            super().__init__({}, size, size)

        def step_vjp(self, x, h):
            return (h + x, h + x), lambda dy, dh: (dy + dh, dy + dh)

    model = rc.Sequential(Sum(5), rc.GRU(5, 4, bidirectional=True, look_ahead=2, rng=0))
    stream, x = model.stream(batch_size=3), series()
    np.testing.assert_array_equal(np.concatenate([stream.process(x), stream.flush()], axis=1), model(x))


def test_tokens_and_the_last_step():
    model = rc.Sequential(rc.Embedding(7, 3, rng=0), rc.GRU(3, 4, bidirectional=True, look_ahead=2, rng=1))
    tokens = np.random.default_rng(2).integers(0, 7, (2, 6))
    stream = model.stream(batch_size=2)
    y = np.concatenate([stream.process(tokens), stream.flush()], axis=1)
    np.testing.assert_array_equal(y, model(tokens))
    with pytest.raises(TypeError, match=r"^x: expected integers, the tokens"):
        stream.step(np.ones(2))
    many_to_one = rc.Sequential(
        rc.GRU(5, 4, bidirectional=True, look_ahead=2, rng=1), rc.Last(), rc.Linear(8, 2, rng=2)
    )
    stream = many_to_one.stream(batch_size=3)
    stream.process(series())
    np.testing.assert_array_equal(stream.flush()[:, -1], many_to_one(series()))


def test_inputs_may_be_written_to_and_parameters_may_change():
    layer, x = layer_of(rc.GRU, {"look_ahead": 2}), series()
    expected = layer(x)[0]
    stream = layer.stream(3)
    layer.flat_parameters[...] = 0
    buffer, out, outputs = np.empty((3, 5), np.float32), np.empty((3, 34), np.float32), []
    for t in range(9):
        buffer[...] = x[:, t]
        if stream.step(buffer, out) is not None:
            outputs.append(out.copy())
        buffer[...] = np.nan
    np.testing.assert_array_equal(np.stack(outputs, axis=1), expected[:, :7])
    np.testing.assert_array_equal(stream.flush(), expected[:, 7:])


def test_forks_go_their_own_ways():
    layer, x = layer_of(rc.LSTM, {"look_ahead": 2, "num_layers": 2}), series()
    stream = layer.stream(3)
    stream.process(x[:, :5])
    twin, other = stream.fork(), copy.copy(stream)
    other.process(x[:, :4])
    expected = layer(x)[0]
    for each in (stream, twin):
        y = np.concatenate([each.process(x[:, 5:]), each.flush()], axis=1)
        np.testing.assert_array_equal(y, expected[:, 1:])


def test_reset_forgets():
    layer, x = layer_of(rc.GRU, {"look_ahead": 2, "num_layers": 2}), series()
    stream = layer.stream(3)
    stream.process(x[:, :5])
    stream.reset()
    np.testing.assert_array_equal(np.concatenate([stream.process(x), stream.flush()], axis=1), layer(x)[0])


@pytest.mark.parametrize("N", [0, 1])
def test_few_rows(N):
    layer = layer_of(rc.GRU, {"look_ahead": 1})
    stream = layer.stream(N)
    assert stream.batch_size == N
    assert stream.step(np.ones((N, 5))) is None
    assert stream.step(np.ones((N, 5))).shape == (N, 34)
    assert repr(stream).endswith(f"look_ahead=1), batch_size={N})")


# ------------------------------------------------------------------------------------------------------------ refused


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        (rc.GRU(5, 4, bidirectional=True, look_back=2), ValueError, "^model: expected a look_ahead of layers in both"),
        (rc.GRU(5, 4, look_back=2, chunk=2), ValueError, "^model: expected chunk=1, to be streamed, got GRU"),
        (
            rc.Residual(rc.GRU(5, 5, look_back=2)),
            TypeError,
            "^model: expected layers with windows in a Sequential alone",
        ),
        (rc.Sequential(rc.RNN(5, 4, look_back=2), rc.GRU(4, 4, bidirectional=True)), ValueError, "to come"),
        (rc.Sequential(rc.RNN(5, 4, look_back=2), rc.MeanPool()), TypeError, "^model: expected layers that can be"),
    ],
    ids=str,
)
def test_what_cannot_be_streamed(model, error, message):
    with pytest.raises(error, match=message):
        model.stream()


def test_refused_by_name():
    layer = layer_of(rc.GRU, {"look_ahead": 1})
    stream = layer.stream(batch_size=2)
    with pytest.raises(ValueError, match=r"^x: expected \(2, 5\), got \(3, 5\)"):
        stream.step(np.ones((3, 5)))
    with pytest.raises(ValueError, match=r"^out: expected float32 \(2, 34\), got ndarray \(2, 3\)"):
        stream.step(np.ones((2, 5)), np.empty((2, 3), np.float32))
    assert stream.flush().shape == (2, 0, 34)  # nothing was taken
    with pytest.raises(ValueError, match=r"^batch_size: expected"):
        layer.stream(batch_size=-1)
    with pytest.raises(ValueError, match=r"^rows: expected None"):
        stream.reset([0])
    for method, arguments in (("attach", ()), ("detach", (0,)), ("learn", (1, 2))):
        with pytest.raises(ValueError, match=f"^{method}: expected a stream without windows"):
            getattr(stream, method)(*arguments)
    with pytest.raises(TypeError, match=r"^model: expected layers without windows"):
        layer.stream(loss=rc.MSE(), optimizer=rc.SGD(0.1))
