"""The report's page: closed, escaped, self-contained, as the ledger says."""

import collections
import dataclasses
import html
import html.parser
import json
import os
import pathlib
import re
import shutil
import sys
import tempfile
from unittest import mock

from absl.testing import absltest, parameterized

from atat_tf.data import datasets
from atat_tf.evaluation.checklist import points as checklist_points
from atat_tf.reports.page import page as report_page
from atat_tf.runs import folder as run_folder
from tests.reports.page import report_runs
from tests.support import commands, runs

_VOID = {"meta", "link", "img", "br", "input"}


class _Parsed(html.parser.HTMLParser):
    """Every element with its attributes, and the text outside of scripts."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self._texts = [], [], []
        self.feed(text)
        self.close()
        self.text = " ".join(" ".join(self._texts).split())

    def handle_starttag(self, tag, attributes):
        if len(dict(attributes)) != len(attributes):
            raise AssertionError(f"an attribute twice: {tag} {attributes}")
        self.elements.append((tag, dict(attributes)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            raise AssertionError(f"</{tag}> closes what is not open")

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("script", "style"):
            self._texts.append(data)

    def of(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def tiles(self):
        return [a for a in self.of("li") if a.get("class") == "tile"]


def _ledger_words(workdir, column):
    """Returns {index: word} by the ledger's lines of a column."""
    results = json.loads((workdir / "results.json").read_text())
    attacks = results["attacks"][column]
    words = {}
    for text in (workdir / "ledger.jsonl").read_text().splitlines():
        line = json.loads(text)
        if line["attack"] == "none" and line["broken"]:
            words[line["index"]] = "wrong"
        elif line["attack"] in attacks:
            words[line["index"]] = "broken" if line["broken"] else "stands"
    return words


