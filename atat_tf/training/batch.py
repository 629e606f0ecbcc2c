"""A batch as the training step takes it, and its place among the replicas."""

import dataclasses
from typing import Any

import keras
import tensorflow as tf

from atat_tf.data import training_data
from atat_tf.errors import expect


@dataclasses.dataclass(frozen=True)
class Batch:
    """What `fit` was given of one replica's batch, in the step's own types.

    Attributes:
      images: floats [b, H, W, C], within the attack's bounds.
      labels: int32 [b], or shares of the classes, floats [b, k].
      weights: of the images' losses, floats [b].
      is_fit: bool [], whether the batch suits the classifier. One that does
        not has weights of zero.
    """

    images: tf.Tensor
    labels: tf.Tensor
    weights: tf.Tensor
    is_fit: tf.Tensor


def prepared(
    data: Any,
    classifier: keras.Model,
    bounds: tuple[float, float],
    asserts: bool = True,
) -> Batch:
    """Returns the Batch of what `fit` hands to a step.

    Args:
      data: (images, labels), or with weights of the images as a third. Images
        are uint8, or floats within `bounds`; labels are integers, one-hot or
        shares.
      classifier: functional keras.Model, images -> logits.
      bounds: the smallest and the largest pixel value.
      asserts: whether a batch that does not suit the classifier raises when the
        step runs. XLA leaves assertions out: there `is_fit` says it alone.

    Raises:
      InputError: images of another size than the classifier takes.
    """
    images, labels, weights = keras.utils.unpack_x_y_sample_weight(data)
    shape = tf.TensorShape(classifier.input_shape)
    expect(
        shape.is_compatible_with(images.shape),
        f"images of {tuple(shape[1:])}, the size that the student takes",
        images=images.shape,
    )
    # A generator's batches have no size before they come.
    images = tf.ensure_shape(images, shape)
    rules = training_data.batch_rules(
        images, labels, classifier.output_shape[-1], bounds, weights
    )
    is_fit = tf.constant(True)
    if asserts:
        with tf.control_dependencies(training_data.asserted(rules)):
            images = tf.identity(images)
    else:
        is_fit = tf.reduce_all([holds for _, holds, _ in rules])
    if labels.shape.rank == 2 and (labels.shape[-1] or 1) > 1:
        labels = tf.cast(labels, keras.config.floatx())
    else:
        labels = tf.reshape(tf.cast(labels, tf.int32), [-1])
    if weights is None:
        weights = tf.ones(tf.shape(labels)[:1])
    weights = tf.reshape(tf.cast(weights, keras.config.floatx()), [-1])
    # No product: a weight may be NaN where a batch does not fit.
    weights = tf.where(is_fit, weights, tf.zeros_like(weights))
    return Batch(as_pixels(images, bounds), labels, weights, is_fit)


def as_pixels(
    images: tf.Tensor, bounds: tuple[float, float] = (0.0, 1.0)
) -> tf.Tensor:
    """Returns float images within `bounds`, to which uint8 ones are scaled."""
    pixels = tf.cast(images, keras.config.floatx())
    if images.dtype != tf.uint8:
        return pixels
    low, high = bounds
    # By 255 first, so that [0, 1] is the plain quotient, bit by bit.
    return pixels / 255.0 * (high - low) + low


class Replicas:
    """Where this replica's examples lie in the global batch.

    Args:
      labels: of this replica's examples, [b, ...].

    Attributes:
      count: number of replicas.
      global_batch: examples over all of them, as a float.
      indices: int64 [b], positions of this replica's examples.
    """

    def __init__(self, labels: tf.Tensor):
        context = tf.distribute.get_replica_context()
        size = tf.shape(labels, tf.int64)[0]
        self.count = context.num_replicas_in_sync
        offset = tf.constant(0, tf.int64)
        total = size
        if self.count > 1:
            mine = context.replica_id_in_sync_group
            # Batches may be unequal, so every replica tells its size.
            sizes = context.all_reduce(
                "sum", size * tf.one_hot(mine, self.count, dtype=tf.int64)
            )
            offset = tf.reduce_sum(sizes[:mine])
            total = tf.reduce_sum(sizes)
        self.global_batch = tf.cast(total, keras.config.floatx())
        self.indices = offset + tf.range(size)
