"""The repository's small adversarially trained network and images for it."""

import pathlib

import numpy as np
import tensorflow as tf

from atat_tf.attacks import randomness
from atat_tf.evaluation.run import Run

_ROOT = pathlib.Path(__file__).resolve().parents[2]
_RUN = _ROOT / "results/small/cifar10/at/seed0"
SHARED = _ROOT.parent / "shared" / "tfds"
EPSILON = 8 / 255


def classifier():
    """Returns WRN-10-1 trained on CIFAR-10, with the run's best weights."""
    return Run(_RUN).classifier()


def right_images(network, count):
    """Returns what a network classifies right: images, labels and seeds.

    Test images of CIFAR-10 where the checkout lies beside them; elsewhere
    noise, with the network's own predictions as labels.

    Args:
      network: keras.Model.
      count: of images that are looked at, of which some are left.

    Returns:
      float32 [n, 32, 32, 3], int32 [n] and int64 [n, 2].
    """
    if SHARED.exists():
        images, labels = _cifar10(count)
    else:
        generator = np.random.default_rng(0)
        images = generator.uniform(size=(count, 32, 32, 3)).astype(np.float32)
        labels = np.argmax(network(images, training=False), -1)
    predictions = np.argmax(network(images, training=False), -1)
    right = np.flatnonzero(predictions == labels)
    return (
        tf.constant(images[right], tf.float32),
        tf.constant(labels[right], tf.int32),
        randomness.example_seeds(0, 0, right),
    )


def _cifar10(count):
    import tensorflow_datasets as tfds

    examples = tfds.load(
        "cifar10",
        split=f"test[:{count}]",
        data_dir=SHARED,
        download=False,
        as_supervised=True,
        shuffle_files=False,
    )
    images, labels = zip(*examples.as_numpy_iterator(), strict=True)
    return np.stack(images) / np.float32(255), np.stack(labels)
