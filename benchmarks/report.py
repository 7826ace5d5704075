"""Put results into a document: medians of one or several runs of run.py as Markdown tables, and plots of them.

    python benchmarks/report.py results1.json results2.json --into docs/performance.md --plots docs/

The document needs two lines, ``<!-- results: begin -->`` and ``<!-- results: end -->``; what is between them is
replaced. Plots need matplotlib. Without --into, the tables are printed.
"""

import argparse
import os
import sys
from pathlib import Path

from combine import combine, load
from markdown import markdown

__all__ = ["main"]

BEGIN = "<!-- results: begin -->"
END = "<!-- results: end -->"


def main() -> None:
    """Run the command."""
    arguments = _arguments()
    try:
        runs = combine(load(arguments.results))
        text = markdown(runs)
        if arguments.into:
            _write(arguments.into, _between_markers(arguments.into, text))
        elif not arguments.plots:
            print(text, end="")
    except (OSError, ValueError) as error:
        sys.exit(f"report.py: {error}")
    if arguments.plots:
        from plots import plot_ratios, plot_roofline  # the one place that needs matplotlib

        plot_ratios(runs, arguments.plots / "performance-ratios.svg")
        if runs.limits:
            plot_roofline(runs, arguments.plots / "performance-roofline.svg")


def _between_markers(path: Path, text: str) -> str:
    """Return the document with `text` between the markers."""
    document = path.read_text(encoding="utf-8")
    if document.count(BEGIN) != 1 or document.count(END) != 1 or document.index(BEGIN) > document.index(END):
        raise ValueError(f"{path}: expected one line {BEGIN} and after it one line {END}")
    before, _, rest = document.partition(BEGIN)
    after = rest.partition(END)[2]
    return f"{before}{BEGIN}\n\n{text}\n{END}{after}"


def _write(path: Path, text: str) -> None:
    """Write under a temporary name, then rename, so that the document is never half there."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Put results of run.py into a document.")
    parser.add_argument("results", type=Path, nargs="+", metavar="FILE", help="what run.py --out wrote")
    parser.add_argument("--into", type=Path, metavar="DOCUMENT", help="replace what is between its markers")
    parser.add_argument("--plots", type=Path, metavar="FOLDER", help="write performance-*.svg there")
    return parser.parse_args()


if __name__ == "__main__":
    main()
