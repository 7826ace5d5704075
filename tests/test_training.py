"""The trainer: the same losses as torch, exact resumption, early stopping, what is shown and what is refused."""

import copy
import csv
import json
import math
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import rnncore as rc

TESTS = Path(__file__).resolve().parent


def classifier(dropout=0.0, dtype=np.float32):
    return rc.Sequential(
        rc.GRU(3, 8, num_layers=2, dropout=dropout, dtype=dtype, rng=1),
        rc.Dropout(dropout, rng=2),
        rc.Last(),
        rc.Linear(8, 4, dtype=dtype, rng=3),
    )


def labelled(count=24, batch_size=5, dtype=np.float32):
    """Ragged sequences whose label is the channel with the largest sum; and the last one for none."""
    rng = np.random.default_rng(7)
    x = [rng.standard_normal((rng.integers(2, 9), 3)).astype(dtype) for _ in range(count)]
    labels = np.array([part.sum(axis=0).argmax() if part.sum() > -2 else 3 for part in x])
    return rc.data.Sequences(x, labels, batch_size=batch_size, bucket=2)


def streams(batch_size=2, steps=7):
    series = np.random.default_rng(8).standard_normal((90, 2)).astype(np.float32)
    return rc.data.Streams(series, batch_size=batch_size, steps=steps)


def regressor():
    return rc.Sequential(rc.LSTM(2, 6, rng=1), rc.Dropout(0.2, rng=4), rc.Linear(6, 2, rng=2))


class StopAt(rc.Callback):
    """Ends a run in the middle of a step, as a crash does."""

    def __init__(self, step):
        self.step = step

    def on_step(self, trainer, info):
        if info.step == self.step:
            raise RuntimeError("crash")


def test_learns(rng):
    trainer = rc.Trainer(classifier(), rc.CrossEntropy(), rc.Adam(0.02), metrics=["accuracy"], clip_norm=1.0)
    data = labelled(60)
    before = trainer.evaluate(data)
    history = trainer.fit(data, 40, progress=False)
    after = trainer.evaluate(data)
    assert before["loss"] > 1.2
    assert after["loss"] < 0.3
    assert after["accuracy"] > 0.9
    assert len(history) == 40
    assert history["loss"][-1] < 0.4
    assert history["steps"][-1] == 40 * 12


def test_a_step_is_the_update_by_hand(rng):
    trainer = rc.Trainer(classifier(), rc.CrossEntropy(), rc.SGD(0.1))
    model = copy.deepcopy(trainer.model)
    x, targets = rng.standard_normal((4, 6, 3), dtype=np.float32), np.array([0, 1, 2, 3])
    value, state = trainer.step(x, targets, lengths=[6, 3, 1, 0])
    (y, _), pull_back = model.vjp(x, None, [6, 3, 1, 0])
    expected = rc.CrossEntropy().with_gradient(y, targets)
    pull_back(expected.gradient)
    assert value == expected.value
    assert np.shape(state[0]) == (2, 4, 8)
    np.testing.assert_allclose(
        trainer.model.flat_parameters, model.flat_parameters - 0.1 * model.flat_gradients, atol=1e-7
    )


def test_evaluate_and_predict(rng):
    model = classifier()
    trainer = rc.Trainer(model, rc.CrossEntropy(), rc.SGD(0.1), metrics=["accuracy", "perplexity"])
    data = labelled()
    figures = trainer.evaluate(data)
    losses, right, count = [], 0, 0
    for x, targets, lengths, *_ in data.epoch(None):
        y = model(x, lengths)
        losses.append(rc.CrossEntropy()(y, targets) * len(y))
        right, count = right + int((y.argmax(axis=1) == targets).sum()), count + len(y)
    assert math.isclose(figures["loss"], sum(losses) / count, rel_tol=1e-12)
    assert math.isclose(figures["accuracy"], right / count, rel_tol=1e-12)
    assert math.isclose(figures["perplexity"], math.exp(figures["loss"]), rel_tol=1e-6)
    x, lengths = rng.standard_normal((11, 5, 3), dtype=np.float32), rng.integers(0, 6, 11)
    assert np.array_equal(trainer.predict(x, lengths, batch_size=4), model(x, lengths))
    assert trainer.predict(x[:0]).shape == (0, 4)


