"""The oracle of attention and of decoders that attend: finite differences, values worked by hand, loops in Python."""

import numpy as np
import pytest

from rnncore.reference_attention import KINDS, attend, attention_shapes
from rnncore.reference_cells import GRU, LSTM, RNN, layer
from rnncore.reference_decoder import decoder
from rnncore.testing import check_gradients

N, T, S, I, E, H, A, M = 4, 3, 5, 3, 2, 2, 4, 6
SOURCES = np.array([5, 0, 2, 1])
TARGETS = np.array([2, 3, 0, 3])
CELLS = {"rnn": RNN, "lstm": LSTM, "gru": GRU}

each_kind = pytest.mark.parametrize("kind", KINDS)
each_decoder = pytest.mark.parametrize(
    ("kind", "feeding"), [(k, f) for k in KINDS for f in (False, True) if not (f and k == "bahdanau")]
)
ragged_or_not = pytest.mark.parametrize("ragged", [False, True], ids=["dense", "ragged"])


def assert_close(got, expected):
    np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-13)


def draw(rng, shapes):
    return {name: rng.normal(scale=0.7, size=shape) for name, shape in shapes.items()}


# -------------------------------------------------------------------------------------------------- attention


@each_kind
@pytest.mark.parametrize("lengths", [None, SOURCES], ids=["dense", "ragged"])
def test_gradients_of_attention(kind, lengths, rng):
    Q = E if kind == "dot" else 3
    parameters = draw(rng, attention_shapes(kind, Q, E, A, M))

    def function(query, memory, *arrays):
        outputs, pull = attend(kind, query, memory, lengths, dict(zip(parameters, arrays, strict=True)))

        def vjp(dcontext, dweights):
            dquery, dmemory, dparameters = pull(dcontext, dweights)
            assert list(dparameters) == list(parameters)
            return dquery, dmemory, *dparameters.values()

        return outputs, vjp

    arrays = [rng.normal(size=(N, Q)), rng.normal(size=(N, S, E)), *parameters.values()]
    check_gradients(function, arrays, names=["query", "memory", *parameters])


@each_kind
def test_attention_is_what_the_papers_write(kind, rng):
    """One row, one step at a time, in plain Python."""
    Q = E if kind == "dot" else 3
    w = draw(rng, attention_shapes(kind, Q, E, A, M))
    query, memory = rng.normal(size=(N, Q)), rng.normal(size=(N, S, E))
    (context, weights), _ = attend(kind, query, memory, SOURCES, w)
    for n in range(N):
        scores = []
        for s in range(SOURCES[n]):
            q, m = query[n], memory[n, s]
            if kind == "dot":
                scores.append(q @ m)
            elif kind == "general":
                scores.append(q @ (w["weight_attention"] @ m))
            elif kind == "location":
                scores.append((w["weight_attention"] @ q)[s])
            else:
                both = np.concatenate([w["weight_query"], w["weight_memory"]], axis=1)
                scores.append(w["weight_score"] @ np.tanh(both @ np.concatenate([q, m]) + w["bias_attention"]))
        expected = np.exp(scores) / np.sum(np.exp(scores))
        assert_close(weights[n], [*expected, *[0.0] * (S - SOURCES[n])])
        assert_close(context[n], sum((a * m for a, m in zip(expected, memory[n], strict=False)), np.zeros(E)))


def test_attention_by_hand():
    # scores 0 and ln 3: weights 1/4 and 3/4
    (context, weights), pull = attend("dot", [[1.0]], [[[0.0], [np.log(3)]]])
    assert_close(weights, [[0.25, 0.75]])
    assert_close(context, [[0.75 * np.log(3)]])
    # dq = sum a_s (m_s - context) m_s = variance of m under a
    dquery, _, _ = pull([[1.0]])
    assert_close(dquery, [[3 / 16 * np.log(3) ** 2]])


