"""Verdicts come from the ledger's lines; what is missing there is not run."""

import numpy as np
from absl.testing import absltest

from atat_tf.evaluation import ledger
from atat_tf.reports.tables import records as table_records
from tests.reports.tables import table_runs


class StandingTest(absltest.TestCase):
    def _folder(self):
        return table_runs.temporary_folder(self)

    def test_broken_by_none_of_the_attacks(self):
        workdir = table_runs.write(
            self._folder(),
            "at",
            [False, False, True, False],
            # The misclassified image never enters.
            [True, False, None, False],
        )
        stands = table_records.standing(workdir, "frozen")
        np.testing.assert_array_equal(stands["clean"], [1, 1, 0, 1])
        np.testing.assert_array_equal(stands["pgd20"], [0, 1, 0, 1])

    def test_a_line_that_is_missing_makes_its_column_not_run(self):
        workdir = table_runs.write(
            self._folder(), "at", [False, False], [True, None]
        )
        stands = table_records.standing(workdir, "frozen")
        self.assertEqual(list(stands), ["clean"])

    def test_with_batch_statistics_every_image_enters(self):
        workdir = table_runs.write(
            self._folder(), "at", [True, False], [None, False], bn_eval="batch"
        )
        self.assertEqual(
            list(table_records.standing(workdir, "batch")), ["clean"]
        )
        self.assertEqual(table_records.standing(workdir, "frozen"), {})

    def test_lines_of_other_weights_are_not_read(self):
        workdir = table_runs.write(
            self._folder(), "at", [False, False], [False, None]
        )
        other = ledger.Ledger(
            workdir / ledger.FILE, table_runs.identity(weights="others")
        )
        other.append("PGD", table_runs.lines([None, True]))
        self.assertEqual(
            list(table_records.standing(workdir, "frozen")), ["clean"]
        )


class RecordTest(absltest.TestCase):
    def setUp(self):
        super().setUp()
        self.workdir = table_runs.write(
            table_runs.temporary_folder(self), "at", [False] * 4, [False] * 4
        )

    def _add(self, **changes):
        part = {
            "num_images": 2,
            "identity": {**table_runs.identity(), **changes},
            "columns": {"standard": ["APGD", "Square"]},
        }
        table_records.add(self.workdir, "frozen", [part], {"commit": "later"})
        return table_records.read(self.workdir, "frozen")

    def test_what_is_missing(self):
        record = table_records.read(self.workdir, "frozen")
        wanted = {"clean": 4, "pgd20": 3, "standard": 2}
        missing = table_records.missing(record, wanted)
        self.assertEqual(missing, {"pgd20": 3, "standard": 2})
        self.assertEqual(table_records.missing(None, wanted), wanted)

    def test_columns_of_the_same_weights_are_kept(self):
        record = self._add()
        wanted = {"clean": 4, "pgd20": 4, "standard": 2}
        self.assertEqual(table_records.missing(record, wanted), {})

    def test_columns_of_other_weights_are_dropped(self):
        record = self._add(weights="others")
        self.assertEqual(
            table_records.missing(record, {"clean": 4, "standard": 2}),
            {"clean": 4},
        )


if __name__ == "__main__":
    absltest.main()
