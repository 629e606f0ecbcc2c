"""Writes test images of a run's data set as PNG files, to ask a server about.

python -m serving.sample_images --workdir=runs/demo --output=runs/demo/images

Files are named by index in the test split and by class: 0003_seven.png.
"""

import re

from absl import flags

from atat_tf.errors import InputError, expect
from atat_tf.runs import command_line

flags.declare_key_flag("workdir")
flags.declare_key_flag("data_dir")
_OUTPUT = flags.DEFINE_string("output", None, "folder for the PNG files")
_NUM_IMAGES = flags.DEFINE_integer(
    "num_images", 3, "the first so many test images", lower_bound=1
)


def main(argv: list[str]) -> None:
    del argv
    if not _OUTPUT.value:
        raise InputError("Expected --output=FOLDER. Received: none.")
    workdir = command_line.workdir()
    data_dir = command_line.data_dir()
    command_line.expect_runs([workdir])

    with command_line.quiet_start():
        from PIL import Image

        from atat_tf.data import datasets
        from atat_tf.evaluation.run import Run
        from atat_tf.runs import folder as run_folder

    dataset = Run(workdir, data_dir).dataset
    shape = tuple(dataset.spec.image_shape)
    expect(datasets.can_draw(shape), "images of 1 or 3 channels", shape=shape)
    split = dataset.test.take(_NUM_IMAGES.value)
    folder = run_folder.create(_OUTPUT.value)
    for index, (pixels, label) in enumerate(
        zip(split.images, split.labels, strict=True)
    ):
        name = re.sub(r"\W+", "-", dataset.class_names[label])
        path = folder / f"{index:04d}_{name}.png"
        with run_folder.replacing(path) as temporary:
            # One channel is written as gray.
            Image.fromarray(pixels.squeeze()).save(temporary, "PNG")
    print(f"Wrote {len(split)} images to {folder}")


if __name__ == "__main__":
    command_line.run(main, recipes=False)
