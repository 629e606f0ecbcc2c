"""The printed table: rows, the paper's beside them, footnotes."""

from atat_tf.evaluation import printed_table


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
            _results("atat", clean=0.5, pgd20=0.25),
            _results("at", "digits", clean=0.75),
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


def test_what_is_printed(capsys):
    printed_table.print_table(
        [_results("at", bn_eval="batch", refuted=3, fgsm=0.2, pgd20=0.4)]
    )
    text = capsys.readouterr().out
    for words in (
        "20.00",
        "not a claim of robustness",
        "masked gradients",
        "3 candid",
    ):
        assert words in text
