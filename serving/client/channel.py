"""How a client reaches a server: channel, TLS, methods, time and retries."""

import dataclasses
import math
import os
import pathlib
import random
import time
import types
from collections.abc import Callable

import grpc
import numpy as np
from google.protobuf import message

from . import protos
from .errors import ServingError, expect, serving_error

# A PEM file's path, or its bytes.
Pem = str | pathlib.Path | bytes
_REQUESTS = {
    "Predict": protos.PredictRequest,
    "GetModelMetadata": protos.GetModelMetadataRequest,
    "GetModelStatus": protos.GetModelStatusRequest,
}

# What gRPC says of a port for REST.
_NO_GRPC = ("http1.x server", "Failed parsing HTTP/2")
_RETRIED = ("UNAVAILABLE", "RESOURCE_EXHAUSTED")
# Seconds; pauses double from the first to the longest.
_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 2.0
_CHANNEL_OPTIONS = {
    # gRPC's own 4 MB are less than a batch of ordinary photographs.
    "grpc.max_send_message_length": -1,
    "grpc.max_receive_message_length": -1,
    # A server that comes back is found within a second, not within minutes.
    "grpc.initial_reconnect_backoff_ms": 100,
    "grpc.max_reconnect_backoff_ms": 1000,
    # Two clients share no connection, nor how it failed.
    "grpc.use_local_subchannel_pool": 1,
}


@dataclasses.dataclass(frozen=True)
class Model:
    """Which model answers.

    Attributes:
      name: as the server knows it.
      version: a number; or
      label: that of a version; with neither the newest answers.
    """

    name: str
    version: int | None = None
    label: str | None = None

    def __post_init__(self):
        expect(
            _is_text(self.name) and self.name,
            "a model_name that is not empty, of Unicode text",
            repr(self.name),
        )
        expect(
            self.label is None or _is_text(self.label),
            "a label of Unicode text",
            repr(self.label),
        )
        is_number = isinstance(self.version, int) and 0 <= self.version < 2**63
        expect(
            self.version is None or is_number,
            "a version's number from 0 to 2**63 - 1",
            repr(self.version),
        )
        expect(
            self.version is None or not self.label,
            "a version or a label",
            f"version={self.version!r} and label={self.label!r}",
        )

    def request(self, method: str) -> message.Message:
        """Returns an empty request of a method, addressed to the model."""
        request = _REQUESTS[method]()
        request.model_spec.name = self.name
        if self.version is not None:
            request.model_spec.version.value = self.version
        if self.label:
            request.model_spec.version_label = self.label
        if method == "GetModelMetadata":  # the one field that there is
            request.metadata_field.append("signature_def")
        return request


def _is_text(name):
    """Returns whether a name is one; of a file's bytes some is no text."""
    try:
        return isinstance(name, str) and name.encode() is not None
    except UnicodeEncodeError:
        return False


def opened(
    module: types.ModuleType,
    target: str,
    credentials: grpc.ChannelCredentials | None,
    server_name: str | None = None,
) -> grpc.Channel | grpc.aio.Channel:
    """Returns a channel.

    Args:
      module: `grpc` or `grpc.aio`.
      target: "host:port" or "unix:PATH".
      credentials: as `credentials` returns them.
      server_name: the name in the server's certificate, if it is not the
        target's host.
    """
    options: list[tuple[str, str | int]] = list(_CHANNEL_OPTIONS.items())
    if server_name:
        options.append(("grpc.ssl_target_name_override", server_name))
    if credentials:
        return module.secure_channel(target, credentials, options)
    return module.insecure_channel(target, options)


def credentials(
    tls: bool, ca: Pem | None, certificate: Pem | None, key: Pem | None
) -> grpc.ChannelCredentials | None:
    """Returns gRPC's credentials, or None for a connection in the clear."""
    expect(
        bool(certificate) == bool(key),
        "a certificate and its key, or neither",
        "one of the two",
    )
    if not (tls or ca or certificate):
        return None
    return grpc.ssl_channel_credentials(_pem(ca), _pem(key), _pem(certificate))


def _pem(source):
    """Returns the bytes of a PEM file, or those that were given."""
    if not source:
        return None
    content = source
    if not isinstance(source, bytes):
        try:
            with open(source, "rb") as file:
                content = file.read()
        except OSError as error:
            reason = f"{os.fspath(source)!r} ({error.strerror})"
            expect(False, "a PEM file that can be read", reason)
    is_pem = b"-----BEGIN " in content
    name = "bytes" if source is content else repr(os.fspath(source))
    expect(is_pem, "PEM (-----BEGIN ...)", f"{name} without it")
    return content


def methods(channel: grpc.Channel | grpc.aio.Channel) -> dict[str, Callable]:
    """Returns {method: function that sends it}."""
    prediction = protos.PredictionServiceStub(channel)
    return {
        "Predict": prediction.Predict,
        "GetModelMetadata": prediction.GetModelMetadata,
        "GetModelStatus": protos.ModelServiceStub(channel).GetModelStatus,
    }


def failure(error: grpc.RpcError) -> ServingError:
    """Returns the ServingError of gRPC's."""
    reason = error.details() or "no reason"
    if any(text in reason for text in _NO_GRPC):
        reason = (
            "Expected the server's gRPC port. Received: one that does not "
            "speak gRPC, as that for REST."
        )
        return serving_error("INVALID_ARGUMENT", reason)
    return serving_error(error.code().name, reason)


class Deadline:
    """The time that a call has, retries and parts included.

    Attributes:
      seconds: how long it is as a whole.
    """

    def __init__(self, seconds: float):
        is_number = isinstance(seconds, int | float | np.number)
        expect(
            is_number and math.isfinite(seconds) and seconds > 0,
            "a timeout in seconds above 0",
            repr(seconds),
        )
        self.seconds = float(seconds)
        self._end = time.monotonic() + self.seconds

    def left(self) -> float:
        """Returns the seconds that are left, never below 0."""
        return max(0.0, self._end - time.monotonic())


def pause(error: ServingError, attempt: int, left: float) -> float | None:
    """Returns the seconds to wait before another attempt, or None for none.

    Args:
      error: the ServingError of the last attempt.
      attempt: how many came before it.
      left: seconds until the deadline; a pause is always shorter.
    """
    # What is too large for the server will be so the next time.
    too_large = "larger than max" in error.message
    if error.code not in _RETRIED or too_large:
        return None
    longest = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(attempt, 16))
    # Callers that were refused together must not come back together.
    seconds = random.uniform(0.5, 1.0) * longest
    return seconds if seconds < left else None
