"""What must hold of the images and labels that `fit` is given."""

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike

from atat_tf.errors import InputError, expect, summary, with_checked_types

# Enough to tell [0, 1] from 0-255; labels are looked at to the last one.
_FIRST_IMAGES = 1024


@with_checked_types
def expect_batch_size(batch_size: int | None) -> None:
    """Raises InputError unless it is a number of images, or None."""
    expect(
        batch_size is None or batch_size >= 1,
        "batch_size >= 1",
        batch_size=batch_size,
    )


def as_examples(x: Any, y: Any) -> tuple[Any, Any]:
    """Returns what is given to `fit` as images and labels that Keras takes.

    Args:
      x: images; a list of them, or of one array; a tf.data.Dataset whose
        batches are dictionaries of "image" and "label", as those of
        tensorflow-datasets. Anything else is returned as it is.
      y: labels, or a list of them.

    Raises:
      InputError: dictionaries without these names, or names for labels.
    """
    if isinstance(x, tf.data.Dataset) and isinstance(x.element_spec, dict):
        expect(
            {"image", "label"} <= {*x.element_spec},
            'batches (images, labels), or dictionaries of "image" and "label"',
            names=[*x.element_spec],
        )
        x = x.map(lambda batch: (batch["image"], batch["label"]))
    expect(
        not isinstance(x, dict),
        "images as one array",
        dictionary_of=[*x] if isinstance(x, dict) else None,
    )
    if isinstance(x, list | tuple):
        x = _array(x[0] if len(x) == 1 else x, "images of one size")
        x = x[np.newaxis] if x.ndim == 3 else x
    if isinstance(y, list | tuple):
        y = _array(y, "labels of one kind")
    return x, y


def _array(values, what):
    try:
        return np.asarray(values)
    except ValueError as error:  # rows of several lengths
        raise InputError(
            f"Expected {what}, as one array. Received: {summary(error)}."
        ) from error


def expect_data(
    x: Any,
    y: Any,
    classifier: keras.Model,
    bounds: tuple[float, float],
) -> None:
    """Raises InputError unless data as `fit` takes it suits a classifier.

    Args:
      x: array or tensor of images, tf.data.Dataset or keras.utils.PyDataset
        of (images, labels) batches; of anything else nothing is read.
      y: labels, with an array.
      classifier: functional keras.Model, images -> logits.
      bounds: the smallest and the largest pixel value.
    """
    images, labels = _first(x, y)
    if images is None:
        return
    expect(labels is not None, "labels beside the images", y=labels)
    shape = tuple(classifier.inputs[0].shape[1:])
    expect(
        images.shape != shape,
        "batches of images (dataset.batch(32) makes them)",
        images=images.shape,
    )
    expect(
        len(images) and images.shape[1:] == shape,
        f"images of {shape}, the size that the classifier takes, one at least",
        images=images.shape,
    )
    if hasattr(x, "shape"):
        expect(
            len(x) == len(labels),
            "a label for each image",
            images=len(x),
            labels=len(labels),
        )
    _expect_labels(np.asarray(labels), classifier.outputs[0].shape[-1])
    if images.dtype != np.uint8:
        _expect_pixels(images, bounds)


def expect_weights(sample_weight: Any, class_weight: Any = None) -> None:
    """Raises InputError unless they can weigh the losses of images.

    Args:
      sample_weight: array or tensor of a number for each image, or None.
      class_weight: {class: number}, or None.
    """
    expect(
        class_weight is None or isinstance(class_weight, Mapping),
        "class_weight as {class: number}",
        class_weight=type(class_weight),
    )
    for name, given in (
        ("sample_weight", sample_weight),
        ("class_weight", class_weight and [*class_weight.values()]),
    ):
        if given is None:
            continue
        weights = np.asarray(given)
        is_numbers = weights.dtype.kind in "iuf" and weights.size > 0
        expect(
            weights.ndim == 1 or weights.shape[1:] == (1,),
            f"{name} of one number for each image, [n]",
            shape=weights.shape,
        )
        # False for NaN too.
        expect(
            is_numbers and weights.min() >= 0 and 0 < weights.max() < np.inf,
            f"{name} of finite numbers >= 0, not all of them 0 (0 leaves an "
            "image out)",
            smallest=weights.min().item() if is_numbers else None,
            largest=weights.max().item() if is_numbers else None,
            dtype=str(weights.dtype),
        )


def use_range(
    smallest: ArrayLike, largest: ArrayLike, low: ArrayLike, high: ArrayLike
) -> bool:
    """Returns whether images are more than black in the range they are said of.

    They are not where no pixel is above a grey level, as in images that were
    divided by 255 twice or bytes of 0 and 1; images of one colour are let be.

    Args:
      smallest, largest: of the pixels, [] or [C].
      low, high: black and white, [] or [C].
    """
    above, width = np.subtract(largest, low), np.subtract(high, low)
    # Of a grey level, a thousandth for rounding.
    is_used = np.any(above > 1.001 / 255 * width)
    return bool(is_used or np.min(smallest) == np.max(largest))


def _first(x, y):
    """Returns the first images and all labels there are beside them."""
    if isinstance(x, tf.data.Dataset):
        for batch in x.take(1):
            x, y, _ = keras.utils.unpack_x_y_sample_weight(batch)
    elif isinstance(x, keras.utils.PyDataset):
        x, y, _ = keras.utils.unpack_x_y_sample_weight(x[0])
    if not hasattr(x, "shape") or isinstance(x, tf.data.Dataset):
        return None, None
    return np.asarray(x[:_FIRST_IMAGES]), y


