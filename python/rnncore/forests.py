"""Data sets of many trees: classification of whole trees, or tagging of their nodes.

Import from `data`.
"""

from __future__ import annotations  # np.random in annotations would import it

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rnncore.batches import Batch, Batches, Epoch, numbers, permuted, positive
from rnncore.forest import Trees
from rnncore.sequences import _checked_rows

__all__ = ["Forests"]


class Forests(Batches):
    """Trees in batches, each a forest of its own, without padding.

    Parameters
    ----------
    x : Trees
        Inputs of all nodes of all trees: vectors, or tokens.
    targets : array_like (N, ...) or Trees, optional
        Of each tree, or of each node. Default: none.
    batch_size : int
        Trees in a batch.
    weights : array_like (N,) or Trees, optional
        How much each tree, or each node, counts in the loss.
    rows : array_like of int, optional
        Indices of the trees to take, such as a part that `split` made of ``np.arange(N)``. Default: all.
    shuffle : bool
        Whether an epoch with a generator is shuffled.
    drop_last : bool
        Whether trees that do not fill a batch are left out.

    Raises
    ------
    ValueError, TypeError
        If there are no trees, targets or weights are not of these trees, or an option is out of range. The message
        names the argument.

    Examples
    --------
    >>> import numpy as np
    >>> import rnncore as rc
    >>> x = rc.Trees(rc.Forest([[-1, 0, 0], [-1], [1, -1]]), np.ones((6, 4)))
    >>> for batch in rc.data.Forests(x, [0, 1, 0], batch_size=2):
    ...     print(batch.x, batch.targets)
    Trees(2 trees, 4 nodes, data=float64 (4, 4)) [0 1]
    Trees(1 trees, 2 nodes, data=float64 (2, 4)) [0]
    """

    def __init__(
        self,
        x: Trees,
        targets: Any = None,
        *,
        batch_size: int,
        weights: Any = None,
        rows: ArrayLike | None = None,
        shuffle: bool = True,
        drop_last: bool = False,
    ) -> None:
        self._batch_size = positive("batch_size", batch_size)
        self._shuffle = bool(shuffle)
        if not isinstance(x, Trees):
            raise TypeError(f"x: expected Trees, got {type(x).__name__}")
        if not x.N:
            raise ValueError("x: expected at least one tree, got none")
        self._x = x
        self._targets = self._column("targets", targets)
        self._weights = self._column("weights", weights)
        self._rows = _checked_rows(rows, x.N)
        super().__init__(len(self._rows), self._batch_size, bool(drop_last))

    def _column(self, name: str, values: Any) -> Any:
        """Check what belongs to the trees or to their nodes."""
        if values is None:
            return None
        if isinstance(values, Trees):
            return self._x.with_data(self._x.arranged(name, values))
        array = numbers(name, values)
        if array.shape[:1] != (self._x.N,):
            raise ValueError(f"{name}: expected ({self._x.N}, ...), one for each tree, or Trees, got {array.shape}")
        return array

    def epoch(self, rng: np.random.Generator | None = None) -> Epoch:
        """Draw an order and return its batches.

        Parameters
        ----------
        rng : numpy.random.Generator, optional
            Default: the batches are in the order of the data.

        Returns
        -------
        Epoch
            Of `Batch`, whose x is `Trees`, and targets and weights, where they are of nodes, too.
        """
        order = self._rows if rng is None or not self._shuffle else permuted(self._rows, rng)
        return Epoch(partial(self._batch, order), self._starts)

    def _batch(self, order: np.ndarray[Any, Any], start: int) -> Batch:
        rows = order[start : start + self._batch_size]
        targets, weights = (
            column.take(rows) if isinstance(column, Trees) else None if column is None else column[rows]
            for column in (self._targets, self._weights)
        )
        return Batch(self._x.take(rows), targets, None, weights)
