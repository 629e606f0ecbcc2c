"""What the client sends, refuses and returns, on a real gRPC server."""

import pickle
import socket
import subprocess
import sys
import threading

import grpc
import numpy as np
import pytest

from serving import client as serving_client
from tests.serving.small_server import random_images

_TWO = random_images(2)


def test_predict_by_hand(server, connect):
    images = np.zeros((2, 4, 4, 3), np.float32)
    images[0, 1, 2, 2] = 1.0
    images[1, :, :, 1] = 0.5
    for server.as_content in (False, True):
        answer = connect().predict(images)
        assert answer["classes"].tolist() == [2, 1]
        assert answer["classes"].dtype == np.int64
        assert answer["logits"].tolist() == [[0, 0, 1], [0, 8, 0]]
        assert np.argwhere(answer["attention"][0]).tolist() == [[1, 2]]
        answer["logits"] += 1  # the caller's own, not a view of a message


def test_raw_bytes_are_sent(server, connect):
    connect().predict(_TWO)
    sent = server.predictions[0].inputs["images"]
    assert sent.tensor_content == _TWO.tobytes()
    assert not sent.float_val


@pytest.mark.parametrize("made", [list, np.ndarray.tolist, np.float64])
def test_lists_and_wider_floats_are_taken(connect, made):
    expected = connect().predict(_TWO)["logits"]
    np.testing.assert_array_equal(
        connect().predict(made(_TWO))["logits"], expected
    )


def test_explain(connect):
    images = random_images(3)
    answer = connect().explain(images, [2, 0, 1])
    np.testing.assert_array_equal(answer["attention"][0], images[0, ..., 2])
    np.testing.assert_array_equal(answer["attention"][2], images[2, ..., 1])


def test_files_are_sent_byte_for_byte(connect):
    answer = connect().decode_predict([b"a", b"bc\0\0", b""])
    assert answer["lengths"].tolist() == [1, 4, 0]


def test_output_filter(server, connect):
    assert list(connect().predict(_TWO, ["classes"])) == ["classes"]
    assert list(server.predictions[0].output_filter) == ["classes"]


def test_large_batch_is_sent_in_parts_and_in_order(server, connect):
    images = random_images(10)
    one = connect().predict(images)
    server.predictions.clear()
    parts = connect(max_batch_size=4).predict(images)
    sizes = [
        request.inputs["images"].tensor_shape.dim[0].size
        for request in server.predictions
    ]
    assert sizes == [4, 4, 2]
    for name, expected in one.items():
        np.testing.assert_array_equal(parts[name], expected)


def test_parts_need_a_row_for_each_example(connect):
    client = connect(max_batch_size=2)
    assert client.call("total", {"x": [1.0, 2.0]})["y"] == 3
    with pytest.raises(serving_client.InvalidArgument, match="'y' of shape"):
        client.call("total", {"x": [1.0, 2.0, 3.0]})


def test_more_than_four_megabytes_both_ways(connect):
    x = np.random.default_rng(0).random((64, 30000)).astype(np.float32)
    np.testing.assert_array_equal(connect().call("echo", {"x": x})["y"], x)


def test_metadata(connect):
    metadata = connect().metadata()
    assert (metadata.model_name, metadata.version) == ("m", 1)
    spec = metadata.signatures["explain"].inputs["labels"]
    assert (spec.dtype, spec.shape) == (np.int64, (-1,))
    assert metadata.signatures["total"].outputs["y"].shape == ()
    files = metadata.signatures["decode_predict"].inputs["image_bytes"]
    assert files.dtype == object


def test_status(server, connect):
    server.state = 50
    (status,) = connect().status()
    assert (status.version, status.state) == (1, "END")
    assert status.error_code == "NOT_FOUND"
    assert status.error_message == "no saved_model.pb"


def test_version_and_label_are_sent(server, connect):
    connect(version=1).predict(_TWO)
    connect(label="stable").predict(_TWO)
    first, second = (r.model_spec for r in server.predictions)
    assert first.version.value == 1
    assert second.version_label == "stable"
    assert not second.HasField("version")