@each_kind
def test_padding_is_not_read_and_large_scores_do_not_overflow(kind, rng):
    Q = E if kind == "dot" else 3
    w = draw(rng, attention_shapes(kind, Q, E, A, M))
    query, memory = 1e4 * rng.normal(size=(N, Q)), rng.normal(size=(N, S, E))
    (context, weights), pull = attend(kind, query, memory, SOURCES, w)
    valid = np.arange(S) < SOURCES[:, None]
    padded = np.where(valid[:, :, None], memory, np.nan)
    (same, weights_too), pull_same = attend(kind, query, padded, SOURCES, w)
    np.testing.assert_array_equal(same, context)
    np.testing.assert_array_equal(weights_too, weights)
    assert np.isfinite(weights).all()
    assert_close(weights.sum(axis=1), SOURCES > 0)
    assert not context[1].any()
    dcontext, dweights = rng.normal(size=context.shape), rng.normal(size=weights.shape)
    dmemory = pull(dcontext, dweights)[1]
    np.testing.assert_array_equal(pull_same(dcontext, np.where(valid, dweights, np.nan))[1], dmemory)
    assert not dmemory[~valid].any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("cosine", np.ones((1, 2)), np.ones((1, 3, 2))), "kind: expected one of"),
        (("dot", np.ones((1, 3)), np.ones((1, 3, 2))), "query: expected the size of the memory, 2"),
        (("dot", np.ones((2, 2)), np.ones((1, 3, 2))), r"query, memory: expected shapes"),
        (("general", np.ones((1, 2)), np.ones((1, 3, 2))), "parameters: expected .'weight_attention'"),
        (("dot", np.ones((1, 2)), np.ones((1, 3, 2)), [4]), "source_lengths: expected integers from 0 to 3"),
        (("location", np.ones((1, 2)), np.ones((1, 3, 2)), None, {"weight_attention": np.ones((2, 2))}), "at least 3"),
        (
            ("general", np.ones((1, 2)), np.ones((1, 3, 2)), None, {"weight_attention": np.ones((2, 3))}),
            r"weight_attention: expected shape \(2, 2\), got \(2, 3\)",
        ),
    ],
)
def test_attention_says_what_is_wrong(arguments, message):
    with pytest.raises(ValueError, match=message):
        attend(*arguments)


# ---------------------------------------------------------------------------------------------------- decoder


class Case:
    """A decoder with arguments drawn at random."""

    def __init__(self, rng, cell, kind, input_feeding=False, layers=1, C=3, ragged=True, steps=T):
        self.rng, self.kind, self.input_feeding = rng, kind, input_feeding
        self.cells = [CELLS[cell]() for _ in range(layers)]
        width = I + (E if kind == "bahdanau" else C if input_feeding else 0)
        shapes = {}
        for k, one in enumerate(self.cells):
            shapes |= {f"{name}_l{k}": shape for name, shape in one.shapes(width, H, H).items()}
            width = H
        shapes |= attention_shapes(kind, H, E, A, M)
        self.weights = draw(rng, shapes | {"weight_combine": (C, E + H), "bias_combine": (C,)})
        self.y_in, self.memory = rng.normal(size=(N, steps, I)), rng.normal(size=(N, S, E))
        self.state = [tuple(rng.normal(size=(N, H)) for _ in one.states) for one in self.cells]
        self.fed = rng.normal(size=(N, C))
        self.lengths = {"target_lengths": TARGETS, "source_lengths": SOURCES} if ragged else {}

    def run(self, rows=slice(None), steps=slice(None), **other):
        """Run all rows and steps, or some; `other` are other arguments."""
        a = {"y_in": self.y_in, "memory": self.memory, "state": self.state, "fed": self.fed, "weights": self.weights}
        a |= self.lengths | other
        a["y_in"] = a["y_in"][:, steps]
        for name in {"y_in", "memory", "fed", "target_lengths", "source_lengths"} & a.keys():
            a[name] = a[name][rows]
        a["state"] = [tuple(s[rows] for s in of_layer) for of_layer in a["state"]]
        return decoder(self.cells, self.kind, self.input_feeding, **a)


@pytest.mark.parametrize("cell", CELLS)
@each_decoder
@pytest.mark.parametrize("layers", [1, 2])
@ragged_or_not
def test_gradients_of_decoder(cell, kind, feeding, layers, ragged, rng):
    case = Case(rng, cell, kind, feeding, layers, ragged=ragged)
    names = list(case.weights)
    W = len(names)

    def function(y_in, memory, fed, *arrays):
        weights, flat = dict(zip(names, arrays[:W], strict=True)), iter(arrays[W:])
        state = [[next(flat) for _ in of_layer] for of_layer in case.state]
        out, pullback = decoder(case.cells, kind, feeding, y_in, memory, state, weights, fed=fed, **case.lengths)

        def vjp(da, dweights, dfed, *dflat):
            dflat = iter(dflat)
            dstate = [[next(dflat) for _ in of_layer] for of_layer in case.state]
            gradients, dstate_0, dfed_0 = pullback(da, dweights, dstate, dfed)
            assert list(gradients) == ["y_in", "memory", *names]
            rest = [ds for of_layer in dstate_0 for ds in of_layer]
            return gradients.pop("y_in"), gradients.pop("memory"), dfed_0, *gradients.values(), *rest

        return (out.a, out.weights, out.fed, *(s for of_layer in out.state for s in of_layer)), vjp

    flat = [s for of_layer in case.state for s in of_layer]
    arrays = [case.y_in, case.memory, case.fed, *case.weights.values(), *flat]
    check_gradients(function, arrays, names=["y_in", "memory", "fed", *names, *["state"] * len(flat)])


