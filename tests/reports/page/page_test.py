"""The report's page: closed, escaped, self-contained, as the ledger says."""

import dataclasses
import html
import html.parser
import json
import os
import pathlib
import re
import shutil
from unittest import mock

import pytest

from atat_tf.data import datasets
from atat_tf.evaluation.checklist import points as checklist_points
from atat_tf.reports import model_card
from atat_tf.reports.page import compared as report_compared
from atat_tf.reports.page import page as report_page
from atat_tf.runs import folder as run_folder
from tests.reports.page import report_runs
from tests.support import commands, ledgers

_VOID = {"meta", "link", "img", "br", "input"}
# Names of classes that a page must escape, in texts and in attributes.
_EVIL = tuple(f"<script>{i}</script> & \"'{i}" for i in range(10))


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


@pytest.fixture(name="page", scope="module")
def _page():
    workdir = report_runs.evaluated()
    dataset = dataclasses.replace(datasets.load("digits"), class_names=_EVIL)
    with (
        mock.patch.object(datasets, "load", return_value=dataset),
        mock.patch.object(datasets, "class_names", return_value=_EVIL),
        ledgers.read() as read,
    ):
        text = report_page.page(workdir, None, 48)
    assert len(read) == len({*read})  # none of them twice
    return text


@pytest.fixture(name="parsed", scope="module")
def _parsed(page):
    return _Parsed(page)


@pytest.fixture(name="copied")
def _copied(tmp_path):
    """Returns a function: a new folder with these files of the run, or all."""

    def copied(*names):
        source, folder = report_runs.evaluated(), tmp_path / "run"
        if not names:
            return pathlib.Path(shutil.copytree(source, folder))
        folder.mkdir()
        for name in names:
            shutil.copy(source / name, folder)
        return folder

    return copied


def test_every_element_is_closed_and_every_id_is_one(parsed):
    assert not parsed.open
    ids = [a["id"] for _, a in parsed.elements if "id" in a]
    assert len(ids) > 50
    assert len(set(ids)) == len(ids)
    for _, attributes in parsed.elements:
        if "aria-labelledby" in attributes:
            assert attributes["aria-labelledby"] in ids
        if attributes.get("href", "").startswith("#"):
            assert attributes["href"][1:] in ids


@pytest.mark.parametrize("name", ["page", "compared"])
def test_the_menu_has_the_headings(name):
    source = report_page._source(f"{name}.html.jinja")
    menu = re.findall(r'<li><a href="#(\w+)">(.*)</a></li>', source)
    assert menu == re.findall(r'<h2 id="(\w+)">(.*)</h2>', source)


def test_nothing_comes_from_outside(page, parsed):
    assert not re.search(r"https?://|@import|url\(|<base|srcset", page)
    for _, attributes in parsed.elements:
        assert attributes.get("src", "data:").startswith("data:")
    assert [a["href"] for a in parsed.of("link")] == ["data:,"]
    assert parsed.of("script") == [{}]


def test_every_picture_and_control_has_words(parsed):
    pictures = parsed.of("img")
    assert len(pictures) > 4 * 48
    assert all("alt" in attributes for attributes in pictures)
    for attributes in parsed.of("button"):
        if "reveal" in attributes.get("class", ""):
            assert "Attention on image" in attributes["aria-label"]


def test_filters_say_what_the_ledger_says(parsed):
    tiles = parsed.tiles
    labels = datasets.load("digits").test.labels[:48]
    assert [(tile["id"], tile["data-class"]) for tile in tiles] == [
        (f"image-{i}", str(label)) for i, label in enumerate(labels)
    ]
    seen = set()
    for number, column in enumerate(report_runs.COLUMNS[1:]):
        words = _ledger_words(report_runs.evaluated(), column)
        shown = [tile[f"data-verdict-{number}"] for tile in tiles]
        # The run was evaluated on 40 images.
        assert shown == [words.get(index, "not run") for index in range(48)]
        seen |= set(shown)
    assert seen == {"stands", "broken", "wrong", "not run"}
    # Every value is an option of its filter.
    filters = [a["data-filter"] for a in parsed.of("select")]
    assert filters == ["class", "verdict-0", "verdict-1"]
    options = {a["value"] for a in parsed.of("option")}
    for name in filters:
        assert {tile[f"data-{name}"] for tile in tiles} <= options


