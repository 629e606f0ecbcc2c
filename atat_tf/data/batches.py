"""Batches of augmented training images.

A batch is a pure function of (seed, step): any step can be reached at once,
which is how training resumes in the middle of an epoch.
"""

from collections.abc import Sequence

import tensorflow as tf

from atat_tf.data import datasets

_LARGEST_SHIFT = 4  # pixels, as the literature on CIFAR has it


def batches(
    split: datasets.Split,
    batch_size: int,
    seed: int,
    first_step: int,
    num_steps: int,
    flip: bool,
    parts: Sequence[tuple[int, int]] | None = None,
) -> tf.data.Dataset:
    """Returns batches of augmented training images from any step on.

    Every epoch visits the images in a new order, drops the last partial
    batch, shifts each image by up to 4 pixels (zero-padded) and, with `flip`,
    mirrors it with probability ½.

    Args:
      split: Split with at least batch_size images.
      batch_size: the global batch.
      seed: integer; order and augmentation depend on (seed, step) only.
      first_step: the global step of the first batch.
      num_steps: how many batches follow.
      flip: whether to mirror.
      parts: ((start, stop), ...), what of each global batch is wanted, each
        part as a batch of its own; None for the whole. Another worker makes
        the rest, and together they are the batch of one.

    Returns:
      tf.data.Dataset of (uint8 [b, H, W, C], int32 [b]).
    """
    parts = parts or ((0, batch_size),)
    sizes = {stop - start for start, stop in parts}
    steps_per_epoch = len(split) // batch_size
    with tf.device("CPU"):
        images = tf.constant(split.images)
        labels = tf.constant(split.labels)
        bounds = tf.constant(parts, tf.int64)

    def batch(number):
        step, part = number // len(parts), number % len(parts)
        positions = tf.range(*tf.unstack(tf.gather(bounds, part)))
        if len(sizes) == 1:
            positions = tf.ensure_shape(positions, [*sizes])
        epoch = tf.cast(step // steps_per_epoch, tf.int32)
        start = (step % steps_per_epoch) * batch_size
        indices = tf.random.experimental.index_shuffle(
            start + positions,
            seed=tf.stack([seed, epoch]),
            max_index=len(split) - 1,
        )
        batch_seed = tf.stack([seed, tf.cast(step, tf.int32)])
        draws = _draws(batch_seed, batch_size, positions)
        augmented = _shifted(tf.gather(images, indices), draws, flip)
        return augmented, tf.gather(labels, indices)

    options = tf.data.Options()
    # One worker holds all the data: there is nothing to shard.
    options.experimental_distribute.auto_shard_policy = (
        tf.data.experimental.AutoShardPolicy.OFF
    )
    return (
        tf.data.Dataset.range(
            first_step * len(parts), (first_step + num_steps) * len(parts)
        )
        .map(batch, num_parallel_calls=tf.data.AUTOTUNE)
        .prefetch(tf.data.AUTOTUNE)
        .with_options(options)
    )


def _draws(seed, batch_size, positions):
    """Returns int32 [3, b], the draws of some positions of a global batch."""
    draws = tf.random.stateless_uniform(
        [3, batch_size], seed, 0, 2**16, tf.int32, alg="philox"
    )
    return tf.gather(draws, positions, axis=1)


def _shifted(images, draws, flip):
    padding = _LARGEST_SHIFT
    height, width = images.shape[1:3]
    down, right = draws[0] % (2 * padding + 1), draws[1] % (2 * padding + 1)
    padded = tf.pad(
        images, [[0, 0], [padding, padding], [padding, padding], [0, 0]]
    )
    rows = down[:, None] + tf.range(height)
    columns = right[:, None] + tf.range(width)
    if flip:
        mirrored = (draws[2] % 2 == 1)[:, None]
        columns = tf.where(mirrored, columns[:, ::-1], columns)
    cropped = tf.gather(padded, rows, axis=1, batch_dims=1)
    return tf.gather(cropped, columns, axis=2, batch_dims=1)
