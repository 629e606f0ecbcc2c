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


def extra_images(
    path: str | os.PathLike[str],
    spec: Spec,
    memory_budget: float | None = None,
) -> Split:
    """Reads images from elsewhere that training is to see beside its own.

    Args:
      path: .npz file with arrays "image", uint8 [n, H, W, C], and "label",
        integers [n], as the sets of generated images are published.
      spec: of the data set, whose shape and classes they must have.
      memory_budget: as for `load`.

    Raises:
      InputError: as for `extra_arrays`; or they are compressed, and larger than
        the memory budget.
    """
    images, labels = extra_arrays(path, spec)
    if memory_budget is None:
        memory_budget = stored.free_memory() / 2
    is_held = images.nbytes <= memory_budget
    kept = arrays.held(images) if is_held else arrays.unread(images)
    return Split(kept, labels.astype(np.int32))


def extra_arrays(
    path: str | os.PathLike[str], spec: Spec
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the images and labels of a file that `extra_images` reads.

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
    if name in SPECS:
        return SPECS[name]
    if name in REGISTERED:
        return REGISTERED[name]().spec
    if image_folders.is_folder(name):
        names = image_folders.listing(name).class_names
        shape = _resized((None, None, 3), image_size)
        expect(shape[2] in (1, 3), "images of 1 or 3 channels", shape=shape)
        return Spec(len(names), shape, class_names=names)
    if arrays.is_file(name):
        num_classes, shape = arrays.about(name)
        expect(
            not image_size or _resized(shape, image_size) == shape,
            f"no image size beside {name!r}, whose images are {shape}",
            image_size=image_size,
        )
        return Spec(num_classes, shape)
    stored, num_classes, _ = tfds.about(name, data_dir, SPECS)
    shape = _resized(stored, image_size)
    channels = stored[-1]
    expect(shape[2] == channels, f"{channels} channels", image_shape=shape)
    return Spec(num_classes, shape)


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
    if name in SPECS and SPECS[name].class_names:
        return SPECS[name].class_names
    if name in REGISTERED:
        return REGISTERED[name]().class_names
    if image_folders.is_folder(name):
        return image_folders.listing(name).class_names
    if arrays.is_file(name):
        return tuple(map(str, range(arrays.about(name)[0])))
    return tfds.about(name, data_dir, SPECS)[2]


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
    about = spec(name, data_dir, image_size)
    if memory_budget is None:
        memory_budget = stored.free_memory() / 2
    expect(
        memory_budget >= 0,  # not so of NaN
        "a memory budget of 0 bytes or more",
        memory_budget=memory_budget,
    )
    if image_folders.is_folder(name):
        names, provenance, train, test, held_out = _folder(
            name, about, bad_images, memory_budget
        )
        if held_out is not None:
            expect(
                num_validation is None,
                "no num_validation beside a folder validation/",
                num_validation=num_validation,
            )
            parts = train, held_out, test
            return _checked(Dataset(name, about, names, provenance, *parts))
        about = dataclasses.replace(
            about, num_validation=max(1, len(train) // 10)
        )
    elif name == "digits":
        names, provenance, train, test = _digits()
    elif arrays.is_file(name):
        names = class_names(name)
        provenance, *pairs = arrays.load(name, memory_budget)
        train, test = (Split(*pair) for pair in pairs)
        about = dataclasses.replace(
            about, num_validation=max(1, len(train) // 10)
        )
    else:
        names, provenance, *pairs = tfds.load(
            name, data_dir, about, SPECS, memory_budget
        )
        train, test = (Split(*pair) for pair in pairs)
    if num_validation is None:
        num_validation = about.num_validation
    expect(
        0 < num_validation < len(train),
        f"num_validation between 1 and {len(train) - 1}",
        num_validation=num_validation,
    )
    draw = splits.uniform if name in SPECS else splits.stratified
    kept, held_out = draw(train.labels, num_validation, split_seed)
    return _checked(
        Dataset(
            name,
            about,
            names,
            provenance,
            train.subset(kept),
            train.subset(held_out),
            test,
        )
    )


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


def _folder(name, about, bad_images, memory_budget):
    """Returns class names, provenance, train, test and validation or None."""
    listing = image_folders.listing(name)
    parts, skipped = image_folders.splits(
        listing, about.image_shape, bad_images, memory_budget
    )
    provenance = listing.provenance
    if skipped:
        provenance += f", {skipped} skipped"
    train, test = Split(*parts["train"]), Split(*parts["test"])
    held_out = parts.get("validation")
    validation = None if held_out is None else Split(*held_out)
    return listing.class_names, provenance, train, test, validation


def _digits():
    from sklearn import datasets as sklearn_datasets

    digits = sklearn_datasets.load_digits()
    # 8 × 8 of 0..16 -> 32 × 32 × 3 of 0..255.
    images = tf.image.resize(digits.images[..., None] * (255 / 16), (32, 32))
    images = tf.cast(tf.round(tf.repeat(images, 3, axis=-1)), tf.uint8).numpy()
    labels = digits.target.astype(np.int32)
    order = np.random.default_rng(0).permutation(len(labels))
    test, train = np.sort(order[:360]), np.sort(order[360:])
    return (
        tuple(str(name) for name in digits.target_names),
        "scikit-learn digits, 8x8 enlarged to 32x32",
        Split(images[train], labels[train]),
        Split(images[test], labels[test]),
    )
