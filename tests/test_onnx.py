"""The oracle and the layers against ONNX, as onnxruntime runs it: peepholes, clipping, coupled gates, reset before.

What onnxruntime does where the text of the operators leaves room, as found here (1.32, of its CPU provider):

- `clip` bounds the input of every gate, with bias and peephole, as `gate_clip` does, and nothing else: neither the
  cell state nor the input of the output's activation, though the text says "the input of activations".
- `input_forget` makes f = 1 - i, of the i that has seen its peephole and the clipping. All four gates' weights must be
  there; those of f are not read.
- `activation_alpha` and `activation_beta` are consumed in order by functions that have such a number, not by all.
- Where they are missing, its defaults are not those of the operators, as the text says, for ThresholdedRelu (0 instead
  of 1), Affine and ScaledTanh (0 instead of 1): an importer writes the numbers out.
- A row of length 0 ends in zeros instead of its initial state.
- Names of activations may be in any case in LSTM and GRU, but not in RNN.

onnx's own reference evaluator knows peepholes and both forms of GRU, but ignores `clip`, `input_forget`, `activations`
and `sequence_lens`.

Order of gates: LSTM i, o, f, c and peepholes i, o, f; GRU z, r, h, of which z is the share of the old state as ours is.
"""

import numpy as np
import pytest

import rnncore as rc
from rnncore.reference_cells import GRU, LSTM, RNN, layer

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

T, N, I, H = 6, 4, 3, 5
OUTPUTS = {"RNN": ["Y", "Y_h"], "GRU": ["Y", "Y_h"], "LSTM": ["Y", "Y_h", "Y_c"]}
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
# Our gates as places of theirs.
ORDER = {"RNN": [0], "GRU": [1, 0, 2], "LSTM": [0, 2, 3, 1], "coupled": [0, 3, 1]}

ACTIVATIONS = {  # by their name: ours, with as many numbers as there are
    "Relu": ("relu",), "Tanh": ("tanh",), "Sigmoid": ("sigmoid",), "Softsign": ("softsign",), "Softplus": ("softplus",),
    "Affine": ("affine", 0.6, 0.1), "LeakyRelu": ("leaky_relu", 0.2), "ThresholdedRelu": ("thresholded_relu", 0.3),
    "ScaledTanh": ("scaled_tanh", 1.2, 0.7), "HardSigmoid": ("hard_sigmoid", 0.3, 0.4), "Elu": ("elu", 0.6),
}  # fmt: skip


def make_inputs(op, peephole=False, lengths=None, seed=0):
    """Return the inputs of an ONNX operator by name, drawn at random, of one direction."""
    rng = np.random.default_rng(seed)
    G = GATES[op]

    def normal(*shape):
        return rng.normal(scale=0.5, size=shape).astype(np.float32)

    inputs = {"X": 2 * normal(T, N, I), "W": normal(1, G * H, I), "R": normal(1, G * H, H), "B": normal(1, 2 * G * H)}
    inputs["sequence_lens"] = None if lengths is None else np.array(lengths, np.int32)
    inputs["initial_h"] = normal(1, N, H)
    if op == "LSTM":
        inputs |= {"initial_c": 2 * normal(1, N, H), "P": normal(1, 3 * H) if peephole else None}
    return inputs


def make_model(op, inputs, attributes):
    given = {name: array for name, array in inputs.items() if array is not None}
    names = [name if name in given else "" for name in inputs]
    node = onnx.helper.make_node(op, names, OUTPUTS[op], hidden_size=H, **attributes)
    values = [
        onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in given.items()
    ]
    outputs = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in OUTPUTS[op]]
    graph = onnx.helper.make_graph([node], "one_layer", values, outputs)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 14)], ir_version=8)
    return model, given


def run_theirs(op, inputs, **attributes):
    """Return Y (T, N, H) and the final states (N, H) of onnxruntime."""
    model, given = make_model(op, inputs, attributes)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    y, *final = session.run(None, given)
    return y[:, 0], *(s[0] for s in final)


def run_reference(op, inputs, **attributes):
    """Return the same of onnx's reference evaluator."""
    evaluator = pytest.importorskip("onnx.reference").ReferenceEvaluator
    model, given = make_model(op, inputs, attributes)
    y, *final = evaluator(model).run(None, given)
    return y[:, 0], *(s[0] for s in final)


