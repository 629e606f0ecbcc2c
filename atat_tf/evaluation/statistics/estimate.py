"""AutoAttack's accuracy to a stated precision, from a sample of the images.

All n images meet the first attack of a column, which is cheap where images
break; m of them stand. The column's other attacks are run on a sample of the m.
If they break d of all m, the accuracy under the whole column is (m − d) / n,
and d is known from the sample.

Two strata are sampled apart (Cochran 1977, section 5.5), since an image with a
small margin under the first attack is likely to be broken by another: the m
images in the order of their margins, cut once, at a fixed share. Where margins
tell nothing, this costs a few images and no coverage.

Each stratum's sample has two parts, in an order drawn by the seed. A pilot says
how many images are needed; the interval comes from the second part alone, whose
size does not depend on its own outcome, so that it is exact. The number broken
in a stratum, of those not in the pilot, has a p-value by the hypergeometric
distribution (Buonaccorsi 1987). A total is in the interval if some numbers with
this sum have a product of p-values that is not too small: a product of h
independent ones is below c with a chance of P(χ²(2h) > −2 ln c) at most (Fisher
1932).

The interval is about the n images at hand: with a chance of at least 95 % it
holds the figure that the whole column would give on them. What other images
would give is `intervals.wilson`'s question.
"""

import bisect
import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from scipy import stats

from atat_tf.errors import expect

# The share of the standing images, from the smallest margin up, that is the
# first stratum. In the archived ledgers it has nearly all that is broken.
_NEAR = 0.3
# Images in each stratum's pilot. That little breaks in the second stratum takes
# more images to see.
PILOTS = (20, 50)
_ALPHA = 0.05


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Accuracy under a column of attacks, from a sample.

    Attributes:
      accuracy: the estimate, a share of the images.
      low, high: its 95 % interval for the n images at hand.
      num_images: n, all of which met the first attack.
      num_standing: m, those that withstood it.
      num_sampled: those of them that met the other attacks, pilots included.
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


@dataclasses.dataclass(frozen=True)
class Stratum:
    """Some of the standing images, and what the other attacks did to a sample.

    Attributes:
      size: images in it.
      pilot: (images, those of them that were broken).
      sample: the same of the second part.
    """

    size: int
    pilot: tuple[int, int] = (0, 0)
    sample: tuple[int, int] = (0, 0)

    @property
    def population(self) -> int:
        """Images that the second part is drawn from."""
        return self.size - self.pilot[0]

    @property
    def unseen(self) -> int:
        """Images that are in neither part."""
        return self.population - self.sample[0]

    @property
    def broken_share(self) -> float:
        """What share of the unseen is likely to be broken.

        The second part's, whose size its outcome does not change. The pilot's
        where the precision asks for no second part.
        """
        for images, broken in (self.sample, self.pilot):
            if images:
                return broken / images
        return 0.0


def estimate(
    first: np.ndarray,
    margins: np.ndarray,
    stand: Callable[[np.ndarray], np.ndarray],
    precision: float,
    seed: int,
) -> Estimate:
    """Returns the accuracy under attacks to a precision.

    Args:
      first: bool [n], the images that withstand the first attack.
      margins: float [n], of the images under that attack; only their order
        counts.
      stand: images' indices [k] -> bool [k], which withstand all attacks.
        Called twice. With a ledger behind it, a smaller precision later goes
        on from there: the order of the images is the same.
      precision: half the width that the interval is to have, in (0, 0.5), as
        0.01 for a point. By chance it may be a little wider.
      seed: of the order in which images are drawn.
    """
    expect_precision(precision)
    order = np.random.default_rng(seed).permutation(len(first))
    drawn = order[first[order]]
    # Equal margins go by position, not by the order drawn: that would put the
    # early ones into one stratum, whose order would then be no random one.
    standing = np.flatnonzero(first)
    by_margin = standing[np.argsort(margins[standing], kind="stable")]
    is_near = np.isin(drawn, by_margin[: round(_NEAR * len(drawn))])
    groups = drawn[is_near], drawn[~is_near]

    def broken(parts):
        found = ~stand(np.concatenate(parts))
        ends = np.cumsum([len(part) for part in parts])[:-1]
        return [int(np.sum(part)) for part in np.split(found, ends)]

    pilots = [of[:size] for of, size in zip(groups, PILOTS, strict=True)]
    strata = [
        Stratum(len(group), (len(pilot), number))
        for group, pilot, number in zip(
            groups, pilots, broken(pilots), strict=True
        )
    ]
    sizes = sample_sizes(len(first), strata, precision)
    samples = [
        group[of.pilot[0] : of.pilot[0] + size]
        for group, of, size in zip(groups, strata, sizes, strict=True)
    ]
    return from_strata(
        len(first),
        [
            dataclasses.replace(of, sample=(len(sample), number))
            for of, sample, number in zip(
                strata, samples, broken(samples), strict=True
            )
        ],
    )


