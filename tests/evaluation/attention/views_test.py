"""Where a network looks, before and after an attack."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from atat_tf import grad_cam
from atat_tf.attacks import linf
from atat_tf.evaluation.attention.views import Viewer
from atat_tf.models import graphs
from tests.support import toys

_PGD = linf.pgd(8 / 255, 4 / 255, 3)


@pytest.mark.parametrize("layer", ["features", "hidden"])  # with, without head
def test_views_are_grad_cam_of_clean_and_attacked_images(layer):
    classifier = toys.small_classifier()
    images, labels = toys.random_images(5).numpy(), toys.random_labels(5)
    # The second batch is smaller.
    viewer = Viewer(classifier, layer, seed=7, batch_size=3)
    seen = viewer.attended(_PGD, images, labels.numpy())
    expected = _PGD(
        toys.inference(classifier), images, labels, toys.seeds(5, 7)
    )
    np.testing.assert_allclose(seen.attacked.images, expected, atol=1e-5)
    np.testing.assert_array_equal(seen.clean.images, images)
    tapped = graphs.with_taps(classifier, [layer])
    for view in (seen.clean, seen.attacked):
        points = tf.constant(view.images)
        logits, maps = grad_cam.logits_and_attention(tapped, points, labels)
        np.testing.assert_array_equal(view.predictions, np.argmax(logits, -1))
        np.testing.assert_allclose(view.maps, maps[layer], atol=1e-5)
    distance = grad_cam.cosine_distance(seen.clean.maps, seen.attacked.maps)
    np.testing.assert_array_equal(seen.shift, distance)
    assert seen.shift.max() > 0


def test_without_labels_the_prediction_is_followed():
    classifier = toys.small_classifier()
    viewer, images = (
        Viewer(classifier, "features"),
        toys.random_images(3).numpy(),
    )
    free = viewer.view(images)
    followed = viewer.view(images, free.predictions.astype(np.int32))
    np.testing.assert_allclose(free.maps, followed.maps)


def test_an_image_starts_where_its_index_says():
    images, labels = (
        toys.random_images(2).numpy(),
        toys.random_labels(2).numpy(),
    )
    viewer = Viewer(toys.small_classifier(), "features")
    both = viewer.attended(_PGD, images, labels, np.array([4, 9]))
    alone = viewer.attended(_PGD, images[1:], labels[1:], np.array([9]))
    ends = both.attacked.images[1:], alone.attacked.images
    np.testing.assert_allclose(*ends, atol=1e-6)


def test_weights_of_now_are_looked_at():
    classifier, images = toys.small_classifier(), toys.random_images(2).numpy()
    viewer = Viewer(classifier, "features")
    before = viewer.view(images).maps
    toys.randomise(classifier, seed=1)
    assert not np.allclose(before, viewer.view(images).maps)


def test_several_radii_at_once_are_attacks_of_those_radii():
    classifier = toys.small_classifier()
    images, labels = toys.random_images(2).numpy(), toys.random_labels(2)
    viewer, indices = Viewer(classifier, "features", seed=7), np.array([0, 1])
    radii = [0, 2 / 255, 8 / 255]
    views = viewer.attacked_at(_PGD, images, labels.numpy(), radii, indices)
    np.testing.assert_array_equal(views[0].images, images)
    for radius, view in zip(radii[1:], views[1:], strict=True):
        attack = dataclasses.replace(_PGD, epsilon=radius)
        seen = viewer.attended(attack, images, labels.numpy(), indices)
        np.testing.assert_allclose(view.images, seen.attacked.images, atol=1e-6)
    probabilities = tf.nn.softmax(classifier(images, training=False))
    own = probabilities.numpy()[indices, views[0].predictions]
    np.testing.assert_allclose(views[0].confidences, own, rtol=1e-5)
