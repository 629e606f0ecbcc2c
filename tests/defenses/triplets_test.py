"""Triplets: distances, who is chosen, hand numbers, a twin in loops."""

import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from atat_tf.defenses import compared
from tests.defenses import twins


def _embeddings(seed, batch=6, size=4):
    generator = np.random.default_rng(seed)
    return tf.constant(generator.normal(size=(batch, size)), tf.float64)


class DistanceTest(tf.test.TestCase):
    def test_hand_numbers(self):
        first = tf.constant([[2.0, 0.0], [0.0, 0.0]])
        second = tf.constant([[5.0, 0.0], [0.0, 3.0], [-3.0, 4.0]])
        # Parallel 0, orthogonal 1, 1 − |−3 / 5|; zero has no direction.
        self.assertAllClose(
            compared.cosine_distances(first, second),
            [[0.0, 1.0, 0.4], [1.0, 1.0, 1.0]],
            1e-6,
            1e-6,
        )

    def test_opposite_and_longer_are_the_same(self):
        first, second = _embeddings(1), _embeddings(2)
        distances = compared.cosine_distances(first, second)
        for changed in (-second, 1e3 * second):
            self.assertAllClose(
                compared.cosine_distances(first, changed), distances
            )

    def test_gradient_at_zero_is_finite(self):
        first, second = tf.zeros([1, 3]), tf.ones([1, 3])
        with tf.GradientTape() as tape:
            tape.watch([first, second])
            distance = compared.cosine_distances(first, second)
        for gradient in tape.gradient(distance, [first, second]):
            self.assertTrue(np.all(np.isfinite(gradient)))


class ChoiceTest(parameterized.TestCase, tf.test.TestCase):
    @parameterized.parameters(
        ([0, 1, 0, 0, 1], [2, 4, 3, 0, 1]),
        # Alone in its class: itself.
        ([0, 1, 2, 1], [0, 3, 2, 1]),
        ([7], [0]),
        ([3, 3], [1, 0]),
    )
    def test_positives(self, labels, expected):
        self.assertAllEqual(compared.positives(tf.constant(labels)), expected)

    def test_each_image_is_as_often_a_positive_as_an_anchor(self):
        labels = tf.constant(np.random.default_rng(0).integers(0, 5, 100))
        self.assertAllEqual(np.sort(compared.positives(labels)), range(100))

    def test_negatives_are_the_nearest_of_another_class(self):
        labels = tf.constant([0, 0, 1, 2])
        distances = tf.constant(
            [
                [0.0, 0.1, 0.9, 0.8],  # the nearest two are of its class
                [0.0, 0.1, 0.2, 0.8],
                [0.6, 0.5, 0.0, 0.7],
                [0.3, 0.4, 0.5, 0.0],
            ]
        )
        nearest, exists = compared.negatives(labels, distances)
        self.assertAllEqual(nearest, [3, 2, 1, 0])
        self.assertAllEqual(exists, [True] * 4)

    def test_one_class_has_no_negatives(self):
        _, exists = compared.negatives(tf.constant([1, 1]), tf.zeros([2, 2]))
        self.assertAllEqual(exists, [False, False])


class TermsTest(parameterized.TestCase, tf.test.TestCase):
    def test_hand_numbers(self):
        """Classes 0, 0, 1. Anchor 0 = (1, 0), clean (0, 2), (3, 4), (4, 3)."""
        anchors = tf.constant([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
        clean = tf.constant([[0.0, 2.0], [3.0, 4.0], [4.0, 3.0]])
        triplet, norm = compared.triplet_terms(
            tf.constant([0, 0, 1]), anchors, clean, 0.1
        )
        # 0: to (3, 4) 0.4, from (4, 3) 0.2. 1: to (0, 2) 0, from (4, 3) 0.4.
        # 2, its own positive: to (4, 3) 0.2, from (3, 4) 0.4.
        self.assertAllClose(triplet, [0.3, 0.0, 0.0], 1e-6, 1e-6)
        self.assertAllClose(norm, [11.0, 8.0, 11.0], 1e-6, 1e-6)

    @parameterized.parameters(
        ([0, 1, 0, 2, 1, 0], 0.03),
        ([0, 1, 2, 3, 4, 5], 0.5),  # no positives
        ([1, 1, 1, 1, 1, 1], 0.5),  # no negatives
    )
    def test_equals_numpy_twin(self, labels, margin):
        anchors, clean = _embeddings(1), _embeddings(2)
        triplet, norm = compared.triplet_terms(
            tf.constant(labels), anchors, clean, margin
        )
        expected = twins.triplet_terms(
            labels, anchors.numpy(), clean.numpy(), margin
        )
        self.assertAllClose(triplet, expected[0], 1e-9, 1e-9)
        self.assertAllClose(norm, expected[1], 1e-9, 1e-9)
        self.assertGreater(np.max(norm), 0)

    def test_gradients_equal_finite_differences(self):
        labels = tf.constant([0, 1, 0, 2, 1, 0])

        def total(anchors, clean):
            triplet, norm = compared.triplet_terms(labels, anchors, clean, 0.5)
            return tf.reduce_sum(triplet + 0.1 * norm)

        inputs = [_embeddings(1), _embeddings(2)]
        analytic, numeric = tf.test.compute_gradient(total, inputs)
        for one, other in zip(analytic, numeric, strict=True):
            self.assertAllClose(one, other, 1e-6, 1e-6)
