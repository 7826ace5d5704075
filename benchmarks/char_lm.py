"""Training of the language model of examples/char_lm.py: rnncore beside torch, same weights, same text."""

import argparse
import os
import time
from collections.abc import Callable
from pydoc_data.topics import topics

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # NumPy's threads would spin in the way of both
import numpy as np

import rnncore as rc

__all__ = ["main"]

LANES, STEPS, EMBEDDING, HIDDEN = 32, 64, 64, 256
LEARNING_RATE, BETAS, CLIP_NORM = 4e-3, (0.9, 0.99), 1.0
COMPARED, TOLERANCE = 10, 1e-3  # first losses, in nats, and how far apart they may be
PAUSE_SECONDS = 0.05  # before a block: the threads of the library before stop spinning

Update = Callable[[rc.data.Batch], float]


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description="Training of a language model, rnncore and torch: characters a second."
    )
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--blocks", type=int, default=40, help="of updates, in turn; default: 40")
    parser.add_argument("--updates", type=int, default=5, help="in a block; default: 5")
    arguments = parser.parse_args()

    import torch

    alphabet, text = np.unique(list("\n".join(topics.values())), return_inverse=True)
    epoch = rc.data.Streams(text, batch_size=LANES, steps=STEPS, drop_last=True).epoch()
    total = arguments.blocks * arguments.updates
    print(f"{LANES} lanes, {STEPS} steps, {EMBEDDING} to {HIDDEN} units, float32; characters/s in the fastest block")
    print(f"{'threads':>7}{'rnncore':>10}{'torch':>10}{'ratio':>8}{'  losses differ by':>18}")
    for threads in map(int, arguments.threads.split(",")):
        rc.set_num_threads(threads)
        torch.set_num_threads(threads)
        theirs, weights = _torch(len(alphabet), total)
        updates = {"rnncore": _rnncore(len(alphabet), total, weights), "torch": theirs}
        losses: dict[str, list[float]] = {name: [] for name in updates}
        seconds: dict[str, list[float]] = {name: [] for name in updates}
        for block in range(arguments.blocks):
            batches = [epoch[k % len(epoch)] for k in range(block * arguments.updates, (block + 1) * arguments.updates)]
            for name, update in updates.items():
                time.sleep(PAUSE_SECONDS)
                start = time.perf_counter()
                losses[name] += [update(batch) for batch in batches]
                seconds[name].append(time.perf_counter() - start)
        difference = np.abs(np.subtract(*(values[:COMPARED] for values in losses.values()))).max()
        if not difference < TOLERANCE:
            raise AssertionError(f"the first {COMPARED} losses differ by {difference}")
        ours, other = (LANES * STEPS * arguments.updates / min(seconds[name]) for name in updates)
        print(f"{threads:>7}{ours:>10,.0f}{other:>10,.0f}{ours / other:>8.2f}{difference:>18.1e}", flush=True)


def _rnncore(V: int, total: int, weights: dict[str, np.ndarray]) -> Update:
    model = rc.Sequential(rc.Embedding(V, EMBEDDING), rc.LSTM(EMBEDDING, HIDDEN), rc.Linear(HIDDEN, V))
    model.load_parameters(weights)
    adam = rc.Adam(lambda step: LEARNING_RATE * (1 - step / total), betas=BETAS)
    trainer = rc.Trainer(model, rc.CrossEntropy(), adam, clip_norm=CLIP_NORM)
    state = None

    def update(batch: rc.data.Batch) -> float:
        nonlocal state
        loss, state = trainer.step(batch.x, batch.targets, state=state if batch.carry else None)
        return loss

    return update


def _torch(V: int, total: int) -> tuple[Update, dict[str, np.ndarray]]:
    import torch

    torch.manual_seed(0)
    embedding = torch.nn.Embedding(V, EMBEDDING)
    lstm = torch.nn.LSTM(EMBEDDING, HIDDEN, batch_first=True)
    linear = torch.nn.Linear(HIDDEN, V)
    model = torch.nn.ModuleList([embedding, lstm, linear])  # names of parameters as Sequential has them
    adam = torch.optim.Adam(model.parameters(), LEARNING_RATE, BETAS)
    falling = torch.optim.lr_scheduler.LambdaLR(adam, lambda step: 1 - step / total)
    state = None

    def update(batch: rc.data.Batch) -> float:
        nonlocal state
        y, state = lstm(embedding(torch.from_numpy(batch.x)), state if batch.carry else None)
        state = tuple(part.detach() for part in state)
        logits = linear(y)
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.from_numpy(batch.targets).flatten())
        adam.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
        adam.step()
        falling.step()
        return loss.item()

    return update, {name: value.numpy().copy() for name, value in model.state_dict().items()}


if __name__ == "__main__":
    main()
