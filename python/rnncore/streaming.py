"""Models that take their steps as they come: weights packed once, states inside, nothing allocated for a step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rnncore import _core, files
from rnncore._conversion import as_array

if TYPE_CHECKING:
    from rnncore.layer import Layer
    from rnncore.online import Learnt

__all__ = ["Stream"]

Array = NDArray[Any]
State = Any  # as layers have it
Stages = list[tuple[Any, ...]]  # as the core's programs take them


class Stateful(NamedTuple):
    """What has a state: a stage, or several whose states are those of the layers of a stack."""

    stages: tuple[int, ...]  # of the program, an embedding not counted: one for all layers, or one for each
    names: tuple[str, ...]  # of its parts, and their
    sizes: tuple[int, ...]
    layers: int
    initial: tuple[Array, ...] | None  # what a sequence begins with, each (L, 1, size); None for zeros

    def apart(self, parts: tuple[Array, ...]) -> Iterator[tuple[int, tuple[Array, ...]]]:
        """Go through the stages, each with its own of a state (L, rows, size)."""
        if len(self.stages) == 1:
            yield self.stages[0], parts
            return
        for k, stage in enumerate(self.stages):
            yield stage, tuple(part[k : k + 1] for part in parts)


# What `Layer._stream_stages` returns: where a layer has its states, in the form of its state.
States = Stateful | None | tuple["States", ...]


def stages_of(layer: Layer, stages: Stages) -> States:
    """Append the stages of a layer, unless its class computes something else than the one that says them."""
    check_class(layer)
    return layer._stream_stages(stages)


def check_class(layer: Layer) -> None:
    """Raise for many networks, and if a layer's class computes something else than the one that says its stages."""
    if layer.models is not None:
        raise ValueError(f"model: expected one network, got {layer!r}")
    classes = type(layer).__mro__

    def first(name: str) -> int:
        return next((index for index, kind in enumerate(classes) if name in vars(kind)), len(classes))

    if any(first(method) < first("_stream_stages") for method in ("__call__", "run", "_input", "_forward", "_rows")):
        raise TypeError(f"model: expected layers that can be streamed, got {layer!r}, of a class of its own")


def rows_of(batch_size: int | None) -> int:
    """Return the number of rows of a stream, whose batch axis is that of one row if it has none."""
    if batch_size is None:
        return 1
    if isinstance(batch_size, bool) or not isinstance(batch_size, int | np.integer) or batch_size < 0:
        raise ValueError(f"batch_size: expected an integer of at least 0 or None, got {batch_size!r}")
    return int(batch_size)


def _stateful(states: States) -> Iterator[Stateful]:
    if isinstance(states, Stateful):
        yield states
    elif states is not None:
        for part in states:
            yield from _stateful(part)


