"""Random numbers drawn per image: seeds, Philox, and noise for a start.

An image's numbers depend on its seed alone, never on its batch. Philox is
written in TensorFlow's integer operations, vectorised over the images and
with the bits of TensorFlow's own generator, which takes one seed a call and
answers other bits under XLA.
"""

import math
from collections.abc import Sequence

import numpy as np
import tensorflow as tf


def example_seeds(
    seed: int | tf.Tensor, step: int | tf.Tensor, indices: tf.Tensor
) -> tf.Tensor:
    """Returns one random seed for each example, from (seed, step, index).

    The same triple gives the same draw on any device, replica or batch size.

    Args:
      seed: in [0, 2**31), the run's.
      step: in [0, 2**32), the training step; 0 in evaluation.
      indices: integers [b], positions in the global batch or in the data set.

    Returns:
      int64 [b, 2], for TensorFlow's stateless random ops.
    """
    high = tf.cast(seed, tf.int64) * (1 << 32) + tf.cast(step, tf.int64)
    indices = tf.cast(indices, tf.int64)
    return tf.stack([tf.fill(tf.shape(indices), high), indices], axis=1)


def restart_seeds(seeds: tf.Tensor, restart: int | tf.Tensor) -> tf.Tensor:
    """Returns seeds that no other image and no other restart has.

    Args:
      seeds: int64 [b, 2] from `example_seeds`.
      restart: int64 [], from 0, which changes nothing.
    """
    # Beyond the indices of any data set, all below 2**40.
    restart = tf.cast(restart, tf.int64)
    return seeds + tf.stack([tf.zeros_like(restart), restart * 2**40])


def uniform_noise(
    seeds: tf.Tensor, shape: Sequence[int], magnitude: float
) -> tf.Tensor:
    """Returns noise uniform in [-magnitude, magnitude), a seed an example.

    The bits are those of `tf.random.stateless_uniform(shape, seed, -magnitude,
    magnitude, alg="philox")` for each seed; under XLA the last one may differ,
    where multiplication and addition are rounded as one.

    Args:
      seeds: int64 [b, 2].
      shape: of one example.
      magnitude: half the width of the range.

    Returns:
      float32 [b, *shape].
    """
    uniform = _uniform(seeds, math.prod(shape))
    noise = uniform * (2 * magnitude) - magnitude
    return tf.reshape(noise, [-1, *shape])


def normal_noise(
    seeds: tf.Tensor, shape: Sequence[int], deviation: float
) -> tf.Tensor:
    """Returns normal noise of mean 0, a seed an example.

    Box and Muller's transform of the words that TensorFlow's generator has for
    each seed: `tf.random.stateless_normal(shape, seed, stddev=deviation,
    alg="philox")` up to the rounding of its logarithm, sine and cosine.

    Args:
      seeds: int64 [b, 2].
      shape: of one example.
      deviation: the standard deviation.

    Returns:
      float32 [b, *shape].
    """
    count = math.prod(shape)
    pairs = tf.reshape(_uniform(seeds, count + count % 2), [-1, 1, 2])
    # TensorFlow's least, so that the logarithm is finite.
    radius = tf.sqrt(-2.0 * tf.math.log(tf.maximum(pairs[..., 0], 1e-7)))
    angle = 2 * math.pi * pairs[..., 1]
    normal = radius * tf.concat([tf.sin(angle), tf.cos(angle)], axis=-1)
    normal = tf.reshape(normal, [tf.shape(seeds)[0], -1])[:, :count]
    return tf.reshape(deviation * normal, [-1, *shape])


def _uniform(seeds, count):
    """Returns numbers uniform in [0, 1), float32 [b, count], as TensorFlow."""
    # As TensorFlow scrambles a seed into a key and half a counter.
    first, second = _halves(seeds[:, :1]), _halves(seeds[:, 1:])
    *key, low, high = philox(_SCRAMBLING_KEY, (*first, *second))
    words = _words(key, 0, (low, high), count)
    # The low 23 bits are the mantissa of a number in [0, 1).
    mantissas = tf.bitwise.bitwise_and(words, np.uint64(2**23 - 1))
    return tf.cast(mantissas, tf.float32) * np.float32(2**-23)


