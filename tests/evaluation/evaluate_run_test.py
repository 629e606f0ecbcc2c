"""Evaluation of a run folder, which is rebuilt from its own config."""

import dataclasses
import json
import pathlib
import re
import shutil

import numpy as np
import pytest

from atat_tf import losses
from atat_tf.attacks import columns, linf
from atat_tf.errors import InputError
from atat_tf.evaluation import evaluate_run, opening, printed_table
from atat_tf.evaluation.checklist import files as checklist_files
from atat_tf.evaluation.run import Run
from atat_tf.evaluation.statistics import estimate, likeness
from atat_tf.runs import folder as run_folder
from tests.support import commands, small_network, trained_runs, untrained_runs

_ARCHIVE = pathlib.Path(__file__).resolve().parents[2] / "results"


@pytest.fixture(name="run", scope="module")
def _run(tmp_path_factory):
    folder = untrained_runs.write(tmp_path_factory.mktemp("run"))
    (folder / "last.weights.h5").hardlink_to(folder / "best.weights.h5")
    return Run(folder)


def _predictions(run, pixels):
    return np.argmax(run.classifier()(pixels, training=False), -1)


def test_verdicts_are_those_of_the_stored_weights(run):
    results = evaluate_run.evaluate_run(run.folder, ["clean"], 50)
    split = run.dataset.test.take(50)
    right = _predictions(run, split.images / np.float32(255)) == split.labels
    assert results["accuracy"]["clean"] == np.mean(right)
    assert results["num_images"] == 50
    assert run.results == results


def test_columns_of_one_setting_stay_beside_each_other(tmp_path):
    run = Run(untrained_runs.write(tmp_path / "run"))
    alone = evaluate_run.evaluate_run(run.folder, ["clean"], 40)
    assert alone["worst_case"] == alone["accuracy"]["clean"]
    both = evaluate_run.evaluate_run(run.folder, ["pgd2"], 40)
    assert [*both["accuracy"]] == ["clean", "pgd2"] and run.results == both
    assert both["worst_case"] == both["accuracy"]["pgd2"]
    again = evaluate_run.evaluate_run(run.folder, ["pgd2"], 40)
    assert again["accuracy"] == both["accuracy"]
    other = evaluate_run.evaluate_run(run.folder, ["fgsm"], 40, seed=3)
    assert [*other["accuracy"]] == ["fgsm"] and run.results == other


def test_columns_of_two_commands_at_a_time_are_both_kept(tmp_path):
    run = Run(untrained_runs.write(tmp_path / "run"))
    first, second = (opening.open_run(run.folder, 40) for _ in range(2))
    evaluate_run.evaluate_opened(first, ["clean", "pgd2"])
    evaluate_run.evaluate_opened(second, ["clean", "fgsm"])
    assert {*run.results["accuracy"]} == {"clean", "pgd2", "fgsm"}


def test_a_column_of_a_plugin_that_is_not_here_stays(tmp_path):
    run = Run(untrained_runs.write(tmp_path / "run"))
    linf.ATTACKS["mine"] = linf.fgsm
    try:
        evaluate_run.evaluate_run(run.folder, ["clean", "mine"], 40)
    finally:
        del linf.ATTACKS["mine"]
    both = evaluate_run.evaluate_run(run.folder, ["pgd2"], 40)
    assert [*both["accuracy"]] == ["clean", "mine", "pgd2"]
    # The column may be outside the threat model, or the worst of it.
    assert both["worst_case"] is None
    opened = opening.open_run(run.folder, 40)
    point = checklist_files.worst_case_point(opened)
    assert point.verdict == "NOT RUN" and "plugin of mine" in point.note


def test_attacks_of_a_plugin_share_no_verdicts(tmp_path, monkeypatch):
    """Losses of one name, of which one leads away from errors."""
    for name, sign in (("weak", -1), ("strong", 1)):

        def loss(labels, logits, sign=sign):
            return sign * losses.cross_entropy(labels, logits)

        attack = dataclasses.replace(linf.fgsm(8 / 255), loss_fn=loss)
        monkeypatch.setitem(linf.ATTACKS, name, lambda attack=attack: attack)
    run = Run(untrained_runs.write(tmp_path / "run", seed=2))
    both = evaluate_run.evaluate_run(run.folder, ["weak", "strong"], 40)
    assert both["accuracy"]["strong"] < both["accuracy"]["weak"]


def test_figures_of_other_images_make_room(tmp_path):
    run = Run(untrained_runs.write(tmp_path / "run"))
    validation = evaluate_run.evaluate_run(
        run.folder, ["clean"], 40, split="validation"
    )
    assert validation["num_images"] == 40 and run.results is None
    test = evaluate_run.evaluate_run(run.folder, ["clean"], 30)
    assert run.results == test


