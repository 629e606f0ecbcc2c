"""Comparisons of rounds: numbers worked by hand."""

from absl.testing import absltest, parameterized

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
        self.assertEqual(compared["rounds"], 3)

    def test_rounds_must_be_as_many(self):
        with self.assertRaises(ValueError):
            ratios.over([1.0, 2.0], [1.0])

    @parameterized.parameters(
        ([1.0, 1.05, 1.1], "<= 1.10", "met"),
        ([1.0, 1.05, 1.2], "<= 1.10", "met, not in all rounds"),
        ([1.0, 1.15, 1.2], "<= 1.10", "not met"),
        ([2.0, 2.5, 3.0], ">= 2", "met"),
        ([1.9, 2.5, 3.0], ">= 2", "met, not in all rounds"),
        ([1.9, 1.95, 3.0], ">= 2", "not met"),
        ([0.0], "<= 0", "met"),
        ([7.0], "", "stated"),
    )
    def test_verdict(self, values, goal, verdict):
        compared = ratios.comparison("a", "b", values, goal)
        self.assertEqual(ratios.verdict(compared), verdict)

    def test_a_goal_is_for_the_fastest_peer_alone(self):
        found = ratios.against_peers(
            "step",
            [1.0, 2.0, 1.0],
            {"slow": [4.0, 8.0, 5.0], "quick": [1.5, 3.0, 9.0]},
            ">= 1.3",
            {"absent": "no interpreter"},
        )
        slow, quick, absent = found
        self.assertEqual((slow["median"], slow["goal"]), (4.0, ""))
        self.assertEqual((quick["median"], quick["goal"]), (1.5, ">= 1.3"))
        self.assertEqual(quick["against"], "quick, the fastest")
        self.assertEqual(ratios.verdict(absent), "NOT RUN: no interpreter")

    def test_no_peer_at_all(self):
        found = ratios.against_peers("step", [1.0], {}, ">= 1.3", {"a": "why"})
        self.assertEqual([ratios.verdict(f) for f in found], ["NOT RUN: why"])

    def test_cells(self):
        compared = ratios.comparison("start", "", [0.5, 0.25, 1.5], "<= 1", "s")
        self.assertEqual(
            ratios.cells(compared),
            [
                "start",
                "",
                "0.50 s",
                "0.25..1.50",
                "<= 1",
                "met, not in all rounds",
            ],
        )
        absent = ratios.not_run("start", "peer", "too slow", "<= 1")
        self.assertEqual(
            ratios.cells(absent),
            ["start", "peer", "", "", "<= 1", "NOT RUN: too slow"],
        )

    @parameterized.parameters(
        (1234.5, "1,234"),
        (12.345, "12.3"),
        (1.2345, "1.23"),
        (0.0123, "0.0123"),
        (-1.5, "-1.50"),
        (0.0, "0.0000"),
        (12345, "12,345"),
    )
    def test_written(self, value, text):
        self.assertEqual(ratios.written(value), text)


if __name__ == "__main__":
    absltest.main()
