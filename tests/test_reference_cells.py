"""The oracle of every cell and option: finite differences, limiting cases, definitions written otherwise, and torch."""

import itertools

import numpy as np
import pytest

from rnncore import reference, reference_cells
from rnncore.reference_cells import (
    GRU,
    LRU,
    LSTM,
    MGU,
    QRNN,
    RNN,
    SLSTM,
    SRU,
    Deep,
    IndRNN,
    MinGRU,
    MinLSTM,
    activation,
    layer,
)
from rnncore.reference_parts import ACTIVATIONS
from rnncore.testing import check_gradients

T, N, I, H = 5, 4, 3, 4
RAGGED = np.array([3, 5, 0, 1])

GATED = {"rnn": RNN, "lstm": LSTM, "gru": GRU, "gru-before": lambda **o: GRU(reset_after=False, **o), "mgu": MGU}
DEEP = {"deep-gru": lambda **o: Deep(GRU(**o), 2), "deep-lstm": lambda **o: Deep(LSTM(**o), 3, shortcut=True)}
OTHERS = {
    "slstm": SLSTM, "indrnn": IndRNN, "indrnn-tanh": lambda: IndRNN(activation="tanh"), "mingru": MinGRU,
    "minlstm": MinLSTM, "sru": SRU, "qrnn": QRNN, "lru": LRU, "lru-real": lambda: LRU(complex=False),
}  # fmt: skip
CELLS = GATED | DEEP | OTHERS
FULL = {"activation": "softsign", "recurrent_activation": "hard_sigmoid", "layer_norm": True, "gate_clip": 1.2}
each_cell = pytest.mark.parametrize("name", CELLS)
each_gated = pytest.mark.parametrize("name", GATED)
each_direction = pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])


class Case:
    """A cell with arguments drawn at random; `masked` draws those of training too."""

    def __init__(self, cell, seed=0, inputs=I, masked=False, resets=False, batch=N, steps=T):
        rng = np.random.default_rng(seed)
        P = cell.proj_size or H
        self.cell, self.rng = cell, rng
        self.x = rng.normal(size=(batch, steps, inputs))
        self.weights = {n: rng.normal(scale=0.6, size=shape) for n, shape in cell.shapes(inputs, H, P).items()}
        sizes = dict(zip(cell.states, cell.sizes(H, P), strict=True))
        self.state = self.draw_state(sizes, batch)
        self.options = {}
        self.state_reset = None
        if resets:
            self.options["reset_mask"] = rng.random((batch, steps)) < 0.3
            self.state_reset = self.draw_state(sizes, batch)
        if masked:
            sequence = {"h": P, "c": H}
            self.options["masks"] = {
                name: (rng.random((batch, steps, sequence[name])) < 0.6).astype(float)
                if name in sequence
                else rng.integers(2, size=(batch, {"recurrent": P, "input": inputs}[name])) / 0.7
                for name in cell.masks
            }

    def draw_state(self, sizes, batch):
        # n of sLSTM is positive
        return tuple(
            np.exp(self.rng.normal(size=(batch, size))) if name == "n" else self.rng.normal(size=(batch, size))
            for name, size in sizes.items()
        )

    def run(self, **options):
        arguments = {"state": self.state, "state_reset": self.state_reset, **self.options, **options}
        return layer(self.cell, self.x, self.weights, **arguments)

    def check_gradients(self, **options):
        """Of every array, by finite differences."""
        names = ["x", *self.weights, *(f"{s}_0" for s in self.cell.states)]
        arrays = [self.x, *self.weights.values(), *self.state]
        if self.state_reset:
            names += [f"{s}_reset" for s in self.cell.states]
            arrays += self.state_reset
        W, S = len(self.weights), len(self.state)

        def function(x, *rest):
            weights = dict(zip(self.weights, rest[:W], strict=True))
            state_reset = rest[W + S :] or None
            y, final, pullback = layer(
                self.cell, x, weights, rest[W : W + S], state_reset=state_reset, **self.options, **options
            )

            def vjp(dy, *dfinal):
                gradients, dstate, dreset = pullback(dy, *dfinal)
                assert list(gradients) == ["x", *self.weights]
                return *gradients.values(), *dstate, *(dreset or ())

            return (y, *final), vjp

        check_gradients(function, arrays, names=names)


def assert_close(got, expected, rtol=1e-12):
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-13)


def assert_same(one, other):
    """Outputs and gradients of two runs of `layer`, weights that only one has aside."""
    assert_close([one[0], *one[1]], [other[0], *other[1]])
    cotangents = [np.random.default_rng(7).normal(size=a.shape) for a in (one[0], *one[1])]
    (dw, dstate, _), (dw_other, dstate_other, _) = one[2](*cotangents), other[2](*cotangents)
    assert_close(dstate, dstate_other)
    names = dw.keys() & dw_other.keys()
    assert {"x", "weight_ih"} <= names
    assert_close([dw[n] for n in names], [dw_other[n] for n in names])


# ------------------------------------------------------------------------------ gradients, by finite differences


@each_cell
@each_direction
@pytest.mark.parametrize("lengths", [None, RAGGED], ids=["dense", "ragged"])
def test_gradients(name, reverse, lengths):
    Case(CELLS[name]()).check_gradients(reverse=reverse, lengths=lengths)


