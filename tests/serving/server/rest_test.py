"""The REST interface on a real port, before a real model."""

import asyncio
import concurrent.futures
import gzip
import http.client
import json
import pathlib
import socket
import ssl
import subprocess
import tempfile
import threading

import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized
from prometheus_client import parser
from tensorflow_serving.config import model_server_config_pb2

from serving.server import inference, loaded_model, metrics, servable
from serving.server.rest import application as rest_application
from serving.server.rest import http as http_server
from serving.server.rest import threads as worker_threads
from serving.server.versions import manager as model_manager
from serving.status import StatusError

_PAGE = "/monitoring/prometheus/metrics"
_PREDICT = "/v1/models/half:predict"


def _save(path):
    """Writes a model with a signature for every kind of call."""
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None, None], name="x")
        n = v1.placeholder(tf.int32, [], name="n")
        s = v1.placeholder(tf.string, [None], name="s")
        examples = v1.placeholder(tf.string, [None], name="examples")
        parsed = v1.io.parse_example(
            examples, {"x": tf.io.FixedLenFeature([1], tf.float32)}
        )["x"]
        half = parsed / 2 + 2
        counted = tf.while_loop(lambda i: i < n, lambda i: (i + 1,), (0,))[0]
        labels = tf.tile([["low", "high"]], [tf.shape(parsed)[0], 1])

        def signature(inputs, outputs, method="predict"):
            return v1.saved_model.build_signature_def(
                {k: v1.saved_model.build_tensor_info(v) for k, v in inputs},
                {k: v1.saved_model.build_tensor_info(v) for k, v in outputs},
                f"tensorflow/serving/{method}",
            )

        writer = v1.saved_model.Builder(str(path))
        writer.add_meta_graph_and_variables(
            session,
            ["serve"],
            {
                "serving_default": signature([("x", x)], [("y", x / 2 + 2)]),
                "two": signature(
                    [("x", x), ("s", s)],
                    [
                        ("y", x + 1),
                        ("s_bytes", tf.identity(s)),
                        ("c", tf.shape(x)),
                    ],
                ),
                "half": signature([("x", x)], [("y", tf.cast(x, tf.float16))]),
                "count": signature([("n", n)], [("n", counted)]),
                "classify": signature(
                    [("inputs", examples)],
                    [
                        ("classes", labels),
                        ("scores", tf.concat([parsed, half], 1)),
                    ],
                    "classify",
                ),
                "regress": signature(
                    [("inputs", examples)],
                    [("outputs", tf.reshape(half, [-1]))],
                    "regress",
                ),
            },
        )
        writer.save()


def _load(name, version, path):
    return loaded_model.LoadedModel(servable.Servable(path))


