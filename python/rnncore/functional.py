"""Recurrent layers as pure functions on arrays: one call is one layer in one direction.

Weights are torch's: `w_ih` (G*H, I), `w_hh` (G*H, H) and biases (G*H,), with the gates of LSTM in the order
i, f, g, o and those of GRU in the order r, z, n. The computation runs in the dtype of `w_ih`, float32 or float64;
the other arrays are converted to it. `linear` is what usually follows: an affine map of every step.

Weights with an axis of M networks in front, `w_ih` (M, G*H, I) and so on, run all of them in one call, each in the
bits of a call of its own: x is (N, T, I) for all or (M, N, T, I), lengths (N,) or (M, N), and everything else has the
axis, in results and gradients too. The gradient of an x that all share is the sum over the networks, the first first.
Each network's part of a weight must be contiguous to be taken without a copy; the parts may lie apart, as in an array
(M, P).

>>> import numpy as np
>>> import rnncore as rc
>>> y, h_n = rc.functional.gru(np.ones((2, 5, 3)), np.ones((7, 12, 3)), np.ones((7, 12, 4)))
>>> y.shape, h_n.shape
((7, 2, 5, 4), (7, 2, 4))
"""

from __future__ import annotations  # those of an inner function would be evaluated at every call

import sys
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from rnncore import _core, many
from rnncore._conversion import Array, as_array, as_lengths, as_real, as_resets, batched, named
from rnncore._core import Cell
from rnncore.affine import LinearGradients, linear, linear_vjp
from rnncore.linear_scan import LinearScanGradients, LinearScanOutput, linear_scan, linear_scan_vjp
from rnncore.ragged import same_kind

__all__ = [
    "GRUGradients",
    "GRUOutput",
    "LSTMGradients",
    "LSTMOutput",
    "LinearGradients",
    "LinearScanGradients",
    "LinearScanOutput",
    "RNNGradients",
    "RNNOutput",
    "gru",
    "gru_vjp",
    "linear",
    "linear_scan",
    "linear_scan_vjp",
    "linear_vjp",
    "lstm",
    "lstm_vjp",
    "rnn",
    "rnn_vjp",
]


class RNNOutput(NamedTuple):
    """What `rnn` returns: hidden states of all steps and the last one of each sequence."""

    y: Array
    h_n: Array


class GRUOutput(NamedTuple):
    """What `gru` returns: hidden states of all steps and the last one of each sequence."""

    y: Array
    h_n: Array


class LSTMOutput(NamedTuple):
    """What `lstm` returns: hidden states of all steps, the last hidden and the last cell state of each sequence."""

    y: Array
    h_n: Array
    c_n: Array


class RNNGradients(NamedTuple):
    """Gradients of the arguments of `rnn`; zeros stood in for arguments that were None.

    `h_reset` is None unless it was given.
    """

    x: Array
    w_ih: Array
    w_hh: Array
    b_ih: Array
    b_hh: Array
    h_0: Array
    h_reset: Array | None = None


class GRUGradients(NamedTuple):
    """Gradients of the arguments of `gru`; zeros stood in for arguments that were None.

    `h_reset` is None unless it was given.
    """

    x: Array
    w_ih: Array
    w_hh: Array
    b_ih: Array
    b_hh: Array
    h_0: Array
    h_reset: Array | None = None


class LSTMGradients(NamedTuple):
    """Gradients of the arguments of `lstm`; zeros stood in for arguments that were None.

    `h_reset` and `c_reset` are None unless they were given.
    """

    x: Array
    w_ih: Array
    w_hh: Array
    b_ih: Array
    b_hh: Array
    h_0: Array
    c_0: Array
    h_reset: Array | None = None
    c_reset: Array | None = None


