"""What must hold of classifiers and data before a training starts."""

import re
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from atat_tf.data import stored
from atat_tf.errors import InputError, expect
from atat_tf.models import graphs

_SAMPLE = 2
# Keras' layers of data augmentation. Dropout and noise are no such layers.
_RANDOM = tuple(
    getattr(keras.layers, name)
    for name in dir(keras.layers)
    if re.fullmatch("Random[A-Z].*|RandAugment|AugMix|CutMix|MixUp", name)
)
# Enough to tell [0, 1] from 0-255; labels are looked at to the last one.
_FIRST_IMAGES = 1024
_JUDGED_IMAGES = 32


def expect_trainable(
    classifier: keras.Model, bounds: tuple[float, float] = (0.0, 1.0)
) -> None:
    """Raises InputError unless a classifier can be trained against attacks.

    It is tried in inference mode on two random images.

    Args:
      classifier: functional keras.Model from `classifiers.logits_model`.
      bounds: the smallest and the largest pixel value.
    """
    name = classifier.name
    draw = np.random.default_rng(0)
    shape = (_SAMPLE, *classifier.inputs[0].shape[1:])
    images = tf.constant(draw.uniform(*bounds, shape), keras.config.floatx())
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(images)
        logits = tf.convert_to_tensor(classifier(images, training=False))
        # Not their sum, which some classifiers hold constant.
        mix = tf.cast(draw.normal(size=logits.shape[-1]), logits.dtype)
        score = tf.reduce_sum(logits * mix)
    gradient = tape.gradient(score, images)
    values = logits.numpy().astype(np.float64)
    again = np.asarray(classifier(images, training=False), np.float64)
    difference = relative_difference(again, values)
    sentence = not_logits(values)
    if sentence:
        raise InputError(f"{name}: {sentence}")
    expect(
        difference <= AGREEMENT,
        f"of {name} the same logits for the same image in inference mode (a "
        "random layer is active)",
        relative_difference=difference,
    )
    # A new classifier may end in zeros: then nothing differs either.
    differ = relative_difference(values[0], values[1]) > AGREEMENT
    expect(
        gradient is not None
        and np.all(np.isfinite(gradient))
        and (np.any(gradient) or not differ),
        f"a gradient from the logits of {name} to the image, which every "
        "attack follows (a rounding, a cast to integers or a stop_gradient "
        "cuts it)",
        gradient=None if gradient is None else float(np.abs(gradient).max()),
    )


# Of images after a first layer; of [0, 1] through 1/255 is left 0.004.
_NARROWEST = 0.05


def expect_range_used(classifier: keras.Model, width: float) -> None:
    """Raises InputError if a first layer shrinks the pixels to next to nothing.

    As Rescaling(1/255) does with pixels from 0 to 1: all images are alike then,
    and so is every answer.

    Args:
      classifier: functional keras.Model.
      width: largest pixel value less the smallest.
    """
    graph = graphs.of_functional(classifier)
    for call in graph.calls:
        if not any(tensor is graph.inputs[0] for tensor in call.inputs):
            continue
        scale = 1.0
        if isinstance(call.layer, keras.layers.Rescaling):
            scale = float(np.max(np.abs(call.layer.scale)))
        if isinstance(call.layer, keras.layers.Normalization):
            variance = np.asarray(call.layer.variance)
            scale = float(1 / np.sqrt(max(np.min(variance), 1e-12)))
        expect(
            scale * width >= _NARROWEST,
            f"a range of pixels that {classifier.name}'s first layer "
            f"{call.layer.name!r} does not shrink to nothing: it multiplies "
            f"by {scale:.3g} (of a model of bytes' values bounds=(0, 255), "
            "--model_range=0,255 in commands)",
            width=width,
        )


def expect_weights_to_train(classifier: keras.Model) -> tuple[int, int]:
    """Returns how many weights are trained, and how many are frozen.

    Batch statistics, which no gradient moves, are neither.

    Raises:
      InputError: all are frozen.
    """
    sizes = {True: 0, False: 0}
    for layer in classifier.layers:
        moved = {id(v) for v in layer.trainable_variables}
        layer_trains = layer.trainable
        for variable in layer.weights:
            if id(variable) in moved or not layer_trains:
                sizes[id(variable) in moved] += int(np.prod(variable.shape))
    expect(
        sizes[True],
        f"weights to train in {classifier.name} (--unfreeze, or "
        "trainable=True before it is saved)",
        trained=0,
        frozen=sizes[False],
    )
    return sizes[True], sizes[False]


