"""Every point passes for an honest classifier, and fails for a broken one."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from atat_tf import losses
from atat_tf.attacks import linf, randomness
from atat_tf.data import datasets
from atat_tf.errors import InputError
from atat_tf.evaluation import evaluate_run, ledger, opening
from atat_tf.evaluation.attacker import Attacker
from atat_tf.evaluation.checklist import attacks as checklist_attacks
from atat_tf.evaluation.checklist import gates
from atat_tf.evaluation.checklist import points as checklist_points
from atat_tf.evaluation.checklist import run as checklist
from atat_tf.evaluation.run import Run
from atat_tf.models import classifiers
from atat_tf.runs import build
from atat_tf.runs import config as run_config
from atat_tf.runs import folder as run_folder
from tests.support import runs, toys

_SHAPE, _CLASSES = (8, 8, 3), 5
_IMAGES = 120


def _split(count, seed):
    """Returns noisy images with one of five patterns, faint to strong."""
    signs = np.sign(np.random.default_rng(1).normal(size=(_CLASSES, 4, 4, 3)))
    patterns = signs.repeat(2, axis=1).repeat(2, axis=2)
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, _CLASSES, count).astype(np.int32)
    strength = generator.uniform(0, 0.1, (count, 1, 1, 1))
    noise = 0.1 * generator.normal(size=(count, *_SHAPE))
    pixels = 0.5 + strength * patterns[labels] + noise
    return datasets.Split(np.uint8(255 * np.clip(pixels, 0, 1)), labels)


def _network():
    inputs = keras.Input(_SHAPE)
    x = layers.Rescaling(4.0, -2.0)(inputs)
    x = layers.Conv2D(8, 3, 2, "same", activation="relu", name="features")(x)
    logits = layers.Dense(_CLASSES, name="logits")(layers.Flatten()(x))
    return keras.Model(inputs, logits)


@functools.cache
def _trained(steps=150, epsilon=8 / 255):
    """Returns a network trained on PGD's images, or on clean ones (ε = 0)."""
    keras.utils.set_random_seed(0)
    network, optimizer = _network(), keras.optimizers.Adam(0.01)
    attack = linf.pgd(epsilon or 1.0, epsilon / 2 or 1.0, 3)
    split = _split(4096, seed=0)
    indices = np.arange(64)

    @tf.function
    def step(images, labels, number):
        if epsilon:
            seeds = randomness.example_seeds(0, number, indices)
            images = attack(network, images, labels, seeds)
        with tf.GradientTape() as tape:
            loss = losses.cross_entropy(labels, network(images, training=True))
        gradients = tape.gradient(loss, network.trainable_variables)
        optimizer.apply(gradients, network.trainable_variables)

    for number in range(steps):
        part = (64 * number + indices) % len(split)
        pixels = split.images[part] / np.float32(255)
        step(tf.constant(pixels), split.labels[part], tf.constant(number))
    return network


class _Quantised(layers.Layer):
    def call(self, images):
        return tf.round(images * 15.0) / 15.0


class _BatchStatistics(layers.BatchNormalization):
    """Batch norm that stays in training mode."""

    def call(self, inputs, training=None):
        return super().call(inputs, training=True)


class _WrongGradient(layers.Layer):
    """The identity, whose gradient points the other way."""

    def call(self, images):
        return 2.0 * tf.stop_gradient(images) - images


def _before(layer):
    inputs = keras.Input(_SHAPE)
    return keras.Model(inputs, _trained()(layer(inputs)))


def _after(layer):
    inputs = keras.Input(_SHAPE)
    return keras.Model(inputs, layer(_trained()(inputs)))


def _open_run(classifier, folder, count=_IMAGES):
    config = run_config.to_dict(run_config.resolve(runs.config("at")))
    run_folder.write_json(folder / run_folder.CONFIG, config)
    split = _split(count, seed=5)
    spec = datasets.Spec(_CLASSES, _SHAPE)
    dataset = datasets.Dataset(
        "toy", spec, tuple("abcde"), "made here", split, split, split
    )
    digest = classifiers.weights_digest(classifier)
    identity = ledger.identity(digest, "", "frozen", 0, None)
    return opening.OpenRun(
        Run(folder),
        dataset,
        classifier,
        Attacker(classifier, 100),
        split,
        ledger.Ledger(folder / ledger.FILE, identity),
        0,
    )


def _points(folder, classifier, teacher=None, minimum=_IMAGES, explained=False):
    opened = _open_run(classifier, folder)
    points = checklist.decided_points(
        opened,
        teacher and _open_run(teacher, folder),
        minimum=minimum,
        quality=gates.explained(opened) if explained else None,
    )
    names = [criterion.name for criterion in checklist_points.CRITERIA]
    assert [point.name for point in points] == names
    return {point.name: point for point in points}


def _with(points, verdict):
    return {name for name, p in points.items() if p.verdict == verdict}


@pytest.fixture(name="short_sweeps")
def _short_sweeps(monkeypatch):
    monkeypatch.setattr(checklist_attacks, "STEP_FACTORS", (2.0,))
    monkeypatch.setattr(checklist_attacks, "RADIUS_FACTORS", (0.25, 0.5, 1.0))
    monkeypatch.setattr(checklist_attacks, "ATTENTION_WEIGHTS", (1.0,))