@each_cell
@each_direction
def test_gradients_with_resets_and_masks(name, reverse):
    Case(CELLS[name](), resets=True, masked=True).check_gradients(reverse=reverse, lengths=RAGGED)


@each_gated
def test_gradients_with_options(name):
    Case(GATED[name](zoneout=(0.1, 0.2), **FULL)).check_gradients(lengths=RAGGED)


@each_gated
@pytest.mark.parametrize(("depth", "shortcut"), [(2, False), (2, True), (3, True)])
def test_gradients_of_deep_transitions(name, depth, shortcut):
    Case(Deep(GATED[name](), depth, shortcut=shortcut), resets=True).check_gradients(lengths=RAGGED)
    cell = Deep(GATED[name](zoneout=(0.1, 0.2), **FULL), depth, shortcut=shortcut)
    Case(cell, resets=True, masked=True).check_gradients()


@each_gated
def test_a_transition_of_depth_one_is_the_cell(name):
    case = Case(GATED[name](zoneout=0.2, **FULL))
    plain = case.run()
    case.cell = Deep(case.cell, 1)
    assert_same(case.run(), plain)


def test_gradients_where_sru_needs_no_skip():
    case = Case(SRU(), inputs=H, masked=True)
    assert case.weights["weight_ih"].shape == (3 * H, H)
    case.check_gradients()


def test_gradients_of_slstm_from_nothing():
    case = Case(SLSTM())
    case.state = ()  # zeros, whose own gradient jumps at n = 0

    def function(x, *rest):
        y, final, pullback = layer(SLSTM(), x, dict(zip(case.weights, rest, strict=True)))
        return (y, *final), lambda *d: list(pullback(*d)[0].values())

    check_gradients(function, [case.x, *case.weights.values()])


BOUNDED = ["sigmoid", "hard_sigmoid", "hard_sigmoid_keras3", ("hard_sigmoid", 0.3, 0.4), "tanh", "softsign"]
ANY = [*ACTIVATIONS, ("leaky_relu", 0.2), ("elu", 0.5), ("affine", 0.5, 0.1), ("thresholded_relu", 0.2)]


def random_cell(rng):
    """A gated cell with options drawn at random, and what to draw of its arguments."""

    def some(values):
        return values[rng.integers(len(values))]

    options = {
        "activation": some(ANY),
        "recurrent_activation": some(BOUNDED),
        "layer_norm": some([False, True]),
        "gate_clip": some([None, 0.8]),
        "zoneout": some([0.0, 0.3, (0.0, 0.2), (0.2, 0.0)]),
    }
    name = some(["rnn", "lstm", "lstm", "lstm", "gru", "mgu"])
    if name == "rnn":
        options["leak"] = some([1.0, 0.4])
    if name == "gru":
        options["reset_after"] = some([False, True])
    if name == "lstm":
        options |= {
            "proj_size": some([0, 3]),
            "peephole": some([False, True]),
            "coupled_gates": some([False, True]),
            "cell_clip": some([None, 0.7]),
        }
    cell = GATED[name](**options)
    if not cell.proj_size and some([False, True, False]):
        depth = int(rng.integers(1, 4))
        cell = Deep(cell, depth, shortcut=depth > 1 and some([False, True]))
    return cell, {"masked": some([False, True]), "resets": some([False, True])}


@pytest.mark.parametrize("seed", range(200))
def test_gradients_of_random_combinations(seed):
    rng = np.random.default_rng(seed)
    cell, drawn = random_cell(rng)
    lengths = [None, RAGGED][rng.integers(2)]
    Case(cell, seed=seed, **drawn).check_gradients(reverse=bool(rng.integers(2)), lengths=lengths)


# ----------------------------------------------------------------------------------------------- activations


@pytest.mark.parametrize("given", [*ANY, "hard_sigmoid_keras3", ("hard_sigmoid", 0.3), ("scaled_tanh", 1.7, 0.6)])
def test_slope_of_activation(given):
    value, slope = activation(given)
    a = np.linspace(-4.05, 4.05, 60)
    difference = (value(a + 1e-6) - value(a - 1e-6)) / 2e-6
    np.testing.assert_allclose(slope(value(a)), difference, rtol=1e-6, atol=1e-8)


def test_values_of_activations():
    a = np.array([-3.0, -0.5, 0.0, 0.5, 3.0])
    expected = {
        "identity": a,
        "relu": [0, 0, 0, 0.5, 3],
        "hard_sigmoid": [0, 0.4, 0.5, 0.6, 1],
        "hard_sigmoid_keras3": [0, 5 / 12, 0.5, 7 / 12, 1],
        "softsign": [-0.75, -1 / 3, 0, 1 / 3, 0.75],
        ("affine", 2, 1): [-5, 0, 1, 2, 7],
        "affine": a,
        "leaky_relu": [-0.03, -0.005, 0, 0.5, 3],
        "thresholded_relu": [0, 0, 0, 0, 3],
        "scaled_tanh": np.tanh(a),
        ("scaled_tanh", 2, 0.5): 2 * np.tanh(a / 2),
        "elu": [np.exp(-3) - 1, np.exp(-0.5) - 1, 0, 0.5, 3],
        "softplus": np.log(1 + np.exp(a)),
    }
    for given, values in expected.items():
        np.testing.assert_allclose(activation(given)[0](a), values, rtol=1e-12, atol=1e-15)


