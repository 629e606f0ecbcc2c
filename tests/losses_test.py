"""Cross-entropy, the safe norm, Eq. 4 to 6 and their kin, the margin."""

import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from atat_tf import grad_cam, losses
from atat_tf.errors import InputError

LAYERS = ("early", "late")


def _maps(seed, batch=4):
    generator = np.random.default_rng(seed)
    return {
        layer: tf.constant(
            generator.uniform(size=(batch, size, size + 1)), tf.float32
        )
        for layer, size in zip(LAYERS, (5, 3), strict=True)
    }


class CrossEntropyTest(tf.test.TestCase):
    def test_hand_numbers(self):
        logits = tf.constant([[0.0, 0.0], [np.log(3.0), 0.0], [0.0, 0.0]])
        # p = (1/2, 1/2) -> log 2; p = (3/4, 1/4) with label 1 -> log 4.
        values = losses.cross_entropy(tf.constant([0, 1, 1]), logits)
        self.assertAllClose(
            values, [np.log(2), np.log(4), np.log(2)], 1e-6, 1e-6
        )

    def test_finite_for_extreme_logits(self):
        logits = tf.constant([[1e4, 0.0], [1e4, 0.0]])
        # -log(1) = 0; -log(e^-10000) = 10000, where softmax itself is 0.
        values = losses.cross_entropy(tf.constant([0, 1]), logits)
        self.assertAllClose(values, [0.0, 1e4])

    def test_smoothed_hand_numbers(self):
        """p = (3/4, 1/4): ¾ · log 4/3 + ¼ · ½ · (log 4/3 + log 4)."""
        logits = tf.constant([[np.log(3.0), 0.0]], tf.float32)
        values = losses.cross_entropy(tf.constant([0]), logits, 0.25)
        expected = 0.75 * np.log(4 / 3) + 0.125 * np.log(16 / 3)
        self.assertAllClose(values, [expected], 1e-6, 1e-6)


class SafeNormTest(tf.test.TestCase):
    def _value_and_gradient(self, x):
        x = tf.constant(x)
        with tf.GradientTape() as tape:
            tape.watch(x)
            norm = losses.safe_norm(x)
        return norm.numpy(), tape.gradient(norm, x).numpy()

    def test_hand_numbers(self):
        # √(3² + 4²) = 5, gradient x / 5; √(4 · 2²) = 4, gradient 2 / 4.
        x = np.array([[[3, 4], [0, 0]], [[2, 2], [2, 2]]], np.float32)
        norm, gradient = self._value_and_gradient(x)
        self.assertAllClose(norm, [5.0, 4.0], 1e-6, 1e-6)
        self.assertAllClose(
            gradient,
            [[[0.6, 0.8], [0, 0]], [[0.5, 0.5], [0.5, 0.5]]],
            1e-6,
            1e-6,
        )

    def test_zero_has_value_and_gradient_zero(self):
        x = np.array([[0, 0, 0], [0, 2, 0]], np.float32)
        norm, gradient = self._value_and_gradient(x)
        self.assertAllEqual(norm, [0, 2])
        self.assertAllEqual(gradient, [[0, 0, 0], [0, 1, 0]])

    def test_second_gradient_at_zero_is_finite(self):
        x = tf.zeros([1, 3])
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                norm = losses.safe_norm(x)
            gradient = tf.reduce_sum(inner.gradient(norm, x))
        self.assertAllEqual(outer.gradient(gradient, x), [[0, 0, 0]])

    def test_near_zero_is_exact(self):
        # No term is added inside the root: 1e-8 does not become 1e-6.
        x = np.array([[0.6e-8, 0.8e-8]], np.float64)
        norm, gradient = self._value_and_gradient(x)
        self.assertAllClose(norm / 1e-8, [1.0], 1e-9, 1e-9)
        self.assertAllClose(gradient, [[0.6, 0.8]], 1e-9, 1e-9)

    def test_tiny_float32_is_finite(self):
        for size in (1e-6, 1e-10, 1e-13, 1e-20, 1e-30):
            norm, gradient = self._value_and_gradient(
                np.full([1, 4], size, np.float32)
            )
            self.assertTrue(np.all(np.isfinite(norm)), size)
            self.assertTrue(np.all(np.isfinite(gradient)), size)
            self.assertAllInRange(gradient, 0.0, 0.5 + 1e-5)


