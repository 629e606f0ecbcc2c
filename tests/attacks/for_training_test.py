"""One-step attacks and TRADES' own: exact points, what they climb."""

import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from atat_tf import losses
from atat_tf.attacks import for_training, linf, randomness
from tests.support import toys

EPSILON = 0.125


class OneStepTest(parameterized.TestCase, tf.test.TestCase):
    images = toys.random_images(4)
    labels = toys.random_labels(4)

    def _linear(self):
        weights = np.random.default_rng(0).normal(size=(8, 8, 3, 5))
        return toys.linear_logits(weights)

    def _signs(self, points):
        """Returns the signs of the cross-entropy's gradient, in NumPy."""
        points = tf.constant(points)
        with tf.GradientTape() as tape:
            tape.watch(points)
            loss = losses.cross_entropy(self.labels, self._linear()(points))
        return np.sign(tape.gradient(loss, points))

    def test_fgsm_rs_is_a_step_of_one_and_a_quarter_then_projected(self):
        """P(x + η + 1.25 ε sgn g), η uniform in the ball (Wong et al.)."""
        adversarial = for_training.fgsm_rs(EPSILON)(
            self._linear(), self.images, self.labels, toys.seeds(4)
        )
        noise = randomness.uniform_noise(toys.seeds(4), (8, 8, 3), EPSILON)
        images = self.images.numpy()
        start = np.clip(images + noise, 0, 1) - images
        signs = self._signs(images + start)
        step = np.clip(start + 1.25 * EPSILON * signs, -EPSILON, EPSILON)
        self.assertAllClose(
            adversarial, np.clip(images + step, 0, 1), 1e-6, 1e-6
        )

    def test_n_fgsm_is_a_step_from_far_noise_without_projection(self):
        """x + η + ε sgn g in the box, η uniform in ±2 ε (de Jorge et al.)."""
        adversarial = for_training.n_fgsm(EPSILON)(
            self._linear(), self.images, self.labels, toys.seeds(4)
        )
        noise = randomness.uniform_noise(toys.seeds(4), (8, 8, 3), 2 * EPSILON)
        images = self.images.numpy()
        start = np.clip(images + noise, 0, 1)
        end = np.clip(start + EPSILON * self._signs(start), 0, 1)
        self.assertAllClose(adversarial, end, 1e-6, 1e-6)
        moved = np.abs(adversarial - images)
        self.assertGreater(np.mean(moved > EPSILON + 1e-3), 0.3)

    def test_they_are_known_as_such(self):
        for name in for_training.ONE_STEP:
            attack = for_training.TRAINING_ATTACKS[name](EPSILON)
            self.assertEqual(attack.num_steps, 1)


class KLAttackTest(parameterized.TestCase, tf.test.TestCase):
    attack = for_training.trades(EPSILON, 0.03, 5)

    def test_it_climbs_the_divergence_and_not_the_cross_entropy(self):
        """Logits (0, 4 (x − ½)), image ½, label 0.

        Cross-entropy rises with x everywhere. KL(p(½) ‖ p(x)) is 0 at ½ and
        rises to both sides, so that each start goes to its own.
        """

        def logits_fn(images):
            z = tf.reduce_sum(images - 0.5, axis=(1, 2, 3))
            return tf.stack([tf.zeros_like(z), 4.0 * z], axis=1)

        images = tf.fill([32, 1, 1, 1], 0.5)
        labels = tf.zeros([32], tf.int32)
        adversarial = self.attack(logits_fn, images, labels, toys.seeds(32))
        moved = np.ravel(adversarial - images)
        starts = np.ravel(
            self.attack.first_point(images, toys.seeds(32)) - images
        )
        # Each goes to the edge on the side of its start.
        self.assertAllClose(moved, EPSILON * np.sign(starts), 1e-6, 1e-6)
        self.assertBetween(np.sum(starts < 0), 6, 26)
        # Cross-entropy would send all of them up.
        by_label = linf.ifgsm(EPSILON, 0.03, 5)(
            logits_fn, images, labels, toys.seeds(32)
        )
        self.assertAllClose(
            np.ravel(by_label - images), np.full(32, EPSILON), 1e-6, 1e-6
        )

    def test_labels_are_not_read(self):
        classifier = toys.inference(toys.small_classifier())
        images, seeds = toys.random_images(4), toys.seeds(4)
        ends = [
            self.attack(classifier, images, tf.fill([4], label), seeds)
            for label in (0, 3)
        ]
        self.assertAllEqual(*ends)

    def test_the_start_is_normal_noise_of_a_thousandth(self):
        images = tf.fill([20, 16, 16, 3], 0.5)
        noise = self.attack.first_point(images, toys.seeds(20)) - images
        # 15,360 draws: the deviation's own is 0.001 / √30720 = 6e-6.
        self.assertAllClose(np.std(noise), 0.001, atol=3e-5)
        self.assertAllClose(np.mean(noise), 0.0, atol=5e-5)
        self.assertGreater(np.max(noise), 0.003)  # a uniform one has no tail
