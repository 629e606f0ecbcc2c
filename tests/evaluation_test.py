"""Evaluation of a run folder from its own config, and the printed table."""

import json
import pathlib
import sys

import numpy as np
import tensorflow as tf

from atat_tf import evaluation, experiment, run_folder, training
from atat_tf.errors import InputError
from tests import runs


class EvaluateRunTest(tf.test.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.workdir = pathlib.Path(cls.get_temp_dir(cls())) / "run"
        cls.trained = training.train_and_evaluate(
            runs.config("at", num_epochs=1), cls.workdir
        )

    def test_verdicts_are_those_of_the_stored_weights(self):
        results = evaluation.evaluate_run(self.workdir, ["clean"], 50)
        config = evaluation.load_config(self.workdir)
        dataset = evaluation.load_dataset(config)
        classifier = evaluation.load_classifier(self.workdir, dataset.spec)
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
        results = evaluation.evaluate_run(
            self.workdir, ["pgd2x2"], 20, "batch", "last", seed=7
        )
        self.assertEqual(results["bn_eval"], "batch")
        self.assertEqual(results["weights"], "last")
        self.assertEqual(results["seed"], 7)
        self.assertIn("restarts=2", results["attacks"]["pgd2x2"])
        self.assertIn("epsilon=8/255", results["attacks"]["pgd2x2"])

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
                evaluation.evaluate_run(self.workdir, **arguments)

    def test_a_folder_without_a_run(self):
        with self.assertRaisesRegex(InputError, "run folder with config.json"):
            evaluation.evaluate_run(self.get_temp_dir())

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
                evaluation.evaluate_run(other, ["clean"], 10)


class CommandTest(tf.test.TestCase):
    """python -m atat_tf.evaluate, in processes of their own."""

    def _evaluate(self, *words):
        return runs.finish([sys.executable, "-m", "atat_tf.evaluate", *words])

    def test_a_config_may_only_agree_with_the_runs_own(self):
        workdir = pathlib.Path(self.get_temp_dir()) / "config_only"
        run_folder.create(workdir)
        config = experiment.resolve(runs.config("at"))
        run_folder.write_json(
            workdir / "config.json", experiment.to_dict(config)
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


def _results(method, dataset="cifar10", bn_eval="frozen", **accuracy):
    return {
        "dataset": dataset,
        "data": "some data",
        "method": method,
        "num_images": 10_000,
        "bn_eval": bn_eval,
        "accuracy": accuracy,
    }


class TableTest(tf.test.TestCase):
    def _printed(self, all_results):
        import contextlib
        import io

        screen = io.StringIO()
        with contextlib.redirect_stdout(screen):
            evaluation.print_table(all_results)
        return screen.getvalue()

    def test_the_papers_row_stands_below(self):
        text = self._printed([_results("atat", clean=0.5, pgd20=0.25)])
        self.assertRegex(text, r"ATAT +│ +50\.00 +│ +25\.00")
        self.assertRegex(text, r"the paper's.*│ +91\.89 +│ +63\.81")
        self.assertIn("10,000 test images", text)

    def test_no_paper_row_for_digits(self):
        text = self._printed([_results("atat", "digits", clean=0.5)])
        self.assertNotIn("paper", text)

    def test_what_was_not_run_says_so(self):
        rows = [_results("at", clean=0.5), _results("atat", pgd20=0.25)]
        self.assertRegex(self._printed(rows), r"AT +│ +50\.00 +│ not run")

    def test_footnotes(self):
        text = self._printed(
            [_results("at", bn_eval="batch", fgsm=0.2, pgd20=0.4)]
        )
        self.assertIn("not a claim of robustness", text)
        self.assertIn("masked gradients", text)

    def test_the_papers_tables(self):
        """Corners of Tables 1 and 2."""
        self.assertEqual(evaluation.paper_row("cifar10", "alp")["pgd7"], 52.32)
        self.assertEqual(
            evaluation.paper_row("cifar100", "atat")["pgd20"], 28.72
        )
        self.assertIsNone(evaluation.paper_row("digits", "atat"))


class DifferencesTest(tf.test.TestCase):
    def test_names_fields_by_their_path(self):
        here = {"a": 1, "b": {"c": [1], "d": 2}}
        there = {"a": 1, "b": {"c": [3], "d": 2}, "e": None}
        self.assertEqual(
            evaluation.differences(here, there), ["b.c=[1] here, [3] there"]
        )


if __name__ == "__main__":
    tf.test.main()
