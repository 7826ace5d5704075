"""CTC with its gradient: rnncore beside torch's log_softmax, ctc_loss and backward."""

import argparse

import numpy as np

from agreement import TOLERANCE, check_agreement
from environment import enter_environment
from libraries import Task
from problems import Array
from timing import time_interleaved

__all__ = ["main"]

SHAPES = ("200,32,60,40", "200,1,60,40", "50,16,30,10", "1000,8,30,100")
LARGEST_ERROR = 2e-2  # of a gradient in float32, torch's at 1000 steps among them


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description="CTC and its gradient, rnncore and torch: least times, in ms.")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--shapes", nargs="+", default=SHAPES, metavar="T,N,C,L", help="steps, batch, classes, labels")
    parser.add_argument("--repeats", type=int, default=20, help="samples of each; default: 20")
    arguments = parser.parse_args()
    enter_environment(arguments.threads)

    import torch

    torch.set_num_threads(arguments.threads)
    print(f"CTC, float32, threads: {arguments.threads}; the least of {arguments.repeats} samples, ms")
    print(f"in float64 they agree: {TOLERANCE}")
    print("error: of the float32 gradient against that of float64, over its largest magnitude")
    print(f"{'T,N,C,L':<16}{'rnncore':>10}{'torch':>10}{'ratio':>8}{'error':>10}{'torch':>10}")
    for shape in arguments.shapes:
        T, N, C, L = map(int, shape.split(","))
        rng = np.random.default_rng(0)
        outputs = rng.standard_normal((N, T, C), dtype=np.float32)
        targets = rng.integers(1, C, (N, L))
        exact, exact_torch = (_results(make(outputs.astype(np.float64), targets)) for make in (_rnncore, _torch))
        check_agreement(shape, exact_torch, exact)
        tasks = {"rnncore": _rnncore(outputs, targets), "torch": _torch(outputs, targets)}
        results = [_results(task) for task in tasks.values()]
        errors = [np.abs(r["gradient"] - exact["gradient"]).max() / np.abs(exact["gradient"]).max() for r in results]
        if max(errors) > LARGEST_ERROR:
            raise AssertionError(f"{shape}: gradients in float32 are off by {errors}")
        ours, theirs = (timing.seconds for timing in time_interleaved(tasks, arguments.repeats).tasks.values())
        print(f"{shape:<16}{ours * 1e3:>10.3f}{theirs * 1e3:>10.3f}{theirs / ours:>8.2f}", end="")
        print("".join(f"{error:>10.1e}" for error in errors), flush=True)


def _results(task: Task) -> dict[str, Array]:
    return task.results(task.run())


def _rnncore(outputs: Array, targets: Array) -> Task:
    import rnncore as rc

    loss = rc.CTC()

    def results(got: rc.LossGradient) -> dict[str, Array]:
        return {"value": np.asarray(got.value), "gradient": got.gradient}

    return Task(lambda: loss.with_gradient(outputs, targets), results)


def _torch(outputs: Array, targets: Array) -> Task:
    import torch

    x = torch.tensor(outputs, requires_grad=True)
    labels = torch.tensor(targets)
    N, T, _ = outputs.shape
    lengths, target_lengths = torch.full((N,), T), torch.full((N,), targets.shape[1])

    def run() -> torch.Tensor:
        x.grad = None
        log_softmax = x.log_softmax(-1).transpose(0, 1)
        loss = torch.nn.functional.ctc_loss(log_softmax, labels, lengths, target_lengths)
        loss.backward()
        return loss

    def results(loss: torch.Tensor) -> dict[str, Array]:
        assert x.grad is not None
        return {"value": loss.detach().numpy(), "gradient": x.grad.numpy().copy()}

    return Task(run, results)


if __name__ == "__main__":
    main()
