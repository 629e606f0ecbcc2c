"""Plans: their jobs, what is left of them, and plans that cannot be run."""

import dataclasses
import re
from unittest import mock

import pytest

from atat_tf.errors import InputError
from atat_tf.evaluation import ledger
from atat_tf.reports.tables import catalogue
from atat_tf.reports.tables import plan as table_plan
from atat_tf.reports.tables import records as table_records
from atat_tf.runs import checks as run_checks
from atat_tf.runs import config as run_config
from atat_tf.runs import folder as run_folder
from atat_tf.training import cost
from tests.reports.tables import table_runs
from tests.support import commands


@pytest.fixture(name="plan")
def _plan(tmp_path):
    """Returns a function of rows, ... that plans a table of small runs."""

    def plan(*rows, table="1", scale=table_runs.SCALE, seeds=1):
        if isinstance(table, str):
            table = catalogue.table(table)
        folder = tmp_path / "runs"
        return table_plan.build(table, scale, seeds, folder, None, rows)

    return plan


def test_a_seeds_rows_share_its_teacher(plan):
    keys = "standard", "at", "atat"
    jobs = plan(*keys, seeds=2).jobs
    expected = [(key, seed) for seed in (0, 1) for key in keys]
    assert [(job.row.key, job.seed) for job in jobs] == expected
    standard, at, atat = jobs[3:]
    assert atat.config.teacher == str(standard.workdir)
    assert at.config.teacher == ""
    assert {job.config.seed for job in jobs[3:]} == {1}


def test_a_teacher_that_is_no_row_is_trained_and_not_a_line(plan):
    teacher, atat = plan("atat").jobs
    assert atat.in_table and not teacher.in_table
    # It is the very network of the Standard row.
    (standard,) = plan("standard").jobs
    assert teacher.config == standard.config
    assert teacher.workdir == standard.workdir


def test_tables_share_rows(plan):
    *_, first = plan("atat").jobs
    _, second, changed = plan("atat", "lambda_0_1", table="ablation").jobs
    assert first.workdir == second.workdir
    defenses = (job.config.defense.to_dict() for job in (changed, first))
    differences = run_config.differences(*defenses)
    assert differences == ["attention_weight=0.0 here, 1.0 there"]


@pytest.mark.parametrize(
    "table, row, epochs",
    [
        # ATAT: 3 epochs of 21 passes (7 attack gradients of 2, an update of 3
        # on twice the images, the teacher's 1), its teacher's 8 of 3: 87. An
        # epoch of AT has 20, so 5 epochs are 100, and 4 would be 80.
        ("ablation", "at_equal_cost", 5),
        ("1", "standard", 8),  # the teacher's
    ],
)
def test_epochs(plan, table, row, epochs):
    (job,) = plan(row, table=table, scale=catalogue.scale("tiny")).jobs
    assert job.config.num_epochs == epochs


def test_the_final_costs_what_atat_does(plan):
    table, scale = catalogue.table("final"), catalogue.scale("final")
    costs = {}
    for row in catalogue.chosen_rows(table):
        *teacher, job = table_plan.jobs_of_row(row, table, scale, 0, "nowhere")
        costs[row.key] = sum(
            one.config.num_epochs * cost.passes_per_image(one.config)
            for one in (*teacher, job)
        )
    assert costs.pop("standard") == 18
    assert costs.pop("final_trades") == 2 * costs["final_mse"] == 144
    # That of a teacher which ALP's own step has not.
    costs["final_alp"] -= 7
    assert {*costs.values()} == {72, 73, 74}


@pytest.mark.parametrize("scale", catalogue.SCALES)
@pytest.mark.parametrize("table", catalogue.TABLES)
def test_every_row_has_a_valid_config(scale, table):
    """Except rows whose recipe is not there, which are named."""
    if (scale == "final") != (table == "final"):
        pytest.skip("that scale is of that table")
    scale, table = catalogue.scale(scale), catalogue.table(table)
    rows = [
        row
        for row in catalogue.chosen_rows(table)
        if table_plan.recipe(scale, row) is not None
    ]
    assert len(rows) >= 2
    for row in rows:
        for job in table_plan.jobs_of_row(row, table, scale, 0, "nowhere"):
            run_checks.validate(job.config)
            wide = job.config.backbone.depth == 34
            assert wide == (scale.name == "paper")


def test_rows_without_a_recipe_are_named_with_those_that_can_run(plan):
    rows = dict.fromkeys(("standard", "lost", "atat"), "")
    table = dataclasses.replace(table_runs.TABLE, rows=rows)
    lost = catalogue.Row("lost", "Lost", "no_such_recipe")
    with (
        mock.patch.dict(catalogue.ROWS, {"lost": lost}),
        pytest.raises(InputError, match="for lost; .*--rows=standard,atat"),
    ):
        plan(table=table)


_BAD_SCALE = dataclasses.replace(table_runs.SCALE, changes={"batch_size": 0})


