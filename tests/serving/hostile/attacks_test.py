"""Attacks that each once stopped the server, while a good caller calls it.

One server for all of them, so that what one leaves behind meets the next.
"""

import asyncio
import contextlib
import gzip
import http.client
import json
import os
import pathlib
import socket
import tempfile
import threading
import time

import grpc
import numpy as np
import pytest
from absl.testing import absltest
from prometheus_client import parser
from tensorflow_serving.apis import get_model_status_pb2, predict_pb2

from tests.serving import exports as serving_runs
from tests.serving import process as serving_process
from tests.serving.hostile import calls

_PAGE = "/monitoring/prometheus/metrics"
_PREDICT = calls.PREDICTION + "Predict"
_STATUS = "/tensorflow.serving.ModelService/GetModelStatus"
_CONFIG = """
model_config_list {
  config { name: "m" base_path: "%s" model_platform: "tensorflow" }
  config { name: "toy" base_path: "%s" model_platform: "tensorflow" }
}
"""
_ARRIVAL_SECONDS = 2
# A good pair of calls. More than the second that is meant, since others may
# hold the processors; the attacks once took 9 to 33 seconds, or for ever.
_MOST_SECONDS = 8.0
_MOST_GROWTH_MIB = 200
_MOST_LOG_BYTES = 100_000
_PATIENCE_SECONDS = 60
_STRING = 7
# Steps of a call that takes long, and no memory.
_STEPS = 600_000


class _GoodCaller(threading.Thread):
    """Calls over both protocols until it is told to stop.

    Attributes:
      worst: seconds of the slowest call.
      failures: what went wrong.
    """

    def __init__(self, server):
        super().__init__()
        self.worst = 0.0
        self.failures = []
        self._server = server
        self._over = threading.Event()

    def run(self):
        with grpc.insecure_channel(self._server.target) as channel:
            predict = channel.unary_unary(
                _PREDICT,
                predict_pb2.PredictRequest.SerializeToString,
                predict_pb2.PredictResponse.FromString,
            )
            request = _numbers([[1, 2]])
            while not self._over.wait(0.02):
                begin = time.monotonic()
                try:
                    response = predict(request, timeout=_PATIENCE_SECONDS)
                    answer = list(response.outputs["y"].float_val)
                    _, body = _post(self._server, {"instances": [[1, 2]]})
                    rows = body["predictions"]
                except Exception as error:
                    self.failures.append(error)
                    continue
                self.worst = max(self.worst, time.monotonic() - begin)
                if (answer, rows) != ([2.5, 3], [[2.5, 3]]):
                    self.failures.append((answer, rows))

    def end(self):
        self._over.set()
        self.join()


def _numbers(rows, signature="", name="x", dtype=np.float32):
    return calls.predict({name: np.array(rows, dtype)}, signature, "m")


def _post(server, body, headers=(), model="m"):
    """Returns (status, parsed answer) of a predict call."""
    if isinstance(body, dict):
        body = json.dumps(body).encode()
    status, _, answer = serving_runs.http_call(
        server.rest_port, "POST", f"/v1/models/{model}:predict", body, headers
    )
    return status, json.loads(answer)


def _request(body):
    """Returns the bytes of a predict call."""
    head = "POST /v1/models/m:predict HTTP/1.1\r\nhost: a\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


