"""Schedules of the learning rate: functions of the number of steps that an optimiser has taken.

``schedule(step) -> float`` is the rate of the step that follows `step` others, so the first step has schedule(0). All
but `OnPlateau` are pure functions of that number: training that is resumed at a step goes on as if it had never
stopped. An optimiser takes a schedule in place of a learning rate; any other function of the step serves as well.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping
from math import cos, isfinite, pi
from typing import Any

from rnncore._arguments import Configured, check_keys, configured, count, number

__all__ = [
    "Constant",
    "Cosine",
    "MultiStep",
    "OnPlateau",
    "OneCycle",
    "Schedule",
    "Step",
    "WarmUp",
    "from_config",
]


class Schedule(Configured):
    """What schedules have in common; those without a state need to define `__call__` alone.

    Examples
    --------
    >>> import rnncore as rc
    >>> class InverseRoot(rc.schedules.Schedule):
    ...     def __init__(self, rate):
    ...         self.rate = rate
    ...
    ...     def __call__(self, step):
    ...         return self.rate / (1 + step) ** 0.5
    >>> optimizer = rc.Adam(InverseRoot(0.01))
    >>> optimizer.current_learning_rate
    0.01
    """

    def __call__(self, step: int) -> float:
        """Return the learning rate of the step that follows `step` others."""
        raise NotImplementedError(f"{type(self).__name__} does not define __call__")

    def observe(self, value: float) -> None:
        """Take note of a validation loss. Schedules of the step alone do nothing."""

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed schedule must know, in values that JSON has; empty if that is nothing."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from such a state. Raises ValueError or TypeError if it does not fit, and is unchanged then."""
        check_keys(f"state of {type(self).__name__}", state, ())


class Constant(Schedule):
    """The same rate at every step.

    Parameters
    ----------
    rate : float
        At least 0, as every rate here.

    Examples
    --------
    >>> import rnncore as rc
    >>> rc.schedules.Constant(0.1)(1000)
    0.1
    """

    def __init__(self, rate: float) -> None:
        self.rate = number("rate", rate, "finite and >= 0")

    def __call__(self, step: int) -> float:
        """Return the rate."""
        return self.rate


