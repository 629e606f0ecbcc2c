"""Whether a classifier is right on each image after each attack."""

from collections.abc import Callable, Mapping

import keras
import numpy as np
import tensorflow as tf

from atat_tf import losses
from atat_tf.attacks import randomness
from atat_tf.data import datasets
from atat_tf.errors import expect, expect_known
from atat_tf.models import compilation, frozen

BATCH_NORM_MODES = ("frozen", "batch")
# What the path of the state of a layer's generator ends in.
_GENERATOR = "seed_generator_state"


class Evaluator:
    """Attacks a classifier; each attack is traced once.

    Args:
      classifier: keras.Model, float32 [b, H, W, C] in [0, 1] -> logits.
      named_attacks: {name: attack, or None for clean images}; image i has the
        random start (0, 0, i).

    Attributes:
      names: of the attacks, in the order given.
    """

    def __init__(
        self,
        classifier: keras.Model,
        named_attacks: Mapping[str, Callable | None],
    ) -> None:
        self.names = tuple(named_attacks)
        self._logits_fn = logits_function(classifier)
        self._attacked = frozen.refreshed(classifier)
        shape = (None, *classifier.input_shape[1:])
        self._functions = {
            name: self._compile(attack, shape)
            for name, attack in named_attacks.items()
        }

    def correct(
        self,
        name: str,
        split: datasets.Split,
        batch_size: int,
        share: tuple[int, int] = (0, 1),
    ) -> np.ndarray:
        """Returns whether each image is classified right after an attack.

        Args:
          name: one of the attacks given.
          split: datasets.Split with uint8 images.
          batch_size: images at a time; the last batch may be smaller.
          share: (i, k): of the batches every k-th from the i-th on, where k
            workers divide them.

        Returns:
          bool [n], of the images in its share.
        """
        verdicts = [tf.zeros([0], tf.bool)]
        first, workers = (batch_size * number for number in share)
        for start in range(first, len(split), workers):
            images = split.images[start : start + batch_size]
            labels = split.labels[start : start + batch_size]
            indices = np.arange(start, start + len(labels))
            verdicts.append(self._functions[name](images, labels, indices))
        return np.concatenate([v.numpy() for v in verdicts])

    def _compile(self, attack, shape):
        signature = (
            tf.TensorSpec(shape, tf.uint8),
            tf.TensorSpec([None], tf.int32),
            tf.TensorSpec([None], tf.int64),
        )

        def still_correct(images, labels, indices):
            images = tf.cast(images, tf.float32) / 255.0
            if attack is not None:
                seeds = randomness.example_seeds(0, 0, indices)
                images = attack(self._attacked(), images, labels, seeds)
            return losses.is_right(labels, self._logits_fn(images))

        return tf.function(
            still_correct,
            signature,
            jit_compile=compilation.by_xla(),
            autograph=False,
        )


def logits_function(
    classifier: keras.Model, batch_norm: str = "frozen"
) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns images -> logits in inference mode, or with batch statistics.

    Args:
      classifier: keras.Model.
      batch_norm: "frozen" uses stored statistics (the protocol to believe);
        "batch" those of the batch at hand, as the released evaluation did, and
        moves no stored ones.

    Raises:
      InputError: another mode; or with "batch", a classifier that draws in
        training mode, as dropout does: it would be another one at each call.
    """
    expect_known("a mode of batch norms", batch_norm, BATCH_NORM_MODES)
    if batch_norm == "frozen":
        return lambda images: classifier(images, training=False)
    _expect_no_draws(classifier)

    def with_batch_statistics(images):
        # Stateless: an evaluation must not move the stored statistics.
        logits, _ = classifier.stateless_call(
            classifier.trainable_variables,
            classifier.non_trainable_variables,
            images,
            training=True,
        )
        return logits

    return with_batch_statistics


def _expect_no_draws(classifier):
    """Raises InputError where another state of its generators changes logits.

    Dropout, noise, stochastic depth and augmentation: a batch norm's mode is
    that of the whole model.
    """
    variables = classifier.non_trainable_variables
    if not any(variable.path.endswith(_GENERATOR) for variable in variables):
        return
    shape = (2, *classifier.input_shape[1:])
    images = np.random.default_rng(0).random(shape, np.float32)

    def of_state(shift):
        states = [
            variable + shift * variable.path.endswith(_GENERATOR)
            for variable in variables
        ]
        logits, _ = classifier.stateless_call(
            classifier.trainable_variables, states, images, training=True
        )
        return np.asarray(logits)

    expect(
        np.array_equal(of_state(0), of_state(1), equal_nan=True),
        "bn_eval=frozen for a classifier that draws in training mode, as "
        "dropout, noise and augmentation do: batch norms alone cannot be put "
        "into it",
        model=classifier.name,
    )
