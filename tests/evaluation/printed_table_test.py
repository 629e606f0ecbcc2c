"""The printed table: rows, the paper's beside them, footnotes."""

import importlib

import pytest

from atat_tf.evaluation import printed_table
from atat_tf.runs import naming


def _results(
    method, dataset="cifar10", bn_eval="frozen", refuted=0, **accuracy
):
    return {
        "dataset": dataset,
        "data": "some data",
        "method": method,
        "num_images": 10_000,
        "bn_eval": bn_eval,
        "refuted": refuted,
        "accuracy": accuracy,
    }


def test_rows_columns_and_the_papers_row():
    table = printed_table.table(
        [
            ("ATAT", _results("atat", clean=0.5, pgd20=0.25)),
            ("AT", _results("at", "digits", clean=0.75)),
        ]
    )
    assert "10,000 test images" in table.title
    assert table.columns == ["accuracy, %", "clean", "pgd20"]
    ours, paper, other = table.rows
    assert ours == ["ATAT", "50.00", "25.00"]
    assert "paper" in paper[0] and paper[1:] == ["91.89", "63.81"]
    # Digits are not in the paper.
    assert other == ["AT", "75.00", "not run"]
    assert not table.notes


def test_what_does_not_compare_is_said_below():
    """Rows of other images, splits and radii; attacks not known are none."""
    first = _results("at", "digits", clean=0.5, pgd20=0.25)
    second = {**first, "data": "other data", "split": "validation"}
    for results, epsilon in ((first, 8), (second, 4)):
        name = f"LinfAttack(epsilon={epsilon}/255, num_steps=20)"
        results["attacks"] = {"clean": [], "pgd20": [name]}
    unknown = {**first, "attacks": {}}
    assert not printed_table.table([("a", first), ("c", unknown)]).notes
    table = printed_table.table([("a", first), ("b", second), ("c", unknown)])
    assert table.title == (
        "some data and other data: 10,000 test and validation images"
    )
    assert table.notes == [
        "The images differ: a has some data, test; b has other data, "
        "validation; c has some data, test.",
        "pgd20: the attacks differ: a has ε = 8/255; b has ε = 4/255.",
    ]


def test_attacks_that_differ_in_no_radius_are_told_without_the_others():
    one, other = _results("at", pgd20=0.2), _results("at", pgd20=0.2)
    for results, more in ((one, [20]), (other, [21, 22])):
        attacks = [f"A(epsilon=1/255, steps={steps})" for steps in (5, *more)]
        results["attacks"] = {"pgd20": attacks}
    (note,) = printed_table.table([("a", one), ("b", other)]).notes
    assert note == (
        "pgd20: the attacks differ: a has A(epsilon=1/255, steps=20); b has "
        "A(epsilon=1/255, steps=21) and 1 more."
    )


@pytest.mark.parametrize("recipe", naming.METHODS)
def test_a_run_is_called_by_its_recipe(recipe):
    config = importlib.import_module(f"atat_tf.configs.{recipe}").get_config()
    assert naming.called(config) == naming.METHODS[recipe]


def test_a_network_as_given_is_called_by_its_own_name():
    config = importlib.import_module("atat_tf.configs.standard").get_config()
    config.unlock()
    config.num_epochs = 0
    config.model = "/elsewhere/my.keras"
    assert naming.called(config) == "my.keras"
    config.model, config.server = "", "localhost:8500/mine"
    assert naming.called(config) == "localhost:8500/mine"
    assert "A served model" in naming.given_as(config)


def test_what_is_printed(capsys):
    printed_table.print_table(
        [
            (
                "AT",
                _results("at", bn_eval="batch", refuted=3, fgsm=0.2, pgd20=0.4),
            )
        ]
    )
    text = capsys.readouterr().out
    for words in (
        "20.00",
        "not a claim of robustness",
        "masked gradients",
        "3 candid",
    ):
        assert words in text
