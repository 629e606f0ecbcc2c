"""Puts a table's results into words: sections of cells, and their captions.

The terminal and the Markdown file show the same sections.
"""

from collections.abc import Mapping
from typing import Any

from atat_tf.evaluation.printed_table import Table
from atat_tf.reports.tables import catalogue
from atat_tf.runs import terminal

NOT_RUN = "not run"
_NAMES = {
    "fgsm": "FGSM",
    "ifgsm20": "I-FGSM(20)",
    "pgd7": "PGD(7)",
    "pgd10": "PGD(10)",
    "pgd20": "PGD(20)",
    catalogue.AUTOATTACK: "AutoAttack",
    "autoattack": "AutoAttack",
}
_TESTED = ("clean", catalogue.SHIFT_COLUMN, catalogue.AUTOATTACK)
_SHIFT_NAMES = {
    "distance": "distance of the maps (Eq. 4)",
    "shape_distance": "1 − cosine of the maps",
    "clean_margin": "closeness: − margin of the clean image",
}


def sections(results: Mapping[str, Any]) -> list[Table]:
    """Returns the sections of a table, the figures first.

    Args:
      results: from `table_results.collect`.
    """
    if results["shifts"] or results["table"] == "shift":
        return [_shifts(results), _runs(results)]
    tests = [_tests(results)] if results["tests"] else []
    return [_accuracies(results), _runs(results), *tests]


def section_name(table: catalogue.Table, scale: catalogue.Scale) -> str:
    """Returns the name of a table's section in a page."""
    return f"table {table.name}, scale {scale.name}"


def column_name(column: str, count: int | None = None) -> str:
    """Returns a column as printed, with its number of images where given."""
    name = _NAMES.get(column, column)
    return f"{name}, n={count:,}" if count else name


def _accuracies(results):
    columns = results["columns"]
    header = ["accuracy, %"]
    for column in columns:
        counts = {
            line["cells"][column]["num_images"]
            for line in results["lines"]
            if line["cells"][column]
        }
        header.append(
            column_name(column, counts.pop() if len(counts) == 1 else None)
        )
    rows = []
    several = len({line["bn_eval"] for line in results["lines"]}) > 1
    for line in results["lines"]:
        label = line["label"]
        if several:
            label += f", {line['bn_eval']} statistics"
        cells = [_cell(line["cells"][c], results["reason"]) for c in columns]
        rows.append([label, *cells])
        rows.append(["  paper", *_paper_cells(line["paper"], columns)])
    title = f"{results['title']} (scale {results['scale']})"
    return Table(title, header, rows, _captions(results))


def _cell(cell, reason):
    if cell is None:
        return f"{NOT_RUN}: {reason}" if reason else NOT_RUN
    low, high = cell["wilson"]
    spread = cell["deviation"]
    figure = f"{cell['mean']:.2f}"
    if spread is not None:
        figure += f" ± {spread:.2f}"
    return f"{figure} ({low:.1f}–{high:.1f})"


def _paper_cells(paper, columns):
    if paper is None:
        return ["not in the paper" for _ in columns]
    return [
        f"{paper[c]:.2f}" if c in paper else "not in the paper" for c in columns
    ]


def _captions(results):
    notes = []
    if results["data"]:
        notes.append(f"Data: {results['data']}, test images, ε = 8/255.")
    papers = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}
    notes.append(
        "The paper's lines are its own figures, for a Wide ResNet on "
        f"{papers[results['papers_data_set']]}, batch-norm statistics at "
        "evaluation not stated. AT-PGD is one line there, Madry et al.'s."
    )
    if results["scale"] != "paper":
        notes.append(
            "Ours are of another scale: they test that the rows run, and "
            "neither confirm nor refute the paper's figures."
        )
    notes.append(
        "In brackets: Wilson 95 % interval, over images drawn anew, not over "
        "trainings. ±: standard deviation over seeds, none from one seed."
    )
    if any(line["bn_eval"] == "batch" for line in results["lines"]):
        notes.append(
            "Batch statistics: of the attacked batch; an image's verdict then "
            "depends on the other images, and is no claim of robustness. "
            "AutoAttack is run with frozen statistics alone."
        )
    for line in results["lines"]:
        notes += _warnings(line)
    return notes