def expect_one_image(classifier: keras.Model) -> None:
    """Raises InputError if layers of a student change images at random.

    Two of its answers, or its and its teacher's, would be of different images.

    Args:
      classifier: functional keras.Model.
    """
    turned = [
        layer.name for layer in classifier.layers if isinstance(layer, _RANDOM)
    ]
    expect(
        not turned,
        f"{classifier.name} without layers that change images at random: "
        "what the defense compares must be of one image (put them into the "
        "input pipeline; config.flip and config.augmentation do it in "
        "commands)",
        layers=turned,
    )


def expect_pair(
    student: keras.Model, teacher: keras.Model, layers: Sequence[str]
) -> None:
    """Raises InputError unless a teacher's maps can be a student's target.

    Args:
      student, teacher: models from `graphs.with_taps`.
      layers: whose maps are compared.
    """
    shared = {id(v) for v in student.variables} & {
        id(v) for v in teacher.variables
    }
    expect(
        not shared,
        "a teacher with weights of its own (load the model a second time), "
        "since the student's are trained and the teacher's are not",
        shared_variables=len(shared),
    )
    for name in ("logits", *layers):
        # Channels may differ: a map has none.
        end = None if name == "logits" else 3
        here = tuple(student.output[name].shape[1:end])
        there = tuple(teacher.output[name].shape[1:end])
        expect(
            here == there,
            f"a student and a teacher of one shape at {name!r}",
            student=here,
            teacher=there,
        )
    here, there = (m.inputs[0].shape[1:] for m in (student, teacher))
    expect(
        here == there,
        "a student and a teacher of one image size",
        student=here,
        teacher=there,
    )


