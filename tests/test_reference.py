"""The oracle itself, against values worked by hand, finite differences, its own definition, and torch.

Also the public checks of `rnncore.testing`: that they pass what is right and catch what is wrong.
"""

import functools

import numpy as np
import pytest

from rnncore import reference
from rnncore.testing import check_gradients, check_layer

T, N, I, H = 5, 4, 3, 2
GATES = {"rnn": 1, "lstm": 4, "gru": 3}
STATES = {"rnn": 1, "lstm": 2, "gru": 1}
CELLS = [("rnn", {"nonlinearity": "tanh"}), ("rnn", {"nonlinearity": "relu"}), ("lstm", {}), ("gru", {})]
RAGGED = np.array([3, 5, 0, 1])

each_cell = pytest.mark.parametrize(("cell", "options"), CELLS, ids=["tanh", "relu", "lstm", "gru"])
each_direction = pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])


def forward(cell):
    return getattr(reference, cell)


def forward_vjp(cell):
    """The function, whose pullback leaves out the states after resets: nothing here has any."""

    def function(*arguments, **options):
        out, vjp = getattr(reference, f"{cell}_vjp")(*arguments, **options)
        return out, lambda *d, **named: vjp(*d, **named)[: 5 + STATES[cell]]

    return function


def make_arguments(cell, steps=T, batch=N, seed=0):
    """Return x (N, T, I), w_ih, w_hh, b_ih, b_hh and the initial states, all drawn at random."""
    rng = np.random.default_rng(seed)
    gh = GATES[cell] * H
    shapes = [(batch, steps, I), (gh, I), (gh, H), (gh,), (gh,), *[(batch, H)] * STATES[cell]]
    return [rng.normal(scale=0.7, size=shape) for shape in shapes]


def assert_all_close(got, expected):
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-13)


# -------------------------------------------------------------------------------------- values worked by hand


def test_rnn_step_by_hand():
    # a = 2*3 + 0.5 - 1*4 - 0.25 = 2.25
    arguments = [[[3.0]]], [[2.0]], [[-1.0]], [0.5], [-0.25], [[4.0]]
    y, h_n = reference.rnn(*arguments)
    assert_all_close([y, h_n], [[[[np.tanh(2.25)]]], [[np.tanh(2.25)]]])
    assert reference.rnn(*arguments, nonlinearity="relu").h_n == 2.25


def test_lstm_step_by_hand():
    # With a weight of ln 3 on x = 1, gates i, f, o are 3/4, 1/4 (from -ln 3) and 1/2; g = tanh(ln 2) = 3/5.
    w_ih = [[np.log(3)], [-np.log(3)], [np.log(2)], [0.0]]
    out = reference.lstm([[1.0]], w_ih, np.zeros((4, 1)), h_0=[5.0], c_0=[2.0])
    c = 0.25 * 2.0 + 0.75 * 0.6
    assert_all_close(out, [[[0.5 * np.tanh(c)]], [0.5 * np.tanh(c)], [c]])


def test_gru_step_by_hand():
    # r = 3/4 and z = 1/4 from x; n = tanh(0 + r * (2 h)) with h = ln 2 * 2/3, so tanh(ln 2) = 3/5.
    w_ih, w_hh = [[np.log(3)], [-np.log(3)], [0.0]], [[0.0], [0.0], [2.0]]
    h = np.log(2) * 2 / 3
    y, h_n = reference.gru([[1.0]], w_ih, w_hh, h_0=[h])
    assert_all_close([y, h_n], [[[0.25 * h + 0.75 * 0.6]], [0.25 * h + 0.75 * 0.6]])


def test_gru_resets_the_recurrent_bias_but_not_that_of_the_input():
    closed = [-800.0, -800.0, 0.0]  # r = z = 0
    w = np.zeros((3, 1))
    assert reference.gru([[1.0]], w, w, b_ih=closed, b_hh=[0.0, 0.0, 1.0]).h_n == 0.0
    assert reference.gru([[1.0]], w, w, b_ih=[-800.0, -800.0, 1.0]).h_n == np.tanh(1.0)


