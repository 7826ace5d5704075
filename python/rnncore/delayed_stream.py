"""Streams of layers that see some steps that are to come: each output is there when those steps are."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from typing import Any, NoReturn, Self

import numpy as np
from numpy.typing import ArrayLike

from rnncore._core import Stack
from rnncore.layer import Array, Layer
from rnncore.merging import merged
from rnncore.models import Sequential
from rnncore.python_stream import RowsOfSteps, _require_streamed
from rnncore.recurrent import _Recurrent
from rnncore.stateless import RowWise
from rnncore.streaming import check_class

__all__ = ["DelayedStream"]


class DelayedStream(RowsOfSteps):
    """What `stream()` returns of layers with a `look_ahead` or `look_back`, and of a `Sequential` that has some.

    A layer with a `look_ahead` of k gives its output for a step when k more steps have come, so outputs come `delay`
    steps late: the sum of k over the layers that are stacked on each other. Bits are those of a call on the whole
    sequences. With `look_back` alone there is no delay.

    At each step every layer reads one window of k + 1 steps again. All rows begin and end together. The parameters are
    copied as they are now: what becomes of the model afterwards does not change the stream. It does not `learn`.

    Parameters
    ----------
    model : Layer
        Recurrent layers, those in both directions with a `look_ahead`, without a `chunk`; and a `Sequential` of these,
        `LayerNorm`, and what `Stream` or `PythonStream` take.
    batch_size : int, optional
        N, the number of rows, 0 or more. Default: one sequence, and no axis N anywhere.

    Attributes
    ----------
    delay : int
        Steps between an input and its output.
    dtype : dtype
        Of the parameters and the outputs.

    Raises
    ------
    TypeError, ValueError
        If a layer cannot be streamed.

    Examples
    --------
    >>> import numpy as np
    >>> import rnncore as rc
    >>> layer = rc.GRU(3, 8, bidirectional=True, look_ahead=2, rng=0)
    >>> stream = layer.stream()
    >>> stream.delay
    2
    >>> x = np.random.default_rng(0).standard_normal((5, 3), dtype=np.float32)
    >>> outputs = [stream.step(x_t) for x_t in x]
    >>> outputs[:2]
    [None, None]
    >>> y = np.concatenate([np.stack(outputs[2:]), stream.flush()])
    >>> bool((y == layer(x)[0]).all())
    True
    """

    def __init__(self, model: Layer, batch_size: int | None = None) -> None:
        super().__init__(model, batch_size)
        self._stages = list(_stages(self._model, self._rows))
        self.delay = sum(stage.delay for stage in self._stages)

    def step(self, x: ArrayLike, out: Array | None = None) -> Array | None:
        """Take the next step of every row, and return the output of the step `delay` steps before.

        Parameters
        ----------
        x : array_like, (N, I)
            Or tokens (N,) if the model begins with an embedding. Without the axis N if the stream has none.
        out : ndarray, optional
            Where the output is written if there is one, of its shape and dtype.

        Returns
        -------
        ndarray, (N, O), or None
            None at the first `delay` steps.
        """
        shape = (self.output_size,) if self._unbatched else (self._rows, self.output_size)
        if out is not None and (type(out), out.dtype, out.shape) != (np.ndarray, self.dtype, shape):
            raise ValueError(f"out: expected {self.dtype} {shape}, got {type(out).__name__} {np.shape(out)}")
        y = next(self._outputs(0, [self._input(x, 0)]), None)
        if y is None:
            return None
        y = y[0] if self._unbatched else y
        if out is None:
            return y
        out[...] = y
        return out

    def process(self, x: ArrayLike) -> Array:
        """Take the next T steps of every row, and return what outputs there are then.

        Parameters
        ----------
        x : array_like, (N, T, I)
            Or tokens (N, T) if the model begins with an embedding. Without the axis N if the stream has none.

        Returns
        -------
        ndarray, (N, T, O)
            Fewer steps than T while the first outputs are not there.
        """
        series = self._input(x, 1)
        return self._series(self._outputs(0, series.swapaxes(0, 1)))

    def flush(self) -> Array:
        """End the sequences: return the outputs of the last steps, whose windows end there, and begin anew.

        Returns
        -------
        ndarray, (N, `delay`, O)
            Of fewer steps, if there were fewer. Without the axis N if the stream has none.
        """
        rest = [y for first, stage in enumerate(self._stages) for y in self._outputs(first + 1, stage.finish())]
        self.reset()
        return self._series(rest)

    def _outputs(self, first: int, steps: Iterable[Array]) -> Iterator[Array]:
        """Take steps through the stages from one on."""
        for x in steps:
            y: Array | None = x
            for stage in self._stages[first:]:
                y = None if y is None else stage.push(y)
            if y is not None:
                yield y

    def _series(self, outputs: Iterable[Array]) -> Array:
        steps = list(outputs)
        y = np.stack(steps, axis=1) if steps else np.zeros((self._rows, 0, self.output_size), self.dtype)
        return y[0] if self._unbatched else y

    # ----------------------------------------------------------------------------------------------------- rows

    def reset(self, rows: ArrayLike | None = None) -> None:
        """Begin anew, and forget the steps whose outputs are not there yet. Of all rows; ValueError for `rows`."""
        if rows is not None:
            raise ValueError("rows: expected None, since all rows of a stream with windows begin together")
        for stage in self._stages:
            stage.begin()

    def attach(self, state: Any = None) -> NoReturn:
        """Raise ValueError: all rows begin together."""
        raise ValueError("attach: expected a stream without windows, whose rows come and go")

    def detach(self, row: int) -> NoReturn:
        """Raise ValueError: all rows end together."""
        raise ValueError("detach: expected a stream without windows, whose rows come and go")

    def learn(self, x: ArrayLike, targets: ArrayLike, weights: ArrayLike | None = None) -> NoReturn:
        """Raise ValueError: this stream does not learn."""
        raise ValueError("learn: expected a stream without windows, made with a loss and an optimizer")

    def fork(self) -> Self:
        """Return a stream in the same state that shares the parameters, and from now on goes its own way."""
        twin = type(self).__new__(type(self))
        vars(twin).update(vars(self))
        twin._stages = [stage.fork() for stage in self._stages]
        return twin

    __copy__ = fork


class _Steps:
    """A layer that takes one step after the other."""

    delay = 0

    def __init__(self, layer: Layer) -> None:
        self._layer = layer
        self.begin()

    def begin(self) -> None:
        self._state: Any = None

    def push(self, x: Array) -> Array:
        y, self._state = self._layer.run(np.expand_dims(x, 1), self._state)
        output: Array = y[:, -1] if y.ndim == 3 else y
        return output

    def finish(self) -> Iterator[Array]:
        return iter(())

    def fork(self) -> _Steps:
        return copy.copy(self)  # states are replaced, never written


class _Windowed:
    """One layer of a stack, whose directions read windows of steps."""

    def __init__(self, layer: _Recurrent, k: int, rows: int) -> None:
        self._layer, self._adds = layer, layer.skip and k > 0
        self.delay = layer.look_ahead or 0
        D, weights = layer._directions, layer._core_weights()
        self._passes = [
            layer._deep(index, Stack(layer._spec(), [weights[index]], 1, True)) for index in range(k * D, (k + 1) * D)
        ]
        first: Any = layer._with_initial((None,) * layer._states, rows) if layer.learn_initial_state else None
        self._first = [
            None if first is None else layer._joined(tuple(part[[index]] for part in first))
            for index in range(k * D, (k + 1) * D)
        ]
        self.begin()

    def begin(self) -> None:
        self._state = self._first[0]  # of a first direction that has no windows
        self._steps: list[Array] = []  # that outputs to come will see
        self._next = 0  # among them the one whose output is next

    def push(self, x: Array) -> Array | None:
        self._steps = [*self._steps, x.copy()]  # the caller may write to his
        return self._output() if len(self._steps) > self._next + self.delay else None

    def finish(self) -> Iterator[Array]:
        while self._next < len(self._steps):
            yield self._output()

    def fork(self) -> _Windowed:
        return copy.copy(self)  # lists and states are replaced, never changed

    def _output(self) -> Array:
        layer, now = self._layer, self._next
        x = self._steps[now]
        if layer.look_back is None:
            y, self._state = self._run(0, [x], self._state)
        else:
            y, _ = self._run(0, self._steps[: now + 1], self._first[0])
        outputs = [y]
        if len(self._passes) > 1:
            outputs.append(self._run(1, self._steps[now:][::-1], self._first[1])[0])
        joined = merged(layer.merge, outputs)
        seen = layer.look_back or 0
        gone = max(now + 1 - seen, 0)
        self._steps, self._next = self._steps[gone:], now + 1 - gone
        return joined + x if self._adds else joined

    def _run(self, index: int, steps: list[Array], state: Any) -> tuple[Array, Any]:
        """Read steps from a state: the last output, and the state then."""
        result = self._passes[index].forward(np.stack(steps, axis=1), state, None)
        assert result is not None
        return result[0][:, -1], result[1]


def _stages(model: Layer, rows: int) -> Iterator[_Steps | _Windowed]:
    if type(model) is Sequential:
        for layer in model.layers:
            yield from _stages(layer, rows)
    elif not model._has_context:
        if not isinstance(model, RowWise):  # which all take each step by itself
            _require_streamed(model, [])
        yield _Steps(model)
    elif not isinstance(model, _Recurrent):
        raise TypeError(f"model: expected layers with windows in a Sequential alone, got {model!r}")
    else:
        check_class(model)
        if model.bidirectional and model.look_ahead is None:
            raise ValueError(f"model: expected a look_ahead of layers in both directions, got {model!r}")
        if model.chunk > 1:
            raise ValueError(f"model: expected chunk=1, to be streamed, got {model!r}")
        for k in range(model.num_layers):
            yield _Windowed(model, k, rows)
