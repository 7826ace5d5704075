"""A data set of pairs of sequences, for encoder-decoder networks. Import from `data`."""

from __future__ import annotations  # np.random in annotations would import it

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnncore.batches import Batch, series_of
from rnncore.sequences import Sequences

__all__ = ["Pairs"]

Array = NDArray[Any]


class Pairs(Sequences):
    """Pairs of a source and a target of any lengths, in batches as `rnncore.Seq2Seq` takes them.

    At each step the decoder is given what the target has before it, `start` at the first, and is to expect what the
    target has there, `end` after the last: of the target (5, 7) it reads (start, 5, 7), and is compared with
    (5, 7, end).

    Parameters
    ----------
    sources : list of array_like, (S_i,) of tokens or (S_i, C) of numbers
        What is read.
    targets : list of array_like of int, (T_i,)
        Tokens to write, without start and end.
    start, end : int
        The tokens that begin and end a target.
    batch_size : int
        Pairs in a batch.
    **options
        `weights` of each pair, `rows`, `bucket`, `shuffle` and `drop_last` of `Sequences`; buckets are by the lengths
        of sources.

    Raises
    ------
    ValueError, TypeError
        If the lists differ in number, a target is no sequence of integers, or as of `Sequences`.

    Examples
    --------
    >>> import rnncore as rc
    >>> pairs = rc.data.Pairs([[4, 5, 6], [7]], [[2, 3], [4, 3, 2]], start=0, end=1, batch_size=2)
    >>> batch = pairs.epoch()[0]
    >>> source, target = batch.x
    >>> source.tolist(), target.tolist()
    ([[4, 5, 6], [7, 0, 0]], [[0, 2, 3, 0], [0, 4, 3, 2]])
    >>> batch.targets.tolist(), [lengths.tolist() for lengths in batch.lengths]
    ([[2, 3, 1, 0], [4, 3, 2, 1]], [[3, 1], [3, 4]])
    """

    def __init__(
        self, sources: Sequence[Any], targets: Sequence[Any], *, start: int, end: int, batch_size: int, **options: Any
    ) -> None:
        arrays, dtype = series_of("targets", targets)
        if dtype.kind not in "iu" and any(array.size for array in arrays):
            raise TypeError(f"targets: expected integers, the tokens, got {dtype}")
        for index, array in enumerate(arrays):
            if array.ndim != 1:
                raise ValueError(f"targets[{index}]: expected tokens (T,), got {array.shape}")
        whole = [np.concatenate([[start], array, [end]]).astype(np.int64) for array in arrays]
        super().__init__(sources, whole, batch_size=batch_size, per_step=False, **options)

    def _batch(self, order: Array, start: int) -> Batch:
        """Return the batch in which x is a pair, and lengths are one."""
        batch = super()._batch(order, start)
        n, S = batch.x.shape[:2]
        lengths = np.array([len(target) - 1 for target in batch.targets], np.int64)
        read = np.zeros((n, int(lengths.max())), np.int64)
        written = np.zeros_like(read)
        for row, target in enumerate(batch.targets):
            read[row, : lengths[row]], written[row, : lengths[row]] = target[:-1], target[1:]
        source_lengths = np.full(n, S, np.int64) if batch.lengths is None else batch.lengths
        return batch._replace(x=(batch.x, read), targets=written, lengths=(source_lengths, lengths))
