"""Losses over whole batches of series, each with its gradient: classification and regression, step by step.

Every loss is called as ``loss(outputs, targets, lengths=None, weights=None)`` for its value, or by its `with_gradient`
for the value together with d value / d outputs. The value is a weighted mean over what counts, accumulated in float64.
Steps at or beyond a sequence's length do not count, nor do those of weight 0: neither outputs nor targets are read
there, whatever they hold, and the gradient is zero. `rnncore.CTC` stands in a module of its own.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rnncore import _core
from rnncore._conversion import as_array, as_lengths, as_real
from rnncore.ragged import Ragged, same_kind

__all__ = ["MAE", "MSE", "BinaryCrossEntropy", "CrossEntropy", "GaussianNLL", "Huber", "LossGradient", "Quantile"]

Array = NDArray[Any]
Pointwise = tuple[Array, Callable[[], Array]]  # losses of elements, and what computes their slopes


class LossGradient(NamedTuple):
    """A loss: its value, the sum of weights that it is a mean over, and its gradient with respect to the outputs.

    Means over two batches combine exactly as ``(a.value * a.weight + b.value * b.weight) / (a.weight + b.weight)``,
    and so do their gradients. Where nothing counts, value and weight are 0.
    """

    value: float
    weight: float
    gradient: Array


class _Loss:
    """What all losses share: the two ways to call them."""

    def __call__(
        self, outputs: ArrayLike, targets: ArrayLike, lengths: ArrayLike | None = None, weights: ArrayLike | None = None
    ) -> float:
        """Return the value.

        Parameters
        ----------
        outputs : array_like, (N, T, ...)
            Of the model. float32 and float64 are computed in as they are. Or a list of N arrays (T_n, ...), or a
            `Packed`.
        targets : array_like
            What the outputs should be; the class says in which shape. Without an axis of the batch, a list of such
            arrays or a `Packed`, if the outputs are one.
        lengths : array_like of int (N,) or of bool (N, T), optional
            Steps of each sequence that count, 0 to T, or a mask that is True at them, which are the first of each row;
            needs a time axis. Default: T for all.
        weights : array_like, (N, T) or (N,), optional
            Of every step, or of every sequence's steps; at least 0. Or like the targets, of every step. Default: 1.

        Returns
        -------
        float
            Weighted mean over the elements that count; 0 if none does.

        Raises
        ------
        ValueError, TypeError
            If an argument does not fit, naming it, what was expected and what came.
        """
        return self._measured(outputs, targets, lengths, weights, False)[0]

    def with_gradient(
        self, outputs: ArrayLike, targets: ArrayLike, lengths: ArrayLike | None = None, weights: ArrayLike | None = None
    ) -> LossGradient:
        """Return ``(value, weight, gradient)`` for the arguments of a call.

        Returns
        -------
        LossGradient
            `gradient` has the shape of the outputs, and their dtype if that is float32 or float64. A list or a
            `Packed` if they are one.
        """
        return LossGradient(*self._measured(outputs, targets, lengths, weights, True))

    def _measured(
        self, outputs: Any, targets: Any, lengths: Any, weights: Any, with_gradient: bool
    ) -> tuple[float, float, Any]:
        """Evaluate, what has no padding row by row."""
        ragged, kind = same_kind("outputs", outputs)
        if ragged is None:
            return self._evaluate(outputs, targets, lengths, weights, with_gradient)
        ragged.structure(lengths)
        value, weight, gradient = self._evaluate(
            ragged.data, ragged.arranged("targets", targets), None, row_weights(ragged, weights), with_gradient
        )
        return value, weight, kind(ragged.with_data(gradient)) if with_gradient else None

    def _evaluate(
        self, outputs: Any, targets: Any, lengths: Any, weights: Any, with_gradient: bool
    ) -> tuple[float, float, Any]:
        """Return value, weight and, if wanted, the gradient."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"


def row_weights(outputs: Ragged, weights: Any) -> Array | None:
    """Return the weight of each row: given for steps, or for sequences."""
    if weights is None or isinstance(weights, Ragged):
        return None if weights is None else outputs.arranged("weights", weights)
    if isinstance(weights, list | tuple) and any(np.ndim(each) for each in weights):
        return outputs.arranged("weights", weights)
    weight = as_array("weights", weights, np.dtype(np.float64))
    if weight.shape != (outputs.N,):
        raise ValueError(f"weights: expected ({outputs.N},) or a list of arrays (T_n,), got {weight.shape}")
    return weight[outputs.sequence_of_rows()]


