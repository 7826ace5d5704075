"""A whole recurrent layer as the float64 oracle has it: stacked and in both directions, pass by pass, with the masks
that `vjp` of the layer will draw. Series are (N, T, C) here, whatever the layer takes, and states tuples of
(D*L, N, size).
"""

import copy
import itertools
from dataclasses import dataclass
from functools import partial

import numpy as np

import rnncore as rc
from rnncore import reference_cells
from rnncore.masks import drop_mask, keep_mask
from rnncore.ragged import Ragged

_OF_BOTH = ("layer_norm", "gate_clip", "zoneout", "activation")
_OPTIONS = {
    rc.RNN: (*_OF_BOTH, "leak"),
    rc.LSTM: (*_OF_BOTH, "recurrent_activation", "proj_size", "peephole", "coupled_gates", "cell_clip"),
    rc.GRU: (*_OF_BOTH, "recurrent_activation", "reset_after"),
    rc.MGU: (*_OF_BOTH, "recurrent_activation"),
    rc.LRU: ("complex",),
}
# How the outputs of two directions become that of the layer, and its gradient theirs.
MERGED = {
    "concat": lambda a, b: np.concatenate([a, b], axis=-1),
    "sum": np.add,
    "mean": lambda a, b: (a + b) / 2,
    "multiply": np.multiply,
}
APART = {
    "concat": lambda dy, a, b: np.split(dy, 2, axis=-1),
    "sum": lambda dy, a, b: (dy, dy),
    "mean": lambda dy, a, b: (dy / 2, dy / 2),
    "multiply": lambda dy, a, b: (dy * b, dy * a),
}


def states_of(layer):
    return cell_of(layer).states


def sizes_of(layer):
    """The size of each state."""
    return cell_of(layer).sizes(layer.hidden_size, getattr(layer, "proj_size", 0) or layer.hidden_size)


def suffixes(layer):
    """Of the parameters of each pass, in the order of states."""
    directions = ["", "_reverse"][: 1 + layer.bidirectional]
    return [f"_l{k}{direction}" for k in range(layer.num_layers) for direction in directions]


def parts_of(state, count):
    """A state as a tuple of its parts, None for all if it is None."""
    if state is None:
        return (None,) * count
    return tuple(state) if count > 1 else (state,)


def cell_of(layer):
    """The cell of the oracle that a layer of the library runs."""
    kind = next(kind for kind in type(layer).__mro__ if hasattr(reference_cells, kind.__name__))
    options = {name: getattr(layer, name) for name in _OPTIONS.get(kind, ())}
    if kind is rc.IndRNN:
        options["activation"] = layer.nonlinearity
    cell = getattr(reference_cells, kind.__name__)(**options)
    depth = getattr(layer, "transition_depth", 1)
    return cell if depth == 1 else reference_cells.Deep(cell, depth, shortcut=layer.shortcut)


@dataclass
class Masks:
    """What a call of `vjp` draws."""

    between: list  # of each layer: dropout on what it reads from the one below, (N, T, C) or None
    passes: list  # of each pass: the masks of `reference_cells.layer` by name


def draw(layer, x):
    """Draw what `vjp` will draw for x from the generator of the layer, which stays as it is.

    In the order of the library: of each layer dropout between layers and the mask of its input, then of each direction
    the mask of h in products and what is kept of h and c.
    """
    rng, sizes, D = copy.deepcopy(layer.rng), sizes_of(layer), 1 + layer.bidirectional
    P, zoneout, known = sizes[0], getattr(layer, "zoneout", 0.0), cell_of(layer).masks
    probabilities = zoneout if isinstance(zoneout, tuple) else (zoneout,) * len(sizes)
    if isinstance(x, Ragged):
        N, steps = x.N, x.data.shape[:1]
    else:
        steps = np.shape(x)[:-1]
        if len(steps) == 1:
            steps = (1, *steps) if layer.batch_first else (*steps, 1)
        N = steps[0] if layer.batch_first else steps[1]

    def padded(mask):
        if isinstance(x, Ragged):
            return x.with_data(mask).to_padded()[0].astype(np.float64)
        return (mask if layer.batch_first else mask.swapaxes(0, 1)).astype(np.float64)

    masks = Masks([], [])
    for k in range(layer.num_layers):
        width, between = (layer.input_size if k == 0 else layer.output_size), None
        if k > 0 and layer.dropout > 0:
            between = padded(drop_mask(rng, layer.dropout, (*steps, width), layer.dtype))
        masks.between.append(between)
        of_input = {}
        if layer.input_dropout > 0:
            of_input["input"] = drop_mask(rng, layer.input_dropout, (N, width), layer.dtype).astype(np.float64)
        for _ in range(D):
            drawn = dict(of_input)
            if layer.recurrent_dropout > 0:
                drawn["recurrent"] = drop_mask(rng, layer.recurrent_dropout, (N, P), layer.dtype).astype(np.float64)
            for name, p, size in zip(states_of(layer), probabilities, sizes, strict=True):
                if name not in known:
                    continue
                if p > 0:
                    drawn[name] = padded(keep_mask(rng, p, (*steps, size), layer.dtype))
                else:  # all is taken in training, and not the mean
                    drawn[name] = padded(np.ones((*steps, size)))
            masks.passes.append(drawn)
    return masks


