"""Streams that learn: the updates of a plain oracle, the bits of steps, windows, new regimes, memory, errors."""

import copy
import gc
import sys
import tracemalloc

import numpy as np
import pytest

import rnncore as rc
from rnncore import _core, reference

try:
    import resource
except ImportError:  # on Windows
    resource = None

LAYERS = {
    "rnn_tanh": rc.RNN,
    "rnn_relu": lambda *sizes, **kw: rc.RNN(*sizes, nonlinearity="relu", **kw),
    "lstm": rc.LSTM,
    "gru": rc.GRU,
}


def network(dtype=np.float32, kind="lstm", inputs=3, outputs=2):
    return rc.Sequential(LAYERS[kind](inputs, 6, dtype=dtype, rng=0), rc.Linear(6, outputs, dtype=dtype, rng=1))


def learner(model, batch_size=None, **options):
    return model.stream(batch_size, **({"loss": rc.MSE(), "optimizer": rc.SGD(0.1, momentum=0.5)} | options))


def normal(*shape, dtype=np.float32, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def tree_equal(a, b):
    if isinstance(a, tuple):
        return isinstance(b, tuple) and len(a) == len(b) and all(map(tree_equal, a, b))
    return a is b is None or np.array_equal(a, b)


class Oracle:
    """The same in plain NumPy: a recurrent layer and a linear one, squared error, descent with momentum."""

    def __init__(self, cell, model, window, clip_norm=None):
        self.cell, self.window, self.clip_norm = cell, window, clip_norm
        self.parameters = [np.array(array) for array in model.parameters.values()]  # w_ih, w_hh, b_ih, b_hh, w, b
        self.velocity = [np.zeros_like(array) for array in self.parameters]
        self.inputs, self.states = [], []
        self.state = ()

    def step(self, x, target=None, row_weights=None):
        """Take a step, and learn from it if there is a target; return the output and the loss."""
        self.inputs.append(x)
        self.states.append(self.state or tuple(np.zeros((len(x), 6)) for _ in range(self.cell.states)))
        begin = max(len(self.inputs) - self.window, 0) if target is not None else -1
        names = ("w_ih", "w_hh", "b_ih", "b_hh")
        arguments = dict(zip(names, self.parameters, strict=False)) | dict(
            zip(("h_0", "c_0"), self.states[begin], strict=False)
        )
        arguments["x"] = np.stack(self.inputs[begin:], axis=1)
        (y, *self.state), pull_back = self.cell.vjp(reference, arguments)
        output, pull_back_linear = reference.linear_vjp(y[:, -1], *self.parameters[4:])
        if target is None:
            return output, None
        share = (np.ones(len(x)) if row_weights is None else row_weights)[:, None]
        share = share / share.sum() / target.shape[1]
        linear = pull_back_linear(2 * share * (output - target))
        dy = np.zeros_like(y)
        dy[:, -1] = linear.x
        recurrent = pull_back(dy)
        gradients = [*recurrent[1:5], linear.weight, linear.bias]
        norm = np.sqrt(sum((g * g).sum() for g in gradients))
        scale = 1 if self.clip_norm is None else min(1, self.clip_norm / norm)
        for p, v, g in zip(self.parameters, self.velocity, gradients, strict=True):
            v[...] = 0.5 * v + scale * g
            p -= 0.1 * v
        return output, (share * (output - target) ** 2).sum()


# ----------------------------------------------------------------------------------------------------- the updates


@pytest.mark.parametrize("window", [1, 4, 30, 100])
@pytest.mark.parametrize("clip_norm", [None, 0.3])
def test_updates_are_those_of_the_oracle(cell, window, clip_norm):
    model = network(np.float64, cell.name)
    before = model.flat_parameters.copy()
    oracle = Oracle(cell, model, window, clip_norm)
    stream = learner(model, 3, window=window, clip_norm=clip_norm)
    x, targets = normal(30, 3, 3, dtype=np.float64), normal(30, 3, 2, dtype=np.float64, seed=1)
    weights = np.random.default_rng(2).random((30, 3))
    for t in range(30):
        if t % 7 == 5:  # a step without a target
            output, _ = oracle.step(x[t])
            np.testing.assert_allclose(stream.step(x[t]), output, rtol=0, atol=1e-9)
            continue
        some = weights[t] if t % 2 else None
        output, loss = oracle.step(x[t], targets[t], some)
        learnt = stream.learn(x[t], targets[t], some)
        np.testing.assert_allclose(learnt.output, output, rtol=0, atol=1e-9)
        assert learnt.loss == pytest.approx(loss, abs=1e-9)
    flat = np.concatenate([array.ravel() for array in oracle.parameters])
    np.testing.assert_allclose(model.flat_parameters, flat, rtol=0, atol=1e-9)
    assert np.abs(flat - before).max() > 0.01


def test_a_window_of_the_whole_history_is_full_bptt():
    model = network(np.float64)
    stream = learner(model, 2, window=50)
    x, target = normal(2, 12, 3, dtype=np.float64), normal(2, 2, dtype=np.float64, seed=1)
    for t in range(11):
        stream.step(x[:, t])
    twin = copy.deepcopy(model)
    (y, _), pull_back = twin.vjp(x)
    dy = np.zeros_like(y)
    dy[:, -1] = rc.MSE().with_gradient(y[:, -1], target).gradient
    pull_back(dy)
    output, _ = stream.learn(x[:, 11], target)
    assert np.array_equal(output, y[:, -1])
    assert np.array_equal(model.flat_gradients, twin.flat_gradients)


# ------------------------------------------------------------------------------------------------------------ bits


def every_stage(dtype):
    return rc.Sequential(
        rc.Embedding(11, 5, dtype=dtype, rng=0),
        rc.LSTM(5, 17, num_layers=2, dtype=dtype, rng=1),
        rc.Activation("tanh"),
        rc.Sequential(rc.Linear(17, 33, activation="relu", dtype=dtype, rng=3), rc.GRU(33, 7, dtype=dtype, rng=4)),
        rc.Last(),
        rc.Linear(7, 4, bias=False, dtype=dtype, rng=5),
    )


@pytest.mark.parametrize("batch_size", [None, 1, 5])
@pytest.mark.parametrize("window", [1, 3, 40])
def test_a_rate_of_zero_has_the_bits_of_steps(dtype, isa, batch_size, window):
    rows = () if batch_size is None else (batch_size,)
    tokens = np.random.default_rng(0).integers(0, 11, (25, *rows))
    classes = np.random.default_rng(1).integers(0, 4, (25, *rows))
    model = every_stage(dtype)
    steps = model.stream(batch_size)
    stream = learner(model, batch_size, loss=rc.CrossEntropy(), optimizer=rc.SGD(0.0), window=window)
    for t in range(25):
        y = steps.step(tokens[t])
        learnt = stream.learn(tokens[t], classes[t])
        assert np.array_equal(learnt.output, y)
        assert learnt.output.shape == (*rows, 4)
        assert learnt.loss == pytest.approx(rc.CrossEntropy()(np.atleast_2d(y), np.atleast_1d(classes[t])))
        assert tree_equal(stream.state, steps.state)


@pytest.mark.parametrize("make", [network, lambda: rc.GRU(3, 2, num_layers=2, rng=0), lambda: rc.Linear(3, 2, rng=0)])
def test_steps_go_on_with_the_new_parameters(make):
    model = make()
    other, stream = model.stream(4), learner(model, 4, window=5)
    x, targets = normal(9, 4, 3), normal(9, 4, 2, seed=1)
    first = other.step(x[0])
    other.reset()
    for t in range(8):
        stream.learn(x[t], targets[t])
    fresh = model.stream(4)
    fresh.state = stream.state
    block = np.stack([fresh.step(x[8]), fresh.step(x[0])], axis=1)
    assert np.array_equal(stream.process(np.stack([x[8], x[0]], axis=1)), block)
    assert tree_equal(stream.state, fresh.state)
    assert np.array_equal(other.step(x[0]), first)  # has its own
    assert not np.array_equal(block[:, 1], first)


def test_a_fork_goes_its_own_way():
    model = network()
    stream = learner(model, 2, window=4)
    x, targets = normal(12, 2, 3), normal(12, 2, 2, seed=1)
    for t in range(6):
        stream.learn(x[t], targets[t])
    fork, start = stream.fork(), model.flat_parameters.copy()
    optimizer = stream.optimizer.state_dict()
    y = stream.fork().step(x[11])
    losses = [stream.learn(x[t], targets[t]).loss for t in range(6, 12)]
    assert np.array_equal(fork.fork().step(x[11]), y)
    model.flat_parameters[...] = start
    stream.optimizer.load_state_dict(optimizer)
    assert [fork.learn(x[t], targets[t]).loss for t in range(6, 12)] == losses  # its window was its own


def test_a_model_that_became_part_of_another():
    layer = rc.GRU(3, 2, rng=0)
    stream = learner(layer, optimizer=rc.SGD(0.1))
    x, target = normal(3), normal(2, seed=1)
    stream.learn(x, target)
    whole = rc.Sequential(layer, rc.Linear(2, 1, rng=0))
    before = whole.flat_parameters.copy()
    stream.learn(x, target)
    assert not np.array_equal(whole.flat_parameters[: layer.flat_parameters.size], before[: layer.flat_parameters.size])
    fresh = layer.stream()
    fresh.state = stream.state
    assert np.array_equal(stream.step(x), fresh.step(x))


# ------------------------------------------------------------------------------------------------------ the window


@pytest.mark.parametrize(
    "change",
    [
        lambda stream, x: stream.process(x[:, np.newaxis]),
        lambda stream, x: stream.reset(),
        lambda stream, x: stream.reset(1),
        lambda stream, x: stream.detach(stream.attach()),
        lambda stream, x: stream.set_row_state(0, None),
        lambda stream, x: setattr(stream, "state", stream.state),
        lambda stream, x: stream.from_bytes(stream.to_bytes()),
    ],
    ids=["process", "reset", "reset_row", "rows", "row_state", "state", "bytes"],
)
def test_what_begins_the_window_anew(change):
    model = network()
    stream = learner(model, 2, window=10)
    x, targets = normal(8, 2, 3), normal(8, 2, 2, seed=1)
    for t in range(5):
        stream.learn(x[t], targets[t])
    change(stream, x[5])
    after = copy.deepcopy(model)
    (y, _), pull_back = after.vjp(x[6:8].swapaxes(0, 1), stream.state)
    stream.step(x[6])
    output, _ = stream.learn(x[7], targets[7])
    assert np.array_equal(output, y[:, -1])
    dy = np.zeros_like(y)
    dy[:, -1] = rc.MSE().with_gradient(y[:, -1], targets[7]).gradient
    pull_back(dy)
    assert np.array_equal(model.flat_gradients, after.flat_gradients)


def test_rows_that_leave():
    model = network()
    stream = learner(model, 3, optimizer=rc.SGD(0.0), window=10)
    x, targets = normal(6, 3, 3), normal(6, 3, 2, seed=1)
    for t in range(3):
        stream.learn(x[t], targets[t])
    stream.detach(0)  # the last takes its place
    y = model(x[:4, [2, 1]].swapaxes(0, 1))
    assert np.array_equal(stream.learn(x[3, [2, 1]], targets[3, :2]).output, y[:, 3])
    alone = copy.deepcopy(model)
    (_, state), _ = alone.vjp(x[:3, [2, 1]].swapaxes(0, 1))
    (y, _), pull_back = alone.vjp(np.ascontiguousarray(x[3:4, [2, 1]].swapaxes(0, 1)), state)
    pull_back(rc.MSE().with_gradient(y, targets[3, :2].reshape(y.shape)).gradient)
    assert np.array_equal(model.flat_gradients, alone.flat_gradients)


def test_a_model_changed_by_others_is_taken_as_it_is():
    model = network()
    stream = learner(model, optimizer=rc.SGD(0.0))
    model.flat_parameters *= 0.5
    assert np.array_equal(stream.learn(np.ones(3), np.zeros(2)).output, model.stream().step(np.ones(3)))
    stream.reset()
    assert np.array_equal(stream.step(np.ones(3)), model.stream().step(np.ones(3)))


def test_rows_without_a_target():
    model = network()
    stream = learner(model, 3, optimizer=rc.AdamW(0.01))
    x, targets = normal(3, 3), normal(3, 2, seed=1)
    stream.learn(x, targets)
    before, y = model.flat_parameters.copy(), stream.fork().step(x)
    output, loss = stream.learn(x, targets, weights=np.zeros(3))
    np.testing.assert_allclose(output, y, rtol=0, atol=0.1)  # of the window by the new parameters
    assert loss == 0.0
    assert np.array_equal(model.flat_parameters, before)
    assert stream.optimizer.steps == 1
    some = np.array([1.0, 0.0, 2.0])
    targets[1] = np.nan
    assert np.isfinite(stream.learn(x, targets, some).loss)
    assert stream.optimizer.steps == 2
    assert np.isfinite(model.flat_parameters).all()
    none = learner(network(), 0)
    assert none.learn(np.zeros((0, 3)), np.zeros((0, 2))).output.shape == (0, 2)
    assert none.attach() == 0
    assert none.learn(x[:1], targets[:1]).output.shape == (1, 2)


def test_dropout_drops():
    model = rc.Sequential(rc.GRU(3, 8, rng=0), rc.Dropout(0.5, rng=1), rc.Linear(8, 2, rng=2))
    stream = learner(model, 2, optimizer=rc.SGD(0.0))
    y = model.stream(2).step(np.ones((2, 3)))
    assert not np.array_equal(stream.learn(np.ones((2, 3)), np.zeros((2, 2))).output, y)


# ---------------------------------------------------------------------------------------------------------- learning


@pytest.mark.parametrize("kind", ["lstm", "gru", "rnn_tanh"])
def test_it_follows_a_regime_that_changes(kind):
    """The next value of a sine, whose sign the targets have until it flips."""
    series = np.sin(np.arange(1801) / 3).astype(np.float32)[:, np.newaxis]
    targets = series[1:].copy()
    targets[900:] *= -1
    stream = learner(network(kind=kind, inputs=1, outputs=1), optimizer=rc.Adam(0.01), window=10, clip_norm=1.0)
    losses = np.array([stream.learn(x, y).loss for x, y in zip(series, targets, strict=False)])
    before, flipped, after = losses[800:900].mean(), losses[900:920].mean(), losses[1700:].mean()
    assert before < 0.05
    assert flipped > 0.2
    assert after < 0.05


def test_it_remembers_over_its_window_and_no_further():
    """The class is the token of two steps ago, which an embedding and a tanh network must hold."""
    tokens = np.random.default_rng(0).integers(0, 3, (3000, 4))

    def late_loss(window):
        model = rc.Sequential(rc.Embedding(3, 4, rng=0), rc.GRU(4, 12, rng=1), rc.Linear(12, 3, rng=2))
        stream = learner(model, 4, loss=rc.CrossEntropy(), optimizer=rc.Adam(0.01), window=window)
        losses = [stream.learn(tokens[t], tokens[t - 2]).loss for t in range(2, 1000)]
        return np.mean(losses[-100:])

    assert late_loss(3) < 0.1 < 0.3 < late_loss(1)


@pytest.mark.parametrize(
    ("loss", "outputs", "target"),
    [
        (rc.MSE(), 2, [0.5, -0.5]),
        (rc.MAE(), 2, [0.5, -0.5]),
        (rc.Huber(), 2, [0.5, -0.5]),
        (rc.BinaryCrossEntropy(), 2, [1, 0]),
        (rc.CrossEntropy(), 3, 2),
        (rc.CrossEntropy(), 3, [0.0, 0.8, 0.2]),
        (rc.Quantile([0.1, 0.5, 0.9]), 3, 1.0),
        (rc.GaussianNLL(), 2, [1.0]),
    ],
)
@pytest.mark.parametrize("batch_size", [None, 3])
def test_every_loss_falls(loss, outputs, target, batch_size):
    rows = () if batch_size is None else (batch_size,)
    stream = learner(network(outputs=outputs), batch_size, loss=loss, optimizer=rc.Adam(0.01))
    target = np.broadcast_to(np.asarray(target), (*rows, *np.shape(target)))
    losses = [stream.learn(np.ones((*rows, 3)), target).loss for _ in range(100)]
    assert losses[-1] < losses[0] - 0.05


# ------------------------------------------------------------------------------------------------------------ memory


def test_memory_is_constant():
    stream = learner(network(), 2, optimizer=rc.Adam(0.001), window=20)
    x, target = normal(2, 3), normal(2, 2, seed=1)

    def run(steps):
        for _ in range(steps):
            stream.learn(x, target)
            stream.step(x)
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        early = run(100)
        late = run(2000)
    finally:
        tracemalloc.stop()
    assert late - early < 4096  # one step that were kept would be 100 bytes or more


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_memory_of_the_core_is_constant():
    """What NumPy and Python do not see: weights are packed at every step, 74 kB here."""

    def resident():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * resource.getpagesize()

    model = rc.Sequential(rc.LSTM(8, 64, rng=0), rc.Linear(64, 1, rng=1))
    stream = learner(model, window=2)
    x, target = normal(8), normal(1, seed=1)
    for _ in range(100):
        stream.learn(x, target)
    before = resident()
    for _ in range(500):
        stream.learn(x, target)
    assert resident() - before < 4e6


# ------------------------------------------------------------------------------------------------------------ errors


def test_what_cannot_learn():
    model, loss, optimizer = network(), rc.MSE(), rc.SGD(0.1)
    both = {"loss": loss, "optimizer": optimizer}
    for call, kind, message in (
        (lambda: model.stream(loss=loss), ValueError, "loss, optimizer: expected both"),
        (lambda: model.stream(optimizer=optimizer), ValueError, "loss, optimizer: expected both"),
        (lambda: model.stream(clip_norm=1.0), ValueError, "loss, optimizer: expected both"),
        (lambda: model.stream(2, loss=3, optimizer=optimizer), TypeError, "loss: expected one with a method with_grad"),
        (lambda: model.stream(2, loss=loss, optimizer=3), TypeError, "optimizer: expected one with a method step"),
        (lambda: model.stream(window=0, **both), ValueError, "window: expected an integer >= 1, got 0"),
        (lambda: model.stream(window=2.0, **both), TypeError, "window: expected an integer >= 1, got float"),
        (lambda: model.stream(clip_norm=0, **both), ValueError, "clip_norm: expected a number > 0, got 0"),
        (lambda: rc.GRU(3, 4, bidirectional=True).stream(**both), ValueError, "model: expected layers of one dir"),
        (lambda: rc.MeanPool().stream(**both), TypeError, "model: expected layers that can be streamed"),
        (lambda: rc.GRU(3, 4, batch_first=False).stream(**both), ValueError, "model: expected a layer with batch_fir"),
        (lambda: model.stream().learn(np.ones(3), np.ones(2)), ValueError, "learn: expected a stream made with a loss"),
    ):
        with pytest.raises(kind, match=message):
            call()


def test_wrong_arguments_change_nothing():
    model = network()
    stream, twin = (learner(net, 2, window=3) for net in (model, copy.deepcopy(model)))
    x, targets = normal(9, 2, 3), normal(9, 2, 2, seed=1)
    tokens = learner(every_stage(np.float32), 1, loss=rc.CrossEntropy())
    tokens.learn([3], [1])
    for t, (call, kind, message) in enumerate(
        (
            (lambda: stream.learn(x[0, 0], targets[0]), ValueError, r"x: expected float32 \(2, 3\), got float32 \(3,"),
            (lambda: stream.learn("abc", targets[0]), TypeError, "x: expected real numbers"),
            (lambda: stream.learn(x[0], targets[0, 0]), ValueError, r"targets: expected \(2, 2\), got \(2,\)"),
            (lambda: stream.learn(x[0], targets[0], np.ones(3)), ValueError, "weights: expected"),
            (lambda: stream.learn(x[0], targets[0] * np.nan), FloatingPointError, r"step \d: the loss is nan"),
            (lambda: stream.step(x[0, 0]), ValueError, r"x: expected float32 \(2, 3\)"),
            (lambda: tokens.learn([11], [0]), ValueError, "tokens from 0 to 10, got 11"),
            (lambda: tokens.learn([1.0], [0]), TypeError, "x: expected integers, the tokens, got float64"),
        )
    ):
        with pytest.raises(kind, match=message):
            call()
        assert tree_equal(stream.state, twin.state)
        assert stream.learn(x[t], targets[t]).loss == twin.learn(x[t], targets[t]).loss
    assert tokens.learn([3], [1]).output.shape == (1, 4)


def test_the_core_takes_weights_of_the_same_stages_alone():
    model = network()
    stream = model.stream()

    def program(*stages, single=True):
        return _core.Program(single, list(stages))

    linear = ("linear", model.parameters["1.weight"], None, _core.Activation.none)
    for other in (
        rc.Sequential(rc.LSTM(3, 7), rc.Linear(7, 2)),
        rc.Sequential(rc.LSTM(4, 6), rc.Linear(6, 2)),
        rc.Sequential(rc.LSTM(3, 6, num_layers=2), rc.Linear(6, 2)),
        rc.Sequential(rc.GRU(3, 6), rc.Linear(6, 2)),
        rc.Sequential(rc.LSTM(3, 6), rc.Linear(6, 2, activation="tanh")),
        rc.Sequential(rc.Linear(3, 6), rc.Linear(6, 2)),
        rc.Sequential(rc.Embedding(5, 3), rc.LSTM(3, 6), rc.Linear(6, 2)),
        rc.LSTM(3, 6),
        network(np.float64),
    ):
        stages = []
        other._stream_stages(stages)
        with pytest.raises(ValueError, match="program: expected one of the same stages"):
            stream._renew(program(*stages, single=other.dtype != np.float64))
    with pytest.raises(ValueError, match="program: expected one of the same stages"):
        stream._renew(program(linear))
