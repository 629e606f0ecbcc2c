"""HTTP that no good client speaks, and how each request should be answered.

For a server of the model `toy`, as `calls` says. All is
written to a plain socket, so that nothing is put right on its way.
"""

import base64
import contextlib
import dataclasses
import gzip
import http.client
import json
import socket

from tests.serving.hostile import images as hostile_images
from tests.serving.hostile.calls import any_of, images, kinds

# The server ends the connection without an answer.
CLOSED = "closed"
_PREDICT = "/v1/models/toy:predict"
_TIMEOUT = 60.0


@dataclasses.dataclass(frozen=True)
class Case:
    """A request.

    Attributes:
      content: every byte of it.
      right: the HTTP statuses that are right, or CLOSED.
      ends: whether the client says that nothing more will come. It gives up:
        then there may be no answer.
    """

    content: bytes
    right: tuple
    ends: bool = False

    def outcome(self, channel, rest_port):
        """Returns the HTTP status of the answer, or CLOSED."""
        del channel
        with socket.create_connection(
            ("127.0.0.1", rest_port), _TIMEOUT
        ) as connection:
            # The server may refuse before it has read everything.
            with contextlib.suppress(OSError):
                connection.sendall(self.content)
                if self.ends:
                    connection.shutdown(socket.SHUT_WR)
            try:
                response = http.client.HTTPResponse(connection)
                response.begin()
                response.read()
                return response.status
            except (http.client.BadStatusLine, ConnectionError):
                return CLOSED


def _case(body, *right, path=_PREDICT, verb="POST", headers=()):
    """Returns a Case of a whole request; 400 is right unless others are."""
    if not isinstance(body, bytes):
        body = json.dumps(body).encode()
    lines = [f"{verb} {path} HTTP/1.1", "host: a", *headers]
    lines += [f"content-length: {len(body)}", "", ""]
    return Case("\r\n".join(lines).encode() + body, right or (400,))


def _head(*headers, verb="POST", path=_PREDICT):
    lines = [f"{verb} {path} HTTP/1.1", "host: a", *headers, "", ""]
    return "\r\n".join(lines).encode()


def _row(draw):
    return images(draw)[0].tolist()


def base64_bomb(draw):
    size = int(any_of(draw, 2**10, 2**23))
    value = {"b64": base64.b64encode(bytes(size)).decode()}
    signature = any_of(draw, "serving_default", "decode_predict")
    return _case({"signature_name": signature, "instances": [value]})


def broken_image(draw):
    data = base64.b64encode(hostile_images.file(draw)).decode()
    body = {"signature_name": "decode_predict", "inputs": [{"b64": data}]}
    return _case(body)


def deep_json(draw):
    depth = int(any_of(draw, 1000, 100_000))
    opening = any_of(draw, b"[", b'{"a":', b'[{"b64":')
    start = any_of(draw, b"", b'{"instances":', b'{"inputs":')
    return _case(start + opening * depth)


def no_utf8(draw):
    bad = any_of(draw, b"\xff\xfe", b"\xc0\xaf", b"\xed\xa0\x80", b"\x80")
    return _case(b'{"instances":["' + bad + b'"]}')


def noise(draw):
    return _case(draw.bytes(int(draw.integers(1, 2000))))


def bad_pixels(draw):
    row = _row(draw)
    value = any_of(draw, float("nan"), float("inf"), 255, -1, 1e308, 10**40)
    row[draw.integers(8)][draw.integers(8)][draw.integers(3)] = value
    return _case({"instances": [row]})


def bad_labels(draw):
    label = any_of(draw, -1, 5, 2**63, 2**200, 0.5, "0", None, True, [0])
    row = {"images": _row(draw), "labels": label}
    return _case({"signature_name": "explain", "instances": [row]})


def bad_version(draw):
    end = any_of(draw, f"versions/{2**63}", "versions/x", "versions/-1")
    end = any_of(draw, end, "versions/" + "9" * 4000, "labels/nope", "labels/")
    return _case({"instances": [1]}, path=f"/v1/models/toy/{end}:predict")


def odd_path(draw):
    path = any_of(
        draw,
        "/v1/models/../../../../etc/passwd",
        "/v1/models/toy/../m:predict",
        "/v1/models/%2e%2e/%2e%2e:predict",
        "/v1//models/toy:predict",
        "/v1/models/toy:predict:predict",
        "/v1/models/toy:predict?a=1",
        "/v1/models/toy:nope",
        "/v1/models/:predict",
        "/" + "v1/" * 1000,
        "/",
        "/etc/passwd",
        "//evil/v1/models/toy:predict",
        "http://evil/v1/models/toy:predict",
        "*",
        "/v1/models/toy%",
        "/v1/models/toy\x01",
    )
    return _case(b"{}", 400, 404, path=path)


def gzip_bomb(draw):
    size = 2 ** int(draw.integers(10, 28))
    packed = gzip.compress(bytes(size), 1)
    return _case(packed, headers=["content-encoding: gzip"])


def broken_gzip(draw):
    packed = gzip.compress(json.dumps({"instances": [_row(draw)]}).encode())
    data = any_of(draw, b"", packed[:50], b"\x1f\x8b", draw.bytes(100))
    return _case(data, headers=["content-encoding: gzip"])


def no_length(draw):
    # Without a length there is no body: what follows is another request.
    return Case(_head() + any_of(draw, b"", b"{}", draw.bytes(100)), (400,))


def bad_length(draw):
    length = any_of(draw, "-1", "x", "1e3", "0x10", "9" * 30, "1, 2")
    return Case(_head(f"content-length: {length}") + b"{}", (400,))


def short_body(draw):
    length = int(draw.integers(200, 2**31 - 1))
    head = _head(f"content-length: {length}")
    # Most lengths are refused before the rest is missed.
    return Case(head + draw.bytes(100), (400, CLOSED), ends=True)


def smuggled(draw):
    # A length and chunks: proxies have been led astray by it.
    del draw
    head = _head("content-length: 5", "transfer-encoding: chunked")
    return Case(head + b"0\r\n\r\nGET / HTTP/1.1\r\n\r\n", (400,))


KINDS = kinds(__name__)