def test_accuracies_and_confusion_agree_with_results_json(page, parsed):
    path = report_runs.evaluated() / "results.json"
    accuracy = json.loads(path.read_text())["accuracy"]
    shown = " ".join(f"{100 * share:.2f}" for share in accuracy.values())
    assert f"ATAT {shown}" in parsed.text
    matrix = page.partition('<table class="matrix">')[2]
    cells = re.findall(r'<td class="shade-\d( diagonal)?">(\d+)<', matrix)
    count = report_runs.NUM_IMAGES
    assert sum(int(number) for _, number in cells) == count
    right = sum(int(number) for diagonal, number in cells if diagonal)
    assert right == round(min(accuracy.values()) * count)


def test_texts(page, parsed):
    assert html.escape(report_runs.FOLDER, quote=False)[:12] in page
    assert "<b>" not in page
    assert str(report_runs.evaluated()) in parsed.text
    assert "--checklist" in parsed.text
    assert "the teacher was not evaluated" in parsed.text
    assert _EVIL[3] in parsed.text
    first = _EVIL[datasets.load("digits").test.labels[0]]
    labels = [a.get("aria-label") for a in parsed.of("button")]
    assert f"Attention on image 0, {first}" in labels


def test_a_checklist(copied):
    """Points as the checklist decides them, of each kind."""
    points = [
        checklist_points.compared("steps", 0.0325, 0.0025, "a <b> & c"),
        checklist_points.not_run("steps", "why <not>"),
        checklist_points.held("logits", None, "seen"),
    ]
    points = [dataclasses.asdict(point) for point in points]
    workdir = copied()
    run_folder.write_json(
        workdir / run_folder.CHECKLIST,
        {
            "num_images": 200,
            "points": points,
            "explanations": {"class_sensitivity": 0.125, "deletion": 0.5},
        },
    )
    text = _Parsed(report_page.page(workdir, None, 0)).text
    # Two of the points there are; the others came after such a file.
    others = len(checklist_points.CRITERIA) - 2
    counts = f"1 PASS, 1 FAIL, 1 NOT RUN, {others} not asked"
    assert f"{counts} on 200 test images" in text
    assert "came after the checklist was made" in text
    assert "take away 3.2 ≤ 1 + 0.5 FAIL a <b> & c" in text
    assert "take away NOT RUN why <not>" in text
    assert "not probabilities PASS seen" in text
    assert "class sensitivity 0.12 high" in text
    assert "insertion not run" in text
    card = model_card.text(workdir)
    assert "| class sensitivity | 0.12 |" in card
    assert "| insertion" not in card


@pytest.mark.parametrize("field", ["data", "weights_digest"])
def test_a_checklist_of_other_figures_is_not_shown_as_the_runs(copied, field):
    workdir = copied()
    results = run_folder.read_json(workdir / run_folder.RESULTS)
    point = checklist_points.held("logits", None, "seen")
    checklist = {
        "num_images": 200,
        "points": [dataclasses.asdict(point)],
        "explanations": {"deletion": 0.5},
        "data": results["data"],
        "weights_digest": results["weights_digest"],
    }
    run_folder.write_json(workdir / run_folder.CHECKLIST, checklist)
    assert "| deletion | 0.50 |" in model_card.text(workdir)
    checklist[field] = "another"
    run_folder.write_json(workdir / run_folder.CHECKLIST, checklist)
    text = _Parsed(report_page.page(workdir, None, 0)).text
    others = {"data": "images", "weights_digest": "weights"}[field]
    assert f"checks – of other {others}" in text
    assert f"checklist.json is of other {others} than" in text
    assert "1 PASS" not in text and "0.50" not in text
    assert "| deletion" not in model_card.text(workdir)
    page = report_compared.compared([workdir, report_runs.evaluated()], None, 0)
    assert f"checks: of other {others}<" in page and "0.50" not in page


