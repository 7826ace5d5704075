"""Streams of models with steps in Python: the methods of `Stream`, by whole calls that carry the state on."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rnncore import files
from rnncore._conversion import as_array, as_resets
from rnncore.streaming import Stages, State, rows_of, stages_of

if TYPE_CHECKING:
    from rnncore.layer import Layer

__all__ = ["PythonStream"]

Array = NDArray[Any]


class RowsOfSteps:
    """What streams in Python share: a model whose parameters are copied, and rows of input for it."""

    def __init__(self, model: Layer, batch_size: int | None) -> None:
        self._rows = rows_of(batch_size)
        self._unbatched = batch_size is None
        self._model = copy.deepcopy(model)
        self._model.flat_parameters.flags.writeable = False
        self.dtype = model.dtype
        self._tokens = len(model.input_shape()) == 2

    @property
    def batch_size(self) -> int:
        """The number of rows now; 1 if there is no axis N."""
        return self._rows

    @property
    def input_size(self) -> int:
        """I, the size of a row of input; of a token's vector, where tokens are taken."""
        first: Any = self._model
        while hasattr(first, "layers"):
            first = first.layers[0]
        size: int = first.output_size if self._tokens else first.input_size
        return size

    @property
    def output_size(self) -> int:
        """O, the number of outputs of a step."""
        size: int = self._model.output_shape(self._model.input_shape())[-1]
        return size

    def _input(self, x: ArrayLike, steps: int) -> Array:
        """Return x with an axis of the rows, checked."""
        tokens = np.asarray(x)
        if self._tokens and tokens.dtype.kind not in "iu":
            raise TypeError(f"x: expected integers, the tokens, got {tokens.dtype} {tokens.shape}")
        array = tokens if self._tokens else as_array("x", x, self.dtype)
        batch = () if self._unbatched else (self._rows,)
        T = array.shape[len(batch) : len(batch) + steps]
        if len(T) < steps or array.shape != (*batch, *T, *(() if self._tokens else (self.input_size,))):
            expected = (*batch, *("T",) * steps, *(() if self._tokens else (self.input_size,)))
            raise ValueError(f"x: expected ({', '.join(map(str, expected))}), got {array.shape}")
        return array[np.newaxis] if self._unbatched else array

    def __repr__(self) -> str:
        """Return what the stream runs, and for how many rows."""
        rows = "" if self._unbatched else f", batch_size={self._rows}"
        return f"{type(self).__name__}({self._model!r}{rows})"

    def _check_batched(self, method: str) -> None:
        if self._unbatched:
            raise ValueError(f"{method}: expected a stream with a batch_size, of which this is none")


