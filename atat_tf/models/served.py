"""A served model as a classifier that score-based attacks can query."""

import hashlib
from typing import Any

import numpy as np
import tensorflow as tf

from atat_tf.errors import InputError, expect

# For predictions alone, as exports of this project have it.
_SIGNATURE = "predict"
_SECONDS = 10.0
_DIGESTED_IMAGES = 8


class ServedClassifier:
    """What an Attacker asks of a Keras model, answered by a server.

    It has no gradient.

    Attributes:
      input_shape: (None, H, W, C).
      num_classes: k.
      digest: of what it answers to a few images, and so of its weights.
    """

    def __init__(self, address: str) -> None:
        """Asks a server for a model's images and classes.

        Args:
          address: HOST:PORT/NAME or unix:PATH/NAME; the model has the
            signature "predict", images in [0, 1] -> logits.

        Raises:
          InputError: no such server or model, or it takes no images.
        """
        # Serving is an extra. Its client knows nothing of this package.
        from atat_tf.serving.client import Client, ServingError

        server, _, name = address.rpartition("/")
        expect(server and name, "HOST:PORT/NAME of a model", server=address)
        self._failure = ServingError
        self._address = address
        self._client = Client(server, name)
        try:
            signatures = self._client.metadata(timeout=_SECONDS).signatures
        except ServingError as error:
            raise self._refused(error) from error
        images, logits = _sizes(signatures.get(_SIGNATURE))
        expect(
            len(images) == 4 and len(logits) == 2 and min(images[1:]) > 0,
            f"a model with a signature {_SIGNATURE!r} of images [n, H, W, C] "
            "to logits [n, k], as serving.export writes it",
            server=address,
            signatures=sorted(signatures),
        )
        self.input_shape = (None, *images[1:])
        self.num_classes = logits[1]
        draw = np.random.default_rng(0)
        sample = draw.random((_DIGESTED_IMAGES, *images[1:]), np.float32)
        answer = hashlib.sha256(self._logits(sample).tobytes()).hexdigest()
        self.digest = f"answers sha256:{answer}"

    def __call__(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Returns logits [n, k] of images float32 [n, H, W, C] in [0, 1]."""
        del training
        logits = tf.numpy_function(self._logits, [images], tf.float32)
        return tf.ensure_shape(logits, [None, self.num_classes])

    def _logits(self, images: np.ndarray) -> np.ndarray:
        try:
            answer = self._client.predict(
                images, ["logits"], signature=_SIGNATURE
            )
        except self._failure as error:
            raise self._refused(error) from error
        return answer["logits"]

    def _refused(self, error: Any) -> InputError:
        return InputError(
            f"Expected an answer of {self._address}. Received: {error.message}"
        )


def _sizes(signature: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Returns the shapes of a signature's images and logits, () for none."""
    if signature is None:
        return (), ()
    images = signature.inputs.get("images")
    logits = signature.outputs.get("logits")
    return (images and images.shape) or (), (logits and logits.shape) or ()