def test_slopes_at_kinks():
    zero = np.zeros(1)
    assert activation("relu")[1](zero) == 0.0
    assert activation(("leaky_relu", 0.1))[1](zero) == 0.1
    assert activation("hard_sigmoid")[1](zero) == 0.0 == activation("hard_sigmoid")[1](zero + 1)


@pytest.mark.parametrize(
    "given", ["sine", ("tanh", 1.0), ("elu", 1.0, 2.0), ("elu", -1.0), ("scaled_tanh", 0.0), ("hard_sigmoid", -0.1)]
)
def test_wrong_activations_are_refused(given):
    with pytest.raises(ValueError, match="activation: expected"):
        activation(given)


def test_activations_do_not_overflow():
    with np.errstate(all="raise", under="ignore"):
        for given in ACTIVATIONS:
            value, slope = activation(given)
            assert np.isfinite(slope(value(np.array([-800.0, 800.0])))).all()


# -------------------------------------------------------------------------------------------- limiting cases


@pytest.mark.parametrize("name", ["rnn", "lstm", "gru"])
@each_direction
def test_plain_cells_are_those_of_reference(name, reverse):
    case = Case(CELLS[name](), resets=True)
    y, final, pullback = case.run(reverse=reverse, lengths=RAGGED)
    states = dict(zip([f"{s}_reset" for s in case.cell.states], case.state_reset, strict=True))
    out, vjp = getattr(reference, f"{name}_vjp")(
        case.x, *case.weights.values(), *case.state, reverse=reverse, lengths=RAGGED,
        reset_mask=case.options["reset_mask"], **states,
    )  # fmt: skip
    assert_close([y, *final], out)
    cotangents = [case.rng.normal(size=o.shape) for o in out]
    gradients, dstate, dreset = pullback(*cotangents)
    assert_close([*gradients.values(), *dstate, *dreset], vjp(*cotangents))


@each_gated
def test_options_that_change_nothing(name):
    plain = Case(GATED[name]())
    options = {"zoneout": 0.0, "gate_clip": 1e9, "activation": ("scaled_tanh", 1.0, 1.0)}
    if name == "rnn":
        options["leak"] = 1.0
    if name == "lstm":
        options["cell_clip"] = 1e9
    ones = {n: np.ones((N, T, H) if n in "hc" else (N, H if n == "recurrent" else I)) for n in plain.cell.masks}
    other = Case(GATED[name](**options))
    assert_same(plain.run(), other.run())
    assert_same(plain.run(), plain.run(masks=ones))


@each_gated
def test_zoneout_of_all_keeps_the_state(name):
    case = Case(GATED[name](zoneout=0.4))
    kept = {n: np.zeros((N, T, H)) for n in case.cell.masks if n in "hc"}
    for y, final, pullback in (case.run(masks=kept), Case(GATED[name](zoneout=1.0)).run()):
        assert_close(final, case.state)
        np.testing.assert_array_equal(y, np.repeat(case.state[0][:, None], T, axis=1))
        gradients, dstate, _ = pullback(None, *case.state)
        assert_close(dstate, case.state)
        assert not any(g.any() for g in gradients.values())


@each_gated
def test_zoneout_of_inference_is_the_mean_over_masks_of_a_step(name):
    case = Case(GATED[name](zoneout=(0.25, 0.75)), steps=1)
    y, final, _ = case.run()
    keep, take = np.zeros((N, 1, H)), np.ones((N, 1, H))
    probability = {"h": {0: 0.25, 1: 0.75}, "c": {0: 0.75, 1: 0.25}}
    mean = np.zeros_like(y)
    states = [n for n in case.cell.masks if n in "hc"]
    for choice in itertools.product([0, 1], repeat=len(states)):
        masks = {n: take if taken else keep for n, taken in zip(states, choice, strict=True)}
        weight = np.prod([probability[n][taken] for n, taken in zip(states, choice, strict=True)])
        mean += weight * case.run(masks=masks)[0]
    assert_close([mean, mean[:, 0]], [y, final[0]])


def test_zoneout_of_the_cell_does_not_reach_the_output_of_its_step():
    case = Case(LSTM(), steps=1)
    y, (_, c_n), _ = case.run(masks={"c": np.zeros((N, 1, H))})
    assert_close([y, c_n], [case.run()[0], case.state[1]])


def test_leak_moves_by_a_share():
    case, plain = Case(RNN(leak=0.3), steps=1), Case(RNN(), steps=1)
    assert_close([case.run()[0]], [0.3 * plain.run()[0] + 0.7 * plain.state[0][:, None]])
    half = {"h": np.full((N, 1, H), 0.5)}
    assert_close([case.run(masks=half)[0]], [0.15 * plain.run()[0] + 0.85 * plain.state[0][:, None]])


