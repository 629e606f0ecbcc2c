"""Evaluation of a run folder from its own config, and the printed table."""

import json
import pathlib
import shutil
import sys

import numpy as np
import pytest
import tensorflow as tf

from atat_tf.errors import InputError
from atat_tf.evaluation import evaluate_run
from atat_tf.runs import config as run_config
from atat_tf.runs import folder as run_folder
from tests.support import runs, trained_runs


class EvaluateRunTest(tf.test.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.workdir = pathlib.Path(cls.get_temp_dir(cls())) / "run"
        shutil.copytree(trained_runs.finished(), cls.workdir)
        run_folder.weights_path(cls.workdir, "ema").unlink()

    def test_verdicts_are_those_of_the_stored_weights(self):
        results = evaluate_run.evaluate_run(self.workdir, ["clean"], 50)
        config = evaluate_run.load_config(self.workdir)
        dataset = evaluate_run.load_dataset(config)
        classifier = evaluate_run.load_classifier(self.workdir, dataset.spec)
        split = dataset.test.take(50)
        logits = classifier(split.images / np.float32(255), training=False)
        self.assertAllClose(
            results["accuracy"]["clean"],
            np.mean(np.argmax(logits, -1) == split.labels),
        )
        self.assertEqual(results["num_images"], 50)
        stored = json.loads((self.workdir / "results.json").read_text())
        self.assertEqual(stored, results)

    def test_choices_are_recorded(self):
        results = evaluate_run.evaluate_run(
            self.workdir, ["pgd2x2"], 20, "batch", "last", seed=7
        )
        self.assertEqual(results["bn_eval"], "batch")
        self.assertEqual(results["weights"], "last")
        self.assertEqual(results["seed"], 7)
        (attack,) = results["attacks"]["pgd2x2"]
        self.assertIn("restarts=2", attack)
        self.assertIn("epsilon=8/255", attack)

    def test_adversarial_images_are_kept(self):
        path = pathlib.Path(self.get_temp_dir()) / "adversarials.npz"
        names = ["square2", "fgsm"]
        for _ in range(2):
            # The second time all verdicts are in the ledger.
            path.unlink(missing_ok=True)
            results = evaluate_run.evaluate_run(
                self.workdir, names, 40, save_adversarials=path
            )
        config = evaluate_run.load_config(self.workdir)
        split = evaluate_run.load_dataset(config).test.take(40)
        dataset = evaluate_run.load_dataset(config)
        classifier = evaluate_run.load_classifier(self.workdir, dataset.spec)
        pixels = split.images / np.float32(255)
        clean = np.argmax(classifier(pixels, training=False), -1)
        with np.load(path) as kept:
            self.assertAllEqual(kept["labels"], split.labels)
            for name in names:
                indices = kept[f"{name}/0/indices"]
                # Those that are classified right, and no other.
                self.assertAllEqual(
                    indices, np.flatnonzero(clean == split.labels)
                )
                images = kept[f"{name}/0/images"]
                distance = np.abs(images - pixels[indices]).max()
                self.assertAllInRange(images, 0, 1)
                self.assertBetween(distance, 1e-3, 8 / 255 + 1e-6)
                attacked = np.argmax(classifier(images, training=False), -1)
                self.assertAllClose(
                    np.sum(attacked == split.labels[indices]) / 40,
                    results["accuracy"][name],
                )

    def test_no_place_for_adversarial_images(self):
        for place in ("/nowhere/a.npz", self.get_temp_dir() + "/a.txt"):
            with self.assertRaisesRegex(InputError, "an .npz file in an exist"):
                evaluate_run.evaluate_run(
                    self.workdir, ["fgsm"], 5, save_adversarials=place
                )

    def test_bad_arguments(self):
        for arguments, message in (
            ({"weights": "bset"}, "Did you mean 'best'"),
            ({"weights": "ema"}, "ema.weights.h5. Received: .*best, last"),
            ({"num_images": 0}, "num_images >= 1"),
            ({"bn_eval": "train"}, "frozen or batch"),
            ({"attacks": ["fgms"]}, "Did you mean 'fgsm'"),
            ({"dataset_name": "cifar1O"}, "Received: 'cifar1O'"),
        ):
            with self.assertRaisesRegex(InputError, message):
                evaluate_run.evaluate_run(self.workdir, **arguments)

    def test_a_folder_without_a_run(self):
        with self.assertRaisesRegex(InputError, "run folder with config.json"):
            evaluate_run.evaluate_run(self.get_temp_dir())

    def test_weights_of_another_network(self):
        other = pathlib.Path(self.get_temp_dir()) / "other"
        run_folder.create(other)
        config = run_folder.read_json(self.workdir / "config.json")
        best = run_folder.weights_path(self.workdir, "best")
        run_folder.weights_path(other, "best").write_bytes(best.read_bytes())
        # Wider: other shapes. Deeper: layers that the file lacks.
        for field, value in (("width", 2), ("depth", 16)):
            changed = {**config, "backbone": {**config["backbone"]}}
            changed["backbone"][field] = value
            run_folder.write_json(other / "config.json", changed)
            with self.assertRaisesRegex(InputError, "does not fit"):
                evaluate_run.evaluate_run(other, ["clean"], 10)


class CommandTest(tf.test.TestCase):
    """python -m atat_tf.evaluate, in processes of their own."""

    def _evaluate(self, *words):
        return runs.finish([sys.executable, "-m", "atat_tf.evaluate", *words])

    @pytest.mark.long
    def test_a_config_may_only_agree_with_the_runs_own(self):
        workdir = pathlib.Path(self.get_temp_dir()) / "config_only"
        run_folder.create(workdir)
        config = run_config.resolve(runs.config("at"))
        run_folder.write_json(
            workdir / "config.json", run_config.to_dict(config)
        )
        for words, message in (
            (["--config.num_epochs=7"], "num_epochs=7 here, 2 there"),
            (["--config=configs/alp.py"], "rebuilt from.*defense.name"),
            # It agrees: what is missing then are the weights.
            (["--config.num_epochs=2"], "no weights"),
        ):
            status, output = self._evaluate(f"--workdir={workdir}", *words)
            self.assertEqual(status, 1, output)
            self.assertRegex(output, message)
            self.assertNotIn("Traceback", output)


class DifferencesTest(tf.test.TestCase):
    def test_names_fields_by_their_path(self):
        here = {"a": 1, "b": {"c": [1], "d": 2}}
        there = {"a": 1, "b": {"c": [3], "d": 2}, "e": None}
        self.assertEqual(
            run_config.differences(here, there), ["b.c=[1] here, [3] there"]
        )


if __name__ == "__main__":
    tf.test.main()
