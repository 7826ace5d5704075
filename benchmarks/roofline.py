"""The least time a point can take on a machine of given limits, and how near to that a measured time is.

The floor is the sum over the two parts of a layer of max(operations / peak, bytes / bandwidth):

- the input product has all T*N rows at once: 2*T*N*G*H*I operations at the peak of fused multiply-adds;
- the recurrent product has one step after another: 2*T*N*G*H*H operations at that peak, or, if that takes longer,
  4*G*H*H bytes of U read at every step, each thread its share of U again and again, so at the bandwidth of a working
  set of that size. A level of cache that holds the share gives it.

Training has three times the operations and reads U twice, forward and backward. The cell's formulas, x, y and what
training keeps are not counted.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from limits import Limits
from problems import CELLS, Shape, flops

__all__ = ["Floor", "floor", "intensity", "recurrent_flops", "share_of_u", "with_percentages"]

FLOAT_BYTES = 4


@dataclass(frozen=True)
class Floor:
    """The least time of one point."""

    input_seconds: float
    recurrent_seconds: float
    recurrent_bound: str  # "fma" or "bandwidth"

    @property
    def seconds(self) -> float:
        """The sum of both parts."""
        return self.input_seconds + self.recurrent_seconds

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        return asdict(self)


def floor(cell: str, mode: str, shape: Shape, limits: Limits) -> Floor:
    """Return the least time of a layer in float32."""
    recurrent = recurrent_flops(cell, mode, shape)
    multiplying = recurrent / limits.float32
    reading = shape.T * _bytes_a_step(cell, mode, shape) / limits.bandwidth(share_of_u(cell, shape, limits.threads))
    return Floor(
        input_seconds=(flops(cell, mode, shape) - recurrent) / limits.float32,
        recurrent_seconds=max(multiplying, reading),
        recurrent_bound="fma" if multiplying >= reading else "bandwidth",
    )


def with_percentages(point: Mapping[str, Any], limits: Limits) -> dict[str, Any]:
    """Return a point with its floor, and with percentages of the limits in each of its timings."""
    least = floor(point["cell"], point["mode"], Shape(*(point[size] for size in Shape._fields)), limits)

    def percentages(seconds: float) -> dict[str, float]:
        return {
            "percent_of_fma": 100 * point["flops"] / seconds / limits.float32,
            "percent_of_bound": 100 * least.seconds / seconds,
        }

    timings = {name: {**timing, **percentages(timing["seconds"])} for name, timing in point["timings"].items()}
    return {**point, "floor": least.to_dict(), "timings": timings}


def recurrent_flops(cell: str, mode: str, shape: Shape) -> int:
    """Count the operations of the recurrent product."""
    return flops(cell, mode, shape) * shape.H // (shape.I + shape.H)


def share_of_u(cell: str, shape: Shape, threads: int) -> float:
    """Return the bytes of U that each thread reads at a step."""
    return _bytes_of_u(cell, shape) / threads


def intensity(cell: str, mode: str, shape: Shape) -> float:
    """Return the operations of the recurrent product for each byte of U that is read."""
    return recurrent_flops(cell, mode, shape) / (shape.T * _bytes_a_step(cell, mode, shape))


def _bytes_a_step(cell: str, mode: str, shape: Shape) -> int:
    return (1 if mode == "forward" else 2) * _bytes_of_u(cell, shape)


def _bytes_of_u(cell: str, shape: Shape) -> int:
    return FLOAT_BYTES * CELLS[cell] * shape.H * shape.H