def in_windows(k, c, cell, x, w, state, *, lengths, reverse, reset_mask, state_reset, masks):
    """`reference_cells.layer` with every step read as the last of a window of its own: of its chunk of c steps, as far
    as it has been read before this one, and the k steps beyond. As slow as it is plain."""
    N, T = x.shape[:2]
    y, windows = None, []  # of each step: sequence, step, the steps that are read, states after a reset or not, pull
    final = [np.array(part) for part in state]
    for n in range(N):
        length = T if lengths is None else int(lengths[n])
        cuts = [t for t in range(1, length) if reset_mask is not None and reset_mask[n, t]]
        for a, b in itertools.pairwise([0, *cuts, length]):
            fresh = b < length if reverse else reset_mask is not None and bool(length and reset_mask[n, a])
            for t in range(a, b):
                j = (t - a) // c
                begin, end = (t, min(b, a + (j + 1) * c + k)) if reverse else (max(a, a + j * c - k), t + 1)
                row, steps = slice(n, n + 1), slice(begin, end)
                of_window = {
                    name: mask[row] if name in ("input", "recurrent") else mask[row, steps]
                    for name, mask in (masks or {}).items()
                }
                start = [part[row] for part in (state_reset if fresh else state)]
                out, last, pull = reference_cells.layer(
                    cell, x[row, steps], w, start, reverse=reverse, masks=None if masks is None else of_window
                )
                y = np.zeros((N, T, out.shape[2])) if y is None else y
                y[n, t] = out[0, 0 if reverse else -1]
                leaves = t == 0 if reverse else t == length - 1  # the final state
                windows.append((n, t, steps, fresh, leaves, pull))
                for part, of_last in zip(final, last, strict=True):
                    part[n] = of_last[0] if leaves else part[n]
    if y is None:
        y = np.zeros_like(reference_cells.layer(cell, x, w, state, lengths=lengths)[0])

    def pullback(dy, *dlast):
        dlast = [np.zeros_like(part) if d is None else d for d, part in zip(dlast, final, strict=True)]
        total = {name: np.zeros_like(array) for name, array in w.items() if array is not None} | {"x": np.zeros_like(x)}
        dfirst, dreset = ([np.zeros_like(part) for part in final] for _ in range(2))
        for n in range(N):
            if (lengths is not None and lengths[n] == 0) or T == 0:
                for part, d in zip(dfirst, dlast, strict=True):
                    part[n] += d[n]
        for n, t, steps, fresh, leaves, pull in windows:
            dout = np.zeros((1, steps.stop - steps.start, dy.shape[2]))
            dout[0, 0 if reverse else -1] = dy[n, t]
            of_window, dstart, _ = pull(dout, *[d[n : n + 1] * leaves for d in dlast])
            total["x"][n, steps] += of_window.pop("x")[0]
            for name, gradient in of_window.items():
                if name in total:
                    total[name] += gradient
            for part, gradient in zip(dreset if fresh else dfirst, dstart, strict=True):
                part[n] += gradient[0]
        return total, tuple(dfirst), None if reset_mask is None else tuple(dreset)

    return y, tuple(final), pullback


ACTIVATIONS = {  # of feed-forward layers: the value, and the slope where it is y
    "identity": (lambda a: a, np.ones_like),
    "tanh": (np.tanh, lambda y: 1 - y**2),
    "sigmoid": (lambda a: 1 / (1 + np.exp(-a)), lambda y: y * (1 - y)),
    "relu": (lambda a: np.maximum(a, 0), lambda y: (y > 0).astype(float)),
}


def between_feed_forward(layer, suffix, run_pass, cell, x, w, *arguments, lengths, masks, **more):
    """A pass, as `reference_cells.layer` or `in_windows` runs it, between its feed-forward layers."""
    act, slope = ACTIVATIONS.get(getattr(layer, "activation", "tanh"), (None, None))
    parameters = {name: array.astype(np.float64) for name, array in layer.parameters.items()}
    valid = np.ones(x.shape[:2], bool) if lengths is None else np.arange(x.shape[1]) < np.reshape(lengths, (-1, 1))

    def feed_forward(x, place, depth):
        values = [np.where(valid[..., np.newaxis], x, 0.0)]
        names = [(f"weight_{place}{k}", f"bias_{place}{k}") for k in range(1, depth)]
        for weight, bias in names:
            y = act(values[-1] @ parameters[weight + suffix].T + parameters.get(bias + suffix, 0.0))
            values.append(y * valid[..., np.newaxis])

        def pull_back(dy, gradients):
            for (weight, bias), x, y in zip(reversed(names), reversed(values[:-1]), reversed(values[1:]), strict=True):
                da = dy * slope(y) * valid[..., np.newaxis]
                gradients[weight] = np.einsum("nto,nti->oi", da, x)
                gradients[bias] = da.sum(axis=(0, 1))
                dy = da @ parameters[weight + suffix]
            return dy

        return values[-1], pull_back

    masks = None if masks is None else dict(masks)
    of_input = 1.0 if masks is None or "input" not in masks else masks.pop("input")[:, np.newaxis]
    read, pull_input = feed_forward(x * of_input, "input", layer.input_depth)
    h, final, pull = run_pass(cell, read, w, *arguments, lengths=lengths, masks=masks, **more)
    y, pull_output = feed_forward(h, "output", layer.output_depth)

    def pull_back(dy, *dfinal):
        of_feed_forward = {}
        gradients, dfirst, dreset = pull(pull_output(dy, of_feed_forward), *dfinal)
        dx = pull_input(gradients.pop("x"), of_feed_forward) * of_input
        return {"x": dx, **gradients, **of_feed_forward}, dfirst, dreset

    return y, final, pull_back


