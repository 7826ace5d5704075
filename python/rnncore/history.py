"""What happened in training, epoch by epoch."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["History"]


class History:
    """Figures of every epoch of a run, as `Trainer.fit` returns them.

    Parameters
    ----------
    rows : iterable of mapping, optional
        Of each epoch, name and value of its figures.

    Attributes
    ----------
    rows : list of dict
        Figures by name, an epoch each: ``epoch`` (from 1), ``loss``, the metrics, the same with ``validation_`` in
        front, ``learning_rate`` (of the last step), ``steps`` (so far) and ``seconds``.
    interrupted : bool
        Whether the run was ended by Ctrl-C.

    Examples
    --------
    >>> import rnncore as rc
    >>> history = rc.History([{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 0.25}])
    >>> history["loss"]
    [0.5, 0.25]
    >>> len(history), history.to_dict()
    (2, {'epoch': [1, 2], 'loss': [0.5, 0.25]})
    """

    def __init__(self, rows: Any = ()) -> None:
        self.rows: list[dict[str, Any]] = [dict(row) for row in rows]
        self.interrupted = False

    def append(self, row: Mapping[str, Any]) -> None:
        """Add the figures of an epoch."""
        self.rows.append(dict(row))

    def names(self) -> list[str]:
        """Return the names of all figures."""
        return list(dict.fromkeys(name for row in self.rows for name in row))

    def __len__(self) -> int:
        """Return the number of epochs."""
        return len(self.rows)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Go through the epochs."""
        return iter(self.rows)

    def __getitem__(self, name: str) -> list[Any]:
        """Return one figure of all epochs; None where an epoch has none."""
        if name not in self.names():
            raise KeyError(f"{name}: expected one of {self.names()}")
        return [row.get(name) for row in self.rows]

    def to_dict(self) -> dict[str, list[Any]]:
        """Return a list for each figure."""
        return {name: self[name] for name in self.names()}

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write a table with one line for each epoch."""
        import csv

        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self.names())
            writer.writeheader()
            writer.writerows(self.rows)

    def plot(self, names: tuple[str, ...] = ("loss", "validation_loss"), ax: Any = None) -> Any:
        """Plot figures over the epochs, with matplotlib (``pip install 'rnncore[plot]'``).

        Parameters
        ----------
        names : tuple of str
            Which; those that the history lacks are left out.
        ax : matplotlib.axes.Axes, optional
            Where to. Default: new axes.

        Returns
        -------
        matplotlib.axes.Axes
        """
        if ax is None:
            from matplotlib import pyplot

            _, ax = pyplot.subplots()
        for name in names:
            if name in self.names():
                ax.plot(self["epoch"], self[name], label=name.replace("_", " "))
        ax.set_xlabel("epoch")
        ax.legend()
        return ax

    def __repr__(self) -> str:
        """Return the last figures."""
        last = "".join(f", {name}={value!r}" for name, value in self.rows[-1].items()) if self.rows else ""
        return f"History({len(self)} epochs{last})"