@pytest.mark.long
def test_an_honest_classifier_passes(tmp_path):
    networks = _trained(), _trained(epsilon=0)
    points = _points(tmp_path, *networks, explained=True)
    # What only the files of a training could tell, and that standard training
    # withstands some of this: images are all noise.
    undecided = {"worst_case", "checkpoint", "undefended_twin"}
    assert _with(points, "NOT RUN") == undecided
    assert "ε is too small" in points["undefended_twin"].note
    assert not _with(points, "FAIL")
    # A killed checklist goes on; a finished one only reads.
    lines = (tmp_path / ledger.FILE).read_bytes()
    assert _points(tmp_path, *networks, explained=True) == points
    assert (tmp_path / ledger.FILE).read_bytes() == lines


def test_few_images_decide_no_statistics(tmp_path):
    points = _points(tmp_path, _trained(), minimum=_IMAGES + 1)
    decided = {*points} - _with(points, "NOT RUN")
    assert decided == {"logits", "repeatable", "batch_independence"}
    assert "121 are needed" in points["square"].note


@pytest.mark.parametrize(
    "broken, name",
    [
        (lambda: _after(layers.Softmax()), "logits"),
        (lambda: _after(toys.RandomLayer()), "repeatable"),
        (lambda: _before(_BatchStatistics(name="norm")), "batch_independence"),
    ],
    ids=["softmax", "random", "batch_norm_in_training_mode"],
)
def test_outputs_that_cannot_be_judged(tmp_path, broken, name):
    points = _points(tmp_path, broken())
    assert name in _with(points, "FAIL")
    # No number is written down about such a classifier.
    assert points["noise"].verdict == "NOT RUN"
    assert not (tmp_path / ledger.FILE).exists()


def test_a_quantising_input(tmp_path):
    points = _points(tmp_path, _before(_Quantised(name="quantised")))
    assert _with(points, "FAIL") == {"gradients"}
    assert points["gradients"].figure == 100.0
    assert points["steps"].note == "no image has a gradient"


def test_a_column_that_nothing_leads_is_no_figure(tmp_path):
    """No table says that PGD left all images where it could not move one."""
    columns = ["clean", "pgd2", "apgd_ce2"], ["clean", "square3", "autoattack"]
    with_gradient = _open_run(_trained(), tmp_path, 2)
    without = _open_run(_before(_Quantised(name="quantised")), tmp_path, 2)
    for opened in (with_gradient, without):
        led, by_scores = (
            build.build_columns(opened.config, names, _CLASSES)
            for names in columns
        )
        evaluate_run.expect_led(opened, by_scores)
        if opened is with_gradient:
            evaluate_run.expect_led(opened, led)
    with pytest.raises(InputError, match="attacks=.'pgd2', 'apgd_ce2'."):
        evaluate_run.expect_led(without, led)


@pytest.mark.long
def test_saturated_logits(tmp_path, short_sweeps, monkeypatch):
    monkeypatch.setattr(checklist_attacks, "SQUARE_QUERIES", 20)
    monkeypatch.setattr(checklist_attacks, "UNBOUNDED_STEPS", 10)
    monkeypatch.setattr(checklist_attacks, "NOISE_TRIES", 10)
    points = _points(tmp_path, _after(layers.Rescaling(1e4)), _trained())
    # The teacher is the same network, whose gradients are there.
    assert points["transfer"].verdict == "FAIL"
    assert points["undefended_twin"].verdict == "FAIL"
    # The margin loss still has the gradient that cross-entropy lost.
    assert {"gradients", "margin_loss"} <= _with(points, "FAIL")


class _OtherGradient(layers.Layer):
    """Logits whose gradient is that of a function of the image alone."""

    def call(self, images, logits):
        other = tf.reshape(images, [-1, 192])[:, :_CLASSES]
        return tf.stop_gradient(logits - other) + other


@pytest.mark.long
def test_a_gradient_that_is_not_the_logits(tmp_path, short_sweeps):
    """There is none to a layer with a map, which keeps no point from failing.

    What hides the gradient so is found by scores and by noise.
    """
    images = keras.Input(_SHAPE)
    network = keras.Model(images, _OtherGradient()(images, _trained()(images)))
    points = _points(tmp_path, network, explained=True)
    assert {"square", "noise"} & _with(points, "FAIL")
    for name in ("attention", "class_sensitivity"):
        assert points[name].verdict == "NOT RUN"


class _CutOff(layers.Layer):
    def call(self, logits):
        return tf.minimum(logits, 0.5)


@pytest.mark.long
def test_scores_that_are_even(tmp_path, short_sweeps):
    points = _points(tmp_path, _after(_CutOff()))
    assert "winner" in _with(points, "FAIL")
    assert points["winner"].figure > 5


@pytest.mark.long
def test_ties_of_images_beyond_those_asked_do_not_count(tmp_path):
    opened = _open_run(toys.small_classifier(), tmp_path, 20)
    tie = {"broken": True, "refuted": False, "margin": 0.0}
    opened.ledger.append(
        ledger.CLEAN, [{"index": 20 + number, **tie} for number in range(9)]
    )
    assert checklist._line_points(opened, {})["winner"].figure == 0
    opened.ledger.append(ledger.CLEAN, [{"index": 19, **tie}])
    assert checklist._line_points(opened, {})["winner"].figure == 5


def test_large_scores_have_a_winner(tmp_path, short_sweeps):
    points = _points(tmp_path, _after(keras.layers.Rescaling(1e6)))
    assert "winner" in _with(points, "PASS")


@pytest.mark.long
def test_gradients_that_point_the_wrong_way(tmp_path, short_sweeps):
    wrong = _before(_WrongGradient(name="wrong_gradient"))
    points = _points(tmp_path, wrong, _trained())
    failing = {"square", "transfer", "noise", "unbounded"}
    assert failing <= _with(points, "FAIL")
    assert points["gradients"].verdict == "PASS"
