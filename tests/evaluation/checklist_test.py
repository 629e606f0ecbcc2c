"""Every point passes for an honest classifier, and fails for a broken one."""

import dataclasses
import functools
import json
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from atat_tf import losses
from atat_tf.attacks import linf, randomness
from atat_tf.data import datasets
from atat_tf.evaluation import evaluate_run, ledger
from atat_tf.evaluation.attacker import Attacker
from atat_tf.evaluation.checklist import attacks as checklist_attacks
from atat_tf.evaluation.checklist import files as checklist_files
from atat_tf.evaluation.checklist import points as checklist_points
from atat_tf.evaluation.checklist import run as checklist
from atat_tf.evaluation.run import Run
from atat_tf.models import classifiers
from atat_tf.runs import config as run_config
from atat_tf.runs import folder as run_folder
from tests.support import runs, toys, trained_runs

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
    return evaluate_run.OpenRun(
        Run(folder),
        dataset,
        classifier,
        Attacker(classifier, 100),
        split,
        ledger.Ledger(folder / ledger.FILE, identity),
        0,
    )


def _points(folder, classifier, teacher=None, minimum=_IMAGES):
    points = checklist.decided_points(
        _open_run(classifier, folder),
        teacher and _open_run(teacher, folder),
        minimum=minimum,
    )
    names = [criterion.name for criterion in checklist_points.CRITERIA]
    assert [point.name for point in points] == names
    return {point.name: point for point in points}


def _with(points, verdict):
    return {name for name, p in points.items() if p.verdict == verdict}


@pytest.fixture(name="short_sweeps")
def _short_sweeps(monkeypatch):
    monkeypatch.setattr(checklist_attacks, "STEP_FACTORS", (2.0,))
    monkeypatch.setattr(checklist_attacks, "RADIUS_FACTORS", (1.0,))
    monkeypatch.setattr(checklist_attacks, "ATTENTION_WEIGHTS", (1.0,))


@pytest.mark.long
def test_an_honest_classifier_passes(tmp_path):
    points = _points(tmp_path, _trained(), _trained(epsilon=0))
    # What only the files of a training could tell.
    assert _with(points, "NOT RUN") == {"worst_case", "checkpoint"}
    # Standard training withstands some of this: images are all noise.
    assert _with(points, "FAIL") == {"undefended_twin"}
    # A killed checklist goes on; a finished one only reads.
    lines = (tmp_path / ledger.FILE).read_bytes()
    assert _points(tmp_path, _trained(), _trained(epsilon=0)) == points
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


def test_saturated_logits(tmp_path, short_sweeps):
    points = _points(tmp_path, _after(layers.Rescaling(1e4)))
    # The margin loss still has the gradient that cross-entropy lost.
    assert {"gradients", "margin_loss"} <= _with(points, "FAIL")


@pytest.mark.long
def test_gradients_that_point_the_wrong_way(tmp_path, short_sweeps):
    wrong = _before(_WrongGradient(name="wrong_gradient"))
    points = _points(tmp_path, wrong, _trained())
    failing = {"square", "transfer", "noise", "unbounded"}
    assert failing <= _with(points, "FAIL")
    assert points["gradients"].verdict == "PASS"


def _first(share, count=400):
    return np.arange(count) < round(share * count)


def _groups():
    """Returns who stands, for a classifier that passes every point."""
    shares = {
        "single_step": {"fgsm": 0.35},
        "steps": {"pgd40": 0.295},
        "restarts": {"pgd20x10": 0.29},
        "step_sizes": {"a": 0.32, "b": 0.29},
        "margin_loss": {"margin loss": 0.28},
        "radii": {"small": 0.5, "own": 0.3, "large": 0.0},
        "unbounded": {"unbounded": 0.0},
        "square": {"square1000": 0.275},
        "transfer": {"transfer": 0.6},
        "noise": {"noise": 0.7},
        "attention": {"adapted attacks": 0.29},
        "undefended_twin": {"pgd20": 0.0},
        "reference": {
            "clean": 0.8,
            "pgd20": 0.3,
            "headline": 0.3,
            "white box": 0.28,
        },
    }
    return {
        group: {column: _first(share) for column, share in of_group.items()}
        for group, of_group in shares.items()
    }


def test_the_error_of_a_share():
    # p = ¾ of 4 images: sqrt(¾ · ¼ / 4).
    error = checklist_points.share_error([True, True, True, False])
    assert error == pytest.approx(np.sqrt(3 / 64))
    assert checklist_points.share_error([False] * 4) == 0


@pytest.mark.parametrize(
    "second, variance",
    [
        # d = (0, 1, 1, 0): mean ½, mean of squares ½, variance ¼, over 4.
        ([True, False, False, False], 0.25 / 4),
        # b = c = 1: the difference is 0, its error is not. 2/4 over 4.
        ([True, True, False, True], 0.5 / 4),
        ([True, True, True, False], 0.0),
    ],
)
def test_the_error_of_a_paired_difference(second, variance):
    first = np.array([True, True, True, False])
    error = checklist_points.difference_error(first, second)
    assert error == pytest.approx(np.sqrt(variance))