@pytest.mark.parametrize("peephole", [False, True])
def test_coupled_gates_are_an_lstm_with_a_forced_forget_gate(peephole):
    # sigmoid(-a) = 1 - sigmoid(a): the weights of f are those of i with the other sign
    coupled = Case(LSTM(coupled_gates=True, peephole=peephole))
    plain = Case(LSTM(peephole=peephole))
    plain.x, plain.state = coupled.x, coupled.state
    for name, w in coupled.weights.items():
        if name == "weight_peephole":
            i, o = np.split(w, 2)
            plain.weights[name] = np.concatenate([i, -i, o])
        else:
            i, g, o = np.split(w, 3)
            plain.weights[name] = np.concatenate([i, -i, g, o])
    y, final, _ = coupled.run()
    expected, expected_final, _ = plain.run()
    assert_close([y, *final], [expected, *expected_final])


@pytest.mark.parametrize("options", [{"peephole": True}, {"proj_size": H}], ids=["peephole", "proj_size"])
def test_lstm_with_neutral_weights_is_plain(options):
    case, plain = Case(LSTM(**options)), Case(LSTM())
    plain.x, plain.state = case.x, case.state
    plain.weights = {name: w for name, w in case.weights.items() if name in plain.weights}
    case.weights |= {"weight_hr": np.eye(H)} if "proj_size" in options else {"weight_peephole": np.zeros(3 * H)}
    assert_same(case.run(), plain.run())


def test_cell_clip_bounds_the_cell_and_what_follows():
    case = Case(LSTM(cell_clip=0.1))
    y, (_, c_n), pullback = case.run()
    assert np.abs(c_n).max() == 0.1
    assert np.abs(y).max() < np.tanh(0.1)
    case.weights["bias_ih"][H : 2 * H] = 50.0  # f = 1, and c_0 far outside: nothing comes back through c
    case.state = case.state[0], np.full((N, H), 9.0)
    _, _, pullback = case.run()
    assert not pullback(None, None, np.ones((N, H)))[1][1].any()


@each_gated
def test_gate_clip_of_nothing_leaves_closed_gates(name):
    case = Case(GATED[name](gate_clip=0.0))
    y, _, pullback = case.run()
    zero = Case(GATED[name]())
    zero.weights = {n: np.zeros_like(w) for n, w in zero.weights.items()}
    assert_close([y], [zero.run()[0]])
    gradients = pullback(np.ones_like(y))[0]
    assert not gradients["x"].any()


@each_gated
def test_layer_norm_of_a_constant_is_its_shift(name):
    case, plain = Case(GATED[name](layer_norm=True), steps=1), Case(GATED[name](), steps=1)
    for n in ("weight_ih", "weight_hh", "bias_hh"):
        case.weights[n][...] = 0.0
    case.weights["bias_ih"] = np.repeat([1.0, -2.0, 3.0, 0.5][: case.cell.gates], H)
    plain.state = case.state
    plain.weights = {n: np.zeros_like(w) for n, w in plain.weights.items()}
    plain.weights["bias_ih"] = case.weights["bias_norm"]
    (y, final, _), (expected, expected_final, _) = case.run(), plain.run()
    if name == "lstm":
        assert_close([final[1]], [expected_final[1]])
        case.weights["weight_norm_c"][...] = 0.0  # as if the cell state were constant
        o, s = reference.sigmoid(case.weights["bias_norm"][3 * H :]), np.tanh(case.weights["bias_norm_c"])
        y, expected = case.run()[0], np.broadcast_to(o * s, (N, 1, H))
    assert_close([y], [expected])


@each_gated
def test_layer_norm_forgets_scale_and_shift(name):
    case, scaled = Case(GATED[name](layer_norm=True), steps=1), Case(GATED[name](layer_norm=True), steps=1)
    for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        scaled.weights[n] = 1e4 * case.weights[n]
    scaled.weights["bias_ih"] += 1e3
    np.testing.assert_allclose(scaled.run()[0], case.run()[0], rtol=1e-3, atol=1e-3)  # but for eps


@each_gated
@pytest.mark.parametrize("mask", ["recurrent", "input"])
def test_dropout_is_a_matrix_with_columns_scaled(name, mask):
    case = Case(GATED[name](), masked=True, batch=1)
    factor = case.options["masks"][mask]
    plain = Case(GATED[name](), batch=1)
    matrix = "weight_hh" if mask == "recurrent" else "weight_ih"
    plain.weights[matrix] = plain.weights[matrix] * factor
    (y, final, pullback), (y_plain, final_plain, pullback_plain) = case.run(masks={mask: factor}), plain.run()
    assert_close([y, *final], [y_plain, *final_plain])
    dw, dw_plain = pullback(y)[0], pullback_plain(y)[0]
    dw_plain[matrix] *= factor
    assert_close(dw.values(), [dw_plain[n] for n in dw])


# ------------------------------------------------------------------------------------------ layouts and cuts