class AttentionDistanceTest(tf.test.TestCase):
    def test_hand_numbers(self):
        first = {
            "a": tf.constant([[[1.0, 2.0]], [[0.0, 0.0]]]),
            "b": tf.constant([[[5.0]], [[1.0]]]),
        }
        second = {
            "a": tf.constant([[[4.0, 6.0]], [[0.0, 0.0]]]),
            "b": tf.constant([[[3.0]], [[1.0]]]),
        }
        # First: √(3² + 4²) + |5 − 3| = 7. Second: 0 + 0.
        distance = losses.attention_distance(first, second)
        self.assertAllClose(distance, [7.0, 0.0], 1e-6, 1e-6)

    def test_different_layers_are_refused(self):
        first, second = _maps(1), {"late": _maps(2)["late"]}
        message = r"same layers.*\['early', 'late'\] and \['late'\]"
        with self.assertRaisesRegex(InputError, message):
            losses.attention_distance(first, second)
        message = r"same layers.*\['late'\] and \['early', 'late'\]"
        with self.assertRaisesRegex(InputError, message):
            losses.attention_distance(second, first)

    def test_no_layers_are_refused(self):
        with self.assertRaisesRegex(InputError, "non-empty"):
            losses.attention_distance({}, {})


class MapDistancesTest(parameterized.TestCase, tf.test.TestCase):
    """What may take the norm's place in Eq. 4."""

    @parameterized.parameters(
        # (3, 4) and (6, 8): the same place. (0, 5): cos = 4 / 5.
        ("norm", [5.0, 10**0.5]),
        ("rms", [5.0 / 2**0.5, 5**0.5]),
        ("cosine", [0.0, 0.2]),
    )
    def test_hand_numbers(self, name, expected):
        first = tf.constant([[[3.0, 4.0]], [[3.0, 4.0]]])
        second = tf.constant([[[6.0, 8.0]], [[0.0, 5.0]]])
        distance = losses.attention_distance({"a": first}, {"a": second}, name)
        self.assertAllClose(distance, expected, 1e-6, 1e-6)

    def test_twins_in_numpy(self):
        first, second = _maps(1)["early"], _maps(2)["early"]
        # An empty map, and two.
        first *= tf.constant([1.0, 0, 1, 0])[:, None, None]
        second *= tf.constant([1.0, 1, 1, 0])[:, None, None]
        norm = grad_cam.l2_distance(first, second)
        for name, expected in {
            "norm": norm,
            "rms": norm / 30**0.5,
            "cosine": grad_cam.cosine_distance(first, second),
        }.items():
            distance = losses.MAP_DISTANCES[name](first, second)
            self.assertAllClose(distance, expected, 1e-5, 1e-6)

    @parameterized.parameters(*losses.MAP_DISTANCES)
    def test_empty_maps_have_finite_gradients(self, name):
        full, empty = tf.ones([1, 2, 2]), tf.zeros([1, 2, 2])
        for first, second in ((full, empty), (empty, full), (empty, empty)):
            with tf.GradientTape() as tape:
                tape.watch((first, second))
                distance = losses.MAP_DISTANCES[name](first, second)
            for gradient in tape.gradient(distance, (first, second)):
                self.assertTrue(np.all(np.isfinite(gradient)))

    def test_an_unknown_one_is_refused(self):
        with self.assertRaisesRegex(InputError, "cosine, norm, rms.*'cosin'"):
            losses.attention_distance(_maps(1), _maps(2), "cosin")


