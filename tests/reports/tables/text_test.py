"""The table's text, from ledgers written by hand."""

import csv
import json
import pathlib
import re

from absl.testing import absltest

from atat_tf.errors import InputError
from atat_tf.reports.tables import catalogue
from atat_tf.reports.tables import files as table_files
from atat_tf.reports.tables import records as table_records
from atat_tf.reports.tables import results as table_results
from atat_tf.reports.tables import shift as shift_measurement
from atat_tf.reports.tables import text as table_text
from atat_tf.runs import folder as run_folder
from tests.reports.tables import table_runs

_RIGHT, _WRONG = False, True


class TableTextTest(absltest.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = table_runs.temporary_folder(self)
        # Of four images: AT withstands 2, ATAT 3 with seed 0, 4 with seed 1.
        table_runs.write(
            self.folder, "at", [_RIGHT] * 4, [False, True, True, False]
        )
        table_runs.write(
            self.folder, "atat", [_RIGHT] * 4, [False, False, False, True]
        )

    def _results(self, num_seeds=1, table=table_runs.TABLE, **kwargs):
        return table_results.collect(
            table, table_runs.SCALE, num_seeds, self.folder, **kwargs
        )

    def _row(self, results, label):
        (section, *_) = table_text.sections(results)
        return next(row for row in section.rows if row[0] == label)

    def test_cells(self):
        """50 %: Wilson 0.5 ± 1.96 / (2 √(4 + 3.84)): 15.0 to 85.0."""
        row = self._row(self._results(), "AT-PGD (mixture)")
        self.assertEqual(row[1:], ["100.00 (51.0–100.0)", "50.00 (15.0–85.0)"])

    def test_one_seed_has_no_deviation_and_two_have(self):
        table_runs.write(self.folder, "atat", [_RIGHT] * 4, [False] * 4, seed=1)
        label = "ATAT, λ = (1, 1)"
        self.assertNotIn("±", self._row(self._results(1), label)[2])
        # 75 and 100: mean 87.5, s = 12.5 √2.
        self.assertIn("87.50 ± 17.68", self._row(self._results(2), label)[2])

    def test_rows_that_were_not_run_say_so(self):
        row = self._row(self._results(), "Standard")
        self.assertEqual(row[1:], ["not run", "not run"])
        row = self._row(self._results(reason="no data"), "Standard")
        self.assertEqual(row[1:], ["not run: no data"] * 2)

    def test_the_papers_line_stands_below_each(self):
        (section, *_) = table_text.sections(self._results())
        pairs = zip(section.rows[::2], section.rows[1::2], strict=True)
        below = {row[0]: paper for row, paper in pairs}
        self.assertEqual(
            below["ATAT, λ = (1, 1)"], ["  paper", "91.89", "63.81"]
        )
        self.assertEqual(below["TRADES"][1:], ["not in the paper"] * 2)

    def test_tla_is_not_in_the_papers_second_table(self):
        results = table_results.collect(
            catalogue.table("2"), table_runs.SCALE, 1, self.folder, "no data"
        )
        (section, *_) = table_text.sections(results)
        labels = [row[0] for row in section.rows]
        row = section.rows[labels.index("TLA") + 1]
        self.assertEqual(set(row[1:]), {"not in the paper"})

    def test_paired_test(self):
        """ATAT alone withstands images 1 and 2, AT alone 3: p = 1."""
        (test,) = (
            test
            for test in self._results()["tests"]
            if test["column"] == "pgd20"
        )
        self.assertEqual((test["first"], test["second"]), ("atat", "at"))
        self.assertEqual((test["only_first"], test["only_second"]), (2, 1))
        self.assertAlmostEqual(test["p"], 1.0)

    def test_runs_are_described(self):
        text = table_files.markdown(
            table_text.sections(self._results()), "python -m x"
        )
        for words in (
            "```sh\npython -m x\n```",
            "wide_resnet 10-1",
            "| 6 |",
            "c0ffee",
            "Hardware: an abacus.",
            "Data: made up",
            "neither confirm nor refute",
            "PGD(20), n=4",
        ):
            self.assertIn(words, text)

    def test_batch_statistics_are_no_claim(self):
        table = catalogue.Table(
            **{
                **vars(table_runs.TABLE),
                "bn_modes": ("frozen", "batch"),
            }
        )
        table_runs.write(
            self.folder, "at", [_RIGHT] * 4, [False] * 4, bn_eval="batch"
        )
        results = self._results(table=table)
        row = self._row(results, "AT-PGD (mixture), batch statistics")
        self.assertStartsWith(row[2], "100.00")
        row = self._row(results, "AT-PGD (mixture), frozen statistics")
        self.assertStartsWith(row[2], "50.00")
        (section, *_) = table_text.sections(results)
        self.assertIn("no claim of robustness", " ".join(section.notes))
        # Of the same network, two images stand in batch mode alone.
        (test,) = (
            test
            for test in results["tests"]
            if (test["first"], test["second"], test["column"])
            == ("at", "at", "pgd20")
        )
        self.assertEqual(
            (test["first_bn_eval"], test["second_bn_eval"]),
            ("batch", "frozen"),
        )
        self.assertEqual((test["only_first"], test["only_second"]), (2, 0))
        self.assertAlmostEqual(test["p"], 0.5)


class FilesTest(absltest.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = table_runs.temporary_folder(self)
        table_runs.write(self.folder, "at", [_RIGHT] * 4, [True] * 3 + [False])
        self.results = table_results.collect(
            table_runs.TABLE, table_runs.SCALE, 1, self.folder
        )
        self.sections = table_text.sections(self.results)

    def test_three_files(self):
        table_files.write(
            self.folder / "new", "table1", self.results, self.sections, "x"
        )
        written = json.loads((self.folder / "new/table1.json").read_text())
        self.assertEqual(written, self.results)
        with open(self.folder / "new/table1.csv") as file:
            rows = list(csv.DictReader(file))
        at = next(
            row
            for row in rows
            if (row["row"], row["column"]) == ("at", "pgd20")
        )
        self.assertEqual(
            (at["standing"], at["num_images"], at["percent"]),
            ("1", "4", "25.0"),
        )
        self.assertEqual(at["paper_percent"], "45.87")
        atat = [row for row in rows if row["row"] == "atat"]
        self.assertEqual({row["percent"] for row in atat}, {""})
        self.assertEmpty(list((self.folder / "new").glob(".*")))

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
        copy = self.folder / "page.md"
        copy.write_text(page.read_text())
        marks = re.findall(r"<!-- (table .*): begin -->", page.read_text())
        self.assertLen(marks, 8)
        for mark in marks:
            table, scale = re.fullmatch(
                r"table (\w+), scale (\w+)", mark
            ).groups()
            self.assertEqual(
                table_text.section_name(
                    catalogue.table(table), catalogue.scale(scale)
                ),
                mark,
            )
            table_files.insert(copy, mark, "new")

    def test_cells_with_bars(self):
        section = table_text.Section("t", ["a", "b"], [["x|y", 1]], [])
        self.assertIn("| x\\|y | 1 |", table_files.markdown([section], "x"))


class ShiftTest(absltest.TestCase):
    def test_correlations_come_from_the_ledgers_verdicts(self):
        folder = table_runs.temporary_folder(self)
        broken = [False, True, False, True]
        workdir = table_runs.write(folder, "at", [_RIGHT] * 4, broken)
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
        # As worked out in statistics_test.
        self.assertAlmostEqual(shift["correlations"]["distance"]["auc"], 0.75)
        self.assertEqual(shift["mean_of_broken"]["distance"], 4.0)
        (section, *_) = table_text.sections(results)
        cells = {row[1]: row[2:] for row in section.rows}
        self.assertIn("0.750", cells["distance of the maps (Eq. 4)"])
        self.assertIn("undefined", cells["1 − cosine of the maps"])
        labels = [row[0] for row in section.rows]
        standard = section.rows[labels.index("Standard")]
        self.assertEqual(set(standard[1:]), {"not run"})


if __name__ == "__main__":
    absltest.main()
