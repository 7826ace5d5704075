"""Recurrent layers with parameters: torch.nn's argument names, parameter names, shapes and initialisation.

One difference, stated first everywhere: **batch_first=True is the default**, so x is (N, T, I).

A layer is called for inference, which keeps nothing, or through `vjp`, which returns the output together with the
function that pulls gradients back. There is no tape beside that function, so a layer may be used several times.
"""

from __future__ import annotations  # np.random in annotations would import it

from collections.abc import Callable, Mapping
from copy import copy
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from rnncore import functional
from rnncore._conversion import as_array, as_lengths
from rnncore._core import Cell, Stack
from rnncore.frozen import Frozen

__all__ = ["GRU", "LSTM", "RNN"]

Array = NDArray[Any]
State = Any  # None, one array (D*L, N, H), or for LSTM a tuple (h, c) of two
PullBack = Callable[..., tuple[Array, State]]


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
    dtype : {float32, float64}
        Of the parameters, the computation and the results.
    rng : numpy.random.Generator or int, optional
        Source of the initial parameters, each uniform in +-1/sqrt(hidden_size), and of dropout.

    Attributes
    ----------
    parameters : dict of str to ndarray
        ``weight_ih_l0`` (G*H, I), ``weight_hh_l0`` (G*H, H), ``bias_ih_l0``, ``bias_hh_l0`` (G*H,), then with the
        suffix ``_reverse``, then ``_l1``, ...: names, shapes and gate order of torch. Views into `flat_parameters`.
    gradients : dict of str to ndarray
        Of the same names and shapes; views into `flat_gradients`. Pull-backs add to them.
    flat_parameters, flat_gradients : ndarray, (P,)
        All parameters, all gradients, in one contiguous vector each.