def _expect_labels(labels, num_classes):
    expect(
        labels.dtype.kind in "iufb",
        "labels as numbers (atat.harden takes names, as class_names)",
        dtype=str(labels.dtype),
    )
    if labels.ndim == 2 and labels.shape[1] > 1:
        expect(
            labels.shape[1] == num_classes
            and np.all(labels >= 0)
            and np.allclose(labels.sum(1), 1, atol=1e-3),
            f"one-hot labels of {num_classes} classes, shares of them that sum "
            "to 1, or integers",
            labels=labels.shape,
        )
        return
    expect(
        labels.min() >= 0
        and labels.max() < num_classes
        and np.all(labels == np.round(labels)),
        f"whole labels from 0 to {num_classes - 1}: the classifier has "
        f"{num_classes} outputs",
        smallest=labels.min().item(),
        largest=labels.max().item(),
    )


# Of the range of the pixels: what rounding in somebody's normalisation may add.
TOLERANCE = 1e-5


def batch_rules(
    images: tf.Tensor,
    labels: tf.Tensor,
    num_classes: int,
    bounds: tuple[float, float],
    weights: tf.Tensor | None = None,
) -> list[tuple[str, tf.Tensor, tf.Tensor]]:
    """Returns what must hold of a batch that suits a classifier.

    `expect_data` looks at the first batch of a data set, before training; a
    later one is wrong as easily.

    Args:
      images: [b, H, W, C], as they are given.
      labels: [b] or [b, 1], or shares of the classes [b, k].
      num_classes: k.
      bounds: the smallest and the largest pixel value.
      weights: of the images, [b] or [b, 1]; None where there are none.

    Returns:
      [(rule, whether it holds [], the values that it is about)], as many for
      every batch.
    """
    low, high = bounds
    size = tf.shape(images)[:1]
    rules = [("an image for each device in every batch", size > 0, size)]
    if images.dtype != tf.uint8:
        slack = TOLERANCE * (high - low)
        pixels = tf.cast(images, tf.float32)
        inside = (pixels >= low - slack) & (pixels <= high + slack)
        rule = f"pixels from {low:g} to {high:g}, the attack's bounds"
        rules.append((f"{rule}, in every batch", inside, pixels))
    numbers = tf.cast(labels, tf.float32)
    if labels.shape.rank == 2 and (labels.shape[-1] or 1) > 1:
        rule = f"shares of {num_classes} classes that sum to 1, in every batch"
        is_one = tf.abs(tf.reduce_sum(numbers, -1, keepdims=True) - 1) < 1e-3
        holds = (numbers >= 0) & is_one
    else:
        rule = f"whole labels from 0 to {num_classes - 1}, in every batch"
        in_range = (numbers >= 0) & (numbers < num_classes)
        holds = in_range & (numbers == tf.round(numbers))
    rules.append((rule, holds, numbers))
    if weights is not None:
        weights = tf.cast(weights, tf.float32)
        rule = "a finite sample weight >= 0 for each image, in every batch"
        holds = (weights >= 0) & (weights < np.inf)
        holds &= tf.size(weights) == tf.shape(labels)[0]
        rules.append((rule, holds, weights))
    return [(words, tf.reduce_all(all_of), v) for words, all_of, v in rules]


def asserted(
    rules: Sequence[tuple[str, tf.Tensor, tf.Tensor]],
) -> list[tf.Operation]:
    """Returns an assertion for each of `batch_rules`; XLA leaves them out."""
    found = [
        tf.debugging.Assert(
            holds,
            [f"Expected {rule}", tf.reduce_min(values), tf.reduce_max(values)],
        )
        for rule, holds, values in rules
    ]
    return [one for one in found if one is not None]


@contextlib.contextmanager
def sentences() -> Iterator[None]:
    """Raises the InputError that an error of a graph stands for.

    It is one of `asserted`, or was raised by a Python function inside, of which
    TensorFlow tells in words alone. Any other error stays as it is.
    """
    try:
        yield
    except tf.errors.OpError as error:
        sentence = _sentence(error.message)
        if sentence is None:
            raise
        raise InputError(sentence) from None


def _sentence(message):
    raised = re.search(r"\bInputError: (.*)", message)
    if raised:
        return raised[1]
    sized = re.search(
        r"Shape of tensor \S+ (\[.*?\]) is not compatible with expected shape "
        r"(\[.*?\])",
        message,
    )
    if sized:
        return f"Expected batches of {sized[2]}. Received: shape={sized[1]}."
    found = re.search(
        r"assertion failed: \[(Expected [^\]]*)\] \[(.*?)\] \[(.*?)\]", message
    )
    if not found:
        return None
    rule, smallest, largest = found.groups()
    return f"{rule}. Received: smallest={smallest}, largest={largest}."


def _expect_pixels(images, bounds):
    low, high = bounds
    smallest, largest = float(images.min()), float(images.max())
    slack = TOLERANCE * (high - low)
    expect(
        low - slack <= smallest <= largest <= high + slack,
        f"pixels from {low:g} to {high:g}, the attack's bounds (another range: "
        "bounds=(low, high) of the attack, with epsilon in the same unit)",
        smallest=smallest,
        largest=largest,
    )
    expect(
        use_range(smallest, largest, low, high),
        f"pixels that use the range from {low:g} to {high:g}, the attack's "
        "bounds (images that were divided by 255 twice, or not multiplied, are "
        "all but black)",
        smallest=smallest,
        largest=largest,
    )
