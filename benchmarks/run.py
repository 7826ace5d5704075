"""Compare rnncore with other libraries on recurrent layers: the command line. README.md says what is timed.

It asserts that results agree, and nothing about speed.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import machine
import tables
import worker
from environment import environment
from libraries import OURS, PEERS
from limits import NoLimitsError, measure_limits
from problems import CELLS, GRID, MODES, QUICK_GRID, Shape
from ratios import geometric_means, ratios_of_points
from roofline import with_percentages

__all__ = ["main"]

Message = dict[str, Any]


def main() -> None:
    """Run the command, or one of its workers."""
    if "--worker" in sys.argv[1:]:
        # Libraries may print: what they print goes to stderr, and stdout is left to the messages.
        messages = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)
        worker.serve(worker.Request.from_json(sys.stdin.read()), messages)
    else:
        arguments = _arguments()
        try:
            _compare(arguments)
        except KeyboardInterrupt:
            sys.exit(f"interrupted: {arguments.out or 'no file'} has the points so far")


def _compare(arguments: argparse.Namespace) -> None:
    if not all(library.installed() for library in OURS.values()):
        sys.exit("rnncore is not installed for this Python")
    peers = [name for name in arguments.peers if PEERS[name].installed()]
    missing = [name for name in arguments.peers if name not in peers]
    libraries = [*OURS.values(), *(PEERS[name] for name in peers)]
    results: Message = {
        "machine": machine.describe(),
        "versions": {name: number for library in libraries for name, number in library.versions().items()},
        "missing": missing,
        "repeats": arguments.repeats,
        "complete": False,
        "threads": [],
        "points": [],
        "geometric_means": [],
    }
    print(tables.opening(results["machine"], results["versions"], missing, peers), flush=True)
    try:
        limits = {each.threads: each for each in measure_limits(arguments.threads)}
    except NoLimitsError as error:
        print(f"the limits of the machine are not known, so no percentages of them: {error}", flush=True)
        limits = {}

    for threads in arguments.threads:
        limit = limits.get(threads)
        request = worker.Request(threads, arguments.repeats, peers, arguments.modes, arguments.cells, arguments.shapes)
        for message in _messages(request):
            if message.pop("kind") == "start":
                results["threads"].append(message | {"limits": limit.to_dict() if limit else None})
                print(tables.heading(message, limit, peers), flush=True)
            else:
                point = with_percentages(message, limit) if limit else message
                results["points"].append(point)
                print(*tables.point_lines(point, peers), sep="\n", flush=True)
            _write(arguments.out, results)

    results["complete"] = True
    _write(arguments.out, results)
    print(tables.summary(results["geometric_means"], peers), *tables.notes(results["points"]), sep="\n")


def _messages(request: worker.Request) -> Iterator[Message]:
    """Start a worker and yield its messages as they come; leave if it fails, as it has said why."""
    command = [sys.executable, str(Path(__file__).resolve()), "--worker"]
    with subprocess.Popen(
        command,
        env=environment(request.threads),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(request.to_json())
        process.stdin.close()
        yield from map(json.loads, process.stdout)
    if process.returncode:
        sys.exit(f"the worker with {request.threads} thread(s) failed: see above")


def _write(path: Path | None, results: Message) -> None:
    """Bring the means up to date; write under a temporary name, then rename, so that the file is never half there."""
    results["geometric_means"] = geometric_means(ratios_of_points(results["points"]))
    if path:
        temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        temporary.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        temporary.replace(path)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compare rnncore with other libraries on recurrent layers.")
    parser.add_argument("--peers", type=_names(PEERS), help="default: those installed")
    parser.add_argument("--threads", type=_threads, metavar="1,2", help="default: 1 and the usable CPUs")
    parser.add_argument("--cells", type=_names(CELLS), help=f"default: {','.join(CELLS)}")
    parser.add_argument("--modes", type=_names(MODES), default=list(MODES), help="default: both")
    parser.add_argument("--shapes", type=_shape, nargs="+", metavar="T,N,I,H", help="default: the grid")
    parser.add_argument("--repeats", type=int, default=5, help="samples of each library; default: 5")
    parser.add_argument("--quick", action="store_true", help="three shapes, lstm and gru, torch, 1 thread")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write everything as JSON, after every point")
    arguments = parser.parse_args()
    if arguments.repeats < 1:
        parser.error(f"--repeats: expected at least 1, got {arguments.repeats}")

    quick = arguments.quick
    defaults = {
        "peers": ["torch"] if quick else list(PEERS),
        "threads": [1] if quick else sorted({1, machine.cpu_count()}),
        "cells": ["lstm", "gru"] if quick else list(CELLS),
        "shapes": list(QUICK_GRID if quick else GRID),
    }
    for name, default in defaults.items():
        if getattr(arguments, name) is None:
            setattr(arguments, name, default)
    return arguments


def _names(known: Sequence[str] | dict[str, Any]) -> Callable[[str], list[str]]:
    """Return a parser of comma-separated names out of those known; none at all is allowed."""

    def parse(text: str) -> list[str]:
        names = [name for name in text.split(",") if name]
        unknown = [name for name in names if name not in known]
        if unknown:
            raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; known: {', '.join(known)}")
        return names

    return parse


def _threads(text: str) -> list[int]:
    try:
        numbers = [int(number) for number in text.split(",")]
    except ValueError:
        numbers = [0]
    if min(numbers) < 1:
        raise argparse.ArgumentTypeError(f"expected numbers of at least 1, got {text!r}")
    return numbers


def _shape(text: str) -> Shape:
    try:
        return Shape.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


if __name__ == "__main__":
    main()