def test_sigmoid_is_accurate_at_both_ends():
    with np.errstate(all="raise", under="ignore"):
        got = reference.sigmoid(np.array([-1e4, -700.0, -40.0, 0.0, 40.0, 1e4]))
    np.testing.assert_allclose(got, [0.0, np.exp(-700.0), np.exp(-40.0), 0.5, 1.0, 1.0], rtol=1e-15)
    assert np.isnan(reference.sigmoid(np.array([np.nan])))


# --------------------------------------------------------------------------- gradients, by finite differences


@each_cell
@each_direction
@pytest.mark.parametrize("lengths", [None, RAGGED], ids=["dense", "ragged"])
@pytest.mark.parametrize("batch_first", [True, False], ids=["batch-first", "time-major"])
def test_gradients(cell, options, reverse, lengths, batch_first):
    x, *rest = make_arguments(cell)
    call = functools.partial(forward_vjp(cell), lengths=lengths, reverse=reverse, batch_first=batch_first, **options)
    names = ["x", "w_ih", "w_hh", "b_ih", "b_hh", "h_0", "c_0"][: 1 + len(rest)]
    check_gradients(call, [x if batch_first else x.swapaxes(0, 1), *rest], names=names)


@each_cell
@each_direction
@pytest.mark.parametrize("lengths", [None, 3], ids=["dense", "ragged"])
def test_gradients_of_one_sequence(cell, options, reverse, lengths):
    x, *weights = make_arguments(cell)
    weights, states = weights[:4], weights[4:]
    call = functools.partial(forward_vjp(cell), lengths=lengths, reverse=reverse, **options)
    check_gradients(call, [x[0], *weights, *(s[0] for s in states)])


@each_cell
def test_gradients_of_what_was_not_given(cell, options):
    x, w_ih, w_hh, *others = make_arguments(cell)
    others = [np.zeros_like(a) for a in others]
    call = functools.partial(forward_vjp(cell), **options)
    check_gradients(call, [x, w_ih, w_hh, *[None] * len(others)])
    (out, vjp), (expected_out, expected_vjp) = call(x, w_ih, w_hh), call(x, w_ih, w_hh, *others)
    assert_all_close(out, expected_out)
    dy = np.ones((N, T, H))
    assert_all_close(vjp(dy), expected_vjp(dy))


@each_cell
def test_cotangents_default_to_zero(cell, options):
    arguments = make_arguments(cell)
    out, vjp = forward_vjp(cell)(*arguments, **options)
    rng = np.random.default_rng(1)
    cotangents = [rng.normal(size=o.shape) for o in out]
    names = ["dy", *(f"d{field}" for field in out._fields[1:])]
    alone = [vjp(**{name: d}) for name, d in zip(names, cotangents, strict=True)]
    assert_all_close(vjp(*cotangents), [sum(parts) for parts in zip(*alone, strict=True)])  # a vjp is linear
    assert_all_close(vjp(), [np.zeros_like(a) for a in arguments])


@each_cell
def test_pullback_is_of_the_arguments_as_they_were(cell, options):
    arguments = make_arguments(cell)
    dy = np.ones((N, T, H))
    out, vjp = forward_vjp(cell)(*arguments, **options)
    before = vjp(dy)
    for array in (*arguments, *out):
        array[...] = np.nan
    assert_all_close(vjp(dy), before)


# ---------------------------------------------------------------------------------------- layouts and lengths


