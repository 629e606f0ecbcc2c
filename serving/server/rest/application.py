"""The REST interface: answers HTTP calls as TensorFlow Serving does."""

import asyncio
import functools
import logging
import re
import time
import urllib.parse

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
)

from ...status import HTTP_STATUS, StatusError, invalid
from .. import threads, waiting_room
from . import bodies

_TARGET = re.compile(
    rb"/v1/models(?:/(?P<name>[^/:]+))?"
    rb"(?:/versions/(?P<version>[0-9]+)|/labels/(?P<label>[^/:]+))?"
    rb"(?P<method>/metadata|:\w+)?",
    re.IGNORECASE,
)
_REMOVED = (b":classify", b":regress")
# The loop itself reads such a body, in a millisecond or two.
_FEW_BYTES = 2**16


class Application(Starlette):
    """The ASGI application."""

    def __init__(
        self,
        core: object,
        *,
        timeout_seconds: float,
        arrival_seconds: float,
        max_bytes: int,
        metrics_path: str | None = None,
    ):
        """Takes what answers.

        Args:
          core: inference.Inference, which both protocols call.
          timeout_seconds: how long a caller waits; 0 for as long as it takes.
          arrival_seconds: how long a body may take to come.
          max_bytes: of a body.
          metrics_path: where Prometheus reads; None for nowhere.
        """
        super().__init__()
        self._core = core
        self._timeout = timeout_seconds or None
        self._arrival_seconds = arrival_seconds
        self._max_bytes = max_bytes
        self._metrics_path = metrics_path
        # Of bodies that have not come whole; connections bound their number.
        self._arriving = waiting_room.WaitingRoom(2**31, core.room.max_bytes)
        # Paths are matched as they came on the wire, which Starlette's routes
        # cannot: a model's name may hold an escaped slash.
        self.router.default = self._respond

    async def _respond(self, scope, receive, send):
        request = Request(scope, receive)
        try:
            response = await self._response(request)
            async with asyncio.timeout(self._timeout):
                await response(scope, receive, send)
        except TimeoutError:
            return  # of an answer that nobody reads the rest is dropped

    async def _response(self, request):
        target = request.scope["raw_path"]
        if self._metrics_path and target == self._metrics_path.encode():
            headers = {"content-type": "text/plain; version=0.0.4"}
            return Response(self._core.metrics.text(), 200, headers)
        if not target.lower().startswith(b"/v1/"):
            return Response("Not Found", 404, {"connection": "close"})
        headers = {"content-type": "application/json"}
        try:
            body = await self._answer(request, _TARGET.fullmatch(target))
            return Response(body, 200, headers)
        except StatusError as error:
            status, text = HTTP_STATUS[error.code], error.message
            threads.let_go(error)
        except Exception as error:
            logging.exception("A call failed in a way that it should not")
            status, text = 500, f"Internal error: {type(error).__name__}"
        if not getattr(request.state, "is_read", True):
            headers["connection"] = "close"
        return Response(bodies.error(text), status, headers)

    async def _answer(self, request, match):
        method = (match and match["method"]) or b""
        name = _unescaped(match["name"] or b"") if match else ""
        api = "Predict" if method == b":predict" else ""
        with self._core.counted(name, api, "REST"):
            if request.method == "POST" and method == b":predict":
                return await self._predict(request, _spec(match))
            if request.method == "POST" and method in _REMOVED:
                raise StatusError("UNIMPLEMENTED", "Only predict is served.")
            if not match or request.method != "GET" or method[:1] == b":":
                path = request.scope["raw_path"].decode("utf-8", "replace")
                raise invalid(f"Malformed request: {request.method} {path}")
            if not name:
                raise invalid("Missing model name in request.")
            spec = _spec(match)
            if method:
                return bodies.model_metadata(
                    self._core.get_model_metadata(
                        get_model_metadata_pb2.GetModelMetadataRequest(
                            model_spec=spec, metadata_field=["signature_def"]
                        )
                    )
                )
            return bodies.model_status(
                self._core.get_model_status(
                    get_model_status_pb2.GetModelStatusRequest(model_spec=spec)
                )
            )

    async def _predict(self, request, spec):
        deadline = self._timeout and time.monotonic() + self._timeout
        body = await self._body(request)
        encoding = request.headers.get("content-encoding", "identity").lower()
        if encoding not in ("identity", "gzip"):
            raise invalid(
                "Expected the content-encoding gzip or none. Received: "
                f"{encoding!r}."
            )
        place = self._core.room.enter(len(body))
        work = asyncio.ensure_future(
            self._run(body, encoding == "gzip", spec, place, deadline)
        )
        gone = asyncio.ensure_future(_left(request))
        try:
            async with asyncio.timeout(self._timeout):
                await asyncio.wait(
                    (work, gone), return_when=asyncio.FIRST_COMPLETED
                )
            if not work.done():
                raise _gone()
            return work.result()
        except TimeoutError:
            raise StatusError(
                "DEADLINE_EXCEEDED", "The call took too long."
            ) from None
        finally:
            work.cancel()
            gone.cancel()

    async def _run(self, body, is_gzipped, spec, place, deadline):
        at_once = not is_gzipped and len(body) <= _FEW_BYTES
        try:
            asked = await self._core.worker.do(
                at_once, bodies.document, body, is_gzipped, self._max_bytes
            )
        except BaseException:
            place.leave()
            raise
        return await self._core.run(
            spec,
            functools.partial(bodies.plan_of, asked=asked),
            2 * asked.size,
            asked.size <= _FEW_BYTES,
            bodies.writer(asked),
            place,
            deadline,
        )

    async def _body(self, request):
        request.state.is_read = False
        too_long = invalid(
            f"Request body is longer than {self._max_bytes} bytes."
        )
        declared = request.headers.get("content-length", "0")
        if not declared.isdecimal() or int(declared) > self._max_bytes:
            raise too_long
        body, place = bytearray(), self._arriving.enter(0)
        try:
            async with asyncio.timeout(self._arrival_seconds):
                async for chunk in request.stream():
                    place.grow(len(chunk))
                    body += chunk
                    if len(body) > self._max_bytes:
                        raise too_long
        except TimeoutError:
            raise StatusError(
                "DEADLINE_EXCEEDED", "The request did not arrive in time."
            ) from None
        except ClientDisconnect:
            raise _gone() from None
        finally:
            place.leave()
        request.state.is_read = True
        return bytes(body)


def _gone():
    return StatusError("CANCELLED", "The caller has gone.")


async def _left(request):
    """Returns when a caller whose body was read has gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _unescaped(part):
    return urllib.parse.unquote_to_bytes(part).decode("utf-8", "replace")


def _spec(match):
    """Returns the ModelSpec that a path names."""
    spec = model_pb2.ModelSpec(name=_unescaped(match["name"] or b""))
    if match["version"] is not None:
        digits = match["version"].lstrip(b"0") or b"0"
        if len(digits) > 19 or int(digits) >= 2**63:
            raise invalid(
                f"Failed to convert version: {digits.decode()} to numeric."
            )
        spec.version.value = int(digits)
    if match["label"] is not None:
        spec.version_label = _unescaped(match["label"])
    return spec
