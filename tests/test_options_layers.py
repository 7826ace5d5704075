"""Options of layers as arguments: what is refused, parameters and their first values, files, copies; models, training
and streams that learn; and torch's projection, where torch can be imported."""

import copy
import pickle

import numpy as np
import pytest

import rnncore as rc
from cases import worst_error
from rnncore.testing import check_layer

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("kind", "options", "error", "message"),
    [
        # a cell that has no such option
        (rc.RNN, {"proj_size": 2}, TypeError, "proj_size"),
        (rc.GRU, {"proj_size": 2}, TypeError, "proj_size"),
        (rc.RNN, {"peephole": True}, TypeError, "peephole"),
        (rc.GRU, {"peephole": True}, TypeError, "peephole"),
        (rc.GRU, {"cell_clip": 1.0}, TypeError, "cell_clip"),
        (rc.GRU, {"coupled_gates": True}, TypeError, "coupled_gates"),
        (rc.RNN, {"recurrent_activation": "relu"}, TypeError, "recurrent_activation"),
        (rc.LSTM, {"leak": 0.5}, TypeError, "leak"),
        (rc.LSTM, {"reset_after": False}, TypeError, "reset_after"),
        # sizes
        (rc.LSTM, {"proj_size": 8}, ValueError, "^proj_size: expected less than hidden_size = 8, got 8"),
        (rc.LSTM, {"proj_size": 9}, ValueError, "^proj_size: expected less than"),
        (rc.LSTM, {"proj_size": -1}, ValueError, "^proj_size: expected an integer from 0, got -1"),
        (rc.LSTM, {"proj_size": 2.0}, ValueError, "^proj_size: expected an integer"),
        (rc.LSTM, {"proj_size": True}, ValueError, "^proj_size: expected an integer"),
        # probabilities
        *(
            (kind, {name: p}, ValueError, f"^{name}: expected .*, got")
            for kind in (rc.RNN, rc.LSTM, rc.GRU)
            for name in ("input_dropout", "recurrent_dropout")
            for p in (-0.1, 1.0, 1.5, NAN)
        ),
        *((kind, {"zoneout": p}, ValueError, "^zoneout: ") for kind in (rc.RNN, rc.GRU) for p in (-0.1, 1.1, NAN)),
        (rc.RNN, {"zoneout": (0.1, 0.1)}, ValueError, "^zoneout: expected a probability, got"),
        (rc.GRU, {"zoneout": (0.1,)}, ValueError, "^zoneout: expected a probability, got"),
        (rc.LSTM, {"zoneout": (0.1, 1.1)}, ValueError, "^zoneout: "),
        (rc.LSTM, {"zoneout": (0.1, 0.2, 0.3)}, ValueError, "^zoneout: expected a probability, or two, of h and c"),
        (rc.LSTM, {"zoneout": "often"}, TypeError, "^zoneout: "),
        (rc.LSTM, {"zoneout": None}, TypeError, "^zoneout: "),
        (rc.GRU, {"dropout": -0.1}, ValueError, "^dropout: "),
        (rc.GRU, {"dropout": NAN}, ValueError, "^dropout: "),
        (rc.GRU, {"recurrent_dropout": "x"}, TypeError, "^recurrent_dropout: "),
        # numbers
        *((rc.RNN, {"leak": leak}, ValueError, "^leak: ") for leak in (0.0, -0.5, 1.01, NAN, INF)),
        *((rc.LSTM, {"cell_clip": clip}, ValueError, "^cell_clip: ") for clip in (0.0, -1.0, NAN, INF)),
        *(
            (kind, {"gate_clip": clip}, ValueError, "^gate_clip: ")
            for kind in (rc.RNN, rc.LSTM, rc.GRU)
            for clip in (0, -1.0, NAN, INF)
        ),
        (rc.RNN, {"leak": None}, TypeError, "^leak: "),
        (rc.LSTM, {"cell_clip": "1"}, TypeError, "^cell_clip: "),
        # deep transitions
        (rc.SLSTM, {"transition_depth": 2}, TypeError, "transition_depth"),
        *(
            (rc.RNN, {"transition_depth": depth}, ValueError, "^transition_depth: expected")
            for depth in (0, -1, 2.0, 9)
        ),
        (rc.LSTM, {"transition_depth": 9}, ValueError, "^transition_depth: expected at most 8 of this cell, got 9"),
        (rc.MGU, {"transition_depth": 5}, ValueError, "^transition_depth: expected at most 4 of this cell, got 5"),
        (
            rc.GRU,
            {"transition_depth": 5, "reset_after": False},
            ValueError,
            "^transition_depth: expected at most 4 of this cell, got 5",
        ),
        (rc.GRU, {"shortcut": True}, ValueError, "^shortcut: expected False where transition_depth is 1, got True"),
        (
            rc.LSTM,
            {"transition_depth": 2, "proj_size": 4},
            ValueError,
            "^proj_size: expected 0 where transition_depth is 2, .*, got 4",
        ),
        # layers around the passes
        (rc.SLSTM, {"input_depth": 2}, TypeError, "input_depth"),
        *(
            (kind, {name: depth}, ValueError, f"^{name}: expected a positive integer, got")
            for kind, name in ((rc.RNN, "input_depth"), (rc.LSTM, "output_depth"))
            for depth in (0, -1, 2.0, True, None)
        ),
        (
            rc.RNN,
            {"input_depth": 2, "nonlinearity": "elu"},
            ValueError,
            "^input_depth: expected 1 unless nonlinearity is one of 'identity', .*, got 2 and 'elu'",
        ),
        (
            rc.GRU,
            {"output_depth": 3, "activation": ("leaky_relu", 0.1)},
            ValueError,
            "^output_depth: expected 1 unless activation is one of .*, got 3 and .'leaky_relu', 0.1.",
        ),
        # activations
        (rc.RNN, {"nonlinearity": "swish"}, ValueError, "^nonlinearity: expected one of .*'softplus'.*, got 'swish'"),
        (rc.LSTM, {"activation": "swish"}, ValueError, "^activation: expected one of"),
        (rc.GRU, {"recurrent_activation": "Sigmoid"}, ValueError, "^recurrent_activation: expected one of"),
        (rc.GRU, {"recurrent_activation": None}, ValueError, "^recurrent_activation: expected one of"),
        (rc.GRU, {"activation": ()}, ValueError, "^activation: expected one of"),
        (rc.GRU, {"activation": (0.2, "elu")}, ValueError, "^activation: expected one of"),
        (rc.GRU, {"activation": ("tanh", 1.0)}, ValueError, "^activation: expected at most 0 parameters of 'tanh'"),
        (rc.GRU, {"activation": ("elu", 1.0, 2.0)}, ValueError, "^activation: expected at most 1 parameters"),
        (rc.GRU, {"activation": ("affine", 1, 2, 3)}, ValueError, "^activation: expected at most 2 parameters"),
        (rc.GRU, {"activation": ("elu", -1.0)}, ValueError, "^activation: "),
        (rc.GRU, {"activation": ("leaky_relu", -0.1)}, ValueError, "^activation: "),
        (rc.GRU, {"activation": ("thresholded_relu", -1)}, ValueError, "^activation: "),
        (rc.GRU, {"activation": ("scaled_tanh", 0.0)}, ValueError, "^activation: "),
        (rc.GRU, {"activation": ("hard_sigmoid", 0.0)}, ValueError, "^activation: "),
        (rc.GRU, {"activation": ("affine", NAN)}, ValueError, "^activation: "),
        (rc.GRU, {"activation": ("affine", 1.0, INF)}, ValueError, "^activation: "),
        (rc.GRU, {"activation": ("elu", "1")}, TypeError, "^activation: "),
        # many networks are of plain cells
        *(
            (kind, {"models": 2, **options}, ValueError, "^models: expected None for a layer with options, got 2")
            for kind, options in [
                (rc.LSTM, {"peephole": True}),
                (rc.LSTM, {"proj_size": 2}),
                (rc.GRU, {"reset_after": False}),
                (rc.RNN, {"leak": 0.5}),
                (rc.RNN, {"zoneout": 0.1}),
                (rc.GRU, {"skip": True}),
                (rc.GRU, {"transition_depth": 2}),
                (rc.GRU, {"input_depth": 2}),
                (rc.RNN, {"output_depth": 2}),
                (rc.GRU, {"learn_initial_state": True}),
                (rc.GRU, {"recurrent_dropout": 0.1}),
                (rc.GRU, {"input_dropout": 0.1}),
                (rc.RNN, {"nonlinearity": "elu"}),
            ]
        ),
    ],
    ids=str,
)
def test_refused_at_construction_by_name(kind, options, error, message):
    with pytest.raises(error, match=message):
        kind(3, 8, **options)