@each_cell
@each_direction
def test_ragged_batch_is_its_sequences_alone(cell, options, reverse):
    x, *rest = make_arguments(cell)
    weights, states = rest[:4], rest[4:]
    padding = np.arange(T) >= RAGGED[:, None]
    x[padding] = np.nan  # must not be read
    dy = np.random.default_rng(1).normal(size=(N, T, H))
    dy[padding] = np.nan
    out, vjp = forward_vjp(cell)(x, *weights, *states, lengths=RAGGED, reverse=reverse, **options)
    gradients = vjp(dy, *out[1:])
    assert not out.y[padding].any()
    assert not gradients[0][padding].any()

    totals = [np.zeros_like(w) for w in weights]
    for n, length in enumerate(RAGGED):
        alone, vjp_alone = forward_vjp(cell)(
            x[n, :length], *weights, *(s[n] for s in states), reverse=reverse, **options
        )
        assert_all_close([out.y[n, :length], *(s[n] for s in out[1:])], alone)
        dx, *dweights_and_dstates = vjp_alone(dy[n, :length], *alone[1:])
        np.testing.assert_allclose(gradients[0][n, :length], dx, rtol=1e-12)
        for total, dw in zip(totals, dweights_and_dstates[:4], strict=True):
            total += dw
        assert_all_close([ds[n] for ds in gradients[5:]], dweights_and_dstates[4:])
    assert_all_close(gradients[1:5], totals)


@each_cell
def test_reverse_is_forward_over_flipped_time(cell, options):
    x, *rest = make_arguments(cell)
    y, *final = forward(cell)(x, *rest, reverse=True, **options)
    y_flipped, *final_flipped = forward(cell)(x[:, ::-1], *rest, **options)
    assert_all_close([y, *final], [y_flipped[:, ::-1], *final_flipped])
    np.testing.assert_array_equal(y[:, 0], final[0])  # the state after reading x[0]


@each_cell
def test_time_major_is_batch_first_transposed(cell, options):
    x, *rest = make_arguments(cell)
    y, *final = forward(cell)(x, *rest, lengths=RAGGED, **options)
    y_major, *final_major = forward(cell)(x.swapaxes(0, 1), *rest, lengths=RAGGED, batch_first=False, **options)
    assert_all_close([y, *final], [y_major.swapaxes(0, 1), *final_major])


@each_cell
def test_state_carries_a_sequence_over_calls(cell, options):
    x, *rest = make_arguments(cell)
    weights, states = rest[:4], rest[4:]
    y, *final = forward(cell)(x, *weights, *states, **options)
    y_1, *middle = forward(cell)(x[:, :2], *weights, *states, **options)
    y_2, *end = forward(cell)(x[:, 2:], *weights, *middle, **options)
    assert_all_close([np.concatenate([y_1, y_2], axis=1), *end], [y, *final])


@each_cell
@each_direction
@pytest.mark.parametrize(("steps", "batch"), [(0, N), (T, 0), (0, 0)])
def test_nothing_to_do(cell, options, reverse, steps, batch):
    arguments = make_arguments(cell, steps, batch)
    states = arguments[5:]
    out, vjp = forward_vjp(cell)(*arguments, reverse=reverse, **options)
    assert out.y.shape == (batch, steps, H)
    assert_all_close(out[1:], states)
    gradients = vjp(np.ones_like(out.y), *states)
    assert [g.shape for g in gradients] == [a.shape for a in arguments]
    assert not any(g.any() for g in gradients[:5])
    assert_all_close(gradients[5:], states)


