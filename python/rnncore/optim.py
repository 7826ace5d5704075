"""Optimisers over flat vectors of parameters and gradients.

The formulas, defaults and names of state are those of torch.optim; one pass of the core over the vectors is a step,
in place and without temporaries. There are no groups of parameters: a vector is stepped as one.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnncore import _core
from rnncore._arguments import Configured, check_keys, configured, count, number
from rnncore.schedules import Schedule
from rnncore.schedules import from_config as schedule_from_config

__all__ = ["SGD", "Adam", "AdamW", "Optimizer", "RMSprop", "from_config"]

Array = NDArray[Any]
Rate = float | Callable[[int], float]


class Optimizer(Configured):
    """What optimisers have in common. Not to be made itself: see `SGD`, `RMSprop`, `Adam` and `AdamW`.

    Attributes
    ----------
    steps : int
        Steps taken.
    learning_rate : float or callable
        As given; may be set.

    Examples
    --------
    >>> import rnncore as rc
    >>> isinstance(rc.Adam(), rc.optim.Optimizer)
    True
    """

    def __init__(self, learning_rate: Rate) -> None:
        self.learning_rate = learning_rate
        self.steps = 0
        self._moments: dict[str, Array] = {}  # empty until the first step, and where the rule keeps none

    @property
    def learning_rate(self) -> Rate:
        """The rate, or the schedule that gives it: a function of `steps`."""
        return self._learning_rate

    @learning_rate.setter
    def learning_rate(self, value: Rate) -> None:
        self._learning_rate = value if callable(value) else number("learning_rate", value, "finite and >= 0")

    @property
    def current_learning_rate(self) -> float:
        """The rate of the next step."""
        rate = self._learning_rate
        return number("learning_rate", rate(self.steps), "finite and >= 0") if callable(rate) else rate

    def step(self, parameters: Array, gradients: Array) -> None:
        """Change the parameters by one step, in place.

        Parameters
        ----------
        parameters, gradients : ndarray, (P,) or (M, P)
            Contiguous, of one dtype, float32 or float64, and apart from each other. Always of the same size and dtype
            from the first step on, which is when the moments are made.

        Raises
        ------
        TypeError
            If one is no array, or of another dtype.
        ValueError
            If one is of another size, not contiguous, or read-only, or if they overlap; or if the schedule gives a
            rate that is negative or not finite. Nothing is changed then.
        """
        if np.ndim(parameters) == 2 and np.shape(parameters) == np.shape(gradients) and parameters.flags.c_contiguous:
            parameters, gradients = parameters.reshape(-1), gradients.reshape(-1)  # of many networks
        moments = self._moments or {name: np.zeros_like(parameters, subok=False) for name in self._moment_names()}
        self._update(parameters, gradients, moments, self.current_learning_rate)
        self._moments = moments
        self.steps += 1

    def _moment_names(self) -> tuple[str, ...]:
        raise NotImplementedError("Optimizer has no rule: use SGD, RMSprop, Adam or AdamW")

    def _update(self, p: Array, g: Array, moments: dict[str, Array], rate: float) -> None:
        """Step parameters p with gradients g and the moments, for the time `steps` + 1; or raise and change nothing."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed optimiser must know beside its `config`, as copies.

        Returns
        -------
        dict
            ``type``, the name of the class; ``steps``; ``schedule``, the state of the schedule, mostly empty; and
            ``moments``, a dict of vectors by torch's names, empty before the first step. All but the vectors are
            values that JSON has.
        """
        schedule = self._learning_rate
        return {
            "type": type(self).__name__,
            "steps": self.steps,
            "schedule": schedule.state_dict() if isinstance(schedule, Schedule) else {},
            "moments": {name: moment.copy() for name, moment in self._moments.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from such a state: the steps that follow have the bits they would have had.

        Parameters
        ----------
        state : mapping
            Of an optimiser of this class with the same arguments. It is copied.

        Raises
        ------
        ValueError, TypeError
            If it is of another optimiser, or damaged. Nothing is changed then.
        """
        check_keys("state", state, ("type", "steps", "schedule", "moments"))
        if state["type"] != type(self).__name__:
            raise ValueError(f"state['type']: expected {type(self).__name__!r}, got {state['type']!r}")
        steps = count("state['steps']", state["steps"], least=0)
        check_keys("state['moments']", state["moments"], self._moment_names() if steps else ())
        moments = {name: np.array(moment) for name, moment in state["moments"].items()}
        for name, moment in moments.items():
            if moment.ndim != 1 or moment.dtype not in (np.float32, np.float64):
                raise ValueError(
                    f"state['moments'][{name!r}]: expected float32 or float64 (P,), got {moment.dtype} {moment.shape}"
                )
        kinds = {f"{moment.dtype} {moment.shape}" for moment in moments.values()}
        if len(kinds) > 1:
            raise ValueError(f"state['moments']: expected vectors of one dtype and size, got {sorted(kinds)}")
        if isinstance(self._learning_rate, Schedule):
            self._learning_rate.load_state_dict(state["schedule"])
        else:
            check_keys("state['schedule']", state["schedule"], ())
        self.steps, self._moments = steps, moments


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum or Nesterov's momentum; torch.optim.SGD.

    d = g + weight_decay * p,  then with momentum  b = momentum * b + d  and  d = b, with Nesterov's d + momentum * b;
    p = p - rate * d.

    Parameters
    ----------
    learning_rate : float or callable
        The rate, at least 0, or a schedule: a function of the number of steps taken, as in `rnncore.schedules`.
    momentum : float
        In [0, 1).
    nesterov : bool
        Whether momentum is Nesterov's (Sutskever et al. 2013).
    weight_decay : float
        At least 0; an L2 penalty of half this.

    Raises
    ------
    ValueError, TypeError
        If an argument is not of that kind, or `nesterov` comes without momentum.

    Examples
    --------
    >>> import numpy as np
    >>> import rnncore as rc
    >>> parameters, gradients = np.ones(3), np.array([1.0, 0.0, -2.0])
    >>> optimizer = rc.SGD(0.1, momentum=0.9)
    >>> for _ in range(2):
    ...     optimizer.step(parameters, gradients)
    >>> parameters
    array([0.71, 1.  , 1.58])
    """

    def __init__(
        self, learning_rate: Rate, momentum: float = 0.0, nesterov: bool = False, weight_decay: float = 0.0
    ) -> None:
        super().__init__(learning_rate)
        self.momentum = number("momentum", momentum, "in [0, 1)")
        self.nesterov = bool(nesterov)
        self.weight_decay = number("weight_decay", weight_decay, "finite and >= 0")
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov: expected a momentum above 0 with it, got 0.0")

    def _moment_names(self) -> tuple[str, ...]:
        return ("momentum_buffer",) if self.momentum else ()

    def _update(self, p: Array, g: Array, moments: dict[str, Array], rate: float) -> None:
        b = moments.get("momentum_buffer")
        _core.sgd_step(p, g, b, rate, self.momentum, self.nesterov, self.weight_decay)


class RMSprop(Optimizer):
    """Gradients divided by their running root mean square (Tieleman & Hinton 2012); torch.optim.RMSprop.

    d = g + weight_decay * p;  v = alpha * v + (1 - alpha) * d**2;  d = d / (sqrt(v) + eps);  with momentum
    b = momentum * b + d and d = b;  p = p - rate * d.

    Parameters
    ----------
    learning_rate : float or callable
        The rate, at least 0, or a schedule: a function of the number of steps taken, as in `rnncore.schedules`.
    alpha : float
        Of the running mean, in [0, 1).
    eps : float
        Above 0, so that a gradient that was always zero changes nothing.
    momentum : float
        In [0, 1).
    centered : bool
        Divide by the running standard deviation instead: v less the square of the running mean (Graves 2013).
    weight_decay : float
        At least 0; an L2 penalty of half this.

    Raises
    ------
    ValueError, TypeError
        If an argument is not of that kind.

    Examples
    --------
    >>> import numpy as np
    >>> import rnncore as rc
    >>> parameters = np.ones(3)
    >>> rc.RMSprop(0.01, alpha=0.75).step(parameters, np.array([1.0, 0.0, -5.0]))
    >>> parameters.round(6)
    array([0.98, 1.  , 1.02])
    """

    def __init__(
        self,
        learning_rate: Rate = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        momentum: float = 0.0,
        centered: bool = False,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(learning_rate)
        self.alpha = number("alpha", alpha, "in [0, 1)")
        self.eps = number("eps", eps, "finite and > 0")
        self.momentum = number("momentum", momentum, "in [0, 1)")
        self.centered = bool(centered)
        self.weight_decay = number("weight_decay", weight_decay, "finite and >= 0")

    def _moment_names(self) -> tuple[str, ...]:
        names = {"square_avg": True, "grad_avg": self.centered, "momentum_buffer": self.momentum}
        return tuple(name for name, kept in names.items() if kept)

    def _update(self, p: Array, g: Array, moments: dict[str, Array], rate: float) -> None:
        v, a, b = moments["square_avg"], moments.get("grad_avg"), moments.get("momentum_buffer")
        _core.rmsprop_step(p, g, v, a, b, rate, self.alpha, self.eps, self.momentum, self.weight_decay)


class Adam(Optimizer):
    """Adaptive moments (Kingma & Ba 2015); torch.optim.Adam.

    d = g + weight_decay * p;  m = beta1 * m + (1 - beta1) * d;  v = beta2 * v + (1 - beta2) * d**2;  and at step t
    p = p - rate * (m / (1 - beta1**t)) / (sqrt(v / (1 - beta2**t)) + eps).

    Parameters
    ----------
    learning_rate : float or callable
        The rate, at least 0, or a schedule: a function of the number of steps taken, as in `rnncore.schedules`.
    betas : (float, float)
        Of the running means of gradients and of their squares, in [0, 1).
    eps : float
        Above 0, so that a gradient that was always zero changes nothing.
    weight_decay : float
        At least 0; an L2 penalty of half this, as a part of the gradient. See `AdamW`.

    Raises
    ------
    ValueError, TypeError
        If an argument is not of that kind.

    Examples
    --------
    >>> import numpy as np
    >>> import rnncore as rc
    >>> layer = rc.GRU(3, 4, rng=0)
    >>> optimizer = rc.Adam(rc.schedules.Cosine(0.01, steps=100))
    >>> (y, state), pull_back = layer.vjp(np.ones((2, 5, 3), dtype=np.float32))
    >>> _ = pull_back(y - 1)  # the gradients of sum((y - 1)**2) / 2
    >>> rc.clip_norm(layer.flat_gradients, 1.0) > 1.0
    True
    >>> optimizer.step(layer.flat_parameters, layer.flat_gradients)
    >>> layer.zero_gradients()
    >>> optimizer
    Adam(learning_rate=Cosine(0.01, 100))
    """

    _decoupled = False

    def __init__(
        self,
        learning_rate: Rate = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(learning_rate)
        if not isinstance(betas, tuple | list) or len(betas) != 2:
            raise TypeError(f"betas: expected two numbers in [0, 1), got {betas!r}")
        self.betas = number("betas[0]", betas[0], "in [0, 1)"), number("betas[1]", betas[1], "in [0, 1)")
        self.eps = number("eps", eps, "finite and > 0")
        self.weight_decay = number("weight_decay", weight_decay, "finite and >= 0")

    def _moment_names(self) -> tuple[str, ...]:
        return "exp_avg", "exp_avg_sq"

    def _update(self, p: Array, g: Array, moments: dict[str, Array], rate: float) -> None:
        m, v = moments["exp_avg"], moments["exp_avg_sq"]
        beta1, beta2 = self.betas
        decay, decoupled = self.weight_decay, self._decoupled
        _core.adam_step(p, g, m, v, self.steps + 1, rate, beta1, beta2, self.eps, decay, decoupled)


class AdamW(Adam):
    """Adam with weight decay apart from the gradient (Loshchilov & Hutter 2019); torch.optim.AdamW.

    p = (1 - rate * weight_decay) * p, then the step of Adam without weight decay.

    Parameters
    ----------
    learning_rate, betas, eps
        As for `Adam`.
    weight_decay : float
        At least 0.

    Raises
    ------
    ValueError, TypeError
        If an argument is not of that kind.

    Examples
    --------
    >>> import numpy as np
    >>> import rnncore as rc
    >>> parameters = np.ones(3)
    >>> rc.AdamW(0.1, weight_decay=0.5).step(parameters, np.array([1.0, 0.0, -5.0]))
    >>> parameters.round(6)
    array([0.85, 0.95, 1.05])
    """

    _decoupled = True

    def __init__(
        self,
        learning_rate: Rate = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(learning_rate, betas, eps, weight_decay)


_CLASSES = {kind.__name__: kind for kind in (SGD, RMSprop, Adam, AdamW)}


def from_config(config: Mapping[str, Any]) -> Optimizer:
    """Return the optimiser, without its state, that its `config` described.

    Parameters
    ----------
    config : mapping
        ``{"type": name of the class, argument: value, ...}``.

    Raises
    ------
    ValueError, TypeError
        If it is no description of an optimiser of this module.

    Examples
    --------
    >>> import rnncore as rc
    >>> config = rc.Adam(rc.schedules.Step(0.01, every=100)).config()
    >>> config["learning_rate"]
    {'type': 'Step', 'rate': 0.01, 'every': 100, 'factor': 0.1}
    >>> rc.optim.from_config(config)
    Adam(learning_rate=Step(0.01, 100))
    """
    if isinstance(config, Mapping) and isinstance(config.get("learning_rate"), Mapping):
        config = {**config, "learning_rate": schedule_from_config(config["learning_rate"])}
    optimizer: Optimizer = configured("config", config, _CLASSES)
    return optimizer
