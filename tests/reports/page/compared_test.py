"""Several runs on one page."""

import os
import shutil

import pytest

from atat_tf.evaluation import ledger
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
