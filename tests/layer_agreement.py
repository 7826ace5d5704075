"""Inference, training and gradients of a recurrent layer, called in any form, against the float64 oracle."""

import numpy as np

from cases import largest, worst_error
from rnncore.ragged import Joined
from stacks import draw, parts_of, run, states_of


def bounds(layer):
    """Of outputs and gradients, those of the project. Layer norm multiplies what goes into it, and its rounding, by one
    over a standard deviation, which of few units, or of a cell state near its start, may be far below 1; and each
    transition of a step does so again."""
    widened = 10 * getattr(layer, "transition_depth", 1) if getattr(layer, "layer_norm", False) else 1
    output, gradient = (1e-13, 1e-11) if layer.dtype == np.float64 else (2e-6, 2e-5)
    return output * widened, gradient * widened


def is_random(layer):
    probabilities = (
        layer.dropout,
        layer.input_dropout,
        layer.recurrent_dropout,
        *np.ravel(getattr(layer, "zoneout", 0.0)),
    )
    return any(p > 0 for p in probabilities[1:]) or (layer.dropout > 0 and layer.num_layers > 1)


def assert_agrees(layer, call):
    """Inference, training and its gradients, of a layer called so, against the oracle."""
    output_bound, gradient_bound = bounds(layer)
    names = states_of(layer)
    x, state, _, _, reset_state = arguments = call.arguments()
    of_oracle = call.x, call.states, call.lengths, call.reset_mask, call.starts

    def check_outputs(got, expected, expected_final):
        y, final = got
        y, final = call.padded(y), parts_of(final, len(names))
        scale = max(1.0, largest(expected, *expected_final))
        assert y.dtype == layer.dtype
        assert worst_error(y, expected, scale) <= output_bound, "y"
        for name, a, b in zip(names, final, expected_final, strict=True):
            assert a.dtype == layer.dtype
            assert worst_error(a.reshape(b.shape), b, scale) <= output_bound, f"{name}_n"

    inference = layer(*arguments)
    check_outputs(inference, *run(layer, *of_oracle)[:2])

    masks = draw(layer, Joined.of("x", x) if isinstance(x, list) else x)
    output, pull_back = layer.vjp(*arguments)
    expected, expected_final, expected_pull_back = run(layer, *of_oracle, masks)
    check_outputs(output, expected, expected_final)
    if not is_random(layer):
        assert np.array_equal(call.padded(output[0]), call.padded(inference[0]))
        for a, b in zip(parts_of(output[1], len(names)), parts_of(inference[1], len(names)), strict=True):
            assert np.array_equal(a, b)

    rng = np.random.default_rng(1)
    dy = call.numbers(rng, expected.shape)
    dfinal = tuple(call.numbers(rng, part.shape) for part in expected_final)
    if call.seed % 5 == 1:  # gradients of outputs that a loss does not use
        dy = None
    elif call.seed % 5 == 2:
        dfinal = (None, *dfinal[1:])
    layer.zero_gradients()
    given_dfinal = call.as_state(dfinal)
    dx, *dstates = pull_back(None if dy is None else call.series(dy), given_dfinal)
    assert len(dstates) == (1 if reset_state is None else 2)
    gradients = expected_pull_back(dy, *dfinal)
    got = {"x": call.padded(dx), **layer.gradients}
    for when, given, of_states in zip(("0", "reset"), (state, reset_state), dstates, strict=False):
        for name, a, b in zip(names, parts_of(given, len(names)), parts_of(of_states, len(names)), strict=True):
            if a is not None:
                assert a.shape == b.shape
                got[f"{name}_{when}"] = b
    assert got.keys() >= gradients.keys()
    scale = max(1.0, largest(*gradients.values()))
    for name, expected in gradients.items():
        assert got[name].dtype == layer.dtype
        assert worst_error(got[name].reshape(expected.shape), expected, scale) <= gradient_bound, f"gradient of {name}"
