"""Data sets of uint8 images, in fixed splits."""

import dataclasses
import os
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from atat_tf.data import arrays, splits, stored, tfds
from atat_tf.data import folders as image_folders
from atat_tf.errors import expect, with_checked_types


@dataclasses.dataclass(frozen=True)
class Spec:
    """What is known of a data set before it is read.

    Attributes:
      num_classes: k.
      image_shape: (H, W, C).
      num_validation: training images kept aside to choose checkpoints.
      flip: whether a mirrored image still shows its class.
      class_names: k strings, or () where only the data itself tells them.
    """

    num_classes: int
    image_shape: tuple[int, int, int]
    num_validation: int = 1000
    flip: bool = True
    class_names: tuple[str, ...] = ()


SPECS = {
    "cifar10": Spec(
        10,
        (32, 32, 3),
        class_names=(
            "airplane",
            "automobile",
            "bird",
            "cat",
            "deer",
            "dog",
            "frog",
            "horse",
            "ship",
            "truck",
        ),
    ),
    "cifar100": Spec(100, (32, 32, 3)),
    "digits": Spec(
        10,
        (32, 32, 3),
        num_validation=160,
        flip=False,
        class_names=tuple("0123456789"),
    ),
}


# {name: function -> Dataset} of sets that callers have registered.
REGISTERED: dict[str, Callable[[], "Dataset"]] = {}


@dataclasses.dataclass(frozen=True)
class Split:
    """Images uint8 [n, H, W, C] and labels int32 [n].

    Images that memory cannot hold are `stored.Images`, read as they are asked
    for.
    """

    images: np.ndarray | stored.Images
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, number: int | None) -> "Split":
        """Returns the first `number` examples, all where it is None."""
        return self.subset(slice(number))

    def subset(self, indices: slice | np.ndarray) -> "Split":
        """Returns the examples at some indices."""
        images = self.images
        if isinstance(images, stored.Images):
            return Split(images.subset(indices), self.labels[indices])
        return Split(images[indices], self.labels[indices])


@dataclasses.dataclass(frozen=True)
class Dataset:
    """The three splits, and where they came from.

    Attributes:
      name: as in the config.
      spec: its Spec.
      class_names: k strings.
      provenance: version and encoding, as recorded with every result.
      train, validation, test: Split.
    """

    name: str
    spec: Spec
    class_names: tuple[str, ...]
    provenance: str
    train: Split
    validation: Split
    test: Split


def can_draw(image_shape: Sequence[int]) -> bool:
    """Returns whether images [H, W, C] are gray or RGB."""
    return image_shape[-1] in (1, 3)


@with_checked_types
def spec(
    name: str,
    data_dir: str | os.PathLike[str] | None = None,
    image_size: int | Sequence[int | None] | None = None,
) -> Spec:
    """Returns the Spec of a data set, without reading its images.

    Args:
      name: one of SPECS, folder:PATH, an .npz file (see `arrays`), or a set
        of tensorflow-datasets with features "image" and "label".
      data_dir: where tensorflow-datasets keeps its files.
      image_size: height and width to resize to, as one number, or the whole
        (H, W, C); needed where images differ in size, ignored for SPECS.

    Raises:
      InputError: no such set, not one of images and labels, or images of
        many sizes and no image_size.
    """
    if name in REGISTERED:
        return REGISTERED[name]().spec
    return _source(name, data_dir).spec(image_size)


def _resized(shape, image_size):
    """Returns the (H, W, C) that images of a shape are resized to."""
    if image_size:
        whole = np.ndim(image_size) == 1
        shape = image_size if whole else (image_size, image_size, shape[-1])
        expect(
            len(shape) == 3
            and all(
                size is None
                or (
                    isinstance(size, int | np.integer)
                    and not isinstance(size, bool)
                    and size >= 1
                )
                for size in shape
            ),
            "image_size of 1 pixel or more, one number or (height, width, "
            "channels)",
            image_size=image_size,
        )
    expect(
        None not in shape,
        "config.image_size (a number of pixels) for images of many sizes",
        image_size=image_size,
    )
    return tuple(shape)


