"""The machine: its name, its processors, and how fast its NumPy multiplies matrices."""

import os
import platform
import time

import numpy as np

__all__ = ["cpu_count", "cpu_model", "describe", "others_cpu_seconds", "sgemm_flops_per_second"]

SGEMM_SIZE = 1024
SGEMM_SECONDS = 1.0


def cpu_count() -> int:
    """Return the number of CPUs that this process may run on."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux alone
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def cpu_model() -> str:
    """Return the name of the processor."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def describe() -> dict[str, object]:
    """Return what a reader needs to place the numbers."""
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    return {
        "cpu": cpu_model(),
        "cpus": cpu_count(),
        "system": platform.platform(),
        "load_average": [round(load, 2) for load in os.getloadavg()] if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "numpy_blas": f"{blas.get('name')} {blas.get('version')}",
    }


def others_cpu_seconds() -> float | None:
    """Return the CPU time that everything but this process has used or kept from us; None where not known.

    Its differences tell how busy the machine was. On Linux alone, and to 1/100 s a CPU.
    """
    try:
        with open("/proc/stat", encoding="utf-8") as file:
            user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, file.readline().split()[1:9])
    except (OSError, ValueError):
        return None
    busy = user + nice + system + irq + softirq + steal
    return busy / os.sysconf("SC_CLK_TCK") - time.process_time()


def sgemm_flops_per_second() -> float:
    """Return the best rate of NumPy's float32 matrix product of size 1024, on the threads of this process.

    A yardstick that needs no compiler, not the peak of the processor: a BLAS may not use its widest vectors.
    """
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, SGEMM_SIZE, SGEMM_SIZE), dtype=np.float32)
    out = a @ b
    best = float("inf")
    begin = time.perf_counter()
    while time.perf_counter() - begin < SGEMM_SECONDS:
        start = time.perf_counter()
        np.matmul(a, b, out=out)
        best = min(best, time.perf_counter() - start)
    return 2 * SGEMM_SIZE**3 / best
