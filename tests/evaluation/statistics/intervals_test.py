"""Numbers worked by hand: spread, Wilson, McNemar, correlations."""

import math

import numpy as np
import pytest

from atat_tf.errors import InputError
from atat_tf.evaluation.statistics import intervals


def test_spread_of_seeds():
    # Deviations −2, 0, 2: s² = 8 / 2.
    assert intervals.mean_and_deviation([40.0, 42.0, 44.0]) == (42.0, 2.0)
    assert intervals.mean_and_deviation([42.0]) == (42.0, None)
    with pytest.raises(InputError, match="at least one value"):
        intervals.mean_and_deviation([])


@pytest.mark.parametrize(
    "successes, count, low, high",
    [
        # With z² = 3.8415 and p = ½ the middle is ½ and half the width is
        # z / (2 √(n + z²)): 1.95996 / (2 √103.8415) = 0.09617.
        (50, 100, 0.40383, 0.59617),
        # p = 0: low is 0, high is z² / (n + z²) = 3.8415 / 13.8415.
        (0, 10, 0.0, 0.27753),
        (10, 10, 0.72247, 1.0),
    ],
)
def test_wilson_by_hand(successes, count, low, high):
    interval = intervals.wilson(successes, count)
    np.testing.assert_allclose(interval, (low, high), atol=1e-5)


def test_chance_by_hand():
    """1/4 of 75 images: √(3/16 / 75) = 1/20, so that chance ends at 0.35."""
    assert not intervals.is_above_chance(0.349, 75, 4)
    assert intervals.is_above_chance(0.351, 75, 4)


@pytest.mark.parametrize("successes, count", [(-1, 3), (4, 3), (0, 0)])
def test_wilson_refuses(successes, count):
    with pytest.raises(InputError):
        intervals.wilson(successes, count)


def test_mcnemar_by_hand():
    """b = 1, c = 5: p = 2 · (1 + 6) / 2⁶ = 0.21875."""
    # The images on which both agree change nothing.
    first = [True] * 3 + [True] + [False] * 5 + [False] * 2
    second = [True] * 3 + [False] + [True] * 5 + [False] * 2
    assert intervals.mcnemar(first, second) == (1, 5, pytest.approx(0.21875))
    assert intervals.mcnemar(second, first) == (5, 1, pytest.approx(0.21875))
    assert intervals.mcnemar([True], [True]) == (0, 0, 1.0)
    with pytest.raises(InputError, match="same images"):
        intervals.mcnemar([True], [True, False])


def test_correlations_by_hand():
    """Values 1, 2, 3, 6; the broken ones are 2 and 6.

    r = (mean of broken − mean of others) / σ · √(pq)
      = (4 − 2) / √3.5 · ½; ranks 2, 4 against 1, 3:
    ρ = (3 − 2) / √1.25 · ½; of four pairs, three have the broken higher.
    """
    found = intervals.correlations(
        [1.0, 2.0, 3.0, 6.0], [False, True, False, True]
    )
    assert found["point_biserial"] == pytest.approx(1 / math.sqrt(3.5))
    assert found["spearman"] == pytest.approx(0.5 / math.sqrt(1.25))
    assert found["auc"] == pytest.approx(0.75)


@pytest.mark.parametrize(
    "values, broken",
    [
        ([1.0, 2.0], [True, True]),
        ([1.0, 2.0], [False, False]),
        ([1.0, 1.0], [True, False]),
    ],
)
def test_correlations_are_undefined_where_nothing_differs(values, broken):
    assert {*intervals.correlations(values, broken).values()} == {None}


def test_partial_spearman_by_hand():
    """Ranks 1234; 1.5, 3.5, 1.5, 3.5; 1324: of n = 4, Σ d² gives ρ.

    Values and given: Σ d² = 2, ρ = 1 − 6 · 2 / 60 = 0.8. Broken against
    values (3 − 2) / √1.25 · ½ = 1 / √5, against given (3.5 − 1.5) / √1.25
    · ½ = 2 / √5.
    """
    partial = intervals.partial_spearman(
        [1.0, 2.0, 3.0, 6.0], [False, True, False, True], [1.0, 3.0, 2.0, 4.0]
    )
    vb, vg, bg = 1 / math.sqrt(5), 0.8, 2 / math.sqrt(5)
    by_hand = (vb - vg * bg) / math.sqrt((1 - vg**2) * (1 - bg**2))
    assert partial == pytest.approx(by_hand)


@pytest.mark.parametrize("values", [[1.0, 1.0, 1.0], [1.0, 2.0, 3.0]])
def test_partial_spearman_is_undefined(values):
    broken, given = [True, False, True], [1.0, 2.0, 3.0]
    assert intervals.partial_spearman(values, broken, given) is None
