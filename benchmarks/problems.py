"""What is computed: shapes, the grid of them, random data and the count of operations. Knows no library."""

from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

__all__ = ["CELLS", "GRID", "MODES", "QUICK_GRID", "Array", "Problem", "Shape", "flops"]

Array = NDArray[Any]

CELLS = {"lstm": 4, "gru": 3, "rnn": 1}  # gates; the GRU is reset-after, the RNN's nonlinearity tanh
MODES = ("forward", "training")


class Shape(NamedTuple):
    """Steps, batch, inputs and hidden units of one layer."""

    T: int
    N: int
    I: int
    H: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``"T,N,I,H"``."""
        sizes = [int(size) for size in text.split(",")]
        if len(sizes) != 4 or min(sizes) < 1:
            raise ValueError(f"shape: expected T,N,I,H of at least 1 each, got {text!r}")
        return cls(*sizes)

    def __str__(self) -> str:
        """Return ``"T,N,I,H"``."""
        return ",".join(map(str, self))


GRID = (
    Shape(1, 1, 32, 32),
    Shape(1, 1, 128, 128),
    Shape(1, 1, 256, 256),
    Shape(100, 1, 64, 64),
    Shape(100, 1, 128, 128),
    Shape(100, 1, 256, 256),
    Shape(100, 1, 512, 512),
    Shape(100, 4, 128, 128),
    Shape(100, 32, 64, 64),
    Shape(100, 32, 128, 128),
    Shape(100, 64, 256, 256),
    Shape(50, 32, 512, 512),
    Shape(50, 128, 512, 512),
    Shape(30, 32, 1024, 1024),
    Shape(1000, 8, 4, 32),
    Shape(35, 20, 200, 200),
    Shape(200, 16, 1, 100),
    Shape(500, 2, 40, 320),
)
QUICK_GRID = (Shape(100, 1, 128, 128), Shape(100, 32, 128, 128), Shape(100, 64, 256, 256))


@dataclass(frozen=True)
class Problem:
    """One layer in one direction, weights in torch's layout and gate order, and the gradient of y."""

    cell: str
    shape: Shape
    x: Array  # (T, N, I)
    w_ih: Array  # (G*H, I)
    w_hh: Array  # (G*H, H)
    b_ih: Array  # (G*H,)
    b_hh: Array  # (G*H,)
    dy: Array  # (T, N, H)

    @classmethod
    def draw(cls, cell: str, shape: Shape, seed: int = 0) -> Self:
        """Draw x and dy from a normal distribution and the weights as torch initialises them."""
        rng = np.random.default_rng(seed)
        T, N, I, H = shape
        GH = CELLS[cell] * H
        bound = H**-0.5

        def normal(*sizes: int) -> Array:
            return rng.standard_normal(sizes, dtype=np.float32)

        def uniform(*sizes: int) -> Array:
            return rng.uniform(-bound, bound, sizes).astype(np.float32)

        return cls(
            cell,
            shape,
            x=normal(T, N, I),
            w_ih=uniform(GH, I),
            w_hh=uniform(GH, H),
            b_ih=uniform(GH),
            b_hh=uniform(GH),
            dy=normal(T, N, H),
        )

    @property
    def weights(self) -> tuple[Array, Array, Array, Array]:
        """w_ih, w_hh, b_ih and b_hh."""
        return self.w_ih, self.w_hh, self.b_ih, self.b_hh


def flops(cell: str, mode: str, shape: Shape) -> int:
    """Count the operations of the matrix products alone, two for a multiplication and addition.

    Training has three times those of forward.
    """
    T, N, I, H = shape
    forward = 2 * T * N * CELLS[cell] * H * (I + H)
    return forward if mode == "forward" else 3 * forward
