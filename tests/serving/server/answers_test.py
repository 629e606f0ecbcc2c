"""What the embedded server answers, over gRPC on loopback."""

import collections
import contextlib
import json
import pathlib
import tempfile

import grpc
import numpy as np
from absl.testing import parameterized
from grpc_health.v1 import health_pb2
from prometheus_client import parser
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
)

from serving.server import grpc_services
from tests.serving import exports as serving_runs
from tests.serving.server import calls as server_calls


class AnswersTest(server_calls.ServerTest):
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
        models = server_calls.file(
            folder,
            "models.config",
            "model_config_list {\n"
            + server_calls.model_config("m", folder / "m", f"{both} {labels}")
            + server_calls.model_config(
                "toy", serving_runs.exported_toy().parent
            )
            + "}",
        )
        monitoring = server_calls.file(
            folder,
            "monitoring.config",
            f'prometheus_config {{ enable: true path: "{server_calls.PAGE}" }}',
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
        return server_calls.outputs(
            self.calls.predict(server_calls.predict_request(inputs, **kwargs))
        )

    def rest(self, path, body=None):
        """Returns what a call over HTTP answers, parsed."""
        port = self.server.rest_port
        if body is None:
            return serving_runs.http_call(port, "GET", path)[2].decode()
        text = json.dumps(body)
        return json.loads(serving_runs.http_call(port, "POST", path, text)[2])

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
        ({"inputs": {"z": server_calls.floats([[1]])}}, "INVALID_ARGUMENT"),
        (
            {
                "inputs": {
                    "x": server_calls.floats([[1]]),
                    "z": server_calls.floats([[1]]),
                }
            },
            "INVALID_ARGUMENT",
        ),
        (
            {"inputs": {"x": server_calls.proto("float_val: 1")}},
            "INVALID_ARGUMENT",
        ),
        ({"inputs": {"x": np.ones((1, 1))}}, "INVALID_ARGUMENT"),  # float64
        (
            {"inputs": {"images": np.zeros((8, 8, 3), "f")}, "name": "toy"},
            "INVALID_ARGUMENT",
        ),
    )
    def test_refused(self, asked, code):
        request = server_calls.predict_request(
            **{"inputs": server_calls.numbers([[1]]), **asked}
        )
        self.assert_refused(code, self.calls.predict, request)

    def test_output_filter(self):
        inputs = {
            "x": server_calls.floats([[5]]),
            "z": server_calls.floats([[3]]),
        }
        request = server_calls.predict_request(
            inputs, spec={"signature_name": "two"}, output_filter=["b"]
        )
        self.assertEqual(
            server_calls.outputs(self.calls.predict(request)),
            {"b": server_calls.floats([[2]])},
        )
        request.output_filter.append("a")
        self.assertEqual(
            server_calls.outputs(self.calls.predict(request)),
            {"a": server_calls.floats([[8]]), "b": server_calls.floats([[2]])},
        )

    @parameterized.named_parameters(
        ("newest", {}, "serving_default", 2, 2.5),
        ("version", {"version": 1}, "serving_default", 1, 1.5),
        ("label", {"version_label": "old"}, "serving_default", 1, 1.5),
        ("signature", {"signature_name": "total"}, "total", 2, 1.0),
    )
    def test_spec_of_answer(self, spec, signature, version, number):
        request = server_calls.predict_request(
            server_calls.numbers([[1]]), spec=spec
        )
        response = self.calls.predict(request)
        answered = response.model_spec
        self.assertEqual(answered.name, "m")
        self.assertEqual(answered.signature_name, signature)
        self.assertEqual(answered.version.value, version)
        self.assertEqual(answered.WhichOneof("version_choice"), "version")
        self.assertEqual(server_calls.outputs(response)["y"], number)

    def test_answers_are_typed_fields(self):
        request = server_calls.predict_request(server_calls.numbers([[1, 2]]))
        answer = self.calls.predict(request).outputs["y"]
        self.assertEqual(list(answer.float_val), [2.5, 3.0])
        self.assertEqual(answer.tensor_content, b"")

    def test_answers_are_raw_bytes_where_asked(self):
        _, calls = self.started(
            f"--model_base_path={self.folder_of_numbers(2)}",
            "--model_name=m",
            "--enable_serialization_as_tensor_content",
        )
        answer = calls.predict(
            server_calls.predict_request(server_calls.numbers([[1, 2]]))
        )
        content = answer.outputs["y"].tensor_content
        self.assertEqual(content, server_calls.floats([2.5, 3.0]).tobytes())
        self.assertEmpty(answer.outputs["y"].float_val)

    def test_status(self):
        self.assertEqual(
            server_calls.states(self.calls),
            [(2, "AVAILABLE"), (1, "AVAILABLE")],
        )
        response = self.calls.status(server_calls.status_request("m", 1))
        (only,) = response.model_version_status
        self.assertEqual(only.version, 1)
        self.assertEqual(only.status.error_code, 0)

    @parameterized.parameters((), ("foo",), ("signature_def", "foo"))
    def test_refused_metadata(self, *fields):
        request = server_calls.metadata_request(*fields)
        self.assert_refused("INVALID_ARGUMENT", self.calls.metadata, request)

    def test_metadata(self):
        response = self.calls.metadata(
            server_calls.metadata_request("signature_def")
        )
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
        self.assert_too_late(
            self.calls.predict, server_calls.count(server_calls.FOR_EVER)
        )
        self.assertEqual(self.predicted(server_calls.numbers([[1]]))["y"], 2.5)

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
            self.predicted(server_calls.numbers([[1]]))
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
        page = self.rest(server_calls.PAGE)
        for family in parser.text_string_to_metric_families(page):
            for sample in family.samples:
                name = sample.name.removeprefix(":tensorflow:serving:")
                if name.endswith(("_count", "_total")):
                    key = (name, *sample.labels.values())
                    found[key] = int(sample.value)
        return found


class MonitorTest(server_calls.ServerTest):
    def test_share_of_images_above_the_limit(self):
        models = serving_runs.temporary_folder(self)
        version = serving_runs.copy_version(serving_runs.exported(), models, 1)
        images = {"images": serving_runs.test_images(8)}
        request = server_calls.predict_request(
            images, spec={"signature_name": "monitor"}
        )
        words = (f"--model_base_path={models}", "--model_name=m")
        _, calls = self.started(*words)
        shifts = server_calls.outputs(calls.predict(request))["attention_shift"]
        card = version / "model_card.json"
        limit = {"quantiles": {"0.99": float(np.sort(shifts)[4:6].mean())}}
        content = {**json.loads(card.read_text()), "attention_shift": limit}
        card.write_text(json.dumps(content))
        file = server_calls.file(
            models, "m.config", "prometheus_config { enable: true }"
        )
        server, calls = self.started(*words, f"--monitoring_config_file={file}")
        calls.predict(request)
        *_, text = serving_runs.http_call(
            server.rest_port, "GET", server_calls.PAGE
        )
        text = text.decode()
        prefix, label = ":atat:serving:", '_total{model_name="m"}'
        self.assertIn(f"{prefix}monitored_images{label} 8.0", text)
        above = f"{prefix}attention_shift_above_limit{label} 3.0"
        self.assertIn(above, text)
