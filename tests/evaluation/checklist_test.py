"""Every point passes for an honest classifier, and fails for a broken one."""

import contextlib
import dataclasses
import functools
import io
import json
import pathlib
import shutil
import tempfile
from unittest import mock

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl.testing import absltest, parameterized
from keras import layers

from atat_tf import losses
from atat_tf.attacks import linf, randomness
from atat_tf.data import datasets
from atat_tf.evaluation import attacker as attacker_lib
from atat_tf.evaluation import evaluate_run, ledger
from atat_tf.evaluation.checklist import attacks as checklist_attacks
from atat_tf.evaluation.checklist import files as checklist_files
from atat_tf.evaluation.checklist import points as checklist_points
from atat_tf.evaluation.checklist import run as checklist
from atat_tf.models import classifiers
from atat_tf.runs import config as run_config
from atat_tf.runs import folder as run_folder
from tests.support import runs, trained_runs

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


class _Random(layers.Layer):
    def call(self, logits):
        return logits + 0.1 * tf.random.normal(tf.shape(logits))


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
    split = _split(count, seed=5)
    spec = datasets.Spec(_CLASSES, _SHAPE)
    dataset = datasets.Dataset(
        "toy", spec, tuple("abcde"), "made here", split, split, split
    )
    book = ledger.Ledger(
        folder / ledger.FILE,
        evaluate_run.ledger_identity(
            classifiers.weights_digest(classifier), "", "frozen", 0, None
        ),
    )
    return evaluate_run.OpenRun(
        run_config.resolve(runs.config("at")),
        dataset,
        classifier,
        attacker_lib.Attacker(classifier, 100),
        split,
        book,
        0,
    )


