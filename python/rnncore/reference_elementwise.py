"""Cells without a recurrent matrix: every unit of the state knows itself alone.

A cell is one step and its gradient next to each other; `layer` of `reference_cells` runs it. x are the inputs of
gates, ``W x_t + b_ih``.
"""

from typing import Any, ClassVar

import numpy as np

from rnncore.reference import sigmoid
from rnncore.reference_loop import Array, Masks, Parameters, Pull, Shape, State
from rnncore.reference_parts import Activation, OneCell, activation, product

__all__ = ["LRU", "QRNN", "SRU", "IndRNN", "MinGRU", "MinLSTM"]


class ElementwiseCell(OneCell):
    """A cell whose only matrix is that of the input."""

    def shapes(self, I: int, H: int, P: int) -> dict[str, Shape]:
        """Return the shape of every parameter by name."""
        return {"weight_ih": (self.gates * H, I), "bias_ih": (self.gates * H,)}


class IndRNN(ElementwiseCell):
    """The independently recurrent network of Li et al. (2018), with weight_hh (H,).

    Parameters
    ----------
    activation : str or tuple, default "relu"
        As for `rnncore.reference_parts.activation`.

    Examples
    --------
    >>> IndRNN().shapes(I=3, H=2, P=2)["weight_hh"]
    (2,)
    """

    def __init__(self, *, activation: Activation = "relu") -> None:
        self.activation = activation

    def shapes(self, I: int, H: int, P: int) -> dict[str, Shape]:
        """Return the shape of every parameter by name."""
        return super().shapes(I, H, P) | {"weight_hh": (H,)}

    def step(self, w: Parameters, x: Array, state: State, masks: Masks) -> tuple[Array, State, Pull]:
        """Return y, the new state, and the pull of the step."""
        # h' = act(x + u h)
        (h,) = state
        act, slope = activation(self.activation)
        x_gates, pull_x = product(w, "ih", x)
        h_next = act(x_gates + w["weight_hh"] * h)

        def pull(dy: Array, dstate: State, dw: Parameters) -> tuple[Array, State]:
            # da = dh' act';  du = da h;  dh = da u
            da = (dstate[0] + dy) * slope(h_next)
            dw["weight_hh"] += (da * h).sum(axis=0)
            return pull_x(da, dw), (da * w["weight_hh"],)

        return h_next, (h_next,), pull


class MinGRU(ElementwiseCell):
    """The minGRU of Feng et al. (2024), "Were RNNs all we needed?": a GRU whose gates do not see the state.

    Examples
    --------
    >>> MinGRU().gates  # z, n
    2
    """

    gates = 2

    def step(self, w: Parameters, x: Array, state: State, masks: Masks) -> tuple[Array, State, Pull]:
        """Return y, the new state, and the pull of the step."""
        # z = sigmoid(x_z);  h' = (1 - z) h + z x_n
        (h,) = state
        x_gates, pull_x = product(w, "ih", x)
        x_z, n = np.split(x_gates, 2, axis=1)
        z = sigmoid(x_z)
        h_next = (1.0 - z) * h + z * n

        def pull(dy: Array, dstate: State, dw: Parameters) -> tuple[Array, State]:
            # dz = dh' (n - h);  dn = dh' z;  dh = dh' (1 - z)
            dh = dstate[0] + dy
            da_z = dh * (n - h) * z * (1.0 - z)
            return pull_x(np.concatenate([da_z, dh * z], axis=1), dw), (dh * (1.0 - z),)

        return h_next, (h_next,), pull


