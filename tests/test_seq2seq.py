"""Encoder-decoder networks: whole targets, training, writing, data, files."""

import copy
import itertools
import pickle

import numpy as np
import pytest

import rnncore as rc
from rnncore import testing
from rnncore.bridge import Bridge

KINDS = [None, "dot", "general", "concat", "bahdanau", "location"]
S, T, V, W = 7, 5, 10, 9
SOURCE_LENGTHS, LENGTHS = [7, 1, 3, 0], [5, 0, 2, 4]


def model_of(attention, cell="GRU", bidirectional=False, layers=1, dtype="float64", **options):
    options |= {"longest_source": 9} if attention == "location" else {}
    kind, width = getattr(rc, cell), 3 if bidirectional else 6
    return rc.Seq2Seq(
        rc.Sequential(
            rc.Embedding(V, 4, rng=0, dtype=dtype),
            kind(4, width, layers, bidirectional=bidirectional, rng=1, dtype=dtype),
        ),
        rc.Sequential(
            rc.Embedding(W, 5, rng=2, dtype=dtype),
            kind(5, 6, layers, rng=3, dtype=dtype),
            rc.Linear(6, W, rng=4, dtype=dtype),
        ),
        attention,
        start=0,
        end=1,
        rng=5,
        **options,
    )


@pytest.fixture
def pair(rng):
    return rng.integers(0, V, (4, S)), rng.integers(0, W, (4, T))


def directional(model, x, lengths, rng, eps=1e-6):
    """The slope of a loss along a direction, by differences and by the gradient."""
    (y, _), pull_back = model.vjp(x, None, lengths)
    dy = rng.standard_normal(y.shape)
    model.zero_gradients()
    pull_back(dy)
    saved, direction, values = model.flat_parameters.copy(), rng.standard_normal(model.flat_parameters.shape), []
    for step in (eps, -eps):
        model.flat_parameters[...] = saved + step * direction
        values.append((model(x, lengths) * dy).sum())
    model.flat_parameters[...] = saved
    return (values[0] - values[1]) / (2 * eps), model.flat_gradients @ direction, np.linalg.norm(model.flat_gradients)


@pytest.mark.parametrize("bridge", ["auto", "linear", "zeros"])
@pytest.mark.parametrize(("cell", "bidirectional", "layers"), [("GRU", True, 2), ("LSTM", False, 1), ("RNN", True, 1)])
@pytest.mark.parametrize("attention", KINDS)
def test_training(pair, rng, attention, cell, bidirectional, layers, bridge):
    model = model_of(attention, cell, bidirectional, layers, bridge=bridge)
    lengths = SOURCE_LENGTHS, LENGTHS
    y = model(pair, lengths)
    assert y.shape == (4, T, W)
    assert np.array_equal(model.vjp(pair, None, lengths)[0][0], y)
    expected, got, scale = directional(model, pair, lengths, rng)
    assert abs(expected - got) <= 1e-6 * max(1, abs(expected), scale)
    for n in range(4):  # a row alone gives the bits of the row in its batch
        alone = model(tuple(part[n : n + 1] for part in pair), tuple(part[n : n + 1] for part in lengths))
        assert np.array_equal(alone[0], y[n])


class Twice(rc.Layer):
    """A layer of one series, which is the source and the target of a model."""

    def __init__(self, model):
        super().__init__(None, model.dtype)
        self.model = model
        self._shapes = model._shapes
        self._use(model.flat_parameters, model.flat_gradients)

    def _use(self, flat_parameters, flat_gradients):
        super()._use(flat_parameters, flat_gradients)
        if hasattr(self, "model"):
            self.model._use(flat_parameters, flat_gradients)

    def run(self, x, state=None, lengths=None):
        return self.model.run((x, x), state, (lengths, lengths))

    def vjp(self, x, state=None, lengths=None):
        output, pull_back = self.model.vjp((x, x), state, (lengths, lengths))

        def pull_back_both(dy=None, dstate=None):
            (dsource, dtarget), _ = pull_back(dy, dstate)
            return dsource + dtarget, None

        return output, pull_back_both


@pytest.mark.parametrize("attention", KINDS)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_check_layer(rng, attention, dtype):
    longest = {"longest_source": 6} if attention == "location" else {}
    model = rc.Seq2Seq(
        rc.LSTM(3, 4, rng=0, dtype=dtype), rc.LSTM(3, 4, rng=1, dtype=dtype), attention, rng=2, **longest
    )
    x = rng.standard_normal((3, 6, 3)).astype(dtype)
    testing.check_layer(Twice(model), x, lengths=[6, 2, 4], causal=False)


