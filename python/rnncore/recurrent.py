"""Recurrent layers with parameters: torch.nn's argument names, parameter names, shapes and initialisation.

One difference, stated first everywhere: **batch_first=True is the default**, so x is (N, T, I).

A layer is called for inference, which keeps nothing, or through `vjp`, which returns the output together with the
function that pulls gradients back. There is no tape beside that function, so a layer may be used several times.
"""

from __future__ import annotations  # np.random in annotations would import it

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from rnncore import functional, many
from rnncore._conversion import as_array, as_lengths, as_resets
from rnncore._core import Cell, Lookup, Stack
from rnncore.frozen import Frozen
from rnncore.layer import Array, Layer, PullBack, State, _size, drop_mask
from rnncore.ragged import Ragged, is_list, run_list, vjp_list
from rnncore.streaming import Stages, Stateful, States

__all__ = ["GRU", "LSTM", "RNN"]

# Inside the package x may be a Lookup too, of the shape of the vectors that it stands for: see embedded.py.
# A state is None, one array (D*L, N, H), or for LSTM a tuple (h, c) of two.

_ARGUMENTS = """
    Parameters
    ----------
    input_size, hidden_size : int
        I and H.
    num_layers : int
        Layers stacked on each other, each reading the output of the one below.
    bias : bool
        Whether there are biases, ``bias_ih`` and ``bias_hh``.
    batch_first : bool
        Whether x and y are (N, T, ...), the default here, or (T, N, ...), the default of torch. States are
        (D*L, N, H) either way.
    dropout : float
        Probability with which `vjp` drops an element of the output of every layer but the last.
    bidirectional : bool
        Run a second set of weights over each sequence from its end, and join the outputs: D = 2.
    checkpoint_every : int, optional
        For long sequences: `vjp` keeps the states every so many steps and no more, and its pull-back runs the steps
        between again, one segment at a time (Chen et al. 2016). Results have the same bits; training takes up to half
        as much time more. For k = `checkpoint_every`, each layer and direction keeps N T/k S H numbers beside its
        output and its packed weights, and the pull-back has N k K H for the segment it is at, instead of N T K H for
        each layer all the while: S is 1, for LSTM 2; K is 1 for RNN, 6 for LSTM, 5 for GRU. A segment has as many
        steps or more, so that it has about 512 rows of x, and k >= T makes one segment. Default: keep all.
    models : int, optional
        M, for M networks of this shape, run in one call, each in the bits of a layer of its own: parameters are
        (M, ...) and flat vectors (M, P), x is (N, T, I) for all or (M, N, T, I), lengths (N,) or (M, N), y
        (M, N, T, D*H), and states are (M, D*L, N, H). The gradient of an x that all share is summed over them, the
        first first. x has a batch axis always. Default: one network, without that axis.
    dtype : {float32, float64}
        Of the parameters, the computation and the results.
    rng : numpy.random.Generator or int, optional
        Source of the initial parameters, each uniform in +-1/sqrt(hidden_size), and of dropout. The first of many
        networks begins as one alone would.

    Attributes
    ----------
    parameters : Views
        Arrays by name: ``weight_ih_l0`` (G*H, I), ``weight_hh_l0`` (G*H, H), ``bias_ih_l0``, ``bias_hh_l0`` (G*H,),
        then with the suffix ``_reverse``, then ``_l1``, ...: names, shapes and gate order of torch. Views into
        `flat_parameters`.
    gradients : Views
        Of the same names and shapes; views into `flat_gradients`. Pull-backs add to them.
    flat_parameters, flat_gradients : ndarray, (P,)
        All parameters, all gradients, in one contiguous vector each; (M, P) of many networks.
"""


