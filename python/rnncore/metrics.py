"""Metrics: what people read, measured on the outputs of a model beside its loss. They have no gradients.

A metric sums over batches: `measure` returns a mean and the weight it is a mean over, `finish` turns the mean over all
batches into the figure.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rnncore._conversion import as_lengths
from rnncore.ctc import CTC
from rnncore.losses import MAE as AbsoluteError
from rnncore.losses import MSE, CrossEntropy, row_weights
from rnncore.ragged import same_kind

__all__ = ["MAE", "RMSE", "Accuracy", "BitsPerCharacter", "LabelErrorRate", "Metric", "Perplexity"]

Array = NDArray[Any]


class Metric:
    """What metrics have in common, to derive your own from.

    Examples
    --------
    >>> import numpy as np
    >>> import rnncore as rc
    >>> metric = rc.metrics.Accuracy()
    >>> metric.measure(np.array([[0.1, 0.9], [0.8, 0.2]]), np.array([1, 1]))
    (0.5, 2.0)
    """

    name: ClassVar[str]
    larger_is_better: ClassVar[bool] = False

    def measure(
        self,
        outputs: Array,
        targets: ArrayLike,
        lengths: ArrayLike | None = None,
        weights: ArrayLike | None = None,
    ) -> tuple[float, float]:
        """Return the weighted mean over the counted elements of a batch, and the sum of their weights.

        Parameters are those of a loss.
        """
        raise NotImplementedError

    def finish(self, mean: float) -> float:
        """Return the metric for this mean over all batches."""
        return mean


class _OfLoss(Metric):
    """A metric that is a function of the mean of a loss."""

    _loss: ClassVar[Any]

    def measure(
        self,
        outputs: Array,
        targets: ArrayLike,
        lengths: ArrayLike | None = None,
        weights: ArrayLike | None = None,
    ) -> tuple[float, float]:
        """Return the mean of the loss over a batch, and the sum of the weights."""
        measured = self._loss.with_gradient(outputs, targets, lengths, weights)
        return measured.value, measured.weight


class Perplexity(_OfLoss):
    """The exponential of the mean cross entropy, for outputs that are logits.

    Examples
    --------
    >>> import numpy as np
    >>> import rnncore as rc
    >>> metric = rc.metrics.Perplexity()
    >>> mean, weight = metric.measure(np.zeros((1, 5, 8)), np.zeros((1, 5), dtype=int))
    >>> round(metric.finish(mean), 6)
    8.0
    """

    name = "perplexity"
    _loss = CrossEntropy()

    def finish(self, mean: float) -> float:
        """Return exp(mean)."""
        return math.exp(mean) if mean < 700 else math.inf


class BitsPerCharacter(_OfLoss):
    """The mean cross entropy in bits, for outputs that are logits.

    Examples
    --------
    >>> import numpy as np
    >>> import rnncore as rc
    >>> metric = rc.metrics.BitsPerCharacter()
    >>> mean, weight = metric.measure(np.zeros((1, 5, 8)), np.zeros((1, 5), dtype=int))
    >>> round(metric.finish(mean), 6)
    3.0
    """

    name = "bits_per_character"
    _loss = CrossEntropy()

    def finish(self, mean: float) -> float:
        """Return the mean, from nats to bits."""
        return mean / math.log(2)


class MAE(_OfLoss):
    """The mean absolute error.

    Examples
    --------
    >>> import numpy as np
    >>> import rnncore as rc
    >>> rc.metrics.MAE().measure(np.array([[1.0], [3.0]]), np.zeros((2, 1)))
    (2.0, 2.0)
    """

    name = "mae"
    _loss = AbsoluteError()


class RMSE(_OfLoss):
    """The square root of the mean squared error.

    Examples
    --------
    >>> import numpy as np
    >>> import rnncore as rc
    >>> metric = rc.metrics.RMSE()
    >>> mean, weight = metric.measure(np.array([[3.0], [4.0]]), np.zeros((2, 1)))
    >>> metric.finish(mean)
    3.5355339059327378
    """

    name = "rmse"
    _loss = MSE()

    def finish(self, mean: float) -> float:
        """Return the square root of the mean."""
        return math.sqrt(mean)


class Accuracy(Metric):
    """The share of outputs whose largest element is at the target.

    Parameters
    ----------
    ignore_index : int, optional
        A target that is not counted.

    Examples
    --------
    >>> import numpy as np
    >>> import rnncore as rc
    >>> outputs = np.array([[[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]]])
    >>> rc.metrics.Accuracy().measure(outputs, np.array([[1, 1, 1]]), lengths=[2])
    (0.5, 2.0)
    """

    name = "accuracy"
    larger_is_better = True

    def __init__(self, ignore_index: int | None = None) -> None:
        self.ignore_index = ignore_index

    def measure(
        self,
        outputs: Array,
        targets: ArrayLike,
        lengths: ArrayLike | None = None,
        weights: ArrayLike | None = None,
    ) -> tuple[float, float]:
        """Return the share in a batch, and the sum of the weights."""
        ragged, _ = same_kind("outputs", outputs)
        if ragged is not None:
            ragged.structure(lengths)
            weights = row_weights(ragged, weights)
            outputs, targets = ragged.data, ragged.arranged("targets", targets)
        expected = np.asarray(targets)
        if expected.shape != outputs.shape[:-1] or expected.dtype.kind not in "iu":
            raise ValueError(
                f"targets: expected integers {outputs.shape[:-1]} for accuracy, got {expected.dtype} {expected.shape}"
            )
        counted = np.ones(expected.shape)
        if weights is not None:
            given = np.asarray(weights, dtype=np.float64)
            counted = counted * given.reshape(given.shape + (1,) * (expected.ndim - given.ndim))
        if lengths is not None:
            counted = np.where(
                np.arange(expected.shape[1]) < as_lengths(lengths, *expected.shape[:2])[:, None], counted, 0.0
            )
        if self.ignore_index is not None:
            counted = np.where(expected == self.ignore_index, 0.0, counted)
        weight = float(counted.sum())
        right = np.asarray(outputs).argmax(axis=-1) == expected
        return (float(counted[right].sum()) / weight if weight else 0.0), weight


class LabelErrorRate(Metric):
    """Insertions, deletions and substitutions that turn what `CTC.decode` reads into the targets, for each label.

    Parameters
    ----------
    blank : int
        The class that stands for no label.

    Examples
    --------
    >>> import numpy as np
    >>> import rnncore as rc
    >>> logits = np.eye(4)[[[0, 2, 2, 0, 2, 3]]]
    >>> rc.metrics.LabelErrorRate().measure(logits, [[2, 3]])
    (0.5, 2.0)
    """

    name = "label_error_rate"

    def __init__(self, blank: int = 0) -> None:
        self._ctc = CTC(blank)

    def measure(
        self,
        outputs: Array,
        targets: Any,
        lengths: ArrayLike | None = None,
        weights: ArrayLike | None = None,
    ) -> tuple[float, float]:
        """Return the edits of a batch over its labels, and the number of labels."""
        given = np.ones(len(outputs)) if weights is None else np.asarray(weights, dtype=np.float64)
        edits = labels = 0.0
        for read, target, weight in zip(self._ctc.decode(outputs, lengths), targets, given, strict=True):
            edits += weight * _edits(read.tolist(), list(target))
            labels += weight * len(target)
        return (float(edits / labels) if labels else 0.0), float(labels)


def _edits(a: list[int], b: list[int]) -> int:
    """Return the distance between two sequences (Levenshtein 1966)."""
    row = list(range(len(b) + 1))
    for i, label in enumerate(a, 1):
        diagonal, row[0] = row[0], i
        for j, other in enumerate(b, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (label != other))
    return row[-1]


_BY_NAME: dict[str, type[Metric]] = {
    metric.name: metric for metric in (Accuracy, BitsPerCharacter, LabelErrorRate, MAE, Perplexity, RMSE)
}


def named(metric: str | Metric) -> Metric:
    """Return the metric of a name."""
    if isinstance(metric, Metric):
        return metric
    if metric not in _BY_NAME:
        raise ValueError(f"metrics: expected one of {sorted(_BY_NAME)} or a Metric, got {metric!r}")
    return _BY_NAME[metric]()
