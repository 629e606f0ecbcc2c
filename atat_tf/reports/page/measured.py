"""Computes what reports set side by side: accuracies, radii, classes, tests.

Everything is counted from results.json and from the ledger's lines; no network
is run.
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from atat_tf.attacks import columns, linf
from atat_tf.evaluation import intervals, ledger
from atat_tf.evaluation.checklist import points
from atat_tf.evaluation.run import Run
from atat_tf.reports.tables import records as table_records

# What the first screen shows, in order.
HEADLINE = {"clean": "clean", "pgd20": "PGD-20", "autoattack": "AutoAttack"}
# ε · 255 at which accuracy is looked up in the ledger.
RADII = (1, 2, 4, 8, 16, 32)
_STEPS = 20


@dataclasses.dataclass(frozen=True)
class Column:
    """Accuracy under one column of attacks.

    Attributes:
      accuracy: share of the images, in [0, 1].
      count: n, the first so many test images.
      interval: (low, high), 95 %: Wilson's, or that of an estimate.
      attacks: their descriptions, in order.
      stands: bool [n], which images withstand it; None where the ledger does
        not tell.
      is_estimate: whether some attacks met a sample of the images only.
    """

    accuracy: float
    count: int
    interval: tuple[float, float]
    attacks: tuple[str, ...] = ()
    stands: np.ndarray | None = None
    is_estimate: bool = False


def measured(run: Run) -> dict[str, Column]:
    """Returns {column: Column} of a run, AutoAttack as "autoattack".

    Columns of results.json come first, then those that a table has recorded
    of the same weights.

    Args:
      run: evaluated or not.

    Raises:
      InputError: a file is not what `evaluate` writes.
    """
    found = {}
    results = run.results
    if results:
        count, lines = results["num_images"], run.ledger
        estimates = results.get("estimates", {})
        of_all = {_name(name) for name in results["accuracy"]}
        accuracies = results["accuracy"] | {
            name: on["accuracy"]
            for name, on in estimates.items()
            if _name(name) not in of_all
        }
        for name, accuracy in accuracies.items():
            attacks = tuple(results["attacks"].get(name, ()))
            is_estimate = name not in results["accuracy"]
            stands = None
            if lines and name in results["attacks"] and not is_estimate:
                stands = lines.standing(attacks, count)
            interval = (
                (estimates[name]["low"], estimates[name]["high"])
                if is_estimate
                else intervals.wilson(round(accuracy * count), count)
            )
            found[_name(name)] = Column(
                accuracy, count, interval, attacks, stands, is_estimate
            )
    for name, column in _recorded(run, results).items():
        found.setdefault(_name(name), column)
    return found


def _name(column):
    return "autoattack" if column in columns.AUTOATTACK else column


def _recorded(run, results):
    """Returns {column: Column} of a table's record of the same weights."""
    found = {}
    for part, name, stands in table_records.recorded(run.folder, "frozen"):
        digest = part["identity"]["weights"]
        if results and digest != results.get("weights_digest"):
            continue
        right, count = int(np.sum(stands)), len(stands)
        interval = intervals.wilson(right, count)
        attacks = tuple(part["columns"][name])
        found[name] = Column(right / count, count, interval, attacks, stands)
    return found


def headline(
    of_run: Mapping[str, Column], of_teacher: Mapping[str, Column]
) -> list[dict[str, Any]]:
    """Returns the few accuracies that matter, as texts in percent.

    Args:
      of_run, of_teacher: from `measured`; the teacher's may be empty.

    Returns:
      [{title, value, interval, images, teacher, is_estimate}]; value is None
      where the column was not run, teacher is the other's value or None.
    """
    cards = []
    for name, title in HEADLINE.items():
        column, other = of_run.get(name), of_teacher.get(name)
        cards.append(
            {
                "title": title,
                "value": column and _percent(column.accuracy),
                "interval": column
                and " to ".join(map(_percent, column.interval)),
                "images": column and f"{column.count:,}",
                "teacher": other and _percent(other.accuracy),
                "is_estimate": bool(column and column.is_estimate),
            }
        )
    return cards


def _percent(share):
    return f"{100 * share:.1f}"


def checked(checklist: Mapping[str, Any] | None) -> str:
    """Returns the sum of a checklist, as "17 PASS, 0 FAIL, 5 NOT RUN"."""
    if not checklist:
        return ""
    verdicts = [point["verdict"] for point in checklist["points"]]
    return points.counted(verdicts, len(not_asked(checklist)))


def not_asked(checklist: Mapping[str, Any] | None) -> list[str]:
    """Returns the points, in words, that came after a checklist was made."""
    if not checklist:
        return []
    there = {point["name"] for point in checklist["points"]}
    return [c.compared for c in points.CRITERIA if c.name not in there]


