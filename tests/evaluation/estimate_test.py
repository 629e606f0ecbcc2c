"""Estimates hold the whole figure, and go on from the ledger."""

import numpy as np
import pytest

from atat_tf.attacks import linf
from atat_tf.data import datasets
from atat_tf.errors import InputError
from atat_tf.evaluation import attacker, estimate, ledger, verdicts
from tests.support import toys

_FIRST = linf.Steps(linf.fgsm(1 / 255))
_SECOND = linf.Steps(linf.pgd(2 / 255, 0.5 / 255, 6))


def _drawn(broken, count, precision, seed):
    """Returns the Estimate of one order of images of which all is known."""
    order = np.random.default_rng(seed).permutation(broken)
    pilot = min(estimate.PILOT, len(order))
    seen = int(order[:pilot].sum())
    more = estimate.sample_size(count, len(order), pilot, seen, precision)
    later = int(order[pilot : pilot + more].sum())
    return estimate.from_counts(count, len(order), (pilot, seen), (more, later))


@pytest.mark.parametrize(
    "count, standing, share, precision",
    [
        (1000, 430, 0.1, 0.02),
        (3000, 900, 0.02, 0.01),
        (10_000, 4400, 0.5, 0.03),
    ],
)
def test_the_interval_holds_the_whole_figure(count, standing, share, precision):
    broken = np.arange(standing) < round(share * standing)
    figure = (standing - broken.sum()) / count
    found = [_drawn(broken, count, precision, seed) for seed in range(300)]
    held = np.mean([e.low <= figure <= e.high for e in found])
    # 95 % at least in truth; three deviations of 300 draws below it are 91 %.
    assert held >= 0.95 - 3 * np.sqrt(0.95 * 0.05 / 300)
    assert np.mean([e.accuracy for e in found]) == pytest.approx(
        figure, abs=precision / 4
    )
    assert np.mean([(e.high - e.low) / 2 for e in found]) <= 1.02 * precision
    assert np.mean([e.num_sampled for e in found]) < 0.7 * standing


def test_a_sample_of_everything_is_the_figure():
    found = estimate.from_counts(1000, 300, (100, 7), (200, 13))
    assert found.is_whole
    assert found.low == found.high == pytest.approx(found.accuracy)
    assert found.accuracy == pytest.approx(0.28)


def test_an_interval_by_hand():
    """Two of four are seen, one broken: one, two or three are in all.

    With 1 of 4 broken, a sample of 2 holds one with chance ½; likewise with 2
    (4/6) and with 3 (½). None and four cannot be.
    """
    found = estimate.from_counts(10, 4, (0, 0), (2, 1))
    assert (found.low, found.high) == (0.1, pytest.approx(0.3))


def test_all_are_drawn_where_the_precision_asks_for_it():
    assert estimate.sample_size(100, 60, 50, 5, 1e-6) == 10
    assert estimate.sample_size(100, 60, 60, 5, 1e-6) == 0


@pytest.mark.parametrize("precision", [0, 0.5, -0.01])
def test_refuses(precision):
    with pytest.raises(InputError, match="a precision above 0"):
        estimate.expect_precision(precision)


def test_more_precision_goes_on_from_the_ledger(tmp_path, monkeypatch):
    monkeypatch.setattr(estimate, "PILOT", 10)
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
        return estimate.estimate(
            first, lambda i: judge().standing_of(attacks, i), precision, 0
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
