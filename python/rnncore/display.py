"""What training shows of itself, and how it listens to Ctrl-C."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Self

__all__ = ["Display", "Interrupts"]


class Display:
    """A progress bar for each epoch, by tqdm; nothing where standard error is not a terminal.

    Parameters
    ----------
    shown : bool, optional
        Whether to show anything. Default: if standard error is a terminal.
    epochs : int
        How many there will be.

    Examples
    --------
    >>> with Display(False, epochs=3) as display:
    ...     display.begin(epoch=0, batches=10, done=0)
    """

    def __init__(self, shown: bool | None, epochs: int) -> None:
        self.shown = sys.stderr.isatty() if shown is None else shown
        self.epochs = epochs
        self._bar: Any = None

    def begin(self, epoch: int, batches: int, done: int) -> None:
        """Begin an epoch, of which some batches may be done."""
        if self.shown:
            from tqdm import tqdm

            title = f"epoch {epoch + 1}/{self.epochs}"
            self._bar = tqdm(total=batches, initial=done, desc=title, unit=" batches", file=sys.stderr)

    def step(self, done: int, figures: Callable[[], dict[str, float]], rate: float) -> None:
        """Show how far the epoch is, and its figures."""
        if self._bar is not None:
            shown = {name: f"{value:.4g}" for name, value in figures().items()}
            self._bar.set_postfix(shown, rate=f"{rate:.2g}", refresh=False)
            self._bar.update(max(done - self._bar.n, 0))

    def end(self, row: dict[str, Any]) -> None:
        """End an epoch: leave its figures."""
        if self._bar is not None:
            hidden = ("epoch", "steps", "seconds", "learning_rate")
            shown = {name: f"{value:.4g}" for name, value in row.items() if name not in hidden}
            self._bar.set_postfix(shown, refresh=True)
            self._bar.close()
            self._bar = None

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close what is open."""
        if self._bar is not None:
            self._bar.close()


class Interrupts:
    """Takes Ctrl-C as a wish to end after the step at hand; a second one interrupts at once.

    Only the main thread can listen; elsewhere nothing changes.

    Examples
    --------
    >>> with Interrupts() as interrupts:
    ...     interrupts.asked
    False
    """

    def __init__(self) -> None:
        self.asked = False
        self._previous: Any = None

    def __enter__(self) -> Self:
        """Begin to listen."""
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGINT, self._ask)
        return self

    def __exit__(self, *error: object) -> None:
        """Listen no more."""
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
