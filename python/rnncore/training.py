"""Training of models: the loop over data with checkpoints, validation, early stopping, and exact resumption."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rnncore import metrics as metrics_
from rnncore._conversion import as_lengths
from rnncore.batches import Batch, DataSet
from rnncore.callbacks import Callback, StepInfo
from rnncore.checkpoints import Progress, read_checkpoint, write_checkpoint
from rnncore.clipping import clip_norm, clip_value
from rnncore.display import Display, Interrupts
from rnncore.history import History
from rnncore.layer import Layer, State
from rnncore.optim import Optimizer
from rnncore.ragged import Joined, Ragged, is_list

__all__ = ["Trainer"]

Array = NDArray[Any]
_Piece = tuple[Any, Any, Any, Any]  # x, targets, lengths, weights


class Trainer:
    """Train a model on data, and measure it.

    Parameters
    ----------
    model : Layer
        A `Sequential`, or any layer.
    loss
        With ``with_gradient(outputs, targets, lengths, weights)``, as all of `rnncore.losses` have.
    optimizer : Optimizer
        Steps the model's flat vector.
    clip_norm : float, optional
        Scale gradients down to this norm where theirs is larger.
    clip_value : float, optional
        Bring every gradient into +-clip_value.
    tbptt : int, optional
        Truncated BPTT: cut every batch into pieces of so many steps, update after each, and carry the state on to
        the next without its gradient. Targets must then be per step.
    accumulate : int
        Batches whose gradients are summed up for one update; their mean is weighted as if they were one batch.
    metrics : sequence of str or Metric
        Measured beside the loss: "accuracy", "perplexity", "bits_per_character", "mae", "rmse",
        "label_error_rate".
    callbacks : sequence of Callback
        Told of every step and epoch.
    rng : numpy.random.Generator or int
        Source of the order of the data.

    Examples
    --------
    >>> import numpy as np
    >>> import rnncore as rc
    >>> series = np.sin(np.arange(400) / 5).astype(np.float32)[:, None]
    >>> data = rc.data.Windows(series, length=20, batch_size=32)
    >>> model = rc.Sequential(rc.GRU(1, 16, rng=0), rc.Last(), rc.Linear(16, 1, rng=1))
    >>> trainer = rc.Trainer(model, rc.MSE(), rc.Adam(0.01), metrics=["rmse"])
    """

    def __init__(
        self,
        model: Layer,
        loss: Any,
        optimizer: Optimizer,
        *,
        clip_norm: float | None = None,
        clip_value: float | None = None,
        tbptt: int | None = None,
        accumulate: int = 1,
        metrics: Sequence[str | metrics_.Metric] = (),
        callbacks: Sequence[Callback] = (),
        rng: np.random.Generator | int = 0,
    ) -> None:
        for name, limit in (("clip_norm", clip_norm), ("clip_value", clip_value)):
            if limit is not None and not limit > 0:
                raise ValueError(f"{name}: expected a positive number, got {limit!r}")
        for name, count in (("tbptt", 1 if tbptt is None else tbptt), ("accumulate", accumulate)):
            if not isinstance(count, int | np.integer) or count < 1:
                raise ValueError(f"{name}: expected a positive integer, got {count!r}")
        if not hasattr(loss, "with_gradient"):
            raise TypeError(f"loss: expected one with a method with_gradient, got {loss!r}")
        self.model = model
        self.loss = loss
        self.optimizer = optimizer
        self.clip_norm = clip_norm
        self.clip_value = clip_value
        self.tbptt = tbptt
        self.accumulate = accumulate
        self.metrics = [metrics_.named(metric) for metric in metrics]
        self.callbacks = list(callbacks)
        self.rng = np.random.default_rng(rng)

    # --------------------------------------------------------------------------------------------- one update

    def step(
        self,
        x: Any,
        targets: Any,
        lengths: ArrayLike | None = None,
        weights: ArrayLike | None = None,
        state: State = None,
    ) -> tuple[float, State]:
        """Make one update on one batch.

        Parameters
        ----------
        x, targets, lengths, weights
            A batch, as the model and the loss take it.
        state : optional
            State of the model to begin in. Default: zeros.

        Returns
        -------
        loss : float
            On the batch, before the update.
        state
            Of the model after the batch.

        Raises
        ------
        FloatingPointError
            If the loss or a gradient is not finite; the parameters are as they were.
        """
        self.model.zero_gradients()
        value, _, state, _ = self._pull(x, targets, lengths, weights, state)
        self._update(value)
        return value, state

    def _pull(
        self, x: Any, targets: Any, lengths: ArrayLike | None, weights: ArrayLike | None, state: State
    ) -> tuple[float, float, State, Any]:
        """Add the gradients of a batch to the model's: loss, weight, new state, outputs."""
        x = self._without_lists(x)
        self.model.on_step(self.optimizer.steps)
        (outputs, state), pull_back = self.model.vjp(x, state, lengths)
        if lengths is not None:
            lengths = self.model.output_lengths(lengths)
        value, weight, gradient = self.loss.with_gradient(outputs, targets, lengths, weights)
        if self.accumulate > 1:
            gradient = gradient * np.asarray(weight, gradient.dtype)  # of the sum; divided by all weights in the end
        pull_back(gradient)
        return value, weight, state, outputs

    def _update(self, loss: float) -> float:
        """Step the parameters along the model's gradients; return their norm."""
        gradients = self.model.flat_gradients
        norm = clip_norm(gradients, math.inf if self.clip_norm is None else self.clip_norm)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            self._stop(loss, norm)
        if self.clip_value is not None:
            clip_value(gradients, self.clip_value)
        self.optimizer.step(self.model.flat_parameters, gradients)
        return norm

    def _stop(self, loss: float, norm: float) -> None:
        """Say what a loss or gradient that is not finite looks like."""
        norms = {name: f"{np.linalg.norm(gradient):.3g}" for name, gradient in self.model.gradients.items()}
        raise FloatingPointError(
            f"step {self.optimizer.steps + 1}: the loss is {loss:.6g} and the norm of the gradient {norm:.3g}, at a "
            f"learning rate of {self.optimizer.current_learning_rate:.3g}; norms by parameter: {norms}. The "
            "parameters are those before this step"
        )

    # -------------------------------------------------------------------------------------------------- runs

    def fit(
        self,
        data: DataSet,
        epochs: int,
        *,
        validation: DataSet | None = None,
        patience: int | None = None,
        monitor: str | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        checkpoint_steps: int | None = None,
        checkpoint_minutes: float | None = None,
        resume: bool = False,
        progress: bool | None = None,
    ) -> History:
        """Train for some epochs.

        Parameters
        ----------
        data : data set
            With ``epoch(rng)``: any of `rnncore.data`, or one of your own.
        epochs : int
            How often to go through it.
        validation : data set, optional
            Measured after every epoch.
        patience : int, optional
            Early stopping: end after so many epochs without a better figure, with the best parameters seen. Needs
            `validation`.
        monitor : str, optional
            The figure that `patience` watches: "loss" (default) or the name of a metric, on the validation data.
        checkpoint : path-like, optional
            Where to keep all that is needed to go on, written after every epoch, and in between as the next two say.
            Each replaces the one before in one step.
        checkpoint_steps : int, optional
            Write one every so many steps of the optimiser.
        checkpoint_minutes : float, optional
            Write one every so many minutes.
        resume : bool
            Go on from the file `checkpoint`, if there is one: the run then ends in the very bits of one that was
            never interrupted. Everything must be made as it was for that run: model, loss, optimiser, data, options.
        progress : bool, optional
            Whether to show a progress bar. Default: if standard error is a terminal.

        Returns
        -------
        History
            Figures of every epoch, those before a resumption among them. Its attribute `interrupted` tells whether
            Ctrl-C ended the run; what was learnt until then stays, and is in the checkpoint.

        Raises
        ------
        FloatingPointError
            If the loss or a gradient is not finite. The parameters are those before that step, and the last
            checkpoint stays.
        ValueError
            If the data set is empty, or options do not fit each other or the checkpoint.
        OSError
            If a checkpoint cannot be written or read; the one before stays.
        """
        if not isinstance(epochs, int | np.integer) or epochs < 0:
            raise ValueError(f"epochs: expected an integer from 0, got {epochs!r}")
        if patience is not None and validation is None:
            raise ValueError("patience: expected validation data, which it watches")
        if checkpoint is None and (resume or checkpoint_steps or checkpoint_minutes):
            raise ValueError("checkpoint: expected the path of a file, got None")
        watched = self._watched(monitor)

        run = Progress()
        if resume and checkpoint is not None and os.path.exists(checkpoint):
            run = read_checkpoint(checkpoint, self)
        written = time.monotonic()
        finished = False
        with Display(progress, epochs) as display, Interrupts() as interrupts:
            while run.epoch < epochs and not run.stopped and not finished:
                begin = time.monotonic()
                if run.order is None:  # the state from which the order of this epoch is drawn
                    run.order = self.rng.bit_generator.state
                self.rng.bit_generator.state = run.order
                epoch = data.epoch(self.rng)
                if not len(epoch):
                    raise ValueError("data: expected at least one batch in an epoch, got none")
                display.begin(run.epoch, len(epoch), run.batch)
                for info in self._steps(epoch, run):
                    display.step(run.batch, lambda: self._figures(run), info.learning_rate)
                    for callback in self.callbacks:
                        callback.on_step(self, info)
                    if checkpoint is not None and (
                        (checkpoint_steps and info.step % checkpoint_steps == 0)
                        or (checkpoint_minutes and time.monotonic() - written > 60 * checkpoint_minutes)
                        or interrupts.asked
                    ):
                        run.seconds += time.monotonic() - begin
                        begin = written = time.monotonic()
                        write_checkpoint(checkpoint, self, run)
                    if interrupts.asked:
                        finished = True
                        break
                if finished:
                    break
                run.seconds += time.monotonic() - begin
                row = self._end_epoch(run, validation)
                self._watch(run, row, watched, patience)
                if checkpoint is not None:
                    write_checkpoint(checkpoint, self, run)
                    written = time.monotonic()
                display.end(row)
                for callback in self.callbacks:
                    callback.on_epoch(self, row)
                finished = interrupts.asked
        if run.best is not None and not finished:
            self.model.flat_parameters[...] = run.best
        history = History(run.rows)
        history.interrupted = finished
        for callback in self.callbacks:
            callback.on_end(self, history)
        return history

    def _steps(self, epoch: Sequence[Batch], run: Progress) -> Iterator[StepInfo]:
        """Go through the rest of an epoch; `run` tells, at every step of the optimiser, how far it is."""
        model = self.model
        model.zero_gradients()
        loss_sum = weight_sum = 0.0
        pulled = 0
        for (x, targets, lengths, weights), goes_on in self._remaining(epoch, run):
            value, weight, run.state, outputs = self._pull(x, targets, lengths, weights, run.state if goes_on else None)
            counted = None if lengths is None else model.output_lengths(lengths)
            run.add("loss", value, weight)
            for metric in self.metrics:
                run.add(metric.name, *metric.measure(outputs, targets, counted, weights))
            loss_sum, weight_sum = loss_sum + value * weight, weight_sum + weight
            pulled += 1
            if pulled < self.accumulate and run.batch < len(epoch):
                continue
            mean = loss_sum / weight_sum if weight_sum else 0.0
            if self.accumulate > 1 and weight_sum:
                model.flat_gradients *= np.asarray(1.0 / weight_sum, model.dtype)
            rate = self.optimizer.current_learning_rate
            norm = self._update(value if pulled == 1 else mean)
            model.zero_gradients()
            loss_sum = weight_sum = 0.0
            pulled = 0
            yield StepInfo(self.optimizer.steps, run.epoch + 1, mean, norm, rate)

    def _remaining(self, epoch: Sequence[Batch], run: Progress) -> Iterator[tuple[_Piece, bool]]:
        """Go through the pieces of the rest of an epoch, each with whether it goes on from the state of the last."""
        while run.batch < len(epoch):
            batch = epoch[run.batch]
            pieces = self._pieces(batch)
            for index in range(run.piece, len(pieces)):
                last = index + 1 == len(pieces)
                run.batch, run.piece = (run.batch + 1, 0) if last else (run.batch, index + 1)
                yield pieces[index], batch.carry or index > 0

    def _pieces(self, batch: Batch) -> list[_Piece]:
        """Cut a batch in time, as truncated BPTT does."""
        x, targets, lengths, weights = batch.x, batch.targets, batch.lengths, batch.weights
        if self.tbptt is None:
            return [(x, targets, lengths, weights)]
        x = self._without_lists(x)
        if isinstance(x, Ragged):
            raise ValueError(f"tbptt: expected batches with padding, such as those of data sets, got {x!r}")
        T = np.shape(x)[1] if np.ndim(x) > 1 else 0
        if self.tbptt >= T:
            return [(x, targets, lengths, weights)]
        shape = "a list" if isinstance(targets, list) else np.shape(targets)
        if shape[:2] != np.shape(x)[:2]:
            raise ValueError(f"tbptt: expected targets for every step, ({np.shape(x)[0]}, {T}, ...), got {shape}")
        if lengths is not None:
            lengths = as_lengths(lengths, *np.shape(x)[:2])
        pieces = []
        for begin in range(0, T, self.tbptt):
            end = min(begin + self.tbptt, T)
            part = None if lengths is None else np.clip(lengths - begin, 0, end - begin)
            if begin and part is not None and not part.any():
                break  # all have ended
            own = weights if weights is None or np.ndim(weights) < 2 else weights[:, begin:end]
            pieces.append((x[:, begin:end], targets[:, begin:end], part, own))
        return pieces

    # ------------------------------------------------------------------------------------------ measurements

    def evaluate(self, data: DataSet) -> dict[str, float]:
        """Measure the loss and the metrics on a data set, without dropout.

        Parameters
        ----------
        data : data set
            As for `fit`; its order is not shuffled.

        Returns
        -------
        dict of str to float
            ``loss`` and the metrics by name: means over all that is counted in all batches.

        Raises
        ------
        ValueError
            If it has no batches.
        """
        sums = Progress()
        state: State = None
        epoch = data.epoch(None)
        if not len(epoch):
            raise ValueError("data: expected at least one batch, got none")
        for index in range(len(epoch)):
            x, targets, lengths, weights, carry = epoch[index]
            outputs, state = self.model.run(self._without_lists(x), state if carry else None, lengths)
            counted = None if lengths is None else self.model.output_lengths(lengths)
            measured = self.loss.with_gradient(outputs, targets, counted, weights)
            sums.add("loss", measured.value, measured.weight)
            for metric in self.metrics:
                sums.add(metric.name, *metric.measure(outputs, targets, counted, weights))
        return self._figures(sums)

    def predict(self, x: Any, lengths: ArrayLike | None = None, batch_size: int = 256) -> Any:
        """Return the outputs of the model, computed in batches.

        Parameters
        ----------
        x : array_like, (N, T, ...)
            As the model takes it, but of any N. Or a list of N arrays (T_n, ...), or a `Packed`.
        lengths : array_like of int (N,) or of bool (N, T), optional
            Valid steps of each sequence, or a mask that is True at them.
        batch_size : int
            Rows that are computed at a time.

        Returns
        -------
        y : ndarray, (N, ...)
            A list or a `Packed` if x is one and the outputs have steps.
        """
        if not isinstance(batch_size, int | np.integer) or batch_size < 1:
            raise ValueError(f"batch_size: expected a positive integer, got {batch_size!r}")
        if isinstance(x, Ragged):
            x.structure(lengths)
            runs = [self.model.run(part)[0] for part in x.parts(batch_size)]
            if not isinstance(runs[0], Ragged):
                return np.concatenate(runs)
            return x.with_data(x.arranged("outputs", [y for run in runs for y in run.to_list()]))
        if is_list(x, self.model.input_shape):
            if lengths is not None:
                raise ValueError("lengths: expected None, since x has its own")
            runs = [self.model.run(x[n : n + batch_size])[0] for n in range(0, len(x), batch_size)]
            return [y for run in runs for y in run] if isinstance(runs[0], list) else np.concatenate(runs)
        array = x if isinstance(x, np.ndarray) else np.asarray(x)
        part = None if lengths is None else np.asarray(lengths)
        outputs = [
            self.model.run(array[n : n + batch_size], None, None if part is None else part[n : n + batch_size])[0]
            for n in range(0, max(len(array), 1), batch_size)
        ]
        return outputs[0] if len(outputs) == 1 else np.concatenate(outputs)

    def _without_lists(self, x: Any) -> Any:
        """Join a list of sequences, so that outputs and their gradient are no lists either."""
        return Joined.of("x", x) if is_list(x, self.model.input_shape) else x

    def _figures(self, sums: Progress) -> dict[str, float]:
        return {"loss": sums.mean()} | {metric.name: metric.finish(sums.mean(metric.name)) for metric in self.metrics}

    def _end_epoch(self, run: Progress, validation: DataSet | None) -> dict[str, Any]:
        """Close an epoch: its row of the history, and `run` at the start of the next."""
        row: dict[str, Any] = {"epoch": run.epoch + 1, **self._figures(run)}
        if validation is not None:
            measured = self.evaluate(validation)
            row |= {f"validation_{name}": value for name, value in measured.items()}
            observe = getattr(self.optimizer.learning_rate, "observe", None)
            if observe is not None:
                observe(measured["loss"])
        row |= {
            "learning_rate": self.optimizer.current_learning_rate,
            "steps": self.optimizer.steps,
            "seconds": run.seconds,
        }
        run.rows.append(row)
        run.next_epoch()
        return row

    def _watched(self, monitor: str | None) -> tuple[str, bool]:
        """Return the figure that early stopping watches, and whether more of it is better."""
        larger = {metric.name: metric.larger_is_better for metric in self.metrics} | {"loss": False}
        name = "loss" if monitor is None else monitor
        if name not in larger:
            raise ValueError(f"monitor: expected one of {sorted(larger)}, got {monitor!r}")
        return f"validation_{name}", larger[name]

    def _watch(self, run: Progress, row: dict[str, Any], watched: tuple[str, bool], patience: int | None) -> None:
        """Keep the best parameters, and tell when there was no better figure for too long."""
        if patience is None:
            return
        name, larger = watched
        value = row[name]
        if run.best_value is None or (value > run.best_value if larger else value < run.best_value):
            run.best_value, run.best, run.worse = value, self.model.flat_parameters.copy(), 0
        else:
            run.worse += 1
            run.stopped = run.worse >= patience
