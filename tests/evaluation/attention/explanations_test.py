"""Numbers of explanations, on maps and networks made by hand."""

import random

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from atat_tf.attacks import linf
from atat_tf.evaluation.attention import explanations, views
from atat_tf.evaluation.checklist import gates

_HEADS = {"apart": np.eye(2), "alike": [[1.0, 1.0], [0.0, 0.0]]}


def _bright_and_dark(head):
    """A network whose channels are the bright and the dark pixels."""
    inputs = keras.Input((4, 5, 1))
    maps = layers.Conv2D(2, 1, activation="relu", name="features")
    x = layers.GlobalAveragePooling2D()(maps(inputs))
    dense = layers.Dense(2)
    network = keras.Model(inputs, dense(x))
    maps.set_weights([np.array([[[[1.0, -1.0]]]]), np.array([-0.5, 0.5])])
    dense.set_weights([np.array(head), np.zeros(2)])
    return network


def _images(count=3):
    return np.random.default_rng(0).random((count, 4, 5, 1), np.float32)


@pytest.mark.parametrize("head, expected", [("apart", 1.0), ("alike", 0.0)])
def test_class_sensitivity(head, expected):
    network, images = _bright_and_dark(_HEADS[head]), _images()
    viewer = views.Viewer(network, "features")
    labels = np.array([0, 1, 0])
    own = viewer.view(images, labels).maps
    found = explanations.class_sensitivity(
        viewer, own, images, labels, np.zeros((3, 2))
    )
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_deletion_and_insertion_of_one_pixel():
    """The probability is the first pixel; the map names it, or the last."""
    images = np.ones((2, 1, 10, 1), np.float32)
    own = np.zeros((2, 1, 10), np.float32)
    own[0, 0, 0] = own[1, 0, 9] = 1.0
    labels = np.zeros(2, int)

    def probabilities(seen):
        return np.stack([seen[:, 0, 0, 0], 1 - seen[:, 0, 0, 0]], axis=1)

    # The last pixel goes first, then, by their order, the first.
    arguments = probabilities, own, images, labels
    removed = explanations.deletion(*arguments)
    np.testing.assert_allclose(removed, [0.05, 0.15])
    shown = explanations.insertion(*arguments)
    np.testing.assert_allclose(shown, [0.95, 0.85])


def test_quality_of_a_network():
    network, images = _bright_and_dark(_HEADS["apart"]), _images()
    attack = linf.pgd(0.1, 0.05, 2)
    labels = np.array([0, 1, 1])
    arguments = network, "features", images, labels
    found = explanations.quality(*arguments, attack, seed=1)
    assert found.stability.shape == found.deletion.shape == (3,)
    means = found.means()
    assert set(means) == {
        "class_sensitivity",
        "deletion",
        "insertion",
        "stability",
        "parameter_randomisation",
    }
    assert 0 < means["stability"] < 1
    again = explanations.quality(*arguments, attack, seed=1)
    assert again.means() == means
    drawn = []
    for seed in (1, 2, 1):  # the caller's own draws stay the caller's
        keras.utils.set_random_seed(seed)
        explanations.quality(*arguments, seed=1)
        drawn.append(
            [np.random.rand(), random.random(), float(tf.random.uniform([]))]
        )
    assert drawn[0] == drawn[2]
    assert not {*drawn[0]} & {*drawn[1]}
    without = explanations.quality(*arguments, seed=1)
    assert "stability" not in without.means()


def test_a_map_that_stays_when_the_weights_go():
    """Of an image without structure both networks' maps are constant."""
    network = _bright_and_dark(_HEADS["apart"])
    flat = np.ones((1, 4, 5, 1), np.float32)
    own = np.ones((1, 4, 5), np.float32)
    nothing = explanations.parameter_randomisation(
        network, "features", own, flat, np.array([0])
    )
    assert np.isnan(nothing).all()


class _Untold(layers.Layer):
    """A layer of which no other can be made: it does not say its argument."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def call(self, x):
        return self.factor * x


def test_layers_that_cannot_be_made_anew_leave_one_number_out():
    inputs = keras.Input((4, 5, 1))
    maps = layers.Conv2D(2, 1, activation="relu", name="features")(inputs)
    x = _Untold(2.0)(layers.GlobalAveragePooling2D()(maps))
    network = keras.Model(inputs, layers.Dense(2)(x))
    found = explanations.quality(
        network, "features", _images(), np.array([0, 1, 1])
    ).means()
    assert "parameter_randomisation" not in found
    assert found["deletion"] >= 0


@pytest.mark.parametrize(
    "sensitivity, verdict", [(0.13, "FAIL"), (0.6, "PASS")]
)
def test_the_checklist_asks_whether_the_map_depends_on_the_class(
    sensitivity, verdict
):
    one = np.ones(200)
    quality = explanations.Quality(sensitivity * one, one, one, one, one)
    point = gates.class_sensitivity_point(quality)
    assert point.verdict == verdict
    assert gates.class_sensitivity_point(None).verdict == "NOT RUN"