@each_cell
@each_direction
def test_ragged_batch_is_its_sequences_alone(name, reverse):
    case = Case(CELLS[name](), masked=True)
    masks = case.options["masks"]
    padding = np.arange(T) >= RAGGED[:, None]
    case.x[padding] = np.nan  # must not be read
    y, final, pullback = case.run(lengths=RAGGED, reverse=reverse)
    dy = case.rng.normal(size=y.shape)
    gradients, dstate, _ = pullback(dy, *final)
    assert not y[padding].any()
    assert not gradients["x"][padding].any()
    totals = {n: np.zeros_like(w) for n, w in case.weights.items()}
    for n, length in enumerate(RAGGED):
        of_row = {m: mask[n, :length] if m in "hc" else mask[n] for m, mask in masks.items()}
        alone, final_alone, pull_alone = layer(
            case.cell, case.x[n, :length], case.weights, [s[n] for s in case.state], reverse=reverse, masks=of_row
        )
        assert_close([y[n, :length], *(s[n] for s in final)], [alone, *final_alone])
        dw, dstate_alone, _ = pull_alone(dy[n, :length], *final_alone)
        assert_close([gradients["x"][n, :length], *(ds[n] for ds in dstate)], [dw.pop("x"), *dstate_alone])
        for total, d in zip(totals.values(), dw.values(), strict=True):
            total += d
    assert_close([gradients[n] for n in totals], totals.values())


@each_cell
def test_reverse_is_forward_over_flipped_time(name):
    case = Case(CELLS[name]())
    y, final, _ = case.run(reverse=True)
    case.x = case.x[:, ::-1]
    flipped, final_flipped, _ = case.run()
    assert_close([y, *final], [flipped[:, ::-1], *final_flipped])


@each_cell
def test_time_major_is_batch_first_transposed(name):
    case = Case(CELLS[name](), masked=True)
    y, final, _ = case.run(lengths=RAGGED)
    case.x = case.x.swapaxes(0, 1)
    masks = {n: m.swapaxes(0, 1) if n in "hc" else m for n, m in case.options["masks"].items()}
    y_major, final_major, _ = case.run(lengths=RAGGED, masks=masks, batch_first=False)
    assert_close([y, *final], [y_major.swapaxes(0, 1), *final_major])


@each_cell
@each_direction
def test_reset_cuts(name, reverse):
    case = Case(CELLS[name](), batch=1)
    case.state_reset = case.draw_state(dict(zip(case.cell.states, [s.shape[1] for s in case.state], strict=True)), 1)
    mask = np.zeros((1, T), bool)
    mask[0, 2] = True
    y, final, _ = case.run(reset_mask=mask, reverse=reverse)
    first, second = (case.state_reset, case.state) if reverse else (case.state, case.state_reset)
    y_1, final_1, _ = layer(case.cell, case.x[:, :2], case.weights, first, reverse=reverse)
    y_2, final_2, _ = layer(case.cell, case.x[:, 2:], case.weights, second, reverse=reverse)
    assert_close([y, *final], [np.concatenate([y_1, y_2], axis=1), *(final_1 if reverse else final_2)])


@each_cell
def test_one_state_after_resets_for_all_rows(name):
    case = Case(CELLS[name](), resets=True)
    one = tuple(s[0] for s in case.state_reset)
    y, final, pullback = case.run(state_reset=one)
    every = tuple(np.tile(s, (N, 1)) for s in one)
    y_every, final_every, pullback_every = case.run(state_reset=every)
    assert_close([y, *final], [y_every, *final_every])
    assert_close(pullback(y)[2], [d.sum(axis=0) for d in pullback_every(y)[2]])


@each_cell
@pytest.mark.parametrize(("steps", "batch"), [(0, N), (T, 0)])
def test_nothing_to_do(name, steps, batch):
    case = Case(CELLS[name](), steps=steps, batch=batch)
    y, final, pullback = case.run()
    assert y.shape == (batch, steps, case.cell.sizes(H, H)[0])
    assert_close(final, case.state)
    gradients, dstate, dreset = pullback()
    assert {n: g.shape for n, g in gradients.items()} == {n: w.shape for n, w in ({"x": case.x} | case.weights).items()}
    assert [d.shape for d in dstate] == [s.shape for s in case.state]
    assert dreset is None


# -------------------------------------------------------------------------------- definitions, written otherwise


def loop(case, step):
    """Run one row at a time: `step` takes the inputs of gates, x and the state, and returns y and the state."""
    w = case.weights
    ys, finals = [], []
    for n in range(N):
        state = [s[n] for s in case.state]
        for t in range(T):
            y, *state = step(w["weight_ih"] @ case.x[n, t] + w["bias_ih"], case.x[n, t], *state)
            ys.append(y)
        finals.append(state)
    return np.array(ys).reshape(N, T, -1), [np.array(s) for s in zip(*finals, strict=True)]


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def softmax(*a):
    e = np.exp(a)
    return e / e.sum(axis=0)


def assert_is(case, step):
    y, final, _ = case.run()
    y_loop, final_loop = loop(case, step)
    assert_close([y, *final], [y_loop, *final_loop], rtol=1e-11)


def cut(a, gates):
    return a.reshape(gates, -1)


