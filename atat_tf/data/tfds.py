"""Image-classification sets of tensorflow-datasets, as uint8 images."""

import logging
import math
import os
import pathlib
import socket
import urllib.parse
from collections.abc import Collection
from typing import Any

import numpy as np
import tensorflow as tf

from atat_tf.data import splits, stored
from atat_tf.errors import InputError, expect, summary, unknown

_Path = str | os.PathLike[str] | None
_Pair = tuple[np.ndarray | stored.Images, np.ndarray]


def about(
    name: str, data_dir: _Path, others: Collection[str]
) -> tuple[tuple, int, tuple[str, ...]]:
    """Returns the shape of the images, the number and the names of classes.

    Args:
      name: of the set.
      data_dir: where tensorflow-datasets keeps its files.
      others: names of data sets that a misspelt one may mean.

    Raises:
      InputError: no such set, or not one of bytes and classes.
    """
    import tensorflow_datasets as tfds

    features = _builder(name, data_dir, others).info.features
    usable = "image" in features and "label" in features
    expect(usable, "a data set of images and labels", dataset=name)
    image, label = features["image"], features["label"]
    expect(
        image.np_dtype == np.uint8 and len(image.shape) == 3,
        f"images of bytes, pixels from 0 to 255, in {name!r} (convert the set, "
        "or give arrays of bytes as an .npz file)",
        dtype=np.dtype(image.np_dtype).name,
        shape=image.shape,
    )
    expect(
        isinstance(label, tfds.features.ClassLabel),
        f"one class an image in {name!r} (a ClassLabel)",
        label=type(label).__name__,
    )
    return tuple(image.shape), label.num_classes, tuple(label.names)


def load(
    name: str,
    data_dir: _Path,
    spec: Any,
    published: Collection[str],
    memory_budget: float = math.inf,
) -> tuple[tuple[str, ...], str, _Pair, _Pair]:
    """Returns class names, provenance, training and test images.

    Args:
      name, data_dir: as for `about`.
      spec: datasets.Spec, to whose shape images are resized.
      published: names of sets that are stored without loss.
      memory_budget: bytes; a set whose images take more is not held.

    Raises:
      InputError: the set has no training images or no labelled others, or is
        not there and cannot be had.
    """
    import tensorflow_datasets as tfds

    builder = _builder(name, data_dir, published)
    _prepare(builder, data_dir)
    train, test = _used_splits(builder)
    encoded = builder.as_dataset(
        split=test, decoders={"image": tfds.decode.SkipDecoding()}
    )
    first = next(iter(encoded.take(1)))["image"].numpy()
    provenance = f"tfds {builder.info.full_name}"
    if name in published and first[:2] == b"\xff\xd8":
        provenance += ", JPEG copy"  # tfds' own CIFAR is stored without loss
    names = tuple(builder.info.features["label"].names)
    number = sum(builder.info.splits[s].num_examples for s in (train, test))
    size = number * math.prod(spec.image_shape)
    read = _held if size <= memory_budget else _stored
    tested = read(builder, test, spec)
    validation = splits.meant(builder.info.splits).get("validation")
    if np.all(tested[1] < 0) and validation not in (None, test):
        # The labels of a competition's test images are nobody's.
        logging.warning("%s: %s has no labels, %s has", name, test, validation)
        tested = read(builder, validation, spec)
        provenance += f", {validation} split"
    return names, provenance, read(builder, train, spec), tested


def _used_splits(builder):
    """Returns tfds' words for the training and the test images."""
    names = list(builder.info.splits)
    found = splits.meant(names)
    expect(
        "train" in found,
        f"a training split in {builder.info.name!r}",
        splits=names,
    )
    train = found["train"]
    held_out = found.get("test") or found.get("validation")
    unused = sorted({*names} - {train, held_out})
    if unused:
        logging.warning(
            "%s: not used: %s", builder.info.name, ", ".join(unused)
        )
    if held_out is None:
        return f"{train}[:90%]", f"{train}[90%:]"
    return train, held_out


