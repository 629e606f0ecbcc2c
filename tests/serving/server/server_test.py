"""The embedded server, called over gRPC on loopback as its users call it."""

import collections
import contextlib
import json
import pathlib
import subprocess
import tempfile
import threading
import time
import urllib.request
from unittest import mock

import grpc
import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized
from google.protobuf import text_format
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client import parser
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_log_pb2,
    prediction_service_pb2_grpc,
)

from serving import tensors
from serving.server import config_files, grpc_services, servable
from tests.serving import exports as serving_runs

_PAGE = "/monitoring/prometheus/metrics"
_FOR_EVER = 2**31 - 1
# A bound on what happens at once or never.
_PATIENCE_SECONDS = 60


class _Calls:
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


class _ServerTest(parameterized.TestCase):
    """A test that calls servers."""

    def connected(self, target, credentials=None):
        """Returns the calls of a server, without the client's 4 MB limit."""
        options = [("grpc.max_receive_message_length", -1)]
        if credentials:
            channel = grpc.secure_channel(target, credentials, options)
        else:
            channel = grpc.insecure_channel(target, options)
        self.addCleanup(channel.close)
        return _Calls(channel)

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
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not is_so():
            self.assertLess(time.monotonic(), deadline, "waited in vain")
            time.sleep(0.05)


def _file(folder, name, text):
    """Returns the path of a new file."""
    path = pathlib.Path(folder, name)
    path.write_text(text)
    return path


def _predict_request(inputs, name="m", spec=None, output_filter=()):
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


def _floats(rows):
    return np.array(rows, np.float32)


def _proto(text):
    """Returns the TensorProto that a text describes."""
    return text_format.Parse(text, tensors.to_proto(np.zeros(0)).__class__())


def _numbers(rows):
    """Returns the inputs of the default signature."""
    return {"x": _floats(rows)}


def _count(steps):
    """Returns the request that takes a number of steps."""
    steps = np.array([steps], np.int32)
    return _predict_request({"n": steps}, spec={"signature_name": "count"})


def _outputs(response):
    return {k: tensors.from_proto(v) for k, v in response.outputs.items()}


def _status_request(name="m", version=None):
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = name
    if version is not None:
        request.model_spec.version.value = version
    return request


def _states(calls, name="m"):
    """Returns [(version, state)] as the server lists them."""
    named = get_model_status_pb2.ModelVersionStatus.State.Name
    response = calls.status(_status_request(name))
    return [(v.version, named(v.state)) for v in response.model_version_status]


def _metadata_request(*fields, name="m"):
    request = get_model_metadata_pb2.GetModelMetadataRequest(
        metadata_field=fields
    )
    request.model_spec.name = name
    return request


def _reload_request(**base_paths):
    request = model_management_pb2.ReloadConfigRequest()
    for name, base_path in base_paths.items():
        request.config.model_config_list.config.add(
            name=name, base_path=str(base_path), model_platform="tensorflow"
        )
    return request


def _model_config(name, base_path, more=""):
    return (
        f'config {{ name: "{name}" base_path: "{base_path}" '
        f'model_platform: "tensorflow" {more} }}\n'
    )


@contextlib.contextmanager
def _runs(let_go=None):
    """Yields a list that grows by the feeds of every run of a session.

    Args:
      let_go: threading.Event that the runs wait for, once they are counted.
    """
    seen, real = [], servable.Servable.run

    def run(self, feeds, fetches, timeout_seconds=None):
        seen.append(feeds)
        if let_go:
            let_go.wait(_PATIENCE_SECONDS)
        return real(self, feeds, fetches, timeout_seconds)

    with mock.patch.object(servable.Servable, "run", run):
        yield seen


def _sizes(runs):
    """Returns the number of rows of each run, ascending."""
    return sorted(len(array) for feeds in runs for array in feeds.values())


