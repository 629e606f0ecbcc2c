"""What the client sends, refuses and returns, on a real gRPC server."""

import pickle
import socket
import subprocess
import sys
import tempfile
import threading

import grpc
import numpy as np
from absl.testing import absltest, parameterized

from serving import client as serving_client
from serving.client import Client
from tests.serving import small_server
from tests.serving.small_server import random_images as _images

_TWO = _images(2)
# Signature, inputs, outputs, and what is said of them.
_MISFITS = (
    ("serving_default", {}, None, "the inputs images. Received: none"),
    ("predict", {"image": _TWO}, None, "inputs images.*: image"),
    (
        "predict",
        {"images": np.zeros((2, 4, 4, 3), np.uint8)},
        None,
        r"as float32 \[n, 4, 4, 3\]. Received: uint8 \[2, .* divided by 255",
    ),
    ("predict", {"images": _TWO[0]}, None, r"float32 \[4, 4, 3\]"),
    ("predict", {"images": _TWO[:, :3]}, None, r"\[2, 3, 4, 3\]"),
    ("predict", {"images": _TWO[:0]}, None, "at least one example"),
    ("predict", {"images": [[1.0], [1.0, 2.0]]}, None, "inhomogen"),
    ("decode_predict", {"image_bytes": b"x"}, None, r"bytes \[n\]"),
    ("decode_predict", {"image_bytes": [1]}, None, r"bytes \[n\]"),
    ("explain", {"images": _TWO, "labels": [0.5, 1.0]}, None, "float64"),
    (
        "explain",
        {"images": _TWO, "labels": np.array([2**64 - 1, 0], "u8")},
        None,
        "uint64",
    ),
    ("explain", {"images": _TWO, "labels": [1]}, None, "inputs of one length"),
    ("predict", {"images": _TWO}, ["heat"], "Received: 'heat'"),
    ("predict", {"images": _TWO}, ["logits"] * 2, "output once"),
)


@parameterized.named_parameters(*small_server.KINDS)
class AnswersTest(small_server.ServerTest):
    def test_predict_by_hand(self, kind):
        images = np.zeros((2, 4, 4, 3), np.float32)
        images[0, 1, 2, 2] = 1.0
        images[1, :, :, 1] = 0.5
        for self.server.as_content in (False, True):
            answer = self.connected(kind).predict(images)
            self.assertEqual(answer["classes"].tolist(), [2, 1])
            self.assertEqual(answer["classes"].dtype, np.int64)
            np.testing.assert_array_equal(
                answer["logits"], [[0, 0, 1], [0, 8, 0]]
            )
            np.testing.assert_array_equal(
                answer["attention"][0].nonzero(), [[1], [2]]
            )
            answer["logits"] += 1  # the caller's own, not a view of a message

    def test_raw_bytes_are_sent(self, kind):
        images = _images(3)
        self.connected(kind).predict(images)
        sent = self.server.predictions[0].inputs["images"]
        self.assertEqual(sent.tensor_content, images.tobytes())
        self.assertEmpty(sent.float_val)

    def test_lists_and_wider_floats_are_taken(self, kind):
        images = _images(2)
        expected = self.connected(kind).predict(images)["logits"]
        for given in (images.tolist(), images.astype(np.float64), list(images)):
            logits = self.connected(kind).predict(given)["logits"]
            np.testing.assert_array_equal(logits, expected)

    def test_explain(self, kind):
        images = _images(3)
        answer = self.connected(kind).explain(images, [2, 0, 1])
        np.testing.assert_array_equal(answer["attention"][0], images[0, ..., 2])
        np.testing.assert_array_equal(answer["attention"][2], images[2, ..., 1])

    def test_files_are_sent_byte_for_byte(self, kind):
        answer = self.connected(kind).decode_predict([b"a", b"bc\0\0", b""])
        self.assertEqual(answer["lengths"].tolist(), [1, 4, 0])

    def test_output_filter(self, kind):
        answer = self.connected(kind).predict(_images(1), ["classes"])
        self.assertEqual(list(answer), ["classes"])
        sent = self.server.predictions[0].output_filter
        self.assertEqual(list(sent), ["classes"])

    def test_large_batch_is_sent_in_parts_and_in_order(self, kind):
        images = _images(10)
        one = self.connected(kind).predict(images)
        self.server.predictions.clear()
        parts = self.connected(kind, max_batch_size=4).predict(images)
        sizes = [
            request.inputs["images"].tensor_shape.dim[0].size
            for request in self.server.predictions
        ]
        self.assertEqual(sizes, [4, 4, 2])
        for name, expected in one.items():
            np.testing.assert_array_equal(parts[name], expected)

    def test_parts_need_a_row_for_each_example(self, kind):
        asked = self.connected(kind, max_batch_size=2)
        self.assertEqual(asked.call("total", {"x": [1.0, 2.0]})["y"], 3)
        with self.assertRaisesRegex(
            serving_client.InvalidArgument, "'y' of shape"
        ):
            asked.call("total", {"x": [1.0, 2.0, 3.0]})

    def test_fixed_batch_is_one_request(self, kind):
        asked = self.connected(kind, max_batch_size=1)
        self.assertEqual(
            asked.call("pair", {"x": [1.0, 2.0]})["y"].tolist(), [1, 2]
        )

    def test_more_than_four_megabytes_both_ways(self, kind):
        x = np.random.default_rng(0).random((64, 30000)).astype(np.float32)
        answer = self.connected(kind).call("echo", {"x": x})
        np.testing.assert_array_equal(answer["y"], x)

    def test_metadata(self, kind):
        described = self.connected(kind).metadata()
        self.assertEqual((described.model_name, described.version), ("m", 1))
        spec = described.signatures["explain"].inputs["labels"]
        self.assertEqual((spec.dtype, spec.shape), (np.int64, (-1,)))
        scalar = described.signatures["total"].outputs["y"]
        self.assertEqual(scalar.shape, ())

    def test_status(self, kind):
        self.server.state = 50
        (status,) = self.connected(kind).status()
        self.assertEqual(
            (status.version, status.state, status.error_code),
            (1, "END", "NOT_FOUND"),
        )
        self.assertEqual(status.error_message, "no saved_model.pb")

    def test_version_and_label_are_sent(self, kind):
        self.connected(kind, version=1).predict(_images(1))
        self.connected(kind, label="stable").predict(_images(1))
        first, second = (r.model_spec for r in self.server.predictions)
        self.assertEqual(first.version.value, 1)
        self.assertEqual(second.version_label, "stable")
        self.assertFalse(second.HasField("version"))

    def test_unix_socket(self, kind):
        folder = self.enterContext(tempfile.TemporaryDirectory())
        server = small_server.SmallServer()
        self.enterContext(server.running(f"unix:{folder}/socket"))
        asked = self.connected(kind, server.target)
        self.assertEqual(asked.predict(_images(2))["classes"].shape, (2,))