@each_cell
def test_names_follow_the_functions(cell, options):
    out, vjp = getattr(reference, f"{cell}_vjp")(*make_arguments(cell), **options)
    gradients = vjp()
    states = ["h", "c"][: STATES[cell]]
    assert type(out) is type(forward(cell)(*make_arguments(cell), **options))
    assert type(out).__name__ == f"{cell.upper()}Output"
    assert type(gradients).__name__ == f"{cell.upper()}Gradients"
    assert out._fields == ("y", *(f"{s}_n" for s in states))
    of_states = (*(f"{s}_0" for s in states), *(f"{s}_reset" for s in states))
    assert gradients._fields == ("x", "w_ih", "w_hh", "b_ih", "b_hh", *of_states)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": np.zeros(3)}, "x: expected 2 or 3 dimensions"),
        ({"w_ih": np.zeros((H, I))}, r"w_ih: expected shape \(8, 3\), got \(2, 3\)"),
        ({"b_hh": np.zeros(1)}, "b_hh: expected shape"),
        ({"h_0": np.zeros((1, H))}, "h_0: expected shape"),  # would broadcast
        ({"c_0": np.zeros(H)}, "c_0: expected shape"),
        ({"lengths": [1, 2]}, "lengths: expected shape"),
        ({"lengths": [0, 1, 2, T + 1]}, "lengths: expected integers from 0 to 5"),
        ({"lengths": [0, 1, 2, -1]}, "lengths: expected integers from 0 to 5"),
        ({"lengths": [0.0, 1.0, 2.0, 3.0]}, "lengths: expected integers"),
    ],
)
def test_wrong_arguments_are_refused_by_name(change, message):
    names = ["x", "w_ih", "w_hh", "b_ih", "b_hh", "h_0", "c_0"]
    with pytest.raises(ValueError, match=message):
        reference.lstm(**dict(zip(names, make_arguments("lstm"), strict=True)) | change)


def test_wrong_nonlinearity_and_cotangents_are_refused_by_name():
    arguments = make_arguments("rnn")
    with pytest.raises(ValueError, match="nonlinearity: expected"):
        reference.rnn(*arguments, nonlinearity="sine")
    _, vjp = reference.rnn_vjp(*arguments)
    with pytest.raises(ValueError, match="dy: expected shape"):
        vjp(np.zeros((T, N, H)))
    with pytest.raises(ValueError, match="dh_n: expected shape"):
        vjp(dh_n=np.zeros(H))


# -------------------------------------------------------------------------------------------- check_gradients


def sine(x):
    x = np.asarray(x)
    return np.sin(x), lambda dy: (dy * np.cos(x),)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_check_gradients_passes_a_right_gradient(dtype):
    check_gradients(sine, [np.linspace(-3, 3, 50, dtype=dtype)])
    check_gradients(sine, [np.zeros((0, 3), dtype)])
    check_gradients(sine, [dtype(1)])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_check_gradients_catches_one_wrong_element(dtype):
    def wrong(x):
        y, vjp = sine(x)
        return y, lambda dy: (vjp(dy)[0] * (1 + 0.5 * (np.arange(x.size) == 7)),)

    with pytest.raises(AssertionError, match="gradient of argument 0: expected a projection of"):
        check_gradients(wrong, [np.linspace(0, 1, 20, dtype=dtype)])


@each_cell
@pytest.mark.parametrize("position", range(6))
def test_check_gradients_names_the_wrong_gradient(cell, options, position):
    def wrong(*arguments):
        out, vjp = forward_vjp(cell)(*arguments, **options)
        return out, lambda *d: [g * (1 + 1e-4 * (i == position)) for i, g in enumerate(vjp(*d))]

    with pytest.raises(AssertionError, match=f"gradient of argument {position}:"):
        check_gradients(wrong, make_arguments(cell))


@pytest.mark.parametrize("bad", [np.nan, 0.0])
def test_check_gradients_catches_zero_and_nan(bad):
    with pytest.raises(AssertionError, match="expected a projection"):
        check_gradients(lambda x: (np.sin(x), lambda dy: dy * bad), [np.ones(3)])


def test_check_gradients_catches_wrong_forms():
    with pytest.raises(AssertionError, match="expected 1 gradients from the vjp, got 2"):
        check_gradients(lambda x: (x, lambda dy: (dy, dy)), [np.ones(3)])
    with pytest.raises(AssertionError, match=r"gradient of x: expected shape \(3,\), got \(1, 3\)"):
        check_gradients(lambda x: (x, lambda dy: dy[None]), [np.ones(3)], names=["x"])
    with pytest.raises(AssertionError, match="expected floating point, got int64 with a gradient"):
        check_gradients(lambda x: (1.0 * x, lambda dy: dy), [np.ones(3, np.int64)])


