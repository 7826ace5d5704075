"""Sequences of any lengths: padded, packed and in lists, against a full batch and torch's PackedSequence."""

import argparse

import numpy as np

from agreement import check_agreement
from environment import enter_environment
from libraries import Task
from problems import MODES, Array
from timing import time_interleaved

__all__ = ["main"]

CELLS = "LSTM", "GRU"
OURS = "padded", "packed", "list"
TORCH = "torch", "torch, packing"


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description="Lengths uniform on 1 to T: least times of a valid step, in us.")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", nargs="+", type=int, default=(10, 100, 1000), metavar="T")
    parser.add_argument("--cells", nargs="+", default=CELLS, choices=CELLS)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--hidden", type=int, default=128, help="and inputs; default: 128")
    parser.add_argument("--repeats", type=int, default=20, help="samples of each, but 3 at T = 1000; default: 20")
    arguments = parser.parse_args()
    enter_environment(arguments.threads)

    import torch

    torch.set_num_threads(arguments.threads)
    N, H = arguments.batch, arguments.hidden
    print(f"one layer, {N} sequences of 1 to T steps, {H} inputs and hidden units, threads: {arguments.threads}")
    print(
        "a step of a full batch, us; times of a valid step over it; torch's over ours, packed already and with packing"
    )
    print(
        f"{'cell':<6}{'T':<6}{'mode':<10}{'full':>8}", *(f"{name:>8}" for name in OURS), f"{'torch':>10}{'packing':>9}"
    )
    for cell in arguments.cells:
        for T in arguments.steps:
            for mode in MODES:
                tasks, valid = _tasks(cell, T, N, H, mode)
                results = {name: task.results(task.run()) for name, task in tasks.items()}
                for name in (*OURS[1:], *TORCH):
                    check_agreement(f"{cell}, {T}, {mode}, {name}", results[name], results["padded"])
                repeats = max(3, min(arguments.repeats, 6000 // T))
                timings = time_interleaved(tasks, repeats).tasks
                us = {
                    name: timing.seconds * 1e6 / (N * T if name == "full" else valid)
                    for name, timing in timings.items()
                }
                ours = (f"{us[name] / us['full']:>9.2f}" for name in OURS)
                theirs = f"{us['torch'] / us['packed']:>9.1f}{us['torch, packing'] / us['list']:>9.1f}"
                print(f"{cell:<6}{T:<6}{mode:<10}{us['full']:>8.3f}", *ours, theirs, sep="", flush=True)


def _tasks(cell: str, T: int, N: int, H: int, mode: str) -> tuple[dict[str, Task], int]:
    """Return what is timed, and how many valid steps there are."""
    import torch
    from torch.nn.utils import rnn

    import rnncore as rc

    rng = np.random.default_rng(0)
    lengths = rng.integers(1, T + 1, N)
    x, dy = rng.standard_normal((2, N, T, H), dtype=np.float32)
    pieces, dys = ([row[:length].copy() for row, length in zip(a, lengths, strict=True)] for a in (x, dy))
    packed, dpacked = rc.Packed.from_list(pieces), rc.Packed.from_list(dys)
    layer = getattr(rc, cell)(H, H, rng=0)
    torch_layer = getattr(torch.nn, cell)(H, H)
    torch_layer.load_state_dict({name: torch.tensor(value) for name, value in layer.parameters.items()})
    torch_pieces = [torch.from_numpy(piece) for piece in pieces]
    torch_packed = rnn.pack_sequence(torch_pieces, enforce_sorted=False)
    # (which sorts sequences of equal length in an order of its own)
    torch_dy = torch.from_numpy(rc.Packed.from_torch_packed(torch_packed).arranged("dy", dys))

    def ours(series: object, gradient: object, lengths: Array | None = None) -> object:
        if mode == "forward":
            return layer(series, None, lengths)[0]
        layer.zero_gradients()
        (y, _), pull_back = layer.vjp(series, None, lengths)
        pull_back(gradient)
        return y

    def theirs(series: rnn.PackedSequence) -> rnn.PackedSequence:
        if mode == "forward":
            with torch.inference_mode():
                return torch_layer(series)[0]
        torch_layer.zero_grad()
        y, _ = torch_layer(series)
        y.data.backward(torch_dy)
        return y

    def theirs_from_list() -> object:
        y = theirs(rnn.pack_sequence(torch_pieces, enforce_sorted=False))
        rnn.pad_packed_sequence(y)
        return y

    def results(y: object) -> dict[str, Array]:
        if isinstance(y, np.ndarray):
            y = rc.Packed.from_padded(y, lengths)
        elif isinstance(y, list):
            y = rc.Packed.from_list(y)
        gradients = {} if mode == "forward" else {name: value.copy() for name, value in layer.gradients.items()}
        return {"y": np.concatenate(y.to_list()), **gradients}

    def results_of_torch(y: rnn.PackedSequence) -> dict[str, Array]:
        series = rc.Packed.from_torch_packed(rnn.PackedSequence(y.data.detach(), *y[1:]))
        parameters = torch_layer.named_parameters()
        gradients = {} if mode == "forward" else {name: value.grad.numpy().copy() for name, value in parameters}
        return {"y": np.concatenate(series.to_list()), **gradients}

    return {
        "full": Task(lambda: ours(x, dy), lambda y: {}),
        "padded": Task(lambda: ours(x, dy, lengths), results),
        "packed": Task(lambda: ours(packed, dpacked), results),
        "list": Task(lambda: ours(pieces, dys), results),
        "torch": Task(lambda: theirs(torch_packed), results_of_torch),
        "torch, packing": Task(theirs_from_list, results_of_torch),
    }, int(lengths.sum())


if __name__ == "__main__":
    main()
