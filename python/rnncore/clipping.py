"""Clipping of gradients, in place, between a pull-back and the step of an optimiser."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnncore import _core
from rnncore._arguments import number

__all__ = ["clip_norm", "clip_value"]

Array = NDArray[Any]


def clip_norm(gradients: Array, max_norm: float) -> float:
    """Scale gradients in place so that their Euclidean norm is at most `max_norm` (Pascanu et al. 2013).

    Parameters
    ----------
    gradients : ndarray, (P,)
        Contiguous, float32 or float64.
    max_norm : float
        Above 0; infinity if the norm is all that is wanted.

    Returns
    -------
    float
        The norm before, summed in float64. If it is infinite or NaN, the gradients are as they were: see to it that
        such a step is not taken.

    Raises
    ------
    ValueError, TypeError
        If an argument is not of that kind.

    Examples
    --------
    >>> import numpy as np
    >>> import rnncore as rc
    >>> gradients = np.array([3.0, 4.0])
    >>> rc.clip_norm(gradients, 1.0)
    5.0
    >>> gradients
    array([0.6, 0.8])
    """
    return _core.clip_norm(gradients, number("max_norm", max_norm, "> 0"))


def clip_value(gradients: Array, limit: float) -> None:
    """Clip every gradient in place to [-limit, limit]; NaN stays NaN.

    Parameters
    ----------
    gradients : ndarray
        Of floating point and any shape.
    limit : float
        Above 0.

    Raises
    ------
    ValueError, TypeError
        If an argument is not of that kind.

    Examples
    --------
    >>> import numpy as np
    >>> import rnncore as rc
    >>> gradients = np.array([3.0, -0.5, -4.0])
    >>> rc.clip_value(gradients, 1.0)
    >>> gradients
    array([ 1. , -0.5, -1. ])
    """
    bound = number("limit", limit, "> 0")
    if not isinstance(gradients, np.ndarray) or gradients.dtype.kind != "f":
        got = gradients.dtype if isinstance(gradients, np.ndarray) else type(gradients).__name__
        raise TypeError(f"gradients: expected an array of floating point, got {got}")
    if not gradients.flags.writeable:
        raise ValueError("gradients: expected an array that can be written, got a read-only one")
    np.clip(gradients, -bound, bound, out=gradients)