def test_check_gradients_skips_what_is_none_or_has_no_gradient():
    def rows(table, ids, bias):
        def vjp(dy):
            dtable = np.zeros_like(table)
            np.add.at(dtable, ids, dy)
            return dtable, None, np.ones(7)

        return table[ids] + (0.0 if bias is None else bias), vjp

    check_gradients(rows, [np.ones((4, 2)), np.array([3, 1, 3]), None])


def test_check_gradients_repeats_itself():
    def messages(**options):
        with pytest.raises(AssertionError) as error:
            check_gradients(lambda x: (np.sin(x), lambda dy: dy), [np.ones(3)], **options)
        return str(error.value)

    assert messages() == messages() != messages(rng=1)
    check_gradients(lambda x: (np.sin(x), lambda dy: dy), [np.ones(3)], rtol=10.0)


# ------------------------------------------------------------------------------------------------ check_layer


class ReferenceLayer:
    """A recurrent layer made of reference calls of one row and one step each.

    Each step is rounded to the dtype of the layer: that makes rows and chunks exact, as in the library.
    """

    def __init__(self, cell, dtype=np.float64, options=None, seed=0):
        self.cell, self.options = cell, options or {}
        rng = np.random.default_rng(seed)
        gh = GATES[cell] * H
        self.shapes = {"w_ih": (gh, I), "w_hh": (gh, H), "b_ih": (gh,), "b_hh": (gh,)}
        size = sum(int(np.prod(shape)) for shape in self.shapes.values())
        self.flat_parameters = rng.uniform(-0.7, 0.7, size).astype(dtype)
        self.flat_gradients = np.zeros_like(self.flat_parameters)

    @property
    def parameters(self):
        return self.views(self.flat_parameters)

    @property
    def gradients(self):
        return self.views(self.flat_gradients)

    def views(self, flat):
        ends = np.cumsum([int(np.prod(shape)) for shape in self.shapes.values()])
        parts = np.split(flat, ends[:-1])
        return {name: part.reshape(self.shapes[name]) for name, part in zip(self.shapes, parts, strict=True)}

    def zero_gradients(self):
        self.flat_gradients[...] = 0

    def output_lengths(self, lengths):
        return lengths

    def run(self, x, state=None, lengths=None):
        return self.vjp(x, state, lengths)[0]

    def vjp(self, x, state=None, lengths=None):
        dtype = self.flat_parameters.dtype
        batch, steps, _ = x.shape
        if state is None:
            state = (np.zeros((1, batch, H), dtype),) * STATES[self.cell]
        final = [s.copy() for s in (state if isinstance(state, tuple) else (state,))]
        y = np.zeros((batch, steps, H), dtype)
        tape = []
        for n in range(batch):
            for t in range(steps if lengths is None else lengths[n]):
                out, vjp = forward_vjp(self.cell)(
                    x[n, t : t + 1], *self.parameters.values(), *(s[0, n] for s in final), **self.options
                )
                y[n, t] = out.y[0]
                for s, s_n in zip(final, out[1:], strict=True):
                    s[0, n] = s_n
                tape.append((n, t, vjp))

        def pullback(dy=None, dstate=None):
            return self.pull(x, tape, np.zeros_like(y) if dy is None else dy, dstate)

        return (y, self.as_state(final)), pullback

    def pull(self, x, tape, dy, dstate):
        if dstate is None:
            dstate = (np.zeros((1, len(x), H)),) * STATES[self.cell]
        dstate = [ds.copy() for ds in (dstate if isinstance(dstate, tuple) else (dstate,))]
        dx = np.zeros_like(x)
        for n, t, vjp in reversed(tape):
            dx[n, t : t + 1], *dweights_and_dstates = vjp(dy[n, t : t + 1], *(ds[0, n] for ds in dstate))
            for gradient, dw in zip(self.gradients.values(), dweights_and_dstates[:4], strict=True):
                gradient += dw
            for ds, ds_0 in zip(dstate, dweights_and_dstates[4:], strict=True):
                ds[0, n] = ds_0
        return dx, self.as_state(dstate)

    def as_state(self, arrays):
        return tuple(arrays) if self.cell == "lstm" else arrays[0]


