"""Layers over trees: against the oracle, bits that no neighbour and no thread changes, chains, what is refused."""

import copy
import pickle
import subprocess
import sys

import numpy as np
import pytest

import rnncore as rc
from cases import DTYPES, ISAS, worst_error
from rnncore import _core, reference_tree
from rnncore.reference_tree import Tree
from rnncore.testing import check_gradients, check_layer

CELLS = {
    "rnn_tanh": rc.TreeRNN,
    "rnn_relu": lambda *sizes, **options: rc.TreeRNN(*sizes, nonlinearity="relu", **options),
    "child_sum": rc.ChildSumTreeLSTM,
    "binary": rc.BinaryTreeLSTM,
}
SIZES = [1, 7, 16, 17, 33]
BOUNDS = {np.dtype(np.float32): (2e-6, 2e-5), np.dtype(np.float64): (1e-13, 1e-11)}


@pytest.fixture(params=CELLS)
def kind(request):
    return request.param


def random_tree(rng, n, most=None):
    """Return parents in a random order of the nodes."""
    parents = [-1]
    counts = [0] * n
    for j in range(1, n):
        above = [k for k in range(j) if most is None or counts[k] < most]
        parents.append(int(rng.choice(above)))
        counts[parents[j]] += 1
    order = rng.permutation(n)
    renamed = np.full(n, -1)
    for j, parent in enumerate(parents):
        renamed[order[j]] = -1 if parent < 0 else order[parent]
    return renamed


def chain(n):
    return np.array([*range(1, n), -1])


def trees_of(rng, kind):
    """Return trees of several forms, each with sides or None."""
    most = 2 if kind == "binary" else None
    trees = [random_tree(rng, n, most) for n in (1, 2, 9, 30, 13)] + [chain(12), chain(1), chain(3)[::-1].copy()]
    trees[-1] = np.array([-1, 0, 1])
    if most is None:
        trees.append(np.array([0] * 17 + [-1] + [17] * 23))  # the root's first child has 16 of its own
        trees.append(np.array([-1] + [0] * 40))
        trees[-2][:17] = [17] + [0] * 16
    return trees


def random_sides(rng, tree):
    sides = rng.integers(0, 2, len(tree))
    for node in range(len(tree)):
        children = np.flatnonzero(tree == node)
        if len(children) == 2:
            sides[children[1]] = 1 - sides[children[0]]
    return sides


def reference(kind, layer, trees, sides, x, dy, dstate):
    """Return outputs and gradients of all trees by the oracle."""
    parameters = {name: np.asarray(array, np.float64) for name, array in layer.parameters.items()}
    if not layer.bias:
        H = layer.hidden_size
        sizes = {"rnn_tanh": (1, 1), "rnn_relu": (1, 1), "child_sum": (4, 4), "binary": (4, 5)}[kind]
        parameters |= {f"bias_{part}": np.zeros(G * H) for part, G in zip(("ih", "hh"), sizes, strict=True)}
    ys, states, dxs = [], [], []
    total = {name: np.zeros_like(array) for name, array in parameters.items()}
    # sums whose terms may cancel are measured against the sizes of the terms
    magnitude = {name: 0.0 for name in parameters}
    begin = 0
    for n, tree in enumerate(trees):
        end = begin + len(tree)
        of_tree = Tree(tree.tolist(), None if sides is None else sides[n].tolist())
        (y, h, c), pull_back = reference_tree.tree_vjp(kind, of_tree, x[begin:end], parameters)
        dx, gradients = pull_back(dy[begin:end], *(d[n] for d in dstate))
        ys.append(y)
        states.append((h, c))
        dxs.append(dx)
        for name, gradient in gradients.items():
            total[name] += gradient
            magnitude[name] += np.abs(gradient).max(initial=0)
        begin = end
    h, c = (np.array([state[i] for state in states]) for i in (0, 1))
    return np.concatenate(ys), h, c, np.concatenate(dxs), total, magnitude


def leaves_of(state):
    return state if isinstance(state, tuple) else (state,)


def run_all(layer, x, forest, dy, dstate):
    """Return y, the states, dx and the gradients of one call and its pull-back."""
    layer.zero_gradients()
    (y, state), pull_back = layer.vjp(x, forest)
    dx, nothing = pull_back(dy, dstate)
    assert nothing is None
    return y, *leaves_of(state), dx, layer.flat_gradients.copy()


