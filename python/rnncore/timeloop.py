"""The loop over time of a step written in Python, forward and backward: what `scan` and its vjp run.

A batch is gone through as in the core: only the rows that have a step, the longest first, and padding never read.
Gradients come back the same way. Not public.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rnncore._conversion import as_array, as_lengths, as_real, as_resets, valid_steps
from rnncore.pieces import Pieces
from rnncore.ragged import same_kind

__all__: list[str] = []  # for modules of this package

Array = NDArray[Any]
State = Any  # one array, or a tuple of arrays

_OF_VJP = "step_vjp", "((y, state), pull_back)"  # what returns what, for messages


class ScanGradients(NamedTuple):
    """Gradients of the arguments of `scan` and of the cell's parameters; None for a state after resets not given."""

    x: Any
    state: State
    parameters: dict[str, Array]
    reset_state: State


class Form:
    """The form and the shapes of a cell's state: one array, or a tuple of arrays."""

    def __init__(self, state_size: Any) -> None:
        self.single = not isinstance(state_size, tuple | list)
        parts = [state_size] if self.single else state_size
        self.shapes = [tuple(part) if isinstance(part, tuple | list) else (part,) for part in parts]
        for size in (size for shape in self.shapes for size in shape):
            if isinstance(size, bool) or not isinstance(size, int | np.integer) or size < 0:
                raise ValueError(
                    f"state_size: expected an integer, or a tuple with one, or a shape, for each state, got "
                    f"{state_size!r}"
                )

    @classmethod
    def like(cls, state: State, axes: int) -> Form:
        """Return the form of a state whose arrays have so many axes in front."""
        single = not isinstance(state, tuple | list)
        shapes = tuple(np.shape(part)[axes:] for part in ([state] if single else state))
        form = cls(shapes)
        form.single = single
        return form

    def join(self, arrays: Sequence[Array]) -> State:
        """Return the arrays in the form."""
        return arrays[0] if self.single else tuple(arrays)

    def split(self, name: str, state: State) -> list[Any]:
        """Return the arrays of a state in the form; None for those that are to be zeros."""
        if state is None:
            return [None] * len(self.shapes)
        if self.single:
            if isinstance(state, tuple):
                raise TypeError(f"{name}: expected one array, got a tuple of {len(state)}")
            return [state]
        if not isinstance(state, tuple | list) or len(state) != len(self.shapes):
            got = f"{len(state)}" if isinstance(state, tuple | list) else type(state).__name__
            raise TypeError(f"{name}: expected a tuple of {len(self.shapes)} arrays, got {got}")
        return list(state)


