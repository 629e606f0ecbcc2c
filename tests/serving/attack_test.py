"""Square through gRPC breaks what it breaks offline, within its queries."""

import numpy as np
import tensorflow as tf
from absl.testing import absltest

from atat_tf.data import datasets
from atat_tf.evaluation import attacker as attacker_lib
from atat_tf.evaluation.run import Run
from serving import served_classifier
from serving.client import Client, Unavailable
from tests.serving import exports as serving_runs

_EPSILON = 8 / 255
_QUERIES = 40


class AttackTest(absltest.TestCase):
    def test_served_verdicts_are_the_offline_ones(self):
        spec = datasets.SPECS["cifar10"]
        local = Run(serving_runs.RUN).classifier()
        images = np.random.default_rng(0).integers(
            0, 256, (12, 32, 32, 3), np.uint8
        )
        runner = attacker_lib.Attacker(local, 12)
        labels = runner.logits(images).argmax(-1).astype(np.int32)
        labels[0] = (labels[0] + 1) % 10
        problem = images, labels, _EPSILON, _QUERIES
        counts = []
        with serving_runs.serving() as server:
            target = f"127.0.0.1:{server.port}"
            with Client(target, "atat", timeout=60.0) as client:
                served = served_classifier.ServedClassifier(
                    client, spec.image_shape, spec.num_classes
                )
                stands = served_classifier.withstands(
                    served, *problem, counts.append
                )
        offline = served_classifier.withstands(local, *problem)
        np.testing.assert_array_equal(stands, offline)
        self.assertFalse(stands[0])
        self.assertTrue(stands.any())
        self.assertEqual(sum(counts), 12 * (_QUERIES - 2))
        # What broke an image was asked for once more, alone.
        most = _QUERIES * stands.sum() + (_QUERIES + 1) * (~stands).sum()
        self.assertBetween(served.sent, 12, most)

    def test_failed_call_is_kept(self):
        client = Client("unix:/none", "atat", timeout=0.2)
        served = served_classifier.ServedClassifier(client, (4, 4, 3), 2)
        with client, self.assertRaises(tf.errors.OpError):
            tf.function(served)(tf.zeros([1, 4, 4, 3]))
        self.assertIsInstance(served.error, Unavailable)


if __name__ == "__main__":
    absltest.main()
