"""Published experiments, done again with rnncore: each result beside the published one, and a row of the table."""

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # NumPy's threads would spin in the way
from machine import cpu_count, cpu_model
from reproductions import MODULES, experiments
from reproductions.experiment import Experiment, Outcome, measure
from reproductions.rows import replace_row
from tables import BUSY, BUSY_CPUS, plural

__all__ = ["main"]

TABLE = Path(__file__).resolve().parent.parent / "docs" / "reproductions.md"


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description="Do published experiments again; the last line is JSON.")
    parser.add_argument("name", choices=MODULES)
    parser.add_argument("--tasks", help="some of the experiment's, separated by commas; default: all")
    parser.add_argument("--seeds", type=int, help="how many, from 0; default: as each task says")
    parser.add_argument("--threads", type=int, default=cpu_count(), help="default: all usable CPUs")
    parser.add_argument("--quick", action="store_true", help="small ones that take seconds")
    parser.add_argument("--into", type=Path, help=f"the table's file; default: docs/{TABLE.name}, with --quick none")
    arguments = parser.parse_args()
    if arguments.seeds is not None and arguments.seeds < 1:
        parser.error(f"--seeds: expected at least 1, got {arguments.seeds}")
    table = arguments.into or (None if arguments.quick else TABLE)
    found = {experiment.key: experiment for experiment in experiments(arguments.name, arguments.quick)}
    chosen = arguments.tasks.split(",") if arguments.tasks else list(found)
    if unknown := set(chosen) - set(found):
        parser.error(f"--tasks: expected some of {', '.join(found)}, got {', '.join(sorted(unknown))}")

    import rnncore as rc

    rc.set_num_threads(arguments.threads)
    machine = f"{cpu_model()}, {plural(arguments.threads)}"
    rows = []
    for experiment in (found[key] for key in chosen):
        print(f"{experiment.task}: {experiment.network}", flush=True)
        seeds = range(experiment.seeds if arguments.seeds is None else arguments.seeds)
        outcome = measure(experiment, seeds, lambda line: print(line, flush=True))
        row = _row(experiment, outcome, machine)
        print(f"  {row[2]}; published: {row[3] or '-'}" + (f" ({row[4]})" if row[4] else ""), flush=True)
        if table is not None:
            replace_row(table, row)
        rows.append({"key": experiment.key, "task": row[0], "network": row[1], "ours": row[2], **vars(outcome)})
    print(json.dumps({"experiment": arguments.name, "quick": arguments.quick, "machine": machine, "rows": rows}))


def _row(experiment: Experiment, outcome: Outcome, machine: str) -> tuple[str, ...]:
    busy = outcome.others_cpus is not None and outcome.others_cpus >= BUSY_CPUS
    return (
        experiment.task,
        experiment.network,
        experiment.ours(outcome.figures),
        experiment.published,
        experiment.source,
        str(len(outcome.seeds)) if experiment.drawn else "none",
        f"{_median(outcome.seconds)}, {_median(outcome.cpu_seconds)} CPU",
        machine + (f" {BUSY}" if busy else ""),
    )


def _median(seconds: Sequence[float]) -> str:
    median = sorted(seconds)[len(seconds) // 2]
    return f"{median:.2g} s" if median < 10 else f"{median:.0f} s"


if __name__ == "__main__":
    main()
