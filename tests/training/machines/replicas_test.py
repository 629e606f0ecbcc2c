"""One replica and two end with the same weights."""

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from absl.testing import parameterized

from tests.support import runs, toys
from tests.training.machines import replicas_worker


@pytest.mark.early
class ReplicasTest(parameterized.TestCase, tf.test.TestCase):
    def test_two_replicas_equal_one(self):
        self._assert_two_replicas_equal_one("atat")

    @parameterized.parameters("trades", "released_cifar10")
    @pytest.mark.long
    def test_of_other_defenses_too(self, defense):
        self._assert_two_replicas_equal_one(defense)

    def _assert_two_replicas_equal_one(self, defense):
        """Batch norm, random start, unequal halves, L2 and EMA."""
        outputs = [f"{self.get_temp_dir()}/{number}.npz" for number in (1, 2)]
        with toys.precision("float64", "float64"):
            replicas_worker.main(outputs[0], 1, defense)
        module = replicas_worker.__name__
        # Logical devices are set before TensorFlow starts.
        subprocess.run(
            [sys.executable, "-m", module, outputs[1], "2", defense],
            cwd=runs.ROOT,
            check=True,
        )
        one, two = (np.load(output) for output in outputs)
        self.assertEqual((one["replicas"], two["replicas"]), (1, 2))
        self.assertGreater(len(one.files), 20)
        self.assertIn("an image for each device", str(two["refused"]))
        for name in set(one.files) - {"replicas", "refused"}:
            self.assertAllClose(one[name], two[name], 1e-10, 1e-10, name)
