"""A served model as a classifier that score-based attacks can query."""

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from atat_tf.attacks import square
from atat_tf.evaluation import attacker

from .client import Client, ServingError

_BATCH_SIZE = 100


class ServedClassifier:
    """What an Attacker asks of a Keras model, answered by a server.

    It has no gradient.

    Attributes:
      input_shape: (None, H, W, C).
      sent: number of images that were sent.
      error: of the call that failed, where TensorFlow reports one of its own.
    """

    def __init__(
        self,
        client: Client,
        image_shape: tuple[int, int, int],
        num_classes: int,
    ):
        """Takes a client of a model with the signature "predict"."""
        self.input_shape = (None, *image_shape)
        self.sent = 0
        self.error: ServingError | None = None
        self._client = client
        self._num_classes = num_classes

    def __call__(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Returns logits [n, k] of images float32 [n, H, W, C] in [0, 1]."""
        del training
        logits = tf.numpy_function(self._logits, [images], tf.float32)
        return tf.ensure_shape(logits, [None, self._num_classes])

    def _logits(self, images):
        self.sent += len(images)
        try:
            answer = self._client.predict(
                images, ["logits"], signature="predict"
            )
        except ServingError as error:
            self.error = error
            raise
        return answer["logits"]


def withstands(
    classifier: keras.Model | ServedClassifier,
    images: np.ndarray,
    labels: np.ndarray,
    epsilon: float,
    queries: int,
    advance: Callable[[int], None] | None = None,
) -> np.ndarray:
    """Returns which images [n] a classifier still classifies right.

    The attack is Square as the evaluation runs it, with seed 0.

    Args:
      classifier: float32 [n, H, W, C] in [0, 1] -> logits.
      images: uint8 [n, H, W, C].
      labels: int32 [n].
      epsilon: radius of the ℓ∞ ball, pixels in [0, 1].
      queries: for each image, at most; one of them is the image itself. What
        breaks an image is asked for once more, alone.
      advance: called with the number of queries that are done or not needed.

    Raises:
      tf.errors.OpError: a call failed; see ServedClassifier.error.
    """
    size = max(1, min(len(images), _BATCH_SIZE))
    runner = attacker.Attacker(classifier, size, xla=False)
    # The start costs two queries: the image, and the first point.
    steps = queries - 2
    attack = square.Square(epsilon, num_steps=steps, schedule=steps)
    indices = np.arange(len(images))
    outcome = runner.run(attack, images, labels, indices, np.int64(0), advance)
    return ~outcome.broken
