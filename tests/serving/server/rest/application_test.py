"""The REST interface on a real port, before a real model."""

import asyncio
import gzip
import http.client
import json
import pathlib
import select
import socket
import tempfile
import threading

from absl.testing import absltest, parameterized

from serving.server.rest import http as rest_http
from tests.serving import exports as serving_runs
from tests.support import loops

_PREDICT = "/v1/models/half:predict"


class RestTest(parameterized.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        folder = pathlib.Path(
            cls.enterClassContext(tempfile.TemporaryDirectory())
        )
        serving_runs.save_numbers(folder / "half" / "123")
        models = "".join(
            f'config {{ name: "{name}" base_path: "{folder / "half"}" '
            'model_platform: "tensorflow" '
            'version_labels { key: "stable" value: 123 } }'
            for name in ("half", "a/b")
        )
        cls.config = folder / "models.config"
        cls.config.write_text(f"model_config_list {{ {models} }}")
        monitoring = folder / "monitoring.config"
        monitoring.write_text("prometheus_config { enable: true }")
        cls.server = cls.enterClassContext(
            cls.started(f"--monitoring_config_file={monitoring}")
        )

    @classmethod
    def started(cls, *words):
        """Returns the context of a server with the models."""
        return serving_runs.serving(
            f"--model_config_file={cls.config}",
            "--allow_version_labels_for_unavailable_models",
            "--rest_api_max_request_bytes=1000000",
            *words,
        )

    def call(self, verb, path, body=None, headers=(), server=None):
        """Returns (status, headers, body) of one call."""
        if isinstance(body, dict):
            body = json.dumps(body).encode()
        port = (server or self.server).rest_port
        return serving_runs.http_call(port, verb, path, body, headers)

    def assert_error(self, code, verb, path, body=None):
        status, headers, content = self.call(verb, path, body)
        answer = json.loads(content)
        self.assertEqual((status, list(answer)), (code, ["error"]))
        self.assertEqual(headers["content-type"], "application/json")

    @parameterized.parameters(
        "half", "half/versions/123", "half/versions/0123", "half/labels/stable"
    )
    def test_predict(self, model):
        status, headers, body = self.call(
            "POST", f"/v1/models/{model}:predict", {"instances": [[1], [3]]}
        )
        self.assertEqual(status, 200)
        self.assertEqual(json.loads(body), {"predictions": [[2.5], [3.5]]})
        self.assertEqual(headers["content-type"], "application/json")
        self.assertNotIn("access-control-allow-origin", headers)
        self.assertNotIn("server", headers)

    def test_escaped_names(self):
        path = "/v1/models/%61%2Fb/labels/%73table:predict"
        _, _, body = self.call("POST", path, {"instances": [[0]]})
        self.assertEqual(json.loads(body), {"predictions": [[2]]})

    @parameterized.parameters("", "/versions/123")
    def test_status(self, version):
        status, _, body = self.call("GET", f"/v1/models/half{version}")
        self.assertEqual(status, 200)
        ok = {"error_code": "OK", "error_message": ""}
        expected = {"version": "123", "state": "AVAILABLE", "status": ok}
        self.assertEqual(json.loads(body), {"model_version_status": [expected]})

    def test_metadata(self):
        _, _, body = self.call("GET", "/v1/models/half/metadata")
        answer = json.loads(body)
        self.assertEqual(
            answer["model_spec"],
            {"name": "half", "signature_name": "", "version": "123"},
        )
        two = answer["metadata"]["signature_def"]["signature_def"]["two"]
        self.assertEqual(
            two["inputs"]["z"],
            {
                "dtype": "DT_FLOAT",
                "name": "z:0",
                "tensor_shape": {
                    "dim": [{"size": "-1", "name": ""}] * 2,
                    "unknown_rank": False,
                },
            },
        )
        self.assertEqual(two["method_name"], "tensorflow/serving/predict")

    @parameterized.parameters(
        ("GET", "/v1/foo"),
        ("POST", "/v1/models"),
        ("GET", "/v1/models/half:predict"),
        ("POST", "/v1/models/half"),
        ("POST", "/v1/models/half:PREDICT"),
        ("POST", "/v1/models/half:explain"),
        ("POST", "/v1/models/half/version/1:predict"),
        ("POST", "/v1/models/half/versions/HELLO:predict"),
        ("GET", "/v1/models/half/versions/%D9%A3"),  # a three, in Arabic
        ("PUT", "/v1/models/half"),
        ("GET", "/v1/models/half/metadata/"),
    )
    def test_malformed_requests(self, verb, path):
        self.assert_error(400, verb, path)

    @parameterized.parameters(
        (400, "", None),
        (400, "/half/versions/18446744073709551615", None),
        (404, "/x", None),
        (404, "/half/versions/9", None),
        (404, "/x/metadata", None),
        (404, "/x:predict", {}),
        (404, "/half/versions/99:predict", {}),
        (400, "/half/labels/x:predict", {}),
        (501, "/half:classify", {}),
        (400, "/half:predict", {"signature_name": "no"}),
        (400, "/half:predict", {"instances": ["a"]}),
        (
            400,
            "/half:predict",
            {"signature_name": "two", "instances": [{"x": [1], "z": "a"}]},
        ),
    )
    def test_refused(self, code, path, body):
        verb = "GET" if body is None else "POST"
        if body is not None:
            body = {"instances": [[1]], **body}
        self.assert_error(code, verb, f"/v1/models{path}", body)

    @parameterized.parameters("/", "/index", "/v2/models/half", "/v1")
    def test_other_paths(self, path):
        self.assertEqual(self.call("GET", path)[0], 404)

    def test_encoded_bodies(self):
        packed = gzip.compress(b'{"instances": [[1]]}')
        bomb = gzip.compress(bytes(2_000_000))
        for encoding, body, code in (
            ("gzip", packed, 200),
            ("gzip", bomb, 400),
            ("br", packed, 400),
        ):
            headers = {"Content-Encoding": encoding}
            status, _, _ = self.call("POST", _PREDICT, body, headers)
            self.assertEqual(status, code)

    def test_bodies_that_are_too_long_are_not_read(self):
        address = ("127.0.0.1", self.server.rest_port)
        with socket.create_connection(address) as s:
            s.sendall(
                f"POST {_PREDICT} HTTP/1.1\r\nHost: x\r\n"
                f"Content-Length: {2**31}\r\n\r\n".encode()
            )
            answer = b""
            while part := s.recv(65536):  # it ends: the connection is closed
                answer += part
        self.assertStartsWith(answer, b"HTTP/1.1 400")
        self.assertIn(b"longer than 1000000 bytes", answer)

    def test_bodies_that_arrive_have_a_bound_together(self):
        server = self.enterContext(self.started("--max_waiting_bytes=3500000"))
        body = b'{"instances": [[1]]' + b" " * 900_000
        head = (
            f"POST {_PREDICT} HTTP/1.1\r\nHost: x\r\n"
            f"Content-Length: {len(body) + 1}\r\n\r\n"
        )
        held = [
            self.enterContext(
                socket.create_connection(("127.0.0.1", server.rest_port), 60)
            )
            for _ in range(4)
        ]
        for connection in held:
            connection.sendall(head.encode() + body)
        (refused,), _, _ = select.select(held, [], [], 60)
        self.assertStartsWith(refused.recv(99), b"HTTP/1.1 429")
        held.remove(refused)
        held[0].sendall(b"}")
        self.assertStartsWith(held[0].recv(99), b"HTTP/1.1 200")

    def test_chunks_that_are_too_long(self):
        body = (b" " * 300_000 for _ in range(5))
        status, _, answer = self.call("POST", _PREDICT, body)
        self.assertEqual(status, 400)
        self.assertIn(b"longer than 1000000 bytes", answer)

    def test_deadline(self):
        server = self.enterContext(self.started("--rest_api_timeout_in_ms=200"))
        body = {"signature_name": "count", "inputs": [2**30]}
        status, _, answer = self.call("POST", _PREDICT, body, server=server)
        self.assertEqual(status, 504, answer)
        # The run has ended, too: threads are free.
        body = {"instances": [[1]]}
        for _ in range(4):
            self.assertEqual(
                self.call("POST", _PREDICT, body, server=server)[0], 200
            )


class _Done:
    """An application that answers "done", after a second for /slow."""

    def __init__(self):
        self.entered = threading.Event()

    async def __call__(self, scope, receive, send):
        self.entered.set()
        if scope["path"] == "/slow":
            await asyncio.sleep(1)
        start = {"type": "http.response.start", "status": 200, "headers": []}
        await send(start)
        await send({"type": "http.response.body", "body": b"done"})


class ListenerTest(absltest.TestCase):
    def setUp(self):
        super().setUp()
        self.begin = self.enterContext(loops.running())

    def do(self, coroutine):
        return self.begin(coroutine).result()

    def listener(self, app, host="127.0.0.1", port=0, **limits):
        limits = {"max_connections": 100, "arrival_seconds": 60, **limits}

        async def made():
            return rest_http.Listener(app, host, port, **limits)

        return self.do(made())

    def started(self, app=None, **limits):
        listener = self.listener(app or _Done(), **limits)
        self.do(listener.start())
        self.addCleanup(lambda: self.do(listener.stop(0)))
        return listener

    def connected(self, listener):
        address = ("127.0.0.1", listener.port)
        connection = socket.create_connection(address, timeout=60)
        self.addCleanup(connection.close)
        return connection

    def answer(self, connection):
        connection.sendall(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        response = http.client.HTTPResponse(connection)
        response.begin()
        return response.read()

    def test_a_port_in_use(self):
        first = self.started()
        second = self.listener(_Done(), port=first.port)
        with self.assertRaisesRegex(OSError, f"127.0.0.1:{first.port}"):
            self.do(second.start())

    def test_stop_waits_for_calls_and_frees_the_port(self):
        app = _Done()
        listener = self.started(app)
        connection = http.client.HTTPConnection("127.0.0.1", listener.port)
        self.addCleanup(connection.close)
        connection.request("GET", "/slow")
        app.entered.wait()
        stopping = self.begin(listener.stop(30))
        self.assertEqual(connection.getresponse().read(), b"done")
        stopping.result()
        self.do(self.listener(_Done(), port=listener.port).start())

    def test_the_idlest_connection_makes_room(self):
        listener = self.started(max_connections=3)
        first, second, third = (self.connected(listener) for _ in range(3))
        for connection in (third, second, first):
            self.assertEqual(self.answer(connection), b"done")
        self.assertEqual(self.answer(self.connected(listener)), b"done")
        with self.assertRaises(OSError):  # idle for the longest time
            if not third.recv(1):
                raise ConnectionResetError
        self.assertEqual(self.answer(first), b"done")

    def test_a_connection_that_reads_its_answer_does_not_make_room(self):
        size = 32 * 2**20

        async def app(scope, receive, send):
            start = {"type": "http.response.start", "status": 200}
            length = [(b"content-length", str(size).encode())]
            await send({**start, "headers": length})
            await send({"type": "http.response.body", "body": bytes(size)})

        listener = self.started(app, max_connections=2)
        reading = self.connected(listener)
        reading.sendall(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        response = http.client.HTTPResponse(reading)
        response.begin()
        for _ in range(3):
            self.connected(listener)
        self.assertLen(response.read(), size)

    def test_a_head_has_to_arrive(self):
        listener = self.started(arrival_seconds=0.3)
        silent, half, kept = (self.connected(listener) for _ in range(3))
        half.sendall(b"GET / HTTP/1.1\r\nhost: a\r\n")
        self.assertEqual(self.answer(kept), b"done")
        for connection in (silent, half, kept):
            with self.assertRaises(OSError):
                if not connection.recv(1):
                    raise ConnectionResetError
