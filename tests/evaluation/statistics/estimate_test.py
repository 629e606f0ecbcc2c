"""Estimates hold the whole figure, and go on from the ledger."""

import numpy as np
import pytest
from scipy import stats

from atat_tf.attacks import linf
from atat_tf.data import datasets
from atat_tf.errors import InputError
from atat_tf.evaluation import attacker, ledger, verdicts
from atat_tf.evaluation.statistics import estimate
from tests.support import toys

_FIRST = linf.Steps(linf.fgsm(1 / 255))
_SECOND = linf.Steps(linf.pgd(2 / 255, 0.5 / 255, 6))


def _estimated(broken, margins, count, precision, seed):
    """Returns the Estimate of one order of images of which all is known.

    Args:
      broken: bool [m], of the images that stand, which are the first ones.
      margins: [m].
    """
    first = np.arange(count) < len(broken)
    withstood = first.copy()
    withstood[: len(broken)] &= ~broken
    all_margins = np.zeros(count)
    all_margins[: len(broken)] = margins
    return estimate.estimate(
        first, all_margins, lambda images: withstood[images], precision, seed
    )


@pytest.mark.parametrize("tells", [True, False])
@pytest.mark.parametrize(
    "count, standing, share, precision",
    [
        (1000, 430, 0.1, 0.02),
        (3000, 900, 0.02, 0.01),
        (4000, 1500, 0.5, 0.03),
    ],
)
def test_the_interval_holds_the_whole_figure(
    count, standing, share, precision, tells
):
    """Whether or not the broken ones have the small margins."""
    broken = np.arange(standing) < round(share * standing)
    noise = np.random.default_rng(0).uniform(size=standing)
    margins = np.where(broken, 0.2 * noise, noise) if tells else noise
    figure = (standing - broken.sum()) / count
    found = [
        _estimated(broken, margins, count, precision, seed)
        for seed in range(60)
    ]
    held = np.mean([e.low <= figure <= e.high for e in found])
    # 95 % at least in truth; three deviations of 60 draws below it are 87 %.
    assert held >= 0.95 - 3 * np.sqrt(0.95 * 0.05 / 60)
    assert np.mean([e.accuracy for e in found]) == pytest.approx(
        figure, abs=precision / 4
    )
    assert np.mean([(e.high - e.low) / 2 for e in found]) <= 1.1 * precision
    assert np.mean([e.num_sampled for e in found]) < 0.8 * standing


def test_the_pilots_alone_decide_nothing_by_themselves():
    """Where they are narrow enough, the rest is likely to break as they do."""
    broken = np.arange(100) < 30
    margins = np.random.default_rng(0).uniform(size=100)
    found = [
        _estimated(broken, margins, 300, 0.05, seed) for seed in range(100)
    ]
    assert {e.num_sampled for e in found} == {sum(estimate.PILOTS)}
    assert all(e.low <= e.accuracy <= e.high for e in found)
    mean = np.mean([e.accuracy for e in found])
    assert mean == pytest.approx(70 / 300, abs=0.005)


def test_margins_that_tell_save_images():
    broken = np.arange(2700) < 320
    noise = np.random.default_rng(0).uniform(size=2700)

    def mean_sample(margins):
        found = [
            _estimated(broken, margins, 10_000, 0.01, seed)
            for seed in range(10)
        ]
        return np.mean([e.num_sampled for e in found])

    telling = mean_sample(np.where(broken, 0.25 * noise, noise))
    assert telling < 0.85 * mean_sample(noise)


@pytest.mark.parametrize("seed", range(3))
def test_strata_do_not_depend_on_the_order_drawn(seed):
    """Also where margins tie: the first 30 % by position are then one."""
    met = []

    def stand(images):
        met.append(images)
        return images % 3 > 0

    estimate.estimate(np.ones(200, bool), np.zeros(200), stand, 0.1, seed)
    pilot = estimate.PILOTS[0]
    assert np.all(met[0][:pilot] < 60) and np.all(met[0][pilot:] >= 60)


def test_a_sample_of_everything_is_the_figure():
    found = estimate.from_strata(
        1000,
        [
            estimate.Stratum(100, (20, 7), (80, 11)),
            estimate.Stratum(200, (50, 0), (150, 2)),
        ],
    )
    assert found.is_whole
    assert found.low == found.high == pytest.approx(found.accuracy)
    assert found.accuracy == pytest.approx(0.28)


