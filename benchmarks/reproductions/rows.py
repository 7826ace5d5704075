"""The table of results in docs/reproductions.md, a row for each network and task."""

import os
from pathlib import Path

__all__ = ["COLUMNS", "replace_row"]

COLUMNS = ("experiment", "network", "ours", "published", "source", "seeds", "time of a seed", "machine")
NAMED_BY = 2  # the first columns, so many, name a row
RULER = "|" + "---|" * len(COLUMNS)


def replace_row(path: Path, row: tuple[str, ...]) -> None:
    """Put a row into the table of a file in the place of the one of its name, or after those of its experiment.

    What is before the first comma is the experiment. The file, which has the heading of the table once, is replaced in
    one step, or made if there is none.

    Raises
    ------
    ValueError
        If the row has another number of columns or a bar in it, or the file has no such table.
    """
    if len(row) != len(COLUMNS) or any("|" in cell or "\n" in cell for cell in row):
        raise ValueError(f"row: expected {len(COLUMNS)} cells without bars and line breaks, got {row}")
    heading = _line(COLUMNS)
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else [heading, RULER]
    if heading not in lines:
        raise ValueError(f"{path}: expected a line {heading!r}")
    first = lines.index(heading) + 2
    last = first
    while last < len(lines) and lines[last].startswith("|"):
        last += 1
    names = [tuple(cell.strip() for cell in line.split("|")[1 : 1 + NAMED_BY]) for line in lines[first:last]]
    if row[:NAMED_BY] in names:
        lines[first + names.index(row[:NAMED_BY])] = _line(row)
    else:
        kin = [name[0].partition(",")[0] == row[0].partition(",")[0] for name in names]
        fellows = [index for index, alike in enumerate(kin) if alike]
        lines.insert(first + fellows[-1] + 1 if fellows else last, _line(row))
    written = path.with_name(path.name + ".new")
    written.write_text("\n".join(lines) + "\n", encoding="utf-8")
    os.replace(written, path)


def _line(row: tuple[str, ...]) -> str:
    return f"| {' | '.join(cell or '-' for cell in row)} |"