# -------------------------------------------------------------------------------------------------------- parameters

FULL = [
    (rc.RNN, {"nonlinearity": ("leaky_relu", 0.2), "leak": 0.25, "layer_norm": True, "learn_initial_state": True}),
    (
        rc.LSTM,
        {
            "proj_size": 5, "peephole": True, "coupled_gates": True, "cell_clip": 2.0, "layer_norm": True,
            "gate_clip": 3.0, "zoneout": (0.1, 0.2), "activation": ("scaled_tanh", 1.5), "learn_initial_state": True,
            "recurrent_activation": ("hard_sigmoid", 0.3, 0.4), "input_dropout": 0.1, "recurrent_dropout": 0.2,
        },
    ),
    (rc.GRU, {"reset_after": False, "zoneout": 0.5, "recurrent_activation": "hard_sigmoid_keras3", "skip": True}),
    (rc.LSTM, {"transition_depth": 3, "shortcut": True, "layer_norm": True, "peephole": True, "zoneout": 0.2}),
    (rc.GRU, {"input_depth": 3, "output_depth": 2, "input_dropout": 0.1, "learn_initial_state": True}),
]  # fmt: skip
full = pytest.mark.parametrize(("kind", "options"), FULL, ids=["rnn", "lstm", "gru", "deep-lstm", "feed-forward"])


