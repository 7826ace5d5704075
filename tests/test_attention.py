"""Decoders with attention in the core, against their oracle, on every instruction set."""

import itertools

import numpy as np
import pytest

import rnncore as rc
from cases import largest
from rnncore import _core, reference_cells
from rnncore.attention import KINDS, Attention, Attentive
from rnncore.reference_decoder import decoder

CELLS = {"RNN": reference_cells.RNN(), "LSTM": reference_cells.LSTM(), "GRU": reference_cells.GRU()}
# N, T, S, I, E, H
SHAPES = [(3, 5, 4, 3, 9, 7), (1, 1, 1, 1, 1, 1), (6, 13, 9, 5, 20, 33), (4, 3, 0, 2, 3, 16), (0, 3, 2, 2, 5, 17)]
FEEDING = [(kind, feeding) for kind in KINDS for feeding in (True, False) if feeding or kind != "bahdanau"]


class Case:
    """A recurrent layer with an attention, and arguments for both of them and for the oracle."""

    def __init__(self, cell, kind, feeding, shape, dtype=np.float64, layers=1, seed=3, **options):
        N, T, S, I, E, H = shape
        E = H if kind == "dot" else E
        rng = np.random.default_rng(seed)
        self.kind, self.feeding = kind, feeding and kind != "bahdanau"
        self.layer = getattr(rc, cell)(I, H, layers, dtype=dtype, rng=1, **options)
        longest = S + 3 if kind == "location" else None
        P = self.layer._output_width
        self.attention = Attention(
            kind, P, E, self.layer._gates * H, input_feeding=feeding, longest_source=longest, dtype=dtype, rng=2
        )
        self.attentive = Attentive(self.layer, self.attention)
        self.x = rng.standard_normal((N, T, I)).astype(dtype)
        self.memory = rng.standard_normal((N, S, E)).astype(dtype)
        self.lengths, self.source_lengths = rng.integers(0, T + 1, N), rng.integers(0, S + 1, N)
        sizes = self.layer._state_sizes
        self.state = tuple(rng.standard_normal((layers, N, size)).astype(dtype) for size in sizes)
        self.dy = rng.standard_normal((N, T, P)).astype(dtype)

    def vjp(self, rows=slice(None)):
        return self.attentive.vjp(
            self.x[rows],
            self.lengths[rows],
            tuple(np.ascontiguousarray(part[:, rows]) for part in self.state),
            self.memory[rows],
            self.source_lengths[rows],
        )

    def outputs(self):
        """Outputs and gradients by name."""
        self.layer.zero_gradients()
        self.attention.zero_gradients()
        (y, weights), pull_back = self.vjp()
        dx, dstate, dmemory = pull_back(self.dy)
        found = {"y": y, "weights": weights, "y_in": dx, "memory": dmemory}
        found |= {f"state {s}": part for s, part in enumerate(dstate)}
        return found | {name: a.copy() for name, a in self._joined(self.layer.gradients, self.attention.gradients)}

    def expected(self, cell):
        weights = dict(self._joined(self.layer.parameters, self.attention.parameters))
        layers = range(self.layer.num_layers)
        decoded, pull_back = decoder(
            [cell] * len(layers),
            self.kind,
            self.feeding,
            self.x,
            self.memory,
            [[part[k] for part in self.state] for k in layers],
            weights,
            self.lengths,
            self.source_lengths,
        )
        gradients, dstate, _ = pull_back(self.dy)
        found = {"y": decoded.a, "weights": decoded.weights} | gradients
        return found | {f"state {s}": np.stack([dstate[k][s] for k in layers]) for s in range(len(self.state))}

    def _joined(self, of_layer, of_attention):
        """Parameters as the oracle has them: with one matrix of all that the bottom layer reads."""
        joined = dict(of_layer) | dict(of_attention)
        if "weight_feed" in joined:
            joined["weight_ih_l0"] = np.concatenate([joined["weight_ih_l0"], joined.pop("weight_feed")], axis=1)
        return joined.items()


def assert_close(got, expected, dtype):
    bound = 1e-11 if dtype == np.float64 else 5e-5
    assert got.keys() == expected.keys()
    for name, array in expected.items():
        assert got[name].dtype == dtype, name
        assert got[name].shape == array.shape, name
        assert largest(got[name] - array) <= bound * max(1.0, largest(array)), name


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("kind", "feeding"), FEEDING)
@pytest.mark.parametrize("name", CELLS)
def test_outputs_and_gradients(isa, dtype, name, kind, feeding, shape):
    for layers in (1, 2):
        case = Case(name, kind, feeding, shape, dtype, layers)
        assert_close(case.outputs(), case.expected(CELLS[name]), dtype)


