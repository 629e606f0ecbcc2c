"""Writes a table as Markdown, CSV and JSON, on the terminal, or into a page.

Each file is written whole or not at all.
"""

import csv
import io
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from atat_tf.errors import expect
from atat_tf.evaluation.printed_table import Table
from atat_tf.runs import folder as run_folder
from atat_tf.runs import terminal

_FIELDS = (
    "table",
    "scale",
    "data_set",
    "row",
    "bn_eval",
    "seed",
    "column",
    "num_images",
    "standing",
    "percent",
    "paper_percent",
)
_BAR = r"\|"  # a bar within a cell of Markdown


def write(
    folder: str | pathlib.Path,
    name: str,
    results: Mapping[str, Any],
    sections: Sequence[Table],
    command: str,
) -> None:
    """Writes NAME.md, NAME.csv and NAME.json.

    Args:
      folder: where; made if absent.
      name: of the files.
      results: from `table_results.collect`.
      sections: from `table_text.sections`.
      command: that made them, for the Markdown file.
    """
    folder = run_folder.create(folder)
    run_folder.write_text(folder / f"{name}.md", markdown(sections, command))
    run_folder.write_text(folder / f"{name}.csv", comma_separated(results))
    run_folder.write_json(folder / f"{name}.json", results)


def markdown(sections: Sequence[Table], command: str) -> str:
    """Returns the sections as Markdown, the command first."""
    parts = [f"```sh\n{command}\n```\n"]
    for section in sections:
        lines = [f"### {section.title}\n"]
        if section.rows:
            rule = ["---", *["---:"] * (len(section.columns) - 1)]
            rows = section.columns, rule, *section.rows
            lines += [*map(_markdown_row, rows), ""]
        lines += [f"{note}\n" for note in section.notes]
        parts.append("\n".join(lines))
    return "\n".join(parts)


def comma_separated(results: Mapping[str, Any]) -> str:
    """Returns a line for each row, batch-norm mode, column and seed as CSV.

    Cells that were not run have no line for any seed, and one with empty
    figures.
    """
    stream = io.StringIO()
    writer = csv.DictWriter(stream, _FIELDS, lineterminator="\n")
    writer.writeheader()
    shared = {name: results[name] for name in ("table", "scale", "data_set")}
    for line in results["lines"]:
        for column, cell in line["cells"].items():
            about = {
                **shared,
                "row": line["row"],
                "bn_eval": line["bn_eval"],
                "column": column,
                "paper_percent": (line["paper"] or {}).get(column, ""),
            }
            writer.writerows({**about, **rest} for rest in _by_seed(cell))
    return stream.getvalue()


def show(sections: Sequence[Table]) -> None:
    """Prints the sections."""
    for section in sections:
        if section.rows:
            terminal.table(section.title, section.columns, section.rows)
        for note in section.notes:
            terminal.console().print(note)


def insert(page: str | pathlib.Path, name: str, text: str) -> None:
    """Puts a section into a page, between its two marks, and keeps the rest.

    The marks are lines `<!-- NAME: begin -->` and `<!-- NAME: end -->`.

    Args:
      page: a Markdown file.
      name: of the section.
      text: what stands between the marks from now on.

    Raises:
      InputError: the page has no such marks.
    """
    before, after = expect_marks(page, name)
    run_folder.write_text(page, f"{before}\n{text}\n{after}")


def expect_marks(page: str | pathlib.Path, name: str) -> tuple[str, str]:
    """Returns what stands before and after a page's section, marks included.

    Raises:
      InputError: no such page, or it has no such marks.
    """
    page = pathlib.Path(page)
    expect(page.is_file(), "an existing page", page=str(page))
    begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"
    before, has_begin, rest = page.read_text().partition(begin)
    _, has_end, after = rest.partition(end)
    expect(
        has_begin and has_end,
        f"a page with the lines {begin.strip()} and {end}",
        page=str(page),
    )
    return before + begin, end + after


def _by_seed(cell):
    if cell is None:
        return [{}]
    return [
        {
            "seed": seed,
            "num_images": cell["num_images"],
            "standing": standing,
            "percent": percent,
        }
        for seed, standing, percent in zip(
            cell["seeds"], cell["standing"], cell["percents"], strict=True
        )
    ]


def _markdown_row(cells):
    return f"| {' | '.join(str(c).replace('|', _BAR) for c in cells)} |"