class ComparisonsTest(parameterized.TestCase, tf.test.TestCase):
    """Every distance of maps, of shape (3, 2), and every pairing of logits."""

    @parameterized.parameters(
        *((distance, (2, 3, 2)) for distance in losses.MAP_DISTANCES.values()),
        *((pairing, (2, 6)) for pairing in losses.PAIRINGS.values()),
    )
    def test_gradients(self, compared, shape):
        one, other = (
            tf.constant(np.random.default_rng(seed).uniform(size=shape))
            for seed in (1, 2)
        )
        for analytic, numeric in zip(
            *tf.test.compute_gradient(compared, [one, other]), strict=True
        ):
            self.assertGreater(np.max(np.abs(analytic)), 1e-3)
            self.assertAllClose(analytic, numeric, 1e-6, 1e-6)
        # Equal ones have value and gradient zero.
        one = tf.cast(one, tf.float32)
        with tf.GradientTape() as tape:
            tape.watch(one)
            value = compared(tf.stop_gradient(one), one)
        self.assertAllClose(value, np.zeros(2), atol=1e-6)
        gradient = tape.gradient(value, one)
        self.assertAllClose(gradient, np.zeros(shape), atol=1e-6)


class AttentionTransferTest(tf.test.TestCase):
    def test_hand_numbers(self):
        teacher = {"a": tf.constant([[[1.0, 1.0]]])}
        adversarial = {"a": tf.constant([[[1.0, 4.0]]])}
        clean = {"a": tf.constant([[[2.0, 1.0]]])}
        # ‖(0, −3)‖ + ‖(−1, 0)‖ = 4; the student's own maps, √10 apart, are
        # not compared.
        loss = losses.attention_transfer(teacher, adversarial, clean)
        self.assertAllClose(loss, [4.0], 1e-6, 1e-6)


class LogitPairingTest(tf.test.TestCase):
    def test_hand_numbers(self):
        clean = tf.constant([[1.0, 2.0, 3.0]])
        adversarial = tf.constant([[0.0, 4.0, 1.0]])
        # √(1² + 2² + 2²) = 3.
        pairing = losses.logit_pairing(clean, adversarial)
        self.assertAllClose(pairing, [3.0], 1e-6, 1e-6)


class PairingsTest(parameterized.TestCase, tf.test.TestCase):
    def test_squared_hand_numbers(self):
        clean = tf.constant([[1.0, 2.0, 3.0]])
        adversarial = tf.constant([[0.0, 4.0, 1.0]])
        # ½ · (1² + 2² + 2²) / 3.
        pairing = losses.squared_logit_pairing(clean, adversarial)
        self.assertAllClose(pairing, [1.5], 1e-6, 1e-6)

    def test_the_pull_of_the_norm_does_not_fade(self):
        """Towards equal logits: 1 for Eq. 6, ‖d‖ / k for half the mean."""
        clean = tf.zeros([3, 4])
        difference = tf.constant([[1.0], [1e-2], [1e-4]]) * tf.ones([3, 4])
        for name, expected in (
            ("norm", [1.0, 1.0, 1.0]),
            ("mse", [2 / 4, 2e-2 / 4, 2e-4 / 4]),
        ):
            with tf.GradientTape() as tape:
                tape.watch(difference)
                pairing = losses.PAIRINGS[name](clean, difference)
            pull = tf.norm(tape.gradient(pairing, difference), axis=-1)
            self.assertAllClose(pull, expected, 1e-5, 1e-9)


class RobustDistillationTest(tf.test.TestCase):
    def test_hand_numbers(self):
        """p_T = (¾, ¼), p_S clean the same, adversarial (½, ½)."""
        teacher = tf.constant([[np.log(3.0), 0.0]], tf.float32)
        loss = losses.robust_distillation(teacher, teacher, tf.zeros([1, 2]))
        divergence = 0.75 * np.log(1.5) + 0.25 * np.log(0.5)
        self.assertAllClose(loss, [5 / 6 * divergence], 1e-6, 1e-6)
        loss = losses.robust_distillation(teacher, tf.zeros([1, 2]), teacher)
        self.assertAllClose(loss, [1 / 6 * divergence], 1e-6, 1e-6)


