"""What must hold of classifiers before they are trained or judged."""

import re
from collections.abc import Callable, Sequence

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
_JUDGED_IMAGES = 32
# Of batches that are tried beside the whole one.
_SIZES = (18, 7, 3, 2)
# Pixels of [0, 1] move so far where answers to other images are asked for.
_NOISE = 8 / 255
# Of a gradient, what devices that add in another order do not change.
_OTHER = 0.1


def expect_trainable(
    tapped: keras.Model, bounds: tuple[float, float] = (0.0, 1.0)
) -> None:
    """Raises InputError unless a classifier can be trained against attacks.

    It is tried in inference mode on two random images.

    Args:
      tapped: a model from `graphs.with_taps`.
      bounds: the smallest and the largest pixel value.
    """
    name = tapped.name.removesuffix(graphs.TAPPED)
    draw = np.random.default_rng(0)
    shape = (_SAMPLE, *tapped.inputs[0].shape[1:])
    images = tf.constant(draw.uniform(*bounds, shape), keras.config.floatx())
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(images)
        logits = tf.convert_to_tensor(tapped(images, training=False)["logits"])
        # Not their sum, which some classifiers hold constant.
        mix = tf.cast(draw.normal(size=logits.shape[-1]), logits.dtype)
        score = tf.reduce_sum(logits * mix)
    gradient = tape.gradient(score, images)
    values = logits.numpy().astype(np.float64)
    again = np.asarray(tapped(images, training=False)["logits"], np.float64)
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
    """Returns the largest difference of scores over how far scores lie apart.

    What all classes of an image have in common decides nothing, and makes no
    difference small. Nor do the scores of another image, however large.

    Args:
      here, there: scores [..., k]. Both NaN, or the same infinity, are equal.

    Returns:
      The largest ratio of an image: the difference over the distance of a
      score from the image's mean, `there`, or the median of such distances
      where that is more. Infinite where one alone is not finite.
    """
    here, there = np.asarray(here, np.float64), np.asarray(there, np.float64)
    same = (here == there) | (np.isnan(here) & np.isnan(there))
    if np.all(same):
        return 0.0
    with np.errstate(invalid="ignore"):
        difference = np.where(same, 0.0, np.abs(here - there)).max(axis=-1)
        apart = np.abs(there - there.mean(axis=-1, keepdims=True)).max(axis=-1)
    if not np.all(np.isfinite(difference)):
        return np.inf
    apart = np.where(np.isfinite(apart), apart, 0.0)
    scale = np.maximum(apart, max(np.median(apart), 1e-12))
    return float(np.max(difference / scale))