def make_input(dtype=np.float64):
    return np.random.default_rng(2).normal(size=(N, T, I)).astype(dtype)


@each_cell
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("lengths", [None, RAGGED], ids=["dense", "ragged"])
def test_check_layer_passes_a_right_layer(cell, options, dtype, lengths):
    layer = ReferenceLayer(cell, dtype, options)
    layer.flat_gradients[...] = 1
    parameters = layer.flat_parameters.copy()
    check_layer(layer, make_input(dtype), lengths=lengths)
    np.testing.assert_array_equal(layer.flat_parameters, parameters)  # left as it was found
    assert np.all(layer.flat_gradients == 1)


def test_check_layer_takes_a_given_state():
    state = tuple(np.random.default_rng(3).normal(size=(2, 1, N, H)))
    check_layer(ReferenceLayer("lstm"), make_input(), state=state)


class TimeMajor(ReferenceLayer):
    def vjp(self, x, state=None, lengths=None):
        (y, final), pullback = super().vjp(x.swapaxes(0, 1), state, lengths)

        def pullback_major(dy=None, dstate=None):
            dx, dstate_0 = pullback(None if dy is None else dy.swapaxes(0, 1), dstate)
            return dx.swapaxes(0, 1), dstate_0

        return (y.swapaxes(0, 1), final), pullback_major


def test_check_layer_takes_time_major_layers():
    check_layer(TimeMajor("gru"), make_input().swapaxes(0, 1), lengths=RAGGED, batch_first=False)


class WrongBiasGradient(ReferenceLayer):
    """The fault of a GRU that forgets that its two gate gradients differ."""

    def pull(self, *arguments):
        result = super().pull(*arguments)
        self.gradients["b_hh"][...] = self.gradients["b_ih"]
        return result


class WrongStateGradient(ReferenceLayer):
    def pull(self, *arguments):
        dx, dstate = super().pull(*arguments)
        return dx, 2 * dstate


class WrongInputGradient(ReferenceLayer):
    def pull(self, *arguments):
        dx, dstate = super().pull(*arguments)
        return dx[:, ::-1], dstate


class Overwrites(ReferenceLayer):
    def pull(self, *arguments):
        self.zero_gradients()
        return super().pull(*arguments)


class IgnoresStateCotangentWithoutDy(ReferenceLayer):
    def pull(self, x, tape, dy, dstate):
        return super().pull(x, tape, dy, dstate if dy.any() else None)


class KeepsGradients(ReferenceLayer):
    def zero_gradients(self):
        pass


class DetachedParameters(ReferenceLayer):
    @property
    def parameters(self):
        return {name: view.copy() for name, view in super().parameters.items()}


class MisplacedGradients(ReferenceLayer):
    @property
    def gradients(self):
        return super().views(self.flat_gradients[::-1])


class SharesParametersWithCopies(ReferenceLayer):
    def __deepcopy__(self, memo):
        twin = type(self)(self.cell)
        twin.flat_parameters = self.flat_parameters
        return twin


class ForgetsParametersInPickle(ReferenceLayer):
    def __reduce__(self):
        return type(self), (self.cell, np.float64, {}, 1)


class LosesStateBetweenCalls(ReferenceLayer):
    def vjp(self, x, state=None, lengths=None):
        return super().vjp(x, np.zeros_like(state) if x.shape[1] < T else state, lengths)


class MixesRows(ReferenceLayer):
    def vjp(self, x, state=None, lengths=None):
        return super().vjp(x + 1e-15 * len(x), state, lengths)


class InfersOtherwise(ReferenceLayer):
    def run(self, x, state=None, lengths=None):
        y, final = super().run(x, state, lengths)
        return y * (1 + 1e-15), final


class ReadsPadding(ReferenceLayer):
    def vjp(self, x, state=None, lengths=None):
        (y, final), pullback = super().vjp(x, state, lengths)
        return (y + 0 * x.sum(), final), pullback


