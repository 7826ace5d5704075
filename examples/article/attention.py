"""Encoder, decoder, attention: ten digits are read, and written in reverse.

The encoder's outputs are a memory. At every step the decoder scores them against its state, by dot products, and
takes their mean, weighted by the softmax of the scores (Luong et al. 2015). Nobody tells it where to look. Prints how
many new sequences it reverses without an error, and draws where it looked.
"""

import numpy as np
from drawing import drawing, plot_file

import rnncore as rc

START, T, H = 10, 10, 48
encoder = rc.Sequential(rc.Embedding(10, 16, rng=0), rc.GRU(16, H, rng=1))
decoder = rc.Sequential(rc.Embedding(11, 16, rng=2), rc.GRU(16, H, rng=3))
head = rc.Sequential(rc.Linear(2 * H, H, activation="tanh", rng=4), rc.Linear(H, 10, rng=5))


def attend(q: np.ndarray, m: np.ndarray) -> tuple:
    """Return the means (N, T, H) of m (N, S, H) for queries q (N, T, H), their weights (N, T, S), and the pull-back."""
    scores = q @ m.swapaxes(1, 2)
    a = np.exp(scores - scores.max(axis=2, keepdims=True))
    a /= a.sum(axis=2, keepdims=True)

    def pull_back(dc: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        da = dc @ m.swapaxes(1, 2)
        dscores = a * (da - (a * da).sum(axis=2, keepdims=True))
        return dscores @ m, dscores.swapaxes(1, 2) @ q + a.swapaxes(1, 2) @ dc

    return a @ m, a, pull_back


def gradients(digits: np.ndarray) -> None:
    """Leave the gradients of the loss in the three models; the decoder reads the right digits."""
    reverse = digits[:, ::-1]
    (m, _), pull_encoder = encoder.vjp(digits)
    (q, _), pull_decoder = decoder.vjp(np.insert(reverse[:, :-1], 0, START, axis=1))
    c, _, pull_attention = attend(q, m)
    (logits, _), pull_head = head.vjp(np.concatenate([c, q], axis=2))
    dc, dq = np.split(pull_head(rc.CrossEntropy().with_gradient(logits, reverse).gradient)[0], 2, axis=2)
    dq_of_scores, dm = pull_attention(dc)
    pull_decoder(dq + dq_of_scores)
    pull_encoder(dm)


def main(path: str | None) -> None:
    """Train, decode, compare."""
    rng = np.random.default_rng(0)
    models = [(model, rc.Adam(rc.schedules.Cosine(0.01, steps=400))) for model in (encoder, decoder, head)]
    for _ in range(400):
        for model, _ in models:
            model.zero_gradients()
        gradients(rng.integers(10, size=(64, T)))
        for model, optimizer in models:
            rc.clip_norm(model.flat_gradients, 1.0)
            optimizer.step(model.flat_parameters, model.flat_gradients)

    digits = rng.integers(10, size=(200, T))
    digits[0] = rng.permutation(T)  # to be drawn
    memory = encoder(digits)

    def step(tokens: np.ndarray, state: tuple) -> tuple:
        q, state = decoder.run(tokens[:, np.newaxis], state)
        c, a, _ = attend(q, memory)
        return head(np.concatenate([c, q], axis=2))[:, 0], state, a[:, 0]

    found = rc.decoding.greedy(step, None, np.full(200, START), end=None, max_steps=T)
    right = [np.array_equal(one.tokens, row[::-1]) for one, row in zip(found, digits, strict=True)]
    print(f"{np.mean(right):.0%} of 200 new sequences are reversed without an error")
    if path:
        with drawing(path, height=3.5) as ax:
            rc.plot_attention(found[0].attention, source=digits[0], target=found[0].tokens, ax=ax)


if __name__ == "__main__":
    main(plot_file(__doc__))
