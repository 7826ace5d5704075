"""How far a run of training is, and its file: all that it takes to go on as if nothing had happened."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rnncore import files
from rnncore.layer import State

if TYPE_CHECKING:
    from rnncore.training import Trainer

__all__ = ["Progress"]

Array = NDArray[Any]


@dataclass
class Progress:
    """How far a run is.

    Examples
    --------
    >>> run = Progress()
    >>> run.add("loss", 2.0, weight=1.0)
    >>> run.add("loss", 1.0, weight=3.0)
    >>> run.mean()
    1.25
    """

    epoch: int = 0  # the next to end
    batch: int = 0  # of the epoch, the next to be computed
    piece: int = 0  # of that batch, where truncated BPTT cuts it
    order: Mapping[str, Any] | None = None  # state of the generator from which the order of the epoch is drawn
    state: State = None  # of the model, after the last batch
    sums: dict[str, list[float]] = field(default_factory=dict)  # of this epoch: weighted sum and weight, by figure
    seconds: float = 0.0  # of this epoch
    rows: list[dict[str, Any]] = field(default_factory=list)  # of the history
    best: Array | None = None  # parameters
    best_value: float | None = None
    worse: int = 0  # epochs since then
    stopped: bool = False  # early

    def add(self, name: str, mean: float, weight: float) -> None:
        """Count a figure of a batch."""
        total = self.sums.setdefault(name, [0.0, 0.0])
        total[0] += mean * weight
        total[1] += weight

    def mean(self, name: str = "loss") -> float:
        """Return the mean of a figure over the epoch so far."""
        total, weight = self.sums.get(name, (0.0, 0.0))
        return total / weight if weight else 0.0

    def next_epoch(self) -> None:
        """Begin the next epoch."""
        self.epoch += 1
        self.batch = self.piece = 0
        self.order = self.state = None
        self.sums = {}
        self.seconds = 0.0


_APART = ("state", "best")  # what is made of arrays


def write_checkpoint(path: str | os.PathLike[str], trainer: Trainer, run: Progress) -> None:
    """Write a run to a file, in one piece or not at all; see `files.write` for errors."""
    arrays = {"parameters": trainer.model.flat_parameters}
    if run.best is not None:
        arrays["best"] = run.best
    optimizer = {}
    for name, value in trainer.optimizer.state_dict().items():
        optimizer[name] = _put(arrays, f"optimizer.{name}", value)
    values = {f.name: getattr(run, f.name) for f in fields(run) if f.name not in _APART}
    values["order"] = run.order or trainer.rng.bit_generator.state
    description = {
        "model": trainer.model.description(),
        "run": values,
        "state": _put(arrays, "state", run.state),
        "optimizer": optimizer,
        "generators": {name: rng.bit_generator.state for name, rng in trainer.model.generators().items()},
    }
    files.write(path, "checkpoint", arrays, description)


def read_checkpoint(path: str | os.PathLike[str], trainer: Trainer) -> Progress:
    """Bring a trainer and its model to where the run of a file was; nothing is changed if that fails.

    Raises
    ------
    OSError
        If it cannot be read.
    ValueError
        If it is damaged, or of another model or optimiser.
    """
    name = os.fspath(path)
    arrays, description = files.read(path, "checkpoint")
    expected = trainer.model.description()
    if files.as_json(expected) != files.as_json(description.get("model")):
        raise ValueError(f"{name}: expected a checkpoint of {expected}, got one of {description.get('model')}")
    parameters = arrays["parameters"]
    if parameters.shape != trainer.model.flat_parameters.shape:
        raise ValueError(f"{name}: expected {trainer.model.flat_parameters.size} parameters, got {parameters.size}")
    run = Progress(**description["run"])
    run.state = _take(arrays, description["state"])
    run.best = arrays.get("best")
    generators = trainer.model.generators()
    if generators.keys() != description["generators"].keys():
        raise ValueError(f"{name}: expected the generators {list(generators)}, got {list(description['generators'])}")
    trainer.optimizer.load_state_dict({name: _take(arrays, value) for name, value in description["optimizer"].items()})
    trainer.model.flat_parameters[...] = parameters
    for path_, state in description["generators"].items():
        generators[path_].bit_generator.state = state
    return run


def _put(arrays: dict[str, Array], name: str, value: Any) -> Any:
    """Put the arrays in a value aside, under names that begin with this one; return the rest, as JSON knows it."""
    if isinstance(value, np.ndarray):
        arrays[name] = value
        return {"array": name}
    if isinstance(value, tuple | list):
        return [_put(arrays, f"{name}.{index}", item) for index, item in enumerate(value)]
    if isinstance(value, dict):
        return {"dict": {key: _put(arrays, f"{name}.{key}", item) for key, item in value.items()}}
    return value


def _take(arrays: dict[str, Array], value: Any) -> Any:
    """Undo `_put`; lists have become tuples."""
    if isinstance(value, list):
        return tuple(_take(arrays, item) for item in value)
    if isinstance(value, dict):
        if "array" in value:
            return arrays[value["array"]]
        return {key: _take(arrays, item) for key, item in value["dict"].items()}
    return value
