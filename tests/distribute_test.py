"""One replica and two end with the same weights."""

import pathlib
import subprocess
import sys

import numpy as np
import tensorflow as tf

_ROOT = pathlib.Path(__file__).parents[1]


class ReplicasTest(tf.test.TestCase):
    def test_two_replicas_equal_one(self):
        """Batch norm, random start, unequal halves, L2 and EMA."""
        results = []
        for number in (1, 2):
            output = f"{self.get_temp_dir()}/{number}.npz"
            subprocess.run(
                [
                    sys.executable,
                    "-m",
                    "tests.distribute_worker",
                    str(number),
                    output,
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
