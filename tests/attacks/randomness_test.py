"""Philox for a batch of seeds: TensorFlow's bits, and uniform numbers."""

import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from atat_tf.attacks import randomness
from tests.support import toys

PHILOX = 1  # the number of the algorithm in TensorFlow's own op


def _tensorflows_words(key, counter, count):
    """Returns uint32 [count] from one 64-bit key and a 128-bit counter."""
    return tf.raw_ops.StatelessRandomUniformFullIntV2(
        shape=[count],
        key=tf.constant([key], tf.uint64),
        counter=tf.constant(counter, tf.uint64),
        alg=PHILOX,
        dtype=tf.uint32,
    ).numpy()


class PhiloxTest(parameterized.TestCase, tf.test.TestCase):
    @parameterized.parameters(
        (0, (0, 0)),
        (1, (0, 0)),
        (2**64 - 1, (2**64 - 1, 2**64 - 1)),
        (0x299F31D0A4093822, (0x85A308D3243F6A88, 0x0370734413198A2E)),
    )
    def test_bits_are_those_of_tensorflows_generator(self, key, counter):
        words = [n >> shift & 0xFFFFFFFF for n in counter for shift in (0, 32)]
        found = randomness.philox(
            tf.constant([key & 0xFFFFFFFF, key >> 32], tf.uint64),
            tf.constant(words, tf.uint64),
        )
        self.assertAllEqual(
            found.numpy().astype(np.uint32), _tensorflows_words(key, counter, 4)
        )

    def test_known_answer_of_zeros(self):
        # The first known answer of the authors' Random123 for philox4x32-10.
        found = randomness.philox(
            tf.zeros([2], tf.uint64), tf.zeros([4], tf.uint64)
        )
        self.assertAllEqual(
            found.numpy(), [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
        )


class RandomWordsTest(parameterized.TestCase, tf.test.TestCase):
    def test_key_is_the_run_and_counter_block_step_and_image(self):
        seeds = randomness.example_seeds(3, 5, tf.constant([7, 8]))
        words = randomness.random_words(seeds, tf.constant(9), 6).numpy()
        self.assertEqual(words.shape, (2, 6))
        for row, image in zip(words, (7, 8), strict=True):
            for block, found in ((0, row[:4]), (1, row[4:])):
                expected = _tensorflows_words(
                    3 * 2**32 + 5, ((9 << 32) + block, image), 4
                )
                self.assertAllEqual(found, expected[: len(found)])

    @parameterized.parameters(1, 4, 5, 96)
    def test_an_image_has_its_words_in_any_batch(self, count):
        seeds = toys.seeds(5)
        many = randomness.random_words(seeds, 3, count)
        self.assertEqual(many.shape, (5, count))
        for i in range(5):
            one = randomness.random_words(seeds[i : i + 1], 3, count)
            self.assertAllEqual(one[0], many[i])

    def test_compiled_equals_eager_for_a_step_that_is_a_tensor(self):
        compiled = tf.function(randomness.random_words)
        for step in (0, 1, 4999):
            self.assertAllEqual(
                compiled(toys.seeds(3), tf.constant(step), 5),
                randomness.random_words(toys.seeds(3), step, 5),
            )

    def test_no_two_of_many_triples_share_words(self):
        rows = [
            randomness.random_words(
                randomness.restart_seeds(toys.seeds(20, seed), restart), step, 8
            ).numpy()
            for seed in (0, 1)
            for restart in (0, 1)
            for step in (0, 1, 2)
        ]
        words = np.concatenate(rows).ravel()
        # 1,920 words: a pair by chance has probability 1920² / 2³³ = 0.04 %.
        self.assertLen(set(words.tolist()), len(words))

    def test_every_bit_is_as_often_set_as_not(self):
        words = randomness.random_words(toys.seeds(200), 0, 100).numpy()
        bits = words[..., None] >> np.arange(64, dtype=np.uint64) & 1
        shares = bits.mean((0, 1))
        # Deviation of 20,000 coins: 0.0035.
        self.assertAllClose(shares[:32], np.full(32, 0.5), atol=0.016)
        self.assertAllEqual(shares[32:], np.zeros(32))

    def test_neighbouring_images_steps_and_words_are_not_correlated(self):
        words = np.stack(
            [
                randomness.random_words(toys.seeds(50), step, 40).numpy()
                for step in range(50)
            ]
        ).astype(np.float64)
        words -= words.mean()
        for axis in range(3):
            ahead = np.roll(words, 1, axis)
            # 100,000 numbers: deviation of chance 0.003.
            correlation = np.mean(ahead * words) / np.mean(words**2)
            self.assertLess(abs(correlation), 0.015)


class IntegersTest(parameterized.TestCase, tf.test.TestCase):
    def test_hand_numbers(self):
        words = tf.constant([0, 2**31 - 1, 2**31, 2**32 - 1], tf.uint64)
        self.assertAllEqual(randomness.integers(words, 4), [0, 1, 2, 3])
        self.assertAllEqual(randomness.integers(words, 1), [0, 0, 0, 0])
        self.assertAllEqual(randomness.coins(words), [False, False, True, True])

    @parameterized.parameters(3, 4, 7)
    def test_every_value_is_as_frequent(self, bound):
        words = randomness.random_words(toys.seeds(100), 1, 210)
        values = randomness.integers(words, tf.constant(bound)).numpy()
        self.assertEqual(values.dtype, np.int32)
        counts = np.bincount(values.ravel(), minlength=bound)
        self.assertLen(counts, bound)
        # 21,000 draws: each count deviates by √(21000 / bound) by chance.
        expected = 21000 / bound
        self.assertLess(np.max(np.abs(counts - expected)), 5 * expected**0.5)


if __name__ == "__main__":
    absltest.main()
