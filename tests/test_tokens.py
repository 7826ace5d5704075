"""An embedding in front of a recurrent layer: what the two give as one, against what they give one after the other."""

import copy
import pickle

import numpy as np
import pytest

import rnncore as rc
from rnncore._core import Cell, Lookup, forward
from rnncore.testing import check_layer

TOLERANCE = {np.float32: 2e-5, np.float64: 1e-11}  # relative to the largest gradient of a kind, as everywhere
N, T, E, H = 5, 13, 6, 17

# (V, E): far fewer rows of the table than steps, about a quarter as many, and more; few inputs, and some with tails.
TABLES = [(4, E), (4, 3), (16, E), (33, 16), (500, E), (500, 3)]
LAYOUTS = {"dense": None, "ragged": [13, 0, 4, 1, 9]}


def recurrent(cell, size, dtype, **options):
    kind = {"rnn": rc.RNN, "lstm": rc.LSTM, "gru": rc.GRU}[cell.function]
    return kind(size, H, dtype=dtype, rng=2, **dict(cell.options), **options)


def model_of(cell, table, dtype, padding_index=None, **options):
    V, size = table
    embedding = rc.Embedding(V, size, padding_index, dtype=dtype, rng=1)
    return rc.Sequential(embedding, recurrent(cell, size, dtype, **options))


def separate(model, tokens, state=None, lengths=None):
    """The layers of a model one by one, as `vjp` of the model is promised to be."""
    embedding, layer = model.layers
    (vectors, _), back_to_tokens = embedding.vjp(tokens, None, lengths)
    output, back_to_vectors = layer.vjp(vectors, state, lengths)

    def pull_back(dy=None, dstate=None):
        dvectors, dinitial = back_to_vectors(dy, dstate)
        assert back_to_tokens(dvectors) == (None, None)
        return dinitial

    return output, pull_back


def leaves(state):
    return list(state) if isinstance(state, tuple) else [state]


def assert_same(got, expected):
    (y, state), (expected_y, expected_state) = got, expected
    assert np.array_equal(y, expected_y)
    for part, expected_part in zip(leaves(state), leaves(expected_state), strict=True):
        assert np.array_equal(part, expected_part)


def tokens_of(rng, V, lengths=None, shape=(N, T)):
    """Random tokens, of which few are frequent; rubbish at padded steps."""
    tokens = np.minimum(rng.integers(0, V, shape), rng.integers(0, V, shape))
    if lengths is not None:
        rubbish = rng.choice([-1, V, np.iinfo(np.int64).min, np.iinfo(np.int64).max], shape)
        tokens = np.where(np.arange(shape[1]) < np.asarray(lengths)[:, None], tokens, rubbish)
    return tokens


def like(rng, state):
    parts = [rng.standard_normal(part.shape).astype(part.dtype) for part in leaves(state)]
    return tuple(parts) if isinstance(state, tuple) else parts[0]


def check(model, tokens, rng, lengths=None, rtol=None):
    """Bits forward, gradients back, from a random state."""
    layer = model.layers[1]
    state = like(rng, separate(model, tokens, None, lengths)[0][1])
    expected, separate_pull_back = separate(model, tokens, state, lengths)
    y, (nothing, last) = model.run(tokens, (None, state), lengths)
    assert nothing is None
    assert_same((y, last), expected)
    (y, (_, last)), pull_back = model.vjp(tokens, (None, state), lengths)
    assert_same((y, last), expected)

    dy, dlast = like(rng, y), like(rng, last)
    model.zero_gradients()
    dinitial = separate_pull_back(dy, dlast)
    gradients = {name: gradient.copy() for name, gradient in model.gradients.items()}
    model.zero_gradients()
    dx, (nothing, got) = pull_back(dy, (None, dlast))
    assert dx is None
    assert nothing is None
    rtol = TOLERANCE[layer.dtype.type] if rtol is None else rtol
    for part, expected_part in zip(leaves(got), leaves(dinitial), strict=True):
        assert np.array_equal(part, expected_part)
    for name, gradient in gradients.items():
        worst = np.abs(model.gradients[name] - gradient).max()
        assert worst <= rtol * max(np.abs(gradient).max(), 1e-30), f"{name}: {worst}"


@pytest.mark.parametrize("table", TABLES, ids=str)
@pytest.mark.parametrize("lengths", LAYOUTS.values(), ids=LAYOUTS)
def test_every_cell_and_type_on_every_instruction_set(isa, cell, dtype, table, lengths, rng):
    check(model_of(cell, table, dtype), tokens_of(rng, table[0], lengths), rng, lengths)


