"""A forest in one call of a child-sum Tree-LSTM, beside a call for each tree, and NumPy one node at a time."""

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

SHAPES = ("512,50,32,32", "512,50,64,64", "512,50,128,128", "32,50,128,128", "1,1000,128,128")
NAMES = ("dx", "weight_ih", "weight_hh", "bias_ih", "bias_hh")
Output = dict[str, Array]


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description="Random trees of n nodes, float32: least times of a call, in ms.")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--shapes", nargs="+", default=SHAPES, metavar="N,n,I,H", help="trees, nodes of each, ...")
    parser.add_argument("--repeats", type=int, default=5, help="samples of each; default: 5")
    arguments = parser.parse_args()
    enter_environment(arguments.threads)
    print(f"child-sum Tree-LSTM of N random trees of n nodes, float32, threads: {arguments.threads}")
    print(f"the least of {arguments.repeats} samples, ms; ratios: time over that of the one call")
    columns = ("by trees", "by nodes")
    print(f"{'N,n,I,H':<18}{'mode':<10}{'one call':>10}" + "".join(f"{name:>10}" for name in columns * 2))
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

    N, n, I, H = sizes
    rng = np.random.default_rng(0)
    trees = [np.array([-1, *(rng.integers(j) for j in range(1, n))]) for _ in range(N)]
    forest, alone = rc.Forest(trees), [rc.Forest([tree]) for tree in trees]
    layer = rc.ChildSumTreeLSTM(I, H, rng=rng)
    x, dy = rng.standard_normal((N * n, I), np.float32), rng.standard_normal((N * n, H), np.float32)
    apart, dy_apart = np.split(x, N), np.split(dy, N)
    nodes = _NodeByNode(trees, layer.parameters)

    def call(x: Array, forest: rc.Forest, dy: Array) -> list[Array]:
        if mode == "forward":
            return [layer(x, forest)[0]]
        (y, _), pull_back = layer.vjp(x, forest)
        return [y, pull_back(dy)[0]]

    def trained(run: Callable[[], Output]) -> Output:
        layer.zero_gradients()
        output = run()
        return output if mode == "forward" else output | {name: layer.gradients[name].copy() for name in NAMES[1:]}

    def one_call() -> Output:
        return dict(zip(("y", "dx"), call(x, forest, dy), strict=False))

    def by_trees() -> Output:
        calls = [call(*of_tree) for of_tree in zip(apart, alone, dy_apart, strict=True)]
        return {name: np.concatenate(parts) for name, parts in zip(("y", "dx"), zip(*calls, strict=True), strict=False)}

    return {
        "one call": Task(partial(trained, one_call), dict),
        "by trees": Task(partial(trained, by_trees), dict),
        "by nodes": Task(partial(nodes.run, x, None if mode == "forward" else dy), dict),
    }


class _NodeByNode:
    """The same layer as one writes it first: children before parents, but sums for the gradients of W at once."""

    def __init__(self, trees: list[Array], parameters: dict[str, Array]) -> None:
        self.p = {name: np.ascontiguousarray(array) for name, array in parameters.items()}
        begin = 0
        self.children: list[list[int]] = []
        for tree in trees:  # parents come before children in each
            self.children += [[] for _ in tree]
            for j, parent in enumerate(tree[1:], 1):
                self.children[begin + parent].append(begin + j)
            begin += len(tree)

    def run(self, x: Array, dy: Array | None) -> Output:
        """Return y, and with a gradient of it those of x and the parameters."""
        W, U, b = self.p["weight_ih"], self.p["weight_hh"], self.p["bias_hh"]
        H = U.shape[1]
        of_f, R = slice(H, 2 * H), len(x)
        pre = np.empty((R, 4 * H), np.float32)
        y, c, total = (np.zeros((R, H), np.float32) for _ in range(3))
        gates, forget = np.empty((R, 4 * H), np.float32), np.empty((R, H), np.float32)
        for j in reversed(range(R)):
            below = self.children[j]
            pre[j] = W @ x[j] + self.p["bias_ih"]
            a = pre[j] + b
            if below:
                total[j] = y[below].sum(axis=0)
                a += U @ total[j]
                forget[below] = _sigmoid(pre[j, of_f] + b[of_f] + y[below] @ U[of_f].T)
            gate = gates[j]
            gate[:] = _sigmoid(a)
            gate[2 * H : 3 * H] = np.tanh(a[2 * H : 3 * H])
            c[j] = gate[:H] * gate[2 * H : 3 * H]
            if below:
                c[j] += (forget[below] * c[below]).sum(axis=0)
            y[j] = gate[3 * H :] * np.tanh(c[j])
        if dy is None:
            return {"y": y}

        dh, dc, da = dy.copy(), np.zeros_like(c), np.zeros_like(gates)
        dU = np.zeros_like(U)
        for j in range(R):
            i, _, g, o = np.split(gates[j], 4)
            t = np.tanh(c[j])
            d = dc[j] + dh[j] * o * (1 - t * t)
            da[j, :H], da[j, 2 * H : 3 * H], da[j, 3 * H :] = (
                d * g * i * (1 - i),
                d * i * (1 - g * g),
                dh[j] * t * o * (1 - o),
            )
            below = self.children[j]
            if not below:
                continue
            dU += np.outer(da[j], total[j])
            f = forget[below]
            df = d * c[below] * f * (1 - f)
            dh[below] += da[j] @ U + df @ U[of_f]
            dc[below] = d * f
            da[j, of_f] = df.sum(axis=0)
            dU[of_f] += df.T @ y[below]
        bias = da.sum(axis=0)
        return {"y": y, "dx": da @ W, "weight_ih": da.T @ x, "weight_hh": dU, "bias_ih": bias, "bias_hh": bias}


def _sigmoid(a: Array) -> Array:
    return 1 / (1 + np.exp(-a))


if __name__ == "__main__":
    main()
