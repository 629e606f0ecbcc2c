"""APGD: a NumPy twin, exact optima, ball and box, seeds, few classes."""

import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from atat_tf import losses
from atat_tf.attacks import apgd, randomness, stepped
from atat_tf.errors import InputError
from tests.attacks import apgd_twin
from tests.support import toys

EPSILON = 0.125
# (loss, target) of each kind.
KINDS = (
    ("cross_entropy", None),
    ("dlr", None),
    ("targeted_dlr", 2),
    ("margin", None),
    ("margin", 1),
)
EVERY_ATTACK = tuple(
    (f"{norm}_{loss}_{target}", norm, loss, target)
    for norm in apgd.NORMS
    for loss, target in KINDS
)
# The equation of each is held by the twin; what the loss has no part in is
# tested on one of each norm and each way to aim.


def _walk(attack, logits_fn, images, labels):
    """Returns the state after all steps, run eagerly for any dtype."""
    state = attack.start(logits_fn, images, labels, toys.seeds(len(images)))
    return stepped.advanced(
        attack, logits_fn, state, tf.constant(0), tf.constant(attack.num_steps)
    )


def _distance(points, images, norm):
    moved = np.reshape(points - images, [len(images), -1]).astype(np.float64)
    return np.linalg.norm(moved, np.inf if norm == "linf" else 2, axis=1)


class CheckpointsTest(parameterized.TestCase):
    @parameterized.parameters(
        # Periods of 22, 19, 16, 13, 10, 7, then 6 for ever.
        (100, [22, 41, 57, 70, 80, 87, 93, 99]),
        # 4.4 is 4; 0.6 and 1.2 are 1: periods of 4, 3, 2, 1, 1, ...
        (20, [4, 7, 9, *range(10, 21)]),
        # 11, then 1.5, that is 1, less each time, down to 3.
        (50, [11, 21, 30, 38, 45]),
        (1, [1]),
    )
    def test_hand_numbers(self, num_steps, expected):
        self.assertEqual(apgd.checkpoints(num_steps), expected)


class TargetsTest(parameterized.TestCase, tf.test.TestCase):
    def test_ranked_wrong_class(self):
        logits = tf.constant([[5.0, 1.0, 3.0, 2.0], [-5.0, -1.0, -3.0, -2.0]])
        # Wrong classes of label 0 in order: 2, 3, 1; of label 3: 1, 2, 0.
        for rank, expected in enumerate(([2, 1], [3, 2], [1, 0]), 1):
            classes = apgd.ranked_wrong_class([0, 3], logits, rank)
            self.assertAllEqual(classes, expected)

    def test_is_fixed_by_the_clean_image(self):
        # Class 2 leads class 1 on the clean image only just, and loses to it
        # at many a random start.
        weights = np.zeros((1, 2, 1, 3), np.float32)
        weights[0, :, 0, 1] = [4.0, 0.0]
        weights[0, :, 0, 2] = [0.0, 4.0]
        logits_fn = toys.linear_logits(weights)
        images = toys.pixels(*[[0.5, 0.51]] * 8)
        labels = tf.zeros([8], tf.int32)
        for rank, target in ((1, 2), (2, 1)):
            attack = apgd.APGD(EPSILON, num_steps=9, loss="margin", target=rank)
            state = _walk(attack, logits_fn, images, labels)
            self.assertAllEqual(state["targets"], [target] * 8)
            # Its pixel goes up; the other one is in neither of the logits.
            best = state["best"].numpy()[:, 0, target - 1, 0]
            self.assertAllClose(best, images[:, 0, target - 1, 0] + EPSILON)
            first = attack.start(logits_fn, images, labels, toys.seeds(8))
            leader = np.argmax(logits_fn(first["point"])[:, 1:], -1) + 1
            self.assertBetween(np.sum(leader == target), 1, 7)


