"""Finds images to draw: test images of a data set, image files, folders."""

import dataclasses
import pathlib
from collections.abc import Iterable, Sequence

import numpy as np

from atat_tf.data import datasets
from atat_tf.data import images as image_files
from atat_tf.errors import expect
from atat_tf.evaluation.attention.networks import Network
from atat_tf.runs import build


@dataclasses.dataclass(frozen=True)
class Picture:
    """An image that networks are shown.

    Attributes:
      name: "test image 3", or the file's name.
      index: draws its random start.
      class_name: its true class; None where nobody has said it.
      pixels: uint8 [H, W, C]; None for a file.
      path: of the file.
    """

    name: str
    index: int
    class_name: str | None
    pixels: np.ndarray | None = None
    path: pathlib.Path | None = None

    def at(self, image_shape: Sequence[int]) -> np.ndarray:
        """Returns the picture as uint8 [H, W, C] of a network's size."""
        if self.path is not None:
            return image_files.load(self.path, image_shape)
        return image_files.resized(self.pixels, *image_shape)

    def preview(self) -> np.ndarray:
        """Returns the picture as uint8 [H, W, 3], files at 224 pixels."""
        if self.path is not None:
            return self.at((224, 224, 3))
        return self.pixels


def from_test(
    dataset: datasets.Dataset, indices: Iterable[int]
) -> list[Picture]:
    """Returns Pictures of test images.

    Args:
      dataset: whose test split it is.
      indices: positions in the test split.

    Raises:
      InputError: an index is beyond the split.
    """
    count = len(dataset.test)
    for index in indices:
        expect(
            0 <= index < count,
            f"indices of test images from 0 to {count - 1}",
            index=index,
        )
    names = dataset.class_names
    return [
        Picture(
            f"test image {index}",
            int(index),
            names[dataset.test.labels[index]],
            dataset.test.images[index],
        )
        for index in indices
    ]


def from_files(paths: Iterable[str | pathlib.Path]) -> list[Picture]:
    """Returns Pictures of image files and of the files in folders."""
    return [
        Picture(path.name, number, None, path=path)
        for number, path in enumerate(image_files.find(paths))
    ]


def told(dataset: datasets.Dataset, indices: Sequence[int]) -> str:
    """Returns a sentence on which test images are shown, in their order."""
    what = "Test images" if len(indices) > 1 else "Test image"
    return f"{what} {', '.join(map(str, indices))} of {dataset.provenance}."


def load_dataset(
    network: Network, name: str | None = None, data_dir: str | None = None
) -> datasets.Dataset:
    """Returns the Dataset whose test images are shown.

    Args:
      network: its run's data set is taken where `name` is None.
      name: a data set.
      data_dir: of tensorflow-datasets.

    Raises:
      InputError: neither a name nor a run.
    """
    if name is not None:
        size = network.image_shape
        return datasets.load(name, data_dir, image_size=size)
    expect(
        network.run is not None,
        "--images, --dataset or a run folder to take images from",
        model=network.title,
    )
    return build.load_dataset(network.run.config, data_dir)
