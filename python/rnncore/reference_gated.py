"""Cells with a dense recurrent matrix, and all of their options: RNN, LSTM, GRU, MGU and sLSTM.

A cell is one step and its gradient next to each other; `layer` of `reference_cells` runs it. x are the inputs of
gates from ``W x_t + b_ih``, u those from ``U h + b_hh``, whose h is the masked one with recurrent dropout (Gal &
Ghahramani, 2016); ~ marks a state that zoneout (Krueger et al., 2017) or a leak has not yet blended with the old one.
"""

from typing import Any, ClassVar

import numpy as np

from rnncore.reference import sigmoid
from rnncore.reference_loop import Array, Masks, Parameters, Pull, Shape, State
from rnncore.reference_parts import GatedCell, OneCell, activation, blend, clip, layer_norm, product

__all__ = ["GRU", "LSTM", "MGU", "RNN", "SLSTM"]


class RNN(GatedCell):
    """The simple recurrent network of Elman (1990), "Finding structure in time".

    Parameters
    ----------
    leak : float, default 1
        The share of the new state, in (0, 1]: a leaky, or continuous-time, network (Jaeger et al., 2007).
    **options
        Those of `GatedCell`; there is no recurrent activation here.

    Examples
    --------
    >>> RNN(activation="relu", leak=0.5).gates
    1
    """

    gates = 1

    def __init__(self, *, leak: float = 1.0, **options: Any) -> None:
        super().__init__(**options)
        self.leak = leak

    def step(self, w: Parameters, x: Array, state: State, masks: Masks) -> tuple[Array, State, Pull]:
        """Return y, the new state, and the pull of the step."""
        # h~ = act(x + u);  h' = h + k (h~ - h)
        (h,) = state
        mask = masks.get("recurrent", np.ones_like(h))
        x_gates, pull_x = product(w, "ih", x)
        u_gates, pull_u = product(w, "hh", h * mask)
        new, pull_new = self.gate(w, 0, x_gates + u_gates, self.activation)
        h_next, pull_h = blend(h, new, self.share(masks, "h"))

        def pull(dy: Array, dstate: State, dw: Parameters) -> tuple[Array, State]:
            dh, dnew = pull_h(dstate[0] + dy)
            da = pull_new(dnew, dw)
            return pull_x(da, dw), (dh + pull_u(da, dw) * mask,)

        return h_next, (h_next,), pull


