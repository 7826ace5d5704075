"""How long calls take: samples of several tasks taken in turn, so that all see the same machine."""

import gc
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import machine
from libraries import Task

__all__ = ["Timing", "Timings", "time_interleaved"]

MIN_SAMPLE_SECONDS = 2e-3
LONG_CALL_SECONDS = 50e-3  # so long that what the libraries before left in caches and threads asleep does not show
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


def time_interleaved(
    tasks: Mapping[str, Task], repeats: int, min_sample_seconds: float = MIN_SAMPLE_SECONDS
) -> Timings:
    """Sample each task `repeats` times, round robin.

    Tasks have run before. Short calls are looped until a sample lasts `min_sample_seconds`, and one call that
    is not timed comes right before each sample, unless calls are longer than `LONG_CALL_SECONDS`.
    """
    plans = {name: _plan(task, min_sample_seconds) for name, task in tasks.items()}
    samples: dict[str, list[tuple[float, float]]] = {name: [] for name in tasks}
    gc.collect()
    gc.disable()
    others, start = machine.others_cpu_seconds(), time.perf_counter()
    try:
        for _ in range(repeats):
            for name, task in tasks.items():
                time.sleep(PAUSE_SECONDS)
                samples[name].append(_sample(task, plans[name]))
    finally:
        gc.enable()
    elapsed, others_after = time.perf_counter() - start, machine.others_cpu_seconds()
    return Timings(
        {name: _timing(pairs, plans[name].calls) for name, pairs in samples.items()},
        others_cpus=None if others is None or others_after is None else (others_after - others) / elapsed,
    )


def _timing(samples: Sequence[tuple[float, float]], calls: int) -> Timing:
    return Timing([elapsed / calls for elapsed, _ in samples], calls, sum(cpu for _, cpu in samples))


class _Plan(NamedTuple):
    """How one sample is taken."""

    calls: int
    call_before: bool  # that is not timed


def _sample(task: Task, plan: _Plan) -> tuple[float, float]:
    """Elapsed time and CPU time of all calls, in seconds."""
    run = task.run
    with task.context():
        if plan.call_before:
            run()
        cpu, start = time.process_time(), time.perf_counter()
        for _ in range(plan.calls):
            run()
        elapsed, cpu = time.perf_counter() - start, time.process_time() - cpu
    return elapsed, cpu


def _plan(task: Task, min_sample_seconds: float) -> _Plan:
    plan = _Plan(1, call_before=False)
    elapsed, _ = _sample(task, plan)
    if elapsed >= max(LONG_CALL_SECONDS, min_sample_seconds):
        return plan
    calls = 1
    while True:
        plan = _Plan(calls, call_before=True)
        elapsed, _ = _sample(task, plan)
        if elapsed < 10 * min_sample_seconds:  # else one interruption would do for too few calls
            elapsed = min(elapsed, _sample(task, plan)[0])
        if elapsed >= min_sample_seconds:
            return plan
        calls = max(calls + 1, min(10 * calls, round(1.2 * min_sample_seconds / elapsed * calls)))
