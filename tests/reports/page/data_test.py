"""The report's numbers: verdicts, confusion, curves, commands, tables."""

import base64
import json
import pathlib
import shlex
import tempfile
from xml.etree import ElementTree

import numpy as np
from absl.testing import absltest, parameterized

from atat_tf.defenses import atat
from atat_tf.evaluation import ledger
from atat_tf.evaluation.run import Run
from atat_tf.reports.page import curves as report_curves
from atat_tf.reports.page import data as report_data
from atat_tf.runs import folder as run_folder

_RESULTS = {
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


def _lines(*images):
    """Returns lines of (index, prediction, attacked, broken, step)."""
    return [
        {
            "index": index,
            "label": _LABELS[index],
            "prediction": prediction,
            "attacked_prediction": attacked,
            "broken": broken,
            "step": step,
        }
        for index, prediction, attacked, broken, step in images
    ]


class LedgerTest(parameterized.TestCase):
    """Five images of three classes; image 4 is misclassified from the start.

    Attack A breaks image 1 at its step 3, B breaks image 0 at once.
    """

    def setUp(self):
        super().setUp()
        folder = self.enter_context(tempfile.TemporaryDirectory())
        self.workdir = pathlib.Path(folder)
        digest, data = _RESULTS["weights_digest"], _RESULTS["data"]
        identity = ledger.identity(digest, data, "frozen", 0, None)
        written = ledger.Ledger(self.workdir / ledger.FILE, identity)
        clean = [(i, k, k, False, None) for i, k in enumerate(_LABELS[:4])]
        written.append("none", _lines(*clean, (4, 2, 2, True, None)))
        stand = (2, 2, 2, False, None), (3, 0, 0, False, None)
        first = (0, 0, 0, False, None), (1, 1, 2, True, 3)
        written.append("A", _lines(*first, *stand))
        written.append("B", _lines((0, 0, 1, True, 0), *stand))
        run_folder.write_json(
            self.workdir / run_folder.CONFIG,
            {"dataset": "cifar10", "backbone": {}, "defense": {}},
        )
        self.lines = self._ledger(_RESULTS)

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
            report_data.verdict(self.lines, _RESULTS["attacks"][column], index),
            report_data.Verdict(word, step, prediction),
        )

    def test_an_attack_without_lines_was_not_run(self):
        for index, word in ((0, "not run"), (4, "wrong")):
            on = report_data.verdict(self.lines, ["C"], index)
            self.assertEqual(on.word, word)

    def test_confusion(self):
        counts = report_data.confusion(
            self.lines, _RESULTS["attacks"]["two"], 5, 3
        )
        expected = [[1, 1, 0], [0, 0, 2], [0, 0, 1]]
        np.testing.assert_array_equal(counts, expected)

    def test_without_the_attacked_class_there_is_no_confusion(self):
        """As with batch statistics, where no image is looked at alone."""
        path = self.workdir / ledger.FILE
        lines = [json.loads(text) for text in path.read_text().splitlines()]
        lines = [{**line, "attacked_prediction": None} for line in lines]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        read = self._ledger(_RESULTS)
        on = report_data.verdict(read, ["A"], 1)
        self.assertEqual(on, report_data.Verdict("broken", 3, None))
        self.assertIsNone(report_data.confusion(read, ["A"], 5, 3))
        clean = report_data.confusion(read, [], 5, 3)
        self.assertEqual(clean.sum(), 5)


