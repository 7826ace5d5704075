"""Forests: a batch of trees of any shapes, and rows of numbers for all their nodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rnncore import _core, nested
from rnncore.ragged import Array, Ragged

__all__ = ["Forest", "Trees"]

Indices = NDArray[np.int64]


class Forest:
    """The shapes of N trees, which layers over trees read all at once. Immutable.

    Nodes of a tree may have any order; arrays of rows have those of the first tree, then those of the second, ...
    Children are in the order of their indices. The layers of this package take trees as they are given, and learn no
    structure.

    Parameters
    ----------
    trees : sequence of array_like of int, (n,) each
        The parent of each node, as an index within the tree; -1 for the root.
    sides : sequence of array_like of int, (n,) each, optional
        For binary trees: 0 where a node is the left child of its parent, 1 where it is the right one; of roots, either.
        Default: the first child is the left one, so that an only child is.

    Attributes
    ----------
    N, nodes, levels : int
        The number of trees, as ``len()``; R, that of all nodes; and of levels, those of the highest tree: a leaf has
        one. All nodes of a level run side by side.
    sizes : ndarray of int64, (N,)
        Nodes of each tree.
    parents : ndarray of int64, (R,)
        As given, of one tree after the other.
    roots : ndarray of int64, (N,)
        Where the root of each tree is among all R nodes.
    leaves : ndarray of int64, (L,)
        Where the nodes without children are.

    Raises
    ------
    ValueError, TypeError
        If a tree has not one root, a parent that it has not, or a cycle, or two children of a node the same side. The
        message names the tree and the node.

    See Also
    --------
    Trees : A forest with rows of numbers.

    Examples
    --------
    >>> import rnncore as rc
    >>> forest = rc.Forest([[-1, 0, 0], [1, 2, -1]])
    >>> forest
    Forest(2 trees, 6 nodes, 3 levels)
    >>> forest.roots, forest.leaves
    (array([0, 5]), array([1, 2, 3]))
    >>> rc.Forest([[-1, 0], [-1, 2, 1]])
    Traceback (most recent call last):
    ...
    ValueError: trees[1]: expected a tree, got a cycle through node 1
    """

    __slots__ = ("_core", "_parents", "_rows", "_sides", "_sizes")

    def __init__(self, trees: Sequence[ArrayLike], sides: Sequence[ArrayLike] | None = None) -> None:
        arrays = _integers("trees", trees)
        sizes = np.array([len(array) for array in arrays], np.int64)
        of_sides = None if sides is None else _integers("sides", sides)
        if of_sides is not None:
            lengths = [len(array) for array in of_sides]
            if lengths != sizes.tolist():
                raise ValueError(f"sides: expected arrays of {sizes.tolist()} nodes as the trees have, got {lengths}")
        self._set(sizes, _joined(arrays), None if of_sides is None else _joined(of_sides))

    def _set(self, sizes: Indices, parents: Indices, sides: Indices | None) -> None:
        self._core = _core.Forest(sizes, parents, sides)
        self._rows = _core.Ragged.joined(sizes)
        self._sizes, self._parents, self._sides = sizes, parents, sides
        for array in (sizes, parents):
            array.flags.writeable = False

    @classmethod
    def _of(cls, sizes: Indices, parents: Indices, sides: Indices | None) -> Forest:
        forest = cls.__new__(cls)
        forest._set(sizes, parents, sides)
        return forest

    @classmethod
    def from_nested(cls, trees: Sequence[Any]) -> tuple[Forest, list[Any]]:
        """Read trees of nested tuples: a tuple is a node with children, anything else a leaf and its value.

        Parameters
        ----------
        trees : list of nested tuples
            An element of a tuple may be None where a binary tree has no left child: ``(None, 7)``.

        Returns
        -------
        forest : Forest
            Its nodes come after their children, the root last.
        values : list
            Those of all leaves, tree after tree, each from left to right: in the order of ``forest.leaves``.

        Raises
        ------
        ValueError, TypeError
            If a tuple has no children, or there is no list.

        Examples
        --------
        >>> import rnncore as rc
        >>> forest, words = rc.Forest.from_nested([(("the", "cat"), "sat"), "so"])
        >>> words, forest.parents
        (['the', 'cat', 'sat', 'so'], array([ 2,  2,  4,  4, -1, -1]))
        """
        if not isinstance(trees, list):
            raise TypeError(f"trees: expected a list of nested tuples, got {type(trees).__name__}")
        values: list[Any] = []
        flat = [nested.parents_of(f"trees[{n}]", tree, values) for n, tree in enumerate(trees)]
        has_gaps = any(gaps for _, _, gaps in flat)
        return cls([parents for parents, _, _ in flat], [sides for _, sides, _ in flat] if has_gaps else None), values

    def __len__(self) -> int:
        """Return the number of trees."""
        return self.N

    @property
    def N(self) -> int:
        """The number of trees."""
        return len(self._sizes)

    @property
    def nodes(self) -> int:
        """The number of nodes, R."""
        return len(self._parents)

    @property
    def levels(self) -> int:
        """The number of levels."""
        return self._core.levels

    @property
    def sizes(self) -> Indices:
        """Nodes of each tree, (N,)."""
        return self._sizes

    @property
    def parents(self) -> Indices:
        """The parent of each node within its tree, (R,)."""
        return self._parents

    @property
    def roots(self) -> Indices:
        """Where the roots are, (N,)."""
        return np.flatnonzero(self._parents < 0)

    @property
    def leaves(self) -> Indices:
        """Where the nodes without children are, (L,)."""
        first = np.repeat(np.cumsum(self._sizes) - self._sizes, self._sizes)
        has_parent = self._parents >= 0
        is_leaf = np.ones(self.nodes, np.bool_)
        is_leaf[(self._parents + first)[has_parent]] = False
        return np.flatnonzero(is_leaf)

    def at_leaves(self, values: ArrayLike, fill: float = 0) -> Trees:
        """Return rows for all nodes of what there is for leaves alone, such as the words of parsed sentences.

        Parameters
        ----------
        values : array_like, (L, ...)
            In the order of `leaves`: tokens or vectors.
        fill : number
            What the other nodes have. Vectors of zeros are no input. For tokens, a token of its own, which the
            embedding has for ``padding_index``: its vector is zero and stays so.

        Returns
        -------
        Trees

        Raises
        ------
        ValueError
            If there is not one value for each leaf.

        Examples
        --------
        >>> import rnncore as rc
        >>> forest, words = rc.Forest.from_nested([((5, 3), 7)])
        >>> tokens = forest.at_leaves(words, fill=10)
        >>> tokens.data
        array([ 5,  3, 10,  7, 10])
        >>> rc.Embedding(11, 4, padding_index=10, rng=0)(tokens).data[2]
        array([0., 0., 0., 0.], dtype=float32)
        """
        array, leaves = np.asarray(values), self.leaves
        if array.shape[:1] != leaves.shape:
            raise ValueError(f"values: expected ({len(leaves)}, ...), one for each leaf, got {array.shape}")
        rows = np.full((self.nodes, *array.shape[1:]), fill, array.dtype)
        rows[leaves] = array
        return Trees(self, rows)

    def take(self, trees: ArrayLike) -> Forest:
        """Return the forest of some of the trees, (K,), in the order given.

        Raises
        ------
        ValueError, IndexError
            If there are no such trees.
        """
        indices, rows = self._rows_of(trees)
        return Forest._of(self._sizes[indices], self._parents[rows], None if self._sides is None else self._sides[rows])

    def _rows_of(self, trees: ArrayLike) -> tuple[Indices, Indices]:
        """Return the indices as an array, and the rows of all nodes of those trees."""
        indices = np.asarray(trees)
        if indices.ndim != 1 or (indices.dtype.kind not in "iu" and indices.size):
            raise ValueError(f"trees: expected integers (K,), got {indices.dtype} {indices.shape}")
        indices = indices.astype(np.int64)
        sizes = self._sizes[indices]
        first = (np.cumsum(self._sizes) - self._sizes)[indices]
        within = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        return indices, np.repeat(first, sizes) + within

    def __eq__(self, other: object) -> bool:
        """Return whether the other has the same trees."""
        if not isinstance(other, Forest):
            return NotImplemented
        mine, others = self._arrays(), other._arrays()
        return self is other or all(
            a is b or (a is not None and b is not None and np.array_equal(a, b))
            for a, b in zip(mine, others, strict=True)
        )

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the arrays."""
        return Forest._of, self._arrays()

    def _arrays(self) -> tuple[Indices, Indices, Indices | None]:
        return self._sizes, self._parents, self._sides

    def __repr__(self) -> str:
        """Return the numbers of trees, nodes and levels."""
        return f"Forest({self.N} trees, {self.nodes} nodes, {self.levels} levels)"


