"""FGSM, I-FGSM and PGD: exact corners, ball and box, seeds, one loop."""

import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from atat_tf import losses
from atat_tf.attacks import linf, randomness
from atat_tf.errors import InputError
from tests.support import toys

EPSILON = 0.125
NAMES = ("fgsm", "ifgsm20", "pgd7", "pgd20", "pgd5x3")
RANDOM_NAMES = tuple(name for name in NAMES if name.startswith("pgd"))
# One small attack of each registered kind, so that a new entry is tested.
REGISTERED = {
    "fgsm": {"epsilon": EPSILON},
    "ifgsm": {"epsilon": EPSILON, "step_size": 0.03, "num_steps": 3},
    "pgd": {"epsilon": EPSILON, "step_size": 0.03, "num_steps": 3},
}


def _named(name, epsilon=EPSILON, step_size=0.03):
    return linf.from_name(name, epsilon, step_size)


def _every_attack():
    named = [(name, _named(name)) for name in NAMES]
    for name, factory in linf.ATTACKS.items():
        named.append((f"registered_{name}", factory(**REGISTERED[name])))
    return named


def _two_class_pixels(slopes):
    """Returns logits (0, slopes · pixels): for label 0 the loss climbs
    along the slopes, for label 1 against them."""
    weights = np.zeros((1, len(slopes), 1, 2), np.float32)
    weights[0, :, 0, 1] = slopes
    return toys.linear_logits(weights)


def _pixels(*rows):
    return tf.constant(rows, tf.float32)[:, None, :, None]


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
        logits_fn = _two_class_pixels([2.0, -1.0, 0.5, -3.0])
        images = _pixels([0.5, 0.5, 0.9375, 0.0625], [0.5, 0.5, 0.0, 1.0])
        labels = tf.constant([0, 1])
        adversarial = attack(logits_fn, images, labels, toys.seeds(2))
        # First: 0.5 + ε, 0.5 − ε, then 0.9375 + ε stops at 1, 0.0625 − ε at
        # 0. Second, against the slopes: 0.5 − ε, 0.5 + ε, 0 and 1 stay.
        expected = _pixels([0.625, 0.375, 1.0, 0.0], [0.375, 0.625, 0.0, 1.0])
        self.assertAllEqual(adversarial, expected)

    def test_steps_add_up(self):
        logits_fn = _two_class_pixels([2.0, -1.0])
        attack = linf.ifgsm(0.5, 0.0625, 3)
        adversarial = attack(
            logits_fn, _pixels([0.25, 0.25]), tf.constant([0]), toys.seeds(1)
        )
        # 3 · 0.0625 = 0.1875 away, far from the ball's edge at 0.5.
        self.assertAllEqual(adversarial, _pixels([0.4375, 0.0625]))

    def test_bounds_replace_the_unit_box(self):
        attack = linf.LinfAttack(
            0.5, 0.5, 1, random_start=False, bounds=(-1.0, 2.0)
        )
        adversarial = attack(
            _two_class_pixels([1.0, -1.0]),
            _pixels([1.75, 0.0]),
            tf.constant([0]),
            toys.seeds(1),
        )
        # 1.75 + 0.5 stops at 2; 0 − 0.5 is still above −1.
        self.assertAllEqual(adversarial, _pixels([2.0, -0.5]))

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
            _two_class_pixels([2.0, -1.0]),
            _pixels([0.5, 0.5]),
            tf.constant([0]),
            toys.seeds(1),
        )
        self.assertAllEqual(adversarial, _pixels([0.375, 0.625]))

    @parameterized.parameters(linf.fgsm(EPSILON), _named("ifgsm20"))
    def test_zero_gradient_leaves_images_in_place(self, attack):
        images, labels = toys.random_images(3), toys.random_labels(3)
        logits_fn = toys.linear_logits(np.zeros((8, 8, 3, 5)))
        adversarial = attack(logits_fn, images, labels, toys.seeds(3))
        self.assertAllEqual(adversarial, images)

    def test_logits_that_do_not_read_the_images(self):
        images, labels = toys.random_images(3), toys.random_labels(3)
        attack = _named("ifgsm20")
        adversarial = attack(
            lambda images: tf.eye(3, 5), images, labels, toys.seeds(3)
        )
        self.assertAllEqual(adversarial, images)

    def test_random_start_survives_a_zero_gradient(self):
        images, labels = toys.random_images(3), toys.random_labels(3)
        logits_fn = toys.linear_logits(np.zeros((8, 8, 3, 5)))
        adversarial = _named("pgd7")(logits_fn, images, labels, toys.seeds(3))
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


