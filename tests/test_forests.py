"""Forests and trees as data: nested tuples, values that go through models, data sets, training."""

import copy
import pickle

import numpy as np
import pytest

import rnncore as rc
from rnncore.testing import check_gradients

TREES = [[-1, 0, 0], [1, 2, -1], [-1], [1, -1, 1]]


@pytest.fixture
def forest():
    return rc.Forest(TREES)


@pytest.fixture
def trees(forest, rng):
    return rc.Trees(forest, rng.standard_normal((forest.nodes, 3)))


def tokens_of(rng, trees):
    """Return random binary trees as nested tuples of tokens from 1 to 9, and whether each has more 9s than 1s."""

    def nested(n):
        if n == 1:
            return int(rng.integers(1, 10))
        left = int(rng.integers(1, n))
        return nested(left), nested(n - left)

    def leaves(tree):
        return [tree] if isinstance(tree, int) else [leaf for part in tree for leaf in leaves(part)]

    made = [nested(int(rng.integers(1, 8))) for _ in range(trees)]
    return made, np.array([leaves(tree).count(9) > leaves(tree).count(1) for tree in made], np.int64)


# ------------------------------------------------------------------------------------------------------------- forests


def test_what_a_forest_says(forest):
    assert (forest.N, len(forest), forest.nodes, forest.levels) == (4, 4, 10, 3)
    assert forest.sizes.tolist() == [3, 3, 1, 3]
    assert forest.parents.tolist() == [-1, 0, 0, 1, 2, -1, -1, 1, -1, 1]
    assert forest.roots.tolist() == [0, 5, 6, 8]
    assert forest.leaves.tolist() == [1, 2, 3, 6, 7, 9]
    empty = rc.Forest([])
    assert (empty.N, empty.nodes, empty.levels, empty.leaves.size) == (0, 0, 0, 0)
    with pytest.raises(ValueError, match="read-only"):
        forest.parents[0] = 1


def test_equality_and_copies(forest):
    assert forest == rc.Forest(TREES)
    assert forest != rc.Forest(TREES[:3])
    assert forest != rc.Forest([*TREES[:3], [-1, 0, 1]])
    assert rc.Forest([[-1, 0]]) != rc.Forest([[-1, 0]], [[0, 1]])
    assert rc.Forest([[-1, 0]], [[0, 0]]) != rc.Forest([[-1, 0]], [[0, 1]])
    assert forest != 3
    for other in (pickle.loads(pickle.dumps(forest)), copy.deepcopy(forest)):
        assert other == forest


def test_take(forest, trees):
    some = forest.take([3, 0, 3])
    assert some == rc.Forest([TREES[3], TREES[0], TREES[3]])
    taken = trees.take([3, 0, 3])
    assert taken.forest == some
    parts = trees.to_list()
    assert np.array_equal(taken.data, np.concatenate([parts[3], parts[0], parts[3]]))
    sides = rc.Forest([[-1, 0], [-1, 0, 0]], [[0, 1], [0, 1, 0]])
    assert sides.take([1]) == rc.Forest([[-1, 0, 0]], [[0, 1, 0]])
    assert forest.take([]).N == 0
    with pytest.raises(IndexError):
        forest.take([4])
    with pytest.raises(ValueError, match="trees: expected integers"):
        forest.take([0.5])


def test_nested_tuples():
    forest, values = rc.Forest.from_nested([(("a", "b"), "c"), "d", (("e",), ("f", "g", "h"))])
    assert values == list("abcdefgh")
    assert forest.parents.tolist() == [2, 2, 4, 4, -1, -1, 1, 6, 5, 5, 5, 6, -1]
    assert np.array_equal(forest.roots, np.cumsum(forest.sizes) - 1)
    words = np.empty(forest.nodes, object)
    words[forest.leaves] = values
    assert [word for word in words if word] == values
    right, _ = rc.Forest.from_nested([(None, 1), (1, None)])
    assert right == rc.Forest([[1, -1], [1, -1]], [[1, 0], [0, 0]])


def test_deep_tuples():
    tree = 0
    for _ in range(50_000):
        tree = (tree, 1)
    forest, values = rc.Forest.from_nested([tree])
    assert forest.levels == 50_001
    assert len(values) == 50_001
    y, _ = rc.TreeRNN(2, 2, rng=0)(np.ones((forest.nodes, 2)), forest)
    assert np.isfinite(y).all()


def test_what_is_not_nested():
    with pytest.raises(TypeError, match="trees: expected a list of nested tuples, got tuple"):
        rc.Forest.from_nested((1, 2))
    with pytest.raises(ValueError, match=r"trees\[1\]: expected tuples of at least one child, got \(\)"):
        rc.Forest.from_nested([1, (1, ())])
    with pytest.raises(ValueError, match=r"trees\[0\]: expected a tree, got None"):
        rc.Forest.from_nested([None])
    with pytest.raises(ValueError, match=r"sides\[0\]\[1\]: expected 0 for left or 1 for right, got 2"):
        rc.Forest.from_nested([(None, 1, 2)])