class FillsPadding(ReferenceLayer):
    def vjp(self, x, state=None, lengths=None):
        (y, final), pullback = super().vjp(x, state, lengths)
        return (y + (y == 0), final), pullback


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (WrongBiasGradient, "gradient of b_hh"),
        (WrongStateGradient, "gradient of initial state 0"),
        (WrongInputGradient, "gradient of x"),
        (Overwrites, "gradients after a second call"),
        (IgnoresStateCotangentWithoutDy, "None as a cotangent"),
        (KeepsGradients, "zero_gradients"),
        (DetachedParameters, "parameters: expected views"),
        (MisplacedGradients, "the place of parameters"),
        (SharesParametersWithCopies, "parameters of its own"),
        (ForgetsParametersInPickle, "a copy by pickle"),
        (LosesStateBetweenCalls, "cut after"),
        (MixesRows, "row 0 alone"),
        (InfersOtherwise, "that of inference"),
        (ReadsPadding, "rubbish at padded steps"),
        (FillsPadding, "padded steps of y"),
    ],
)
def test_check_layer_catches_a_fault(fault, message):
    with pytest.raises(AssertionError, match=message):
        check_layer(fault("gru"), make_input(), lengths=RAGGED)


def test_check_layer_does_not_cut_what_is_not_causal():
    check_layer(LosesStateBetweenCalls("gru"), make_input(), causal=False)


# ----------------------------------------------------------------------------------------------- torch agrees


class TestAgainstTorch:
    """Outputs and every gradient of torch's layers of one layer, in float64."""

    @pytest.fixture(autouse=True)
    def torch(self):
        return pytest.importorskip("torch")

    @each_cell
    @each_direction
    @pytest.mark.parametrize("lengths", [None, [3, 5, 2, 1]], ids=["dense", "ragged"])
    def test_outputs_and_gradients(self, torch, cell, options, reverse, lengths):
        # torch has no layer that only runs backwards: take the second half of a bidirectional one, and send
        # no gradient into the first.
        layer = getattr(torch.nn, cell.upper())(
            I, H, batch_first=True, bidirectional=reverse, dtype=torch.float64, **options
        )
        direction = -1 if reverse else 0
        suffix = "_l0_reverse" if reverse else "_l0"
        x, *rest = make_arguments(cell)
        weights, states = rest[:4], rest[4:]
        theirs = [getattr(layer, name + suffix) for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
        with torch.no_grad():
            for parameter, w in zip(theirs, weights, strict=True):
                parameter.copy_(torch.from_numpy(w))
        x_torch = torch.from_numpy(x).requires_grad_()
        states_torch = [torch.from_numpy(s).requires_grad_() for s in states]
        initial = [torch.stack([s] * (2 if reverse else 1)) for s in states_torch]
        if reverse:
            initial = [torch.stack([s[0].detach(), s[1]]) for s in initial]

        given = x_torch
        if lengths is not None:
            given = torch.nn.utils.rnn.pack_padded_sequence(x_torch, lengths, batch_first=True, enforce_sorted=False)
        y_torch, final = layer(given, tuple(initial) if cell == "lstm" else initial[0])
        if lengths is not None:
            y_torch, _ = torch.nn.utils.rnn.pad_packed_sequence(y_torch, batch_first=True)
        final = final if cell == "lstm" else (final,)
        out_torch = [y_torch[..., -H:], *(s[direction] for s in final)]

        out, vjp = forward_vjp(cell)(x, *weights, *states, lengths=lengths, reverse=reverse, **options)
        assert_all_close(out, [o.detach().numpy() for o in out_torch])
        rng = np.random.default_rng(1)
        cotangents = [rng.normal(size=o.shape) for o in out]
        gradients = torch.autograd.grad(
            out_torch, [x_torch, *theirs, *states_torch], [torch.from_numpy(d) for d in cotangents]
        )
        assert_all_close(vjp(*cotangents), [g.numpy() for g in gradients])
