"""Square through gRPC breaks what it breaks offline, within its queries."""

import numpy as np
from absl.testing import absltest

from atat_tf.attacks import square
from atat_tf.data import datasets
from atat_tf.evaluation import attacker as attacker_lib
from atat_tf.evaluation import evaluate_run
from serving import attacking
from serving.client import client as grpc_client
from tests.serving import exports as serving_runs

_EPSILON = 8 / 255
_QUERIES = 40


class AttackTest(absltest.TestCase):
    def test_served_verdicts_are_the_offline_ones(self):
        classifier = evaluate_run.load_classifier(
            serving_runs.RUN, datasets.SPECS["cifar10"]
        )
        images = np.random.default_rng(0).integers(
            0, 256, (12, 32, 32, 3), np.uint8
        )
        runner = attacker_lib.Attacker(classifier, 12)
        labels = runner.logits(images).argmax(-1).astype(np.int32)
        labels[0] = (labels[0] + 1) % 10
        counts = []
        with serving_runs.serving() as server:
            with grpc_client.Client(
                f"127.0.0.1:{server.port}", "atat", timeout=60.0
            ) as client:
                stands, sent = attacking.withstands(
                    client,
                    images,
                    labels,
                    _EPSILON,
                    _QUERIES,
                    advance=counts.append,
                )
        offline = runner.run(
            square.Square(_EPSILON, num_steps=_QUERIES - 2),
            images,
            labels,
            np.arange(12),
            np.int64(0),
        )
        np.testing.assert_array_equal(stands, ~offline.broken)
        self.assertFalse(stands[0])
        self.assertEqual(sum(counts), 12)
        self.assertLessEqual(sent, 12 * _QUERIES)
        self.assertGreater(sent, 12)


if __name__ == "__main__":
    absltest.main()