def as_ours(op, inputs, options):
    """Return parameters by our names, in our order, the initial states, and the options with what inputs imply."""
    coupled = options.get("coupled_gates")
    order = ORDER["coupled" if coupled else op]

    def ours(array, order=order, gates=GATES[op]):
        parts = np.split(array, gates)
        return np.concatenate([parts[k] for k in order])

    b_ih, b_hh = np.split(inputs["B"][0], 2)
    weights = {"weight_ih": inputs["W"][0], "weight_hh": inputs["R"][0], "bias_ih": b_ih, "bias_hh": b_hh}
    weights = {name: ours(array) for name, array in weights.items()}
    state = [inputs["initial_h"][0]]
    if op == "LSTM":
        state.append(inputs["initial_c"][0])
        if inputs["P"] is not None:
            options = options | {"peephole": True}
            weights["weight_peephole"] = ours(inputs["P"][0], [0, 1] if coupled else [0, 2, 1], 3)
    return weights, state, options


def run_oracle(op, inputs, reverse=False, **options):
    """Return the same of the oracle, of a cell with these options."""
    weights, state, options = as_ours(op, inputs, options)
    cell = {"RNN": RNN, "GRU": GRU, "LSTM": LSTM}[op](**options)
    y, final, _ = layer(
        cell, inputs["X"], weights, state, lengths=inputs["sequence_lens"], reverse=reverse, batch_first=False
    )
    return y, *final


def run_layer(op, inputs, reverse=False, **options):
    """Return the same of a layer, of which there is one for each direction: of a reversed one the other half."""
    weights, state, options = as_ours(op, inputs, options)
    if op == "RNN" and "activation" in options:
        options["nonlinearity"] = options.pop("activation")
    one = getattr(rc, op)(I, H, batch_first=False, bidirectional=reverse, **options)
    one.load_parameters(
        {name + suffix: array for name, array in weights.items() for suffix in ("_l0", "_l0_reverse")[: 1 + reverse]}
    )
    initial = tuple(np.stack([part] * (1 + reverse)) for part in state)
    y, final = one(inputs["X"], initial if op == "LSTM" else initial[0], inputs["sequence_lens"])
    return y[..., -H:], *(part[-1] for part in (final if op == "LSTM" else (final,)))


@pytest.fixture(params=[run_oracle, run_layer], ids=["oracle", "layer"])
def run_ours(request):
    return request.param


def error(ours, theirs):
    """How far results are apart, relative to the largest of each."""
    return max(np.abs(a - b).max() / max(1.0, np.abs(a).max()) for a, b in zip(ours, theirs, strict=True))


def assert_agree(ours, theirs):
    assert error(ours, theirs) < 5e-6


def assert_differ(ours, theirs):
    assert error(ours, theirs) > 1e-3


def attributes_of(*names):
    """Activations as attributes: numbers stand one after the other, of those functions alone that have them."""
    ours = [ACTIVATIONS[name] for name in names]
    alphas, betas = [a[1] for a in ours if len(a) > 1], [a[2] for a in ours if len(a) > 2]
    attributes = {"activations": list(names)}
    if alphas:
        attributes["activation_alpha"] = alphas
    if betas:
        attributes["activation_beta"] = betas
    return attributes


# -------------------------------------------------------------------------------------------------------- cells


@pytest.mark.parametrize("direction", ["forward", "reverse"])
@pytest.mark.parametrize("lengths", [None, [2, 6, 1, 4]], ids=["dense", "ragged"])
@pytest.mark.parametrize(
    ("op", "attributes", "options"),
    [
        ("RNN", {}, {}),
        ("LSTM", {}, {}),
        ("GRU", {}, {"reset_after": False}),  # ONNX's default
        ("GRU", {"linear_before_reset": 1}, {"reset_after": True}),
    ],
    ids=["rnn", "lstm", "gru-before", "gru-after"],
)
def test_cells(op, attributes, options, direction, lengths, run_ours):
    inputs = make_inputs(op, lengths=lengths)
    theirs = run_theirs(op, inputs, direction=direction, **attributes)
    assert_agree(run_ours(op, inputs, reverse=direction == "reverse", **options), theirs)