class TwinTest(parameterized.TestCase, tf.test.TestCase):
    """In float64, so that no comparison of losses hangs on rounding."""

    def setUp(self):
        super().setUp()
        self.model = apgd_twin.WavyModel(shape=(2, 3, 1), num_classes=5)
        self.images = 0.9 * toys.random_images(12, (2, 3, 1), dtype="float64")
        order = np.argsort(-self.model.logits(self.images), -1)
        # The first two are wrong from the beginning.
        labels = np.append(order[:2, 1], order[2:, 0])
        self.labels = tf.constant(labels, tf.int32)

    @parameterized.named_parameters(*EVERY_ATTACK)
    def test_equals_numpy_twin(self, norm, loss, target):
        epsilon = {"linf": 0.1, "l2": 0.2}[norm]
        # The last bit of normal noise depends on its place among others, and
        # a ratio whose denominator is all but zero makes more of it.
        tolerance = {"linf": 1e-5, "l2": 1e-4}[norm]
        attack = apgd.APGD(epsilon, norm, 20, loss, target, (0.0, 0.9), 0.75, 3)
        state = _walk(attack, self.model.logits, self.images, self.labels)
        number = 3 + 1024 * (target or 0)
        seeds = toys.seeds(12).numpy() + np.array([0, number * 2**40])
        for i, seed in enumerate(seeds):
            image, label = self.images[i].numpy(), int(self.labels[i])
            twin = apgd_twin.walk(self.model, image, label, seed, attack)
            for name, expected in twin.items():
                message = f"{name} of image {i}"
                self.assertAllClose(
                    state[name][i], expected, tolerance, tolerance, message
                )
        # Images differ in how often they were halved and in when they broke.
        self.assertGreater(len(set(state["step_size"].numpy())), 2)
        self.assertLess(np.min(state["step_size"]), epsilon)
        self.assertGreater(len(set(state["broke_at"].numpy())), 1)

    def test_rho_decides_about_the_halving(self):
        sizes = []
        for rho in (0.05, 0.5, 0.75, 1.0):
            attack = apgd.APGD(0.3, num_steps=20, rho=rho)
            state = _walk(attack, self.model.logits, self.images, self.labels)
            sizes.append(np.log(state["step_size"]).mean())
        self.assertAllLess(np.diff(sizes), 0.0)


class LinearModelTest(parameterized.TestCase, tf.test.TestCase):
    @parameterized.parameters("cross_entropy", "margin")
    def test_linf_reaches_the_corner(self, loss):
        logits_fn = toys.two_class_pixels([2.0, -1.0, 0.5, -3.0], -4.0)
        images = toys.pixels([0.5, 0.5, 0.9375, 0.0625], [0.5, 0.5, 0.0, 1.0])
        attack = apgd.APGD(EPSILON, num_steps=20, loss=loss)
        state = _walk(attack, logits_fn, images, tf.constant([0, 0]))
        # 0.5 + ε, 0.5 − ε, then 0.9375 + ε stops at 1, 0.0625 − ε at 0;
        # below, 0 + ε and 1 − ε.
        corner = toys.pixels(
            [0.625, 0.375, 1.0, 0.0], [0.625, 0.375, 0.125, 0.875]
        )
        self.assertAllClose(state["best"], corner, 0, 1e-6)
        # Never broken, so that the candidate is the corner too. Its margin:
        # 4 − (1.25 − 0.375 + 0.5 − 0) and 4 − (1.25 − 0.375 + 0.0625 −
        # 2.625).
        self.assertAllClose(state["adversarial"], corner, 0, 1e-6)
        self.assertAllClose(state["margin"], [2.625, 5.6875], 1e-6, 1e-6)
        self.assertAllEqual(state["broke_at"], [stepped.NEVER] * 2)

    @parameterized.parameters("cross_entropy", "margin")
    def test_l2_reaches_the_end_of_the_radius(self, loss):
        logits_fn = toys.two_class_pixels([3.0, -4.0], -4.0)
        attack = apgd.APGD(0.25, "l2", 50, loss)
        images = toys.pixels([0.5, 0.5])
        state = _walk(attack, logits_fn, images, tf.constant([0]))
        # 0.25 along (3, −4) / 5, where the margin has fallen by 0.25 · 5:
        # 4 − (1.5 − 2) − 1.25.
        self.assertAllClose(state["best"], toys.pixels([0.65, 0.3]), 0, 1e-3)
        self.assertAllClose(state["margin"], [3.25], 0, 1e-4)

    def test_l2_goes_along_the_wall_of_the_box(self):
        # The second pixel is at its end already: all that is left is the
        # first one's way, as far as the radius goes.
        attack = apgd.APGD(0.25, "l2", 50)
        state = _walk(
            attack,
            toys.two_class_pixels([3.0, -4.0], -4.0),
            toys.pixels([0.5, 0.0]),
            tf.constant([0]),
        )
        self.assertAllClose(state["best"], toys.pixels([0.75, 0.0]), 0, 1e-3)

    def test_the_target_is_reached(self):
        weights = np.random.default_rng(0).normal(size=(2, 2, 1, 6))
        logits_fn = toys.linear_logits(weights)
        images = 0.25 + 0.5 * toys.random_images(5, (2, 2, 1))
        labels = tf.argmax(logits_fn(images), -1, tf.int32)
        for rank in range(1, 6):
            attack = apgd.APGD(0.1, num_steps=20, loss="margin", target=rank)
            state = _walk(attack, logits_fn, images, labels)
            for i in range(5):
                toward = weights[..., int(state["targets"][i])]
                away = weights[..., int(labels[i])]
                corner = images[i] + 0.1 * np.sign(toward - away)
                self.assertAllClose(state["best"][i], corner, 0, 1e-6)