class AnswersTest(_ServerTest):
    """Calls that change nothing, on one server with several models."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        stack = cls.enterClassContext(contextlib.ExitStack())
        folder = pathlib.Path(
            stack.enter_context(tempfile.TemporaryDirectory())
        )
        for number in (1, 2):
            serving_runs.save_numbers(folder / "m" / str(number), number)
        both = "model_version_policy { all {} }"
        labels = 'version_labels { key: "old" value: 1 }'
        models = _file(
            folder,
            "models.config",
            "model_config_list {\n"
            + _model_config("m", folder / "m", f"{both} {labels}")
            + _model_config("toy", serving_runs.exported_toy().parent)
            + "}",
        )
        monitoring = _file(
            folder,
            "monitoring.config",
            f'prometheus_config {{ enable: true path: "{_PAGE}" }}',
        )
        cls.server = stack.enter_context(
            serving_runs.serving(
                f"--model_config_file={models}",
                f"--monitoring_config_file={monitoring}",
                "--allow_version_labels_for_unavailable_models",
                "--enable_grpc_healthcheck_service",
            )
        )

    def setUp(self):
        super().setUp()
        self.calls = self.connected(f"127.0.0.1:{self.server.port}")

    def predicted(self, inputs, **kwargs):
        """Returns the output arrays by name."""
        return _outputs(self.calls.predict(_predict_request(inputs, **kwargs)))

    def rest(self, path, body=None):
        """Returns what a call over HTTP answers, parsed."""
        url = f"http://127.0.0.1:{self.server.rest_port}{path}"
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(url, data, timeout=30) as response:
            text = response.read().decode()
        return text if path == _PAGE else json.loads(text)

    @parameterized.parameters(
        ({"spec": {"version_label": "x"}}, "INVALID_ARGUMENT"),
        ({"spec": {"signature_name": "nope"}}, "FAILED_PRECONDITION"),
        ({"spec": {"signature_name": "s" * 2000}}, "FAILED_PRECONDITION"),
        ({"spec": {"version": 9}}, "NOT_FOUND"),
        ({"name": ""}, "INVALID_ARGUMENT"),
        ({"name": "x"}, "NOT_FOUND"),
        ({"output_filter": ["zz"]}, "INVALID_ARGUMENT"),
        ({"output_filter": ["y", "y"]}, "INVALID_ARGUMENT"),
        ({"inputs": {}}, "INVALID_ARGUMENT"),
        ({"inputs": {"z": _floats([[1]])}}, "INVALID_ARGUMENT"),
        (
            {"inputs": {"x": _floats([[1]]), "z": _floats([[1]])}},
            "INVALID_ARGUMENT",
        ),
        ({"inputs": {"x": _proto("float_val: 1")}}, "INVALID_ARGUMENT"),
        ({"inputs": {"x": np.ones((1, 1))}}, "INVALID_ARGUMENT"),  # float64
        (
            {"inputs": {"images": np.zeros((8, 8, 3), "f")}, "name": "toy"},
            "INVALID_ARGUMENT",
        ),
    )
    def test_refused(self, asked, code):
        request = _predict_request(**{"inputs": _numbers([[1]]), **asked})
        self.assert_refused(code, self.calls.predict, request)

    def test_output_filter(self):
        inputs = {"x": _floats([[5]]), "z": _floats([[3]])}
        request = _predict_request(
            inputs, spec={"signature_name": "two"}, output_filter=["b"]
        )
        self.assertEqual(
            _outputs(self.calls.predict(request)), {"b": _floats([[2]])}
        )
        request.output_filter.append("a")
        self.assertEqual(
            _outputs(self.calls.predict(request)),
            {"a": _floats([[8]]), "b": _floats([[2]])},
        )

    @parameterized.named_parameters(
        ("newest", {}, "serving_default", 2, 2.5),
        ("version", {"version": 1}, "serving_default", 1, 1.5),
        ("label", {"version_label": "old"}, "serving_default", 1, 1.5),
        ("signature", {"signature_name": "total"}, "total", 2, 1.0),
    )
    def test_spec_of_answer(self, spec, signature, version, number):
        request = _predict_request(_numbers([[1]]), spec=spec)
        response = self.calls.predict(request)
        answered = response.model_spec
        self.assertEqual(answered.name, "m")
        self.assertEqual(answered.signature_name, signature)
        self.assertEqual(answered.version.value, version)
        self.assertEqual(answered.WhichOneof("version_choice"), "version")
        self.assertEqual(_outputs(response)["y"], number)

    def test_answers_are_typed_fields(self):
        request = _predict_request(_numbers([[1, 2]]))
        answer = self.calls.predict(request).outputs["y"]
        self.assertEqual(list(answer.float_val), [2.5, 3.0])
        self.assertEqual(answer.tensor_content, b"")

    def test_answers_are_raw_bytes_where_asked(self):
        _, calls = self.started(
            f"--model_base_path={self.folder_of_numbers(2)}",
            "--model_name=m",
            "--enable_serialization_as_tensor_content",
        )
        answer = calls.predict(_predict_request(_numbers([[1, 2]])))
        content = answer.outputs["y"].tensor_content
        self.assertEqual(content, _floats([2.5, 3.0]).tobytes())
        self.assertEmpty(answer.outputs["y"].float_val)

    def test_status(self):
        self.assertEqual(
            _states(self.calls), [(2, "AVAILABLE"), (1, "AVAILABLE")]
        )
        response = self.calls.status(_status_request("m", 1))
        (only,) = response.model_version_status
        self.assertEqual(only.version, 1)
        self.assertEqual(only.status.error_code, 0)

    @parameterized.parameters((), ("foo",), ("signature_def", "foo"))
    def test_refused_metadata(self, *fields):
        request = _metadata_request(*fields)
        self.assert_refused("INVALID_ARGUMENT", self.calls.metadata, request)

    def test_metadata(self):
        response = self.calls.metadata(_metadata_request("signature_def"))
        self.assertEqual(response.model_spec.name, "m")
        self.assertEqual(response.model_spec.version.value, 2)
        self.assertEqual(list(response.metadata), ["signature_def"])
        found = get_model_metadata_pb2.SignatureDefMap()
        self.assertTrue(response.metadata["signature_def"].Unpack(found))
        default = found.signature_def["serving_default"]
        self.assertEqual(default.inputs["x"].name, "x:0")
        self.assertEqual(default.method_name, "tensorflow/serving/predict")
        self.assertIn("two", found.signature_def)

    def test_deadline_ends_the_run(self):
        self.assert_too_late(self.calls.predict, _count(_FOR_EVER))
        self.assertEqual(self.predicted(_numbers([[1]]))["y"], 2.5)

    def test_health(self):
        names = ("", "PredictionService", "ModelService")
        self.assertEqual(grpc_services.HEALTH_NAMES, names)
        for name in names:
            request = health_pb2.HealthCheckRequest(service=name)
            self.assertEqual(self.calls.check(request).status, 1)
        request = health_pb2.HealthCheckRequest(service="nope")
        self.assert_refused("NOT_FOUND", self.calls.check, request)

    def test_metrics_count_the_calls(self):
        before = self.counts()
        for _ in range(3):
            self.predicted(_numbers([[1]]))
        with self.assertRaises(grpc.RpcError):
            self.predicted({})
        self.rest("/v1/models/m:predict", {"instances": [[1]]})
        added = self.counts()
        added.subtract(before)
        self.assertEqual(
            {key: count for key, count in added.items() if count},
            {
                ("request_count_total", "m", "OK"): 4,
                ("request_count_total", "m", "INVALID_ARGUMENT"): 1,
                # Only of what succeeded.
                ("request_latency_count", "Predict", "GRPC", "m"): 3,
                ("request_latency_count", "predict", "REST", "m"): 1,
                ("runtime_latency_count", "Predict", "m", "TF1"): 4,
            },
        )

    def counts(self):
        """Returns a Counter of (metric, labels' values).

        The parser names every counter "..._total".
        """
        found = collections.Counter()
        page = self.rest(_PAGE)
        for family in parser.text_string_to_metric_families(page):
            for sample in family.samples:
                name = sample.name.removeprefix(":tensorflow:serving:")
                if name.endswith(("_count", "_total")):
                    key = (name, *sample.labels.values())
                    found[key] = int(sample.value)
        return found


class MonitorTest(_ServerTest):
    def test_share_of_images_above_the_limit(self):
        models = serving_runs.temporary_folder(self)
        version = serving_runs.copy_version(serving_runs.exported(), models, 1)
        images = {"images": serving_runs.test_images(8)}
        request = _predict_request(images, spec={"signature_name": "monitor"})
        words = (f"--model_base_path={models}", "--model_name=m")
        _, calls = self.started(*words)
        shifts = _outputs(calls.predict(request))["attention_shift"]
        card = version / "model_card.json"
        limit = {"quantiles": {"0.99": float(np.sort(shifts)[4:6].mean())}}
        content = {**json.loads(card.read_text()), "attention_shift": limit}
        card.write_text(json.dumps(content))
        file = _file(models, "m.config", "prometheus_config { enable: true }")
        server, calls = self.started(*words, f"--monitoring_config_file={file}")
        calls.predict(request)
        page = f"http://127.0.0.1:{server.rest_port}{_PAGE}"
        with urllib.request.urlopen(page) as response:
            text = response.read().decode()
        prefix, label = ":atat:serving:", '_total{model_name="m"}'
        self.assertIn(f"{prefix}monitored_images{label} 8.0", text)
        above = f"{prefix}attention_shift_above_limit{label} 3.0"
        self.assertIn(above, text)


class LifeCycleTest(_ServerTest):
    """Models and versions that come and go under a server."""

    def test_reload(self):
        first = self.folder_of_numbers(1, 2)
        second = self.folder_of_numbers(10)
        _, calls = self.started(f"--model_base_path={first}", "--model_name=m")
        request = _reload_request(m=first, other=second)
        model = request.config.model_config_list.config[0]
        model.model_version_policy.all.SetInParent()
        self.assertEqual(calls.reload(request).status.error_code, 0)
        # It has waited for the new model.
        answer = calls.predict(_predict_request(_numbers([[2]]), "other"))
        self.assertEqual(_outputs(answer)["y"], 11)
        self.awaited(
            lambda: _states(calls) == [(2, "AVAILABLE"), (1, "AVAILABLE")]
        )
        model.version_labels["old"] = 1
        calls.reload(request)
        labelled = _predict_request(
            _numbers([[2]]), spec={"version_label": "old"}
        )
        self.assertEqual(_outputs(calls.predict(labelled))["y"], 2)
        model.version_labels["old"] = 99
        self.assert_refused("FAILED_PRECONDITION", calls.reload, request)
        self.assertEqual(_outputs(calls.predict(labelled))["y"], 2)
        calls.reload(_reload_request(other=second))
        self.awaited(lambda: _states(calls) == [(2, "END"), (1, "END")])
        gone = _predict_request(_numbers([[2]]))
        self.assert_refused("NOT_FOUND", calls.predict, gone)

    def test_reload_waits_as_long_as_the_caller(self):
        base = self.folder_of_numbers(1)
        empty = serving_runs.temporary_folder(self)
        _, calls = self.started(f"--model_base_path={base}", "--model_name=m")
        self.assert_too_late(calls.reload, _reload_request(m=base, other=empty))
        # Without a deadline it waits until a version is there.
        late = serving_runs.temporary_folder(self)
        waiting = calls.reload.future(_reload_request(m=base, late=late))
        serving_runs.copy_version(base / "1", late, 4)
        self.assertEqual(waiting.result(_PATIENCE_SECONDS).status.error_code, 0)
        self.assertEqual(_states(calls, "late"), [(4, "AVAILABLE")])

    def test_warm_up(self):
        base = self.folder_of_numbers(1, 2, 3)
        good = prediction_log_pb2.PredictionLog()
        good.predict_log.request.CopyFrom(_predict_request(_numbers([[1]])))
        bad = prediction_log_pb2.PredictionLog()
        bad.predict_log.request.CopyFrom(_predict_request({"z": _floats([1])}))
        _write_warm_up(base / "1", [good, good])
        damaged = _write_warm_up(base / "2", [good])
        damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
        _write_warm_up(base / "3", [good, bad])
        for bad_version in ("2", "3"):  # to come when 1 is there
            (base / bad_version).rename(base / f"later-{bad_version}")
        models = _file(
            base,
            "models.config",
            "model_config_list { "
            + _model_config("m", base, "model_version_policy { all {} }")
            + "}",
        )
        with _runs() as runs:
            _, calls = self.started(
                f"--model_config_file={models}",
                "--max_num_load_retries=0",
            )
            for bad_version in ("2", "3"):
                (base / f"later-{bad_version}").rename(base / bad_version)
            self.awaited(
                lambda: (
                    _states(calls) == [(3, "END"), (2, "END"), (1, "AVAILABLE")]
                )
            )
        # Version 1: both records; version 3: the first.
        self.assertLen(runs, 2 + 1)
        third, second, first = calls.status(
            _status_request()
        ).model_version_status
        self.assertEqual(first.status.error_code, 0)
        self.assertIn("TFRecord", second.status.error_message)
        self.assertIn("Expected the inputs x", third.status.error_message)


def _write_warm_up(version, logs):
    """Returns the file with the requests that a version is warmed up with."""
    file = version / "assets.extra" / "tf_serving_warmup_requests"
    file.parent.mkdir()
    with tf.io.TFRecordWriter(str(file)) as writer:
        for log in logs:
            writer.write(log.SerializeToString())
    return file


class BatchingTest(_ServerTest):
    """One thread, and a timer of a minute that nothing waits for."""

    parameters = (
        "num_batch_threads { value: 1 } max_batch_size { value: 8 } "
        "allowed_batch_sizes: [4, 8] batch_timeout_micros { value: 60000000 }"
    )

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        stack = cls.enterClassContext(contextlib.ExitStack())
        folder = pathlib.Path(
            stack.enter_context(tempfile.TemporaryDirectory())
        )
        serving_runs.save_numbers(folder / "1")
        file = _file(folder, "batching.config", cls.parameters)
        cls.server = stack.enter_context(
            serving_runs.serving(
                f"--model_base_path={folder}",
                "--model_name=m",
                f"--batching_parameters_file={file}",
            )
        )

    def setUp(self):
        super().setUp()
        self.calls = self.connected(f"127.0.0.1:{self.server.port}")

    def answers(self, requests):
        """Returns outputs, or errors, and sizes of runs of what waits.

        The only thread is busy until all requests have come.
        """
        let_go = threading.Event()
        self.addCleanup(let_go.set)
        first = _predict_request(_numbers([[1]]))
        with _runs(let_go) as runs:
            busy = self.calls.predict.future(first)
            self.awaited(lambda: runs)
            sent = [self.calls.predict.future(request) for request in requests]
            # Each connection's calls come in order.
            self.calls.status(_status_request())
            let_go.set()
            busy.result(_PATIENCE_SECONDS)
            errors = [call.exception(_PATIENCE_SECONDS) for call in sent]
        outputs = [
            error or _outputs(call.result())
            for call, error in zip(sent, errors, strict=True)
        ]
        return outputs, _sizes(runs[1:])

    def test_what_waits_is_merged(self):
        requests = [
            _predict_request(_numbers([[n, n], [-n, n]])) for n in range(4)
        ]
        answers, sizes = self.answers(requests)
        self.assertEqual(sizes, [8])
        for n, answer in enumerate(answers):
            np.testing.assert_allclose(
                answer["y"], [[n / 2 + 2] * 2, [-n / 2 + 2, n / 2 + 2]], 1e-5
            )

    def test_a_caller_that_has_left_is_not_run(self):
        kept = _predict_request(_numbers([[4]]))
        let_go = threading.Event()
        self.addCleanup(let_go.set)
        with _runs(let_go) as runs:
            busy = self.calls.predict.future(kept)
            self.awaited(lambda: runs)
            gone = [self.calls.predict.future(kept) for _ in range(20)]
            for call in gone:
                call.cancel()
            late = self.calls.predict.future(kept)
            self.calls.status(_status_request())
            let_go.set()
            for call in busy, late:
                answer = _outputs(call.result(_PATIENCE_SECONDS))
                self.assertEqual(answer["y"], 4)
        self.assertEqual(_sizes(runs), [4, 4])


class CallersTest(_ServerTest):
    """How many are let in, and what they may hold."""

    def setUp(self):
        super().setUp()
        _, self.calls = self.started(
            f"--model_base_path={self.folder_of_numbers(2)}",
            "--model_name=m",
            "--max_waiting_calls=4",
            "--max_waiting_bytes=200000",
            "--grpc_max_request_bytes=400000",
        )

    def test_refused_where_too_many_wait(self):
        let_go = threading.Event()
        self.addCleanup(let_go.set)
        request = _predict_request(_numbers([[2]]))
        with _runs(let_go):
            sent = [self.calls.predict.future(request) for _ in range(10)]
            self.awaited(lambda: sum(call.done() for call in sent) >= 6)
            let_go.set()
            errors = [call.exception(_PATIENCE_SECONDS) for call in sent]
        self.assertEqual(
            collections.Counter(
                error and (error.code().name, error.details())
                for error in errors
            ),
            {
                None: 4,
                ("RESOURCE_EXHAUSTED", "Server Threadpool Exhausted"): 6,
            },
        )
        self.calls.predict(request)  # the places are free again

    def test_refused_where_requests_hold_too_much(self):
        fits = _predict_request({"x": np.zeros((1, 20_000), np.float32)})
        self.calls.predict(fits)
        shape = "tensor_shape { dim { size: 1 } dim { size: 60000 } }"
        repeated = _proto(f"dtype: DT_FLOAT {shape} float_val: 1")
        sent = {"x": np.zeros((1, 30_000), np.float32)}
        for inputs in (sent, {"x": repeated}):
            with self.assertRaises(grpc.RpcError) as raised:
                self.calls.predict(_predict_request(inputs))
            code = raised.exception.code().name
            self.assertEqual(code, "RESOURCE_EXHAUSTED")
        self.calls.predict(fits)

    def test_larger_messages_are_not_read(self):
        request = _predict_request({"x": np.zeros((1, 120_000), np.float32)})
        self.assert_refused("RESOURCE_EXHAUSTED", self.calls.predict, request)

    def test_only_predict(self):
        request = classification_pb2.ClassificationRequest()
        self.assert_refused("UNIMPLEMENTED", self.calls.classify, request)


class ConnectionsTest(_ServerTest):
    def setUp(self):
        super().setUp()
        self.folder = serving_runs.temporary_folder(self)
        serving_runs.save_numbers(self.folder / "m" / "1")
        self.models = (
            f"--model_base_path={self.folder / 'm'}",
            "--model_name=m",
        )

    def assert_answers(self, calls):
        answer = calls.predict(
            _predict_request(_numbers([[2]])), timeout=_PATIENCE_SECONDS
        )
        self.assertEqual(_outputs(answer)["y"], 3)

    def test_no_health_service_unless_asked(self):
        _, calls = self.started(*self.models)
        self.assert_refused(
            "UNIMPLEMENTED", calls.check, health_pb2.HealthCheckRequest()
        )

    def test_unix_socket(self):
        socket = self.folder / "socket"
        self.started(*self.models, f"--grpc_socket_path={socket}")
        self.assert_answers(self.connected(f"unix:{socket}"))

    def test_tls(self):
        key, certificate = self.certificate("server")
        server, _ = self.started(
            *self.models, self.ssl(server_key=key, server_cert=certificate)
        )
        target = f"localhost:{server.port}"
        trusting = grpc.ssl_channel_credentials(certificate.encode())
        self.assert_answers(self.connected(target, trusting))
        for credentials in (None, grpc.ssl_channel_credentials()):
            self.assert_unavailable(self.connected(target, credentials))

    def test_mutual_tls(self):
        key, certificate = self.certificate("server")
        own_key, own = self.certificate("client")
        foreign_key, foreign = self.certificate("stranger")
        server, _ = self.started(
            *self.models,
            self.ssl(
                server_key=key,
                server_cert=certificate,
                custom_ca=own,
                client_verify=True,
            ),
        )
        target = f"localhost:{server.port}"

        def calls(*key_and_certificate):
            pair = (text.encode() for text in key_and_certificate)
            return self.connected(
                target,
                grpc.ssl_channel_credentials(certificate.encode(), *pair),
            )

        self.assert_answers(calls(own_key, own))
        self.assert_unavailable(calls())
        self.assert_unavailable(calls(foreign_key, foreign))

    def assert_unavailable(self, calls):
        with self.assertRaises(grpc.RpcError) as raised:
            calls.predict(
                _predict_request(_numbers([[2]])), timeout=_PATIENCE_SECONDS
            )
        self.assertEqual(raised.exception.code().name, "UNAVAILABLE")

    def certificate(self, name):
        """Returns a key and a certificate for localhost, signed by itself."""
        command = (
            "openssl req -x509 -newkey rsa:2048 -nodes -days 2"
            f" -keyout {name}.key -out {name}.crt -subj /CN={name}"
            " -addext subjectAltName=DNS:localhost"
        )
        subprocess.run(
            command.split(),
            cwd=self.folder,
            check=True,
            capture_output=True,
        )
        return tuple(
            (self.folder / f"{name}.{kind}").read_text()
            for kind in ("key", "crt")
        )

    def ssl(self, **fields):
        """Returns the flag of an SSLConfig file."""
        config = config_files.SSLConfig(**fields)
        text = text_format.MessageToString(config)
        return f"--ssl_config_file={_file(self.folder, 'ssl.config', text)}"


if __name__ == "__main__":
    absltest.main()
