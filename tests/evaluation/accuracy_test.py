"""Verdicts image by image, with frozen and with batch statistics."""

import keras
import numpy as np
import pytest

from atat_tf.attacks import linf
from atat_tf.data import datasets
from atat_tf.errors import InputError
from atat_tf.evaluation import accuracy as robustness
from tests.support import toys

_NAMED = {"clean": None, "pgd": linf.pgd(8 / 255, 2 / 255, 3)}


def _problem(count):
    """Returns a network and images, one of which it takes for another class."""
    classifier = toys.small_wide_resnet()
    images = toys.random_bytes(count)
    labels = _predicted(classifier, images, training=False)
    labels[0] = (labels[0] + 1) % toys.NUM_CLASSES
    return classifier, datasets.Split(images, labels)


def _predicted(classifier, images, training):
    logits = classifier(images / np.float32(255), training=training)
    return np.argmax(logits, -1).astype(np.int32)


def test_frozen_verdicts_do_not_depend_on_the_batch():
    classifier, split = _problem(12)
    evaluator = robustness.Evaluator(classifier, _NAMED)
    stands = {}
    for name in _NAMED:
        stands[name] = evaluator.correct(name, split, 12)
        again = evaluator.correct(name, split, 5)
        np.testing.assert_array_equal(stands[name], again)
    np.testing.assert_array_equal(stands["clean"], np.arange(12) > 0)
    assert np.sum(stands["pgd"]) < 11


def test_workers_share_the_batches():
    classifier, split = _problem(12)
    evaluator = robustness.Evaluator(classifier, {"clean": None})
    parts = [
        evaluator.correct("clean", split, 2, share=(i, 3)) for i in range(3)
    ]
    assert [len(part) for part in parts] == [4, 4, 4]
    # The first worker has the first batch, and so the wrong image.
    assert [part.sum() for part in parts] == [3, 4, 4]


def test_no_variable_moves():
    classifier, split = _problem(10)
    before = classifier.get_weights()
    robustness.Evaluator(classifier, _NAMED).correct("pgd", split, 5)
    for old, new in zip(before, classifier.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("noise, is_refused", [(1.0, True), (0.0, False)])
def test_batch_mode_refuses_what_draws(noise, is_refused):
    inputs = keras.Input((4, 4, 1))
    x = keras.layers.GaussianNoise(noise)(inputs)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.Flatten()(x)
    classifier = keras.Model(inputs, keras.layers.Dense(2)(x))
    if is_refused:
        with pytest.raises(InputError, match="bn_eval=frozen .* as dropout"):
            robustness.logits_function(classifier, "batch")
        return
    images = np.random.default_rng(1).random((3, 4, 4, 1), np.float32)
    logits = robustness.logits_function(classifier, "batch")(images)
    np.testing.assert_array_equal(logits, classifier(images, training=True))


def test_batch_mode_uses_the_batch_statistics():
    """The logits in training mode, which moves nothing here."""
    classifier, split = _problem(10)
    before = classifier.get_weights()
    logits_fn = robustness.logits_function(classifier, "batch")
    found = np.argmax(logits_fn(split.images / np.float32(255)), -1)
    for old, new in zip(before, classifier.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    frozen = _predicted(classifier, split.images, training=False)
    with_batch = _predicted(classifier, split.images, training=True)
    np.testing.assert_array_equal(found, with_batch)
    assert np.any(with_batch != frozen)
