"""FGSM, I-FGSM and PGD: exact corners, ball and box, seeds, one loop."""

import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from atat_tf import losses
from atat_tf.attacks import for_training, linf, randomness
from atat_tf.errors import InputError
from tests.support import toys

EPSILON = 0.125


class _Unmoved(linf.LinfAttack):
    def __call__(self, logits_fn, images, labels, seeds):
        return images


class StepsTest(parameterized.TestCase):
    @parameterized.parameters(
        _Unmoved(0.1, 0.1, 1), for_training.trades(0.1, 0.1, 1)
    )
    def test_an_attack_that_is_more_than_its_steps_is_refused(self, attack):
        with self.assertRaisesRegex(InputError, "first_point and next_point"):
            linf.Steps(attack)

    def test_bounds_in_a_list(self):
        attack = linf.LinfAttack(0.1, 0.1, 1, bounds=[0.0, 1.0])
        self.assertEqual(attack, linf.LinfAttack(0.1, 0.1, 1))
        self.assertEqual(hash(attack), hash(linf.LinfAttack(0.1, 0.1, 1)))

    def test_a_name_that_stands_for_no_attack(self):
        linf.ATTACKS["mine"] = lambda epsilon: None
        self.addCleanup(linf.ATTACKS.pop, "mine")
        with self.assertRaisesRegex(InputError, "registered as 'mine'"):
            linf.from_name("mine", 0.1, 0.1)


class LinearModelTest(parameterized.TestCase, tf.test.TestCase):
    """On a linear model the worst point is a corner of ball ∩ box."""

    @parameterized.parameters(
        # FGSM is there in its one step of ε; the iterated ones need
        # 2 ε / α steps at most: 0.25 / 0.03 < 9.
        linf.fgsm(EPSILON),
        linf.ifgsm(EPSILON, 0.03, 9),
        linf.pgd(EPSILON, 0.03, 9),
        linf.pgd(EPSILON, 0.03, 9, restarts=2),
    )
    def test_lands_on_the_exact_corner(self, attack):
        logits_fn = toys.two_class_pixels([2.0, -1.0, 0.5, -3.0])
        images = toys.pixels([0.5, 0.5, 0.9375, 0.0625], [0.5, 0.5, 0.0, 1.0])
        labels = tf.constant([0, 1])
        adversarial = attack(logits_fn, images, labels, toys.seeds(2))
        # First: 0.5 + ε, 0.5 − ε, then 0.9375 + ε stops at 1, 0.0625 − ε at
        # 0. Second, against the slopes: 0.5 − ε, 0.5 + ε, 0 and 1 stay.
        expected = toys.pixels(
            [0.625, 0.375, 1.0, 0.0], [0.375, 0.625, 0.0, 1.0]
        )
        self.assertAllEqual(adversarial, expected)

    def test_steps_add_up(self):
        logits_fn = toys.two_class_pixels([2.0, -1.0])
        attack = linf.ifgsm(0.5, 0.0625, 3)
        adversarial = attack(
            logits_fn,
            toys.pixels([0.25, 0.25]),
            tf.constant([0]),
            toys.seeds(1),
        )
        # 3 · 0.0625 = 0.1875 away, far from the ball's edge at 0.5.
        self.assertAllEqual(adversarial, toys.pixels([0.4375, 0.0625]))

    def test_the_loss_function_is_climbed(self):
        # Minus the cross-entropy: the corner opposite to FGSM's.
        attack = linf.LinfAttack(
            EPSILON,
            EPSILON,
            1,
            random_start=False,
            loss_fn=lambda *given: -losses.cross_entropy(*given),
        )
        adversarial = attack(
            toys.two_class_pixels([2.0, -1.0]),
            toys.pixels([0.5, 0.5]),
            tf.constant([0]),
            toys.seeds(1),
        )
        self.assertAllEqual(adversarial, toys.pixels([0.375, 0.625]))

    def test_random_start_survives_a_zero_gradient(self):
        images, labels = toys.random_images(3), toys.random_labels(3)
        logits_fn = toys.linear_logits(np.zeros((8, 8, 3, 5)))
        adversarial = linf.pgd(EPSILON, 0.03, 7)(
            logits_fn, images, labels, toys.seeds(3)
        )
        noise = randomness.uniform_noise(toys.seeds(3), (8, 8, 3), EPSILON)
        self.assertAllClose(
            adversarial, np.clip(images + noise, 0, 1), 1e-6, 1e-6
        )


def _wavy_logits(images):
    """Returns logits (1, Σ sin 40x): many tops, near to every start."""
    waves = tf.reduce_sum(tf.sin(40.0 * images), axis=(1, 2, 3))
    return tf.stack([tf.ones_like(waves), waves], axis=1)


class RestartsTest(tf.test.TestCase):
    def setUp(self):
        super().setUp()
        self.images = toys.random_images(32, (1, 3, 1))
        self.labels = tf.zeros([32], tf.int32)

    def _margin(self, restarts, seeds=None):
        attack = linf.pgd(0.2, 0.002, 2, restarts=restarts)
        seeds = toys.seeds(32) if seeds is None else seeds
        adversarial = attack(_wavy_logits, self.images, self.labels, seeds)
        return losses.margin(self.labels, _wavy_logits(adversarial)).numpy()

    def test_never_worse_than_fewer_starts_on_any_image(self):
        margins = [self._margin(restarts) for restarts in (1, 2, 3, 6)]
        for fewer, more in zip(margins[:-1], margins[1:], strict=True):
            self.assertAllLessEqual(more - fewer, 1e-6)
            # An image once broken stays broken.
            self.assertTrue(np.all(more[fewer < 0] < 0))
        one, six = (np.sum(margin < 0) for margin in margins[::3])
        self.assertBetween(one, 1, 31)
        self.assertGreater(six, one)


class FromNameTest(parameterized.TestCase, tf.test.TestCase):
    @parameterized.parameters(
        ("fgsm", linf.LinfAttack(0.03, 0.03, 1, random_start=False)),
        ("ifgsm20", linf.ifgsm(0.03, 0.01, 20)),
        ("pgd7", linf.pgd(0.03, 0.01, 7)),
        ("pgd100", linf.pgd(0.03, 0.01, 100)),
        ("pgd20x10", linf.pgd(0.03, 0.01, 20, restarts=10)),
    )
    def test_names_what_the_tables_name(self, name, attack):
        self.assertEqual(linf.from_name(name, 0.03, 0.01), attack)

    @parameterized.parameters(
        ("fgms", "'fgsm'"),
        ("pdg20", "'pgd20'"),
        ("ifgsm_20", "'ifgsm20'"),
        ("pgd20x", "'pgd20'"),
        ("PGD20", ""),
        ("ifgsm20x3", ""),
        ("pgd", ""),
        ("pgd7 ", ""),
        ("", ""),
    )
    def test_unknown_names_list_the_known(self, name, suggestion):
        with self.assertRaisesRegex(
            InputError, f"Expected an attack.*ifgsm20.*Received: '{name}'"
        ) as raised:
            linf.from_name(name, 0.03, 0.01)
        if suggestion:
            self.assertIn(f"Did you mean {suggestion}", str(raised.exception))