def test_values_at_leaves(forest):
    rows = forest.at_leaves(np.arange(1, 7), fill=-1)
    assert rows.data.tolist() == [-1, 1, 2, 3, -1, -1, 4, 5, -1, 6]
    assert forest.at_leaves(np.ones((6, 2))).data.shape == (10, 2)
    with pytest.raises(ValueError, match=r"values: expected \(6, ...\), one for each leaf, got \(5,\)"):
        forest.at_leaves(np.ones(5))


# --------------------------------------------------------------------------------------------------------------- trees


def test_trees_are_values(forest, trees):
    assert repr(trees) == "Trees(4 trees, 10 nodes, data=float64 (10, 3))"
    assert np.array_equal((2 * trees + trees).data, 3 * trees.data)
    assert np.tanh(trees).forest is forest
    again = pickle.loads(pickle.dumps(trees))
    assert again.forest == forest
    assert np.array_equal(again.data, trees.data)
    assert [part.N for part in trees.parts(3)] == [3, 1]
    assert trees.parts(4)[0] is trees
    assert trees.with_data(np.ones(10)).forest is forest
    with pytest.raises(ValueError, match="operand: expected the trees of"):
        trees + rc.Trees(rc.Forest([[-1, 0, 1], *TREES[1:]]), trees.data)
    with pytest.raises(ValueError, match=r"data: expected 10 rows, one for each node, got \(9, 3\)"):
        rc.Trees(forest, np.ones((9, 3)))
    with pytest.raises(TypeError, match="forest: expected a Forest, got list"):
        rc.Trees(TREES, np.ones((10, 3)))


def test_root(forest, trees, rng):
    (y, state), pull_back = rc.Root().vjp(trees)
    assert state is None
    assert np.array_equal(y, trees.data[forest.roots])
    assert np.array_equal(rc.Last()(trees), y)
    dy = rng.standard_normal(y.shape)
    dx, _ = pull_back(dy)
    assert isinstance(dx, rc.Trees)
    assert np.array_equal(dx.data[forest.roots], dy)
    assert np.count_nonzero(dx.data) == dy.size
    for wrong in (np.ones((2, 3, 4)), rc.Packed.from_list([np.ones((2, 3))])):
        with pytest.raises(TypeError, match="x: expected Trees"):
            rc.Root()(wrong)
    with pytest.raises(TypeError, match="can be streamed"):
        rc.Root().stream()


def test_layers_beside_them_take_trees(trees):
    mean = rc.MeanPool()(trees)
    assert np.allclose(mean, [part.mean(axis=0) for part in trees.to_list()])
    for layer in (rc.Linear(3, 2, rng=0, dtype="float64"), rc.LayerNorm(3, dtype="float64"), rc.Activation("tanh")):
        y = layer(trees)
        assert isinstance(y, rc.Trees)
        assert np.array_equal(y.data, layer(trees.data))


@pytest.mark.parametrize("kind", [rc.TreeRNN, rc.ChildSumTreeLSTM, rc.BinaryTreeLSTM])
@pytest.mark.parametrize("per_node", [False, True])
def test_gradients_of_models(forest, trees, kind, per_node, rng):
    layers = [rc.Linear(3, 4, dtype="float64", rng=1), kind(4, 5, dtype="float64", rng=2), kind(5, 4, dtype="float64")]
    model = rc.Sequential(*layers, *([] if per_node else [rc.Root()]), rc.Linear(4, 2, dtype="float64", rng=3))
    loss = rc.CrossEntropy()
    targets = rc.Trees(forest, rng.integers(2, size=10)) if per_node else rng.integers(2, size=4)

    def function(x, parameters):
        model.flat_parameters[...] = parameters
        (y, _), pull_back = model.vjp(trees.with_data(x))
        measured = loss.with_gradient(y, targets)

        def vjp(dvalue):
            model.zero_gradients()
            dx, _ = pull_back(dvalue * measured.gradient)
            return dx.data, model.flat_gradients.copy()

        return (np.float64(measured.value),), vjp

    check_gradients(function, [trees.data, model.flat_parameters.copy()], names=["x", "parameters"])


# ------------------------------------------------------------------------------------------------------------ training


