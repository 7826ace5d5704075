"""Threads and instruction sets: what the core may use, and what it found.

Environment variables, read once: ``RNNCORE_NUM_THREADS``, else ``OMP_NUM_THREADS``, sets the number of threads;
``RNNCORE_ISA`` forces an instruction set, and importing rnncore fails if this CPU cannot run it.
"""

import operator

import numpy as np

from rnncore import _core

__all__ = ["available_isas", "get_num_threads", "set_num_threads", "show_config", "use_isa"]


def get_num_threads() -> int:
    """Return the number of threads that a call may use.

    Initially ``RNNCORE_NUM_THREADS``, else ``OMP_NUM_THREADS``, else the CPUs this process may run on.

    Examples
    --------
    >>> import rnncore as rc
    >>> rc.get_num_threads() >= 1
    True
    """
    return _core.num_threads()


def set_num_threads(n: int) -> None:
    """Set the number of threads that a call may use, for the whole process.

    Results do not depend on it, to the last bit. Small calls stay on the caller's thread whatever it is.

    Parameters
    ----------
    n : int
        At least 1.

    Raises
    ------
    ValueError
        If n is less than 1.
    TypeError
        If n is no integer.

    Examples
    --------
    >>> import rnncore as rc
    >>> before = rc.get_num_threads()
    >>> rc.set_num_threads(1)
    >>> rc.get_num_threads()
    1
    >>> rc.set_num_threads(before)
    """
    try:
        number = operator.index(n)
    except TypeError:
        raise TypeError(f"n: expected an integer, got {type(n).__name__}") from None
    if not 1 <= number <= 4096:
        raise ValueError(f"n: expected 1 to 4096 threads, got {number}")
    _core.set_num_threads(number)


def available_isas() -> list[str]:
    """Return the names of the instruction sets that this CPU can run, best first.

    Examples
    --------
    >>> import rnncore as rc
    >>> rc.available_isas()[-1] in ("baseline", "neon")
    True
    """
    return _core.available_isas()


def use_isa(name: str) -> None:
    """Run with the kernels of one instruction set from now on, in the whole process.

    Results on different instruction sets differ in rounding. Pull-backs (`vjp`) made before keep the kernels they
    were made with.

    Parameters
    ----------
    name : str
        One of `available_isas()`.

    Raises
    ------
    ValueError
        If the name is unknown or this CPU cannot run it.

    Examples
    --------
    >>> import rnncore as rc
    >>> rc.use_isa(rc.available_isas()[0])
    """
    _core.use_isa(name)


def show_config() -> None:
    """Print the version, instruction sets, threads and compiler: what a report of a problem should contain.

    Examples
    --------
    >>> import rnncore as rc
    >>> rc.show_config()  # doctest: +ELLIPSIS
    rnncore ...
    """
    from rnncore import __version__

    isas = ", ".join(f"{isa} (in use)" if isa == _core.active_isa() else isa for isa in available_isas())
    print(f"rnncore {__version__}, numpy {np.__version__}")
    print(f"instruction sets: {isas}")
    print(f"threads: {get_num_threads()}")
    print(f"compiler: {_core.compiler()}")