def _builder(name, data_dir, others):
    import tensorflow_datasets as tfds

    try:
        return tfds.builder(name, data_dir=data_dir)
    except (tfds.core.DatasetNotFoundError, ValueError):
        # A ValueError where the name is none that tfds could read.
        known = {*others, *tfds.list_builders(with_community_datasets=False)}
        near = unknown("a data set", name, known)
        hint = str(near).rpartition("Received: ")[2]
        if os.path.isdir(name):
            hint = f"{name!r}. Did you mean 'folder:{name}'?"
        raise InputError(
            f"Expected a data set among {', '.join(others)}, folder:PATH, an "
            ".npz file, or any image-classification set of "
            f"tensorflow-datasets. Received: {hint}"
        ) from None


def _prepare(builder, data_dir):
    if os.path.exists(builder.data_dir) and builder.info.splits:
        return
    try:
        _expect_hosts(builder)
        builder.download_and_prepare()
    except Exception as error:  # tfds raises a different one for each cause
        where = data_dir or os.path.dirname(os.path.dirname(builder.data_dir))
        raise InputError(
            f"Expected the data set {builder.name!r} in data_dir={where!r} or "
            "a network to download it from. Received: "
            f"{summary(error)}"
        ) from error


def _expect_hosts(builder):
    """Raises OSError at once where tfds would retry for minutes."""
    if any(name.lower() == "https_proxy" for name in os.environ):
        return  # the proxy resolves names
    for url in getattr(builder, "url_infos", {}):
        host = urllib.parse.urlparse(url).hostname
        try:
            socket.getaddrinfo(host, 443)
        except socket.gaierror:
            raise OSError(f"the host {host} cannot be reached") from None


def _held(builder, split, spec):
    """Returns uint8 [n, H, W, C] and int32 [n] of a split."""
    fitted = _fitted(builder, spec)
    pieces = list(
        builder.as_dataset(split=split, shuffle_files=False)
        .map(
            lambda item: (fitted(item["image"]), item["label"]),
            num_parallel_calls=tf.data.AUTOTUNE,
        )
        .batch(1000)
        .as_numpy_iterator()
    )
    expect(pieces, f"images in {split!r} of {builder.info.name!r}", images=0)
    images, labels = (
        np.concatenate(part) for part in zip(*pieces, strict=True)
    )
    return images, labels.astype(np.int32)


def _fitted(builder, spec):
    """Returns a function of an image, uint8, to that of the spec's shape."""

    def fitted(image):
        if builder.info.features["image"].shape != spec.image_shape:
            image = tf.image.resize(image, spec.image_shape[:2], antialias=True)
            image = tf.cast(tf.clip_by_value(tf.round(image), 0, 255), tf.uint8)
        return tf.ensure_shape(image, spec.image_shape)

    return fitted


def _stored(builder, split, spec):
    """Returns what `_held` does, in the same order, with the images unread."""
    import tensorflow_datasets as tfds

    paths = [
        instruction.filename
        for instruction in builder.info.splits[split].file_instructions
    ]
    expect(
        all(".tfrecord-" in pathlib.Path(path).name for path in paths),
        f"TFRecord files of {builder.info.name!r}, whose images are larger "
        "than the memory budget (--memory_budget)",
        files=[pathlib.Path(path).name for path in paths[:1]],
    )
    examples = builder.as_dataset(
        split=split,
        shuffle_files=False,
        decoders={"image": tfds.decode.SkipDecoding()},
        read_config=tfds.ReadConfig(add_tfds_id=True),
    ).map(lambda item: (item["tfds_id"], item["label"]))
    offsets = [stored.records(path) for path in paths]
    numbers = {pathlib.Path(p).name: n for n, p in enumerate(paths)}
    places, labels = [], []
    for name, label in examples.as_numpy_iterator():
        file, _, record = name.decode().rpartition("__")
        number = numbers[file]
        places.append((number, *offsets[number][int(record)]))
        labels.append(label)
    expect(places, f"images in {split!r} of {builder.info.name!r}", images=0)
    features, fitted = builder.info.features, _fitted(builder, spec)
    images = stored.Records(
        np.array(places),
        spec.image_shape,
        tuple(map(str, paths)),
        [stored.stamp(path) for path in paths],
        lambda record: fitted(features.deserialize_example(record)["image"]),
    )
    return images, np.array(labels, np.int32)