def run(layer, x, state=None, lengths=None, reset_mask=None, reset_state=None, masks=None):
    """Run a layer with the oracle's cells: y, the final states, and the function that pulls gradients back.

    That takes the gradients of y and of the final states, and returns one dict of the gradients of "x", every parameter
    by its name, and "h_0", "h_reset" and so on of every state that was given. `masks` None is inference.
    """
    cell, names, D = cell_of(layer), states_of(layer), 1 + layer.bidirectional
    parameters = {name: array.astype(np.float64) for name, array in layer.parameters.items()}
    N = len(x)
    given, after_reset = (part or (None,) * len(names) for part in (state, reset_state))
    shapes = cell.shapes(1, layer.hidden_size, sizes_of(layer)[0])

    def begins(parts, index, suffix):
        """The states of a pass: those given, learned ones, or zeros."""
        found = []
        for part, name, size in zip(parts, names, sizes_of(layer), strict=True):
            if part is not None:
                found.append(np.broadcast_to(part[index], (N, size)))
            elif layer.learn_initial_state:
                found.append(np.broadcast_to(parameters[f"initial_{name}{suffix}"], (N, size)))
            else:
                found.append(np.zeros((N, size)))
        return found

    series, finals, pulls, of_layers = x, [], [], []
    for index, suffix in enumerate(suffixes(layer)):
        k, d = divmod(index, D)
        if d == 0:
            below, outputs = series, []
            between = masks.between[k] if masks is not None else None
            read = below if between is None else below * between
        context = layer.look_ahead if d == 1 else layer.look_back
        run_pass = reference_cells.layer if context is None else partial(in_windows, context, layer.chunk)
        if layer.input_depth > 1 or layer.output_depth > 1:
            run_pass = partial(between_feed_forward, layer, suffix, run_pass)
        y, final, pull = run_pass(
            cell,
            read,
            {name: parameters.get(name + suffix) for name in shapes},
            begins(given, index, suffix),
            lengths=lengths,
            reverse=d == 1,
            reset_mask=reset_mask,
            state_reset=None if reset_mask is None else begins(after_reset, index, suffix),
            masks=None if masks is None else masks.passes[index],
        )
        outputs.append(y)
        finals.append(final)
        pulls.append(pull)
        if d == D - 1:
            series = MERGED[layer.merge](*outputs) if D > 1 else outputs[0]
            of_layers.append(outputs)
            if layer.skip and k > 0:
                series = series + below

    def pull_back(dy, *dfinal):
        gradients = {name: np.zeros_like(array) for name, array in parameters.items()}
        of_states = {}
        dseries = np.zeros_like(series) if dy is None else dy
        for k in reversed(range(layer.num_layers)):
            dread = 0.0
            doutputs = [dseries]
            if D > 1:
                doutputs = APART[layer.merge](dseries, *of_layers[k])
            for d in range(D):
                index = k * D + d
                suffix = suffixes(layer)[index]
                of_last = [None if part is None else part[index] for part in dfinal]
                of_pass, dfirst, dreset = pulls[index](doutputs[d], *of_last)
                dread = dread + of_pass.pop("x")
                for name, gradient in of_pass.items():
                    if name + suffix in gradients:
                        gradients[name + suffix] += gradient
                for when, parts, d_parts in (("0", given, dfirst), ("reset", after_reset, dreset)):
                    for name, part, gradient in zip(names, parts, d_parts or (None,) * len(names), strict=True):
                        if part is not None:
                            of_states.setdefault(f"{name}_{when}", {})[index] = gradient
                        elif layer.learn_initial_state and gradient is not None:
                            gradients[f"initial_{name}{suffix}"] += gradient.sum(axis=0)
            if masks is not None and masks.between[k] is not None:
                dread = dread * masks.between[k]
            dseries = dread + dseries if layer.skip and k > 0 else dread
        for name, by_pass in of_states.items():
            stacked = np.stack([by_pass[index] for index in sorted(by_pass)])
            given_part = dict(zip([f"{n}_reset" for n in names], after_reset, strict=True)).get(name)
            shared = given_part is not None and np.ndim(given_part) == 2
            gradients[name] = stacked.sum(axis=1) if shared else stacked
        return {"x": dseries, **gradients}

    return series, tuple(np.stack(part) for part in zip(*finals, strict=True)), pull_back
