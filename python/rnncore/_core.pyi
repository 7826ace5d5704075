"""The compiled core. Strict: it converts nothing and refuses by name what does not fit."""

from typing import Any, ClassVar, overload

from numpy.typing import ArrayLike, NDArray

class Cell:
    """Which cell the time loop runs; the gate orders are torch's."""

    rnn_tanh: ClassVar[Cell]
    rnn_relu: ClassVar[Cell]
    lstm: ClassVar[Cell]
    gru: ClassVar[Cell]
    slstm: ClassVar[Cell]
    rnn_rows: ClassVar[Cell]
    lstm_rows: ClassVar[Cell]
    lstm_coupled: ClassVar[Cell]
    gru_rows: ClassVar[Cell]
    gru_before: ClassVar[Cell]
    mgu: ClassVar[Cell]
    ind_rnn_relu: ClassVar[Cell]
    ind_rnn_tanh: ClassVar[Cell]
    min_gru: ClassVar[Cell]
    min_lstm: ClassVar[Cell]
    sru: ClassVar[Cell]
    qrnn: ClassVar[Cell]
    lru: ClassVar[Cell]
    lru_complex: ClassVar[Cell]
    __members__: ClassVar[dict[str, Cell]]

    def __init__(self, value: int) -> None: ...
    def __int__(self) -> int: ...
    def __index__(self) -> int: ...
    @property
    def name(self) -> str: ...
    @property
    def value(self) -> int: ...

class Activation:
    """What follows an affine map, down to relu, or stands in the equations of a cell."""

    none: ClassVar[Activation]
    tanh: ClassVar[Activation]
    sigmoid: ClassVar[Activation]
    relu: ClassVar[Activation]
    hard_sigmoid: ClassVar[Activation]
    softsign: ClassVar[Activation]
    affine: ClassVar[Activation]
    leaky_relu: ClassVar[Activation]
    thresholded_relu: ClassVar[Activation]
    scaled_tanh: ClassVar[Activation]
    elu: ClassVar[Activation]
    softplus: ClassVar[Activation]
    __members__: ClassVar[dict[str, Activation]]

    def __init__(self, value: int) -> None: ...
    def __int__(self) -> int: ...
    def __index__(self) -> int: ...
    @property
    def name(self) -> str: ...
    @property
    def value(self) -> int: ...

class Lookup:
    """A series whose steps are rows of a table, in place of x."""

    def __init__(self, table: NDArray[Any], tokens: NDArray[Any], gradient: NDArray[Any], /) -> None:
        """Take a table (V, I), int64 tokens laid out like the rows of x, and the array that backward adds to.

        They are referred to. Tokens must not change while a call or a recording reads them; they are checked once.
        """

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the x that this stands for."""

class Score:
    dot: ClassVar[Score]
    additive: ClassVar[Score]
    location: ClassVar[Score]
    __members__: ClassVar[dict[str, Score]]

    def __init__(self, value: int) -> None: ...
    def __int__(self) -> int: ...
    def __index__(self) -> int: ...
    @property
    def name(self) -> str: ...
    @property
    def value(self) -> int: ...

class Feed:
    nothing: ClassVar[Feed]
    output: ClassVar[Feed]
    context: ClassVar[Feed]
    __members__: ClassVar[dict[str, Feed]]

    def __init__(self, value: int) -> None: ...
    def __int__(self) -> int: ...
    def __index__(self) -> int: ...
    @property
    def name(self) -> str: ...
    @property
    def value(self) -> int: ...

# y (N, T, C), weights (N, T, S), states (L, N, size), what is fed next (N, C)
_Decoded = tuple[NDArray[Any], NDArray[Any], tuple[NDArray[Any], ...], NDArray[Any] | None]

class Decoder:
    """Recurrent layers with an attention in their time loop, packed; the arrays are kept."""

    def __init__(
        self,
        spec: Spec | Cell,
        layers: list[tuple[NDArray[Any] | None, ...]],
        score: Score,
        feed: Feed,
        w_q: NDArray[Any] | None,
        v: NDArray[Any] | None,
        w_c: NDArray[Any],
        b_c: NDArray[Any],
    ) -> None: ...
    def forward(
        self,
        x: NDArray[Any],
        state: tuple[NDArray[Any] | None, ...],
        fed: NDArray[Any] | None,
        lengths: NDArray[Any] | None,
        memory: NDArray[Any],
        keys: NDArray[Any] | None,
        source_lengths: NDArray[Any],
        source: NDArray[Any] | None,
    ) -> _Decoded: ...
    def record(
        self,
        x: NDArray[Any],
        state: tuple[NDArray[Any] | None, ...],
        fed: NDArray[Any] | None,
        lengths: NDArray[Any] | None,
        memory: NDArray[Any],
        keys: NDArray[Any] | None,
        source_lengths: NDArray[Any],
    ) -> tuple[_Decoded, DecoderRecording]: ...

class DecoderRecording:
    # gradients of x, states, fed, memory, keys, w_q, v, w_c, b_c, and of the weights of each layer
    def backward(
        self, dy: NDArray[Any] | None, dstate: tuple[NDArray[Any] | None, ...], dfed: NDArray[Any] | None
    ) -> tuple[Any, ...]: ...

class Ragged:
    """Where the steps of sequences without padding lie in arrays of rows. Immutable."""

    @staticmethod
    def packed(batch_sizes: NDArray[Any], sorted_indices: NDArray[Any], /) -> Ragged:
        """Step by step: int64 sizes (T,) that do not grow, and the caller's index of each sequence, longest first."""

    @staticmethod
    def joined(lengths: NDArray[Any], /) -> Ragged:
        """One sequence after the other: int64 lengths (N,)."""

    @property
    def lengths(self) -> NDArray[Any]: ...
    @property
    def order(self) -> NDArray[Any]:
        """The index of each sequence, longest first."""

    @property
    def places(self) -> NDArray[Any]:
        """The row of each step, one sequence after the other, (R,)."""

    @property
    def rows(self) -> int: ...
    @property
    def sequences(self) -> int: ...

