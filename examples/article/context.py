"""The same input, different outputs: what comes next in a wave depends on whether it is rising or falling.

A feed-forward network that sees one value cannot know. A recurrent one can: its state tells where the values came from.
Prints what both expect after the same value, and draws it.
"""

import numpy as np
from drawing import drawing, plot_file

import rnncore as rc


def main(path: str | None) -> None:
    """Train both, and ask them about the same value."""
    rng = np.random.default_rng(0)
    phase = rng.uniform(0, 2 * np.pi, size=(200, 1))
    waves = np.sin(phase + 0.3 * np.arange(31))[..., np.newaxis].astype(np.float32)
    data = rc.data.Sequences(waves[:, :-1], waves[:, 1:], per_step=True, batch_size=20)  # the target is the next value
    models = {
        "feed-forward": rc.Sequential(rc.Linear(1, 16, activation="tanh", rng=0), rc.Linear(16, 1, rng=1)),
        "recurrent": rc.Sequential(rc.RNN(1, 16, rng=0), rc.Linear(16, 1, rng=1)),
    }

    # two histories that end in the same value
    steps = 0.3 * np.arange(-15, 1)
    rising, falling = np.sin(np.arcsin(0.5) + steps), np.sin(np.pi - np.arcsin(0.5) + steps)
    histories = np.stack([rising, falling])[..., np.newaxis].astype(np.float32)
    truth = np.sin(np.arcsin(0.5) + 0.3), np.sin(np.pi - np.arcsin(0.5) + 0.3)
    print(f"after 0.50: {truth[0]:.2f} if it was rising, {truth[1]:.2f} if it was falling")
    expected = {}
    for name, model in models.items():
        rc.Trainer(model, rc.MSE(), rc.Adam(0.01)).fit(data, epochs=15, progress=False)
        expected[name] = model(histories)[:, -1, 0]
        print(f"{name}: {expected[name][0]:.2f} if it was rising, {expected[name][1]:.2f} if it was falling")

    if path:
        with drawing(path, columns=2, sharey=True) as axes:
            for n, (ax, title) in enumerate(zip(axes, ("rising", "falling"), strict=True)):
                ax.plot(range(-15, 1), histories[n], "k.-", label="read so far")
                ax.axhline(0.5, color="k", lw=0.5, ls=":")
                for name, marker in (("feed-forward", "s"), ("recurrent", "o")):
                    ax.plot(1, expected[name][n], marker, label=name)
                ax.set(title=title, xlabel="step", xticks=[-15, -10, -5, 0])
            axes[0].legend(loc="lower left")


if __name__ == "__main__":
    main(plot_file(__doc__))