def test_the_two_forms_of_gru_differ(run_ours):
    inputs = make_inputs("GRU")
    assert_differ(run_ours("GRU", inputs), run_theirs("GRU", inputs))


@pytest.mark.parametrize("lengths", [None, [2, 6, 1, 4]], ids=["dense", "ragged"])
def test_peepholes(lengths, run_ours):
    inputs = make_inputs("LSTM", peephole=True, lengths=lengths)
    theirs = run_theirs("LSTM", inputs)
    assert_agree(run_ours("LSTM", inputs), theirs)
    assert_differ(run_ours("LSTM", inputs | {"P": None}), theirs)


def test_an_empty_row_ends_in_zeros_there_and_in_its_initial_state_here(run_ours):
    inputs = make_inputs("LSTM", lengths=[2, 6, 0, 4])
    ours, theirs = run_ours("LSTM", inputs), run_theirs("LSTM", inputs)
    others = [0, 1, 3]
    assert_agree([ours[0], *(s[others] for s in ours[1:])], [theirs[0], *(s[others] for s in theirs[1:])])
    assert not any(s[2].any() for s in theirs[1:])
    np.testing.assert_array_equal(ours[1][2], inputs["initial_h"][0, 2])


# ----------------------------------------------------------------------------------------------------- clipping


@pytest.mark.parametrize("peephole", [False, True])
@pytest.mark.parametrize("coupled", [False, True])
def test_clip_of_lstm_bounds_gates_and_not_the_cell(peephole, coupled, run_ours):
    inputs = make_inputs("LSTM", peephole=peephole)
    inputs["initial_c"] *= 5  # far out of the bound, so that a clipped cell would show
    theirs = run_theirs("LSTM", inputs, clip=0.4, input_forget=int(coupled))
    options = {"coupled_gates": coupled}
    assert_agree(run_ours("LSTM", inputs, gate_clip=0.4, **options), theirs)
    assert_differ(run_ours("LSTM", inputs, **options), theirs)
    assert_differ(run_ours("LSTM", inputs, gate_clip=0.4, cell_clip=0.4, **options), theirs)


@pytest.mark.parametrize(
    ("op", "attributes", "options"),
    [("RNN", {}, {}), ("GRU", {}, {"reset_after": False}), ("GRU", {"linear_before_reset": 1}, {})],
    ids=["rnn", "gru-before", "gru-after"],
)
def test_clip_bounds_gates(op, attributes, options, run_ours):
    inputs = make_inputs(op)
    theirs = run_theirs(op, inputs, clip=0.4, **attributes)
    assert_agree(run_ours(op, inputs, gate_clip=0.4, **options), theirs)
    assert_differ(run_ours(op, inputs, **options), theirs)


# ------------------------------------------------------------------------------------------------ coupled gates


@pytest.mark.parametrize("peephole", [False, True])
def test_input_forget_couples_gates(peephole, run_ours):
    inputs = make_inputs("LSTM", peephole=peephole)
    theirs = run_theirs("LSTM", inputs, input_forget=1)
    assert_agree(run_ours("LSTM", inputs, coupled_gates=True), theirs)
    assert_differ(run_ours("LSTM", inputs), theirs)
    for name in ("W", "R"):  # of f: not read
        inputs[name] = inputs[name].copy()
        inputs[name][0, 2 * H : 3 * H] = np.nan
    assert_agree(run_theirs("LSTM", inputs, input_forget=1), theirs)


