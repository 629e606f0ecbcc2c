"""Numbers worked by hand: spread, Wilson, McNemar, correlations."""

import math

import numpy as np
from absl.testing import absltest, parameterized

from atat_tf.errors import InputError
from atat_tf.evaluation import intervals


class SpreadTest(absltest.TestCase):
    def test_of_three_seeds(self):
        # Deviations −2, 0, 2: s² = 8 / 2.
        mean, deviation = intervals.mean_and_deviation([40.0, 42.0, 44.0])
        self.assertEqual((mean, deviation), (42.0, 2.0))

    def test_one_seed_has_none(self):
        self.assertEqual(intervals.mean_and_deviation([42.0]), (42.0, None))

    def test_of_nothing(self):
        with self.assertRaisesRegex(InputError, "at least one value"):
            intervals.mean_and_deviation([])


class WilsonTest(parameterized.TestCase):
    @parameterized.parameters(
        # With z² = 3.8415 and p = ½ the middle is ½ and half the width is
        # z / (2 √(n + z²)): 1.95996 / (2 √103.8415) = 0.09617.
        (50, 100, 0.40383, 0.59617),
        # p = 0: low is 0, high is z² / (n + z²) = 3.8415 / 13.8415.
        (0, 10, 0.0, 0.27753),
        (10, 10, 0.72247, 1.0),
    )
    def test_by_hand(self, successes, count, low, high):
        interval = intervals.wilson(successes, count)
        np.testing.assert_allclose(interval, (low, high), atol=1e-5)

    def test_narrows_as_images_are_added(self):
        low, high = intervals.wilson(2000, 10_000)
        wide_low, wide_high = intervals.wilson(20, 100)
        self.assertLess(high - low, (wide_high - wide_low) / 9)

    @parameterized.parameters((-1, 3), (4, 3), (0, 0))
    def test_refuses(self, successes, count):
        with self.assertRaises(InputError):
            intervals.wilson(successes, count)


class McNemarTest(parameterized.TestCase):
    def test_by_hand(self):
        """b = 1, c = 5: p = 2 · (1 + 6) / 2⁶ = 0.21875."""
        first = [True] * 3 + [True] + [False] * 5 + [False] * 2
        second = [True] * 3 + [False] + [True] * 5 + [False] * 2
        result = intervals.mcnemar(first, second)
        self.assertEqual(result[:2], (1, 5))
        self.assertAlmostEqual(result[2], 0.21875)
        self.assertAlmostEqual(intervals.mcnemar(second, first)[2], 0.21875)

    def test_images_on_which_both_agree_change_nothing(self):
        first, second = [True, False, True], [False, True, False]
        alone = intervals.mcnemar(first, second)
        with_more = intervals.mcnemar(first + [True] * 50, second + [True] * 50)
        self.assertEqual(alone, with_more)

    def test_equal_rows(self):
        self.assertEqual(intervals.mcnemar([True], [True]), (0, 0, 1.0))

    def test_other_images(self):
        with self.assertRaisesRegex(InputError, "same images"):
            intervals.mcnemar([True], [True, False])


class CorrelationsTest(absltest.TestCase):
    def test_by_hand(self):
        """Values 1, 2, 3, 6; the broken ones are 2 and 6.

        r = (mean of broken − mean of others) / σ · √(pq)
          = (4 − 2) / √3.5 · ½; ranks 2, 4 against 1, 3:
        ρ = (3 − 2) / √1.25 · ½; of four pairs, three have the broken higher.
        """
        found = intervals.correlations(
            [1.0, 2.0, 3.0, 6.0], [False, True, False, True]
        )
        self.assertAlmostEqual(found["point_biserial"], 1 / math.sqrt(3.5))
        self.assertAlmostEqual(found["spearman"], 0.5 / math.sqrt(1.25))
        self.assertAlmostEqual(found["auc"], 0.75)

    def test_undefined_where_nothing_differs(self):
        for values, broken in (
            ([1.0, 2.0], [True, True]),
            ([1.0, 2.0], [False, False]),
            ([1.0, 1.0], [True, False]),
        ):
            found = intervals.correlations(values, broken)
            self.assertEqual(set(found.values()), {None})

    def test_partial_by_hand(self):
        """Ranks 1234; 1.5, 3.5, 1.5, 3.5; 1324: of n = 4, Σ d² gives ρ.

        Values and given: Σ d² = 2, ρ = 1 − 6 · 2 / 60 = 0.8. Broken against
        values (3 − 2) / √1.25 · ½ = 1 / √5, against given (3.5 − 1.5) / √1.25
        · ½ = 2 / √5.
        """
        partial = intervals.partial_spearman(
            [1.0, 2.0, 3.0, 6.0],
            [False, True, False, True],
            [1.0, 3.0, 2.0, 4.0],
        )
        vb, vg, bg = 1 / math.sqrt(5), 0.8, 2 / math.sqrt(5)
        by_hand = (vb - vg * bg) / math.sqrt((1 - vg**2) * (1 - bg**2))
        self.assertAlmostEqual(partial, by_hand)

    def test_partial_is_nothing_where_the_third_explains_all(self):
        rng = np.random.default_rng(0)
        given = rng.normal(size=2000)
        broken = given + 0.5 * rng.normal(size=2000) > 0
        values = given + 0.5 * rng.normal(size=2000)
        whole = intervals.correlations(values, broken)["spearman"]
        left = intervals.partial_spearman(values, broken, given)
        self.assertGreater(whole, 0.5)
        self.assertLess(abs(left), 0.2)

    def test_partial_undefined(self):
        broken = [True, False, True]
        for values, given in (
            ([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]),
            ([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]),
        ):
            self.assertIsNone(intervals.partial_spearman(values, broken, given))

    def test_p_falls_with_evidence(self):
        rng = np.random.default_rng(0)
        broken = np.arange(200) % 2 == 0
        found = intervals.correlations(
            broken + 0.5 * rng.normal(size=200), broken
        )
        self.assertLess(found["point_biserial_p"], 1e-6)
        noise = intervals.correlations(rng.normal(size=200), broken)
        self.assertGreater(noise["spearman_p"], 1e-3)


if __name__ == "__main__":
    absltest.main()
