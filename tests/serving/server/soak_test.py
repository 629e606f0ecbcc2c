"""Callers without a pause, while the versions of their model are swapped."""

import functools
import pathlib
import shutil
import tempfile
import threading
import time
import weakref

import grpc
import numpy as np
import pytest
from absl.testing import absltest, parameterized
from tensorflow_serving.apis import (
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from serving import tensors
from serving.saved_model import writing
from serving.server import servable
from serving.status import StatusError
from serving.tensors import to_proto
from tests.serving import exports as serving_runs
from tests.serving import process as serving_process
from tests.support import toys

_CALLERS = 16
_OUTPUTS = ("attention", "logits")
_NUM_IMAGES = 12
_CALL_SECONDS = 30
_LOAD_SECONDS = 60
# In ten swaps; measured: 3 and 9.
_MAX_GROWTH_MIB = 12
_States = get_model_status_pb2.ModelVersionStatus
_CHANNEL_OPTIONS = (
    # A call that fails has failed.
    ("grpc.enable_retries", 0),
    ("grpc.use_local_subchannel_pool", 1),
)


@functools.cache
def _exports():
    """Returns two version folders, of models with other weights."""
    base = pathlib.Path(tempfile.mkdtemp())
    folders = []
    for seed in range(2):
        path = base / f"{seed}.keras"
        toys.small_classifier(seed, norm=False).save(path)
        folders.append(writing.export_model(path, base / str(seed)))
    return folders


@functools.cache
def _images():
    return serving_runs.test_images(_NUM_IMAGES, toys.IMAGE_SHAPE)


@functools.cache
def _answers():
    """Returns {output: array} of each model, computed without a server."""
    answers = []
    for folder in _exports():
        loaded = servable.Servable(folder)
        signature = loaded.signatures["serving_default"]
        feeds = {signature.inputs["images"].name: _images()}
        names = [signature.outputs[name].name for name in _OUTPUTS]
        outputs = loaded.run(feeds, names)
        answers.append(dict(zip(_OUTPUTS, outputs, strict=True)))
        loaded.close()
    return answers


class _Caller(threading.Thread):
    """One client that calls until it is told to stop.

    Attributes:
      versions: {version's number: right answers from it}.
      failures: texts, one for each call that went otherwise.
    """

    def __init__(self, target, seed, stop):
        super().__init__(daemon=True)
        self.versions, self.failures = {}, []
        self._target, self._stop_calling = target, stop
        self._draw = np.random.default_rng(seed)

    def run(self):
        with grpc.insecure_channel(self._target, _CHANNEL_OPTIONS) as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            while not self._stop_calling.is_set():
                try:
                    self._call(stub)
                except Exception as error:
                    self.failures.append(repr(error))

    def _request(self):
        """Returns a PredictRequest, and which of the images it has."""
        count = int(self._draw.integers(1, 5))
        chosen = self._draw.choice(_NUM_IMAGES, count, replace=False)
        request = predict_pb2.PredictRequest()
        request.model_spec.name = "toy"
        to_proto(_images()[chosen], request.inputs["images"])
        return request, chosen

    def _call(self, stub):
        request, chosen = self._request()
        response = stub.Predict(request, timeout=_CALL_SECONDS)
        version = response.model_spec.version.value
        if version < max(self.versions, default=0):
            self.failures.append(f"version {version} after a newer one")
        right = _answers()[version % 2]
        for name in _OUTPUTS:
            output = tensors.from_proto(response.outputs[name])
            np.testing.assert_allclose(output, right[name][chosen], 1e-4, 1e-5)
        self.versions[version] = self.versions.get(version, 0) + 1


class SoakTest(parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.models = serving_runs.temporary_folder(self)
        serving_runs.copy_version(_exports()[1], self.models, 1)

    def test_a_closed_version_leaves_nothing(self):
        loaded = servable.Servable(_exports()[0])
        signature = loaded.signatures["serving_default"]
        feeds = {signature.inputs["images"].name: _images()}
        names = [signature.outputs[name].name for name in _OUTPUTS]
        loaded.run(feeds, names)
        graph = weakref.ref(loaded._session.graph)
        loaded.close()
        self.assertIsNone(graph())
        with self.assertRaisesRegex(StatusError, "Session has been closed"):
            loaded.run(feeds, names)

    @parameterized.named_parameters(
        ("merged", ()), ("one_by_one", ("--enable_batching=false",))
    )
    @pytest.mark.long
    def test_a_minute(self, words):
        growth = self._soak(swaps=12, interval=5, words=words)
        self.assertLess(growth, _MAX_GROWTH_MIB)

    def _soak(self, swaps, interval, words=()):
        """Returns by how many MiB the server grew after the second swap."""
        server = self.enterContext(
            serving_process.started(
                "--model_name=toy",
                f"--model_base_path={self.models}",
                "--max_num_load_retries=0",
                *words,
            )
        )
        stop = threading.Event()
        self.addCleanup(stop.set)
        callers = [
            _Caller(server.target, seed, stop) for seed in range(_CALLERS)
        ]
        for caller in callers:
            caller.start()
        sizes = []
        with grpc.insecure_channel(server.target) as channel:
            stub = model_service_pb2_grpc.ModelServiceStub(channel)
            for number in range(2, 2 + swaps):
                time.sleep(interval)
                if number == 2 + swaps // 2:
                    self._expect_broken_is_passed_over(stub, number)
                else:
                    self._swap(stub, number)
                sizes.append(server.resident_mib())
            stop.set()
            for caller in callers:
                caller.join(2 * _CALL_SECONDS)
            self._assert_only_newest_is_loaded(stub)
        broken = 2 + swaps // 2
        self._assert_all_answered(callers, {*range(1, 2 + swaps)} - {broken})
        self.assertEqual(server.stop(), 0)
        return sizes[-1] - sizes[1]

    def _swap(self, stub, number):
        """Puts a version in the place of all others."""
        model = _exports()[number % 2]
        added = serving_runs.copy_version(model, self.models, number)
        for old in self.models.iterdir():
            if old != added:
                shutil.rmtree(old)
        self._await(stub, number, _States.AVAILABLE)

    def _expect_broken_is_passed_over(self, stub, number):
        self._add_broken(number)
        self._await(stub, number, _States.END)
        states = _statuses(stub)
        self.assertNotEqual(states[number][1], 0)
        self.assertEqual(states[number - 1], (_States.AVAILABLE, 0))

    def _add_broken(self, number):
        temporary = self.models / ".broken"
        temporary.mkdir()
        (temporary / "saved_model.pb").write_bytes(b"no message" * 100)
        temporary.rename(self.models / str(number))

    def _await(self, stub, number, state):
        end = time.monotonic() + _LOAD_SECONDS
        while _statuses(stub).get(number, (None,))[0] != state:
            self.assertLess(time.monotonic(), end, f"{number} not in {state}")
            time.sleep(0.02)

    def _assert_only_newest_is_loaded(self, stub):
        newest, *older = sorted(_statuses(stub), reverse=True)
        for number in older:
            self._await(stub, number, _States.END)
        self.assertEqual(_statuses(stub)[newest], (_States.AVAILABLE, 0))

    def _assert_all_answered(self, callers, served):
        for caller in callers:
            self.assertFalse(caller.is_alive())
            self.assertEqual(caller.failures[:3], [])
        seen = set().union(*(caller.versions for caller in callers))
        self.assertEqual(seen, served)


def _statuses(stub):
    """Returns {version: (state, error code)} of all that ever were."""
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = "toy"
    response = stub.GetModelStatus(request, timeout=_CALL_SECONDS)
    return {
        one.version: (one.state, one.status.error_code)
        for one in response.model_version_status
    }


if __name__ == "__main__":
    absltest.main()
