"""Batches of augmented training images.

A batch is a pure function of (seed, step): any step can be reached at once,
which is how training resumes in the middle of an epoch.
"""

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from atat_tf.data import datasets, stored

_LARGEST_SHIFT = 4  # pixels, as the literature on CIFAR has it
# Strengths of CropShift, of a side: 0 to 10 on CIFAR's 32 pixels, as Li &
# Spratling have them.
_CROP_STRENGTHS = 11 / 32


def batches(
    split: datasets.Split,
    batch_size: int,
    seed: int,
    first_step: int,
    num_steps: int,
    flip: bool,
    parts: Sequence[tuple[int, int]] | None = None,
    augmentation: str = "shift",
    extra: datasets.Split | None = None,
    extra_share: float = 0.0,
) -> tf.data.Dataset:
    """Returns batches of augmented training images from any step on.

    Every epoch visits the images in a new order, drops the last partial
    batch, augments each image and, with `flip`, mirrors it with probability
    ½.

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
      augmentation: one of AUGMENTATIONS.
      extra: images from elsewhere, such as generated ones, of the same shape
        and classes, in an order of their own; None for none.
      extra_share: the share of each batch that they make up, in [0, 1).
        Evenly spread, so that every part of a batch has its share.

    Returns:
      tf.data.Dataset of (uint8 [b, H, W, C], int32 [b]).
    """
    parts = parts or ((0, batch_size),)
    sizes = {stop - start for start, stop in parts}
    is_extra = _spread(batch_size, extra_share if extra else 0.0)
    with tf.device("CPU"):
        sources = [_Source(split, ~is_extra)]
        if is_extra.any():
            sources.append(_Source(extra, is_extra))
        bounds = tf.constant(parts, tf.int64)

    def batch(number):
        step, part = number // len(parts), number % len(parts)
        positions = tf.range(*tf.unstack(tf.gather(bounds, part)))
        if len(sizes) == 1:
            positions = tf.ensure_shape(positions, [*sizes])
        images, labels = sources[0].drawn(seed, step, positions)
        for source in sources[1:]:
            more, classes = source.drawn(seed, step, positions)
            own = tf.gather(is_extra, positions)
            images = tf.where(own[:, None, None, None], more, images)
            labels = tf.where(own, classes, labels)
        batch_seed = tf.stack([seed, tf.cast(step, tf.int32)])
        number_of_draws, augment = AUGMENTATIONS[augmentation]
        draws = _draws(batch_seed, number_of_draws + 1, batch_size, positions)
        rows, columns = augment(draws[:-1], *images.shape[1:3])
        if flip:
            mirrored = (draws[-1] % 2 == 1)[:, None]
            columns = tf.where(mirrored, columns[:, ::-1], columns)
        return _picked(images, rows, columns), labels

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


class _Source:
    """Images that are visited in a new order again and again.

    Args:
      split: the images and labels.
      rows: bool [batch_size], those of each batch that are drawn from here.
    """

    def __init__(self, split, rows):
        self._read = stored.reader(split.images)
        self._labels = tf.constant(split.labels)
        self._count = int(rows.sum())
        self._places = tf.constant(np.maximum(np.cumsum(rows) - 1, 0))

    def drawn(self, seed, step, positions):
        """Returns an image and a label for each position of batch `step`.

        Those at positions of another source mean nothing.
        """
        size = len(self._labels)
        steps_per_pass = tf.constant(max(size // self._count, 1), tf.int64)
        visits = tf.cast(step // steps_per_pass, tf.int32)
        start = (step % steps_per_pass) * self._count
        # A batch larger than the source begins it anew.
        indices = tf.random.experimental.index_shuffle(
            (start + tf.gather(self._places, positions)) % size,
            seed=tf.stack([seed, visits]),
            max_index=size - 1,
        )
        return self._read(indices), tf.gather(self._labels, indices)


def _spread(batch_size, share):
    """Returns bool [batch_size], a share of which is true, evenly spread."""
    ends = np.floor(np.arange(batch_size + 1) * share + 1e-9)
    return np.diff(ends) > 0


def _draws(seed, number, batch_size, positions):
    """Returns int32 [number, b], of some positions of a global batch."""
    draws = tf.random.stateless_uniform(
        [number, batch_size], seed, 0, 2**16, tf.int32, alg="philox"
    )
    return tf.gather(draws, positions, axis=1)


def _shift(draws, height, width):
    """Shifts an image by up to 4 pixels; what was outside of it is black.

    Args:
      draws: integers [2, b].
      height, width: of the images, in pixels.

    Returns:
      Two integer tensors, [b, height] and [b, width]: the row and the column
      of the image that each of the result shows; -1 where it is black.
    """
    return _inside(draws[0], height), _inside(draws[1], width)


def _inside(draws, side):
    shift = draws % (2 * _LARGEST_SHIFT + 1) - _LARGEST_SHIFT
    places = shift[:, None] + tf.range(side)
    return tf.where((places >= 0) & (places < side), places, -1)


def _crop_shift(draws, height, width):
    """CropShift: a crop of random size, pasted at a random place on black.

    One strength is drawn, and split at random into the rows and the columns
    that are lost (Li & Spratling 2023), whose point is harder images that stay
    natural. It pays where robust overfitting is, in long trainings of large
    networks.

    Args and returns are those of `_shift`, with draws [6, b].
    """
    strength = draws[0] % max(int(_CROP_STRENGTHS * min(height, width)), 1)
    rows = draws[1] % (strength + 1)
    return (
        _pasted(rows, draws[2], draws[3], height),
        _pasted(strength - rows, draws[4], draws[5], width),
    )


def _pasted(lost, cut, put, side):
    first, place = cut % (lost + 1), put % (lost + 1)
    along = tf.range(side) - place[:, None]
    kept = (along >= 0) & (along < (side - lost)[:, None])
    return tf.where(kept, along + first[:, None], -1)


def _picked(images, rows, columns):
    """Returns the pixels at rows and columns; black where one is -1."""
    seen = (rows >= 0)[:, :, None] & (columns >= 0)[:, None, :]
    picked = tf.gather(images, tf.maximum(rows, 0), axis=1, batch_dims=1)
    picked = tf.gather(picked, tf.maximum(columns, 0), axis=2, batch_dims=1)
    return tf.where(seen[..., None], picked, 0)


# {name: (integers that it draws for an image, function)}.
AUGMENTATIONS: dict[str, tuple[int, Callable[..., tuple]]] = {
    "shift": (2, _shift),
    "crop_shift": (6, _crop_shift),
}
