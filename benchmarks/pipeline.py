"""Times batches that are read from image files against the training step.

  python -m benchmarks.pipeline
  python -m benchmarks.pipeline --depth=16 --width=1 --repeats=9 --json=FILE

Images are random JPEG files of 64 x 64, in a new folder, that are read as the
batches need them; those of memory are the same. The ATAT step takes images of
32 x 32, so that it waits for no more pixels than it would in a real training.
"""

import pathlib
import tempfile

import numpy as np
from absl import flags
from PIL import Image

from atat_tf.runs import command_line
from benchmarks import command, ratios

flags.adopt_module_key_flags(command)
_DEPTH = flags.DEFINE_integer("depth", 16, "of the Wide ResNet, 6n + 4")
_WIDTH = flags.DEFINE_integer("width", 1, "of the Wide ResNet")
_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", 128, "b, images in a step", lower_bound=1
)
_BATCHES = flags.DEFINE_integer(
    "batches", 20, "of a round, an epoch of them", lower_bound=1
)
_REPEATS = flags.DEFINE_integer(
    "repeats", 5, "rounds, each of every row once", lower_bound=1
)
_SIDE = 64
_STEP, _FILES, _HELD = "ATAT step", "batch from files", "batch from memory"


def write(folder: pathlib.Path, count: int) -> str:
    """Writes JPEG files of two classes; returns the data set's name."""
    draw = np.random.default_rng(0)
    for number in range(count):
        parent = folder / str(number % 2)
        parent.mkdir(parents=True, exist_ok=True)
        # As smooth as a photograph: noise alone takes twice the bytes.
        small = draw.integers(0, 256, (8, 8, 3), np.uint8)
        image = Image.fromarray(small).resize((_SIDE, _SIDE))
        image.save(parent / f"{number}.jpg", quality=90)
    return f"folder:{folder}"


def main(argv: list[str]) -> None:
    del argv
    about = command.begin()
    with command_line.quiet_start():
        from atat_tf.data import batches, datasets
        from atat_tf.training import build as training_build
        from benchmarks import timings

    size, count = _BATCH_SIZE.value, _BATCHES.value
    config = timings.resolved_config("atat", _DEPTH.value, _WIDTH.value, size)
    split = timings.random_split(size)
    with tempfile.TemporaryDirectory() as folder:
        # A tenth is drawn for validation, a tenth for tests.
        name = write(pathlib.Path(folder), int(size * count / 0.8))

        def reading(memory_budget):
            data = datasets.load(
                name, image_size=_SIDE, memory_budget=memory_budget
            )

            def iterate():
                for _ in batches.batches(data.train, size, 0, 0, count, True):
                    pass

            return iterate

        strategy = training_build.build_strategy(None)
        seconds, _ = ratios.round_robin(
            {
                _STEP: timings.training_step(config, split, strategy),
                _FILES: reading(0),
                _HELD: reading(1e12),
            },
            _REPEATS.value,
        )
    for what in (_FILES, _HELD):
        seconds[what] = [value / count for value in seconds[what]]
    rates = {
        what: [size / value for value in values]
        for what, values in seconds.items()
    }
    step = f"ATAT step, WRN-{_DEPTH.value}-{_WIDTH.value}"
    results = {
        "surroundings": about,
        "seconds": seconds,
        "comparisons": [
            *(
                ratios.comparison(what, "", values, "", "images/s")
                for what, values in rates.items()
            ),
            ratios.comparison(
                f"{_FILES}, images/s",
                step,
                ratios.over(rates[_FILES], rates[_STEP]),
                ">= 3",
            ),
        ],
    }
    command.finish(f"Batches of {size} images of {_SIDE} x {_SIDE}", results)


if __name__ == "__main__":
    command_line.run(main, recipes=False)
