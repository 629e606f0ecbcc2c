"""Random numbers drawn image by image: seeds, Philox, and noise in a ball."""

import numpy as np
import tensorflow as tf


def example_seeds(seed, step, indices):
    """Returns one random seed for each example, from (seed, step, index).

    The same triple gives the same draw on any device, replica or batch size.

    Args:
      seed: integer in [0, 2**31), the run's.
      step: integer in [0, 2**32), the training step; 0 in evaluation.
      indices: integers [b], positions in the global batch or in the data set.

    Returns:
      int64 [b, 2], for TensorFlow's stateless random ops.
    """
    high = tf.cast(seed, tf.int64) * (1 << 32) + tf.cast(step, tf.int64)
    indices = tf.cast(indices, tf.int64)
    return tf.stack([tf.fill(tf.shape(indices), high), indices], axis=1)


def restart_seeds(seeds, restart):
    """Returns seeds that no other image and no other restart has.

    Args:
      seeds: int64 [b, 2] from `example_seeds`.
      restart: int64 [], from 0, which changes nothing.
    """
    # Beyond the indices of any data set, all below 2**40.
    restart = tf.cast(restart, tf.int64)
    return seeds + tf.stack([tf.zeros_like(restart), restart * 2**40])


def uniform_noise(seeds, shape, magnitude):
    """Returns noise uniform in [-magnitude, magnitude), a seed an example.

    Args:
      seeds: int64 [b, 2].
      shape: the shape of one example.
      magnitude: half the width of the range.

    Returns:
      float32 [b, *shape].
    """
    # Philox by name: the default generator differs from device to device.
    return tf.map_fn(
        lambda seed: tf.random.stateless_uniform(
            shape, seed, -magnitude, magnitude, alg="philox"
        ),
        seeds,
        fn_output_signature=tf.TensorSpec(shape, tf.float32),
    )


_ROUNDS = 10
# Two 32-bit words a number, each in a uint64: their products need the room.
_MULTIPLIERS = np.array([0xD2511F53, 0xCD9E8D57], np.uint64)
_KEY_STEPS = np.array([0x9E3779B9, 0xBB67AE85], np.uint64)
_WORD = np.uint64(0xFFFFFFFF)
_WORD_BITS = np.uint64(32)


def random_words(seeds, step, count):
    """Returns `count` random 32-bit words for each image.

    Args:
      seeds: int64 [b, 2], see `randomness.example_seeds`.
      step: int32 [], >= 0; each has words of its own.
      count: number of words, a Python integer.

    Returns:
      uint64 [b, count], uniform in [0, 2**32).
    """
    blocks = tf.range(-(-count // 4), dtype=tf.int64)
    # The key is the run's seed; the counter is (block, step, image).
    key = _halves(seeds[:, :1])
    image = _halves(seeds[:, 1:])
    block_and_step = tf.stack(
        [blocks, tf.fill(tf.shape(blocks), tf.cast(step, tf.int64))], axis=1
    )
    block_and_step = tf.cast(block_and_step, tf.uint64)[None]
    shape = tf.stack([tf.shape(seeds)[0], tf.shape(blocks)[0], 2])
    counter = tf.concat(
        [
            tf.broadcast_to(block_and_step, shape),
            tf.broadcast_to(image, shape),
        ],
        axis=2,
    )
    words = philox(key, counter)
    return tf.reshape(words, [-1, 4 * blocks.shape[0]])[:, :count]


def philox(key, counter):
    """Returns the four words of each counter under its key.

    Args:
      key: uint64 [..., 2], 32-bit words, low word first.
      counter: uint64 [..., 4], 32-bit words, low word first.

    Returns:
      uint64 [..., 4], 32-bit words.
    """
    even, odd = counter[..., 0::2], counter[..., 1::2]
    for _ in range(_ROUNDS):
        product = even * _MULTIPLIERS
        high = tf.bitwise.right_shift(product, _WORD_BITS)
        mixed = tf.bitwise.bitwise_xor(odd, key)
        even = tf.bitwise.bitwise_xor(high[..., ::-1], mixed)
        odd = tf.bitwise.bitwise_and(product, _WORD)[..., ::-1]
        key = tf.bitwise.bitwise_and(key + _KEY_STEPS, _WORD)
    words = tf.stack([even, odd], axis=-1)
    return tf.reshape(words, tf.shape(counter))


def integers(words, bound):
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


def coins(words):
    """Returns whether each word is in the upper half of its range."""
    return words >= np.uint64(1 << 31)


def _halves(numbers):
    """Returns uint64 [b, 1, 2], low and high word of int64 [b, 1]."""
    numbers = tf.cast(numbers, tf.uint64)
    low = tf.bitwise.bitwise_and(numbers, _WORD)
    high = tf.bitwise.right_shift(numbers, _WORD_BITS)
    return tf.stack([low, high], axis=2)