def expect_batch_size(batch_size: int | None) -> None:
    """Raises InputError unless it is a number of images, or None."""
    expect(
        batch_size is None
        or (isinstance(batch_size, int | np.integer) and batch_size >= 1),
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
        x = np.asarray(x[0] if len(x) == 1 else x)
        x = x[np.newaxis] if x.ndim == 3 else x
    if isinstance(y, list | tuple):
        y = np.asarray(y)
    return x, y


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


# Of the range: what rounding in somebody's normalisation may add.
_TOLERANCE = 1e-5


def batch_rules(
    images: tf.Tensor,
    labels: tf.Tensor,
    num_classes: int,
    bounds: tuple[float, float],
) -> list[tuple[str, tf.Tensor, tf.Tensor]]:
    """Returns what must hold of a batch that suits a classifier.

    `expect_data` looks at the first batch of a data set, before training; a
    later one is wrong as easily.

    Args:
      images: [b, H, W, C], as they are given.
      labels: [b] or [b, 1], or shares of the classes [b, k].
      num_classes: k.
      bounds: the smallest and the largest pixel value.

    Returns:
      [(rule, whether it holds [], the values that it is about)], as many for
      every batch.
    """
    low, high = bounds
    size = tf.shape(images)[:1]
    rules = [("an image for each device in every batch", size > 0, size)]
    if images.dtype != tf.uint8:
        slack = _TOLERANCE * (high - low)
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


def as_input_error(error: tf.errors.OpError) -> Exception:
    """Returns the InputError that an error of a graph stands for.

    It is one of `asserted`, or was raised by `stored.Images` inside. Any other
    error is returned as it is.
    """
    raised = re.search(r"\bInputError: (.*?)\n", error.message)
    if raised:
        return InputError(raised[1])
    found = re.search(
        r"assertion failed: \[(Expected [^\]]*)\] \[(.*?)\] \[(.*?)\]",
        error.message,
    )
    if not found:
        return error
    rule, smallest, largest = found.groups()
    return InputError(
        f"{rule}. Received: smallest={smallest}, largest={largest}."
    )


def _expect_pixels(images, bounds):
    low, high = bounds
    smallest, largest = float(images.min()), float(images.max())
    expect(
        low <= smallest <= largest <= high,
        f"pixels from {low:g} to {high:g}, the attack's bounds (another range: "
        "bounds=(low, high) of the attack, with epsilon in the same unit)",
        smallest=smallest,
        largest=largest,
    )
    # A whole batch within a hundredth of the range, and yet not one colour.
    expect(
        high - low < 100 or largest > 1 or smallest == largest,
        f"pixels from {low:g} to {high:g}, the attack's bounds",
        smallest=smallest,
        largest=largest,
    )


AGREEMENT = 1e-4


def not_logits(logits: np.ndarray) -> str | None:
    """Returns what is wrong with outputs [n, k] as logits, or None."""
    if logits.ndim != 2 or logits.shape[1] < 2:
        return (
            "Expected logits of at least 2 classes, [n, k]. Received: outputs "
            f"of shape {list(logits.shape)}."
        )
    if not np.all(np.isfinite(logits)):
        return (
            "Expected finite logits. Received: a NaN or an infinity; no attack "
            "can be judged by it."
        )
    if are_probabilities(logits):
        return (
            "Expected logits. Received: outputs in [0, 1] that sum to 1, as "
            "after a softmax, which hides gradients: take it off."
        )
    return None


def are_probabilities(outputs: np.ndarray) -> bool:
    """Returns whether outputs [n, k] look like those of a softmax."""
    inside = np.all((outputs >= 0) & (outputs <= 1))
    return bool(inside and np.allclose(outputs.sum(-1), 1, atol=1e-3))


def relative_difference(here: np.ndarray, there: np.ndarray) -> float:
    """Returns the largest difference over the largest value `there`."""
    scale = np.max(np.abs(there))
    return float(np.max(np.abs(here - there)) / max(scale, 1e-12))


def expect_judgeable(
    logits_fn: Callable[[np.ndarray], np.ndarray],
    images: np.ndarray | stored.Images,
) -> None:
    """Raises InputError unless a classifier can be judged image by image.

    Args:
      logits_fn: uint8 [n, H, W, C] -> logits [n, k].
      images: uint8 [n, H, W, C], of which some are tried.
    """
    sample = images[:_JUDGED_IMAGES]
    logits = logits_fn(sample)
    for sentence in (
        not_logits(logits),
        not_repeatable(logits_fn, sample, logits),
        batch_dependent(logits_fn, sample, logits),
    ):
        if sentence:
            raise InputError(sentence)


def not_repeatable(
    logits_fn: Callable[[np.ndarray], np.ndarray],
    images: np.ndarray,
    logits: np.ndarray,
) -> str | None:
    """Returns what is wrong if the same images get other logits, or None."""
    difference = relative_difference(logits_fn(images), logits)
    if difference <= AGREEMENT:
        return None
    return (
        "Expected the same logits for the same images. Received: a relative "
        f"difference of {difference:.2g}, as of random layers; accuracies "
        "under attack would be chance."
    )


def batch_dependent(
    logits_fn: Callable[[np.ndarray], np.ndarray],
    images: np.ndarray,
    logits: np.ndarray,
) -> str | None:
    """Returns what is wrong if a batch changes an image's logits, or None."""
    alone = np.concatenate([logits_fn(image[np.newaxis]) for image in images])
    difference = relative_difference(alone, logits)
    if difference <= AGREEMENT:
        return None
    return (
        "Expected an image's logits alone to equal those in a batch. Received: "
        f"a relative difference of {difference:.2g}, as of batch norm in "
        "training mode (bn_eval=batch evaluates so, and marks it)."
    )


def has_gradient(
    classifier: Callable, image_shape: tuple[int, int, int]
) -> bool:
    """Returns whether the logits can be differentiated by the images.

    Args:
      classifier: (float32 [b, H, W, C] in [0, 1], training) -> logits [b, k].
      image_shape: (H, W, C).
    """
    images = tf.fill((_SAMPLE, *image_shape), 0.5)
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(images)
        logits = classifier(images, training=False)
    return tape.gradient(logits, images) is not None


def expect_scores_that_change(
    logits_fn: Callable[[np.ndarray], np.ndarray],
    images: np.ndarray,
    epsilon: float,
) -> None:
    """Raises InputError where noise within ε leaves the scores as they are.

    Square, which is left where there is no gradient, follows the scores. Where
    they stay the same around an image, as hard labels, rounded scores and
    answers from a cache do, it finds nothing, whatever there is to find.

    Args:
      logits_fn: float32 [n, H, W, C] in [0, 1] -> logits [n, k].
      images: float32 in [0, 1], [n, H, W, C], of which some are tried.
      epsilon: in the unit of [0, 1].
    """
    sample = images[:_JUDGED_IMAGES]
    draw = np.random.default_rng(0)
    noise = draw.uniform(-epsilon, epsilon, sample.shape)
    noisy = np.clip(sample + noise, 0, 1).astype(np.float32)
    same = np.all(logits_fn(noisy) == logits_fn(sample), axis=-1)
    expect(
        np.mean(same) <= 0.5,
        "scores that change with the image: no attack is led by hard labels, "
        "rounded scores, or answers from a cache",
        unchanged_by_noise=f"{same.sum()} of {len(same)} images",
    )
