"""The machine: its name, its processors, and how busy they are."""

import os
import platform
import time

import numpy as np

__all__ = ["cpu_count", "cpu_model", "describe", "others_cpu_seconds"]


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
