"""What a trainer tells of itself as it goes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from rnncore.history import History

if TYPE_CHECKING:
    from rnncore.training import Trainer

__all__ = ["Callback", "StepInfo"]


class StepInfo(NamedTuple):
    """What a step of the optimiser was like."""

    step: int  # from 1
    epoch: int  # from 1
    loss: float
    gradient_norm: float  # before clipping
    learning_rate: float


class Callback:
    """What a trainer calls as it goes; override what you need.

    Examples
    --------
    >>> import rnncore as rc
    >>> class Print(rc.Callback):
    ...     def on_epoch(self, trainer, row):
    ...         print(row["epoch"], row["loss"])
    """

    def on_step(self, trainer: Trainer, info: StepInfo) -> None:
        """Be told of a step of the optimiser."""

    def on_epoch(self, trainer: Trainer, row: dict[str, Any]) -> None:
        """Be told of an epoch: its row of the history."""

    def on_end(self, trainer: Trainer, history: History) -> None:
        """Be told that `Trainer.fit` is about to return."""
