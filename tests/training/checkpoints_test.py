"""The newest whole checkpoint is restored; damaged ones are passed over."""

import pathlib

import keras
import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from atat_tf.training import checkpoints


class CheckpointsTest(parameterized.TestCase, tf.test.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = pathlib.Path(self.get_temp_dir()) / self.id()
        self.folder.mkdir(parents=True)
        self.variables = [
            keras.Variable(np.zeros((2, 3), np.float32), name="kernel"),
            keras.Variable(0, dtype="int64", name="iteration"),
        ]

    def _save(self, step):
        self.variables[0].assign(np.full((2, 3), step / 7, np.float32))
        self.variables[1].assign(step)
        checkpoints.save(self.folder, step, self.variables, {"step": step})

    def _restore(self):
        for variable in self.variables:
            variable.assign(tf.zeros_like(variable))
        newest = checkpoints.read(self.folder, self.variables)
        if newest:
            checkpoints.assign(self.variables, newest[1])
        return newest and newest[0]

    def _paths(self):
        return sorted((self.folder / "checkpoints").iterdir())

    def test_round_trip_to_the_bit(self):
        self._save(5)
        self.assertEqual(self._restore(), {"step": 5})
        self.assertAllEqual(
            self.variables[0], np.full((2, 3), 5 / 7, np.float32)
        )
        self.assertEqual(int(self.variables[1]), 5)

    def test_none_without_a_checkpoint(self):
        self.assertIsNone(self._restore())

    def test_a_worker_that_does_not_write_makes_nothing(self):
        checkpoints.save(self.folder, 5, self.variables, {}, writes=False)
        self.assertEmpty(list(self.folder.iterdir()))

    def test_two_are_kept(self):
        for step in (1, 2, 10):
            self._save(step)
        self.assertEqual(
            [p.name for p in self._paths()],
            ["step-0000000002.npz", "step-0000000010.npz"],
        )
        self.assertEqual(self._restore(), {"step": 10})

    @parameterized.parameters("empty", "cut", "flipped", "other")
    def test_damage_falls_back_to_the_one_before(self, damage):
        self._save(1)
        self._save(2)
        newest = self._paths()[-1]
        content = bytearray(newest.read_bytes())
        if damage == "empty":
            content = b""
        elif damage == "cut":
            content = content[: len(content) // 2]
        elif damage == "flipped":
            # Inside the numbers of the kernel: only a checksum can tell.
            at = content.index(np.float32(2 / 7).tobytes())
            content[at] ^= 1
        else:
            content = b"not a zip file at all"
        newest.write_bytes(content)
        with self.assertLogs(level="WARNING") as logs:
            self.assertEqual(self._restore(), {"step": 1})
        self.assertIn("damaged", logs.output[0])
        self.assertEqual(int(self.variables[1]), 1)

    def test_of_another_network_is_passed_over(self):
        self._save(1)
        self.variables[0] = keras.Variable(np.zeros((3, 3)), name="kernel")
        with self.assertLogs(level="WARNING"):
            self.assertIsNone(checkpoints.read(self.folder, self.variables))
        self.assertEqual(int(self.variables[1]), 1)

    def test_weights_that_are_not_finite_are_refused(self):
        self._save(1)
        self.variables[0].assign(np.full((2, 3), np.nan, np.float32))
        with self.assertRaisesRegex(FloatingPointError, "step 2.*kernel"):
            checkpoints.save(self.folder, 2, self.variables, {})
        self.assertLen(self._paths(), 1)
