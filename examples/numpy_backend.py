"""The model of char_lm.py as a program in plain NumPy, for which rnncore is the LSTM alone.

This is how to put a layer into a training loop of your own: embedding, softmax and Adam stand here, the LSTM gives its
output and pulls gradients back. The text is CPython's language reference, half a million characters, the last tenth
held out; 32 streams of it are read side by side, 64 characters at a time, each piece from the state the LSTM had after
the last. Prints loss and speed, the loss on the held-out text and a continuation.
"""

import argparse
import os
import time
from pydoc_data.topics import topics

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # its idle threads would spin in rnncore's way
import numpy as np

import rnncore

STREAMS, STEPS, EMBEDDING, HIDDEN = 32, 64, 64, 256
LEARNING_RATE, BETA1, BETA2, CLIP_NORM, TEMPERATURE = 4e-3, 0.9, 0.99, 1.0, 0.7


class CharacterModel:
    """Predicts each character of a text from those before it; a character is a number from 0 to V - 1."""

    def __init__(self, V: int, rng: np.random.Generator) -> None:
        self.lstm = rnncore.LSTM(EMBEDDING, HIDDEN, rng=rng)
        self.embedding = rng.standard_normal((V, EMBEDDING), dtype=np.float32)
        self.weight = rng.standard_normal((HIDDEN, V), dtype=np.float32) / HIDDEN**0.5
        self.bias = np.zeros(V, np.float32)
        self.parameters = [self.lstm.flat_parameters, self.embedding, self.weight, self.bias]
        self.moments = [(np.zeros_like(p), np.zeros_like(p)) for p in self.parameters]

    def predict(self, tokens: np.ndarray, state: object = None) -> tuple[np.ndarray, object]:
        """Return the logits (N*T, V) of the character after each of `tokens` (N, T), and the new state."""
        y, state = self.lstm(self.embedding[tokens], state)
        return y.reshape(-1, HIDDEN) @ self.weight + self.bias, state

    def update(self, text: np.ndarray, state: object, step: int, rate: float) -> tuple[float, object]:
        """Take a step of Adam to predict text[:, 1:] from text[:, :-1]; return the loss and the new state."""
        tokens, targets = text[:, :-1], text[:, 1:]
        (y, state), pull_back = self.lstm.vjp(self.embedding[tokens], state)
        rows = y.reshape(-1, HIDDEN)
        loss, dlogits = cross_entropy(rows @ self.weight + self.bias, targets.ravel())
        self.lstm.zero_gradients()  # pull_back adds to them
        dx = pull_back((dlogits @ self.weight.T).reshape(y.shape))[0].reshape(-1, EMBEDDING)
        one_hot = np.eye(len(self.embedding), dtype=np.float32)[tokens.ravel()]
        gradients = [self.lstm.flat_gradients, one_hot.T @ dx, rows.T @ dlogits, dlogits.sum(axis=0)]
        clip = min(1.0, CLIP_NORM / sum(float(np.vdot(g, g)) for g in gradients) ** 0.5)
        rate *= (1 - BETA2**step) ** 0.5 / (1 - BETA1**step)
        for p, g, (mean, square) in zip(self.parameters, gradients, self.moments, strict=True):
            g *= clip
            mean += (1 - BETA1) * (g - mean)
            square += (1 - BETA2) * (g * g - square)
            p -= rate * mean / (np.sqrt(square) + 1e-8)
        return loss, state


def cross_entropy(logits: np.ndarray, targets: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the mean loss in bits, and the gradient of the mean loss in nats."""
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    loss = float(-np.log2(p[np.arange(len(p)), targets]).mean())
    p[np.arange(len(p)), targets] -= 1
    return loss, p / len(targets)


def main() -> None:
    """Train, evaluate, write."""
    parser = argparse.ArgumentParser(description="Train a character language model in NumPy and let it write.")
    parser.add_argument("--epochs", type=float, default=5, help="times to read the text, fractions too")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--characters", type=int, default=400, help="how many to write")
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    alphabet, text = np.unique(list("\n".join(topics.values())), return_inverse=True)
    training, held_out = np.split(text, [len(text) * 9 // 10 // STREAMS * STREAMS])
    streams = training.reshape(STREAMS, -1)
    starts = range(0, streams.shape[1] - STEPS, STEPS)
    updates = max(1, round(options.epochs * len(starts)))
    model, state, losses, clock = CharacterModel(len(alphabet), rng), None, [], time.perf_counter()
    for k in range(updates):
        t, rate = starts[k % len(starts)], LEARNING_RATE * (1 - k / updates)
        loss, state = model.update(streams[:, t : t + STEPS + 1], state if t else None, k + 1, rate)
        losses.append(loss)
        bits, speed = np.mean(losses[-100:]), STREAMS * STEPS * (k + 1) / (time.perf_counter() - clock)
        if (k + 1) % 100 == 0:
            print(f"{k + 1}/{updates}: {bits:.2f} bits per character, {speed:,.0f} characters/s", flush=True)
    logits, state = model.predict(held_out[None])
    loss, _ = cross_entropy(logits[:-1], held_out[1:])
    print(f"held out: {loss:.2f} bits per character, {speed:,.0f} characters/s", flush=True)
    for _ in range(options.characters):
        token = np.argmax(logits[-1] / TEMPERATURE + rng.gumbel(size=len(alphabet)))  # a draw from softmax
        print(alphabet[token], end="", flush=True)
        logits, state = model.predict(np.array([[token]]), state)
    print()


if __name__ == "__main__":
    main()
