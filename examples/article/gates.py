"""Gates at work: what those of an LSTM and a GRU do while the network keeps a number for later.

Of a series of random numbers some are marked; the target is the marked one that came last. So the network must write
when there is a mark, and keep in between. Prints the means of the gates at marks and between them, and draws them
over time.
"""

import numpy as np
from drawing import drawing, plot_file

import rnncore as rc

H = 3


def marked(N: int, T: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return numbers and marks (N, T, 2), and the number marked last (N, T, 1)."""
    marks = rng.random((N, T)) < 0.1
    marks[:, 0] = True
    numbers = rng.uniform(-1, 1, size=(N, T))
    last = np.maximum.accumulate(np.where(marks, np.arange(T), 0), axis=1)
    x, y = np.stack([numbers, marks], axis=2), np.take_along_axis(numbers, last, axis=1)[..., np.newaxis]
    return x.astype(np.float32), y.astype(np.float32)


def gates(layer: rc.Layer, x: np.ndarray, names: str) -> dict[str, np.ndarray]:
    """Return each sigmoid gate (T, H) of a sequence x (T, 2), by the equations of the cell."""
    w = {name.removesuffix("_l0"): array for name, array in layer.parameters.items()}
    h = np.concatenate([np.zeros((1, H)), layer(x[np.newaxis])[0][0, :-1]])  # the state before each step
    a = x @ w["weight_ih"].T + w["bias_ih"] + h @ w["weight_hh"].T + w["bias_hh"]
    parts = dict(zip(names, np.split(a, len(names), axis=1), strict=True))
    return {name: 1 / (1 + np.exp(-part)) for name, part in parts.items() if name in "ifrzo"}


def main(path: str | None) -> None:
    """Train both, and look at their gates."""
    rng = np.random.default_rng(0)
    data = rc.data.Sequences(*marked(1000, 40, rng), per_step=True, batch_size=25)
    x, _ = marked(1, 60, rng)
    at, shown = x[0, :, 1] == 1, {}
    for layer, names, which in ((rc.LSTM(2, H, rng=0), "ifgo", "if"), (rc.GRU(2, H, rng=0), "rzn", "z")):
        model, kind = rc.Sequential(layer, rc.Linear(H, 1, rng=1)), type(layer).__name__
        history = rc.Trainer(model, rc.MSE(), rc.Adam(0.02), clip_norm=1.0).fit(data, epochs=15, progress=False)
        values = gates(layer, x[0], names)
        shown |= {f"{kind} {name}": values[name] for name in which}
        of_gates = ", ".join(f"{n} {values[n][at].mean():.2f} and {values[n][~at].mean():.2f}" for n in which)
        print(f"{kind}, loss {history['loss'][-1]:.4f}: gates at marks and between them: {of_gates}")

    if path:
        with drawing(path, rows=len(shown), height=4.5, sharex=True) as axes:
            for ax, (name, value) in zip(axes, shown.items(), strict=True):
                ax.imshow(value.T, aspect="auto", cmap="viridis", vmin=0, vmax=1, interpolation="nearest")
                ax.plot(np.flatnonzero(at), np.full(at.sum(), -0.9), "rv", ms=5, clip_on=False)
                ax.set_ylabel(name)
            axes[-1].set_xlabel("step; triangles are marks")


if __name__ == "__main__":
    main(plot_file(__doc__))
