"""Points of the checklist that the files of a trained run decide."""

import dataclasses
import json
import shutil

import pytest

from atat_tf.evaluation import evaluate_run, opening
from atat_tf.evaluation.checklist import files as checklist_files
from atat_tf.evaluation.checklist import run as checklist
from atat_tf.runs import folder as run_folder
from tests.support import trained_runs

pytestmark = pytest.mark.early


@pytest.fixture(name="opened", scope="module")
def _opened(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checked") / "run"
    shutil.copytree(trained_runs.finished(), folder)
    evaluate_run.evaluate_run(folder, ["clean", "fgsm"], 50)
    return opening.open_run(folder, 50)


def test_the_files_points_pass_and_are_written(opened, capsys):
    points = checklist.run_checklist(opened.run.folder, 50)
    decided = {p.name: p.verdict for p in points if p.verdict != "NOT RUN"}
    names = ("logits", "repeatable", "batch_independence")
    names += ("worst_case", "checkpoint")
    assert decided == dict.fromkeys(names, "PASS")
    written = opened.run.checklist
    assert written["num_images"] == 50
    assert written["points"] == [dataclasses.asdict(point) for point in points]
    assert "50 images; at least 200 are needed" in capsys.readouterr().out


def test_weights_that_validation_did_not_choose(opened):
    path = opened.run.folder / run_folder.METRICS
    kept, rows = path.read_text(), opened.run.metrics
    for row in rows:
        row["validation_pgd_accuracy"] += 0.01
    run_folder.write_metrics(opened.run.folder, rows)
    point = checklist_files.checkpoint_point(opened)
    assert point.verdict == "FAIL"
    assert point.figure == pytest.approx(1.0)
    path.unlink()
    assert checklist_files.checkpoint_point(opened).verdict == "NOT RUN"
    path.write_text(kept)
    other = dataclasses.replace(opened.dataset, name="another")
    moved = dataclasses.replace(opened, dataset=other)
    assert checklist_files.checkpoint_point(moved).verdict == "NOT RUN"


def test_each_kind_of_weights_has_its_own_validation_figure(opened):
    path = opened.run.folder / run_folder.METRICS
    kept, rows = path.read_text(), opened.run.metrics
    for weights in run_folder.WEIGHTS:
        judged = opening.open_run(opened.run.folder, 50, weights=weights)
        point = checklist_files.checkpoint_point(judged)
        assert (point.verdict, point.figure) == ("PASS", 0), weights
    del rows[-1]["validation_averaged_pgd_accuracy"]
    del rows[-1]["validation_averaged_clean_accuracy"]
    run_folder.write_metrics(opened.run.folder, rows)
    # As runs of an earlier version.
    assert checklist_files.checkpoint_point(judged).verdict == "NOT RUN"
    # After a rollback the averaged weights are those of the best epoch.
    rows[-1]["rolled_back_to"] = run_folder.kept_epoch(rows)
    run_folder.write_metrics(opened.run.folder, rows)
    best = opening.open_run(opened.run.folder, 50, weights="best")
    averaged = dataclasses.replace(best, weights="ema")
    point = checklist_files.checkpoint_point(averaged)
    assert (point.verdict, point.figure) == ("PASS", 0)
    path.write_text(kept)


@pytest.mark.parametrize(
    "changed, verdict, note",
    [
        ({"worst_case": 2.0}, "FAIL", "the ledger's lines give"),
        ({"worst_case": ...}, "FAIL", "gives no worst case"),
        ({"worst_case": None}, "NOT RUN", "no column is within ε, or"),
        (
            {"worst_case": None, "estimates": {"autoattack": {}}},
            "NOT RUN",
            "autoattack: an estimate",
        ),
        ({"bn_eval": "batch"}, "FAIL", "batch statistics"),
        ({"seed": 1}, "NOT RUN", "lacks lines"),
        ({"weights_digest": "other"}, "NOT RUN", "other weights"),
        ({"split": "validation"}, "NOT RUN", "no results.json of test"),
        (None, "NOT RUN", "no results.json"),
    ],
)
def test_a_worst_case_that_the_ledger_does_not_give(
    opened, changed, verdict, note
):
    path = opened.run.folder / run_folder.RESULTS
    kept = path.read_text()
    if changed is None:
        path.unlink()
    else:
        fields = {**json.loads(kept), **changed}
        fields = {name: fields[name] for name in fields if fields[name] != ...}
        path.write_text(json.dumps(fields))
    point = checklist_files.worst_case_point(opened)
    path.write_text(kept)
    assert point.verdict == verdict
    assert note in point.note
