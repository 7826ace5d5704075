"""A whole recurrent layer as the float64 oracle has it: stacked and in both directions, pass by pass, with the masks
that `vjp` of the layer will draw. Series are (N, T, C) here, whatever the layer takes, and states tuples of
(D*L, N, size).
"""

import copy
from dataclasses import dataclass

import numpy as np

import rnncore as rc
from rnncore import reference_cells
from rnncore.layer import drop_mask, keep_mask
from rnncore.ragged import Ragged

_OF_BOTH = ("layer_norm", "gate_clip", "zoneout", "activation")
_OPTIONS = {
    rc.RNN: (*_OF_BOTH, "leak"),
    rc.LSTM: (*_OF_BOTH, "recurrent_activation", "proj_size", "peephole", "coupled_gates", "cell_clip"),
    rc.GRU: (*_OF_BOTH, "recurrent_activation", "reset_after"),
    rc.MGU: (*_OF_BOTH, "recurrent_activation"),
    rc.LRU: ("complex",),
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
    return getattr(reference_cells, kind.__name__)(**options)


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
        width, between = (layer.input_size if k == 0 else D * P), None
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

    series, finals, pulls = x, [], []
    for index, suffix in enumerate(suffixes(layer)):
        k, d = divmod(index, D)
        if d == 0:
            below, outputs = series, []
            between = masks.between[k] if masks is not None else None
            read = below if between is None else below * between
        y, final, pull = reference_cells.layer(
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
            series = np.concatenate(outputs, axis=-1)
            if layer.skip and k > 0:
                series = series + below

    def pull_back(dy, *dfinal):
        gradients = {name: np.zeros_like(array) for name, array in parameters.items()}
        of_states = {}
        P = sizes_of(layer)[0]
        dseries = np.zeros_like(series) if dy is None else dy
        for k in reversed(range(layer.num_layers)):
            dread = 0.0
            for d in range(D):
                index = k * D + d
                suffix = suffixes(layer)[index]
                of_last = [None if part is None else part[index] for part in dfinal]
                of_pass, dfirst, dreset = pulls[index](dseries[..., d * P : (d + 1) * P], *of_last)
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
