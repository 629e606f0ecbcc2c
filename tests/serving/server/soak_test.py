"""Callers without a pause, while the versions of their model are swapped."""

import functools
import shutil
import threading
import time
import weakref

import grpc
import numpy as np
import pytest
from tensorflow_serving.apis import prediction_service_pb2_grpc

from serving.saved_model import writing
from serving.server import servable
from serving.status import StatusError
from tests.serving import exports as serving_runs
from tests.serving import process as serving_process
from tests.serving.server import calls as server_calls
from tests.support import shared, toys

_CALLERS = 16
_OUTPUTS = ("attention", "logits")
_NUM_IMAGES = 12
_CALL_SECONDS = 30
_SWAPS, _BETWEEN_SWAPS = 12, 5  # seconds
# In ten swaps; measured: 3 and 9.
_MAX_GROWTH_MIB = 12
_CHANNEL_OPTIONS = (
    # A call that fails has failed.
    ("grpc.enable_retries", 0),
    ("grpc.use_local_subchannel_pool", 1),
)


def _export_other(folder):
    file = folder.with_name("other_toy.keras")
    toys.small_classifier(1, norm=False).save(file)
    writing.export_model(file, folder)


def _exports():
    """Returns two version folders, of models with other weights."""
    other = shared.folder("other_toy", _export_other) / "1"
    return serving_runs.exported_toy(), other


@functools.cache
def _images():
    return serving_runs.test_images(_NUM_IMAGES, toys.IMAGE_SHAPE)


@functools.cache
def _answers():
    """Returns {output: array} of each model, computed without a server."""
    answers = []
    for folder in _exports():
        loaded = servable.Servable(folder)
        given = {"images": _images()}
        answers.append(serving_runs.answer(loaded, "serving_default", **given))
        loaded.close()
    return answers


class _Caller(threading.Thread):
    """One client that calls until it is told to stop.

    Attributes:
      versions: numbers of the versions that answered right.
      failures: texts, one for each call that went otherwise.
    """

    def __init__(self, target, seed, stop):
        super().__init__(daemon=True)
        self.versions, self.failures = [], []
        self._target, self._stop_calling = target, stop
        self._draw = np.random.default_rng(seed)

    def run(self):
        with grpc.insecure_channel(self._target, _CHANNEL_OPTIONS) as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            while not self._stop_calling.is_set():
                try:
                    self._call(stub.Predict)
                except Exception as error:
                    self.failures.append(repr(error))

    def _call(self, predict):
        count = int(self._draw.integers(1, 5))
        chosen = self._draw.choice(_NUM_IMAGES, count, replace=False)
        inputs = {"images": _images()[chosen]}
        request = server_calls.predict_request(inputs, "toy")
        response = predict(request, timeout=_CALL_SECONDS)
        version = response.model_spec.version.value
        if version < max(self.versions, default=0):
            self.failures.append(f"version {version} after a newer one")
        found, right = server_calls.outputs(response), _answers()[version % 2]
        for name in _OUTPUTS:
            expected = right[name][chosen]
            np.testing.assert_allclose(found[name], expected, 1e-4, 1e-5)
        self.versions.append(version)


def test_a_closed_version_leaves_nothing():
    loaded = servable.Servable(_exports()[0])
    given = {"images": _images()}
    serving_runs.answer(loaded, "serving_default", **given)
    graph = weakref.ref(loaded._session.graph)
    loaded.close()
    assert graph() is None
    with pytest.raises(StatusError, match="Session has been closed"):
        serving_runs.answer(loaded, "serving_default", **given)


@pytest.mark.long
class SoakTest(server_calls.ServerTest):
    def test_a_minute(self):
        """Every call is answered right, and the server does not grow."""
        models = serving_runs.temporary_folder(self)
        serving_runs.copy_version(_exports()[1], models, 1)
        server = self.enterContext(
            serving_process.started(
                "--model_name=toy",
                f"--model_base_path={models}",
                "--max_num_load_retries=0",
            )
        )
        calls, stop = self.connected(server.target), threading.Event()
        self.addCleanup(stop.set)
        callers = [_Caller(server.target, n, stop) for n in range(_CALLERS)]
        for caller in callers:
            caller.start()
        sizes, broken = [], 2 + _SWAPS // 2
        for number in range(2, 2 + _SWAPS):
            time.sleep(_BETWEEN_SWAPS)
            if number == broken:
                self._add_broken(models, number, calls)
            else:
                self._swap(models, number, calls)
            sizes.append(server.resident_mib())
        stop.set()
        for caller in callers:
            caller.join(2 * _CALL_SECONDS)
            self.assertFalse(caller.is_alive())
            self.assertEqual(caller.failures[:3], [])
        newest, *older = range(1 + _SWAPS, 0, -1)
        expected = [(newest, "AVAILABLE"), *((n, "END") for n in older)]
        self.awaited(lambda: server_calls.states(calls, "toy") == expected)
        seen = set().union(*(caller.versions for caller in callers))
        self.assertEqual(seen, {newest, *older} - {broken})
        self.assertEqual(server.stop(), 0)
        self.assertLess(sizes[-1] - sizes[1], _MAX_GROWTH_MIB)

    def _swap(self, models, number, calls):
        """Puts a version in the place of all others."""
        added = serving_runs.copy_version(
            _exports()[number % 2], models, number
        )
        for old in models.iterdir():
            if old != added:
                shutil.rmtree(old)
        self._await(number, "AVAILABLE", calls)

    def _add_broken(self, models, number, calls):
        """Puts a version beside the last one, which serves on."""
        temporary = models / ".broken"
        temporary.mkdir()
        (temporary / "saved_model.pb").write_bytes(b"no message" * 100)
        temporary.rename(models / str(number))
        self._await(number, "END", calls)
        (bad,) = calls.status(
            server_calls.status_request("toy", number)
        ).model_version_status
        self.assertNotEqual(bad.status.error_code, 0)
        self._await(number - 1, "AVAILABLE", calls)

    def _await(self, number, state, calls):
        pair = number, state
        self.awaited(lambda: pair in server_calls.states(calls, "toy"))