@pytest.mark.parametrize(
    "options", [{"bidirectional": True}, {"num_layers": 3}, {"num_layers": 2, "bidirectional": True}]
)
@pytest.mark.parametrize("table", [(4, E), (500, 3)], ids=str)
@pytest.mark.parametrize("lengths", LAYOUTS.values(), ids=LAYOUTS)
def test_stacks_and_both_directions(cell, options, table, lengths, rng):
    check(model_of(cell, table, np.float64, bias=False, **options), tokens_of(rng, table[0], lengths), rng, lengths)


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (4, 1), (9, 1), (1, 40), (3, 2), (600, 2)], ids=str)
@pytest.mark.parametrize("V", [1, 3, 500])
def test_small_and_single_steps(cell, dtype, shape, V, rng):
    check(model_of(cell, (V, E), dtype), tokens_of(rng, V, shape=shape), rng)


@pytest.mark.parametrize("V", [1, 50, 3000])
@pytest.mark.parametrize(("shape", "size"), [((24, 90), 96), ((1, 1100), 136), ((3, 300), 96)], ids=str)
def test_threads_change_nothing(threads, V, shape, size, rng):
    def results():
        (y, state), pull_back = model.vjp(tokens)
        model.zero_gradients()
        pull_back(dy)
        return [y, *state[1], model(tokens), model.flat_gradients.copy()]

    model = rc.Sequential(rc.Embedding(V, 40, rng=1), rc.LSTM(40, size, num_layers=2, rng=2))
    tokens = tokens_of(rng, V, shape=shape)
    dy = rng.standard_normal((*shape, size), dtype=np.float32)
    threads(1)
    expected = results()
    for count in (2, 3):
        threads(count)
        for got, want in zip(results(), expected, strict=True):
            assert np.array_equal(got, want)
    threads(2)
    check(model, tokens, rng)


@pytest.mark.parametrize("lengths", [None, [5, 0, 3]], ids=["dense", "ragged"])
@pytest.mark.parametrize("V", [2, 30])
def test_contract(V, lengths, rng):
    def table(size):
        return rc.Embedding(V, size, dtype=np.float64, rng=1)

    def gru(**options):
        return rc.GRU(4, 4, dtype=np.float64, rng=3, **options)

    tokens = rng.integers(0, V, (3, 5))
    check_layer(rc.Sequential(table(4), gru(num_layers=2)), tokens, lengths=lengths)
    two_ways = rc.Sequential(table(4), gru(bidirectional=True), rc.Last(), rc.Linear(8, 2, dtype=np.float64, rng=4))
    check_layer(two_ways, tokens, lengths=lengths, causal=False)
    shared = gru()
    twice = rc.Sequential(table(4), shared, rc.Activation("tanh"), shared)
    check_layer(twice, tokens, lengths=lengths)
    for twin in (copy.deepcopy(twice), pickle.loads(pickle.dumps(twice))):
        assert np.array_equal(twin(tokens), twice(tokens))


@pytest.mark.parametrize("V", [4, 500])
def test_a_pull_back_adds_and_may_be_called_again(V, rng):
    model = rc.Sequential(rc.Embedding(V, E, rng=1), rc.GRU(E, H, rng=2))
    tokens = tokens_of(rng, V)
    (y, _), pull_back = model.vjp(tokens)
    tokens[...] = 10**12  # the model has its own
    pull_back(y)
    once = model.flat_gradients.copy()
    pull_back(y)
    assert np.allclose(model.flat_gradients, 2 * once, rtol=1e-5, atol=1e-5)
    model.zero_gradients()
    pull_back()
    assert not model.flat_gradients.any()


@pytest.mark.parametrize("V", [4, 500])
def test_padding_tokens_are_not_trained(cell, V, rng):
    model = model_of(cell, (V, E), np.float64, padding_index=1)
    tokens = tokens_of(rng, V)
    tokens[0, :2] = 1
    check(model, tokens, rng)
    assert not model.gradients["0.weight"][1].any()
    model.flat_gradients[...] = 7
    (y, _), pull_back = model.vjp(tokens)
    pull_back(y)
    assert (model.gradients["0.weight"][1] == 7).all()


def test_other_shapes_and_types_of_tokens(rng):
    model = rc.Sequential(rc.Embedding(7, E, rng=1), rc.GRU(E, H, rng=2))
    tokens = rng.integers(0, 7, (N, T))
    expected = model(tokens)
    for other in (tokens.tolist(), tokens.astype(np.uint8), tokens.astype(np.uint64), np.asfortranarray(tokens)):
        assert np.array_equal(model(other), expected)
    assert np.array_equal(model(tokens[0]), expected[0])  # one sequence without a batch axis
    assert np.array_equal(model.vjp(tokens[0])[0][0], expected[0])
    assert model(np.zeros((0, T), dtype=int)).shape == (0, T, H)
    assert model(np.zeros((N, 0), dtype=int)).shape == (N, 0, H)
    (y, _), pull_back = model.vjp(np.zeros((0, T), dtype=int))
    pull_back(y)
    assert not model.flat_gradients.any()


