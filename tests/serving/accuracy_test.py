"""What is served is as accurate as what was evaluated, image by image."""

import json

import numpy as np
import pytest
from absl.testing import absltest

from atat_tf.evaluation.run import Run
from serving.client import client as grpc_client
from tests.serving import exports as serving_runs

_DATA = serving_runs.ROOT.parent / "shared" / "tfds"


class AccuracyTest(absltest.TestCase):
    @pytest.mark.long
    def test_on_the_whole_test_set(self):
        if not _DATA.is_dir():
            self.skipTest("there is no CIFAR-10 beside the project")
        run = Run(serving_runs.RUN, str(_DATA))
        dataset = run.dataset
        images = dataset.test.images.astype(np.float32) / 255.0
        with serving_runs.serving() as server:
            with grpc_client.Client(
                f"127.0.0.1:{server.port}", "atat", timeout=300.0
            ) as client:
                answer = client.predict(images)
        correct = answer["classes"] == dataset.test.labels
        self.assertLen(correct, 10_000)
        # Written on another machine, whose rounding may decide a close image.
        results = json.loads((serving_runs.RUN / "results.json").read_text())
        self.assertAlmostEqual(
            np.mean(correct), results["accuracy"]["clean"], delta=0.0005
        )
        classifier = run.classifier()
        logits = classifier.predict(images, batch_size=500, verbose=0)
        np.testing.assert_allclose(answer["logits"], logits, 1e-4, 1e-4)
        np.testing.assert_array_equal(answer["classes"], logits.argmax(-1))


if __name__ == "__main__":
    absltest.main()