class _Arguments:
    """The arguments of one call in the form the core takes, and the way back to the caller's shapes."""

    __slots__ = ("batch_axis", "dtype", "kind", "positional", "ragged")
    positional: tuple[Any, ...]  # what _core.forward and _core.record take

    def __init__(
        self,
        cell: Cell,
        x: Any,  # an array, a list of arrays, Ragged or a Lookup
        w_ih: ArrayLike,
        w_hh: ArrayLike,
        b_ih: ArrayLike | None,
        b_hh: ArrayLike | None,
        h_0: ArrayLike | None,
        c_0: ArrayLike | None,
        lengths: Any,
        reverse: bool,
        batch_first: bool,
    ) -> None:
        w = as_real("w_ih", w_ih)
        dtype = self.dtype = w.dtype
        self.ragged, self.kind = same_kind("x", x)
        if self.ragged is not None:
            x, lengths = self.ragged.data, self.ragged.structure(lengths)
        if not isinstance(x, _core.Lookup):
            x = as_array("x", x, dtype)
        no_padding = isinstance(lengths, _core.Ragged)
        # where the core has a batch axis of 1 that the caller does not have: in x, y and their gradients
        self.batch_axis = (0 if batch_first else 1) if len(x.shape) == 2 and not no_padding else None
        if self.ragged is None and not isinstance(x, _core.Lookup):
            x = self.series("x", x)
        if len(x.shape) != 3 and not no_padding:
            lengths = None  # the core refuses x
        elif lengths is not None and not no_padding:
            N, T = x.shape[:2] if batch_first else x.shape[1::-1]
            lengths = as_lengths(lengths, N, T, unbatched=self.batch_axis is not None)
        self.positional = (
            cell,
            x,
            w,
            as_array("w_hh", w_hh, dtype),
            None if b_ih is None else as_array("b_ih", b_ih, dtype),
            None if b_hh is None else as_array("b_hh", b_hh, dtype),
            self.state("h_0", h_0),
            self.state("c_0", c_0),
            lengths,
            reverse,
            batch_first,
        )

    def series(self, name: str, value: ArrayLike | None) -> Array | None:
        """Prepare x, y or a gradient of one of them for the core."""
        if value is None:
            return None
        if self.ragged is not None:
            return as_array(name, self.ragged.arranged(name, value), self.dtype)
        array = as_array(name, value, self.dtype)
        return array if self.batch_axis is None else batched(name, array, 2, self.batch_axis)

    def state(self, name: str, value: ArrayLike | None) -> Array | None:
        """Prepare a state or a gradient of one for the core."""
        if value is None:
            return None
        array = as_array(name, value, self.dtype)
        return array if self.batch_axis is None else batched(name, array, 1, 0)

    def resets(
        self, mask: ArrayLike | None, h_reset: ArrayLike | None, c_reset: ArrayLike | None
    ) -> tuple[Array, Array | None, Array | None]:
        """Prepare where states start anew, and at what."""
        if mask is None:
            name = "c_reset" if h_reset is None else "h_reset"
            raise ValueError(f"{name}: expected None, since there is no reset_mask")
        if self.positional[2].ndim == 3:
            raise ValueError("reset_mask: expected None, since the weights are those of many networks")
        starts = self.start("h_reset", h_reset), self.start("c_reset", c_reset)
        if self.ragged is not None:
            mask = self.ragged.arranged("reset_mask", mask)
        return as_resets(mask, self.batch_axis), *starts

    def start(self, name: str, value: ArrayLike | None) -> Array | None:
        """Prepare a state after resets: of each sequence, or one for all."""
        if value is None or self.batch_axis is not None or np.ndim(value) != 1:
            return self.state(name, value)
        lengths = self.positional[8]
        N = self.positional[1].shape[0 if self.positional[-1] else 1]
        if isinstance(lengths, _core.Ragged):
            N = lengths.sequences
        return np.tile(as_array(name, value, self.dtype), (N, 1))

    def unbatched(self, series: Array, *rest: Array, states: int) -> tuple[Any, ...]:
        """Return the core's results in the caller's shapes: a series comes first; states, or None for some, last."""
        if self.ragged is not None:
            return (self.kind(self.ragged.with_data(series)), *rest)
        if self.batch_axis is None:
            return (series, *rest)
        first_state = len(rest) - states
        return (
            series.squeeze(self.batch_axis),
            *rest[:first_state],
            *(None if s is None else s[0] for s in rest[first_state:]),
        )


Resets = tuple[Any, Any, Any]  # reset_mask, h_reset, c_reset


# The core takes arrays that need no conversion as they are, and returns None at once where one does.