def expect_judgeable(
    logits_fn: Callable[[np.ndarray], np.ndarray],
    alone_fn: Callable[[np.ndarray], np.ndarray],
    images: np.ndarray | stored.Images,
    batch_size: int = _JUDGED_IMAGES,
) -> None:
    """Raises InputError unless a classifier can be judged image by image.

    Args:
      logits_fn: images in one batch, uint8 or float32 in [0, 1],
        [n, H, W, C] -> logits [n, k].
      alone_fn: the same of each image in a batch of one, which is what confirms
        an adversarial example.
      images: uint8 or float32 in [0, 1], [n, H, W, C], of which some are tried.
      batch_size: images that are judged at a time: so many are in the batch.
    """
    sample = images[:_JUDGED_IMAGES]
    logits = logits_fn(sample)
    batch = images[: max(batch_size, _JUDGED_IMAGES)]
    for sentence in (
        not_logits(logits),
        not_repeatable(logits_fn, sample, logits),
        batch_dependent(logits_fn, alone_fn, batch),
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


def in_unit(images: np.ndarray) -> np.ndarray:
    """Returns uint8 or float32 images as float32 in [0, 1]."""
    scale = 255 if images.dtype == np.uint8 else 1
    return np.asarray(images, np.float32) / np.float32(scale)


def beside(images: np.ndarray) -> np.ndarray:
    """Returns images with noise, float32 in [0, 1], the same at each call."""
    pixels = in_unit(images)
    noise = np.random.default_rng(0).uniform(-_NOISE, _NOISE, pixels.shape)
    return np.clip(pixels + noise, 0, 1).astype(np.float32)


def logits_and_gradient(
    logits_fn: Callable[[tf.Tensor], tf.Tensor], pixels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns logits, and the gradient of a fixed mix of them by the pixels.

    A mix, and not the sum of the scores, which some classifiers hold constant.

    Args:
      logits_fn: float32 [n, H, W, C] in [0, 1] -> logits [n, k].
      pixels: float32 [n, H, W, C] in [0, 1].

    Returns:
      (logits [n, k], gradient [n, H, W, C], zero where there is none).
    """
    watched = tf.constant(pixels)
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(watched)
        logits = logits_fn(watched)
        mix = np.random.default_rng(0).normal(size=logits.shape[-1])
        score = tf.reduce_sum(logits * tf.constant(mix, logits.dtype))
    gradient = tape.gradient(score, watched, unconnected_gradients="zero")
    return logits.numpy(), gradient.numpy()


def batch_dependent(
    logits_fn: Callable[[np.ndarray], np.ndarray],
    alone_fn: Callable[[np.ndarray], np.ndarray],
    images: np.ndarray,
) -> str | None:
    """Returns what is wrong if a batch changes an image's logits, or None.

    Images with noise are tried as well, and these in smaller batches too: an
    attack asks about images that no data set has, and broken ones leave.

    Args:
      logits_fn, alone_fn: as for `expect_judgeable`.
      images: uint8 or float32 in [0, 1], [n, H, W, C], the batch; of the
        first ones each is asked alone.
    """
    count = len(images)
    fewer = [size for size in _SIZES if size < count]
    for tried, sizes in ((images, [count]), (beside(images), [count, *fewer])):
        alone = alone_fn(tried[:_JUDGED_IMAGES])
        for size in sizes:
            together = logits_fn(tried[:size])[:_JUDGED_IMAGES]
            difference = relative_difference(together, alone[:size])
            if not difference <= AGREEMENT:
                return (
                    "Expected an image's logits alone to equal those in a "
                    "batch. Received: a relative difference of "
                    f"{difference:.2g} in a batch of {size}, as of batch norm "
                    "in training mode (bn_eval=batch evaluates so, and marks "
                    "it), or of a function that asks for the batch's size."
                )
    return None


def expect_gradients(
    logits_fn: Callable[[tf.Tensor], tf.Tensor],
    images: np.ndarray | stored.Images,
) -> None:
    """Raises InputError unless an attack can follow the scores' gradients.

    Refused is what most of the images show by themselves: gradients that are
    zero where the scores differ between images, not finite, or others at each
    call. That a gradient is wrong, and the same at each call, one point cannot
    show; the checklist compares attacks for it.

    Args:
      logits_fn: float32 [n, H, W, C] in [0, 1] -> logits [n, k].
      images: uint8 or float32 in [0, 1], [n, H, W, C], of which some are tried.
    """
    sample = images[:_JUDGED_IMAGES]
    pixels = in_unit(sample)
    logits, gradient = logits_and_gradient(logits_fn, pixels)
    _, again = logits_and_gradient(logits_fn, pixels)
    # Squares of float32 would be 0 where a gradient is merely small.
    gradient, again = (
        g.reshape(len(sample), -1).astype(np.float64) for g in (gradient, again)
    )
    finite = np.isfinite(gradient).all(1)
    length = np.linalg.norm(gradient, axis=1)
    # Of one image, or equal ones, the negatives show whether scores change.
    negatives = logits_fn(tf.constant(1 - pixels)).numpy()
    differ = any(
        relative_difference(logits, other) > AGREEMENT
        for other in (logits[:1], negatives)
    )
    moved = np.linalg.norm(again - gradient, axis=1)
    for wrong, what in (
        (~finite, "not finite"),
        ((length == 0) & differ, "zero"),
        (finite & (moved > _OTHER * length), "others at each call"),
    ):
        expect(
            np.mean(wrong) <= 0.5,
            "gradients of the scores that PGD and APGD can follow (the attack "
            '"square" needs none, and atat.checklist asks for more)',
            gradients=f"{what} at {wrong.sum()} of {wrong.size} images",
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
