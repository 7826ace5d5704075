"""An embedding and an LSTM on tokens: rnncore's as one, one after the other, and torch's."""

import argparse

import numpy as np

from agreement import check_agreement
from environment import enter_environment
from libraries import Task
from problems import MODES, Array
from timing import time_interleaved

__all__ = ["main"]

SHAPES = ("97,100,32,32,128", "97,100,1,32,128", "2000,100,32,64,128", "50000,100,32,32,128", "50000,100,32,256,256")


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description="Embedding and LSTM, as one, apart, and torch's: least times, in ms.")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--shapes", nargs="+", default=SHAPES, metavar="V,T,N,E,H", help="tokens, steps, batch, ...")
    parser.add_argument("--repeats", type=int, default=20, help="samples of each; default: 20")
    arguments = parser.parse_args()
    enter_environment(arguments.threads)

    import torch

    torch.set_num_threads(arguments.threads)
    print(f"Embedding(V, E) and LSTM(E, H), float32, threads: {arguments.threads}")
    print(f"the least of {arguments.repeats} samples, ms; ratios: time over that of the two as one")
    print(f"{'V,T,N,E,H':<24}{'mode':<10}{'as one':>8}{'apart':>8}{'torch':>8}{'apart':>8}{'torch':>8}")
    for shape in arguments.shapes:
        for mode in MODES:
            tasks = _tasks([int(size) for size in shape.split(",")], mode)
            results = {name: task.results(task.run()) for name, task in tasks.items()}
            for name in ("apart", "torch"):
                check_agreement(f"{shape}, {mode}, {name}", results[name], results["as one"])
            timings = time_interleaved(tasks, arguments.repeats).tasks.values()
            one, apart, theirs = (timing.seconds * 1e3 for timing in timings)
            print(f"{shape:<24}{mode:<10}{one:>8.3f}{apart:>8.3f}{theirs:>8.3f}", end="")
            print(f"{apart / one:>8.2f}{theirs / one:>8.2f}", flush=True)


def _tasks(sizes: list[int], mode: str) -> dict[str, Task]:
    import torch

    import rnncore as rc

    V, T, N, E, H = sizes
    rng = np.random.default_rng(0)
    tokens, dy = rng.integers(0, V, (N, T)), rng.standard_normal((N, T, H), dtype=np.float32)
    model = rc.Sequential(rc.Embedding(V, E, rng=1), rc.LSTM(E, H, rng=2))
    embedding, lstm = model.layers
    torch_embedding, torch_lstm = torch.nn.Embedding(V, E), torch.nn.LSTM(E, H, batch_first=True)
    for layer, ours in ((torch_embedding, embedding), (torch_lstm, lstm)):
        layer.load_state_dict({name: torch.tensor(value) for name, value in ours.parameters.items()})
    torch_tokens, torch_dy = torch.tensor(tokens), torch.tensor(dy)
    torch_parameters = [*torch_embedding.parameters(), *torch_lstm.parameters()]

    def as_one() -> Array:
        if mode == "forward":
            return model(tokens)
        model.zero_gradients()
        (y, _), pull_back = model.vjp(tokens)
        pull_back(dy)
        return y

    def apart() -> Array:
        if mode == "forward":
            return lstm(embedding(tokens))[0]
        model.zero_gradients()
        (vectors, _), back_to_tokens = embedding.vjp(tokens)
        (y, _), back_to_vectors = lstm.vjp(vectors)
        back_to_tokens(back_to_vectors(dy)[0])
        return y

    def of_torch() -> torch.Tensor:
        if mode == "forward":
            with torch.inference_mode():
                return torch_lstm(torch_embedding(torch_tokens))[0]
        for parameter in torch_parameters:
            parameter.grad = None
        y = torch_lstm(torch_embedding(torch_tokens))[0]
        y.backward(torch_dy)
        return y

    def results(y: Array) -> dict[str, Array]:
        gradients = {} if mode == "forward" else {name: value.copy() for name, value in model.gradients.items()}
        return {"y": y, **gradients}

    def results_of_torch(y: torch.Tensor) -> dict[str, Array]:
        gradients = [] if mode == "forward" else [p.grad.numpy() for p in torch_parameters if p.grad is not None]
        return {"y": y.detach().numpy(), **dict(zip(model.parameters, gradients, strict=False))}

    return {
        "as one": Task(as_one, results),
        "apart": Task(apart, results),
        "torch": Task(of_torch, results_of_torch),
    }


if __name__ == "__main__":
    main()