class Stream(_core.Stream):
    """What `stream()` of a layer or model returns: it takes the steps of a batch of sequences as they come.

    The rows of a stream are sequences of their own. Each step takes one row of input for every one of them and gives
    one row of output, in the bits that a call on whole sequences would give.

    The parameters are packed once, as they are now: what becomes of the model afterwards does not change the stream.
    One made with a loss and an optimiser can `learn`: see `OnlineStream`.

    A stream is for one thread at a time; streams of one model may run at the same time. Rows of a large batch are
    shared among the threads of `set_num_threads`; a step of few rows allocates nothing (with `out`) and takes no lock.

    Parameters
    ----------
    model : Layer
        Recurrent layers of one direction, `Linear`, `Embedding` (first), `Activation`, `Dropout`, which does nothing,
        and `Last`, which gives its step at every step; and a `Sequential` of these.
    batch_size : int, optional
        N, the number of rows, 0 or more. Default: one sequence, and no axis N anywhere.

    Attributes
    ----------
    batch_size : int
        The number of rows now; 1 if there is no axis N.
    dtype : dtype
        Of the parameters, the outputs and the states.

    Raises
    ------
    TypeError
        If a layer cannot be streamed.
    ValueError
        If a layer is of many networks, or bidirectional, so that a step needs those after it: with a `look_ahead`,
        `stream()` returns a `DelayedStream`.

    Examples
    --------
    >>> import numpy as np
    >>> import rnncore as rc
    >>> model = rc.Sequential(rc.GRU(3, 8, rng=0), rc.Linear(8, 2, rng=1))
    >>> x = np.ones((5, 3), dtype=np.float32)
    >>> stream = model.stream()
    >>> y = np.stack([stream.step(x_t) for x_t in x])
    >>> bool((y == model(x[np.newaxis])[0]).all())
    True

    Many sequences, whose rows come and go:

    >>> stream = model.stream(batch_size=2)
    >>> stream.step(np.ones((2, 3), dtype=np.float32)).shape
    (2, 2)
    >>> stream.attach()
    2
    >>> stream.detach(0)
    >>> stream.batch_size
    2
    """

    def __init__(self, model: Layer, batch_size: int | None = None) -> None:
        rows = rows_of(batch_size)
        stages: Stages = []
        self._states = stages_of(model, stages)
        self._model = repr(model)
        self.dtype = model.dtype
        self._unbatched = batch_size is None
        self._takes_tokens = bool(stages) and stages[0][0] == "embedding"
        super().__init__(self._packed(stages), rows, self._unbatched)

    def _packed(self, stages: Stages) -> _core.Program:
        return _core.Program(self.dtype == np.float32, stages)

    # ---------------------------------------------------------------------------------------------------- steps

    def learn(self, x: ArrayLike, targets: ArrayLike, weights: ArrayLike | None = None) -> Learnt:
        """Take the next step of every row and train the model on it, if the stream was made to: see `OnlineStream`.

        Raises
        ------
        ValueError
            If it was made without a loss and an optimiser.
        """
        raise ValueError("learn: expected a stream made with a loss and an optimizer, of which this is none")

    def _converted(self, x: ArrayLike) -> Array:
        """Return an input that the core does not take as it is."""
        if not self._takes_tokens:
            return as_array("x", x, self.dtype)
        tokens = np.asarray(x)
        if tokens.dtype.kind not in "iu" or not np.can_cast(tokens.dtype, np.int64):
            raise TypeError(f"x: expected integers, the tokens, got {tokens.dtype} {tokens.shape}")
        return np.require(tokens, np.int64, ["C", "A"])

    def _process_with_resets(self, x: ArrayLike, out: Array | None, reset_mask: ArrayLike) -> Array:
        """Go from one reset of any row to the next."""
        series, mask, time = self._converted(x), np.asarray(reset_mask), 0 if self._unbatched else 1
        if mask.dtype != np.bool_ or mask.shape != series.shape[: time + 1]:
            raise ValueError(f"reset_mask: expected bool {series.shape[: time + 1]}, got {mask.dtype} {mask.shape}")
        y = np.empty((*mask.shape, self.output_size), self.dtype)
        if out is not None and (type(out), out.dtype, out.shape) != (np.ndarray, y.dtype, y.shape):
            raise ValueError(f"out: expected {y.dtype} {y.shape}, got {type(out).__name__} {np.shape(out)}")
        resets = mask[np.newaxis] if self._unbatched else mask
        bounds = sorted({0, *np.flatnonzero(resets.any(axis=0)).tolist(), mask.shape[time]})
        before = self.state
        try:
            for begin, end in pairwise(bounds):
                self.reset(resets[:, begin])
                steps: Any = (..., slice(begin, end), *(slice(None),) * (series.ndim - time - 1))
                y[..., begin:end, :] = self.process(self._converted(series[steps]))
            if out is not None:
                out[...] = y
        except Exception:
            self.state = before
            raise
        return y if out is None else out

    # ----------------------------------------------------------------------------------------------------- rows

    def attach(self, state: State = None) -> int:
        """Add a row, the last one, for a sequence that begins.

        Parameters
        ----------
        state : optional
            Its state, as `row_state` returns one. Default: that of `reset`.

        Returns
        -------
        int
            The row: the number of rows before.
        """
        self._check_batched("attach")
        row = self._attach()
        if state is not None:
            try:
                self.set_row_state(row, state)
            except (TypeError, ValueError):
                self._detach(row)
                raise
        return row

    def detach(self, row: int) -> None:
        """Remove a row whose sequence has ended. **The last row takes its place**, so that rows stay without gaps."""
        self._check_batched("detach")
        self._detach(row)

    def reset(self, rows: int | Sequence[int] | Array | None = None) -> None:
        """Set the states of rows to what they are at their first step: zeros, unless a layer has learned others.

        Parameters
        ----------
        rows : int, array_like of int, or array_like of bool (N,), optional
            Which. Default: all.
        """
        N = self.batch_size
        index = np.arange(N) if rows is None else np.asarray(rows)
        if index.dtype == np.bool_:
            if index.shape != (N,):
                raise ValueError(f"rows: expected bool ({N},), got {index.shape}")
            index = np.flatnonzero(index)
        elif index.size and index.dtype.kind not in "iu":
            raise TypeError(f"rows: expected integers or bool ({N},), got {index.dtype} {index.shape}")
        if index.size and not 0 <= index.min() <= index.max() < N:
            raise IndexError(f"rows: expected some from 0 to {N - 1}, got {index.min()} to {index.max()}")
        for row in index.ravel().tolist():
            self._reset(row)

    def fork(self) -> Self:
        """Return a stream in the same state that shares the weights, and from now on goes its own way."""
        twin = type(self).__new__(type(self))
        _core.Stream.__init__(twin, self)
        vars(twin).update(vars(self))
        return twin

    __copy__ = fork

    def __repr__(self) -> str:
        """Return what the stream runs, and for how many rows."""
        rows = "" if self._unbatched else f", batch_size={self.batch_size}"
        return f"{type(self).__name__}({self._model}{rows})"

    def _check_batched(self, method: str) -> None:
        if self._unbatched:
            raise ValueError(f"{method}: expected a stream with a batch_size, of which this is none")

    # --------------------------------------------------------------------------------------------------- states

    @property
    def state(self) -> State:
        """The state of all rows, in the form and shapes that the model has it; a copy. May be set."""
        return self._read(self._states, 0, self.batch_size, alone=self._unbatched)

    @state.setter
    def state(self, state: State) -> None:
        self._write_all(0, self.batch_size, state, alone=self._unbatched)

    def row_state(self, row: int) -> State:
        """Return the state of one row, in the form of the state of an unbatched sequence: without the axis N."""
        return self._read(self._states, row, row + 1, alone=True)

    def set_row_state(self, row: int, state: State) -> None:
        """Set the state of one row, of the form that `row_state` returns."""
        self._write_all(row, row + 1, state, alone=True)

    def to_bytes(self) -> bytes:
        """Return the state of all rows as bytes in the safetensors format, to go on elsewhere in the same bits."""
        return files.to_bytes(self._all_named())

    def from_bytes(self, data: bytes) -> None:
        """Set the state of all rows to what `to_bytes` returned, of a stream of such a model and as many rows.

        Raises
        ------
        ValueError
            If the bytes are something else; the state is unchanged then.
        """
        arrays = files.from_bytes(data, self._all_named())
        for leaf in _stateful(self._states):
            self._write_leaf(leaf, 0, self.batch_size, tuple(arrays[name] for name in self._named(leaf)))

    def _all_named(self) -> dict[str, Array]:
        return {name: array for leaf in _stateful(self._states) for name, array in self._named(leaf).items()}

    def _named(self, leaf: Stateful) -> dict[str, Array]:
        parts = self._read_leaf(leaf, 0, self.batch_size)
        return {f"{leaf.stages[0]}.{part}": array for part, array in zip(leaf.names, parts, strict=True)}

    def _read_leaf(self, leaf: Stateful, begin: int, end: int) -> tuple[Array, ...]:
        of_stages = [self._read_state(stage, begin, end) for stage in leaf.stages]
        return of_stages[0] if len(of_stages) == 1 else tuple(map(np.concatenate, zip(*of_stages, strict=True)))

    def _write_leaf(self, leaf: Stateful, begin: int, end: int, parts: tuple[Array, ...]) -> None:
        for stage, own in leaf.apart(parts):
            self._write_state(stage, begin, end, own)

    def _read(self, of: Any, begin: int, end: int, alone: bool) -> State:
        if isinstance(of, Stateful):
            parts = self._read_leaf(of, begin, end)
            arrays = tuple(part[:, 0] for part in parts) if alone else parts
            return arrays if len(of.names) > 1 else arrays[0]
        return None if of is None else tuple(self._read(part, begin, end, alone) for part in of)

    def _write_all(self, begin: int, end: int, state: State, alone: bool) -> None:
        if not 0 <= begin <= end <= self.batch_size:
            raise IndexError(f"row: expected one from 0 to {self.batch_size - 1}, got {begin}")
        checked = list(self._checked(self._states, state, () if alone else (end - begin,)))
        for leaf, parts in checked:
            self._write_leaf(leaf, begin, end, parts)

    def _checked(self, of: Any, state: State, batch: tuple[int, ...]) -> Iterator[tuple[Stateful, tuple[Array, ...]]]:
        """Go through the stages that have states, with what theirs are to be."""
        if isinstance(of, Stateful):
            parts = (state,) * len(of.names) if state is None or len(of.names) == 1 else state
            if not isinstance(parts, tuple | list) or len(parts) != len(of.names):
                names = ", ".join(of.names)
                raise TypeError(f"state: expected None or a tuple ({names}), got {type(state).__name__}")
            initial = of.initial or (np.zeros((), self.dtype),) * len(parts)
            arrays = []
            for part, size, first in zip(parts, of.sizes, initial, strict=True):
                if part is None:
                    shape = of.layers, *(batch or (1,)), size
                    arrays.append(np.ascontiguousarray(np.broadcast_to(first, shape)))
                    continue
                array, expected = as_array("state", part, self.dtype), (of.layers, *batch, size)
                if array.shape != expected:
                    raise ValueError(f"state: expected shape {expected}, got {array.shape}")
                arrays.append(array if batch else np.expand_dims(array, 1))
            yield of, tuple(arrays)
        elif of is None:
            if state is not None:
                raise ValueError(f"state: expected None for a layer without one, got {type(state).__name__}")
        else:
            given = (None,) * len(of) if state is None else state
            if not isinstance(given, tuple | list) or len(given) != len(of):
                raise ValueError(f"state: expected a tuple of {len(of)} states, one for each layer")
            for part, value in zip(of, given, strict=True):
                yield from self._checked(part, value, batch)