def _forward(cell: Cell, *arguments: Any) -> tuple[Array, ...]:
    outputs = _core.forward(cell, *arguments)
    if outputs is not None:
        return outputs
    if np.ndim(arguments[1]) == 3:
        return many.forward(cell, *arguments)
    call = _Arguments(cell, *arguments)
    outputs = _core.forward(*call.positional)
    assert outputs is not None
    return call.unbatched(*outputs, states=len(outputs) - 1)


def _record(*arguments: Any) -> tuple[tuple[Array, ...], Callable[..., tuple[Array, ...]]]:
    """`_forward` with the function that pulls gradients back; before the cell comes what `_every` returns."""
    recorded = _core.record(*arguments)
    if recorded is not None:
        outputs, recording = recorded

        def pull_back(*cotangents: ArrayLike | None) -> tuple[Array, ...]:
            gradients = recording.backward(*cotangents)
            return (
                _converting_pull_back(recording, _Arguments(*arguments[1:]), *cotangents)
                if gradients is None
                else gradients
            )

        return outputs, pull_back
    if np.ndim(arguments[3]) == 3:
        return many.record(*arguments)
    call = _Arguments(*arguments[1:])
    recorded = _core.record(arguments[0], *call.positional)
    assert recorded is not None
    outputs, recording = recorded
    return call.unbatched(*outputs, states=len(outputs) - 1), partial(_converting_pull_back, recording, call)


def _converting_pull_back(
    recording: _core.Recording, call: _Arguments, dy: ArrayLike | None, dh_n: ArrayLike | None, dc_n: ArrayLike | None
) -> tuple[Array, ...]:
    gradients = recording.backward(call.series("dy", dy), call.state("dh_n", dh_n), call.state("dc_n", dc_n))
    assert gradients is not None
    return call.unbatched(*gradients, states=len(gradients) - 5)


def _as_layer(
    cell: Cell,
    x: Any,
    w_ih: Any,
    w_hh: Any,
    b_ih: Any,
    b_hh: Any,
    h_0: Any,
    c_0: Any,
    lengths: Any,
    reverse: bool,
    batch_first: bool,
) -> tuple[Any, Any, tuple[Any, ...], tuple[Any, ...], Any, bool, bool]:
    """Return the arguments of `_core.forward` as those of any layer have them."""
    return (cell, x, (w_ih, w_hh, b_ih, b_hh), (h_0, c_0), lengths, reverse, batch_first)


def _as_tuple(resets: Resets) -> tuple[Any, tuple[Any, Any]]:
    mask, h_reset, c_reset = resets
    return mask, (h_reset, c_reset)


def _forward_with_resets(resets: Resets, cell: Cell, *arguments: Any) -> tuple[Array, ...]:
    """`_forward` with resets."""
    outputs = _core.forward_layer(*_as_layer(cell, *arguments), _as_tuple(resets))
    if outputs is not None:
        return outputs
    call = _Arguments(cell, *arguments)
    outputs = _core.forward_layer(*_as_layer(*call.positional), _as_tuple(call.resets(*resets)))
    assert outputs is not None
    return call.unbatched(*outputs, states=len(outputs) - 1)


def _record_with_resets(
    resets: Resets, every: int, *arguments: Any
) -> tuple[tuple[Array, ...], Callable[..., tuple[Any, ...]]]:
    """`_record` with resets."""
    call = _Arguments(*arguments)
    recorded = _core.record_layer(
        every, *_as_layer(*call.positional), _as_tuple(call.resets(*resets)), (None, None, None)
    )
    assert recorded is not None
    outputs, recording = recorded
    states = len(outputs) - 1
    one_for_all = [call.batch_axis is None and np.ndim(start) == 1 for start in resets[1 : 1 + states]]

    def pull_back(*cotangents: ArrayLike | None) -> tuple[Any, ...]:
        gradients = _converting_pull_back(recording, call, *cotangents)
        starts = (
            gradient.sum(axis=0) if one else gradient
            for one, gradient in zip(one_for_all, gradients[5 + states :], strict=True)
        )
        return *gradients[: 5 + states], *starts

    return call.unbatched(*outputs, states=states), pull_back