class Spec:
    """A cell and what a layer adds to it. A `Cell` alone will do where one is expected."""

    @overload
    def __init__(self, cell: Cell, /) -> None: ...
    @overload
    def __init__(
        self,
        cell: Cell,
        activation: tuple[Activation, float, float],
        recurrent_activation: tuple[Activation, float, float],
        peephole: bool,
        layer_norm: bool,
        gate_clip: float,
        cell_clip: float,
        take_h: float,
        take_c: float,
        skip: bool,
        depth: int,
        shortcut: bool,
        /,
    ) -> None:
        """Activations come with alpha and beta, bounds are 0 for none, and the shares of new states 1 for all.

        With `skip`, the layers of a stack but the first add what they read to their output. `depth` and `shortcut` are
        those of the transition of a step.
        """

class Recording:
    """What a forward pass kept for backward. Nothing writes to it, so backward may run often and on many threads."""

    def backward(self, dy: object, dh_n: object, dc_n: object, /) -> tuple[Any, ...] | None:
        """Return the gradients of x, w_ih, w_hh, b_ih, b_hh, of the initial states and of the states after resets.

        The states are h or h and c. Those after resets have None unless they were given, and that of x is None if x is
        a `Lookup`: what belongs to the table is added to its `gradient`.

        None if an argument would have to be converted; nothing is computed then.
        """

    def pull_back(
        self, dy: object, dstate: tuple[object, ...], /
    ) -> tuple[Any, tuple[Any, ...], tuple[Any, ...], tuple[Any, ...]] | None:
        """As `backward`, with an array for each state: gradients of x, the weights, initial states and resets' states.

        None in place of what the layer does not have.
        """

def forward(
    cell: Cell,
    x: object,
    w_ih: object,
    w_hh: object,
    b_ih: object,
    b_hh: object,
    h_0: object,
    c_0: object,
    lengths: object,
    reverse: bool,
    batch_first: bool,
    /,
) -> tuple[NDArray[Any], ...] | None:
    """Return y, h_n and, if there is one, c_n. All arrays of one dtype, C-contiguous; lengths int64.

    x may be a `Lookup`. With a `Ragged` for lengths, x and y are (R, ...), the rows it tells of. None if an argument
    would have to be converted to that, or x has no batch axis; nothing is computed then.
    """

def record(
    checkpoint_every: int,
    cell: Cell,
    x: object,
    w_ih: object,
    w_hh: object,
    b_ih: object,
    b_hh: object,
    h_0: object,
    c_0: object,
    lengths: object,
    reverse: bool,
    batch_first: bool,
    /,
) -> tuple[tuple[NDArray[Any], ...], Recording] | None:
    """As `forward`, with the recording that backward needs. It refers to the arrays: they must not change.

    It keeps all steps, or, unless `checkpoint_every` is 0, the states every so many steps.
    """