def test_accumulated_batches_are_one_batch(rng):
    x, lengths = rng.standard_normal((12, 6, 3)), rng.integers(1, 7, 12)
    targets = rng.standard_normal((12, 6, 2))
    results = []
    for batch_size, accumulate in ((12, 1), (5, 3)):
        model = rc.Sequential(rc.GRU(3, 5, dtype=np.float64, rng=1), rc.Linear(5, 2, dtype=np.float64, rng=2))
        data = rc.data.Sequences(x, targets, lengths=lengths, per_step=True, batch_size=batch_size, shuffle=False)
        trainer = rc.Trainer(model, rc.MSE(), rc.SGD(0.5), accumulate=accumulate)
        history = trainer.fit(data, 3, progress=False)
        assert history["steps"] == [1, 2, 3]
        results.append((model.flat_parameters, history["loss"]))
    np.testing.assert_allclose(results[0][0], results[1][0], rtol=0, atol=1e-13)
    np.testing.assert_allclose(results[0][1], results[1][1], rtol=1e-13)


def test_truncated_bptt_carries_the_state(rng):
    """Pieces of a batch are trained in turn, each from the state of the one before."""
    x, targets = rng.standard_normal((3, 10, 2), dtype=np.float32), rng.standard_normal((3, 10, 1), dtype=np.float32)
    lengths = np.array([10, 7, 3])
    data = rc.data.Sequences(x, targets, lengths=lengths, per_step=True, batch_size=3, shuffle=False)
    model = rc.Sequential(rc.LSTM(2, 4, rng=0), rc.Linear(4, 1, rng=1))
    by_hand = rc.Trainer(copy.deepcopy(model), rc.MSE(), rc.Adam(0.01))
    trainer = rc.Trainer(model, rc.MSE(), rc.Adam(0.01), tbptt=4)
    history = trainer.fit(data, 1, progress=False)
    state = None
    for begin in (0, 4, 8):
        end = min(begin + 4, 10)
        part = np.clip(lengths - begin, 0, end - begin)
        _, state = by_hand.step(x[:, begin:end], targets[:, begin:end], part, None, state)
    assert np.array_equal(model.flat_parameters, by_hand.model.flat_parameters)
    assert history["steps"] == [3]


def test_truncated_bptt_of_sequences_without_steps(rng):
    x = rng.standard_normal((2, 6, 2), dtype=np.float32)
    data = rc.data.Sequences(x, x, lengths=[0, 0], per_step=True, batch_size=2)
    trainer = rc.Trainer(rc.Sequential(rc.GRU(2, 2, rng=0)), rc.MSE(), rc.SGD(0.1), tbptt=2)
    assert trainer.fit(data, 2, progress=False)["loss"] == [0.0, 0.0]


# ------------------------------------------------------------------------------------------------- resumption


def make(case):
    """A trainer, its data and the options of a run, always the same for a case."""
    if case == "ragged":
        schedule = rc.schedules.OnPlateau(0.02, patience=0, factor=0.5)
        trainer = rc.Trainer(classifier(dropout=0.3), rc.CrossEntropy(), rc.Adam(schedule), metrics=["accuracy"], rng=5)
        return trainer, labelled(), {"validation": labelled(9), "patience": 2}
    if case == "accumulate":
        trainer = rc.Trainer(classifier(dropout=0.3), rc.CrossEntropy(), rc.SGD(0.1, momentum=0.9), accumulate=2, rng=5)
        return trainer, labelled(), {}
    if case == "streams":
        schedule = rc.schedules.OneCycle(0.02, steps=40)
        trainer = rc.Trainer(regressor(), rc.MSE(), rc.AdamW(schedule), clip_norm=0.5)
        return trainer, streams(), {}
    x = np.random.default_rng(9).standard_normal((6, 20, 2)).astype(np.float32)
    trainer = rc.Trainer(regressor(), rc.MSE(), rc.RMSprop(0.01), tbptt=6, clip_value=0.1)
    return trainer, rc.data.Sequences(x, x**2, per_step=True, batch_size=4), {}


