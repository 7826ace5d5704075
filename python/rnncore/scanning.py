"""Any step function over time: ragged batches, resets, either direction, and the gradients of all that.

The step is the caller's, written in NumPy with its vjp; the loop over time is here. It goes through a batch as the core
does: sorted by length, only the rows that are alive at a step, padding never read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numpy.typing import ArrayLike

from rnncore.timeloop import Batch, ScanGradients, State

__all__ = ["ScanGradients", "scan", "scan_vjp"]


def scan(
    cell: Any,
    x: Any,
    state: State = None,
    lengths: ArrayLike | None = None,
    reset_mask: ArrayLike | None = None,
    reset_state: State = None,
    *,
    reverse: bool = False,
    batch_first: bool = True,
) -> tuple[Any, State]:
    """Run a step function over time: ``y_t, state = cell.step(x_t, state)`` for t = 0, 1, 2, ...

    Rows are sorted by length, and a step gets those alone that have it: x_t (n, I) and states (n, ...), n <= N. Where
    the step computes each row by itself, a row's result is that of the row alone. It has the same bits if that is so of
    each operation, as of `functional.linear`; NumPy's ``@`` may sum in another order where n is another.

    Parameters
    ----------
    cell : object with ``step(x, state) -> (y, state)``, or such a function
        A `Recurrent`, or anything like it. x is (n, I), y (n, O), and a state is what `state` is, for n rows; all of
        one dtype. May have ``state_size``, as a `Recurrent` has, then state may be None; and ``dtype``, to which
        everything is converted then. Default: that of x. What it is given must be left unchanged.
    x : array_like, (N, T, I)
        (T, N, I) if not `batch_first`, or (T, I) for one unbatched sequence. Or a list of N arrays (T_n, I), or a
        `Packed`, which have no padding; y is the same then.
    state : array_like (N, ...) or tuple of such, optional
        Initial state; without the axis N if unbatched. Default: zeros, of the cell's ``state_size``.
    lengths : array_like of int (N,) or of bool (N, T), optional
        Valid steps of each sequence, 0 to T, or a mask that is True at valid steps, which are the first of each row.
        Default: T for all.
    reset_mask : array_like of bool, (N, T), optional
        Laid out like the steps of x. True where a new episode starts: the sequence is cut before that step, and the
        pieces run side by side.
    reset_state : optional
        State after a reset: like `state`, or without the axis N for one of all sequences. Default: zeros.
    reverse : bool
        Read each sequence from its own last step to its first; the final state is the one after the first.
    batch_first : bool
        Whether x and y are (N, T, ...) or (T, N, ...).

    Returns
    -------
    y : ndarray, (N, T, O)
        Laid out like x; zero at padded steps. A list or a `Packed` if x is one.
    state
        Each sequence's state after its last valid step, in the form of `state`: the initial state where there is none.

    Raises
    ------
    ValueError, TypeError
        If an argument has the wrong shape, value or type, or the step returns something else than it should; the
        message names it.

    See Also
    --------
    rnncore.Recurrent : The layer made of such a cell, for models, training and streams.

    Examples
    --------
    A leaky sum, over two sequences of three steps and of one:

    >>> import numpy as np
    >>> import rnncore as rc
    >>> def step(x, s):
    ...     s = 0.5 * s + x
    ...     return s, s
    >>> y, s = rc.scan(step, np.ones((2, 3, 1)), np.zeros((2, 1)), lengths=[3, 1])
    >>> y[..., 0]
    array([[1.  , 1.5 , 1.75],
           [1.  , 0.  , 0.  ]])
    >>> s
    array([[1.75],
           [1.  ]])
    """
    batch = Batch(cell, x, state, lengths, reset_mask, reset_state, reverse, batch_first)
    return batch.forward(getattr(cell, "step", cell), None)


def scan_vjp(
    cell: Any,
    x: Any,
    state: State = None,
    lengths: ArrayLike | None = None,
    reset_mask: ArrayLike | None = None,
    reset_state: State = None,
    *,
    reverse: bool = False,
    batch_first: bool = True,
) -> tuple[tuple[Any, State], Callable[..., ScanGradients]]:
    """Run `scan` and return, with its output, the function that pulls gradients back through all steps.

    Parameters
    ----------
    cell : object with ``step_vjp(x, state) -> ((y, state), pull_back)``, or such a function
        ``pull_back(dy, dstate)`` takes the gradients of a scalar loss with respect to y and the new state of one step,
        arrays always, and returns those of x and of the old state, ``(dx, dstate)``, or of its parameters too, a
        mapping of arrays by name, ``(dx, dstate, dparameters)``. If the cell has a mapping ``parameters``, there must
        be gradients of just these names and shapes. Each is called once in each pull-back through all.
    x, state, lengths, reset_mask, reset_state, reverse, batch_first
        As for `scan`. Leave the parameters unchanged until the last pull-back.

    Returns
    -------
    output : (y, state)
        As of `scan`.
    pull_back : callable
        ``pull_back(dy=None, dstate=None)`` takes the gradients with respect to y and the final state, None for zeros,
        and returns those of the arguments as `ScanGradients`: ``x``, ``state``, ``parameters`` (summed over all steps)
        and ``reset_state``. May be called several times.

    Raises
    ------
    ValueError, TypeError
        As of `scan`.

    See Also
    --------
    rnncore.testing.check_cell : Checks the vjp of a step.

    Examples
    --------
    >>> import numpy as np
    >>> import rnncore as rc
    >>> decay = np.array([0.5])
    >>> def step_vjp(x, s):
    ...     new = decay * s + x
    ...     return (new, new), lambda dy, ds: (dy + ds, decay * (dy + ds), {"decay": ((dy + ds) * s).sum(axis=0)})
    >>> (y, s), pull_back = rc.scan_vjp(step_vjp, np.ones((1, 3, 1)), np.zeros((1, 1)))
    >>> gradients = pull_back(dstate=np.ones((1, 1)))
    >>> gradients.x[..., 0], gradients.parameters
    (array([[0.25, 0.5 , 1.  ]]), {'decay': array([2.])})
    """
    batch = Batch(cell, x, state, lengths, reset_mask, reset_state, reverse, batch_first)
    pull_backs: list[Callable[..., Any]] = []
    output = batch.forward(getattr(cell, "step_vjp", cell), pull_backs)

    def pull_back(dy: Any = None, dstate: State = None) -> ScanGradients:
        return batch.backward(pull_backs, dy, dstate)

    return output, pull_back
