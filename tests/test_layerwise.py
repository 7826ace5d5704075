"""Stacks run layer by layer: the bits of the core's stacks, which run all layers in one call."""

import numpy as np
import pytest

import rnncore as rc

LAYERS = [
    (rc.RNN, {}),
    (rc.LSTM, {"num_layers": 3}),
    (rc.LSTM, {"num_layers": 2, "bidirectional": True, "peephole": True, "skip": True}),
    (rc.GRU, {"num_layers": 2, "bidirectional": True, "layer_norm": True}),
    (rc.SLSTM, {"num_layers": 2, "bidirectional": True}),
    (rc.SRU, {"num_layers": 2, "bidirectional": True, "skip": True}),
]


@pytest.mark.parametrize("resets", [False, True])
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize(("kind", "options"), LAYERS, ids=lambda value: getattr(value, "__name__", str(value)))
def test_bits_of_a_whole_stack(kind, options, batch_first, resets):
    T, N, I, H = 9, 3, 5, 17
    layer = kind(I, H, batch_first=batch_first, rng=0, **options)
    rng = np.random.default_rng(1)
    x = rng.standard_normal((N, T, I) if batch_first else (T, N, I), dtype=np.float32)
    zeros = layer.run(x)[1]

    def state():
        parts = tuple(rng.uniform(0.2, 0.8, part.shape).astype(np.float32) for part in layer._parts(zeros))
        return layer._joined(parts)

    arguments = [x, state(), [T, 0, 4]]
    if resets:
        arguments += [rng.random(x.shape[:2]) < 0.3, state()]
    expected = layer(*arguments)
    layer._whole = False
    for got in (layer(*arguments), layer.frozen()(*arguments)):
        np.testing.assert_array_equal(got[0], expected[0])
        for a, b in zip(layer._parts(got[1]), layer._parts(expected[1]), strict=True):
            np.testing.assert_array_equal(a, b)
