"""The compiled core. Strict: it converts nothing and refuses by name what does not fit."""

from typing import Any, ClassVar

from numpy.typing import NDArray

class Cell:
    """Which cell the time loop runs; the gate orders are torch's."""

    rnn_tanh: ClassVar[Cell]
    rnn_relu: ClassVar[Cell]
    lstm: ClassVar[Cell]
    gru: ClassVar[Cell]
    __members__: ClassVar[dict[str, Cell]]

    def __init__(self, value: int) -> None: ...
    def __int__(self) -> int: ...
    def __index__(self) -> int: ...
    @property
    def name(self) -> str: ...
    @property
    def value(self) -> int: ...

class Recording:
    """What a forward pass kept for backward. Nothing writes to it, so backward may run often and on many threads."""

    def backward(
        self, dy: NDArray[Any] | None, dh_n: NDArray[Any] | None, dc_n: NDArray[Any] | None, /
    ) -> tuple[NDArray[Any], ...]:
        """Return the gradients of x, w_ih, w_hh, b_ih, b_hh, h_0 and, if there is one, c_0."""

def forward(
    cell: Cell,
    x: NDArray[Any],
    w_ih: NDArray[Any],
    w_hh: NDArray[Any],
    b_ih: NDArray[Any] | None,
    b_hh: NDArray[Any] | None,
    h_0: NDArray[Any] | None,
    c_0: NDArray[Any] | None,
    lengths: NDArray[Any] | None,
    reverse: bool,
    batch_first: bool,
    /,
) -> tuple[NDArray[Any], ...]:
    """Return y, h_n and, if there is one, c_n. All arrays of one dtype, C-contiguous; lengths int64."""

def record(
    cell: Cell,
    x: NDArray[Any],
    w_ih: NDArray[Any],
    w_hh: NDArray[Any],
    b_ih: NDArray[Any] | None,
    b_hh: NDArray[Any] | None,
    h_0: NDArray[Any] | None,
    c_0: NDArray[Any] | None,
    lengths: NDArray[Any] | None,
    reverse: bool,
    batch_first: bool,
    /,
) -> tuple[tuple[NDArray[Any], ...], Recording]:
    """As `forward`, with the recording that backward needs. It refers to the arrays: they must not change."""

def sigmoid(x: NDArray[Any], /) -> NDArray[Any]:
    """Return the core's sigmoid of a vector, on the instruction set in use."""

def tanh(x: NDArray[Any], /) -> NDArray[Any]:
    """Return the core's tanh of a vector, on the instruction set in use."""

def num_threads() -> int: ...
def set_num_threads(n: int, /) -> None: ...
def available_isas() -> list[str]: ...
def active_isa() -> str: ...
def use_isa(name: str, /) -> None: ...
def compiler() -> str: ...
