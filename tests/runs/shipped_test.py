"""Networks that come with the package are found by their names."""

import pathlib
import tomllib

import pytest

import atat_tf as atat
from atat_tf.errors import InputError
from atat_tf.runs import config as run_config
from atat_tf.runs import folder as run_folder
from atat_tf.runs import shipped
from tests.support import commands

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", shipped.NETWORKS)
def test_a_network_is_there_by_its_name(name):
    run = atat.load(name)
    assert run.folder == ROOT / "results" / shipped.NETWORKS[name]
    weights = run.config.evaluation.weights
    assert run_folder.weights_path(run.folder, weights).stat().st_size < 3e6
    assert run_config.read(run.folder).dataset == "cifar10"
    assert name in atat.load.__doc__
    assert run.student.output_shape == (None, 10)


def test_the_wheel_has_them():
    target = tomllib.loads((ROOT / "pyproject.toml").read_text())
    target = target["tool"]["hatch"]["build"]["targets"]
    inside = target["wheel"]["force-include"]
    folders = [name for name in inside if name.startswith("results/")]
    for place in shipped.NETWORKS.values():
        path = pathlib.Path("results", place)
        (folder,) = (f for f in folders if path.is_relative_to(f))
        assert inside[folder] == f"atat_tf/{folder}"
        assert f"/{folder}" in target["sdist"]["include"]


def test_a_run_of_ones_own_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    there = shipped.found("undefended")
    assert there.is_absolute()
    assert shipped.found("undefended/") == pathlib.Path("undefended")
    assert shipped.found("other") == pathlib.Path("other")
    (tmp_path / "undefended").mkdir()
    assert shipped.found("undefended") == there
    (tmp_path / "undefended/config.json").touch()
    assert shipped.found("undefended") == pathlib.Path("undefended")


def test_a_teacher_is_found_by_its_name(tmp_path):
    folder = run_folder.teacher_folder(tmp_path, "undefended")
    assert folder == shipped.found("undefended")


def test_an_unknown_name_is_refused():
    with pytest.raises(InputError, match="'referense'"):
        atat.load("referense")


def test_commands_take_a_name(tmp_path):
    status, output = commands.run(
        "atat_tf.archive", "--workdir=undefended", f"--output={tmp_path}"
    )
    assert status == 0, output
    assert run_config.read(tmp_path) == run_config.read(
        shipped.found("undefended")
    )
    status, output = commands.run(
        "atat_tf.compare",
        "--workdirs=undefended,other",
        f"--output={tmp_path}/page.html",
    )
    assert "'other'" in output, "the first is a run"


def test_a_training_makes_its_own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = "atat_tf.train", "--workdir=undefended", "--dataset=digits"
    status, output = commands.run(*command, "--config.batch_size=4000")
    assert status == 1
    assert "Expected a batch" in output, output