def forward_layer(
    spec: Spec | Cell,
    x: object,
    weights: tuple[object, ...],
    state: tuple[object, ...],
    lengths: object,
    reverse: bool,
    batch_first: bool,
    resets: tuple[object, tuple[object, ...]] | None,
    /,
) -> tuple[NDArray[Any], ...] | None:
    """As `forward`, of any cell: weights as in `Stack`, and an array for each state.

    resets: a mask, bool and laid out like the steps of x, that is true where states start anew, and those states.
    """

def record_layer(
    checkpoint_every: int,
    spec: Spec | Cell,
    x: object,
    weights: tuple[object, ...],
    state: tuple[object, ...],
    lengths: object,
    reverse: bool,
    batch_first: bool,
    resets: tuple[object, tuple[object, ...]] | None,
    masks: tuple[object, object, object],
    /,
) -> tuple[tuple[NDArray[Any], ...], Recording] | None:
    """As `record`, of any cell.

    masks: of what is taken of the new h and c, both laid out like y, and of h in the products, (N, P); None for ones.
    """

class Stack:
    """Layers on top of each other, each in one direction or two, with weights packed once. Thread-safe."""

    def __init__(
        self,
        spec: Spec | Cell,
        weights: list[tuple[NDArray[Any] | None, ...]],
        directions: int,
        batch_first: bool,
        /,
    ) -> None:
        """Pack the weights of every pass: layer by layer, and in each direction by direction.

        Those of a pass are a tuple (w_ih, w_hh, b_ih, b_hh) or (..., w_inner, b_inner, vectors).
        """

    def forward(self, x: object, state: object, lengths: object, /) -> tuple[NDArray[Any], Any] | None:
        """Return y and the final state: h_n, or (h_n, c_n); states (passes, N, H). x may be a `Lookup`.

        None if an argument would have to be converted or does not fit; nothing is computed then.
        """

    def forward_with_resets(
        self, x: object, state: object, lengths: object, mask: object, reset_state: object, /
    ) -> tuple[NDArray[Any], Any] | None:
        """As `forward`, with states that start anew, at `reset_state`, before the steps where the mask is true."""

class Program:
    """Stages of a model with weights packed once, for streams. Never changes."""

    def __init__(self, single: bool, stages: list[tuple[Any, ...]], /) -> None:
        """Pack stages that fit each other, in float32 if `single`, else in float64.

        A stage is one of ("embedding", table), which must come first, ("recurrent", spec, weights, initial), with
        weights of each layer as in `Stack` and None or a tuple of states (L, 1, H) that sequences begin with,
        ("linear", weight, bias, activation) and ("activation", activation).
        """

class Stream:
    """The states of a batch of sequences on their way through a program. For one thread at a time: RuntimeError."""

    @overload
    def __init__(self, program: Program, rows: int, unbatched: bool, /) -> None: ...
    @overload
    def __init__(self, other: Stream, /) -> None:
        """Copy the states, share the program."""

    @property
    def batch_size(self) -> int:
        """The number of rows."""

    @property
    def input_size(self) -> int:
        """I, the size of a row of input; of a token's vector, where tokens are taken."""

    @property
    def output_size(self) -> int:
        """O, the number of outputs of a step."""

    def step(self, x: ArrayLike, out: NDArray[Any] | None = None) -> NDArray[Any]:
        """Take the next step of every row: x (N, I) or tokens (N,) to y (N, O)."""

    def process(
        self, x: ArrayLike, out: NDArray[Any] | None = None, reset_mask: ArrayLike | None = None
    ) -> NDArray[Any]:
        """Take the next steps of every row: x (N, T, I) or tokens (N, T) to y (N, T, O)."""

    def _renew(self, program: Program, /) -> None:
        """Go on with the weights of another program of the same stages; ValueError if it is not."""

    def _attach(self) -> int: ...
    def _detach(self, row: int, /) -> None: ...
    def _reset(self, row: int, /) -> None: ...
    def _read_state(self, stage: int, begin: int, end: int, /) -> tuple[NDArray[Any], ...]:
        """Return the states of some rows of a recurrent stage, the embedding not counted, each (L, rows, H)."""

    def _write_state(self, stage: int, begin: int, end: int, parts: tuple[NDArray[Any], ...], /) -> None: ...

