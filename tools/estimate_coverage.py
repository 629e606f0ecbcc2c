"""Asks the archived ledgers how often an estimate's interval holds the figure.

  PYTHONPATH=. python tools/estimate_coverage.py --precision=2 --orders=1000

Of each archived network with AutoAttack on its images, the images are drawn in
many orders, as `evaluate --precision` would draw them in one. The verdicts are
the ledger's: no network runs. Passes are the share of the whole evaluation's
forward and backward passes, counted by the steps of each line, and seconds the
share of its time, summed over the lines. The first order alone, --orders=1, is
that of an evaluation with seed 0. The lines "ten
times" are of each image ten times over, at ± 1 point. `reference_small` has all
10,000 images, at ± 1 point. The last lines are simulated, for 10,000 images
whose margins tell nothing.
"""

import pathlib
import re

import numpy as np
from absl import flags

from atat_tf.attacks import columns, stepped
from atat_tf.evaluation import ledger
from atat_tf.evaluation.statistics import estimate
from atat_tf.reports.tables import records
from atat_tf.runs import command_line
from atat_tf.runs import folder as run_folder

_RESULTS = pathlib.Path(__file__).parents[1] / "results"
_RUNS = _RESULTS / "small" / "cifar10"
# A hardened network with AutoAttack on 10,000 images.
_WHOLE = _RESULTS / "reference_small"
_PRECISION = flags.DEFINE_float("precision", 2.0, "in points", 0.01, 49.0)
_ORDERS = flags.DEFINE_integer("orders", 1000, "of the images", 1)
# (images, those that stand after the first attack, share that the rest breaks)
_SIMULATED = ((10_000, 2_700, 0.12), (10_000, 4_400, 0.08))


def main(argv: list[str]) -> None:
    del argv
    print(
        "network, images, standing, figure: held, half a width, sampled, "
        "passes, seconds"
    )
    for path in sorted(_RUNS.glob("*/seed0")):
        for part in (records.read(path, "frozen") or {"parts": []})["parts"]:
            for attacks in part["columns"].values():
                if len(attacks) > 1:
                    book = ledger.Ledger(path / ledger.FILE, part["identity"])
                    name = path.parent.name
                    found = _verdicts(book, attacks, part["num_images"])
                    _print(name, *found, _PRECISION.value / 100)
                    ten = (np.concatenate([of] * 10) for of in found)
                    _print(f"{name} ten times", *ten, 0.01)
    results = run_folder.read_json(_WHOLE / run_folder.RESULTS)
    book = ledger.of_results(_WHOLE, results)
    attacks = results["attacks"]["autoattack"]
    found = _verdicts(book, attacks, results["num_images"])
    _print(_WHOLE.name, *found, 0.01)
    for count, standing, share in _SIMULATED:
        first = np.arange(count) < standing
        whole = np.arange(count) < round(standing * (1 - share))
        # The margins tell nothing.
        margins = np.random.default_rng(0).uniform(size=count)
        _print("simulated", first, margins, whole, None, 0.01)


def _verdicts(book, attacks, count):
    """Returns who stands after the first attack, margins, who stands, costs.

    Args:
      book, attacks, count: as for `_costs`.
    """
    return (
        book.standing(attacks[:1], count),
        book.margins(attacks[0], count),
        book.standing(attacks, count),
        _costs(book, attacks, count),
    )


def _costs(book, attacks, count):
    """Returns what the first attack and the others take, [n, 2, 2].

    Passes and seconds, of each image. The passes of one that an attack does not
    break are all of its steps, of another those up to the step that does.
    Images leave their batch a few steps later, in both evaluations.

    Args:
      book: the run's ledger.
      attacks: descriptions of a column's attacks, in order.
      count: n.
    """
    a_step = {
        type(attack).__name__: stepped.passes_a_step(attack)
        for attack in columns.column("autoattack", 8 / 255, 2 / 255, 10)
    }
    costs, before = np.zeros((count, 2, 2)), ()
    for name in attacks:
        kind, num_steps = re.match(r"(\w+)\(.*num_steps=(\d+)", name).groups()
        lines = book.verdicts(name)
        for index in np.flatnonzero(book.standing(before, count)):
            step = lines[index]["step"]
            steps = int(num_steps) if step is None else step
            spent = steps * a_step[kind], lines[index]["seconds"]
            costs[index, min(len(before), 1)] += spent
        before += (name,)
    return costs


def _print(name, first, margins, whole, costs, precision):
    met: list[np.ndarray] = []

    def stand(indices):
        met.append(indices)
        return whole[indices]

    found = [
        estimate.estimate(first, margins, stand, precision, seed)
        for seed in range(_ORDERS.value)
    ]
    figure = np.mean(whole)
    held = np.mean([e.low - 1e-9 <= figure <= e.high + 1e-9 for e in found])
    half = np.mean([(e.high - e.low) / 2 for e in found])
    sampled = np.mean([e.num_sampled for e in found]) / max(first.sum(), 1)
    print(
        f"{name}, {len(first)}, {first.sum()}, {100 * figure:.2f} %: "
        f"{100 * held:.1f} %, {100 * half:.2f} points, {100 * sampled:.0f} %"
        + _shares(costs, met)
    )


def _shares(costs, met):
    """Returns ", 1/6.0, 1/5.0": what estimates take of what all images take."""
    if costs is None:
        return ""
    by_first, by_others = np.moveaxis(costs, 1, 0)
    of_others = sum(by_others[indices].sum(0) for indices in met)
    taken = by_first.sum(0) + of_others / _ORDERS.value
    return "".join(f", 1/{share:.1f}" for share in costs.sum((0, 1)) / taken)


if __name__ == "__main__":
    command_line.run(main, recipes=False)
