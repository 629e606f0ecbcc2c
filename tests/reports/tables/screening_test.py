"""The screening's table, from the archived ledgers, and its stop rule."""

import pathlib
import shutil

import pytest

from atat_tf.errors import InputError
from atat_tf.reports.tables import files, screening
from atat_tf.runs import folder as run_folder

_ROOT = pathlib.Path(__file__).parents[3]
_ARCHIVE = _ROOT / "results"


@pytest.mark.parametrize(
    ("clean", "worst", "expected"),
    [
        (0.0, -0.5, True),
        (-0.02, -0.5, False),
        (5.0, -0.52, False),
        (-9.0, 1.0, True),
        (-9.0, 0.98, False),
    ],
)
def test_the_stop_rule(clean, worst, expected):
    assert screening.goes_on(clean, worst) is expected


def test_ledgers_give_the_figures_of_the_evaluations():
    (table,) = screening.sections(_ARCHIVE)
    for name, clean, *_, worst, control, _, _, goes_on in table.rows:
        path = _ARCHIVE / "screening" / name / run_folder.RESULTS
        results = run_folder.read_json(path)
        assert clean.startswith(f"{100 * results['accuracy']['clean']:.2f} ")
        if name != "standard":
            assert worst.startswith(f"{100 * results['worst_case']:.2f} ")
        is_control = name == "standard" or name.startswith("control_")
        if name != "control_at_again":
            assert (control == "—") is (goes_on == "—") is is_control


def test_another_column_is_no_part_of_the_worst_case(tmp_path):
    """Nor does a run without its ledger keep the others from the table."""
    shutil.copytree(_ARCHIVE / "screening", tmp_path / "screening")
    (before,) = screening.sections(tmp_path)
    path = tmp_path / "screening" / "mse"
    results = run_folder.read_json(path / run_folder.RESULTS)
    results["attacks"]["another"] = results["attacks"].pop("apgd_ce50")
    again = {**results["attacks"], "apgd_ce50": results["attacks"]["another"]}
    results["attacks"] = {**again, "another": ["no such attack"]}
    run_folder.write_json(path / run_folder.RESULTS, results)
    assert screening.sections(tmp_path)[0].rows == before.rows
    (path / "ledger.jsonl.xz").unlink()
    (table,) = screening.sections(tmp_path)
    (cells,) = (row for row in table.rows if row[0] == "mse")
    assert cells[4] == "not run" and cells[-1] == "not run"


def test_the_page_has_them():
    page = (_ROOT / "docs" / "results.md").read_text()
    for table in screening.sections(_ARCHIVE):
        assert files.markdown([table], "").split("```")[-1].strip() in page


def test_without_runs_says_where_they_come_from(tmp_path):
    with pytest.raises(InputError, match="screen.sh.*--workdir=results"):
        screening.sections(tmp_path)
