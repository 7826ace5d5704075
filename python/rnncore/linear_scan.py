"""The linear scan h_t = a_t * h_{t-1} + b_t, elementwise over channels, as pure functions on arrays.

What minimal recurrent networks and diagonal state-space models are at their core, and running sums, exponential
averages and filters of first order beside. `rnncore.functional` has the same names.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from rnncore import _core
from rnncore._conversion import Array, as_lengths, as_scalars, batched, scalar_dtype

__all__ = ["LinearScanGradients", "LinearScanOutput", "linear_scan", "linear_scan_vjp"]


class LinearScanOutput(NamedTuple):
    """What `linear_scan` returns: the states of all steps and the last one of each sequence."""

    y: Array
    h_n: Array


class LinearScanGradients(NamedTuple):
    """Gradients of the arguments of `linear_scan`; zeros stood in for an h_0 that was None."""

    a: Array
    b: Array
    h_0: Array


class _Call:
    """The arguments of one call in the form the core takes, and the way back to the caller's shapes."""

    __slots__ = ("a", "b", "chunk", "dtype", "given_complex", "h_0", "lengths", "reverse", "unbatched")

    def __init__(
        self,
        a: ArrayLike,
        b: ArrayLike,
        h_0: ArrayLike | None,
        lengths: ArrayLike | None,
        reverse: bool,
        chunk: int | None,
    ) -> None:
        factors, series = np.asarray(a), np.asarray(b)
        self.dtype = scalar_dtype("b", series, factors.dtype.kind == "c")
        if series.ndim not in (2, 3) or not series.shape[-1]:
            raise ValueError(f"b: expected (N, T, C) or (T, C), at least one channel, got {series.shape}")
        self.unbatched = series.ndim == 2
        if factors.shape not in (series.shape, series.shape[-1:]):
            expected = f"{series.shape} as b, or ({series.shape[-1]},)"
            raise ValueError(f"a: expected {expected}, got {factors.shape}")
        initial = None if h_0 is None else np.asarray(h_0)
        self.given_complex = (
            factors.dtype.kind == "c",
            series.dtype.kind == "c",
            initial is None or np.iscomplexobj(initial),
        )
        self.b = self.series("b", series)
        self.a = self.series("a", factors) if factors.ndim == series.ndim else self.reals(factors)
        self.h_0 = self.state("h_0", initial)
        N, T = self.b.shape[:2]
        self.lengths = None if lengths is None else as_lengths(lengths, N, T, self.unbatched)
        self.reverse = bool(reverse)
        self.chunk = _steps(chunk, T)

    def reals(self, array: Array, name: str = "a") -> Array:
        """Prepare an array; complex numbers become pairs of reals."""
        scalars = as_scalars(name, array, self.dtype)
        return scalars.view(scalars.real.dtype) if self.dtype.kind == "c" else scalars

    def series(self, name: str, value: ArrayLike) -> Array:
        array = self.reals(np.asarray(value), name)
        return batched(name, array, 2, 0) if self.unbatched else array

    def state(self, name: str, value: ArrayLike | None) -> Array | None:
        if value is None:
            return None
        array = np.asarray(value)
        if not array.ndim:
            raise ValueError(f"{name}: expected {'(C,)' if self.unbatched else '(N, C)'}, got ()")
        array = self.reals(array, name)
        return batched(name, array, 1, 0) if self.unbatched else array

    def returned(self, array: Array) -> Array:
        """Return a result of the core in the caller's shape."""
        scalars = array.view(self.dtype)
        return scalars[0] if self.unbatched and scalars.ndim > 1 else scalars

    @property
    def options(self) -> tuple[Any, ...]:
        return self.lengths, self.dtype.kind == "c", self.reverse, self.chunk


def _steps(chunk: int | None, T: int) -> int:
    if chunk is None:
        return 0
    integer = isinstance(chunk, int | np.integer) and not isinstance(chunk, bool)
    if not integer or chunk < 1:
        raise ValueError(f"chunk: expected a positive integer or None, got {chunk!r}")
    return min(int(chunk), max(T, 1))


