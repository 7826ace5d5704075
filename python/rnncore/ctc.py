"""Connectionist temporal classification: labels whose places in a series are not known."""

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rnncore import _core
from rnncore._conversion import as_array, as_lengths, as_real
from rnncore.losses import LossGradient
from rnncore.ragged import same_kind

__all__ = ["CTC"]

Array = NDArray[Any]


class CTC:
    """Negative log-probability of label sequences, all their alignments together (Graves et al. 2006).

    A model reads a label or blank at every step. Of what it reads, repetitions that follow each other are one label,
    then blanks go: "a b - b" and "a a b - b b" both say "a b b", with - for blank. The loss of a sequence is -log of
    the probability of all ways to say its target, divided by the number of labels (by 1 if there are none), and the
    value is the mean over sequences, like torch's with ``reduction="mean"``. Unlike torch's, outputs are logits, and
    batch comes first.

    Parameters
    ----------
    blank : int
        The class that stands for no label.
    zero_infinity : bool
        Whether a target that no way leads to has loss 0 instead of infinity.

    Notes
    -----
    A target is out of reach where its series has fewer steps than it has labels and pairs of equal neighbours together,
    or where logits of -inf forbid every way. Nothing that changes little would bring it into reach: the gradient of its
    sequence is zero, and those of others are what they would be without infinity.

    Examples
    --------
    >>> import numpy as np
    >>> import rnncore as rc
    >>> logits = np.zeros((1, 2, 3))  # two steps, blank and two labels, all alike
    >>> round(rc.CTC()(logits, [[1]]), 4)  # ways: 1 1, 1 -, - 1
    1.0986
    >>> rc.CTC()(logits, [[1, 1]])  # needs a blank between
    inf
    """

    def __init__(self, blank: int = 0, zero_infinity: bool = False) -> None:
        self.blank = operator.index(blank)
        self.zero_infinity = bool(zero_infinity)

    def __call__(
        self,
        outputs: ArrayLike,
        targets: ArrayLike | Sequence[ArrayLike],
        lengths: ArrayLike | None = None,
        weights: ArrayLike | None = None,
        target_lengths: ArrayLike | None = None,
    ) -> float:
        """Return the value.

        Parameters
        ----------
        outputs : array_like, (N, T, C)
            Logits. float32 and float64 are computed in as they are. Or a list of N arrays (T_n, C), or a `Packed`; the
            gradient is the same then.
        targets : array_like of int, (N, L), or sequence of N sequences of int
            Labels, none of them blank.
        lengths : array_like of int (N,) or of bool (N, T), optional
            Steps of each series, 0 to T, or a mask that is True at them, which are the first. Steps from there on are
            not read. Default: T for all.
        weights : array_like, (N,), optional
            Of the sequences, at least 0; what has weight 0 is not read. Default: 1.
        target_lengths : array_like of int, (N,), optional
            Labels of each row of targets (N, L). Labels from there on are not read. Default: L for all.

        Returns
        -------
        float
            Weighted mean over the sequences; 0 if none counts.

        Raises
        ------
        ValueError, TypeError
            If an argument does not fit, naming it, what was expected and what came; if blank is no class, or a label is
            blank or no class.
        """
        return self._evaluate(outputs, targets, lengths, weights, target_lengths, False)[0]

    def with_gradient(
        self,
        outputs: ArrayLike,
        targets: ArrayLike | Sequence[ArrayLike],
        lengths: ArrayLike | None = None,
        weights: ArrayLike | None = None,
        target_lengths: ArrayLike | None = None,
    ) -> LossGradient:
        """Return ``(value, weight, gradient)`` for the arguments of a call; the gradient is with respect to logits."""
        return LossGradient(*self._evaluate(outputs, targets, lengths, weights, target_lengths, True))

    def decode(self, outputs: ArrayLike, lengths: ArrayLike | None = None) -> list[Array]:
        """Read the labels off the most probable path: the likeliest class at each step, repeats merged, blanks dropped.

        Best path decoding (Graves et al. 2006, section 3.2): not always the most probable labelling, whose
        probability is that of many paths.

        Parameters
        ----------
        outputs : array_like, (N, T, C)
            Logits.
        lengths : array_like of int (N,) or of bool (N, T), optional
            Steps of each series, 0 to T, or a mask that is True at them, which are the first. Default: T for all.

        Returns
        -------
        list of ndarray of int64
            Labels of each series.

        Examples
        --------
        >>> import numpy as np
        >>> import rnncore as rc
        >>> logits = np.eye(4)[[[0, 2, 2, 0, 2, 3]]]
        >>> rc.CTC().decode(logits)
        [array([2, 2, 3])]
        """
        ragged, _ = same_kind("outputs", outputs)
        if ragged is not None:
            ragged.structure(lengths)
            outputs, lengths = ragged.to_padded()
        x = np.asarray(outputs)
        if x.ndim != 3 or x.shape[2] <= self.blank:
            raise ValueError(f"outputs: expected (N, T, C) with C > {self.blank}, got {x.shape}")
        steps = [x.shape[1]] * x.shape[0] if lengths is None else as_lengths(lengths, *x.shape[:2]).tolist()
        labels = []
        for path, n in zip(x.argmax(axis=2), steps, strict=True):
            valid = path[:n]
            new = np.diff(valid, prepend=-1) != 0
            labels.append(valid[new & (valid != self.blank)])
        return labels

    def _evaluate(
        self, outputs: Any, targets: Any, lengths: Any, weights: Any, target_lengths: Any, with_gradient: bool
    ) -> tuple[float, float, Any]:
        ragged, kind = same_kind("outputs", outputs)
        if ragged is not None:
            ragged.structure(lengths)
            padded, lengths = ragged.to_padded()
            value, weight, gradient = self._evaluate(padded, targets, lengths, weights, target_lengths, with_gradient)
            if with_gradient:
                gradient = kind(ragged.from_joined(gradient[np.arange(padded.shape[1]) < lengths[:, np.newaxis]]))
            return value, weight, gradient
        x = as_real("outputs", outputs)
        if x.ndim != 3:
            raise ValueError(f"outputs: expected (N, T, C), got {x.shape}")
        labels, counts = _padded(targets, target_lengths)
        if lengths is not None:
            lengths = as_lengths(lengths, *x.shape[:2])
        if weights is not None:
            weights = as_array("weights", weights, np.dtype(np.float64))
        return _core.ctc(x, labels, counts, lengths, weights, self.blank, self.zero_infinity, with_gradient)

    def __repr__(self) -> str:
        """Return the call that makes such a loss."""
        return f"CTC(blank={self.blank}, zero_infinity={self.zero_infinity})"


def _padded(targets: Any, target_lengths: Any) -> tuple[Array, Array]:
    """Targets as rows of one array, and how many labels each has."""
    if target_lengths is None and isinstance(targets, list | tuple):
        rows = [_integers(f"targets[{n}]", row, 1) for n, row in enumerate(targets)]
        counts = np.array([row.size for row in rows], np.int64)
        padded = np.zeros((len(rows), max(counts, default=0)), np.int64)
        for row, into in zip(rows, padded, strict=True):
            into[: row.size] = row
        return padded, counts
    labels = _integers("targets", targets, 2)
    if target_lengths is None:
        return labels, np.full(labels.shape[0], labels.shape[1], np.int64)
    return labels, _integers("target_lengths", target_lengths, 1)


def _integers(name: str, value: Any, ndim: int) -> Array:
    array = np.asarray(value)
    if array.ndim != ndim:
        raise ValueError(f"{name}: expected {'(N, L)' if ndim == 2 else 'one axis'}, got {array.shape}")
    if array.dtype.kind not in "iu" and array.size:
        raise TypeError(f"{name}: expected integers, got {array.dtype}")
    return np.require(array, np.int64, ["C", "A"])
