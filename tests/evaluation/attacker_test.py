"""Compaction changes no verdict, candidates are checked, the gate holds."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl.testing import parameterized

from atat_tf.attacks import apgd, linf, stepped
from atat_tf.errors import InputError
from atat_tf.evaluation import attacker as attacker_lib
from atat_tf.evaluation import gate
from tests.support import toys

EPSILON = 1 / 255
_PGD = linf.Steps(linf.pgd(EPSILON, 0.3 / 255, 6))


def _images(count, seed=0):
    generator = np.random.default_rng(seed)
    return generator.integers(0, 256, (count, *toys.IMAGE_SHAPE), np.uint8)


def _problem(count, seed=0, spread=4.0):
    """Returns a classifier, images, and its predictions as labels.

    Its logits are close to each other, so that some images break.
    """
    classifier = toys.small_wide_resnet(seed)
    head = classifier.get_layer("logits")
    head.kernel.assign(head.kernel * spread)
    images = _images(count, seed)
    pixels = images / np.float32(255)
    logits = classifier(pixels, training=False)
    head.bias.assign_sub(tf.reduce_mean(logits, 0))
    labels = np.argmax(classifier(pixels, training=False), -1)
    return classifier, images, labels.astype(np.int32)


def _run(classifier, attack, images, labels, batch_size=8, **kwargs):
    runner = attacker_lib.Attacker(classifier, batch_size, **kwargs)
    indices = np.arange(len(images), dtype=np.int64)
    return runner.run(attack, images, labels, indices, np.int64(0))


@dataclasses.dataclass(frozen=True)
class _Jump:
    """At step `at` every image becomes `value` everywhere."""

    at: int
    value: float
    num_steps: int = 20
    epsilon: float = EPSILON
    bounds: tuple = (0.0, 1.0)

    def start(self, logits_fn, images, labels, seeds):
        return stepped.first_state(logits_fn, images, labels, seeds)

    def step(self, logits_fn, state, index):
        value = tf.where(index == self.at, self.value, float("nan"))
        candidates = tf.where(tf.math.is_nan(value), state["images"], value)
        return stepped.judged(state, candidates, logits_fn(candidates), index)


class AttackerTest(parameterized.TestCase, tf.test.TestCase):
    def test_verdicts_are_those_of_the_plain_attack(self):
        classifier, images, labels = _problem(37)
        outcome = _run(classifier, _PGD, images, labels)
        self.assertBetween(np.mean(outcome.broken), 0.1, 0.95)
        pixels = tf.constant(images / np.float32(255))
        plain = _PGD.attack(
            toys.inference(classifier), pixels, labels, toys.seeds(37)
        )
        wrong = np.argmax(classifier(plain, training=False), -1) != labels
        # Whoever is broken at the end was broken by then.
        self.assertTrue(np.all(outcome.broken[wrong]))
        alone = classifier(outcome.adversarial, training=False)
        self.assertAllEqual(outcome.broken, np.argmax(alone, -1) != labels)

    def test_the_batch_size_changes_nothing(self):
        self._assert_same_with(3)

    @parameterized.parameters(1, 64)
    @pytest.mark.long
    def test_other_batch_sizes_change_nothing(self, batch_size):
        self._assert_same_with(batch_size)

    def _assert_same_with(self, batch_size):
        classifier, images, labels = _problem(21)
        here = _run(classifier, _PGD, images, labels, 8)
        there = _run(classifier, _PGD, images, labels, batch_size)
        self.assertAllEqual(here.broke_at, there.broke_at)
        self.assertAllClose(here.adversarial, there.adversarial, 1e-5, 1e-5)

    def test_without_compaction_the_verdicts_are_the_same(self):
        classifier, images, labels = _problem(21)
        here = _run(classifier, _PGD, images, labels)
        there = _run(classifier, _PGD, images, labels, compact=False)
        self.assertAllEqual(here.broke_at, there.broke_at)
        self.assertAllClose(here.adversarial, there.adversarial, 1e-5, 1e-5)
        self.assertBetween(np.mean(here.broken), 0.1, 0.95)

    def test_targets_that_share_their_steps_keep_their_results(self):
        classifier, images, labels = _problem(16)
        shared = attacker_lib.Attacker(classifier, 8)
        indices = np.arange(16, dtype=np.int64)
        margins = []
        for target in (1, 3):
            attack = apgd.APGD(
                EPSILON, num_steps=5, loss="targeted_dlr", target=target
            )
            here = shared.run(attack, images, labels, indices, np.int64(0))
            alone = _run(classifier, attack, images, labels)
            self.assertAllEqual(here.broke_at, alone.broke_at)
            self.assertAllEqual(here.adversarial, alone.adversarial)
            margins.append(here.margin)
        self.assertNotAllClose(*margins)

    def test_the_step_at_which_an_image_broke(self):
        classifier, images, labels = _problem(9)
        outcome = _run(classifier, _PGD, images, labels)
        for i in np.flatnonzero(outcome.broken)[:3]:
            step = outcome.broke_at[i]
            if step < 1:
                continue
            shorter = linf.Steps(
                dataclasses.replace(_PGD.attack, num_steps=int(step))
            )
            again = _run(classifier, shorter, images, labels)
            self.assertEqual(again.broke_at[i], step)

    def test_restarts_break_no_fewer(self):
        classifier, images, labels = _problem(40)
        one = linf.Steps(linf.pgd(EPSILON / 2, 0.3 / 255, 2))
        many = linf.Steps(linf.pgd(EPSILON / 2, 0.3 / 255, 2, restarts=8))
        few = _run(classifier, one, images, labels)
        more = _run(classifier, many, images, labels)
        self.assertTrue(np.all(more.broken[few.broken]))
        # Who stands came closer to falling.
        closer = few.margin[~more.broken] - more.margin[~more.broken]
        self.assertTrue(np.all(closer >= 0))
        self.assertGreater(np.mean(closer > 0), 0.5)

    def test_candidates_are_inside_ball_and_box(self):
        classifier, images, labels = _problem(20)
        outcome = _run(classifier, _PGD, images, labels)
        pixels = images / np.float32(255)
        self.assertLessEqual(outcome.linf.max(), EPSILON + 1e-6)
        self.assertAllClose(
            outcome.linf, np.abs(outcome.adversarial - pixels).max((1, 2, 3))
        )
        self.assertAllInRange(outcome.adversarial, 0.0, 1.0)

    @parameterized.parameters(2.0, float("inf"))
    def test_a_candidate_outside_the_ball_does_not_count(self, value):
        classifier, images, labels = _problem(16)
        outcome = _run(classifier, _Jump(3, value), images, labels)
        # Some were fooled, and none of these counts.
        self.assertFalse(np.any(outcome.broken))
        if np.isfinite(value):
            self.assertTrue(np.any(outcome.refuted))

    def test_batch_statistics_keep_batches_whole(self):
        classifier, images, labels = _problem(10)
        before = classifier.get_weights()
        outcome = _run(classifier, _PGD, images, labels, batch_norm="batch")
        self.assertLen(outcome.margin, 10)
        self.assertFalse(np.any(outcome.refuted))
        for old, new in zip(before, classifier.get_weights(), strict=True):
            self.assertAllEqual(old, new)

    def test_the_passes_of_every_image_are_reported_once(self):
        classifier, images, labels = _problem(30)
        runner = attacker_lib.Attacker(classifier, 8)
        counts = []
        runner.run(
            _PGD, images, labels, np.arange(30), np.int64(0), counts.append
        )
        self.assertEqual(sum(counts), 30 * stepped.passes(_PGD))

    def test_no_images(self):
        classifier, images, labels = _problem(4)
        logits = attacker_lib.Attacker(classifier).logits(images)
        self.assertEqual(logits.shape, (4, toys.NUM_CLASSES))


class _Random(keras.layers.Layer):
    def call(self, x):
        return x + 0.1 * tf.random.normal(tf.shape(x))


def _with(layer):
    inputs = keras.Input(toys.IMAGE_SHAPE)
    return keras.Model(inputs, layer(toys.small_classifier()(inputs)))


class GateTest(parameterized.TestCase):
    def _expect(self, classifier, pattern):
        with self.assertRaisesRegex(InputError, pattern):
            gate.expect_passed(attacker_lib.Attacker(classifier), _images(8))

    def test_an_honest_classifier_passes(self):
        gate.expect_passed(
            attacker_lib.Attacker(toys.small_wide_resnet()), _images(40)
        )

    def test_probabilities_are_refused(self):
        self._expect(_with(keras.layers.Softmax()), "after a softmax")

    def test_random_outputs_are_refused(self):
        self._expect(_with(_Random()), "random layers")

    def test_nan_is_refused(self):
        model = toys.small_classifier()
        model.get_layer("logits").bias.assign([np.nan] * toys.NUM_CLASSES)
        self._expect(model, "NaN")

    def test_one_output_is_refused(self):
        inputs = keras.Input(toys.IMAGE_SHAPE)
        x = keras.layers.Flatten()(inputs)
        self._expect(
            keras.Model(inputs, keras.layers.Dense(1)(x)), "at least 2 classes"
        )

    def test_batch_norm_in_training_mode_is_refused(self):
        class Training(keras.Model):
            def __init__(self, classifier):
                super().__init__()
                self.classifier = classifier
                self.input_shape = classifier.input_shape

            def call(self, images, training=None):
                return self.classifier(images, training=True)

        self._expect(
            Training(toys.small_wide_resnet()), "alone to equal|same logits"
        )


if __name__ == "__main__":
    tf.test.main()