class MinLSTM(ElementwiseCell):
    """The minLSTM of Feng et al. (2024), its gates normalised to a sum of one.

    Examples
    --------
    >>> MinLSTM().gates  # f, i, n
    3
    """

    gates = 3

    def step(self, w: Parameters, x: Array, state: State, masks: Masks) -> tuple[Array, State, Pull]:
        """Return y, the new state, and the pull of the step."""
        # f, i = sigmoid(x_f), sigmoid(x_i);  h' = (f h + i x_n) / (f + i)
        (h,) = state
        x_gates, pull_x = product(w, "ih", x)
        x_f, x_i, n = np.split(x_gates, 3, axis=1)
        f, i = sigmoid(x_f), sigmoid(x_i)
        total = f + i
        h_next = (f * h + i * n) / total

        def pull(dy: Array, dstate: State, dw: Parameters) -> tuple[Array, State]:
            # df = dh' (h - h') / (f + i);  di = dh' (n - h') / (f + i)
            # dn = dh' i / (f + i);  dh = dh' f / (f + i)
            dh = (dstate[0] + dy) / total
            da_f = dh * (h - h_next) * f * (1.0 - f)
            da_i = dh * (n - h_next) * i * (1.0 - i)
            return pull_x(np.concatenate([da_f, da_i, dh * i], axis=1), dw), (dh * f,)

        return h_next, (h_next,), pull


