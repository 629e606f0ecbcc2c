"""Rows, tables and scales are whole."""

from absl.testing import absltest

from atat_tf.evaluation import printed_table
from atat_tf.reports.tables import catalogue


class TablesTest(absltest.TestCase):
    def test_rows(self):
        for table in catalogue.TABLES.values():
            rows = catalogue.chosen_rows(table)
            self.assertEqual([row.key for row in rows], list(table.rows))
        rows = catalogue.chosen_rows(catalogue.table("1"), ["atat", "standard"])
        self.assertEqual([row.key for row in rows], ["standard", "atat"])

    def test_the_papers_lines(self):
        first, second = catalogue.table("1"), catalogue.table("2")
        self.assertEqual(first.paper("tla")["pgd20"], 51.59)
        self.assertEqual(first.paper("madry")["clean"], 87.25)
        self.assertEqual(first.paper("trades"), {})
        self.assertEqual(second.paper("atat")["pgd10"], 35.03)
        # The paper's Table 2 has no TLA.
        self.assertEqual(second.paper("tla"), {})
        lines = set(printed_table.PAPER["cifar10"]) - {"columns"}
        self.assertContainsSubset(lines, first.rows.values())

    def test_columns_are_the_papers_and_autoattack(self):
        columns = ("clean", "fgsm", "ifgsm20", "pgd10", "pgd20", "standard")
        table = catalogue.table("2")
        self.assertEqual(table.columns_in("frozen"), columns)
        # AutoAttack is run with frozen statistics alone.
        self.assertEqual(table.columns_in("batch"), columns[:-1])

    def test_the_ablation_switches_one_thing_at_a_time(self):
        for row in catalogue.chosen_rows(catalogue.table("ablation")):
            if row.recipe != "atat":
                continue
            changed = {
                name: value
                for name, value in row.changes.items()
                if not (name.endswith("_weight") and value == 1.0)
            }
            corner = row.key == "lambda_0_0"
            self.assertLen(changed, 2 if corner else row.key != "atat", row)