@parameterized.named_parameters(*small_server.KINDS)
class RefusalsTest(small_server.ServerTest):
    def test_what_does_not_fit_is_not_sent(self, kind):
        asked = self.connected(kind)
        for signature, inputs, outputs, text in _MISFITS:
            with (
                self.subTest(text),
                self.assertRaisesRegex(serving_client.InvalidArgument, text),
            ):
                asked.call(signature, inputs, outputs)
        self.assertEmpty(self.server.predictions)

    def test_unknown_signature(self, kind):
        with self.assertRaisesRegex(
            serving_client.FailedPrecondition,
            "among decode_predict, .*'predicts'. Did you mean 'predict'?",
        ):
            self.connected(kind).predict(_images(1), signature="predicts")
        self.assertEmpty(self.server.predictions)

    def test_servers_reason_is_repeated(self, kind):
        text = "not like this"
        for code, error in (
            ("INVALID_ARGUMENT", serving_client.InvalidArgument),
            ("PERMISSION_DENIED", serving_client.PermissionDenied),
            ("INTERNAL", serving_client.ServingError),
        ):
            self.server.faults = [(grpc.StatusCode[code], text)]
            self.server.predictions.clear()
            with self.assertRaisesRegex(error, f"{code}: {text}") as caught:
                self.connected(kind).predict(_images(1))
            self.assertEqual(caught.exception.code, code)
            self.assertEqual(caught.exception.message, text)
            self.assertLen(self.server.predictions, 1)  # not tried again

    def test_unknown_model_version_and_label(self, kind):
        for given, error, text in (
            ({"name": "x"}, serving_client.NotFound, r"request: Latest\(x\)"),
            ({"version": 9}, serving_client.NotFound, r"Specific\(m, 9\)"),
            (
                {"label": "x"},
                serving_client.InvalidArgument,
                "version label: x",
            ),
        ):
            with self.assertRaisesRegex(error, text):
                self.connected(kind, **given).predict(_images(1))

    def test_wrong_arguments(self, kind):
        for given, text in (
            ({"target": "http://localhost:8501"}, "host:port"),
            ({"version": 1, "label": "a"}, "a version or a label"),
            ({"version": "1"}, "a version's number"),
            ({"name": ""}, "a model_name"),
            ({"timeout": 0}, "a timeout"),
            ({"timeout": float("inf")}, "a timeout"),
            ({"max_batch_size": 0}, "max_batch_size above 0"),
            ({"certificate": b"-----BEGIN "}, "a certificate and its key"),
            ({"ca": "/no/such.pem"}, r"can be read. .*such.pem' \(No such"),
            ({"ca": b"secret"}, "PEM .* Received: bytes without it"),
        ):
            with self.assertRaisesRegex(ValueError, text):
                self.connected(kind, **given)

    def test_closed(self, kind):
        asked = self.connected(kind)
        asked.predict(_images(1))
        asked.close()
        with self.assertRaisesRegex(
            serving_client.FailedPrecondition, "open client"
        ):
            asked.predict(_images(1))


class PartsTest(absltest.TestCase):
    def test_errors_survive_pickling(self):
        error = serving_client.NotFound("NOT_FOUND", "no model")
        copy = pickle.loads(pickle.dumps(error))
        self.assertIsInstance(copy, serving_client.NotFound)
        self.assertEqual((copy.code, copy.message), ("NOT_FOUND", "no model"))

    def test_port_for_rest_is_noticed(self):
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            thread = threading.Thread(target=_answer_http, args=(server,))
            thread.start()
            with (
                Client(f"127.0.0.1:{port}", "m", timeout=5) as asked,
                self.assertRaisesRegex(
                    serving_client.InvalidArgument, "gRPC port.*HTTP"
                ),
            ):
                asked.predict(_images(1))
            thread.join()

    def test_tensorflow_is_loaded_whole_afterwards(self):
        """A process of its own: there TensorFlow is not imported yet."""
        code = """
import sys
from serving.client import protos
request = protos.PredictRequest()
assert not [m for m in sys.modules if m.split(".")[0] == "tensorflow"]
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2
request.inputs["x"].CopyFrom(tf.make_tensor_proto([1.0, 2.0]))
assert type(request.inputs["x"]) is tensor_pb2.TensorProto
print(tf.make_ndarray(request.inputs["x"]))
"""
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True
        )
        self.assertEqual(done.stdout.strip(), "[1. 2.]", done.stderr)


def _answer_http(server):
    connection, _ = server.accept()
    with connection:
        connection.recv(1024)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


if __name__ == "__main__":
    absltest.main()