def _every(checkpoint_every: int | None) -> int:
    """Return it as the core has it: 0 for None, and no more than its integers hold."""
    if checkpoint_every is None:
        return 0
    integer = isinstance(checkpoint_every, int | np.integer) and not isinstance(checkpoint_every, bool)
    if not integer or checkpoint_every < 1:
        raise ValueError(f"checkpoint_every: expected a positive integer or None, got {checkpoint_every!r}")
    return min(int(checkpoint_every), sys.maxsize)


def _rnn_cell(nonlinearity: str) -> Cell:
    if nonlinearity == "tanh":
        return Cell.rnn_tanh
    if nonlinearity == "relu":
        return Cell.rnn_relu
    raise ValueError(f"nonlinearity: expected 'tanh' or 'relu', got {nonlinearity!r}")


def rnn(
    x: ArrayLike,
    w_ih: ArrayLike,
    w_hh: ArrayLike,
    b_ih: ArrayLike | None = None,
    b_hh: ArrayLike | None = None,
    h_0: ArrayLike | None = None,
    *,
    nonlinearity: str = "tanh",
    lengths: ArrayLike | None = None,
    reverse: bool = False,
    batch_first: bool = True,
    reset_mask: ArrayLike | None = None,
    h_reset: ArrayLike | None = None,
) -> RNNOutput:
    """Run one layer of a simple recurrent network (Elman 1990) in one direction.

    h_t = act(W x_t + b_ih + U h_{t-1} + b_hh)

    Parameters
    ----------
    x : array_like, (N, T, I)
        Input; (T, N, I) if not `batch_first`, or (T, I) for one unbatched sequence. Or a list of N arrays (T_n, I), or
        a `Packed`: y, dy and the gradient of x are the same then, and there are no `lengths`.
    w_ih : array_like, (H, I)
        W. Its dtype, float32 or float64, is that of the computation and of the results.
    w_hh : array_like, (H, H)
        U.
    b_ih, b_hh : array_like, (H,), optional
        Biases. Default: zeros.
    h_0 : array_like, (N, H), optional
        Initial state, (H,) if unbatched. Default: zeros.
    nonlinearity : {"tanh", "relu"}
        act.
    lengths : array_like of int (N,) or of bool (N, T), optional
        Number of valid steps of each sequence, 0 to T; one number if unbatched. Or a mask, True at valid steps, which
        are the first of each row. Default: T for all. Later steps
        are not computed: y is zero there, and
        `h_n` is the state after the last valid step, or `h_0` where there is none.
    reverse : bool
        Read each sequence from its own last valid step to its first. y stays aligned with x.
    batch_first : bool
        Whether x and y have the batch axis first (True) or the time axis.

    reset_mask : array_like of bool, (N, T), optional
        Laid out like the steps of x, (T,) if unbatched. True where a new episode starts: the sequence is cut before
        that step, which starts from `h_reset` and not from the state before it. Bits are those of the pieces in calls
        of their own. With `reverse` the cuts are the same, and each piece is read from its end.
    h_reset : array_like, (N, H), optional
        State after a reset, (H,) for one of all sequences. Default: zeros.

    Returns
    -------
    RNNOutput
        Named tuple of y (N, T, H), laid out like x, and h_n (N, H).

    Raises
    ------
    ValueError, TypeError
        If an argument has the wrong shape, value or type; the message names it.

    Examples
    --------
    >>> import numpy as np
    >>> import rnncore as rc
    >>> x = np.ones((1, 3, 1), dtype=np.float32)
    >>> y, h_n = rc.functional.rnn(x, np.float32([[0.5]]), np.float32([[1.0]]), nonlinearity="relu")
    >>> y.ravel()
    array([0.5, 1. , 1.5], dtype=float32)
    """
    cell = _rnn_cell(nonlinearity)
    if reset_mask is h_reset is None:
        return named(RNNOutput, _forward(cell, x, w_ih, w_hh, b_ih, b_hh, h_0, None, lengths, reverse, batch_first))
    resets = reset_mask, h_reset, None
    arguments = (x, w_ih, w_hh, b_ih, b_hh, h_0, None, lengths, reverse, batch_first)
    return named(RNNOutput, _forward_with_resets(resets, cell, *arguments))


