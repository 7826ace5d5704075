"""What the cores can do at best, as limits.cpp measures it: compiled here for this machine, run in its own process."""

import json
import math
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

__all__ = ["Limits", "NoLimitsError", "compile_program", "measure_limits", "run_program"]

SOURCE = Path(__file__).resolve().with_suffix(".cpp")
COMPILERS = ("c++", "g++", "clang++")
FLAGS = ("-std=c++17", "-O3", "-march=native", "-pthread")
TIMEOUT_SECONDS = 120.0


class NoLimitsError(Exception):
    """They could not be measured, and why."""


@dataclass(frozen=True)
class Limits:
    """Rates of all threads together, each on data of its own."""

    threads: int
    vector_bytes: int  # the widest vectors
    float32: float  # operations a second, two for each multiply-add on the widest vectors
    float64: float
    float32_half_width: float  # on vectors of half that width
    read: Mapping[int, float]  # bytes a second, by the bytes that each thread reads again and again

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Self:
        """Return what `to_dict` or limits.cpp wrote."""
        read = {int(size): rate for size, rate in fields["read"].items()}
        return cls(**{**fields, "read": read})

    def bandwidth(self, working_set: float) -> float:
        """Return the bytes a second that are read from a working set of this many bytes in each thread.

        Between sizes that were measured it is linear in the logarithm of the size. What a larger set reaches, a
        smaller one does too, whatever was measured.
        """
        sizes = sorted(self.read)
        rates = [max(self.read[larger] for larger in sizes[place:]) for place in range(len(sizes))]
        for place in range(1, len(sizes)):
            below, above = sizes[place - 1], sizes[place]
            if working_set < above:
                part = max(0.0, math.log(working_set / below) / math.log(above / below))
                return rates[place - 1] + part * (rates[place] - rates[place - 1])
        return rates[-1]


def measure_limits(numbers_of_threads: Sequence[int]) -> list[Limits]:
    """Measure the limits with each number of threads: about 3 s each, and one to compile.

    Raises
    ------
    NoLimitsError
        If there is no compiler, or it or the program fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        program = os.path.join(folder, "limits")
        compile_program(SOURCE, program, FLAGS)
        outputs = [run_program(program, threads) for threads in numbers_of_threads]
    return [Limits.from_dict(json.loads(output)) for output in outputs]


def compile_program(source: Path, program: str, flags: Sequence[str]) -> None:
    """Compile a source file with the machine's C++ compiler; raise `NoLimitsError` if there is none, or it fails."""
    compiler = next(filter(None, map(shutil.which, COMPILERS)), None)
    if compiler is None:
        raise NoLimitsError(f"no C++ compiler: none of {', '.join(COMPILERS)}")
    _run([compiler, *flags, str(source), "-o", program])


def run_program(program: str, threads: int) -> str:
    """Return what a program prints that measures with so many threads; raise `NoLimitsError` if it fails."""
    return _run([program, str(threads)])


def _run(command: Sequence[str]) -> str:
    name = os.path.basename(command[0])
    try:
        finished = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoLimitsError(f"{name} failed: {error}") from None
    if finished.returncode:
        said = finished.stderr.strip().splitlines()[:1] or [f"status {finished.returncode}"]
        raise NoLimitsError(f"{name} failed: {said[0]}")
    return finished.stdout
