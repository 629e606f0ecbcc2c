"""The REST interface: HTTP calls answered as TensorFlow Serving answers them.

The event loop reads and writes; JSON and TensorFlow run in worker threads, of
which there is a number, with a bounded number of callers waiting for one.
"""

import asyncio
import contextlib
import dataclasses
import logging
import re
import time
import urllib.parse
import zlib

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from ...status import HTTP_STATUS, StatusError, invalid
from . import answers as json_answers
from . import examples as json_examples
from . import tensors as json_tensors
from . import threads as worker_threads

MAX_BODY = 2**31 - 1
# TensorFlow Serving unpacks so many bytes at most.
_MAX_UNPACKED = 100 * 2**20
_API = re.compile(rb"/v1/.*", re.IGNORECASE)
_VERSION = rb"(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"
_POST = re.compile(
    rb"/v1/models/(?P<name>[^/:]+)" + _VERSION + rb":(?P<method>\w+)",
    re.IGNORECASE,
)
_GET = re.compile(
    rb"/v1/models(?:/(?P<name>[^/:]+))?"
    + _VERSION
    + rb"(?:/(?P<method>metadata))?",
    re.IGNORECASE,
)
_METHODS = ("classify", "regress", "predict")
_JSON = {"content-type": "application/json"}
_CORS = {
    "access-control-allow-origin": "*",
    "access-control-allow-methods": "POST, GET",
    "access-control-allow-headers": "Content-Type",
}
_NOT_FOUND = (
    b"<HTML><HEAD>\n<TITLE>404 Not Found</TITLE>\n</HEAD><BODY>\n"
    b"<H1>Not Found</H1>\n</BODY></HTML>\n"
)


def application(
    core,
    *,
    timeout_seconds,
    num_threads,
    enable_cors,
    metrics_path=None,
    metrics=None,
):
    """Returns the ASGI application.

    Args:
      core: what answers; blocking methods `predict`, `classify`, `regress`,
        `get_model_metadata`, `get_model_status` and `signatures` on protos,
        which raise StatusError.
      timeout_seconds: how long a caller waits; 0 or None for as long as it
        takes.
      num_threads: that many calls are worked on at a time; 4 times as many
        and 64 more may wait.
      enable_cors: whether answers allow browsers of other origins.
      metrics_path: where Prometheus reads; None for nowhere.
      metrics: `metrics.Metrics`, needed for metrics_path. Calls that never
        reach `core` are counted here, the others by `core`.
    """
    workers = worker_threads.WorkerThreads(num_threads, 4 * num_threads + 64)
    if metrics is not None:
        metrics.in_progress("REST", workers.in_progress)
    page = metrics and metrics_path and (metrics_path, metrics.text)
    calls = _Calls(core, metrics)
    endpoint = _Endpoint(
        calls, workers, timeout_seconds, enable_cors, page or None
    )

    @contextlib.asynccontextmanager
    async def lifespan(_):
        yield
        workers.close()

    app = Starlette(lifespan=lifespan)
    # Paths are matched as they came on the wire, which Starlette's routes
    # cannot: a model's name may hold an escaped slash.
    app.router.default = endpoint
    return app


class _Endpoint:
    """The HTTP side: which bytes are a call, and how its answer leaves."""

    def __init__(self, calls, workers, timeout_seconds, enable_cors, page):
        self._calls = calls
        self._workers = workers
        self._timeout = timeout_seconds or None
        self._cors = _CORS if enable_cors else {}
        self._page = page

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            return
        with contextlib.suppress(ClientDisconnect):
            response = await self._response(Request(scope, receive))
            await response(scope, receive, send)

    async def _response(self, request):
        path = request.scope.get("raw_path") or request.url.path.encode()
        query = request.scope["query_string"]
        target = path + b"?" + query if query else path
        if self._page and path == self._page[0].encode():
            return await self._metrics(target)
        if not _API.fullmatch(target):
            headers = {"content-type": "text/html", "connection": "close"}
            return Response(_NOT_FOUND, 404, headers)
        if request.method == "OPTIONS":
            # Browsers ask so whether they may call.
            allowed = re.search("https?://", request.headers.get("origin", ""))
            return Response(b"", 200 if allowed else 400, self._cors)
        return await self._call(request, target)

    async def _metrics(self, target):
        path, text = self._page
        headers = {"content-type": "text/plain"}
        if target != path.encode():
            shown = target.decode("utf-8", "replace")
            message = f"Unexpected path: {shown}. Should be {path}"
            return Response(message, 400, headers)
        page = await asyncio.get_running_loop().run_in_executor(None, text)
        return Response(page, 200, headers)

    async def _call(self, request, target):
        arrival = time.monotonic()
        try:
            body = await _body(request)
        except StatusError as error:  # what is left of the body stays unread
            return self._failure(error, {"connection": "close"})
        gzipped = "gzip" in request.headers.get("content-encoding", "")
        call = _Call(request.method, target, body, gzipped, arrival)
        try:
            answer = await self._workers.run(
                lambda deadline: self._calls.answer(call, deadline),
                self._timeout,
            )
        except StatusError as error:
            return self._failure(error, {})
        except Exception as error:
            logging.exception("REST: %r failed", target)
            text = f"Internal error: {type(error).__name__}"
            return self._failure(StatusError("INTERNAL", text), {})
        return Response(answer, 200, {**_JSON, **self._cors})

    def _failure(self, error, headers):
        return Response(
            json_answers.error(error.message),
            HTTP_STATUS[error.code],
            {**_JSON, **self._cors, **headers},
        )


