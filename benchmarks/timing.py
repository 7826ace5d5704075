"""How long calls take: samples of several tasks taken in turn, so that all see the same machine."""

import gc
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import machine
from libraries import Task

__all__ = ["Timing", "Timings", "time_interleaved"]

MIN_SAMPLE_SECONDS = 2e-3
PAUSE_SECONDS = 5e-3  # before each sample: the threads of the library before stop spinning


@dataclass(frozen=True)
class Timings:
    """Those of all tasks, and how busy the machine was meanwhile."""

    tasks: Mapping[str, "Timing"]
    others_cpus: float | None  # that other processes kept busy, on average; None where not known


@dataclass(frozen=True)
class Timing:
    """Samples of one task, each the mean over the calls that it looped."""

    samples: Sequence[float]  # seconds a call
    calls_per_sample: int
    cpu_seconds: float  # CPU time of the process in all samples together

    @property
    def seconds(self) -> float:
        """The minimum of the samples."""
        return min(self.samples)


def time_interleaved(tasks: Mapping[str, Task], repeats: int) -> Timings:
    """Sample each task `repeats` times, round robin.

    Tasks have run before. Short calls are looped until a sample lasts `MIN_SAMPLE_SECONDS`, and one call that
    is not timed comes right before each sample.
    """
    calls = {name: _calls_per_sample(task) for name, task in tasks.items()}
    samples: dict[str, list[tuple[float, float]]] = {name: [] for name in tasks}
    gc.collect()
    gc.disable()
    others, start = machine.others_cpu_seconds(), time.perf_counter()
    try:
        for _ in range(repeats):
            for name, task in tasks.items():
                time.sleep(PAUSE_SECONDS)
                samples[name].append(_sample(task, calls[name]))
    finally:
        gc.enable()
    elapsed, others_after = time.perf_counter() - start, machine.others_cpu_seconds()
    return Timings(
        {name: _timing(pairs, calls[name]) for name, pairs in samples.items()},
        others_cpus=None if others is None or others_after is None else (others_after - others) / elapsed,
    )


def _timing(samples: Sequence[tuple[float, float]], calls: int) -> Timing:
    return Timing([elapsed / calls for elapsed, _ in samples], calls, sum(cpu for _, cpu in samples))


def _sample(task: Task, calls: int) -> tuple[float, float]:
    """Elapsed time and CPU time of this many calls, in seconds."""
    run = task.run
    with task.context():
        run()
        cpu, start = time.process_time(), time.perf_counter()
        for _ in range(calls):
            run()
        elapsed, cpu = time.perf_counter() - start, time.process_time() - cpu
    return elapsed, cpu


def _calls_per_sample(task: Task) -> int:
    calls = 1
    while True:
        elapsed, _ = _sample(task, calls)
        if elapsed < 10 * MIN_SAMPLE_SECONDS:  # else one interruption would do for too few calls
            elapsed = min(elapsed, _sample(task, calls)[0])
        if elapsed >= MIN_SAMPLE_SECONDS:
            return calls
        calls = max(calls + 1, min(10 * calls, round(1.2 * MIN_SAMPLE_SECONDS / elapsed * calls)))
