"""Recurrent layers of your own: a step in Python with its vjp, and all that layers do around it."""

from __future__ import annotations  # np.random in annotations would import it

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from rnncore.layer import Array, Layer, PullBack, State, _size
from rnncore.streaming import Stages, States
from rnncore.timeloop import Batch, Form

__all__ = ["Recurrent"]


class Recurrent(Layer):
    """Base of recurrent layers whose step is written in Python: to try an idea before it becomes a cell in C++.

    A subclass writes `step_vjp`, one step with the function that pulls gradients back through it, and in its
    constructor calls ``super().__init__(shapes, input_size, state_size)``. The rest is here: ragged batches, resets,
    gradients over time, models, training, files, copies and streams, as of `RNN`, `LSTM` and `GRU`.

    Take products with parameters from `rnncore.functional.linear_vjp`, which has gradients, and gives a row the same
    bits whatever other rows there are; so the layer does, too.

    Parameters
    ----------
    shapes : mapping of str to tuple of int
        Names and shapes of the parameters. With torch's names ``weight_ih``, ``weight_hh``, ``bias_ih`` and ``bias_hh``
        `rnncore.init` knows them. Each begins uniform in +-1/sqrt(H), H being the size of the first state.
    input_size : int
        I, the size of x_t.
    state_size : int, or tuple
        H, of a state (n, H). For several states a tuple, with a number for each, or a shape: ``(8, (4, 4))`` are two,
        (n, 8) and (n, 4, 4), and ``((4, 4),)`` is one. A single number makes the state an array, anything else a tuple
        of arrays.
    output_size : int, optional
        O, the size of y_t. Default: that of the first state.
    reverse : bool
        Whether each sequence is read from its end. A `Concat` of a layer and a reversed one is bidirectional.
    dtype : {float32, float64}
        Of the parameters, the computation and the results. Default: float32.
    rng : numpy.random.Generator or int, optional
        Source of the initial parameters.

    Notes
    -----
    Arguments of the constructor must be attributes of the same names: `repr` and files are made of them. To have
    `reverse`, `dtype` and `rng`, it takes ``**options`` and hands them on. `load` finds the class by its name, so it
    must have been defined.

    See Also
    --------
    rnncore.testing.check_cell : Finds errors in a step and its vjp: use it first.
    rnncore.scan : The loop over time as a function, for steps that are not layers.

    Examples
    --------
    >>> import numpy as np
    >>> import rnncore as rc
    >>> from rnncore.testing import check_cell
    >>> class Decay(rc.Recurrent):
    ...     '''h' = tanh(x + d h), with a d for each unit.'''
    ...
    ...     def __init__(self, size, **options):
    ...         self.size = size
    ...         super().__init__({"decay": (size,)}, size, size, **options)
    ...
    ...     def step_vjp(self, x, h):
    ...         d = self.parameters["decay"]
    ...         new = np.tanh(x + d * h)
    ...
    ...         def pull_back(dy, dh):
    ...             da = (dy + dh) * (1 - new * new)
    ...             return da, d * da, {"decay": (da * h).sum(axis=0)}
    ...
    ...         return (new, new), pull_back
    >>> check_cell(Decay(4, dtype="float64", rng=0))
    >>> model = rc.Sequential(Decay(4, rng=0), rc.Linear(4, 2, rng=1))
    >>> model(np.ones((3, 5, 4)), lengths=[5, 0, 2]).shape
    (3, 5, 2)
    """

    resets = True
    _in_python = True
    input_size: int
    output_size: int

    def __init__(
        self,
        shapes: Mapping[str, tuple[int, ...]],
        input_size: int,
        state_size: Any,
        output_size: int | None = None,
        *,
        reverse: bool = False,
        dtype: DTypeLike = np.float32,
        rng: np.random.Generator | int | None = None,
    ) -> None:
        super().__init__(shapes, dtype)
        self.input_size = _size("input_size", input_size)
        self.state_size = state_size
        form = Form(state_size)
        if not form.shapes:
            raise ValueError(f"state_size: expected one state or more, got {state_size!r}")
        first = math.prod(form.shapes[0])
        self.output_size = first if output_size is None else _size("output_size", output_size)
        self.reverse = bool(reverse)
        self.rng = np.random.default_rng(rng)
        bound = 1.0 / np.sqrt(max(1, first))
        self.flat_parameters[...] = self.rng.uniform(-bound, bound, self.flat_parameters.size)

    # ------------------------------------------------------------------------------------------------ the step

    def step_vjp(self, x: Array, state: State) -> tuple[tuple[Array, State], PullBack]:
        """Compute one step, with the function that pulls gradients back through it: what a subclass writes.

        Leave everything that is given unchanged.

        Parameters
        ----------
        x : ndarray, (n, I)
            Of the n rows that have this step, in the layer's dtype.
        state : ndarray (n, H), or tuple of ndarray
            In the form of `state_size`.

        Returns
        -------
        output : (y, state)
            y (n, O) and the new state, of the same dtype. They may share memory.
        pull_back : callable
            ``pull_back(dy, dstate)`` takes the gradients with respect to y and the new state, never None, and returns
            ``(dx, dstate, dparameters)``: those of x, of the old state, and of all parameters, a mapping by name.
        """
        raise NotImplementedError(f"{type(self).__name__} has no step_vjp")

    def step(self, x: Array, state: State) -> tuple[Array, State]:
        """Compute one step, in inference. A subclass may say how in less time, with the same result."""
        return self.step_vjp(x, state)[0]

    # ------------------------------------------------------------------------------------------- whole sequences

    def __call__(
        self,
        x: Any,
        state: State = None,
        lengths: ArrayLike | None = None,
        reset_mask: ArrayLike | None = None,
        reset_state: State = None,
    ) -> tuple[Any, State]:
        """Run the layer on x. Nothing is kept.

        Parameters
        ----------
        x : array_like, (N, T, input_size)
            Or (T, input_size) for one unbatched sequence, a list of N arrays (T_n, input_size), or a `Packed`.
        state : optional
            Initial state, (1, N, H) as of other layers, or (1, H) if unbatched; a tuple of several. Default: zeros.
        lengths : array_like of int (N,) or of bool (N, T), optional
            Valid steps of each sequence, 0 to T, or a mask. Default: T for all.
        reset_mask : array_like of bool, (N, T), optional
            True where a new episode starts: the sequence is cut before that step. A list or a `Packed` if x is one.
        reset_state : optional
            State after a reset: like `state`, or (1, H) for one of all sequences. Default: zeros.

        Returns
        -------
        y : ndarray, (N, T, O)
            Zero at padded steps. A list or a `Packed` if x is one.
        state : as the argument
            Each sequence's state after its last valid step.

        Raises
        ------
        ValueError, TypeError
            If an argument has the wrong shape, value or type, or the step returns something else than it should.
        """
        batch = Batch(self, x, state, lengths, reset_mask, reset_state, self.reverse, True, layers=(1,))
        return batch.forward(self.step, None)

    run = __call__

    def vjp(
        self,
        x: Any,
        state: State = None,
        lengths: ArrayLike | None = None,
        reset_mask: ArrayLike | None = None,
        reset_state: State = None,
    ) -> tuple[tuple[Any, State], PullBack]:
        """Run the layer on x for training, with the function that pulls gradients back; see `Layer.vjp`.

        Parameters are those of a call. The pull-back returns, third, the gradient of `reset_state` if that was given.
        """
        batch = Batch(self, x, state, lengths, reset_mask, reset_state, self.reverse, True, layers=(1,))
        pull_backs: list[PullBack] = []
        output = batch.forward(self.step_vjp, pull_backs)

        def pull_back(dy: Any = None, dstate: State = None) -> Any:
            gradients = batch.backward(pull_backs, dy, dstate)
            for name, gradient in gradients.parameters.items():
                self.gradients[name] += gradient
            if reset_state is None:
                return gradients.x, gradients.state
            return gradients.x, gradients.state, gradients.reset_state

        return output, pull_back

    # --------------------------------------------------------------------------------------------------- streams

    def _stream_stages(self, stages: Stages) -> States:
        if self.reverse:
            raise ValueError(f"model: expected layers of one direction, got {self!r}, which reads what is to come")
        stages.append(("python",))  # for the layers that follow: a `PythonStream` runs none of these
        return None
