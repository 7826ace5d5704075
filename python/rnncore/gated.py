"""Recurrent layers whose cells multiply h by a matrix: RNN, LSTM, GRU and MGU with options, and SLSTM.

`recurrent` has what they share with other layers; `functional` says the equations of the plain cells.
"""

from __future__ import annotations  # np.random in annotations would import it

from typing import Any, Unpack

from rnncore import constructors
from rnncore._arguments import number
from rnncore._core import Cell, Spec
from rnncore.constructors import SharedWithOptions
from rnncore.layer import Array, _size
from rnncore.masks import keep_mask
from rnncore.options import Curve, Options, bound, curve, of_feed_forward, zoneout_probabilities
from rnncore.recurrent import _Recurrent, _WithoutOptions

__all__ = ["GRU", "LSTM", "MGU", "RNN", "SLSTM"]

_ACTIVATIONS = """    activation : str or tuple
        In the place of tanh: "identity", "tanh", "sigmoid", "relu", "hard_sigmoid", "hard_sigmoid_keras3", "softsign",
        "affine", "leaky_relu", "thresholded_relu", "scaled_tanh", "elu" or "softplus"; where it has parameters, also
        ``(name, alpha)`` or ``(name, alpha, beta)``. docs/cells.md has the formulas. Default: "tanh".
    recurrent_activation : str or tuple
        In the place of the sigmoid of gates. Default: "sigmoid".
"""
_OPTIONS = """    layer_norm : bool
        Normalise what goes into each gate over its H units (Ba et al. 2016), with gains ``weight_norm_l0`` and shifts
        ``bias_norm_l0``, (G*H,) each. Default: False.
    gate_clip : float, optional
        Bound of what goes into a gate, +-`gate_clip`: the attribute clip of ONNX. Default: none.
"""
_DEPTH = """    transition_depth : int
        How many transitions a step has: the cell's own step again, without an input, on what the one before made of the
        states (Pascanu et al. 2014; of GRU, Miceli Barone et al. 2017), each with weights of its own,
        ``weight_transition2_l0`` (G*H, H) and ``bias_transition2_l0`` (G*H,) in the place of those with hh, and vectors
        of its own, as ``weight_norm_transition2_l0``. Up to 8, or 4 where a transition has two products, as in MGU and
        GRU with `reset_after` False. Default: 1.
    shortcut : bool
        Whether the last transition sees h as it was before the step: its input is ``weight_shortcut_l0`` h, (G*H, H).
        Needs two transitions. Default: False.
    input_depth : int
        Layers between x and the gates, W among them: input_depth - 1 feed-forward layers of H units before it, in every
        layer and direction (Pascanu et al. 2014), ``weight_input1_l0`` (H, I), ``weight_input2_l0`` (H, H), ... and
        ``bias_input1_l0`` (H,), .... ``weight_ih_l0`` is (G*H, H) then. Their activation is that in the place of tanh,
        which must be "identity", "tanh", "sigmoid" or "relu". Default: 1.
    output_depth : int
        Likewise output_depth - 1 feed-forward layers make y of h, which remains the state: ``weight_output1_l0`` and
        so on, as square as h is wide, and ``bias_output1_l0``. Default: 1.
"""
_MOST_PRODUCTS = 8  # of the transitions of a step
_ZONEOUT = """    zoneout : float
        Probability from 0 to 1 with which a unit keeps its state at a step (Krueger et al. 2017): drawn in `vjp`;
        a call mixes the old and the new state in these proportions. Default: 0.
"""


