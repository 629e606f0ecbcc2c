"""Peak memory of an ATAT step under each of the settings that save it.

  python -m benchmarks.cost.saved_memory
  python -m benchmarks.cost.saved_memory --depth=28 --batch_size=128 --json=FILE

Each row is a fresh process; what it holds before the networks are built is
taken off in the second column.
"""

import dataclasses
import json
import pathlib

from absl import app, flags

from benchmarks import command

_DEPTH = flags.DEFINE_integer("depth", 40, "of the Wide ResNet, 6n + 4")
_WIDTH = flags.DEFINE_integer("width", 2, "of the Wide ResNet")
_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", 64, "b, images in a step", lower_bound=4
)
_NUM_STEPS = flags.DEFINE_integer("num_steps", 2, "of PGD", lower_bound=1)
_REPEATS = flags.DEFINE_integer(
    "repeats", 2, "timed steps after the first", lower_bound=1
)
_JSON = flags.DEFINE_string("json", None, "file for all of the figures")


def rows(batch_size):
    """Returns {what: fields of the settings}; attack batches of a quarter."""
    quarter = batch_size // 4
    small = {"attack_batch_size": quarter}
    return {
        "nothing": {},
        "attack_batch_size": small,
        "remat": {"remat": True},
        "attack_batch_size, remat": {**small, "remat": True},
        "micro_batch_size": {"micro_batch_size": quarter},
        "micro_batch_size, remat": {
            "micro_batch_size": quarter,
            "remat": True,
        },
    }


def _print(costs):
    from atat_tf.runs import terminal

    first = next(iter(costs.values()))
    whole = first["peak_gib"] - first["start_gib"]
    table = []
    for name, cost in costs.items():
        used = cost["peak_gib"] - cost["start_gib"]
        table.append(
            (
                name,
                f"{cost['peak_gib']:.2f}",
                f"{used:.2f}",
                f"{used / whole:.0%}",
                f"{cost['seconds'] / first['seconds']:.2f}",
            )
        )
    terminal.table(
        f"WRN-{first['depth']}-{first['width']}, b = {first['batch_size']}, "
        f"PGD({first['num_steps']}), random images",
        ("what saves", "peak GiB", "of the step", "share", "time"),
        table,
    )


def main(argv):
    command.begin(argv)

    from benchmarks import surroundings
    from benchmarks.cost import model as cost_model

    about = surroundings.surroundings()
    base = cost_model.Settings(
        depth=_DEPTH.value,
        width=_WIDTH.value,
        batch_size=_BATCH_SIZE.value,
        num_steps=_NUM_STEPS.value,
        repeats=_REPEATS.value,
    )
    costs = {
        name: cost_model.measured(dataclasses.replace(base, **fields))
        for name, fields in rows(base.batch_size).items()
    }
    _print(costs)
    surroundings.print_sentences(about)
    if _JSON.value:
        results = {"surroundings": about, "costs": costs}
        pathlib.Path(_JSON.value).write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    app.run(main)