def rnn_vjp(
    x: ArrayLike,
    w_ih: ArrayLike,
    w_hh: ArrayLike,
    b_ih: ArrayLike | None = None,
    b_hh: ArrayLike | None = None,
    h_0: ArrayLike | None = None,
    *,
    nonlinearity: str = "tanh",
    lengths: ArrayLike | None = None,
    reverse: bool = False,
    batch_first: bool = True,
    reset_mask: ArrayLike | None = None,
    h_reset: ArrayLike | None = None,
    checkpoint_every: int | None = None,
) -> tuple[RNNOutput, Callable[..., RNNGradients]]:
    """Run `rnn` and return, with its output, the function that pulls gradients back through it.

    The arrays are not copied: leave x, the weights and the initial state unchanged until the last call of `vjp`.

    Parameters
    ----------
    checkpoint_every : int, optional
        Keep the packed weights and the states every so many steps, H numbers a row, instead of H numbers for
        each row and step. `vjp` runs the steps between again (Chen et al. 2016), one segment at a time, which takes up
        to half as much time more; results have the same bits. A segment has as many steps or more, so that it has
        about 512 rows of x. Default: keep all.
    **others
        The parameters of `rnn`.

    Returns
    -------
    output : RNNOutput
        As `rnn` returns it, in the same bits.
    vjp : callable
        ``vjp(dy=None, dh_n=None)`` takes the gradients of a scalar loss with respect to y and h_n, None for zeros, and
        returns those of the arguments as `RNNGradients`: all six, and that of `h_reset` if given. dy is ignored at
        padded steps, and the gradient of x is zero there. May be called several times, from any thread.

    Examples
    --------
    >>> import numpy as np
    >>> import rnncore as rc
    >>> x = np.ones((1, 3, 1))
    >>> (y, h_n), vjp = rc.functional.rnn_vjp(x, [[0.5]], [[1.0]], nonlinearity="relu")
    >>> vjp(dh_n=[[1.0]]).w_ih
    array([[3.]])
    """
    cell = _rnn_cell(nonlinearity)
    if reset_mask is h_reset is None:
        outputs, pull_back = _record(
            _every(checkpoint_every), cell, x, w_ih, w_hh, b_ih, b_hh, h_0, None, lengths, reverse, batch_first
        )
    else:
        resets = reset_mask, h_reset, None
        arguments = (x, w_ih, w_hh, b_ih, b_hh, h_0, None, lengths, reverse, batch_first)
        outputs, pull_back = _record_with_resets(resets, _every(checkpoint_every), cell, *arguments)

    def vjp(dy: ArrayLike | None = None, dh_n: ArrayLike | None = None) -> RNNGradients:
        return named(RNNGradients, pull_back(dy, dh_n, None))

    return named(RNNOutput, outputs), vjp


