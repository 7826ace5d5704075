"""Recursive networks: layers over trees that are given, each node's state made of its children's.

All nodes of equal height, in all trees, run side by side in the core. Structure is not learnt.
"""

from __future__ import annotations  # np.random in annotations would import it

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from rnncore.forest import Trees
from rnncore.layer import Array
from rnncore.ragged import Ragged
from rnncore.recursive import _OverTrees
from rnncore.steps import Last
from rnncore.streaming import Stages

__all__ = ["BinaryTreeLSTM", "ChildSumTreeLSTM", "Root", "TreeRNN"]


class TreeRNN(_OverTrees):
    """Elman's cell over trees: each node adds up the states of its children.

    h_j = act(W x_j + b_ih + U h~_j + b_hh), h~_j = sum_k h_k over the children k of node j. A chain, in which each node
    is the single child of the next, is an `RNN`, in the same bits.

    Examples
    --------
    >>> import numpy as np
    >>> import rnncore as rc
    >>> layer = rc.TreeRNN(3, 8, rng=0)
    >>> y, h = layer(np.ones((5, 3)), rc.Forest([[-1, 0, 0], [1, -1]]))
    >>> y.shape, h.shape
    ((5, 8), (2, 8))
    """

    _documented = (
        """    nonlinearity : {"tanh", "relu"}
        act.
""",
        """        ``weight_ih`` (H, I), ``weight_hh`` (H, H), ``bias_ih``, ``bias_hh`` (H,).
""",
        "h, (N, H)",
    )

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        *,
        nonlinearity: str = "tanh",
        dtype: DTypeLike = np.float32,
        rng: np.random.Generator | int | None = None,
    ) -> None:
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(f"nonlinearity: expected 'tanh' or 'relu', got {nonlinearity!r}")
        self.nonlinearity = nonlinearity
        self._cell = f"rnn_{nonlinearity}"
        super().__init__(input_size, hidden_size, bias, dtype=dtype, rng=rng)

    def _parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        I, H = self.input_size, self.hidden_size
        return {"weight_ih": (H, I), "weight_hh": (H, H), "bias_ih": (H,), "bias_hh": (H,)}

    def _products(self) -> tuple[Array, Array, Array | None, Array | None]:
        return self.parameters["weight_hh"], self._bias_hh(self.hidden_size), None, None

    def _add_product_gradients(self, du: Array, db: Array, du_forget: Array, db_forget: Array) -> None:
        self.gradients["weight_hh"] += du
        if self.bias:
            self.gradients["bias_hh"] += db


class ChildSumTreeLSTM(_OverTrees):
    """Child-sum Tree-LSTM (Tai, Socher & Manning 2015, arXiv:1503.00075): any number of children, in no order.

    With h~_j = sum_k h_k over the children k of node j, and b = b_ih + b_hh in each gate::

        i_j, o_j = sigmoid(W x_j + U h~_j + b)        g_j = tanh(W x_j + U h~_j + b)
        f_jk = sigmoid(W_f x_j + U_f h_k + b_f)       one forget gate for each child
        c_j = i_j g_j + sum_k f_jk c_k                h_j = o_j tanh(c_j)

    The parameters of one layer of an `LSTM` are those of this layer but for the suffix ``_l0`` of their names; and a
    chain, in which each node is the single child of the next, is an LSTM, in the same bits.

    Examples
    --------
    >>> import numpy as np
    >>> import rnncore as rc
    >>> layer = rc.ChildSumTreeLSTM(3, 8, rng=0)
    >>> y, (h, c) = layer(np.ones((5, 3)), rc.Forest([[-1, 0, 0], [1, -1]]))
    >>> y.shape, h.shape, c.shape
    ((5, 8), (2, 8), (2, 8))
    >>> lstm = rc.LSTM(3, 8, rng=0)
    >>> layer.load_parameters({name[:-3]: array for name, array in lstm.parameters.items()})
    >>> y, _ = layer(np.ones((4, 3)), rc.Forest([[1, 2, 3, -1]]))
    >>> bool((y == lstm(np.ones((4, 3)))[0]).all())
    True
    """

    _cell = "child_sum"
    _states = 2
    _documented = (
        "",
        """        ``weight_ih`` (4*H, I), ``weight_hh`` (4*H, H), ``bias_ih``, ``bias_hh`` (4*H,): gates i, f, g, o.
""",
        "h and c, (N, H) each",
    )

    def _parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        I, H = self.input_size, self.hidden_size
        return {"weight_ih": (4 * H, I), "weight_hh": (4 * H, H), "bias_ih": (4 * H,), "bias_hh": (4 * H,)}

    def _products(self) -> tuple[Array, Array, Array | None, Array | None]:
        H, weight, bias = self.hidden_size, self.parameters["weight_hh"], self._bias_hh(4 * self.hidden_size)
        together = [np.concatenate([array[:H], array[2 * H :]]) for array in (weight, bias)]
        return together[0], together[1], weight[H : 2 * H], bias[H : 2 * H]

    def _add_product_gradients(self, du: Array, db: Array, du_forget: Array, db_forget: Array) -> None:
        H = self.hidden_size
        names = ("weight_hh", "bias_hh") if self.bias else ("weight_hh",)
        for name, d, d_forget in zip(names, (du, db), (du_forget, db_forget), strict=False):
            total = self.gradients[name]
            total[:H] += d[:H]
            total[H : 2 * H] += d_forget
            total[2 * H :] += d[H:]