class RandomStartTest(parameterized.TestCase, tf.test.TestCase):
    def setUp(self):
        super().setUp()
        self.logits_fn = toys.linear_logits(np.zeros((8, 8, 3, 5)))
        self.images = tf.fill([20, 8, 8, 3], 0.5)
        self.labels = tf.zeros([20], tf.int32)

    def _noise(self, attack, seeds=None):
        seeds = toys.seeds(20) if seeds is None else seeds
        state = attack.start(self.logits_fn, self.images, self.labels, seeds)
        return (state["point"] - self.images).numpy()

    def test_linf_is_uniform_and_touches_the_ball(self):
        noise = self._noise(apgd.APGD(0.25))
        largest = np.abs(noise).max((1, 2, 3))
        self.assertAllClose(largest, [0.25] * 20, 0, 1e-6)
        # Variance 0.25² / 3, of 3840 draws; their largest is close to 1.
        self.assertAllClose(np.mean(noise), 0.0, 0, 0.01)
        self.assertAllClose(np.mean(noise**2), 0.0625 / 3, 0.05, 0)

    def test_l2_is_a_normal_direction_of_the_length_epsilon(self):
        noise = self._noise(apgd.APGD(1.0, "l2"))
        self.assertAllClose(
            _distance(noise, np.zeros_like(noise), "l2"), [1.0] * 20, 0, 1e-5
        )
        # Normal draws: E z⁴ / (E z²)² = 3, with deviation √(96 / 3840).
        self.assertAllClose(np.mean(noise), 0.0, 0, 0.01)
        kurtosis = np.mean(noise**4) / np.mean(noise**2) ** 2
        self.assertAllClose(kurtosis, 3.0, 0, 0.5)

    @parameterized.parameters(*apgd.NORMS)
    def test_an_offset_of_the_seeds_gives_restart_and_target(self, norm):
        attack = apgd.APGD(0.25, norm, 9, "margin", 2, restart=5)
        seeds = toys.seeds(20) + tf.constant([0, (5 + 2048) * 2**40], tf.int64)
        plain = self._noise(apgd.APGD(0.25, norm, 9, "margin"), seeds)
        self.assertAllEqual(self._noise(attack), plain)


class BrokeAtTest(tf.test.TestCase):
    def test_one_pixel_by_hand(self):
        # One pixel at 0.5 starts at 0.5 ± ε; class 1 is above `threshold`.
        images = tf.fill([16, 1, 1, 1], 0.5)
        labels = tf.zeros([16], tf.int32)
        drawn = randomness.uniform_noise(toys.seeds(16), (1, 1, 1), 1.0)
        up = drawn.numpy().ravel() > 0
        self.assertBetween(np.sum(up), 1, 15)
        attack = apgd.APGD(EPSILON, num_steps=6)
        for threshold, expected in (
            # Wrong before the attack.
            (0.45, np.zeros(16)),
            # Broken by the start above; from 0.375 one step of 2ε leads to
            # 0.625.
            (0.6, np.where(up, 0, 1)),
            # 0.625 is the end of the ball.
            (0.7, np.full(16, stepped.NEVER)),
        ):
            logits_fn = toys.two_class_pixels([8.0], -8.0 * threshold)
            state = _walk(attack, logits_fn, images, labels)
            self.assertAllEqual(state["broke_at"], expected)
            margin = losses.margin(labels, logits_fn(state["adversarial"]))
            self.assertAllClose(state["margin"], margin, 1e-6, 1e-6)
            self.assertAllEqual(margin < 0, expected != stepped.NEVER)
            if threshold == 0.45:
                self.assertAllEqual(state["adversarial"], images)


class FewClassesTest(parameterized.TestCase, tf.test.TestCase):
    @parameterized.parameters(
        ("dlr", None, 2), ("targeted_dlr", 1, 2), ("targeted_dlr", 2, 3)
    )
    def test_the_margin_is_climbed_instead(self, loss, target, num_classes):
        weights = np.random.default_rng(0).normal(size=(8, 8, 3, num_classes))
        logits_fn = toys.linear_logits(weights)
        images = toys.random_images(4)
        labels = toys.random_labels(4, num_classes)
        states = [
            _walk(
                apgd.APGD(EPSILON, "linf", 9, name, target),
                logits_fn,
                images,
                labels,
            )
            for name in (loss, "margin")
        ]
        self.assertCountEqual(*states)
        for name in states[0]:
            self.assertAllEqual(states[0][name], states[1][name])

    def test_what_the_classes_do_not_allow_is_refused(self):
        images, labels = toys.random_images(2), tf.zeros([2], tf.int32)
        attack = apgd.APGD(EPSILON, loss="margin", target=3)
        three = toys.linear_logits(np.zeros((8, 8, 3, 3)))
        message = r"target in \[1, 2\], a rank of wrong.*target=3"
        with self.assertRaisesRegex(InputError, message):
            attack.start(three, images, labels, toys.seeds(2))
        one = toys.linear_logits(np.zeros((8, 8, 3, 1)))
        message = "at least 2 classes.*num_classes=1"
        with self.assertRaisesRegex(InputError, message):
            apgd.APGD(EPSILON).start(one, images, labels, toys.seeds(2))
