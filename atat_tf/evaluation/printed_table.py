"""The printed table: our rows, each above the paper's where it has one."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from atat_tf.evaluation.statistics import likeness
from atat_tf.runs import terminal

# Tables 1 and 2 of the paper: accuracy in percent by data set and method.
PAPER: dict[str, dict[str, Any]] = {
    "cifar10": {
        "columns": ("clean", "fgsm", "ifgsm20", "pgd7", "pgd20"),
        "standard": (95.01, 13.35, 0.00, 0.00, 0.00),
        "at": (87.25, 56.22, 45.82, 49.70, 45.87),
        "alp": (86.52, 60.57, 46.17, 52.32, 46.28),
        "tla": (86.21, 58.88, 51.77, 53.87, 51.59),
        "atat": (91.89, 76.74, 63.98, 70.15, 63.81),
    },
    "cifar100": {
        "columns": ("clean", "fgsm", "ifgsm20", "pgd10", "pgd20"),
        "standard": (78.68, 7.80, 0.00, 0.00, 0.00),
        "at": (61.14, 29.24, 24.03, 24.82, 24.09),
        "alp": (66.04, 31.83, 26.65, 27.50, 26.60),
        "atat": (76.22, 62.65, 28.84, 35.03, 28.72),
    },
}


class Table(NamedTuple):
    """What is printed: text alone.

    Attributes:
      title: the data and the number of images.
      columns: what heads each column; the first is that of the rows' names.
      rows: a list of cells each.
      notes: sentences below.
    """

    title: str
    columns: list[str]
    rows: list[list[str]]
    notes: list[str]


def print_table(named: Sequence[tuple[str, dict]]) -> None:
    """Prints results side by side, each above the paper's row if it has one.

    Args:
      named: what a run is called, and what `evaluate_run` returns of it, or its
        results.json holds.
    """
    printed = table(named)
    terminal.table(printed.title, printed.columns, printed.rows)
    for note in printed.notes:
        terminal.console().print(note)


def table(named: Sequence[tuple[str, dict]]) -> Table:
    """Returns the Table that `print_table` prints."""
    names = (
        name
        for _, results in named
        for name in (*results["accuracy"], *results.get("estimates", ()))
    )
    columns = [*dict.fromkeys(names)]
    rows = []
    for title, results in named:
        cells = [_cell(results, column) for column in columns]
        rows.append([title, *cells])
        paper = paper_row(results["dataset"], results["method"])
        if paper:
            cells = [f"{paper[c]:.2f}" if c in paper else "" for c in columns]
            rows.append(["  the paper's, WRN on all images", *cells])
    heads = ["accuracy, %", *columns]
    title = _title([results for _, results in named])
    return Table(title, heads, rows, _footnotes(named))


def _cell(results, column):
    """Returns a figure of all images, or an estimate with its interval."""
    if column in results["accuracy"]:
        return f"{100 * results['accuracy'][column]:.2f}"
    found = results.get("estimates", {}).get(column)
    if not found:
        return "not run"
    low, high = (f"{100 * found[end]:.1f}" for end in ("low", "high"))
    return f"about {100 * found['accuracy']:.1f} ({low}–{high})"


def paper_row(dataset: str, method: str) -> dict[str, float] | None:
    """Returns {column: percent} of the paper's table, or None."""
    table = PAPER.get(dataset, {})
    if method not in table:
        return None
    return dict(zip(table["columns"], table[method], strict=True))


def _title(all_results):
    data = " and ".join(dict.fromkeys(r["data"] for r in all_results))
    counts = sorted({results["num_images"] for results in all_results})
    images = " and ".join(f"{count:,}" for count in counts)
    splits = dict.fromkeys(r.get("split", "test") for r in all_results)
    return f"{data}: {images} {' and '.join(splits)} images"


def estimated(results: Mapping[str, Any]) -> list[str]:
    """Returns what results.json estimates, a few sentences for each column."""
    return [
        f"{column} is an estimate, about {100 * found['accuracy']:.1f} %. All "
        f"{found['num_images']:,} images met its first attack, and "
        f"{found['num_sampled']:,} of the "
        f"{found['num_standing']:,} that stood, with small margins more "
        f"often, met the others, which broke {found['num_broken']:,}. The 95 % "
        f"interval, {100 * found['low']:.1f} to {100 * found['high']:.1f} %, "
        "is of the figure on all of these images."
        for column, found in results.get("estimates", {}).items()
    ]


def _footnotes(named):
    notes = likeness.notes(
        [(name, likeness.bases(results)) for name, results in named]
    )
    for name, results in named:
        notes += [f"{name}: {words}" for words in estimated(results)]
        if results.get("refuted"):
            notes.append(
                f"{name}: {results['refuted']} candidates were "
                "broken in their batch and not alone, or left ball or box; "
                "their images count as right."
            )
        values = results["accuracy"]
        if "fgsm" in values and values["fgsm"] < values.get("pgd20", 0) - 0.01:
            notes.append(
                f"{name}: FGSM is stronger than PGD(20), a sign "
                "of masked gradients."
            )
    return notes
