"""A server in this process, and requests and answers of gRPC to it."""

import contextlib
import pathlib
import time
from unittest import mock

import grpc
import numpy as np
from absl.testing import parameterized
from google.protobuf import text_format
from grpc_health.v1 import health_pb2_grpc
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from serving import tensors
from serving.server import servable
from tests.serving import exports as serving_runs

PAGE = "/monitoring/prometheus/metrics"
FOR_EVER = 2**31 - 1
# A bound on what happens at once or never.
PATIENCE_SECONDS = 60


class Calls:
    """The stubs of a channel."""

    def __init__(self, channel):
        service = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        models = model_service_pb2_grpc.ModelServiceStub(channel)
        self.predict = service.Predict
        self.metadata = service.GetModelMetadata
        self.classify = service.Classify
        self.status = models.GetModelStatus
        self.reload = models.HandleReloadConfigRequest
        self.check = health_pb2_grpc.HealthStub(channel).Check


class ServerTest(parameterized.TestCase):
    """A test that calls servers."""

    def connected(self, target, credentials=None):
        """Returns the calls of a server, without the client's 4 MB limit."""
        options = [("grpc.max_receive_message_length", -1)]
        if credentials:
            channel = grpc.secure_channel(target, credentials, options)
        else:
            channel = grpc.insecure_channel(target, options)
        self.addCleanup(channel.close)
        return Calls(channel)

    def started(self, *words):
        """Returns a Server that runs until the end of the test, its calls."""
        server = self.enterContext(serving_runs.serving(*words))
        return server, self.connected(f"127.0.0.1:{server.port}")

    def folder_of_numbers(self, *offsets):
        """Returns a base path with versions 1, 2, ... of `save_numbers`."""
        base = serving_runs.temporary_folder(self)
        for number, offset in enumerate(offsets, 1):
            serving_runs.save_numbers(base / str(number), offset)
        return base

    def assert_refused(self, code, call, *args, **kwargs):
        with self.assertRaises(grpc.RpcError) as raised:
            call(*args, **kwargs)
        self.assertEqual(raised.exception.code().name, code)

    def assert_too_late(self, call, request, *or_codes):
        """The server's words and the client's own race: either will do."""
        with self.assertRaises(grpc.RpcError) as raised:
            call(request, timeout=0.3)
        self.assertIn(
            raised.exception.code().name, ("DEADLINE_EXCEEDED", *or_codes)
        )

    def awaited(self, is_so):
        """Waits until a condition holds, fails if it never does."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not is_so():
            self.assertLess(time.monotonic(), deadline, "waited in vain")
            time.sleep(0.05)


def file(folder, name, text):
    """Returns the path of a new file."""
    path = pathlib.Path(folder, name)
    path.write_text(text)
    return path


def predict_request(inputs, name="m", spec=None, output_filter=()):
    """Returns a PredictRequest of arrays or TensorProtos."""
    request = predict_pb2.PredictRequest(output_filter=output_filter)
    request.model_spec.name = name
    _fill(request.model_spec, spec)
    for alias, value in inputs.items():
        if isinstance(value, np.ndarray):
            value = tensors.to_proto(value)
        request.inputs[alias].CopyFrom(value)
    return request


def _fill(model_spec, spec):
    for field, value in (spec or {}).items():
        if field == "version":
            model_spec.version.value = value
        else:
            setattr(model_spec, field, value)


def floats(rows):
    return np.array(rows, np.float32)


def proto(text):
    """Returns the TensorProto that a text describes."""
    return text_format.Parse(text, tensors.to_proto(np.zeros(0)).__class__())


def numbers(rows):
    """Returns the inputs of the default signature."""
    return {"x": floats(rows)}


def count(steps):
    """Returns the request that takes a number of steps."""
    steps = np.array([steps], np.int32)
    return predict_request({"n": steps}, spec={"signature_name": "count"})


def outputs(response):
    return {k: tensors.from_proto(v) for k, v in response.outputs.items()}


def status_request(name="m", version=None):
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = name
    if version is not None:
        request.model_spec.version.value = version
    return request


def states(calls, name="m"):
    """Returns [(version, state)] as the server lists them."""
    named = get_model_status_pb2.ModelVersionStatus.State.Name
    response = calls.status(status_request(name))
    return [(v.version, named(v.state)) for v in response.model_version_status]


def metadata_request(*fields, name="m"):
    request = get_model_metadata_pb2.GetModelMetadataRequest(
        metadata_field=fields
    )
    request.model_spec.name = name
    return request


def reload_request(**base_paths):
    request = model_management_pb2.ReloadConfigRequest()
    for name, base_path in base_paths.items():
        request.config.model_config_list.config.add(
            name=name, base_path=str(base_path), model_platform="tensorflow"
        )
    return request


def model_config(name, base_path, more=""):
    return (
        f'config {{ name: "{name}" base_path: "{base_path}" '
        f'model_platform: "tensorflow" {more} }}\n'
    )


@contextlib.contextmanager
def runs(let_go=None):
    """Yields a list that grows by the feeds of every run of a session.

    Args:
      let_go: threading.Event that the runs wait for, once they are counted.
    """
    seen, real = [], servable.Servable.run

    def run(self, feeds, fetches, timeout_seconds=None):
        seen.append(feeds)
        if let_go:
            let_go.wait(PATIENCE_SECONDS)
        return real(self, feeds, fetches, timeout_seconds)

    with mock.patch.object(servable.Servable, "run", run):
        yield seen


def sizes(runs):
    """Returns the number of rows of each run, ascending."""
    return sorted(len(array) for feeds in runs for array in feeds.values())
