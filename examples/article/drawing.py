"""What the scripts of this folder share: the one option that they have, and axes to draw on."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def plot_file(description: str) -> str | None:
    """Read the command line; return where to draw, None if not at all."""
    parser = argparse.ArgumentParser(description=description.partition("\n")[0])
    parser.add_argument("--plot", metavar="FILE", help="where to draw; needs matplotlib")
    path: str | None = parser.parse_args().plot
    return path


@contextmanager
def drawing(path: str, rows: int = 1, columns: int = 1, height: float = 2.8, **options: Any) -> Iterator[Any]:
    """Give axes to draw on, an array of them if there are several, and write the picture."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, height), layout="constrained")
    yield figure.subplots(rows, columns, **options)
    figure.savefig(path, dpi=80)
