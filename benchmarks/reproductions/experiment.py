"""What an experiment is, and its measurement from several seeds."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from machine import others_cpu_seconds

__all__ = ["Experiment", "Figures", "Outcome", "mean_of", "measure"]

Figures = dict[str, float]  # what one seed gave, by name


@dataclass(frozen=True)
class Experiment:
    """One network on one task.

    Attributes
    ----------
    key
        By which the command line chooses it.
    task, network
        In words: together they name the row of the table.
    run
        Trains from a seed and returns its figures.
    ours
        The result of all seeds in words.
    published, source
        The figure that others found, and where; empty if there is none that was read in its source.
    seeds
        How many are run unless the command line says otherwise.
    drawn
        Whether anything depends on the seed; if not, there is one run.
    """

    key: str
    task: str
    network: str
    run: Callable[[int], Figures]
    ours: Callable[[Sequence[Figures]], str]
    published: str = ""
    source: str = ""
    seeds: int = 1
    drawn: bool = True


@dataclass(frozen=True)
class Outcome:
    """What an experiment gave, an element for each seed."""

    seeds: list[int]
    figures: list[Figures]
    seconds: list[float]
    cpu_seconds: list[float]  # of all threads together
    others_cpus: float | None  # how many CPUs other processes kept busy, on average; None where not known


def measure(experiment: Experiment, seeds: Iterable[int], tell: Callable[[str], None]) -> Outcome:
    """Run an experiment from each seed; `tell` takes a line after each."""
    seeds = list(seeds) if experiment.drawn else [0]
    figures, seconds, cpu_seconds = [], [], []
    began, others = time.perf_counter(), others_cpu_seconds()
    for seed in seeds:
        start, cpu_start = time.perf_counter(), time.process_time()
        figures.append(experiment.run(seed))
        seconds.append(time.perf_counter() - start)
        cpu_seconds.append(time.process_time() - cpu_start)
        found = ", ".join(f"{name} {value:.6g}" for name, value in figures[-1].items())
        tell(f"  seed {seed}: {found}; {seconds[-1]:.1f} s, {cpu_seconds[-1]:.1f} s CPU")
    after = others_cpu_seconds()
    busy = None if others is None or after is None else (after - others) / (time.perf_counter() - began)
    return Outcome(seeds, figures, seconds, cpu_seconds, busy)


def mean_of(name: str, form: str) -> Callable[[Sequence[Figures]], str]:
    """Return what writes the mean over seeds of one figure and, of several seeds, the least and the largest."""

    def write(figures: Sequence[Figures]) -> str:
        values = [each[name] for each in figures]
        mean = format(np.mean(values), form)
        return mean if len(values) == 1 else f"{mean} ({format(min(values), form)} to {format(max(values), form)})"

    return write
