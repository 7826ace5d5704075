"""Whether two libraries computed the same thing. Nothing is timed before it has passed this."""

from collections.abc import Mapping

import numpy as np

from problems import Array

__all__ = ["TOLERANCE", "check_agreement"]

RTOL = 1e-4
ATOL = 2e-5  # times the largest magnitude of the array: gradients are sums over T*N terms of either sign
TOLERANCE = f"np.allclose, rtol={RTOL:g}, atol={ATOL:g} times the array's largest magnitude"


def check_agreement(where: str, results: Mapping[str, Array], expected: Mapping[str, Array]) -> None:
    """Compare every array with that of the same name.

    Raises
    ------
    AssertionError
        If an array is missing, has another shape or differs by more than `TOLERANCE`.
    """
    if results.keys() != expected.keys():
        raise AssertionError(f"{where}: expected arrays {list(expected)}, got {list(results)}")
    for name, reference in expected.items():
        result = results[name]
        if result.shape != reference.shape:
            raise AssertionError(f"{where}: {name}: expected shape {reference.shape}, got {result.shape}")
        scale = float(np.abs(reference).max())
        if not np.allclose(result, reference, rtol=RTOL, atol=ATOL * scale):
            error = float(np.abs(result - reference).max())
            raise AssertionError(
                f"{where}: {name} differs from rnncore's by up to {error:.3g} where the largest magnitude is "
                f"{scale:.3g} (tolerance: {TOLERANCE})"
            )
