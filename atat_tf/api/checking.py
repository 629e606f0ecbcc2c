"""The checklist of a classifier: can its robustness be believed?

The examples have `model`, `x` and `y` of `robustness`.
"""

import dataclasses
import pathlib
import tempfile
from collections.abc import Sequence
from typing import Any

from numpy.typing import ArrayLike

from atat_tf.api import arrays, notebook
from atat_tf.api.pixels import Bounds
from atat_tf.errors import expect, with_checked_types
from atat_tf.evaluation.checklist import gates, points
from atat_tf.evaluation.checklist import run as checklists

# What is asked of a run folder's files.
_OF_FOLDERS = ("worst_case", "checkpoint")


@dataclasses.dataclass(frozen=True, repr=False)
class Checklist:
    """The points of a checklist.

    Attributes:
      points: a `points.Point` for each criterion, with `name`, `verdict`
        ("PASS", "FAIL" or "NOT RUN"), `figure`, `threshold` and `note`.
    """

    points: tuple[points.Point, ...]

    @property
    def passed(self) -> bool:
        """Whether no point failed, and one at least was decided."""
        verdicts = {point.verdict for point in self.points}
        return points.FAIL not in verdicts and points.PASS in verdicts

    @property
    def failed(self) -> tuple[str, ...]:
        """The names of the points that failed."""
        return tuple(p.name for p in self.points if p.verdict == points.FAIL)

    def __repr__(self) -> str:
        return "\n".join(
            f"{point.verdict:<8}{point.compared}: {point.note}"
            for point in self.points
        )

    def _repr_html_(self) -> str:
        rows = [(p.verdict, p.compared, p.note) for p in self.points]
        counts = points.counted(point.verdict for point in self.points)
        return notebook.table(rows, ("verdict", "point", "why"), counts)


@with_checked_types
def checklist(
    model: Any,
    x: ArrayLike,
    y: ArrayLike,
    *,
    epsilon: float = 8 / 255,
    bounds: Bounds = (0, 1),
    teacher: Any = None,
    minimum_images: int = checklists.MINIMUM_IMAGES,
    seed: int = 0,
    batch_size: int = 100,
    class_names: Sequence[str] | None = None,
) -> Checklist:
    """Returns whether a classifier's robustness can be believed.

    Attacks that should be weaker are compared with those that should be
    stronger (Athalye et al. 2018, Carlini et al. 2019): where the order is
    turned around, gradients mislead and PGD's figure is too high.

    Example:
      >>> points = atat.checklist(model, x, y, epsilon=8 / 255)
      >>> points.points[0].name, points.points[0].verdict
      ('logits', 'PASS')

    Args:
      model, x, y, epsilon, bounds, seed, batch_size, class_names: as for
        `robust_accuracy`.
      teacher: a classifier of the same images without a defense, which the
        same attacks must break; None leaves these points out.
      minimum_images: n below which no point is decided that needs statistics.

    Returns:
      Checklist; about a dozen attacks of 20 steps and more are run for it.

    Raises:
      InputError: bad arguments, or a classifier or teacher without a gradient.
    """
    expect(
        minimum_images >= 1,
        "minimum_images >= 1",
        minimum_images=minimum_images,
    )
    expect(
        teacher is None or callable(teacher),
        "a Keras model or a function as the teacher",
        teacher=teacher,
    )
    examples = arrays.examples(model, x, y, bounds, class_names)
    expect(
        examples.classifier.has_gradient,
        "a classifier with a gradient from its scores to the images",
        model=type(model),
    )
    others = None
    if teacher is not None:
        others = arrays.examples(teacher, x, y, bounds, class_names)
        expect(
            others.classifier.has_gradient,
            "a teacher with a gradient from its scores to the images",
            teacher=type(teacher),
        )
    radius = examples.pixels.epsilon_in_unit(epsilon)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "ledger.jsonl"
        opened = arrays.opened(examples, radius, path, seed, batch_size)
        twin = None
        if others is not None:
            twin = arrays.opened(others, radius, path, seed, batch_size)
        quality = None
        with arrays.quiet_traces():
            if examples.classifier.is_keras:
                quality = gates.explained(opened)
            decided = checklists.decided_points(
                opened, twin, minimum=minimum_images, quality=quality
            )
    return Checklist(
        tuple(point for point in decided if point.name not in _OF_FOLDERS)
    )