def test_lru_is_a_complex_loop():
    case = Case(LRU())
    nu, theta, gamma = (case.weights[n] for n in ("nu", "theta", "gamma"))
    pole = np.exp(-np.exp(nu) + 1j * np.exp(theta))
    assert (np.abs(pole) < 1).all()

    def step(a, _, h):
        re, im = cut(a, 2)
        z = pole * (h[:H] + 1j * h[H:]) + np.exp(gamma) * (re + 1j * im)
        h = np.concatenate([z.real, z.imag])
        return h, h

    assert_is(case, step)


def test_real_lru_is_an_exponential_moving_sum():
    case = Case(LRU(complex=False))
    pole = np.exp(-np.exp(case.weights["nu"]))
    assert_is(case, lambda a, _, h: (pole * h + np.exp(case.weights["gamma"]) * a,) * 2)


@pytest.mark.parametrize("start", ["given", "nothing"])
def test_slstm_is_an_unstabilised_loop(start):
    # true c and n are exp(m) times the stabilised ones
    case = Case(SLSTM())
    w = case.weights
    if start == "nothing":
        case.state = tuple(np.zeros((N, H)) for _ in range(4))
    _, _, _, m_0 = case.state

    def step(a, _, h, c, n):
        i, f, g, o = cut(a + w["weight_hh"] @ h + w["bias_hh"], 4)
        c = sigmoid(f) * c + np.exp(i) * np.tanh(g)
        n = sigmoid(f) * n + np.exp(i)
        h = sigmoid(o) * c / n
        return h, h, c, n

    y, (h_n, c_n, n_n, m_n), _ = case.run()
    case.state = case.state[0], case.state[1] * np.exp(m_0), case.state[2] * np.exp(m_0)
    y_loop, final = loop(case, step)
    assert_close([y, h_n, c_n * np.exp(m_n), n_n * np.exp(m_n)], [y_loop, *final], rtol=1e-11)


def test_slstm_starts_from_its_first_input():
    # n = 0 is no past at all, so m' = a_i however small, i = 1, and h' = sigmoid(a_o) tanh(a_g)
    case = Case(SLSTM(), steps=1)
    case.state = None
    case.weights["bias_ih"][:H] = -300.0
    a_i, _, a_g, a_o = np.split(case.x[:, 0] @ case.weights["weight_ih"].T + case.weights["bias_ih"], 4, axis=1)
    b_i, _, b_g, b_o = np.split(case.weights["bias_hh"], 4)
    _, (h, c, n, m), _ = case.run()
    g = np.tanh(a_g + b_g)
    assert_close([h, c, n, m], [sigmoid(a_o + b_o) * g, g, np.ones((N, H)), a_i + b_i])


def test_slstm_does_not_overflow():
    case = Case(SLSTM())
    case.weights["bias_ih"][:H] = [900.0, -600.0, 900.0, 0.0]
    case.weights["bias_ih"][H : 2 * H] = [0.0, 0.0, -900.0, 900.0]
    case.state = None
    with np.errstate(all="raise", under="ignore"):
        y, final, pullback = case.run()
        gradients = pullback(np.ones_like(y))[0]
    assert all(np.isfinite(a).all() for a in (y, *final, *gradients.values()))


def test_mgu_by_its_definition():
    case = Case(MGU())
    U_f, U_n = cut(case.weights["weight_hh"], 2).reshape(2, H, H)
    b_f, b_n = cut(case.weights["bias_hh"], 2)

    def step(a, _, h):
        f = sigmoid(a[:H] + U_f @ h + b_f)
        h = (1 - f) * h + f * np.tanh(a[H:] + U_n @ (f * h) + b_n)
        return h, h

    assert_is(case, step)


def test_gru_with_reset_before_by_its_definition():
    case = Case(GRU(reset_after=False))
    U_r, U_z, U_n = case.weights["weight_hh"].reshape(3, H, H)
    b_r, b_z, b_n = cut(case.weights["bias_hh"], 3)

    def step(a, _, h):
        x_r, x_z, x_n = cut(a, 3)
        r, z = sigmoid(x_r + U_r @ h + b_r), sigmoid(x_z + U_z @ h + b_z)
        h = z * h + (1 - z) * np.tanh(x_n + U_n @ (r * h) + b_n)
        return h, h

    assert_is(case, step)


def test_lstm_with_all_options_by_its_definition():
    cell = LSTM(
        proj_size=3, peephole=True, layer_norm=True, gate_clip=0.9, cell_clip=0.5, zoneout=(0.1, 0.3), activation="elu"
    )
    case = Case(cell)
    w = case.weights
    p_i, p_f, p_o = cut(w["weight_peephole"], 3)

    def norm(a, gain, shift):
        return (a - a.mean()) / np.sqrt(a.var() + 1e-5) * gain + shift

    def elu(a):
        return np.where(a > 0, a, np.exp(a) - 1)

    def step(a, _, h, c):
        a_i, a_f, a_g, a_o = cut(a + w["weight_hh"] @ h + w["bias_hh"], 4)

        def gate(k, a):
            return np.clip(norm(a, cut(w["weight_norm"], 4)[k], cut(w["bias_norm"], 4)[k]), -0.9, 0.9)

        i, f, g = sigmoid(gate(0, a_i + p_i * c)), sigmoid(gate(1, a_f + p_f * c)), elu(gate(2, a_g))
        new = np.clip(f * c + i * g, -0.5, 0.5)
        o = sigmoid(gate(3, a_o + p_o * new))
        m = o * elu(norm(new, w["weight_norm_c"], w["bias_norm_c"]))
        h = 0.1 * h + 0.9 * w["weight_hr"] @ m
        return h, h, 0.3 * c + 0.7 * new

    assert_is(case, step)