@pytest.mark.parametrize("coupled", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_names_and_shapes_of_parameters(coupled, bidirectional):
    layer = rc.LSTM(
        3, 8, 2, bidirectional=bidirectional, proj_size=5, peephole=True, coupled_gates=coupled, layer_norm=True,
        learn_initial_state=True,
    )  # fmt: skip
    G, D = 3 if coupled else 4, 1 + bidirectional
    expected = {}
    for k, I in ((0, 3), (1, D * 5)):
        for suffix in (f"_l{k}", f"_l{k}_reverse")[:D]:
            of_pass = {
                "weight_ih": (G * 8, I), "weight_hh": (G * 8, 5), "bias_ih": (G * 8,), "bias_hh": (G * 8,),
                "weight_hr": (5, 8), "weight_peephole": ((G - 1) * 8,), "weight_norm": (G * 8,), "bias_norm": (G * 8,),
                "weight_norm_c": (8,), "bias_norm_c": (8,), "initial_h": (5,), "initial_c": (8,),
            }  # fmt: skip
            expected |= {name + suffix: shape for name, shape in of_pass.items()}
    assert {name: array.shape for name, array in layer.parameters.items()} == expected
    assert list(layer.parameters) == list(expected)
    assert layer.output_size == D * 5
    assert sum(array.size for array in layer.parameters.values()) == layer.flat_parameters.size


@pytest.mark.parametrize("bias", [False, True])
def test_names_and_shapes_of_deep_transitions(bias):
    layer = rc.LSTM(3, 8, bias=bias, transition_depth=3, shortcut=True, layer_norm=True, peephole=True)
    vectors = {"weight_peephole": 24, "weight_norm": 32, "bias_norm": 32, "weight_norm_c": 8, "bias_norm_c": 8}
    expected = {"weight_ih": (32, 3), "weight_hh": (32, 8)} | ({"bias_ih": (32,), "bias_hh": (32,)} if bias else {})
    expected |= {name: (32, 8) for name in ("weight_transition2", "weight_transition3", "weight_shortcut")}
    expected |= {name: (32,) for name in ("bias_transition2", "bias_transition3") if bias}
    expected |= {name + of: (n,) for of in ("", "_transition2", "_transition3") for name, n in vectors.items()}
    assert [(name, array.shape) for name, array in layer.parameters.items()] == [
        (f"{name}_l0", shape) for name, shape in expected.items()
    ]


def test_the_core_refuses_depths_that_a_cell_has_not():
    curves = (rc._core.Activation.tanh, 0.0, 0.0), (rc._core.Activation.sigmoid, 0.0, 0.0)
    cell = rc._core.Cell

    def spec(cell, depth, shortcut):
        return rc._core.Spec(cell, *curves, False, False, 0.0, 0.0, 1.0, 1.0, False, depth, shortcut)

    for of, depth, shortcut in (
        (cell.rnn_rows, 0, False),
        (cell.rnn_rows, 1, True),
        (cell.rnn_rows, 10, False),
        (cell.rnn_rows, 2**31 - 1, False),
        (cell.mgu, 5, False),
        (cell.lstm, 2, False),  # of the fused cells and of those without products
        (cell.min_gru, 2, False),
    ):
        with pytest.raises(ValueError, match=r"^transition_depth: expected"):
            spec(of, depth, shortcut)
    H = 4
    w = np.zeros((H, H), np.float32)
    outer, deep = (w, w, None, None), spec(cell.rnn_rows, 3, True)
    for inner, bias, error in (
        (None, None, "^w_inner: expected"),
        (np.zeros((2 * H, H), np.float32), None, "^w_inner: expected"),
        (np.zeros((3 * H, H), np.float32), np.zeros(3 * H, np.float32), "^b_inner: expected"),
    ):
        with pytest.raises((TypeError, ValueError), match=error):
            rc._core.Stack(deep, [(*outer, inner, bias, None)], 1, True)
    with pytest.raises(TypeError, match=r"^b_inner: expected None"):
        rc._core.Stack(spec(cell.rnn_rows, 1, False), [(*outer, None, np.zeros(H, np.float32), None)], 1, True)
    rc._core.Stack(deep, [(*outer, np.zeros((3 * H, H), np.float32), np.zeros(2 * H, np.float32), None)], 1, True)


@full
def test_first_values(kind, options):
    layer = kind(3, 8, num_layers=2, **options, rng=0)
    for name, array in layer.parameters.items():
        if name.startswith("weight_norm"):
            assert (array == 1).all()
        elif name.startswith(("bias_norm", "initial_")):
            assert not array.any()
        else:
            assert array.any()
            assert np.abs(array).max() <= 1 / np.sqrt(8)


def test_layers_without_biases_have_shifts():
    assert list(rc.GRU(3, 8, bias=False, layer_norm=True).parameters) == [
        "weight_ih_l0", "weight_hh_l0", "weight_norm_l0", "bias_norm_l0",
    ]  # fmt: skip


# ---------------------------------------------------------------------------------------------------- files, copies


@full
def test_layers_come_back_from_files_copies_and_descriptions(kind, options, tmp_path, rng):
    layer = kind(3, 8, num_layers=2, bidirectional=True, **options, rng=0)
    layer.flat_parameters[...] = rng.uniform(-0.5, 0.5, layer.flat_parameters.shape)
    x = rng.standard_normal((2, 5, 3)).astype(np.float32)
    y = layer(x)[0]
    layer.save(tmp_path / "layer.safetensors")
    twins = {
        "file": rc.load(tmp_path / "layer.safetensors"),
        "pickle": pickle.loads(pickle.dumps(layer)),
        "copy": copy.copy(layer),
        "deepcopy": copy.deepcopy(layer),
        "repr": eval(repr(layer), {kind.__name__: kind}),
        "config": kind(**layer.config()),
    }
    for way, twin in twins.items():
        assert repr(twin) == repr(layer), way
        for name, value in options.items():
            assert getattr(twin, name) == value, way
        twin.load_parameters(layer.parameters)
        assert np.array_equal(twin(x)[0], y), way
    for way in ("pickle", "deepcopy"):  # which draw the same masks
        (a, _), pull_back = twins[way].vjp(x)
        (b, _), pull_back_again = copy.deepcopy(layer).vjp(x)
        assert np.array_equal(a, b)
        assert np.array_equal(pull_back(a)[0], pull_back_again(b)[0])
    assert np.array_equal(pickle.loads(pickle.dumps(layer.frozen()))(x)[0], y)


def test_a_name_and_a_tuple_of_it_are_the_same():
    a, b = rc.GRU(3, 4, activation=("elu",), rng=0), rc.GRU(3, 4, activation="elu", rng=0)
    assert repr(a) == repr(b) == "GRU(3, 4, activation='elu')"
    assert rc.RNN(3, 4, nonlinearity=["elu", 1]).nonlinearity == ("elu", 1.0)
    assert rc.LSTM(3, 4, zoneout=[0, 0.5]).zoneout == (0.0, 0.5)


# ------------------------------------------------------------------------------------------ models, training, streams


@full
@pytest.mark.parametrize("ragged", [False, True])
def test_contract(kind, options, ragged, rng):
    """Of what a training call of it is when nothing is drawn: `check_layer` draws differences from several calls."""
    quiet = {k: v for k, v in options.items() if k not in ("zoneout", "input_dropout", "recurrent_dropout")}
    layer = kind(3, 8, num_layers=2, **quiet, dtype=np.float64, rng=1)
    check_layer(layer, rng.standard_normal((4, 6, 3)), lengths=[6, 2, 0, 5] if ragged else None)


@pytest.mark.parametrize("vocabulary", [4, 5000])
@full
def test_tokens_in_front(kind, options, vocabulary, rng):
    """An embedding and a layer, against the layer on the vectors."""
    table, layer = rc.Embedding(vocabulary, 3, dtype=np.float64, rng=0), kind(3, 8, **options, dtype=np.float64, rng=1)
    model = rc.Sequential(table, layer, rc.Linear(layer.output_size, 2, dtype=np.float64, rng=2))
    alone = rc.Sequential(copy.deepcopy(layer), copy.deepcopy(model.layers[2]))
    tokens, lengths = rng.integers(0, vocabulary, (5, 40)), [40, 3, 0, 17, 40]
    y = model(tokens, lengths)
    assert np.array_equal(y, alone(table(tokens), lengths))
    (y, _), pull_back = model.vjp(tokens, None, lengths)
    (expected, _), pull_back_alone = alone.vjp(table(tokens), None, lengths)
    assert np.array_equal(y, expected)
    dy = rng.standard_normal(y.shape)
    pull_back(dy)
    dx, _ = pull_back_alone(dy)
    of_table = np.zeros((vocabulary, 3))
    np.add.at(of_table, tokens.ravel(), dx.reshape(-1, 3))
    assert worst_error(model.gradients["0.weight"], of_table) < 1e-12
    for name, gradient in alone.gradients.items():
        index, rest = name.split(".", 1)
        assert (
            worst_error(model.gradients[f"{int(index) + 1}.{rest}"], gradient, max(1, np.abs(gradient).max())) < 1e-12
        )


@full
def test_a_trainer_trains_them(kind, options, rng):
    x = rng.standard_normal((64, 10, 3)).astype(np.float32)
    layer = kind(3, 8, num_layers=2, **options, rng=0)
    model = rc.Sequential(layer, rc.Last(), rc.Linear(layer.output_size, 1, rng=1))
    before = {name: array.copy() for name, array in model.parameters.items()}
    trainer = rc.Trainer(model, rc.MSE(), rc.Adam(0.02))
    for _ in range(60):
        trainer.step(x, x[:, -1, :1])
    assert rc.MSE()(model(x), x[:, -1, :1]) < 0.5
    for name, array in model.parameters.items():
        assert not np.array_equal(array, before[name]), name


@full
def test_streams_that_learn(kind, options, rng):
    """From the whole history, with the masks that a copy draws: as a training call from its first state does."""
    layer = kind(3, 8, **options, num_layers=2, dtype=np.float64, rng=0)
    model = rc.Sequential(layer, rc.Linear(layer.output_size, 1, dtype=np.float64, rng=1))
    for name, array in model.parameters.items():
        if "initial" in name:
            array[...] = rng.standard_normal(array.shape)
    twin = copy.deepcopy(model)
    stream = model.stream(2, loss=rc.MSE(), optimizer=rc.SGD(0.1, weight_decay=0.01), window=6)
    first, x, target = stream.state, rng.standard_normal((2, 6, 3)), rng.standard_normal((2, 1))
    for t in range(5):
        stream.step(x[:, t])
    output, _ = stream.learn(x[:, 5], target)
    (y, last), pull_back = twin.vjp(x, first)
    assert np.array_equal(output, y[:, -1])
    dy = np.zeros_like(y)
    dy[:, -1] = rc.MSE().with_gradient(y[:, -1], target).gradient
    pull_back(dy)
    rc.SGD(0.1, weight_decay=0.01).step(twin.flat_parameters, twin.flat_gradients)
    assert np.array_equal(model.flat_parameters, twin.flat_parameters)
    assert_same_states(stream.state, last)
    # what is learned is in use, first states among it
    stream.reset()
    assert_same_states(stream.state, model.stream(2).state)
    stream.step(x[:, 0])
    stream.state = None
    assert_same_states(stream.state, model.stream(2).state)
    assert np.array_equal(stream.process(x), model(x))


def assert_same_states(a, b):
    if isinstance(a, tuple):
        for one, other in zip(a, b, strict=True):
            assert_same_states(one, other)
    else:
        assert (a is b is None) or np.array_equal(a, b)


# ------------------------------------------------------------------------------------------------------------- torch


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("num_layers", [1, 2, 3])
def test_projection_is_that_of_torch(num_layers, bidirectional, ragged, isa, rng):
    torch = pytest.importorskip("torch")
    from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

    options = {"proj_size": 5, "bidirectional": bidirectional}
    theirs = torch.nn.LSTM(6, 17, num_layers, batch_first=True, **options, dtype=torch.float64)
    ours = rc.LSTM(6, 17, num_layers, **options, dtype=np.float64)
    assert sorted(ours.parameters) == sorted(theirs.state_dict())
    ours.load_parameters(theirs.state_dict())
    lengths = [9, 1, 4, 7] if ragged else None
    x = rng.standard_normal((4, 9, 6))
    passes = num_layers * (1 + bidirectional)
    state, dstate = (tuple(rng.standard_normal((passes, 4, size)) for size in (5, 17)) for _ in "ab")

    tensors = [torch.tensor(s, requires_grad=True) for s in state]
    tx = torch.tensor(x, requires_grad=True)
    sequence = tx
    if ragged:
        sequence = pack_padded_sequence(tx, torch.tensor(lengths), batch_first=True, enforce_sorted=False)
    ty, tlast = theirs(sequence, tuple(tensors))
    if ragged:
        ty, _ = pad_packed_sequence(ty, batch_first=True, total_length=9)
    (y, last), pull_back = ours.vjp(x, state, lengths)
    for got, expected in zip((y, *last), (ty, *tlast), strict=True):
        assert worst_error(got, expected.detach().numpy()) < 1e-13
    dy = rng.standard_normal(y.shape)
    torch.autograd.backward([ty, *tlast], [torch.tensor(d) for d in (dy, *dstate)])
    dx, dfirst = pull_back(dy, dstate)
    for got, tensor in zip((dx, *dfirst), (tx, *tensors), strict=True):
        assert worst_error(got, tensor.grad.numpy()) < 1e-11
    for name, tensor in theirs.named_parameters():
        assert worst_error(ours.gradients[name], tensor.grad.numpy()) < 1e-11
