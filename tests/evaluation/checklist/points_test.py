"""Thresholds and their sampling errors: the checklist's points by hand."""

import numpy as np
import pytest

from atat_tf.evaluation.checklist import points as checklist_points
from atat_tf.evaluation.checklist import run as checklist


def _with(points, verdict):
    return {name for name, p in points.items() if p.verdict == verdict}


def _first(share, count=400):
    return np.arange(count) < round(share * count)


def _groups():
    """Returns who stands, for a classifier that passes every point."""
    shares = {
        "single_step": {"fgsm": 0.35},
        "steps": {"pgd40": 0.295},
        "restarts": {"pgd20x10": 0.29},
        "step_sizes": {"a": 0.32, "b": 0.29},
        "margin_loss": {"margin loss": 0.28},
        "radii": {"quarter": 0.6, "half": 0.45, "own": 0.3, "large": 0.0},
        "unbounded": {"unbounded": 0.0},
        "square": {"square1000": 0.275},
        "transfer": {"transfer": 0.6},
        "noise": {"noise": 0.7},
        "attention": {"adapted attacks": 0.29},
        "undefended_twin": {"pgd20": 0.0, "apgd_ce": 0.0, "unbounded": 0.0},
        "reference": {
            "clean": 0.8,
            "pgd20": 0.3,
            "headline": 0.3,
            "white box": 0.28,
        },
    }
    return {
        group: {column: _first(share) for column, share in of_group.items()}
        for group, of_group in shares.items()
    }


def test_the_error_of_a_share():
    # p = ¾ of 4 images: sqrt(¾ · ¼ / 4).
    error = checklist_points.share_error([True, True, True, False])
    assert error == pytest.approx(np.sqrt(3 / 64))
    assert checklist_points.share_error([False] * 4) == 0


@pytest.mark.parametrize(
    "second, variance",
    [
        # d = (0, 1, 1, 0): mean ½, mean of squares ½, variance ¼, over 4.
        ([True, False, False, False], 0.25 / 4),
        # b = c = 1: the difference is 0, its error is not. 2/4 over 4.
        ([True, True, False, True], 0.5 / 4),
        ([True, True, True, False], 0.0),
    ],
)
def test_the_error_of_a_paired_difference(second, variance):
    first = np.array([True, True, True, False])
    error = checklist_points.difference_error(first, second)
    assert error == pytest.approx(np.sqrt(variance))


@pytest.mark.parametrize(
    "figure, verdict", [(0.0299, "PASS"), (0.0301, "FAIL")]
)
def test_a_threshold_is_widened_by_two_deviations(figure, verdict):
    # The threshold of "steps" is 1 point; 1 + 2 · 1 = 3.
    point = checklist_points.compared("steps", figure, 0.01, "")
    assert point.verdict == verdict
    assert point.allowance == pytest.approx(2.0)
    assert point.figure == pytest.approx(100 * figure)


def test_all_pass():
    points = checklist_points.from_standing(_groups(), {})
    assert _with(points, "PASS") == {*points}
    assert points["single_step"].figure == pytest.approx(-5.0)
    # The worse of the two step sizes.
    assert points["step_sizes"].figure == pytest.approx(1.0)
    # From one of 80, 60, 45, 30 and 0 % to the next, the least fall is 15.
    assert points["radii"].figure == pytest.approx(-15.0)
    # 30 − 0 beyond ε, 20 · (60 − 30) before it.
    assert points["cliff"].figure == pytest.approx(-570.0)


@pytest.mark.parametrize(
    "group, column, share",
    [
        ("single_step", "fgsm", 0.28),
        ("steps", "pgd40", 0.25),
        ("restarts", "pgd20x10", 0.25),
        ("step_sizes", "a", 0.25),
        ("margin_loss", "margin loss", 0.2),
        ("radii", "own", 0.55),
        # 1 % would be within two deviations of 0 % by its own error.
        ("unbounded", "unbounded", 0.05),
        ("square", "square1000", 0.25),
        ("transfer", "transfer", 0.28),
        ("noise", "noise", 0.28),
        ("attention", "adapted attacks", 0.25),
        ("undefended_twin", "pgd20", 0.1),
    ],
)
def test_one_fails(group, column, share):
    groups = _groups()
    groups[group][column] = _first(share)
    points = checklist_points.from_standing(groups, {})
    assert _with(points, "FAIL") == {group}


@pytest.mark.parametrize(
    "own, by_apgd, unbounded, verdict",
    [
        (0.3, 0.19, 0.0, "NOT RUN"),
        # No more than the twin withstands.
        (0.2, 0.19, 0.0, "FAIL"),
        # The attack is too weak, and not ε too small.
        (0.3, 0.1, 0.0, "FAIL"),
        # What leads nowhere says nothing of ε.
        (0.3, 0.2, 0.1, "FAIL"),
    ],
)
def test_a_radius_too_small_to_break_an_undefended_network(
    own, by_apgd, unbounded, verdict
):
    groups = _groups()
    groups["reference"]["white box"] = _first(own)
    groups["undefended_twin"] = {
        "pgd20": _first(0.2),
        "apgd_ce": _first(by_apgd),
        "unbounded": _first(unbounded),
    }
    point = checklist_points.from_standing(groups, {})["undefended_twin"]
    assert point.verdict == verdict
    assert "20.0 % under pgd20" in point.note
    assert ("too small" in point.note) == (verdict == "NOT RUN")


@pytest.mark.parametrize("fallen, verdict", [(0.0, "FAIL"), (0.05, "PASS")])
def test_a_cliff_is_a_fall_that_nothing_announces(fallen, verdict):
    groups = _groups()
    flat = dict.fromkeys(("quarter", "half", "own"), _first(0.6))
    flat["own"] = _first(0.6 - fallen)
    groups["radii"] = {**flat, "large": _first(0.0)}
    points = checklist_points.from_standing(groups, {})
    assert points["cliff"].verdict == verdict
    groups["radii"] = flat
    points = checklist_points.from_standing(groups, {})
    assert points["cliff"].verdict == "NOT RUN"


def test_what_is_absent_is_not_run():
    groups = _groups()
    del groups["transfer"]
    absent = {"transfer": "no teacher"}
    point = checklist_points.from_standing(groups, absent)["transfer"]
    assert (point.verdict, point.note) == ("NOT RUN", "no teacher")


def test_every_point_is_printed_under_its_number(capsys):
    points = [
        checklist_points.not_run(criterion.name, "why not")
        for criterion in checklist_points.CRITERIA
    ]
    checklist.print_table("title", points)
    text = capsys.readouterr().out
    rows = [line for line in text.splitlines() if line.startswith("│")]
    assert len(rows) == len(points)
    for number, (row, point) in enumerate(zip(rows, points, strict=True), 1):
        assert f"│ {number}. {point.compared} " in row
    last = f"{len(points)} points: 0 PASS, 0 FAIL, {len(points)} NOT RUN"
    assert last in text
    assert "points 1, 2, 3, 4, " in text
    checklist.print_table("title", points[:2])
    both = f"1. {points[0].compared}; 2. {points[1].compared}: why not"
    assert both in " ".join(capsys.readouterr().out.split())
