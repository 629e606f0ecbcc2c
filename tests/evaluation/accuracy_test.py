"""Verdicts image by image, with frozen and with batch statistics."""

import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from atat_tf.attacks import linf
from atat_tf.data import datasets
from atat_tf.errors import InputError
from atat_tf.evaluation import accuracy as robustness
from tests.support import toys


def _split(count=10, seed=0):
    generator = np.random.default_rng(seed)
    return datasets.Split(
        generator.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8),
        generator.integers(0, 5, count).astype(np.int32),
    )


_NAMED = {"clean": None, "pgd": linf.pgd(8 / 255, 2 / 255, 3)}


class EvaluatorTest(parameterized.TestCase, tf.test.TestCase):
    def test_clean_verdicts_are_the_predictions(self):
        classifier, split = toys.small_wide_resnet(), _split()
        evaluator = robustness.Evaluator(classifier, _NAMED)
        logits = classifier(split.images / np.float32(255), training=False)
        self.assertAllEqual(
            evaluator.correct("clean", split, 4),
            np.argmax(logits, -1) == split.labels,
        )

    @parameterized.parameters("clean", "pgd")
    def test_frozen_verdicts_do_not_depend_on_the_batch(self, name):
        evaluator = robustness.Evaluator(toys.small_wide_resnet(), _NAMED)
        split = _split(12)
        self.assertAllEqual(
            evaluator.correct(name, split, 12),
            evaluator.correct(name, split, 5),
        )

    def test_attack_leaves_no_more_than_clean(self):
        classifier = toys.small_wide_resnet()
        split = _split(40)
        # Its own predictions as labels: clean accuracy is 1.
        logits = classifier(split.images / np.float32(255), training=False)
        labels = np.argmax(logits, -1).astype(np.int32)
        split = datasets.Split(split.images, labels)
        evaluator = robustness.Evaluator(classifier, _NAMED)
        self.assertTrue(np.all(evaluator.correct("clean", split, 40)))
        self.assertLess(np.mean(evaluator.correct("pgd", split, 40)), 1)

    @parameterized.parameters(*robustness.BATCH_NORM_MODES)
    def test_no_variable_moves(self, mode):
        classifier = toys.small_wide_resnet()
        before = classifier.get_weights()
        robustness.Evaluator(classifier, _NAMED, mode).correct(
            "pgd", _split(), 5
        )
        for old, new in zip(before, classifier.get_weights(), strict=True):
            self.assertAllEqual(old, new)

    def test_batch_mode_uses_the_batch_statistics(self):
        """The logits of the attacked batch in training mode decide."""
        classifier, split = toys.small_wide_resnet(), _split()
        evaluator = robustness.Evaluator(classifier, _NAMED, "batch")
        verdicts = evaluator.correct("clean", split, 10)
        images = split.images / np.float32(255)
        with_batch = np.argmax(classifier(images, training=True), -1)
        self.assertAllEqual(verdicts, with_batch == split.labels)
        frozen = np.argmax(classifier(images, training=False), -1)
        self.assertNotAllEqual(with_batch, frozen)

    def test_progress_is_told_of_each_batch(self):
        calls = []
        evaluator = robustness.Evaluator(toys.small_classifier(), _NAMED)
        evaluator.correct("clean", _split(10), 4, lambda: calls.append(1))
        self.assertLen(calls, 3)

    def test_unknown_mode(self):
        with self.assertRaisesRegex(InputError, "frozen or batch"):
            robustness.Evaluator(toys.small_classifier(), _NAMED, "train")


if __name__ == "__main__":
    tf.test.main()
