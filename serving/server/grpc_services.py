"""PredictionService, ModelService and health over gRPC, in the event loop.

Translates: a message and its deadline in, a message or a status out.

Each method is declared as one that takes a stream of requests, and reads the
first. On the wire that is the same, and so a call is seen when it begins, not
when its message has come: what begins and never comes can be bounded.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

import grpc
from google.protobuf import message
from grpc_health.v1 import health_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_management_pb2,
    predict_pb2,
)

from ..status import StatusError, invalid
from . import inference, threads

_PREDICTION = "tensorflow.serving.PredictionService"
_MODELS = "tensorflow.serving.ModelService"
_HEALTH = "grpc.health.v1.Health"
HEALTH_NAMES = ("", "PredictionService", "ModelService")
_MAX_ERROR_CHARACTERS = 1024
# Calls whose message has not come. Beyond the first number the one that began
# first is ended, if it has had its second; beyond the other the new one.
_ARRIVING, _MOST_ARRIVING = 256, 4096
_LONG_ENOUGH_SECONDS = 1.0


class Arrivals:
    """Waits for the messages of calls that have begun."""

    def __init__(self, seconds: float):
        """Takes how long a message may take to come."""
        self._seconds = seconds
        self._timeouts = {}  # asyncio.Timeout -> when its call began

    async def message(self, context: grpc.aio.ServicerContext) -> bytes:
        """Returns the first of a call's messages.

        Raises:
          StatusError: DEADLINE_EXCEEDED, it came too late; INVALID_ARGUMENT,
            there is none; RESOURCE_EXHAUSTED, there are too many such calls.
        """
        if len(self._timeouts) >= _MOST_ARRIVING:
            raise StatusError("RESOURCE_EXHAUSTED", "Too many calls begin.")
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._seconds) as timeout:
                self._timeouts[timeout] = loop.time()
                self._end_oldest(loop.time())
                try:
                    raw = await context.read()
                finally:
                    del self._timeouts[timeout]
        except TimeoutError:
            raise StatusError(
                "DEADLINE_EXCEEDED", "The request did not arrive in time."
            ) from None
        if raw is grpc.aio.EOF:
            raise invalid("Expected a message. Received: none.")
        return raw

    def _end_oldest(self, now):
        if len(self._timeouts) > _ARRIVING:
            oldest, begin = next(iter(self._timeouts.items()))
            if now - begin > _LONG_ENOUGH_SECONDS and not oldest.expired():
                oldest.reschedule(now)


class Services:
    """The services of one server.

    Attributes:
      is_draining: whether health tells callers to go elsewhere.
    """

    def __init__(self, core: inference.Inference, arrivals: Arrivals):
        self.is_draining = False
        self._core = core
        self._arrivals = arrivals

    def add_to(self, server: grpc.aio.Server, with_health: bool) -> None:
        """Registers the services."""
        core = self._core
        metadata = get_model_metadata_pb2.GetModelMetadataRequest
        status = get_model_status_pb2.GetModelStatusRequest
        reload = model_management_pb2.ReloadConfigRequest
        check = health_pb2.HealthCheckRequest
        methods = [
            (_PREDICTION, "Predict", predict_pb2.PredictRequest, self._predict),
            (
                _PREDICTION,
                "GetModelMetadata",
                metadata,
                _plain(core.get_model_metadata),
            ),
            (_MODELS, "GetModelStatus", status, _plain(core.get_model_status)),
            (_MODELS, "HandleReloadConfigRequest", reload, self._reload),
        ]
        if with_health:
            methods.append((_HEALTH, "Check", check, _plain(self._health)))
        for service, name, kind, answer in methods:
            method = grpc.stream_unary_rpc_method_handler(
                self._handler(kind, answer)
            )
            handler = grpc.method_handlers_generic_handler(
                service, {name: method}
            )
            server.add_generic_rpc_handlers([handler])

    def _handler(
        self,
        kind: type[message.Message],
        answer: Callable[..., Awaitable[bytes]],
    ) -> Callable[..., Awaitable[bytes]]:
        async def handle(_, context):
            try:
                return await self._answered(kind, answer, context)
            except StatusError as error:
                code, text = error.code, error.message
                threads.let_go(error)
            except Exception as error:
                logging.exception("A call failed in a way that it should not")
                code, text = "INTERNAL", type(error).__name__
            if len(text) > _MAX_ERROR_CHARACTERS:
                text = text[:_MAX_ERROR_CHARACTERS] + "...TRUNCATED"
            # Not in the `except`: gRPC keeps what is caught until the garbage
            # is collected.
            try:
                await context.abort(grpc.StatusCode[code], text)
            except grpc.aio.AbortError:
                raise  # so gRPC ends a call
            except Exception as error:
                # The caller went in the meantime; gRPC would log a traceback.
                raise asyncio.CancelledError from error

        return handle

    async def _answered(self, kind, answer, context):
        raw = await self._arrivals.message(context)
        place = self._core.room.enter(len(raw))
        try:
            parsed = await self._parsed(kind, raw)
        except BaseException:
            place.leave()
            raise
        return await answer(parsed, place, context)

    async def _parsed(self, kind, raw):
        try:
            is_small = len(raw) <= inference.FEW_BYTES
            return await self._core.worker.do(is_small, kind.FromString, raw)
        except message.DecodeError:
            raise StatusError(
                "INTERNAL", "Exception deserializing request!"
            ) from None

    async def _predict(self, request, place, context):
        return await self._core.predict(request, place, _deadline(context))

    async def _reload(self, request, place, context):
        place.leave()  # it may wait for long
        left = context.time_remaining()
        try:
            async with asyncio.timeout(left):
                response = await self._core.reload(request)
        except TimeoutError:
            raise StatusError(
                "DEADLINE_EXCEEDED", "Still waiting for models"
            ) from None
        return response.SerializeToString()

    def _health(self, request):
        if request.service not in HEALTH_NAMES:
            raise StatusError("NOT_FOUND", "unknown service")
        statuses = health_pb2.HealthCheckResponse
        status = "NOT_SERVING" if self.is_draining else "SERVING"
        return statuses(status=statuses.ServingStatus.Value(status))


def _plain(function):
    """Returns the answer of a function that needs no waiting."""

    async def answer(request, place, _):
        place.leave()
        return function(request).SerializeToString()

    return answer


def _deadline(context):
    left = context.time_remaining()
    return None if left is None else time.monotonic() + left