class BrokenClassifiersTest(parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = pathlib.Path(
            self.enter_context(tempfile.TemporaryDirectory())
        )

    def _points(self, classifier, teacher=None, minimum=_IMAGES):
        run = _open_run(classifier, self.folder)
        if teacher:
            teacher = _open_run(teacher, self.folder)
        points = checklist.decided_points(
            run, teacher, self.folder, minimum=minimum
        )
        self.assertEqual(
            [point.name for point in points],
            [criterion.name for criterion in checklist_points.CRITERIA],
        )
        return {point.name: point for point in points}

    def _shorten_sweeps(self):
        for name, values in (
            ("STEP_FACTORS", (2.0,)),
            ("RADIUS_FACTORS", (1.0,)),
            ("ATTENTION_WEIGHTS", (1.0,)),
        ):
            self.enter_context(
                mock.patch.object(checklist_attacks, name, values)
            )

    def _failing(self, points):
        return {n for n, point in points.items() if point.verdict == "FAIL"}

    @pytest.mark.long
    def test_an_honest_classifier_passes(self):
        points = self._points(_trained(), _trained(epsilon=0))
        not_run = {
            name for name, point in points.items() if point.verdict == "NOT RUN"
        }
        # What only the files of a training could tell.
        self.assertEqual(not_run, {"worst_case", "checkpoint"})
        # Standard training withstands some of this: images are all noise.
        self.assertEqual(self._failing(points), {"undefended_twin"})
        # A killed checklist goes on; a finished one only reads.
        lines = (self.folder / ledger.FILE).read_bytes()
        again = self._points(_trained(), _trained(epsilon=0))
        self.assertEqual(again, points)
        self.assertEqual((self.folder / ledger.FILE).read_bytes(), lines)

    def test_few_images_decide_no_statistics(self):
        points = self._points(_trained(), minimum=_IMAGES + 1)
        decided = {n for n, p in points.items() if p.verdict != "NOT RUN"}
        self.assertEqual(
            decided, {"logits", "repeatable", "batch_independence"}
        )
        self.assertIn("121 are needed", points["square"].note)

    @parameterized.named_parameters(
        ("softmax", lambda: _after(layers.Softmax()), "logits"),
        ("random", lambda: _after(_Random(name="random")), "repeatable"),
        (
            "batch_norm_in_training_mode",
            lambda: _before(_BatchStatistics(name="norm")),
            "batch_independence",
        ),
    )
    def test_outputs_that_cannot_be_judged(self, broken, name):
        points = self._points(broken())
        self.assertIn(name, self._failing(points))
        # No number is written down about such a classifier.
        self.assertEqual(points["noise"].verdict, "NOT RUN")
        self.assertFalse((self.folder / ledger.FILE).exists())

    def test_a_quantising_input(self):
        points = self._points(_before(_Quantised(name="quantised")))
        self.assertEqual(self._failing(points), {"gradients"})
        self.assertEqual(points["gradients"].figure, 100.0)
        self.assertEqual(points["steps"].note, "no image has a gradient")

    def test_saturated_logits(self):
        self._shorten_sweeps()
        points = self._points(_after(layers.Rescaling(1e4)))
        failing = self._failing(points)
        # The margin loss still has the gradient that cross-entropy lost.
        self.assertContainsSubset({"gradients", "margin_loss"}, failing)

    @pytest.mark.long
    def test_gradients_that_point_the_wrong_way(self):
        self._shorten_sweeps()
        points = self._points(
            _before(_WrongGradient(name="wrong_gradient")), _trained()
        )
        self.assertContainsSubset(
            {"square", "transfer", "noise", "unbounded"}, self._failing(points)
        )
        self.assertEqual(points["gradients"].verdict, "PASS")


class _Standing:
    """Who stands, for a classifier that passes every point."""

    def __init__(self, count=400):
        self._count = count

    def first(self, share):
        return np.arange(self._count) < round(share * self._count)

    def groups(self):
        return {
            "single_step": {"fgsm": self.first(0.35)},
            "steps": {"pgd40": self.first(0.295)},
            "restarts": {"pgd20x10": self.first(0.29)},
            "step_sizes": {"a": self.first(0.32), "b": self.first(0.29)},
            "margin_loss": {"margin loss": self.first(0.28)},
            "radii": {
                "small": self.first(0.5),
                "own": self.first(0.3),
                "large": self.first(0.0),
            },
            "unbounded": {"unbounded": self.first(0.0)},
            "square": {"square1000": self.first(0.275)},
            "transfer": {"transfer": self.first(0.6)},
            "noise": {"noise": self.first(0.7)},
            "attention": {"adapted attacks": self.first(0.29)},
            "undefended_twin": {"pgd20": self.first(0.0)},
            "reference": {
                "clean": self.first(0.8),
                "pgd20": self.first(0.3),
                "headline": self.first(0.3),
                "white box": self.first(0.28),
            },
        }


class PointsTest(parameterized.TestCase):
    def test_the_error_of_a_share(self):
        # p = ¾ of 4 images: sqrt(¾ · ¼ / 4).
        error = checklist_points.share_error([True, True, True, False])
        self.assertAlmostEqual(error, np.sqrt(3 / 64))
        self.assertEqual(checklist_points.share_error([False] * 4), 0.0)

    def test_the_error_of_a_paired_difference(self):
        first = np.array([True, True, True, False])
        second = np.array([True, False, False, False])
        # d = (0, 1, 1, 0): mean ½, mean of squares ½, variance ¼, over 4.
        error = checklist_points.difference_error(first, second)
        self.assertAlmostEqual(error, np.sqrt(0.25 / 4))
        # b = c = 1: the difference is 0, its error is not. sqrt(2/4 / 4)
        other = np.array([True, True, False, True])
        error = checklist_points.difference_error(first, other)
        self.assertAlmostEqual(error, np.sqrt(0.5 / 4))
        self.assertEqual(checklist_points.difference_error(first, first), 0.0)

    @parameterized.parameters((0.0299, "PASS"), (0.0301, "FAIL"))
    def test_a_threshold_is_widened_by_two_deviations(self, figure, verdict):
        # The threshold of "steps" is 1 point; 1 + 2 · 1 = 3.
        point = checklist_points.compared("steps", figure, 0.01, "")
        self.assertEqual(point.verdict, verdict)
        self.assertAlmostEqual(point.allowance, 2.0)
        self.assertAlmostEqual(point.figure, 100 * figure)

    def test_all_pass(self):
        points = checklist_points.from_standing(_Standing().groups(), {})
        for name, point in points.items():
            self.assertEqual(point.verdict, "PASS", f"{name}: {point}")
        self.assertAlmostEqual(points["single_step"].figure, -5.0)
        # The worse of the two step sizes.
        self.assertAlmostEqual(points["step_sizes"].figure, 1.0)
        # From one of 80, 50, 30 and 0 % to the next, the least fall is 20.
        self.assertAlmostEqual(points["radii"].figure, -20.0)

    @parameterized.parameters(
        ("single_step", "fgsm", 0.28),
        ("steps", "pgd40", 0.25),
        ("restarts", "pgd20x10", 0.25),
        ("step_sizes", "a", 0.25),
        ("margin_loss", "margin loss", 0.2),
        ("radii", "own", 0.55),
        ("unbounded", "unbounded", 0.01),
        ("square", "square1000", 0.25),
        ("transfer", "transfer", 0.28),
        ("noise", "noise", 0.28),
        ("attention", "adapted attacks", 0.25),
        ("undefended_twin", "pgd20", 0.1),
    )
    def test_one_fails(self, group, column, share):
        standing = _Standing()
        groups = standing.groups()
        groups[group][column] = standing.first(share)
        if group == "unbounded":
            # 1 % is within two deviations of 0 % only by its own error.
            groups[group][column] = standing.first(0.05)
        points = checklist_points.from_standing(groups, {})
        failing = [n for n, p in points.items() if p.verdict == "FAIL"]
        self.assertEqual(failing, [group])

    def test_what_is_absent_is_not_run(self):
        groups = _Standing().groups()
        del groups["transfer"]
        points = checklist_points.from_standing(
            groups, {"transfer": "no teacher"}
        )
        self.assertEqual(points["transfer"].verdict, "NOT RUN")
        self.assertEqual(points["transfer"].note, "no teacher")


class RunFolderTest(absltest.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        folder = cls.enterClassContext(tempfile.TemporaryDirectory())
        cls.workdir = pathlib.Path(folder) / "run"
        shutil.copytree(trained_runs.finished(), cls.workdir)
        evaluate_run.evaluate_run(cls.workdir, ["clean", "fgsm", "pgd2"])
        cls.opened = evaluate_run.open_run(cls.workdir, 50)

    def test_the_files_points_pass_and_are_written(self):
        screen = io.StringIO()
        with contextlib.redirect_stdout(screen):
            points = checklist.run_checklist(self.workdir, 50)
        decided = {p.name: p for p in points if p.verdict != "NOT RUN"}
        self.assertEqual(
            set(decided),
            {
                "logits",
                "repeatable",
                "batch_independence",
                "worst_case",
                "checkpoint",
            },
        )
        for point in decided.values():
            self.assertEqual(point.verdict, "PASS", point)
        written = json.loads((self.workdir / checklist.FILE).read_text())
        self.assertEqual(written["num_images"], 50)
        self.assertEqual(
            written["points"], [dataclasses.asdict(point) for point in points]
        )
        self.assertIn("50 images; at least 200 are needed", screen.getvalue())

    def test_weights_that_validation_did_not_choose(self):
        path = self.workdir / "metrics.jsonl"
        kept = path.read_text()
        self.addCleanup(path.write_text, kept)
        rows = [json.loads(line) for line in kept.splitlines()]
        for row in rows:
            row["validation_pgd_accuracy"] += 0.01
        run_folder.write_metrics(self.workdir, rows)
        point = checklist_files.checkpoint_point(
            self.opened, self.workdir, "best"
        )
        self.assertEqual(point.verdict, "FAIL")
        self.assertAlmostEqual(point.figure, 1.0)
        path.unlink()
        point = checklist_files.checkpoint_point(
            self.opened, self.workdir, "best"
        )
        self.assertEqual(point.verdict, "NOT RUN")

    def test_a_reported_worst_case_that_the_ledger_does_not_give(self):
        path = self.workdir / "results.json"
        kept = path.read_text()
        self.addCleanup(path.write_text, kept)
        results = json.loads(kept)
        raised = results["worst_case"] + 0.01
        for changed, verdict, note in (
            ({"worst_case": raised}, "FAIL", "the ledger's lines give"),
            ({"worst_case": None}, "FAIL", "gives no worst case"),
            ({"bn_eval": "batch"}, "FAIL", "batch statistics"),
            ({"seed": 1}, "NOT RUN", "lacks lines"),
            ({"weights_digest": "other"}, "NOT RUN", "other weights"),
        ):
            path.write_text(json.dumps({**results, **changed}))
            point = checklist_files.worst_case_point(self.opened, self.workdir)
            self.assertEqual(point.verdict, verdict)
            self.assertIn(note, point.note)
        path.unlink()
        point = checklist_files.worst_case_point(self.opened, self.workdir)
        self.assertEqual(point.verdict, "NOT RUN")

    def test_the_teacher_is_found(self):
        run = self.opened
        teacher = checklist.teacher_of(run, self.workdir)
        self.assertEqual(teacher.config.defense.name, "standard")
        self.assertLen(teacher.split, 50)
        self.assertNotEqual(
            teacher.ledger.identity["weights"], run.ledger.identity["weights"]
        )
        self.assertIsNone(checklist.teacher_of(run, self.workdir / "teacher"))


if __name__ == "__main__":
    absltest.main()
