"""Recurrent layers for inference alone, with weights packed once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from rnncore.recurrent import _Recurrent

__all__ = ["Frozen"]


def _nothing(x: Any, state: Any, lengths: Any) -> None:
    """Stand in for a call of the core that does not take the arguments as they are."""


class Frozen:
    """What `frozen()` of a layer returns: its weights, packed for the instruction set in use, and nothing to train.

    A call of a layer packs the weights each time, since they may have changed; a call of this does not. It may be
    called from many threads at a time, and pickled.

    Parameters
    ----------
    layer : RNN, LSTM or GRU
        Whose parameters are copied.

    Attributes
    ----------
    parameters : Views
        Names and shapes are the layer's. The arrays cannot be written to.

    Examples
    --------
    >>> import numpy as np
    >>> import rnncore as rc
    >>> frozen = rc.LSTM(3, 8, rng=0).frozen()
    >>> frozen
    Frozen(LSTM(3, 8))
    >>> y, (h_n, c_n) = frozen(np.ones((2, 5, 3), dtype=np.float32))
    >>> y.shape, h_n.shape
    ((2, 5, 8), (1, 2, 8))
    >>> frozen.parameters["bias_ih_l0"].flags.writeable
    False
    """

    __slots__ = ("_forward", "_layer", "_stack")

    def __init__(self, layer: _Recurrent) -> None:
        self._layer = layer._frozen_copy()
        self._stack = self._layer._pack(once=True)
        self._forward = self._stack.forward if layer._as_given else _nothing  # of what the core takes as it is

    @property
    def parameters(self) -> Mapping[str, NDArray[Any]]:
        """The parameters that were packed."""
        return self._layer.parameters

    def __call__(
        self,
        x: ArrayLike,
        state: Any = None,
        lengths: ArrayLike | None = None,
        reset_mask: ArrayLike | None = None,
        reset_state: Any = None,
    ) -> tuple[NDArray[Any], Any]:
        """Run the layer on x. Parameters, results and errors are those of a call of the layer, and so are the bits.

        Fastest if x and the state are C-contiguous arrays of the layer's dtype and x has a batch axis: then nothing
        is converted.
        """
        if reset_mask is not None or reset_state is not None:
            return self._layer._run_with_resets(self._stack, x, state, lengths, reset_mask, reset_state)
        result = self._forward(x, state, lengths)
        return self._layer._run_converted(self._stack.forward, x, state, lengths) if result is None else result

    def __repr__(self) -> str:
        """Return ``Frozen(<the layer>)``."""
        return f"Frozen({self._layer!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the layer, whose weights are packed anew."""
        return Frozen, (self._layer,)
