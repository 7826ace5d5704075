"""Tasks that need the future: accuracy by how many steps a network may look ahead.

The target of a step is the sign of the sum of the inputs from four steps before to four after. A bidirectional layer
with `look_ahead=k` knows k steps of the future at each of its own, so that it can run on a stream, k steps late.
Prints the accuracy on new sequences by k, and of one that knows all, and draws it.
"""

import numpy as np
from drawing import drawing, plot_file

import rnncore as rc

AHEAD = range(7)


def windows(N: int, T: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return x (N, T, 1), and the classes of the steps (N, T)."""
    x = rng.standard_normal((N, T, 1), dtype=np.float32)
    sums = np.lib.stride_tricks.sliding_window_view(np.pad(x[..., 0], ((0, 0), (4, 4))), 9, axis=1).sum(axis=2)
    return x, (sums > 0).astype(int)


def accuracy(ahead: int | None) -> float:
    """Train a network that looks so many steps ahead."""
    rng = np.random.default_rng(0)
    model = rc.Sequential(rc.GRU(1, 16, bidirectional=True, look_ahead=ahead, rng=0), rc.Linear(32, 2, rng=1))
    trainer = rc.Trainer(model, rc.CrossEntropy(), rc.Adam(rc.schedules.Cosine(0.02, steps=300)), clip_norm=1.0)
    for _ in range(300):
        trainer.step(*windows(32, 40, rng))
    x, classes = windows(500, 40, rng)
    return float((model(x).argmax(axis=2) == classes).mean())


def main(path: str | None) -> None:
    """Train one network for each number of steps, and one without a limit."""
    accuracies = []
    for ahead in AHEAD:
        accuracies.append(accuracy(ahead))
        print(f"{ahead} steps ahead: {accuracies[-1]:.1%}")
    without_limit = accuracy(None)
    print(f"without a limit: {without_limit:.1%}")

    if path:
        with drawing(path) as ax:
            ax.plot(AHEAD, accuracies, "o-", label="look ahead")
            ax.axhline(without_limit, color="C1", label="without a limit")
            ax.axvline(4, color="k", lw=0.5, ls=":")
            ax.set(xlabel="steps ahead", ylabel="accuracy")
            ax.legend(loc="lower right")


if __name__ == "__main__":
    main(plot_file(__doc__))
