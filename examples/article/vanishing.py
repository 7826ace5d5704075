"""Gradients that vanish: how much the last output says of the state t steps before, in an RNN, an LSTM and a GRU.

The gradient of the last state is pulled back through one step after the other. In a plain network every step
multiplies it by a matrix, and it shrinks, or grows, exponentially; a gate near one lets it through. Prints by how
much it has changed after 50 steps, and draws its norm at all of them.
"""

import numpy as np
from drawing import drawing, plot_file

import rnncore as rc

T, H = 100, 32


def gradient_norms(layer: rc.Layer, x: np.ndarray) -> list[float]:
    """Return |dL/dh_t| for t = T, ..., 0 of a random loss of the last state, by a step at a time."""
    state, pull_backs = None, []
    for t in range(T):
        (y, state), pull_back = layer.vjp(x[:, t : t + 1], state)
        pull_backs.append(pull_back)
    dy, dstate = np.random.default_rng(1).standard_normal(y.shape), None
    norms = []
    for pull_back in reversed(pull_backs):
        _, dstate = pull_back(dy, dstate)
        dy = None  # of the last step alone
        norms.append(float(np.sqrt(sum(np.square(part).sum() for part in np.atleast_1d(dstate)))))
    return norms


def main(path: str | None) -> None:
    """Pull a gradient back through four networks, as they are before training."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, T, 4))
    layers = {name: getattr(rc, name)(4, H, dtype="float64", rng=0) for name in ("RNN", "LSTM", "GRU")}
    layers["RNN, relu, U x 4"] = rc.RNN(4, H, nonlinearity="relu", dtype="float64", rng=0)
    layers["RNN, relu, U x 4"].parameters["weight_hh_l0"][...] *= 4
    rc.init.forget_bias(layers["LSTM"], 3.0)
    layers["GRU"].parameters["bias_hh_l0"][H : 2 * H] += 3.0  # of z, which keeps the state
    norms = {}
    for name, layer in layers.items():
        norms[name] = gradient_norms(layer, x)
        print(f"{name}: after 50 steps {norms[name][50] / norms[name][0]:.1e} of the gradient")

    if path:
        with drawing(path) as ax:
            for name, values in norms.items():
                ax.semilogy(range(1, T + 1), values, label=name)
            ax.set(xlabel="steps before the loss", ylabel="|dL/dh|", ylim=(1e-20, 1e8))
            ax.legend()


if __name__ == "__main__":
    main(plot_file(__doc__))