def class_names(
    name: str, data_dir: str | os.PathLike[str] | None = None
) -> tuple[str, ...]:
    """Returns the names of the classes, without reading images.

    Args:
      name: as for `spec`.
      data_dir: as for `spec`.

    Returns:
      Numbers where the data is not there to tell the names.

    Raises:
      InputError: no such set.
    """
    if name in REGISTERED:
        return REGISTERED[name]().class_names
    return _source(name, data_dir).class_names()


@with_checked_types
def load(
    name: str,
    data_dir: str | os.PathLike[str] | None = None,
    split_seed: int = 0,
    num_validation: int | None = None,
    image_size: int | Sequence[int | None] | None = None,
    bad_images: str = "stop",
    memory_budget: float | None = None,
) -> Dataset:
    """Returns a Dataset, downloaded first where it is absent.

    Validation images are drawn from the training split by `split_seed`, and
    the test split is never touched by it (digits, which has none, is cut by
    a fixed seed). They are a share of each class, of which at least one image
    stays for training; those of SPECS, on which archived results rest, are
    drawn from all images alike.

    Args:
      name: as for `spec`.
      data_dir: as for `spec`; None means TFDS_DATA_DIR or tfds' default.
      split_seed: draws the validation images.
      num_validation: how many; None for the set's own number, for a folder
        of images those in validation/, or a tenth.
      image_size: as for `spec`.
      bad_images: "stop" or "skip", as for `image_folders.splits`.
      memory_budget: bytes. A set whose images take more is not held in
        memory, but read as batches need it. None for half of what is free.

    Returns:
      A Dataset with uint8 images.

    Raises:
      InputError: see `spec`; the data is not there and cannot be had; labels
        that are no classes.
    """
    if name in REGISTERED:
        return REGISTERED[name]()
    source = _source(name, data_dir)
    about = source.spec(image_size)
    if memory_budget is None:
        memory_budget = stored.free_memory() / 2
    expect(
        memory_budget >= 0,  # not so of NaN
        "a memory budget of 0 bytes or more",
        memory_budget=memory_budget,
    )
    found = source.read(about, bad_images, memory_budget)
    train, validation = found.train, found.validation
    if validation is not None:
        expect(
            num_validation is None,
            "no num_validation beside a folder validation/",
            num_validation=num_validation,
        )
    else:
        if source.keeps_a_tenth:
            tenth = max(1, len(train) // 10)
            about = dataclasses.replace(about, num_validation=tenth)
        if num_validation is None:
            num_validation = about.num_validation
        expect(
            0 < num_validation < len(train),
            f"num_validation between 1 and {len(train) - 1}",
            num_validation=num_validation,
        )
        draw = splits.uniform if name in SPECS else splits.stratified
        kept, held_out = draw(train.labels, num_validation, split_seed)
        train, validation = train.subset(kept), train.subset(held_out)
    names, provenance = found.class_names, found.provenance
    parts = train, validation, found.test
    return _checked(Dataset(name, about, names, provenance, *parts))


def _checked(dataset):
    """Returns the Dataset, or raises InputError for labels of no class.

    So it does for training labels of one class alone.
    """
    for name in ("train", "validation", "test"):
        labels = getattr(dataset, name).labels
        expect(
            len(labels),
            f"images in the {name} split of {dataset.name!r}",
            images=0,
        )
        if name == "train":
            splits.expect_several_classes(
                labels, f"the train split of {dataset.name!r}"
            )
        expect(
            0 <= labels.min() and labels.max() < dataset.spec.num_classes,
            f"labels from 0 to {dataset.spec.num_classes - 1} in the {name} "
            f"split of {dataset.name!r} (-1 stands for labels that nobody has "
            "published)",
            smallest=int(labels.min()),
            largest=int(labels.max()),
        )
    return dataset


@dataclasses.dataclass(frozen=True)
class _Found:
    """What a source has read; validation is None where none is kept apart."""

    class_names: tuple[str, ...]
    provenance: str
    train: Split
    test: Split
    validation: Split | None = None


class _Tfds:
    """A set of tensorflow-datasets."""

    keeps_a_tenth = False

    def __init__(self, name, data_dir):
        self._name, self._data_dir = name, data_dir

    def spec(self, image_size):
        if self._name in SPECS:
            return SPECS[self._name]
        whole, num_classes, _ = tfds.about(self._name, self._data_dir, SPECS)
        shape, channels = _resized(whole, image_size), whole[-1]
        expect(shape[2] == channels, f"{channels} channels", image_shape=shape)
        return Spec(num_classes, shape)

    def class_names(self):
        if self._name in SPECS and SPECS[self._name].class_names:
            return SPECS[self._name].class_names
        return tfds.about(self._name, self._data_dir, SPECS)[2]

    def read(self, about, bad_images, memory_budget):
        del bad_images
        names, provenance, *pairs = tfds.load(
            self._name, self._data_dir, about, SPECS, memory_budget
        )
        return _Found(names, provenance, *(Split(*pair) for pair in pairs))


class _Folder:
    """Image files in a folder for each class, folder:PATH."""

    keeps_a_tenth = True

    def __init__(self, name):
        self._listing = image_folders.listing(name)

    def spec(self, image_size):
        names = self._listing.class_names
        shape = _resized((None, None, 3), image_size)
        expect(can_draw(shape), "images of 1 or 3 channels", shape=shape)
        return Spec(len(names), shape, class_names=names)

    def class_names(self):
        return self._listing.class_names

    def read(self, about, bad_images, memory_budget):
        parts, skipped = image_folders.splits(
            self._listing, about.image_shape, bad_images, memory_budget
        )
        provenance = self._listing.provenance
        if skipped:
            provenance += f", {skipped} skipped"
        found = {name: Split(*pair) for name, pair in parts.items()}
        return _Found(self.class_names(), provenance, **found)


class _Arrays:
    """An .npz file of arrays."""

    keeps_a_tenth = True

    def __init__(self, name):
        self._name = name

    def spec(self, image_size):
        num_classes, shape = arrays.about(self._name)
        expect(
            not image_size or _resized(shape, image_size) == shape,
            f"no image size beside {self._name!r}, whose images are {shape}",
            image_size=image_size,
        )
        return Spec(num_classes, shape)

    def class_names(self):
        return tuple(map(str, range(arrays.about(self._name)[0])))

    def read(self, about, bad_images, memory_budget):
        del about, bad_images
        provenance, *pairs = arrays.load(self._name, memory_budget)
        halves = (Split(*pair) for pair in pairs)
        return _Found(self.class_names(), provenance, *halves)


class _Digits:
    """scikit-learn's digits, which it brings along."""

    keeps_a_tenth = False

    def spec(self, image_size):
        del image_size
        return SPECS["digits"]

    def class_names(self):
        return SPECS["digits"].class_names

    def read(self, about, bad_images, memory_budget):
        del about, bad_images, memory_budget
        from sklearn import datasets as sklearn_datasets

        digits = sklearn_datasets.load_digits()
        # 8 × 8 of 0..16 -> 32 × 32 × 3 of 0..255.
        large = tf.image.resize(digits.images[..., None] * (255 / 16), (32, 32))
        large = tf.repeat(tf.round(large), 3, axis=-1)
        images = tf.cast(large, tf.uint8).numpy()
        labels = digits.target.astype(np.int32)
        order = np.random.default_rng(0).permutation(len(labels))
        test, train = np.sort(order[:360]), np.sort(order[360:])
        return _Found(
            self.class_names(),
            "scikit-learn digits, 8x8 enlarged to 32x32",
            Split(images[train], labels[train]),
            Split(images[test], labels[test]),
        )


def _source(name, data_dir):
    """Returns what reads a data set: its spec, class names and images."""
    if name == "digits":
        return _Digits()
    if image_folders.is_folder(name):
        return _Folder(name)
    if arrays.is_file(name):
        return _Arrays(name)
    return _Tfds(name, data_dir)