class PythonStream(RowsOfSteps):
    """What `stream()` returns of a layer with a step in Python, a `Recurrent`, or of a model that has one.

    It has the methods of `Stream`, and gives the same results as whole calls, to the bits where a step gives a row the
    same bits whatever other rows there are. Every step is a whole call: some 70 us for each layer.

    The parameters are copied as they are now: what becomes of the model afterwards does not change the stream. It does
    not `learn`.

    Parameters
    ----------
    model : Layer
        A `Recurrent` that is not reversed, what `Stream` takes, and models of these; `Residual` and `Concat`, too. Of
        layers with `input_depth` or `output_depth`, those that are stacked and `skip`.
    batch_size : int, optional
        N, the number of rows, 0 or more. Default: one sequence, and no axis N anywhere.

    Attributes
    ----------
    dtype : dtype
        Of the parameters, the outputs and the states.

    Raises
    ------
    TypeError, ValueError
        If a layer cannot be streamed, as of `Stream`.

    Examples
    --------
    >>> import numpy as np
    >>> import rnncore as rc
    >>> class Sum(rc.Recurrent):
    ...     def __init__(self, size):
    ...         self.size = size
    ...         super().__init__({}, size, size)
    ...
    ...     def step_vjp(self, x, h):
    ...         return (h + x, h + x), lambda dy, dh: (dy + dh, dy + dh)
    >>> stream = Sum(1).stream()
    >>> [stream.step([value]).item() for value in (1, 2, 3)]
    [1.0, 3.0, 6.0]
    >>> stream.reset()
    >>> stream.process([[4], [5]]).ravel()
    array([4., 9.], dtype=float32)
    """

    def __init__(self, model: Layer, batch_size: int | None = None) -> None:
        _require_streamed(model, [])
        super().__init__(model, batch_size)
        self._state = self._zeros(self._rows)

    def _zeros(self, rows: int) -> State:
        """Return the state before the first step."""
        shape = (rows, 0) if self._tokens else (rows, 0, self.input_size)
        return self._model.run(np.zeros(shape, np.int64 if self._tokens else self.dtype))[1]

    # ---------------------------------------------------------------------------------------------------- steps

    def step(self, x: ArrayLike, out: Array | None = None) -> Array:
        """Take the next step of every row: x (N, I) to y (N, O), or tokens (N,) if the model begins with an embedding.

        Parameters
        ----------
        x : array_like
            Without the axis N if the stream has none.
        out : ndarray, optional
            Where y is written, of its shape and dtype.
        """
        return self._taken(np.expand_dims(self._input(x, 0), 1), out, None, lambda y: y[:, -1] if y.ndim == 3 else y)

    def process(self, x: ArrayLike, out: Array | None = None, reset_mask: ArrayLike | None = None) -> Array:
        """Take the next T steps of every row: x (N, T, I) to y (N, T, O).

        Parameters
        ----------
        x : array_like
            Tokens (N, T) if the model begins with an embedding. Without the axis N if the stream has none.
        out : ndarray, optional
            Where y is written, of its shape and dtype.
        reset_mask : array_like of bool, (N, T), optional
            True where a new episode starts: the row goes back to zero states before that step.
        """
        mask = None if reset_mask is None else as_resets(reset_mask, 0 if self._unbatched else None)
        return self._taken(self._input(x, 1), out, mask, lambda y: y)

    def learn(self, x: ArrayLike, targets: ArrayLike, weights: ArrayLike | None = None) -> NoReturn:
        """Raise ValueError: this stream does not learn."""
        raise ValueError("learn: expected a stream of compiled layers, made with a loss and an optimizer")

    def _taken(self, x: Array, out: Array | None, mask: Array | None, of: Callable[[Array], Array]) -> Array:
        """Run the model on some steps, and go on from the new state if all was well."""
        if mask is not None and mask.shape != x.shape[:2]:
            raise ValueError(f"reset_mask: expected bool {x.shape[:2]}, got {mask.shape}")
        if self._model.output_lengths(np.zeros(self._rows, np.int64)) is not None:
            y, state = self._model.run(x, self._state, None, *(() if mask is None else (mask,)))
        else:  # the last step alone is put out, so that it takes a call for each
            state, outputs = self._state, []
            for t in range(x.shape[1]):
                resets = () if mask is None else (mask[:, t : t + 1],)
                y, state = self._model.run(x[:, t : t + 1], state, None, *resets)
                outputs.append(y)
            y = np.stack(outputs, axis=1) if outputs else np.zeros((len(x), 0, self.output_size), self.dtype)
        y = of(y)
        y = y[0] if self._unbatched else y
        if out is not None:
            if (type(out), out.dtype, out.shape) != (np.ndarray, y.dtype, y.shape):
                raise ValueError(f"out: expected {y.dtype} {y.shape}, got {type(out).__name__} {np.shape(out)}")
            out[...] = y
        self._state = state
        return y if out is None else out

    # ----------------------------------------------------------------------------------------------------- rows

    def attach(self, state: State = None) -> int:
        """Add a row, the last one, for a sequence that begins; return its index.

        Parameters
        ----------
        state : optional
            Its state, as `row_state` returns one. Default: zeros.
        """
        self._check_batched("attach")
        new = self._zeros(1) if state is None else self._checked(state, 1, alone=True)
        self._state = _map(lambda a, b: np.concatenate([a, b], axis=1), self._state, new)
        self._rows += 1
        return self._rows - 1

    def detach(self, row: int) -> None:
        """Remove a row whose sequence has ended. **The last row takes its place**, so that rows stay without gaps."""
        self._check_batched("detach")
        self._check_row(row)
        kept = np.arange(self._rows - 1)
        kept[row : row + 1] = self._rows - 1
        self._state = _map(lambda a: a[:, kept], self._state)
        self._rows -= 1

    def reset(self, rows: int | Sequence[int] | Array | None = None) -> None:
        """Set the states of rows to zeros, as at their first step.

        Parameters
        ----------
        rows : int, array_like of int, or array_like of bool (N,), optional
            Which. Default: all.
        """
        index = np.arange(self._rows) if rows is None else np.asarray(rows)
        if index.dtype == np.bool_ and index.shape != (self._rows,):
            raise ValueError(f"rows: expected bool ({self._rows},), got {index.shape}")
        if index.dtype == np.bool_:
            index = np.flatnonzero(index)
        elif index.size and index.dtype.kind not in "iu":
            raise TypeError(f"rows: expected integers or bool ({self._rows},), got {index.dtype} {index.shape}")
        for row in index.ravel().tolist():
            self._check_row(row)
        self._put(index.ravel(), self._zeros(index.size))

    def fork(self) -> PythonStream:
        """Return a stream in the same state that shares the parameters, and from now on goes its own way."""
        twin = type(self).__new__(type(self))
        vars(twin).update(vars(self))  # states are replaced, never written
        return twin

    __copy__ = fork

    def _check_row(self, row: int) -> None:
        if not 0 <= row < self._rows:
            raise IndexError(f"row: expected one from 0 to {self._rows - 1}, got {row}")

    # --------------------------------------------------------------------------------------------------- states

    @property
    def state(self) -> State:
        """The state of all rows, in the form and shapes that the model has it; a copy. May be set."""
        return _map(lambda a: a[:, 0].copy() if self._unbatched else a.copy(), self._state)

    @state.setter
    def state(self, state: State) -> None:
        self._state = self._checked(state, self._rows, alone=self._unbatched)

    def row_state(self, row: int) -> State:
        """Return the state of one row, in the form of the state of an unbatched sequence: without the axis N."""
        self._check_row(row)
        return _map(lambda a: a[:, row].copy(), self._state)

    def set_row_state(self, row: int, state: State) -> None:
        """Set the state of one row, of the form that `row_state` returns."""
        self._check_row(row)
        self._put(np.array([row]), self._checked(state, 1, alone=True))

    def to_bytes(self) -> bytes:
        """Return the state of all rows as bytes in the safetensors format, to go on elsewhere."""
        return files.to_bytes(self._named())

    def from_bytes(self, data: bytes) -> None:
        """Set the state of all rows to what `to_bytes` returned, of a stream of such a model and as many rows.

        Raises
        ------
        ValueError
            If the bytes are something else; the state is unchanged then.
        """
        expected = self._named()
        arrays = files.from_bytes(data, expected)
        remaining = (arrays[name] for name in expected)
        self._state = _map(lambda _: next(remaining), self._state)

    def _named(self) -> dict[str, Array]:
        return {str(i): leaf for i, leaf in enumerate(_leaves(self._state))}

    def _put(self, rows: Array, state: State) -> None:
        def put(whole: Array, part: Array) -> Array:
            whole = whole.copy()
            whole[:, rows] = part
            return whole

        self._state = _map(put, self._state, state)

    def _checked(self, state: State, rows: int, alone: bool) -> State:
        """Return a state of the form of the stream's own, with an axis of the rows, which it lacks if it is `alone`."""

        def check(like: Any, value: Any) -> Any:
            if like is None and value is not None:
                raise ValueError(f"state: expected None for a layer without one, got {type(value).__name__}")
            if isinstance(like, tuple):
                parts = (None,) * len(like) if value is None else value
                if not isinstance(parts, tuple | list) or len(parts) != len(like):
                    raise ValueError(f"state: expected a tuple of {len(like)} states, got {type(value).__name__}")
                return tuple(map(check, like, parts))
            if like is None or value is None:
                return like
            expected = (like.shape[0], *like.shape[2:]) if alone else like.shape
            array = np.array(as_array("state", value, self.dtype))
            if array.shape != expected:
                raise ValueError(f"state: expected shape {expected}, got {array.shape}")
            return np.expand_dims(array, 1) if alone else array

        return check(self._zeros(rows), state)


def _require_streamed(model: Layer, stages: Stages) -> None:
    """Raise unless all layers take one step after the other, as the core's streams would say it."""
    parts: Any = getattr(model, "layers", None)
    if parts is None:
        stages_of(model, stages)
    for part in parts or ():
        _require_streamed(part, stages)


def _leaves(state: State) -> list[Array]:
    if isinstance(state, tuple):
        return [leaf for part in state for leaf in _leaves(part)]
    return [] if state is None else [state]


def _map(function: Callable[..., Array], state: State, *others: State) -> State:
    """Return the state with another array in the place of each."""
    if isinstance(state, tuple):
        return tuple(_map(function, *parts) for parts in zip(state, *others, strict=True))
    return None if state is None else function(state, *others)
