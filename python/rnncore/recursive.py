"""What all layers over trees are; the public classes are in `trees`.

A layer is called for inference, which keeps nothing, or through `vjp`, which returns the output together with the
function that pulls gradients back.
"""

from __future__ import annotations  # np.random in annotations would import it

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from rnncore import _core
from rnncore._conversion import as_array
from rnncore.forest import Forest, Trees
from rnncore.layer import Array, Layer, PullBack, State, _size
from rnncore.ragged import Joined, Ragged

__all__: list[str] = []  # for trees

_ARGUMENTS = """
    Parameters
    ----------
    input_size, hidden_size : int
        I and H.
    bias : bool
        Whether there are biases, ``bias_ih`` and ``bias_hh``, both of which are added.
{options}    dtype : {{float32, float64}}
        Of the parameters, the computation and the results.
    rng : numpy.random.Generator or int, optional
        Source of the initial parameters, each uniform in +-1/sqrt(hidden_size).

    Attributes
    ----------
    parameters : Views
{parameters}    gradients : Views
        Of the same names and shapes. Pull-backs add to them.

    Notes
    -----
    A call, ``y, state = layer(x, forest)``, takes a `Forest` and the inputs of all its nodes, x (R, I), or a list of
    one array (n, I) for each tree; or `Trees`, which have both, ``layer(trees)``, as models do. y is the h of every
    node, (R, H), a list or `Trees` as x is, and the state is that of the roots: {state}. There is no initial state:
    leaves have no children, which is as if they had one of zeros. Nodes that have no input have one of zeros; see
    `Forest.at_leaves`.

    A node's result has the same bits whatever else is in the forest, and on any number of threads. Where siblings
    change places, so does the order of the sums over them, and with it rounding.
"""


