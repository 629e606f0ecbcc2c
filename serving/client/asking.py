"""What a client asks, however it is sent: retries, readiness, large batches.

Everything is written once, as coroutines. `AsyncClient` awaits them; those of
`Client` never suspend, since its sending and its sleeping block.
"""

import abc
from collections.abc import Coroutine, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .. import tensors
from . import calls as client_calls
from . import channel as client_channel
from .errors import (
    DeadlineExceeded,
    FailedPrecondition,
    ServingError,
    expect,
)

_DEFAULT = "serving_default"
_ABOUT = "about"
_Answer = dict[str, np.ndarray]
# After these the model may be another one than the client remembers.
_STALE = ("INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION")
# What a server may say of a model that is on its way.
_NOT_YET = (
    "UNAVAILABLE",
    "NOT_FOUND",
    "DEADLINE_EXCEEDED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
)
_BETWEEN_LOOKS = 0.1  # seconds
_LONGEST_LOOK = 2.0


class Calls(abc.ABC):
    """Every call of a client, whichever way it is sent."""

    def __init__(
        self,
        target: str,
        model_name: str,
        *,
        version: int | None = None,
        label: str | None = None,
        timeout: float = 10.0,
        max_batch_size: int = 64,
        tls: bool = False,
        ca: client_channel.Pem | None = None,
        certificate: client_channel.Pem | None = None,
        key: client_channel.Pem | None = None,
        server_name: str | None = None,
    ):
        """Prepares a connection; nothing is sent yet.

        Args:
          target: "host:port" or "unix:/path/of/the/socket".
          model_name: the name that the server knows the model by.
          version: a version's number, or
          label: its label, as "stable"; with neither the newest answers.
          timeout: seconds that a call has altogether, retries, pauses and all
            parts of a large batch included. Each call can have its own.
          max_batch_size: more examples than this are sent in several
            requests. While a server swaps versions, they may be answered by
            two; a `version` prevents it.
          tls: encrypt, and trust the authorities that gRPC brings along.
          ca: trust these instead: a PEM file's path, or its bytes. It and the
            next two imply tls.
          certificate, key: for mutual TLS: who the client is.
          server_name: the name in the server's certificate, where it is not
            the target's host.

        Raises:
          InvalidArgument: an argument is wrong, or a file cannot be read.
        """
        expect(
            isinstance(target, str) and target and "://" not in target,
            "a target as host:port or unix:PATH, of the gRPC port",
            repr(target),
        )
        expect(
            isinstance(max_batch_size, int) and max_batch_size > 0,
            "a max_batch_size above 0",
            repr(max_batch_size),
        )
        self._target = target
        self._model = client_channel.Model(model_name, version, label)
        self._timeout = client_channel.Deadline(timeout).seconds
        self._max_batch_size = max_batch_size
        self._credentials = client_channel.credentials(
            tls, ca, certificate, key
        )
        self._server_name = server_name
        self._metadata: client_calls.Metadata | None = None
        self._closed = False
        self._start()

    @abc.abstractmethod
    def _start(self) -> None:
        """Opens the channel, or leaves it to the first call."""

    @abc.abstractmethod
    def _run(self, coroutine: Coroutine) -> Any:
        """Returns what a coroutine returns, or it, to be awaited."""

    @abc.abstractmethod
    async def _send(self, method: str, request: Any, seconds: float) -> Any:
        """Returns the response to a request; what fails is a ServingError."""

    @abc.abstractmethod
    async def _sleep(self, seconds: float) -> None: ...

    def predict(
        self,
        images: ArrayLike,
        outputs: Iterable[str] | None = None,
        *,
        signature: str = _DEFAULT,
        timeout: float | None = None,
    ) -> _Answer:
        """Returns the answer to images, {output: array [n, ...]}.

        Args:
          images: float [n, H, W, C] in [0, 1].
          outputs: names of the outputs to answer; None for all.
          signature: "serving_default" for predictions and attention,
            "predict" for predictions alone, "monitor", or one of your own.
          timeout: seconds, if others than the client's.

        Raises:
          ServingError: one of its kinds, with the server's reason.
        """
        inputs = {"images": images}
        return self.call(signature, inputs, outputs, timeout=timeout)

    def explain(
        self,
        images: ArrayLike,
        labels: ArrayLike,
        outputs: Iterable[str] | None = None,
        *,
        timeout: float | None = None,
    ) -> _Answer:
        """Returns "attention", "attention_raw" and "logits" of given classes.

        Args:
          images: float [n, H, W, C] in [0, 1].
          labels: integers [n].
          outputs, timeout, and what is raised: as `predict`.
        """
        inputs = {"images": images, "labels": labels}
        return self.call("explain", inputs, outputs, timeout=timeout)

    def decode_predict(
        self,
        image_bytes: list[bytes],
        outputs: Iterable[str] | None = None,
        *,
        timeout: float | None = None,
    ) -> _Answer:
        """Returns the answer to image files, as `predict`.

        Args:
          image_bytes: list of n bytes objects, each a whole PNG or JPEG file.
          outputs, timeout, and what is raised: as `predict`.
        """
        inputs = {"image_bytes": image_bytes}
        return self.call("decode_predict", inputs, outputs, timeout=timeout)

    def class_names(self, *, timeout: float | None = None) -> list[str] | None:
        """Returns the names of the model's classes, None if it has none.

        They are asked of the signature `about`, which our exports have.

        Raises:
          ServingError: one of its kinds.
        """
        return self._run(self._class_names(timeout))

    def call(
        self,
        signature: str,
        inputs: Mapping[str, ArrayLike],
        outputs: Iterable[str] | None = None,
        *,
        timeout: float | None = None,
    ) -> _Answer:
        """Returns {output: array} of any signature.

        Inputs are checked against the model's metadata before they are sent.

        Args:
          signature: its name.
          inputs: {name: array, or nested lists}.
          outputs, timeout, and what is raised: as `predict`.
        """
        return self._run(self._call(signature, inputs, outputs, timeout))

    def metadata(
        self, *, timeout: float | None = None
    ) -> client_calls.Metadata:
        """Returns the client_calls.Metadata of the version that would answer.

        Raises:
          ServingError: one of its kinds.
        """
        return self._run(self._fetch_metadata(self._deadline(timeout)))

    def status(
        self, *, timeout: float | None = None
    ) -> list[client_calls.VersionStatus]:
        """Returns a client_calls.VersionStatus of each version, newest first.

        A `version` of the client's picks one, a label none.

        Raises:
          ServingError: one of its kinds.
        """
        return self._run(self._status(self._deadline(timeout)))

    def wait_until_ready(self, timeout: float | None = None) -> int:
        """Returns the number of the version that is ready to answer.

        Waits for it, and for a server that has not opened its port yet.

        Raises:
          DeadlineExceeded: not ready in time; the text says how it stands.
          ServingError: it never will be, as when the caller may not ask.
        """
        return self._run(self._wait_until_ready(self._deadline(timeout)))

    async def _call(self, name, inputs, outputs, timeout):
        deadline = self._deadline(timeout)
        outputs = None if outputs is None else list(outputs)
        parts = await self._checked_parts(name, inputs, outputs, deadline)
        answers = []
        for arrays, _ in parts:
            request = self._predict_request(name, arrays, outputs)
            try:
                response = await self._attempt("Predict", request, deadline)
            except ServingError as error:
                if error.code in _STALE:
                    self._metadata = None
                raise
            self._forget_other(response.model_spec.version.value)
            answers.append(client_calls.answer(response))
        return client_calls.joined(answers, [count for _, count in parts])

    async def _class_names(self, timeout):
        metadata = await self._fetch_metadata(self._deadline(timeout))
        default = client_calls.signature(metadata, _DEFAULT)
        spec = default.outputs.get("probabilities")
        shape = spec.shape if spec else None
        if _ABOUT not in metadata.signatures or not shape or shape[-1] < 1:
            return None
        inputs = {"labels": np.arange(shape[-1])}
        answer = await self._call(_ABOUT, inputs, ["class_names"], timeout)
        return [name.decode() for name in answer["class_names"]]

    async def _checked_parts(self, name, inputs, outputs, deadline):
        remembered = self._metadata
        if remembered:
            try:
                return self._parts(remembered, name, inputs, outputs)
            except ServingError:
                pass  # the model may have changed: look once more
        metadata = await self._fetch_metadata(deadline)
        return self._parts(metadata, name, inputs, outputs)

    def _parts(self, metadata, name, inputs, outputs):
        signature = client_calls.signature(metadata, name)
        arrays = client_calls.checked_inputs(signature, inputs, outputs)
        return client_calls.parts(signature, arrays, self._max_batch_size)

    async def _fetch_metadata(self, deadline):
        request = self._model.request("GetModelMetadata")
        response = await self._attempt("GetModelMetadata", request, deadline)
        self._metadata = metadata = client_calls.metadata(response)
        return metadata

    def _forget_other(self, version):
        remembered = self._metadata
        if remembered and remembered.version != version:
            self._metadata = None

    async def _status(self, deadline):
        request = self._model.request("GetModelStatus")
        return client_calls.statuses(
            await self._attempt("GetModelStatus", request, deadline)
        )

    async def _wait_until_ready(self, deadline):
        while True:
            look = min(_LONGEST_LOOK, deadline.left())
            try:
                version, seen = await self._look(look)
                if version is not None:
                    return version
            except ServingError as error:
                # A label is unknown until its version is there.
                unknown = self._model.label and error.code == "INVALID_ARGUMENT"
                if error.code not in _NOT_YET and not unknown:
                    raise
                seen = str(error)
            if deadline.left() <= _BETWEEN_LOOKS:
                raise DeadlineExceeded(
                    "DEADLINE_EXCEEDED",
                    f"Expected model {self._model.name!r} ready at "
                    f"{self._target} within {deadline.seconds:g} s. Received: "
                    f"{seen}.",
                )
            await self._sleep(_BETWEEN_LOOKS)

    async def _look(self, seconds):
        """Returns the version that is ready, or None, and what was seen."""
        if self._model.label:  # status knows no labels, metadata does
            request = self._model.request("GetModelMetadata")
            response = await self._send("GetModelMetadata", request, seconds)
            return response.model_spec.version.value, ""
        request = self._model.request("GetModelStatus")
        response = await self._send("GetModelStatus", request, seconds)
        versions = client_calls.statuses(response)
        ready = [one.version for one in versions if one.state == "AVAILABLE"]
        seen = ", ".join(
            f"version {one.version} {one.state} {one.error_message}".strip()
            for one in versions
        )
        return (max(ready) if ready else None), seen or "no version"

    async def _attempt(self, method, request, deadline):
        """Returns a response, after as many attempts as there is time for."""
        attempt = 0
        while True:
            left = deadline.left()
            if not left:
                raise DeadlineExceeded(
                    "DEADLINE_EXCEEDED",
                    f"Expected all answers within {deadline.seconds:g} s. "
                    "Received: a part of them.",
                )
            try:
                return await self._send(method, request, left)
            except ServingError as error:
                seconds = client_channel.pause(error, attempt, deadline.left())
                if seconds is None:
                    raise
            await self._sleep(seconds)
            attempt += 1

    def _predict_request(self, name, arrays, outputs):
        request = self._model.request("Predict")
        request.model_spec.signature_name = name
        for key, array in arrays.items():
            tensors.to_proto(array, request.inputs[key])
        request.output_filter.extend(outputs or ())
        return request

    def _deadline(self, timeout):
        return client_channel.Deadline(
            self._timeout if timeout is None else timeout
        )

    def _check_open(self):
        if self._closed:
            raise FailedPrecondition(
                "FAILED_PRECONDITION",
                "Expected an open client. Received: a closed one.",
            )
