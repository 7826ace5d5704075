"""Streams that learn as they run: truncated back-propagation through time over the last steps, at every step.

Made by `stream()` of a layer or model, with a loss and an optimiser. Epochs over data that is there are the trainer's.
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rnncore._arguments import count, number
from rnncore.clipping import clip_norm as clip
from rnncore.streaming import Stages, State, Stream, _stateful, stages_of

if TYPE_CHECKING:
    from rnncore.delayed_stream import DelayedStream
    from rnncore.layer import Layer
    from rnncore.optim import Optimizer
    from rnncore.python_stream import PythonStream

    AnyStream: TypeAlias = Stream | PythonStream | DelayedStream

__all__ = ["Learnt", "OnlineStream"]

Array = NDArray[Any]


def stream_of(
    model: Layer, batch_size: int | None, loss: Any, optimizer: Any, window: int, clip_norm: float | None
) -> AnyStream:
    """Return the stream that `Layer.stream` makes of these arguments."""
    learns = not (loss is None and optimizer is None and clip_norm is None)
    if model._has_context:
        from rnncore.delayed_stream import DelayedStream

        if learns:
            raise TypeError(f"model: expected layers without windows, to learn as they stream, got {model!r}")
        return DelayedStream(model, batch_size)
    if model._in_python:
        from rnncore.python_stream import PythonStream

        if learns:
            raise TypeError(f"model: expected compiled layers, to learn as they stream, got {model!r}")
        return PythonStream(model, batch_size)
    if not learns:
        return Stream(model, batch_size)
    return OnlineStream(model, batch_size, loss=loss, optimizer=optimizer, window=window, clip_norm=clip_norm)


class Learnt(NamedTuple):
    """What a stream returns for a step that it learnt from: the output and the loss of it, both before the update."""

    output: Array
    loss: float


class _Window:
    """Inputs (N, ...) of the last steps, and the state of the stream before each: all that go with one step more."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._inputs: Array | None = None  # (N, 2 size, ...), so that steps side by side are moved once in `size` steps
        self._end = 0
        self._states: deque[State] = deque(maxlen=size - 1)

    def clear(self) -> None:
        self._inputs, self._end = None, 0
        self._states.clear()

    def copy(self) -> _Window:
        twin = _Window(self.size)
        twin._inputs, twin._end = None if self._inputs is None else self._inputs.copy(), self._end
        twin._states.extend(self._states)
        return twin

    def next(self, x: Array, state: State) -> tuple[Array, State]:
        """Return inputs (N, steps, ...) that end with x, before which the stream has this state, and the first's."""
        kept = len(self._states)
        if self._inputs is None:
            self._inputs = np.empty((len(x), 2 * self.size, *x.shape[1:]), x.dtype)
        if self._end == 2 * self.size:
            self._inputs[:, :kept] = self._inputs[:, self._end - kept : self._end]
            self._end = kept
        self._inputs[:, self._end] = x  # behind the window: nothing is lost if x does not enter it
        return self._inputs[:, self._end - kept : self._end + 1], self._states[0] if kept else state

    def enter(self, state: State) -> None:
        """Take the x that was last given to `next`."""
        self._end += 1
        self._states.append(state)