@pytest.mark.parametrize(("kind", "feeding"), FEEDING)
def test_cells_with_options(isa, kind, feeding):
    options = {"peephole": True, "layer_norm": True, "coupled_gates": True}
    case = Case("LSTM", kind, feeding, SHAPES[0], **options)
    got, expected = case.outputs(), case.expected(reference_cells.LSTM(**options))
    assert_close(got, expected, np.float64)


@pytest.mark.parametrize(("kind", "feeding"), FEEDING)
def test_cells_with_deep_transitions(isa, kind, feeding):
    case = Case("GRU", kind, feeding, SHAPES[0], layers=2, transition_depth=3, shortcut=True)
    got = case.outputs()
    assert_close(got, case.expected(reference_cells.Deep(CELLS["GRU"], 3, shortcut=True)), np.float64)


def assert_gradients_by_projection(case, eps=1e-6):
    """What the oracle has no decoder of: the slope of a loss along a direction of everything, by differences."""
    rng = np.random.default_rng(0)
    got = case.outputs()
    arrays = [case.x, case.memory, *case.state, case.layer.flat_parameters, case.attention.flat_parameters]
    gradients = [got["y_in"], got["memory"], *(got[f"state {s}"] for s in range(len(case.state)))]
    gradients += [case.layer.flat_gradients, case.attention.flat_gradients]
    saved, directions = [a.copy() for a in arrays], [rng.standard_normal(a.shape) for a in arrays]
    values = []
    for step in (eps, -eps):
        for array, before, direction in zip(arrays, saved, directions, strict=True):
            array[...] = before + step * direction
        values.append((case.vjp()[0][0] * case.dy).sum())
    expected = (values[0] - values[1]) / (2 * eps)
    total = sum((g * d).sum() for g, d in zip(gradients, directions, strict=True))
    assert abs(expected - total) < 1e-6 * max(1, abs(expected))


@pytest.mark.parametrize("cell", ["MGU", "SLSTM", "MinGRU", "LRU"])
def test_other_cells(cell):
    assert_gradients_by_projection(Case(cell, "general", True, SHAPES[0], layers=2))


@pytest.mark.parametrize("kind", ["dot", "general", "location"])
def test_any_score_may_look_before_the_step(kind):
    case = Case("LSTM", kind, True, (4, 6, 5, 3, 7, 7), layers=2)
    case.attention.feed = _core.Feed.context  # E numbers are fed, as many as those of an output
    assert_gradients_by_projection(case)


@pytest.mark.parametrize(("kind", "feeding"), FEEDING)
def test_rows_are_their_own(isa, dtype, kind, feeding):
    case = Case("LSTM", kind, feeding, SHAPES[2], dtype, layers=2)
    (y, weights), pull_back = case.vjp()
    dx, dstate, dmemory = pull_back(case.dy)
    for n in range(len(y)):
        (y_n, weights_n), pull_back_n = case.vjp(slice(n, n + 1))
        assert np.array_equal(y_n[0], y[n])
        assert np.array_equal(weights_n[0], weights[n])
        dx_n, dstate_n, dmemory_n = pull_back_n(case.dy[n : n + 1])
        assert np.array_equal(dx_n[0], dx[n])
        assert np.array_equal(dmemory_n[0], dmemory[n])
        for got, expected in zip(dstate_n, dstate, strict=True):
            assert np.array_equal(got[:, 0], expected[:, n])


@pytest.mark.parametrize(("kind", "feeding"), FEEDING)
def test_threads_change_no_bit(threads, kind, feeding):
    case = Case("GRU", kind, feeding, (32, 12, 11, 40, 48, 64), np.float32, layers=2)
    results = []
    for count in (1, 2, 3):
        threads(count)
        results.append(case.outputs())
    for other in results[1:]:
        for name, array in results[0].items():
            assert np.array_equal(other[name], array), name


@pytest.mark.parametrize(("kind", "feeding"), FEEDING)
def test_steps_give_the_bits_of_the_whole(isa, kind, feeding):
    case = Case("LSTM", kind, feeding, SHAPES[2], np.float32, layers=2)
    (y, weights), _ = case.vjp()
    packed, memory = case.attentive.pack(), case.attentive.memory(case.memory, case.source_lengths)
    state, fed = case.state, None
    for t in range(y.shape[1]):
        alive = np.flatnonzero(case.lengths > t)
        part = tuple(np.ascontiguousarray(s[:, alive]) for s in state)
        of_rows = None if fed is None else np.ascontiguousarray(fed[alive])
        x = np.ascontiguousarray(case.x[alive, t : t + 1])
        y_t, weights_t, last, fed_t = packed.forward(
            x, part, of_rows, None, memory.values, memory.keys, memory.lengths, alive.astype(np.int64)
        )
        assert np.array_equal(y_t[:, 0], y[alive, t])
        assert np.array_equal(weights_t[:, 0], weights[alive, t])
        state = tuple(s.copy() for s in state)
        for s, s_new in zip(state, last, strict=True):
            s[:, alive] = s_new
        if fed_t is not None:
            fed = np.zeros((len(case.x), fed_t.shape[1]), fed_t.dtype) if fed is None else fed
            fed[alive] = fed_t


