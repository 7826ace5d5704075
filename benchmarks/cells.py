"""What each cell and option costs: its time over that of the plain cell, forward with packed weights and in training.

Before anything is timed, every layer is checked against the float64 oracle on a small batch.
"""

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np

from environment import enter_environment
from libraries import Task
from timing import time_interleaved

__all__ = ["main"]

# Each group begins with the layer to compare with: a class of the package and its options.
GROUPS: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "LSTM": [
        ("LSTM", {}),
        ("LSTM", {"peephole": True}),
        ("LSTM", {"coupled_gates": True}),
        ("LSTM", {"proj_size": "half"}),
        ("LSTM", {"cell_clip": 1.0}),
        ("LSTM", {"gate_clip": 3.0}),
        ("LSTM", {"layer_norm": True}),
        ("LSTM", {"recurrent_activation": "hard_sigmoid"}),
        ("LSTM", {"activation": "relu"}),
        ("LSTM", {"zoneout": 0.1}),
        ("LSTM", {"recurrent_dropout": 0.1}),
        ("LSTM", {"input_dropout": 0.1}),
        ("LSTM", {"learn_initial_state": True}),
        ("SLSTM", {}),
    ],
    "GRU": [
        ("GRU", {}),
        ("GRU", {"reset_after": False}),
        ("GRU", {"layer_norm": True}),
        ("GRU", {"zoneout": 0.1}),
        ("GRU", {"transition_depth": 2}),
        ("MGU", {}),
        ("MinGRU", {}),
        ("MinLSTM", {}),
        ("SRU", {}),
        ("QRNN", {}),
        ("LRU", {}),
        ("LRU", {"complex": False}),
    ],
    "RNN": [
        ("RNN", {}),
        ("RNN", {"leak": 0.5}),
        ("RNN", {"nonlinearity": "softsign"}),
        ("RNN", {"layer_norm": True}),
        ("RNN", {"transition_depth": 2}),
        ("RNN", {"transition_depth": 2, "shortcut": True}),
        ("RNN", {"input_depth": 2}),
        ("RNN", {"output_depth": 2}),
        ("IndRNN", {}),
    ],
}


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description="Cells and options: least times, in ms, and ratios to the plain cell.")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--shape", default="100,32,128,128", metavar="T,N,I,H", help="default: 100,32,128,128")
    parser.add_argument("--groups", nargs="+", choices=GROUPS, default=list(GROUPS))
    parser.add_argument("--repeats", type=int, default=15, help="samples of each; default: 15")
    arguments = parser.parse_args()
    enter_environment(arguments.threads)

    T, N, I, H = (int(size) for size in arguments.shape.split(","))
    print(f"T, N, I, H = {arguments.shape}; float32; threads: {arguments.threads}; least times, ms")
    print(f"{'layer':<42}{'forward':>9}{'training':>10}{'forward':>9}{'training':>10}")
    for name in arguments.groups:
        layers = [_layer(kind, options, I, H) for kind, options in GROUPS[name]]
        for kind, options in GROUPS[name]:
            _check(kind, options)
        modes = [_times(layers, mode, T, N, I, arguments.repeats) for mode in (_forward, _training)]
        for layer, *times in zip(layers, *modes, strict=True):
            ratios = [time / of_all[0] for time, of_all in zip(times, modes, strict=True)]
            print(f"{layer!r:<42}{times[0]:>9.3f}{times[1]:>10.3f}{ratios[0]:>9.2f}{ratios[1]:>10.2f}", flush=True)


def _layer(kind: str, options: dict[str, Any], I: int, H: int, dtype: str = "float32") -> Any:
    import rnncore as rc

    sizes = {name: H // 2 if value == "half" else value for name, value in options.items()}
    return getattr(rc, kind)(I, H, dtype=dtype, rng=0, **sizes)


def _check(kind: str, options: dict[str, Any]) -> None:
    """Compare a call of a small layer in float64 with the oracle."""
    from rnncore import reference_cells

    layer = _layer(kind, options, 5, 6, "float64")
    of_cell = {
        name: 3 if value == "half" else value
        for name, value in options.items()
        if name not in ("recurrent_dropout", "input_dropout", "learn_initial_state")
    }
    if "nonlinearity" in of_cell:
        of_cell["activation"] = of_cell.pop("nonlinearity")
    before, after = of_cell.pop("input_depth", 1), of_cell.pop("output_depth", 1)
    depth, shortcut = of_cell.pop("transition_depth", 1), of_cell.pop("shortcut", False)
    cell = getattr(reference_cells, kind)(**of_cell)
    if depth > 1:
        cell = reference_cells.Deep(cell, depth, shortcut=shortcut)
    weights = {name.removesuffix("_l0"): w for name, w in layer.parameters.items() if not name.startswith("initial_")}
    x = np.random.default_rng(1).standard_normal((3, 7, 5))
    x_of_pass = _feed_forward(x, weights, "input", before)
    h, _, _ = reference_cells.layer(cell, x_of_pass, {name: w for name, w in weights.items() if "put" not in name})
    expected = _feed_forward(h, weights, "output", after)
    if not np.allclose(layer(x)[0], expected, rtol=0, atol=1e-12):
        raise AssertionError(f"{layer!r} differs from the oracle")


def _feed_forward(x: Any, weights: dict[str, Any], place: str, depth: int) -> Any:
    for k in range(1, depth):
        x = np.tanh(x @ weights[f"weight_{place}{k}"].T + weights[f"bias_{place}{k}"])
    return x


def _forward(layer: Any, x: Any) -> Callable[[], Any]:
    frozen = layer.frozen()
    return lambda: frozen(x)


def _training(layer: Any, x: Any) -> Callable[[], Any]:
    dy = np.random.default_rng(2).standard_normal((*x.shape[:2], layer.output_size), dtype=np.float32)

    def run() -> None:
        layer.zero_gradients()
        _, pull_back = layer.vjp(x)
        pull_back(dy)

    return run


def _times(layers: list[Any], mode: Any, T: int, N: int, I: int, repeats: int) -> list[float]:
    x = np.random.default_rng(0).standard_normal((N, T, I), dtype=np.float32)
    tasks = {repr(layer): Task(mode(layer, x), lambda _: {}) for layer in layers}
    for task in tasks.values():
        task.run()
    return [timing.seconds * 1e3 for timing in time_interleaved(tasks, repeats).tasks.values()]


if __name__ == "__main__":
    main()
