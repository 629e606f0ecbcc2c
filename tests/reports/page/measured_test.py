"""What reports set side by side, counted by hand from a small ledger."""

import dataclasses
import itertools

import numpy as np
import pytest

from atat_tf.attacks import columns, linf
from atat_tf.evaluation import ledger, opening
from atat_tf.evaluation.checklist import points
from atat_tf.evaluation.run import Run
from atat_tf.evaluation.statistics import intervals, likeness
from atat_tf.reports.page import measured, pictures
from atat_tf.reports.tables import records as table_records
from atat_tf.runs import config as run_config
from atat_tf.runs import folder as run_folder
from tests.reports.page import report_runs
from tests.support import runs

_LABELS = (0, 1, 0, 1)


def _pgd(epsilon, step_size):
    attack = linf.pgd(epsilon / 255, step_size / 255, 20)
    return columns.description(attack)


@pytest.fixture(name="run")
def _run(tmp_path):
    """Four images; of the run's ε of 8/255 the step is 2/255.

    Image 3 is wrong from the start; 0 falls at 4/255, and 1 at 8/255.
    """
    config = run_config.to_dict(run_config.resolve(runs.config("at")))
    config["attack"] |= {"epsilon": 8 / 255, "step_size": 2 / 255}
    run_folder.write_json(tmp_path / run_folder.CONFIG, config)
    identity = ledger.identity("sha256:1", "data", "frozen", 0, None)
    lines = ledger.Ledger(tmp_path / ledger.FILE, identity)
    for attack, broken in (
        (ledger.CLEAN, (False, False, False, True)),
        (_pgd(4, 1), (True, False, False)),  # with the checklist's step
        (_pgd(8, 2), (True, True, False)),
        (_pgd(2, 2), (False, False, False)),  # with the config's step
    ):
        lines.append(
            attack,
            [
                {"index": i, "label": _LABELS[i], "broken": is_broken}
                for i, is_broken in enumerate(broken)
            ],
        )
    results = {
        "dataset": "digits",
        "data": "data",
        "method": "at",
        "num_images": 4,
        "bn_eval": "frozen",
        "seed": 0,
        "batch_size": 2,
        "weights_digest": "sha256:1",
        "accuracy": {"clean": 0.75, "pgd20": 0.25},
        "attacks": {"clean": [], "pgd20": [_pgd(8, 2)]},
        "estimates": {"standard": {"accuracy": 0.2, "low": 0.1, "high": 0.3}},
    }
    run_folder.write_json(tmp_path / run_folder.RESULTS, results)
    return Run(tmp_path)


def test_columns_have_their_images_and_estimates_are_marked(run):
    found = measured.measured(run)
    assert list(found) == ["clean", "pgd20", "autoattack"]
    assert found["pgd20"].stands.tolist() == [False, False, True, False]
    assert found["pgd20"].interval == intervals.wilson(1, 4)
    assert found["autoattack"].interval == (0.1, 0.3)
    cards = measured.headline(found, {"clean": found["clean"]})
    assert [card["value"] for card in cards] == ["75.0", "25.0", "20.0"]
    assert [card["is_estimate"] for card in cards] == [False, False, True]
    assert [card["teacher"] for card in cards] == ["75.0", None, None]


def test_a_card_has_no_teachers_figure_of_another_basis(run):
    found = measured.measured(run)
    attacks = found["pgd20"].basis.attacks
    for other, value in (
        (likeness.Basis("data, test", "frozen", attacks), "75.0"),
        (likeness.Basis("other", "frozen", attacks), None),
        (likeness.Basis("data, test", "batch", attacks), None),
        (likeness.Basis("data, test", "frozen", ("weaker",)), None),
    ):
        teacher = measured.Column(0.75, 4, (0, 1), other)
        cards = measured.headline(found, {"pgd20": teacher})
        assert cards[1]["teacher"] == value


def test_an_estimate_has_the_attacks_that_its_name_means(run):
    assert len(measured.measured(run)["autoattack"].basis.attacks) > 1


@pytest.mark.parametrize(
    "field, value", [("data", "other"), ("seed", 1), ("bn_eval", "batch")]
)
def test_a_tables_record_of_anything_else_is_left_out(run, field, value):
    mark = run.ledger.identity
    columns_of_part = {"pgd4": [_pgd(4, 1)]}
    part = {"num_images": 4, "identity": mark, "columns": columns_of_part}
    table_records.add(run.folder, "frozen", [part], {})
    assert "pgd4" in measured.measured(run)
    results = {**run.results, field: value}
    run_folder.write_json(run.folder / run_folder.RESULTS, results)
    assert "pgd4" not in measured.measured(run)


def test_a_figure_of_all_images_is_told_before_an_estimate(run):
    """Also under AutoAttack's other name."""
    for name in ("autoattack", "standard"):
        accuracy = {**run.results["accuracy"], name: 0.25}
        results = {**run.results, "accuracy": accuracy}
        run_folder.write_json(run.folder / run_folder.RESULTS, results)
        column = measured.measured(run)["autoattack"]
        assert (column.accuracy, column.is_estimate) == (0.25, False)


def test_so_is_one_that_a_table_has_recorded(run):
    mark, attacks = run.ledger.identity, {"standard": [_pgd(8, 2)]}
    part = {"num_images": 4, "identity": mark, "columns": attacks}
    assert measured.measured(run)["autoattack"].is_estimate
    table_records.add(run.folder, "frozen", [part], {})
    assert not measured.measured(run)["autoattack"].is_estimate


