"""The hidden state is a memory: a small network that must remember the last pulse of each of two inputs.

Pulses of +1 and -1 come seldom. The target is the last pulse of each, however long ago. What the network knows of it
between pulses is in its state alone: prints how well the pulses can be read off the state, and draws the units.
"""

import numpy as np
from drawing import drawing, plot_file

import rnncore as rc


def pulses(N: int, T: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return pulses (N, T, 2), and the last of each so far."""
    x = rng.choice([-1, 0, 1], size=(N, T, 2), p=[0.04, 0.92, 0.04]).astype(np.float32)
    x[:, 0] = rng.choice([-1, 1], size=(N, 2))
    last = np.maximum.accumulate(np.where(x != 0, np.arange(T)[:, np.newaxis], 0), axis=1)
    return x, np.take_along_axis(x, last, axis=1)


def main(path: str | None) -> None:
    """Train, and look at the state."""
    rng = np.random.default_rng(0)
    recurrent, linear = rc.GRU(2, 6, rng=0), rc.Linear(6, 2, rng=1)
    data = rc.data.Sequences(*pulses(500, 50, rng), per_step=True, batch_size=25)
    rc.Trainer(rc.Sequential(recurrent, linear), rc.MSE(), rc.Adam(0.02)).fit(data, epochs=20, progress=False)

    x, last = pulses(1, 120, rng)
    h, _ = recurrent(x)  # (1, T, 6): the state after each step
    right = np.sign(linear(h)) == last
    since = np.arange(120) - np.maximum.accumulate(np.where(x[0, :, 0] != 0, np.arange(120), 0))
    print(f"last pulses read off the state: {right.mean():.1%} right, the longest ago {since.max()} steps")

    if path:
        with drawing(path, rows=3, height=4.2, sharex=True) as (top, middle, bottom):
            top.stem(x[0, :, 0], markerfmt=" ", basefmt=" ")
            top.set_ylabel("input 1")
            middle.imshow(h[0].T, aspect="auto", cmap="RdBu", vmin=-1, vmax=1, interpolation="nearest")
            middle.set_ylabel("unit")
            bottom.plot(last[0, :, 0], "k", lw=3, alpha=0.3, label="last pulse")
            bottom.plot(linear(h)[0, :, 0], label="read off the state")
            bottom.set_xlabel("step")
            bottom.legend(loc="lower right")


if __name__ == "__main__":
    main(plot_file(__doc__))