class _Gated(_Recurrent):
    """What the layers here share: options that the core runs row by row, where there are any."""

    _row_cell: Cell  # the cell that takes options
    _products = 1  # of one transition
    _activation_name = "activation"  # of the argument

    def _set_options(
        self,
        *,
        activation: Curve,
        recurrent_activation: Curve = "sigmoid",
        layer_norm: bool,
        gate_clip: float | None,
        zoneout: float | tuple[float, float],
        transition_depth: int,
        shortcut: bool,
        input_depth: int,
        output_depth: int,
        **more: Any,
    ) -> None:
        """Check the options and keep them, before the parameters are made. `more` are those of one cell alone."""
        self.activation, act = curve(self._activation_name, activation)
        self.recurrent_activation, gate = curve("recurrent_activation", recurrent_activation)
        self.layer_norm = bool(layer_norm)
        self.gate_clip = bound("gate_clip", gate_clip)
        self.zoneout, probabilities = zoneout_probabilities(zoneout, self._states)
        self.transition_depth = _size("transition_depth", transition_depth)
        self.shortcut = bool(shortcut)
        self.input_depth = _size("input_depth", input_depth)
        self.output_depth = _size("output_depth", output_depth)
        depths = {"input_depth": self.input_depth, "output_depth": self.output_depth}
        self._of_feed_forward = of_feed_forward(depths, self._activation_name, self.activation)
        most = _MOST_PRODUCTS // self._products
        if self.transition_depth > most:
            raise ValueError(f"transition_depth: expected at most {most} of this cell, got {transition_depth}")
        if self.shortcut and self.transition_depth == 1:
            raise ValueError("shortcut: expected False where transition_depth is 1, got True")
        self._options = Options(
            act,
            gate,
            layer_norm=self.layer_norm,
            gate_clip=self.gate_clip,
            zoneout=probabilities,
            depth=self.transition_depth,
            shortcut=self.shortcut,
            **more,
        )

    def _spec(self, training: bool = False) -> Spec | Cell:
        return (
            super()._spec(training)
            if self._cell != self._row_cell  # a copy has an equal one
            else self._options.spec(self._cell, training, self.skip)
        )

    def _plain_cell(self) -> Cell | None:
        """Return the cell without options that computes the same, if there is one and there are no options."""
        return None

    def _choose_cell(self) -> None:
        plain = self._plain_cell()
        if plain is None or self.recurrent_dropout or self._options != Options(self._options.activation):
            self._cell, self._plain = self._row_cell, False
        else:
            self._cell = plain

    @property
    def _transitions(self) -> range:
        """Numbers of the transitions of a step after the first."""
        return range(2, self.transition_depth + 1)

    def _matrix_shapes(self, I: int) -> dict[str, tuple[int, ...]]:
        GH, H = self._gates * self.hidden_size, self.hidden_size
        shapes = super()._matrix_shapes(I)
        shapes |= {f"weight_transition{k}": (GH, H) for k in self._transitions}
        if self.shortcut:
            shapes["weight_shortcut"] = (GH, H)
        return shapes | {f"bias_transition{k}": (GH,) for k in self._transitions}

    def _vector_shapes(self) -> dict[str, tuple[int, ...]]:
        first = self._vectors_of_transition()
        more = {f"{name}_transition{k}": shape for k in self._transitions for name, shape in first.items()}
        return first | more

    def _vectors_of_transition(self) -> dict[str, tuple[int, ...]]:
        if not self.layer_norm:
            return {}
        GH = self._gates * self.hidden_size
        return {"weight_norm": (GH,), "bias_norm": (GH,)}

    def _masks(self, N: int, steps: tuple[int, ...]) -> tuple[Array | None, Array | None, Array | None]:
        recurrent = self._recurrent_mask(N)
        taken = [
            keep_mask(self.rng, p, (*steps, size), self.dtype) if p > 0 else None
            for p, size in zip(self._options.zoneout, self._state_sizes, strict=False)
        ]
        return taken[0], taken[1] if len(taken) > 1 else None, recurrent


