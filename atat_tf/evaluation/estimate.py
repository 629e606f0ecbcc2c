"""AutoAttack's accuracy to a stated precision, from a sample of the images.

All n images meet the first attack of a column, which is cheap where images
break; m of them stand. The column's other attacks are run on a sample of the m
in an order drawn by the seed. If they break a share q of all m, the accuracy
under the whole column is (m / n) · (1 − q), and q is known from the sample.

The sample has two parts. A pilot says how many images are needed; the interval
comes from the second part alone, whose size does not depend on its own
outcome, so that it is exact: the number broken among those that are neither in
the pilot nor in the sample is bounded by the hypergeometric distribution
(Buonaccorsi 1987). It is about the n images at hand: with a chance of at least
95 % it holds the figure that the whole column would give on them. What other
images would give is `intervals.wilson`'s question.
"""

import bisect
import dataclasses
from collections.abc import Callable

import numpy as np
from scipy import stats

from atat_tf.errors import expect

PILOT = 100
_ALPHA = 0.05


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Accuracy under a column of attacks, from a sample.

    Attributes:
      accuracy: the estimate, a share of the images.
      low, high: its 95 % interval for the n images at hand.
      num_images: n, all of which met the first attack.
      num_standing: m, those that withstood it.
      num_sampled: those of them that met the other attacks, pilot included.
      num_broken: those that these broke.
    """

    accuracy: float
    low: float
    high: float
    num_images: int
    num_standing: int
    num_sampled: int
    num_broken: int

    @property
    def is_whole(self) -> bool:
        """Whether every image met every attack, so that nothing is guessed."""
        return self.num_sampled == self.num_standing


def estimate(
    first: np.ndarray,
    stand: Callable[[np.ndarray], np.ndarray],
    precision: float,
    seed: int,
) -> Estimate:
    """Returns the accuracy under attacks to a precision.

    Args:
      first: bool [n], the images that withstand the first attack.
      stand: images' indices [k] -> bool [k], which withstand all attacks.
        Called twice at most. With a ledger behind it, a smaller precision
        later goes on from there: the order of the images is the same.
      precision: half the width that the interval is to have, in (0, 0.5), as
        0.01 for a point. By chance it may be a little wider.
      seed: of the order in which images are drawn.
    """
    expect_precision(precision)
    count = len(first)
    order = np.random.default_rng(seed).permutation(count)
    drawn = order[first[order]]
    pilot = min(PILOT, len(drawn))
    broken = int(np.sum(~stand(drawn[:pilot])))
    more = sample_size(count, len(drawn), pilot, broken, precision)
    later = int(np.sum(~stand(drawn[pilot : pilot + more])))
    return from_counts(count, len(drawn), (pilot, broken), (more, later))


def expect_precision(precision: float) -> None:
    """Raises InputError unless a precision is one that can be asked for."""
    expect(
        0 < precision < 0.5,
        "a precision above 0 and below 0.5, a share of the images (0.01 is one "
        "point; --precision is in points)",
        precision=precision,
    )


def from_counts(
    count: int, standing: int, pilot: tuple[int, int], later: tuple[int, int]
) -> Estimate:
    """Returns the Estimate of what two samples have shown.

    Args:
      count: n.
      standing: m, of which both samples are drawn without replacement.
      pilot: how many there were in it, and how many of these were broken.
      later: the same of the second sample.
    """
    sampled, broken = pilot[0] + later[0], pilot[1] + later[1]
    unseen = standing - sampled
    low, high = _broken_of(standing - pilot[0], *later)
    # All that was seen is counted; only of the rest is anything guessed.
    rest = unseen * broken / max(sampled, 1)
    return Estimate(
        accuracy=(standing - broken - rest) / count,
        low=(standing - pilot[1] - high) / count,
        high=(standing - pilot[1] - low) / count,
        num_images=count,
        num_standing=standing,
        num_sampled=sampled,
        num_broken=broken,
    )


def sample_size(
    count: int, standing: int, pilot: int, broken: int, precision: float
) -> int:
    """Returns how many images to draw after the pilot.

    The smallest number whose interval is narrow enough if the share that is
    broken is as far from a half as the pilot makes sure of.

    Args:
      count: n.
      standing: m.
      pilot: images in it.
      broken: of these.
      precision: half the width of the interval, a share of n.
    """
    population = standing - pilot
    if not population:
        return 0
    likely = stats.binomtest(broken, pilot).proportion_ci(0.8)
    share = float(np.clip(0.5, likely.low, likely.high))
    deviation = float(stats.norm.ppf(1 - _ALPHA / 2)) * population
    # An exact interval is a little wider than the normal one.
    deviation *= np.sqrt(share * (1 - share)) / (0.98 * precision * count)
    # Drawn without replacement: (population − size) / (population − 1) of the
    # variance is left.
    size = population * deviation**2 / (population - 1 + deviation**2)
    return min(population, int(np.ceil(size)))


def _broken_of(population, size, broken):
    """Returns a 95 % interval of how many of a population are broken.

    All numbers under which a sample such as this one, or one farther from
    what they let expect, has a chance of 2.5 % at least on either side.
    """
    if size == population:
        return broken, broken
    fewest, most = broken, population - (size - broken)

    def too_few(number):
        return stats.hypergeom.sf(broken - 1, population, number, size)

    def too_many(number):
        return -stats.hypergeom.cdf(broken, population, number, size)

    possible = range(fewest, most + 1)
    # Both rise with the number: the first that is likely enough, and the last.
    first = bisect.bisect_right(possible, _ALPHA / 2, key=too_few)
    last = bisect.bisect_left(possible, -_ALPHA / 2, key=too_many) - 1
    return possible[first], possible[last]
