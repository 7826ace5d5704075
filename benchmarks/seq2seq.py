"""A training step of an encoder-decoder with attention, beside torch: its cells in a Python loop, and its best form.

Without input feeding torch runs the decoder as one nn.LSTM and all of the attention as two batched products. With it,
each step needs the output of the one before, so there is the loop alone.
"""

import argparse
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from agreement import check_agreement
from environment import enter_environment
from libraries import Task
from problems import Array
from timing import time_interleaved

__all__ = ["main"]

SHAPES = ("40,40,64,256", "40,40,16,128", "20,20,1,128")


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description="Seq2Seq with attention, training, float32, beside torch.")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--shapes", nargs="+", default=SHAPES, metavar="S,T,N,H")
    parser.add_argument("--attention", default="general", choices=("dot", "general", "concat"))
    parser.add_argument("--repeats", type=int, default=5, help="samples of each; default: 5")
    arguments = parser.parse_args()
    enter_environment(arguments.threads)
    print(f"threads: {arguments.threads}, attention: {arguments.attention}; torch's time over ours, minima")
    print(f"{'S,T,N,H':>14}{'input feeding':>15}{'ours, ms':>10}{'loop of cells':>15}{'best form':>11}")
    for shape in arguments.shapes:
        sizes = [int(size) for size in shape.split(",")]
        for feeding in (True, False):
            tasks = _tasks(sizes, arguments.attention, feeding)
            found = time_interleaved(tasks, arguments.repeats).tasks
            ours = found["rnncore"].seconds
            ratios = [f"{found[name].seconds / ours:.2f}" if name in found else "-" for name in ("loop", "best")]
            print(f"{shape:>14}{'yes' if feeding else 'no':>15}{ours * 1e3:>10.1f}{ratios[0]:>15}{ratios[1]:>11}")


def _tasks(sizes: Sequence[int], attention: str, feeding: bool) -> dict[str, Task]:
    """Return the same step in each library, after a check that outputs and gradients agree."""
    import torch

    import rnncore as rc

    S, T, N, H = sizes
    model = rc.Seq2Seq(rc.LSTM(H, H, rng=0), rc.LSTM(H, H, rng=1), attention, input_feeding=feeding, rng=2)
    rng = np.random.default_rng(3)
    source, target, dy = (rng.standard_normal((N, steps, H), dtype=np.float32) for steps in (S, T, T))

    names = ("y", "dsource", "dtarget", *model.parameters)

    def ours() -> list[Array]:
        (y, _), pull_back = model.vjp((source, target))
        model.zero_gradients()
        (dsource, dtarget), _ = pull_back(dy)
        return [y, dsource, dtarget, *model.gradients.values()]

    parameters = {name: torch.tensor(array, requires_grad=True) for name, array in model.parameters.items()}
    inputs = [torch.tensor(array, requires_grad=True) for array in (source, target)]
    cotangent = torch.tensor(dy)

    def step(decode: Callable[..., Any]) -> Callable[[], list[Array]]:
        def run() -> list[Array]:
            for leaf in (*inputs, *parameters.values()):
                leaf.grad = None
            memory, state = _encode(torch, parameters, inputs[0])
            y = decode(torch, parameters, inputs[1], memory, state, attention, feeding)
            y.backward(cotangent)
            return [y.detach().numpy(), *(leaf.grad.numpy() for leaf in (*inputs, *parameters.values()))]

        return run

    runs = {"rnncore": ours, "loop": step(_loop)} | ({} if feeding else {"best": step(_whole)})
    tasks = {name: Task(run, lambda arrays: dict(zip(names, arrays, strict=True))) for name, run in runs.items()}
    for name, task in tasks.items():
        check_agreement(name, task.results(task.run()), tasks["rnncore"].results(ours()))
    return tasks


def _encode(torch: Any, p: dict[str, Any], source: Any) -> tuple[Any, tuple[Any, Any]]:
    weights = [p[f"0.{name}_l0"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    zeros = source.new_zeros(1, len(source), weights[1].shape[1])
    y, h, c = torch.lstm(source, (zeros, zeros), weights, True, 1, 0.0, True, False, True)
    return y, (h[0], c[0])


def _keys(p: dict[str, Any], memory: Any, attention: str) -> Any:
    if attention == "dot":
        return memory
    if attention == "general":
        return memory @ p["2.weight_attention"].T
    return memory @ p["2.weight_memory"].T + p["2.bias_attention"]


def _attend(torch: Any, p: dict[str, Any], h: Any, keys: Any, memory: Any, attention: str) -> Any:
    """Return the output for states h (N, T, H)."""
    if attention == "concat":
        inside = torch.tanh((h @ p["2.weight_query"].T)[:, :, None] + keys[:, None])
        scores = inside @ p["2.weight_score"]
    else:
        scores = torch.bmm(h, keys.transpose(1, 2))
    context = torch.bmm(torch.softmax(scores, 2), memory)
    return torch.tanh(torch.cat([context, h], 2) @ p["2.weight_combine"].T + p["2.bias_combine"])


def _loop(
    torch: Any, p: dict[str, Any], target: Any, memory: Any, state: tuple[Any, Any], attention: str, feeding: bool
) -> Any:
    """Run nn.LSTMCell step by step."""
    weights = [p[f"1.{name}_l0"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    if feeding:
        weights[0] = torch.cat([weights[0], p["2.weight_feed"]], 1)
    keys = _keys(p, memory, attention)
    outputs: list[Any] = []
    a = torch.zeros_like(state[0])
    for x in target.unbind(1):
        state = torch.lstm_cell(torch.cat([x, a], 1) if feeding else x, state, *weights)
        a = _attend(torch, p, state[0][:, None], keys, memory, attention)[:, 0]
        outputs.append(a)
    return torch.stack(outputs, 1)


def _whole(
    torch: Any, p: dict[str, Any], target: Any, memory: Any, state: tuple[Any, Any], attention: str, feeding: bool
) -> Any:
    """Run nn.LSTM, then the attention of all steps at once."""
    weights = [p[f"1.{name}_l0"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    h = torch.lstm(target, tuple(part[None] for part in state), weights, True, 1, 0.0, True, False, True)[0]
    return _attend(torch, p, h, _keys(p, memory, attention), memory, attention)


if __name__ == "__main__":
    main()
