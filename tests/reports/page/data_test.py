"""The report's numbers: verdicts, confusion, curves, commands, tables."""

import json
import pathlib
import shlex
import tempfile

import numpy as np
from absl.testing import absltest, parameterized

from atat_tf.evaluation import ledger
from atat_tf.evaluation.run import Run
from atat_tf.reports.page import curves as report_curves
from atat_tf.reports.page import data as report_data
from atat_tf.runs import folder as run_folder

_FOUND = {
    "dataset": "cifar10",
    "data": "some data",
    "method": "at",
    "num_images": 5,
    "bn_eval": "frozen",
    "seed": 0,
    "commit": "abc",
    "accuracy": {"clean": 0.8, "fgsm": 0.6, "two": 0.4},
    "weights": "best",
    "weights_digest": "sha256:1",
    "batch_size": 2,
    "attacks": {"clean": [], "fgsm": ["A"], "two": ["A", "B"]},
}
_LABELS = (0, 1, 2, 0, 1)


def _line(index, prediction, attacked, broken, step=None):
    return {
        "index": index,
        "label": _LABELS[index],
        "prediction": prediction,
        "attacked_prediction": attacked,
        "broken": broken,
        "step": step,
    }


class LedgerTest(parameterized.TestCase):
    """Five images of three classes; image 4 is misclassified from the start.

    Attack A breaks image 1 at its step 3, B breaks image 0 at once.
    """

    def setUp(self):
        super().setUp()
        folder = self.enter_context(tempfile.TemporaryDirectory())
        self.workdir = pathlib.Path(folder)
        digest, data = _FOUND["weights_digest"], _FOUND["data"]
        identity = ledger.identity(digest, data, "frozen", 0, None)
        book = ledger.Ledger(self.workdir / ledger.FILE, identity)
        predictions = (0, 1, 2, 0, 2)
        book.append(
            "none",
            [
                _line(i, at, at, at != _LABELS[i])
                for i, at in enumerate(predictions)
            ],
        )
        book.append(
            "A",
            [
                _line(0, 0, 0, False),
                _line(1, 1, 2, True, 3),
                _line(2, 2, 2, False),
                _line(3, 0, 0, False),
            ],
        )
        book.append(
            "B",
            [
                _line(0, 0, 1, True, 0),
                _line(2, 2, 2, False),
                _line(3, 0, 0, False),
            ],
        )
        run_folder.write_json(
            self.workdir / run_folder.CONFIG,
            {"dataset": "cifar10", "backbone": {}, "defense": {}},
        )
        self.book = self._ledger(_FOUND)

    def _ledger(self, results):
        run_folder.write_json(self.workdir / run_folder.RESULTS, results)
        return Run(self.workdir).ledger

    @parameterized.parameters(
        ("clean", 1, "stands", None, 1),
        ("clean", 4, "wrong", None, 2),
        ("fgsm", 0, "stands", None, 0),
        ("fgsm", 1, "broken", 3, 2),
        ("two", 0, "broken", 0, 1),
        ("two", 1, "broken", 3, 2),  # by A; B never met it
        ("two", 3, "stands", None, 0),
        ("two", 4, "wrong", None, 2),
        ("two", 5, "not run", None, None),
    )
    def test_verdicts(self, column, index, word, step, prediction):
        self.assertEqual(
            report_data.verdict(self.book, _FOUND["attacks"][column], index),
            report_data.Verdict(word, step, prediction),
        )

    def test_an_attack_without_lines_was_not_run(self):
        for index, word in ((0, "not run"), (4, "wrong")):
            on = report_data.verdict(self.book, ["C"], index)
            self.assertEqual(on.word, word)

    def test_confusion(self):
        counts = report_data.confusion(self.book, _FOUND, "two", 3)
        expected = [[1, 1, 0], [0, 0, 2], [0, 0, 1]]
        np.testing.assert_array_equal(counts, expected)

    def test_a_ledger_of_an_older_version_tells_no_classes(self):
        path = self.workdir / ledger.FILE
        lines = [json.loads(text) for text in path.read_text().splitlines()]
        for line in lines:
            del line["attacked_prediction"]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        book = self._ledger(_FOUND)
        on = report_data.verdict(book, ["A"], 1)
        self.assertEqual(on, report_data.Verdict("broken", 3, None))
        self.assertIsNone(report_data.confusion(book, _FOUND, "fgsm", 3))
        clean = report_data.confusion(book, _FOUND, "clean", 3)
        self.assertEqual(clean.sum(), 5)

    @parameterized.parameters(
        ({"weights_digest": "sha256:2"}, "not run"),
        ({"seed": 1}, "not run"),
        ({"commit": "def"}, "broken"),
    )
    def test_lines_of_another_evaluation_are_not_read(self, changes, word):
        book = self._ledger({**_FOUND, **changes})
        self.assertEqual(report_data.verdict(book, ["A"], 1).word, word)

    def test_no_ledger(self):
        older = {k: v for k, v in _FOUND.items() if k != "weights_digest"}
        self.assertIsNone(self._ledger(older))
        (self.workdir / ledger.FILE).unlink()
        self.assertIsNone(self._ledger(_FOUND))


