"""Plots show what they are given."""

import numpy as np
import pytest

import rnncore as rc


@pytest.fixture
def pyplot():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    from matplotlib import pyplot

    yield pyplot
    pyplot.close("all")


def texts(labels):
    return [label.get_text() for label in labels]


def test_attention_is_drawn_with_its_labels(pyplot, rng):
    weights = rng.dirichlet(np.ones(4), size=3)
    ax = rc.plot_attention(weights, source="abcd", target=np.array([7, 8, 9]))
    (image,) = ax.get_images()
    np.testing.assert_array_equal(image.get_array(), weights)
    assert image.get_clim() == (0.0, 1.0)
    assert (texts(ax.get_xticklabels()), texts(ax.get_yticklabels())) == (list("abcd"), ["7", "8", "9"])
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("source", "target")
    ax.figure.canvas.draw()


def test_padding_has_no_labels_and_is_left_out(pyplot, rng):
    weights = rng.random((3, 4))
    _, mine = pyplot.subplots()
    assert rc.plot_attention(weights, "ab", "x", ax=mine) is mine
    np.testing.assert_array_equal(mine.get_images()[0].get_array(), weights[:1, :2])


def test_attention_without_labels(pyplot):
    ax = rc.plot_attention([[0.25, 0.75]])
    assert ax.get_images()[0].get_array().shape == (1, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros(3),), r"weights: expected shape \(T, S\), got \(3,\)"),
        ((np.zeros((2, 3)), "abcd"), "source: expected at most 3 labels, as weights has, got 4"),
        ((np.zeros((2, 3)), "abc", "xyz"), "target: expected at most 2 labels"),
    ],
)
def test_what_does_not_fit_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        rc.plot_attention(*arguments)
