"""The table's text and files, from ledgers written by hand."""

import csv
import dataclasses
import json
import pathlib
import re

from absl.testing import absltest

from atat_tf.errors import InputError
from atat_tf.evaluation import printed_table
from atat_tf.reports.tables import catalogue, screening
from atat_tf.reports.tables import files as table_files
from atat_tf.reports.tables import records as table_records
from atat_tf.reports.tables import results as table_results
from atat_tf.reports.tables import shift as shift_measurement
from atat_tf.reports.tables import text as table_text
from atat_tf.runs import folder as run_folder
from tests.reports.tables import table_runs

_RIGHT, _ATAT = [False] * 4, "ATAT, λ = (1, 1)"


class TableTextTest(absltest.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = table_runs.temporary_folder(self)
        # Of four images: AT withstands 2, ATAT 3 with seed 0, 4 with seed 1.
        broken = [False, True, True, False]
        table_runs.write(self.folder, "at", _RIGHT, broken)
        broken = [False, False, False, True]
        table_runs.write(self.folder, "atat", _RIGHT, broken)

    def _results(self, num_seeds=1, table=table_runs.TABLE, **kwargs):
        return table_results.collect(
            table, table_runs.SCALE, num_seeds, self.folder, **kwargs
        )

    def _cells(self, results, label, below=0):
        """Returns the cells of a row, or of one so many rows below it."""
        rows = table_text.sections(results)[0].rows
        return rows[[row[0] for row in rows].index(label) + below][1:]

    def test_cells(self):
        """50 %: Wilson 0.5 ± 1.96 / (2 √(4 + 3.84)): 15.0 to 85.0."""
        cells = self._cells(self._results(), "AT (mixture)")
        self.assertEqual(cells, ["100.00 (51.0–100.0)", "50.00 (15.0–85.0)"])

    def test_one_seed_has_no_deviation_and_two_have(self):
        table_runs.write(self.folder, "atat", _RIGHT, _RIGHT, seed=1)
        self.assertNotIn("±", self._cells(self._results(1), _ATAT)[1])
        # 75 and 100: mean 87.5, s = 12.5 √2.
        self.assertIn("87.50 ± 17.68", self._cells(self._results(2), _ATAT)[1])

    def test_rows_that_were_not_run_say_so(self):
        for reason, word in (
            ("", "not run"),
            ("no data", "not run: no data"),
        ):
            results = self._results(reason=reason)
            self.assertEqual(self._cells(results, "Standard"), [word] * 2)

    def test_the_papers_line_stands_below_each(self):
        results, absent = self._results(), "not in the paper"
        paper = self._cells(results, _ATAT, below=1)
        self.assertEqual(paper, ["91.89", "63.81"])
        self.assertEqual(self._cells(results, "TRADES", 1), [absent] * 2)
        # The paper's second table has no TLA.
        second = self._results(table=catalogue.table("2"))
        self.assertEqual(set(self._cells(second, "TLA", 1)), {absent})

    def test_paired_tests(self):
        """ATAT alone withstands images 1 and 2, AT alone 3: p = 1."""
        test = _test_of(self._results(), "atat", "at")
        self.assertEqual((test["only_first"], test["only_second"]), (2, 1))
        self.assertAlmostEqual(test["p"], 1.0)

    def test_runs_are_described(self):
        sections = table_text.sections(self._results())
        text = table_files.markdown(sections, "python -m x")
        for words in (
            "```sh\npython -m x\n```",
            "| wide_resnet 10-1 | 6 |",
            "| c0ffee |",
            "an abacus",
            "made up",
            "PGD(20), n=4",
        ):
            self.assertIn(words, text)

    def test_batch_statistics_are_no_claim(self):
        table_runs.write(self.folder, "at", _RIGHT, _RIGHT, bn_eval="batch")
        results = self._results(
            table=dataclasses.replace(
                table_runs.TABLE, bn_modes=("frozen", "batch")
            )
        )
        for mode, start in (("batch", "100.00"), ("frozen", "50.00")):
            label = f"AT (mixture), {mode} statistics"
            self.assertStartsWith(self._cells(results, label)[1], start)
        notes = table_text.sections(results)[0].notes
        self.assertIn("no claim of robustness", " ".join(notes))
        # Of the same network, two images stand in batch mode alone.
        test = _test_of(results, "at", "at")
        self.assertEqual(test["first_bn_eval"], "batch")
        self.assertEqual(test["second_bn_eval"], "frozen")
        self.assertEqual((test["only_first"], test["only_second"]), (2, 0))
        self.assertAlmostEqual(test["p"], 0.5)


def _test_of(results, *rows):
    """Returns the one McNemar test of two rows under PGD(20)."""
    (test,) = (
        test
        for test in results["tests"]
        if (test["first"], test["second"], test["column"]) == (*rows, "pgd20")
    )
    return test


class FilesTest(absltest.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = table_runs.temporary_folder(self)

    def test_three_files(self):
        table_runs.write(self.folder, "at", _RIGHT, [True] * 3 + [False])
        results = table_results.collect(
            table_runs.TABLE, table_runs.SCALE, 1, self.folder
        )
        new = self.folder / "new"
        sections = table_text.sections(results)
        table_files.write(new, "table1", results, sections, "x")
        self.assertEqual(json.loads((new / "table1.json").read_text()), results)
        with open(new / "table1.csv") as file:
            rows = {
                (row["row"], row["column"]): row for row in csv.DictReader(file)
            }
        at = rows["at", "pgd20"]
        self.assertEqual(at["standing"], "1")
        self.assertEqual(at["num_images"], "4")
        self.assertEqual(at["percent"], "25.0")
        self.assertEqual(at["paper_percent"], "45.87")
        self.assertEqual(rows["atat", "clean"]["percent"], "")
        self.assertLen(list(new.iterdir()), 3)

    def test_a_page_keeps_what_is_around_the_section(self):
        page = self.folder / "page.md"
        page.write_text(
            "before\n<!-- a: begin -->\nold\n<!-- a: end -->\nafter\n"
        )
        for _ in range(2):
            table_files.insert(page, "a", "new\n")
            self.assertEqual(
                page.read_text(),
                "before\n<!-- a: begin -->\n\nnew\n\n<!-- a: end -->\nafter\n",
            )
        with self.assertRaisesRegex(InputError, "<!-- b: begin -->"):
            table_files.insert(page, "b", "new")

    def test_the_pages_marks_are_those_of_tables(self):
        page = pathlib.Path(__file__).parents[3] / "docs/results.md"
        marks = re.findall(
            r"<!-- (table (\w+), scale (\w+)): begin -->", page.read_text()
        )
        self.assertLen(marks, 10)
        for mark, table, scale in marks:
            if mark == screening.SECTION:
                continue
            of_table, of_scale = catalogue.table(table), catalogue.scale(scale)
            name = table_text.section_name(of_table, of_scale)
            self.assertEqual(name, mark)
            table_files.expect_marks(page, mark)

    def test_cells_with_bars(self):
        section = printed_table.Table("t", ["a", "b"], [["x|y", 1]], [])
        self.assertIn("| x\\|y | 1 |", table_files.markdown([section], "x"))


class ShiftTest(absltest.TestCase):
    def test_correlations_come_from_the_ledgers_verdicts(self):
        folder = table_runs.temporary_folder(self)
        broken = [False, True, False, True]
        workdir = table_runs.write(folder, "at", _RIGHT, broken)
        (part,) = table_records.read(workdir, "frozen")["parts"]
        run_folder.write_json(
            workdir / shift_measurement.FILE,
            {
                "identity": part["identity"],
                "attack": "PGD",
                "column": "pgd20",
                "num_images": 4,
                "layer": "features",
                "indices": [0, 1, 2, 3],
                "distance": [1.0, 2.0, 3.0, 6.0],
                "shape_distance": [0.5, 0.5, 0.5, 0.5],
            },
        )
        results = table_results.collect(
            catalogue.table("shift"), table_runs.SCALE, 1, folder
        )
        (shift,) = results["shifts"]
        self.assertEqual((shift["num_broken"], shift["num_images"]), (2, 4))
        # As worked out in intervals_test.
        self.assertAlmostEqual(shift["correlations"]["distance"]["auc"], 0.75)
        self.assertEqual(shift["mean_of_broken"]["distance"], 4.0)
        rows = table_text.sections(results)[0].rows
        cells = {row[1]: row[2:] for row in rows if row[0] != "Standard"}
        self.assertIn("0.750", cells["distance of the maps (Eq. 4)"])
        self.assertIn("undefined", cells["1 − cosine of the maps"])
        self.assertIn(["Standard", *["not run"] * 9], rows)
