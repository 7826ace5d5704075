"""One to many, many to one, many to many: waves from frequencies, frequencies from waves, waves without their noise.

The layers are the same, only what is repeated and what is kept differs. Prints for each the mean squared error over
the variance of the target, on waves not seen in training: guessing the mean would get 1.
"""

import numpy as np
from drawing import drawing, plot_file

import rnncore as rc

T = 40


def main(path: str | None) -> None:
    """Train a network of each shape on the same waves."""
    rng = np.random.default_rng(0)
    frequency = rng.uniform(0.1, 0.5, size=(1200, 1)).astype(np.float32)
    wave = np.sin(frequency * np.arange(1, T + 1, dtype=np.float32))[..., np.newaxis]
    noisy = wave + 0.5 * rng.standard_normal(wave.shape, dtype=np.float32)
    shapes = {
        "one to many": (frequency, wave, rc.Sequential(rc.Repeat(T), rc.GRU(1, 32, rng=0), rc.Linear(32, 1, rng=1))),
        "many to one": (wave, frequency, rc.Sequential(rc.GRU(1, 32, rng=0), rc.Last(), rc.Linear(32, 1, rng=1))),
        "many to many": (noisy, wave, rc.Sequential(rc.GRU(1, 32, rng=0), rc.Linear(32, 1, rng=1))),
    }
    outputs = {}
    for name, (x, target, model) in shapes.items():
        trainer = rc.Trainer(model, rc.MSE(), rc.Adam(rc.schedules.Cosine(0.02, steps=800)), clip_norm=1.0)
        for _ in range(800):
            rows = rng.integers(1000, size=25)
            trainer.step(x[rows], target[rows])
        outputs[name] = model(x[1000:])
        error = np.square(outputs[name] - target[1000:]).mean() / target[1000:].var()
        print(f"{name}: {x.shape[1:]} to {target.shape[1:]}, error {error:.3f}")

    if path:
        with drawing(path, columns=3) as (first, second, third):
            first.plot(wave[1000], "k", lw=3, alpha=0.3)
            first.plot(outputs["one to many"][0])
            second.plot(frequency[1000:], outputs["many to one"], ".")
            second.set(xlabel="frequency", ylabel="read from the wave")
            third.plot(noisy[1000], "k.", ms=3)
            third.plot(wave[1000], "k", lw=3, alpha=0.3)
            third.plot(outputs["many to many"][0])
            for ax, name in zip((first, second, third), shapes, strict=True):
                ax.set_title(name)


if __name__ == "__main__":
    main(plot_file(__doc__))
