"""What counts of images are worth: spread, intervals, paired tests.

The tests are SciPy's. A number that is not defined is None.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from atat_tf.errors import expect


def mean_and_deviation(
    values: Sequence[float],
) -> tuple[float, float | None]:
    """Returns the mean of some seeds' values and their standard deviation.

    s = √(Σ (v − mean)² / (n − 1)); None for one seed, which has no spread.

    Args:
      values: at least one number.
    """
    expect(len(values) >= 1, "at least one value", values=values)
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return float(np.mean(values)), deviation


def wilson(successes: float, count: int) -> tuple[float, float]:
    """Returns the Wilson 95 % interval of a share (Wilson 1927).

    (p + z²/2n ± z √(p(1 − p)/n + z²/4n²)) / (1 + z²/n), z = 1.96: what images
    drawn anew would do to the share, not what training anew would.

    Args:
      successes: how many of the images; a mean over seeds need not be whole.
      count: n, the images.

    Returns:
      (low, high), in [0, 1].
    """
    expect(count >= 1, "at least one image", count=count)
    expect(
        0 <= successes <= count,
        f"successes from 0 to {count}",
        successes=successes,
    )
    z = float(stats.norm.ppf(0.975))
    share = successes / count
    middle = share + z * z / (2 * count)
    half = z * math.sqrt(
        share * (1 - share) / count + z * z / (4 * count * count)
    )
    scale = 1 + z * z / count
    low, high = (middle - half) / scale, (middle + half) / scale
    return max(low, 0.0), min(high, 1.0)


def is_above_chance(accuracy: float, count: int, num_classes: int) -> bool:
    """Returns whether a classifier is better than one that guesses.

    Whether p > 1/k + 2 · √(1/k (1 − 1/k) / n), two standard errors of the
    guesses.

    Args:
      accuracy: p, the share of the images that are right.
      count: n, the images.
      num_classes: k.
    """
    chance = 1 / num_classes
    return accuracy > chance + 2 * math.sqrt(chance * (1 - chance) / count)


def mcnemar(first: ArrayLike, second: ArrayLike) -> tuple[int, int, float]:
    """Returns the exact McNemar test of two rows on the same images.

    Of the b + c images that only one of them withstands, each falls to either
    side with probability ½ if both rows are equally good; p is two-sided.

    Args:
      first: bool [n], what the first row withstands.
      second: bool [n].

    Returns:
      b (only the first), c (only the second) and p.
    """
    first, second = np.asarray(first, bool), np.asarray(second, bool)
    expect(
        first.shape == second.shape,
        "the same images",
        first=len(first),
        second=len(second),
    )
    only_first = int(np.sum(first & ~second))
    only_second = int(np.sum(second & ~first))
    differing = only_first + only_second
    if not differing:
        return 0, 0, 1.0
    p = stats.binomtest(only_first, differing, 0.5).pvalue
    return only_first, only_second, float(p)


def correlations(
    values: ArrayLike, broken: ArrayLike
) -> dict[str, float | None]:
    """Returns how a number of each image goes with its being broken.

    Args:
      values: float [n].
      broken: bool [n].

    Returns:
      {"point_biserial": r, "point_biserial_p", "spearman": ρ, "spearman_p",
      "auc": the chance that a broken image's value is the higher one of a
      pair, ties counting half}; None each where all images or no image is
      broken, or all values are equal.
    """
    values = np.asarray(values, np.float64)
    broken = np.asarray(broken, bool)
    names = ("point_biserial", "spearman")
    if len(set(broken.tolist())) < 2 or np.ptp(values) == 0:
        fields = [f"{name}{end}" for name in names for end in ("", "_p")]
        return dict.fromkeys([*fields, "auc"])
    found = {}
    for name, test in zip(
        names, (stats.pointbiserialr, stats.spearmanr), strict=True
    ):
        result = test(broken, values)
        found[name] = float(result.statistic)
        found[f"{name}_p"] = float(result.pvalue)
    ranks = stats.mannwhitneyu(values[broken], values[~broken]).statistic
    pairs = int(broken.sum()) * int((~broken).sum())
    return {**found, "auc": float(ranks / pairs)}


def partial_spearman(
    values: Sequence[float], broken: Sequence[bool], given: Sequence[float]
) -> float | None:
    """Returns ρ of a number and being broken that a third does not explain.

    (ρ_vb − ρ_vg ρ_bg) / √((1 − ρ_vg²)(1 − ρ_bg²)) of Spearman's ρ.

    Args:
      values: float [n].
      broken: bool [n].
      given: float [n], the third number.

    Returns:
      float in [−1, 1]; None where one of them does not vary, or the third
      orders the images as one of the others does.
    """
    rows = np.stack([np.asarray(row, float) for row in (values, broken, given)])
    if np.any(np.ptp(rows, axis=1) == 0):
        return None
    ranks = np.corrcoef(stats.rankdata(rows, axis=1))
    both, first, second = ranks[0, 1], ranks[0, 2], ranks[1, 2]
    left = (1 - first**2) * (1 - second**2)
    if left < 1e-12:
        return None
    return float((both - first * second) / np.sqrt(left))