_ROUNDS = 10
# Two 32-bit words a number, each in a uint64: their products need the room.
_MULTIPLIERS = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_KEY_STEPS = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
_SCRAMBLING_KEY = np.uint64(0x3EC8F720), np.uint64(0x02461E29)
_WORD = np.uint64(0xFFFFFFFF)
_WORD_BITS = np.uint64(32)


def random_words(
    seeds: tf.Tensor, step: int | tf.Tensor, count: int
) -> tf.Tensor:
    """Returns `count` random 32-bit words for each image.

    Args:
      seeds: int64 [b, 2], see `example_seeds`.
      step: int32 [], >= 0; each has words of its own.
      count: number of words.

    Returns:
      uint64 [b, count], uniform in [0, 2**32).
    """
    # The key is the run's seed; the counter is (block, step, image).
    return _words(_halves(seeds[:, :1]), step, _halves(seeds[:, 1:]), count)


def philox(
    key: Sequence[tf.Tensor], counter: Sequence[tf.Tensor]
) -> Sequence[tf.Tensor]:
    """Returns the four words of each counter under its key: Philox-4x32-10.

    Args:
      key: two uint64 tensors of 32-bit words, the low word first.
      counter: four such, which may be of other shapes that broadcast.

    Returns:
      Four uint64 tensors of 32-bit words.
    """
    xor, low_word = tf.bitwise.bitwise_xor, _WORD
    for _ in range(_ROUNDS):
        products = [
            word * multiplier
            for word, multiplier in zip(counter[::2], _MULTIPLIERS, strict=True)
        ]
        high = [tf.bitwise.right_shift(n, _WORD_BITS) for n in products]
        low = [tf.bitwise.bitwise_and(n, low_word) for n in products]
        counter = (
            xor(high[1], xor(counter[1], key[0])),
            low[1],
            xor(high[0], xor(counter[3], key[1])),
            low[0],
        )
        key = [
            tf.bitwise.bitwise_and(word + step, low_word)
            for word, step in zip(key, _KEY_STEPS, strict=True)
        ]
    return counter


def integers(words: tf.Tensor, bound: int | tf.Tensor) -> tf.Tensor:
    """Returns integers uniform in [0, bound), one a word.

    Args:
      words: uint64, from `random_words`.
      bound: int32 [] in [1, 2**31); each value's share is off by at most
        2**-32.

    Returns:
      int32, the shape of the words.
    """
    scaled = words * tf.cast(bound, tf.uint64)
    return tf.cast(tf.bitwise.right_shift(scaled, _WORD_BITS), tf.int32)


def coins(words: tf.Tensor) -> tf.Tensor:
    """Returns whether each word is in the upper half of its range."""
    return words >= np.uint64(1 << 31)


def _words(key, step, image, count):
    """Returns uint64 [b, count] of the counters (block, step, image).

    Args:
      key: two uint64 [b, 1].
      step: integer [].
      image: two uint64 [b, 1].
      count: number of words.
    """
    blocks = tf.cast(tf.range(-(-count // 4), dtype=tf.int64), tf.uint64)[None]
    steps = tf.fill(tf.shape(blocks), tf.cast(step, tf.uint64))
    words = tf.stack(philox(key, (blocks, steps, *image)), axis=-1)
    return tf.reshape(words, [-1, 4 * blocks.shape[1]])[:, :count]


def _halves(numbers):
    """Returns the low and the high word of int64s, as uint64."""
    numbers = tf.cast(numbers, tf.uint64)
    return (
        tf.bitwise.bitwise_and(numbers, _WORD),
        tf.bitwise.right_shift(numbers, _WORD_BITS),
    )