def case(rng, kind, H, dtype, trees, I=5, **options):
    layer = CELLS[kind](I, H, dtype=dtype, rng=1, **options)
    R, N = sum(map(len, trees)), len(trees)
    x, dy = rng.standard_normal((R, I)).astype(dtype), rng.standard_normal((R, H)).astype(dtype)
    dstate = tuple(rng.standard_normal((N, H)).astype(dtype) for _ in range(2 if layer._states == 2 else 1))
    return layer, x, dy, dstate if len(dstate) == 2 else dstate[0]


# ------------------------------------------------------------------------------------------------------------- values


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("H", SIZES)
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)
def test_matches_the_oracle(isa, kind, H, dtype, bias, rng):
    trees = trees_of(rng, kind)
    sides = [random_sides(rng, tree) for tree in trees] if kind == "binary" and H % 2 else None
    layer, x, dy, dstate = case(rng, kind, H, dtype, trees, bias=bias)
    forest = rc.Forest(trees, sides)
    y, *state, dx, _ = run_all(layer, x, forest, dy, dstate)
    both = (*leaves_of(dstate), np.zeros((len(trees), H)))[:2]
    expected_y, h, c, expected_dx, gradients, magnitude = reference(kind, layer, trees, sides, x, dy, both)
    output_bound, gradient_bound = BOUNDS[np.dtype(dtype)]
    scale = max(1.0, np.abs(expected_y).max(), np.abs(c).max())
    for got, want in zip((y, *state), (expected_y, h, c), strict=False):
        assert got.dtype == dtype
        assert worst_error(got, want, scale) <= output_bound
    assert worst_error(dx, expected_dx, max(1.0, np.abs(expected_dx).max())) <= gradient_bound
    for name, got in layer.gradients.items():
        assert worst_error(got, gradients[name], max(1.0, magnitude[name])) <= gradient_bound, name
    again, of_roots = layer(x, forest)
    assert np.array_equal(again, y)
    assert all(np.array_equal(a, b) for a, b in zip(leaves_of(of_roots), state, strict=True))


@pytest.mark.parametrize("cell", reference_tree.CELLS)
def test_gradients_of_the_oracle(cell, rng):
    tree = Tree([3, 3, 5, 5, 5, -1] if cell != "binary" else [3, 3, 5, 5, 2, -1], None)
    shapes = {name: view.shape for name, view in CELLS[cell](2, 3).parameters.items()}
    names = list(shapes)

    def function(x, *arrays):
        outputs, pull_back = reference_tree.tree_vjp(cell, tree, x, dict(zip(names, arrays, strict=True)))

        def vjp(*cotangents):
            dx, gradients = pull_back(*cotangents)
            return dx, *(gradients[name] for name in names)

        return outputs, vjp

    arrays = [rng.standard_normal((6, 2)), *(rng.standard_normal(shape) for shape in shapes.values())]
    check_gradients(function, arrays, names=["x", *names])


@pytest.mark.parametrize("H", SIZES)
@pytest.mark.parametrize("n", [1, 2, 3, 5, 40])
def test_a_chain_is_a_sequence(isa, n, H, dtype, rng):
    x = rng.standard_normal((n, 4)).astype(dtype)
    forest = rc.Forest([chain(n)])
    lstm, rnn = rc.LSTM(4, H, dtype=dtype, rng=0), rc.RNN(4, H, dtype=dtype, rng=0)
    child_sum, tree_rnn = rc.ChildSumTreeLSTM(4, H, dtype=dtype), rc.TreeRNN(4, H, dtype=dtype)
    child_sum.load_parameters({name[:-3]: array for name, array in lstm.parameters.items()})
    tree_rnn.load_parameters({name[:-3]: array for name, array in rnn.parameters.items()})
    dy = rng.standard_normal((n, H)).astype(dtype)
    for sequential, over_tree in ((lstm, child_sum), (rnn, tree_rnn)):
        (y, state), pull_back = sequential.vjp(x[None])
        (got, got_state), pull_back_tree = over_tree.vjp(x, forest)
        assert np.array_equal(got, y[0])
        for a, b in zip(leaves_of(got_state), leaves_of(state), strict=True):
            assert np.array_equal(a, b[0])
        dx, _ = pull_back(dy[None])
        bound = BOUNDS[np.dtype(dtype)][1]
        assert worst_error(pull_back_tree(dy)[0], dx[0], max(1.0, np.abs(dx).max())) <= bound
        scale = max(1.0, np.abs(sequential.flat_gradients).max())
        assert worst_error(over_tree.flat_gradients, sequential.flat_gradients, scale) <= bound


