"""Noise at corners of the ball, and another classifier's images."""

import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from atat_tf.attacks import baselines, columns, linf, stepped
from tests.support import toys

_EPSILON = 8 / 255


def _source(images):
    """Classifies by the first pixel: class 0 where it is above 0.5."""
    value = 10 * (images[:, 0, 0, 0] - 0.5)
    zeros = tf.zeros_like(value)
    return tf.stack([value, -value, zeros, zeros, zeros], axis=1)


class NoiseTest(parameterized.TestCase, tf.test.TestCase):
    def _candidates(self, tries, count=3):
        """Returns the candidates [tries, count, ...] that a run judges."""
        seen = []

        def logits_fn(images):
            seen.append(images.numpy())
            return tf.one_hot(tf.zeros(len(images), tf.int32), 5)

        attack = baselines.Noise(_EPSILON, tries)
        images = tf.fill([count, *toys.IMAGE_SHAPE], 0.5)
        labels = tf.zeros(count, tf.int32)
        state = attack.start(logits_fn, images, labels, toys.seeds(count))
        for index in range(tries):
            state = attack.step(logits_fn, state, tf.constant(index))
        return np.stack(seen[1:])

    def test_every_try_is_another_corner_of_the_ball(self):
        noise = self._candidates(4) - 0.5
        self.assertAllClose(np.abs(noise), np.full_like(noise, _EPSILON))
        flat = np.sign(noise).reshape(12, -1)
        # 192 coins: a mean of 0 up to 5 · 1/sqrt(192), no two alike.
        self.assertAllInRange(flat.mean(1), -0.36, 0.36)
        similarity = flat @ flat.T / flat.shape[1] - np.eye(12)
        self.assertAllInRange(similarity, -0.36, 0.36)


class TransferTest(parameterized.TestCase, tf.test.TestCase):
    def _state(self, logits_fn):
        attack = baselines.Transfer(_EPSILON, _EPSILON / 2, 4, _source)
        images = tf.fill([2, *toys.IMAGE_SHAPE], 0.5)
        labels = tf.constant([0, 1])
        state = attack.start(logits_fn, images, labels, toys.seeds(2))
        for index in range(4):
            state = attack.step(logits_fn, state, tf.constant(index))
        return state

    def test_the_points_are_those_of_pgd_on_the_other(self):
        state = self._state(_source)
        images = tf.fill([2, *toys.IMAGE_SHAPE], 0.5)
        plain = linf.pgd(_EPSILON, _EPSILON / 2, 4)
        expected = plain(_source, images, tf.constant([0, 1]), toys.seeds(2))
        self.assertAllClose(state["point"], expected)
        # Class 0 goes down in the first pixel, class 1 up.
        self.assertAllClose(
            state["point"][:, 0, 0, 0], [0.5 - _EPSILON, 0.5 + _EPSILON]
        )

    def test_the_attacked_classifier_is_the_judge(self):
        def never_fooled(images):
            # Image 0 is of class 0, image 1 of class 1.
            return tf.eye(2, 5) * tf.reduce_mean(images)

        state = self._state(never_fooled)
        self.assertAllEqual(state["broke_at"], [stepped.NEVER] * 2)
        # Gray is even between two classes, which is wrong from the start.
        self.assertAllEqual(self._state(_source)["broke_at"], [0, 0])

    def test_its_description_names_the_other(self):
        attack = baselines.Transfer(_EPSILON, _EPSILON / 2, 4, _source)
        self.assertIn("source=_source", columns.description(attack))