class _Recurrent(Layer):
    """Stacked layers of one cell, in one or both directions. What the public classes share."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if cls.__doc__ is not None:  # it is under python -OO
            cls.__doc__ += _ARGUMENTS

    resets = True
    input_size: int
    rng: np.random.Generator
    _gates: ClassVar[int]
    _states: ClassVar[int]
    _cell: Cell

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = True,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        checkpoint_every: int | None = None,
        models: int | None = None,
        dtype: DTypeLike = np.float32,
        rng: np.random.Generator | int | None = None,
    ) -> None:
        self.input_size = _size("input_size", input_size)
        self.hidden_size = _size("hidden_size", hidden_size)
        self.num_layers = _size("num_layers", num_layers)
        self.bias = bool(bias)
        self.batch_first = bool(batch_first)
        self.dropout = float(dropout)
        self.bidirectional = bool(bidirectional)
        self._every = functional._every(checkpoint_every)
        self.checkpoint_every = None if checkpoint_every is None else int(checkpoint_every)
        if not 0.0 <= self.dropout <= 1.0:
            raise ValueError(f"dropout: expected a probability from 0 to 1, got {dropout}")
        super().__init__(self._parameter_shapes(), dtype, models)
        self.output_size = self.hidden_size * (1 + self.bidirectional)
        self.rng = np.random.default_rng(rng)
        bound = 1.0 / np.sqrt(self.hidden_size)  # of torch's initialisation, for every array
        self.flat_parameters[...] = self.rng.uniform(-bound, bound, self.flat_parameters.shape)

    # ------------------------------------------------------------------------------------------- parameters

    def _passes(self) -> list[tuple[int, str, bool]]:
        """Layer, suffix of the parameter names and whether reversed, of every pass over the series."""
        directions = [("", False), ("_reverse", True)][: 1 + self.bidirectional]
        return [(k, f"_l{k}{suffix}", r) for k in range(self.num_layers) for suffix, r in directions]

    def _parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        H, GH = self.hidden_size, self._gates * self.hidden_size
        shapes: dict[str, tuple[int, ...]] = {}
        for k, suffix, _ in self._passes():
            shapes["weight_ih" + suffix] = GH, self.input_size if k == 0 else H * (1 + self.bidirectional)
            shapes["weight_hh" + suffix] = GH, H
            if self.bias:
                shapes["bias_ih" + suffix] = (GH,)
                shapes["bias_hh" + suffix] = (GH,)
        return shapes

    def _use(self, flat_parameters: Array, flat_gradients: Array) -> None:
        super()._use(flat_parameters, flat_gradients)
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")[: 4 if self.bias else 2]
        self._weights: list[tuple[Array | None, ...]] = []  # those of every pass
        self._weight_gradients: list[tuple[Array, ...]] = []
        for _, suffix, _ in self._passes():
            arrays = [self.parameters[name + suffix] for name in names]
            self._weights.append((*arrays, *(None,) * (4 - len(arrays))))
            self._weight_gradients.append(tuple(self.gradients[name + suffix] for name in names))

    # ------------------------------------------------------------------------------------------ computation

    def _state_parts(
        self, name: str, state: State, batch: tuple[int, ...], shared: bool = False
    ) -> tuple[Array | None, ...]:
        """h, or h and c, each None or of the caller's shape; if `shared`, there may be one for all sequences."""
        if state is None:
            parts: tuple[Any, ...] = (None,) * self._states
        elif self._states == 1:
            parts = (state,)
        elif isinstance(state, tuple | list) and len(state) == self._states:
            parts = tuple(state)
        else:
            raise TypeError(f"{name}: expected None or a tuple (h, c), got {type(state).__name__}")
        expected: tuple[int, ...] = (len(self._passes()), *batch, self.hidden_size)
        if self.models is not None:
            expected = self.models, *expected
        arrays = tuple(None if part is None else np.asarray(part) for part in parts)
        of_all = (expected[0], self.hidden_size)
        for array in arrays:
            if array is not None and array.shape != expected and not (shared and array.shape == of_all):
                shapes = f"{expected} or {of_all}" if shared and batch else f"{expected}"
                raise ValueError(f"{name}: expected shape {shapes}, got {array.shape}")
        return arrays

    def _split_state(
        self, name: str, state: State, batch: tuple[int, ...], shared: bool = False
    ) -> list[tuple[Array | None, Array | None]]:
        """(h, c) of each pass; None stands for zeros."""
        passes = len(self._weights)
        if state is None:
            return [(None, None)] * passes
        columns = [[None] * passes if part is None else part for part in self._state_parts(name, state, batch, shared)]
        if self.models is not None:
            columns = [part if isinstance(part, list) else part.swapaxes(0, 1) for part in columns]
        columns += [[None] * passes] * (2 - self._states)
        return list(zip(*columns, strict=True))

    def _join_states(self, states: list[tuple[Any, ...]]) -> State:
        axis = 0 if self.models is None else 1
        if len(states) == 1:
            joined = tuple(None if part is None else np.expand_dims(part, axis) for part in states[0])
        else:
            columns = zip(*states, strict=True)
            joined = tuple(None if column[0] is None else np.stack(column, axis) for column in columns)
        return joined if self._states > 1 else joined[0]

    def _input(self, x: ArrayLike | Lookup | Ragged) -> Array | Lookup:
        if self.models is not None:
            if isinstance(x, Ragged):
                raise TypeError(f"x: expected an array for many networks, got {x!r}")
            return many.series("x", x, self.models, self.input_size, self.batch_first)
        axes: tuple[int, ...] = (2, 3)
        if isinstance(x, Ragged):
            x, axes = x.data, (2,)
        array = x if isinstance(x, Lookup) else np.asarray(x)
        if len(array.shape) not in axes or array.shape[-1] != self.input_size:
            if axes == (2,):
                raise ValueError(f"x: expected steps of {self.input_size} values, got rows {array.shape}")
            shape = f"(N, T, {self.input_size})" if self.batch_first else f"(T, N, {self.input_size})"
            raise ValueError(f"x: expected {shape} or (T, {self.input_size}), got {array.shape}")
        return array

    def _batch(self, x: Any, series: Array | Lookup) -> tuple[int, ...]:
        """(N,), or () if there is one sequence without a batch axis."""
        if isinstance(x, Ragged):
            return (x.N,)
        return () if len(series.shape) == 2 else (series.shape[-3 if self.batch_first else -2],)

    def _pack(self, once: bool = False) -> Stack | many.Stack:
        if self.models is not None:
            return many.Stack(self, once)
        return Stack(self._cell, self._weights, 1 + self.bidirectional, self.batch_first)

    def _run_converted(
        self,
        forward: Callable[..., Any],
        x: Any,
        state: State,
        lengths: ArrayLike | None,
        reset_mask: ArrayLike | None = None,
        reset_state: State = None,
    ) -> tuple[Any, State]:
        """Check and convert what the core does not take as it is, and run."""
        if is_list(x, self.input_shape):
            return run_list(partial(self._run_converted, forward), x, state, lengths, reset_mask, reset_state)
        series = self._input(x)
        if not isinstance(series, Lookup):
            series = as_array("x", series, self.dtype)
        batch, axis = self._batch(x, series), 0 if self.batch_first else 1
        unbatched = not batch
        parts: list[Array | None] = []
        for part in self._state_parts("state", state, batch):
            if part is not None:
                part = as_array("state", part[:, np.newaxis] if unbatched else part, self.dtype)
            parts.append(part)
        self._check_resets(reset_mask, reset_state)
        resets: tuple[Any, ...] = ()
        if reset_mask is not None:
            starts: list[Array | None] = []
            for part in self._state_parts("reset_state", reset_state, batch, shared=True):
                if part is not None:
                    part = as_array("reset_state", part[:, np.newaxis] if part.ndim == 2 else part, self.dtype)
                    shape = part.shape[0], *(batch or (1,)), part.shape[2]
                    part = np.ascontiguousarray(np.broadcast_to(part, shape))
                starts.append(part)
            if isinstance(x, Ragged):
                reset_mask = x.arranged("reset_mask", reset_mask)
            mask = as_resets(reset_mask, axis if unbatched else None)
            resets = mask, tuple(starts) if self._states > 1 else starts[0]
        if not isinstance(series, Lookup) and unbatched:
            series = np.expand_dims(series, axis)
        rows: Any = None
        if isinstance(x, Ragged):
            rows = x.structure(lengths)
        elif lengths is not None:
            rows = as_lengths(lengths, series.shape[axis], series.shape[1 - axis], unbatched)
        result = forward(series, tuple(parts) if self._states > 1 else parts[0], rows, *resets)
        assert result is not None
        y, last = result
        if isinstance(x, Ragged):
            return x.with_data(y), last
        if not unbatched:
            return y, last
        return y.squeeze(axis), tuple(part[:, 0] for part in last) if self._states > 1 else last[:, 0]

    def _check_resets(self, reset_mask: ArrayLike | None, reset_state: State) -> None:
        if reset_mask is None and reset_state is not None:
            kind = type(reset_state).__name__
            raise ValueError(f"reset_state: expected None, since there is no reset_mask, got {kind}")
        if reset_mask is not None and self.models is not None:
            raise ValueError(f"reset_mask: expected None for many networks, got {type(reset_mask).__name__}")

    def _stream_stages(self, stages: Stages) -> States:
        if self.bidirectional:
            raise ValueError(f"model: expected layers of one direction, got {self!r}, which reads what is to come")
        stage = sum(kind != "embedding" for kind, *_ in stages)
        stages.append(("recurrent", self._cell, self._weights))
        return Stateful(stage, self._states, self.num_layers, self.hidden_size)

    def frozen(self) -> Frozen:
        """Pack the weights once, for inference that does nothing else at each call.

        Returns
        -------
        Frozen
            Called as the layer is, and gives the same bits. It keeps the parameters as they are now: what becomes of
            this layer afterwards does not change it.

        Examples
        --------
        >>> import numpy as np
        >>> import rnncore as rc
        >>> layer = rc.GRU(3, 8, rng=0)
        >>> frozen = layer.frozen()
        >>> x = np.ones((2, 5, 3), dtype=np.float32)
        >>> bool((frozen(x)[0] == layer(x)[0]).all())
        True
        """
        return Frozen(self)

    def __call__(
        self,
        x: ArrayLike,
        state: State = None,
        lengths: ArrayLike | None = None,
        reset_mask: ArrayLike | None = None,
        reset_state: State = None,
    ) -> tuple[Array, State]:
        """Run the layer on x. Nothing is kept and nothing is dropped out.

        Parameters
        ----------
        x : array_like, (N, T, input_size)
            (T, N, input_size) if not `batch_first`, or (T, input_size) for one unbatched sequence. Or a list of N
            arrays (T_n, input_size), or a `Packed`, which have no padding.
        state : optional
            Initial state, (D*L, N, H), or (D*L, H) if unbatched; for LSTM a tuple (h, c) of two. L layers, D
            directions; l0, l0_reverse, l1, ... Default: zeros.
        lengths : array_like of int (N,) or of bool (N, T), optional
            Valid steps of each sequence, 0 to T, or a mask that is True at valid steps, which are the first of each
            row. Default: T for all.
        reset_mask : array_like of bool, (N, T), optional
            Laid out like the steps of x, (T,) if unbatched, a list or a `Packed` if x is one. True where a new episode
            starts: every layer and direction is cut before that step, and bits are those of the pieces in calls of
            their own. A piece that begins at a reset starts from `reset_state`; read from its end, one that a reset
            follows.
        reset_state : optional
            State after a reset: like `state`, or (D*L, H) for one of all sequences. Default: zeros.

        Returns
        -------
        y : ndarray, (N, T, D*H)
            Laid out like x; zero at padded steps. A list or a `Packed` if x is one.
        state : as the argument
            Each sequence's state after its last valid step.
        """
        stack = self._pack()
        if reset_mask is not None or reset_state is not None:
            return self._run_with_resets(stack, x, state, lengths, reset_mask, reset_state)
        result = stack.forward(x, state, lengths)
        return self._run_converted(stack.forward, x, state, lengths) if result is None else result

    run = __call__

    def _run_with_resets(self, stack: Any, *arguments: Any) -> tuple[Array, State]:
        self._check_resets(*arguments[3:])
        result = stack.forward_with_resets(*arguments)
        return self._run_converted(stack.forward_with_resets, *arguments) if result is None else result

    def vjp(
        self,
        x: Any,
        state: State = None,
        lengths: ArrayLike | None = None,
        reset_mask: ArrayLike | None = None,
        reset_state: State = None,
    ) -> tuple[tuple[Any, State], PullBack]:
        """Run the layer on x for training: with dropout, and with the function that pulls gradients back.

        Parameters are those of a call. Leave x, the state and the parameters unchanged until the last pull-back.

        Returns
        -------
        output : (y, state)
            As a call returns it, in the same bits if there is no dropout.
        pull_back : callable
            ``pull_back(dy=None, dstate=None)`` takes the gradients of a scalar loss with respect to y and the final
            state, None for zeros, **adds** those of the parameters to `gradients`, and returns those of x and of the
            initial state; third, if `reset_state` was given, that of it. May be called several times.
        """
        if is_list(x, self.input_shape):
            return vjp_list(self.vjp, x, state, lengths, reset_mask, reset_state)
        first = self._input(x)
        self._check_resets(reset_mask, reset_state)
        batch = self._batch(x, first)
        starts = self._split_state("reset_state", reset_state, batch, shared=True)
        ragged = x if isinstance(x, Ragged) else None
        rows: Any = lengths if ragged is None else ragged.structure(lengths)
        if ragged is not None and reset_mask is not None:
            reset_mask = ragged.arranged("reset_mask", reset_mask)
        pull_backs: list[Callable[..., tuple[Array, ...]]] = []
        masks: list[Array | None] = []

        series: Any = first
        states, outputs = [], []
        initial = self._split_state("state", state, batch)
        passes = zip(self._passes(), self._weights, initial, starts, strict=True)
        for (k, _, reverse), weights, (h, c), start in passes:
            arguments = (series, *weights, h, c, rows, reverse, self.batch_first)
            if reset_mask is None:
                (y, *last), pull_back = functional._record(self._every, self._cell, *arguments)
            else:
                resets = reset_mask, start[0], start[1]
                (y, *last), pull_back = functional._record_with_resets(resets, self._every, self._cell, *arguments)
            pull_backs.append(pull_back)
            outputs.append(y)
            states.append(tuple(last))
            if reverse != self.bidirectional:
                continue  # to the other direction
            series = outputs[0] if len(outputs) == 1 else np.concatenate(outputs, axis=-1)
            outputs = []
            dropped = self.dropout > 0.0 and k + 1 < self.num_layers
            mask = drop_mask(self.rng, self.dropout, series.shape, self.dtype) if dropped else None
            masks.append(mask)
            if mask is not None:
                series = series * mask
        last_state = self._join_states(states)
        y_shape = series.shape

        def pull_back_all(dy: ArrayLike | None = None, dstate: State = None) -> Any:
            if dy is not None and ragged is not None:
                dy = ragged.arranged("dy", dy)
            dseries = None if dy is None else np.asarray(dy)
            if dseries is not None and dseries.shape != y_shape:
                raise ValueError(f"dy: expected shape {y_shape}, got {dseries.shape}")
            dlast = self._split_state("dstate", dstate, batch)
            dinitial: list[Any] = [None] * len(dlast)
            dstarts: list[Any] = [None] * len(dlast)
            H, directions = self.hidden_size, 1 + self.bidirectional
            for k in reversed(range(self.num_layers)):
                mask = masks[k]
                if mask is not None and dseries is not None:
                    dseries = dseries * mask
                dx: Array | None = None
                for d in range(directions):
                    index = k * directions + d
                    dy_d = dseries if dseries is None or directions == 1 else dseries[..., d * H : (d + 1) * H]
                    gradients = pull_backs[index](dy_d, *dlast[index])
                    dx = gradients[0] if dx is None else dx + gradients[0]  # both None if x is a lookup
                    for total, gradient in zip(self._weight_gradients[index], gradients[1:], strict=False):
                        total += gradient
                    dinitial[index] = gradients[5 : 5 + self._states]
                    dstarts[index] = gradients[5 + self._states :]
                dseries = dx
            dinput = dseries if ragged is None or dseries is None else ragged.with_data(dseries)
            if reset_state is None:
                return dinput, self._join_states(dinitial)
            return dinput, self._join_states(dinitial), self._join_states(dstarts)

        return (series if ragged is None else ragged.with_data(series), last_state), pull_back_all


