"""What every protocol of the server calls: requests in, responses out.

Looks the model up, has the call run and counts it; gRPC and REST only
translate. All in the event loop.
"""

import asyncio
import contextlib
import functools
import time
from collections.abc import Callable, Mapping

from google.protobuf import message
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_management_pb2,
    model_pb2,
    predict_pb2,
)

from ..status import StatusError, invalid
from . import batching, metrics, prediction, threads, waiting_room
from .versions import manager as model_manager
from .versions import policy as version_policy

# The loop itself turns such a message into arrays, in a millisecond or two.
FEW_BYTES = 2**21
_SIGNATURE_DEF = "signature_def"
_SHIFT = "attention_shift"
# Seconds before its deadline at which a cancelled call may be seen.
_SLACK = 0.05


class Inference:
    """The calls of PredictionService and ModelService.

    Attributes:
      room: where the calls of both protocols wait.
      worker: that reads large requests.
      metrics: that count the calls.
    """

    def __init__(
        self,
        manager: model_manager.ModelManager,
        runners: batching.Runners,
        room: waiting_room.WaitingRoom,
        as_content: bool = False,
    ):
        """Starts the worker.

        Args:
          manager: of the models.
          runners: that run the calls.
          room: where they wait.
          as_content: whether gRPC's answers hold raw bytes.
        """
        self.room = room
        self.worker = threads.Worker("large-requests")
        self.metrics = metrics.Metrics(manager.model_names, lambda: room.calls)
        self._manager = manager
        self._runners = runners
        self._as_content = as_content

    async def predict(
        self,
        request: predict_pb2.PredictRequest,
        place: waiting_room.Place,
        deadline: float | None = None,
    ) -> bytes:
        """Returns the serialized PredictResponse; arguments as of `run`."""
        spec = request.model_spec

        def plan_of(signatures):
            return prediction.plan_of(signatures, request)

        def write(version, plan, outputs):
            return prediction.answer(
                spec, version.number, plan, outputs, self._as_content
            )

        with self.counted(spec.name, "Predict", "GRPC", deadline):
            try:
                size = prediction.size_of(request)
            except StatusError:
                place.leave()
                raise
            return await self.run(
                spec, plan_of, size, size <= FEW_BYTES, write, place, deadline
            )

    async def run(
        self,
        spec: model_pb2.ModelSpec,
        plan_of: Callable[[Mapping[str, message.Message]], prediction.Plan],
        size: int,
        at_once: bool,
        write: Callable[..., bytes],
        place: waiting_room.Place,
        deadline: float | None = None,
    ) -> bytes:
        """Returns the answer to a request.

        Args:
          spec: of the request.
          plan_of: signatures -> the Plan.
          size: bytes that the Plan takes.
          at_once: whether making it takes so little that the loop does it.
          write: (Version, Plan, outputs) -> the answer.
          place: the call's; left when the model is free again.
          deadline: a time of time.monotonic(), or None.

        Raises:
          StatusError: the request does not fit, no such model, or the graph's
            own.
        """
        with contextlib.ExitStack() as held:
            held.callback(place.leave)
            place.grow(size)
            version = held.enter_context(self._manager.pinned(spec))
            plan = await self.worker.do(
                at_once, plan_of, version.servable.signatures
            )
            finish = functools.partial(self._finished, write, version, plan)
            call = self._call(version, plan, finish, deadline)
            return await self._answer(call, held)

    def _finished(self, write, version, plan, outputs):
        limit = version.servable.shift_limit
        if limit is not None and _SHIFT in plan.aliases:
            shifts = outputs[plan.aliases.index(_SHIFT)]
            above = int((shifts > limit).sum())
            self.metrics.monitored(version.name, len(shifts), above)
        return write(version, plan, outputs)

    def _call(self, version, plan, finish, deadline):
        loaded = version.servable

        def timed(feeds, timeout_seconds):
            begin = time.perf_counter()
            outputs = loaded.run(feeds, plan.fetches, timeout_seconds)
            seconds = time.perf_counter() - begin
            self.metrics.runtime(version.name, "Predict", seconds)
            return outputs

        kind = None
        if plan.signature in loaded.mergeable:
            kind = (id(loaded), plan.signature, plan.fetches)
        return batching.Call(kind, timed, plan.feeds, finish, deadline)

    async def _answer(self, call, held):
        """Returns a call's answer; gives back what it holds when it has run."""
        answer = self._runners.submit(call)
        release = held.pop_all().close
        answer.add_done_callback(_retrieve)
        answer.add_done_callback(lambda _: release())
        try:
            # The caller may leave; what runs then runs on.
            return await asyncio.shield(answer)
        except asyncio.CancelledError:
            self._runners.withdraw(call)
            raise

    def get_model_metadata(
        self, request: get_model_metadata_pb2.GetModelMetadataRequest
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        """Returns the signatures."""
        if set(request.metadata_field) != {_SIGNATURE_DEF}:
            raise invalid(
                f"Expected the metadata_field {_SIGNATURE_DEF}. Received: "
                f"{', '.join(request.metadata_field) or 'none'}."
            )
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        with self._manager.pinned(request.model_spec) as version:
            response.model_spec.name = version.name
            response.model_spec.version.value = version.number
            known = get_model_metadata_pb2.SignatureDefMap()
            for key, signature in version.servable.signatures.items():
                known.signature_def[key].CopyFrom(signature)
            response.metadata[_SIGNATURE_DEF].Pack(known)
        return response

    def get_model_status(
        self, request: get_model_status_pb2.GetModelStatusRequest
    ) -> get_model_status_pb2.GetModelStatusResponse:
        """Returns the states of the versions, newest first."""
        spec = request.model_spec
        number = spec.version.value if spec.HasField("version") else None
        response = get_model_status_pb2.GetModelStatusResponse()
        states = get_model_status_pb2.ModelVersionStatus.State
        for version in self._manager.status(spec.name, number):
            entry = response.model_version_status.add()
            entry.version = version.number
            entry.state = states.Value(version.state)
            # Of a version that may still be loaded nothing is wrong yet.
            is_over = version.state == version_policy.END
            error = version.error if is_over else version_policy.NO_ERROR
            _write_status(entry.status, *error)
        return response

    async def reload(
        self, request: model_management_pb2.ReloadConfigRequest
    ) -> model_management_pb2.ReloadConfigResponse:
        """Returns once the new models are there."""
        await self._manager.apply(request.config)
        response = model_management_pb2.ReloadConfigResponse()
        _write_status(response.status, "OK", "")
        return response

    @contextlib.contextmanager
    def counted(
        self,
        name: str,
        api: str,
        entrypoint: str,
        deadline: float | None = None,
    ) -> None:
        """Counts what happens within as one call; see `Metrics.request`.

        A call that gRPC cancels at its deadline, a time of time.monotonic(), is
        counted as one that met it.
        """
        begin, code = time.perf_counter(), "OK"
        try:
            yield
        except StatusError as error:
            code = error.code
            raise
        except asyncio.CancelledError:
            code = "CANCELLED"
            if deadline is not None and time.monotonic() > deadline - _SLACK:
                code = "DEADLINE_EXCEEDED"
            raise
        except BaseException:
            code = "INTERNAL"
            raise
        finally:
            seconds = time.perf_counter() - begin
            self.metrics.request(name, api, entrypoint, code, seconds)


def _retrieve(future):
    """Marks an error as seen, also where its caller has left."""
    if not future.cancelled():
        future.exception()


def _write_status(proto, code, text):
    field = proto.DESCRIPTOR.fields_by_name["error_code"]
    proto.error_code = field.enum_type.values_by_name[code].number
    proto.error_message = text
