"""The direction of ascent: the plain gradient's, and float16 keeps it."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from atat_tf import losses
from atat_tf.attacks import ascent, linf
from atat_tf.models import classifiers
from tests.support import toys


def _cross_entropy(labels):
    return lambda logits: losses.cross_entropy(labels, logits)


def _plain(logits_fn, labels, images):
    with tf.GradientTape() as tape:
        tape.watch(images)
        loss = losses.cross_entropy(labels, logits_fn(images))
    return tape.gradient(loss, images)


# From unsure to nearly certain of the label.
@pytest.mark.parametrize("factor", [1.0, 30.0, 300.0])
def test_it_is_the_gradient_times_a_power_of_two_for_each_image(factor):
    classifier = toys.small_classifier()
    images, labels = toys.random_images(6), tf.range(6) % 5

    def logits_fn(points):
        return factor * classifier(points)

    plain = _plain(logits_fn, labels, images)
    logits, loss, found = ascent.ascent(
        logits_fn, _cross_entropy(labels), images
    )
    np.testing.assert_array_equal(logits, logits_fn(images))
    np.testing.assert_array_equal(loss, losses.cross_entropy(labels, logits))
    for scaled, own in zip(found.numpy(), plain.numpy(), strict=True):
        np.testing.assert_array_equal(scaled[own == 0], 0)
        ratios = np.unique(scaled[own != 0] / own[own != 0])
        if len(ratios):  # a loss of exactly 0 has none
            (ratio,) = ratios
            assert np.frexp(ratio)[0] == 0.5 and ratio >= 1


def test_a_sure_classifier_in_float16_is_attacked_as_in_float32():
    images, labels = toys.random_images(20), tf.range(20) % 5
    plain = toys.small_classifier()
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        half = classifiers.logits_model(toys.small_classifier())
    finally:
        keras.config.set_dtype_policy(policy)
    half.set_weights(plain.get_weights())
    labels = tf.argmax(plain(images), -1, tf.int32)
    # Sure enough for derivatives far below float16's least number.
    factors = 25 / losses.verdict_margin(labels, plain(images))[:, None]

    def sure(model):
        return lambda points: factors * model(points)

    assert not np.any(_plain(sure(half), labels, images))
    towards, in_half = (
        ascent.ascent(sure(model), _cross_entropy(labels), images)[2].numpy()
        for model in (plain, half)
    )
    assert np.mean(np.sign(towards) == np.sign(in_half)) > 0.97
    attack = linf.pgd(0.1, 0.02, 5)
    reached = [
        losses.verdict_margin(
            labels,
            plain(attack(sure(model), images, labels, toys.seeds(20))),
        )
        for model in (plain, half)
    ]
    np.testing.assert_allclose(*reached, rtol=0.1, atol=0.02)
