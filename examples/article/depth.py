"""The four kinds of depth: before the recurrence, inside of it, after it, and recurrence upon recurrence.

Pascanu et al. (2014), "How to construct deep recurrent neural networks". The hidden rule of the task is nonlinear at
each place: the product of both inputs goes into a state that turns within bounds, of which a wave is seen. Networks
have about as many parameters each. Prints and draws their mean squared errors over the variance, on new sequences.
"""

import numpy as np
from drawing import drawing, plot_file

import rnncore as rc


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
        "before": (rc.RNN(2, 22, input_depth=2, rng=0), rc.Linear(22, 1, rng=1)),
        "inside": (rc.RNN(2, 22, transition_depth=2, rng=0), rc.Linear(22, 1, rng=1)),
        "after": (rc.RNN(2, 22, output_depth=2, rng=0), rc.Linear(22, 1, rng=1)),
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
