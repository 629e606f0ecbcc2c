"""Measures the peak memory of a training step and of its attack.

  python -m benchmarks.memory
  python -m benchmarks.memory --depth=16 --width=4 --json=FILE

Resident memory, each measurement in a process of its own: the highest during
three steps, less what there was before the first. A process at a small batch
takes graphs and libraries, and little else: the difference of both peaks over
the difference of their activations is what a step has of the activations' own
size, every layer's output of every image in it once. The update goes through
clean and adversarial images, 2 b; the attack, at another time, through b.
"""

import math

import ml_collections
from absl import flags

from atat_tf.errors import expect
from atat_tf.runs import command_line
from benchmarks import command, fresh, ratios

flags.adopt_module_key_flags(command)
_DEPTH = flags.DEFINE_integer("depth", 16, "of the Wide ResNet, 6n + 4")
_WIDTH = flags.DEFINE_integer("width", 1, "of the Wide ResNet")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 128, "b", lower_bound=2)
_SMALL = flags.DEFINE_integer(
    "small_batch_size", 8, "of the processes that are taken off", lower_bound=1
)
_REPEATS = flags.DEFINE_integer("repeats", 5, "processes each", lower_bound=1)

_MEASURED_STEPS = 3


def of_step(depth: int, width: int, batch_size: int) -> dict:
    """Returns the peak of ATAT steps, and the activations' own size.

    The update keeps the activations of clean and adversarial images; the
    attack's, at another time, are half of that.

    Args:
      depth, width: of the Wide ResNet.
      batch_size: b.

    Returns:
      "peak_bytes" above what the process had before the first step, and
      "activation_bytes".
    """
    with command_line.quiet_start():
        from atat_tf.training import build as training_build
        from benchmarks import timings

    config = timings.resolved_config("atat", depth, width, batch_size)
    split = timings.random_split(batch_size)
    step = timings.training_step(config, split, training_build.build_strategy())
    return {
        "peak_bytes": fresh.peak_bytes(step, _MEASURED_STEPS),
        "activation_bytes": 2 * batch_size * activation_bytes(config),
    }


def of_attack(depth: int, width: int, batch_size: int) -> dict:
    """Returns the same of the training attack alone, on `batch_size` images."""
    with command_line.quiet_start():
        from benchmarks import timings

    config = timings.resolved_config("atat", depth, width, batch_size)
    attack = timings.attack_step(config, timings.random_split(batch_size))
    return {
        "peak_bytes": fresh.peak_bytes(attack, _MEASURED_STEPS),
        "activation_bytes": batch_size * activation_bytes(config),
    }


def activation_bytes(config: ml_collections.ConfigDict) -> int:
    """Returns the bytes that an image's activations have, all layers' outputs.

    Every convolution, batch norm, activation and addition gives one, float32.
    """
    from benchmarks import timings

    shapes = (layer.output.shape for layer in timings.classifier(config).layers)
    return sum(4 * math.prod(shape[1:]) for shape in shapes)


def over_activations(large: dict, small: dict) -> float:
    """Returns how many times the activations' size memory grows.

    Args:
      large, small: {"peak_bytes", "activation_bytes"} at two batch sizes.
    """
    grown = large["peak_bytes"] - small["peak_bytes"]
    return grown / (large["activation_bytes"] - small["activation_bytes"])


def comparisons(network: str, rows: dict) -> list[dict]:
    """Returns the peaks in GiB, and over the activations' size."""
    found = []
    for what, rounds in rows.items():
        gib = [large["peak_bytes"] / 2**30 for large, _ in rounds]
        times = [over_activations(*each) for each in rounds]
        name = f"{what}, {network}"
        found += [
            ratios.comparison(f"{name}, peak", "", gib, "", "GiB"),
            ratios.comparison(f"{name}, memory", "activations' size", times),
        ]
    return found


def main(argv: list[str]) -> None:
    del argv
    expect(
        _SMALL.value < _BATCH_SIZE.value,
        "small_batch_size < batch_size",
        small_batch_size=_SMALL.value,
        batch_size=_BATCH_SIZE.value,
    )
    about = command.begin()
    network = {"depth": _DEPTH.value, "width": _WIDTH.value}
    measured = {"ATAT step": of_step, "its attack alone": of_attack}
    rows = {what: [] for what in measured}
    for _ in range(_REPEATS.value):
        for what, function in measured.items():
            rows[what].append(
                [
                    fresh.called(function, **network, batch_size=images)
                    for images in (_BATCH_SIZE.value, _SMALL.value)
                ]
            )
    name = f"WRN-{_DEPTH.value}-{_WIDTH.value}, b = {_BATCH_SIZE.value}"
    results = {"surroundings": about, "network": name, "rows": rows}
    results["comparisons"] = comparisons(name, rows)
    command.finish("Memory of a step", results)


if __name__ == "__main__":
    command_line.run(main, recipes=False)
