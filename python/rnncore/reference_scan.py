"""The float64 oracle of the linear scan: NumPy, one step at a time.

For tests and for reading; nothing of the library calls it.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["linear_scan", "linear_scan_vjp"]

Array = NDArray[Any]


def linear_scan(
    a: ArrayLike, b: ArrayLike, h_0: ArrayLike | None = None, *, lengths: ArrayLike | None = None, reverse: bool = False
) -> tuple[Array, Array]:
    """Return y and h_n of h_t = a_t * h_{t-1} + b_t, in float64 or complex128.

    Parameters are those of `rnncore.functional.linear_scan`.

    Examples
    --------
    >>> from rnncore import reference_scan
    >>> y, h_n = reference_scan.linear_scan([0.5], [[1.0], [1.0], [1.0]])
    >>> y[:, 0]
    array([1.  , 1.5 , 1.75])
    """
    return linear_scan_vjp(a, b, h_0, lengths=lengths, reverse=reverse)[0]


def linear_scan_vjp(
    a: ArrayLike, b: ArrayLike, h_0: ArrayLike | None = None, *, lengths: ArrayLike | None = None, reverse: bool = False
) -> tuple[tuple[Array, Array], Callable[..., tuple[Array, Array, Array]]]:
    """Return (y, h_n) and vjp, which returns the gradients of a, b and h_0 for (dy, dh_n).

    Examples
    --------
    >>> from rnncore import reference_scan
    >>> _, vjp = reference_scan.linear_scan_vjp([0.5], [[1.0], [1.0], [1.0]])
    >>> da, db, dh_0 = vjp([[0.0], [0.0], [0.0]], [1.0])
    >>> da, db[:, 0], dh_0
    (array([2.]), array([0.25, 0.5 , 1.  ]), array([0.125]))
    """
    a, b = np.asarray(a), np.asarray(b)
    dtype = np.result_type(a, b, np.float64)
    if b.ndim == 2:  # one sequence
        parts = linear_scan_vjp(
            a if a.ndim == 1 else a[None],
            b[None],
            None if h_0 is None else np.asarray(h_0)[None],
            lengths=None if lengths is None else np.asarray(lengths)[None],
            reverse=reverse,
        )
        (y, h_n), pull_back = parts

        def unbatched(dy: ArrayLike, dh_n: ArrayLike) -> tuple[Array, Array, Array]:
            da, db, dh_0 = pull_back(np.asarray(dy)[None], np.asarray(dh_n)[None])
            return da if a.ndim == 1 else da[0], db[0], dh_0[0]

        return (y[0], h_n[0]), unbatched

    N, T, C = b.shape
    constant = a.ndim == 1
    factors = np.broadcast_to(a, b.shape).astype(dtype)
    initial = np.zeros((N, C), dtype) if h_0 is None else np.asarray(h_0, dtype)
    valid = np.full(N, T) if lengths is None else np.asarray(lengths)
    if valid.ndim == 2:
        valid = valid.sum(axis=1)

    # the steps of sequence n in the order of reading
    def steps(n: int) -> range:
        return range(valid[n] - 1, -1, -1) if reverse else range(valid[n])

    y = np.zeros((N, T, C), dtype)
    before = np.zeros((N, T, C), dtype)
    h_n = initial.copy()
    for n in range(N):
        for t in steps(n):
            before[n, t] = h_n[n]
            h_n[n] = y[n, t] = factors[n, t] * h_n[n] + b[n, t]

    def vjp(dy: ArrayLike, dh_n: ArrayLike) -> tuple[Array, Array, Array]:
        dy = np.asarray(dy)
        da, db = np.zeros((2, N, T, C), dtype)
        dh = np.array(dh_n, dtype)
        for n in range(N):
            for t in reversed(steps(n)):
                # g = dy + dh     db = g     da = g conj(h_{t-1})     dh_{t-1} = conj(a) g
                db[n, t] = dy[n, t] + dh[n]
                da[n, t] = db[n, t] * before[n, t].conj()
                dh[n] = factors[n, t].conj() * db[n, t]
        return (da.sum(axis=(0, 1)) if constant else da), db, dh

    return (y, h_n), vjp