class Networks:
    """Many networks of one shape: layers on top of each other, each in one direction or two. Thread-safe."""

    def __init__(
        self,
        cell: Cell,
        weights: list[tuple[NDArray[Any] | None, ...]],
        directions: int,
        batch_first: bool,
        packed: bool,
        /,
    ) -> None:
        """Take (w_ih, w_hh, b_ih, b_hh) of every pass, (M, ...): contiguous but for the first axis.

        They are referred to and packed in every call; or, if `packed`, now and once.
        """

    def forward(
        self, x: object, h_0: object, c_0: object, lengths: object, reverse: bool, /
    ) -> tuple[NDArray[Any], ...]:
        """Return y, h_n and, if there is one, c_n: y (M, N, T, D*H), states (M, passes, N, H).

        x (N, T, I) or (M, N, T, I), and lengths (N,) or (M, N). `reverse` is for those of one direction alone.
        """

    def record(
        self, checkpoint_every: int, x: object, h_0: object, c_0: object, lengths: object, reverse: bool, /
    ) -> tuple[tuple[NDArray[Any], ...], NetworksRecording]:
        """As `forward`, of one pass, with the recording that backward needs."""

class NetworksRecording:
    """What a forward pass of many networks kept for backward. Nothing writes to it."""

    def backward(self, dy: object, dh_n: object, dc_n: object, /) -> tuple[NDArray[Any], ...]:
        """Return the gradients of x, w_ih, w_hh, b_ih, b_hh, h_0 and, if there is one, c_0, (M, ...).

        That of an x that all networks share is the sum over them, one after the other.
        """