@pytest.mark.parametrize("case", ["ragged", "accumulate", "streams", "tbptt"])
@pytest.mark.parametrize("crash", [1, 4, 7])
@pytest.mark.parametrize("every", [1, 3, None])
def test_a_resumed_run_ends_in_the_same_bits(case, crash, every, tmp_path):
    trainer, data, options = make(case)
    whole = trainer.fit(data, 4, progress=False, **options)
    path = tmp_path / "run.safetensors"
    options |= {"checkpoint": path, "checkpoint_steps": every, "progress": False}
    broken, data, _ = make(case)
    broken.callbacks.append(StopAt(crash))
    with pytest.raises(RuntimeError, match="crash"):
        broken.fit(data, 4, **options)
    again, data, _ = make(case)
    resumed = again.fit(data, 4, resume=True, **options)
    assert np.array_equal(again.model.flat_parameters, trainer.model.flat_parameters)
    timeless = [{k: v for k, v in row.items() if k != "seconds"} for row in resumed.rows]
    assert timeless == [{k: v for k, v in row.items() if k != "seconds"} for row in whole.rows]
    # and once more: what has ended stays ended
    last, data, _ = make(case)
    assert len(last.fit(data, 4, resume=True, **options)) == len(whole)
    assert np.array_equal(last.model.flat_parameters, trainer.model.flat_parameters)


