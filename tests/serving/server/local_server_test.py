"""The command `python -m serving.local_server`, as processes of its own."""

import contextlib
import io
import pathlib
import re
import signal
import socket
import subprocess
import sys
import threading

import grpc
import numpy as np
from absl.testing import absltest, parameterized
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from serving import local_server, tensors
from serving.server import config_files
from serving.server import flags as server_flags
from tests.serving import exports as serving_runs

_DEPLOY = serving_runs.ROOT / "serving/deploy"
_FOR_EVER = 2**31 - 1
# Bounds what is done at once, or never.
_PATIENCE_SECONDS = 120
_MODEL = "--model_base_path=/none"
# Runs the command and tells whether it has loaded TensorFlow.
_WATCHED = """
import sys
from serving import local_server
status = local_server.main(sys.argv[1:])
print("loaded:", "tensorflow" in sys.modules)
sys.exit(status)
"""


def _ended(*words):
    """Returns (exit status, standard error) of a command line that is refused.

    In this process: before TensorFlow is loaded nothing else is started.
    """
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors):
        status = local_server.main(words)
    return status, errors.getvalue()


def _listener(test):
    """Returns a socket that has a port of loopback to itself."""
    listener = socket.create_server(("127.0.0.1", 0))
    test.addCleanup(listener.close)
    return listener


def _free_port():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


class RefusalTest(parameterized.TestCase):
    """Command lines after which nothing is served."""

    @parameterized.parameters(
        (("--help",), 0, "usage: python -m serving.local_server "),
        (("--version",), 0, "atat_tf embedded server "),
        ((), 1, "model_base_path"),
        (("--model_base_path=relative",), 255, "an absolute path"),
    )
    def test_loads_no_tensorflow(self, words, status, text):
        ended = subprocess.run(
            [sys.executable, "-c", _WATCHED, *words],
            cwd=serving_runs.ROOT,
            capture_output=True,
            text=True,
            timeout=_PATIENCE_SECONDS,
        )
        self.assertEqual(ended.returncode, status)
        self.assertIn(text, ended.stdout + ended.stderr)
        self.assertEndsWith(ended.stdout, "loaded: False\n")

    @parameterized.parameters(
        (("--port=many", _MODEL), 1, "--port"),
        (("--port=0", _MODEL), 1, "--rest_api_port"),
        ((_MODEL, "--max_connections=100000000"), 255, "ulimit -n"),
        ((_MODEL, "--batching_parameters_file=/none"), 255, "/none"),
        (("--model_config_file=/none",), 255, "Received: No such file"),
    )
    def test_refused(self, words, status, text):
        ended, errors = _ended(*words)
        self.assertEqual(ended, status)
        self.assertStartsWith(errors, "error: ")
        self.assertIn(text, errors)

    @parameterized.parameters("port", "rest_api_port")
    def test_port_in_use(self, flag):
        port = _listener(self).getsockname()[1]
        words = ["--port=0", "--rest_api_port=0", f"--{flag}={port}"]
        status, errors = _ended(*words, _MODEL)
        self.assertEqual(status, 255)
        self.assertIn(f"free port. Received: 127.0.0.1:{port} (Addr", errors)

    def test_model_that_does_not_load(self):
        folder = serving_runs.temporary_folder(self)
        (folder / "1").mkdir()
        (folder / "1" / "saved_model.pb").write_bytes(b"no model")
        ended = subprocess.run(
            [
                *(sys.executable, "-m", "serving.local_server"),
                *(f"--model_base_path={folder}", "--max_num_load_retries=0"),
                f"--port={_free_port()}",
            ],
            cwd=serving_runs.ROOT,
            capture_output=True,
            text=True,
            timeout=_PATIENCE_SECONDS,
        )
        self.assertEqual(ended.returncode, 255)
        lines = ended.stderr.splitlines()
        (error,) = [line for line in lines if line.startswith("error: ")]
        self.assertIn("Expected models that load", error)
        self.assertIn("OUT_OF_RANGE", error)
        self.assertNotIn("Traceback", ended.stderr)
        self.assertEmpty(ended.stdout)


