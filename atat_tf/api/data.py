"""Own arrays where the name of a data set would stand."""

import dataclasses
import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from atat_tf.api.pixels import labels_of, pixel_range
from atat_tf.data import datasets, splits
from atat_tf.data import images as image_files
from atat_tf.errors import expect, with_checked_fields

# Of the training images, where there are no validation or test images.
_SHARE = 10
_READ_AT_ONCE = 1024  # images


@with_checked_fields
@dataclasses.dataclass(frozen=True, repr=False)
class Data:
    """Images and labels in three splits.

    Example:
      >>> data = atat.Data(train=(x, y), class_names=list("0123456789"))
      >>> [len(split) for split in (data.train, data.validation, data.test)]
      [16, 2, 2]

    Args:
      train: (x, y): images [n, H, W, C], uint8, or floats in [0, 1], which are
        rounded to 256 levels; labels as for `robust_accuracy`.
      validation, test: (x, y) of other images; None draws a tenth of the
        training images for each, of every class the same share.
      class_names: k strings, for labels that are strings the order of the
        classes; None for numbers, or the names in alphabetical order.
      flip: whether a mirrored image still shows its class: training then
        mirrors half of the images.
      split_seed: of the draws.

    Attributes:
      train, validation, test: datasets.Split, uint8 images and int32 labels.

    Raises:
      InputError: they are none of these, or differ in size or classes.
    """

    train: tuple[ArrayLike, ArrayLike] | datasets.Split
    validation: tuple[ArrayLike, ArrayLike] | datasets.Split | None = None
    test: tuple[ArrayLike, ArrayLike] | datasets.Split | None = None
    class_names: Sequence[str] | None = None
    flip: bool = False
    split_seed: int = 0

    def __post_init__(self):
        expect(
            self.split_seed >= 0, "split_seed >= 0", split_seed=self.split_seed
        )
        names = _class_names(self.train, self.class_names)
        train = _split(self.train, "train", names)
        splits.expect_several_classes(train.labels, "train")
        shape = train.images.shape[1:]
        share = len(train) // _SHARE
        for number, name in enumerate(("test", "validation")):
            given = getattr(self, name)
            if given is None:
                train, split = _drawn(train, share, self.split_seed + number)
            else:
                split = _split(given, name, names)
            expect(
                split.images.shape[1:] == shape,
                f"{name} images of {shape}, the size of the training images",
                shape=split.images.shape[1:],
            )
            object.__setattr__(self, name, split)
        object.__setattr__(self, "train", train)
        object.__setattr__(self, "class_names", names)

    def __repr__(self) -> str:
        counts = ", ".join(
            f"{len(getattr(self, name)):,} {name}"
            for name in ("train", "validation", "test")
        )
        return f"Data of {len(self.class_names or ())} classes: {counts}"

    def dataset(self, name: str = "arrays") -> datasets.Dataset:
        """Returns what training and evaluation of runs read.

        Args:
          name: of the data set, as configs have it.
        """
        train, validation, test = self.train, self.validation, self.test
        if not (
            isinstance(train, datasets.Split)
            and isinstance(validation, datasets.Split)
            and isinstance(test, datasets.Split)
        ):
            raise TypeError("expected splits, which __post_init__ makes")
        names = tuple(self.class_names or ())
        height, width, channels = train.images.shape[1:]
        spec = datasets.Spec(
            len(names),
            (height, width, channels),
            len(validation),
            self.flip,
            names,
        )
        parts = train, validation, test
        provenance = f"arrays {name}, sha256:{_digest(parts)[:16]}"
        return datasets.Dataset(name, spec, names, provenance, *parts)


def _digest(parts):
    """Returns the SHA-256 of the images and labels of splits."""
    digest = hashlib.sha256()
    for part in parts:
        for first in range(0, len(part), _READ_AT_ONCE):
            images = part.images[first : first + _READ_AT_ONCE]
            digest.update(np.ascontiguousarray(images).tobytes())
        digest.update(np.ascontiguousarray(part.labels).tobytes())
    return digest.hexdigest()


def _class_names(train, given):
    """Returns the names of the classes, numbers where nothing tells them."""
    if given is not None:
        expect(len(given), "names of classes", class_names=given)
        return tuple(map(str, given))
    if isinstance(train, datasets.Split):
        labels = train.labels
    else:
        expect(
            isinstance(train, tuple | list) and len(train) == 2,
            "train=(images, labels)",
            train=type(train),
        )
        labels = np.asarray(train[1])
    if labels.dtype.kind in "USO":
        return tuple(sorted({*map(str, labels.ravel())}))
    if labels.ndim == 2 and labels.shape[1] > 1:
        return tuple(map(str, range(labels.shape[1])))
    expect(
        labels.size and labels.dtype.kind in "iuf",
        "labels of the training images",
        labels=labels.shape,
    )
    return tuple(map(str, range(int(labels.max()) + 1)))


def _split(given, name, names):
    if isinstance(given, datasets.Split):
        return given
    expect(
        isinstance(given, tuple | list) and len(given) == 2,
        f"{name}=(images, labels)",
        **{name: type(given)},
    )
    images = pixel_range((0, 1)).in_unit(given[0])
    if images.dtype != np.uint8:
        images = image_files.as_uint8(images)
    return datasets.Split(
        images, labels_of(given[1], len(images), len(names), names)
    )


def _drawn(train, count, seed):
    """Returns a split without some of its images, and these."""
    expect(
        count >= 1,
        f"validation and test images, or {_SHARE} training images and more to "
        "draw them from",
        train=len(train),
    )
    kept, drawn = splits.stratified(train.labels, count, seed)
    return (
        datasets.Split(train.images[kept], train.labels[kept]),
        datasets.Split(train.images[drawn], train.labels[drawn]),
    )
