"""Read strings of handwritten digits without being told where one digit ends and the next begins.

The digits of scikit-learn (8 x 8 pixels) stand side by side, 3 to 8 in a string, with 0 to 4 empty columns before each;
a column is a time step, and the target is the digits alone. A bidirectional LSTM is trained with CTC (Graves et al.
2006) on strings of three quarters of the images, and reads strings of the others: the most probable label at each step,
repetitions merged, blanks dropped. Prints the label error rate, edits over labels, before and after training. With the
digits cut apart for it, a logistic regression gets 4 % of these wrong.
"""

import argparse

import numpy as np

import rnncore as rc

PIXELS, DIGITS, HIDDEN, BLANK = 8, 10, 64, 0


def draw(images: np.ndarray, digits: np.ndarray, count: int, rng: np.random.Generator) -> rc.data.Sequences:
    """Return strings as series of columns (T_i, 8), and the labels of each: 1 to 10, as 0 is blank."""
    x, labels = [], []
    for length in rng.integers(3, 9, count):
        chosen = rng.integers(len(images), size=length)
        gaps = rng.integers(5, size=length)
        x.append(np.concatenate([np.pad(images[k].T, ((g, 0), (0, 0))) for k, g in zip(chosen, gaps, strict=True)]))
        labels.append(digits[chosen] + 1)
    return rc.data.Sequences(x, labels, per_step=False, batch_size=16)


def main() -> None:
    """Train, and read what was held out."""
    parser = argparse.ArgumentParser(description="Read strings of handwritten digits with CTC.")
    parser.add_argument("--epochs", type=int, default=12, help="times to read the training strings")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise SystemExit("needs the digits that scikit-learn ships: pip install scikit-learn") from None
    rng, source = np.random.default_rng(options.seed), load_digits()
    images = np.float32(source.images / 16)
    images, others, digits, other_digits = rc.data.split(images, source.target, validation=0.25, rng=rng)
    train, test = draw(images, digits, 2000, rng), draw(others, other_digits, 500, rng)
    model = rc.Sequential(
        rc.LSTM(PIXELS, HIDDEN, bidirectional=True, rng=rng), rc.Linear(2 * HIDDEN, 1 + DIGITS, rng=rng)
    )
    rate = rc.schedules.Cosine(0.01, steps=options.epochs * len(train.epoch()))
    trainer = rc.Trainer(
        model, rc.CTC(BLANK), rc.Adam(rate), clip_norm=1.0, metrics=[rc.metrics.LabelErrorRate(BLANK)], rng=rng
    )
    print(f"nothing learnt: label error rate {trainer.evaluate(test)['label_error_rate']:.1%}", flush=True)
    trainer.fit(train, options.epochs)
    print(f"held-out digits: label error rate {trainer.evaluate(test)['label_error_rate']:.1%}")


if __name__ == "__main__":
    main()