def test_a_chain_of_left_children_is_an_lstm(isa, dtype, rng):
    H, x = 7, rng.standard_normal((9, 4)).astype(dtype)
    lstm, binary = rc.LSTM(4, H, dtype=dtype, rng=0), rc.BinaryTreeLSTM(4, H, dtype=dtype, rng=5)
    binary.parameters["weight_ih"] = lstm.parameters["weight_ih_l0"]
    binary.parameters["bias_ih"] = lstm.parameters["bias_ih_l0"]
    wide = np.repeat(np.arange(5), H) * H + np.tile(np.arange(H), 5)
    four = np.array([0, 1, 1, 2, 3])[wide // H] * H + wide % H
    binary.parameters["weight_hh_left"] = lstm.parameters["weight_hh_l0"][four]
    binary.parameters["bias_hh"] = lstm.parameters["bias_hh_l0"][four]
    y, (h, c) = binary(x, rc.Forest([chain(9)]))
    expected, (h_n, c_n) = lstm(x[None])
    assert np.array_equal(y, expected[0])
    assert np.array_equal(h, h_n[0])
    assert np.array_equal(c, c_n[0])


# --------------------------------------------------------------------------------------------------------------- bits


def test_a_tree_alone_has_the_bits_of_a_tree_in_a_forest(isa, kind, dtype, rng):
    trees = trees_of(rng, kind)
    layer, x, dy, dstate = case(rng, kind, 17, dtype, trees)
    y, *state, dx, _ = run_all(layer, x, rc.Forest(trees), dy, dstate)
    begin = 0
    for n, tree in enumerate(trees):
        end = begin + len(tree)
        own = tuple(d[n : n + 1] for d in leaves_of(dstate))
        alone = run_all(
            layer, x[begin:end], rc.Forest([tree]), dy[begin:end], own if isinstance(dstate, tuple) else own[0]
        )
        assert np.array_equal(alone[0], y[begin:end])
        assert np.array_equal(alone[-2], dx[begin:end])
        for a, b in zip(alone[1:-2], state, strict=True):
            assert np.array_equal(a[0], b[n])
        begin = end


@pytest.mark.parametrize("H", [33, 128])
def test_threads_change_no_bit(isa, kind, H, dtype, threads, rng):
    trees = [random_tree(rng, 25, 2 if kind == "binary" else None) for _ in range(30)]
    layer, x, dy, dstate = case(rng, kind, H, dtype, trees)
    threads(1)
    expected = run_all(layer, x, rc.Forest(trees), dy, dstate)
    threads(2)
    for got, want in zip(run_all(layer, x, rc.Forest(trees), dy, dstate), expected, strict=True):
        assert np.array_equal(got, want)


def test_groups_of_trees_change_no_bit(kind, threads, rng):
    """More nodes than a group has: each tree as it is alone, on any number of threads."""
    trees = [random_tree(rng, n, 2 if kind == "binary" else 9) for n in (20, 900, 130, 1500, 7, 7, 600, 500, 600)]
    layer, x, dy, dstate = case(rng, kind, 16, np.float32, trees)
    threads(1)
    expected = run_all(layer, x, rc.Forest(trees), dy, dstate)
    ends = np.cumsum([len(tree) for tree in trees])
    for begin, end, tree in zip(ends - [len(tree) for tree in trees], ends, trees, strict=True):
        assert np.array_equal(layer(x[begin:end], rc.Forest([tree]))[0], expected[0][begin:end])
    threads(2)
    for got, want in zip(run_all(layer, x, rc.Forest(trees), dy, dstate), expected, strict=True):
        assert np.array_equal(got, want)


def test_the_order_of_nodes_is_the_callers(kind, dtype, rng):
    """Nodes renamed, with siblings in their order: rows change places, bits do not."""
    tree = random_tree(rng, 31, 2)
    layer, x, dy, dstate = case(rng, kind, 16, dtype, [tree])
    y, *state, dx, gradients = run_all(layer, x, rc.Forest([tree]), dy, dstate)
    depth = np.zeros(31, int)
    for node in range(31):
        above = tree[node]
        while above >= 0:
            depth[node] += 1
            above = tree[above]
    order = np.lexsort((np.arange(31), rng.permutation(31)[depth]))  # level by level, in a random order of levels
    place = np.argsort(order)
    renamed = np.where(tree[order] < 0, -1, place[tree[order]])
    assert not np.array_equal(renamed, tree)
    got, *got_state, got_dx, got_gradients = run_all(layer, x[order], rc.Forest([renamed]), dy[order], dstate)
    assert np.array_equal(got, y[order])
    assert np.array_equal(got_dx, dx[order])
    for a, b in zip(got_state, state, strict=True):
        assert np.array_equal(a, b)
    bound = BOUNDS[np.dtype(dtype)][1] * max(1.0, np.abs(gradients).max())
    np.testing.assert_allclose(got_gradients, gradients, rtol=0, atol=10 * bound)


def test_siblings_may_change_places(rng):
    """For layers that add children up, the order of siblings is one of rounding alone."""
    tree = np.array([-1, 0, 0, 0, 1, 1, 1])
    order = np.array([0, 3, 2, 1, 6, 5, 4])
    place = np.argsort(order)
    renamed = np.where(tree[order] < 0, -1, place[tree[order]])
    for kind in ("rnn_tanh", "child_sum"):
        layer, x, *_ = case(rng, kind, 7, np.float64, [tree])
        y, _ = layer(x, rc.Forest([tree]))
        np.testing.assert_allclose(layer(x[order], rc.Forest([renamed]))[0], y[order], rtol=0, atol=1e-14)


def test_sides_are_of_the_caller(rng):
    layer, x, *_ = case(rng, "binary", 5, np.float64, [np.zeros(3)])
    by_order, _ = layer(x, rc.Forest([[-1, 0, 0]]))
    same, _ = layer(x, rc.Forest([[-1, 0, 0]], [[0, 0, 1]]))
    other, _ = layer(x, rc.Forest([[-1, 0, 0]], [[0, 1, 0]]))
    swapped, _ = layer(x[[0, 2, 1]], rc.Forest([[-1, 0, 0]]))
    assert np.array_equal(by_order, same)
    assert np.array_equal(other, swapped[[0, 2, 1]])
    assert not np.array_equal(other, by_order)


def test_pull_backs_may_be_called_again_and_in_parts(kind, rng):
    trees = trees_of(rng, kind)
    layer, x, dy, dstate = case(rng, kind, 7, np.float64, trees)
    _, pull_back = layer.vjp(x, rc.Forest(trees))
    layer.zero_gradients()
    dx, _ = pull_back(dy, dstate)
    once = layer.flat_gradients.copy()
    assert np.array_equal(pull_back(dy, dstate)[0], dx)
    assert np.array_equal(layer.flat_gradients, 2 * once)
    layer.zero_gradients()
    of_y, _ = pull_back(dy)
    of_state, _ = pull_back(None, dstate)
    np.testing.assert_allclose(of_y + of_state, dx, rtol=0, atol=1e-12)
    np.testing.assert_allclose(layer.flat_gradients, once, rtol=0, atol=1e-10)
    layer.zero_gradients()
    assert not pull_back()[0].any()
    assert not layer.flat_gradients.any()
    if layer._states == 2:
        dh, dc = dstate
        parts = pull_back(None, (dh, None))[0] + pull_back(None, (None, dc))[0]
        np.testing.assert_allclose(parts, of_state, rtol=0, atol=1e-12)


# -------------------------------------------------------------------------------------------------------------- forms


@pytest.mark.parametrize("trees", [[], [[-1]], [[-1], [-1], [-1]]], ids=["none", "one node", "three nodes"])
def test_small_forests(kind, dtype, trees, rng):
    arrays = [np.array(tree) for tree in trees]
    layer, x, dy, dstate = case(rng, kind, 7, dtype, arrays)
    y, *state, dx, gradients = run_all(layer, x, rc.Forest(trees), dy, dstate)
    assert y.shape == (len(trees), 7)
    assert dx.shape == x.shape
    for part in state:
        assert part.shape == (len(trees), 7)
    if not trees:
        assert not gradients.any()
        assert layer([], rc.Forest([]))[0] == []
        return
    assert np.array_equal(state[0], y)
    for name in layer.gradients:
        assert layer.gradients[name].any() == (not name.startswith("weight_hh")), name


def test_forms_of_x(kind, rng):
    trees = trees_of(rng, kind)
    layer, x, dy, dstate = case(rng, kind, 7, np.float64, trees)
    forest = rc.Forest(trees)
    y, *_, dx, gradients = run_all(layer, x, forest, dy, dstate)
    ends = np.cumsum([len(tree) for tree in trees])[:-1]
    as_list = run_all(layer, np.split(x, ends), forest, np.split(dy, ends), dstate)
    assert all(np.array_equal(a, b) for a, b in zip(as_list[0], np.split(y, ends), strict=True))
    assert all(np.array_equal(a, b) for a, b in zip(as_list[-2], np.split(dx, ends), strict=True))
    as_trees = run_all(layer, rc.Trees(forest, x), None, rc.Trees(forest, dy), dstate)
    assert isinstance(as_trees[0], rc.Trees)
    assert isinstance(as_trees[-2], rc.Trees)
    assert np.array_equal(as_trees[0].data, y)
    assert np.array_equal(as_trees[-2].data, dx)
    assert np.array_equal(as_list[-1], gradients)
    assert np.array_equal(as_trees[-1], gradients)


def test_numbers_are_converted(rng):
    layer, x, *_ = case(rng, "child_sum", 4, np.float32, [np.zeros(3)])
    forest = rc.Forest([[-1, 0, 0]])
    expected, _ = layer(x, forest)
    for other in (x.astype(np.float64), np.asfortranarray(x), x.tolist()):
        assert np.array_equal(layer(other, forest)[0], expected)


class OnTrees(rc.Layer):
    """A layer over trees that reads sequences as trees of one form, cut to their lengths, as `check_layer` has them."""

    def __init__(self, layer, parents):
        super().__init__()
        self.layer, self.parents = layer, parents
        self._use(layer.flat_parameters, layer.flat_gradients)

    def _use(self, flat_parameters, flat_gradients):
        if hasattr(self, "layer"):
            self.layer._use(flat_parameters, flat_gradients)
            self._shapes = self.layer._shapes
        super()._use(flat_parameters, flat_gradients)

    def _trees(self, x, lengths):
        steps = np.full(len(x), x.shape[1]) if lengths is None else np.asarray(lengths)
        some = np.flatnonzero(steps)
        trees = []
        for n in steps[some]:
            tree = np.array(self.parents[:n])
            tree[tree >= n] = n - 1
            tree[n - 1] = -1
            trees.append(tree)
        return steps, some, rc.Forest(trees)

    def run(self, x, state=None, lengths=None):
        return self.vjp(x, state, lengths)[0]

    def vjp(self, x, state=None, lengths=None):
        steps, some, forest = self._trees(x, lengths)
        valid = np.arange(x.shape[1]) < steps[:, None]
        (y, roots), pull_back = self.layer.vjp(x[valid], forest)
        padded = np.zeros((*x.shape[:2], self.layer.hidden_size), y.dtype)
        padded[valid] = y

        def of_all(part):
            states = np.zeros((1, len(x), part.shape[1]), part.dtype)
            states[0, some] = part
            return states

        def pull_back_padded(dy=None, dstate=None):
            of_roots = None
            if dstate is not None:
                of_roots = tuple(d[0, some] for d in leaves_of(dstate))
                of_roots = of_roots if self.layer._states == 2 else of_roots[0]
            dx = np.zeros_like(x)
            dx[valid], _ = pull_back(None if dy is None else dy[valid], of_roots)
            return dx, None

        state = tuple(map(of_all, leaves_of(roots)))
        return (padded, state if self.layer._states == 2 else state[0]), pull_back_padded


@pytest.mark.parametrize("parents", [[1, 2, 3, 4, 5], [2, 2, 4, 4, 5], [5, 0, 0, 5, 3]], ids=["chain", "tree", "other"])
@pytest.mark.parametrize("lengths", [None, [6, 2, 0, 5]], ids=["dense", "ragged"])
def test_every_layer_passes_check_layer(kind, parents, lengths, rng):
    layer = OnTrees(CELLS[kind](3, 4, dtype=np.float64, rng=0), [*parents, 5])
    if lengths is not None and parents == [5, 0, 0, 5, 3]:
        lengths = [6, 6, 1, 6]  # cut elsewhere, it is no tree
    x = rng.standard_normal((4, 6, 3))
    check_layer(layer, x, state=(), lengths=lengths, causal=False)


# ------------------------------------------------------------------------------------------------------------ refused


@pytest.mark.parametrize(
    ("trees", "sides", "message"),
    [
        ([[-1], []], None, r"trees\[1\]: expected one root, whose parent is -1, got none among 0 nodes"),
        ([[0]], None, r"trees\[0\]: expected one root.*got none among 1 nodes"),
        ([[-1, 0], [-1, 0, -1]], None, r"trees\[1\]: expected one root, got nodes 0 and 2"),
        ([[-1, 2]], None, r"trees\[0\]\[1\]: expected a parent from 0 to 1, or -1 for the root, got 2"),
        ([[-1, -2]], None, r"trees\[0\]\[1\]: expected a parent"),
        ([[-1], [-1, 1]], None, r"trees\[1\]: expected a tree, got a cycle through node 1"),
        ([[-1, 2, 3, 1, 1]], None, r"trees\[0\]: expected a tree, got a cycle through node 1"),
        ([[-1, 0, 0]], [[0, 1, 1]], r"sides\[0\]\[2\]: expected another than of node 1, which has the same parent"),
        ([[-1], [-1, 0]], [[0], [0, 2]], r"sides\[1\]\[1\]: expected 0 for left or 1 for right, got 2"),
        ([[-1, 0]], [[0]], r"sides: expected arrays of \[2\] nodes"),
        ([[[-1]]], None, r"trees\[0\]: expected integers \(n,\)"),
        (np.array([-1, 0]), None, r"trees: expected a list of arrays"),
    ],
)
def test_what_is_no_forest(trees, sides, message):
    with pytest.raises(ValueError, match=message):
        rc.Forest(trees, sides)


def test_indices_are_integers():
    with pytest.raises(TypeError, match=r"trees\[1\]: expected integers, got float64"):
        rc.Forest([[-1], [-1.0]])


def test_what_layers_refuse(kind, rng):
    layer, x, dy, _ = case(rng, kind, 4, np.float32, [np.zeros(3)])
    forest = rc.Forest([[-1, 0, 0]])
    for wrong, match in ((x[:2], r"x: expected \(3, 5\)"), (x[:, :2], r"x: expected \(3, 5\)")):
        with pytest.raises(ValueError, match=match):
            layer(wrong, forest)
    with pytest.raises(ValueError, match=r"x: expected arrays of \[3\] nodes, got \[2, 1\]"):
        layer([x[:2], x[2:]], forest)
    with pytest.raises(TypeError, match="x: expected Trees, or a Forest beside x, got ndarray and NoneType"):
        layer(x)
    with pytest.raises(TypeError, match="expected Trees, or a Forest"):
        layer(rc.Packed.from_list([x]))
    with pytest.raises(ValueError, match="forest: expected None, since x has its own"):
        layer(rc.Trees(forest, x), forest)
    with pytest.raises(ValueError, match="lengths: expected None"):
        layer.run(x, forest, [3])
    with pytest.raises(TypeError, match="x: expected real numbers"):
        layer(x.astype(complex), forest)
    _, pull_back = layer.vjp(x, forest)
    with pytest.raises(ValueError, match=r"dy: expected \(3, 4\)"):
        pull_back(dy[:2])
    wrong_state = np.zeros((2, 4))
    with pytest.raises(ValueError, match=r"dstate: expected \(1, 4\), got \(2, 4\)"):
        pull_back(None, (wrong_state, None) if layer._states == 2 else wrong_state)
    if layer._states == 2:
        with pytest.raises(TypeError, match="dstate: expected None or a tuple"):
            pull_back(None, np.zeros((1, 4)))
    other = rc.Trees(rc.Forest([[-1, 0, 1]]), dy)
    _, pull_back = layer.vjp(rc.Trees(forest, x))
    with pytest.raises(ValueError, match="dy: expected the trees of"):
        pull_back(other)
    with pytest.raises(TypeError, match="can be streamed"):
        layer.stream()


def test_binary_trees_have_two_children_at_most(rng):
    layer, x, *_ = case(rng, "binary", 4, np.float32, [np.zeros(6)])
    with pytest.raises(ValueError, match="forest: expected at most two children of a node, got 3 of node 1 of tree 1"):
        layer(x, rc.Forest([[-1], [-1, 0, 1, 1, 1]]))


def test_the_core_refuses_what_does_not_fit(rng):
    layer, x, *_ = case(rng, "child_sum", 4, np.float32, [np.zeros(3)])
    forest = rc.Forest([[-1, 0, 0]])
    arguments = [True, "child_sum", forest._core, x, *layer._core_arguments(rc.Trees(forest, x))[3:]]
    *_, recording = _core.tree(*arguments)
    for wrong in (np.zeros((2, 4), np.float32), np.zeros((3, 4)), [[0.0] * 4] * 3):
        with pytest.raises((ValueError, TypeError)):
            recording.backward(wrong, None, None)
    with pytest.raises(ValueError, match="cell: there is none of the name gru"):
        _core.tree(True, "gru", *arguments[2:])
    for index in range(3, len(arguments)):
        array = arguments[index]
        for wrong in (array[:-1], array.astype(np.float64), np.zeros((2, 2, 2), np.float32)):
            with pytest.raises((ValueError, TypeError)):
                _core.tree(*arguments[:index], wrong, *arguments[index + 1 :])
    with pytest.raises(ValueError, match="sizes"):
        _core.Forest(np.array([2]), np.array([-1]), None)
    with pytest.raises(ValueError, match="sizes"):
        _core.Forest(np.array([0]), np.array([-1]), None)


# -------------------------------------------------------------------------------------------------------------- layers


def test_layers_are_layers(kind, tmp_path, rng):
    trees = trees_of(rng, kind)
    layer, x, *_ = case(rng, kind, 4, np.float32, trees)
    forest = rc.Forest(trees)
    expected, _ = layer(x, forest)
    layer.save(tmp_path / "layer.safetensors")
    for twin in (rc.load(tmp_path / "layer.safetensors"), copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert repr(twin) == repr(layer)
        assert np.array_equal(twin(x, forest)[0], expected)
    assert layer.flat_parameters.size == sum(view.size for view in layer.parameters.values())
    rc.init.uniform(layer, rng=0)
    rc.init.orthogonal(layer, rng=0)


def test_a_saved_layer_is_known_to_a_new_process(tmp_path):
    rc.Sequential(rc.ChildSumTreeLSTM(3, 4), rc.Root(), rc.Linear(4, 2)).save(tmp_path / "model.safetensors")
    code = f"import rnncore; print(rnncore.load({str(tmp_path / 'model.safetensors')!r}))"
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert printed == "Sequential(ChildSumTreeLSTM(3, 4), Root(), Linear(4, 2))\n"


def test_repr():
    assert repr(rc.TreeRNN(3, 4, nonlinearity="relu")) == "TreeRNN(3, 4, nonlinearity='relu')"
    assert repr(rc.BinaryTreeLSTM(3, 4, bias=False, dtype="float64")) == (
        "BinaryTreeLSTM(3, 4, bias=False, dtype='float64')"
    )
    with pytest.raises(ValueError, match="nonlinearity: expected 'tanh' or 'relu', got 'sin'"):
        rc.TreeRNN(3, 4, nonlinearity="sin")


def test_forget_biases():
    for layer, width in ((rc.ChildSumTreeLSTM(3, 2, rng=0), 2), (rc.BinaryTreeLSTM(3, 2, rng=0), 4)):
        before = layer.parameters["bias_hh"].copy()
        rc.init.forget_bias(layer)
        assert np.array_equal(layer.parameters["bias_ih"][2:4], [1, 1])
        changed = layer.parameters["bias_hh"] != before
        assert np.array_equal(np.flatnonzero(changed), np.arange(2, 2 + width))
        assert not layer.parameters["bias_hh"][2 : 2 + width].any()


def test_every_isa_agrees(rng):
    trees = [random_tree(rng, 20, 2) for _ in range(4)]
    for kind in CELLS:
        layer, x, *_ = case(rng, kind, 33, np.float32, trees)
        results = []
        for isa in ISAS:
            rc.use_isa(isa)
            results.append(layer(x, rc.Forest(trees))[0])
        rc.use_isa(ISAS[0])
        for result in results:
            np.testing.assert_allclose(result, results[0], rtol=0, atol=2e-6)