def test_deep_transition_rnn_by_its_definition():
    # h' = act(U_2 act(W x + U_1 h + b) + b_2 + S h)
    case = Case(Deep(RNN(activation="softsign"), 2, shortcut=True))
    w = case.weights
    act = activation("softsign")[0]
    (h,) = case.state
    y, (h_n,), _ = case.run()
    for t in range(T):
        inner = act(case.x[:, t] @ w["weight_ih"].T + h @ w["weight_hh"].T + w["bias_ih"] + w["bias_hh"])
        a = inner @ w["weight_transition2"].T + w["bias_transition2"] + h @ w["weight_shortcut"].T
        h = act(a)
        assert_close([y[:, t]], [h])
    assert_close([h_n], [h])


def test_deep_transition_is_a_step_without_inputs_more():
    # every other step of a cell whose inputs there are of zeros and whose matrices take turns: here one for both
    case = Case(Deep(LSTM(), 2))
    w = case.weights
    w["weight_transition2"], w["bias_transition2"] = w["weight_hh"].copy(), w["bias_hh"] + w["bias_ih"]
    y, final, _ = case.run()
    spread = np.zeros((N, 2 * T, I))
    spread[:, ::2] = case.x
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    y_spread, final_spread, _ = layer(LSTM(), spread, {n: w[n] for n in names}, case.state)
    assert_close([y, *final], [y_spread[:, 1::2], *final_spread])


@pytest.mark.parametrize(("depth", "shortcut"), [(0, False), (1, True)])
def test_wrong_depths_are_refused(depth, shortcut):
    with pytest.raises(ValueError, match=r"^transition_depth: "):
        Deep(RNN(), depth, shortcut=shortcut)


def test_indrnn_by_its_definition():
    for given, function in (("relu", lambda a: np.maximum(a, 0)), ("tanh", np.tanh)):
        case = Case(IndRNN(activation=given))
        u = case.weights["weight_hh"]
        assert_is(case, lambda a, _, h, function=function, u=u: (function(a + u * h),) * 2)


def test_mingru_by_its_definition():
    def step(a, _, h):
        z, n = cut(a, 2)
        return (h + sigmoid(z) * (n - h),) * 2

    assert_is(Case(MinGRU()), step)


def test_minlstm_by_its_definition():
    def step(a, _, h):
        a_f, a_i, n = cut(a, 3)
        # f / (f + i) is a softmax of log f and log i
        f, i = softmax(-np.log1p(np.exp(-a_f)), -np.log1p(np.exp(-a_i)))
        return (f * h + i * n,) * 2

    assert_is(Case(MinLSTM()), step)


@pytest.mark.parametrize("inputs", [I, H], ids=["mapped", "direct"])
def test_sru_by_its_definition(inputs):
    case = Case(SRU(), inputs=inputs)
    v_f, v_r = cut(case.weights["weight_hh"], 2)

    def step(a, x, c):
        n, x_f, x_r, *x_s = cut(a, 4 if inputs != H else 3)
        f, r = sigmoid(x_f + v_f * c), sigmoid(x_r + v_r * c)
        c = f * c + (1 - f) * n
        return r * c + (1 - r) * (x_s[0] if x_s else x), c

    assert_is(case, step)


def test_qrnn_by_its_definition():
    def step(a, _, c):
        z, f, o = cut(a, 3)
        c = sigmoid(f) * c + (1 - sigmoid(f)) * np.tanh(z)
        return sigmoid(o) * c, c

    assert_is(Case(QRNN()), step)


# ------------------------------------------------------------------------------------------------- wrong calls


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": {"weight_ih": np.zeros((4 * H, I))}}, "weights: expected"),
        ({"extra": np.zeros(1)}, "weights: expected"),
        ({"weight_hh": np.zeros((4 * H, 1))}, "weight_hh: expected shape"),
        ({"state": [None]}, "states 0: expected 2"),
        ({"state": [None, np.zeros((1, H))]}, "c_0: expected shape"),
        ({"masks": {"n": None}}, "masks: expected some of"),
        ({"masks": {"h": np.ones((N, 1, H))}}, "h: expected shape"),
        ({"masks": {"input": np.ones((N, H))}}, "input: expected shape"),
        ({"state_reset": [np.zeros(H), None]}, "h_reset: expected None"),
        ({"lengths": [1, 2]}, "lengths: expected shape"),
    ],
)
def test_wrong_arguments_are_refused_by_name(change, message):
    case = Case(LSTM())
    options = {name: value for name, value in change.items() if name in ("state", "masks", "state_reset", "lengths")}
    weights = change.get("weights", case.weights | {n: w for n, w in change.items() if n not in options})
    with pytest.raises(ValueError, match=message):
        layer(LSTM(), case.x, weights, **options)