def accuracy_at_radii(run: Run) -> dict[float, float]:
    """Returns {255 ε: percent} of PGD-20, as far as the ledger tells.

    An attack has the config's step, as the column `pgd20@4/255`, or one that
    grows with the radius, as the checklist's. All figures are on the same
    images: those of results.json, or else those of the checklist.

    Args:
      run: any.

    Returns:
      0 is the clean accuracy; {} where fewer than two radii were run.
    """
    lines, results = run.ledger, run.results
    if not lines or not results:
        return {}
    counts = [results["num_images"], (run.checklist or {}).get("num_images")]
    for count in filter(None, counts):
        accuracies = {
            radius: lines.standing(attacks, count)
            for radius in (0, *RADII)
            for attacks in _at_radius(run.config.attack, radius)
            if lines.standing(attacks, count) is not None
        }
        if len(accuracies.keys() - {0}) >= 2:
            return {
                radius: 100 * float(np.mean(stands))
                for radius, stands in accuracies.items()
            }
    return {}


def _at_radius(attack, radius):
    """Returns the lists of one attack's description that count at a radius."""
    if not radius:
        return [[]]
    epsilon = radius / 255
    ratio = attack.step_size / attack.epsilon
    return [
        [columns.description(linf.pgd(epsilon, step_size, _STEPS))]
        for step_size in (epsilon * ratio, attack.step_size)
    ]


def truth(run: Run) -> tuple[np.ndarray, np.ndarray] | None:
    """Returns the labels of the first images, and which are right unattacked.

    Args:
      run: evaluated or not.

    Returns:
      Integers [n] and bool [n], of as many images as the ledger has from the
      first one on; None without a ledger.
    """
    lines = run.ledger
    if not lines:
        return None
    known = lines.verdicts(ledger.CLEAN)
    count = next(index for index in itertools.count() if index not in known)
    labels = [known[index]["label"] for index in range(count)]
    right = [not known[index]["broken"] for index in range(count)]
    return np.array(labels, int), np.array(right, bool)


def strongest(runs: Sequence[Mapping[str, Column]]) -> str | None:
    """Returns the column that leaves the fewest images right in the first run.

    Of those that the ledgers of all runs have, of the same attacks on the same
    images; None where there is none.

    Args:
      runs: from `measured`, one at least.
    """
    first = runs[0]
    shared = [
        name
        for name, column in first.items()
        if column.attacks
        and all(_is_same(of_run.get(name), column) for of_run in runs)
    ]
    # Of equals the last: tables go from weak to strong.
    return min(
        reversed(shared), key=lambda name: first[name].accuracy, default=None
    )


def _is_same(column, other):
    return (
        column is not None
        and column.stands is not None
        and (column.attacks, column.count) == (other.attacks, other.count)
    )


def by_class(
    column: Column,
    of_images: tuple[np.ndarray, np.ndarray] | None,
    class_names: Sequence[str],
) -> list[dict[str, Any]]:
    """Returns the accuracy of each class, the least robust first.

    Args:
      column: of a run; one without verdicts has no classes.
      of_images: from `truth` of the same run.
      class_names: k strings.

    Returns:
      [{name, number, images, clean, attacked}], percents; without classes of
      no image.
    """
    if of_images is None or column.stands is None:
        return []
    labels, clean = (values[: column.count] for values in of_images)
    rows = []
    for number, name in enumerate(class_names):
        own = labels == number
        if own.any():
            rows.append(
                {
                    "name": name,
                    "number": number,
                    "images": int(own.sum()),
                    "clean": 100 * float(np.mean(clean[own])),
                    "attacked": 100 * float(np.mean(column.stands[own])),
                }
            )
    return sorted(rows, key=lambda row: (row["attacked"], row["clean"]))


def paired(
    runs: Mapping[str, Mapping[str, Column]],
) -> list[dict[str, Any]]:
    """Returns exact McNemar tests of every two runs, column by column.

    Only the first test images that both were evaluated on count, and only
    columns of the same attacks.

    Args:
      runs: {title: from `measured`}, on the same test split.

    Returns:
      [{column, first, second, images, only_first, only_second, p}].
    """
    tests = []
    for first, second in itertools.combinations(runs, 2):
        for name in runs[first]:
            both = [runs[title].get(name) for title in (first, second)]
            if any(column is None or column.stands is None for column in both):
                continue
            if both[0].attacks != both[1].attacks:
                continue
            count = min(column.count for column in both)
            b, c, p = intervals.mcnemar(
                *(column.stands[:count] for column in both)
            )
            tests.append(
                {
                    "column": HEADLINE.get(name, name),
                    "first": first,
                    "second": second,
                    "images": count,
                    "only_first": b,
                    "only_second": c,
                    "p": p,
                }
            )
    return tests
