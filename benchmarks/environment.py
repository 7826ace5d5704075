"""The environment variables under which libraries are timed: most read their number of threads once, at start."""

import os
import sys

__all__ = ["enter_environment", "environment"]

# What would slow the BLAS of NumPy down.
OVERRIDES = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")


def environment(threads: int) -> dict[str, str]:
    """Return the environment of a process that times with this number of threads."""
    variables = {name: value for name, value in os.environ.items() if name not in OVERRIDES}
    for library in ("RNNCORE", "OMP", "OPENBLAS", "MKL"):
        variables[f"{library}_NUM_THREADS"] = str(threads)
    variables |= {"JAX_PLATFORMS": "cpu", "PJRT_NPROC": str(threads), "XLA_FLAGS": ""}
    if threads == 1:
        variables["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
    return variables


def enter_environment(threads: int) -> None:
    """Start this command again with `environment`, unless it has it already."""
    wanted = environment(threads)
    if dict(os.environ) != wanted:
        os.execve(sys.executable, sys.orig_argv, wanted)