class LinearNetworks:
    """Affine maps of many networks, run once: x (N, T, I) or (M, N, T, I), weight (M, O, I), bias (M, O)."""

    def __init__(self, activation: Activation, x: object, weight: object, bias: object, lengths: object, /) -> None: ...
    @property
    def y(self) -> NDArray[Any]:
        """The output, (M, N, T, O)."""

    def backward(self, dy: object, /) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Return the gradients of x, weight and bias; of a shared x as `NetworksRecording` does."""

class LinearRecording:
    """What `linear` kept for backward. Nothing writes to it, so backward may run often and on many threads."""

    def backward(self, dy: object, /) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]] | None:
        """Return the gradients of x, weight and bias; None if dy would have to be converted."""

def linear(activation: Activation, x: object, weight: object, bias: object, lengths: object, /) -> NDArray[Any] | None:
    """Return y = act(x weight' + bias). All arrays of one dtype, C-contiguous; lengths int64.

    None if an argument would have to be converted to that; nothing is computed then.
    """

def record_linear(
    activation: Activation, x: object, weight: object, bias: object, lengths: object, /
) -> tuple[NDArray[Any], LinearRecording] | None:
    """As `linear`, with the recording that backward needs. It refers to x, weight and y: they must not change."""

def sgd_step(
    parameters: NDArray[Any],
    gradients: NDArray[Any],
    momentum_buffer: NDArray[Any] | None,
    rate: float,
    momentum: float,
    nesterov: bool,
    weight_decay: float,
    /,
) -> None:
    """Step in place. Vectors of one dtype and size, contiguous, apart from each other; None for no momentum."""

def rmsprop_step(
    parameters: NDArray[Any],
    gradients: NDArray[Any],
    square_avg: NDArray[Any],
    grad_avg: NDArray[Any] | None,
    momentum_buffer: NDArray[Any] | None,
    rate: float,
    alpha: float,
    eps: float,
    momentum: float,
    weight_decay: float,
    /,
) -> None:
    """Step in place, as `sgd_step` does. `grad_avg` is None unless centered."""

def adam_step(
    parameters: NDArray[Any],
    gradients: NDArray[Any],
    exp_avg: NDArray[Any],
    exp_avg_sq: NDArray[Any],
    step: int,
    rate: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    decoupled: bool,
    /,
) -> None:
    """Step in place, as `sgd_step` does. `step` counts from 1; weight decay decoupled as in AdamW."""

def clip_norm(gradients: NDArray[Any], max_norm: float, /) -> float:
    """Scale a vector in place to a norm of `max_norm` if its own is larger and finite; return its own."""

def cross_entropy(
    outputs: object,
    targets: object,
    lengths: object,
    weights: object,
    ignored_class: int | None,
    smoothing: float,
    with_gradient: bool,
    /,
) -> tuple[float, float, Any] | None:
    """Return value, weight and, if wanted, the gradient of softmax cross-entropy.

    outputs (N, T, C) or (N, C); targets int64 classes, or probabilities of the type of outputs; lengths int64 (N,) or
    None; weights float64 (N, T) or (N,) or None. None if an argument would have to be converted to that, or outputs
    and targets have no such shape; nothing is computed then.
    """

def ctc(
    outputs: object,
    targets: object,
    target_lengths: object,
    lengths: object,
    weights: object,
    blank: int,
    zero_infinity: bool,
    with_gradient: bool,
    /,
) -> tuple[float, float, Any]:
    """Return value, weight and, if wanted, the gradient of CTC.

    outputs (N, T, C); targets int64 (N, L) and target_lengths int64 (N,); lengths int64 (N,) or None; weights float64
    (N,) or None.
    """

class Reservoir:
    """A reservoir with its weights packed. Never changes."""

    def __init__(
        self,
        w_in: NDArray[Any],
        bias: NDArray[Any] | None,
        data: NDArray[Any],
        indices: NDArray[Any],
        indptr: NDArray[Any],
        leak: float,
        /,
    ) -> None:
        """Pack w_in (H, I), bias (H,) and W, compressed by rows: float64, and int64 indices, ascending in each row."""

    @property
    def diagonals(self) -> int:
        """How many cyclic diagonals W is made of; 0 if it is not."""

    def run(
        self, x: NDArray[Any], lengths: NDArray[Any], state: NDArray[Any] | None, /
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return all states (R, H) of series one after the other, x (R, I), and their last (N, H).

        lengths (N,) int64 with the sum R; state (N, H) before the first step, None for zeros.
        """

def sigmoid(x: NDArray[Any], /) -> NDArray[Any]:
    """Return the core's sigmoid of a vector, on the instruction set in use."""

def tanh(x: NDArray[Any], /) -> NDArray[Any]:
    """Return the core's tanh of a vector, on the instruction set in use."""

def exp(x: NDArray[Any], /) -> NDArray[Any]:
    """Return the core's exponentials of a vector, on the instruction set in use."""

def log(x: NDArray[Any], /) -> NDArray[Any]:
    """Return the core's logarithms of a vector of positive numbers, on the instruction set in use."""

def cut_pass(threads: int, rows: int, weight_bytes: float, panels: int, /) -> tuple[int, int, float]:
    """Return how a pass over time is cut: slices of rows, slices of hidden units, and ns a step by the model.

    rows: of a step; weight_bytes: of U; panels: of hidden units, as many slices of units as there can be.
    """

def num_threads() -> int: ...
def set_num_threads(n: int, /) -> None: ...
def available_isas() -> list[str]: ...
def active_isa() -> str: ...
def use_isa(name: str, /) -> None: ...
def compiler() -> str: ...
def linear_scan(
    a: object, b: object, h_0: object, lengths: object, is_complex: bool, reverse: bool, chunk: int, /
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return y and h_n of h_t = a_t h_{t-1} + b_t: a (N, T, C) or (C,), b (N, T, C), h_0 (N, C) or None.

    All of one dtype, float32 or float64; complex numbers are pairs of reals, which C counts. lengths int64 (N,) or
    None; chunk 0 for none.
    """

def linear_scan_backward(
    a: object,
    y: object,
    h_0: object,
    dy: object,
    dh_n: object,
    lengths: object,
    is_complex: bool,
    reverse: bool,
    chunk: int,
    /,
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return the gradients of a, b and h_0 from the y of `linear_scan`; dy (N, T, C), dh_n (N, C) or None."""

class Forest:
    """Where the nodes of trees are, level by level. Immutable."""

    def __init__(self, sizes: NDArray[Any], parents: NDArray[Any], sides: NDArray[Any] | None, /) -> None:
        """int64: nodes of each tree (N,); of each node (R,) its parent within the tree or -1, and perhaps its side."""

    @property
    def levels(self) -> int: ...

class TreeRecording:
    """What backward needs of a call."""

    def backward(self, dy: object, dh: object, dc: object, /) -> tuple[NDArray[Any], ...]:
        """Return the gradients of x and of the six arrays of weights; those that the cell has not are empty."""

def tree(
    keep: bool,
    cell: str,
    forest: Forest,
    x: object,
    weight: object,
    bias: object,
    u: object,
    b: object,
    u_forget: object,
    b_forget: object,
    /,
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any] | None, TreeRecording | None]:
    """Return y (R, H), h and c (N, H) of the roots, and a recording if one is to be kept.

    The cells are rnn_tanh, rnn_relu, child_sum and binary; c is None where one has none. x (R, I), weight (pre, I),
    bias (pre) or None, u (product, operand), b (product): H, H and H numbers for the first two cells, 4*H, 3*H and H
    for child_sum (gates i, f, g, o, and i, g, o), 4*H, 5*H (i, f_left, f_right, g, o) and 2*H (left, right) for
    binary. u_forget (H, H) and b_forget (H) of child_sum alone.
    """