async def _body(request):
    too_long = invalid(f"Request body is longer than {MAX_BODY} bytes.")
    declared = request.headers.get("content-length", "0")
    if not declared.isdecimal() or int(declared) > MAX_BODY:
        raise too_long
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY:
            raise too_long
    return body


@dataclasses.dataclass(frozen=True)
class _Call:
    """What came over HTTP.

    Attributes:
      verb: such as "GET".
      target: path and query as they came, bytes.
      body: bytes.
      gzipped: whether `body` is.
      arrival: a time of time.monotonic().
    """

    verb: str
    target: bytes
    body: bytes
    gzipped: bool
    arrival: float


class _Calls:
    """The serving side: a call as a proto, the core's answer as JSON."""

    def __init__(self, core, metrics):
        self._core = core
        self._metrics = metrics

    def answer(self, call, deadline):
        """Returns the body that answers a call; blocks.

        Args:
          call: `_Call`.
          deadline: a time of time.monotonic(), or None.

        Raises:
          StatusError: the call failed.
        """
        match = {"POST": _POST, "GET": _GET}.get(call.verb)
        match = match and match.fullmatch(call.target)
        method = match and (match.group("method") or b"").decode()
        if call.verb == "POST" and method in _METHODS:
            return self._post(call, match, method, deadline)
        with self._counted(_name(match), "", call.arrival, True):
            if call.verb == "GET" and match:
                return self._get(_model_spec(match), method)
            shown = call.target.decode("utf-8", "replace")
            raise invalid(f"Malformed request: {call.verb} {shown}")

    def _get(self, spec, method):
        from tensorflow_serving.apis import (
            get_model_metadata_pb2,
            get_model_status_pb2,
        )

        if not spec.name:
            raise invalid("Missing model name in request.")
        if method:
            request = get_model_metadata_pb2.GetModelMetadataRequest(
                model_spec=spec, metadata_field=["signature_def"]
            )
            response = self._core.get_model_metadata(request)
            return json_answers.model_metadata(response)
        request = get_model_status_pb2.GetModelStatusRequest(model_spec=spec)
        return json_answers.model_status(self._core.get_model_status(request))

    def _post(self, call, match, method, deadline):
        with self._counted(_name(match), method, call.arrival, False):
            body = _unpacked(call.body) if call.gzipped else call.body
            request, form = self._request(method, _model_spec(match), body)
            seconds = worker_threads.seconds_left(deadline)
        if method == "predict":
            response = self._core.predict(
                request, seconds, entrypoint="REST", as_content=True
            )
            return json_answers.predict(response, form)
        run = getattr(self._core, method)
        response = run(request, seconds, entrypoint="REST")
        if method == "classify":
            return json_answers.classification(response)
        return json_answers.regression(response)

    def _request(self, method, spec, body):
        if method == "predict":
            return json_tensors.predict_request(body, spec, self._inputs)
        if method == "classify":
            return json_examples.classification_request(body, spec), None
        return json_examples.regression_request(body, spec), None

    def _inputs(self, spec):
        signatures = self._core.signatures(spec)
        name = spec.signature_name or "serving_default"
        if name not in signatures:
            raise invalid(
                f'Serving signature name: "{name}" not found in signature def'
            )
        return signatures[name].inputs

    @contextlib.contextmanager
    def _counted(self, name, method, arrival, successes):
        """Counts a failure, and a success if asked to: the core counts its."""
        status = "OK"
        try:
            yield
        except Exception as error:
            status = getattr(error, "code", "INTERNAL")
            raise
        finally:
            if self._metrics and (successes or status != "OK"):
                seconds = time.monotonic() - arrival
                self._metrics.request(name, method, "REST", status, seconds)


def _name(match):
    return _unescaped(match.group("name") or b"") if match else ""


def _unescaped(part):
    return urllib.parse.unquote_to_bytes(part).decode("utf-8", "replace")


def _model_spec(match):
    from tensorflow_serving.apis import model_pb2

    spec = model_pb2.ModelSpec(name=_name(match))
    version, label = match.group("version"), match.group("label")
    if version is not None:
        digits = version.lstrip(b"0")
        if len(digits) > 19 or int(digits or b"0") >= 2**63:
            raise invalid(
                f"Failed to convert version: {version.decode()} to numeric."
            )
        spec.version.value = int(digits or b"0")
    if label is not None:
        spec.version_label = _unescaped(label)
    return spec


def _unpacked(body):
    """Returns what a gzip body holds; nothing if it is broken or too much."""
    unpacker = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    try:
        content = unpacker.decompress(body, _MAX_UNPACKED)
    except zlib.error:
        return b""
    return content if unpacker.eof else b""