class RestTest(parameterized.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        base = pathlib.Path(
            cls.enterClassContext(tempfile.TemporaryDirectory())
        )
        _save(base / "123")
        config = model_server_config_pb2.ModelServerConfig()
        for name in ("half", "a/b"):
            entry = config.model_config_list.config.add(
                name=name, base_path=str(base), model_platform="tensorflow"
            )
            entry.version_labels["stable"] = 123
        manager = model_manager.ModelManager(
            _load,
            file_system_poll_wait_seconds=0,
            allow_version_labels_for_unavailable_models=True,
        )
        cls.addClassCleanup(manager.close)
        manager.apply(config)
        cls.metrics = metrics.Metrics(manager.model_names)
        cls.core = inference.Inference(manager, cls.metrics)
        cls.server = cls.started(enable_cors=False, metrics_path=_PAGE)

    @classmethod
    def started(cls, timeout_seconds=30, **options):
        app = rest_application.application(
            cls.core,
            timeout_seconds=timeout_seconds,
            num_threads=2,
            metrics=cls.metrics,
            **options,
        )
        server = http_server.Server(app, "127.0.0.1", 0)
        server.start()
        cls.addClassCleanup(server.stop, 5)
        return server

    def call(self, verb, path, body=None, headers=(), server=None):
        """Returns (status, headers, body) of one call."""
        if isinstance(body, dict):
            body = json.dumps(body).encode()
        port = (server or self.server).port
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        try:
            connection.request(verb, path, body, dict(headers))
            response = connection.getresponse()
            return response.status, response.headers, response.read()
        finally:
            connection.close()

    def assert_error(self, code, text, verb, path, body=None):
        status, headers, content = self.call(verb, path, body)
        self.assertEqual((status, json.loads(content)), (code, {"error": text}))
        self.assertTrue(content.startswith(b'{\n    "error": "'))
        self.assertEqual(headers["content-type"], "application/json")

    def page(self):
        status, headers, text = self.call("GET", _PAGE)
        self.assertEqual((status, headers["content-type"]), (200, "text/plain"))
        return text.decode()

    @parameterized.parameters(
        "half", "half/versions/123", "half/versions/0123", "half/labels/stable"
    )
    def test_predict(self, model):
        status, headers, body = self.call(
            "POST", f"/v1/models/{model}:predict", {"instances": [[1], [3]]}
        )
        self.assertEqual(
            (status, body),
            (200, b'{\n    "predictions": [[2.5], [3.5]\n    ]\n}'),
        )
        self.assertEqual(headers["content-type"], "application/json")
        self.assertNotIn("access-control-allow-origin", headers)
        self.assertNotIn("server", headers)

    def test_predict_columns(self):
        _, _, body = self.call("POST", _PREDICT, {"inputs": [[1]]})
        self.assertEqual(
            body,
            b'{\n    "outputs": [\n        [\n            2.5\n        ]\n    ]'
            b"\n}",
        )

    def test_predict_several_tensors(self):
        status, _, body = self.call(
            "POST",
            _PREDICT,
            {
                "signature_name": "two",
                "inputs": {
                    "x": [[1, 2]],
                    "s": [{"b64": "AP8="}, "a"],
                },
            },
        )
        self.assertEqual(status, 200)
        self.assertEqual(
            json.loads(body)["outputs"],
            {
                "y": [[2, 3]],
                "s_bytes": [{"b64": "AP8="}, {"b64": "YQ=="}],
                "c": [1, 2],
            },
        )

    def test_escaped_names(self):
        path = "/v1/models/%61%2Fb/labels/%73table:predict"
        status, _, body = self.call("POST", path, {"instances": [[0]]})
        self.assertEqual(
            (status, json.loads(body)), (200, {"predictions": [[2]]})
        )

    def test_classify_and_regress(self):
        body = {"signature_name": "classify", "examples": [{"x": 80.0}]}
        _, _, answer = self.call("POST", "/v1/models/half:classify", body)
        self.assertEqual(
            answer,
            b'{\n    "results": [[["low", 80.0], ["high", 42.0]]\n    ]\n}',
        )
        body = {
            "signature_name": "regress",
            "context": {"x": 80.0},
            "examples": [{}, {}],
        }
        _, _, answer = self.call("POST", "/v1/models/half:regress", body)
        self.assertEqual(answer, b'{\n    "results": [42.0, 42.0]\n}')

    @parameterized.parameters("", "/versions/123")
    def test_status(self, version):
        status, headers, body = self.call("GET", f"/v1/models/half{version}")
        self.assertEqual(status, 200)
        self.assertEqual(headers["content-type"], "application/json")
        self.assertEqual(
            body.decode(),
            """{
 "model_version_status": [
  {
   "version": "123",
   "state": "AVAILABLE",
   "status": {
    "error_code": "OK",
    "error_message": ""
   }
  }
 ]
}
""",
        )

    def test_metadata(self):
        status, _, body = self.call("GET", "/v1/models/half/metadata")
        self.assertEqual(status, 200)
        self.assertStartsWith(
            body.decode(),
            """{
"model_spec":{
 "name": "half",
 "signature_name": "",
 "version": "123"
}
,
"metadata": {"signature_def": {
 "signature_def": {
  "classify": {
   "inputs": {
    "inputs": {
     "dtype": "DT_STRING",
     "tensor_shape": {
      "dim": [
       {
        "size": "-1",
        "name": ""
       }
      ],
      "unknown_rank": false
     },
     "name": "examples:0"
    }
   },
""",
        )
        self.assertTrue(body.endswith(b"}\n}\n}\n}\n"))
        signatures = json.loads(body)["metadata"]["signature_def"]
        two = signatures["signature_def"]["two"]
        self.assertEqual(list(two["inputs"]), ["s", "x"])
        self.assertEqual(two["method_name"], "tensorflow/serving/predict")

    @parameterized.parameters(
        ("GET", "/v1/foo"),
        ("POST", "/v1/foo"),
        ("POST", "/v1/models"),
        ("GET", "/v1/models/half:predict"),
        ("POST", "/v1/models/half"),
        ("POST", "/v1/models/half:PREDICT"),
        ("POST", "/v1/models/half:explain"),
        ("POST", "/v1/models/half/version/1:predict"),
        ("POST", "/v1/models/half/versions/HELLO:regress"),
        ("POST", "/v1/models/half:predict?x=1"),
        ("PUT", "/v1/models/half"),
        ("DELETE", "/v1/models/half"),
        ("GET", "/v1/models/half/metadata/"),
    )
    def test_malformed_requests(self, verb, path):
        text = f"Malformed request: {verb} {path}"
        self.assert_error(400, text, verb, path)

    @parameterized.parameters(
        (400, "Missing model name in request.", "GET", "/v1/models"),
        (400, "Missing model name in request.", "GET", "/v1/models/versions/1"),
        (
            404,
            "Could not find any versions of model metadata",
            "GET",
            "/V1/MODELS/metadata",
        ),
        (
            404,
            "Could not find any versions of model x",
            "GET",
            "/v1/models/x",
        ),
        (
            404,
            # Queries are part of the path, as there.
            "Could not find any versions of model half?x=1",
            "GET",
            "/v1/models/half?x=1",
        ),
        (
            404,
            "Could not find version 9 of model half",
            "GET",
            "/v1/models/half/versions/9",
        ),
        (
            404,
            "Servable not found for request: Latest(x)",
            "GET",
            "/v1/models/x/metadata",
        ),
        (
            400,
            "Failed to convert version: 18446744073709551615 to numeric.",
            "GET",
            "/v1/models/half/versions/18446744073709551615",
        ),
    )
    def test_refused_gets(self, code, text, verb, path):
        self.assert_error(code, text, verb, path)

    @parameterized.parameters(
        (
            404,
            "Servable not found for request: Latest(x)",
            "x:predict",
            {"instances": [1]},
        ),
        (
            404,
            "Servable not found for request: Specific(half, 99)",
            "half/versions/99:predict",
            {"instances": [1]},
        ),
        (
            400,
            "Unrecognized servable version label: x",
            "half/labels/x:predict",
            {"instances": [1]},
        ),
        (
            400,
            'Serving signature name: "no" not found in signature def',
            "half:predict",
            {"signature_name": "no", "instances": [1]},
        ),
        (
            400,
            "JSON Parse error: The document is empty",
            "half:predict",
            None,
        ),
        (
            400,
            "Failed to process element: 0 of 'instances' list. Error: "
            'INVALID_ARGUMENT: JSON Value: "a" Type: String is not of '
            "expected type: float",
            "half:predict",
            {"instances": ["a"]},
        ),
        (
            400,
            "Failed to write JSON value for tensor type: half",
            "half:predict",
            {"signature_name": "half", "instances": [[1]]},
        ),
        (
            400,
            "Tensor name: s_bytes has inconsistent batch size: 1 expecting: 2",
            "half:predict",
            {"signature_name": "two", "instances": [{"x": [1], "s": "a"}]},
        ),
    )
    def test_refused_posts(self, code, text, call, body):
        self.assert_error(code, text, "POST", f"/v1/models/{call}", body)

    @parameterized.parameters("/", "/index", "/v2/models/half", "/v1")
    def test_other_paths(self, path):
        status, headers, body = self.call("GET", path)
        self.assertEqual((status, headers["content-type"]), (404, "text/html"))
        self.assertIn(b"<H1>Not Found</H1>", body)

    def test_options_and_origins(self):
        allowed = self.started(enable_cors=True)
        origin = {"Origin": "https://example.org"}
        for server in (self.server, allowed):
            for headers, code in ((origin, 200), ({}, 400)):
                answer = self.call(
                    "OPTIONS", _PREDICT, headers=headers, server=server
                )
                self.assertEqual((answer[0], answer[2]), (code, b""))
        for path in ("/v1/models/half", "/v1/models/x"):
            _, headers, _ = self.call("GET", path, server=allowed)
            self.assertEqual(headers["access-control-allow-origin"], "*")
            allowed_methods = headers["access-control-allow-methods"]
            self.assertEqual(allowed_methods, "POST, GET")

    def test_gzip_bodies(self):
        headers = {"Content-Encoding": "gzip"}
        body = gzip.compress(b'{"instances": [[1]]}')
        status, _, answer = self.call("POST", _PREDICT, body, headers)
        self.assertEqual(
            (status, json.loads(answer)["predictions"]), (200, [[2.5]])
        )
        bomb = gzip.compress(bytes(101 * 2**20))
        for broken in (b"no gzip", body[:-9], bomb):
            status, _, answer = self.call("POST", _PREDICT, broken, headers)
            self.assertEqual(status, 400)
            self.assertIn(b"The document is empty", answer)

    def test_bodies_that_are_too_long_are_not_read(self):
        with socket.create_connection(("127.0.0.1", self.server.port)) as s:
            s.sendall(
                f"POST {_PREDICT} HTTP/1.1\r\nHost: x\r\n"
                f"Content-Length: {2**31}\r\n\r\n".encode()
            )
            answer = b""
            while part := s.recv(65536):  # it ends: the connection is closed
                answer += part
        self.assertStartsWith(answer, b"HTTP/1.1 400")
        self.assertIn(b"Request body is longer than 2147483647 bytes", answer)

    def test_chunks_that_are_too_long(self):
        self.addCleanup(
            setattr, rest_application, "MAX_BODY", rest_application.MAX_BODY
        )
        rest_application.MAX_BODY = 1000
        body = (b" " * 300 for _ in range(5))
        status, _, answer = self.call("POST", _PREDICT, body)
        self.assertEqual(status, 400)
        self.assertIn(b"longer than 1000 bytes", answer)

    def test_broken_http(self):
        random = np.random.default_rng(0)
        for size in (1, 10, 1000):
            with socket.create_connection(
                ("127.0.0.1", self.server.port), timeout=60
            ) as s:
                s.sendall(random.bytes(size) + b"\r\n\r\n")
                s.shutdown(socket.SHUT_WR)
                while s.recv(65536):
                    pass
        self.assertEqual(self.call("GET", "/v1/models/half")[0], 200)

    def test_deadline(self):
        server = self.started(timeout_seconds=0.2, enable_cors=False)
        body = {"signature_name": "count", "inputs": 2**22}
        status, _, answer = self.call("POST", _PREDICT, body, server=server)
        self.assertEqual(
            (status, json.loads(answer)["error"]),
            (504, "Timed out waiting for notification"),
        )

    def test_many_callers_at_once(self):
        def one(i):
            body = {"instances": [[float(i)]]}
            return self.call("POST", _PREDICT, body)[::2]

        with concurrent.futures.ThreadPoolExecutor(16) as threads:
            answers = list(threads.map(one, range(200)))
        for i, (status, body) in enumerate(answers):
            self.assertEqual(status, 200)
            self.assertEqual(json.loads(body)["predictions"], [[i / 2 + 2]])

    def test_metrics(self):
        def value(name, **labels):
            for family in parser.text_string_to_metric_families(self.page()):
                for sample in family.samples:
                    if (sample.name, sample.labels) == (name, labels):
                        return sample.value
            return 0

        def counts():
            # The parser gives every counter the end _total.
            count = ":tensorflow:serving:request_count_total"
            return [
                value(count, model_name="half", status="OK"),
                value(count, model_name="half", status="INVALID_ARGUMENT"),
                value(count, model_name="_unknown_", status="NOT_FOUND"),
                value(
                    ":tensorflow:serving:request_latency_count",
                    model_name="half",
                    API="predict",
                    entrypoint="REST",
                ),
            ]

        before = counts()
        self.call("POST", _PREDICT, {"instances": [[1]]})
        self.call("POST", _PREDICT, {"instances": ["a"]})  # never at the core
        self.call("POST", _PREDICT, {"instances": [[1]], "signature_name": "x"})
        self.call("GET", "/v1/models/half")
        self.call("POST", "/v1/models/evil:predict", {"instances": [1]})
        difference = np.subtract(counts(), before).tolist()
        self.assertEqual(difference, [2, 2, 1, 1])
        status, _, text = self.call("GET", _PAGE + "?x=1")
        self.assertEqual(status, 400)
        self.assertEqual(
            text.decode(), f"Unexpected path: {_PAGE}?x=1. Should be {_PAGE}"
        )

    def test_no_metrics_without_a_path(self):
        server = self.started(enable_cors=False)
        self.assertEqual(self.call("GET", _PAGE, server=server)[0], 404)


class _Done:
    """An application that answers "done", after a second for /slow."""

    def __init__(self):
        self.entered = threading.Event()

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            for state in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{state}.complete"})
            return
        self.entered.set()
        if scope["path"] == "/slow":
            await asyncio.sleep(1)
        start = {"type": "http.response.start", "status": 200, "headers": []}
        await send(start)
        await send({"type": "http.response.body", "body": b"done"})


class ServerTest(absltest.TestCase):
    def test_a_port_in_use(self):
        first = http_server.Server(_Done(), "127.0.0.1", 0)
        first.start()
        self.addCleanup(first.stop)
        second = http_server.Server(_Done(), "127.0.0.1", first.port)
        with self.assertRaisesRegex(
            OSError,
            f"could not listen on 127.0.0.1:{first.port}: Address already in",
        ):
            second.start()
        second.stop()

    def test_a_host_that_is_none(self):
        server = http_server.Server(_Done(), "no.such.host.invalid", 0)
        with self.assertRaisesRegex(OSError, "on no.such.host.invalid:0: "):
            server.start()

    def test_stop_waits_for_calls_and_frees_the_port(self):
        app = _Done()
        server = http_server.Server(app, "127.0.0.1", 0)
        server.start()
        connection = http.client.HTTPConnection("127.0.0.1", server.port)
        connection.request("GET", "/slow")
        stopping = threading.Thread(target=server.stop, args=(30,))
        app.entered.wait()
        stopping.start()
        self.assertEqual(connection.getresponse().read(), b"done")
        connection.close()
        stopping.join()
        again = http_server.Server(_Done(), "127.0.0.1", server.port)
        again.start()
        again.stop()

    def test_stop_without_grace_drops_calls(self):
        app = _Done()
        server = http_server.Server(app, "127.0.0.1", 0)
        server.start()
        connection = http.client.HTTPConnection("127.0.0.1", server.port)
        self.addCleanup(connection.close)
        connection.request("GET", "/slow")
        app.entered.wait()
        server.stop(grace=0.1)
        self.assertEqual(connection.getresponse().status, 500)

    def test_tls(self):
        folder = self.enterContext(tempfile.TemporaryDirectory())
        subprocess.run(
            "openssl req -x509 -newkey rsa:2048 -nodes -keyout k -out c -days 2"
            " -subj /CN=localhost".split(),
            cwd=folder,
            check=True,
            capture_output=True,
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(f"{folder}/c", f"{folder}/k")
        server = http_server.Server(_Done(), "127.0.0.1", 0, ssl=context)
        server.start()
        self.addCleanup(server.stop)
        client = ssl.create_default_context(cafile=f"{folder}/c")
        client.check_hostname = False
        connection = http.client.HTTPSConnection(
            "127.0.0.1", server.port, context=client
        )
        connection.request("GET", "/")
        self.assertEqual(connection.getresponse().read(), b"done")
        connection.close()


class WorkerThreadsTest(absltest.TestCase):
    def setUp(self):
        super().setUp()
        self.threads = worker_threads.WorkerThreads(1, 1)
        self.addCleanup(self.threads.close)
        self.free = threading.Event()
        self.addCleanup(self.free.set)

    def _wait(self, _):
        self.free.wait()
        return "waited"

    def _code(self, call):
        try:
            return asyncio.run(self.threads.run(*call))
        except StatusError as error:
            return error.code

    def test_the_deadline_is_passed_on(self):
        left = asyncio.run(self.threads.run(worker_threads.seconds_left, 60))
        self.assertBetween(left, 50, 60)
        self.assertIsNone(
            asyncio.run(self.threads.run(worker_threads.seconds_left, None))
        )

    def test_places_run_out_and_come_back(self):
        async def scenario():
            first = asyncio.create_task(self.threads.run(self._wait, 60))
            second = asyncio.create_task(self.threads.run(self._wait, 60))
            await asyncio.sleep(0)
            self.assertEqual(self.threads.in_progress(), 2)
            with self.assertRaises(StatusError) as caught:
                await self.threads.run(self._wait, 60)
            self.free.set()
            return caught.exception, await first, await second

        error, *answers = asyncio.run(scenario())
        self.assertEqual(error.code, "RESOURCE_EXHAUSTED")
        self.assertEqual(error.message, "Server Threadpool Exhausted")
        self.assertEqual(answers, ["waited", "waited"])
        self.assertEqual(asyncio.run(self.threads.run(str, 60)) is None, False)
        self.assertEqual(self.threads.in_progress(), 0)

    def test_a_late_call_keeps_its_place_and_a_waiting_one_does_not(self):
        ran = []
        self.assertEqual(self._code((self._wait, 0.1)), "DEADLINE_EXCEEDED")
        self.assertEqual(self.threads.in_progress(), 1)
        self.assertEqual(self._code((ran.append, 0.1)), "DEADLINE_EXCEEDED")
        self.assertEqual(self.threads.in_progress(), 1)
        self.free.set()
        self.assertEqual(self._code((lambda _: "next", 60)), "next")
        self.assertEmpty(ran)

    def test_closed(self):
        self.threads.close()
        self.assertEqual(self._code((self._wait, 60)), "UNAVAILABLE")
        self.assertEqual(self.threads.in_progress(), 0)


if __name__ == "__main__":
    absltest.main()
