"""Images from elsewhere that training sees beside its own."""

import os

import numpy as np

from atat_tf.data import arrays, stored
from atat_tf.data.datasets import Spec, Split
from atat_tf.errors import expect


def load(
    path: str | os.PathLike[str],
    spec: Spec,
    memory_budget: float | None = None,
) -> Split:
    """Returns images from elsewhere that training is to see beside its own.

    Args:
      path: .npz file with arrays "image", uint8 [n, H, W, C], and "label",
        integers [n], as the sets of generated images are published.
      spec: of the data set, whose shape and classes they must have.
      memory_budget: as for `datasets.load`.

    Raises:
      InputError: as for `mapped`; or they are compressed, and larger than
        the memory budget.
    """
    images, labels = mapped(path, spec)
    if memory_budget is None:
        memory_budget = stored.free_memory() / 2
    is_held = images.nbytes <= memory_budget
    kept = arrays.held(images) if is_held else arrays.unread(images)
    return Split(kept, labels.astype(np.int32))


def mapped(
    path: str | os.PathLike[str], spec: Spec
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the images and labels of a file that `load` reads.

    Images are mapped, and take no memory, where the file is not compressed.

    Args:
      path, spec: as there.

    Raises:
      InputError: no such file, or other arrays.
    """
    images, labels = arrays.members(path, ("image", "label")).values()
    expect(
        images.dtype == np.uint8 and images.shape[1:] == spec.image_shape,
        f"extra images uint8 [n, {', '.join(map(str, spec.image_shape))}]",
        dtype=images.dtype,
        shape=images.shape,
    )
    expect(
        labels.shape == images.shape[:1]
        and len(labels)
        and np.issubdtype(labels.dtype, np.integer),
        "an integer label for each of the extra images",
        dtype=labels.dtype,
        shape=labels.shape,
    )
    expect(
        0 <= labels.min() <= labels.max() < spec.num_classes,
        f"labels of the extra images from 0 to {spec.num_classes - 1}",
        smallest=labels.min().item(),
        largest=labels.max().item(),
    )
    return images, labels