class ColumnsTest(absltest.TestCase):
    def test_the_strongest_leaves_the_fewest(self):
        self.assertEqual(report_data.strongest_column(_FOUND), "two")
        equal = {"accuracy": {"clean": 0.9, "a": 0.1, "b": 0.1, "c": 0.2}}
        self.assertEqual(report_data.strongest_column(equal), "b")
        clean = {"accuracy": {"clean": 0.9}}
        self.assertIsNone(report_data.strongest_column(clean))

    def test_shades_are_shares_of_the_row(self):
        counts = np.array([[0, 10, 0], [1, 5, 94], [0, 0, 0]])
        table = report_data.confusion_table(counts, ("a", "b", "c"))
        self.assertIsNone(table["pairs"])
        shades = [[shade for _, shade in row] for row in table["rows"]]
        self.assertEqual(shades, [[0, 4, 0], [1, 1, 4], [0, 0, 0]])

    def test_of_many_classes_the_largest_errors_are_told(self):
        counts = np.diag(np.full(30, 50))
        counts[3, 7], counts[9, 1] = 4, 6
        names = tuple(f"class {i}" for i in range(30))
        table = report_data.confusion_table(counts, names)
        self.assertIsNone(table["rows"])
        expected = [("class 9", "class 1", 6), ("class 3", "class 7", 4)]
        self.assertEqual(table["pairs"], expected)

    def test_config_in_words(self):
        pairs = report_data.flat(
            {
                "seed": 0,
                "attack": {"epsilon": 8 / 255, "random_start": True},
                "optimizer": {"ema": 0.2, "decay_at": [0.75, 0.9]},
                "image_size": None,
            }
        )
        self.assertEqual(
            pairs,
            [
                ("seed", "0"),
                ("attack.epsilon", "8/255"),
                ("attack.random_start", "True"),
                ("optimizer.ema", "0.2"),
                ("optimizer.decay_at", "0.75, 0.9"),
                ("image_size", "not set"),
            ],
        )

    def test_the_papers_row_stands_beside(self):
        table = report_data.table([None, {**_FOUND, "method": "atat"}])
        self.assertEqual(table["columns"][1:], ["clean", "fgsm", "two"])
        self.assertEqual(table["rows"][0], ["ATAT", "80.00", "60.00", "40.00"])
        self.assertEqual(table["rows"][1][1:], ["91.89", "76.74", ""])
        self.assertIsNone(report_data.table([None, None]))


