"""Asks the archived ledgers how often an estimate's interval holds the figure.

  PYTHONPATH=. python tools/estimate_coverage.py --precision=2 --orders=1000

Of each archived network with AutoAttack on its images, the images are drawn in
many orders, as `evaluate --precision` would draw them in one. The verdicts are
the ledger's: no network runs. The last lines are simulated, for 10,000 images.
"""

import pathlib

import numpy as np
from absl import app, flags

from atat_tf.evaluation import estimate, ledger
from atat_tf.reports.tables import records

_RUNS = pathlib.Path(__file__).parents[1] / "results" / "small" / "cifar10"
_PRECISION = flags.DEFINE_float("precision", 2.0, "in points", 0.01, 49.0)
_ORDERS = flags.DEFINE_integer("orders", 1000, "of the images", 1)
# (images, those that stand after the first attack, share that the rest breaks)
_SIMULATED = ((10_000, 2_700, 0.12), (10_000, 4_400, 0.08))


def main(argv: list[str]) -> None:
    del argv
    print("network, images, standing, figure: held, half a width, sampled")
    for path in sorted(_RUNS.glob("*/seed0")):
        for part in (records.read(path, "frozen") or {"parts": []})["parts"]:
            for attacks in part["columns"].values():
                if len(attacks) > 1:
                    book = ledger.Ledger(path / ledger.FILE, part["identity"])
                    count = part["num_images"]
                    first = book.standing(attacks[:1], count)
                    whole = book.standing(attacks, count)
                    name = path.parent.name
                    _print(name, first, whole, _PRECISION.value / 100)
    for count, standing, share in _SIMULATED:
        first = np.arange(count) < standing
        whole = np.arange(count) < round(standing * (1 - share))
        _print("simulated", first, whole, 0.01)


def _print(name, first, whole, precision):
    found = [
        estimate.estimate(first, lambda i: whole[i], precision, seed)
        for seed in range(_ORDERS.value)
    ]
    figure = np.mean(whole)
    held = np.mean([e.low - 1e-9 <= figure <= e.high + 1e-9 for e in found])
    half = np.mean([(e.high - e.low) / 2 for e in found])
    sampled = np.mean([e.num_sampled for e in found]) / max(first.sum(), 1)
    print(
        f"{name}, {len(first)}, {first.sum()}, {100 * figure:.2f} %: "
        f"{100 * held:.1f} %, {100 * half:.2f} points, {100 * sampled:.0f} %"
    )


if __name__ == "__main__":
    app.run(main)