def test_data_sets(forest, trees, rng):
    data = rc.data.Forests(trees, [3, 1, 4, 1], batch_size=3, weights=[1.0, 2.0, 3.0, 4.0])
    first, second = data.epoch()
    assert first.x.forest == forest.take([0, 1, 2])
    assert second.targets.tolist() == [1]
    assert second.weights.tolist() == [4.0]
    assert second.lengths is None
    shuffled = [batch.targets.tolist() for batch in data.epoch(np.random.default_rng(1))]
    assert sorted(shuffled[0] + shuffled[1]) == [1, 1, 3, 4]
    assert shuffled == [batch.targets.tolist() for batch in data.epoch(np.random.default_rng(1))]
    of_nodes = rc.Trees(forest, np.arange(10))
    per_node = rc.data.Forests(trees, of_nodes, batch_size=2, rows=[3, 1, 0], weights=of_nodes, drop_last=True)
    (batch,) = per_node.epoch()
    assert batch.targets.data.tolist() == [7, 8, 9, 3, 4, 5]
    assert batch.weights.forest == batch.x.forest == forest.take([3, 1])


def test_what_is_no_data_set(forest, trees):
    for arguments, error, match in (
        ((trees.data,), TypeError, "x: expected Trees, got ndarray"),
        ((trees, [1, 2]), ValueError, r"targets: expected \(4, ...\), one for each tree, or Trees, got \(2,\)"),
        ((rc.Trees(rc.Forest([]), np.ones((0, 3))),), ValueError, "x: expected at least one tree, got none"),
        ((trees, rc.Trees(rc.Forest([[-1]]), [1])), ValueError, "targets: expected the trees of"),
    ):
        with pytest.raises(error, match=match):
            rc.data.Forests(*arguments, batch_size=2)
    with pytest.raises(ValueError, match=r"rows\[0\]: expected 0 to 3, got 4"):
        rc.data.Forests(trees, batch_size=2, rows=[4])


def test_training_of_a_model_over_trees(rng):
    nested, labels = tokens_of(rng, 400)
    forest, words = rc.Forest.from_nested(nested)
    x = forest.at_leaves(words, fill=0)
    model = rc.Sequential(
        rc.Embedding(10, 8, padding_index=0, rng=0), rc.BinaryTreeLSTM(8, 16, rng=1), rc.Root(), rc.Linear(16, 2, rng=2)
    )
    assert model.summary().splitlines()[2].startswith("1 BinaryTreeLSTM(8, 16)")
    some, rest = np.arange(300), np.arange(300, 400)
    trainer = rc.Trainer(model, rc.CrossEntropy(), rc.Adam(1e-2), metrics=[rc.metrics.Accuracy()], rng=0)
    history = trainer.fit(
        rc.data.Forests(x, labels, batch_size=20, rows=some),
        epochs=8,
        validation=rc.data.Forests(x, labels, batch_size=50, rows=rest),
    )
    assert history.rows[-1]["validation_accuracy"] > 0.9
    assert not model.parameters["0.weight"][0].any()
    outputs = trainer.predict(x, batch_size=64)
    assert np.array_equal(outputs, model(x))


def test_training_on_every_node(rng):
    """A node's class is whether its subtree has a token 9."""
    nested, _ = tokens_of(rng, 200)
    forest, words = rc.Forest.from_nested(nested)
    x = forest.at_leaves(words, fill=0)
    labels = (x.data == 9).astype(np.int64)
    first = np.repeat(np.cumsum(forest.sizes) - forest.sizes, forest.sizes)
    for node, parent in enumerate(forest.parents):  # children come before their parents
        if parent >= 0:
            labels[first[node] + parent] |= labels[node]
    model = rc.Sequential(
        rc.Embedding(10, 8, padding_index=0, rng=0), rc.ChildSumTreeLSTM(8, 16, rng=1), rc.Linear(16, 2, rng=2)
    )
    trainer = rc.Trainer(model, rc.CrossEntropy(), rc.Adam(1e-2), metrics=[rc.metrics.Accuracy()], rng=0)
    data = rc.data.Forests(x, rc.Trees(forest, labels), batch_size=20)
    assert trainer.fit(data, epochs=6).rows[-1]["accuracy"] > 0.95
    predicted = trainer.predict(x, batch_size=33)
    assert isinstance(predicted, rc.Trees)
    assert np.array_equal(predicted.data, model(x).data)
    with pytest.raises(ValueError, match="tbptt"):
        rc.Trainer(model, rc.CrossEntropy(), rc.Adam(), tbptt=3).fit(data, epochs=1)


def test_predictions_of_packed_sequences_in_parts(rng):
    model = rc.Sequential(rc.GRU(3, 4, rng=0))
    packed = rc.Packed.from_list([rng.standard_normal((n, 3)) for n in (4, 0, 6, 2, 1)])
    trainer = rc.Trainer(model, rc.MSE(), rc.SGD(0.1))
    for size in (1, 2, 5):
        got = trainer.predict(packed, batch_size=size)
        assert np.array_equal(got.data, model(packed).data)
