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

import sys

from absl import app, flags

from benchmarks import command, fresh, ratios

_DEPTH = flags.DEFINE_integer("depth", 16, "of the Wide ResNet, 6n + 4")
_WIDTH = flags.DEFINE_integer("width", 1, "of the Wide ResNet")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 128, "b", lower_bound=2)
_SMALL = flags.DEFINE_integer(
    "small_batch_size", 8, "of the processes that are taken off", lower_bound=1
)
_REPEATS = flags.DEFINE_integer("repeats", 5, "processes each", lower_bound=1)

_STEPS = {
    "ATAT step": "training_memory",
    "its attack alone": "attack_memory",
}


def measure(
    depth: int, width: int, batch_size: int, small: int, repeats: int
) -> dict[str, list[tuple[dict, dict]]]:
    """Returns {what: [(at batch_size, at the small one) of each round]}."""

    def peaks(name, images):
        return fresh.called(name, depth=depth, width=width, batch_size=images)

    rows = {what: [] for what in _STEPS}
    for _ in range(repeats):
        for what, name in _STEPS.items():
            rows[what].append((peaks(name, batch_size), peaks(name, small)))
    return rows


def comparisons(network: str, rows: dict) -> list[dict]:
    """Returns the peaks in GiB, and over the activations' size."""
    found = []
    for what, rounds in rows.items():
        gib = [large["peak_bytes"] / 2**30 for large, _ in rounds]
        times = [fresh.over_activations(*each) for each in rounds]
        name = f"{what}, {network}"
        found += [
            ratios.comparison(f"{name}, peak", "", gib, "", "GiB"),
            ratios.comparison(f"{name}, memory", "activations' size", times),
        ]
    return found


def main(argv: list[str]) -> None:
    about = command.begin_for_processes(argv)
    if _SMALL.value >= _BATCH_SIZE.value:
        sys.exit(
            "error: Expected small_batch_size < batch_size. Received: "
            f"{_SMALL.value} and {_BATCH_SIZE.value}."
        )
    sizes = _DEPTH.value, _WIDTH.value, _BATCH_SIZE.value, _SMALL.value
    try:
        rows = measure(*sizes, _REPEATS.value)
    except RuntimeError as error:
        sys.exit(f"error: {error}")
    network = f"WRN-{sizes[0]}-{sizes[1]}, b = {sizes[2]}"
    results = {"surroundings": about, "sizes": sizes, "rows": rows}
    results["comparisons"] = comparisons(network, rows)
    command.finish("Memory of a step", results)


if __name__ == "__main__":
    app.run(main)
