"""The registry the tests run over: cells, instruction sets, types and shapes, and arguments made from them."""

from dataclasses import dataclass
from typing import Any

import numpy as np

import rnncore as rc
from rnncore import reference


@dataclass(frozen=True)
class CellCase:
    """A cell as the public functions have it."""

    name: str
    function: str
    gates: int
    states: int
    options: tuple[tuple[str, Any], ...] = ()

    def __str__(self):
        return self.name

    def forward(self, module, arguments, **options):
        return getattr(module, self.function)(**arguments, **dict(self.options), **options)

    def vjp(self, module, arguments, **options):
        return getattr(module, self.function + "_vjp")(**arguments, **dict(self.options), **options)

    def arguments(self, rng, shape, dtype=np.float64, batch_first=True):
        """Random arguments of a layer of shape (T, N, I, H), with weights as torch initialises them."""
        T, N, I, H = shape
        G, bound = self.gates, 1 / np.sqrt(H)
        arguments = {
            "x": rng.standard_normal((N, T, I) if batch_first else (T, N, I)),
            "w_ih": rng.uniform(-bound, bound, (G * H, I)),
            "w_hh": rng.uniform(-bound, bound, (G * H, H)),
            "b_ih": rng.uniform(-bound, bound, G * H),
            "b_hh": rng.uniform(-bound, bound, G * H),
            "h_0": rng.standard_normal((N, H)),
        }
        if self.states == 2:
            arguments["c_0"] = rng.standard_normal((N, H))
        return {name: value.astype(dtype) for name, value in arguments.items()}


CELLS = [
    CellCase("rnn_tanh", "rnn", 1, 1),
    CellCase("rnn_relu", "rnn", 1, 1, (("nonlinearity", "relu"),)),
    CellCase("lstm", "lstm", 4, 2),
    CellCase("gru", "gru", 3, 1),
]
ISAS = rc.available_isas()
DTYPES = [np.float32, np.float64]

BATCHES = [1, 2, 7]
STEPS = [0, 1, 5, 13, 64]
INPUTS = [1, 3, 17, 64]
HIDDEN = [1, 7, 16, 17, 33, 64, 100]
ALL_SHAPES = [(T, N, I, H) for N in BATCHES for T in STEPS for I in INPUTS for H in HIDDEN]


# Every pair of a size of H with a size of T occurs, and the sizes of N and I take turns.
COVERING_SHAPES = [
    (T, BATCHES[(i + j) % len(BATCHES)], INPUTS[(i + j) % len(INPUTS)], H)
    for i, H in enumerate(HIDDEN)
    for j, T in enumerate(STEPS)
]


def random_like(rng, outputs):
    """Cotangents for outputs."""
    return [rng.standard_normal(a.shape).astype(a.dtype) for a in outputs]


def largest(*arrays):
    """Largest magnitude in any of the arrays, of which some may be None."""
    return max((float(np.abs(a).max()) for a in arrays if a is not None and a.size), default=0.0)


def worst_error(got, expected, scale=None):
    """Largest difference, relative to the largest expected value or to `scale`."""
    assert got.shape == expected.shape
    assert np.isfinite(got).all()
    return largest(got - expected) / max(largest(expected) if scale is None else scale, 1e-300)


def assert_matches_reference(cell, arguments, dtype, rng, **options):
    """Outputs and gradients against the oracle, within the bounds the project promises.

    Errors are relative to the largest of the call's outputs or gradients, and at least to 1, the scale of activations
    and of the cotangents drawn here: a single output near a zero of tanh, or a product of slopes 1 - h^2 of saturated
    units, has lost its leading digits to the rounding of its arguments, whoever computes it.
    """
    output_bound, gradient_bound = (1e-13, 1e-11) if dtype == np.float64 else (2e-6, 2e-5)
    outputs, vjp = cell.vjp(rc.functional, arguments, **options)
    expected_outputs, expected_vjp = cell.vjp(reference, arguments, **options)
    inference = cell.forward(rc.functional, arguments, **options)
    scale = max(1.0, largest(*expected_outputs))
    for name, got, expected, alone in zip(outputs._fields, outputs, expected_outputs, inference, strict=True):
        assert got.dtype == dtype
        assert worst_error(got, expected, scale) <= output_bound, name
        assert np.array_equal(got, alone), f"{name}: inference and training differ"
    cotangents = random_like(rng, outputs)
    gradients, expected_gradients = vjp(*cotangents), expected_vjp(*cotangents)
    scale = max(1.0, largest(*expected_gradients))
    for name, got, expected in zip(gradients._fields, gradients, expected_gradients, strict=True):
        if expected is None:  # of what was not given
            assert got is None, f"gradient of {name}"
            continue
        assert got.dtype == dtype
        assert worst_error(got, expected, scale) <= gradient_bound, f"gradient of {name}"
