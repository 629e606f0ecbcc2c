"""Comparisons of rounds: numbers worked by hand."""

from absl.testing import parameterized

from benchmarks import ratios


class RatiosTest(parameterized.TestCase):
    def test_ratios_are_taken_round_by_round(self):
        compared = ratios.comparison(
            "step", "peer", ratios.over([6.0, 9.0, 2.0], [3.0, 3.0, 4.0])
        )
        # 2, 3 and ½; the ratio of the medians would be 2 as well, of the means
        # 1.7, of the sums 1.7.
        self.assertEqual(
            (compared["median"], compared["min"], compared["max"]),
            (2.0, 0.5, 3.0),
        )
        with self.assertRaises(ValueError):
            ratios.over([1.0, 2.0], [1.0])

    @parameterized.parameters(
        ([1.0, 1.05, 1.1], "<= 1.10", "met"),
        ([1.0, 1.05, 1.2], "<= 1.10", "met, not in all rounds"),
        ([1.0, 1.15, 1.2], "<= 1.10", "not met"),
        ([1.9, 2.5, 3.0], ">= 2", "met, not in all rounds"),
        ([1.9, 1.95, 3.0], ">= 2", "not met"),
        ([0.0], "<= 0", "met"),
        ([7.0], "", "stated"),
    )
    def test_verdict(self, values, goal, verdict):
        compared = ratios.comparison("a", "b", values, goal)
        self.assertEqual(ratios.verdict(compared), verdict)

    def test_cells(self):
        compared = ratios.comparison("start", "", [0.5, 0.25, 1.5], "<= 1", "s")
        verdict = "met, not in all rounds"
        self.assertEqual(
            ratios.cells(compared),
            ["start", "", "0.50 s", "0.25..1.50", "<= 1", verdict],
        )
        absent = ratios.not_run("start", "too slow")
        self.assertEqual(
            ratios.cells(absent),
            ["start", "", "", "", "", "NOT RUN: too slow"],
        )

    @parameterized.parameters(
        (1234.5, "1,234"),
        (12.345, "12.3"),
        (1.2345, "1.23"),
        (-0.01, "-0.0100"),
    )
    def test_written(self, value, text):
        self.assertEqual(ratios.written(value), text)