class AttackTest(absltest.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        folder = pathlib.Path(
            cls.enterClassContext(tempfile.TemporaryDirectory())
        )
        cls.models = folder / "m"
        serving_runs.save_numbers(cls.models / "1")
        config = folder / "models.config"
        toy = serving_runs.exported_toy().parent
        config.write_text(_CONFIG % (cls.models, toy))
        monitoring = folder / "monitoring.config"
        monitoring.write_text("prometheus_config { enable: true }")
        cls.port = serving_process.free_port()
        cls.server = cls.enterClassContext(
            serving_process.started(
                f"--port={cls.port}",
                f"--model_config_file={config}",
                f"--monitoring_config_file={monitoring}",
                f"--request_arrival_seconds={_ARRIVAL_SECONDS}",
                "--max_num_load_retries=0",
                "--rest_api_timeout_in_ms=60000",
                most_files=1024,
            )
        )
        _post(cls.server, {"instances": [[1]]})
        cls.before = cls.server.resident_mib()

    def setUp(self):
        super().setUp()
        self.caller = _GoodCaller(self.server)
        self.caller.start()
        self.addCleanup(self.assert_unharmed)
        self.channel = self.enterContext(
            grpc.insecure_channel(self.server.target)
        )

    def assert_unharmed(self):
        self.caller.end()
        self.assertEmpty(self.caller.failures)
        self.assertLess(self.caller.worst, _MOST_SECONDS)
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while self.server.resident_mib() - self.before > _MOST_GROWTH_MIB:
            self.assertLess(time.monotonic(), deadline, "memory is kept")
        self.assertLess(len(self.server.log()), _MOST_LOG_BYTES)
        self.assertNotIn("Traceback", self.server.log())

    def status_of(self, request):
        """Returns the status of a call of Predict."""
        return calls.case(request).outcome(self.channel, None)

    def test_slow_json(self):
        number = b'{"inputs": [0.%s, {}]}' % (b"1" * 2**15)
        odd = b'{"instances": [%s{}]}' % (b"[1]," * 2**20)
        brackets = b"]" * 2**20
        for body in (number, odd, brackets) * 3:
            self.assertEqual(_post(self.server, body)[0], 400)

    @pytest.mark.long
    def test_packed_json(self):
        """100 kB that once became 2.8 GB."""
        bodies = [b'{"instances": [%s0]}' % (b"[]," * 2**25)]
        for part in b"[],", b"0,", b"1.50000,", b'"abcdef",', b'{"a":1},':
            count = 2**24 // len(part) - 10
            bodies.append(b'{"instances": [%s0]}' % (part * count))
        for body in bodies:
            packed = gzip.compress(body, 1)
            headers = {"content-encoding": "gzip"}
            # Two million numbers are not too many.
            self.assertIn(_post(self.server, packed, headers)[0], (200, 400))

    def test_many_strings(self):
        """28 bytes that once asked for 1.7 GB, 16 MiB that took 33 s."""
        few = calls.tensor([2**26 // 8], _STRING, string_val=[b""])
        packed = calls.tensor([2**24], _STRING, tensor_content=bytes(2**24))
        single = calls.tensor([2**23], _STRING, string_val=[b""] * 2**23)
        for value in few, packed, single:
            request = calls.predict({"image_bytes": value}, "decode_predict")
            self.assertEqual(self.status_of(request), "INVALID_ARGUMENT")

    def test_many_dimensions_and_inputs(self):
        """A product of 20,000 numbers of 63 bits took two seconds."""
        deep = calls.tensor([2**63 - 1] * 20_000, 1)
        many = {f"x{number}": calls.tensor([], 1) for number in range(50_000)}
        for model in "toy", "nope":
            for inputs in {"images": deep}, many:
                request = calls.predict(inputs, model=model)
                self.assertEqual(self.status_of(request), "INVALID_ARGUMENT")

    def test_pipelined_answers_that_are_not_read(self):
        ask = b"GET /v1/models/toy/metadata HTTP/1.1\r\nhost: a\r\n\r\n"
        held = []
        for _ in range(3):
            made = self.enterContext(socket.socket())
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            made.settimeout(_PATIENCE_SECONDS)
            made.connect(("127.0.0.1", self.server.rest_port))
            made.sendall(ask * 500)
            held.append(made)
        # Cut off, with what had been written of the answers.
        for made in held:
            time.sleep(_ARRIVAL_SECONDS)
            with self.assertRaises((ConnectionResetError, BrokenPipeError)):
                deadline = time.monotonic() + _PATIENCE_SECONDS
                while time.monotonic() < deadline:
                    made.sendall(ask)
                    time.sleep(0.1)

    def test_calls_whose_message_does_not_come(self):
        async def half_open(count):
            async with grpc.aio.insecure_channel(self.server.target) as channel:
                begin = channel.stream_unary(_PREDICT)
                held = [begin() for _ in range(count)]
                return [await call.code() for call in held]

        # More than may begin at a time, and more than one connection has.
        codes = asyncio.run(half_open(900))
        self.assertEqual({code.name for code in codes}, {"DEADLINE_EXCEEDED"})

    def test_idle_connections(self):
        held = [self.connection() for _ in range(1100)]
        held[0].settimeout(_PATIENCE_SECONDS)
        with contextlib.suppress(ConnectionResetError):
            self.assertEqual(held[0].recv(1), b"")
        self.assertLess(self.server.open_files(), 600)

    def test_idle_connections_to_grpc(self):
        for _ in range(1100):
            self.connection(self.port)
        self.assertLess(self.server.open_files(), 600)
        # Those that say nothing are closed, and there is room again.
        target = f"127.0.0.1:{self.port}"
        with grpc.insecure_channel(target) as channel:
            call = channel.unary_unary(_PREDICT)
            request = _numbers([[1]]).SerializeToString()
            call(request, wait_for_ready=True, timeout=_PATIENCE_SECONDS)

    def connection(self, port=None):
        address = ("127.0.0.1", port or self.server.rest_port)
        made = socket.create_connection(address, _PATIENCE_SECONDS)
        self.addCleanup(made.close)
        return made

    def test_a_body_that_does_not_come(self):
        connection = self.connection()
        connection.sendall(_request(b"{}")[:-1])
        response = http.client.HTTPResponse(connection)
        response.begin()
        self.assertEqual(response.status, 504)

    def test_an_answer_that_is_not_read(self):
        content = _request(b'{"inputs": [[%s0]]}' % (b"0," * 1_000_000))
        held = [self.connection() for _ in range(5)]
        for connection in held:
            connection.sendall(content)
        time.sleep(2 * _ARRIVAL_SECONDS)

    def test_cancelled_calls(self):
        count = _numbers([_STEPS], "count", "n", np.int32).SerializeToString()
        call = self.channel.unary_unary(_PREDICT)
        with self.few_runs():
            sent = [call.future(count, timeout=10) for _ in range(264)]
            time.sleep(0.3)
            for one in sent:
                one.cancel()

    @pytest.mark.long
    def test_connections_that_are_closed(self):
        body = {"signature_name": "count", "inputs": {"n": [_STEPS]}}
        content = _request(json.dumps(body).encode())
        with self.few_runs():
            held = [self.connection() for _ in range(264)]
            for connection in held:
                connection.sendall(content)
            for connection in held:
                connection.close()

    @contextlib.contextmanager
    def few_runs(self):
        """Fails if 264 calls, whose callers leave within, are all run."""
        before = self.runs()
        yield
        # Those that run go on: this caller has had to wait for them.
        self.caller.end()
        self.assertEmpty(self.caller.failures)
        self.caller = _GoodCaller(self.server)
        self.caller.start()
        _post(self.server, {"instances": [[1]]})
        self.assertLess(self.runs() - before, 264)

    def runs(self):
        """Returns how often a session has run."""
        port = self.server.rest_port
        page = serving_runs.http_call(port, "GET", _PAGE)[2].decode()
        return sum(
            sample.value
            for family in parser.text_string_to_metric_families(page)
            for sample in family.samples
            if sample.name == ":tensorflow:serving:runtime_latency_count"
        )

    def test_version_whose_files_hang(self):
        hanging = self.models / ".2"
        hanging.mkdir()
        os.mkfifo(hanging / "saved_model.pb")
        hanging.rename(self.models / "2")
        states = get_model_status_pb2.ModelVersionStatus.State
        self.await_state(2, states.END)
        serving_runs.copy_version(self.models / "1", self.models, 3)
        self.await_state(3, states.AVAILABLE)

    def await_state(self, number, state):
        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = "m"
        status = self.channel.unary_unary(
            _STATUS,
            get_model_status_pb2.GetModelStatusRequest.SerializeToString,
            get_model_status_pb2.GetModelStatusResponse.FromString,
        )
        deadline = time.monotonic() + _PATIENCE_SECONDS
        found = None
        while found != state:
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.05)
            versions = status(request).model_version_status
            found = next((v.state for v in versions if v.version == number), 0)