@each_decoder
def test_decoder_is_what_the_papers_write(kind, feeding, rng):
    """One row, GRU, step by step with `attend` and `layer` alone."""
    case = Case(rng, "gru", kind, feeding)
    out, _ = case.run()
    of_cell = {name.removesuffix("_l0"): array for name, array in case.weights.items() if name.endswith("_l0")}
    of_attention = {name: case.weights[name] for name in attention_shapes(kind, H, E, A, M)}
    for n in range(N):
        h, a = case.state[0][0][n], case.fed[n]
        for t in range(T):
            if t >= TARGETS[n]:
                assert not out.a[n, t].any()
                assert not out.weights[n, t].any()
                continue
            source = case.memory[n : n + 1, : SOURCES[n]]
            c = attend(kind, h[None], source, None, of_attention)[0][0][0]
            x = [case.y_in[n, t], *([c] if kind == "bahdanau" else [a] if feeding else [])]
            _, (h,), _ = layer(GRU(), np.concatenate(x)[None], of_cell, [h])
            weights = out.weights[n, t, : SOURCES[n]]
            if kind != "bahdanau":
                (c,), (expected,) = attend(kind, h[None], source, None, of_attention)[0]
                assert_close(weights, expected)
            a = np.tanh(case.weights["weight_combine"] @ np.concatenate([c, h]) + case.weights["bias_combine"])
            assert_close(out.a[n, t], a)
            assert not out.weights[n, t, SOURCES[n] :].any()
        assert_close(out.state[0][0][n], h)
        assert_close(out.fed[n], a)


@each_kind
def test_decoder_in_chunks_and_by_rows(kind, rng):
    case = Case(rng, "lstm", kind, kind != "bahdanau", layers=2)
    whole, pull = case.run()
    first, _ = case.run(steps=slice(0, 1), target_lengths=np.minimum(TARGETS, 1))
    second, _ = case.run(
        steps=slice(1, None), target_lengths=np.maximum(TARGETS - 1, 0), state=first.state, fed=first.fed
    )
    assert_close(np.concatenate([first.a, second.a], axis=1), whole.a)
    assert_close(second.fed, whole.fed)
    for of_layer, expected in zip(second.state, whole.state, strict=True):
        assert_close(of_layer, expected)
    # each row alone; gradients of parameters are sums over the rows
    da = rng.normal(size=whole.a.shape)
    total = {name: 0.0 for name in case.weights}
    for n in range(N):
        alone, pull_alone = case.run(rows=slice(n, n + 1))
        assert_close(alone.a[0], whole.a[n])
        gradients, _, _ = pull_alone(da[n : n + 1])
        assert_close(gradients["y_in"][0], pull(da)[0]["y_in"][n])
        total = {name: total[name] + gradients[name] for name in total}
    for name, expected in total.items():
        assert_close(pull(da)[0][name], expected)


def test_decoder_without_rows_and_without_steps(rng):
    case = Case(rng, "gru", "general", True)
    out, pull = case.run(rows=slice(0, 0))
    assert out.a.shape == (0, T, 3)
    assert all(not gradient.any() for gradient in pull()[0].values())
    out, pull = case.run(steps=slice(0, 0), target_lengths=np.zeros(N, int))
    assert out.a.shape == (N, 0, 3)
    assert_close(out.fed, case.fed)
    assert_close(pull(dfed=np.ones((N, 3)))[2], np.ones((N, 3)))


def test_pullback_is_of_the_arguments_as_they_were(rng):
    case = Case(rng, "lstm", "concat", True, layers=2)
    out, pull = case.run()
    before = pull(np.ones((N, T, 3)), np.ones((N, T, S)))[0]
    for array in (case.y_in, case.memory, case.fed, *case.weights.values(), *out[:2], out.fed, *out.state[0]):
        array[...] = np.nan
    for name, gradient in pull(np.ones((N, T, 3)), np.ones((N, T, S)))[0].items():
        np.testing.assert_array_equal(gradient, before[name])


def test_decoder_says_what_is_wrong(rng):
    with pytest.raises(ValueError, match="input_feeding: expected False with kind 'bahdanau'"):
        decoder(RNN(), "bahdanau", True, np.ones((1, 1, 1)), np.ones((1, 1, 1)), None, {})
    with pytest.raises(ValueError, match="cells: expected at least one"):
        decoder([], "dot", True, np.ones((1, 1, 1)), np.ones((1, 1, 1)), None, {})
    case = Case(rng, "rnn", "dot")
    with pytest.raises(ValueError, match="weights: expected weight_ih_l0"):
        case.run(weights={})
    with pytest.raises(ValueError, match="target_lengths: expected integers from 0 to 3"):
        case.run(target_lengths=np.full(N, 4))
    with pytest.raises(ValueError, match=r"weight_combine: expected shape \(3, 4\)"):
        case.run(weights=case.weights | {"weight_combine": np.ones((3, 3))})