def test_validation_images_replace_no_figures_of_test_images(tmp_path, capsys):
    run = Run(untrained_runs.write(tmp_path / "run"))
    kept = evaluate_run.evaluate_run(run.folder, ["clean", "fgsm"], 20)
    shown = evaluate_run.evaluate_run(
        run.folder, ["clean"], 40, split="validation"
    )
    assert shown["split"] == "validation" and run.results == kept
    words = " ".join(capsys.readouterr().out.split())
    assert "20 images: those of 40 validation images are shown" in words


def test_fewer_images_replace_no_figures(tmp_path, capsys):
    run = Run(untrained_runs.write(tmp_path / "run"))
    kept = evaluate_run.evaluate_run(run.folder, ["clean"], 40)
    shown = evaluate_run.evaluate_run(run.folder, ["fgsm"], 10)
    assert shown["num_images"] == 10 and [*shown["accuracy"]] == ["fgsm"]
    assert run.results == kept
    assert "keeps its figures of 40 images" in " ".join(
        capsys.readouterr().out.split()
    )
    more = evaluate_run.evaluate_run(run.folder, ["fgsm"], 50)
    assert run.results == more and [*more["accuracy"]] == ["fgsm"]


def test_choices_are_recorded(run):
    results = evaluate_run.evaluate_run(
        run.folder, ["pgd2x2"], 20, "batch", "last", seed=7
    )
    chosen = [results[name] for name in ("bn_eval", "weights", "seed")]
    assert chosen == ["batch", "last", 7]
    (attack,) = results["attacks"]["pgd2x2"]
    assert "restarts=2" in attack and "epsilon=8/255" in attack


def test_images_kept_aside_can_choose(run):
    """No reader of test accuracies takes these for them."""
    (run.folder / "results.json").unlink(missing_ok=True)
    results = evaluate_run.evaluate_run(
        run.folder, ["clean"], 50, split="validation"
    )
    assert results["split"] == "validation"
    assert run.results is None
    opened = opening.open_run(run.folder, 50, split="validation")
    np.testing.assert_array_equal(
        opened.split.images, run.dataset.validation.images[:50]
    )
    on_test = opening.open_run(run.folder, 50)
    assert opened.ledger.identity != on_test.ledger.identity
    evaluate_run.evaluate_run(run.folder, ["clean"], 50)
    assert run.results is not None


def test_adversarial_images_are_kept(run, tmp_path):
    names, path = ["pgd2", "fgsm"], tmp_path / "adversarials.npz"
    for _ in range(2):
        # The second time all verdicts are in the ledger.
        path.unlink(missing_ok=True)
        results = evaluate_run.evaluate_run(
            run.folder, names, 40, save_adversarials=path
        )
    split = run.dataset.test.take(40)
    pixels = split.images / np.float32(255)
    right = np.flatnonzero(_predictions(run, pixels) == split.labels)
    with np.load(path) as kept:
        np.testing.assert_array_equal(kept["labels"], split.labels)
        for name in names:
            # Those that are classified right, and no other.
            indices = kept[f"{name}/0/indices"]
            np.testing.assert_array_equal(indices, right)
            images = kept[f"{name}/0/images"]
            assert 0 <= images.min() <= images.max() <= 1
            distance = np.abs(images - pixels[indices]).max()
            assert 1e-3 < distance < 8 / 255 + 1e-6
            stands = _predictions(run, images) == split.labels[indices]
            assert np.sum(stands) / 40 == results["accuracy"][name]


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"weights": "bset"}, "Did you mean 'best'"),
        ({"weights": "ema"}, "ema.weights.h5. Received: .*best, last"),
        ({"num_images": 0}, "num_images >= 1"),
        ({"bn_eval": "train"}, "bn_eval among batch, frozen"),
        ({"split": "train"}, "images among test, validation"),
        ({"attacks": ["fgms"]}, "Did you mean 'fgsm'"),
        ({"save_adversarials": "/nowhere/a.npz"}, "an .npz file in an exist"),
    ],
)
def test_refuses(run, arguments, message):
    with pytest.raises(InputError, match=message):
        evaluate_run.evaluate_run(run.folder, **arguments)