@pytest.mark.slow
def test_kills_lose_nothing(tmp_path, rng):
    """A run killed 20 times, at any moment, ends in the bits of one that never was."""
    command = [sys.executable, str(TESTS / "killed_run.py")]
    whole, path, final = tmp_path / "whole.npy", tmp_path / "run.safetensors", tmp_path / "final.npy"
    subprocess.run([*command, str(tmp_path / "other.safetensors"), str(whole)], check=True, timeout=120)
    kills = 0
    while kills < 20:
        with subprocess.Popen([*command, str(path), str(final)], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout.readline() == "begun\n"
            try:
                process.wait(rng.uniform(0.0, 0.25))
            except subprocess.TimeoutExpired:
                process.kill()
                kills += 1
        if final.exists():  # it came to its end: begin another
            assert np.array_equal(np.load(final), np.load(whole))
            final.unlink()
            path.unlink()
        elif path.exists():
            rc.files.read(path, "checkpoint")  # whole, always
    subprocess.run([*command, str(path), str(final)], check=True, timeout=120)
    assert np.array_equal(np.load(final), np.load(whole))


def test_checkpoints_by_the_clock(tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(rc.training, "write_checkpoint", lambda path, trainer, run: written.append(run.batch))
    trainer, data, _ = make("streams")
    trainer.fit(data, 1, checkpoint=tmp_path / "run", checkpoint_minutes=1e-9, progress=False)
    assert written == [1, 2, 3, 4, 5, 6, 7, 0]


def test_a_checkpoint_of_something_else_is_refused(tmp_path):
    path = tmp_path / "run.safetensors"
    trainer, data, _ = make("streams")
    trainer.fit(data, 1, checkpoint=path, progress=False)
    other = rc.Sequential(rc.GRU(2, 6, rng=1), rc.Dropout(0.2, rng=4), rc.Linear(6, 2, rng=2))
    before = other.flat_parameters.copy()
    with pytest.raises(ValueError, match=r"run\.safetensors: expected a checkpoint of .*GRU.*got one of .*LSTM"):
        rc.Trainer(other, rc.MSE(), rc.AdamW(0.1)).fit(data, 2, checkpoint=path, resume=True)
    assert np.array_equal(other.flat_parameters, before)
    same = regressor()
    with pytest.raises(ValueError, match="AdamW"):
        rc.Trainer(same, rc.MSE(), rc.SGD(0.1)).fit(data, 2, checkpoint=path, resume=True)
    assert np.array_equal(same.flat_parameters, regressor().flat_parameters)
    same.save(path)
    with pytest.raises(ValueError, match="expected a checkpoint, got a model"):
        trainer.fit(data, 2, checkpoint=path, resume=True)


# ------------------------------------------------------------------------------------ early stopping, the end


def test_early_stopping_restores_the_best(rng):
    x = rng.standard_normal((8, 5, 3), dtype=np.float32)
    data = rc.data.Sequences(x, rng.integers(0, 4, 8), batch_size=8)
    other = rc.data.Sequences(x[::-1].copy(), rng.integers(0, 4, 8), batch_size=8)
    seen = []

    class Keep(rc.Callback):
        def on_epoch(self, trainer, row):
            seen.append((row["validation_loss"], trainer.model.flat_parameters.copy()))

    trainer = rc.Trainer(classifier(), rc.CrossEntropy(), rc.Adam(0.03), callbacks=[Keep()])
    history = trainer.fit(data, 200, validation=other, patience=3, progress=False)
    best = min(range(len(seen)), key=lambda k: seen[k][0])
    assert len(history) == best + 4 < 200
    assert np.array_equal(trainer.model.flat_parameters, seen[best][1])


def test_early_stopping_on_a_metric_that_grows():
    trainer = rc.Trainer(classifier(), rc.CrossEntropy(), rc.SGD(1e-9), metrics=["accuracy"])
    history = trainer.fit(labelled(), 9, validation=labelled(), patience=2, monitor="accuracy", progress=False)
    assert len(history) == 3  # the first is as good as any


def test_ctrl_c_ends_cleanly(tmp_path):
    path = tmp_path / "run.safetensors"

    class Interrupt(rc.Callback):
        def on_step(self, trainer, info):
            if info.step == 3:
                signal.raise_signal(signal.SIGINT)

    trainer, data, _ = make("streams")
    handler = signal.getsignal(signal.SIGINT)
    trainer.callbacks.append(Interrupt())
    history = trainer.fit(data, 4, checkpoint=path, progress=False)
    assert history.interrupted
    assert len(history) == 0
    assert trainer.optimizer.steps == 3
    assert signal.getsignal(signal.SIGINT) is handler
    whole, data, _ = make("streams")
    whole.fit(data, 4, progress=False)
    again, data, _ = make("streams")
    assert not again.fit(data, 4, checkpoint=path, resume=True, progress=False).interrupted
    assert np.array_equal(again.model.flat_parameters, whole.model.flat_parameters)


def test_a_second_ctrl_c_interrupts():
    class Interrupt(rc.Callback):
        def on_step(self, trainer, info):
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    trainer, data, _ = make("streams")
    trainer.callbacks.append(Interrupt())
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(data, 1, progress=False)


def test_trains_outside_the_main_thread():
    trainer, data, _ = make("streams")
    done = []
    worker = threading.Thread(target=lambda: done.append(trainer.fit(data, 1, progress=False)))
    worker.start()
    worker.join(60)
    assert len(done) == 1


@pytest.mark.filterwarnings("ignore:invalid value encountered")
@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_what_is_not_finite_stops_and_loses_nothing(what, tmp_path):
    path = tmp_path / "run.safetensors"
    trainer, data, _ = make("streams")
    trainer.fit(data, 1, checkpoint=path, progress=False)
    kept = trainer.model.flat_parameters.copy()

    class Bad(rc.MSE):
        def with_gradient(self, *arguments):
            result = super().with_gradient(*arguments)
            if what == "loss":
                return result._replace(value=math.nan)
            return result._replace(gradient=result.gradient * np.inf)

    trainer.loss = Bad()
    with pytest.raises(FloatingPointError, match=r"step 8: the loss is .* learning rate of .*2\.weight"):
        trainer.fit(data, 1, checkpoint=path, progress=False)
    assert np.array_equal(trainer.model.flat_parameters, kept)
    assert np.array_equal(rc.files.read(path, "checkpoint")[0]["parameters"], kept)


# --------------------------------------------------------------------------------------------------- display


def test_the_bar_shows_what_matters(capsys):
    trainer, data, _ = make("streams")
    trainer.metrics = [rc.metrics.RMSE()]
    trainer.fit(data, 2, validation=data, progress=True)
    shown = capsys.readouterr().err
    for word in ("epoch 1/2", "epoch 2/2", "loss=", "rmse=", "validation_loss=", "batches/s"):
        assert word in shown
    trainer.fit(data, 1)  # standard error is no terminal here
    assert capsys.readouterr() == ("", "")


def test_history(tmp_path):
    trainer, data, _ = make("streams")
    history = trainer.fit(data, 3, validation=data, progress=False)
    assert history.names() == ["epoch", "loss", "validation_loss", "learning_rate", "steps", "seconds"]
    assert history["epoch"] == [1, 2, 3]
    assert list(history.to_dict()) == history.names()
    assert json.loads(json.dumps(history.to_dict()))["loss"] == history["loss"]
    history.to_csv(tmp_path / "history.csv")
    with open(tmp_path / "history.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["loss"]) for row in rows] == history["loss"]
    with pytest.raises(KeyError, match="accuracy: expected one of"):
        history["accuracy"]


def test_history_plots(tmp_path):
    pytest.importorskip("matplotlib").use("Agg")
    ax = rc.History([{"epoch": 1, "loss": 0.5, "validation_loss": 0.7}, {"epoch": 2, "loss": 0.25}]).plot()
    assert [line.get_label() for line in ax.get_lines()] == ["loss", "validation loss"]
    assert ax.get_lines()[0].get_ydata().tolist() == [0.5, 0.25]


# ---------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"clip_norm": 0.0}, ValueError, "clip_norm: expected a positive number, got 0.0"),
        ({"clip_value": math.nan}, ValueError, "clip_value: expected a positive number, got nan"),
        ({"tbptt": 0}, ValueError, "tbptt: expected a positive integer, got 0"),
        ({"accumulate": 1.5}, ValueError, "accumulate: expected a positive integer, got 1.5"),
        ({"metrics": ["f1"]}, ValueError, "metrics: expected one of .*'accuracy'.*got 'f1'"),
        ({"loss": abs}, TypeError, "loss: expected one with a method with_gradient"),
    ],
)
def test_wrong_options(options, error, message):
    arguments = {"model": regressor(), "loss": rc.MSE(), "optimizer": rc.SGD(0.1)} | options
    with pytest.raises(error, match=message):
        rc.Trainer(**arguments)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": -1}, "epochs: expected an integer from 0, got -1"),
        ({"patience": 2}, "patience: expected validation data"),
        ({"checkpoint_steps": 3}, "checkpoint: expected the path of a file, got None"),
        ({"resume": True}, "checkpoint: expected the path of a file, got None"),
        ({"monitor": "f1"}, r"monitor: expected one of \['loss'\], got 'f1'"),
        ({"data": type("Empty", (), {"epoch": lambda self, rng: []})()}, "data: expected at least one batch"),
    ],
)
def test_wrong_runs(options, message):
    trainer, data, _ = make("streams")
    with pytest.raises(ValueError, match=message):
        trainer.fit(**({"data": data, "epochs": 1, "progress": False} | options))


