"""A run folder as an object, on archived runs and on broken files."""

import json
import pathlib
import shutil

import numpy as np
import pytest

from atat_tf.errors import InputError
from atat_tf.evaluation.run import Run
from tests.support import runs

_SMALL = runs.ROOT / "results" / "small" / "cifar10"
_AT = _SMALL / "at" / "seed0"


@pytest.fixture(name="copied")
def _copied(tmp_path):
    """Returns the folder of a copy without the ledger."""
    for name in ("config.json", "results.json"):
        shutil.copy(_AT / name, tmp_path)
    return tmp_path


def _change(path, **values):
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_what_is_there(copied):
    run = Run(_AT)
    assert run.config.defense.name == "at"
    assert run.spec.image_shape == (32, 32, 3)
    assert len(run.class_names) == run.spec.num_classes == 10
    assert [row["epoch"] for row in run.metrics] == [1, 2, 3, 4, 5, 6]
    assert run.results["method"] == "at"
    assert run.checklist["num_images"] == 200
    assert run.has_weights() and not Run(copied).has_weights()
    assert run.classifier().output_shape == (None, 10)


@pytest.mark.parametrize("method", ["at", "released_cifar10"])
def test_the_ledger_gives_the_results(method):
    run = Run(_SMALL / method / "seed0")
    results = run.results
    for column, attacks in results["attacks"].items():
        stands = run.ledger.standing(attacks, results["num_images"])
        assert np.mean(stands) == results["accuracy"][column]


@pytest.mark.parametrize(
    "path", sorted(_SMALL.rglob("config.json")), ids=lambda p: p.parts[-3]
)
def test_every_archived_run_opens(path):
    run = Run(path.parent)
    recorded = json.loads(path.read_text())
    assert run.config.backbone.to_dict() == recorded["backbone"]
    teacher = run.teacher
    assert (teacher is None) == (not recorded["teacher"])
    if teacher:
        assert teacher.config.defense.name == "standard"


def test_the_ledger_is_of_the_results(copied):
    assert Run(copied).checklist is None
    assert not Run(copied).has_ledger
    assert Run(copied).ledger is None
    shutil.copy(_AT / "ledger.jsonl.xz", copied)
    attacks = Run(copied).results["attacks"]["fgsm"]
    assert Run(copied).ledger.standing(attacks, 10) is not None
    _change(copied / "results.json", seed=1)
    assert Run(copied).ledger.standing(attacks, 10) is None


def test_a_config_of_an_earlier_version(copied):
    values = json.loads((copied / "config.json").read_text())
    del values["bad_images"], values["attack"]["name"]
    (copied / "config.json").write_text(json.dumps(values))
    config = Run(copied).config
    assert (config.bad_images, config.attack.name) == ("stop", "pgd")


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("config.json", "{", "run folder with config.json"),
        ("config.json", "[]", "with backbone, dataset, defense.*missing"),
        ("config.json", '{"dataset": "digits"}', r"missing=\['backbone'"),
        ("results.json", "{}", "results.json with accuracy"),
        ("checklist.json", "[]", "checklist.json with num_images, points"),
    ],
)
def test_files_that_are_not_ours(copied, name, text, message):
    (copied / name).write_text(text)
    with pytest.raises(InputError, match=message):
        run = Run(copied)
        assert run.results and run.checklist


def test_no_run(copied):
    with pytest.raises(InputError, match="run folder with config.json"):
        Run(copied / "nowhere")
    with pytest.raises(InputError, match="Did you mean 'best'"):
        Run(copied).classifier("bset")
    with pytest.raises(InputError, match="no weights"):
        Run(copied).classifier()


def test_weights_of_another_network(copied):
    """Wider: other shapes. Deeper: layers that the file lacks."""
    shutil.copy(_AT / "best.weights.h5", copied)
    backbone = json.loads((copied / "config.json").read_text())["backbone"]
    for field, value in (("width", 2), ("depth", 16)):
        _change(copied / "config.json", backbone={**backbone, field: value})
        with pytest.raises(InputError, match="does not fit"):
            Run(copied).classifier()


def test_a_folder_is_named_by_any_path(monkeypatch):
    monkeypatch.chdir(_SMALL)
    run = Run("at/seed0")
    assert run.folder == pathlib.Path("at/seed0")
    assert run.has_ledger
    assert repr(run) == "Run('at/seed0')"
