"""The libraries that are compared, and what a task of one is.

Each module here gives one library: a function for each of its modes, named like the mode, takes a `Problem`
and the number of threads and returns a `Task`. It is imported only where it is timed.
"""

import importlib
import importlib.util
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, NamedTuple

from problems import Array, Problem

__all__ = ["OURS", "PEERS", "Library", "Task"]


@dataclass(frozen=True)
class Task:
    """One library ready to compute one problem: weights converted, graph built, nothing left but the work."""

    run: Callable[[], Any]  # what is timed
    results: Callable[[Any], dict[str, Array]]  # from what `run` returned; names and layouts are rnncore's
    context: Callable[[], AbstractContextManager[Any]] = nullcontext  # entered around calls of `run`


class Library(NamedTuple):
    """One column of the comparison, described without importing it."""

    module: str  # of this package
    requires: tuple[str, ...]  # what must be installed
    modes: tuple[str, ...]
    threads: str  # how their number is set

    def installed(self) -> bool:
        """Return whether everything it requires can be imported."""
        return all(importlib.util.find_spec(name) is not None for name in self.requires)

    def versions(self) -> dict[str, str]:
        """Return the versions of what it requires."""
        return {name: version(name) for name in self.requires}

    def task(self, problem: Problem, mode: str, threads: int, **options: Any) -> Task:
        """Import the library and make ready one of its modes, with options that it alone may have."""
        module = importlib.import_module(f"{__name__}.{self.module}")
        make_ready: Callable[..., Task] = getattr(module, mode)
        return make_ready(problem, threads, **options)


_BOTH = ("forward", "training")
_XLA = "PJRT_NPROC of its process; for 1, XLA_FLAGS=--xla_cpu_multi_thread_eigen=false too"

# The headline first.
OURS = {
    "frozen": Library("rnncore_frozen", ("rnncore",), ("forward",), "RNNCORE_NUM_THREADS of its process"),
    "rnncore": Library("rnncore_functional", ("rnncore",), _BOTH, "RNNCORE_NUM_THREADS of its process"),
}
PEERS = {
    "torch": Library("torch_nn", ("torch",), _BOTH, "torch.set_num_threads"),
    "onnxruntime": Library("onnxruntime_node", ("onnxruntime", "onnx"), ("forward",), "intra_op_num_threads"),
    "jax": Library("jax_scan", ("jax",), _BOTH, _XLA),
    "numpy": Library("numpy_loop", ("numpy",), ("forward",), "OPENBLAS_NUM_THREADS of its process"),
}