def test_a_run_evaluated_on_another_set_says_so(copied):
    workdir = copied()
    results = run_folder.read_json(workdir / run_folder.RESULTS)
    results["dataset"] = "others"
    run_folder.write_json(workdir / run_folder.RESULTS, results)
    with mock.patch.object(datasets, "class_names", return_value=_EVIL):
        text = _Parsed(report_page.page(workdir, None, 0)).text
    assert "ATAT on digits, evaluated on others" in text


def test_a_card_tells_all_that_trained_the_network(copied):
    workdir = copied("config.json", "metrics.jsonl")
    assert "beside that" not in model_card.text(workdir)
    config = json.loads((workdir / "config.json").read_text())
    more = {
        "augmentation": "crop_shift",
        "weight_perturbation": 0.01,
        "extra_images": "generated.npz",
        "extra_share": 0.5,
        "teacher_momentum": 0.995,
        "student_start": "random",
    }
    run_folder.write_json(workdir / "config.json", config | more)
    card = model_card.text(workdir)
    for name, value in more.items():
        assert f"{name} = {value}" in card


def test_a_bare_run_says_what_is_missing(copied):
    parsed = _Parsed(report_page.page(copied("config.json"), None, 0))
    for words in (
        "this run was not evaluated",
        "the checklist, which",
        "there is no teacher",
        "PGD-20 at several radii",
        "no metrics.jsonl",
        "the ledger has no attack on all",
        "--config=standard --dataset=digits",
    ):
        assert words in parsed.text
    assert not parsed.of("img")


def test_torn_metrics_are_no_epochs(copied):
    workdir = copied("config.json")
    (workdir / "metrics.jsonl").write_text('{"torn\n1\n{"step": 3}\n')
    assert "no metrics.jsonl" in report_page.page(workdir, None, 0)


def test_a_run_that_was_not_evaluated_has_pictures(copied):
    workdir = copied("config.json", "best.weights.h5")
    parsed = _Parsed(report_page.page(workdir, None, 3))
    assert len(parsed.tiles) == 3
    assert "data-verdict-0" not in parsed.tiles[0]
    assert "PGD, 20 steps of" in parsed.text


def test_verdicts_on_other_weights_are_not_shown(copied):
    workdir = copied()
    shutil.copy(workdir / "teacher/best.weights.h5", workdir)
    parsed = _Parsed(report_page.page(workdir, None, 3))
    results, _, others = parsed.text.partition("Mean attention shift")
    assert "weights have changed since" in results
    assert "weights have changed since" in others
    assert "data-verdict-0" not in parsed.tiles[0]


def test_the_command_writes_a_file(tmp_path):
    output = tmp_path / "page.html"
    words = f"--workdir={report_runs.evaluated()}", f"--output={output}"
    status, text = commands.run("atat_tf.report", *words, "--num_images=2")
    assert status == 0, text
    assert str(output) in text
    assert os.listdir(tmp_path) == ["page.html"]
    assert len(_Parsed(output.read_text()).tiles) == 2


@pytest.mark.parametrize(
    "words, message",
    [
        ("--workdir=/nowhere", "a run folder with config.json"),
        ("--workdir={} --output=/nowhere/x.html", "a file in an existing fold"),
        ("--workdir={0} --output={0}", "a file in an existing folder"),
        ("--workdir={} --num_images=-1", "num_images"),
        ("--workdir={}", "no weights"),
        ("", "Expected --workdir=RUN_FOLDER"),
    ],
)
def test_refusals_are_one_sentence(copied, words, message):
    folder = copied("config.json")
    words = words.format(folder).split()
    status, text = commands.run("atat_tf.report", *words)
    assert status == 1, text
    assert message in text
    assert len(text.splitlines()) == 1
    assert os.listdir(folder) == ["config.json"]