@pytest.mark.parametrize("attention", KINDS)
def test_writing(pair, attention):
    model = model_of(attention, "LSTM", layers=2)
    source, _ = pair
    greedy = model.greedy(source, SOURCE_LENGTHS, max_steps=6)
    beams = model.beam_search(source, SOURCE_LENGTHS, max_steps=6, beam_width=1)
    draws = model.sample(source, SOURCE_LENGTHS, max_steps=6, rng=0, top_k=1)
    for found, (beam,), drawn in zip(greedy, beams, draws, strict=True):
        assert np.array_equal(found.tokens, beam.tokens)
        assert np.array_equal(found.tokens, drawn.tokens)
        assert (found.attention is None) == (attention is None)
    for n, found in enumerate(greedy):
        tokens = np.concatenate([[0], found.tokens])
        y = model((source[n : n + 1], tokens[None]), (SOURCE_LENGTHS[n : n + 1], None))[0]
        assert np.array_equal(y.argmax(axis=1)[: len(found.tokens)], found.tokens)
        (alone,) = model.greedy(source[n : n + 1], SOURCE_LENGTHS[n : n + 1], max_steps=6)
        assert np.array_equal(alone.tokens, found.tokens)
        assert alone.log_probability == found.log_probability


def test_a_wide_beam_finds_the_best(pair):
    model = model_of("general")
    source = pair[0][:2]
    best = model.beam_search(source, max_steps=3, beam_width=W**2, n_best=1)
    for n, (found,) in enumerate(best):
        scores = {}
        for tokens in itertools.chain.from_iterable(itertools.product(range(W), repeat=k) for k in (1, 2, 3)):
            if 1 in tokens[:-1] or (len(tokens) < 3 and tokens[-1] != 1):
                continue
            y = model((source[n : n + 1], np.array([[0, *tokens[:-1]]])))[0]
            log_p = y - np.log(np.exp(y).sum(axis=1, keepdims=True))
            scores[tokens] = sum(log_p[t, token] for t, token in enumerate(tokens))
        expected = max(scores, key=scores.get)
        assert tuple(found.tokens) == tuple(token for token in expected if token != 1)
        assert abs(found.log_probability - scores[expected]) < 1e-12


@pytest.mark.parametrize("attention", KINDS)
def test_attention_weights(pair, attention):
    model, lengths = model_of(attention), (SOURCE_LENGTHS, LENGTHS)
    if attention is None:
        with pytest.raises(ValueError, match="attention_weights: expected a model with attention"):
            model.attention_weights(pair, lengths)
        return
    weights = model.attention_weights(pair, lengths)
    steps, sources = (np.arange(size) < np.array(of)[:, None] for size, of in ((T, LENGTHS), (S, SOURCE_LENGTHS)))
    expected = steps & sources.any(axis=1)[:, None]
    assert weights.shape == (4, T, S)
    assert np.allclose(weights.sum(axis=2), expected, rtol=0, atol=1e-14)
    assert not weights[~(steps[:, :, None] & sources[:, None])].any()
    source = pair[0][:1]
    (found,) = model.greedy(source, max_steps=4)
    written = np.concatenate([[0], found.tokens])[None, : len(found.tokens)]
    assert np.array_equal(model.attention_weights((source, written))[0], found.attention)


def test_initial_values():
    for attention in KINDS:
        model = model_of(attention, "LSTM", bidirectional=attention != "dot")
        rc.init.glorot(model, rng=0)
        rc.init.orthogonal(model, rng=1)
        rc.init.uniform(model, rng=2)
        rc.init.forget_bias(model, 1.0)
        if attention is not None:
            combine = model.parameters["2.weight_combine"]
            assert 0 < np.abs(combine).max() <= 1 / np.sqrt(combine.shape[1])


def test_lists_and_packed(pair):
    model = model_of("concat")
    _, target = pair
    lengths = SOURCE_LENGTHS, LENGTHS
    expected = model(pair, lengths)
    lists = [[row[:k] for row, k in zip(part, of, strict=True)] for part, of in zip(pair, lengths, strict=True)]
    assert np.array_equal(model(tuple(lists)), expected)
    packed = rc.Packed.from_list(lists[0])
    assert np.array_equal(model((packed, target), (None, LENGTHS)), expected)


