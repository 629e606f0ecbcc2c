"""Verdicts come from the ledger's lines; what is missing there is not run."""

import numpy as np
from absl.testing import absltest, parameterized

from atat_tf.evaluation import ledger
from atat_tf.reports.tables import records as table_records
from tests.reports.tables import table_runs


class StandingTest(absltest.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = table_runs.temporary_folder(self)

    def _standing(self, clean, pgd20, bn_eval="frozen"):
        workdir = table_runs.write(
            self.folder, "at", clean, pgd20, bn_eval=bn_eval
        )
        return workdir, table_records.standing(workdir, bn_eval)

    def test_broken_by_none_of_the_attacks(self):
        # The misclassified image never enters.
        _, stands = self._standing(
            [False, False, True, False], [True, False, None, False]
        )
        np.testing.assert_array_equal(stands["clean"], [1, 1, 0, 1])
        np.testing.assert_array_equal(stands["pgd20"], [0, 1, 0, 1])

    def test_with_batch_statistics_every_image_enters(self):
        workdir, stands = self._standing([True, False], [None, False], "batch")
        self.assertEqual(list(stands), ["clean"])
        self.assertEqual(table_records.standing(workdir, "frozen"), {})

    def test_a_missing_line_makes_its_column_not_run(self):
        workdir, stands = self._standing([False, False], [False, None])
        self.assertEqual(list(stands), ["clean"])
        # Lines of other weights are not read.
        identity = table_runs.identity(weights="others")
        other = ledger.Ledger(workdir / ledger.FILE, identity)
        other.append("PGD", table_runs.lines([None, True]))
        stands = table_records.standing(workdir, "frozen")
        self.assertEqual(list(stands), ["clean"])


class RecordTest(parameterized.TestCase):
    @parameterized.parameters(
        ("w", {}),  # the same weights: columns are kept
        ("others", {"clean": 4, "pgd20": 4}),
    )
    def test_what_is_missing(self, weights, missing):
        workdir = table_runs.write(
            table_runs.temporary_folder(self), "at", [False] * 4, [False] * 4
        )
        record = table_records.read(workdir, "frozen")
        wanted = {"clean": 4, "pgd20": 3, "standard": 2}
        self.assertEqual(
            table_records.missing(record, wanted), {"pgd20": 3, "standard": 2}
        )
        self.assertEqual(table_records.missing(None, wanted), wanted)
        part = {
            "num_images": 2,
            "identity": table_runs.identity(weights=weights),
            "columns": {"standard": ["APGD", "Square"]},
        }
        table_records.add(workdir, "frozen", [part], {"commit": "later"})
        record = table_records.read(workdir, "frozen")
        wanted = {"clean": 4, "pgd20": 4, "standard": 2}
        self.assertEqual(table_records.missing(record, wanted), missing)
