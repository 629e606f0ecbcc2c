"""One replica and two end with the same weights."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from absl.testing import parameterized

_ROOT = pathlib.Path(__file__).parents[3]


class ReplicasTest(parameterized.TestCase, tf.test.TestCase):
    def test_two_replicas_equal_one(self):
        self._assert_two_replicas_equal_one("atat")

    @parameterized.parameters("trades", "released_cifar10")
    @pytest.mark.long
    def test_of_other_defenses_too(self, defense):
        self._assert_two_replicas_equal_one(defense)

    def _assert_two_replicas_equal_one(self, defense):
        """Batch norm, random start, unequal halves, L2 and EMA."""
        results = []
        for number in (1, 2):
            output = f"{self.get_temp_dir()}/{number}.npz"
            subprocess.run(
                [
                    sys.executable,
                    "-m",
                    "tests.training.machines.distribute_worker",
                    str(number),
                    output,
                    defense,
                ],
                cwd=_ROOT,
                check=True,
            )
            results.append(np.load(output))
        one, two = results
        self.assertEqual(one["replicas"], 1)
        self.assertEqual(two["replicas"], 2)
        self.assertGreater(len(one.files), 80)
        for name in set(one.files) - {"replicas"}:
            self.assertAllClose(one[name], two[name], 1e-10, 1e-10, name)


if __name__ == "__main__":
    tf.test.main()
