"""Accuracy against PGD steps: one attack holds the whole curve."""

import pathlib

import tensorflow as tf

from atat_tf.errors import InputError
from atat_tf.evaluation import evaluate_run
from atat_tf.reports.figures import landscape as landscape_figures
from tests.support import untrained_runs


class StepsCurveTest(tf.test.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        folder = pathlib.Path(cls.get_temp_dir(cls()))
        cls.workdir = untrained_runs.write(folder / "run", "at")

    def test_accuracies_by_hand(self):
        # Wrong when clean; broken by the first step, by the third; never.
        self.assertAllClose(
            landscape_figures.accuracies([-1, 0, 2, 4], 4),
            [0.75, 0.5, 0.5, 0.25, 0.25],
        )

    def test_equals_the_columns_of_fewer_steps_and_resumes(self):
        shares, _ = landscape_figures.curve(self.workdir, 4, num_images=60)
        self.assertLen(shares, 5)
        self.assertGreater(shares[0], shares[4])
        columns = ["clean", "pgd1", "pgd2", "pgd4"]
        found = evaluate_run.evaluate_run(self.workdir, columns, 60)["accuracy"]
        self.assertAllClose(shares[[0, 1, 2, 4]], list(found.values()))
        ledger = self.workdir / "ledger.jsonl"
        before = ledger.read_text()
        again, _ = landscape_figures.curve(self.workdir, 4, num_images=60)
        self.assertAllEqual(again, shares)
        self.assertEqual(ledger.read_text(), before)

    def test_figure_and_rows(self):
        figure, rows = landscape_figures.steps({"AT": self.workdir}, 4, 2, 60)
        self.assertEqual([row["steps"] for row in rows], list(range(5)))
        percents = [100 * row["accuracy"] for row in rows]
        for axes, last in zip(figure.axes, (4, 2), strict=True):
            x, y = axes.lines[0].get_data()
            self.assertAllEqual(x, range(last + 1))
            self.assertAllClose(y, percents[: last + 1])
            (name,) = axes.get_legend().get_texts()
            self.assertEqual(name.get_text(), "AT")
        self.assertIn("60 test images", figure.get_supxlabel())
        self.assertIn("ε = 8/255, step 2/255", figure.get_suptitle())

    def test_refused(self):
        with self.assertRaisesRegex(InputError, "num_steps >= 1"):
            landscape_figures.curve(self.workdir, 0)
        with self.assertRaisesRegex(InputError, "run folder with config.json"):
            landscape_figures.curve(self.get_temp_dir(), 1)