# -------------------------------------------------------------------------------------------------- activations


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("linear_before_reset", [0, 1])
def test_activations_of_gru(name, linear_before_reset, run_ours):
    inputs = make_inputs("GRU")
    options = {"reset_after": bool(linear_before_reset)}
    theirs = run_theirs("GRU", inputs, linear_before_reset=linear_before_reset, **attributes_of("Sigmoid", name))
    assert_agree(run_ours("GRU", inputs, activation=ACTIVATIONS[name], **options), theirs)
    inputs["X"] = inputs["X"][:2]  # a gate without a bound makes the state grow and grow
    theirs = run_theirs("GRU", inputs, linear_before_reset=linear_before_reset, **attributes_of(name, "Tanh"))
    assert_agree(run_ours("GRU", inputs, recurrent_activation=ACTIVATIONS[name], **options), theirs)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_of_lstm(name, run_ours):
    inputs = make_inputs("LSTM", peephole=True)
    theirs = run_theirs("LSTM", inputs, **attributes_of("Sigmoid", name, name))
    assert_agree(run_ours("LSTM", inputs, activation=ACTIVATIONS[name]), theirs)
    inputs["X"] = inputs["X"][:2]
    theirs = run_theirs("LSTM", inputs, **attributes_of(name, "Tanh", "Tanh"))
    assert_agree(run_ours("LSTM", inputs, recurrent_activation=ACTIVATIONS[name]), theirs)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_of_rnn(name, run_ours):
    inputs = make_inputs("RNN")
    theirs = run_theirs("RNN", inputs, **attributes_of(name))
    assert_agree(run_ours("RNN", inputs, activation=ACTIVATIONS[name]), theirs)
    if name != "Tanh":
        assert_differ(run_ours("RNN", inputs), theirs)


def test_numbers_go_to_the_functions_that_have_them(run_ours):
    inputs = make_inputs("LSTM")
    attributes = attributes_of("HardSigmoid", "LeakyRelu", "LeakyRelu")
    assert attributes["activation_alpha"] == [0.3, 0.2, 0.2]
    assert attributes["activation_beta"] == [0.4]
    ours = run_ours("LSTM", inputs, recurrent_activation=("hard_sigmoid", 0.3, 0.4), activation=("leaky_relu", 0.2))
    assert_agree(ours, run_theirs("LSTM", inputs, **attributes))
    # a number of its own for Sigmoid, which has none, goes to the function after it
    ours = run_ours("LSTM", inputs, activation=("leaky_relu", 0.2))
    sigmoid_first = {"activations": ["Sigmoid", "LeakyRelu", "LeakyRelu"]}
    assert_agree(ours, run_theirs("LSTM", inputs, activation_alpha=[0.2, 0.2], **sigmoid_first))
    assert_differ(ours, run_theirs("LSTM", inputs, activation_alpha=[0.0, 0.2, 0.2], **sigmoid_first))


@pytest.mark.parametrize("name", ["HardSigmoid", "LeakyRelu", "Elu", "ThresholdedRelu", "Affine", "ScaledTanh"])
def test_numbers_by_default(name, run_ours):
    inputs = make_inputs("RNN")
    theirs = run_theirs("RNN", inputs, activations=[name])
    ours = run_ours("RNN", inputs, activation=ACTIVATIONS[name][0])
    if name in ("HardSigmoid", "LeakyRelu", "Elu"):
        assert_agree(ours, theirs)
        return
    assert_differ(ours, theirs)
    if name == "ThresholdedRelu":
        assert_agree(run_ours("RNN", inputs, activation=("thresholded_relu", 0.0)), theirs)
    else:  # alpha = beta = 0
        assert not any(a.any() for a in theirs)


@pytest.mark.parametrize("op", ["RNN", "GRU", "LSTM"])
def test_case_of_names_matters_to_rnn_alone(op, run_ours):
    inputs = make_inputs(op)
    names = {"RNN": ["tANH"], "GRU": ["sigmoid", "tANH"], "LSTM": ["sigmoid", "tANH", "TANH"]}[op]
    if op == "RNN":
        with pytest.raises(Exception, match="Invalid activation"):
            run_theirs(op, inputs, activations=names)
        return
    options = {"reset_after": False} if op == "GRU" else {}
    assert_agree(run_theirs(op, inputs, activations=names), run_ours(op, inputs, **options))


# -------------------------------------------------------------------------------------- the reference evaluator


@pytest.mark.parametrize("peephole", [False, True])
def test_reference_evaluator_of_lstm(peephole, run_ours):
    inputs = make_inputs("LSTM", peephole=peephole)
    assert_agree(run_ours("LSTM", inputs), run_reference("LSTM", inputs))


@pytest.mark.parametrize("linear_before_reset", [0, 1])
def test_reference_evaluator_of_gru(linear_before_reset, run_ours):
    inputs = make_inputs("GRU")
    theirs = run_reference("GRU", inputs, linear_before_reset=linear_before_reset)
    assert_agree(run_ours("GRU", inputs, reset_after=bool(linear_before_reset)), theirs)