class ServingTest(absltest.TestCase):
    """Processes that serve until they are told to end."""

    def setUp(self):
        super().setUp()
        self.models = serving_runs.temporary_folder(self)
        self.port = _free_port()

    def started(self, *words):
        """Returns a process that has no model yet, or has all of them."""
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "serving.local_server"),
                *("--model_name=m", f"--model_base_path={self.models}"),
                *(f"--port={self.port}", *words),
            ],
            cwd=serving_runs.ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.stderr.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        # What it prints is waited for; a silent one must end, too.
        watch = threading.Timer(_PATIENCE_SECONDS, process.kill)
        watch.start()
        self.addCleanup(watch.cancel)
        return process

    def predict(self):
        """Returns the call of Predict on a channel of its own."""
        channel = grpc.insecure_channel(f"127.0.0.1:{self.port}")
        self.addCleanup(channel.close)
        return prediction_service_pb2_grpc.PredictionServiceStub(
            channel
        ).Predict

    def assert_up(self, process):
        self.assertEqual(
            process.stdout.readline(), f"Serving gRPC on {self.place()}.\n"
        )

    def place(self):
        return f"127.0.0.1:{self.port}"

    def test_waits_for_a_version_and_drains(self):
        process = self.started("--modle_name=x")
        self.assertEqual(
            process.stderr.readline(),
            "unknown argument: --modle_name=x\n",
        )
        # The last that is said before the wait.
        complaint = _line(process.stderr, "No versions of servable m found")
        self.assertIn(str(self.models), complaint)
        with self.assertRaises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", self.port))
        ready = serving_runs.temporary_folder(self)
        serving_runs.save_numbers(ready / "1")
        serving_runs.copy_version(ready / "1", self.models, 1)
        self.assert_up(process)

        predict = self.predict()
        under_way = predict.future(_count(100_000))
        # Came later, is answered: the other one is under way.
        self.assertEqual(_steps(predict(_count(3))), 3)
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.stdout.readline(), "Draining.\n")
        with self.assertRaises(grpc.RpcError) as raised:
            self.predict()(_count(3))
        # CANCELLED: gRPC had accepted the connection before it closed the port.
        self.assertIn(
            raised.exception.code().name, ("UNAVAILABLE", "CANCELLED")
        )
        self.assertEqual(_steps(under_way.result()), 100_000)
        self.assertEqual(process.wait(_PATIENCE_SECONDS), 0)

    def test_ends_while_it_waits_for_a_version(self):
        process = self.started()
        _line(process.stderr, "No versions of servable m found")
        process.send_signal(signal.SIGINT)
        self.assertEqual(process.wait(_PATIENCE_SECONDS), 0)
        self.assertEqual(process.stdout.read(), "Draining.\n")
        self.assertNotIn("Traceback", process.stderr.read())


def _line(stream, text):
    """Returns the next line with a text in it."""
    for line in stream:
        if text in line:
            return line
    raise AssertionError(f"ended without {text!r}")


def _count(steps):
    """Returns the request that takes a number of steps."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "m"
    request.model_spec.signature_name = "count"
    tensors.to_proto(np.array([steps], np.int32), request.inputs["n"])
    return request


def _steps(response):
    return tensors.from_proto(response.outputs["n"]).item()


class DeploymentFilesTest(absltest.TestCase):
    def test_files_for_the_genuine_server(self):
        """They start this one, too."""
        exported = serving_runs.exported()
        folder = serving_runs.temporary_folder(self)
        text = (_DEPLOY / "models.config").read_text()
        text, count = re.subn(
            'base_path: ".*"', f'base_path: "{exported.parent}"', text
        )
        self.assertEqual(count, 1)
        models = pathlib.Path(folder, "models.config")
        models.write_text(text)
        with serving_runs.serving(
            f"--model_config_file={models}",
            "--allow_version_labels_for_unavailable_models",
            f"--batching_parameters_file={_DEPLOY / 'batching.config'}",
            f"--monitoring_config_file={_DEPLOY / 'monitoring.config'}",
        ) as running:
            channel = grpc.insecure_channel(f"127.0.0.1:{running.port}")
            self.addCleanup(channel.close)
            service = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            request = predict_pb2.PredictRequest()
            request.model_spec.name = "atat"
            request.model_spec.version_label = "stable"
            images = serving_runs.test_images(3)
            tensors.to_proto(images, request.inputs["images"])
            response = service.Predict(request)
            self.assertLen(tensors.from_proto(response.outputs["classes"]), 3)


class WarningsTest(absltest.TestCase):
    def warnings(self, *words):
        flags, _ = server_flags.parse(["--model_base_path=/none", *words])
        files = config_files.read_all(flags)
        return " ".join(local_server.warnings(flags, files))

    def test_open_addresses(self):
        self.assertEmpty(self.warnings())
        self.assertStartsWith(
            self.warnings("--bind=0.0.0.0"),
            "gRPC is open on 0.0.0.0 without TLS: ",
        )
        self.assertStartsWith(
            self.warnings("--port=0", "--rest_api_port=1", "--bind=0.0.0.0"),
            "REST is open on 0.0.0.0, ",
        )

    def test_metrics_without_rest(self):
        file = f"--monitoring_config_file={_DEPLOY / 'monitoring.config'}"
        self.assertStartsWith(
            self.warnings(file), "Metrics are served on the REST port"
        )


if __name__ == "__main__":
    absltest.main()
