"""PredictionService, ModelService and health over gRPC.

Translates: a message and its deadline in, a message or a status out. How many
calls run at a time, and how many may wait, is `Gate`'s to say.
"""

import contextlib
import logging
import threading

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from tensorflow_serving.apis import (
    model_service_pb2_grpc,
    prediction_service_pb2_grpc,
)

from ..status import StatusError

HEALTH_NAMES = (
    "",
    "tensorflow.serving.PredictionService",
    "tensorflow.serving.ModelService",
)
_MAX_ERROR_CHARACTERS = 1024
# Answers that come this much before the deadline still reach the caller.
_MARGIN_SECONDS = 0.05


class Gate:
    """Lets so many calls run, so many more wait, and refuses the rest.

    Args:
      slots: calls that run at a time.
      waiting: calls that may wait for a slot.
    """

    def __init__(self, slots, waiting):
        self.capacity = slots + waiting
        self._inside = 0
        self._lock = threading.Lock()
        self._slots = threading.Semaphore(slots)

    @contextlib.contextmanager
    def admitted(self, timeout_seconds):
        """Waits for a slot and holds it.

        Args:
          timeout_seconds: what is left of the caller's deadline, or None.

        Raises:
          StatusError: RESOURCE_EXHAUSTED, too many wait already or no slot
            became free before the deadline.
        """
        with self._lock:
            if self._inside >= self.capacity:
                raise _exhausted()
            self._inside += 1
        try:
            if timeout_seconds is not None:
                margin = min(_MARGIN_SECONDS, timeout_seconds / 10)
                timeout_seconds = max(0.0, timeout_seconds - margin)
            if not self._slots.acquire(timeout=timeout_seconds):
                raise _exhausted()
            try:
                yield
            finally:
                self._slots.release()
        finally:
            with self._lock:
                self._inside -= 1


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    """tensorflow.serving.PredictionService.

    Args:
      inference: Inference.
      gate: Gate.
    """

    def __init__(self, inference, gate):
        self._inference = inference
        self._gate = gate

    def Predict(self, request, context):
        return self._run(self._inference.predict, request, context)

    def Classify(self, request, context):
        return self._run(self._inference.classify, request, context)

    def Regress(self, request, context):
        return self._run(self._inference.regress, request, context)

    def MultiInference(self, request, context):
        return self._run(self._inference.multi_inference, request, context)

    def GetModelMetadata(self, request, context):
        with _statuses(context):
            return self._inference.get_model_metadata(request)

    def _run(self, function, request, context):
        with _statuses(context):
            with self._gate.admitted(_remaining(context)):
                return function(request, _remaining(context))


class ModelService(model_service_pb2_grpc.ModelServiceServicer):
    """tensorflow.serving.ModelService.

    Args:
      inference: Inference.
    """

    def __init__(self, inference):
        self._inference = inference

    def GetModelStatus(self, request, context):
        with _statuses(context):
            return self._inference.get_model_status(request)

    def HandleReloadConfigRequest(self, request, context):
        with _statuses(context):
            return self._inference.reload(request, _remaining(context))


def add_services(server, inference, gate, with_health=False):
    """Registers the services with a grpc.Server.

    Returns:
      The HealthServicer, or None without `with_health`.
    """
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
        PredictionService(inference, gate), server
    )
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(
        ModelService(inference), server
    )
    if not with_health:
        return None
    servicer = health.HealthServicer()
    for name in HEALTH_NAMES:
        servicer.set(name, health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    return servicer


@contextlib.contextmanager
def _statuses(context):
    """Ends the call with the status that a StatusError stands for."""
    try:
        yield
    except StatusError as error:
        message = error.message
        if len(message) > _MAX_ERROR_CHARACTERS:
            message = message[:_MAX_ERROR_CHARACTERS] + "...TRUNCATED"
        context.abort(grpc.StatusCode[error.code], message)
    except Exception as error:
        if not context.is_active():
            raise
        logging.exception("A call failed in a way that it should not")
        context.abort(grpc.StatusCode.INTERNAL, f"{type(error).__name__}")


def _remaining(context):
    """Returns the seconds until a call's deadline, or None if it has none."""
    seconds = context.time_remaining()
    # Without a deadline gRPC tells billions of years, which no lock can wait.
    return None if seconds > threading.TIMEOUT_MAX else seconds


def _exhausted():
    return StatusError("RESOURCE_EXHAUSTED", "Server Threadpool Exhausted")
