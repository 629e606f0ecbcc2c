"""The released losses against NumPy twins, with the scores they average."""

import numpy as np
import tensorflow as tf

from atat_tf.defenses import released
from atat_tf.models import graphs
from tests.defenses import twins
from tests.support import toys

BATCH = len(twins.DefenseTestCase.labels)


class ReleasedTest(twins.DefenseTestCase):
    def _mean_cross_entropy(self):
        """The mean over [clean; adversarial], a number."""
        logits = self.student(self.mixture, training=True).numpy()
        twice = np.concatenate([self.labels, self.labels])
        return np.mean(twins.cross_entropy(twice, logits))

    def test_cifar10(self):
        objective = self.objective(released.ReleasedCIFAR10())
        logits = self.student(self.mixture, training=True).numpy()
        target = self.teacher(self.images, training=False).numpy()
        # Means over everything, as tf.losses.mean_squared_error takes them.
        expected = (
            self._mean_cross_entropy()
            + 0.5 * np.mean((logits[:BATCH] - target) ** 2)
            + 0.5 * np.mean((logits[BATCH:] - target) ** 2)
        )
        self.assertAllClose(np.mean(objective.loss), expected, 1e-5, 1e-5)

    def test_cifar10_reads_no_attention(self):
        self.assertEqual(released.ReleasedCIFAR10().layers, ())

    def _released_map_twin(self, model, images, labels, training):
        """Grad-CAM of the mean over batch and classes of logits × one-hot."""
        taps = graphs.with_taps(model, ("features",))
        with tf.GradientTape() as tape:
            tape.watch(images)
            outputs = taps(images, training=training)
            one_hot = tf.one_hot(labels, toys.NUM_CLASSES)
            score = tf.reduce_mean(outputs["logits"] * one_hot)
        activations = outputs["features"]
        gradients = tape.gradient(score, activations).numpy()
        weights = gradients.mean(axis=(1, 2))
        maps = np.einsum("bhwc,bc->bhw", activations.numpy(), weights)
        return np.maximum(maps, 0)

    def test_cifar100(self):
        objective = self.objective(released.ReleasedCIFAR100())
        target = self._released_map_twin(
            self.teacher, self.images, self.labels, False
        )
        maps = self._released_map_twin(
            self.student,
            self.mixture,
            tf.concat([self.labels, self.labels], axis=0),
            True,
        )
        attention = np.mean((maps[:BATCH] - target) ** 2) + np.mean(
            (maps[BATCH:] - target) ** 2
        )
        self.assertGreater(attention, 0)
        self.assertAllClose(
            np.mean(objective.terms["attention_transfer"]),
            attention,
            1e-4,
            1e-9,
        )
        self.assertAllClose(
            np.mean(objective.loss),
            self._mean_cross_entropy() + attention,
            1e-5,
            1e-5,
        )

    def test_equal_networks_are_a_factor_of_two_apart(self):
        """Teacher's maps are of a batch b, the student's of 2b.

        ATT_S = ½ ATT_T for equal networks and images, so that each term is
        the mean of (½ ATT_T)².
        """
        self.student = toys.small_classifier(seed=2, norm=False)
        self.teacher = toys.small_classifier(seed=2, norm=False)
        self.adversarial = self.images
        objective = self.objective(released.ReleasedCIFAR100())
        target = self._released_map_twin(
            self.teacher, self.images, self.labels, False
        )
        self.assertGreater(np.max(target), 0)
        self.assertAllClose(
            objective.terms["attention_transfer"],
            2 * np.mean((0.5 * target) ** 2, axis=(1, 2)),
            1e-4,
            1e-10,
        )