@pytest.mark.parametrize(
    "rows, keywords, message",
    [
        ((), {"seeds": 0}, "seeds >= 1. Received: seeds=0"),
        (("atta",), {}, "Did you mean 'atat'"),
        (("at",), {"scale": _BAD_SCALE}, "batch_size >= 1"),
    ],
)
def test_nothing_is_made_by_a_plan_that_cannot_run(
    plan, tmp_path, rows, keywords, message
):
    with pytest.raises(InputError, match=message):
        plan(*rows, **keywords)
    assert not list(tmp_path.iterdir())


def test_a_run_of_another_config_stands_in_the_way(plan):
    (job,) = plan("at").jobs
    run_folder.create(job.workdir)
    config = {**job.config.to_dict(), "num_epochs": 99}
    run_folder.write_json(job.workdir / "config.json", config)
    with pytest.raises(InputError, match="another --workdir.*1 here, 99 there"):
        plan("at")


@pytest.mark.parametrize("guard, left", [("rollback", 0), ("off", 1)])
def test_a_guard_ends_a_training_before_its_last_epoch(plan, guard, left):
    (job,) = plan("standard").jobs
    config = job.config.copy_and_resolve_references().unlock()
    config.guard, config.num_epochs = guard, 3
    job = dataclasses.replace(job, config=config)
    run_folder.create(job.workdir)
    field = run_folder.validation_field("clean")
    rows = [{"epoch": 1, field: 0.4}, {"epoch": 2, field: 0.0}]
    run_folder.write_metrics(job.workdir, rows)
    assert job.epochs_left == left


def test_a_record_without_its_ledger_says_nothing(plan):
    planned = plan("standard")
    (job,) = planned.jobs
    run_folder.create(job.workdir)
    facts = {"data": planned.dataset.provenance, "commit": "a", "hardware": "b"}
    identity = {"weights": "w", "data": "d", "seed": 0}
    parts = [
        {"num_images": count, "identity": identity, "columns": {column: []}}
        for column, count in planned.wanted().items()
    ]
    table_records.add(job.workdir, "frozen", parts, facts)
    assert planned.missing(job) == {"frozen": planned.wanted()}
    (job.workdir / ledger.FILE).touch()
    assert planned.missing(job) == {}


def test_a_row_of_other_images_stands_in_the_way(plan):
    """Also one that is not to be run: the table would hold both."""
    (job,) = plan("standard").jobs
    run_folder.create(job.workdir)
    facts = {"data": "other images", "commit": "c0ffee", "hardware": "mine"}
    part = {
        "num_images": 4,
        "identity": {"weights": "w", "data": "d", "seed": 0},
        "columns": {"clean": []},
    }
    table_records.add(job.workdir, "frozen", [part], facts)
    with pytest.raises(InputError, match="same images.*data='other images'"):
        plan("at")


def test_what_is_left_in_forward_passes(plan):
    table = dataclasses.replace(
        table_runs.TABLE, columns=("clean", "fgsm", "standard")
    )
    standard, atat = plan("standard", "atat", table=table).jobs
    left = plan("standard", "atat", table=table).left
    # Clean and FGSM are 1 + 1 + 2 on 360 images; AutoAttack is on 4 images
    # 1 + 200 + 9 · 200 + 9 · 300 + 5,000. ATAT's step with one attack step:
    # 2 + 6 + 1.
    evaluation = {"evaluate frozen": 360 * 4 + 4 * 9701}
    assert left(standard) == {"train 1 epochs": 320 * 3, **evaluation}
    assert left(atat) == {"train 1 epochs": 320 * 9, **evaluation}


def test_a_dry_run_shows_what_is_done_and_left(plan, tmp_path):
    words = "--table=1", "--dry_run", "--rows=standard"
    words = "atat_tf.reproduce", *words, f"--workdir={tmp_path}/runs"
    status, text = commands.run(*words)
    assert status == 0, text
    assert "0 of 8 │ train 8 epochs" in text
    assert not list(tmp_path.iterdir())
    (job,) = plan("standard", scale=catalogue.scale("tiny")).jobs
    run_folder.create(job.workdir)
    run_folder.write_metrics(job.workdir, [{"epoch": 1}] * 3)
    assert "3 of 8 │ train 5 epochs" in commands.run(*words)[1]


@pytest.mark.parametrize(
    "words, message",
    [
        ("", "--table=1, 2, ablation"),
        ("--table=3", "a table among"),
        ("--table=1 --scale=tinny", "Did you mean 'tiny'"),
        ("--table=1 --dataset=digits", "no --dataset: .*--scale"),
        ("--table=1 --page=nowhere.md", "an existing page"),
    ],
)
def test_refusals_are_one_sentence(words, message):
    status, text = commands.run("atat_tf.reproduce", *words.split())
    assert status == 1
    assert text.startswith("error: ")
    assert re.search(message, text)
    assert len(text.splitlines()) == 1
