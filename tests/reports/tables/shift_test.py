"""Distances of attention maps against a NumPy twin, and their record."""

import pathlib

import numpy as np
import tensorflow as tf

from atat_tf.attacks import randomness
from atat_tf.data import datasets
from atat_tf.evaluation import evaluate_run, ledger, opening
from atat_tf.models import graphs
from atat_tf.reports.tables import shift as shift_measurement
from atat_tf.runs import build
from tests.support import untrained_runs


class MeasureTest(tf.test.TestCase):
    """On an untrained network, which is right about some images by chance."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.workdir = pathlib.Path(cls.get_temp_dir(cls())) / "run"
        untrained_runs.write(cls.workdir, "standard", seed=1)
        cls.dataset = datasets.load("digits")
        cls.record = shift_measurement.measure(
            cls.workdir, "pgd2", 100, cls.dataset, {"commit": "c0ffee"}
        )

    def test_numpy_twin(self):
        """ATT = ReLU(Σ_k W_kc A_k) / (h · w) under a pooled linear head."""
        run = opening.open_run(self.workdir, 100, dataset=self.dataset)
        last, before_last = (self._points(run, steps) for steps in (2, 1))
        stands = evaluate_run.standing(
            run, build.build_columns(run.config, ["clean"]), "again"
        )
        self.assertAllEqual(
            self.record["indices"], np.flatnonzero(stands["clean"])
        )
        self.assertGreater(len(self.record["indices"]), 2)
        tapped = graphs.with_taps(run.classifier, ["features"])
        kernel = run.classifier.get_layer("logits").kernel.numpy()

        def attention_map(image, label):
            maps = tapped(image[None], training=False)["features"][0].numpy()
            return np.maximum(maps @ kernel[:, label], 0) / maps[..., 0].size

        for number, index in enumerate(self.record["indices"]):
            label = run.split.labels[index]
            clean = attention_map(
                run.split.images[index] / np.float32(255), label
            )
            at_last, at_before_last = (
                np.linalg.norm(clean - attention_map(points[index], label))
                for points in (last, before_last)
            )
            # A pixel whose gradient is all but zero goes up with one
            # processor's kernels and down with another's. Some pixels of
            # 3,072 are far less than a step of all.
            measured = self.record["distance"][number]
            self.assertAllClose(measured, at_last, rtol=0.03)
            self.assertNotAllClose(measured, at_before_last, rtol=0.03)

    def _points(self, run, num_steps):
        """Returns where so many steps of the attack end, whatever broke."""
        images = run.split.images.astype(np.float32) / np.float32(255)
        name = f"pgd{num_steps}"
        (steps,) = build.build_columns(run.config, [name])[name]
        seeds = randomness.example_seeds(run.seed, 0, np.arange(len(images)))
        return steps.attack(
            lambda pixels: run.classifier(pixels, training=False),
            tf.constant(images),
            tf.constant(run.split.labels),
            seeds,
        ).numpy()

    def test_record(self):
        self.assertEqual(shift_measurement.read(self.workdir), self.record)
        self.assertEqual(self.record["num_images"], 100)
        self.assertEqual(self.record["commit"], "c0ffee")
        self.assertIsNone(shift_measurement.read(self.workdir / "teacher"))

    def test_a_record_of_other_images_is_measured_again(self):
        self.assertTrue(shift_measurement.is_current(self.record, 100))
        self.assertFalse(shift_measurement.is_current(self.record, 99))
        self.assertFalse(shift_measurement.is_current(None, 100))

    def test_verdicts_of_the_same_images_are_in_the_ledger(self):
        path = self.workdir / ledger.FILE
        lines = ledger.Ledger(path, self.record["identity"])
        lines = lines.verdicts(self.record["attack"])
        self.assertContainsSubset(self.record["indices"], lines)