def expect_precision(precision: float) -> None:
    """Raises InputError unless a precision is one that can be asked for."""
    expect(
        0 < precision < 0.5,
        "a precision above 0 and below 0.5, a share of the images (0.01 is one "
        "point)",
        precision=precision,
    )


def from_strata(count: int, strata: Sequence[Stratum]) -> Estimate:
    """Returns the Estimate of what the samples have shown.

    Args:
      count: n.
      strata: of the standing images, with their samples.
    """
    standing = sum(of.size for of in strata)
    in_pilots = sum(of.pilot[1] for of in strata)
    in_samples = sum(of.sample[1] for of in strata)
    low, high = _broken_of(strata)
    # All that was seen is counted; only of the rest is anything guessed.
    rest = sum(of.unseen * of.broken_share for of in strata)
    return Estimate(
        accuracy=(standing - in_pilots - in_samples - rest) / count,
        low=(standing - in_pilots - high) / count,
        high=(standing - in_pilots - low) / count,
        num_images=count,
        num_standing=standing,
        num_sampled=standing - sum(of.unseen for of in strata),
        num_broken=in_pilots + in_samples,
    )


def sample_sizes(
    count: int, strata: Sequence[Stratum], precision: float
) -> list[int]:
    """Returns how many images to draw from each stratum after the pilots.

    The fewest whose interval is narrow enough if the samples break as many as
    the pilots let expect, shared out by Neyman's rule (Cochran 1977, section
    5.5): in proportion to a stratum's size times its standard deviation.

    Args:
      count: n.
      strata: with their pilots.
      precision: half the width of the interval, a share of n.
    """
    # Laplace's rule: a pilot that breaks nothing does not mean that nothing is.
    shares = [(of.pilot[1] + 1) / (of.pilot[0] + 2) for of in strata]
    weights = [
        max(of.population, 1) * np.sqrt(share * (1 - share))
        for of, share in zip(strata, shares, strict=True)
    ]

    def drawn(scale):
        return [
            min(of.population, int(np.ceil(scale * weight)))
            for of, weight in zip(strata, weights, strict=True)
        ]

    def is_narrow(scale):
        likely = [
            dataclasses.replace(of, sample=(size, round(size * share)))
            for of, size, share in zip(
                strata, drawn(scale), shares, strict=True
            )
        ]
        low, high = _broken_of(likely)
        return high - low <= 2 * precision * count

    # From one image of a stratum to all images of all strata.
    most = max(
        of.population / weight
        for of, weight in zip(strata, weights, strict=True)
    )
    scales = most * np.linspace(0, 1, 1001) ** 2
    narrow = bisect.bisect_left(scales[:-1], True, key=is_narrow)
    return drawn(scales[narrow])


def _broken_of(strata):
    """Returns a 95 % interval of how many are broken outside the pilots.

    The least and the greatest sum of numbers, one for each stratum, whose
    p-values have a product that is not too small, see above.
    """
    known = sum(of.sample[1] for of in strata if not of.unseen)
    guessed = [of for of in strata if of.unseen]
    if not guessed:
        return known, known
    least = -stats.chi2.isf(_ALPHA / 2, 2 * len(guessed)) / 2
    few, many = np.zeros(1), np.zeros(1)
    for of in guessed:
        of_few, of_many = _log_p_values(of)
        few = _best_sums(few, of_few, least)
        many = _best_sums(many, of_many, least)
    return (
        known + int(np.flatnonzero(many >= least)[0]),
        known + int(np.flatnonzero(few >= least)[-1]),
    )


def _log_p_values(stratum):
    """Returns ln P(as few broken in the sample) and ln P(as many), [2, N + 1].

    Of a population of N with 0 to N broken.
    """
    size, broken = stratum.sample
    numbers = np.arange(stratum.population + 1)
    given = stratum.population, numbers, size
    with np.errstate(divide="ignore"):  # ln 0: cannot be
        return (
            np.log(stats.hypergeom.cdf(broken, *given)),
            np.log(stats.hypergeom.sf(broken - 1, *given)),
        )


def _best_sums(first, second, least):
    """Returns max over i + j = k of first[i] + second[j], for each k.

    No number is above 0; sums below `least` may be −inf.
    """
    best = np.full(len(first) + len(second) - 1, -np.inf)
    possible = np.flatnonzero(second >= least)
    begin, end = possible[0], possible[-1] + 1
    for i in np.flatnonzero(first >= least):
        row = best[i + begin : i + end]
        np.maximum(row, first[i] + second[begin:end], out=row)
    return best
