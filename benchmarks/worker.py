"""One process with one number of threads: makes tasks ready, checks that they agree, times and reports them.

Thread settings of several libraries are read once, from the environment, so the parent starts one process for
each number of threads. Messages are JSON, one a line.
"""

import contextlib
import dataclasses
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self, TextIO

from agreement import check_agreement
from libraries import OURS, PEERS, Library, Task
from problems import Array, Problem, Shape, flops
from timing import time_interleaved

__all__ = ["Request", "serve"]

Message = dict[str, Any]


@dataclass(frozen=True)
class Request:
    """What one worker times."""

    threads: int
    repeats: int
    peers: Sequence[str]
    modes: Sequence[str]
    cells: Sequence[str]
    shapes: Sequence[Shape]

    def to_json(self) -> str:
        """Write it on one line."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote."""
        fields = json.loads(text)
        return cls(**fields | {"shapes": [Shape(*sizes) for sizes in fields["shapes"]]})


def serve(request: Request, output: TextIO) -> None:
    """Send a message ``start``, then one ``point`` for each cell, mode and shape."""

    def send(message: Message) -> None:
        print(json.dumps(message), file=output, flush=True)

    send({"kind": "start", "threads": request.threads} | _start())
    for mode in request.modes:
        for cell in request.cells:
            for shape in request.shapes:
                send({"kind": "point", "threads": request.threads} | _point(request, cell, mode, shape))


def _start() -> Message:
    import rnncore

    config = io.StringIO()
    with contextlib.redirect_stdout(config):
        rnncore.show_config()
    return {"rnncore_config": config.getvalue().splitlines()}


def _point(request: Request, cell: str, mode: str, shape: Shape) -> Message:
    problem = Problem.draw(cell, shape)
    libraries = OURS | {name: PEERS[name] for name in request.peers}
    libraries = {name: library for name, library in libraries.items() if mode in library.modes}
    tasks = dict(_checked_tasks(libraries, problem, mode, request.threads))
    timings = time_interleaved(tasks, request.repeats)
    return {
        "cell": cell,
        "mode": mode,
        **shape._asdict(),
        "flops": flops(cell, mode, shape),
        "others_cpus": timings.others_cpus,
        "timings": {
            name: dataclasses.asdict(timing) | {"seconds": timing.seconds} for name, timing in timings.tasks.items()
        },
    }


def _checked_tasks(
    libraries: dict[str, Library], problem: Problem, mode: str, threads: int
) -> Iterator[tuple[str, Task]]:
    """Make ready the task of each library, having compared its results with those of the first library."""
    expected: dict[str, Array] = {}
    for name, library in libraries.items():
        task = library.task(problem, mode, threads)
        results = _results(task)
        expected = expected or results
        check_agreement(f"{name}, {problem.cell} {mode} {problem.shape}", results, expected)
        yield name, task


def _results(task: Task) -> dict[str, Array]:
    with task.context():
        return task.results(task.run())
