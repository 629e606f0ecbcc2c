"""The pictures that the demo offers: test images, or drawings without data."""

import dataclasses
import os
import pathlib
from collections.abc import Sequence

import numpy as np

from atat_tf.data import datasets
from atat_tf.data import folders as image_folders
from atat_tf.errors import InputError
from atat_tf.evaluation.attention.networks import Network
from atat_tf.evaluation.run import Run

from . import drawings

MOST = 10


@dataclasses.dataclass(frozen=True)
class Sample:
    """A picture that networks are shown.

    Attributes:
      name: for the reader, as "test image 3: frog".
      class_name: its true class; None where nobody has said it.
      pixels: uint8 [h, w, 1 or 3].
    """

    name: str
    class_name: str | None
    pixels: np.ndarray


def offered(networks: Sequence[Network]) -> tuple[str, list[Sample]]:
    """Returns what the pictures are, in a sentence, and the pictures.

    They are test images of the first run whose data is on this machine.
    Nothing is downloaded: without data they are drawings.

    Args:
      networks: those of the page.
    """
    for run in (network.run for network in networks):
        if run is None or not _is_here(run):
            continue
        try:
            dataset = run.dataset
        except (InputError, ModuleNotFoundError):  # moved, or no reader for it
            continue
        return (
            f"Test images ({dataset.provenance}): the first of each of "
            f"{min(MOST, len(dataset.class_names))} classes. "
            "The page begins with the first that all networks have right, if "
            "there is one: an easy one for them.",
            test_images(dataset),
        )
    drawn = [
        Sample(f"drawing of {name}", None, pixels)
        for name, pixels in drawings.drawn().items()
    ]
    return (
        "Drawings made by this program, for want of test images here. They "
        "are in no data set, and no class is the right one for them: an "
        "attack has worked where it changes the answer.",
        drawn,
    )


def test_images(dataset: datasets.Dataset) -> list[Sample]:
    """Returns the first test image of each of the first classes.

    Args:
      dataset: whose test images they are.
    """
    chosen, labels = [], dataset.test.labels
    for number, name in enumerate(dataset.class_names[:MOST]):
        for index in np.flatnonzero(labels == number)[:1]:
            pixels = dataset.test.images[index]
            text = f"test image {index}: {name}"
            chosen.append(Sample(text, name, pixels))
    return chosen


def _is_here(run: Run) -> bool:
    """Returns whether a run's images can be read without a download."""
    name = run.config.dataset
    if name == "digits" or name in datasets.REGISTERED:
        return True
    if image_folders.is_folder(name) or name.endswith(".npz"):
        return True
    stored = run.data_dir or os.environ.get("TFDS_DATA_DIR")
    folder = pathlib.Path(stored or "~/tensorflow_datasets").expanduser()
    return (folder / name.partition(":")[0]).is_dir()
