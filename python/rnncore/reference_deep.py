"""The oracle of deep transitions: a gated cell whose step is its own step several times (Pascanu et al., 2014).

`Deep` is a cell like those of `reference_gated`, of which it is made; `layer` of `reference_cells` runs it.
"""

import copy

import numpy as np

from rnncore.reference_loop import Array, Masks, Parameters, Pull, Shape, State
from rnncore.reference_parts import GatedCell, blend

__all__ = ["Deep"]


class Deep(GatedCell):
    """A cell that takes its own step again, without an input, on what it has made of the states.

    Every further transition k has a matrix of its own, weight_transition{k}, bias_transition{k} in the place of
    weight_hh, bias_hh, and vectors of its own: weight_norm_transition{k} in the place of weight_norm, and so on. For
    GRU that is the deep transition of Miceli Barone et al. (2017), "Deep architectures for neural machine translation".

    Parameters
    ----------
    cell : GatedCell
        The cell and its options. Zoneout and a leak blend the state after the last transition with that before the
        first, and recurrent dropout masks what the first multiplies.
    transition_depth : int
        How many transitions a step has, 1 or more.
    shortcut : bool, default False
        Whether the last transition sees the state before the step: its input is weight_shortcut h, with the h that the
        first multiplies. Needs two transitions.

    Examples
    --------
    >>> from rnncore.reference_gated import RNN
    >>> list(Deep(RNN(), 2, shortcut=True).shapes(I=1, H=4, P=4))[4:]
    ['weight_transition2', 'weight_shortcut', 'bias_transition2']
    """

    def __init__(self, cell: GatedCell, transition_depth: int, *, shortcut: bool = False) -> None:
        if transition_depth < 1 + shortcut:
            raise ValueError(f"transition_depth: expected {1 + shortcut} or more, got {transition_depth}")
        if cell.proj_size:
            raise ValueError(f"cell: expected no projection, got proj_size={cell.proj_size}")
        self.cell, self.depth, self.shortcut = cell, transition_depth, shortcut
        self.gates = cell.gates
        self.states, self.masks = cell.states, cell.masks  # type: ignore[misc]  # those of an instance here
        self.one = copy.copy(cell)  # which takes all of the new states
        self.one.zoneout, self.one.leak = {"h": 0.0, "c": 0.0}, 1.0

    @property
    def _more(self) -> range:
        """The numbers of the transitions after the first."""
        return range(2, self.depth + 1)

    def _vectors(self, H: int) -> dict[str, Shape]:
        """Return the shapes of the parameters of one transition that are not its matrix and the bias of that."""
        return dict(list(self.cell.shapes(1, H, H).items())[4:])

    def shapes(self, I: int, H: int, P: int) -> dict[str, Shape]:
        """Return the shape of every parameter by name."""
        GH = self.gates * H
        first = self.cell.shapes(I, H, P)
        matrices: dict[str, Shape] = {f"weight_transition{k}": (GH, H) for k in self._more}
        if self.shortcut:
            matrices["weight_shortcut"] = GH, H
        biases: dict[str, Shape] = {f"bias_transition{k}": (GH,) for k in self._more}
        vectors = {f"{n}_transition{k}": shape for k in self._more for n, shape in self._vectors(H).items()}
        return first | matrices | biases | vectors

    def step(self, w: Parameters, x: Array, state: State, masks: Masks) -> tuple[Array, State, Pull]:
        """Return y, the new state, and the pull of the step."""
        # s_1 = cell(x, s; U_1)     s_k = cell(0, s_{k-1}; U_k), the last with S h for its input, if there is a shortcut
        # s' = s + share (s_L - s)
        first_masks = {"recurrent": masks["recurrent"]} if "recurrent" in masks else {}
        mask = masks.get("recurrent", np.ones_like(state[0]))
        _, made, pull_first = self.one.step(w, x, state, first_masks)
        pulls: list[Pull] = []
        for k in self._more:
            sees = self.shortcut and k == self.depth
            v = state[0] * mask if sees else np.zeros((len(x), 0))
            _, made, pull = self.one.step(self._of_transition(w, k), v, made, {})
            pulls.append(pull)
        blended = [
            blend(old, new, self.cell.share(masks, name))
            for name, old, new in zip(self.states, state, made, strict=True)
        ]
        after = tuple(value for value, _ in blended)

        def pull_all(dy: Array, dstate: State, dw: Parameters) -> tuple[Array, State]:
            dafter = (dstate[0] + dy, *dstate[1:])
            pulled = [pull(d) for (_, pull), d in zip(blended, dafter, strict=True)]
            dbefore, dmade = [old for old, _ in pulled], tuple(new for _, new in pulled)
            nothing = np.zeros_like(dy)
            for k, pull in zip(reversed(self._more), reversed(pulls), strict=True):
                dv, dmade = pull(nothing, dmade, self._of_transition(dw, k))
                if dv.shape[1]:  # S h:    dh += dv times the mask
                    dbefore[0] = dbefore[0] + dv * mask
            dx, dfirst = pull_first(nothing, dmade, dw)
            return dx, tuple(a + b for a, b in zip(dbefore, dfirst, strict=True))

        return after[0], after, pull_all

    def _of_transition(self, w: Parameters, k: int) -> Parameters:
        """Return the parameters, or their gradients, of transition k under the names that the cell has for them."""
        GH = len(w["bias_hh"])
        sees = self.shortcut and k == self.depth
        named = {
            "weight_ih": w["weight_shortcut"] if sees else np.zeros((GH, 0)),
            "bias_ih": np.zeros(GH),
            "weight_hh": w[f"weight_transition{k}"],
            "bias_hh": w[f"bias_transition{k}"],
        }
        return named | {name: w[f"{name}_transition{k}"] for name in self._vectors(GH // self.gates)}
