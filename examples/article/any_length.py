"""One set of parameters for sequences of every length: parity, learnt from short sequences, of long ones.

The step is the same at all times, so its weights are too: what was learnt on up to 20 steps runs on a thousand. Prints
the accuracy at the last step, by length, beside that of a feed-forward network that sees a window of 20.
"""

import numpy as np
from drawing import drawing, plot_file

import rnncore as rc

LENGTHS = [5, 10, 20, 50, 100, 200, 500, 1000]


def parity(N: int, T: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return bits (N, T, 1), and whether the number of ones so far is odd."""
    bits = rng.integers(2, size=(N, T))
    return bits[..., np.newaxis].astype(np.float32), bits.cumsum(axis=1) % 2


def main(path: str | None) -> None:
    """Train on short sequences, run on long ones."""
    rng = np.random.default_rng(0)
    model = rc.Sequential(rc.GRU(1, 12, rng=1), rc.Linear(12, 2, rng=2))
    x, odd = parity(2000, 20, rng)
    data = rc.data.Sequences(x, odd, lengths=rng.integers(1, 21, size=2000), per_step=True, batch_size=50)
    rc.Trainer(model, rc.CrossEntropy(), rc.Adam(0.02), clip_norm=1.0).fit(data, epochs=10, progress=False)

    window = rc.Sequential(rc.Linear(20, 64, activation="relu", rng=1), rc.Linear(64, 2, rng=2))
    data = rc.data.Sequences(x[:, np.newaxis, :, 0], odd[:, -1:], per_step=True, batch_size=50)  # a step of 20
    rc.Trainer(window, rc.CrossEntropy(), rc.Adam(0.005)).fit(data, epochs=60, progress=False)

    accuracy, of_window = [], []
    for T in LENGTHS:
        x, odd = parity(500, T, rng)
        accuracy.append(float((model(x)[:, -1].argmax(axis=1) == odd[:, -1]).mean()))
        last = np.pad(x[:, -20:, 0], ((0, 0), (max(20 - T, 0), 0)))
        of_window.append(float((window(last).argmax(axis=1) == odd[:, -1]).mean()))
        print(f"{T} steps: {accuracy[-1]:.1%} right, a window of 20 steps {of_window[-1]:.1%}")
    print(f"parameters: {model.flat_parameters.size} for all lengths, {window.flat_parameters.size} for the window")

    if path:
        with drawing(path) as ax:
            ax.semilogx(LENGTHS, accuracy, "o-", label="recurrent, one step for all times")
            ax.semilogx(LENGTHS, of_window, "s-", label="feed-forward, a window of 20 steps")
            ax.axvspan(1, 20, alpha=0.1, label="lengths trained on")
            ax.set(xlabel="length", ylabel="accuracy", xlim=(4, 1200), ylim=(0.4, 1.05))
            ax.legend(loc="center right")


if __name__ == "__main__":
    main(plot_file(__doc__))
