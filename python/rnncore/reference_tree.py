"""The float64 oracle of networks over trees: NumPy, one node at a time, by recursion.

For tests and for reading; nothing of the library calls it. Trees are lists of parents, of which one is -1, the root's;
children are in the order of their indices, and of a binary tree the first is the left one unless sides are given.

TreeRNN:

    h~_j = sum_k h_k                                    over the children k of node j
    h_j  = act(W x_j + b_ih + U h~_j + b_hh)

Child-sum Tree-LSTM (Tai, Socher & Manning 2015, arXiv:1503.00075, equations 2 to 8), gates in the order i, f, g, o,
b = b_ih + b_hh:

    i_j, o_j = sigmoid(W x_j + U h~_j + b)              of the rows of i and o
    g_j      = tanh(W x_j + U h~_j + b)                 of the rows of g
    f_jk     = sigmoid(W_f x_j + U_f h_k + b_f)         for each child
    c_j      = i_j g_j + sum_k f_jk c_k
    h_j      = o_j tanh(c_j)

Binary Tree-LSTM (equations 9 to 14, N = 2), of U_left and U_right in the order i, f_left, f_right, g, o; children that
are missing have zeros for h and c, and W_f x_j + b_ih_f is in both forget gates:

    u        = U_left h_left + U_right h_right + b_hh
    f_left   = sigmoid(W_f x_j + b_ih_f + u_f_left)     and so f_right
    c_j      = i_j g_j + f_left c_left + f_right c_right
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["CELLS", "Tree", "tree_vjp"]

Array = NDArray[Any]
Parameters = Mapping[str, Array]
Gradients = dict[str, Array]
# h and c of a node, and what pulls their gradients back: to x_j, and to h and c of each child.
Pulled = tuple[Array, list[tuple[Array, Array]]]
Node = tuple[Array, Array, Callable[[Array, Array, Gradients], Pulled]]
Child = tuple[Array, Array, int]  # h, c, side


class Tree(NamedTuple):
    """Parents of the nodes, -1 for the root, and whether each is a left (0) or a right (1) child, or the order's."""

    parents: Sequence[int]
    sides: Sequence[int] | None = None

    def children(self, node: int) -> list[tuple[int, int]]:
        """Return the children of a node, each with its side."""
        found = [k for k, parent in enumerate(self.parents) if parent == node]
        return [(k, i if self.sides is None else int(self.sides[k])) for i, k in enumerate(found)]


def _sigmoid(a: Array) -> Array:
    return 0.5 * (1 + np.tanh(0.5 * a))


def _rnn(nonlinearity: str) -> Callable[[Array, list[Child], Parameters], Node]:
    def cell(x: Array, children: list[Child], p: Parameters) -> Node:
        total = sum((h for h, _, _ in children), np.zeros(p["weight_hh"].shape[1]))
        a = p["weight_ih"] @ x + p["bias_ih"] + p["weight_hh"] @ total + p["bias_hh"]
        h = np.tanh(a) if nonlinearity == "tanh" else np.maximum(a, 0)

        def pull_back(dh: Array, dc: Array, d: Gradients) -> Pulled:
            da = dh * ((1 - h**2) if nonlinearity == "tanh" else (a > 0))
            d["weight_ih"] += np.outer(da, x)
            d["weight_hh"] += np.outer(da, total)
            d["bias_ih"] += da
            d["bias_hh"] += da
            return p["weight_ih"].T @ da, [(p["weight_hh"].T @ da, np.zeros_like(dh)) for _ in children]

        return h, np.zeros_like(h), pull_back

    return cell


def _child_sum(x: Array, children: list[Child], p: Parameters) -> Node:
    H = p["weight_hh"].shape[1]
    total = sum((h for h, _, _ in children), np.zeros(H))
    a = p["weight_ih"] @ x + p["bias_ih"]
    b = p["bias_hh"]
    U = p["weight_hh"]
    i, _, g, o = np.split(a + U @ total + b, 4)
    i, g, o = _sigmoid(i), np.tanh(g), _sigmoid(o)
    of_f = slice(H, 2 * H)
    f = [_sigmoid(a[of_f] + U[of_f] @ h + b[of_f]) for h, _, _ in children]
    c = i * g + sum((f_k * c_k for f_k, (_, c_k, _) in zip(f, children, strict=True)), np.zeros(H))
    t = np.tanh(c)

    def pull_back(dh: Array, dc: Array, d: Gradients) -> Pulled:
        dc = dc + dh * o * (1 - t**2)
        zero = np.zeros(H)
        da = np.concatenate([dc * g * i * (1 - i), zero, dc * i * (1 - g**2), dh * t * o * (1 - o)])
        d["weight_hh"] += np.outer(da, total)
        dtotal = U.T @ da
        below = []
        for f_k, (h_k, c_k, _) in zip(f, children, strict=True):
            df = dc * c_k * f_k * (1 - f_k)
            da[of_f] += df
            d["weight_hh"][of_f] += np.outer(df, h_k)
            below.append((dtotal + U[of_f].T @ df, dc * f_k))
        d["weight_ih"] += np.outer(da, x)
        d["bias_ih"] += da
        d["bias_hh"] += da
        return p["weight_ih"].T @ da, below

    return o * t, c, pull_back


