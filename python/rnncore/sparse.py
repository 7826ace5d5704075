"""Sparse square matrices, compressed by rows: what reservoirs are made of."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rnncore._conversion import Array, as_array

__all__ = ["CSR", "as_csr", "random_csr", "spectral_radius"]

_FLOAT64 = np.dtype(np.float64)

# Up to so many rows all eigenvalues are computed: 0.2 s for 500 rows and 1.3 s for 1000 on one core.
_DENSE_ROWS = 1000
_TOLERANCE = 1e-6  # of the largest eigenvalue otherwise

# Diagonals lie together in few classes modulo this number: vectors have at most as many numbers.
_CLASSES = 8


class CSR(NamedTuple):
    """A sparse matrix (H, H): row i has ``data[indptr[i]:indptr[i + 1]]`` at columns of the same part of `indices`."""

    data: NDArray[np.float64]  # (nonzeros,)
    indices: NDArray[np.int64]  # (nonzeros,), ascending in each row
    indptr: NDArray[np.int64]  # (H + 1,)

    def rows(self) -> NDArray[np.int64]:
        """Return the row of each number of `data`."""
        return np.repeat(np.arange(self.indptr.size - 1), np.diff(self.indptr))

    def to_dense(self) -> NDArray[np.float64]:
        """Return the matrix as an array (H, H)."""
        dense = np.zeros((self.indptr.size - 1,) * 2)
        dense[self.rows(), self.indices] = self.data
        return dense


def as_csr(name: str, value: Any) -> CSR:
    """Prepare a square matrix, given as an array (H, H), as a triple of arrays, or by SciPy in its CSR format.

    Parameters
    ----------
    name : str
        What messages call it.
    value : array_like (H, H), or (data, indices, indptr), or an object with these attributes
        Columns of a row may stand in any order, but not twice.

    Returns
    -------
    CSR
        Copied where it was not as it must be.

    Raises
    ------
    ValueError, TypeError
        If it is no such matrix, or has numbers that are not finite.

    Examples
    --------
    >>> from rnncore.sparse import as_csr
    >>> as_csr("w", [[0.0, 0.5], [0.25, 0.0]])
    CSR(data=array([0.5 , 0.25]), indices=array([1, 0]), indptr=array([0, 1, 2]))
    """
    if hasattr(value, "indptr"):
        if getattr(value, "format", "csr") != "csr":
            raise ValueError(f"{name}: expected the CSR format, got {value.format}")
        value = (value.data, value.indices, value.indptr)
    if isinstance(value, tuple):
        if len(value) != 3:
            raise ValueError(f"{name}: expected (data, indices, indptr), got {len(value)} arrays")
        return _sorted(name, *value)
    dense = as_array(name, value, _FLOAT64)
    if dense.ndim != 2 or dense.shape[0] != dense.shape[1] or not dense.size:
        raise ValueError(f"{name}: expected (H, H) with H of at least 1, got {dense.shape}")
    rows, columns = np.nonzero(dense)  # NaN is not zero
    return _finite(name, CSR(dense[rows, columns], columns.copy(), np.searchsorted(rows, np.arange(len(dense) + 1))))


def _sorted(name: str, data: Any, indices: Any, indptr: Any) -> CSR:
    values = as_array(f"{name}: data", data, _FLOAT64)
    columns, pointers = _integers(f"{name}: indices", indices), _integers(f"{name}: indptr", indptr)
    if values.ndim != 1 or columns.shape != values.shape:
        raise ValueError(f"{name}: expected data and indices of one size, got {values.shape} and {columns.shape}")
    H = pointers.size - 1
    if H < 1 or pointers[0] != 0 or pointers[-1] != values.size or (np.diff(pointers) < 0).any():
        raise ValueError(f"{name}: expected indptr to ascend from 0 to {values.size}, the size of data")
    if columns.size and (columns.min() < 0 or columns.max() >= H):
        raise ValueError(f"{name}: expected indices from 0 to {H - 1}, got {columns.min()} to {columns.max()}")
    csr = CSR(values, columns, pointers)
    places = csr.rows() * H + columns
    if (np.diff(places) <= 0).any():
        order = np.argsort(places)
        if (np.diff(places[order]) == 0).any():
            raise ValueError(f"{name}: expected no place of the matrix twice in indices")
        csr = CSR(values[order], columns[order], pointers)
    return _finite(name, csr)


def _integers(name: str, value: Any) -> NDArray[np.int64]:
    array = np.asarray(value)
    if array.ndim != 1:
        raise ValueError(f"{name}: expected one axis, got {array.shape}")
    if array.dtype.kind not in "iu" and array.size:
        raise TypeError(f"{name}: expected integers, got {array.dtype}")
    return np.require(array, np.int64, ["C", "A"])


def _finite(name: str, csr: CSR) -> CSR:
    if not np.isfinite(csr.data).all():
        raise ValueError(f"{name}: expected finite numbers")
    return csr


def random_csr(rows: int, density: float, topology: str, rng: np.random.Generator) -> CSR:
    """Draw a matrix with the same number of places in every row, at least one, and uniform numbers from -1 to 1.

    Parameters
    ----------
    rows : int
        H.
    density : float
        Share of places that are not zero.
    topology : {"diagonals", "random"}
        Cyclic diagonals, i to i + d modulo H, of random d; or random places, each row by itself. Products with
        diagonals need no look-ups.
    rng : numpy.random.Generator

    Returns
    -------
    CSR
        The matrix.

    Examples
    --------
    >>> import numpy as np
    >>> from rnncore.sparse import random_csr
    >>> random_csr(100, 0.1, "diagonals", np.random.default_rng(0)).data.size
    1000
    """
    count = min(rows, max(1, round(density * rows)))
    if topology == "diagonals":
        # of classes with twice as many diagonals at least; of two or more, so that all units hear of each other
        classes = max(2, -(-2 * count * _CLASSES // rows))
        candidates = np.flatnonzero(np.arange(rows) % _CLASSES < classes)
        steps = rng.choice(candidates, count, replace=False)
        columns = (np.arange(rows)[:, np.newaxis] + steps) % rows
    else:
        columns = rng.permuted(np.broadcast_to(np.arange(rows), (rows, rows)), axis=1)[:, :count]
    indices = np.sort(columns, axis=1).astype(np.int64).ravel()
    return CSR(rng.uniform(-1, 1, indices.size), indices, np.arange(rows + 1, dtype=np.int64) * count)


def spectral_radius(matrix: CSR) -> float:
    """Return the largest magnitude of an eigenvalue, complex ones included.

    Of all eigenvalues up to 1000 rows. Beyond, of a growing Krylov space (Arnoldi 1951) until the residual is below
    1e-6 of it.

    Examples
    --------
    >>> import numpy as np
    >>> from rnncore.sparse import as_csr, spectral_radius
    >>> turn = as_csr("w", [[0.0, -0.5], [0.5, 0.0]])  # both eigenvalues are imaginary
    >>> round(spectral_radius(turn), 12)
    0.5
    """
    H = matrix.indptr.size - 1
    if H <= _DENSE_ROWS:
        return float(np.abs(np.linalg.eigvals(matrix.to_dense())).max())
    return _krylov_radius(matrix)


def _krylov_radius(matrix: CSR) -> float:
    H, rows = matrix.indptr.size - 1, matrix.rows()

    def product(v: Array) -> Array:
        return np.bincount(rows, matrix.data * v[matrix.indices], H)

    start = np.random.default_rng(0).standard_normal(H)
    basis = (start / np.linalg.norm(start))[np.newaxis]  # (k + 1, H), orthonormal rows
    projected = np.zeros((1, 0))  # (k + 1, k)
    check = 32
    while True:
        v, k = product(basis[-1]), len(basis)
        coefficients = np.zeros(k)
        for _ in range(2):  # the second time for what rounding left
            again = basis @ v
            coefficients += again
            v = v - again @ basis
        left = float(np.linalg.norm(v))
        projected = np.pad(projected, ((0, 1), (0, 1)))
        projected[:k, -1], projected[k, -1] = coefficients, left
        exhausted = k == H or left <= 1e-14 * float(np.linalg.norm(projected[:k]))
        if exhausted or k == check:
            values, vectors = np.linalg.eig(projected[:k])
            top = int(np.abs(values).argmax())
            radius = float(abs(values[top]))
            if exhausted or left * abs(vectors[-1, top]) <= _TOLERANCE * radius:
                return radius
            check += check // 2
        basis = np.concatenate([basis, v[np.newaxis] / left])