class BinaryTreeLSTM(_OverTrees):
    """Binary Tree-LSTM (Tai, Socher & Manning 2015, arXiv:1503.00075, the N-ary one with N = 2): left and right differ.

    With h_l and h_r of the left and the right child of node j, zeros where there is none, the bias b_ih in all that
    comes from x, and b_hh in all that comes from the children::

        u = U_left h_l + U_right h_r + b_hh           of i, f_left, f_right, g and o
        i_j, o_j = sigmoid(W x_j + b_ih + u)          g_j = tanh(W x_j + b_ih + u)
        f_left = sigmoid(W_f x_j + b_ih_f + u_left)   f_right = sigmoid(W_f x_j + b_ih_f + u_right)
        c_j = i_j g_j + f_left c_l + f_right c_r      h_j = o_j tanh(c_j)

    Each forget gate sees both children. As in the paper, both have the same W_f; their biases b_hh, one in the paper,
    may differ here. An only child is the left one, unless the forest says otherwise; see `Forest`.

    Examples
    --------
    >>> import rnncore as rc
    >>> forest, words = rc.Forest.from_nested([((5, 3), 7), (2, (None, 9))])
    >>> tokens = forest.at_leaves(words, fill=10)
    >>> model = rc.Sequential(
    ...     rc.Embedding(11, 4, padding_index=10, rng=0),
    ...     rc.BinaryTreeLSTM(4, 8, rng=1),
    ...     rc.Root(),
    ...     rc.Linear(8, 2, rng=2),
    ... )
    >>> model(tokens).shape
    (2, 2)
    """

    _cell = "binary"
    _states = 2
    _documented = (
        "",
        """        ``weight_ih`` (4*H, I) and ``bias_ih`` (4*H,): gates i, f, g, o. ``weight_hh_left`` and
        ``weight_hh_right`` (5*H, H), ``bias_hh`` (5*H,): gates i, f_left, f_right, g, o.
""",
        "h and c, (N, H) each",
    )

    def _parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        I, H = self.input_size, self.hidden_size
        return {
            "weight_ih": (4 * H, I),
            "weight_hh_left": (5 * H, H),
            "weight_hh_right": (5 * H, H),
            "bias_ih": (4 * H,),
            "bias_hh": (5 * H,),
        }

    def _products(self) -> tuple[Array, Array, Array | None, Array | None]:
        weights = [self.parameters["weight_hh_left"], self.parameters["weight_hh_right"]]
        return np.concatenate(weights, axis=1), self._bias_hh(5 * self.hidden_size), None, None

    def _add_product_gradients(self, du: Array, db: Array, du_forget: Array, db_forget: Array) -> None:
        self.gradients["weight_hh_left"] += du[:, : self.hidden_size]
        self.gradients["weight_hh_right"] += du[:, self.hidden_size :]
        if self.bias:
            self.gradients["bias_hh"] += db


class Root(Last):
    """The row of the root of every tree, `Trees` of R rows to (N, C): many to one.

    Examples
    --------
    >>> import rnncore as rc
    >>> rc.Root()(rc.Trees(rc.Forest([[-1, 0], [1, -1]]), [[1.0], [2.0], [3.0], [4.0]]))
    array([[1.],
           [4.]])
    """

    def _input(self, x: ArrayLike) -> Array:
        raise TypeError(f"x: expected Trees, got {type(x).__name__}")

    def _on_ragged(self, x: Ragged, training: bool) -> tuple[Array, Callable[[Array], Any]]:
        if not isinstance(x, Trees):
            raise TypeError(f"x: expected Trees, got {x!r}")
        return super()._on_ragged(x, training)

    def _stream_stages(self, stages: Stages) -> None:
        raise TypeError(f"model: expected layers that can be streamed, got {self!r}")
