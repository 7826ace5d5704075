"""Tasks that need the future: accuracy by how many steps a network may look ahead, and of a bidirectional one.

The target of a step is the sign of the sum of the inputs from four steps before to four steps after. A network that
gives its output k steps late has seen k steps more; a bidirectional one has seen all. Prints the accuracy of each on
new sequences, and draws it.
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


def accuracy(layer: rc.Layer, width: int, ahead: int) -> float:
    """Train a network that reads `ahead` steps, of zeros after the last, before its first output counts."""
    rng = np.random.default_rng(0)
    model = rc.Sequential(layer, rc.Linear(width, 2, rng=1))
    trainer = rc.Trainer(model, rc.CrossEntropy(), rc.Adam(rc.schedules.Cosine(0.02, steps=500)), clip_norm=1.0)
    counted = np.r_[np.zeros(ahead), np.ones(40)] * np.ones((32, 1))  # the first outputs are of no step

    def late(x: np.ndarray, classes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.pad(x, ((0, 0), (0, ahead), (0, 0))), np.pad(classes, ((0, 0), (ahead, 0)))

    for _ in range(500):
        trainer.step(*late(*windows(32, 40, rng)), weights=counted)
    x, classes = late(*windows(500, 40, rng))
    return float((model(x).argmax(axis=2) == classes)[:, ahead:].mean())


def main(path: str | None) -> None:
    """Train one network for each number of steps, and a bidirectional one."""
    accuracies = []
    for ahead in AHEAD:
        accuracies.append(accuracy(rc.GRU(1, 24, rng=0), 24, ahead))
        print(f"{ahead} steps ahead: {accuracies[-1]:.1%}")
    both = accuracy(rc.GRU(1, 16, bidirectional=True, rng=0), 32, 0)
    print(f"bidirectional: {both:.1%}")

    if path:
        with drawing(path) as ax:
            ax.plot(AHEAD, accuracies, "o-", label="one direction, looking ahead")
            ax.axhline(both, color="C1", label="bidirectional")
            ax.axvline(4, color="k", lw=0.5, ls=":")
            ax.set(xlabel="steps ahead", ylabel="accuracy")
            ax.legend(loc="lower right")


if __name__ == "__main__":
    main(plot_file(__doc__))
