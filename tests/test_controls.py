"""Threads, instruction sets, environment variables, import time."""

import os
import subprocess
import sys

import numpy as np
import pytest

import rnncore as rc
from cases import CELLS, ISAS, random_like
from rnncore import _core


def run(code, **environment):
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("RNNCORE_", "OMP_"))}
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_thread_count_is_set_and_read(threads):
    threads(3)
    assert rc.get_num_threads() == 3


@pytest.mark.parametrize(
    ("n", "error"),
    [(0, ValueError), (-1, ValueError), (2.0, TypeError), ("2", TypeError), (10**6, ValueError)],
)
def test_wrong_thread_counts_are_refused(n, error):
    before = rc.get_num_threads()
    with pytest.raises(error, match=r"^n: expected"):
        rc.set_num_threads(n)
    assert rc.get_num_threads() == before


COUNT = "import rnncore; print(rnncore.get_num_threads())"


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"RNNCORE_NUM_THREADS": "3"}, 3),
        ({"OMP_NUM_THREADS": "5"}, 5),
        ({"OMP_NUM_THREADS": "5,2"}, 5),
        ({"RNNCORE_NUM_THREADS": "3", "OMP_NUM_THREADS": "5"}, 3),
        ({"RNNCORE_NUM_THREADS": "no number"}, len(os.sched_getaffinity(0))),
        ({}, len(os.sched_getaffinity(0))),
    ],
)
def test_threads_from_the_environment(environment, expected):
    assert int(run(COUNT, **environment).stdout) == expected


def test_threads_follow_the_affinity_mask():
    cpu = min(os.sched_getaffinity(0))
    code = f"import os; os.sched_setaffinity(0, {{{cpu}}}); {COUNT}"
    assert int(run(code).stdout) == 1


@pytest.mark.parametrize("isa", ISAS)
def test_isa_from_the_environment(isa):
    result = run("import rnncore; from rnncore import _core; print(_core.active_isa())", RNNCORE_ISA=isa)
    assert result.stdout.strip() == isa


def test_unknown_isa_in_the_environment_fails_at_import():
    result = run("import rnncore", RNNCORE_ISA="abacus")
    assert result.returncode != 0
    assert "isa: expected one of" in result.stderr
    assert "'abacus'" in result.stderr


def test_isa_is_used_and_refused():
    for name in ISAS:
        rc.use_isa(name)
        assert _core.active_isa() == name
    with pytest.raises(ValueError, match=r"^isa: expected one of .*, got 'abacus'$"):
        rc.use_isa("abacus")
    rc.use_isa(ISAS[0])


def test_a_recording_keeps_its_instruction_set():
    rng = np.random.default_rng(0)
    for cell in CELLS:
        outputs, vjp = cell.vjp(rc.functional, cell.arguments(rng, (5, 3, 4, 37), np.float32))
        cotangents = random_like(rng, outputs)
        expected = vjp(*cotangents)
        for name in ISAS[::-1]:
            rc.use_isa(name)
            for got, want in zip(vjp(*cotangents), expected, strict=True):
                assert np.array_equal(got, want)


def test_show_config(capsys):
    rc.show_config()
    printed = capsys.readouterr().out
    for word in (rc.__version__, *ISAS, "in use", "threads", "compiler"):
        assert word in printed


def test_import_brings_nothing_but_numpy():
    code = """
import sys, numpy
before = set(sys.modules)
import rnncore
new = set(sys.modules) - before
assert {m.partition(".")[0] for m in new} - set(sys.stdlib_module_names) <= {"rnncore", "numpy"}, new
assert "numpy.random" not in new
assert not {"rnncore.training", "rnncore.data", "rnncore.optim", "rnncore.losses"} & new
"""
    result = run(code)
    assert result.returncode == 0, result.stderr


def test_every_public_name_is_there():
    code = """
import rnncore
assert set(rnncore.__all__) <= set(dir(rnncore))
for name in rnncore.__all__:
    assert getattr(rnncore, name) is vars(rnncore)[name]
assert rnncore.optim.Adam is rnncore.Adam
from rnncore import *
assert Trainer is rnncore.Trainer
"""
    result = run(code)
    assert result.returncode == 0, result.stderr
    with pytest.raises(AttributeError, match="module 'rnncore' has no attribute 'nothing'"):
        rc.nothing  # noqa: B018