@pytest.mark.parametrize("V", [4, 500])
def test_wrong_arguments_are_named(V, rng):
    model = rc.Sequential(rc.Embedding(V, E, rng=1), rc.GRU(E, H, rng=2))
    tokens = rng.integers(0, V, (N, T))
    layers_one_by_one = rc.Sequential(rc.Embedding(V, E, rng=1), rc.Activation("tanh"))
    for value in (V, -1, 10**15):
        wrong = tokens.copy()
        wrong[3, 7] = value
        message = rf"x: expected tokens from 0 to {V - 1}, got {value} at \(3, 7\)"
        for call in (model, model.vjp, layers_one_by_one):
            with pytest.raises(ValueError, match=message):
                call(wrong)
        model(wrong, lengths=[T, T, T, 7, T])
    with pytest.raises(TypeError, match=r"x: expected integers, the tokens, got float64 \(5, 13\)"):
        model(tokens.astype(float))
    with pytest.raises(ValueError, match="state: expected None, since Embedding"):
        model.run(tokens, (1, None))
    with pytest.raises(ValueError, match=r"state: expected shape \(1, 5, 17\), got \(1, 4, 17\)"):
        model.run(tokens, (None, np.zeros((1, 4, H))))
    with pytest.raises(ValueError, match="lengths: expected values from 0 to T = 13, got 14 at row 2"):
        model(tokens, lengths=[1, 2, 14, 3, 4])
    with pytest.raises(ValueError, match=r"dy: expected shape \(5, 13, 17\), got \(5, 13\)"):
        model.vjp(tokens)[1](np.zeros((N, T)))


def test_a_layer_of_the_users_gets_vectors(rng):
    class Doubled(rc.GRU):
        def run(self, x, state=None, lengths=None):
            return super().run(2 * np.asarray(x), state, lengths)

    class Shifted(rc.Embedding):
        def _forward(self, x, lengths, training):
            y, back = super()._forward(x, lengths, training)
            return y + 1, back

    tokens = rng.integers(0, 4, (N, T))
    for embedding, layer in ((rc.Embedding(4, E), Doubled(E, H)), (Shifted(4, E), rc.GRU(E, H))):
        expected = layer.run(embedding(tokens))[0]
        assert np.array_equal(rc.Sequential(embedding, layer)(tokens), expected)


def test_a_frozen_layer_takes_a_lookup(rng):
    table, tokens = rng.standard_normal((9, E), dtype=np.float32), rng.integers(0, 9, (T, N))
    layer = rc.LSTM(E, H, num_layers=2, batch_first=False, rng=2)
    y, state = layer.frozen()(Lookup(table, tokens, np.zeros_like(table)))
    assert_same((y, state), layer(table[tokens]))


def test_the_core_refuses_lookups_that_do_not_fit(rng):
    table, tokens = rng.standard_normal((9, E), dtype=np.float32), rng.integers(0, 9, (N, T))
    gradient = np.zeros_like(table)
    for arguments, error, message in [
        (
            (table, tokens, gradient[1:]),
            ValueError,
            r"gradient: expected float.* \(9, 6\), got float32 \(8, 6\)",
        ),
        ((table, tokens, gradient.astype(np.float64)), TypeError, "gradient: expected the dtype of the table"),
        ((table, tokens.astype(np.int32), gradient), TypeError, r"tokens: expected int64 \(N, T\), got int32"),
        (
            (table, tokens[..., None], gradient),
            ValueError,
            r"tokens: expected int64 \(N, T\), got int64 \(\d+, 13, 1\)",
        ),
        ((table[:, ::2], tokens, gradient), ValueError, "table: .* not C-contiguous"),
    ]:
        with pytest.raises(error, match=message):
            Lookup(*arguments)
    gradient.flags.writeable = False
    with pytest.raises(ValueError, match="gradient: expected an array that can be written"):
        Lookup(table, tokens, gradient)

    lookup = Lookup(table, tokens, np.zeros_like(table))
    assert lookup.shape == (N, T, E)
    for dtype, size, error in ((np.float64, E, TypeError), (np.float32, E + 1, ValueError)):
        weights = np.zeros((3 * H, size), dtype), np.zeros((3 * H, H), dtype)
        with pytest.raises(error, match=r"table: expected float.. \(V, .\), got float32 \(9, 6\)"):
            forward(Cell.gru, lookup, *weights, *(None,) * 5, False, True)
    with pytest.raises(ValueError, match=r"table: expected float32 \(V, 7\), got float32 \(9, 6\)"):
        rc.GRU(E + 1, H)(lookup)
