"""Compaction changes no verdict, candidates are checked one by one."""

import contextlib
import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from atat_tf.attacks import apgd, linf, stepped
from atat_tf.errors import InputError
from atat_tf.evaluation.attacker import Attacker
from tests.support import toys

EPSILON = 1 / 255
_PGD = linf.Steps(linf.pgd(EPSILON, 0.3 / 255, 6))


def _problem(count, seed=0, spread=4.0):
    """Returns a classifier, images, and its predictions as labels.

    Its logits are close to each other, so that some images break.
    """
    classifier = toys.small_classifier(seed)
    head = classifier.get_layer("logits")
    head.kernel.assign(head.kernel * spread)
    images = toys.random_bytes(count, seed)
    pixels = images / np.float32(255)
    logits = classifier(pixels, training=False)
    head.bias.assign_sub(tf.reduce_mean(logits, 0))
    labels = np.argmax(classifier(pixels, training=False), -1)
    return classifier, images, labels.astype(np.int32)


def _run(classifier, attack, images, labels, batch_size=8, **kwargs):
    runner = Attacker(classifier, batch_size, **kwargs)
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


def _assert_same(here, there):
    np.testing.assert_array_equal(here.broke_at, there.broke_at)
    np.testing.assert_allclose(here.adversarial, there.adversarial, 1e-5, 1e-5)


def test_verdicts_are_those_of_the_plain_attack():
    classifier, images, labels = _problem(37)
    outcome = _run(classifier, _PGD, images, labels)
    assert 0.1 < np.mean(outcome.broken) < 0.95
    pixels = tf.constant(images / np.float32(255))
    plain = _PGD.attack(
        toys.inference(classifier), pixels, labels, toys.seeds(37)
    )
    wrong = np.argmax(classifier(plain, training=False), -1) != labels
    # Whoever is broken at the end was broken by then.
    assert np.all(outcome.broken[wrong])
    alone = classifier(outcome.adversarial, training=False)
    np.testing.assert_array_equal(
        outcome.broken, np.argmax(alone, -1) != labels
    )
    # Inside ball and box.
    distance = np.abs(outcome.adversarial - pixels).max((1, 2, 3))
    np.testing.assert_allclose(outcome.linf, distance)
    assert distance.max() <= EPSILON + 1e-6
    assert 0 <= outcome.adversarial.min() <= outcome.adversarial.max() <= 1


@pytest.mark.parametrize(
    "batch_size, compact",
    [
        (8, False),
        (3, True),
        pytest.param(1, True, marks=pytest.mark.long),
        pytest.param(64, True, marks=pytest.mark.long),
    ],
)
def test_batches_and_compaction_change_nothing(batch_size, compact):
    problem = _problem(21)
    here = _run(problem[0], _PGD, *problem[1:])
    there = _run(
        problem[0], _PGD, *problem[1:], batch_size=batch_size, compact=compact
    )
    _assert_same(here, there)
    assert 0.1 < np.mean(here.broken) < 0.95


def test_targets_that_share_their_steps_keep_their_results():
    classifier, images, labels = _problem(16)
    shared = Attacker(classifier, 8)
    margins = []
    for target in (1, 3):
        attack = apgd.APGD(
            EPSILON, num_steps=5, loss="targeted_dlr", target=target
        )
        here = shared.run(attack, images, labels, np.arange(16), np.int64(0))
        _assert_same(here, _run(classifier, attack, images, labels))
        margins.append(here.margin)
    assert not np.allclose(*margins)


def test_the_step_at_which_an_image_broke():
    classifier, images, labels = _problem(9)
    outcome = _run(classifier, _PGD, images, labels)
    for i in np.flatnonzero(outcome.broke_at >= 1)[:2]:
        step = int(outcome.broke_at[i])
        shorter = dataclasses.replace(_PGD.attack, num_steps=step)
        again = _run(classifier, linf.Steps(shorter), images, labels)
        assert again.broke_at[i] == step


def test_restarts_break_no_fewer():
    classifier, images, labels = _problem(40)
    few, more = (
        _run(
            classifier,
            linf.Steps(linf.pgd(EPSILON / 2, 0.3 / 255, 2, restarts=restarts)),
            images,
            labels,
        )
        for restarts in (1, 8)
    )
    assert np.all(more.broken[few.broken])
    # Who stands came closer to falling.
    closer = few.margin[~more.broken] - more.margin[~more.broken]
    assert np.all(closer >= 0)
    assert np.mean(closer > 0) > 0.5


@pytest.mark.parametrize("value", [2.0, float("inf")])
def test_a_candidate_outside_the_ball_does_not_count(value):
    classifier, images, labels = _problem(16)
    outcome = _run(classifier, _Jump(3, value), images, labels)
    # Some were fooled, and none of these counts.
    assert not np.any(outcome.broken)
    assert np.any(outcome.refuted) or not np.isfinite(value)