def test_the_teacher_is_opened_on_the_same_images(tmp_path):
    untrained_runs.write(tmp_path)
    opened = opening.open_run(tmp_path, 50)
    assert opening.open_teacher(opened) is None
    untrained_runs.write(tmp_path / "teacher", "standard", seed=1)
    teacher = opening.open_teacher(opened)
    assert teacher.config.defense.name == "standard"
    assert len(teacher.split) == 50
    digests = {o.ledger.identity["weights"] for o in (opened, teacher)}
    assert len(digests) == 2
    # Its verdicts go into the run's own ledger.
    evaluate_run.standing(teacher, {"clean": ()}, "")
    assert opened.run.has_ledger and not teacher.run.has_ledger
    (tmp_path / "teacher" / "best.weights.h5").unlink()
    assert opening.open_teacher(opened) is None


def test_an_archived_network_is_a_twin_where_there_is_no_teacher():
    """Of the same data, and not the run itself; digits have none."""
    run = Run(_ARCHIVE / "small/cifar10/madry/seed0")
    twins = run.undefended_twins()
    standard = _ARCHIVE / "small/cifar10/standard/seed0"
    assert standard in [twin.folder for twin in twins]
    # The nearest first: its images are the likeliest to break the run.
    alike = [twin.config.backbone == run.config.backbone for twin in twins]
    assert alike == sorted(alike, reverse=True) and alike[0] and not alike[-1]
    assert {t.config.defense.name for t in twins} == {"standard"}
    assert all(t.spec == run.spec for t in twins)
    run.config.unlock().dataset = "digits"
    assert run.undefended_twins() == []
    # A teacher that is archived as well is there once.
    run = Run(_ARCHIVE / "reference_small_atat")
    twins = [twin.folder for twin in run.undefended_twins()]
    assert twins[0] == run.teacher.folder
    assert len(twins) == len(set(twins))


def test_a_teacher_is_a_twin_unless_it_is_robust(tmp_path):
    screening = _ARCHIVE / "screening"
    for name in ("standard", "control_at", "mse", "robust_teacher"):
        # Where their configs say, seen from above.
        shutil.copytree(screening / name, tmp_path / "runs/screening" / name)
    for name, is_twin in (("mse", True), ("robust_teacher", False)):
        run = Run(tmp_path / "runs/screening" / name)
        assert run.teacher.folder.parent == tmp_path / "runs/screening"
        twins = run.undefended_twins()
        assert any(twin.is_same(run.teacher) for twin in twins) == is_twin
        assert {twin.config.defense.name for twin in twins} == {"standard"}


@pytest.mark.long
def test_the_twin_is_opened_on_the_runs_own_images(tmp_path):
    if not small_network.SHARED.exists():
        pytest.skip("needs ../shared/tfds")
    for name, other in (("madry", "standard"), ("standard", "standard")):
        copy = shutil.copytree(
            _ARCHIVE / f"small/cifar10/{name}/seed0", tmp_path / name
        )
        opened = opening.open_run(copy, 8, data_dir=small_network.SHARED)
        twin = opening.open_twin(opened)
        assert twin.config.defense.name == other
        np.testing.assert_array_equal(twin.split.images, opened.split.images)
        assert not twin.run.is_same(opened.run)


def test_the_command_prints_a_table_and_the_checklist(run):
    words = "atat_tf.evaluate", f"--workdir={run.folder}", "--num_images=10"
    status, output = commands.run(*words, "--attacks=clean,fgsm")
    assert status == 0, output
    assert "ATAT" in output and "10 test images" in output
    status, output = commands.run(*words, "--checklist")
    assert status == 0, output
    assert "10 images; at least 200 are needed" in output
    assert run.checklist["num_images"] == 10
    assert " 0 FAIL," in output
    path = run.folder / "results.json"
    path.write_text(json.dumps({**run.results, "worst_case": 2.0}))
    status, output = commands.run(*words, "--checklist")
    assert status == 1 and " 1 FAIL," in output


@pytest.mark.parametrize(
    "word, message",
    [
        ("--config.num_epochs=7", "num_epochs=7 here, 2 there"),
        ("--config=configs/alp.py", "rebuilt from.*defense.name"),
        # They agree: what is missing then are the weights.
        ("--config.num_epochs=2", "no weights"),
        ("--config.evaluation.attacks=('clean',)", "no weights"),
    ],
)
def test_a_config_may_only_agree_with_the_runs_own(
    run, tmp_path, word, message
):
    config = json.dumps(json.loads((run.folder / "config.json").read_text()))
    (tmp_path / "config.json").write_text(config)
    status, output = commands.run(
        "atat_tf.evaluate", f"--workdir={tmp_path}", word
    )
    assert status == 1
    assert re.search(message, output) and "Traceback" not in output