class Step(Schedule):
    """The rate times `factor` after every so many steps: rate * factor ** (step // every).

    With ``every=1`` it decays exponentially.

    Parameters
    ----------
    rate : float
        Of the first steps.
    every : int
        Steps between changes.
    factor : float
        At least 0.

    Examples
    --------
    >>> import rnncore as rc
    >>> schedule = rc.schedules.Step(0.8, every=100, factor=0.5)
    >>> [schedule(step) for step in (0, 99, 100, 250)]
    [0.8, 0.8, 0.4, 0.2]
    """

    def __init__(self, rate: float, every: int, factor: float = 0.1) -> None:
        self.rate = number("rate", rate, "finite and >= 0")
        self.every = count("every", every)
        self.factor = number("factor", factor, "finite and >= 0")

    def __call__(self, step: int) -> float:
        """Return rate * factor ** (step // every)."""
        return float(self.rate * self.factor ** (step // self.every))


class MultiStep(Schedule):
    """The rate times `factor` at each of some milestones: rate * factor ** (milestones <= step).

    Parameters
    ----------
    rate : float
        Of the steps before the first milestone.
    milestones : sequence of int
        Numbers of steps, in ascending order.
    factor : float
        At least 0.

    Examples
    --------
    >>> import rnncore as rc
    >>> schedule = rc.schedules.MultiStep(0.8, [10, 15], factor=0.5)
    >>> [schedule(step) for step in (9, 10, 15)]
    [0.8, 0.4, 0.2]
    """

    def __init__(self, rate: float, milestones: Iterable[int], factor: float = 0.1) -> None:
        self.rate = number("rate", rate, "finite and >= 0")
        self.milestones = tuple(count("milestones", milestone) for milestone in milestones)
        self.factor = number("factor", factor, "finite and >= 0")
        if list(self.milestones) != sorted(self.milestones):
            raise ValueError(f"milestones: expected ascending numbers, got {milestones}")

    def __call__(self, step: int) -> float:
        """Return rate * factor ** (milestones <= step)."""
        return float(self.rate * self.factor ** bisect_right(self.milestones, step))


class Cosine(Schedule):
    """Half a cosine from `rate` to `final` (Loshchilov & Hutter 2017), and `final` from then on.

    final + (rate - final) * (1 + cos(pi * step / steps)) / 2

    Parameters
    ----------
    rate : float
        Of the first step.
    steps : int
        Steps until `final` is reached.
    final : float
        The rate then.

    Examples
    --------
    >>> import rnncore as rc
    >>> schedule = rc.schedules.Cosine(0.1, steps=100)
    >>> [round(schedule(step), 6) for step in (0, 50, 100, 150)]
    [0.1, 0.05, 0.0, 0.0]
    """

    def __init__(self, rate: float, steps: int, final: float = 0.0) -> None:
        self.rate = number("rate", rate, "finite and >= 0")
        self.steps = count("steps", steps)
        self.final = number("final", final, "finite and >= 0")

    def __call__(self, step: int) -> float:
        """Return the rate after `step` steps."""
        return _half_cosine(self.rate, self.final, min(step / self.steps, 1.0))


class WarmUp(Schedule):
    """A linear rise over some steps, then another schedule, which counts its steps from there.

    (step + 1) / (steps + 1) * then(0)     while step < steps
    then(step - steps)                     afterwards

    No step is wasted on a rate of zero, and the rise meets the first rate of `then` when that begins.

    Parameters
    ----------
    steps : int
        Of the rise.
    then : callable
        The schedule that follows.

    Examples
    --------
    >>> import rnncore as rc
    >>> schedule = rc.schedules.WarmUp(3, rc.schedules.Step(0.8, every=2, factor=0.5))
    >>> [round(schedule(step), 6) for step in range(7)]
    [0.2, 0.4, 0.6, 0.8, 0.8, 0.4, 0.4]
    """

    def __init__(self, steps: int, then: Callable[[int], float]) -> None:
        self.steps = count("steps", steps)
        if not callable(then):
            raise TypeError(f"then: expected a schedule, got {type(then).__name__}")
        self.then = then

    def __call__(self, step: int) -> float:
        """Return the rate after `step` steps."""
        if step < self.steps:
            return self.then(0) * (step + 1) / (self.steps + 1)
        return self.then(step - self.steps)

    def observe(self, value: float) -> None:
        """Pass a validation loss on."""
        if isinstance(self.then, Schedule):
            self.then.observe(value)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of what follows."""
        return self.then.state_dict() if isinstance(self.then, Schedule) else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Give what follows its state back."""
        if isinstance(self.then, Schedule):
            self.then.load_state_dict(state)
        else:
            super().load_state_dict(state)


class OneCycle(Schedule):
    """One rise to a peak and one long fall, both half cosines (Smith & Topin 2018).

    From peak / div_factor to `peak` at step pct_start * steps - 1, then to peak / div_factor / final_div_factor at the
    last step, and that from then on: torch's OneCycleLR, which by default changes the momentum too; this does not.

    Parameters
    ----------
    peak : float
        The highest rate.
    steps : int
        Of the whole cycle.
    pct_start : float
        The part of the steps in which the rate rises, in (0, 1).
    div_factor, final_div_factor : float
        How much lower than the peak the first rate is, and how much lower than that the last.

    Examples
    --------
    >>> import rnncore as rc
    >>> schedule = rc.schedules.OneCycle(0.1, steps=100)
    >>> [round(schedule(step), 6) for step in (0, 29, 64, 99)]
    [0.004, 0.1, 0.05, 0.0]
    """

    def __init__(
        self,
        peak: float,
        steps: int,
        pct_start: float = 0.3,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
    ) -> None:
        self.peak = number("peak", peak, "finite and >= 0")
        self.steps = count("steps", steps)
        self.pct_start = number("pct_start", pct_start, "in (0, 1)")
        self.div_factor = number("div_factor", div_factor, "finite and > 0")
        self.final_div_factor = number("final_div_factor", final_div_factor, "finite and > 0")

    def __call__(self, step: int) -> float:
        """Return the rate after `step` steps."""
        first = self.peak / self.div_factor
        top, last = self.pct_start * self.steps - 1, self.steps - 1
        if step < top:
            return _half_cosine(first, self.peak, step / top)
        return _half_cosine(self.peak, first / self.final_div_factor, min((step - top) / (last - top), 1.0))


class OnPlateau(Schedule):
    """The rate times `factor` when a validation loss has stopped falling; torch's ReduceLROnPlateau.

    After each validation, tell it: ``schedule.observe(loss)``. A loss counts as lower if it is below
    best - threshold * abs(best), for a positive loss torch's rule; one that is not finite does not. Watch something
    that should rise, as an accuracy, by its negative. The step has no influence, but there is a state, which the
    optimiser's `state_dict` includes.

    Parameters
    ----------
    rate : float
        The first rate.
    factor : float
        In (0, 1).
    patience : int
        Observations in a row without a lower loss that are let pass; the next reduces the rate.
    threshold : float
        By what part of itself the best loss must be undercut.
    minimum : float
        The rate is reduced no further.

    Examples
    --------
    >>> import rnncore as rc
    >>> schedule = rc.schedules.OnPlateau(0.8, factor=0.5, patience=1)
    >>> optimizer = rc.SGD(schedule)
    >>> for loss in (3.0, 2.0, 2.5, 2.1, 1.9):
    ...     schedule.observe(loss)
    ...     print(optimizer.current_learning_rate)
    0.8
    0.8
    0.8
    0.4
    0.4
    """

    def __init__(
        self,
        rate: float,
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        minimum: float = 0.0,
    ) -> None:
        self.rate = number("rate", rate, "finite and >= 0")
        self.factor = number("factor", factor, "in (0, 1)")
        self.patience = count("patience", patience, least=0)
        self.threshold = number("threshold", threshold, "finite and >= 0")
        self.minimum = number("minimum", minimum, "finite and >= 0")
        self._current = self.rate
        self._best: float | None = None
        self._waited = 0  # observations since the best one or the last reduction

    def __call__(self, step: int) -> float:
        """Return the rate in force, whatever the step."""
        return self._current

    def observe(self, value: float) -> None:
        """Take note of a validation loss, and reduce the rate if patience is at its end."""
        value = float(value)
        if isfinite(value) and (self._best is None or value < self._best - self.threshold * abs(self._best)):
            self._best = value
            self._waited = 0
            return
        self._waited += 1
        if self._waited > self.patience:
            self._current = min(self._current, max(self._current * self.factor, self.minimum))
            self._waited = 0

    def state_dict(self) -> dict[str, Any]:
        """Return the rate in force, the best loss and the observations since."""
        return {"current": self._current, "best": self._best, "waited": self._waited}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from such a state. Raises ValueError or TypeError if it does not fit, and is unchanged then."""
        check_keys("state of OnPlateau", state, self.state_dict())
        best = state["best"]
        self._current, self._best, self._waited = (
            number("state['current']", state["current"], "finite and >= 0"),
            None if best is None else number("state['best']", best, "finite"),
            count("state['waited']", state["waited"], least=0),
        )


def _half_cosine(start: float, end: float, done: float) -> float:
    """Return what lies between start (done = 0) and end (done = 1) on half a cosine."""
    return end + (start - end) * (1 + cos(pi * done)) / 2


_CLASSES = {kind.__name__: kind for kind in (Constant, Step, MultiStep, Cosine, WarmUp, OneCycle, OnPlateau)}


def from_config(config: Mapping[str, Any]) -> Schedule:
    """Return the schedule that `Schedule.config` described.

    Parameters
    ----------
    config : mapping
        ``{"type": name of the class, argument: value, ...}``.

    Raises
    ------
    ValueError, TypeError
        If it is no description of a schedule of this module.

    Examples
    --------
    >>> import rnncore as rc
    >>> rc.schedules.from_config({"type": "WarmUp", "steps": 10, "then": {"type": "Constant", "rate": 0.1}})
    WarmUp(10, Constant(0.1))
    """
    if isinstance(config, Mapping) and isinstance(config.get("then"), Mapping):
        config = {**config, "then": from_config(config["then"])}
    schedule: Schedule = configured("config", config, _CLASSES)
    return schedule