def _binary(x: Array, children: list[Child], p: Parameters) -> Node:
    H = p["weight_hh_left"].shape[1]
    h, c = np.zeros((2, H)), np.zeros((2, H))
    for h_k, c_k, side in children:
        h[side], c[side] = h_k, c_k
    U = p["weight_hh_left"], p["weight_hh_right"]
    x_i, x_f, x_g, x_o = np.split(p["weight_ih"] @ x + p["bias_ih"], 4)
    u_i, u_l, u_r, u_g, u_o = np.split(U[0] @ h[0] + U[1] @ h[1] + p["bias_hh"], 5)
    i, l, r, o = (_sigmoid(a) for a in (x_i + u_i, x_f + u_l, x_f + u_r, x_o + u_o))
    g = np.tanh(x_g + u_g)
    new_c = i * g + l * c[0] + r * c[1]
    t = np.tanh(new_c)

    def pull_back(dh: Array, dc: Array, d: Gradients) -> Pulled:
        dc = dc + dh * o * (1 - t**2)
        di, dg, d_o = dc * g * i * (1 - i), dc * i * (1 - g**2), dh * t * o * (1 - o)
        dl, dr = dc * c[0] * l * (1 - l), dc * c[1] * r * (1 - r)
        dx, du = np.concatenate([di, dl + dr, dg, d_o]), np.concatenate([di, dl, dr, dg, d_o])
        d["weight_ih"] += np.outer(dx, x)
        d["weight_hh_left"] += np.outer(du, h[0])
        d["weight_hh_right"] += np.outer(du, h[1])
        d["bias_ih"] += dx
        d["bias_hh"] += du
        return p["weight_ih"].T @ dx, [(U[side].T @ du, dc * (l, r)[side]) for _, _, side in children]

    return o * t, new_c, pull_back


CELLS: dict[str, Callable[[Array, list[Child], Parameters], Node]] = {
    "rnn_tanh": _rnn("tanh"),
    "rnn_relu": _rnn("relu"),
    "child_sum": _child_sum,
    "binary": _binary,
}


def tree_vjp(
    cell: str, tree: Tree, x: ArrayLike, parameters: Mapping[str, ArrayLike]
) -> tuple[tuple[Array, Array, Array], Callable[[ArrayLike, ArrayLike, ArrayLike], tuple[Array, Gradients]]]:
    """Run a cell over one tree.

    Parameters
    ----------
    cell : str
        Of `CELLS`.
    tree : Tree
    x : array_like, (n, I)
    parameters : mapping
        Both biases among them.

    Returns
    -------
    output : (y, h, c)
        Of all nodes (n, H), and of the root (H,); c is zero where the cell has none.
    pull_back : callable
        ``pull_back(dy, dh, dc)`` returns dx (n, I) and the gradients of the parameters by name.

    Examples
    --------
    >>> from rnncore.reference_tree import Tree, tree_vjp
    >>> one = {"weight_ih": [[1.0]], "weight_hh": [[0.5]], "bias_ih": [0.0], "bias_hh": [0.0]}
    >>> (y, h, _), pull_back = tree_vjp("rnn_relu", Tree([-1, 0, 0]), [[1.0], [2.0], [3.0]], one)
    >>> y[:, 0], h
    (array([3.5, 2. , 3. ]), array([3.5]))
    >>> dx, gradients = pull_back([[0.0], [0.0], [0.0]], [1.0], [0.0])
    >>> dx[:, 0], gradients["weight_hh"]
    (array([1. , 0.5, 0.5]), array([[5.]]))
    """
    x = np.asarray(x, np.float64)
    p = {name: np.asarray(value, np.float64) for name, value in parameters.items()}
    nodes: dict[int, Node] = {}

    def visit(j: int) -> Node:
        children = [(*visit(k)[:2], side) for k, side in tree.children(j)]
        nodes[j] = CELLS[cell](x[j], children, p)
        return nodes[j]

    root = list(tree.parents).index(-1)
    h, c, _ = visit(root)
    y = np.stack([nodes[j][0] for j in range(len(x))])

    def pull_back(dy: ArrayLike, dh: ArrayLike, dc: ArrayLike) -> tuple[Array, Gradients]:
        dy = np.asarray(dy, np.float64)
        dx = np.zeros_like(x)
        gradients = {name: np.zeros_like(value) for name, value in p.items()}

        def back(j: int, dh_j: Array, dc_j: Array) -> None:
            dx[j], below = nodes[j][2](dh_j + dy[j], dc_j, gradients)
            for (k, _), (dh_k, dc_k) in zip(tree.children(j), below, strict=True):
                back(k, dh_k, dc_k)

        back(root, np.asarray(dh, np.float64), np.asarray(dc, np.float64))
        return dx, gradients

    return (y, h, c), pull_back