class DivergenceTest(tf.test.TestCase):
    def test_hand_numbers(self):
        """p = (¾, ¼), q = (½, ½): ¾ log 3/2 + ¼ log ½; and backwards."""
        clean = tf.constant([[np.log(3.0), 0.0]], tf.float32)
        other = tf.zeros([1, 2])
        forward = 0.75 * np.log(1.5) + 0.25 * np.log(0.5)
        backward = 0.5 * np.log(2 / 3) + 0.5 * np.log(2.0)
        self.assertAllClose(
            losses.kl_divergence(clean, other), [forward], 1e-6, 1e-6
        )
        self.assertAllClose(
            losses.kl_divergence(other, clean), [backward], 1e-6, 1e-6
        )

    def test_certain_predictions_are_finite(self):
        clean = tf.constant([[200.0, 0.0], [0.0, 200.0], [200.0, 0.0]])
        other = tf.constant([[200.0, 0.0], [200.0, 0.0], [0.0, 0.0]])
        with tf.GradientTape() as tape:
            tape.watch(other)
            divergence = losses.kl_divergence(clean, other)
        self.assertAllClose(divergence, [0.0, 200.0, np.log(2)], 1e-5, 1e-5)
        gradient = tape.gradient(divergence, other)
        self.assertAllClose(
            gradient, [[0.0, 0.0], [1.0, -1.0], [-0.5, 0.5]], 1e-5, 1e-5
        )


class MeanSquaredErrorTest(tf.test.TestCase):
    def test_hand_numbers(self):
        first = tf.constant([[[1.0, 2.0]], [[0.0, 0.0]]])
        second = tf.constant([[[3.0, 1.0]], [[0.0, 4.0]]])
        # (4 + 1) / 2 and (0 + 16) / 2.
        error = losses.mean_squared_error(first, second)
        self.assertAllClose(error, [2.5, 8.0], 1e-6, 1e-6)


class MarginTest(parameterized.TestCase, tf.test.TestCase):
    @parameterized.parameters(
        # (logits, label, z_y − the largest other)
        ([5.0, 2.0, 3.0], 0, 2.0),
        ([5.0, 2.0, 3.0], 1, -3.0),
        ([5.0, 2.0, 3.0], 2, -2.0),
        ([4.0, 4.0, 1.0], 0, 0.0),
        ([-5.0, -2.0, -9.0], 1, 3.0),
        ([-2.0, -5.0], 0, 3.0),
    )
    def test_hand_numbers(self, logits, label, expected):
        margin = losses.margin(tf.constant([label]), tf.constant([logits]))
        self.assertAllEqual(margin, [expected])


_INF, _NAN = float("inf"), float("nan")
_LOWEST = tf.float32.min


class VerdictMarginTest(parameterized.TestCase, tf.test.TestCase):
    @parameterized.parameters(
        # (logits, label, the margin that counts)
        ([5.0, 2.0, 3.0], 0, 2.0),
        ([5.0, 2.0, 3.0], 1, -3.0),
        ([4.0, 4.0, 1.0], 0, 0.0),
        ([4.0, 4.0, 4.0], 2, 0.0),
        ([_NAN, 4.0, 1.0], 1, _LOWEST),
        ([_NAN, 4.0, 1.0], 0, _LOWEST),
        ([_INF, 4.0, 1.0], 0, _LOWEST),
        ([_INF, 4.0, 1.0], 1, _LOWEST),
        ([_INF, _INF, 1.0], 0, _LOWEST),
        ([-_INF, -_INF, 1.0], 0, _LOWEST),
        # A class that is masked out decides nothing.
        ([-_INF, 4.0, 1.0], 1, 3.0),
    )
    def test_right_is_finite_and_strictly_the_largest(
        self, logits, label, expected
    ):
        for dtype in (tf.float32, tf.float64):
            given = tf.constant([label]), tf.constant([logits], dtype)
            margin = losses.verdict_margin(*given)
            lowest = expected == _LOWEST
            self.assertAllEqual(margin, [dtype.min if lowest else expected])
            self.assertAllEqual(losses.is_right(*given), [expected > 0])
            predicted = losses.predicted(*given).numpy()
            self.assertEqual(predicted[0] == label, expected > 0)


class StrongestOtherTest(tf.test.TestCase):
    def test_hand_numbers(self):
        logits = tf.constant([[5.0, 2.0, 3.0], [5.0, 2.0, 3.0], [-1.0, -9, -9]])
        others = losses.strongest_other(tf.constant([0, 2, 0]), logits)
        self.assertAllEqual(others, [2, 0, 1])


