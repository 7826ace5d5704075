"""What estimators are given, series X and targets y, as lists of arrays. Not public."""

from typing import Any

import numpy as np

from rnncore._conversion import Array, as_array

__all__: list[str] = []

_FLOAT64 = np.dtype(np.float64)


def finite(name: str, array: Array) -> Array:
    if not np.isfinite(array).all():
        raise ValueError(f"{name}: expected finite numbers")
    return array


def as_series(value: Any) -> tuple[list[Array], str]:
    """Return X as a list of arrays (T, I), and what it was: "one", "batch" or "list"."""
    if isinstance(value, list | tuple) and value and np.ndim(value[0]) == 2:
        series, kind = [as_array(f"X[{n}]", x, _FLOAT64) for n, x in enumerate(value)], "list"
    else:
        array = as_array("X", value, _FLOAT64)
        if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[0] == 0):
            raise ValueError(f"X: expected (T, I) or (N, T, I) or a list of (T, I), got {array.shape}")
        series, kind = ([array], "one") if array.ndim == 2 else (list(array), "batch")
    I = series[0].shape[1]
    for n, x in enumerate(series):
        if x.ndim != 2 or x.shape[1] != I or I == 0:
            raise ValueError(f"X[{n}]: expected (T, I) with one I of at least 1 for all series, got {x.shape}")
        finite("X", x)
    return series, kind


def as_targets(value: Any, series: list[Array], kind: str) -> tuple[list[Array], bool]:
    """Return y as arrays (T, O), and whether it had no last axis."""
    if kind == "one":
        targets = [as_array("y", value, _FLOAT64)]
    elif kind == "list" and not isinstance(value, list | tuple):
        raise TypeError(f"y: expected a list since X is one, got {type(value).__name__}")
    else:
        targets = [as_array(f"y[{n}]", y, _FLOAT64) for n, y in enumerate(value)]
        if len(targets) != len(series):
            raise ValueError(f"y: expected {len(series)} series, as many as X, got {len(targets)}")
    flat = targets[0].ndim == 1
    O = 1 if flat else targets[0].shape[-1]
    for n, (x, y) in enumerate(zip(series, targets, strict=True)):
        T = len(x)
        if y.shape != ((T,) if flat else (T, O)):
            raise ValueError(f"y[{n}]: expected {(T,) if flat else (T, 'O')}, as many steps as X has, got {y.shape}")
        finite("y", y)
    return [y.reshape(-1, O) for y in targets], flat