@pytest.mark.parametrize("attention", [None, "general", "bahdanau"])
def test_files_and_copies(pair, tmp_path, attention):
    model = model_of(attention, bidirectional=True, teacher_forcing=rc.schedules.Cosine(1.0, 100))
    y = model(pair)
    model.save(tmp_path / "model.safetensors")
    loaded = rc.load(tmp_path / "model.safetensors")
    assert repr(loaded) == repr(model)
    for other in (loaded, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert np.array_equal(other(pair), y)
        other.flat_parameters[...] = 0
        assert not other(pair).any()
    assert np.array_equal(model(pair), y)


def test_teacher_forcing(pair):
    model = model_of("general", teacher_forcing=0.0)
    source, target = pair
    (y, _), _ = model.vjp(pair)
    # without a teacher, each step reads what the one before said
    expected, read = [], target[:, :1]
    for _ in range(T):
        outputs = model((source, read))
        expected.append(outputs[:, -1])
        read = np.concatenate([read, outputs[:, -1].argmax(axis=1)[:, None]], axis=1)
    assert np.array_equal(y, np.stack(expected, axis=1))
    # and with a schedule, a share of them
    scheduled = model_of("general", teacher_forcing=lambda step: 1.0 if step < 3 else 0.5)
    assert np.array_equal(scheduled.vjp(pair)[0][0], model(pair))
    scheduled.on_step(3)
    assert not np.array_equal(scheduled.vjp(pair)[0][0], model(pair))


class TestTraining:
    def data(self, rng, count=300):
        sources = [rng.integers(2, V, rng.integers(1, 7)) for _ in range(count)]
        return rc.data.Pairs(sources, [source[::-1] for source in sources], start=0, end=1, batch_size=50)

    def model(self, **options):
        return rc.Seq2Seq(
            rc.Sequential(rc.Embedding(V, 16, rng=0), rc.GRU(16, 24, bidirectional=True, rng=1)),
            rc.Sequential(rc.Embedding(V, 16, rng=2), rc.GRU(16, 32, rng=3), rc.Linear(32, V, rng=4)),
            "general",
            start=0,
            end=1,
            rng=5,
            **options,
        )

    def test_learns_to_reverse(self, rng):
        model = self.model()
        trainer = rc.Trainer(model, rc.CrossEntropy(), rc.Adam(0.01), clip_norm=1.0, metrics=["accuracy"])
        trainer.fit(self.data(rng, 600), epochs=25, progress=False)
        held_out = self.data(np.random.default_rng(99), 100)
        assert trainer.evaluate(held_out)["accuracy"] > 0.9
        sources = [rng.integers(2, V, 4) for _ in range(20)]
        found = model.beam_search(sources, max_steps=10, beam_width=3)
        right = [np.array_equal(best.tokens, x[::-1]) for (best,), x in zip(found, sources, strict=True)]
        assert np.mean(right) > 0.7

    def test_resumes_to_the_same_bits(self, rng, tmp_path):
        data, parameters = self.data(rng), []
        for stops in ([3], [1, 2, 3]):
            path = tmp_path / f"{len(stops)}.safetensors"
            for epochs in stops:
                model = self.model(teacher_forcing=rc.schedules.Cosine(1.0, 30))
                trainer = rc.Trainer(model, rc.CrossEntropy(), rc.Adam(0.01))
                trainer.fit(data, epochs=epochs, progress=False, checkpoint=path, resume=True)
            parameters.append(model.flat_parameters)
        assert np.array_equal(*parameters)


class TestPairs:
    def test_batches(self):
        pairs = rc.data.Pairs([[4, 5, 6], [7], [8, 9]], [[2, 3], [], [5]], start=0, end=1, batch_size=2)
        first, second = pairs.epoch()
        assert first.x[0].tolist() == [[4, 5, 6], [7, 0, 0]]
        assert first.x[1].tolist() == [[0, 2, 3], [0, 0, 0]]
        assert first.targets.tolist() == [[2, 3, 1], [1, 0, 0]]
        assert [part.tolist() for part in first.lengths] == [[3, 1], [3, 1]]
        assert second.targets.tolist() == [[5, 1]]

    def test_numbers_are_read_too(self, rng):
        sources = [rng.standard_normal((k, 3)) for k in (2, 4)]
        batch = rc.data.Pairs(sources, [[2], [3, 4]], start=0, end=1, batch_size=2).epoch()[0]
        assert batch.x[0].shape == (2, 4, 3)
        assert np.array_equal(batch.x[0][0, :2], sources[0])

    def test_weights_go_with_their_pairs(self):
        pairs = rc.data.Pairs([[4], [5, 6]], [[2], [3]], start=0, end=1, batch_size=2, weights=[0.5, 2.0], rows=[1, 0])
        (batch,) = pairs
        assert batch.x[0][:, 0].tolist() == [5, 4]
        assert batch.weights.tolist() == [2.0, 0.5]

    def test_orders_come_from_the_generator(self):
        pairs = rc.data.Pairs([[k] for k in range(20)], [[k] for k in range(20)], start=0, end=1, batch_size=4)
        orders = [[batch.x[0][:, 0].tolist() for batch in pairs.epoch(np.random.default_rng(s))] for s in (0, 0, 1)]
        assert orders[0] == orders[1] != orders[2]
        for batch in pairs.epoch(np.random.default_rng(0)):
            assert np.array_equal(batch.x[0][:, 0], batch.targets[:, 0])

    def test_errors(self):
        with pytest.raises(TypeError, match="targets: expected integers"):
            rc.data.Pairs([[1]], [[0.5]], start=0, end=1, batch_size=1)
        with pytest.raises(ValueError, match=r"targets\[0\]: expected tokens"):
            rc.data.Pairs([[1]], [[[1]]], start=0, end=1, batch_size=1)
        with pytest.raises(ValueError, match="targets: expected one for each"):
            rc.data.Pairs([[1], [2]], [[1]], start=0, end=1, batch_size=1)


WHOLE_NUMBERS = ["look_back", "input_depth", "output_depth"]  # among what decoders of attention have not


class TestErrors:
    def gru(self, *sizes, **options):
        return rc.GRU(*sizes, rng=0, **options)

    @pytest.mark.parametrize(
        ("encoder", "decoder", "options", "message"),
        [
            ((3, 4), (3, 4), {"attention": "cosine"}, "attention: expected None or one of 'dot'"),
            ((3, 5), (3, 4), {"attention": "dot"}, "attention: expected a memory of the size of the decoder's h, 4"),
            ((3, 4), (3, 4), {"attention": "location"}, "longest_source: expected a positive integer"),
            ((3, 4), (3, 4), {"attention": "dot", "longest_source": 5}, "longest_source: expected None"),
            ((3, 4), (3, 4), {"attention": "dot", "attention_size": 5}, "attention_size: expected None"),
            ((3, 4), (3, 4), {"attention_size": 5}, "expected None without attention"),
            ((3, 4), (3, 5), {"bridge": "copy"}, "bridge: expected states of the same shapes"),
            ((3, 4), (3, 4), {"bridge": "none"}, "bridge: expected one of 'auto'"),
            ((3, 4), (3, 4), {"teacher_forcing": 1.5}, "teacher_forcing: expected"),
        ],
    )
    def test_arguments(self, encoder, decoder, options, message):
        with pytest.raises(ValueError, match=message):
            rc.Seq2Seq(self.gru(*encoder), self.gru(*decoder), **options)

    @pytest.mark.parametrize(
        "name", ["dropout", "recurrent_dropout", "zoneout", "learn_initial_state", "skip", *WHOLE_NUMBERS]
    )
    def test_decoders_of_attention_are_plain(self, name):
        options = {name: 2 if name in WHOLE_NUMBERS else {"learn_initial_state": True, "skip": True}.get(name, 0.5)}
        with pytest.raises(ValueError, match=f"decoder: expected a layer without {name}"):
            rc.Seq2Seq(self.gru(3, 4), self.gru(3, 4, 2, **options), "dot")
        rc.Seq2Seq(self.gru(3, 4), self.gru(3, 4, 2, **options))

    def test_layers(self):
        with pytest.raises(ValueError, match="decoder: expected exactly one recurrent layer"):
            rc.Seq2Seq(self.gru(3, 4), rc.Sequential(self.gru(3, 4), self.gru(4, 4)))
        with pytest.raises(ValueError, match="decoder: expected a layer of one direction"):
            rc.Seq2Seq(self.gru(3, 4), self.gru(3, 4, bidirectional=True))
        with pytest.raises(ValueError, match="encoder: expected a recurrent layer"):
            rc.Seq2Seq(rc.Linear(3, 4), self.gru(3, 4))
        with pytest.raises(TypeError, match="encoder: expected a layer, got int"):
            rc.Seq2Seq(3, self.gru(3, 4))

    def test_calls(self, pair):
        model = model_of("dot")
        with pytest.raises(TypeError, match=r"x: expected a pair \(source, target\)"):
            model(pair[0])
        with pytest.raises(TypeError, match="lengths: expected None or a pair"):
            model(pair, 3)
        with pytest.raises(ValueError, match="target: expected 4 sequences"):
            model((pair[0], pair[1][:3]))
        with pytest.raises(ValueError, match="state: expected None"):
            model.run(pair, np.zeros(3))
        with pytest.raises(ValueError, match="start: expected the token"):
            rc.Seq2Seq(rc.GRU(3, 4), rc.GRU(3, 4)).greedy(np.zeros((1, 2, 3)), max_steps=2)
        with pytest.raises(ValueError, match="source_lengths: expected from 0 to 9"):
            model_of("location")((np.zeros((1, 12), int), pair[1][:1]))


def test_bridges(rng):
    source, target = rc.LSTM(3, 4, bidirectional=True), rc.GRU(3, 5, 2)
    bridge = Bridge("auto", source, target, rng=rng)
    assert bridge.parameters["weight"].shape == (10, 16)
    made = bridge.made_of((rng.standard_normal((2, 3, 4)), rng.standard_normal((2, 3, 4))))
    assert made.shape == (2, 3, 5)
    same = Bridge("auto", target, target, rng=rng)
    assert not same.parameters
    assert same.made_of(made) is made
