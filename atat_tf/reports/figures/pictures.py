"""Images to draw: test images of a data set, image files, folders of them.

Paths or positions enter; pixels at the size that a network takes leave.
"""

import dataclasses
import pathlib

import numpy as np

from atat_tf.data import datasets
from atat_tf.data import images as image_files
from atat_tf.errors import expect
from atat_tf.runs import build

_BATCH = 100


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

    def at(self, image_shape):
        """Returns the picture as uint8 [H, W, C] of a network's size."""
        if self.path is not None:
            return image_files.load(self.path, image_shape)
        return image_files.resized(self.pixels, *image_shape)

    def preview(self):
        """Returns the picture as uint8 [H, W, 3], files at 224 pixels."""
        if self.path is not None:
            return self.at((224, 224, 3))
        return self.pixels


def from_test(dataset, indices):
    """Returns Pictures of test images.

    Args:
      dataset: Dataset.
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


def from_files(places):
    """Returns Pictures of image files and of the files in folders."""
    return [
        Picture(path.name, number, None, path=path)
        for number, path in enumerate(image_files.find(places))
    ]


def first_right(sources, dataset, count):
    """Returns the first test images that all networks classify right.

    Args:
      sources: Sources; those of other classes or sizes than the data set's
        are not asked.
      dataset: Dataset.
      count: how many.

    Raises:
      InputError: there is no such image.
    """
    found = []
    shape = tuple(dataset.spec.image_shape)
    asked = [
        source
        for source in sources
        if source.class_names == tuple(dataset.class_names)
        and source.image_shape == shape
    ]
    for first in range(0, len(dataset.test), _BATCH):
        images = dataset.test.images[first : first + _BATCH] / np.float32(255)
        right = np.ones(len(images), bool)
        for source in asked:
            logits = source.classifier(images, training=False)
            labels = dataset.test.labels[first : first + _BATCH]
            right &= np.argmax(logits, -1) == labels
        found += (first + np.flatnonzero(right)).tolist()
        if len(found) >= count:
            break
    expect(found, "a test image that all networks classify right", found=found)
    return from_test(dataset, found[:count])


def load_dataset(source, name=None, data_dir=None):
    """Returns the Dataset whose test images are shown.

    Args:
      source: Source; its run's data set is taken where `name` is None.
      name: a data set.
      data_dir: of tensorflow-datasets.

    Raises:
      InputError: neither a name nor a run.
    """
    if name is not None:
        return datasets.load(name, data_dir)
    expect(
        source.config is not None,
        "--images, --dataset or a run folder to take images from",
        model=source.title,
    )
    return build.load_dataset(source.config, data_dir)