def test_batch_statistics_keep_batches_whole():
    classifier, images, labels = _problem(10)
    before = classifier.get_weights()
    outcome = _run(classifier, _PGD, images, labels, batch_norm="batch")
    assert len(outcome.margin) == 10
    assert not np.any(outcome.refuted)
    for old, new in zip(before, classifier.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_the_passes_of_every_image_are_reported_once():
    classifier, images, labels = _problem(30)
    counts = []
    Attacker(classifier, 8).run(
        _PGD, images, labels, np.arange(30), np.int64(0), counts.append
    )
    assert sum(counts) == 30 * stepped.passes(_PGD)


class TrainingMode(keras.Model):
    def __init__(self, classifier):
        super().__init__()
        self.classifier = classifier
        self.input_shape = classifier.input_shape

    def call(self, images, training=None):
        return self.classifier(images, training=True)


def _with(layer):
    inputs = keras.Input(toys.IMAGE_SHAPE)
    return keras.Model(inputs, layer(toys.small_classifier()(inputs)))


def _not_a_number():
    model = toys.small_classifier()
    model.get_layer("logits").bias.assign([np.nan] * toys.NUM_CLASSES)
    return model


@pytest.mark.parametrize(
    "broken, message",
    [
        (toys.small_wide_resnet, None),
        (lambda: _with(keras.layers.Softmax()), "after a softmax"),
        (lambda: _with(toys.RandomLayer()), "random layers"),
        (_not_a_number, "NaN"),
        (lambda: _with(keras.layers.Dense(1)), "at least 2 classes"),
        (
            lambda: TrainingMode(toys.small_wide_resnet()),
            "alone to equal|same logits",
        ),
    ],
    ids=["none", "softmax", "random", "nan", "one output", "batch statistics"],
)
def test_what_cannot_be_judged_is_refused(broken, message):
    refused = pytest.raises(InputError, match=message)
    with refused if message else contextlib.nullcontext():
        Attacker(broken()).expect_judgeable(toys.random_bytes(8))


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda images: images * 255, "pixels from 0 to 1"),
        (lambda images: images - 0.5, "pixels from 0 to 1"),
        (lambda images: images[:, 1:], "the size that the classifier takes"),
        (lambda images: images[1:], "a label and an index for each"),
    ],
)
def test_other_images_are_refused(change, message):
    classifier, images, labels = _problem(4)
    runner = Attacker(classifier, 8)
    images = change(images / np.float64(255))
    with pytest.raises(InputError, match=message):
        runner.run(_PGD, images, labels, np.arange(4), np.int64(0))


def test_floats_of_any_width_are_taken_and_other_bounds_refused():
    classifier, images = toys.small_classifier(norm=False), toys.random_bytes(8)
    labels = np.argmax(classifier(images / 255), -1).astype(np.int32)
    step = linf.Steps(linf.fgsm(EPSILON))
    expected = _run(classifier, step, images, labels)
    found = _run(classifier, step, images / np.float64(255), labels)
    np.testing.assert_array_equal(found.broken, expected.broken)
    wide = linf.Steps(linf.pgd(1, 0.3, 6, bounds=(0, 255)))
    with pytest.raises(InputError, match=r"bounds=\(0, 1\)"):
        _run(classifier, wide, images, labels)


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"labels": [0.0, 1.0]}, "labels .n., whole numbers.*float64"),
        ({"labels": [[0], [1]]}, "labels .n., whole numbers"),
        ({"labels": [[0], [1, 2]]}, "labels .n., whole numbers.*object"),
        ({"labels": [0, -1]}, "labels from 0 to 4.*smallest=-1"),
        ({"labels": [0, 5]}, "labels from 0 to 4.*largest=5"),
        ({"indices": [0.0, 1.0]}, "indices .n., whole numbers"),
        ({"indices": np.uint64([0, 2**63])}, "indices .n., whole numbers"),
        ({"seed": 2**63}, "seed, a whole number of 64 bits"),
        ({"seed": 0.5}, "seed, a whole number of 64 bits"),
        ({"seed": True}, "seed, a whole number of 64 bits"),
        ({"attack": linf.Steps}, "a stepped attack"),
        ({"attack": "pgd20"}, "a stepped attack.*'pgd20'"),
        ({"attack": None}, "a stepped attack.*None"),
    ],
    ids=str,
)
def test_other_arguments_are_refused(changed, message):
    given = {
        "attack": _PGD,
        "images": toys.random_bytes(2),
        "labels": [0, 1],
        "indices": [0, 1],
        "seed": 0,
    }
    runner = Attacker(toys.small_classifier(norm=False), 8)
    runner.run(**given)  # lists are arrays
    nothing = given["images"][:0], [], range(0)
    assert not len(runner.run(given["attack"], *nothing, 0).margin)
    with pytest.raises(InputError, match=message):
        runner.run(**given | changed)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"batch_norm": "Frozen"}, "batch, frozen.*'Frozen'"),
        ({"batch_size": 0}, "batch_size >= 1"),
    ],
)
def test_other_settings_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        Attacker(toys.small_classifier(), **settings)


class _SomeImage(keras.layers.Layer):
    """Fails on a batch of no image, as the convolutions of oneDNN do."""

    def call(self, images):
        some = tf.debugging.assert_positive(tf.shape(images)[0])
        with tf.control_dependencies([some]):
            return tf.identity(images)


@pytest.mark.parametrize("batch_norm", ["frozen", "batch"])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_no_image_has_no_outcome(batch_norm, dtype):
    inputs = keras.Input(toys.IMAGE_SHAPE)
    logits = toys.small_classifier()(_SomeImage()(inputs))
    classifier = keras.Model(inputs, logits)
    images = np.zeros((0, *toys.IMAGE_SHAPE), dtype)
    none = np.zeros(0, np.int32)
    outcome = _run(classifier, _PGD, images, none, batch_norm=batch_norm)
    shapes = {name: row.shape for name, row in vars(outcome).items()}
    assert shapes.pop("adversarial") == images.shape
    assert {*shapes.values()} == {(0,)}
    runner = Attacker(classifier, 8, batch_norm)
    assert runner.logits(images).shape == (0, toys.NUM_CLASSES)


def test_a_bare_attack_is_judged_at_every_point():
    problem = _problem(9)
    here = _run(problem[0], _PGD.attack, *problem[1:])
    _assert_same(here, _run(problem[0], _PGD, *problem[1:]))
