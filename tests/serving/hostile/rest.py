"""HTTP that no good client speaks, and how each request should be answered.

For a server of the model `toy`, as `calls` says. All is
written to a plain socket, so that nothing is put right on its way.
"""

import contextlib
import dataclasses
import gzip
import http.client
import json
import socket

from tests.serving.hostile.calls import any_of, kinds

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


def noise(draw):
    return _case(draw.bytes(int(draw.integers(1, 2000))))


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
