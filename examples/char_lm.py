"""Train a character language model in NumPy, with rnncore for the recurrent layer, and let it write.

The text is the language reference that comes with CPython, half a million characters; the last tenth is held out.
The model is an embedding, an LSTM and a softmax, trained with Adam by truncated back-propagation through time: 32
streams of text are read side by side, 64 characters at a time, each piece from the state the one before it left.

Prints the loss and the speed while it trains, then the loss on the held-out text, and then what the model writes,
each character drawn from the model's prediction after the ones before it.
"""

import argparse
import math
import time
from pydoc_data.topics import topics
from typing import Any

import numpy as np
from numpy.typing import NDArray

import rnncore

Array = NDArray[Any]
STREAMS, STEPS, EMBEDDING, HIDDEN = 32, 64, 64, 256
LEARNING_RATE, BETA1, BETA2, CLIP_NORM = 4e-3, 0.9, 0.99, 1.0
TEMPERATURE = 0.7  # of writing: below 1, likely characters become likelier


class CharacterModel:
    """Predicts each character of a text from those before it; characters are numbers from 0 to V - 1."""

    def __init__(self, V: int, rng: np.random.Generator) -> None:
        self.embedding = rng.standard_normal((V, EMBEDDING), dtype=np.float32)
        self.lstm = rnncore.LSTM(EMBEDDING, HIDDEN, rng=rng)
        self.lstm.parameters["bias_ih_l0"][HIDDEN : 2 * HIDDEN] = 1.0  # forget gates start open
        self.weight = rng.standard_normal((HIDDEN, V), dtype=np.float32) / HIDDEN**0.5
        self.bias = np.zeros(V, np.float32)
        self.parameters = [self.embedding, self.lstm.flat_parameters, self.weight, self.bias]
        self.moments = [(np.zeros_like(p), np.zeros_like(p)) for p in self.parameters]

    def predict(self, tokens: Array, state: Any) -> tuple[Array, Any]:
        """Return the logits (N*T, V) of the character after each of `tokens` (N, T), and the state reached."""
        y, state = self.lstm(self.embedding[tokens], state)
        return y.reshape(-1, HIDDEN) @ self.weight + self.bias, state

    def gradients(self, tokens: Array, targets: Array, state: Any) -> tuple[float, list[Array], Any]:
        """Return the loss, its gradients with respect to `parameters`, and the state reached."""
        (y, state), pull_back = self.lstm.vjp(self.embedding[tokens], state)
        rows = y.reshape(-1, HIDDEN)
        loss, dlogits = cross_entropy(rows @ self.weight + self.bias, targets.ravel())
        self.lstm.zero_gradients()  # pull_back adds to them
        dx, _ = pull_back((dlogits @ self.weight.T).reshape(y.shape))
        one_hot = np.eye(len(self.embedding), dtype=np.float32)[tokens.ravel()]
        dembedding = one_hot.T @ dx.reshape(-1, EMBEDDING)
        return loss, [dembedding, self.lstm.flat_gradients, rows.T @ dlogits, dlogits.sum(axis=0)], state

    def adam(self, gradients: list[Array], step: int, rate: float) -> None:
        """Take Adam's step number `step`, from 1, with the norm of the whole gradient clipped."""
        scale = min(1.0, CLIP_NORM / math.sqrt(sum(float(np.vdot(g, g)) for g in gradients)))
        rate *= math.sqrt(1 - BETA2**step) / (1 - BETA1**step)
        for p, g, (mean, square) in zip(self.parameters, gradients, self.moments, strict=True):
            g *= scale
            mean += (1 - BETA1) * (g - mean)
            square += (1 - BETA2) * (g * g - square)
            p -= rate * mean / (np.sqrt(square) + 1e-8)


def cross_entropy(logits: Array, targets: Array) -> tuple[float, Array]:
    """Return the mean loss in bits, and its gradient in nats, which overwrites `logits`."""
    at_targets = np.arange(len(targets)), targets
    logits -= logits.max(axis=1, keepdims=True)
    log_p = logits[at_targets]
    np.exp(logits, out=logits)
    total = logits.sum(axis=1, keepdims=True)
    log_p -= np.log(total[:, 0])
    logits /= total
    logits[at_targets] -= 1
    logits /= len(targets)
    return -float(log_p.mean()) / math.log(2), logits


def pieces(text: Array, streams: int, steps: int) -> list[tuple[Array, Array]]:
    """Cut a text into parallel streams, and these into pieces (N, T) of characters, each with the ones that follow."""
    length = (len(text) - 1) // streams
    tokens, targets = (text[s : s + streams * length].reshape(streams, length) for s in (0, 1))
    return [(tokens[:, t : t + steps], targets[:, t : t + steps]) for t in range(0, length, steps)]


def main() -> None:
    """Train, evaluate, write."""
    parser = argparse.ArgumentParser(description="Train a character language model on Python's own documentation.")
    parser.add_argument("--epochs", type=float, default=9.0, help="times to read the text; may be a fraction")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--characters", type=int, default=400, help="how many to write")
    arguments = parser.parse_args()

    rng = np.random.default_rng(arguments.seed)
    alphabet, text = np.unique(list("\n".join(topics.values())), return_inverse=True)
    model = CharacterModel(len(alphabet), rng)
    training, held_out = np.split(text, [len(text) * 9 // 10])

    batches, losses = pieces(training, STREAMS, STEPS), []
    updates, start = max(1, round(arguments.epochs * len(batches))), time.perf_counter()
    for k in range(1, updates + 1):
        tokens, targets = batches[(k - 1) % len(batches)]
        ...
