"""Times the ATAT training step against its parts and against AT's.

  python -m benchmarks.train_step
  python -m benchmarks.train_step --depth=16 --width=4 --repeats=9 --json=FILE
  python -m benchmarks.train_step --bfloat16

Images are uniformly random uint8, 32 x 32 x 3. Every ratio is the ATAT step
over the row's, round by round in one run; goals are stated, not asserted. With
TF_ENABLE_ONEDNN_OPTS=0 in the environment it is without oneDNN's kernels.
"""

import json
import math
import pathlib
import sys

from absl import app, flags

from benchmarks import command, ratios, surroundings

_DEPTH = flags.DEFINE_integer("depth", 10, "of the Wide ResNet, 6n + 4")
_WIDTH = flags.DEFINE_integer("width", 1, "of the Wide ResNet")
_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", 128, "b, images in a step", lower_bound=1
)
_REPEATS = flags.DEFINE_integer(
    "repeats", 5, "rounds, each of every row once", lower_bound=5
)
_WITH_BFLOAT16 = flags.DEFINE_bool(
    "bfloat16", False, "a row in mixed_bfloat16; slow where it is emulated"
)
_JSON = flags.DEFINE_string("json", None, "file for all of the figures")

_ATAT = "ATAT step"
_NO_STRATEGY = "ATAT, no strategy"
_NOT_FOLDED = "ATAT, norms not folded"
_NOT_FUSED = "ATAT, norms not one kernel"
_BFLOAT16 = "ATAT, mixed_bfloat16"
_AT = "AT step"
_SUM = "sum of three passes"
_UPDATE = "SGD update"
_PIPELINE = "input, a batch"
# Rows that the ATAT step is compared with, and what for.
_GOALS = {
    _AT: "<= 1.15",
    _SUM: "<= 1.10",
    _NO_STRATEGY: "",
    _NOT_FOLDED: "",
    _NOT_FUSED: "",
    _BFLOAT16: "",
    _PIPELINE: ">= 10",
}


def measure(depth, width, batch_size, repeats, with_bfloat16=False):
    """Returns the timed things' rows, and {what: [seconds]} of the rounds.

    Args:
      depth, width: of the Wide ResNet.
      batch_size: b.
      repeats: number of rounds.
      with_bfloat16: whether there is a row of it.
    """
    from atat_tf.training import build as training_build
    from benchmarks.cost import timings

    sizes = depth, width, batch_size
    config = timings.resolved_config("atat", *sizes)
    mixture = timings.resolved_config("at", *sizes)
    split = timings.random_split(batch_size)
    strategy = training_build.build_strategy(None)
    passes = timings.unavoidable_passes(config, split)
    more = {}
    if with_bfloat16:
        half = timings.resolved_config("atat", *sizes)
        half.precision = "mixed_bfloat16"
        more[_BFLOAT16] = timings.training_step(half, split, strategy)
    clock, processor = timings.round_robin(
        {
            _ATAT: timings.training_step(config, split, strategy),
            _AT: timings.training_step(mixture, split, strategy),
            **passes,
            _NO_STRATEGY: timings.training_step(config, split),
            _NOT_FOLDED: timings.training_step(
                config, split, strategy, is_folded=False
            ),
            _NOT_FUSED: timings.training_step(
                config, split, strategy, is_fused=False
            ),
            **more,
            _PIPELINE: timings.input_pipeline(batch_size),
        },
        repeats,
    )
    for seconds in (clock, processor):
        seconds[_PIPELINE] = [
            value / timings.PIPELINE_BATCHES for value in seconds[_PIPELINE]
        ]
        parts = [seconds[name] for name in passes if name != _UPDATE]
        seconds[_SUM] = [sum(values) for values in zip(*parts, strict=True)]
    order = (
        _ATAT,
        _AT,
        *passes,
        _SUM,
        _NO_STRATEGY,
        _NOT_FOLDED,
        _NOT_FUSED,
        *more,
        _PIPELINE,
    )
    return [_row(name, clock, processor) for name in order], clock


def _row(name, clock, processor):
    def against(seconds):
        return ratios.summary(ratios.over(seconds[_ATAT], seconds[name]))

    return {
        "what": name,
        "seconds": ratios.summary(clock[name]),
        "atat_over_this": against(clock),
        "processor_seconds": ratios.summary(processor[name]),
        "atat_over_this_by_processor": against(processor),
        "goal": _GOALS.get(name, ""),
    }


def comparisons(size, rows, clock):
    """Returns the comparisons of the ATAT step, see `ratios`."""
    what = f"ATAT step, WRN-{size['depth']}-{size['width']}"
    return [
        ratios.comparison(
            what,
            row["what"],
            ratios.over(clock[_ATAT], clock[row["what"]]),
            row["goal"],
        )
        for row in rows
        if row["what"] in _GOALS
    ]


def print_results(results):
    """Prints what `main` measured, as a table and the lines it needs."""
    from atat_tf.runs import terminal

    size = results["size"]
    terminal.table(
        f"WRN-{size['depth']}-{size['width']}, b = {size['batch_size']}, "
        f"random uint8 images, medians of {size['repeats']} rounds",
        ("what", "median ms", "spread", "ATAT / it", "spread", "goal"),
        [_cells(row) for row in results["rows"]],
    )
    console = terminal.console()
    rates = {
        row["what"]: size["batch_size"] / row["seconds"]["median"]
        for row in results["rows"]
    }
    console.print(
        f"ATAT step {rates[_ATAT]:,.0f} images/s, input pipeline alone "
        f"{rates[_PIPELINE]:,.0f} images/s"
    )
    console.print(f"By processor seconds: {_by_processor(results['rows'])}")
    surroundings.print_sentences(results["surroundings"])


def _by_processor(rows):
    return ", ".join(
        f"ATAT / {row['what']} "
        f"{row['atat_over_this_by_processor']['median']:.2f}"
        for row in rows
        if row["what"] in (_AT, _SUM, _NO_STRATEGY)
    )


def _cells(row):
    cells = [row["what"], *_figures(row["seconds"], 1e3)]
    if row["what"] in _GOALS:
        return [*cells, *_figures(row["atat_over_this"], 1), row["goal"]]
    return [*cells, "", "", ""]


def _figures(values, factor):
    scaled = {name: factor * value for name, value in values.items()}
    digits = max(0, 2 - int(math.log10(scaled["median"])))
    median, low, high = (
        f"{scaled[name]:,.{digits}f}" for name in ("median", "min", "max")
    )
    return median, f"{low}..{high}"


def main(argv):
    command.begin(argv)
    from atat_tf.errors import InputError

    about = surroundings.surroundings()
    size = {
        "depth": _DEPTH.value,
        "width": _WIDTH.value,
        "batch_size": _BATCH_SIZE.value,
        "repeats": _REPEATS.value,
    }
    results = {"size": size, "images": "random uint8", "surroundings": about}
    try:
        results["rows"], clock = measure(
            **size, with_bfloat16=_WITH_BFLOAT16.value
        )
    except InputError as error:
        sys.exit(f"error: {error}")
    results["comparisons"] = comparisons(size, results["rows"], clock)
    print_results(results)
    if _JSON.value:
        pathlib.Path(_JSON.value).write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    app.run(main)