class Trees(Ragged):
    """A forest with a row for each node of all its trees: what layers over trees take and give.

    Layers that work on every step work on every node (`Linear`, `Embedding`, `Dropout`, ...), `Root` gives the rows of
    the roots, and losses of every node take targets that are `Trees` too. So models of such layers are called, trained
    and saved like those of sequences. Layers over sequences read the nodes of each tree in the order of their indices.

    Functions of single elements work as on arrays: ``2 * a``, ``a + b`` of two with the same forest, ``np.tanh(a)``.

    Parameters
    ----------
    forest : Forest
    data : array_like, (R, ...)
        Not copied if it is an array.

    Attributes
    ----------
    forest : Forest
    data : ndarray, (R, ...)
    lengths : ndarray of int64, (N,)
        Nodes of each tree.

    Raises
    ------
    ValueError, TypeError
        If there is not one row for each node.

    Examples
    --------
    >>> import numpy as np
    >>> import rnncore as rc
    >>> trees = rc.Trees(rc.Forest([[-1, 0, 0], [-1]]), np.ones((4, 3)))
    >>> trees
    Trees(2 trees, 4 nodes, data=float64 (4, 3))
    >>> model = rc.Sequential(rc.ChildSumTreeLSTM(3, 8, rng=0), rc.Root(), rc.Linear(8, 2, rng=1))
    >>> model(trees).shape
    (2, 2)
    """

    __slots__ = ("_forest",)

    def __init__(self, forest: Forest, data: ArrayLike) -> None:
        if not isinstance(forest, Forest):
            raise TypeError(f"forest: expected a Forest, got {type(forest).__name__}")
        array = np.asarray(data)
        if array.shape[:1] != (forest.nodes,):
            raise ValueError(f"data: expected {forest.nodes} rows, one for each node, got {array.shape}")
        super().__init__(array, forest._rows)
        self._forest = forest

    @property
    def forest(self) -> Forest:
        """The trees."""
        return self._forest

    def _with(self, data: Any) -> Trees:
        other = super()._with(data)
        other._forest = self._forest
        return other

    def arranged(self, name: str, value: Any) -> Array:
        """Return the rows of the same trees, or of a list of arrays, one for each tree; see `Ragged`."""
        if isinstance(value, Trees) and value._forest != self._forest:
            raise ValueError(f"{name}: expected the trees of {self!r}, got other trees, {value!r}")
        return super().arranged(name, value)

    def take(self, trees: ArrayLike) -> Trees:
        """Return some of the trees, (K,), in the order given, with their rows."""
        return Trees(self._forest.take(trees), self.data[self._forest._rows_of(trees)[1]])

    def parts(self, size: int) -> list[Ragged]:
        """Return the trees in parts of so many at most."""
        if size >= self.N:
            return [self]
        return [self.take(np.arange(n, min(n + size, self.N))) for n in range(0, self.N, size)]

    def last_rows(self) -> tuple[Array, Array]:
        """Return all trees, and the row of the root of each, which is made last."""
        return np.arange(self.N), self._forest.roots

    def _joined_index(self) -> slice:
        return slice(None)

    def _lies_as_padded(self, batch_first: bool) -> bool:
        return batch_first or self.N == 1

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle forest and rows."""
        return Trees, (self._forest, self._data)

    def __repr__(self) -> str:
        """Return the number of trees and nodes, shape and dtype of the rows."""
        return f"Trees({self.N} trees, {self._forest.nodes} nodes, data={self.data.dtype} {self.data.shape})"


def _integers(name: str, arrays: Sequence[ArrayLike]) -> list[Indices]:
    """Check a list of arrays of integers."""
    if isinstance(arrays, np.ndarray) and arrays.ndim < 2 and arrays.dtype != object:
        raise ValueError(f"{name}: expected a list of arrays (n,), one for each tree, got {arrays.shape}")
    checked = []
    for n, value in enumerate(arrays):
        array = np.asarray(value)
        if array.ndim != 1:
            raise ValueError(f"{name}[{n}]: expected integers (n,), got {array.dtype} {array.shape}")
        if array.dtype.kind not in "iu" and array.size:
            raise TypeError(f"{name}[{n}]: expected integers, got {array.dtype}")
        checked.append(array.astype(np.int64))
    return checked


def _joined(arrays: list[Indices]) -> Indices:
    return np.concatenate(arrays) if arrays else np.zeros(0, np.int64)
