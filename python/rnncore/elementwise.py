"""Recurrent layers without a recurrent matrix: every unit of the state goes its own way, so that a step is cheap.

The products with the input are made for many steps at a time, and one scan runs through them. Where a unit's new state
is an affine map of the old one (all here but `IndRNN` and `SRU`), the recurrence is linear.
"""

from __future__ import annotations  # np.random in annotations would import it

from typing import Unpack

import numpy as np

from rnncore._arguments import number
from rnncore._core import Cell
from rnncore.constructors import Shared
from rnncore.layer import Array
from rnncore.recurrent import _WithoutOptions

__all__ = ["LRU", "QRNN", "SRU", "IndRNN", "MinGRU", "MinLSTM"]


class _Elementwise(_WithoutOptions):
    """What the layers here share: no matrix but that of the input, and one bias."""

    def _matrix_shapes(self, I: int) -> dict[str, tuple[int, ...]]:
        GH = self._gates * self.hidden_size
        return {"weight_ih": (GH, I), "bias_ih": (GH,)}


class IndRNN(_Elementwise):
    """Independently recurrent layers (Li et al. 2018) on x (N, T, I): each unit sees its own state alone.

    h' = act(W x + b_ih + u h), u = ``weight_hh_l0`` (H,), which begins uniform in [0, 1). The keyword `nonlinearity`,
    "relu" (default) or "tanh", is act.

    Examples
    --------
    >>> import numpy as np
    >>> import rnncore as rc
    >>> layer = rc.IndRNN(3, 8, rng=0)
    >>> y, h_n = layer(np.ones((2, 5, 3)))
    >>> y.shape, layer.parameters["weight_hh_l0"].shape
    ((2, 5, 8), (8,))
    """

    _gates = 1

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
        nonlinearity: str = "relu",
        **shared: Unpack[Shared],
    ) -> None:
        cells = {"relu": Cell.ind_rnn_relu, "tanh": Cell.ind_rnn_tanh}
        if not isinstance(nonlinearity, str) or nonlinearity not in cells:
            raise ValueError(f"nonlinearity: expected 'relu' or 'tanh', got {nonlinearity!r}")
        self.nonlinearity = nonlinearity
        self._cell = cells[nonlinearity]
        super().__init__(input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, **shared)

    def _vector_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"weight_hh": (self.hidden_size,)}

    def _initialise(self) -> None:
        super()._initialise()
        for _, suffix, _ in self._passes():
            u = self.parameters["weight_hh" + suffix]
            u[...] = self.rng.random(u.shape)


class MinGRU(_Elementwise):
    """Layers of minGRU (Feng et al. 2024) on x (N, T, I): a GRU whose gate and candidate do not see the state.

    z = sigmoid(W_z x + b_z), h' = (1 - z) h + z (W_n x + b_n); gates in the order z, n.

    Examples
    --------
    >>> import numpy as np
    >>> import rnncore as rc
    >>> y, h_n = rc.MinGRU(3, 8, num_layers=2, rng=0)(np.ones((2, 5, 3)))
    >>> y.shape, h_n.shape
    ((2, 5, 8), (2, 2, 8))
    """

    _gates = 2
    _cell = Cell.min_gru


class MinLSTM(_Elementwise):
    """Layers of minLSTM (Feng et al. 2024) on x (N, T, I): two gates, normalised to a sum of one.

    f, i = sigmoid(W x + b), h' = (f h + i (W_n x + b_n)) / (f + i); gates in the order f, i, n.

    Examples
    --------
    >>> import numpy as np
    >>> import rnncore as rc
    >>> y, h_n = rc.MinLSTM(3, 8, rng=0)(np.ones((2, 5, 3)))
    >>> y.shape
    (2, 5, 8)
    """

    _gates = 3
    _cell = Cell.min_lstm


class SRU(_Elementwise):
    """Layers of simple recurrent units (Lei et al. 2018) on x (N, T, I): gates see their unit's state alone.

    ::

        f = sigmoid(W_f x + b_f + v_f c)      r = sigmoid(W_r x + b_r + v_r c)
        c' = f c + (1 - f) W_n x              y = r c' + (1 - r) s

    s is x itself where I = H, and W_s x otherwise. Gates are in the order n, f, r, and s if it is one; ``weight_hh_l0``
    (2*H,) is v_f, v_r. The state is c.

    Examples
    --------
    >>> import numpy as np
    >>> import rnncore as rc
    >>> layer = rc.SRU(3, 8, num_layers=2, rng=0)
    >>> y, c_n = layer(np.ones((2, 5, 3)))
    >>> layer.parameters["weight_ih_l0"].shape, layer.parameters["weight_ih_l1"].shape
    ((32, 3), (24, 8))
    """

    _gates = 4
    _state_names = ("c",)
    _cell = Cell.sru

    def _matrix_shapes(self, I: int) -> dict[str, tuple[int, ...]]:
        GH = (3 if self.hidden_size == I else 4) * self.hidden_size
        return {"weight_ih": (GH, I), "bias_ih": (GH,)}

    def _vector_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"weight_hh": (2 * self.hidden_size,)}

    # The core has the fourth gate always: where x itself is the skip, W_s is the identity.

    def _core_weights(self) -> list[tuple[Array | None, ...]]:
        H = self.hidden_size
        weights: list[tuple[Array | None, ...]] = []
        for w, u, b, *rest in self._weights:
            assert w is not None
            if len(w) < 4 * H:
                w = np.concatenate([w, np.eye(H, dtype=self.dtype)])
                b = None if b is None else np.concatenate([b, np.zeros(H, self.dtype)])
            weights.append((w, u, b, *rest))
        return weights

    def _add_gradients(self, index: int, dweights: tuple[Array | None, ...]) -> None:
        dw, du, db, *rest = dweights
        total = self._weight_gradients[index][0]
        assert total is not None
        assert dw is not None
        assert db is not None
        super()._add_gradients(index, (dw[: len(total)], du, db[: len(total)], *rest))


