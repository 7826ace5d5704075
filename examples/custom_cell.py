"""Try an idea for a cell in NumPy: a highway from step to step, with one gate that says how much of the state is new.

That is a recurrent highway network of depth one (Zilly et al. 2017). Of 30 numbers one is marked, and is asked for at
the end. Prints mean squared errors over the variance, of the cell and of two compiled layers: guessing would get 1.
"""

import argparse

import numpy as np

import rnncore as rc
from rnncore.testing import check_cell


class Highway(rc.Recurrent):
    """h' = h + t (n - h), with t = sigmoid and n = tanh of affine maps of [x, h]."""

    def __init__(self, input_size: int, hidden_size: int, **options) -> None:
        self.hidden_size = hidden_size
        shapes = {"weight": (2 * hidden_size, input_size + hidden_size), "bias": (2 * hidden_size,)}
        super().__init__(shapes, input_size, hidden_size, **options)
        self.parameters["bias"][:hidden_size] = -2  # at first the state stays

    def step_vjp(self, x: np.ndarray, h: np.ndarray) -> tuple:
        """Return ((y, h'), pull_back) of one step."""
        a, back = rc.functional.linear_vjp(np.concatenate([x, h], axis=1), *self.parameters.values())
        a_t, a_n = np.split(a, 2, axis=1)
        t, n = 0.5 + 0.5 * np.tanh(0.5 * a_t), np.tanh(a_n)  # the first is sigmoid(a_t), and cannot overflow
        new = h + t * (n - h)

        def pull_back(dy: np.ndarray, dh: np.ndarray) -> tuple:
            dnew = dy + dh
            da = np.concatenate([dnew * (n - h) * t * (1 - t), dnew * t * (1 - n * n)], axis=1)
            dxh, dweight, dbias = back(da)
            dx, dh = np.split(dxh, [x.shape[1]], axis=1)
            return dx, dh + dnew * (1 - t), {"weight": dweight, "bias": dbias}

        return (new, new), pull_back


def main() -> None:
    """Check the cell, train a model of it and of two others, compare."""
    parser = argparse.ArgumentParser(description="Try a cell that is written in NumPy.")
    parser.add_argument("--epochs", type=int, default=20)
    options = parser.parse_args()
    check_cell(Highway(3, 4, dtype="float64", rng=0))  # its gradients, before anything is trained
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (2500, 30, 2)).astype(np.float32)
    x[..., 1] = np.arange(30) == rng.integers(30, size=(2500, 1))  # the mark
    asked = (x[..., :1] * x[..., 1:]).sum(axis=1)
    for kind in (Highway, rc.GRU, rc.RNN):
        model = rc.Sequential(kind(2, 24, rng=0), rc.Last(), rc.Linear(24, 1, rng=1))
        data = rc.data.Sequences(x[:2000], asked[:2000], per_step=False, batch_size=50)
        rc.Trainer(model, rc.MSE(), rc.Adam(0.01), clip_norm=1.0).fit(data, options.epochs, progress=False)
        print(f"{kind.__name__}: {np.square(model(x[2000:]) - asked[2000:]).mean() / asked.var():.3f}", flush=True)


if __name__ == "__main__":
    main()