class _OverTrees(Layer):
    """What layers over trees share."""

    input_size: int
    output_size: int
    _cell: str
    _states = 1
    _documented: tuple[str, str, str] = ("", "", "")  # options, parameters, state

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if cls.__doc__ is not None:  # it is under python -OO
            options, parameters, state = cls._documented
            cls.__doc__ += _ARGUMENTS.format(options=options, parameters=parameters, state=state)

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        *,
        dtype: DTypeLike = np.float32,
        rng: np.random.Generator | int | None = None,
    ) -> None:
        self.input_size = _size("input_size", input_size)
        self.output_size = self.hidden_size = _size("hidden_size", hidden_size)
        self.bias = bool(bias)
        shapes = {
            name: shape for name, shape in self._parameter_shapes().items() if self.bias or not name.startswith("bias")
        }
        super().__init__(shapes, dtype)
        bound = 1.0 / np.sqrt(self.hidden_size)
        self.flat_parameters[...] = np.random.default_rng(rng).uniform(-bound, bound, self.flat_parameters.shape)

    def _parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        raise NotImplementedError

    def _products(self) -> tuple[Array, Array, Array | None, Array | None]:
        """Return U and its bias for what a node's children make together, and for what each makes alone."""
        raise NotImplementedError

    def _add_product_gradients(self, du: Array, db: Array, du_forget: Array, db_forget: Array) -> None:
        """Add the gradients of those."""
        raise NotImplementedError

    def _bias_hh(self, size: int) -> Array:
        return self.parameters["bias_hh"] if self.bias else np.zeros(size, self.dtype)

    # ------------------------------------------------------------------------------------------ computation

    def __call__(self, x: Any, forest: Forest | None = None) -> tuple[Any, State]:
        """Run the layer over all trees. Nothing is kept.

        Parameters
        ----------
        x : array_like (R, I), list of N arrays (n, I), or Trees
            Inputs of all nodes.
        forest : Forest, optional
            The trees, unless x has them.

        Returns
        -------
        y : ndarray (R, H), list of N arrays (n, H), or Trees
            h of all nodes.
        state : ndarray, (N, H), or tuple (h, c) of such
            Of the roots.

        Raises
        ------
        ValueError, TypeError
            If the rows of x are not those of the forest, or a node has more children than the layer takes.
        """
        return self.run(x, forest)

    def run(self, x: Any, forest: State = None, lengths: ArrayLike | None = None) -> tuple[Any, State]:
        """Run the layer over all trees: y and the states of the roots. What models give for a state is the forest."""
        trees, given = self._trees(x, forest, lengths)
        y, h, c, _ = _core.tree(False, *self._core_arguments(trees))
        return given(trees._with(y)), self._state(h, c)

    def vjp(self, x: Any, forest: State = None, lengths: ArrayLike | None = None) -> tuple[tuple[Any, State], PullBack]:
        """Run the layer for training, with the function that pulls gradients back.

        Parameters
        ----------
        x, forest
            As for a call. Leave x and the parameters unchanged until the last pull-back.
        lengths
            None: for models.

        Returns
        -------
        output : (y, state)
            In the bits of a call.
        pull_back : callable
            ``pull_back(dy=None, dstate=None)`` takes the gradients of y, in its form, and of the roots' states, None
            for zeros, **adds** those of the parameters to `gradients`, and returns ``(dx, None)``, dx in the form of
            x. May be called several times.
        """
        trees, given = self._trees(x, forest, lengths)
        y, h, c, recording = _core.tree(True, *self._core_arguments(trees))
        assert recording is not None

        def pull_back(dy: Any = None, dstate: State = None) -> tuple[Any, State]:
            dh, dc = self._state_gradients(dstate, trees.N)
            of_rows = None if dy is None else self._rows("dy", dy, trees, given, self.hidden_size)
            dx, dweight, dbias, *of_products = recording.backward(of_rows, dh, dc)
            self.gradients["weight_ih"] += dweight
            if self.bias:
                self.gradients["bias_ih"] += dbias
            self._add_product_gradients(*of_products)
            return given(trees._with(dx)), None

        return (given(trees._with(y)), self._state(h, c)), pull_back

    def _core_arguments(self, trees: Trees) -> tuple[Any, ...]:
        weight, bias = self.parameters["weight_ih"], self.parameters.get("bias_ih")
        return self._cell, trees.forest._core, trees.data, weight, bias, *self._products()

    def _trees(self, x: Any, forest: Any, lengths: Any) -> tuple[Trees, Callable[[Trees], Any]]:
        """Return x as trees that the core takes, and what gives a result the form of x."""
        if lengths is not None:
            raise ValueError(f"lengths: expected None, since x is of trees, got {type(lengths).__name__}")
        given: Callable[[Trees], Any] = _itself
        if isinstance(x, Trees):
            if forest is not None:
                raise ValueError(f"forest: expected None, since x has its own, got {type(forest).__name__}")
            forest = x.forest
        elif not isinstance(forest, Forest) or isinstance(x, Ragged):
            raise TypeError(
                f"x: expected Trees, or a Forest beside x, got {type(x).__name__} and {type(forest).__name__}"
            )
        else:
            given = _as_list if isinstance(x, list | tuple) and all(np.ndim(item) == 2 for item in x) else _as_array
        empty = Trees(forest, np.empty((forest.nodes, 0)))
        return empty._with(self._rows("x", x, empty, given, self.input_size)), given

    def _rows(self, name: str, value: Any, trees: Trees, given: Callable[[Trees], Any], size: int) -> Array:
        """Check and convert the rows of all nodes, in the form that was given."""
        if given is _itself:
            value = trees.arranged(name, value)
        elif given is _as_list:
            arrays = [np.asarray(item) for item in value] or [np.zeros((0, size), self.dtype)]
            lengths = [len(item) for item in arrays] if len(value) else []
            if lengths != trees.lengths.tolist():
                raise ValueError(f"{name}: expected arrays of {trees.lengths.tolist()} nodes, got {lengths}")
            value = Joined.of(name, arrays).data
        rows = as_array(name, value, self.dtype)
        if rows.shape != (trees.forest.nodes, size):
            raise ValueError(f"{name}: expected ({trees.forest.nodes}, {size}), a row for each node, got {rows.shape}")
        return rows

    def _state(self, h: Array, c: Array | None) -> State:
        return h if self._states == 1 else (h, c)

    def _state_gradients(self, dstate: State, N: int) -> tuple[Array | None, Array | None]:
        if dstate is None:
            return None, None
        if self._states > 1 and not (isinstance(dstate, tuple | list) and len(dstate) == self._states):
            raise TypeError(f"dstate: expected None or a tuple (dh, dc), got {type(dstate).__name__}")
        of_h, of_c = dstate if self._states > 1 else (dstate, None)
        parts = [None if part is None else as_array("dstate", part, self.dtype) for part in (of_h, of_c)]
        for part in parts:
            if part is not None and part.shape != (N, self.hidden_size):
                raise ValueError(f"dstate: expected ({N}, {self.hidden_size}), got {part.shape}")
        return parts[0], parts[1]


def _itself(trees: Trees) -> Trees:
    return trees


def _as_array(trees: Trees) -> Array:
    return trees.data


def _as_list(trees: Trees) -> list[Array]:
    return trees.to_list()
