"""What a classifier's accuracy under attacks is, at one radius or several."""

import dataclasses
import math

import numpy as np
from numpy.typing import NDArray

from atat_tf.api import notebook
from atat_tf.attacks import radii as attack_radii
from atat_tf.errors import expect
from atat_tf.evaluation.statistics import intervals
from atat_tf.evaluation.statistics.estimate import Estimate


@dataclasses.dataclass(frozen=True)
class Robustness:
    """Which images a classifier gets right under which attack.

    Attributes:
      stands: {attack: bool [n]}, right, and right under the attack.
      epsilon: ε, as it was given.
      norm: "linf" or "l2".
      refuted: candidates that broke an image in its batch and not alone, or
        left ball or box; they count as not broken.
      images: {attack: float32 [n, H, W, C]}, see `adversarial`, of the
        attacks that ran on all images here; None with a ledger.
      estimates: {attack: `evaluation.statistics.estimate.Estimate`}, those
        that met a sample of the images; `stands` has none of them.
    """

    stands: dict[str, NDArray[np.bool_]]
    epsilon: float
    norm: str
    refuted: int
    images: dict[str, np.ndarray] | None = dataclasses.field(
        default=None, repr=False
    )
    estimates: dict[str, Estimate] = dataclasses.field(default_factory=dict)

    @property
    def num_images(self) -> int:
        """Number of the images, n."""
        for stands in self.stands.values():
            return len(stands)
        return next(iter(self.estimates.values())).num_images

    @property
    def accuracy(self) -> dict[str, float]:
        """Shares of the images that stand, in [0, 1], by attack."""
        shares = {name: float(np.mean(s)) for name, s in self.stands.items()}
        return shares | {n: e.accuracy for n, e in self.estimates.items()}

    @property
    def worst_case(self) -> float:
        """The share of images that stand under all attacks, in [0, 1].

        Raises:
          InputError: one of them met a sample of the images alone.
        """
        expect(
            not self.estimates,
            "attacks on all images (no precision) for a worst case",
            estimates=[*self.estimates],
        )
        return float(np.mean(np.all(list(self.stands.values()), axis=0)))

    @property
    def interval(self) -> dict[str, tuple[float, float]]:
        """Wilson 95 % intervals of the accuracies, (low, high), by attack.

        What other images of the same kind would do to it; see
        `intervals.wilson`. Of an estimate it is that of the figure on all of
        these images.
        """
        found = {
            name: intervals.wilson(int(s.sum()), len(s))
            for name, s in self.stands.items()
        }
        return found | {n: (e.low, e.high) for n, e in self.estimates.items()}

    @property
    def adversarial(self) -> dict[str, np.ndarray]:
        """Images in the caller's bounds, float32 [n, H, W, C], by attack.

        Where an image breaks, its adversarial example, and the last candidate
        where it does not. A misclassified image is as it was given, and so is
        every image under "clean".

        Raises:
          InputError: the verdicts are a ledger's, which holds no images, or
            an attack was run to a precision, on a sample of them.
        """
        images = self.images or {}
        without = [name for name in self.accuracy if name not in images]
        expect(
            not without,
            "robust_accuracy without a ledger, which holds no images, and "
            "without a precision, where a sample is attacked (or atat.attack)",
            without_images=without,
        )
        return images

    def __repr__(self) -> str:
        lines = [f"{self._title()}"]
        width = max(len(name) for name, *_ in self._rows())
        lines += [
            f"  {name:<{width}}  {share:>6}  [{interval}]"
            for name, share, interval in self._rows()
        ]
        if self.refuted:
            lines.append(f"  {self._refuted()}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        heads = ("attack", "accuracy, %", "95 %")
        note = f"<p>{self._refuted()}</p>" if self.refuted else ""
        return notebook.table(self._rows(), heads, self._title()) + note

    def _refuted(self):
        return (
            f"{self.refuted} candidates were refuted: their images count as "
            "right"
        )

    def _title(self):
        sign = {"linf": "ℓ∞", "l2": "ℓ2"}[self.norm]
        radius = _written(self.epsilon, self.norm)
        return f"{self.num_images:,} images, {sign}, ε = {radius}"

    def _rows(self):
        """Returns (name, share in %, interval in %) for each attack."""
        accuracy, interval = self.accuracy, self.interval
        rows = [
            (name, f"{100 * accuracy[name]:.2f}", _percent(interval[name]))
            for name in accuracy
        ]
        if self.estimates:
            return [
                (f"{name} (estimate)" if name in self.estimates else name, *row)
                for name, *row in rows
            ]
        if len(rows) > 1:
            standing = round(self.worst_case * self.num_images)
            worst = intervals.wilson(standing, self.num_images)
            share = f"{100 * self.worst_case:.2f}"
            rows.append(("worst case", share, _percent(worst)))
        return rows


def _written(epsilon, norm):
    """Returns ε as text, "8/255" where it is one of pixels in [0, 1]."""
    if norm == "linf" and epsilon < 1:
        return attack_radii.written(epsilon)
    return f"{epsilon:.4g}"


@dataclasses.dataclass(frozen=True)
class RobustnessCurve:
    """Accuracy under attack at several radii.

    Attributes:
      points: a Robustness for each radius, in the order given.
    """

    points: tuple[Robustness, ...]

    @property
    def epsilons(self) -> tuple[float, ...]:
        """The radii, as they were given."""
        return tuple(point.epsilon for point in self.points)

    @property
    def accuracy(self) -> dict[str, list[float]]:
        """The accuracy at each radius, by attack."""
        return {
            name: [point.accuracy[name] for point in self.points]
            for name in self.points[0].accuracy
        }

    @property
    def worst_case(self) -> list[float]:
        """The share of images that stand under all attacks, at each radius.

        NaN at radii where one of them met a sample of the images alone.
        """
        return [
            math.nan if point.estimates else point.worst_case
            for point in self.points
        ]

    def __repr__(self) -> str:
        return "\n".join(map(repr, self.points))

    def _repr_html_(self) -> str:
        names = list(self.points[0].accuracy)
        rows = [
            [
                _written(point.epsilon, point.norm),
                *(
                    f"{'about ' * (name in point.estimates)}"
                    f"{100 * point.accuracy[name]:.2f}"
                    for name in names
                ),
            ]
            for point in self.points
        ]
        return notebook.table(rows, ["ε", *(f"{name}, %" for name in names)])


def _percent(interval):
    low, high = interval
    return f"{100 * low:.2f}, {100 * high:.2f}"
