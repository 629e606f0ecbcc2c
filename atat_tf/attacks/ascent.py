"""Where a loss ascends, whatever type of number the classifier computes in."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

# Of a float32: what is left of a number without sign and fraction, a power of
# two no larger than it.
_EXPONENT = 0x7F800000


def ascent(
    logits_fn: Callable[[tf.Tensor], Any],
    loss_fn: Callable[[Any], tf.Tensor],
    points: tf.Tensor,
) -> tuple[Any, tf.Tensor, tf.Tensor]:
    """Returns what a classifier answers, the losses, and where they ascend.

    The gradient by the points is scaled, for each image by a power of two that
    makes the largest derivative by an answer one of 1 to 2. A power of two
    moves no digit: in float32 its sign is that of the plain gradient wherever
    that one is not rounded to zero. A sure classifier's derivatives are around
    1e-8: layers in float16 would round them to zero, and the attack would stand
    still.

    Args:
      logits_fn: points [b, ...] -> float tensors [b, ...], one or a structure.
      loss_fn: what `logits_fn` returns -> losses [b].
      points: float tensor [b, ...].

    Returns:
      What `logits_fn` returns; the losses, [b]; the scaled gradient, like the
      points, zero where the losses do not depend on them.
    """
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(points)
        answers = logits_fn(points)
    flat = tf.nest.flatten(answers)
    with tf.GradientTape(watch_accessed_variables=False) as of_loss:
        of_loss.watch(flat)
        loss = loss_fn(answers)
    derivatives = of_loss.gradient(loss, flat, unconnected_gradients="zero")
    scale = tf.reduce_max([_magnitude(d) for d in derivatives], axis=0)
    scaled = [
        tf.math.divide_no_nan(d, _per_row(tf.cast(scale, d.dtype), d))
        for d in derivatives
    ]
    gradient = tape.gradient(
        flat, points, output_gradients=scaled, unconnected_gradients="zero"
    )
    return answers, loss, gradient


def _magnitude(derivatives):
    """Returns the power of two of the largest of each row, float32 [b]."""
    axes = [*range(1, derivatives.shape.rank)]
    largest = tf.reduce_max(tf.abs(derivatives), axes)
    bits = tf.bitcast(tf.cast(largest, tf.float32), tf.int32)
    return tf.bitcast(tf.bitwise.bitwise_and(bits, _EXPONENT), tf.float32)


def _per_row(values, like):
    """Returns values [b] with as many axes as another tensor [b, ...]."""
    return tf.reshape(values, [-1] + [1] * (like.shape.rank - 1))