@pytest.mark.parametrize(
    ("signature", "inputs", "outputs", "pattern"),
    [
        ("serving_default", {}, None, "the inputs images. Received: none"),
        ("predict", {"image": _TWO}, None, "inputs images.*: image"),
        (
            "predict",
            {"images": np.zeros((2, 4, 4, 3), np.uint8)},
            None,
            r"as float32 \[n, 4, 4, 3\]. Received: uint8 .* divided by 255",
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
        ("explain", {"images": _TWO, "labels": [1]}, None, "of one length"),
        ("predict", {"images": _TWO}, ["heat"], "Received: 'heat'"),
        ("predict", {"images": _TWO}, ["logits"] * 2, "output once"),
    ],
)
def test_misfits_are_not_sent(
    server, connect, signature, inputs, outputs, pattern
):
    with pytest.raises(serving_client.InvalidArgument, match=pattern):
        connect().call(signature, inputs, outputs)
    assert not server.predictions


def test_unknown_signature(server, connect):
    with pytest.raises(
        serving_client.FailedPrecondition, match="Did you mean 'predict'?"
    ):
        connect().predict(_TWO, signature="predicts")
    assert not server.predictions


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("INVALID_ARGUMENT", serving_client.InvalidArgument),
        ("PERMISSION_DENIED", serving_client.PermissionDenied),
        ("INTERNAL", serving_client.ServingError),
    ],
)
def test_servers_reason_is_repeated(server, connect, code, kind):
    server.faults = [(grpc.StatusCode[code], "not like this")]
    with pytest.raises(kind, match=f"{code}: not like this") as caught:
        connect().predict(_TWO)
    assert (caught.value.code, caught.value.message) == (code, "not like this")
    assert len(server.predictions) == 1  # not tried again


@pytest.mark.parametrize(
    ("kwargs", "pattern"),
    [
        ({"name": "x"}, "NOT_FOUND.*x"),
        ({"version": 9}, "(?s)NOT_FOUND.*9"),
        ({"label": "x"}, "INVALID_ARGUMENT.*x"),
    ],
)
def test_unknown_model_version_and_label(connect, kwargs, pattern):
    with pytest.raises(serving_client.ServingError, match=pattern):
        connect(**kwargs).predict(_TWO)


@pytest.mark.parametrize(
    ("kwargs", "pattern"),
    [
        ({"target": "http://localhost:8501"}, "host:port"),
        ({"version": 1, "label": "a"}, "a version or a label"),
        ({"version": "1"}, "a version's number"),
        ({"version": 2**63}, "a version's number"),
        ({"label": "a\udcff"}, "a label of Unicode text"),
        ({"name": ""}, "a model_name"),
        ({"timeout": 0}, "a timeout"),
        ({"timeout": float("inf")}, "a timeout"),
        ({"max_batch_size": 0}, "max_batch_size above 0"),
        ({"certificate": b"-----BEGIN "}, "a certificate and its key"),
        ({"ca": "/no/such.pem"}, r"can be read. .*such.pem' \(No such"),
        ({"ca": b"secret"}, "PEM .* Received: bytes without it"),
    ],
)
def test_wrong_arguments(connect, kwargs, pattern):
    with pytest.raises(ValueError, match=pattern):
        connect(**kwargs)


def test_closed(connect):
    client = connect()
    client.predict(_TWO)
    client.close()
    with pytest.raises(serving_client.FailedPrecondition, match="open client"):
        client.predict(_TWO)


def test_errors_survive_pickling():
    error = serving_client.NotFound("NOT_FOUND", "no model")
    copy = pickle.loads(pickle.dumps(error))
    assert isinstance(copy, serving_client.NotFound)
    assert (copy.code, copy.message) == ("NOT_FOUND", "no model")


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"<!DOCTYPE HTML>"]
)
def test_port_for_rest_is_noticed(answer):
    def answer_http(listener):
        connection, _ = listener.accept()
        with connection:
            connection.recv(1024)
            connection.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=answer_http, args=(listener,)).start()
        target = f"127.0.0.1:{listener.getsockname()[1]}"
        with (
            serving_client.Client(target, "m", timeout=5) as client,
            pytest.raises(serving_client.InvalidArgument, match="gRPC port"),
        ):
            client.predict(_TWO)


def test_tensorflow_is_loaded_whole_afterwards():
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
    assert done.stdout.strip() == "[1. 2.]", done.stderr