@pytest.mark.long
def test_a_precision_gives_an_estimate_apart_from_whole_figures(
    tmp_path, capsys, monkeypatch
):
    """And a whole figure later takes its place; the ledger is gone on from."""
    monkeypatch.setattr(estimate, "PILOTS", (5, 5))
    run = Run(shutil.copytree(trained_runs.finished(), tmp_path / "run"))
    (run.folder / "results.json").unlink(missing_ok=True)
    attacks = ["clean", "apgd_t1@1/255"]
    rough = evaluate_run.evaluate_run(run.folder, attacks, 120, precision=0.1)
    assert [*rough["accuracy"]] == ["clean"]
    found = rough["estimates"]["apgd_t1@1/255"]
    assert found["low"] <= found["accuracy"] <= found["high"]
    assert found["num_sampled"] < found["num_standing"] < 120
    basis = likeness.basis(rough, "apgd_t1@1/255")
    assert tuple(found["attacks"]) == basis.attacks != ()
    # A narrower one stays, which a finer precision would have asked for.
    kept = {**found, "low": found["low"] + 0.01}
    finer = {**run.results, "estimates": {"apgd_t1@1/255": kept}}
    # Unless the name stood for other attacks then.
    others = {**kept, "attacks": ["another"]}
    other = {**finer, "estimates": {"apgd_t1@1/255": others}}
    run_folder.write_json(run.folder / "results.json", other)
    again = evaluate_run.evaluate_run(run.folder, attacks, 120, precision=0.1)
    assert again["estimates"]["apgd_t1@1/255"] == found
    run_folder.write_json(run.folder / "results.json", finer)
    again = evaluate_run.evaluate_run(run.folder, attacks, 120, precision=0.1)
    assert again["estimates"]["apgd_t1@1/255"] == kept
    # Of so many that nothing is guessed.
    fine = evaluate_run.evaluate_run(run.folder, attacks, 120, precision=1e-4)
    assert "estimates" not in fine
    assert "so small a precision saves nothing" in capsys.readouterr().err
    none_left = ["apgd_t1@255/255"]
    evaluate_run.evaluate_run(run.folder, none_left, 20, precision=0.1)
    words = capsys.readouterr().err
    assert "its first attack broke all images" in words
    assert "0 images" not in words
    printed_table.print_table([("AT", rough)])
    words = " ".join(capsys.readouterr().out.split())
    assert "about" in words and "apgd_t1@1/255 is an estimate" in words
    whole = evaluate_run.evaluate_run(run.folder, attacks, 120)
    assert "estimates" not in whole
    assert found["low"] <= whole["accuracy"]["apgd_t1@1/255"] <= found["high"]
    assert run.results == whole
    assert fine["accuracy"] == whole["accuracy"]
    # Nothing is guessed of what the ledger has.
    known = evaluate_run.evaluate_run(run.folder, attacks, 120, precision=0.1)
    assert known["accuracy"] == whole["accuracy"]
    assert "estimates" not in known
    assert "the ledger has the verdicts on all" in capsys.readouterr().err


@pytest.mark.parametrize(
    "evaluations",
    [
        {"autoattack": None, "standard": 0.1},
        {"standard": 0.1, "autoattack": None},
        {"clean,autoattack": None, "autoattack": 0.1},
    ],
)
def test_no_estimate_stands_beside_the_figure_of_all_images(
    run, tmp_path, monkeypatch, evaluations
):
    """Neither under its name, nor under another of the same attacks."""
    monkeypatch.setattr(columns, "_STANDARD", ("apgd_ce1", "square1"))
    sampled = estimate.Estimate(0.5, 0.4, 0.6, 20, 9, 4, 1)
    monkeypatch.setattr(evaluate_run, "estimated", lambda *_: sampled)
    folder = shutil.copytree(run.folder, tmp_path / "run")
    (folder / "results.json").unlink(missing_ok=True)
    for names, precision in evaluations.items():
        found = evaluate_run.evaluate_run(
            folder, names.split(","), 20, precision=precision
        )
    assert "estimates" not in found and "autoattack" in found["accuracy"]
    assert found["worst_case"] == found["accuracy"]["autoattack"]


@pytest.mark.parametrize(
    "options, message",
    [
        ({"attacks": ["pgd2"]}, "an attack of several parts"),
        ({"bn_eval": "batch"}, "of a batch there is no sample"),
        ({"precision": 0.7}, "below 0.5, a share"),
        ({"attacks": ["square_l2"]}, "a radius behind an attack in ℓ2"),
    ],
)
def test_what_cannot_be_estimated(run, options, message):
    given = {"attacks": ["autoattack"], "precision": 0.01, **options}
    with pytest.raises(InputError, match=message):
        evaluate_run.evaluate_run(run.folder, num_images=4, **given)
