"""Count the instructions of a call under valgrind: free of noise, so small changes of a kernel show.

    python benchmarks/instructions.py --out new.json --against old.json

Callgrind writes its counts whenever the process calls getppid, which it does before and after the calls that count:
start and imports do not, and two runs agree to the instruction. Valgrind knows no AVX-512, so the instruction set is
AVX2 unless RNNCORE_ISA names another. One thread.
"""

import argparse
import gc
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, Self

from environment import environment
from libraries import OURS
from problems import CELLS, Problem, Shape, flops

__all__ = ["main"]

SHAPES = (Shape(1, 1, 32, 32), Shape(20, 1, 64, 64), Shape(20, 8, 64, 64))
CELL_NAMES = ("lstm", "gru")
CALLS = 20
WARM_CALLS = 3  # prepare what is kept between calls
TOTAL = re.compile(r"^summary: (\d+)", re.MULTILINE)


class Subject(NamedTuple):
    """What is called."""

    ours: str
    mode: str
    cell: str
    shape: Shape

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `str` returns."""
        ours, mode, cell, shape = text.split()
        return cls(ours, mode, cell, Shape.parse(shape))

    def __str__(self) -> str:
        """Return all in one line."""
        return f"{self.ours} {self.mode} {self.cell} {self.shape}"


def main() -> None:
    """Run the command, or one of the processes that it counts."""
    arguments = _arguments()
    if arguments.call:
        _call(Subject.parse(arguments.call))
        return
    if not shutil.which("valgrind"):
        sys.exit("instructions.py: valgrind is not installed")
    old = json.loads(arguments.against.read_text(encoding="utf-8"))["instructions"] if arguments.against else {}
    subjects = [
        Subject(ours, mode, cell, shape)
        for cell in arguments.cells
        for ours, library in OURS.items()
        for mode in library.modes
        for shape in arguments.shapes
    ]
    print(f"{'ours':<10}{'mode':<10}{'cell':<6}{'T,N,I,H':<14}{'a call':>12}{'a multiply-add':>16}", end="")
    print(f"{'new / old':>12}" if old else "")
    counts: dict[str, float] = {}
    with ThreadPoolExecutor(arguments.jobs) as pool:
        for subject, count in zip(subjects, pool.map(_instructions_of_a_call, subjects), strict=True):
            counts[str(subject)] = count
            print(_line(subject, count, old), flush=True)
    if arguments.out:
        results = {"versions": OURS["rnncore"].versions(), "isa": _environment()["RNNCORE_ISA"], "instructions": counts}
        arguments.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def _call(subject: Subject) -> None:
    run = OURS[subject.ours].task(Problem.draw(subject.cell, subject.shape), subject.mode, 1).run
    gc.disable()
    for _ in range(WARM_CALLS):
        run()
    os.getppid()
    for _ in range(CALLS):
        run()
    os.getppid()


def _instructions_of_a_call(subject: Subject) -> float:
    with tempfile.TemporaryDirectory() as folder:
        counts = Path(folder) / "counts"
        command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={counts}", "--dump-before=getppid"]
        command += [sys.executable, str(Path(__file__).resolve()), "--call", str(subject)]
        finished = subprocess.run(command, env=_environment(), capture_output=True, text=True, check=False)
        between = counts.with_name("counts.2")  # the first is what came before
        if finished.returncode or not between.exists():
            raise RuntimeError(f"{subject}: valgrind failed:\n{finished.stderr}")
        found = TOTAL.search(between.read_text(encoding="utf-8"))
        assert found, "a summary in what callgrind wrote"
        return int(found[1]) / CALLS


def _environment() -> dict[str, str]:
    return {"RNNCORE_ISA": "avx2", **environment(1), "PYTHONHASHSEED": "0"}


def _line(subject: Subject, count: float, old: dict[str, float]) -> str:
    label = f"{subject.ours:<10}{subject.mode:<10}{subject.cell:<6}{subject.shape!s:<14}"
    multiply_adds = flops(subject.cell, subject.mode, subject.shape) / 2
    before = old.get(str(subject))
    ratio = f"{count / before:>12.4f}" if before else f"{'-':>12}" if old else ""
    return f"{label}{count:>12.0f}{count / multiply_adds:>16.4f}{ratio}"


def _arguments() -> Any:
    parser = argparse.ArgumentParser(description="Count the instructions of calls of rnncore under valgrind.")
    parser.add_argument("--cells", nargs="+", choices=CELLS, default=CELL_NAMES, help="default: lstm gru")
    parser.add_argument("--shapes", type=Shape.parse, nargs="+", default=SHAPES, metavar="T,N,I,H")
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time; default: 1")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the counts as JSON")
    parser.add_argument("--against", type=Path, metavar="FILE", help="print ratios to counts written before")
    parser.add_argument("--call", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
