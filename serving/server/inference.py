"""What every protocol of the server calls: requests in, responses out.

Looks the model up, runs the request and counts it; gRPC and REST only
translate.
"""

import contextlib
import time

from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_management_pb2,
)

from ..status import StatusError, invalid
from . import example_tasks, prediction

_SIGNATURE_DEF = "signature_def"


class Inference:
    """The calls of PredictionService and ModelService, blocking.

    Args:
      manager: ModelManager.
      metrics: Metrics.
      as_content: whether answers hold raw bytes unless a call says otherwise.
    """

    def __init__(self, manager, metrics, as_content=False):
        self._manager = manager
        self._metrics = metrics
        self._as_content = as_content

    def predict(
        self, request, timeout_seconds=None, entrypoint="GRPC", as_content=None
    ):
        """Returns the PredictResponse.

        Args:
          request: PredictRequest.
          timeout_seconds: what is left of the caller's deadline, or None.
          entrypoint: "GRPC" or "REST", as the metrics tell them apart.
          as_content: whether outputs are raw bytes; None for the server's
            own choice.

        Raises:
          StatusError: as `prediction.predict`; or no such model.
        """
        if as_content is None:
            as_content = self._as_content
        with self._request(request, "Predict", entrypoint) as (model, version):
            return prediction.predict(
                model, request, version, timeout_seconds, as_content
            )

    def classify(self, request, timeout_seconds=None, entrypoint="GRPC"):
        """Returns the ClassificationResponse; arguments as `predict`."""
        with self._request(request, "Classify", entrypoint) as (model, version):
            response = example_tasks.classify(
                model, request, version, timeout_seconds
            )
            self._metrics.examples(
                request.model_spec.name, len(response.result.classifications)
            )
            return response

    def regress(self, request, timeout_seconds=None, entrypoint="GRPC"):
        """Returns the RegressionResponse; arguments as `predict`."""
        with self._request(request, "Regress", entrypoint) as (model, version):
            response = example_tasks.regress(
                model, request, version, timeout_seconds
            )
            self._metrics.examples(
                request.model_spec.name, len(response.result.regressions)
            )
            return response

    def multi_inference(self, request, timeout_seconds=None):
        """Returns the MultiInferenceResponse."""
        if request.tasks and request.tasks[0].HasField("model_spec"):
            spec = request.tasks[0].model_spec
        else:
            raise invalid("ModelSpec has no name specified.")
        with self._manager.servable(spec) as (model, version, _):
            return example_tasks.multi_inference(
                model, request, version, timeout_seconds
            )

    def get_model_metadata(self, request):
        """Returns the GetModelMetadataResponse: the signatures."""
        if not request.HasField("model_spec"):
            raise invalid("Missing ModelSpec")
        if not request.metadata_field:
            raise invalid(
                "GetModelMetadataRequest must specify at least one "
                "metadata_field"
            )
        for field in request.metadata_field:
            if field != _SIGNATURE_DEF:
                raise invalid(f"Metadata field {field} is not supported")
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        with self._manager.servable(request.model_spec) as found:
            model, version, name = found
            response.model_spec.name = name
            response.model_spec.version.value = version
            known = get_model_metadata_pb2.SignatureDefMap()
            for key, signature in model.signatures.items():
                known.signature_def[key].CopyFrom(signature)
            response.metadata[_SIGNATURE_DEF].Pack(known)
        return response

    def get_model_status(self, request):
        """Returns the GetModelStatusResponse, newest version first."""
        if not request.HasField("model_spec"):
            raise invalid("Missing ModelSpec")
        spec = request.model_spec
        number = spec.version.value if spec.HasField("version") else None
        response = get_model_status_pb2.GetModelStatusResponse()
        states = get_model_status_pb2.ModelVersionStatus.State
        for status in self._manager.status(spec.name, number):
            entry = response.model_version_status.add()
            entry.version = status.version
            entry.state = states.Value(status.state)
            _write_status(entry.status, status.error_code, status.error_message)
        return response

    def reload(self, request, timeout_seconds=None):
        """Returns the ReloadConfigResponse once the new models are there.

        A refusal is both raised and, in the genuine server, written into the
        response, which gRPC then drops.
        """
        if request.config.WhichOneof("config") != "model_config_list":
            raise invalid(
                "ServerModelConfig type not supported by "
                "HandleReloadConfigRequest. Only ModelConfigList is currently "
                "supported"
            )
        self._manager.apply(request.config, timeout_seconds)
        response = model_management_pb2.ReloadConfigResponse()
        _write_status(response.status, "OK", "")
        return response

    def signatures(self, spec):
        """Returns {name: SignatureDef} of the model that a ModelSpec names."""
        with self._manager.servable(spec) as (model, _, _):
            return model.signatures

    @contextlib.contextmanager
    def _request(self, request, api, entrypoint):
        """Yields (model, version); counts the request and its time."""
        begin = time.perf_counter()
        code = "OK"
        try:
            if not request.HasField("model_spec"):
                raise invalid("Missing ModelSpec")
            name = request.model_spec.name
            with self._manager.servable(request.model_spec) as found:
                model, version, _ = found
                yield _Timed(model, self._metrics, name, api), version
        except StatusError as error:
            code = error.code
            raise
        except BaseException:
            code = "INTERNAL"
            raise
        finally:
            self._metrics.request(
                request.model_spec.name,
                api,
                entrypoint,
                code,
                time.perf_counter() - begin,
            )


class _Timed:
    """A model whose runs are measured."""

    def __init__(self, model, metrics, name, api):
        self.signatures = model.signatures
        self.checks_method_names = model.checks_method_names
        self._model, self._metrics = model, metrics
        self._name, self._api = name, api

    def run(self, feeds, fetches, timeout_seconds):
        begin = time.perf_counter()
        outputs = self._model.run(feeds, fetches, timeout_seconds)
        self._metrics.runtime(
            self._name, self._api, time.perf_counter() - begin
        )
        return outputs


def _write_status(proto, code, message):
    field = proto.DESCRIPTOR.fields_by_name["error_code"]
    proto.error_code = field.enum_type.values_by_name[code].number
    proto.error_message = message