class TargetedMarginTest(parameterized.TestCase, tf.test.TestCase):
    @parameterized.parameters(
        # (logits, label, target, z_y − z_t)
        ([5.0, 2.0, 3.0], 0, 1, 3.0),
        ([5.0, 2.0, 3.0], 1, 2, -1.0),
        ([5.0, 2.0, 3.0], 1, 0, -3.0),
        ([-5.0, -5.0], 0, 1, 0.0),
    )
    def test_hand_numbers(self, logits, label, target, expected):
        margin = losses.targeted_margin(
            tf.constant([label]), tf.constant([target]), tf.constant([logits])
        )
        self.assertAllEqual(margin, [expected])


class DifferenceOfLogitsRatioTest(parameterized.TestCase, tf.test.TestCase):
    @parameterized.parameters(
        # In order 8, 5, 4, 0. Label at the top: −(8 − 5) / (8 − 4).
        (0, -0.75),
        # Second: −(5 − 8) / 4; third: −(4 − 8) / 4; last: −(0 − 8) / 4.
        (2, 0.75),
        (3, 1.0),
        (1, 2.0),
    )
    def test_hand_numbers(self, label, expected):
        logits = tf.constant([[8.0, 0.0, 5.0, 4.0]])
        ratio = losses.dlr(tf.constant([label]), logits)
        self.assertAllClose(ratio, [expected], 1e-6, 1e-6)

    @parameterized.parameters(
        # In order 8, 5, 4, 0: the denominator is 8 − (4 + 0) / 2 = 6.
        (0, 2, -0.5),  # −(8 − 5) / 6
        (0, 1, -8 / 6),  # −(8 − 0) / 6
        (2, 0, 0.5),  # −(5 − 8) / 6
        (1, 3, 4 / 6),  # −(0 − 4) / 6
    )
    def test_targeted_hand_numbers(self, label, target, expected):
        logits = tf.constant([[8.0, 0.0, 5.0, 4.0]])
        ratio = losses.targeted_dlr(
            tf.constant([label]), tf.constant([target]), logits
        )
        self.assertAllClose(ratio, [expected], 1e-6, 1e-6)

    def test_gradient_by_hand(self):
        logits = tf.constant([[8.0, 0.0, 5.0, 4.0]])
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(logits)
            ratio = losses.dlr([0], logits)
            targeted = losses.targeted_dlr([0], [1], logits)
        # −(a − b) / (a − c): by a −(b − c) / 4², by b 1 / 4, by c −3 / 4².
        expected = [[-1 / 16, 0.0, 1 / 4, -3 / 16]]
        self.assertAllClose(tape.gradient(ratio, logits), expected, 1e-6, 1e-6)
        # −(a − d) / s, s = a − (c + d) / 2 = 6: by a −(s − 8) / s², by c
        # −8 / (2 s²), by d 1 / s − 8 / (2 s²); b is nowhere.
        expected = [[2 / 36, 1 / 6 - 4 / 36, 0.0, -4 / 36]]
        self.assertAllClose(
            tape.gradient(targeted, logits), expected, 1e-6, 1e-6
        )

    def test_shift_and_scale_change_nothing(self):
        labels, targets = np.array([3, 0, 5, 1]), np.array([1, 2, 3, 4])
        logits = np.random.default_rng(4).normal(size=(4, 6))
        logits = tf.constant(3.0 * logits, tf.float32)
        for moved in (logits + 7.0, logits * 1e3, logits * 1e-3):
            self.assertAllClose(
                losses.dlr(labels, moved), losses.dlr(labels, logits), 1e-4
            )
            self.assertAllClose(
                losses.targeted_dlr(labels, targets, moved),
                losses.targeted_dlr(labels, targets, logits),
                1e-4,
            )

    def test_equal_and_huge_logits_are_finite(self):
        logits = tf.constant([[2.0] * 5, [1e30, -1e30, 0.0, 5.0, 5.0]])
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(logits)
            ratio = losses.dlr([0, 0], logits)
            targeted = losses.targeted_dlr([0, 0], [1, 1], logits)
        # 0 / 0 counts as 0; −1e30 / 1e30 and −2e30 / 1e30.
        self.assertAllClose(ratio, [0.0, -1.0])
        self.assertAllClose(targeted, [0.0, -2.0])
        for loss in (ratio, targeted):
            gradient = tape.gradient(loss, logits)
            self.assertAllInRange(gradient, -1e13, 1e13)