class QRNN(_Elementwise):
    """Quasi-recurrent layers (Bradbury et al. 2017) on x (N, T, I): fo-pooling over a window of one step.

    z = tanh(W_z x + b_z), f, o = sigmoid(W x + b), c' = f c + (1 - f) z, y = o c'; gates in the order z, f, o. The
    state is c. For a convolution over k steps, put the k - 1 steps before each beside it in x.

    Examples
    --------
    >>> import numpy as np
    >>> import rnncore as rc
    >>> y, c_n = rc.QRNN(3, 8, rng=0)(np.ones((2, 5, 3)))
    >>> y.shape
    (2, 5, 8)
    """

    _gates = 3
    _state_names = ("c",)
    _cell = Cell.qrnn


class LRU(_Elementwise):
    """Linear recurrent units (Orvieto et al. 2023) on x (N, T, I): a diagonal linear system.

    h' = lambda h + exp(gamma) (W x + b), lambda = exp(-exp(nu) + j exp(theta)), which is stable for any parameters. A
    complex h is 2*H real numbers, its real parts, then its imaginary parts, and so is y; with ``complex=False`` there
    is no theta, and y is (N, T, H). The matrix C of the paper is a `Linear` layer after it.

    It begins as in the paper: lambda uniform in the ring of `r_min` and `r_max` and of phases up to `max_phase`, and
    exp(gamma)^2 = 1 - abs(lambda)^2.

    Examples
    --------
    >>> import numpy as np
    >>> import rnncore as rc
    >>> model = rc.Sequential(rc.LRU(3, 8, rng=0), rc.Linear(16, 3, rng=1))
    >>> model(np.ones((2, 5, 3))).shape
    (2, 5, 3)
    """

    _options_doc = """    complex : bool
        Whether h is. Default: True.
    r_min, r_max, max_phase : float
        Of the lambda to begin with: 0 <= r_min < r_max < 1, 0 < max_phase. Default: 0, 0.99 and 2 pi.
"""

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
        complex: bool = True,
        r_min: float = 0.0,
        r_max: float = 0.99,
        max_phase: float = 6.283185307179586,
        **shared: Unpack[Shared],
    ) -> None:
        self.complex = bool(complex)
        self.r_min, self.r_max = number("r_min", r_min, "in [0, 1)"), number("r_max", r_max, "in (0, 1)")
        self.max_phase = number("max_phase", max_phase, "finite and > 0")
        if self.r_min >= self.r_max:
            raise ValueError(f"r_min: expected less than r_max = {r_max}, got {r_min}")
        self._gates = 2 if self.complex else 1
        self._cell = Cell.lru_complex if self.complex else Cell.lru
        super().__init__(input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, **shared)

    @property
    def _output_width(self) -> int:
        return self._gates * self.hidden_size

    def _vector_shapes(self) -> dict[str, tuple[int, ...]]:
        names = ("nu", "theta", "gamma") if self.complex else ("nu", "gamma")
        return {name: (self.hidden_size,) for name in names}

    # The core has lambda and the scale, which are made of the parameters in float64.

    def _diagonal(self, suffix: str) -> tuple[Array, Array, Array]:
        """Return lambda, complex or not, exp(nu) and the scale."""
        nu, gamma = (self.parameters[name + suffix].astype(np.float64) for name in ("nu", "gamma"))
        rate = np.exp(nu)
        log = -rate + 1j * np.exp(self.parameters["theta" + suffix].astype(np.float64)) if self.complex else -rate
        return np.exp(log), rate, np.exp(gamma)

    def _core_weights(self) -> list[tuple[Array | None, ...]]:
        weights: list[tuple[Array | None, ...]] = []
        for (*arrays, _), (_, suffix, _) in zip(self._weights, self._passes(), strict=True):
            eigenvalue, _, scale = self._diagonal(suffix)
            parts = [eigenvalue.real, eigenvalue.imag, scale] if self.complex else [eigenvalue, scale]
            weights.append((*arrays, np.concatenate(parts).astype(self.dtype)))
        return weights

    def _add_gradients(self, index: int, dweights: tuple[Array | None, ...]) -> None:
        *of_arrays, dvectors = dweights
        assert dvectors is not None
        suffix = self._passes()[index][1]
        eigenvalue, rate, scale = self._diagonal(suffix)
        # lambda = e^l with l = -e^nu + j e^theta: dl = conj(lambda) dlambda
        *deigenvalue, dscale = np.split(dvectors.astype(np.float64), 2 + self.complex)
        dlog = np.conj(eigenvalue) * (deigenvalue[0] + 1j * deigenvalue[1] if self.complex else deigenvalue[0])
        own = [-dlog.real * rate, dscale * scale]
        if self.complex:
            own.insert(1, dlog.imag * np.exp(self.parameters["theta" + suffix].astype(np.float64)))
        super()._add_gradients(index, (*of_arrays, np.concatenate(own).astype(self.dtype)))

    def _initialise(self) -> None:
        super()._initialise()
        tiny = 1e-6
        for _, suffix, _ in self._passes():
            square = self.rng.uniform(self.r_min**2, self.r_max**2, self.hidden_size).clip(tiny)
            self.parameters["nu" + suffix][...] = np.log(-0.5 * np.log(square))
            self.parameters["gamma" + suffix][...] = 0.5 * np.log1p(-square)
            if self.complex:
                phase = self.rng.uniform(0, self.max_phase, self.hidden_size).clip(tiny)
                self.parameters["theta" + suffix][...] = np.log(phase)
