"""Seeds, Philox with TensorFlow's bits, and uniform numbers."""

import numpy as np
import tensorflow as tf
from absl.testing import parameterized

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


class SeedsTest(tf.test.TestCase):
    def test_hand_numbers(self):
        # 3 · 2³² + 5 = 12884901893.
        expected = [[12884901893, 7], [12884901893, 8]]
        indices = tf.constant([7, 8])
        seeds = randomness.example_seeds(3, 5, indices)
        self.assertEqual(seeds.dtype, tf.int64)
        self.assertAllEqual(seeds, expected)
        compiled = tf.function(randomness.example_seeds)
        seeds = compiled(tf.constant(3), tf.constant(5, tf.int64), indices)
        self.assertAllEqual(seeds, expected)


class NoiseTest(parameterized.TestCase, tf.test.TestCase):
    @parameterized.product(
        case=(((1,), 1.0), ((7, 5, 1), 0.25), ((8, 8, 3), 8 / 255)),
        jit_compile=(None, False, True),
    )
    def test_uniform_bits_are_those_of_tensorflows_generator(
        self, case, jit_compile
    ):
        shape, magnitude = case
        draw = np.random.default_rng(0)
        seeds = draw.integers(-(2**63), 2**63, (9, 2), np.int64)
        seeds = np.concatenate([seeds, toys.seeds(3, 7), [[0, 0], [-1, -1]]])
        seeds = tf.constant(seeds, tf.int64)
        noise = randomness.uniform_noise
        if jit_compile is not None:
            noise = tf.function(noise, jit_compile=jit_compile)
        found = noise(seeds, shape, magnitude).numpy()
        self.assertEqual(found.dtype, np.float32)
        expected = [
            tf.random.stateless_uniform(
                shape, seed, -magnitude, magnitude, alg="philox"
            )
            for seed in seeds
        ]
        if jit_compile:
            # One rounding in the place of two, of numbers up to 2 ε.
            limit = np.spacing(np.float32(2 * magnitude))
            self.assertAllClose(found, expected, 0, limit)
        else:
            self.assertAllEqual(found, expected)

    @parameterized.product(jit_compile=[False, True], width=[1, 3])
    def test_normal_noise_is_tensorflows(self, jit_compile, width):
        """Up to rounding; one color leaves a number of a pair over."""
        noise = tf.function(randomness.normal_noise, jit_compile=jit_compile)
        found = noise(toys.seeds(3), (5, 5, width), 0.5)
        for row, seed in zip(found, toys.seeds(3), strict=True):
            expected = tf.random.stateless_normal(
                (5, 5, width), seed, stddev=0.5, alg="philox"
            )
            self.assertAllClose(row, expected, 0, 2e-6)


class PhiloxTest(parameterized.TestCase, tf.test.TestCase):
    @parameterized.parameters(
        (0, (0, 0)),
        (1, (0, 0)),
        (2**64 - 1, (2**64 - 1, 2**64 - 1)),
        (0x299F31D0A4093822, (0x85A308D3243F6A88, 0x0370734413198A2E)),
    )
    def test_bits_are_those_of_tensorflows_generator(self, key, counter):
        words = [
            tf.constant(number >> shift & 0xFFFFFFFF, tf.uint64)
            for number in (key, *counter)
            for shift in (0, 32)
        ]
        self.assertAllEqual(
            tf.stack(randomness.philox(words[:2], words[2:])),
            _tensorflows_words(key, counter, 4),
        )

    def test_known_answer_of_zeros(self):
        # The first known answer of the authors' Random123 for philox4x32-10.
        zero = tf.zeros([], tf.uint64)
        self.assertAllEqual(
            tf.stack(randomness.philox([zero] * 2, [zero] * 4)),
            [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8],
        )


class RandomWordsTest(parameterized.TestCase, tf.test.TestCase):
    @parameterized.parameters(1, 4, 6)
    def test_key_is_the_run_and_counter_block_step_and_image(self, count):
        seeds = randomness.example_seeds(3, 5, tf.constant([7, 8]))
        compiled = tf.function(randomness.random_words)
        words = compiled(seeds, tf.constant(9), count).numpy()
        self.assertEqual(words.shape, (2, count))
        for row, image in zip(words, (7, 8), strict=True):
            for block in range(-(-count // 4)):
                found = row[4 * block : 4 * block + 4]
                expected = _tensorflows_words(
                    3 * 2**32 + 5, ((9 << 32) + block, image), 4
                )
                self.assertAllEqual(found, expected[: len(found)])

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


class IntegersTest(parameterized.TestCase, tf.test.TestCase):
    def test_hand_numbers(self):
        words = tf.constant([0, 2**31 - 1, 2**31, 2**32 - 1], tf.uint64)
        self.assertAllEqual(randomness.integers(words, 4), [0, 1, 2, 3])
        self.assertAllEqual(randomness.integers(words, 1), [0, 0, 0, 0])
        self.assertAllEqual(randomness.coins(words), [False, False, True, True])