class LSTM(GatedCell):
    """Long short-term memory of Hochreiter & Schmidhuber (1997), with a forget gate (Gers et al., 2000).

    Parameters
    ----------
    proj_size : int, default 0
        The size P of h, mapped down by weight_hr (P, H) (Sak et al., 2014); 0 for none.
    peephole : bool
        Whether gates see the cell state, by weight_peephole (3*H,) of i, f, o, or (2*H,) of i, o (Gers et al., 2002).
    coupled_gates : bool
        Whether f = 1 - i. Then there are three gates, i, g, o (Greff et al., 2017).
    cell_clip : float, optional
        The bound of the cell state.
    **options
        Those of `GatedCell`. With layer norm the cell state is normalised too, where the output takes it.

    Examples
    --------
    >>> LSTM(coupled_gates=True, proj_size=2, peephole=True).shapes(I=1, H=4, P=2)["weight_peephole"]
    (8,)
    """

    states: ClassVar[tuple[str, ...]] = ("h", "c")
    masks: ClassVar[tuple[str, ...]] = ("input", "recurrent", "h", "c")

    def __init__(
        self, *, proj_size: int = 0, peephole: bool = False, coupled_gates: bool = False,
        cell_clip: float | None = None, **options: Any,
    ) -> None:  # fmt: skip
        super().__init__(**options)
        self.proj_size, self.peephole, self.coupled_gates, self.cell_clip = (
            proj_size,
            peephole,
            coupled_gates,
            cell_clip,
        )
        self.order = "igo" if coupled_gates else "ifgo"
        self.gates = len(self.order)

    def shapes(self, I: int, H: int, P: int) -> dict[str, Shape]:
        """Return the shape of every parameter by name."""
        shapes = super().shapes(I, H, P)
        if self.proj_size:
            shapes["weight_hr"] = P, H
        if self.peephole:
            shapes["weight_peephole"] = ((self.gates - 1) * H,)
        if self.layer_norm:
            shapes |= {"weight_norm_c": (H,), "bias_norm_c": (H,)}
        return shapes

    def step(self, w: Parameters, x: Array, state: State, masks: Masks) -> tuple[Array, State, Pull]:
        """Return y, the new state, and the pull of the step."""
        h, c = state
        act, slope = activation(self.activation)
        mask = masks.get("recurrent", np.ones_like(h))
        x_gates, pull_x = product(w, "ih", x)
        u_gates, pull_u = product(w, "hh", h * mask)
        a = dict(zip(self.order, np.split(x_gates + u_gates, self.gates, axis=1), strict=True))
        number = {name: k for k, name in enumerate(self.order)}
        p_i, p_f, p_o = self.peepholes(w, c.shape[1])

        # i = rec(a_i + p_i c);  f = rec(a_f + p_f c), or 1 - i;  g = act(a_g)
        i, pull_i = self.gate(w, number["i"], a["i"] + p_i * c, self.recurrent_activation)
        if self.coupled_gates:
            f = 1.0 - i
        else:
            f, pull_f = self.gate(w, number["f"], a["f"] + p_f * c, self.recurrent_activation)
        g, pull_g = self.gate(w, number["g"], a["g"], self.activation)
        # c~ = clip(f c + i g)
        c_new, pull_clip = clip(f * c + i * g, self.cell_clip)
        # o = rec(a_o + p_o c~);  m = o act(LN(c~));  h~ = W_hr m
        o, pull_o = self.gate(w, number["o"], a["o"] + p_o * c_new, self.recurrent_activation)
        seen, pull_norm = layer_norm(w, "norm_c", c_new, slice(None)) if self.layer_norm else (c_new, None)
        s = act(seen)
        m = o * s
        h_new = m @ w["weight_hr"].T if self.proj_size else m
        # h' = h + k_h (h~ - h);  c' = c + k_c (c~ - c)
        h_next, pull_h = blend(h, h_new, self.share(masks, "h"))
        c_next, pull_c = blend(c, c_new, self.share(masks, "c"))

        def pull(dy: Array, dstate: State, dw: Parameters) -> tuple[Array, State]:
            dh, dh_new = pull_h(dstate[0] + dy)
            dc, dc_new = pull_c(dstate[1])
            # h~ = W_hr m:             dW_hr = dh~' m;  dm = dh~ W_hr
            dm = dh_new
            if self.proj_size:
                dw["weight_hr"] += dh_new.T @ m
                dm = dh_new @ w["weight_hr"]
            # m = o act(LN(c~)):       do = dm act(..);  dc~ += LN'(dm o act'(..))
            da = {"o": pull_o(dm * s, dw)}
            dseen = dm * o * slope(s)
            dc_new = dc_new + (pull_norm(dseen, dw) if pull_norm else dseen) + da["o"] * p_o
            # c~ = clip(f c + i g):    df = dc~ c;  di = dc~ g;  dg = dc~ i;  dc = dc~ f
            dsum = pull_clip(dc_new)
            dc = dc + dsum * f
            da["g"] = pull_g(dsum * i, dw)
            if self.coupled_gates:  # f = 1 - i
                da["i"] = pull_i(dsum * (g - c), dw)
            else:
                da["i"] = pull_i(dsum * g, dw)
                da["f"] = pull_f(dsum * c, dw)
                dc = dc + da["f"] * p_f
            dc = dc + da["i"] * p_i
            if self.peephole:
                seen_by = {"i": c, "f": c, "o": c_new}
                parts = [(da[name] * seen_by[name]).sum(axis=0) for name in self.order if name != "g"]
                dw["weight_peephole"] += np.concatenate(parts)
            da_all = np.concatenate([da[name] for name in self.order], axis=1)
            return pull_x(da_all, dw), (dh + pull_u(da_all, dw) * mask, dc)

        return h_next, (h_next, c_next), pull

    def peepholes(self, w: Parameters, H: int) -> tuple[Array, Array, Array]:
        """Return the peepholes of i, f, o, zeros where there is none."""
        if not self.peephole:
            return (np.zeros(H),) * 3
        p = w["weight_peephole"]
        return p[:H], np.zeros(H) if self.coupled_gates else p[H:-H], p[-H:]