class EveryAttackTest(parameterized.TestCase, tf.test.TestCase):
    def setUp(self):
        super().setUp()
        # Linear, so that the signs of gradients do not hang on rounding.
        weights = np.random.default_rng(0).normal(size=(8, 8, 3, 5))
        self.logits_fn = toys.linear_logits(weights)
        self.images = toys.random_images(4)
        self.labels = toys.random_labels(4)

    def _attack(self, attack, seed=0):
        return attack(
            self.logits_fn, self.images, self.labels, toys.seeds(4, seed)
        )

    def test_every_registered_attack_is_tested(self):
        self.assertCountEqual(linf.ATTACKS, REGISTERED)

    @parameterized.named_parameters(_every_attack())
    def test_stays_in_ball_and_box_and_raises_the_loss(self, attack):
        # Black and white pixels are where the box cuts the ball.
        self.images = tf.concat(
            [tf.round(self.images[:2]), self.images[2:]], axis=0
        )
        adversarial = self._attack(attack)
        self.assertEqual(adversarial.dtype, tf.float32)
        self.assertEqual(adversarial.shape, self.images.shape)
        self.assertAllInRange(adversarial, 0.0, 1.0)
        moved = np.abs(adversarial - self.images)
        self.assertAllInRange(moved, 0.0, EPSILON + 1e-6)
        self.assertGreater(np.max(moved), 0.5 * EPSILON)
        before = losses.margin(self.labels, self.logits_fn(self.images))
        after = losses.margin(self.labels, self.logits_fn(adversarial))
        self.assertAllLess(after - before, 0.0)

    @parameterized.named_parameters(_every_attack())
    def test_is_a_constant_and_moves_no_variable(self, attack):
        classifier = toys.small_classifier()
        self.logits_fn = toys.inference(classifier)
        before = toys.values(classifier.variables)
        weights = [v.value for v in classifier.trainable_variables]
        with tf.GradientTape() as tape:
            tape.watch(self.images)
            adversarial = self._attack(attack)
        for gradient in tape.gradient(adversarial, [self.images, *weights]):
            self.assertIsNone(gradient)
        after = toys.values(classifier.variables)
        for old, new in zip(before, after, strict=True):
            self.assertAllEqual(old, new)

    @parameterized.named_parameters(_every_attack())
    def test_compiled_equals_eager(self, attack):
        compiled = tf.function(attack, jit_compile=False)
        adversarial = compiled(
            self.logits_fn, self.images, self.labels, toys.seeds(4)
        )
        self.assertAllClose(adversarial, self._attack(attack), 1e-6, 1e-6)

    @parameterized.parameters(*NAMES)
    def test_same_seed_same_images(self, name):
        self.assertAllEqual(
            self._attack(_named(name)), self._attack(_named(name))
        )

    @parameterized.parameters(*RANDOM_NAMES)
    def test_another_seed_another_start(self, name):
        # Small steps: long ones would end in the same corner.
        attack = _named(name, step_size=0.001)
        first = self._attack(attack, seed=0).numpy()
        second = self._attack(attack, seed=1).numpy()
        for a, b in zip(first, second, strict=True):
            self.assertGreater(np.max(np.abs(a - b)), 0.01)

    @parameterized.parameters("fgsm", "ifgsm20")
    def test_without_random_start_the_seed_is_not_read(self, name):
        self.assertAllEqual(
            self._attack(_named(name), seed=0),
            self._attack(_named(name), seed=1),
        )

    @parameterized.parameters(*NAMES)
    def test_an_image_gets_the_same_in_any_batch(self, name):
        together = self._attack(_named(name))
        for size in (1, 3):
            for first in range(0, 4, size):
                part = slice(first, first + size)
                images = self.images[part]
                alone = _named(name)(
                    self.logits_fn,
                    images,
                    self.labels[part],
                    toys.seeds(len(images), first=first),
                )
                self.assertAllClose(alone, together[part], 1e-6, 1e-6)

    def test_neighbours_in_a_batch_have_different_starts(self):
        self.images = tf.repeat(self.images[:1], 4, axis=0)
        self.labels = tf.repeat(self.labels[:1], 4, axis=0)
        adversarial = self._attack(linf.pgd(EPSILON, 0.001, 1)).numpy()
        for i in range(3):
            difference = np.abs(adversarial[i] - adversarial[i + 1])
            self.assertGreater(np.max(difference), 0.5 * EPSILON)


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