class RNN(_Recurrent):
    """Simple recurrent layers (Elman 1990) on x (N, T, I): batch_first=True is the default, unlike in torch.

    h_t = act(W x_t + b_ih + U h_{t-1} + b_hh). The keyword `nonlinearity`, "tanh" (default) or "relu", is act.

    Examples
    --------
    >>> import numpy as np
    >>> import rnncore as rc
    >>> layer = rc.RNN(3, 8, nonlinearity="relu", rng=0)
    >>> y, h_n = layer(np.ones((2, 5, 3)))
    >>> y.shape, h_n.shape
    ((2, 5, 8), (1, 2, 8))
    """

    _gates = 1
    _states = 1

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = True,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        nonlinearity: str = "tanh",
        checkpoint_every: int | None = None,
        models: int | None = None,
        dtype: DTypeLike = np.float32,
        rng: np.random.Generator | int | None = None,
    ) -> None:
        self._cell = functional._rnn_cell(nonlinearity)
        self.nonlinearity = nonlinearity
        super().__init__(
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            checkpoint_every=checkpoint_every,
            models=models,
            dtype=dtype,
            rng=rng,
        )


class LSTM(_Recurrent):
    """Long short-term memory layers on x (N, T, I): batch_first=True is the default, unlike in torch.

    Hochreiter & Schmidhuber 1997, with a forget gate; gates in the order i, f, g, o. The state is a tuple (h, c). For
    the equations see `rnncore.functional.lstm`.

    Examples
    --------
    >>> import numpy as np
    >>> import rnncore as rc
    >>> layer = rc.LSTM(3, 8, num_layers=2, bidirectional=True, rng=0)
    >>> layer
    LSTM(3, 8, num_layers=2, bidirectional=True)
    >>> x = np.ones((2, 5, 3), dtype=np.float32)
    >>> y, (h_n, c_n) = layer(x)
    >>> y.shape, h_n.shape
    ((2, 5, 16), (4, 2, 8))
    >>> (y, state), pull_back = layer.vjp(x)
    >>> dx, (dh_0, dc_0) = pull_back(2 * y)  # the gradients of sum(y**2)
    >>> layer.flat_parameters -= 0.1 * layer.flat_gradients  # one step of gradient descent
    """

    _gates = 4
    _states = 2
    _cell = Cell.lstm


class GRU(_Recurrent):
    """Layers of gated recurrent units on x (N, T, I): batch_first=True is the default, unlike in torch.

    Cho et al. 2014 in the reset-after form; gates in the order r, z, n. For the equations see
    `rnncore.functional.gru`.

    Examples
    --------
    >>> import numpy as np
    >>> import rnncore as rc
    >>> layer = rc.GRU(3, 8, rng=0)
    >>> sorted(layer.parameters)
    ['bias_hh_l0', 'bias_ih_l0', 'weight_hh_l0', 'weight_ih_l0']
    >>> y, h_n = layer(np.ones((2, 5, 3)), lengths=[5, 0])
    >>> y[1].any()
    np.False_
    """

    _gates = 3
    _states = 1
    _cell = Cell.gru