class GRU(GatedCell):
    """Gated recurrent unit of Cho et al. (2014).

    Parameters
    ----------
    reset_after : bool, default True
        Whether the reset gate scales the recurrent product of the candidate, as in torch; otherwise what goes
        into it, as in the paper.
    **options
        Those of `GatedCell`.

    Examples
    --------
    >>> GRU(reset_after=False).gates  # r, z, n
    3
    """

    gates = 3

    def __init__(self, *, reset_after: bool = True, **options: Any) -> None:
        super().__init__(**options)
        self.reset_after = reset_after

    def step(self, w: Parameters, x: Array, state: State, masks: Masks) -> tuple[Array, State, Pull]:
        """Return y, the new state, and the pull of the step."""
        # r, z = rec(x + u);  h~ = z h + (1 - z) n;  h' = h + k (h~ - h)
        (h,) = state
        H = h.shape[1]
        mask = masks.get("recurrent", np.ones_like(h))
        hm = h * mask
        x_gates, pull_x = product(w, "ih", x)
        x_r, x_z, x_n = np.split(x_gates, 3, axis=1)
        u_rz, pull_rz = product(w, "hh", hm, slice(0, 2 * H))
        r, pull_r = self.gate(w, 0, x_r + u_rz[:, :H], self.recurrent_activation)
        z, pull_z = self.gate(w, 1, x_z + u_rz[:, H:], self.recurrent_activation)
        # reset after:   n = act(x_n + r (U_n h + b_n))
        # reset before:  n = act(x_n + U_n (r h) + b_n)
        u_n, pull_u_n = product(w, "hh", hm if self.reset_after else r * hm, slice(2 * H, 3 * H))
        n, pull_n = self.gate(w, 2, x_n + (r * u_n if self.reset_after else u_n), self.activation)
        h_next, pull_h = blend(h, z * h + (1.0 - z) * n, self.share(masks, "h"))

        def pull(dy: Array, dstate: State, dw: Parameters) -> tuple[Array, State]:
            dh, dnew = pull_h(dstate[0] + dy)
            # h~ = z h + (1 - z) n:    dz = dh~ (h - n);  dn = dh~ (1 - z);  dh += dh~ z
            da_z = pull_z(dnew * (h - n), dw)
            da_n = pull_n(dnew * (1.0 - z), dw)
            if self.reset_after:  # dr = da_n u_n;  du_n = da_n r
                dr = da_n * u_n
                dhm = pull_u_n(da_n * r, dw)
            else:  # d(r h) = da_n U_n:    dr = d(r h) h;  dh += d(r h) r
                drh = pull_u_n(da_n, dw)
                dr, dhm = drh * hm, drh * r
            da_r = pull_r(dr, dw)
            dhm = dhm + pull_rz(np.concatenate([da_r, da_z], axis=1), dw)
            dx = pull_x(np.concatenate([da_r, da_z, da_n], axis=1), dw)
            return dx, (dh + dnew * z + dhm * mask,)

        return h_next, (h_next,), pull


class MGU(GatedCell):
    """The minimal gated unit of Zhou et al. (2016): one gate f that resets and updates.

    Parameters
    ----------
    **options
        Those of `GatedCell`.

    Examples
    --------
    >>> MGU().gates  # f, n
    2
    """

    gates = 2

    def step(self, w: Parameters, x: Array, state: State, masks: Masks) -> tuple[Array, State, Pull]:
        """Return y, the new state, and the pull of the step."""
        # f = rec(x_f + u_f);  n = act(x_n + U_n (f h) + b_n)
        # h~ = (1 - f) h + f n;  h' = h + k (h~ - h)
        (h,) = state
        H = h.shape[1]
        mask = masks.get("recurrent", np.ones_like(h))
        hm = h * mask
        x_gates, pull_x = product(w, "ih", x)
        u_f, pull_u_f = product(w, "hh", hm, slice(0, H))
        f, pull_f = self.gate(w, 0, x_gates[:, :H] + u_f, self.recurrent_activation)
        u_n, pull_u_n = product(w, "hh", f * hm, slice(H, 2 * H))
        n, pull_n = self.gate(w, 1, x_gates[:, H:] + u_n, self.activation)
        h_next, pull_h = blend(h, (1.0 - f) * h + f * n, self.share(masks, "h"))

        def pull(dy: Array, dstate: State, dw: Parameters) -> tuple[Array, State]:
            dh, dnew = pull_h(dstate[0] + dy)
            # h~ = (1 - f) h + f n:    df = dh~ (n - h);  dn = dh~ f;  dh += dh~ (1 - f)
            # u_n = U_n (f h) + b_n:   df += d(f h) h;  dh += d(f h) f
            da_n = pull_n(dnew * f, dw)
            dfh = pull_u_n(da_n, dw)
            da_f = pull_f(dnew * (n - h) + dfh * hm, dw)
            dhm = dfh * f + pull_u_f(da_f, dw)
            dx = pull_x(np.concatenate([da_f, da_n], axis=1), dw)
            return dx, (dh + dnew * (1.0 - f) + dhm * mask,)

        return h_next, (h_next,), pull


