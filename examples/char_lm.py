"""Train a character language model and let it write.

The text is CPython's language reference, half a million characters, the last tenth held out; 32 streams of it are read
side by side, 64 characters at a time, each piece from the state the LSTM had after the last. Prints the loss of every
epoch, the speed of training, the loss on the held-out text and a continuation of it. numpy_backend.py is the same model
without the trainer; benchmarks/char_lm.py trains it beside torch.
"""

import argparse
from pydoc_data.topics import topics

import numpy as np

import rnncore as rc

LANES, STEPS, EMBEDDING, HIDDEN = 32, 64, 64, 256
LEARNING_RATE, BETAS, CLIP_NORM, TEMPERATURE = 4e-3, (0.9, 0.99), 1.0, 0.7


class Print(rc.Callback):
    """Print what every epoch came to."""

    def on_epoch(self, trainer: rc.Trainer, row: dict[str, float]) -> None:
        """Print one line."""
        print(f"epoch {row['epoch']}: {row['bits_per_character']:.2f} bits per character", flush=True)


def read_topics() -> tuple[np.ndarray, np.ndarray]:
    """Return the alphabet of the text, in order, and the text as indices into it."""
    return np.unique(list("\n".join(topics.values())), return_inverse=True)


def write(model: rc.Layer, text: np.ndarray, count: int, rng: np.random.Generator) -> list[int]:
    """Continue a text by so many characters, each drawn from what the model expects after those before it."""
    logits, state = model.run(text[None])
    written: list[int] = []
    for _ in range(count):
        scores = logits[0, -1] / TEMPERATURE
        written.append(int(np.argmax(scores + rng.gumbel(size=scores.size))))  # a draw from softmax(scores)
        logits, state = model.run(np.array([written[-1:]]), state)
    return written


def main() -> None:
    """Train, evaluate, write."""
    parser = argparse.ArgumentParser(description="Train a character language model and let it write.")
    parser.add_argument("--epochs", type=int, default=5, help="times to read the text")
    parser.add_argument("--share", type=float, default=1.0, help="how much of the text to read, from its beginning")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--characters", type=int, default=400, help="how many to write")
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    alphabet, text = read_topics()
    training, held_out = rc.data.split_series(text, validation=0.1)
    data = rc.data.Streams(
        training[: round(options.share * len(training))], batch_size=LANES, steps=STEPS, drop_last=True
    )

    V, updates = len(alphabet), options.epochs * len(data.epoch())
    linear = rc.Linear(HIDDEN, V)
    rc.init.glorot(linear, rng)  # learns sooner than from torch's smaller weights
    model = rc.Sequential(rc.Embedding(V, EMBEDDING, rng=rng), rc.LSTM(EMBEDDING, HIDDEN, rng=rng), linear)
    adam = rc.Adam(lambda step: LEARNING_RATE * (1 - step / updates), betas=BETAS)
    trainer = rc.Trainer(
        model, rc.CrossEntropy(), adam, clip_norm=CLIP_NORM, metrics=["bits_per_character"], callbacks=[Print()]
    )
    history = trainer.fit(data, options.epochs)
    speed = sum(batch.x.size for batch in data) * options.epochs / sum(history["seconds"])

    bits = trainer.evaluate(rc.data.Streams(held_out, batch_size=1, steps=1000))["bits_per_character"]
    print(f"held out: {bits:.2f} bits per character, {speed:,.0f} characters/s", flush=True)
    print("".join(alphabet[write(model, held_out[-1000:], options.characters, rng)]))


if __name__ == "__main__":
    main()
