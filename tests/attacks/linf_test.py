"""FGSM, I-FGSM and PGD: exact corners, ball and box, seeds, one loop."""

import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from atat_tf import losses
from atat_tf.attacks import linf, randomness
from atat_tf.errors import InputError
from tests.support import toys

EPSILON = 0.125
# One small attack of each registered kind, so that a new entry is tested.


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

    def test_bounds_replace_the_unit_box(self):
        attack = linf.LinfAttack(
            0.5, 0.5, 1, random_start=False, bounds=(-1.0, 2.0)
        )
        adversarial = attack(
            toys.two_class_pixels([1.0, -1.0]),
            toys.pixels([1.75, 0.0]),
            tf.constant([0]),
            toys.seeds(1),
        )
        # 1.75 + 0.5 stops at 2; 0 − 0.5 is still above −1.
        self.assertAllEqual(adversarial, toys.pixels([2.0, -0.5]))

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

    @parameterized.parameters("ifgsm", "pgd")
    def test_more_steps_give_no_lower_loss(self, kind):
        # Cross-entropy of a linear model is convex in the image, so that a
        # clipped step along the gradient's signs can only raise it.
        generator = np.random.default_rng(0)
        logits_fn = toys.linear_logits(generator.normal(size=(8, 8, 3, 5)))
        images, labels = toys.random_images(6), toys.random_labels(6)
        before = losses.cross_entropy(labels, logits_fn(images))
        if kind == "pgd":
            before = np.zeros(6)
        for num_steps in (1, 2, 4, 8):
            attack = linf.ATTACKS[kind](EPSILON, 0.02, num_steps)
            adversarial = attack(logits_fn, images, labels, toys.seeds(6))
            loss = losses.cross_entropy(labels, logits_fn(adversarial)).numpy()
            self.assertAllGreaterEqual(loss - before, -1e-5)
            self.assertGreater(loss.mean(), np.mean(before))
            before = loss


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

    def test_restarts_differ(self):
        # Among equal starts another would never be better; among different
        # ones the last of k is the best on about 1 of k images.
        margins = [self._margin(restarts) for restarts in (1, 2, 3, 4)]
        for fewer, more in zip(margins[:-1], margins[1:], strict=True):
            self.assertGreater(np.sum(more < fewer - 1e-3), 2)

    def test_first_start_is_that_of_the_attack_without_restarts(self):
        # An image whose one start is already its best is left as it is.
        one, two = (
            linf.pgd(0.2, 0.002, 2, restarts=restarts)(
                _wavy_logits, self.images, self.labels, toys.seeds(32)
            ).numpy()
            for restarts in (1, 2)
        )
        kept = np.all(one == two, axis=(1, 2, 3))
        self.assertBetween(np.sum(kept), 5, 27)


class FromNameTest(parameterized.TestCase, tf.test.TestCase):
    @parameterized.parameters(
        ("fgsm", linf.fgsm(0.03)),
        ("ifgsm20", linf.ifgsm(0.03, 0.01, 20)),
        ("pgd7", linf.pgd(0.03, 0.01, 7)),
        ("pgd100", linf.pgd(0.03, 0.01, 100)),
        ("pgd20x10", linf.pgd(0.03, 0.01, 20, restarts=10)),
    )
    def test_names_what_the_tables_name(self, name, attack):
        self.assertEqual(linf.from_name(name, 0.03, 0.01), attack)

    def test_fgsm_is_one_step_of_epsilon_from_the_image(self):
        self.assertEqual(
            linf.fgsm(0.03),
            linf.LinfAttack(0.03, 0.03, 1, random_start=False, restarts=1),
        )

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

    @parameterized.parameters(
        ("pgd0", "num_steps >= 1.*num_steps=0"),
        ("pgd5x0", "restarts >= 1.*restarts=0"),
    )
    def test_numbers_in_names_are_checked(self, name, message):
        with self.assertRaisesRegex(InputError, message):
            linf.from_name(name, 0.03, 0.01)


class ConstructorTest(parameterized.TestCase, tf.test.TestCase):
    @parameterized.parameters(
        ({"epsilon": -0.1}, "epsilon=-0.1"),
        ({"epsilon": 8.0}, "epsilon=8.0"),
        ({"epsilon": float("nan")}, "epsilon=nan"),
        ({"step_size": 0.0}, "step_size > 0.*step_size=0.0"),
        ({"step_size": -1.0}, "step_size=-1.0"),
        ({"restarts": 0}, "restarts >= 1.*restarts=0"),
        ({"restarts": 2, "random_start": False}, "random start.*restarts=2"),
    )
    def test_rules(self, fields, message):
        valid = {"epsilon": 0.03, "step_size": 0.01, "num_steps": 7}
        linf.LinfAttack(**valid)
        with self.assertRaisesRegex(InputError, message):
            linf.LinfAttack(**{**valid, **fields})

    def test_epsilon_may_fill_the_box(self):
        self.assertEqual(linf.fgsm(1.0).epsilon, 1.0)
        wide = linf.LinfAttack(255.0, 1.0, 1, bounds=(0.0, 255.0))
        self.assertEqual(wide.epsilon, 255.0)


if __name__ == "__main__":
    tf.test.main()
