"""Computes what reports set side by side: accuracies, radii, classes, tests.

Everything is counted from results.json and from the ledger's lines; no network
is run.
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from atat_tf.attacks import columns
from atat_tf.evaluation import figures, ledger
from atat_tf.evaluation.checklist import points
from atat_tf.evaluation.run import Run
from atat_tf.evaluation.statistics import intervals, likeness
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
      basis: the images, and the attacks in order.
      stands: bool [n], which images withstand it; None where the ledger does
        not tell.
      is_estimate: whether some attacks met a sample of the images only.
      is_within: whether its attacks stay in the run's threat model, as far as
        is known.
    """

    accuracy: float
    count: int
    interval: tuple[float, float]
    basis: likeness.Basis = likeness.Basis()
    stands: np.ndarray | None = None
    is_estimate: bool = False
    is_within: bool = True


def measured(run: Run) -> dict[str, Column]:
    """Returns {column: Column} of a run, AutoAttack as "autoattack".

    Columns of results.json come first, then those that a table has recorded
    of the same weights, images and seed.

    Args:
      run: evaluated or not.

    Raises:
      InputError: a file is not what `evaluate` writes.
    """
    found = {}
    results, lines = run.results, run.ledger
    if results:
        count = results["num_images"]
        bases = likeness.bases(results)
        estimates = results.get("estimates", {})
        of_all = {_name(name) for name in results["accuracy"]}
        accuracies = results["accuracy"] | {
            name: on["accuracy"]
            for name, on in estimates.items()
            if _name(name) not in of_all
        }
        for name, accuracy in accuracies.items():
            basis = bases[name]
            is_estimate = name not in results["accuracy"]
            stands = None
            if lines and name in results["attacks"] and not is_estimate:
                stands = lines.standing(basis.attacks, count)
            if is_estimate and not basis.attacks:  # an older file
                basis = basis._replace(
                    attacks=tuple(columns.descriptions(run.attacks(name)))
                )
            interval = (
                (estimates[name]["low"], estimates[name]["high"])
                if is_estimate
                else intervals.wilson(round(accuracy * count), count)
            )
            found[_name(name)] = Column(
                accuracy, count, interval, basis, stands, is_estimate
            )
    for name, column in _recorded(run, results, lines).items():
        known = found.get(_name(name))
        # One of all images takes an estimate's place.
        if not known or (known.is_estimate and column.count >= known.count):
            found[_name(name)] = column
    return {
        name: dataclasses.replace(
            column,
            is_within=figures.in_threat_model(run.config, run.attacks(name)),
        )
        for name, column in found.items()
    }


def _name(column):
    return "autoattack" if column in columns.AUTOATTACK else column


def _recorded(run, results, lines):
    """Returns {column: Column} of a table's record, of what results.json is."""
    found = {}
    for part, name, stands in table_records.recorded(run.folder, "frozen"):
        mark = part["identity"]
        if results and not (lines and lines.identity == mark):
            continue
        right, count = int(np.sum(stands)), len(stands)
        interval = intervals.wilson(right, count)
        attacks = tuple(part["columns"][name])
        basis = likeness.Basis(mark["data"], mark["bn_eval"], attacks)
        found[name] = Column(right / count, count, interval, basis, stands)
    return found


def headline(
    of_run: Mapping[str, Column], of_teacher: Mapping[str, Column]
) -> list[dict[str, Any]]:
    """Returns the few accuracies that matter, as texts in percent.

    Args:
      of_run, of_teacher: from `measured`; the teacher's may be empty.

    Returns:
      [{title, value, interval, images, teacher, is_estimate, bn_eval}]; value
      is None where the column was not run. teacher is the other's value; None
      where there is none, or one of other images or attacks.
    """
    cards = []
    for name, title in HEADLINE.items():
        column, other = of_run.get(name), of_teacher.get(name)
        if column and other and not column.basis.is_like(other.basis):
            other = None
        cards.append(
            {
                "title": title,
                "value": column and _percent(column.accuracy),
                "interval": column
                and " to ".join(map(_percent, column.interval)),
                "images": column and f"{column.count:,}",
                "teacher": other and _percent(other.accuracy),
                "is_estimate": bool(column and column.is_estimate),
                "bn_eval": column and column.basis.bn_eval,
            }
        )
    return cards


def _percent(share):
    return f"{100 * share:.1f}"


def checklist_of(run: Run) -> tuple[dict[str, Any] | None, str]:
    """Returns the checklist of a run's figures, and why there is none.

    The second is "" unless checklist.json is of others than results.json.

    Args:
      run: any.
    """
    found = run.checklist
    others = likeness.of_others(run.results or {}, found or {})
    return (None, f"of {others}") if others else (found, "")


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


def accuracy_at_radii(run: Run) -> tuple[dict[float, float], int]:
    """Returns {255 ε: percent} of PGD-20, and of how many images it is.

    An attack's step grows with the radius, as that of the column `pgd20@4/255`
    and of the checklist. All figures are on the same images: those of
    results.json, or else those of the checklist.

    Args:
      run: any.

    Returns:
      As far as the ledger tells: 0 is the clean accuracy. {} and 0 where fewer
      than two radii were run.
    """
    lines, results = run.ledger, run.results
    if not lines or not results:
        return {}, 0
    counts = [results["num_images"], (run.checklist or {}).get("num_images")]
    for count in filter(None, counts):
        stands = {
            radius: lines.standing(_at_radius(run.config.attack, radius), count)
            for radius in (0, *RADII)
        }
        accuracies = {
            radius: 100 * float(np.mean(stand))
            for radius, stand in stands.items()
            if stand is not None
        }
        if len(accuracies.keys() - {0}) >= 2:
            return accuracies, count
    return {}, 0


def radii_basis(run: Run) -> tuple:
    """Returns what runs have in common whose `accuracy_at_radii` compare."""
    attack = run.config.attack
    basis = likeness.basis(run.results) if run.results else None
    return basis, float(attack.epsilon), float(attack.step_size)


def on_images(radii: Mapping[str, tuple[Mapping, int]]) -> str:
    """Returns on how many images there are accuracies at radii, in words.

    Args:
      radii: {title: from `accuracy_at_radii`}.
    """
    counts = {title: count for title, (_, count) in radii.items() if count}
    if len({*counts.values()}) == 1:
        return f"on the first {max(counts.values()):,} images"
    return ", ".join(
        f"{title} on the first {count:,} images"
        for title, count in counts.items()
    )


def _at_radius(attack, radius):
    """Returns the descriptions of what attacks at a radius; [] for 0."""
    if not radius:
        return []
    built = columns.column(
        f"pgd{_STEPS}@{radius}/255", attack.epsilon, attack.step_size, 2
    )
    return columns.descriptions(built)


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

    Of those in the threat model that the ledgers of all runs have, of the same
    attacks on the same images, with the same statistics; None where there is
    none.

    Args:
      runs: from `measured`, one at least.
    """
    first = runs[0]
    shared = [
        name
        for name, column in first.items()
        if column.basis.attacks
        and column.is_within
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
        and column.count == other.count
        and column.basis.is_like(other.basis)
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
    columns of the same attacks, images and batch-norm statistics.

    Args:
      runs: {title: from `measured`}.

    Returns:
      [{column, first, second, images, only_first, only_second, p}].
    """
    tests = []
    for first, second in itertools.combinations(runs, 2):
        for name in runs[first]:
            both = [runs[title].get(name) for title in (first, second)]
            if any(column is None or column.stands is None for column in both):
                continue
            if not both[0].basis.is_like(both[1].basis):
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