def _step_weights(shape: tuple[int, ...], lengths: ArrayLike | None, weights: ArrayLike | None) -> Array | None:
    """Weights (N, T) or (N,) of steps, with 0 for those that do not count; None if all count alike.

    `shape` is that of the outputs, (N, T, ...) or (N, ...), as far as its axes may be batch and time.
    """
    if lengths is None and weights is None:
        return None
    weight = np.ones(shape[:1]) if weights is None else as_array("weights", weights, np.dtype(np.float64))
    if weight.shape not in (shape[:1], shape[:2]):
        raise ValueError(f"weights: expected {' or '.join(map(str, {shape[:1]: 0, shape[:2]: 0}))}, got {weight.shape}")
    if not (np.isfinite(weight) & (weight >= 0)).all():
        raise ValueError(f"weights: expected finite values of at least 0, got {weight.min()} to {weight.max()}")
    if lengths is None:
        return weight
    if len(shape) < 2:
        raise ValueError("lengths: expected None, since the outputs have no time axis")
    steps = as_lengths(lengths, shape[0], shape[1])
    counts = np.arange(shape[1]) < steps[:, np.newaxis]
    return counts * (weight if weight.ndim == 2 else weight[:, np.newaxis])


class _PointwiseLoss(_Loss):
    """A mean over elements that have nothing to do with each other."""

    def _shapes(self, outputs: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the shape that targets must have, and the axes of the outputs that may be batch and time."""
        return outputs, outputs

    def _pointwise(self, x: Array, y: Array) -> Pointwise:
        raise NotImplementedError

    def _evaluate(
        self, outputs: Any, targets: Any, lengths: Any, weights: Any, with_gradient: bool
    ) -> tuple[float, float, Any]:
        x = as_real("outputs", outputs)
        if x.ndim == 0:
            raise ValueError("outputs: expected (N, ...), got ()")
        y = as_array("targets", targets, x.dtype)
        expected, steps = self._shapes(x.shape)
        if y.shape != expected:
            raise ValueError(f"targets: expected {expected}, got {y.shape}")
        weight = _step_weights(steps, lengths, weights)

        if weight is None:
            loss, slopes = self._pointwise(x, y)
            total = float(loss.size)
            value = float(loss.sum(dtype=np.float64)) / total if total else 0.0
            return value, total, slopes() * x.dtype.type(1.0 / max(total, 1.0)) if with_gradient else None

        counted = weight > 0
        w = weight[counted]
        loss, slopes = self._pointwise(x[counted], y[counted])
        total = float(w.sum()) * (loss.size // max(w.size, 1))
        value = float(w @ loss.sum(axis=tuple(range(1, loss.ndim)), dtype=np.float64)) / total if total else 0.0
        if not with_gradient:
            return value, total, None
        gradient = np.zeros_like(x)
        if total:
            slope = slopes()
            gradient[counted] = slope * (w / total).astype(x.dtype).reshape(-1, *[1] * (slope.ndim - 1))
        return value, total, gradient


def _smoothing(value: float) -> float:
    if not 0.0 <= value < 1.0:
        raise ValueError(f"label_smoothing: expected a value from 0 to below 1, got {value}")
    return float(value)


def _positive(name: str, value: float) -> float:
    if not 0.0 < value < np.inf:
        raise ValueError(f"{name}: expected a positive finite number, got {value}")
    return float(value)


# --------------------------------------------------------------------------------------------- classification


class CrossEntropy(_Loss):
    """Softmax cross-entropy of logits: -sum_c q_c log softmax(outputs)_c, the mean over steps.

    Outputs are logits of any size, (N, T, C), or (N, C) without a time axis. Targets are classes, integers (N, T) or
    (N,), or probabilities q of the shape of the outputs, which need not sum to 1.

    Parameters
    ----------
    ignore_index : int, optional
        A class whose steps do not count.
    label_smoothing : float
        Share of every target that is spread evenly over all classes: q becomes (1 - s) q + s / C.

    Raises
    ------
    ValueError
        If label_smoothing is not in [0, 1); in calls also if a class that counts is not in [0, C), or a probability is
        negative, naming its place.

    Examples
    --------
    >>> import rnncore as rc
    >>> loss = rc.CrossEntropy()
    >>> round(loss([[2.0, 0.0], [0.0, 0.0]], [0, 1]), 4)
    0.41
    >>> loss.with_gradient([[0.0, 0.0]], [1])
    LossGradient(value=0.6931471805599453, weight=1.0, gradient=array([[ 0.5, -0.5]]))
    """

    def __init__(self, ignore_index: int | None = None, label_smoothing: float = 0.0) -> None:
        self.ignore_index = None if ignore_index is None else operator.index(ignore_index)
        self.label_smoothing = _smoothing(label_smoothing)

    def _evaluate(
        self, outputs: Any, targets: Any, lengths: Any, weights: Any, with_gradient: bool
    ) -> tuple[float, float, Any]:
        options = self.ignore_index, self.label_smoothing, with_gradient
        result = _core.cross_entropy(outputs, targets, lengths, weights, *options)
        if result is None:
            x, y, lengths, weights = _as_the_core_takes(outputs, targets, lengths, weights)
            result = _core.cross_entropy(x, y, lengths, weights, *options)
            assert result is not None
        return result


def _as_the_core_takes(outputs: Any, targets: Any, lengths: Any, weights: Any) -> tuple[Array | None, ...]:
    x = as_real("outputs", outputs)
    if x.ndim not in (2, 3) or x.shape[-1] == 0:
        raise ValueError(f"outputs: expected (N, T, C) or (N, C), got {x.shape}")
    if x.ndim == 2 and lengths is not None:
        raise ValueError("lengths: expected None, since outputs (N, C) have no time axis")
    y = np.asarray(targets)
    if y.shape == x.shape:
        y = as_array("targets", y, x.dtype)
    elif y.shape != x.shape[:-1]:
        raise ValueError(f"targets: expected classes {x.shape[:-1]} or probabilities {x.shape}, got {y.shape}")
    elif y.dtype.kind not in "iu" and y.size:
        raise TypeError(f"targets: expected integers for classes {y.shape}, got {y.dtype}")
    else:
        y = np.require(y, np.int64, ["C", "A"])
    if lengths is not None:
        lengths = as_lengths(lengths, *x.shape[:2])
    if weights is not None:
        weights = as_array("weights", weights, np.dtype(np.float64))
    return x, y, lengths, weights


class BinaryCrossEntropy(_PointwiseLoss):
    """Cross-entropy of logits against probabilities y of a binary event, the mean over elements.

    -(p y log sigmoid(x) + (1 - y) log(1 - sigmoid(x))), computed without overflow or cancellation. Targets are of the
    shape of the outputs, in [0, 1].

    Parameters
    ----------
    label_smoothing : float
        y becomes (1 - s) y + s / 2.
    positive_weight : float
        p: above 1 it favours recall, below 1 precision. The mean is still over elements.

    Raises
    ------
    ValueError
        If label_smoothing is not in [0, 1) or positive_weight not positive; in calls if a target is not in [0, 1].

    Examples
    --------
    >>> import rnncore as rc
    >>> round(rc.BinaryCrossEntropy()([0.0, 100.0], [1, 1]), 4)
    0.3466
    """

    def __init__(self, label_smoothing: float = 0.0, positive_weight: float = 1.0) -> None:
        self.label_smoothing = _smoothing(label_smoothing)
        self.positive_weight = _positive("positive_weight", positive_weight)

    # (1 - y) softplus(x) + p y softplus(-x),  softplus(x) = max(x, 0) + log(1 + e^-|x|),  softplus' = sigmoid
    def _pointwise(self, x: Array, y: Array) -> Pointwise:
        if not ((y >= 0) & (y <= 1)).all():
            raise ValueError(f"targets: expected probabilities from 0 to 1, got {y.min()} to {y.max()}")
        smoothed = y * (1 - self.label_smoothing) + self.label_smoothing / 2
        negative, positive = 1 - smoothed, smoothed * self.positive_weight
        z = np.exp(-np.abs(x))
        loss = negative * np.maximum(x, 0) - positive * np.minimum(x, 0) + (negative + positive) * np.log1p(z)

        def slopes() -> Array:
            near, far = 1 / (1 + z), z / (1 + z)  # sigmoid of |x| and -|x|
            above = x >= 0
            slope: Array = negative * np.where(above, near, far) - positive * np.where(above, far, near)
            return slope

        return loss, slopes


# ------------------------------------------------------------------------------------------------- regression


class MSE(_PointwiseLoss):
    """Mean squared error: (x - y)^2, the mean over elements. Targets are of the shape of the outputs.

    Examples
    --------
    >>> import rnncore as rc
    >>> rc.MSE()([[1.0, 2.0]], [[0.0, 4.0]])
    2.5
    """

    def _pointwise(self, x: Array, y: Array) -> Pointwise:
        difference = x - y
        return difference * difference, lambda: 2 * difference


class MAE(_PointwiseLoss):
    """Mean absolute error: |x - y|, the mean over elements. Targets are of the shape of the outputs.

    The gradient is 0 where x = y.

    Examples
    --------
    >>> import rnncore as rc
    >>> rc.MAE()([[1.0, 2.0]], [[0.0, 4.0]])
    1.5
    """

    def _pointwise(self, x: Array, y: Array) -> Pointwise:
        difference = x - y
        return np.abs(difference), lambda: np.sign(difference)


class Huber(_PointwiseLoss):
    """Squared error near 0 and absolute error beyond (Huber 1964), the mean over elements.

    (x - y)^2 / 2 where |x - y| <= delta, and delta (|x - y| - delta / 2) elsewhere. Targets are of the shape of the
    outputs.

    Parameters
    ----------
    delta : float
        Where the one meets the other.

    Raises
    ------
    ValueError
        If delta is not positive.

    Examples
    --------
    >>> import rnncore as rc
    >>> rc.Huber()([[1.0, 2.0]], [[0.5, 4.0]])
    0.8125
    """

    def __init__(self, delta: float = 1.0) -> None:
        self.delta = _positive("delta", delta)

    def _pointwise(self, x: Array, y: Array) -> Pointwise:
        difference = x - y
        clipped = np.clip(difference, -self.delta, self.delta)
        return clipped * (difference - clipped / 2), lambda: clipped


class Quantile(_PointwiseLoss):
    """Quantile (pinball) loss: each output is to be a quantile of the target; the mean over outputs.

    q (y - x) where y > x and (1 - q) (x - y) elsewhere, with the level q of the output. Outputs are (N, T, Q) for
    targets (N, T), or (N, T, D, Q) for (N, T, D), and so on. The gradient is 0 where x = y.

    Parameters
    ----------
    levels : sequence of float
        The Q levels, each between 0 and 1.

    Raises
    ------
    ValueError
        If there are no levels, or one is not between 0 and 1.

    Examples
    --------
    >>> import rnncore as rc
    >>> round(rc.Quantile([0.1, 0.5, 0.9])([[1.0, 2.0, 3.0]], [2.0]), 4)
    0.0667
    """

    def __init__(self, levels: Sequence[float]) -> None:
        self.levels = tuple(float(level) for level in levels)
        if not self.levels or not all(0.0 < level < 1.0 for level in self.levels):
            raise ValueError(f"levels: expected values between 0 and 1, got {levels}")

    def _shapes(self, outputs: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        if len(outputs) < 2 or outputs[-1] != len(self.levels):
            raise ValueError(f"outputs: expected (N, ..., {len(self.levels)}), a value for each level, got {outputs}")
        return outputs[:-1], outputs[:-1]

    def _pointwise(self, x: Array, y: Array) -> Pointwise:
        levels = np.array(self.levels, x.dtype)
        missing = y[..., np.newaxis] - x
        loss = np.maximum(levels * missing, (levels - 1) * missing)
        return loss, lambda: np.sign(missing) * np.where(missing > 0, -levels, levels - 1)


class GaussianNLL(_PointwiseLoss):
    """Negative log-likelihood of a normal distribution per element, in nats, the mean over elements.

    (log(2 pi) + s + (y - m)^2 e^-s) / 2. Outputs are (N, T, 2D): the D means m, then the D log-variances s; targets are
    (N, T, D). The constant is included, so values compare with those of other likelihoods; torch leaves it out unless
    ``full=True``. Nothing bounds s from below: bound it in the model where data can be fitted exactly.

    Examples
    --------
    >>> import rnncore as rc
    >>> round(rc.GaussianNLL()([[1.0, 0.0]], [[3.0]]), 4)
    2.9189
    """

    def _shapes(self, outputs: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        if len(outputs) < 2 or outputs[-1] % 2:
            raise ValueError(f"outputs: expected (N, ..., 2 D), means and log-variances, got {outputs}")
        return (*outputs[:-1], outputs[-1] // 2), outputs[:-1]

    def _pointwise(self, x: Array, y: Array) -> Pointwise:
        mean, log_variance = np.split(x, 2, axis=-1)
        difference, precision = mean - y, np.exp(-log_variance)
        squared = difference * difference * precision
        loss = (float(np.log(2 * np.pi)) + log_variance + squared) / 2
        return loss, lambda: np.concatenate([difference * precision, (1 - squared) / 2], axis=-1)