class RNN(_Gated):
    """Simple recurrent layers (Elman 1990) on x (N, T, I): batch_first=True is the default, unlike in torch.

    h_t = act(W x_t + b_ih + U h_{t-1} + b_hh). The keyword `nonlinearity`, "tanh" (default), "relu" or another one, is
    act. With a `leak` the layer is leaky: h_t = (1 - leak) h_{t-1} + leak act(...), a continuous-time network in steps
    of `leak` time constants.

    Examples
    --------
    >>> import numpy as np
    >>> import rnncore as rc
    >>> layer = rc.RNN(3, 8, nonlinearity="relu", rng=0)
    >>> y, h_n = layer(np.ones((2, 5, 3)))
    >>> y.shape, h_n.shape
    ((2, 5, 8), (1, 2, 8))
    >>> rc.RNN(3, 8, leak=0.1, layer_norm=True)
    RNN(3, 8, leak=0.1, layer_norm=True)
    """

    _gates = 1
    _row_cell = Cell.rnn_rows
    _activation_name = "nonlinearity"
    _models_doc = constructors.MODELS
    _options_doc = (
        _ACTIVATIONS[: _ACTIVATIONS.index("    recurrent_activation")].replace("activation :", "nonlinearity :")
        + """    leak : float
        Share of the new state at a step, in (0, 1]. Default: 1.
"""
        + _OPTIONS
        + _DEPTH
        + _ZONEOUT
    )

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = True,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        nonlinearity: Curve = "tanh",
        leak: float = 1.0,
        layer_norm: bool = False,
        gate_clip: float | None = None,
        zoneout: float = 0.0,
        transition_depth: int = 1,
        shortcut: bool = False,
        input_depth: int = 1,
        output_depth: int = 1,
        **shared: Unpack[SharedWithOptions],
    ) -> None:
        self.leak = number("leak", leak, "in (0, 1]")
        self._set_options(
            activation=nonlinearity,
            layer_norm=layer_norm,
            gate_clip=gate_clip,
            zoneout=zoneout,
            transition_depth=transition_depth,
            shortcut=shortcut,
            input_depth=input_depth,
            output_depth=output_depth,
            leak=self.leak,
        )
        super().__init__(input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, **shared)

    @property
    def nonlinearity(self) -> Curve:
        """The activation."""
        return self.activation

    def _plain_cell(self) -> Cell | None:
        plain: dict[Curve, Cell] = {"tanh": Cell.rnn_tanh, "relu": Cell.rnn_relu}
        return plain.get(self.nonlinearity)


class GateOptions(SharedWithOptions, total=False):
    """Keywords of the layers whose cells have gates beside a candidate."""

    activation: Curve
    recurrent_activation: Curve
    layer_norm: bool
    gate_clip: float | None
    transition_depth: int
    shortcut: bool
    input_depth: int
    output_depth: int