"""


class _Recurrent:
    """Stacked layers of one cell, in one or both directions. What the public classes share."""

    def __init_subclass__(cls) -> None:
        if cls.__doc__ is not None:  # it is under python -OO
            cls.__doc__ += _ARGUMENTS

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
        self.dtype = np.dtype(dtype)
        if not 0.0 <= self.dropout <= 1.0:
            raise ValueError(f"dropout: expected a probability from 0 to 1, got {dropout}")
        if self.dtype not in (np.dtype(np.float32), np.dtype(np.float64)):
            raise TypeError(f"dtype: expected float32 or float64, got {self.dtype}")
        self.rng = np.random.default_rng(rng)

        size = sum(int(np.prod(shape)) for shape in self._parameter_shapes().values())
        bound = 1.0 / np.sqrt(self.hidden_size)  # of torch's initialisation, for every array
        self.flat_parameters = self.rng.uniform(-bound, bound, size).astype(self.dtype)
        self.flat_gradients = np.zeros(size, self.dtype)
        self._make_views()

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

    def _make_views(self) -> None:
        self.parameters: dict[str, Array] = {}
        self.gradients: dict[str, Array] = {}
        begin = 0
        for name, shape in self._parameter_shapes().items():
            end = begin + int(np.prod(shape))
            self.parameters[name] = self.flat_parameters[begin:end].reshape(shape)
            self.gradients[name] = self.flat_gradients[begin:end].reshape(shape)
            begin = end

    def load_parameters(self, parameters: Mapping[str, ArrayLike]) -> None:
        """Copy parameters in by name, such as the arrays of a torch state_dict.

        Parameters
        ----------
        parameters : mapping of str to array_like
            Every parameter of the layer and nothing else, each of its shape. Converted to the layer's dtype.

        Raises
        ------
        ValueError
            If a name is missing or unknown, or a shape is wrong; the layer is then unchanged.

        Examples
        --------
        >>> import rnncore as rc
        >>> source, target = rc.GRU(3, 4, rng=0), rc.GRU(3, 4, rng=1)
        >>> target.load_parameters(source.parameters)
        >>> bool((target.flat_parameters == source.flat_parameters).all())
        True
        """
        missing = [name for name in self.parameters if name not in parameters]
        unknown = [name for name in parameters if name not in self.parameters]
        if missing or unknown:
            raise ValueError(f"parameters: missing {missing}, unknown {unknown}")
        arrays = {name: np.asarray(value) for name, value in parameters.items()}
        for name, array in arrays.items():
            expected = self.parameters[name].shape
            if array.shape != expected or array.dtype.kind not in "biuf":
                raise ValueError(
                    f"parameters[{name!r}]: expected real numbers {expected}, got {array.dtype} {array.shape}"
                )
        for name, array in arrays.items():
            self.parameters[name][...] = array

    def zero_gradients(self) -> None:
        """Set every gradient to zero."""
        self.flat_gradients.fill(0)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("parameters", "gradients")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._make_views()

    def _options(self) -> dict[str, Any]:
        """Return the arguments of the constructor that are not at their defaults."""
        defaults = {
            "num_layers": 1,
            "bias": True,
            "batch_first": True,
            "dropout": 0.0,
            "bidirectional": False,
        }
        return {name: getattr(self, name) for name, value in defaults.items() if getattr(self, name) != value}

    def __repr__(self) -> str:
        options = "".join(f", {name}={value!r}" for name, value in self._options().items())
        dtype = "" if self.dtype == np.float32 else f", dtype={self.dtype.name!r}"
        return f"{type(self).__name__}({self.input_size}, {self.hidden_size}{options}{dtype})"

    # ------------------------------------------------------------------------------------------ computation

    def _weights(self, suffix: str) -> tuple[Array | None, ...]:
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        return tuple(self.parameters.get(name + suffix) for name in names)

    def _state_parts(self, name: str, state: State, like_x: Array) -> tuple[Array | None, ...]:
        """h, or h and c, each None or of the caller's shape."""
        if state is None:
            parts: tuple[Any, ...] = (None,) * self._states
        elif self._states == 1:
            parts = (state,)
        elif isinstance(state, tuple | list) and len(state) == self._states:
            parts = tuple(state)
        else:
            raise TypeError(f"{name}: expected None or a tuple (h, c), got {type(state).__name__}")
        batch = () if like_x.ndim == 2 else (like_x.shape[0 if self.batch_first else 1],)
        expected = (len(self._passes()), *batch, self.hidden_size)
        arrays = tuple(None if part is None else np.asarray(part) for part in parts)
        for array in arrays:
            if array is not None and array.shape != expected:
                raise ValueError(f"{name}: expected shape {expected}, got {array.shape}")
        return arrays

    def _split_state(self, name: str, state: State, like_x: Array) -> list[tuple[Array | None, Array | None]]:
        """(h, c) of each pass; None stands for zeros."""
        passes = len(self._passes())
        columns = [[None] * passes if part is None else part for part in self._state_parts(name, state, like_x)]
        columns += [[None] * passes] * (2 - self._states)
        return list(zip(*columns, strict=True))

    def _join_states(self, states: list[tuple[Array, ...]]) -> State:
        joined = tuple(np.stack(column) for column in zip(*states, strict=True))
        return joined if self._states > 1 else joined[0]

    def _input(self, x: ArrayLike) -> Array:
        array = np.asarray(x)
        if array.ndim not in (2, 3) or array.shape[-1] != self.input_size:
            shape = f"(N, T, {self.input_size})" if self.batch_first else f"(T, N, {self.input_size})"
            raise ValueError(f"x: expected {shape} or (T, {self.input_size}), got {array.shape}")
        return array

    def _pack(self) -> Stack:
        weights = [self._weights(suffix) for _, suffix, _ in self._passes()]
        return Stack(self._cell, weights, 1 + self.bidirectional, self.batch_first)

    def _run_converted(
        self, forward: Callable[..., Any], x: ArrayLike, state: State, lengths: ArrayLike | None
    ) -> tuple[Array, State]:
        """Check and convert what the core does not take as it is, and run."""
        series = as_array("x", self._input(x), self.dtype)
        unbatched, axis = series.ndim == 2, 0 if self.batch_first else 1
        parts: list[Array | None] = []
        for part in self._state_parts("state", state, series):
            if part is not None:
                part = as_array("state", part[:, np.newaxis] if unbatched else part, self.dtype)
            parts.append(part)
        if unbatched:
            series = np.expand_dims(series, axis)
        if lengths is not None:
            lengths = as_lengths(lengths, unbatched)
            if lengths.shape != (series.shape[axis],):
                raise ValueError(f"lengths: expected shape {(series.shape[axis],)}, got {lengths.shape}")
        result = forward(series, tuple(parts) if self._states > 1 else parts[0], lengths)
        assert result is not None
        y, last = result
        if not unbatched:
            return y, last
        return y.squeeze(axis), tuple(part[:, 0] for part in last) if self._states > 1 else last[:, 0]

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

    def _snapshot(self) -> Self:
        """Copy the layer, with parameters of its own that cannot be written."""
        twin = copy(self)
        twin.flat_parameters = self.flat_parameters.copy()
        twin.flat_parameters.flags.writeable = False
        twin._make_views()
        return twin

    def __call__(self, x: ArrayLike, state: State = None, lengths: ArrayLike | None = None) -> tuple[Array, State]:
        """Run the layer on x. Nothing is kept and nothing is dropped out.

        Parameters
        ----------
        x : array_like, (N, T, input_size)
            (T, N, input_size) if not `batch_first`, or (T, input_size) for one unbatched sequence.
        state : optional
            Initial state, (D*L, N, H), or (D*L, H) if unbatched; for LSTM a tuple (h, c) of two. L layers, D
            directions; l0, l0_reverse, l1, ... Default: zeros.
        lengths : array_like of int, (N,), optional
            Valid steps of each sequence, 0 to T. Default: T for all.

        Returns
        -------
        y : ndarray, (N, T, D*H)
            Laid out like x; zero at padded steps.
        state : as the argument
            Each sequence's state after its last valid step.
        """
        forward = self._pack().forward
        result = forward(x, state, lengths)
        return self._run_converted(forward, x, state, lengths) if result is None else result

    def vjp(
        self, x: ArrayLike, state: State = None, lengths: ArrayLike | None = None
    ) -> tuple[tuple[Array, State], PullBack]:
        """Run the layer on x for training: with dropout, and with the function that pulls gradients back.

        Parameters are those of a call. Leave x, the state and the parameters unchanged until the last pull-back.

        Returns
        -------
        output : (y, state)
            As a call returns it, in the same bits if there is no dropout.
        pull_back : callable
            ``pull_back(dy=None, dstate=None)`` takes the gradients of a scalar loss with respect to y and the final
            state, None for zeros, **adds** those of the parameters to `gradients`, and returns those of x and of the
            initial state. May be called several times.
        """
        first = self._input(x)
        pull_backs: list[Callable[..., tuple[Array, ...]]] = []
        masks: list[Array | None] = []

        series, states, outputs = first, [], []
        initial = self._split_state("state", state, first)
        for (k, suffix, reverse), (h, c) in zip(self._passes(), initial, strict=True):
            (y, *last), pull_back = functional._record(
                self._cell, series, *self._weights(suffix), h, c, lengths, reverse, self.batch_first
            )
            pull_backs.append(pull_back)
            outputs.append(y)
            states.append(tuple(last))
            if reverse != self.bidirectional:
                continue  # to the other direction
            series = outputs[0] if len(outputs) == 1 else np.concatenate(outputs, axis=-1)
            outputs = []
            mask = self._dropout_mask(series.shape) if k + 1 < self.num_layers else None
            masks.append(mask)
            if mask is not None:
                series = series * mask
        last_state = self._join_states(states)
        y_shape = series.shape

        def pull_back_all(dy: ArrayLike | None = None, dstate: State = None) -> tuple[Array, State]:
            dseries = None if dy is None else np.asarray(dy)
            if dseries is not None and dseries.shape != y_shape:
                raise ValueError(f"dy: expected shape {y_shape}, got {dseries.shape}")
            dlast = self._split_state("dstate", dstate, first)
            dinitial: list[Any] = [None] * len(dlast)
            H, directions = self.hidden_size, 1 + self.bidirectional
            for k in reversed(range(self.num_layers)):
                mask = masks[k]
                if mask is not None and dseries is not None:
                    dseries = dseries * mask
                dx: Array | None = None
                for d in range(directions):
                    index = k * directions + d
                    dy_d = None if dseries is None else dseries[..., d * H : (d + 1) * H]
                    gradients = pull_backs[index](dy_d, *dlast[index])
                    dx = gradients[0] if dx is None else dx + gradients[0]
                    self._add_gradients(self._passes()[index][1], gradients[1:5])
                    dinitial[index] = gradients[5:]
                dseries = dx
            assert dseries is not None
            return dseries, self._join_states(dinitial)

        return (series, last_state), pull_back_all

    def _dropout_mask(self, shape: tuple[int, ...]) -> Array | None:
        """Zero with probability `dropout`, else 1 / (1 - dropout), so that the mean is 1."""
        if self.dropout == 0.0:
            return None
        kept = self.rng.random(shape, dtype=np.float32) >= self.dropout
        mask = kept.astype(self.dtype)
        if self.dropout < 1.0:
            mask /= 1.0 - self.dropout
        return mask

    def _add_gradients(self, suffix: str, gradients: tuple[Array, ...]) -> None:
        for name, gradient in zip(("weight_ih", "weight_hh", "bias_ih", "bias_hh"), gradients, strict=True):
            if name + suffix in self.gradients:
                self.gradients[name + suffix] += gradient


def _size(name: str, value: int) -> int:
    if not isinstance(value, int | np.integer) or value < 1:
        raise ValueError(f"{name}: expected a positive integer, got {value!r}")
    return int(value)


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
            dtype=dtype,
            rng=rng,
        )

    def _options(self) -> dict[str, Any]:
        options = super()._options()
        return options if self.nonlinearity == "tanh" else {**options, "nonlinearity": self.nonlinearity}


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