def test_accuracy_against_radius_is_of_steps_that_grow_with_it(run):
    """At 2/255 the ledger has steps of another share alone, too weak ones."""
    expected = {0: 75.0, 4: 50.0, 8: 25.0}
    assert measured.accuracy_at_radii(run) == (expected, 4)


def test_radii_say_on_how_many_images():
    radii = {"a": ({8: 0.5}, 1200), "b": ({8: 0.5}, 1200), "c": ({}, 0)}
    assert measured.on_images(radii) == "on the first 1,200 images"
    assert measured.on_images(radii | {"d": ({8: 0.1}, 9)}) == (
        "a on the first 1,200 images, b on the first 1,200 images, "
        "d on the first 9 images"
    )


def test_classes_from_the_least_robust(run):
    columns = measured.measured(run)
    assert measured.strongest([columns]) == "pgd20"
    rows = measured.by_class(
        columns["pgd20"], measured.truth(run), ("a", "b", "no image")
    )
    assert [(row["name"], row["attacked"], row["clean"]) for row in rows] == [
        ("b", 0.0, 50.0),
        ("a", 50.0, 100.0),
    ]
    assert measured.by_class(columns["pgd20"], None, ("a", "b")) == []


def test_the_strongest_column_is_one_that_all_runs_have():
    def column(accuracy, stands=True, count=10, attacks=("A",)):
        flags = np.zeros(count, bool) if stands else None
        basis = likeness.Basis(attacks=attacks)
        return measured.Column(accuracy, count, (0, 1), basis, flags)

    first = {"clean": column(0.0, attacks=()), "a": column(0.1)}
    first |= {"b": column(0.1), "c": column(0.3), "d": column(0.0, False)}
    assert measured.strongest([first]) == "b"  # of equals the last
    for other in ({}, {"b": column(0.5, count=9)}, {"b": column(0.5, False)}):
        assert measured.strongest([first, {"c": column(0.9)} | other]) == "c"
    assert measured.strongest([{"clean": column(0.9, attacks=())}]) is None
    beyond = dataclasses.replace(column(0.0), is_within=False)
    assert measured.strongest([first | {"far": beyond}]) == "b"


def test_columns_beyond_the_threat_model_are_known(run):
    results = run_folder.read_json(run.folder / run_folder.RESULTS)
    for name in ("pgd20@16/255", "apgd_ce_l2@0.5"):
        results["accuracy"][name] = 0.0
        results["attacks"][name] = ["A"]
    run_folder.write_json(run.folder / run_folder.RESULTS, results)
    found = measured.measured(Run(run.folder))
    assert [n for n, column in found.items() if not column.is_within] == [
        "pgd20@16/255",
        "apgd_ce_l2@0.5",
    ]


def test_paired_tests_are_of_the_same_images_and_attacks():
    def column(stands, attack="A", images_and_mode=("", "frozen")):
        stands = np.array(stands, bool)
        share = float(stands.mean())
        basis = likeness.Basis(*images_and_mode, (attack,))
        return measured.Column(share, len(stands), (0, 1), basis, stands)

    first = {"x": column([1, 1, 1, 0, 1]), "y": column([1, 0])}
    second = {"x": column([1, 0, 0, 1]), "y": column([1, 0], "B")}
    for name, where in (("z", ("other", "frozen")), ("b", ("", "batch"))):
        first[name] = column([1, 0])
        second[name] = column([1, 0], "A", where)
    (test,) = measured.paired({"one": first, "two": second})
    assert (test["only_first"], test["only_second"], test["images"]) == (
        2,
        1,
        4,
    )
    assert test["p"] == 1.0


def test_a_checklist_is_summed_up():
    """Also one of an earlier version, which had fewer points."""
    names = [criterion.name for criterion in points.CRITERIA]
    verdicts = itertools.chain(["NOT RUN"], itertools.repeat("PASS"))
    every = [
        {"name": name, "verdict": verdict}
        for name, verdict in zip(names, verdicts, strict=False)
    ]
    count = len(every) - 1
    found = {"points": every}
    assert measured.checked(found) == f"{count} PASS, 0 FAIL, 1 NOT RUN"
    assert measured.not_asked(found) == []
    earlier = {"points": every[:-2]}
    assert measured.checked(earlier) == (
        f"{count - 2} PASS, 0 FAIL, 1 NOT RUN, 2 not asked"
    )
    last = [criterion.compared for criterion in points.CRITERIA[-2:]]
    assert measured.not_asked(earlier) == last
    assert measured.checked(None) == "" and measured.not_asked(None) == []


def test_the_strongest_attack_at_the_runs_own_radius_is_shown():
    opened = opening.open_run(report_runs.evaluated(), num_images=1)
    accuracy = {"clean": 0.9, "pgd7": 0.3, "pgd20@1/255": 0.2, "fgsm": 0.4}
    assert pictures.shown_attack(opened, accuracy)[0] == "pgd7"
    of_a_plugin = {**accuracy, "one_of_my_own": 0.1}
    assert pictures.shown_attack(opened, of_a_plugin)[0] == "pgd7"
    name, attack = pictures.shown_attack(opened, {"clean": 0.9})
    assert (name, attack.num_steps) == ("pgd20", 20)