class _SeveralGates(_Gated):
    """What LSTM, GRU and MGU share."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = True,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        activation: Curve = "tanh",
        recurrent_activation: Curve = "sigmoid",
        layer_norm: bool = False,
        gate_clip: float | None = None,
        zoneout: float | tuple[float, float] = 0.0,
        transition_depth: int = 1,
        shortcut: bool = False,
        input_depth: int = 1,
        output_depth: int = 1,
        **shared: Unpack[SharedWithOptions],
    ) -> None:
        self._set_options(
            activation=activation,
            recurrent_activation=recurrent_activation,
            layer_norm=layer_norm,
            gate_clip=gate_clip,
            zoneout=zoneout,
            transition_depth=transition_depth,
            shortcut=shortcut,
            input_depth=input_depth,
            output_depth=output_depth,
            **self._own_options(),
        )
        super().__init__(input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, **shared)

    def _own_options(self) -> dict[str, Any]:
        """Return the options that no other cell has."""
        return {}


class LSTM(_SeveralGates):
    """Long short-term memory layers on x (N, T, I): batch_first=True is the default, unlike in torch.

    Hochreiter & Schmidhuber 1997, with a forget gate; gates in the order i, f, g, o. The state is a tuple (h, c). For
    the equations see `rnncore.functional.lstm`.

    Examples
    --------
    >>> import numpy as np
    >>> import rnncore as rc
    >>> layer = rc.LSTM(3, 8, num_layers=2, bidirectional=True, rng=0)
    >>> layer
    LSTM(3, 8, num_layers=2, bidirectional=True)
    >>> x = np.ones((2, 5, 3), dtype=np.float32)
    >>> y, (h_n, c_n) = layer(x)
    >>> y.shape, h_n.shape
    ((2, 5, 16), (4, 2, 8))
    >>> (y, state), pull_back = layer.vjp(x)
    >>> dx, (dh_0, dc_0) = pull_back(2 * y)  # the gradients of sum(y**2)
    >>> layer.flat_parameters -= 0.1 * layer.flat_gradients  # one step of gradient descent
    >>> projected = rc.LSTM(3, 8, proj_size=4, peephole=True, layer_norm=True, rng=0)
    >>> y, (h_n, c_n) = projected(x)
    >>> y.shape, h_n.shape, c_n.shape
    ((2, 5, 4), (1, 2, 4), (1, 2, 8))
    """

    _state_names = ("h", "c")
    _models_doc = constructors.MODELS
    _options_doc = (
        """    proj_size : int
        P, for h mapped down to P numbers by ``weight_hr_l0`` (P, H) (Sak et al. 2014), as in torch. Default: 0, none.
    peephole : bool
        Whether gates see the cell state, by ``weight_peephole_l0`` (3*H,) of i, f, o (Gers et al. 2002).
        Default: False.
    coupled_gates : bool
        Forget what is not kept for the input, f = 1 - i: three gates, i, g, o, in all arrays, and two peepholes, of i
        and o (Greff et al. 2017). Default: False.
    cell_clip : float, optional
        Bound of the cell state, +-`cell_clip`. Default: none.
"""
        + _ACTIVATIONS
        + _OPTIONS.replace(
            "(G*H,) each. Default",
            "(G*H,) each, and the cell state where h is made of it:\n        ``weight_norm_c_l0`` and"
            " ``bias_norm_c_l0``, (H,). Default",
        )
        + _DEPTH
        + _ZONEOUT.replace("float\n", "float or (float, float)\n").replace(
            "Default: 0.", "Or two, of h\n        and of c. Default: 0."
        )
    )

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = True,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        proj_size: int = 0,
        peephole: bool = False,
        coupled_gates: bool = False,
        cell_clip: float | None = None,
        zoneout: float | tuple[float, float] = 0.0,
        **options: Unpack[GateOptions],
    ) -> None:
        self.proj_size = _size("proj_size", proj_size, 0)
        if self.proj_size >= _size("hidden_size", hidden_size):
            raise ValueError(f"proj_size: expected less than hidden_size = {hidden_size}, got {proj_size}")
        self.peephole = bool(peephole)
        self.coupled_gates = bool(coupled_gates)
        self.cell_clip = bound("cell_clip", cell_clip)
        self._gates = 3 if self.coupled_gates else 4
        self._row_cell = Cell.lstm_coupled if self.coupled_gates else Cell.lstm_rows
        super().__init__(
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            zoneout=zoneout,
            **options,
        )

    def _set_options(self, **options: Any) -> None:
        super()._set_options(**options)
        if self.proj_size and self.transition_depth > 1:
            raise ValueError(
                f"proj_size: expected 0 where transition_depth is {self.transition_depth}, since transitions are from H"
                f" numbers to H, got {self.proj_size}"
            )

    def _own_options(self) -> dict[str, Any]:
        return {"peephole": self.peephole, "cell_clip": self.cell_clip}

    def _plain_cell(self) -> Cell | None:
        return Cell.lstm if self.activation == "tanh" and not self.coupled_gates and not self.proj_size else None

    @property
    def _output_width(self) -> int:
        return self.proj_size or self.hidden_size

    def _matrix_shapes(self, I: int) -> dict[str, tuple[int, ...]]:
        projection = {"weight_hr": (self.proj_size, self.hidden_size)} if self.proj_size else {}
        return super()._matrix_shapes(I) | projection

    def _vectors_of_transition(self) -> dict[str, tuple[int, ...]]:
        H = self.hidden_size
        shapes: dict[str, tuple[int, ...]] = {}
        if self.peephole:
            shapes["weight_peephole"] = ((self._gates - 1) * H,)
        shapes |= super()._vectors_of_transition()
        if self.layer_norm:
            shapes |= {"weight_norm_c": (H,), "bias_norm_c": (H,)}
        return shapes


class GRU(_SeveralGates):
    """Layers of gated recurrent units on x (N, T, I): batch_first=True is the default, unlike in torch.

    Cho et al. 2014 in the reset-after form, unless `reset_after` is False; gates in the order r, z, n. For the
    equations see `rnncore.functional.gru`.

    Examples
    --------
    >>> import numpy as np
    >>> import rnncore as rc
    >>> layer = rc.GRU(3, 8, rng=0)
    >>> sorted(layer.parameters)
    ['bias_hh_l0', 'bias_ih_l0', 'weight_hh_l0', 'weight_ih_l0']
    >>> y, h_n = layer(np.ones((2, 5, 3)), lengths=[5, 0])
    >>> y[1].any()
    np.False_
    """

    _gates = 3
    _models_doc = constructors.MODELS
    _options_doc = (
        """    reset_after : bool
        Whether the reset gate scales the product of the candidate, U_n h + b_hn, as in torch, or h before it, as in the
        paper and in Keras with reset_after=False: U_n (r h) + b_hn. Default: True.