class PageTest(absltest.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.workdir = report_runs.evaluated()
        cls.page = report_page.page(cls.workdir, None, 48)
        cls.parsed = _Parsed(cls.page)

    def test_every_element_is_closed_and_every_id_is_one(self):
        self.assertEmpty(self.parsed.open)
        ids = [a["id"] for _, a in self.parsed.elements if "id" in a]
        self.assertGreater(len(ids), 50)
        counts = collections.Counter(ids)
        self.assertEqual(set(counts.values()), {1}, counts.most_common(3))
        for _, attributes in self.parsed.elements:
            if "aria-labelledby" in attributes:
                self.assertIn(attributes["aria-labelledby"], counts)
            if attributes.get("href", "").startswith("#"):
                self.assertIn(attributes["href"][1:], counts)

    def test_nothing_comes_from_outside(self):
        self.assertNotRegex(self.page, r"https?://|@import|url\(|<base|srcset")
        for _, attributes in self.parsed.elements:
            self.assertStartsWith(attributes.get("src", "data:"), "data:")
        links = [a["href"] for a in self.parsed.of("link")]
        self.assertEqual(links, ["data:,"])
        self.assertEqual(self.parsed.of("script"), [{}])

    def test_every_picture_and_control_has_words(self):
        pictures = self.parsed.of("img")
        self.assertGreater(len(pictures), 4 * 48)
        self.assertTrue(all("alt" in attributes for attributes in pictures))
        for attributes in self.parsed.of("button"):
            if "reveal" in attributes.get("class", ""):
                self.assertRegex(attributes["aria-label"], "Attention on image")

    def test_filters_say_what_the_ledger_says(self):
        tiles = self.parsed.tiles
        labels = datasets.load("digits").test.labels[:48]
        self.assertEqual(
            [(tile["id"], tile["data-class"]) for tile in tiles],
            [(f"image-{i}", str(label)) for i, label in enumerate(labels)],
        )
        seen = set()
        for number, column in enumerate(report_runs.COLUMNS[1:]):
            words = _ledger_words(self.workdir, column)
            shown = [tile[f"data-verdict-{number}"] for tile in tiles]
            # The run was evaluated on 40 images.
            expected = [words.get(index, "not run") for index in range(48)]
            self.assertEqual(shown, expected)
            seen |= set(shown)
        self.assertEqual(seen, {"stands", "broken", "wrong", "not run"})
        # Every value is an option of its filter.
        filters = [a["data-filter"] for a in self.parsed.of("select")]
        self.assertEqual(filters, ["class", "verdict-0", "verdict-1"])
        options = [a["value"] for a in self.parsed.of("option")]
        for name in filters:
            self.assertContainsSubset(
                [t[f"data-{name}"] for t in tiles], options
            )

    def test_accuracies_and_confusion_agree_with_results_json(self):
        results = json.loads((self.workdir / "results.json").read_text())
        shown = [f"{100 * a:.2f}" for a in results["accuracy"].values()]
        self.assertIn(f"ATAT {' '.join(shown)}", self.parsed.text)
        matrix = self.page.partition('<table class="matrix">')[2]
        cells = re.findall(r'<td class="shade-\d( diagonal)?">(\d+)<', matrix)
        counts = [int(count) for _, count in cells]
        self.assertEqual(sum(counts), report_runs.NUM_IMAGES)
        right = sum(int(count) for diagonal, count in cells if diagonal)
        least = min(results["accuracy"].values())
        self.assertEqual(right, round(least * report_runs.NUM_IMAGES))

    def test_texts(self):
        escaped = html.escape(report_runs.FOLDER, quote=False)[:12]
        self.assertIn(escaped, self.page)
        self.assertNotIn("<b>", self.page)
        for words in (
            str(self.workdir),
            "--checklist",
            "the teacher was not evaluated",
        ):
            self.assertIn(words, self.parsed.text)

    def test_a_checklist(self):
        """Points as the checklist decides them, of each kind."""
        workdir = self._copy()
        points = [
            checklist_points.compared("steps", 0.0325, 0.0025, "a <b> & c"),
            checklist_points.not_run("steps", "why <not>"),
            checklist_points.held("logits", None, "seen"),
        ]
        checklist = {
            "num_images": 200,
            "points": [dataclasses.asdict(point) for point in points],
        }
        run_folder.write_json(workdir / run_folder.CHECKLIST, checklist)
        text = _Parsed(report_page.page(workdir, None, 0)).text
        self.assertIn("1 of 3 points pass, 1 fail; 200 test images", text)
        self.assertIn("take away 3.2 ≤ 1 + 0.5 FAIL a <b> & c", text)
        self.assertIn("take away NOT RUN why <not>", text)
        self.assertIn("not probabilities PASS seen", text)

    def test_a_bare_run_says_what_is_missing(self):
        workdir = self._copy("config.json")
        parsed = _Parsed(report_page.page(workdir, None, 0))
        for words in (
            "this run was not evaluated",
            "the checklist, which",
            "there is no teacher",
            "no metrics.jsonl",
            "no verdicts under attack",
            "--config=configs/standard.py --dataset=digits",
        ):
            self.assertIn(words, parsed.text)
        self.assertEmpty(parsed.of("img"))

    def test_a_run_that_was_not_evaluated_has_pictures(self):
        workdir = self._copy("config.json", "best.weights.h5")
        parsed = _Parsed(report_page.page(workdir, None, 3))
        self.assertLen(parsed.tiles, 3)
        self.assertNotIn("data-verdict-0", parsed.tiles[0])
        self.assertIn("num_steps=20", parsed.text)

    def test_verdicts_on_other_weights_are_not_shown(self):
        workdir = self._copy()
        shutil.copy(workdir / "teacher/best.weights.h5", workdir)
        parsed = _Parsed(report_page.page(workdir, None, 3))
        self.assertIn("weights have changed since", parsed.text)
        self.assertNotIn("data-verdict-0", parsed.tiles[0])

    def test_names_of_classes_are_escaped(self):
        evil = tuple(f"<script>{i}</script> & \"'{i}" for i in range(10))
        dataset = dataclasses.replace(datasets.load("digits"), class_names=evil)
        with (
            mock.patch.object(datasets, "load", return_value=dataset),
            mock.patch.object(datasets, "class_names", return_value=evil),
        ):
            parsed = _Parsed(report_page.page(self.workdir, None, 12))
        self.assertLen(parsed.of("script"), 1)
        self.assertEmpty(parsed.open)
        self.assertIn(evil[3], parsed.text)
        labels = [a.get("aria-label") for a in parsed.of("button")]
        first = evil[dataset.test.labels[0]]
        self.assertIn(f"Attention on image 0, {first}", labels)

    def test_torn_metrics_are_no_epochs(self):
        workdir = self._copy("config.json")
        (workdir / "metrics.jsonl").write_text('{"torn\n1\n{"step": 3}\n')
        page = report_page.page(workdir, None, 0)
        self.assertIn("no metrics.jsonl", page)

    def _copy(self, *names):
        """Returns a new folder with these files of the run, or with all."""
        folder = self.enter_context(tempfile.TemporaryDirectory())
        copied = pathlib.Path(folder) / "run"
        if not names:
            return pathlib.Path(shutil.copytree(self.workdir, copied))
        copied.mkdir()
        for name in names:
            shutil.copy(self.workdir / name, copied)
        return copied


class CommandTest(parameterized.TestCase):
    def setUp(self):
        super().setUp()
        folder = self.enter_context(tempfile.TemporaryDirectory())
        self.folder = pathlib.Path(folder)

    def test_a_file_is_written(self):
        output = self.folder / "page.html"
        status, text = commands.run(
            "atat_tf.report",
            f"--workdir={report_runs.evaluated()}",
            f"--output={output}",
            "--num_images=2",
        )
        self.assertEqual(status, 0, text)
        self.assertIn(str(output), text)
        self.assertEqual(os.listdir(self.folder), ["page.html"])
        tiles = re.findall('class="tile"', output.read_text())
        self.assertLen(tiles, 2)

    @parameterized.parameters(
        ("--workdir=/nowhere", "a run folder with config.json"),
        ("--workdir={} --output=/nowhere/x.html", "a file in an existing fold"),
        ("--workdir={0} --output={0}", "a file in an existing folder"),
        ("--workdir={} --num_images=-1", "num_images"),
        ("--workdir={}", "no weights"),
        ("", "Expected --workdir=RUN_FOLDER"),
    )
    def test_refusals_are_one_sentence(self, words, message):
        shutil.copy(report_runs.evaluated() / "config.json", self.folder)
        words = words.format(self.folder).split()
        status, text = commands.run("atat_tf.report", *words)
        self.assertEqual(status, 1, text)
        self.assertRegex(text, message)
        self.assertLen(text.splitlines(), 1)
        self.assertEqual(os.listdir(self.folder), ["config.json"])

    def test_a_full_disk_leaves_nothing(self):
        """A limit on file sizes stands in for the disk."""
        shutil.copy(report_runs.evaluated() / "config.json", self.folder)
        program = (
            "import resource, runpy, sys\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))\n"
            "runpy.run_module('atat_tf.report', run_name='__main__')"
        )
        words = [f"--workdir={self.folder}", "--num_images=0"]
        status, text = runs.finish([sys.executable, "-c", program, *words])
        self.assertEqual(status, 1, text)
        self.assertRegex(text, "error: .*could not write .*report.html")
        self.assertEqual(os.listdir(self.folder), ["config.json"])
