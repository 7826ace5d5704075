"""M networks of one LSTM layer in one call, beside M calls, torch's loop over modules and jax.vmap of a scan."""

import argparse
from collections.abc import Callable
from functools import partial

import numpy as np

from agreement import check_agreement
from environment import enter_environment
from libraries import Task
from problems import MODES, Array
from timing import time_interleaved

__all__ = ["main"]

SHAPES = ("256,100,1,8,16", "1000,1,1,8,16", "1000,1,1,8,32", "16,100,32,8,32")


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description="M networks of one LSTM layer: least times of a call, in ms.")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--shapes", nargs="+", default=SHAPES, metavar="M,T,N,I,H", help="networks, steps, batch, ...")
    parser.add_argument("--repeats", type=int, default=20, help="samples of each; default: 20")
    arguments = parser.parse_args()
    enter_environment(arguments.threads)

    import torch

    torch.set_num_threads(arguments.threads)
    print(f"M networks LSTM(I, H), x (M, N, T, I), float32, threads: {arguments.threads}")
    print(f"the least of {arguments.repeats} samples, ms; ratios: time over that of the one call")
    columns = ("M calls", "torch", "jax.vmap")
    print(f"{'M,T,N,I,H':<18}{'mode':<10}{'one call':>10}" + "".join(f"{name:>10}" for name in columns * 2))
    for shape in arguments.shapes:
        for mode in MODES:
            tasks = _tasks([int(size) for size in shape.split(",")], mode)
            results = {name: task.results(task.run()) for name, task in tasks.items()}
            for name in columns:
                check_agreement(f"{shape}, {mode}, {name}", results[name], results["one call"])
            timings = time_interleaved(tasks, arguments.repeats).tasks.values()
            one, *others = (timing.seconds * 1e3 for timing in timings)
            print(f"{shape:<18}{mode:<10}{one:>10.3f}" + "".join(f"{other:>10.3f}" for other in others), end="")
            print("".join(f"{other / one:>10.2f}" for other in others), flush=True)


def _tasks(sizes: list[int], mode: str) -> dict[str, Task]:
    import rnncore as rc

    M, T, N, I, H = sizes
    rng = np.random.default_rng(0)
    x, dy = rng.standard_normal((M, N, T, I), np.float32), rng.standard_normal((M, N, T, H), np.float32)
    layer = rc.LSTM(I, H, models=M, rng=rng)
    weights = [np.ascontiguousarray(array) for array in layer.parameters.values()]
    apart = [[array[m] for array in weights] for m in range(M)]

    def one_call() -> list[Array]:
        if mode == "forward":
            return [layer(x)[0]]
        output, vjp = rc.functional.lstm_vjp(x, *layer.parameters.values())
        return [output.y, *vjp(dy)[:5]]

    def calls() -> list[list[Array]]:
        if mode == "forward":
            return [[rc.functional.lstm(x[m], *apart[m]).y for m in range(M)]]
        found: list[list[Array]] = []
        for m in range(M):
            output, vjp = rc.functional.lstm_vjp(x[m], *apart[m])
            found.append([output.y, *vjp(dy[m])[:5]])
        return [list(arrays) for arrays in zip(*found, strict=True)]

    def results(arrays: list[Array] | list[list[Array]]) -> dict[str, Array]:
        names = ("y", "dx", "dw_ih", "dw_hh", "db_ih", "db_hh")
        return {name: np.asarray(array) for name, array in zip(names, arrays, strict=False)}

    return {
        "one call": Task(one_call, results),
        "M calls": Task(calls, results),
        "torch": Task(_torch_loop(mode, x, dy, apart), results),
        "jax.vmap": Task(_jax_vmap(mode, x, dy, weights), lambda returned: results(_in_our_layout(returned))),
    }


def _torch_loop(mode: str, x: Array, dy: Array, apart: list[list[Array]]) -> Callable[[], list[list[Array]]]:
    import torch

    modules = []
    for arrays in apart:
        module = torch.nn.LSTM(x.shape[3], dy.shape[3], batch_first=True)
        module.load_state_dict(dict(zip(module.state_dict(), map(torch.tensor, arrays), strict=True)))
        modules.append((module, list(module.parameters())))
    xs = [torch.tensor(each, requires_grad=mode != "forward") for each in x]
    dys = list(torch.tensor(dy))

    def forward() -> list[list[Array]]:
        with torch.inference_mode():
            return [[module(each)[0].numpy() for (module, _), each in zip(modules, xs, strict=True)]]

    def training() -> list[list[Array]]:
        found = []
        for (module, parameters), each, gradient in zip(modules, xs, dys, strict=True):
            y = module(each)[0]
            gradients = torch.autograd.grad(y, [each, *parameters], gradient)
            found.append([y.detach().numpy(), *(array.numpy() for array in gradients)])
        return [list(arrays) for arrays in zip(*found, strict=True)]

    return forward if mode == "forward" else training


def _jax_vmap(mode: str, x: Array, dy: Array, weights: list[Array]) -> Callable[[], tuple[object, ...]]:
    import jax
    import jax.numpy as jnp

    from libraries.jax_scan import STEPS, scan_layer

    layer = jax.vmap(partial(scan_layer, STEPS["lstm"], 2))
    w_ih, w_hh, b_ih, b_hh = weights
    time_major = (array.swapaxes(1, 2) for array in (dy, x))
    transposed = (array.swapaxes(1, 2) for array in (w_ih, w_hh))
    given, *arguments = (jnp.array(array) for array in (*time_major, *transposed, b_ih[:, None], b_hh[:, None]))

    def forward(_: object, *arguments: object) -> tuple[object, ...]:
        return (layer(*arguments)[0],)

    def training(dy: object, *arguments: object) -> tuple[object, ...]:
        y, vjp = jax.vjp(lambda *a: layer(*a)[0], *arguments)
        return y, *vjp(dy)

    compiled = jax.jit(forward if mode == "forward" else training).lower(given, *arguments).compile()
    return lambda: jax.block_until_ready(compiled(given, *arguments))


def _in_our_layout(returned: tuple[object, ...]) -> list[Array]:
    arrays = [np.asarray(array) for array in returned]
    turned = [array.swapaxes(1, 2) for array in arrays[:4]]
    return turned + [array[:, 0] for array in arrays[4:]]


if __name__ == "__main__":
    main()
