"""Malformed and hostile requests, one after the other, to a real server.

What a function of ours refuses by itself, a tensor, a body of JSON, pixels or
labels, is in the tests of that function; here is what meets the libraries.
After each of them the server must still answer a good request right, and all
of them together may not make it grow.
"""

import gc
import json

import grpc
import numpy as np
import pytest
from absl.testing import absltest
from tensorflow_serving.apis import predict_pb2

from serving import tensors
from serving.server import servable
from tests.serving import exports as serving_runs
from tests.serving import process as serving_process
from tests.serving.hostile import calls as hostile_calls
from tests.serving.hostile import messages as hostile_messages
from tests.serving.hostile import rest as hostile_rest
from tests.serving.hostile import tensors as hostile_tensors

_KINDS = hostile_tensors.KINDS + hostile_messages.KINDS + hostile_rest.KINDS
_PREDICT = hostile_calls.PREDICTION + "Predict"
_CONFIG = """
model_config_list {
  config {
    name: "toy" base_path: "%s" model_platform: "tensorflow"
    version_labels { key: "stable" value: 1 }
  }
}
"""
# In 800 requests; one of the larger ones alone, kept, would be more.
_MAX_GROWTH_MIB = 12
_MAX_MORE_THREADS = 4
_MAX_MORE_FILES = 4
# What the server logs where it has met something that it did not foresee.
_UNFORESEEN = ("in a way that it should not", "Traceback")


class HostileTest(absltest.TestCase):
    def setUp(self):
        super().setUp()
        config = serving_runs.temporary_folder(self) / "models.config"
        config.write_text(_CONFIG % serving_runs.exported_toy().parent)
        self.server = self.enterContext(
            serving_process.started(
                f"--model_config_file={config}",
                "--allow_version_labels_for_unavailable_models",
            )
        )
        self.channel = self.enterContext(
            grpc.insecure_channel(self.server.target)
        )
        image = hostile_calls.images(np.random.default_rng(0))
        self.request = hostile_calls.predict({"images": image})
        self.body = json.dumps({"instances": image.tolist()}).encode()
        self.logits = _logits(image)

    def test_one_hundred(self):
        self._attack(100, seed=0)
        self._assert_sound()

    @pytest.mark.long
    def test_a_thousand_leave_nothing_behind(self):
        self._attack(300, seed=1)
        before = self._size()
        for seed in range(2, 6):
            self._attack(200, seed)
        memory, threads, files = self._size() - before
        self.assertLess(memory, _MAX_GROWTH_MIB)
        self.assertLessEqual(threads, _MAX_MORE_THREADS)
        self.assertLessEqual(files, _MAX_MORE_FILES)
        self._assert_sound()

    def _attack(self, count, seed):
        """Sends so many cases, every kind about equally often."""
        draw = np.random.default_rng(seed)
        kinds = [_KINDS[i % len(_KINDS)] for i in range(count)]
        for number in draw.permutation(count):
            kind = kinds[number]
            case = kind(draw)
            outcome = case.outcome(self.channel, self.server.rest_port)
            name = f"{kind.__module__}.{kind.__name__}, seed {seed}: {case}"
            self.assertIn(outcome, case.right, name[:2000])
            self._assert_answers(name[:2000])

    def _assert_answers(self, after):
        self.assertTrue(self.server.is_alive(), after)
        answer = self.channel.unary_unary(
            _PREDICT,
            predict_pb2.PredictRequest.SerializeToString,
            predict_pb2.PredictResponse.FromString,
        )(self.request, timeout=60)
        logits = tensors.from_proto(answer.outputs["logits"])
        np.testing.assert_allclose(logits, self.logits, 1e-4, 1e-5, True, after)
        path = "/v1/models/toy:predict"
        *_, answer = serving_runs.http_call(
            self.server.rest_port, "POST", path, self.body
        )
        row = json.loads(answer)["predictions"][0]
        np.testing.assert_allclose(
            [row["logits"]], self.logits, 1e-4, 1e-5, True, after
        )

    def _size(self):
        gc.collect()
        return np.array(
            [
                self.server.resident_mib(),
                self.server.threads(),
                self.server.open_files(),
            ]
        )

    def _assert_sound(self):
        for words in _UNFORESEEN:
            self.assertNotIn(words, self.server.log())
        self.assertEqual(self.server.stop(), 0)


def _logits(image):
    """Returns the toy's logits, computed without a server."""
    loaded = servable.Servable(serving_runs.exported_toy())
    answer = serving_runs.answer(loaded, "predict", images=image)
    loaded.close()
    return answer["logits"]