class OnlineStream(Stream):
    """A stream that can `learn`: what `stream()` of a layer or model returns if it is given a loss and an optimiser.

    Truncated back-propagation through time over a sliding window, BPTT(h) of Williams & Peng (1990) with h = `window`.
    At each step with a target, the present parameters run the window forward, from the state that the stream had before
    its first step; the loss is that of the last step alone, so each target counts once; its gradient is pulled back
    through the window, and the optimiser makes one step. Memory is constant however long the stream runs; time grows
    with `window`.

    **It trains the model itself**, and goes on with the new parameters. Other streams of the model, forks among them,
    keep the weights that they have, until they learn something themselves.

    Parameters
    ----------
    model : Layer
        What `Stream` takes, `batch_first`. Dropout drops in `learn`, output and state included.
    batch_size : int, optional
        N, as for `Stream`.
    loss
        With ``with_gradient(outputs, targets, lengths, weights)``, as `rnncore.losses` have, for outputs (N, O).
    optimizer : Optimizer
        Steps the model's flat vector. One for each model.
    window : int
        Steps that a gradient goes through, the present one included.
    clip_norm : float, optional
        Scale gradients down to this norm where theirs is larger.

    Attributes
    ----------
    model, loss, optimizer, window, clip_norm
        As given.

    Raises
    ------
    TypeError
        If a layer cannot be streamed, or the loss or the optimiser are none.
    ValueError
        If there is one of the two alone, the layer is not `batch_first`, or a number is out of range.

    Notes
    -----
    The window has the steps that `step` and `learn` took. Whatever else changes a state begins it anew, from the state
    that there is then: `process`, `reset`, `attach`, `detach`, and setting the state, of one row or of all.

    `step` and `process` have the bits of a `Stream` made of the parameters after the last `learn`. With a target at
    every step, prefer `learn` alone: a `step` copies states for the window, which takes some microseconds.

    Examples
    --------
    >>> import numpy as np
    >>> import rnncore as rc
    >>> model = rc.Sequential(rc.GRU(1, 8, rng=0), rc.Linear(8, 1, rng=1))
    >>> stream = model.stream(loss=rc.MSE(), optimizer=rc.Adam(0.01), window=10, clip_norm=1.0)
    >>> series = np.sin(np.arange(1000) / 4).astype(np.float32)[:, None]
    >>> losses = [stream.learn(x, target).loss for x, target in zip(series[:-1], series[1:])]
    >>> sum(losses[-100:]) < 0.2 * sum(losses[:100])
    True
    """

    def __init__(
        self,
        model: Layer,
        batch_size: int | None = None,
        *,
        loss: Any,
        optimizer: Optimizer,
        window: int = 20,
        clip_norm: float | None = None,
    ) -> None:
        if loss is None or optimizer is None:
            raise ValueError("loss, optimizer: expected both, to learn, or neither and no clip_norm")
        for name, value, method in (("loss", loss, "with_gradient"), ("optimizer", optimizer, "step")):
            if not hasattr(value, method):
                raise TypeError(f"{name}: expected one with a method {method}, got {value!r}")
        if not getattr(model, "batch_first", True):
            raise ValueError(f"model: expected a layer with batch_first=True, to learn, got {model!r}")
        super().__init__(model, batch_size)
        self.model = model
        self.loss = loss
        self.optimizer = optimizer
        self.window = count("window", window)
        self.clip_norm = None if clip_norm is None else number("clip_norm", clip_norm, "> 0")
        self._window = _Window(self.window)
        self._stages: Stages = []
        self._stages_of: Array | None = None  # the vector that these have views of
        self._has_copies = any(leaf.initial is not None for leaf in _stateful(self._states))

    # ------------------------------------------------------------------------------------------------ learning

    def learn(self, x: ArrayLike, targets: ArrayLike, weights: ArrayLike | None = None) -> Learnt:
        """Take the next step of every row, and train the model on it.

        Parameters
        ----------
        x : array_like, (N, I)
            As for `step`: tokens (N,) if the model begins with an embedding. No axis N if there is none.
        targets : array_like, (N, ...)
            As the loss takes them for outputs (N, O). No axis N if there is none.
        weights : array_like, (N,), optional
            How much each row counts; 0 for one without a target. If nothing counts, there is no update: the
            optimiser's step is not made. Default: 1.

        Returns
        -------
        Learnt
            ``output``, (N, O), made before the target was looked at, with the parameters that `step` would have used
            and in the same bits, if since the first step of the window the parameters have not changed; else from
            states that the present parameters make of the window. ``loss``, of that output: the weighted mean over
            rows.

        Raises
        ------
        ValueError, TypeError
            If an argument has the wrong shape, value or type. Stream and parameters are unchanged then.
        FloatingPointError
            If the loss or a gradient is not finite. Stream and parameters are unchanged then.
        """
        inputs = self._converted(x)
        rows = () if self._unbatched else (self.batch_size,)
        expected = rows if self._takes_tokens else (*rows, self.input_size)
        if inputs.shape != expected:
            raise ValueError(f"x: expected {inputs.dtype} {expected}, got {inputs.dtype} {inputs.shape}")
        if self._unbatched:
            inputs, targets = inputs[np.newaxis], np.asarray(targets)[np.newaxis]
            weights = None if weights is None else np.asarray(weights)[np.newaxis]

        before = self._present()
        series, first = self._window.next(inputs, before)
        self.model.zero_gradients()
        (y, state), pull_back = self.model.vjp(series, first)
        output = np.array(y if y.ndim == 2 else y[:, -1])  # many to one has no axis of time
        value, weight, gradient = self.loss.with_gradient(output, targets, None, weights)
        if weight:
            if y.ndim > 2:
                dy = np.zeros_like(y)
                dy[:, -1] = gradient
                gradient = dy
            pull_back(gradient)
            self._update(value)

        self._window.enter(before)
        for leaf, parts in self._checked(self._states, state, (len(inputs),)):
            for stage, own in leaf.apart(parts):
                super()._write_state(stage, 0, len(inputs), own)
        # at first, when the model became part of another, and where stages have copies, of learned initial states
        if self.model.flat_parameters is not self._stages_of or self._has_copies:
            self._stages, self._stages_of = [], self.model.flat_parameters
            self._states = stages_of(self.model, self._stages)
        self._renew(self._packed(self._stages))
        return Learnt(output[0] if self._unbatched else output, value)

    def _update(self, loss: float) -> None:
        """Step the model's parameters along its gradients."""
        gradients = self.model.flat_gradients
        norm = clip(gradients, math.inf if self.clip_norm is None else self.clip_norm)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise FloatingPointError(
                f"step {self.optimizer.steps + 1}: the loss is {loss:.6g} and the norm of the gradient {norm:.3g}. The "
                "stream and the parameters are those before this step"
            )
        self.optimizer.step(self.model.flat_parameters, gradients)

    def _present(self) -> State:
        return self._read(self._states, 0, self.batch_size, alone=False)

    # ------------------------------------------------------------------------------------ what the window sees

    def step(self, x: ArrayLike, out: Array | None = None) -> Array:
        """Take the next step of every row, without a target: as of a `Stream`. It enters the window."""
        before = self._present()
        y = super().step(x, out)
        inputs = self._converted(x)
        self._window.next(inputs[np.newaxis] if self._unbatched else inputs, before)
        self._window.enter(before)
        return y

    def process(self, x: ArrayLike, out: Array | None = None, reset_mask: ArrayLike | None = None) -> Array:
        """Take the next T steps of every row, without targets: as of a `Stream`. The window begins after them."""
        self._window.clear()
        return super().process(x, out, reset_mask)

    def fork(self) -> Self:
        """Return a stream in the same state, window included, that from now on goes its own way.

        It trains the same model, with the same optimiser. A `Stream` to compare with is that of a copied model.
        """
        twin = super().fork()
        twin._window = self._window.copy()
        return twin

    __copy__ = fork

    def _attach(self) -> int:
        self._window.clear()
        return super()._attach()

    def _detach(self, row: int, /) -> None:
        self._window.clear()
        super()._detach(row)

    def _reset(self, row: int, /) -> None:
        self._window.clear()
        super()._reset(row)

    def _write_state(self, stage: int, begin: int, end: int, parts: tuple[Array, ...], /) -> None:
        self._window.clear()
        super()._write_state(stage, begin, end, parts)
