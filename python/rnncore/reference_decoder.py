"""The float64 oracle of a recurrent decoder that attends to a memory: NumPy, one step at a time.

For tests and for reading; nothing of the library calls it. The decoders are those of Luong et al. (2015), "Effective
approaches to attention-based neural machine translation", and of Bahdanau et al. (2015), "Neural machine translation by
jointly learning to align and translate".

Letters: N batch rows, T target steps, S source steps, I inputs, E size of the memory, H size of the top layer, C size
of the output.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rnncore.reference_attention import PullAttend, attend, attention_shapes, leading_size, named_parameters
from rnncore.reference_loop import Array, OptionalArray, Parameters, Shape, State, checked, checked_lengths
from rnncore.reference_parts import OneCell, product

__all__ = ["Decoded", "decoder"]

Rows = NDArray[np.intp]


class Decoded(NamedTuple):
    """What a decoder returns.

    Parameters
    ----------
    a : ndarray, (N, T, C)
        The outputs, zero at padded target steps.
    weights : ndarray, (N, T, S)
        The attention of every step, zero at padded target and source steps.
    state : tuple of tuple of ndarray, (N, size)
        The state of every layer after the last valid step of each row.
    fed : ndarray, (N, C)
        The last output of each row, which the next step is fed; the initial one if the row has no steps.
    """

    a: Array
    weights: Array
    state: tuple[State, ...]
    fed: Array


class _Decoder(NamedTuple):
    """What every step of a decoder takes."""

    cells: Sequence[OneCell]
    kind: str
    input_feeding: bool
    w: Parameters
    of_attention: Sequence[str]  # names of its parameters

    def of_layer(self, arrays: Parameters, k: int) -> Parameters:
        """Return the arrays of layer k, by the names that its cell knows; the same memory."""
        return {name.removesuffix(f"_l{k}"): array for name, array in arrays.items() if name.endswith(f"_l{k}")}

    def attend(self, query: Array, memory: Array, lengths: Rows) -> tuple[tuple[Array, Array], PullAttend]:
        return attend(self.kind, query, memory, lengths, {name: self.w[name] for name in self.of_attention})

    def step(
        self, y_in: Array, fed: Array, state: tuple[State, ...], memory: Array, lengths: Rows
    ) -> tuple[Array, Array, tuple[State, ...], Callable[..., tuple[Array, Array, tuple[State, ...], Array]]]:
        """Return a (rows, C), the attention (rows, S), the new states, and the pull of the step."""
        w, before_step = self.w, self.kind == "bahdanau"
        I, E = y_in.shape[1], memory.shape[2]
        # Bahdanau: (c_t, w_t) = attend(h_{t-1});  x_t = [y_t ; c_t]
        # Luong:    x_t = [y_t ; a_{t-1}], or y_t without input feeding
        if before_step:
            (c, weights), pull_attend = self.attend(state[-1][0], memory, lengths)
            x = np.concatenate([y_in, c], axis=1)
        else:
            x = np.concatenate([y_in, fed], axis=1) if self.input_feeding else y_in
        # h_t = cell(x_t, h_{t-1}), layer upon layer
        h, new, pulls = x, [], []
        for k, (cell, s) in enumerate(zip(self.cells, state, strict=True)):
            h, s_new, pull_cell = cell.step(self.of_layer(w, k), h, s, {})
            new.append(s_new)
            pulls.append(pull_cell)
        # Luong:    (c_t, w_t) = attend(h_t)
        if not before_step:
            (c, weights), pull_attend = self.attend(h, memory, lengths)
        # a_t = tanh(W_c [c_t ; h_t] + b_c)
        z, pull_combine = product(w, "combine", np.concatenate([c, h], axis=1))
        a = np.tanh(z)

        def pull(
            da: Array, dweights: Array, dstate: tuple[State, ...], dw: Parameters
        ) -> tuple[Array, Array, tuple[State, ...], Array]:
            """Return the gradients of y_t, a_{t-1}, the states before and the memory, and add those of parameters."""
            dc, dh = np.split(pull_combine(da * (1.0 - a * a), dw), [E], axis=1)
            if not before_step:
                dq, dmemory, dattention = pull_attend(dc, dweights)
                dh = dh + dq
            dbefore = []
            for k in reversed(range(len(pulls))):
                dh, ds = pulls[k](dh, dstate[k], self.of_layer(dw, k))
                dbefore.append(ds)
            dbefore.reverse()
            dy_in, drest = np.split(dh, [I], axis=1)
            if before_step:
                dq, dmemory, dattention = pull_attend(dc + drest, dweights)
                dbefore[-1] = (dbefore[-1][0] + dq, *dbefore[-1][1:])
            for name, gradient in dattention.items():
                dw[name] += gradient
            dfed = drest if self.input_feeding else np.zeros_like(a)
            return dy_in, dfed, tuple(dbefore), dmemory

        return a, weights, tuple(new), pull


def decoder(
    cells: OneCell | Sequence[OneCell], kind: str, input_feeding: bool, y_in: ArrayLike, memory: ArrayLike,
    state: Sequence[Sequence[OptionalArray] | None] | None, weights: Mapping[str, OptionalArray],
    target_lengths: ArrayLike | None = None, source_lengths: ArrayLike | None = None, fed: OptionalArray = None,
) -> tuple[Decoded, Callable[..., tuple[Parameters, tuple[State, ...], Array]]]:  # fmt: skip
    """Run a decoder that attends to a memory over whole targets.

    Parameters
    ----------
    cells : cell or sequence of cells
        Of `reference_gated`, one for each layer, the lowest first. The query is the output of the top one.
    kind : str
        As in `attend`. With "bahdanau" a step looks first, with the state of the top layer before it, and its context
        goes into the bottom layer with the input; with the others it looks last, with the new state.
    input_feeding : bool
        Whether the bottom layer takes the output of the step before with its input. Not with "bahdanau".
    y_in : array_like, (N, T, I)
        The inputs of all steps.
    memory : array_like, (N, S, E)
        What is attended to.
    state : sequence of sequence of array_like, (N, size), optional
        The initial states of every layer, as its cell names them; None for zeros.
    weights : mapping of str to array_like
        Those of the cell of layer k with `_l{k}` behind, those of `attend`, weight_combine (C, E + H) and bias_combine
        (C,). Layer 0 has I inputs, and C more with input feeding, or E more with "bahdanau". Names that begin with
        bias may be absent.
    target_lengths, source_lengths : array_like of int, (N,), optional
        How many steps of each row are valid; all by default.
    fed : array_like, (N, C), optional
        The output before the first step; zeros by default.

    Returns
    -------
    decoded : Decoded
    pullback : callable, ``pullback(da=None, dweights=None, dstate=None, dfed=None) -> (gradients, dstate_0, dfed_0)``
        Takes the gradients of what `decoded` has. Returns a dict of the gradients of "y_in", "memory" and of every
        parameter, those of the initial states, and that of the initial output.

    Raises
    ------
    ValueError
        As of `attend`; if there are no cells; if there is input feeding with "bahdanau".

    Examples
    --------
    >>> from rnncore.reference_cells import RNN
    >>> ones = {"weight_ih_l0": [[1.0]], "weight_hh_l0": [[1.0]], "weight_combine": [[1.0, 0.0]]}
    >>> memory = [[[0.25], [0.25]]]
    >>> decoded, pullback = decoder(RNN(), "dot", False, [[[0.0]]], memory, None, ones)  # h = 0 looks everywhere
    >>> decoded.weights
    array([[[0.5, 0.5]]])
    >>> bool(decoded.a[0, 0, 0] == np.tanh(0.25))
    True
    >>> gradients, _, _ = pullback([[[1.0]]])
    >>> sorted(gradients)[:2]
    ['bias_combine', 'bias_hh_l0']
    """
    stack = list(cells) if isinstance(cells, Sequence) else [cells]
    y, m = np.array(y_in, np.float64), np.array(memory, np.float64)
    if y.ndim != 3 or m.ndim != 3 or len(y) != len(m):
        raise ValueError(f"y_in, memory: expected shapes (N, T, I) and (N, S, E), got {y.shape} and {m.shape}")
    if not stack:
        raise ValueError("cells: expected at least one")
    if kind == "bahdanau" and input_feeding:
        raise ValueError("input_feeding: expected False with kind 'bahdanau', which feeds the context")
    (N, T, I), (_, S, E) = y.shape, m.shape
    C = leading_size(weights, "weight_combine")

    # the shapes of all parameters, layer upon layer
    shapes: dict[str, Shape] = {}
    sizes = []
    size = I + (E if kind == "bahdanau" else C if input_feeding else 0)
    for k, cell in enumerate(stack):
        if weights.get(f"weight_ih_l{k}") is None:
            raise ValueError(f"weights: expected weight_ih_l{k}, got {list(weights)}")
        H = leading_size(weights, f"weight_ih_l{k}") // cell.gates
        P = cell.proj_size or H
        shapes |= {f"{name}_l{k}": shape for name, shape in cell.shapes(size, H, P).items()}
        sizes.append(cell.sizes(H, P))
        size = P
    A, M = leading_size(weights, "weight_score"), leading_size(weights, "weight_attention")
    of_attention = attention_shapes(kind, size, E, A, M)
    shapes |= of_attention | {"weight_combine": (C, E + size), "bias_combine": (C,)}
    run = _Decoder(stack, kind, input_feeding, named_parameters(weights, shapes), list(of_attention))

    def states_of(name: str, given: Sequence[Sequence[OptionalArray] | None] | None) -> tuple[State, ...]:
        layers = [None] * len(stack) if given is None else given
        return tuple(
            tuple(
                checked(f"{name}[{k}]", s, (N, width))
                for s, width in zip([None] * len(widths) if of_layer is None else of_layer, widths, strict=True)
            )
            for k, (of_layer, widths) in enumerate(zip(layers, sizes, strict=True))
        )

    targets = checked_lengths(target_lengths, (N,), T, "target_lengths")
    sources = checked_lengths(source_lengths, (N,), S, "source_lengths")
    s_t, fed_t = states_of("state", state), checked("fed", fed, (N, C))
    a, attention = np.zeros((N, T, C)), np.zeros((N, T, S))
    steps = []
    for t in range(T):
        rows = np.flatnonzero(t < targets)
        before = tuple(tuple(s[rows] for s in of_layer) for of_layer in s_t)
        a[rows, t], attention[rows, t], after, pull = run.step(y[rows, t], fed_t[rows], before, m[rows], sources[rows])
        _put(s_t, rows, after)
        fed_t[rows] = a[rows, t]
        steps.append((t, rows, pull))

    def pullback(
        da: OptionalArray = None, dweights: OptionalArray = None,
        dstate: Sequence[Sequence[OptionalArray] | None] | None = None, dfed: OptionalArray = None,
    ) -> tuple[Parameters, tuple[State, ...], Array]:  # fmt: skip
        da, dweights = checked("da", da, (N, T, C)), checked("dweights", dweights, (N, T, S))
        ds_t, dfed_t = states_of("dstate", dstate), checked("dfed", dfed, (N, C))
        dy, dm = np.zeros_like(y), np.zeros_like(m)
        dw = {name: np.zeros_like(array) for name, array in run.w.items()}
        for t, rows, pull in reversed(steps):
            dafter = tuple(tuple(ds[rows] for ds in of_layer) for of_layer in ds_t)
            # a_t is an output, and what is fed next
            dy[rows, t], dfed_t[rows], dbefore, dmemory = pull(
                da[rows, t] + dfed_t[rows], dweights[rows, t], dafter, dw
            )
            _put(ds_t, rows, dbefore)
            dm[rows] += dmemory
        return {"y_in": dy, "memory": dm, **dw}, ds_t, dfed_t

    return Decoded(a, attention, s_t, fed_t), pullback


def _put(states: tuple[State, ...], rows: Rows, of_rows: tuple[State, ...]) -> None:
    """Write the states of some rows into those of all."""
    for layer, new in zip(states, of_rows, strict=True):
        for s, s_new in zip(layer, new, strict=True):
            s[rows] = s_new