def test_weights_are_probabilities_over_the_source():
    for kind, feeding in FEEDING:
        case = Case("GRU", kind, feeding, SHAPES[2])
        _, weights = case.vjp()[0]
        for n, t in itertools.product(range(len(weights)), range(weights.shape[1])):
            inside = t < case.lengths[n] and case.source_lengths[n] > 0
            assert abs(weights[n, t].sum() - inside) < 1e-14
            assert not weights[n, t, case.source_lengths[n] :].any()


def test_padding_is_not_read():
    for kind, feeding in FEEDING:
        case = Case("LSTM", kind, feeding, SHAPES[2])
        expected = case.outputs()
        for n, (length, source_length) in enumerate(zip(case.lengths, case.source_lengths, strict=True)):
            case.x[n, length:], case.memory[n, source_length:] = np.nan, np.nan
            case.dy[n, length:] = np.nan
        got = case.outputs()
        for name, array in expected.items():
            assert np.array_equal(got[name], array), name


class TestErrors:
    @pytest.fixture
    def case(self):
        return Case("GRU", "general", True, SHAPES[0])

    def forward(self, case, **changes):
        memory = case.attentive.memory(case.memory, case.source_lengths)
        arguments = {
            "x": case.x,
            "state": case.state,
            "fed": None,
            "lengths": case.lengths,
            "memory": memory.values,
            "keys": memory.keys,
            "source_lengths": memory.lengths,
            "source": None,
        }
        return case.attentive.pack().forward(*(arguments | changes).values())

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"x": np.zeros((3, 5, 4))}, r"x: expected float64 \(N, T, 3\)"),
            ({"state": ()}, "state: expected 1 arrays"),
            ({"fed": np.zeros((3, 2))}, r"fed: expected float64 \(3, 7\)"),
            ({"lengths": np.array([6, 0, 0])}, "lengths: expected"),
            ({"keys": None}, "keys: expected"),
            ({"source_lengths": np.array([0, 1, 5])}, "source_lengths: expected from 0 to 4, got 5 at index 2"),
            ({"source": np.array([0, 3, 1])}, "source: expected from 0 to 2, got 3 at index 1"),
            ({"memory": np.zeros((2, 4, 9)), "keys": np.zeros((2, 4, 7)), "source_lengths": np.zeros(2, int)},
             "memory: expected 3 sources"),
        ],
    )  # fmt: skip
    def test_calls(self, case, changes, message):
        with pytest.raises(ValueError, match=message):
            self.forward(case, **changes)

    def test_types(self, case):
        with pytest.raises(TypeError, match="x: expected float64"):
            self.forward(case, x=case.x.astype(np.float32))
        unfed = Case("GRU", "general", False, SHAPES[0])
        with pytest.raises(TypeError, match="fed: expected None"):
            self.forward(unfed, fed=np.zeros((3, 7)))
        located = Case("GRU", "location", False, SHAPES[0])
        with pytest.raises(TypeError, match="keys: expected None"):
            self.forward(located, keys=np.zeros((3, 4, 7)))

    def test_gradients(self, case):
        packed, memory = case.attentive.pack(), case.attentive.memory(case.memory, case.source_lengths)
        _, recording = packed.record(case.x, case.state, None, None, memory.values, memory.keys, memory.lengths)
        with pytest.raises(ValueError, match=r"dy: expected float64 \(3, 5, 7\)"):
            recording.backward(np.zeros((3, 5, 6)), (None,), None)
        with pytest.raises(ValueError, match="dstate: expected 1 arrays"):
            recording.backward(None, (), None)

    def test_weights(self, case):
        p, score, feed = case.attention.parameters, _core.Score, _core.Feed
        weights = case.layer._core_weights()
        with pytest.raises(ValueError, match="weight_combine: expected more columns than the 7 numbers of h"):
            _core.Decoder(
                case.layer._spec(), weights, score.dot, feed.nothing, None, None, np.zeros((7, 7)), np.zeros(7)
            )
        with pytest.raises(ValueError, match="weights: expected more inputs than the 7 that are fed, got 3"):
            _core.Decoder(
                case.layer._spec(), weights, score.dot, feed.output, None, None, p["weight_combine"], p["bias_combine"]
            )
        with pytest.raises(TypeError, match="weight_query: expected None"):
            _core.Decoder(
                case.layer._spec(),
                weights,
                score.dot,
                feed.nothing,
                np.zeros((7, 7)),
                None,
                np.zeros((7, 14)),
                np.zeros(7),
            )