"""
        + _ACTIVATIONS
        + _OPTIONS
        + _DEPTH
        + _ZONEOUT
    )

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = True,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        reset_after: bool = True,
        zoneout: float = 0.0,
        **options: Unpack[GateOptions],
    ) -> None:
        self.reset_after = bool(reset_after)
        self._row_cell = Cell.gru_rows if self.reset_after else Cell.gru_before
        self._products = 1 if self.reset_after else 2
        super().__init__(
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            zoneout=zoneout,
            **options,
        )

    def _plain_cell(self) -> Cell | None:
        return Cell.gru if self.activation == "tanh" and self.reset_after else None


class MGU(_SeveralGates):
    """Layers of minimal gated units (Zhou et al. 2016) on x (N, T, I): a GRU with one gate.

    f = sigmoid(W_f x + b_if + U_f h + b_hf), n = tanh(W_n x + b_in + U_n (f h) + b_hn), h' = (1 - f) h + f n; gates in
    the order f, n.

    Examples
    --------
    >>> import numpy as np
    >>> import rnncore as rc
    >>> layer = rc.MGU(3, 8, rng=0)
    >>> y, h_n = layer(np.ones((2, 5, 3)))
    >>> y.shape, layer.parameters["weight_hh_l0"].shape
    ((2, 5, 8), (16, 8))
    """

    _gates = 2
    _row_cell = Cell.mgu
    _products = 2
    _options_doc = _ACTIVATIONS + _OPTIONS + _DEPTH + _ZONEOUT


class SLSTM(_WithoutOptions):
    """Layers of sLSTM, of xLSTM (Beck et al. 2024), on x (N, T, I): LSTM with exponential input gates.

    ::

        k = log sigmoid(a_f) + m    m' = max(k, a_i), and a_i where n = 0    i = e^(a_i - m')    f = e^(k - m')
        c' = f c + i tanh(a_g)      n' = f n + i                             h' = sigmoid(a_o) c' / n'

    with a = W x + b_ih + U h + b_hh, gates in the order i, f, g, o. The state is a tuple (h, c, n, m); zeros are an
    empty one. U is dense: one head.

    Examples
    --------
    >>> import numpy as np
    >>> import rnncore as rc
    >>> y, (h_n, c_n, n_n, m_n) = rc.SLSTM(3, 8, rng=0)(np.ones((2, 5, 3)))
    >>> y.shape, n_n.shape
    ((2, 5, 8), (1, 2, 8))
    """

    _gates = 4
    _state_names = ("h", "c", "n", "m")
    _cell = Cell.slstm