def test_an_interval_by_hand():
    """Two of four are seen, one broken: one, two or three are in all.

    With 1 of 4 broken, a sample of 2 holds one with chance ½; likewise with 2
    (4/6) and with 3 (½). None and four cannot be.
    """
    of_four = estimate.Stratum(4, (0, 0), (2, 1))
    found = estimate.from_strata(10, [of_four])
    assert (found.low, found.high) == (0.1, pytest.approx(0.3))
    # A stratum that was seen whole is counted and guesses nothing.
    found = estimate.from_strata(
        10, [of_four, estimate.Stratum(3, (1, 1), (2, 1))]
    )
    assert (found.low, found.high) == (pytest.approx(0.2), pytest.approx(0.4))


def test_the_p_values_of_two_strata_are_multiplied():
    """Against all pairs of numbers, one by one."""
    strata = [
        estimate.Stratum(30, (0, 0), (12, 5)),
        estimate.Stratum(50, (4, 1), (20, 1)),
    ]
    few, many = set(), set()
    least = 0.0038  # P(U V < c) = c (1 − ln c) = 2.5 % of two uniform numbers.
    for first in range(31):
        for second in range(47):
            of = stats.hypergeom(30, first, 12), stats.hypergeom(46, second, 20)
            if of[0].cdf(5) * of[1].cdf(1) >= least:
                few.add(first + second)
            if of[0].sf(4) * of[1].sf(0) >= least:
                many.add(first + second)
    assert least * (1 - np.log(least)) == pytest.approx(0.025, rel=2e-3)
    found = estimate.from_strata(100, strata)
    assert found.high == pytest.approx((80 - 1 - min(many)) / 100)
    assert found.low == pytest.approx((80 - 1 - max(few)) / 100)
    assert found.accuracy == pytest.approx(
        (80 - 7 - 18 * 5 / 12 - 26 / 20) / 100
    )


def test_all_are_drawn_where_the_precision_asks_for_it():
    strata = [estimate.Stratum(20, (20, 5)), estimate.Stratum(60, (50, 5))]
    assert estimate.sample_sizes(100, strata, 1e-6) == [0, 10]
    strata = [estimate.Stratum(30, (20, 5)), estimate.Stratum(90, (50, 0))]
    assert estimate.sample_sizes(200, strata, 1e-6) == [10, 40]


@pytest.mark.parametrize("standing", [0, 1, 3, 21])
def test_few_or_no_images_stand(standing):
    broken = np.arange(standing) % 2 == 0
    found = _estimated(broken, np.ones(standing), 40, 0.01, 0)
    assert found.is_whole
    assert found.accuracy == pytest.approx((~broken).sum() / 40)


@pytest.mark.parametrize("precision", [0, 0.5, -0.01])
def test_refuses(precision):
    with pytest.raises(InputError, match="a precision above 0"):
        estimate.expect_precision(precision)


def test_more_precision_goes_on_from_the_ledger(tmp_path, monkeypatch):
    monkeypatch.setattr(estimate, "PILOTS", (5, 5))
    classifier = toys.small_classifier()
    images = toys.random_bytes(60)
    labels = classifier(images / np.float32(255)).numpy().argmax(-1)
    split = datasets.Split(images, labels.astype(np.int32))
    identity = ledger.identity("w", "d", "frozen", 0, None)

    def judge():
        lines = ledger.Ledger(tmp_path / ledger.FILE, identity)
        return verdicts.Verdicts(
            attacker.Attacker(classifier, 20), split, lines, 0
        )

    def sizes():
        return len((tmp_path / ledger.FILE).read_text().splitlines())

    attacks = _FIRST, _SECOND

    def estimated(precision):
        first = judge().standing(attacks[:1])
        margins = np.arange(60) % 7
        return estimate.estimate(
            first,
            margins,
            lambda i: judge().standing_of(attacks, i),
            precision,
            0,
        )

    rough = estimated(0.2)
    lines = sizes()
    assert rough.num_sampled < rough.num_standing
    fine = estimated(0.001)
    assert fine.is_whole
    # One line an image for the images as they are, each attack, and no more.
    assert sizes() == 60 + 60 + fine.num_standing > lines
    whole = judge().standing(attacks)
    assert sizes() == 60 + 60 + fine.num_standing
    assert fine.accuracy == pytest.approx(np.mean(whole))
    assert rough.low <= np.mean(whole) <= rough.high