class GraphTest(parameterized.TestCase, tf.test.TestCase):
    @parameterized.parameters(1, 3)
    def test_does_not_grow_with_the_steps(self, restarts):
        logits_fn = toys.inference(toys.small_classifier())

        def nodes(num_steps):
            attack = linf.pgd(EPSILON, 0.01, num_steps, restarts=restarts)
            graph = tf.function(attack).get_concrete_function(
                logits_fn,
                tf.TensorSpec([4, *toys.IMAGE_SHAPE], tf.float32),
                tf.TensorSpec([4], tf.int32),
                tf.TensorSpec([4, 2], tf.int64),
            )
            definition = graph.graph.as_graph_def()
            bodies = definition.library.function
            return len(definition.node) + sum(
                len(body.node_def) for body in bodies
            )

        few = nodes(3)
        self.assertGreater(few, 50)
        self.assertEqual(nodes(30), few)


class SeedsTest(tf.test.TestCase):
    def test_neighbouring_triples_are_distinct(self):
        indices = tf.constant([0, 1, 2, 9999, 10000])
        seeds = set()
        for seed in (0, 1, 2, 2**31 - 1):
            for step in (0, 1, 2, 2**32 - 1):
                values = randomness.example_seeds(seed, step, indices).numpy()
                seeds.update(map(tuple, values))
        self.assertLen(seeds, 4 * 4 * 5)

    def test_hand_numbers(self):
        seeds = randomness.example_seeds(3, 5, tf.constant([7, 8]))
        self.assertEqual(seeds.dtype, tf.int64)
        # 3 · 2³² + 5 = 12884901893.
        self.assertAllEqual(seeds, [[12884901893, 7], [12884901893, 8]])

    def test_tensors_give_the_same_as_numbers(self):
        indices = tf.range(3)
        seeds = tf.function(randomness.example_seeds)(
            tf.constant(3), tf.constant(5, tf.int64), indices
        )
        self.assertAllEqual(seeds, randomness.example_seeds(3, 5, indices))

    def test_noise_of_neighbouring_triples_differs(self):
        draws = [
            randomness.uniform_noise(
                randomness.example_seeds(seed, step, tf.range(3)), (50,), 1.0
            ).numpy()
            for seed in (0, 1)
            for step in (0, 1)
        ]
        rows = np.concatenate(draws)
        correlations = np.corrcoef(rows) - np.eye(len(rows))
        # 1 / √50 = 0.14 is the deviation of chance.
        self.assertLess(np.max(np.abs(correlations)), 0.6)

    def test_noise_has_its_range_and_mean(self):
        noise = randomness.uniform_noise(toys.seeds(20), (16, 16, 3), 0.25)
        self.assertEqual(noise.shape, (20, 16, 16, 3))
        self.assertEqual(noise.dtype, tf.float32)
        self.assertAllInRange(noise, -0.25, 0.25)
        self.assertLess(np.min(noise), -0.249)
        self.assertGreater(np.max(noise), 0.249)
        # Deviation of one draw 0.25 / √3 = 0.144; of the mean of 15360
        # draws 0.0012. Variance 0.25² / 3.
        self.assertAllClose(np.mean(noise), 0.0, atol=0.006)
        self.assertAllClose(np.var(noise), 0.25**2 / 3, atol=0.001)

    def test_noise_of_one_is_its_noise_among_many(self):
        seeds = toys.seeds(5)
        many = randomness.uniform_noise(seeds, (4, 4, 1), 1.0)
        for i in range(5):
            one = randomness.uniform_noise(seeds[i : i + 1], (4, 4, 1), 1.0)
            self.assertAllEqual(one[0], many[i])


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
        ({"epsilon": 0.0}, r"epsilon in \(0, 1\].*epsilon=0.0"),
        ({"epsilon": -0.1}, "epsilon=-0.1"),
        ({"epsilon": 8.0}, "epsilon=8.0"),
        ({"epsilon": float("nan")}, "epsilon=nan"),
        ({"step_size": 0.0}, "step_size > 0.*step_size=0.0"),
        ({"step_size": -1.0}, "step_size=-1.0"),
        ({"num_steps": 0}, "num_steps >= 1.*num_steps=0"),
        ({"restarts": 0}, "restarts >= 1.*restarts=0"),
        ({"restarts": 2, "random_start": False}, "random start.*restarts=2"),
        ({"bounds": (1.0, 0.0)}, "ascending"),
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
