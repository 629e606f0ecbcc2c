"""What is prepared for a GPU runs by JAX alone, and comes back: a rehearsal."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

_ROOT = pathlib.Path(__file__).parents[2]
_TOOL = _ROOT / "tools" / "gpu_run.py"
# An interpreter with JAX: python -m venv FOLDER; FOLDER/bin/pip install jax
_JAX = os.environ.get("ATAT_JAX_PYTHON", sys.executable)


def _run(*words, cwd=_ROOT, **environment):
    done = subprocess.run(
        words,
        cwd=cwd,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", **environment},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.long
def test_prepared_run_and_evaluated(tmp_path):
    try:
        subprocess.run(
            [_JAX, "-c", "import jax"], check=True, capture_output=True
        )
    except subprocess.CalledProcessError:
        pytest.skip("no JAX: ATAT_JAX_PYTHON names an interpreter that has it")
    folder, output = tmp_path / "there", tmp_path / "back"
    data_dir = _ROOT.parent / "shared" / "tfds"
    here = {"PYTHONPATH": str(_ROOT)}
    command = [sys.executable, str(_TOOL)]
    told = _run(
        *command,
        "prepare",
        "--size=tiny",
        f"--folder={folder}",
        f"--data_dir={data_dir}",
        **here,
    )
    assert "MiB" in told
    # From another folder, with nothing of this one but what was prepared.
    _run(
        _JAX,
        str(folder / "gpu_run.py"),
        "run",
        f"--folder={folder}",
        f"--output={output}",
        "--seconds=90",
        cwd=tmp_path,
        PYTHONPATH="",
    )
    report = json.loads((output / "report.json").read_text())
    # On a CPU it is the same arithmetic.
    assert max(report["parity"]["relative_difference"].values()) < 1e-3
    assert report["speed"]["batch"] == 8 and not report["speed"]["failed"]
    # However few steps a busy machine leaves.
    assert 0 < report["train"]["epochs"][-1]["loss"] < 10
    assert all(p.stat().st_size < 2**24 for p in output.glob("weights-*"))
    table = _run(
        *command,
        "evaluate",
        f"--output={output}",
        f"--data_dir={data_dir}",
        "--attacks=clean,pgd2",
        "--num_images=20",
        **here,
    )
    assert "20 test images" in table and (output / "run/results.json").exists()
