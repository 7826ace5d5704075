"""An affine map of every step with an activation, as pure functions on arrays: what turns states into outputs.

The weight is torch's: (O, I). The computation runs in its dtype, float32 or float64; the other arrays are converted
to it. `rnncore.functional` has the same names. A weight (M, O, I) is M maps in one call, as told there.
"""

from __future__ import annotations  # those of an inner function would be evaluated at every call

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from rnncore import _core, many
from rnncore._conversion import Array, as_array, as_lengths, as_real, named
from rnncore._core import Activation
from rnncore.ragged import Ragged, same_kind

__all__ = ["LinearGradients", "linear", "linear_vjp"]


class LinearGradients(NamedTuple):
    """Gradients of the arguments of `linear`; zeros stood in for a bias that was None."""

    x: Array
    weight: Array
    bias: Array


_ACTIVATIONS = {
    None: Activation.none,
    "tanh": Activation.tanh,
    "sigmoid": Activation.sigmoid,
    "relu": Activation.relu,
}


def activation_of(name: str | None) -> Activation:
    """Return the core's activation of this name."""
    try:
        return _ACTIVATIONS[name]
    except (KeyError, TypeError):  # TypeError: not hashable
        raise ValueError(f"activation: expected None, 'tanh', 'sigmoid' or 'relu', got {name!r}") from None


def _converted(
    activation: Activation, x: ArrayLike, weight: ArrayLike, bias: ArrayLike | None, lengths: ArrayLike | None
) -> tuple[Any, ...]:
    """Prepare the arguments for the core."""
    w = as_real("weight", weight)
    series = as_array("x", x, w.dtype)
    if lengths is not None:  # (where x has no time, the core says so)
        lengths = as_lengths(lengths, *series.shape[:2]) if series.ndim == 3 else np.empty(0, np.int64)
    return activation, series, w, None if bias is None else as_array("bias", bias, w.dtype), lengths


def linear(
    x: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    activation: str | None = None,
    lengths: ArrayLike | None = None,
) -> Array:
    """Map every row of x, a vector of I numbers, to O numbers: y = act(W x + b).

    A row's result has the same bits whatever other rows there are.

    Parameters
    ----------
    x : array_like, (..., I)
        Input; with `lengths`, (N, T, I). Or a list of N arrays (T_n, I), or a `Packed`: y, dy and the gradient of x are
        the same then.
    weight : array_like, (O, I)
        W. Its dtype, float32 or float64, is that of the computation and of the result.
    bias : array_like, (O,), optional
        b. Default: zeros.
    activation : {None, "tanh", "sigmoid", "relu"}
        act. Default: none.
    lengths : array_like of int (N,) or of bool (N, T), optional
        Number of valid steps of each sequence, 0 to T, or a mask that is True at valid steps, which are the first of
        each row. Default: T for all. Later steps are neither read nor computed:
        y is zero there.

    Returns
    -------
    ndarray, (..., O)
        y.

    Raises
    ------
    ValueError, TypeError
        If an argument has the wrong shape, value or type; the message names it.

    Examples
    --------
    >>> import numpy as np
    >>> import rnncore as rc
    >>> rc.functional.linear([[1.0, 2.0], [3.0, -4.0]], [[1.0, 1.0]], [0.5], activation="relu")
    array([[3.5],
           [0. ]])
    >>> y = rc.functional.linear(np.ones((2, 3, 4)), np.ones((1, 4)), lengths=[3, 1])
    >>> y[..., 0]
    array([[4., 4., 4.],
           [4., 0., 0.]])
    """
    act = activation_of(activation)
    y = _core.linear(act, x, weight, bias, lengths)
    if y is None and np.ndim(weight) == 3:
        y, _ = many.linear(act, x, weight, bias, lengths)
    elif y is None:  # the core converts nothing
        ragged, kind = same_kind("x", x)
        if ragged is not None:
            ragged.structure(lengths)
            series: Array = kind(ragged.with_data(linear(ragged.data, weight, bias, activation=activation)))
            return series
        y = _core.linear(*_converted(act, x, weight, bias, lengths))
        assert y is not None
    return y


def linear_vjp(
    x: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    activation: str | None = None,
    lengths: ArrayLike | None = None,
) -> tuple[Array, Callable[[ArrayLike], LinearGradients]]:
    """Run `linear` and return, with its output, the function that pulls a gradient back through it.

    Parameters are those of `linear`. The arrays are not copied: leave x, the weight and, if there is an activation,
    also y unchanged until the last call of `vjp`.

    Returns
    -------
    y : ndarray, (..., O)
        As `linear` returns it, in the same bits.
    vjp : callable
        ``vjp(dy)`` takes the gradient of a scalar loss with respect to y and returns those of the arguments as
        `LinearGradients`, always all three. dy is not read at padded steps, and the gradient of x is zero there. May be
        called several times, from any thread.

    Examples
    --------
    >>> import rnncore as rc
    >>> y, vjp = rc.functional.linear_vjp([[1.0, 2.0], [3.0, -4.0]], [[1.0, 1.0]], [0.5], activation="relu")
    >>> vjp([[1.0], [1.0]])
    LinearGradients(x=array([[1., 1.],
           [0., 0.]]), weight=array([[1., 2.]]), bias=array([1.]))
    """
    act = activation_of(activation)
    recorded = _core.record_linear(act, x, weight, bias, lengths)
    if recorded is None and np.ndim(weight) == 3:
        y, pull_back = many.linear(act, x, weight, bias, lengths)
        return y, lambda dy: named(LinearGradients, pull_back(dy))
    if recorded is None:
        ragged, kind = same_kind("x", x)
        if ragged is not None:
            ragged.structure(lengths)
            return _ragged_vjp(ragged, kind, *linear_vjp(ragged.data, weight, bias, activation=activation))
        recorded = _core.record_linear(*_converted(act, x, weight, bias, lengths))
        assert recorded is not None
    y, recording = recorded

    def vjp(dy: ArrayLike) -> LinearGradients:
        gradients = recording.backward(dy)
        if gradients is None:
            gradients = recording.backward(as_array("dy", dy, y.dtype))
            assert gradients is not None
        return named(LinearGradients, gradients)

    return y, vjp


def _ragged_vjp(
    like: Ragged, kind: Callable[[Any], Any], y: Array, vjp: Callable[[ArrayLike], LinearGradients]
) -> tuple[Any, Callable[[ArrayLike], LinearGradients]]:
    """Give the results of rows the kind of x."""

    def ragged_vjp(dy: ArrayLike) -> LinearGradients:
        gradients = vjp(like.arranged("dy", dy))
        return gradients._replace(x=kind(like.with_data(gradients.x)))

    return kind(like.with_data(y)), ragged_vjp
