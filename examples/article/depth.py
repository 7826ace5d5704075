"""The four kinds of depth: before the recurrence, inside of it, after it, and recurrence upon recurrence.

Pascanu et al. (2014), "How to construct deep recurrent neural networks". The hidden rule of the task is nonlinear at
each place: the product of both inputs goes into a state that turns within bounds, of which a wave is seen. Networks
have about as many parameters each. Prints and draws their mean squared errors over the variance, on new sequences.
"""

import numpy as np
from drawing import drawing, plot_file

import rnncore as rc


class DeepTransition(rc.Recurrent):
    """h' = tanh(W2 tanh(W1 [x, h] + b1) + b2)."""

    def __init__(self, input_size: int, hidden_size: int, **options) -> None:
        self.hidden_size = H = hidden_size
        shapes = {"weight_1": (H, input_size + H), "bias_1": (H,), "weight_2": (H, H), "bias_2": (H,)}
        super().__init__(shapes, input_size, H, **options)

    def step_vjp(self, x: np.ndarray, h: np.ndarray) -> tuple:
        """Return ((y, h'), pull_back) of one step."""
        w_1, b_1, w_2, b_2 = self.parameters.values()
        inner, pull_inner = rc.functional.linear_vjp(np.concatenate([x, h], axis=1), w_1, b_1, activation="tanh")
        new, pull_outer = rc.functional.linear_vjp(inner, w_2, b_2, activation="tanh")

        def pull_back(dy: np.ndarray, dh: np.ndarray) -> tuple:
            dinner, dw_2, db_2 = pull_outer(dy + dh)
            dxh, dw_1, db_1 = pull_inner(dinner)
            gradients = {"weight_1": dw_1, "bias_1": db_1, "weight_2": dw_2, "bias_2": db_2}
            return dxh[:, : x.shape[1]], dxh[:, x.shape[1] :], gradients

        return (new, new), pull_back


def hidden_rule(N: int, T: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return inputs (N, T, 2) and targets (N, T, 1)."""
    x, s, y = rng.uniform(-1, 1, size=(N, T, 2)), np.zeros(N), np.empty((N, T, 1))
    for t in range(T):
        s = np.sin(s + 2 * x[:, t, 0] * x[:, t, 1])
        y[:, t, 0] = np.sin(3 * s)
    return x.astype(np.float32), y.astype(np.float32)


def main(path: str | None) -> None:
    """Train one network of each kind."""
    models = {
        "shallow": (rc.RNN(2, 32, rng=0), rc.Linear(32, 1, rng=1)),
        "before": (rc.Linear(2, 24, activation="tanh", rng=2), rc.RNN(24, 20, rng=0), rc.Linear(20, 1, rng=1)),
        "inside": (DeepTransition(2, 22, rng=0), rc.Linear(22, 1, rng=1)),
        "after": (rc.RNN(2, 24, rng=0), rc.Linear(24, 20, activation="tanh", rng=2), rc.Linear(20, 1, rng=1)),
        "stacked": (rc.RNN(2, 18, num_layers=2, rng=0), rc.Linear(18, 1, rng=1)),
    }
    errors = {}
    for name, layers in models.items():
        rng, model = np.random.default_rng(0), rc.Sequential(*layers)
        trainer = rc.Trainer(model, rc.MSE(), rc.Adam(rc.schedules.Cosine(0.02, steps=600)), clip_norm=1.0)
        for _ in range(600):
            trainer.step(*hidden_rule(32, 20, rng))
        x, y = hidden_rule(500, 20, rng)
        errors[name] = np.square(model(x) - y).mean() / y.var()
        print(f"{name}: {model.flat_parameters.size} parameters, error {errors[name]:.3f}")
    if path:
        with drawing(path, height=2.2) as ax:
            ax.barh(list(errors)[::-1], list(errors.values())[::-1])
            ax.set_xlabel("error")


if __name__ == "__main__":
    main(plot_file(__doc__))
