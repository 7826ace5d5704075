"""Data for training: what cuts sequences and series into batches. Everything of it is imported from here.

- `Sequences`: many sequences, of different lengths if need be, with targets of each sequence or of each step.
- `Forests`: many trees, with targets of each tree or of each node.
- `Windows`: windows that slide over a long series, for forecasting.
- `Streams`: a long series in contiguous streams, for truncated back-propagation with carried state.
- `Pairs`: sources and targets of any lengths, for encoder-decoder networks.
- `split` and `split_series` set data aside for validation.

A data set has one method, ``epoch(rng)``, which returns the batches of one pass, each made when it is indexed; what has
such a method (`DataSet`) can be trained on, whoever wrote it. Scaling, encoding and cross-validation are scikit-learn's
and are not repeated here: its transformers take the rows of ``np.concatenate(x)``, its folds are `rows` of `Sequences`.

A data set of one's own that makes its data up:

>>> import numpy as np
>>> import rnncore as rc
>>> class Sums:
...     def epoch(self, rng=None):
...         seeds = np.arange(100) if rng is None else rng.integers(2**32, size=100)
...         return rc.data.Epoch(lambda i: self.batch(seeds[i]), range(100))
...
...     def batch(self, seed):
...         x = np.random.default_rng(seed).random((32, 10, 1), dtype=np.float32)
...         return rc.data.Batch(x, targets=x.sum(axis=1))
>>> Sums().epoch()[7].targets.shape
(32, 1)
"""

from rnncore.batches import Batch, DataSet, Epoch
from rnncore.forests import Forests
from rnncore.pairs import Pairs
from rnncore.sequences import Sequences, split
from rnncore.series import Streams, Windows, split_series

__all__ = [
    "Batch",
    "DataSet",
    "Epoch",
    "Forests",
    "Pairs",
    "Sequences",
    "Streams",
    "Windows",
    "split",
    "split_series",
]
