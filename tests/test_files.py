"""Files of models: what is saved comes back, what is damaged is refused, what cannot be written loses nothing."""

import json
import os
import resource
import signal
import subprocess
import sys

import numpy as np
import pytest

import rnncore as rc


def test_models_come_back_whole(tmp_path, rng):
    path = tmp_path / "model.safetensors"
    shared = rc.GRU(4, 4, rng=2)
    model = rc.Sequential(
        rc.Embedding(9, 4, padding_index=0, rng=1),
        shared,
        rc.Residual(rc.Sequential(rc.LayerNorm(4), rc.Activation("tanh"), rc.Linear(4, 4, activation="relu", rng=0))),
        shared,
        rc.Concat(rc.RNN(4, 2, nonlinearity="relu", rng=3), rc.LSTM(4, 3, bidirectional=True, dropout=0.1, rng=4)),
        rc.Dropout(0.25),
        rc.MeanPool(),
        rc.Repeat(3),
    )
    model.save(path)
    again = rc.load(path)
    assert repr(again) == repr(model)
    assert again.layers[1] is again.layers[3]
    x = rng.integers(0, 9, (2, 5))
    assert np.array_equal(again(x), model(x))
    from safetensors.numpy import load_file

    stored = load_file(path)
    assert list(stored) == sorted(model.parameters)
    assert all(np.array_equal(stored[name], value) for name, value in model.parameters.items())
    double = rc.GRU(2, 3, dtype="float64", rng=0)
    double.save(path)
    assert rc.load(path).dtype == np.float64


@pytest.mark.parametrize(
    "model",
    [
        rc.Sequential(rc.Linear(3, 4, rng=0), rc.ChildSumTreeLSTM(4, 5, rng=1), rc.Root()),
        rc.TreeRNN(3, 4, rng=0),
        rc.Seq2Seq(rc.GRU(3, 4, rng=0), rc.GRU(3, 4, rng=1), "dot", rng=2),
        rc.GRU(3, 4, bidirectional=True, look_ahead=2, input_depth=2, transition_depth=2, rng=0),
    ],
    ids=lambda model: type(model).__name__,
)
def test_a_program_that_has_imported_nothing_else_loads_them(tmp_path, model):
    path = tmp_path / "model.safetensors"
    model.save(path)
    code = "import sys, rnncore as rc; print(repr(rc.load(sys.argv[1])))"
    said = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True).stdout
    assert said.strip() == repr(model)


def test_files_that_are_no_models(tmp_path):
    path = tmp_path / "model.safetensors"
    with pytest.raises(FileNotFoundError):
        rc.load(path)
    rc.GRU(2, 3, rng=0).save(path)
    content = path.read_bytes()
    for damaged in (b"", content[:20], content[:-1], b"PK" + content[2:]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"model\.safetensors: not a whole safetensors file"):
            rc.load(path)
    from safetensors.numpy import save

    path.write_bytes(save({"weight": np.zeros(3)}))
    with pytest.raises(ValueError, match="not one that rnncore wrote"):
        rc.load(path)

    def described(**changes):
        header = {"format": 1, "kind": "model", "description": {"type": "GRU", "input_size": 2, "hidden_size": 3}}
        return save(dict(rc.GRU(2, 3).parameters), {"rnncore": json.dumps(header | changes)})

    path.write_bytes(described())
    assert repr(rc.load(path)) == "GRU(2, 3)"
    for changes, message in (
        ({"format": 2}, "expected format 1, got 2: written by a newer rnncore"),
        ({"kind": "checkpoint"}, "expected a model, got a checkpoint"),
        ({"description": {"type": "XRNN"}}, "expected a type of layer that is known here, got 'XRNN'"),
        ({"description": {"type": "GRU", "input_size": 2, "hidden_size": 4}}, "expected real numbers"),
        ({"description": {"type": "GRU", "sizes": 2}}, "sizes"),
    ):
        path.write_bytes(described(**changes))
        with pytest.raises(ValueError, match=message):
            rc.load(path)
    path.write_bytes(save({"weight": np.zeros(3)}, {"rnncore": "{"}))
    with pytest.raises(ValueError, match="its description is damaged"):
        rc.load(path)


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path):
    path = tmp_path / "model.safetensors"
    model = rc.GRU(20, 30, rng=0)
    model.save(path)
    before = path.read_bytes()
    model.flat_parameters[...] = 0
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limit[1]))  # as a full disk would
        with pytest.raises(OSError, match=r"large|space"):
            model.save(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["model.safetensors"]
    with pytest.raises(OSError, match="nowhere"):
        model.save(tmp_path / "nowhere" / "model.safetensors")
    with pytest.raises(OSError, match="proc"):
        model.save("/proc/model.safetensors")