def test_truncated_bptt_needs_targets_of_steps():
    trainer = rc.Trainer(classifier(), rc.CrossEntropy(), rc.SGD(0.1), tbptt=2)
    with pytest.raises(ValueError, match=r"tbptt: expected targets for every step, \(5, \d, \.\.\.\), got \(5,\)"):
        trainer.fit(labelled(), 1, progress=False)


# ----------------------------------------------------------------------------------------------------- torch


def torch_optimizer(torch, name, parameters):
    return {
        "SGD": lambda: torch.optim.SGD(parameters, 0.1, momentum=0.9, nesterov=True),
        "RMSprop": lambda: torch.optim.RMSprop(parameters, 0.001),
        "Adam": lambda: torch.optim.Adam(parameters, 0.01),
        "AdamW": lambda: torch.optim.AdamW(parameters, 0.01),
    }[name]()


OPTIMIZERS = {
    "SGD": lambda: rc.SGD(0.1, momentum=0.9, nesterov=True),
    "RMSprop": lambda: rc.RMSprop(0.001),
    "Adam": lambda: rc.Adam(0.01),
    "AdamW": lambda: rc.AdamW(0.01),
}


@pytest.mark.parametrize("optimizer", sorted(OPTIMIZERS))
@pytest.mark.parametrize("task", ["lstm cross-entropy", "gru mse ragged", "two-way lstm ctc"])
def test_losses_are_those_of_torch(task, optimizer, rng):
    """The first 50 steps of training, from the same parameters on the same batches, within 1e-4."""
    torch = pytest.importorskip("torch")
    N, T, I, H, C = 6, 12, 5, 16, 7
    batches = [rng.standard_normal((N, T, I), dtype=np.float32) for _ in range(5)]
    lengths = None if task.startswith("lstm") else np.array([12, 9, 12, 8, 10, 7])
    two_way = "two-way" in task
    kind = "GRU" if "gru" in task else "LSTM"
    model = rc.Sequential(getattr(rc, kind)(I, H, bidirectional=two_way, rng=0), rc.Linear(H * (1 + two_way), C, rng=1))
    theirs = torch.nn.ModuleList(
        [
            getattr(torch.nn, kind)(I, H, batch_first=True, bidirectional=two_way),
            torch.nn.Linear(H * (1 + two_way), C),
        ]
    )
    theirs.load_state_dict({name: torch.tensor(value.copy()) for name, value in model.parameters.items()})
    if "ctc" in task:
        targets = [[rng.integers(1, C, rng.integers(0, 4)) for _ in range(N)] for _ in batches]
        loss = rc.CTC()
    elif "mse" in task:
        targets = [rng.standard_normal((N, T, C), dtype=np.float32) for _ in batches]
        loss = rc.MSE()
    else:
        targets = [rng.integers(0, C, (N, T)) for _ in batches]
        loss = rc.CrossEntropy()
    trainer = rc.Trainer(model, loss, OPTIMIZERS[optimizer]())
    ours = [trainer.step(batches[k % 5], targets[k % 5], lengths)[0] for k in range(50)]

    stepper = torch_optimizer(torch, optimizer, theirs.parameters())
    expected = []
    for k in range(50):
        x, target = torch.tensor(batches[k % 5]), targets[k % 5]
        if lengths is not None:
            packed = torch.nn.utils.rnn.pack_padded_sequence(
                x, torch.tensor(lengths), batch_first=True, enforce_sorted=False
            )
            hidden = torch.nn.utils.rnn.pad_packed_sequence(theirs[0](packed)[0], batch_first=True)[0]
        else:
            hidden = theirs[0](x)[0]
        y = theirs[1](hidden)
        if "ctc" in task:
            joined = torch.tensor(np.concatenate(target))
            sizes = torch.tensor([len(part) for part in target])
            value = torch.nn.functional.ctc_loss(
                y.log_softmax(-1).transpose(0, 1), joined, torch.tensor(lengths), sizes
            )
        elif "mse" in task:
            valid = torch.arange(T)[None] < torch.tensor(lengths)[:, None]
            value = ((y - torch.tensor(target)) ** 2)[valid].mean()
        else:
            value = torch.nn.functional.cross_entropy(y.flatten(0, 1), torch.tensor(target).flatten())
        stepper.zero_grad()
        value.backward()
        stepper.step()
        expected.append(value.item())
    assert ours[-1] != ours[0]
    np.testing.assert_allclose(ours, expected, rtol=1e-4)