class ColumnsTest(absltest.TestCase):
    def test_shades_are_shares_of_the_row(self):
        counts = np.array([[0, 10, 0], [1, 5, 94], [0, 0, 0]])
        table = report_data.confusion_table(counts, ("a", "b", "c"))
        self.assertIsNone(table["pairs"])
        shades = [[shade for _, shade in row] for row in table["rows"]]
        self.assertEqual(shades, [[0, 4, 0], [1, 1, 4], [0, 0, 0]])

    def test_of_many_classes_the_largest_errors_are_listed(self):
        counts = np.diag(np.full(30, 50))
        counts[3, 7], counts[9, 1] = 4, 6
        names = tuple(f"class {i}" for i in range(30))
        table = report_data.confusion_table(counts, names)
        self.assertIsNone(table["rows"])
        expected = [("class 9", "class 1", 6), ("class 3", "class 7", 4)]
        self.assertEqual(table["pairs"], expected)

    def test_config_in_words(self):
        attack = {"epsilon": 8 / 255, "decay_at": [0.75, 0.9]}
        self.assertEqual(
            report_data.flat({"attack": attack, "image_size": None}),
            [
                ("attack.epsilon", "8/255"),
                ("attack.decay_at", "0.75, 0.9"),
                ("image_size", "not set"),
            ],
        )

    def test_commands_are_words_for_a_shell(self):
        backbone = {"name": "wide_resnet", "depth": 10, "width": 1}
        config = {"dataset": "digits", "backbone": backbone, "num_epochs": 6}
        workdir = "a run; rm -rf $HOME"
        commands = report_data.commands(workdir, config, "my data")
        for name in ("results", "checklist", "report"):
            words = shlex.split(commands[name])
            self.assertIn(f"--workdir={workdir}", words)
            self.assertIn("--data_dir=my data", words)
        words = shlex.split(commands["teacher"])
        self.assertIn(f"--workdir={workdir}/teacher", words)
        self.assertIn("--config.backbone.depth=10", words)
        self.assertIn("--config.num_epochs=6", words)
        # A teacher elsewhere.
        commands = report_data.commands("s", {**config, "teacher": "runs/t"})
        command = "python -m atat_tf.evaluate --workdir=runs/t"
        self.assertEqual(commands["teacher_results"], command)
        # Figures that a table holds together are of the same images.
        commands = report_data.commands("s", config, num_images=500)
        for name in ("results", "teacher_results", "radii", "autoattack"):
            self.assertIn(" --num_images=500", commands[name])


class CurvesTest(parameterized.TestCase):
    @parameterized.parameters(*atat.DEFENSES)
    def test_every_term_of_a_defense_is_drawn(self, name):
        terms = atat.DEFENSES[name]().terms
        row = {"epoch": 1, "train_loss": 0.5, "train_clean_accuracy": 0.1}
        row |= {f"train_{term}": 0.0 for term in terms}
        (loss, _) = report_curves.panels([row])
        self.assertLen(loss.series, 1 + len(terms))
        self.assertContainsSubset({"loss"}, loss.series)

    def test_a_panel_is_an_svg_of_texts(self):
        rows = [
            {"epoch": i, "learning_rate": 0.1 * i, "train_clean_accuracy": y}
            for i, y in ((1, 0.0), (2, 0.5), (3, 1.0))
        ]
        accuracy, rate = report_curves.panels(rows)
        series = {"training, clean": {1: 0, 2: 50, 3: 100}}
        self.assertEqual(accuracy.series, series)
        for panel, words in (
            (accuracy, ["1", "2", "3", "epoch", "100", "%", "training, clean"]),
            (rate, ["1", "2", "3", "epoch", "0.30", "rate", "learning rate"]),
        ):
            kind, _, text = panel.uri.partition(",")
            self.assertEqual(kind, "data:image/svg+xml;base64")
            svg = ElementTree.fromstring(base64.b64decode(text))
            texts = [text.strip() for text in svg.itertext()]
            self.assertContainsSubset(words, texts)
        self.assertEqual(report_curves.panels(rows), [accuracy, rate])

    def test_lines_have_the_values(self):
        series = {"a": {2: 5.0, 1: 4.0}, "b": dict.fromkeys(range(1, 100), 1.0)}
        figure = report_curves.curves("%", series, kept=2)
        first, second, kept = figure.axes[0].lines
        self.assertEqual(first.get_xydata().tolist(), [[1, 4], [2, 5]])
        self.assertEqual(first.get_marker(), "o")
        self.assertEqual(second.get_marker(), "None")  # of many epochs none
        self.assertEqual(kept.get_xdata(), [2, 2])
        self.assertEqual(figure.axes[0].get_ylim()[0], 0)

    def test_what_is_not_finite_is_left_out(self):
        rows = [
            {"epoch": 1, "train_loss": 1.0},
            {"epoch": 2, "train_loss": float("nan")},
            {"epoch": 3},
        ]
        (panel,) = report_curves.panels(rows)
        self.assertEqual(panel.series["loss"], {1: 1.0})
        self.assertEmpty(report_curves.panels([]))
