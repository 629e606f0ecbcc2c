"""Times the ATAT training step against its parts and against AT's.

  python -m benchmarks.train_step
  python -m benchmarks.train_step --depth=16 --width=4 --repeats=9 --json=FILE

Images are uniformly random uint8, 32 x 32 x 3. Every ratio is the ATAT step
over the row's, round by round in one run; goals are stated, not asserted. With
TF_ENABLE_ONEDNN_OPTS=0 in the environment it is without oneDNN's kernels.
"""

from absl import flags

from atat_tf.runs import command_line, terminal
from benchmarks import command, ratios

flags.adopt_module_key_flags(command)
_DEPTH = flags.DEFINE_integer("depth", 10, "of the Wide ResNet, 6n + 4")
_WIDTH = flags.DEFINE_integer("width", 1, "of the Wide ResNet")
_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", 128, "b, images in a step", lower_bound=1
)
_REPEATS = flags.DEFINE_integer(
    "repeats", 5, "rounds, each of every row once", lower_bound=1
)

_ATAT = "ATAT step"
_NO_STRATEGY = "ATAT, no strategy"
_AT = "AT step"
_SUM = "sum of three passes"
_UPDATE = "SGD update"
_PIPELINE = "input, a batch"
# Rows that the ATAT step is compared with, and what for.
_GOALS = {_AT: "<= 1.15", _SUM: "<= 1.10", _NO_STRATEGY: "", _PIPELINE: ">= 10"}


def measure(
    depth: int, width: int, batch_size: int, repeats: int
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Returns {what: [seconds]} and the same in processor seconds.

    Args:
      depth, width: of the Wide ResNet.
      batch_size: b.
      repeats: number of rounds.

    Raises:
      InputError: there is no such network.
    """
    from atat_tf.training import build as training_build
    from benchmarks import timings

    sizes = depth, width, batch_size
    config = timings.resolved_config("atat", *sizes)
    mixture = timings.resolved_config("at", *sizes)
    split = timings.random_split(batch_size)
    strategy = training_build.build_strategy(None)
    passes = timings.unavoidable_passes(config, split)
    measured = ratios.round_robin(
        {
            _ATAT: timings.training_step(config, split, strategy),
            _AT: timings.training_step(mixture, split, strategy),
            **passes,
            _NO_STRATEGY: timings.training_step(config, split),
            _PIPELINE: timings.input_pipeline(batch_size),
        },
        repeats,
    )
    for seconds in measured:
        seconds[_PIPELINE] = [
            value / timings.PIPELINE_BATCHES for value in seconds[_PIPELINE]
        ]
        parts = [seconds[name] for name in passes if name != _UPDATE]
        seconds[_SUM] = [sum(values) for values in zip(*parts, strict=True)]
    return measured


def comparisons(what: str, seconds: dict[str, list[float]]) -> list[dict]:
    """Returns the comparisons of the ATAT step, see `ratios`."""
    return [
        ratios.comparison(
            what, name, ratios.over(seconds[_ATAT], seconds[name]), goal
        )
        for name, goal in _GOALS.items()
    ]


def main(argv: list[str]) -> None:
    del argv
    about = command.begin()
    size = _DEPTH.value, _WIDTH.value, _BATCH_SIZE.value
    clock, processor = measure(*size, _REPEATS.value)
    name = f"ATAT step, WRN-{size[0]}-{size[1]}"
    terminal.table(
        f"WRN-{size[0]}-{size[1]}, b = {size[2]}, random uint8 images",
        ("what", "median ms", "range"),
        [(what, *ratios.figures(clock[what], 1e3)) for what in clock],
    )
    by_processor = comparisons(f"{name}, by processor seconds", processor)
    results = {
        "surroundings": about,
        "size": size,
        "seconds": clock,
        "processor_seconds": processor,
        "comparisons": [
            *comparisons(name, clock),
            *({**compared, "goal": ""} for compared in by_processor),
        ],
    }
    command.finish(f"{_REPEATS.value} rounds", results)


if __name__ == "__main__":
    command_line.run(main, recipes=False)
