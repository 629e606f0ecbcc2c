"""Random numbers that are a function of (seed, step), an image at a time.

TensorFlow's stateless ops take one seed for a whole tensor, so that a batch of
images with a seed each costs a loop over its images. Here Philox-4x32-10
(Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"), the
generator of those ops, is written for a batch of seeds at once.
"""

import numpy as np
import tensorflow as tf

_ROUNDS = 10
# Two 32-bit words a number, each in a uint64: their products need the room.
_MULTIPLIERS = np.array([0xD2511F53, 0xCD9E8D57], np.uint64)
_KEY_STEPS = np.array([0x9E3779B9, 0xBB67AE85], np.uint64)
_WORD = np.uint64(0xFFFFFFFF)
_WORD_BITS = np.uint64(32)


def random_words(seeds, step, count):
    """Returns `count` random 32-bit words for each image.

    Args:
      seeds: int64 [b, 2], see `attacks.example_seeds`.
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
