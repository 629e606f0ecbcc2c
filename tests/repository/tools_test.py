"""Tools refuse wrong words in one sentence, before they do anything."""

import os
import pathlib
import subprocess
import sys

import pytest

_ROOT = pathlib.Path(__file__).parents[2]
_REFUSED = {
    "build_files.py": [["--chekc"], ["--check", "more"]],
    "check_links.py": [[], ["/nowhere"], ["docs", "serving"]],
    "estimate_coverage.py": [
        ["--orders=0"],
        ["--precision=60"],
        ["--precision=nan"],
        ["word"],
    ],
    "gpu_run.py": [
        ["prepare", "--data_dir=/nowhere"],
        ["run", "--folder=/nowhere"],
        ["run", "--seconds=nan"],
        ["run", "--seconds=-1"],
        ["evaluate", "--output=/nowhere"],
        ["evaluate", "--num_images=0"],
        ["walk"],
    ],
    "xplique_parity.py": [["--num_images=0"], ["--workdir=/nowhere"]],
}


def test_every_tool_is_tried():
    assert {p.name for p in (_ROOT / "tools").glob("*.py")} == {*_REFUSED}


@pytest.mark.long
@pytest.mark.parametrize("name", _REFUSED)
def test_wrong_words_are_refused_in_one_sentence(name, tmp_path):
    for words in _REFUSED[name]:
        done = subprocess.run(
            [sys.executable, str(_ROOT / "tools" / name), *words],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(_ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode not in (0, 139), words
        assert "Traceback" not in done.stderr, done.stderr
        assert "error: " in done.stderr, words
    assert not any(tmp_path.iterdir())