def test_biases_default_to_zero():
    case = Case(LSTM(layer_norm=True))
    biases = {n: np.zeros_like(w) for n, w in case.weights.items() if n.startswith("bias")}
    case.weights |= biases
    given = case.run()
    case.weights = {n: w for n, w in case.weights.items() if n not in biases} | {"bias_ih": None}
    assert_same(case.run(), given)


def test_pullback_is_of_the_arguments_as_they_were():
    case = Case(LSTM(peephole=True), masked=True, resets=True)
    y, _, pullback = case.run()
    dy = np.ones_like(y)
    before = pullback(dy)
    for array in (case.x, *case.weights.values(), *case.state, *case.options["masks"].values(), y):
        array[...] = np.nan
    again = pullback(dy)
    assert_close([*before[0].values(), *before[1], *before[2]], [*again[0].values(), *again[1], *again[2]])


# ------------------------------------------------------------------------------------------------- torch agrees


@pytest.mark.parametrize("name", ["lstm", "lstm-projected", "gru"])
@each_direction
def test_torch_agrees(name, reverse):
    torch = pytest.importorskip("torch")
    proj_size = 3 if name == "lstm-projected" else 0
    kind = name.partition("-")[0]
    case = Case(LSTM(proj_size=proj_size) if kind == "lstm" else GRU())
    options = {"proj_size": proj_size} if proj_size else {}
    theirs = getattr(torch.nn, kind.upper())(I, H, batch_first=True, bidirectional=reverse, **options).double()
    suffix = "_l0_reverse" if reverse else "_l0"
    parameters = {n: getattr(theirs, n + suffix) for n in case.weights}
    with torch.no_grad():
        for n, parameter in parameters.items():
            parameter.copy_(torch.from_numpy(case.weights[n]))
    x = torch.from_numpy(case.x).requires_grad_()
    states = [torch.from_numpy(s).requires_grad_() for s in case.state]
    initial = [torch.stack([s.detach(), s] if reverse else [s]) for s in states]
    y_theirs, final_theirs = theirs(x, tuple(initial) if kind == "lstm" else initial[0])
    final_theirs = final_theirs if kind == "lstm" else (final_theirs,)
    y, final, pullback = case.run(reverse=reverse)
    outputs = [y_theirs[..., -y.shape[-1] :], *(s[-1] for s in final_theirs)]
    assert_close([y, *final], [o.detach().numpy() for o in outputs])
    cotangents = [case.rng.normal(size=o.shape) for o in (y, *final)]
    expected = torch.autograd.grad(
        outputs, [x, *parameters.values(), *states], [torch.from_numpy(d) for d in cotangents]
    )
    gradients, dstate, _ = pullback(*cotangents)
    assert_close([*gradients.values(), *dstate], [g.numpy() for g in expected])


def test_torch_activations_agree():
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    a = np.linspace(-4.05, 4.05, 50)
    pairs = {
        "softplus": functional.softplus,
        ("elu", 0.7): lambda v: functional.elu(v, 0.7),
        "softsign": functional.softsign,
        "hard_sigmoid_keras3": functional.hardsigmoid,
        "leaky_relu": functional.leaky_relu,
    }
    for given, function in pairs.items():
        v = torch.from_numpy(a.copy()).requires_grad_()
        y = function(v)
        (slope,) = torch.autograd.grad(y.sum(), v)
        got = activation(given)[0](a)
        # torch's slope of the hard sigmoid is a float32 1/6
        assert_close([got, activation(given)[1](got)], [y.detach().numpy(), slope.numpy()], rtol=1e-7)


def test_torch_layer_norm_agrees():
    torch = pytest.importorskip("torch")
    case = Case(LSTM(layer_norm=True), steps=1)
    w = {n: torch.from_numpy(v).requires_grad_() for n, v in case.weights.items()}
    x = torch.from_numpy(case.x).requires_grad_()
    h, c = (torch.from_numpy(s) for s in case.state)
    a = x[:, 0] @ w["weight_ih"].T + w["bias_ih"] + h @ w["weight_hh"].T + w["bias_hh"]
    normed = [
        torch.nn.functional.layer_norm(part, (H,), gain, shift)
        for part, gain, shift in zip(
            a.chunk(4, 1), w["weight_norm"].chunk(4), w["bias_norm"].chunk(4), strict=True
        )
    ]  # fmt: skip
    i, f, o = (torch.sigmoid(normed[k]) for k in (0, 1, 3))
    c_next = f * c + i * torch.tanh(normed[2])
    y = o * torch.tanh(torch.nn.functional.layer_norm(c_next, (H,), w["weight_norm_c"], w["bias_norm_c"]))
    got, (_, c_n), pullback = case.run()
    assert_close([got[:, 0], c_n], [y.detach().numpy(), c_next.detach().numpy()])
    expected = torch.autograd.grad(y.sum() + c_next.sum(), [x, *w.values()])
    gradients = pullback(np.ones_like(got), None, np.ones_like(c_n))[0]
    assert_close(gradients.values(), [g.numpy() for g in expected], rtol=1e-10)


def test_every_cell_is_here():
    cells = {name for name in reference_cells.__all__ if isinstance(getattr(reference_cells, name), type)}
    assert {type(make()).__name__ for make in CELLS.values()} == cells
