"""The examples run from the command line and print what they say they print."""

import os
import re
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
HELD_OUT = re.compile(r"^held out: (\d+\.\d\d) bits per character, ([\d,]+) characters/s\n", re.MULTILINE)


def run(name: str, *arguments: str) -> str:
    """Run an example with warnings as errors; return what it printed."""
    finished = subprocess.run(
        [sys.executable, "-W", "error", EXAMPLES / name, *arguments],
        env={**os.environ, "PYTHONUTF8": "1", "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        encoding="utf-8",
        timeout=300,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stderr == ""
    return finished.stdout


def test_char_lm_learns_and_writes() -> None:
    printed = run("char_lm.py", "--epochs", "0.1")
    (report,) = HELD_OUT.finditer(printed)
    assert 2.0 < float(report[1]) < 5.5  # guessing costs 6.7 bits, knowing nothing but the alphabet
    assert int(report[2].replace(",", "")) > 0
    written = printed[report.end() :]
    assert len(written) == 401
    assert written[-1] == "\n"


def test_char_lm_repeats_itself_from_a_seed() -> None:
    arguments = ("--epochs", "0.01", "--characters", "50", "--seed", "1")
    first, again = (HELD_OUT.split(run("char_lm.py", *arguments)) for _ in range(2))
    before, bits, _speed, written = first
    assert before == ""
    assert len(written) == 51
    assert (bits, written) == (again[1], again[3])