class Batch:
    """The arguments of one scan, as its loop takes them; and its results, as the caller takes them."""

    def __init__(
        self,
        cell: Any,
        x: Any,
        state: State,
        lengths: ArrayLike | None,
        reset_mask: ArrayLike | None,
        reset_state: State,
        reverse: bool,
        batch_first: bool,
        layers: tuple[int, ...] = (),
    ) -> None:
        """Check and convert. Arrays of states have the axes `layers` in front of all others: (1,) for a layer."""
        self.cell = cell
        self.name = type(cell).__name__ if hasattr(cell, "step_vjp") else getattr(cell, "__name__", repr(cell))
        if reset_mask is None and reset_state is not None:
            raise ValueError(
                f"reset_state: expected None, since there is no reset_mask, got {type(reset_state).__name__}"
            )
        self.ragged, self.listed = same_kind("x", x)
        data = x if self.ragged is None else self.ragged.data
        dtype = getattr(cell, "dtype", None)
        data = as_real("x", data) if dtype is None else as_array("x", data, dtype)
        self.dtype = data.dtype
        self.axis = 0 if batch_first else 1  # of the batch
        inputs = getattr(cell, "input_size", None)
        self.unbatched = self.ragged is None and data.ndim == 2
        if data.ndim not in ((2,) if self.ragged is not None else (2, 3)) or inputs not in (None, data.shape[-1]):
            I = "I" if inputs is None else inputs
            padded = f"{'(N, T' if batch_first else '(T, N'}, {I}) or (T, {I})"
            raise ValueError(
                f"x: expected {padded if self.ragged is None else f'rows of {I} values'}, got {data.shape}"
            )

        if self.ragged is not None:
            self.ragged.structure(lengths)
            steps = self.ragged.lengths
            places = np.arange(len(data))[self.ragged._joined_index()]
        else:
            data = np.expand_dims(data, self.axis) if self.unbatched else data
            self.series = data.shape[:2]
            N, T = self.series[:: 1 if batch_first else -1]
            steps = np.full(N, T) if lengths is None else as_lengths(lengths, N, T, self.unbatched)
            rows, times = np.nonzero(valid_steps(steps, T))
            places = rows * T + times if batch_first else times * N + rows
            data = data.reshape(N * T, data.shape[2])
        resets = None
        if reset_mask is not None:
            resets = self._flat_resets(reset_mask)[places]
        self.N, self.places = len(steps), len(data)
        self.pieces = Pieces.of(places, steps, resets, reverse)
        self.x = data[self.pieces.rows]

        size = getattr(cell, "state_size", None)
        if size is None and state is None:
            raise TypeError(f"state: expected an initial state, since {self.name} has no state_size, got None")
        self.batch = () if self.unbatched else (self.N,)
        self.form = Form.like(state, len(self.batch)) if size is None else Form(size)
        self.layers = layers
        self.initial = [part for part, _ in self._split("state", state)]
        self.starts = self._split("reset_state", reset_state, shared=True)
        self.has_starts = reset_state is not None
        self.output_size: int | None = getattr(cell, "output_size", None)

    def _flat_resets(self, reset_mask: ArrayLike) -> Array:
        """Return the mask of resets, one for each row of the caller's."""
        if self.ragged is not None:
            mask = self.ragged.arranged("reset_mask", reset_mask)
            return as_resets(mask, None)
        mask = as_resets(reset_mask, self.axis if self.unbatched else None)
        if mask.shape != self.series:
            raise ValueError(f"reset_mask: expected bool {self.series}, got {mask.shape}")
        return mask.ravel()

    # -------------------------------------------------------------------------------------------------- states

    def _split(self, name: str, state: State, shared: bool = False) -> list[tuple[Array, bool]]:
        """Return the arrays of a state, (N, ...), each with whether it was given as one for all sequences."""
        arrays = []
        for part, shape in zip(self.form.split(name, state), self.form.shapes, strict=True):
            expected, of_all = (*self.layers, *self.batch, *shape), (*self.layers, *shape)
            if part is None:
                arrays.append((np.zeros((self.N, *shape), self.dtype), False))
                continue
            array = as_array(name, part, self.dtype)
            if array.shape == expected:
                arrays.append((array.reshape(self.N, *shape), False))
            elif shared and array.shape == of_all:
                arrays.append((np.broadcast_to(array.reshape(shape), (self.N, *shape)), True))
            else:
                either = f"{expected} or {of_all}" if shared else f"{expected}"
                raise ValueError(f"{name}: expected shape {either}, got {array.shape}")
        return arrays

    def _joined(self, arrays: Sequence[Array]) -> State:
        """Return states (N, ...) as the caller has them."""
        shapes = [(*self.layers, *self.batch, *shape) for shape in self.form.shapes]
        return self.form.join([array.reshape(shape) for array, shape in zip(arrays, shapes, strict=True)])

    # ------------------------------------------------------------------------------------------------- forward

    def forward(self, step: Callable[..., Any], pull_backs: list[Callable[..., Any]] | None) -> tuple[Any, State]:
        """Run through all steps; append the pull-back of each, if they are asked for, of a step that has one."""
        pieces, y, begin = self.pieces, None, 0
        states = []
        for initial, (start, _) in zip(self.initial, self.starts, strict=True):
            fresh = pieces.fresh.reshape(-1, *(1,) * (initial.ndim - 1))
            states.append(np.where(fresh, start[pieces.sequence], initial[pieces.sequence]))
        last = [state.copy() for state in states]
        states = [state[: pieces.sizes[0] if pieces.sizes else 0] for state in states]
        for n, following in pairwise([*pieces.sizes, 0]):
            result = step(self.x[begin : begin + n], self.form.join(states))
            if pull_backs is not None:
                result, pull_back = self._pair(result, *_OF_VJP)
                pull_backs.append(pull_back)
            y_t, states = self._checked(result, n)
            if y is None:
                y = np.empty((len(self.x), self.output_size or 0), self.dtype)
            y[begin : begin + n] = y_t
            for total, state in zip(last, states, strict=True):
                total[following:n] = state[following:]
            states = [state[:following] for state in states]
            begin += n
        if self.output_size is None:  # no row has a step
            result = step(self.x, self.form.join(states))
            self._checked(result if pull_backs is None else self._pair(result, *_OF_VJP)[0], 0)
        series = np.zeros((self.places, self.output_size or 0), self.dtype)
        if y is not None:
            series[pieces.rows] = y
        return self._series(series), self._joined([state[pieces.last] for state in last])

    def _series(self, rows: Array) -> Any:
        """Return rows (R, C) as the caller has them."""
        if self.ragged is not None:
            return self.listed(self.ragged.with_data(rows))
        array = rows.reshape(*self.series, rows.shape[1])
        return array.squeeze(self.axis) if self.unbatched else array

    def _pair(self, result: Any, method: str, expected: str) -> tuple[Any, Any]:
        if not isinstance(result, tuple) or len(result) != 2:
            raise TypeError(f"{method} of {self.name}: expected it to return {expected}, got {_kind(result)}")
        return result

    def _checked(self, result: Any, n: int) -> tuple[Array, list[Array]]:
        """Return the output and the states of a step of n rows."""
        y, state = self._pair(result, "step", "(y, state)")
        if self.output_size is None and np.ndim(y) == 2:
            self.output_size = y.shape[1]
        self._require("y", "step", y, (n, "O" if self.output_size is None else self.output_size))
        return y, self._states("state", "step", state, n)

    def _states(self, what: str, method: str, state: State, n: int) -> list[Array]:
        name = f"{what} from {method} of {self.name}"
        arrays = self.form.split(name, state)
        for array, shape in zip(arrays, self.form.shapes, strict=True):
            self._require(what, method, array, (n, *shape))
        return arrays

    def _require(self, what: str, method: str, value: Any, shape: tuple[Any, ...]) -> None:
        if not isinstance(value, np.ndarray) or value.dtype != self.dtype or value.shape != shape:
            error = ValueError if isinstance(value, np.ndarray) and value.dtype == self.dtype else TypeError
            expected = f"{self.dtype} ({', '.join(map(str, shape))}{',' * (len(shape) == 1)})"
            raise error(f"{what} from {method} of {self.name}: expected {expected}, got {_kind(value)}")

    # ------------------------------------------------------------------------------------------------ backward

    def backward(self, pull_backs: list[Callable[..., Any]], dy: Any, dstate: State) -> ScanGradients:
        """Pull gradients back through all steps, the last first."""
        pieces, P, end = self.pieces, len(self.pieces.sequence), len(self.x)
        drows = np.zeros((end, self.output_size or 0), self.dtype) if dy is None else self._rows("dy", dy)
        dlast = []
        for final, _ in self._split("dstate", dstate):
            of_pieces = np.zeros((P, *final.shape[1:]), self.dtype)
            of_pieces[pieces.last] = final
            dlast.append(of_pieces)
        dstates = [d[:0] for d in dlast]
        dx = np.empty_like(self.x)
        parameters: Mapping[str, Array] = getattr(self.cell, "parameters", {})
        dparameters = {name: np.zeros_like(parameter) for name, parameter in parameters.items()}
        for n, pull_back in zip(reversed(pieces.sizes), reversed(pull_backs), strict=True):
            begin, following = end - n, len(dstates[0]) if dstates else 0
            if following < n:  # the last step of some
                dstates = [np.concatenate([d, l[following:n]]) for d, l in zip(dstates, dlast, strict=True)]
            gradients = pull_back(drows[begin:end], self.form.join(dstates))
            if not isinstance(gradients, tuple) or len(gradients) not in (2, 3):
                expected = "(dx, dstate) or (dx, dstate, dparameters)"
                raise TypeError(f"pull_back of {self.name}: expected it to return {expected}, got {_kind(gradients)}")
            self._require("dx", "pull_back", gradients[0], (n, dx.shape[1]))
            dx[begin:end] = gradients[0]
            dstates = self._states("dstate", "pull_back", gradients[1], n)
            self._add(dparameters, parameters, gradients[2] if len(gradients) == 3 else {})
            end = begin
        series = np.zeros((self.places, dx.shape[1]), self.dtype)
        series[pieces.rows] = dx
        dfirst = [np.concatenate([d, l[len(d) :]]) for d, l in zip(dstates, dlast, strict=True)]
        return ScanGradients(self._series(series), self._dinitial(dfirst), dparameters, self._dstarts(dfirst))

    def _rows(self, name: str, value: Any) -> Array:
        """Return the rows that are computed of a series laid out as y."""
        flat = self.ragged is not None or self.unbatched
        rows = as_array(name, value if self.ragged is None else self.ragged.arranged(name, value), self.dtype)
        expected = ((self.places,) if flat else self.series) + (self.output_size,)
        if rows.shape != expected:
            raise ValueError(f"{name}: expected shape {expected}, got {rows.shape}")
        return rows.reshape(self.places, self.output_size or 0)[self.pieces.rows]

    def _add(self, totals: dict[str, Array], parameters: Mapping[str, Array], gradients: Mapping[str, Array]) -> None:
        """Add the gradients of parameters of one step."""
        title = f"dparameters from pull_back of {self.name}"
        if not isinstance(gradients, Mapping):
            raise TypeError(f"{title}: expected a mapping, got {_kind(gradients)}")
        if parameters and set(gradients) != set(parameters):
            raise ValueError(f"{title}: expected the names {list(parameters)}, got {list(gradients)}")
        for name, gradient in gradients.items():
            total = totals.get(name)
            if total is None:
                total = totals[name] = np.zeros_like(gradient)
            if np.shape(gradient) != total.shape:
                raise ValueError(f"{title}: expected {name!r} of shape {total.shape}, got {np.shape(gradient)}")
            total += gradient

    def _dinitial(self, dfirst: Sequence[Array]) -> State:
        own = ~self.pieces.fresh
        gradients = []
        for d in dfirst:
            total = np.zeros((self.N, *d.shape[1:]), self.dtype)
            total[self.pieces.sequence[own]] = d[own]  # one piece of each sequence at most
            gradients.append(total)
        return self._joined(gradients)

    def _dstarts(self, dfirst: Sequence[Array]) -> State:
        if not self.has_starts:
            return None
        fresh, gradients = self.pieces.fresh, []
        for d, (_, shared), shape in zip(dfirst, self.starts, self.form.shapes, strict=True):
            total = np.zeros((self.N, *shape), self.dtype)
            np.add.at(total, self.pieces.sequence[fresh], d[fresh])
            axes = self.layers if shared else (*self.layers, *self.batch)
            gradients.append((total.sum(axis=0) if shared else total).reshape(*axes, *shape))
        return self.form.join(gradients)


def _kind(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.shape}"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    return type(value).__name__
