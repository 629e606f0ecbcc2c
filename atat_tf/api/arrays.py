"""A model and its examples, checked, as an evaluation of a run opens them."""

import contextlib
import dataclasses
import hashlib
import logging
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np
import tensorflow as tf
from ml_collections import ConfigDict
from numpy.typing import ArrayLike, NDArray

from atat_tf.api import classifier as classifiers
from atat_tf.api.pixels import Bounds, PixelRange, labels_of, pixel_range
from atat_tf.data import datasets, training_data
from atat_tf.errors import expect, with_checked_types
from atat_tf.evaluation import ledger as ledgers
from atat_tf.evaluation.attacker import Attacker
from atat_tf.evaluation.opening import OpenRun
from atat_tf.evaluation.run import Run
from atat_tf.models import judging

# Of ε; PGD's step, 2/255 for 8/255 as in §4.1.
STEP_SHARE = 0.25


@dataclasses.dataclass(frozen=True)
class Examples:
    """A classifier, and images with their classes.

    Attributes:
      classifier: of pixels in [0, 1].
      pixels: the caller's range.
      images: uint8 or float32 in [0, 1], [n, H, W, C].
      labels: int32 [n].
      given: float32 [n, H, W, C], the images within the caller's bounds.
    """

    classifier: classifiers.Classifier
    pixels: PixelRange
    images: np.ndarray
    labels: NDArray[np.int32]
    given: np.ndarray

    def in_bounds(self, pixels: np.ndarray, radius: float) -> np.ndarray:
        """Returns adversarial images in the caller's range.

        Args:
          pixels: float32 [n, H, W, C] in [0, 1], within ε of the images.
          radius: ε in ℓ∞, in the unit of [0, 1]; math.inf for another norm.

        Returns:
          float32 [n, H, W, C] within bounds and ε, equal to those given where
          no pixel has changed.
        """
        images = self.pixels.from_unit(pixels)
        ball = radius * self.pixels.width
        images = images.clip(self.given - ball, self.given + ball)
        kept = pixels == judging.in_unit(self.images)
        return np.where(kept, self.given, images).astype(np.float32)


def examples(
    model: Any,
    x: ArrayLike,
    y: ArrayLike,
    bounds: Bounds,
    class_names: Sequence[str] | None = None,
) -> Examples:
    """Returns the Examples of what a caller gives.

    Args:
      model, x, y, bounds, class_names: as for `robustness.robust_accuracy`.

    Raises:
      InputError: they are not what is said there, or do not belong together.
    """
    pixels = pixel_range(bounds)
    images = pixels.in_unit(x)
    height, width, channels = images.shape[1:]
    shape = height, width, channels
    classifier = classifiers.as_classifier(model, pixels, shape)
    labels = labels_of(y, len(images), classifier.num_classes, class_names)
    given = pixels.from_unit(images)
    if images.dtype != np.uint8:
        given = np.asarray(x, np.float32)
    return Examples(classifier, pixels, images, labels, given)


@with_checked_types
def expect_settings(batch_size: int, seed: int = 0) -> None:
    """Raises InputError unless they are a number of images and a seed."""
    training_data.expect_batch_size(batch_size)
    expect(
        0 <= seed < 2**31,
        "seed, a whole number in [0, 2**31)",
        seed=seed,
    )


@dataclasses.dataclass(frozen=True)
class _Arrays:
    """What stands where an evaluation looks for a run's folder."""

    config: ConfigDict
    ledger: ledgers.Ledger
    results: None = None
    metrics: tuple[()] = ()


def opened(
    examples: Examples,
    epsilon: float,
    ledger: pathlib.Path,
    seed: int,
    batch_size: int,
) -> OpenRun:
    """Returns the OpenRun of examples.

    Args:
      examples: of `examples`.
      epsilon: ε, in the unit of [0, 1].
      ledger: the file of verdicts.
      seed: of the random starts.
      batch_size: images at a time.

    Raises:
      InputError: no such seed or batch.
    """
    expect_settings(batch_size, seed)
    spec = datasets.Spec(
        examples.classifier.num_classes, examples.images.shape[1:]
    )
    split = datasets.Split(examples.images, examples.labels)
    provenance = _digest(examples.images, examples.labels)
    identity = ledgers.identity(
        examples.classifier.digest(examples.images),
        provenance,
        "frozen",
        int(seed),
        None,
    )
    lines = ledgers.Ledger(ledger, identity)
    config = ConfigDict(
        {
            "attack": {"epsilon": epsilon, "step_size": STEP_SHARE * epsilon},
            "dataset": provenance,
            "defense": {"name": "standard"},
        }
    )
    network = examples.classifier.network
    return OpenRun(
        cast(Run, _Arrays(config, lines)),
        datasets.Dataset(
            provenance,
            spec,
            tuple(map(str, range(spec.num_classes))),
            provenance,
            split,
            split.take(0),
            split,
        ),
        network,
        Attacker(network, batch_size, xla=examples.classifier.is_keras),
        split,
        lines,
        seed,
    )


def _digest(*parts):
    digest = hashlib.sha256()
    for part in parts:
        digest.update(f"{part.dtype}{part.shape}".encode())
        digest.update(np.ascontiguousarray(part).tobytes())
    return f"arrays sha256:{digest.hexdigest()}"


@contextlib.contextmanager
def quiet_traces() -> Iterator[None]:
    """Keeps back TensorFlow's advice against many traced functions.

    Each attack is one, traced once.
    """
    logger = tf.get_logger()
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
