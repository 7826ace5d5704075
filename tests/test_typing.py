"""Types: the compiled module is what its stub says it is, and the package passes mypy's strictest checks."""

import subprocess
import sys

import pytest

pytest.importorskip("mypy")

# What pybind11 gives its classes and a stub cannot say: their metaclass, and an __init__ that always raises.
ALLOWED = r"""
rnncore\._core\.(Activation|Cell|Decoder(Recording)?|Feed|Forest|Linear(Networks|Recording)|Lookup|Networks(Recording)?|Program|Ragged|Recording|Reservoir|Score|Spec|Stack|Stream|TreeRecording)
rnncore\._core\.((Decoder|Linear|Networks|Tree)?Recording|Ragged)\.__init__
"""


def mypy(module, *arguments, cwd):
    """Run mypy away from the checkout, so that it sees the installed package."""
    finished = subprocess.run(
        [sys.executable, "-m", module, *arguments], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr


def test_the_stub_tells_the_truth(tmp_path):
    allowed = tmp_path / "allowed"
    allowed.write_text(ALLOWED)
    mypy("mypy.stubtest", "rnncore._core", "--allowlist", str(allowed), cwd=tmp_path)


def test_the_package_is_typed(tmp_path):
    mypy("mypy", "--strict", "--package", "rnncore", cwd=tmp_path)