class CommandsTest(absltest.TestCase):
    _CONFIG = {
        "dataset": "digits",
        "backbone": {"name": "wide_resnet", "depth": 10, "width": 1},
    }

    def test_they_are_words_for_a_shell(self):
        workdir = "a run; rm -rf $HOME"
        told = report_data.commands(workdir, self._CONFIG, "my data")
        for name in ("results", "checklist", "report"):
            words = shlex.split(told[name])
            self.assertIn(f"--workdir={workdir}", words)
            self.assertIn("--data_dir=my data", words)
        words = shlex.split(told["teacher"])
        self.assertIn(f"--workdir={workdir}/teacher", words)
        self.assertIn("--config.backbone.depth=10", words)

    def test_a_teacher_elsewhere(self):
        config = {**self._CONFIG, "teacher": "runs/t"}
        told = report_data.commands("runs/s", config)
        self.assertEqual(
            told["teacher_results"],
            "python -m atat_tf.evaluate --workdir=runs/t",
        )


class CurvesTest(parameterized.TestCase):
    def test_lines_go_from_corner_to_corner(self):
        rows = [
            {"epoch": 1, "learning_rate": 0.0, "train_clean_accuracy": 0.0},
            {"epoch": 2, "learning_rate": 0.1, "train_clean_accuracy": 0.5},
            {"epoch": 3, "learning_rate": 0.2, "train_clean_accuracy": 1.0},
        ]
        accuracy, rate = report_curves.panels(rows)
        for panel in (accuracy, rate):
            (series,) = panel.series
            self.assertEqual(series.points, [(50, 192), (199, 101), (348, 10)])
            self.assertEqual(series.path, "50.0,192.0 199.0,101.0 348.0,10.0")
            self.assertEqual([x for _, x in panel.across], ["1", "2", "3"])
        self.assertEqual([x for _, x in rate.up][:2], ["0", "0.05"])
        self.assertEqual(accuracy.up[-1], (10.0, "100"))

    def test_one_epoch_stands_in_the_middle(self):
        (panel,) = report_curves.panels([{"epoch": 1, "learning_rate": 0.1}])
        ((x, _),) = panel.series[0].points
        self.assertEqual(x, 199)

    def test_what_is_not_finite_is_left_out(self):
        rows = [
            {"epoch": 1, "train_loss": 1.0},
            {"epoch": 2, "train_loss": float("nan")},
            {"epoch": 3},
        ]
        (panel,) = report_curves.panels(rows)
        self.assertEqual(panel.series[0].values, {1: 1.0})
        self.assertEmpty(report_curves.panels([]))

    def test_the_kept_epoch(self):
        rows = [
            {"epoch": 1, "validation_clean_accuracy": 0.9},
            {"epoch": 2, "validation_clean_accuracy": 0.8},
        ]
        self.assertEqual(report_curves.kept_epoch(rows), 1)
        for row, robust in zip(rows, (0.1, 0.2), strict=True):
            row["validation_pgd_accuracy"] = robust
        self.assertEqual(report_curves.kept_epoch(rows), 2)
        self.assertIsNone(report_curves.kept_epoch([{"epoch": 1}]))

    @parameterized.parameters(
        (0.0, 0.1, [0, 0.02, 0.04, 0.06, 0.08, 0.1]),
        (0.0, 93.0, [0, 20, 40, 60, 80, 100]),
        (0.0, 0.0, [0, 0.2]),
        (-1.0, 1.0, [-1, -0.5, 0, 0.5, 1]),
    )
    def test_ticks_are_round(self, low, high, expected):
        np.testing.assert_allclose(report_curves.ticks(low, high), expected)

    @parameterized.parameters((1, 6), (1, 100), (1, 1), (7, 8))
    def test_ticks_of_epochs_are_epochs(self, first, last):
        ticks = report_curves.ticks(first, last, whole=True)
        self.assertEqual(ticks[0], first)
        self.assertLessEqual(len(ticks), 10)
        self.assertTrue(all(isinstance(tick, int) for tick in ticks))
        self.assertLessEqual(ticks[-1], last)


if __name__ == "__main__":
    absltest.main()