@pytest.mark.parametrize(
    "figure, verdict", [(0.0299, "PASS"), (0.0301, "FAIL")]
)
def test_a_threshold_is_widened_by_two_deviations(figure, verdict):
    # The threshold of "steps" is 1 point; 1 + 2 · 1 = 3.
    point = checklist_points.compared("steps", figure, 0.01, "")
    assert point.verdict == verdict
    assert point.allowance == pytest.approx(2.0)
    assert point.figure == pytest.approx(100 * figure)


def test_all_pass():
    points = checklist_points.from_standing(_groups(), {})
    assert _with(points, "PASS") == {*points}
    assert points["single_step"].figure == pytest.approx(-5.0)
    # The worse of the two step sizes.
    assert points["step_sizes"].figure == pytest.approx(1.0)
    # From one of 80, 50, 30 and 0 % to the next, the least fall is 20.
    assert points["radii"].figure == pytest.approx(-20.0)


@pytest.mark.parametrize(
    "group, column, share",
    [
        ("single_step", "fgsm", 0.28),
        ("steps", "pgd40", 0.25),
        ("restarts", "pgd20x10", 0.25),
        ("step_sizes", "a", 0.25),
        ("margin_loss", "margin loss", 0.2),
        ("radii", "own", 0.55),
        # 1 % would be within two deviations of 0 % by its own error.
        ("unbounded", "unbounded", 0.05),
        ("square", "square1000", 0.25),
        ("transfer", "transfer", 0.28),
        ("noise", "noise", 0.28),
        ("attention", "adapted attacks", 0.25),
        ("undefended_twin", "pgd20", 0.1),
    ],
)
def test_one_fails(group, column, share):
    groups = _groups()
    groups[group][column] = _first(share)
    points = checklist_points.from_standing(groups, {})
    assert _with(points, "FAIL") == {group}


def test_what_is_absent_is_not_run():
    groups = _groups()
    del groups["transfer"]
    absent = {"transfer": "no teacher"}
    point = checklist_points.from_standing(groups, absent)["transfer"]
    assert (point.verdict, point.note) == ("NOT RUN", "no teacher")


@pytest.fixture(name="opened", scope="module")
def _opened(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checked") / "run"
    shutil.copytree(trained_runs.finished(), folder)
    evaluate_run.evaluate_run(folder, ["clean", "fgsm", "pgd2"])
    return evaluate_run.open_run(folder, 50)


def test_the_files_points_pass_and_are_written(opened, capsys):
    points = checklist.run_checklist(opened.run.folder, 50)
    decided = {p.name: p.verdict for p in points if p.verdict != "NOT RUN"}
    names = ("logits", "repeatable", "batch_independence")
    names += ("worst_case", "checkpoint")
    assert decided == dict.fromkeys(names, "PASS")
    written = opened.run.checklist
    assert written["num_images"] == 50
    assert written["points"] == [dataclasses.asdict(point) for point in points]
    assert "50 images; at least 200 are needed" in capsys.readouterr().out


def test_weights_that_validation_did_not_choose(opened):
    path = opened.run.folder / run_folder.METRICS
    kept, rows = path.read_text(), opened.run.metrics
    for row in rows:
        row["validation_pgd_accuracy"] += 0.01
    run_folder.write_metrics(opened.run.folder, rows)
    point = checklist_files.checkpoint_point(opened, "best")
    assert point.verdict == "FAIL"
    assert point.figure == pytest.approx(1.0)
    path.unlink()
    point = checklist_files.checkpoint_point(opened, "best")
    assert point.verdict == "NOT RUN"
    path.write_text(kept)


@pytest.mark.parametrize(
    "changed, verdict, note",
    [
        ({"worst_case": 2.0}, "FAIL", "the ledger's lines give"),
        ({"worst_case": None}, "FAIL", "gives no worst case"),
        ({"bn_eval": "batch"}, "FAIL", "batch statistics"),
        ({"seed": 1}, "NOT RUN", "lacks lines"),
        ({"weights_digest": "other"}, "NOT RUN", "other weights"),
        (None, "NOT RUN", "no results.json"),
    ],
)
def test_a_worst_case_that_the_ledger_does_not_give(
    opened, changed, verdict, note
):
    path = opened.run.folder / run_folder.RESULTS
    kept = path.read_text()
    if changed is None:
        path.unlink()
    else:
        path.write_text(json.dumps({**json.loads(kept), **changed}))
    point = checklist_files.worst_case_point(opened)
    path.write_text(kept)
    assert point.verdict == verdict
    assert note in point.note
