"""Squares in a batch of images: where they lie, and what is drawn in them.

Pixels are in lines here, [b, H, W·C], because short last axes broadcast slowly.
"""

import numpy as np
import tensorflow as tf

from atat_tf.counter_random import integers


def bump(side):
    """Returns η, two opposite peaks above each other, of norm 1.

    Each half is η(r, s) = Σ_{j=d}^{m} 1 / (j + 1)², where d is the larger of
    the two distances from the half's centre and m that of its far edge.

    Args:
      side: of the square, >= 1.

    Returns:
      NumPy [side, side].
    """
    halves = []
    for height, sign in ((side // 2, 1.0), (side - side // 2, -1.0)):
        if height == 0:
            continue
        from_row = np.abs(np.arange(height) - height // 2)[:, None]
        from_column = np.abs(np.arange(side) - side // 2)[None]
        distance = np.maximum(from_row, from_column)
        farthest = max(height // 2, side // 2)
        # What lies within each distance, from the far edge inwards.
        terms = 1.0 / np.arange(farthest + 1, 0, -1) ** 2.0
        half = np.cumsum(terms)[farthest - distance]
        halves.append(sign * half / np.linalg.norm(half))
    both = np.concatenate(halves)
    return both / np.linalg.norm(both)


def bumps(sides):
    """Returns float32 [len(sides), n, n], n the largest, zero beyond each."""
    stacked = np.zeros((len(sides), max(sides), max(sides)), np.float32)
    for stage, side in enumerate(sides):
        stacked[stage, :side, :side] = bump(side)
    return stacked


def places(words, side, shape):
    """Returns each pixel's place in a square that two words put somewhere.

    Args:
      words: [b, >= 2].
      side: int32 [].
      shape: (b, H, W, C).

    Returns:
      int32 [b, H, 1] rows and [b, 1, W·C] columns, from the square's corner;
      outside it < 0 or >= side.
    """
    top = integers(words[:, :1], shape[1] - side + 1)
    left = integers(words[:, 1:2], shape[2] - side + 1)
    row = tf.range(shape[1])[None] - top
    column = tf.repeat(tf.range(shape[2]), shape[3])[None] - left
    return row[:, :, None], column[:, None, :]


def mask(row, column, side):
    """Returns float32 [b, H, W·C], 1 in the square of `places`, 0 outside."""
    in_rows, in_columns = (
        tf.cast((place >= 0) & (place < side), tf.float32)
        for place in (row, column)
    )
    return in_rows * in_columns


def pattern(square, turned, row, column):
    """Returns a square of numbers at its place, transposed or not.

    Args:
      square: [n, n].
      turned: bool [b], whether it is transposed.
      row: int32 [b, H, 1] from `places`.
      column: int32 [b, 1, W·C] from `places`.

    Returns:
      [b, H, W·C]; what is outside the square has no meaning.
    """
    size = square.shape[0]
    row = tf.clip_by_value(row, 0, size - 1)
    column = tf.clip_by_value(column, 0, size - 1)
    of_row = tf.where(turned, 1, size)[:, None, None]
    of_column = tf.where(turned, size, 1)[:, None, None]
    return tf.gather(
        tf.reshape(square, [-1]), row * of_row + column * of_column
    )


def by_column(by_channel, shape):
    """Returns [b, 1, W·C] from [b, C]."""
    return tf.tile(by_channel, [1, shape[2]])[:, None]


def channel_sums(lines, channels):
    """Returns [b, 1, W·C], for each channel its sum over [b, H, W·C]."""
    width = lines.shape[2] // channels
    of_columns = tf.reduce_sum(lines, axis=1)
    sums = tf.reduce_sum(tf.reshape(of_columns, [-1, width, channels]), axis=1)
    return tf.tile(sums, [1, width])[:, None]