class SLSTM(OneCell):
    """The sLSTM of Beck et al. (2024), "xLSTM": exponential gates, a normaliser n, and m, which keeps them small.

    Examples
    --------
    >>> SLSTM().states
    ('h', 'c', 'n', 'm')
    """

    gates = 4  # i, f, g, o
    states: ClassVar[tuple[str, ...]] = ("h", "c", "n", "m")
    masks: ClassVar[tuple[str, ...]] = ("input", "recurrent")

    def step(self, w: Parameters, x: Array, state: State, masks: Masks) -> tuple[Array, State, Pull]:
        """Return y, the new state, and the pull of the step."""
        # log_f = log sigmoid(a_f);  m' = max(log_f + m, a_i), at the start, where n = 0, a_i
        # i = exp(a_i - m');  f = exp(log_f + m - m'), at the start 0: nothing is kept of nothing
        # c' = f c + i tanh(a_g);  n' = f n + i;  h' = sigmoid(a_o) c' / n'
        h, c, n, m = state
        mask = masks.get("recurrent", np.ones_like(h))
        x_gates, pull_x = product(w, "ih", x)
        u_gates, pull_u = product(w, "hh", h * mask)
        a_i, a_f, a_g, a_o = np.split(x_gates + u_gates, 4, axis=1)
        kept = m - np.logaddexp(0.0, -a_f)  # log_f + m
        by_f = (n != 0.0) & (kept >= a_i)  # where m' is log_f + m
        m_next = np.where(by_f, kept, a_i)
        i, f = np.exp(a_i - m_next), np.where(n != 0.0, np.exp(np.minimum(kept - m_next, 0.0)), 0.0)
        g, o = np.tanh(a_g), sigmoid(a_o)
        c_next = f * c + i * g
        n_next = f * n + i
        ratio = c_next / n_next
        h_next = o * ratio

        def pull(dy: Array, dstate: State, dw: Parameters) -> tuple[Array, State]:
            dh, dc, dn, dm = dstate
            dh = dh + dy
            # h' = o c' / n':    do = dh c' / n';  dc' += dh o / n';  dn' -= dh o c' / n'^2
            dc = dc + dh * o / n_next
            dn = dn - dh * o * ratio / n_next
            # c' = f c + i g;  n' = f n + i:    df = dc' c + dn' n;  di = dc' g + dn';  dg = dc' i
            # i = exp(a_i - m');  f = exp(kept - m'):    da_i = di i;  dkept = df f;  dm' -= both
            da_i = (dc * g + dn) * i
            dkept = (dc * c + dn * n) * f
            dm = dm - da_i - dkept
            # m' = max(kept, a_i): to the side that it is
            da_i = da_i + np.where(by_f, 0.0, dm)
            dkept = dkept + np.where(by_f, dm, 0.0)
            # kept = log sigmoid(a_f) + m:    da_f = dkept sigmoid(-a_f);  dm = dkept
            da_f = dkept * sigmoid(-a_f)
            da_g = dc * i * (1.0 - g * g)
            da_o = dh * ratio * o * (1.0 - o)
            da = np.concatenate([da_i, da_f, da_g, da_o], axis=1)
            return pull_x(da, dw), (pull_u(da, dw) * mask, dc * f, dn * f, dkept)

        return h_next, (h_next, c_next, n_next, m_next), pull
