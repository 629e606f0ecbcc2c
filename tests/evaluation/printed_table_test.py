"""The printed table: rows, the paper's beside them, footnotes."""

import contextlib
import io

from absl.testing import absltest

from atat_tf.evaluation import printed_table


def _results(method, dataset="cifar10", bn_eval="frozen", **accuracy):
    return {
        "dataset": dataset,
        "data": "some data",
        "method": method,
        "num_images": 10_000,
        "bn_eval": bn_eval,
        "accuracy": accuracy,
    }


class TableTest(absltest.TestCase):
    def _printed(self, all_results):
        screen = io.StringIO()
        with contextlib.redirect_stdout(screen):
            printed_table.print_table(all_results)
        return screen.getvalue()

    def test_the_papers_row_stands_below(self):
        text = self._printed([_results("atat", clean=0.5, pgd20=0.25)])
        self.assertRegex(text, r"ATAT +│ +50\.00 +│ +25\.00")
        self.assertRegex(text, r"the paper's.*│ +91\.89 +│ +63\.81")
        self.assertIn("10,000 test images", text)

    def test_no_paper_row_for_digits(self):
        text = self._printed([_results("atat", "digits", clean=0.5)])
        self.assertNotIn("paper", text)

    def test_what_was_not_run_says_so(self):
        rows = [_results("at", clean=0.5), _results("atat", pgd20=0.25)]
        self.assertRegex(self._printed(rows), r"AT +│ +50\.00 +│ not run")

    def test_footnotes(self):
        text = self._printed(
            [_results("at", bn_eval="batch", fgsm=0.2, pgd20=0.4)]
        )
        self.assertIn("not a claim of robustness", text)
        self.assertIn("masked gradients", text)

    def test_the_papers_tables(self):
        """Corners of Tables 1 and 2."""
        self.assertEqual(
            printed_table.paper_row("cifar10", "alp")["pgd7"], 52.32
        )
        self.assertEqual(
            printed_table.paper_row("cifar100", "atat")["pgd20"], 28.72
        )
        self.assertIsNone(printed_table.paper_row("digits", "atat"))


if __name__ == "__main__":
    absltest.main()