def _warnings(line):
    cells = line["cells"]
    weak, strong = cells.get("fgsm"), cells.get("pgd20")
    if weak and strong and weak["mean"] < strong["mean"] - 1:
        return [
            f"{line['label']} ({line['bn_eval']}): FGSM is stronger than "
            "PGD(20), a sign of masked gradients."
        ]
    return []


def _runs(results):
    rows, lines = [], results["lines"]
    for row in dict.fromkeys(line["row"] for line in lines):
        # Of its batch-norm modes the first: the training is one.
        line = next(line for line in lines if line["row"] == row)
        seconds = line["training_seconds"]
        rows.append(
            [
                line["label"],
                _joined(line["seeds"]),
                _joined(line["backbones"]),
                _joined(line["epochs"]),
                _joined(words for words in line["weights"] if words),
                terminal.duration(sum(seconds)) if seconds else NOT_RUN,
                _joined(line["commits"]),
            ]
        )
    header = ["row", "seeds", "backbone", "epochs", "weights"]
    header += ["trained for", "commit"]
    hardware = dict.fromkeys(one for line in lines for one in line["hardware"])
    notes = [f"Hardware: {'; '.join(hardware)}."] if hardware else []
    return Table("Runs", header, rows, notes)


def _joined(values):
    distinct = list(dict.fromkeys(str(value) for value in values))
    return ", ".join(distinct) or NOT_RUN


def _tests(results):
    several = len({line["bn_eval"] for line in results["lines"]}) > 1
    rows = [
        [
            f"{_of(test, 'first', several)} against "
            f"{_of(test, 'second', several)}",
            column_name(test["column"], test["num_images"]),
            str(test["seed"]),
            str(test["only_first"]),
            str(test["only_second"]),
            p_value(test["p"]),
        ]
        for test in results["tests"]
        if test["column"] in _TESTED
    ]
    return Table(
        "Paired tests on the same images",
        ["rows", "column", "seed", "only first", "only second", "p"],
        rows,
        [
            "Images that only one of the two classifies right; exact McNemar, "
            "two-sided, not corrected for the number of tests. It compares "
            "these trained networks, not the methods behind them. The other "
            "columns' tests are in the JSON file."
        ],
    )


def _of(test, which, several):
    label = catalogue.ROWS[test[which]].label
    return f"{label}, {test[f'{which}_bn_eval']}" if several else label


def p_value(p: float | None) -> str:
    """Returns p as text: two digits, or the bound it is below."""
    if p is None:
        return "undefined"
    return "< 0.0001" if p < 1e-4 else f"{p:.2g}"


def _shifts(results):
    rows = []
    for shift in results["shifts"]:
        for name, words in _SHIFT_NAMES.items():
            related = shift["correlations"][name]
            rows.append(
                [
                    f"{shift['label']}, seed {shift['seed']}",
                    words,
                    f"{shift['num_broken']} of {shift['num_images']}",
                    _number(shift["mean_of_broken"][name]),
                    _number(shift["mean_of_standing"][name]),
                    _number(related["point_biserial"]),
                    _number(related["spearman"]),
                    p_value(related["spearman_p"]),
                    _number(related["auc"]),
                    _number(related["spearman_given_margin"]),
                ]
            )
    present = {shift["row"] for shift in results["shifts"]}
    for line in results["lines"]:
        if line["row"] not in present:
            rows.append([line["label"], *[NOT_RUN] * 9])
    header = ["row", "number of an image", "broken"]
    header += ["mean, broken", "mean, standing", "r", "ρ", "p of ρ", "AUC"]
    header += ["ρ given the margin"]
    column = column_name(catalogue.SHIFT_COLUMN)
    notes = [
        f"Test images that are classified right; broken: by {column}. Maps of "
        "the true class at the last spatial layer, of the clean image and "
        "after all steps of the attack, on every image alike.",
        "r: point-biserial, ρ: Spearman, with being broken; AUC: the chance "
        "that of a broken and a standing image the broken one's number is "
        "higher (0.5: it tells nothing). ρ given the margin: the part that "
        "the clean image's margin does not explain. Undefined where all or "
        "none broke.",
        "A correlation shows no cause: under a pooled linear head the map's "
        "sum before ReLU is the class score, so whatever lowers the score "
        "moves the map. The third number asks what the clean image alone "
        "tells.",
    ]
    title = f"{results['title']} (scale {results['scale']})"
    return Table(title, header, rows, notes)


def _number(value):
    return "undefined" if value is None else f"{value:.3f}"
