"""The screening of settings of ATAT: what was judged of it, by its stop rule.

configs/ours.py has the variants and tools/screen.sh trains them. All are judged
on the same validation images, so that two are compared image by image.
"""

import importlib
import pathlib
from typing import Any

import numpy as np

from atat_tf.errors import expect
from atat_tf.evaluation import ledger
from atat_tf.evaluation.printed_table import Table
from atat_tf.evaluation.statistics import intervals, likeness
from atat_tf.reports.tables import text
from atat_tf.runs import folder as run_folder

# Of a page, as `text.section_name` names those of the other tables.
SECTION = "table ours, scale small"
_FOLDER = "screening"
_COLUMNS = "clean", "apgd_ce50", "apgd_dlr50"
# A variant goes on if its worst case is above its control's by LEAD points, or
# at most SLACK below at no lower clean accuracy.
_LEAD, _SLACK = 1.0, 0.5


def sections(workdir: str | pathlib.Path) -> list[Table]:
    """Returns the screening's Table alone, from the ledgers of its runs.

    Args:
      workdir: a folder with screening/VARIANT, run folders or their archives.

    Raises:
      InputError: nothing of it was run there.
    """
    recipe = importlib.import_module("atat_tf.configs.ours")
    folder = pathlib.Path(workdir) / _FOLDER
    found = {name: _judged(folder / name) for name in recipe.DEFENSES}
    judged = {name: run for name, run in found.items() if run}
    expect(
        judged,
        "a folder with runs of the screening, as tools/screen.sh trains them "
        "(a checkout has them archived: --workdir=results)",
        folder=str(folder),
    )
    rows = [
        [name, *_cells(run), *_against(name, run, judged, recipe)]
        for name, run in judged.items()
    ]
    commits = dict.fromkeys(run["commit"] for run in judged.values())
    data = next(iter(judged.values()))
    notes = [
        f"Data: {data['data']}, {data['num_images']:,} validation images, ε = "
        "8/255; worst case: of APGD-CE and APGD-DLR, 50 steps each. In "
        f"brackets: Wilson 95 % interval. Seed {data['seed']}.",
        "Points above or below the control, and p of the exact McNemar test, "
        "which is not corrected for the number of tests. It compares these "
        "trained networks, not the methods behind them.",
        f"Goes on: the worst case is {_LEAD:g} above the control's, or at most "
        f"{_SLACK:g} below at no lower clean accuracy; of more than two, the "
        "two with the highest worst case.",
        f"Commits: {', '.join(commits)}.",
    ]
    missing = [name for name in recipe.DEFENSES if name not in judged]
    if missing:
        notes.append(f"Not run: {', '.join(missing)}.")
    title = "Screening of our setting (scale small)"
    header = ["variant", "clean, %", "APGD-CE", "APGD-DLR", "worst case"]
    header += ["control", "clean, points", "worst case, points", "goes on"]
    return [Table(title, header, rows, notes)]


def goes_on(clean: float, worst: float) -> bool:
    """Returns whether a variant is trained further, by the stop rule.

    Args:
      clean: points of clean accuracy above the control's.
      worst: of the worst case.
    """
    return worst >= _LEAD or (worst >= -_SLACK and clean >= 0)


def _judged(folder: pathlib.Path) -> dict[str, Any] | None:
    """Returns results.json of a run and which images withstand each column.

    None for a column, and the worst case, that lacks a line of the ledger.
    """
    if not (folder / run_folder.RESULTS).exists():
        return None
    results = run_folder.read_json(folder / run_folder.RESULTS)
    lines = ledger.of_results(folder, results)
    stands = {
        name: lines.standing(results["attacks"][name], results["num_images"])
        for name in _COLUMNS
        if name in results["attacks"]
    }
    worst = None
    if all(stands.get(name) is not None for name in _COLUMNS):
        worst = np.all([stands[name] for name in _COLUMNS], axis=0)
    return {**results, "stands": {**stands, "worst": worst}}


def _cells(run):
    stands = run["stands"]
    return [_cell(stands.get(column)) for column in (*_COLUMNS, "worst")]


def _cell(stands):
    if stands is None:
        return text.NOT_RUN
    low, high = intervals.wilson(float(stands.sum()), len(stands))
    return f"{100 * stands.mean():.2f} ({100 * low:.1f}–{100 * high:.1f})"


def _against(name, run, judged, recipe):
    """Returns control, points of both figures, and whether the rule holds."""
    control = recipe.control(name)
    if control is None:
        return ["—"] * 4
    other = judged.get(control)
    if other is None or not all(_has_worst_case(each) for each in (run, other)):
        return [control, *[text.NOT_RUN] * 3]
    if not _is_judged_like(run, other):
        return [control, *["other images"] * 3]
    points = {
        column: _points(run["stands"][column], other["stands"][column])
        for column in ("clean", "worst")
    }
    return [
        control,
        *(
            f"{points[column]:+.2f} ({_p(run, other, column)})"
            for column in points
        ),
        "yes" if goes_on(points["clean"], points["worst"]) else "no",
    ]


def _has_worst_case(run):
    return run["stands"]["worst"] is not None


def _is_judged_like(run, other):
    """Returns whether both are judged on the same images, in the same way."""
    same = likeness.basis(run).is_like(likeness.basis(other))
    return same and run["num_images"] == other["num_images"]


def _points(stands, others):
    """Returns the difference in points; of counts, so that a bound is met."""
    return 100 * (int(stands.sum()) - int(others.sum())) / len(stands)


def _p(run, other, column):
    *_, p = intervals.mcnemar(run["stands"][column], other["stands"][column])
    return text.p_value(p)