def lstm(
    x: ArrayLike,
    w_ih: ArrayLike,
    w_hh: ArrayLike,
    b_ih: ArrayLike | None = None,
    b_hh: ArrayLike | None = None,
    h_0: ArrayLike | None = None,
    c_0: ArrayLike | None = None,
    *,
    lengths: ArrayLike | None = None,
    reverse: bool = False,
    batch_first: bool = True,
    reset_mask: ArrayLike | None = None,
    h_reset: ArrayLike | None = None,
    c_reset: ArrayLike | None = None,
) -> LSTMOutput:
    """Run one layer of long short-term memory (Hochreiter & Schmidhuber 1997) in one direction.

    With a = W x_t + b_ih + U h_{t-1} + b_hh for each gate:
    i, f, o = sigmoid(a); g = tanh(a); c_t = f c_{t-1} + i g; h_t = o tanh(c_t)

    Parameters
    ----------
    x : array_like, (N, T, I)
        Input; (T, N, I) if not `batch_first`, or (T, I) for one unbatched sequence. Or a list of N arrays (T_n, I), or
        a `Packed`: y, dy and the gradient of x are the same then, and there are no `lengths`.
    w_ih : array_like, (4*H, I)
        W, gates in the order i, f, g, o. Its dtype, float32 or float64, is that of the computation and of the results.
    w_hh : array_like, (4*H, H)
        U.
    b_ih, b_hh : array_like, (4*H,), optional
        Biases. Default: zeros.
    h_0, c_0 : array_like, (N, H), optional
        Initial hidden and cell state, (H,) if unbatched. Default: zeros.
    lengths : array_like of int (N,) or of bool (N, T), optional
        Number of valid steps of each sequence, 0 to T; one number if unbatched. Or a mask, True at valid steps, which
        are the first of each row. Default: T for all. Later steps
        are not computed: y is zero there, and
        the final states are those after the last valid step, or the initial ones where there is none.
    reverse : bool
        Read each sequence from its own last valid step to its first. y stays aligned with x.
    batch_first : bool
        Whether x and y have the batch axis first (True) or the time axis.

    reset_mask : array_like of bool, (N, T), optional
        Laid out like the steps of x, (T,) if unbatched. True where a new episode starts: the sequence is cut before
        that step, which starts from `h_reset` and not from the state before it. Bits are those of the pieces in calls
        of their own. With `reverse` the cuts are the same, and each piece is read from its end.
    h_reset, c_reset : array_like, (N, H), optional
        States after a reset, (H,) for one of all sequences. Default: zeros.

    Returns
    -------
    LSTMOutput
        Named tuple of y (N, T, H), laid out like x, h_n (N, H) and c_n (N, H).

    Raises
    ------
    ValueError, TypeError
        If an argument has the wrong shape, value or type; the message names it.

    Examples
    --------
    >>> import numpy as np
    >>> import rnncore as rc
    >>> rng = np.random.default_rng(0)
    >>> x = rng.standard_normal((2, 5, 3), dtype=np.float32)
    >>> w_ih = rng.standard_normal((16, 3), dtype=np.float32)
    >>> w_hh = rng.standard_normal((16, 4), dtype=np.float32)
    >>> y, h_n, c_n = rc.functional.lstm(x, w_ih, w_hh, lengths=[5, 2])
    >>> y.shape, h_n.shape
    ((2, 5, 4), (2, 4))
    >>> bool((y[1, 1] == h_n[1]).all()), y[1, 2:].any()
    (True, np.False_)
    """
    if reset_mask is h_reset is c_reset is None:
        return named(
            LSTMOutput, _forward(Cell.lstm, x, w_ih, w_hh, b_ih, b_hh, h_0, c_0, lengths, reverse, batch_first)
        )
    resets = reset_mask, h_reset, c_reset
    arguments = (x, w_ih, w_hh, b_ih, b_hh, h_0, c_0, lengths, reverse, batch_first)
    return named(LSTMOutput, _forward_with_resets(resets, Cell.lstm, *arguments))