def linear_scan(
    a: ArrayLike,
    b: ArrayLike,
    h_0: ArrayLike | None = None,
    *,
    lengths: ArrayLike | None = None,
    reverse: bool = False,
    chunk: int | None = None,
) -> LinearScanOutput:
    """Scan h_t = a_t * h_{t-1} + b_t along time, each channel by itself.

    Each step is one multiply-add, rounded once (on baseline x86-64 and in complex numbers more often). A sequence's
    results have the same bits whatever other sequences there are, on any number of threads. Denormal numbers count as
    zero.

    Parameters
    ----------
    a : array_like, (N, T, C) or (T, C) as b, or (C,)
        Factors of every step, or one for all steps.
    b : array_like, (N, T, C) or (T, C)
        What is added. Its dtype is that of the computation and of the result: float32, float64, complex64 or
        complex128; with a complex `a`, the complex one of its precision.
    h_0 : array_like, (N, C) or (C,), optional
        State before the first step. Default: zeros.
    lengths : array_like of int (N,) or of bool (N, T), optional
        Number of valid steps of each sequence, 0 to T, or a mask that is True at valid steps, which are the first of
        each row. Default: T for all. Later steps are not read: y is zero there, and h_n is the state after the valid
        ones.
    reverse : bool
        Whether to read from the last valid step to the first: h_t = a_t * h_{t+1} + b_t.
    chunk : int, optional
        Steps of a chunk, such as 1000: for a single long sequence of few channels, which takes several threads so. It
        is more work in all, so on one thread, or with many sequences or channels, it is slower (see Notes). Default:
        none.

    Returns
    -------
    LinearScanOutput
        ``(y, h_n)``: y (N, T, C) the state after every step, h_n (N, C) the last one; without N if b has none.

    Raises
    ------
    ValueError, TypeError
        If an argument has the wrong shape, value or type; the message names it.

    Notes
    -----
    With `chunk=k` the sequence is cut every k steps, and each chunk is run twice. First it is found what it does to a
    state: h = P h_before + S, where P is the product of its factors and S its last state after zeros (Blelloch 1990).
    From these come the states between chunks, in order, and from those all steps. Results are a function of k, never of
    the number of threads, and one chunk is the plain scan to the bit. Otherwise a state at the beginning of a chunk
    carries the rounding of P, up to k eps abs(P h_before), and that of S, which is the error of a scan of k steps: with
    factors of at most 1 in magnitude, both together are no more than what bounds the plain scan's own error. With
    larger factors P may overflow where the plain scan does not, and states be infinite or NaN from there on; and after
    a state that is infinite, NaN may stand where the plain scan has an infinity.

    Examples
    --------
    An exponential average, and a running sum that starts at 10:

    >>> import numpy as np
    >>> import rnncore as rc
    >>> x = np.array([[8.0], [0.0], [4.0]])
    >>> rc.functional.linear_scan([0.5], 0.5 * x).y[:, 0]
    array([4., 2., 3.])
    >>> rc.functional.linear_scan(np.ones_like(x), x, [10.0]).h_n
    array([22.])
    """
    call = _Call(a, b, h_0, lengths, reverse, chunk)
    y, h_n = _core.linear_scan(call.a, call.b, call.h_0, *call.options)
    return LinearScanOutput(call.returned(y), call.returned(h_n))


def linear_scan_vjp(
    a: ArrayLike,
    b: ArrayLike,
    h_0: ArrayLike | None = None,
    *,
    lengths: ArrayLike | None = None,
    reverse: bool = False,
    chunk: int | None = None,
) -> tuple[LinearScanOutput, Callable[..., LinearScanGradients]]:
    """Run `linear_scan` and return, with its output, the function that pulls gradients back through it.

    Parameters are those of `linear_scan`. The arrays are not copied: leave a, h_0 and y unchanged until the last call
    of `vjp`. The backward scan is cut into the same chunks.

    Returns
    -------
    output : LinearScanOutput
        As `linear_scan` returns it, in the same bits.
    vjp : callable
        ``vjp(dy, dh_n=None)`` takes the gradients of a scalar loss with respect to y and h_n, either may be None, and
        returns those of the arguments as `LinearScanGradients`, always all three. That of an `a` (C,) is summed over
        steps and sequences. dy is not read at padded steps, and the gradients of a and b are zero there. May be called
        several times, from any thread. Gradients with respect to complex numbers are those with respect to their real
        parts plus 1j times those with respect to their imaginary parts, as in torch; real arguments have real ones.

    Examples
    --------
    >>> import numpy as np
    >>> import rnncore as rc
    >>> (y, h_n), vjp = rc.functional.linear_scan_vjp([0.5], np.ones((3, 1)))
    >>> y[:, 0]
    array([1.  , 1.5 , 1.75])
    >>> gradients = vjp(None, [1.0])  # of h_n
    >>> gradients.b[:, 0], gradients.a
    (array([0.25, 0.5 , 1.  ]), array([2.]))
    """
    call = _Call(a, b, h_0, lengths, reverse, chunk)
    y, h_n = _core.linear_scan(call.a, call.b, call.h_0, *call.options)

    def vjp(dy: ArrayLike | None, dh_n: ArrayLike | None = None) -> LinearScanGradients:
        of_y = np.zeros_like(y) if dy is None else call.series("dy", dy)
        gradients = _core.linear_scan_backward(call.a, y, call.h_0, of_y, call.state("dh_n", dh_n), *call.options)
        return LinearScanGradients(
            *(
                returned if returned.dtype.kind != "c" or given_complex else np.ascontiguousarray(returned.real)
                for returned, given_complex in zip(map(call.returned, gradients), call.given_complex, strict=True)
            )
        )

    return LinearScanOutput(call.returned(y), call.returned(h_n)), vjp
