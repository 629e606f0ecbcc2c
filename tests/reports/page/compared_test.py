"""Several runs on one page."""

import dataclasses
import html
import os
import shutil
from unittest import mock

import numpy as np
import pytest

import atat_tf as atat
from atat_tf.data import datasets
from atat_tf.errors import InputError
from atat_tf.evaluation import ledger, opening
from atat_tf.evaluation.run import Run
from atat_tf.reports.page import compared
from atat_tf.runs import folder as run_folder
from tests.reports.page import report_runs
from tests.support import commands, ledgers


@pytest.fixture(name="folders", scope="module")
def _folders(tmp_path_factory):
    """Returns two run folders, the same but for their names."""
    copy = tmp_path_factory.mktemp("runs") / "b <i>"
    shutil.copytree(report_runs.evaluated(), copy)
    return report_runs.evaluated(), copy


def _written(folders, output, *words):
    workdirs = ",".join(map(str, folders))
    return commands.run(
        "atat_tf.compare",
        f"--workdirs={workdirs}",
        f"--output={output}",
        *words,
    )


def test_equal_runs_differ_nowhere(folders, tmp_path):
    with ledgers.read() as read:
        output = tmp_path / "page.html"
        status, text = _written(folders, output, "--num_images=4")
    assert status == 0, text
    assert sorted(read) == sorted(folder / ledger.FILE for folder in folders)
    assert os.listdir(tmp_path) == ["page.html"]
    page = (tmp_path / "page.html").read_text()
    assert "<i>" not in page
    assert "http" not in page.replace("http-equiv", "")
    tests = page[page.index('id="tests"') : page.index('id="explanations"')]
    assert tests.count('<td class="number">1</td>') == 3  # p, of each column
    looks = page.count('class="looks"')
    assert looks and looks % 2 == 0  # a row for each run
    assert page.count('data-role="map"') == looks


def test_what_does_not_compare_is_said_and_not_tested(folders, tmp_path):
    for name, source in zip("ab", folders, strict=True):
        copy = tmp_path / name
        shutil.copytree(source, copy)
        values = run_folder.read_json(copy / run_folder.RESULTS)
        values["accuracy"]["pgd20"] = 0.5
        values["attacks"]["pgd20"] = [f"LinfAttack(epsilon={name}/255)"]
        values["bn_eval"] = "frozen" if name == "a" else "batch"
        run_folder.write_json(copy / run_folder.RESULTS, values)
    page = html.unescape(
        compared.compared([tmp_path / n for n in "ab"], None, 0)
    )
    assert f"({tmp_path}/a) has ε = a/255; ATAT ({tmp_path}/b) has ε" in page
    assert f"({tmp_path}/b): batch-norm statistics of the attacked" in page
    assert page.count(", bn_eval=batch</span>") == 2
    assert "No two runs have verdicts of the same attacks" in page


def test_accuracies_by_other_steps_are_left_out(folders, tmp_path):
    for name, source in zip("ab", folders, strict=True):
        shutil.copytree(source, tmp_path / name)
    path = tmp_path / "b" / run_folder.CONFIG
    config = run_folder.read_json(path)
    config["attack"]["step_size"] /= 2
    run_folder.write_json(path, config)
    radii = {0: 90.0, 4: 50.0, 8: 10.0}, 40
    with mock.patch.object(compared.measured, "accuracy_at_radii") as at_radii:
        at_radii.return_value = radii
        page = compared.compared([tmp_path / n for n in "ab"], None, 0)
    assert f"({tmp_path}/b): its accuracies against ε are of other" in page
    assert f"({tmp_path}/a): its accuracies" not in page


def test_images_of_two_sizes_are_not_compared(folders):
    runs = {folder.name: Run(folder) for folder in folders}
    for run, side in zip(runs.values(), (12, 16), strict=True):
        run.spec = dataclasses.replace(run.spec, image_shape=(side, side, 1))
    with pytest.raises(InputError, match="images of one size"):
        compared._expect_comparable(runs)


def test_pictures_are_of_the_images_and_seed_of_the_figures(folders, tmp_path):
    """Where the figures are of other weights, that is said."""

    @atat.register("dataset", "digits_to_compare")
    def _():
        digits = datasets.load("digits")
        splits = (digits.train, digits.validation, digits.test)
        train, validation, test = (
            (1 - split.images[:20] / np.float32(255), split.labels[:20])
            for split in splits
        )
        return atat.Data(
            train,
            validation=validation,
            test=test,
            class_names=digits.class_names,
        )

    for name, source in zip("ab", folders, strict=True):
        shutil.copytree(source, tmp_path / name)
        values = run_folder.read_json(tmp_path / name / run_folder.RESULTS)
        values |= {"dataset": "digits_to_compare", "seed": 7}
        run_folder.write_json(tmp_path / name / run_folder.RESULTS, values)
    weights = run_folder.weights_path("", "best")
    shutil.copy(tmp_path / "a/teacher" / weights, tmp_path / "b" / weights)
    opened, really = [], opening.open_run

    def noted(*args, **kwargs):
        opened.append(really(*args, **kwargs))
        return opened[-1]

    with mock.patch.object(opening, "open_run", noted):
        page = compared.compared([tmp_path / n for n in "ab"], None, 2)
    about = [(one.dataset.name, one.seed) for one in opened]
    assert about == [("digits_to_compare", 7)] * 2
    assert "on digits, evaluated on digits_to_compare</h1>" in page
    assert f"<p>ATAT ({tmp_path}/b): the weights have changed since" in page
    assert f"<p>ATAT ({tmp_path}/a): the weights" not in page


@pytest.mark.parametrize("count, message", [(1, "two to 6"), (0, "two to 6")])
def test_one_run_is_no_comparison(folders, tmp_path, count, message):
    status, text = _written(folders[:count], tmp_path / "page.html")
    assert status == 1
    assert message in text
    assert not os.listdir(tmp_path)


def test_a_folder_without_a_run_is_refused(tmp_path):
    status, text = _written([tmp_path], tmp_path / "page.html")
    assert status == 1
    assert "a run folder with config.json" in text