def lstm_vjp(
    x: ArrayLike,
    w_ih: ArrayLike,
    w_hh: ArrayLike,
    b_ih: ArrayLike | None = None,
    b_hh: ArrayLike | None = None,
    h_0: ArrayLike | None = None,
    c_0: ArrayLike | None = None,
    *,
    lengths: ArrayLike | None = None,
    reverse: bool = False,
    batch_first: bool = True,
    reset_mask: ArrayLike | None = None,
    h_reset: ArrayLike | None = None,
    c_reset: ArrayLike | None = None,
    checkpoint_every: int | None = None,
) -> tuple[LSTMOutput, Callable[..., LSTMGradients]]:
    """Run `lstm` and return, with its output, the function that pulls gradients back through it.

    The arrays are not copied: leave x, the weights and the initial states unchanged until the last call of `vjp`.

    Parameters
    ----------
    checkpoint_every : int, optional
        Keep the packed weights and the states every so many steps, 2 H numbers a row, instead of 6 H numbers for
        each row and step. `vjp` runs the steps between again (Chen et al. 2016), one segment at a time, which takes up
        to half as much time more; results have the same bits. A segment has as many steps or more, so that it has
        about 512 rows of x. Default: keep all.
    **others
        The parameters of `lstm`.

    Returns
    -------
    output : LSTMOutput
        As `lstm` returns it, in the same bits.
    vjp : callable
        ``vjp(dy=None, dh_n=None, dc_n=None)`` takes the gradients of a scalar loss with respect to y, h_n and c_n, None
        for zeros, and returns those of the arguments as `LSTMGradients`: all seven, and those of `h_reset` and
        `c_reset` if given. dy is ignored at padded steps, and the gradient of x is zero there. May be called several
        times, from any thread.

    Examples
    --------
    >>> import numpy as np
    >>> import rnncore as rc
    >>> rng = np.random.default_rng(0)
    >>> x, w_ih, w_hh = (rng.standard_normal(shape) for shape in [(2, 5, 3), (16, 3), (16, 4)])
    >>> (y, h_n, c_n), vjp = rc.functional.lstm_vjp(x, w_ih, w_hh)
    >>> gradients = vjp(2 * y)  # of sum(y**2)
    >>> gradients.w_hh.shape, gradients.c_0.shape
    ((16, 4), (2, 4))
    """
    if reset_mask is h_reset is c_reset is None:
        outputs, pull_back = _record(
            _every(checkpoint_every), Cell.lstm, x, w_ih, w_hh, b_ih, b_hh, h_0, c_0, lengths, reverse, batch_first
        )
    else:
        resets = reset_mask, h_reset, c_reset
        arguments = (x, w_ih, w_hh, b_ih, b_hh, h_0, c_0, lengths, reverse, batch_first)
        outputs, pull_back = _record_with_resets(resets, _every(checkpoint_every), Cell.lstm, *arguments)

    def vjp(dy: ArrayLike | None = None, dh_n: ArrayLike | None = None, dc_n: ArrayLike | None = None) -> LSTMGradients:
        return named(LSTMGradients, pull_back(dy, dh_n, dc_n))

    return named(LSTMOutput, outputs), vjp


def gru(
    x: ArrayLike,
    w_ih: ArrayLike,
    w_hh: ArrayLike,
    b_ih: ArrayLike | None = None,
    b_hh: ArrayLike | None = None,
    h_0: ArrayLike | None = None,
    *,
    lengths: ArrayLike | None = None,
    reverse: bool = False,
    batch_first: bool = True,
    reset_mask: ArrayLike | None = None,
    h_reset: ArrayLike | None = None,
) -> GRUOutput:
    """Run one layer of gated recurrent units (Cho et al. 2014, reset-after form) in one direction.

    With x_k = W_k x_t + b_ih,k and u_k = U_k h_{t-1} + b_hh,k for each gate k:
    r, z = sigmoid(x + u); n = tanh(x_n + r u_n); h_t = z h_{t-1} + (1 - z) n

    Parameters
    ----------
    x : array_like, (N, T, I)
        Input; (T, N, I) if not `batch_first`, or (T, I) for one unbatched sequence. Or a list of N arrays (T_n, I), or
        a `Packed`: y, dy and the gradient of x are the same then, and there are no `lengths`.
    w_ih : array_like, (3*H, I)
        W, gates in the order r, z, n. Its dtype, float32 or float64, is that of the computation and of the results.
    w_hh : array_like, (3*H, H)
        U.
    b_ih, b_hh : array_like, (3*H,), optional
        Biases. Default: zeros.
    h_0 : array_like, (N, H), optional
        Initial state, (H,) if unbatched. Default: zeros.
    lengths : array_like of int (N,) or of bool (N, T), optional
        Number of valid steps of each sequence, 0 to T; one number if unbatched. Or a mask, True at valid steps, which
        are the first of each row. Default: T for all. Later steps
        are not computed: y is zero there, and
        `h_n` is the state after the last valid step, or `h_0` where there is none.
    reverse : bool
        Read each sequence from its own last valid step to its first. y stays aligned with x.
    batch_first : bool
        Whether x and y have the batch axis first (True) or the time axis.

    reset_mask : array_like of bool, (N, T), optional
        Laid out like the steps of x, (T,) if unbatched. True where a new episode starts: the sequence is cut before
        that step, which starts from `h_reset` and not from the state before it. Bits are those of the pieces in calls
        of their own. With `reverse` the cuts are the same, and each piece is read from its end.
    h_reset : array_like, (N, H), optional
        State after a reset, (H,) for one of all sequences. Default: zeros.

    Returns
    -------
    GRUOutput
        Named tuple of y (N, T, H), laid out like x, and h_n (N, H).

    Raises
    ------
    ValueError, TypeError
        If an argument has the wrong shape, value or type; the message names it.

    Examples
    --------
    >>> import numpy as np
    >>> import rnncore as rc
    >>> rng = np.random.default_rng(0)
    >>> x, w_ih, w_hh = (rng.standard_normal(shape) for shape in [(5, 3), (12, 3), (12, 4)])
    >>> y, h_n = rc.functional.gru(x, w_ih, w_hh)  # one sequence, no batch axis
    >>> y.shape, h_n.shape
    ((5, 4), (4,))
    >>> y, h_n = rc.functional.gru(x, w_ih, w_hh, reset_mask=[False, False, True, False, False])
    >>> bool((y[2:] == rc.functional.gru(x[2:], w_ih, w_hh).y).all())
    True
    """
    if reset_mask is h_reset is None:
        return named(GRUOutput, _forward(Cell.gru, x, w_ih, w_hh, b_ih, b_hh, h_0, None, lengths, reverse, batch_first))
    resets = reset_mask, h_reset, None
    arguments = (x, w_ih, w_hh, b_ih, b_hh, h_0, None, lengths, reverse, batch_first)
    return named(GRUOutput, _forward_with_resets(resets, Cell.gru, *arguments))


