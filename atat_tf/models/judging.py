"""What must hold of classifiers before accuracies under attack are believed."""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from atat_tf.data import stored
from atat_tf.errors import InputError, expect

# Of scores, what rounding and other kernels may change.
AGREEMENT = 1e-4
_SAMPLE = 2
_JUDGED_IMAGES = 32
# Of batches that are tried beside the whole one.
_SIZES = (18, 7, 3, 2)
# Pixels of [0, 1] move so far where answers to other images are asked for.
_NOISE = 8 / 255
# Of a gradient, what devices that add in another order do not change.
_OTHER = 0.1


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