class SRU(ElementwiseCell):
    """The simple recurrent unit of Lei et al. (2018), with weight_hh (2*H,) = v_f, v_r.

    The state is c alone; y goes on to the next layer, and not into the next step. Gates are n, f, r, and where I != H a
    fourth, s, which maps x to the size of the highway.

    Examples
    --------
    >>> SRU().shapes(I=2, H=2, P=2)["weight_ih"], SRU().shapes(I=3, H=2, P=2)["weight_ih"]
    ((6, 2), (8, 3))
    """

    states: ClassVar[tuple[str, ...]] = ("c",)

    def hidden(self, weights: dict[str, Any]) -> int:
        """Return H."""
        return len(weights["weight_hh"]) // 2

    def shapes(self, I: int, H: int, P: int) -> dict[str, Shape]:
        """Return the shape of every parameter by name."""
        GH = (3 if I == H else 4) * H
        return {"weight_ih": (GH, I), "weight_hh": (2 * H,), "bias_ih": (GH,)}

    def step(self, w: Parameters, x: Array, state: State, masks: Masks) -> tuple[Array, State, Pull]:
        """Return y, the new state, and the pull of the step."""
        # f = sigmoid(x_f + v_f c);  r = sigmoid(x_r + v_r c)
        # c' = f c + (1 - f) x_n;  y = r c' + (1 - r) skip,  skip = x or x_s
        (c,) = state
        v_f, v_r = np.split(w["weight_hh"], 2)
        x_gates, pull_x = product(w, "ih", x)
        n, x_f, x_r, *x_s = np.split(x_gates, x_gates.shape[1] // c.shape[1], axis=1)
        skip = x_s[0] if x_s else x
        f, r = sigmoid(x_f + v_f * c), sigmoid(x_r + v_r * c)
        c_next = f * c + (1.0 - f) * n
        y = r * c_next + (1.0 - r) * skip

        def pull(dy: Array, dstate: State, dw: Parameters) -> tuple[Array, State]:
            # y = r c' + (1 - r) skip:    dr = dy (c' - skip);  dc' += dy r;  dskip = dy (1 - r)
            # c' = f c + (1 - f) x_n:     df = dc' (c - x_n);  dx_n = dc' (1 - f);  dc = dc' f
            dc_next = dstate[0] + dy * r
            da_r = dy * (c_next - skip) * r * (1.0 - r)
            da_f = dc_next * (c - n) * f * (1.0 - f)
            dskip = dy * (1.0 - r)
            dw["weight_hh"] += np.concatenate([(da_f * c).sum(axis=0), (da_r * c).sum(axis=0)])
            gates = [dc_next * (1.0 - f), da_f, da_r, *([dskip] if x_s else [])]
            dx = pull_x(np.concatenate(gates, axis=1), dw)
            return dx if x_s else dx + dskip, (dc_next * f + da_f * v_f + da_r * v_r,)

        return y, (c_next,), pull


class QRNN(ElementwiseCell):
    """The quasi-recurrent network of Bradbury et al. (2017): fo-pooling, over a window of one step.

    The state is c alone.

    Examples
    --------
    >>> QRNN().gates  # z, f, o
    3
    """

    gates = 3
    states: ClassVar[tuple[str, ...]] = ("c",)

    def step(self, w: Parameters, x: Array, state: State, masks: Masks) -> tuple[Array, State, Pull]:
        """Return y, the new state, and the pull of the step."""
        # z = tanh(x_z);  f, o = sigmoid(x_f), sigmoid(x_o);  c' = f c + (1 - f) z;  y = o c'
        (c,) = state
        x_gates, pull_x = product(w, "ih", x)
        x_z, x_f, x_o = np.split(x_gates, 3, axis=1)
        z, f, o = np.tanh(x_z), sigmoid(x_f), sigmoid(x_o)
        c_next = f * c + (1.0 - f) * z

        def pull(dy: Array, dstate: State, dw: Parameters) -> tuple[Array, State]:
            # do = dy c';  dc' += dy o;  df = dc' (c - z);  dz = dc' (1 - f);  dc = dc' f
            dc_next = dstate[0] + dy * o
            da_z = dc_next * (1.0 - f) * (1.0 - z * z)
            da_f = dc_next * (c - z) * f * (1.0 - f)
            da_o = dy * c_next * o * (1.0 - o)
            return pull_x(np.concatenate([da_z, da_f, da_o], axis=1), dw), (dc_next * f,)

        return o * c_next, (c_next,), pull


class LRU(ElementwiseCell):
    """The linear recurrent unit of Orvieto et al. (2023), with nu, theta and gamma (H,).

    A complex state is 2*H real numbers, real parts, then imaginary parts, and y is the state. The matrix that the paper
    puts after it is a layer of its own.

    Parameters
    ----------
    complex : bool, default True
        Whether the state is; if not, there is no theta.

    Examples
    --------
    >>> LRU().sizes(H=3, P=3), LRU(complex=False).sizes(H=3, P=3)
    ((6,), (3,))
    """

    def __init__(self, *, complex: bool = True) -> None:
        self.complex = complex
        self.gates = 2 if complex else 1  # the real and imaginary part of B x

    def sizes(self, H: int, P: int) -> tuple[int, ...]:
        """Return the size of the state."""
        return (self.gates * H,)

    def shapes(self, I: int, H: int, P: int) -> dict[str, Shape]:
        """Return the shape of every parameter by name."""
        own = {"nu": (H,), "theta": (H,), "gamma": (H,)} if self.complex else {"nu": (H,), "gamma": (H,)}
        return super().shapes(I, H, P) | own

    def step(self, w: Parameters, x: Array, state: State, masks: Masks) -> tuple[Array, State, Pull]:
        """Return y, the new state, and the pull of the step."""
        # lambda = exp(-exp(nu) + j exp(theta));  h' = lambda h + exp(gamma) x
        # A gradient is that of the real part plus j times that of the imaginary part. Then, for v' = a v:
        # dv = conj(a) dv' and da = conj(v) dv'; and for a = exp(b): db = conj(a) da.
        (h,) = state
        x_gates, pull_x = product(w, "ih", x)
        h, bx = self.join(h), self.join(x_gates)
        eigenvalue = np.exp(-np.exp(w["nu"]) + (1j * np.exp(w["theta"]) if self.complex else 0.0))
        scale = np.exp(w["gamma"])
        h_next = self.part(eigenvalue * h + scale * bx)

        def pull(dy: Array, dstate: State, dw: Parameters) -> tuple[Array, State]:
            dh_next = self.join(dstate[0] + dy)
            dlog = np.conj(eigenvalue) * (np.conj(h) * dh_next).sum(axis=0)
            dw["nu"] -= dlog.real * np.exp(w["nu"])
            if self.complex:
                dw["theta"] += dlog.imag * np.exp(w["theta"])
            dw["gamma"] += (np.conj(bx) * dh_next).sum(axis=0).real * scale
            return pull_x(self.part(scale * dh_next), dw), (self.part(np.conj(eigenvalue) * dh_next),)

        return h_next, (h_next,), pull

    def join(self, v: Array) -> Any:
        """Return (rows, 2*H) parts as (rows, H) complex numbers."""
        if not self.complex:
            return v
        real, imaginary = np.split(v, 2, axis=1)
        return real + 1j * imaginary

    def part(self, v: Any) -> Array:
        """Return (rows, H) complex numbers as (rows, 2*H) parts."""
        return np.concatenate([v.real, v.imag], axis=1) if self.complex else v