def gru_vjp(
    x: ArrayLike,
    w_ih: ArrayLike,
    w_hh: ArrayLike,
    b_ih: ArrayLike | None = None,
    b_hh: ArrayLike | None = None,
    h_0: ArrayLike | None = None,
    *,
    lengths: ArrayLike | None = None,
    reverse: bool = False,
    batch_first: bool = True,
    reset_mask: ArrayLike | None = None,
    h_reset: ArrayLike | None = None,
    checkpoint_every: int | None = None,
) -> tuple[GRUOutput, Callable[..., GRUGradients]]:
    """Run `gru` and return, with its output, the function that pulls gradients back through it.

    The arrays are not copied: leave x, the weights and the initial state unchanged until the last call of `vjp`.

    Parameters
    ----------
    checkpoint_every : int, optional
        Keep the packed weights and the states every so many steps, H numbers a row, instead of 5 H numbers for
        each row and step. `vjp` runs the steps between again (Chen et al. 2016), one segment at a time, which takes up
        to half as much time more; results have the same bits. A segment has as many steps or more, so that it has
        about 512 rows of x. Default: keep all.
    **others
        The parameters of `gru`.

    Returns
    -------
    output : GRUOutput
        As `gru` returns it, in the same bits.
    vjp : callable
        ``vjp(dy=None, dh_n=None)`` takes the gradients of a scalar loss with respect to y and h_n, None for zeros, and
        returns those of the arguments as `GRUGradients`: all six, and that of `h_reset` if given. dy is ignored at
        padded steps, and the gradient of x is zero there. May be called several times, from any thread.

    Examples
    --------
    >>> import numpy as np
    >>> import rnncore as rc
    >>> rng = np.random.default_rng(0)
    >>> x, w_ih, w_hh = (rng.standard_normal(shape) for shape in [(2, 5, 3), (12, 3), (12, 4)])
    >>> (y, h_n), vjp = rc.functional.gru_vjp(x, w_ih, w_hh)
    >>> vjp(dh_n=np.ones_like(h_n)).x.shape
    (2, 5, 3)
    """
    if reset_mask is h_reset is None:
        outputs, pull_back = _record(
            _every(checkpoint_every), Cell.gru, x, w_ih, w_hh, b_ih, b_hh, h_0, None, lengths, reverse, batch_first
        )
    else:
        resets = reset_mask, h_reset, None
        arguments = (x, w_ih, w_hh, b_ih, b_hh, h_0, None, lengths, reverse, batch_first)
        outputs, pull_back = _record_with_resets(resets, _every(checkpoint_every), Cell.gru, *arguments)

    def vjp(dy: ArrayLike | None = None, dh_n: ArrayLike | None = None) -> GRUGradients:
        return named(GRUGradients, pull_back(dy, dh_n, None))

    return named(GRUOutput, outputs), vjp
