"""How many are let in, and by which ways."""

import collections
import threading

import grpc
import numpy as np
from google.protobuf import text_format
from grpc_health.v1 import health_pb2
from tensorflow_serving.apis import (
    classification_pb2,
)

from serving.server import config_files
from tests.serving import exports as serving_runs
from tests.serving.server import calls as server_calls
from tests.support import certificates


class CallersTest(server_calls.ServerTest):
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
        request = server_calls.predict_request(server_calls.numbers([[2]]))
        with server_calls.runs(let_go):
            sent = [self.calls.predict.future(request) for _ in range(10)]
            self.awaited(lambda: sum(call.done() for call in sent) >= 6)
            let_go.set()
            errors = [
                call.exception(server_calls.PATIENCE_SECONDS) for call in sent
            ]
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
        fits = server_calls.predict_request(
            {"x": np.zeros((1, 20_000), np.float32)}
        )
        self.calls.predict(fits)
        shape = "tensor_shape { dim { size: 1 } dim { size: 60000 } }"
        repeated = server_calls.proto(f"dtype: DT_FLOAT {shape} float_val: 1")
        sent = {"x": np.zeros((1, 30_000), np.float32)}
        for inputs in (sent, {"x": repeated}):
            with self.assertRaises(grpc.RpcError) as raised:
                self.calls.predict(server_calls.predict_request(inputs))
            code = raised.exception.code().name
            self.assertEqual(code, "RESOURCE_EXHAUSTED")
        self.calls.predict(fits)

    def test_larger_messages_are_not_read(self):
        request = server_calls.predict_request(
            {"x": np.zeros((1, 120_000), np.float32)}
        )
        self.assert_refused("RESOURCE_EXHAUSTED", self.calls.predict, request)

    def test_only_predict(self):
        request = classification_pb2.ClassificationRequest()
        self.assert_refused("UNIMPLEMENTED", self.calls.classify, request)


class ConnectionsTest(server_calls.ServerTest):
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
            server_calls.predict_request(server_calls.numbers([[2]])),
            timeout=server_calls.PATIENCE_SECONDS,
        )
        self.assertEqual(server_calls.outputs(answer)["y"], 3)

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

    def test_ssl_file_without_a_certificate_in_it(self):
        pem = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
        with self.assertRaisesRegex(OSError, "server_key"):
            self.started(
                *self.models, self.ssl(server_key=pem, server_cert=pem)
            )

    def assert_unavailable(self, calls):
        with self.assertRaises(grpc.RpcError) as raised:
            calls.predict(
                server_calls.predict_request(server_calls.numbers([[2]])),
                timeout=server_calls.PATIENCE_SECONDS,
            )
        self.assertEqual(raised.exception.code().name, "UNAVAILABLE")

    def certificate(self, name):
        """Returns a key and a certificate for localhost, signed by itself."""
        host = "subjectAltName=DNS:localhost"
        return certificates.write(self.folder, name, host)

    def ssl(self, **fields):
        """Returns the flag of an SSLConfig file."""
        config = config_files.SSLConfig(**fields)
        text = text_format.MessageToString(config)
        path = server_calls.file(self.folder, "ssl.config", text)
        return f"--ssl_config_file={path}"
