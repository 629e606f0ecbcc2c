"""A small gRPC server on TF Serving's protos that fails as a test tells it.

Its model sums each channel of images [n, 4, 4, 3] to three logits; attention
is the channel of the class.
"""

import contextlib
import threading
import time
from concurrent import futures

import grpc
import numpy as np
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from serving import tensors

FLOAT, STRING, INT64 = 1, 7, 9
IMAGES = {"images": (FLOAT, [-1, 4, 4, 3])}
LOGITS = {"logits": (FLOAT, [-1, 3])}
ATTENTION = {"attention": (FLOAT, [-1, 4, 4])}
PREDICTIONS = {
    **LOGITS,
    "probabilities": (FLOAT, [-1, 3]),
    "classes": (INT64, [-1]),
}
SHIFT = {"attention_shift": (FLOAT, [-1])}
ABOUT = ({"labels": (INT64, [-1])}, {"class_names": (STRING, [-1])})
FILES = {"image_bytes": (STRING, [-1])}
# {signature: (inputs, outputs)}
SIGNATURES = {
    "serving_default": (IMAGES, {**PREDICTIONS, **ATTENTION}),
    "predict": (IMAGES, PREDICTIONS),
    "monitor": (IMAGES, {**PREDICTIONS, **ATTENTION, **SHIFT}),
    "explain": ({**IMAGES, "labels": (INT64, [-1])}, {**LOGITS, **ATTENTION}),
    "decode_predict": (FILES, {"lengths": (INT64, [-1])}),
    "echo": ({"x": (FLOAT, [-1, -1])}, {"y": (FLOAT, [-1, -1])}),
    "total": ({"x": (FLOAT, [-1])}, {"y": (FLOAT, [])}),
    "pair": ({"x": (FLOAT, [2])}, {"y": (FLOAT, [2])}),
}


class SmallServer(
    prediction_service_pb2_grpc.PredictionServiceServicer,
    model_service_pb2_grpc.ModelServiceServicer,
):
    """Serves model "m"; what a test may change are the attributes.

    Attributes:
      version: that answers; its label is "stable".
      state: of the version, as ModelVersionStatus numbers it.
      signatures: as SIGNATURES.
      faults: (code, text) of the answers to the next predictions.
      delay: seconds before a prediction.
      as_content: how tensors are written.
      predictions, metadata_calls: requests that came.
      target: where it listens.
    """

    def __init__(self):
        self.version = 1
        self.state = 30
        self.signatures = dict(SIGNATURES)
        self.faults = []
        self.delay = 0.0
        self.as_content = False
        self.predictions = []
        self.metadata_calls = []
        self.target = None
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def running(self, target="127.0.0.1:0", credentials=None):
        """Listens while the context lasts; yields itself."""
        server = grpc.server(
            futures.ThreadPoolExecutor(8),
            options=[
                ("grpc.max_send_message_length", -1),
                ("grpc.max_receive_message_length", -1),
            ],
        )
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
            self, server
        )
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(self, server)
        if credentials:
            port = server.add_secure_port(target, credentials)
        else:
            port = server.add_insecure_port(target)
        unix = target.startswith("unix:")
        self.target = target if unix else f"localhost:{port}"
        server.start()
        try:
            yield self
        finally:
            server.stop(0).wait()

    def Predict(self, request, context):  # noqa: N802, the protocol's name
        """Answers, or fails with the next of the faults."""
        with self._lock:
            self.predictions.append(request)
            fault = self.faults.pop(0) if self.faults else None
        time.sleep(self.delay)
        if fault:
            context.abort(*fault)
        self._check_spec(request.model_spec, context)
        inputs = {k: tensors.from_proto(v) for k, v in request.inputs.items()}
        name = request.model_spec.signature_name
        outputs = _outputs(name, inputs)
        response = predict_pb2.PredictResponse()
        self._describe(response.model_spec)
        for output in request.output_filter or self.signatures[name][1]:
            tensors.to_proto(
                outputs[output], response.outputs[output], self.as_content
            )
        return response

    def GetModelMetadata(self, request, context):  # noqa: N802
        """Answers with the signatures."""
        self.metadata_calls.append(request)
        self._check_spec(request.model_spec, context)
        found = get_model_metadata_pb2.SignatureDefMap()
        for name, (inputs, outputs) in self.signatures.items():
            signature = found.signature_def[name]
            _write_specs(inputs, signature.inputs)
            _write_specs(outputs, signature.outputs)
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        self._describe(response.model_spec)
        response.metadata["signature_def"].Pack(found)
        return response

    def GetModelStatus(self, request, context):  # noqa: N802
        """Answers with the one version's state."""
        self._check_spec(request.model_spec, context)
        response = get_model_status_pb2.GetModelStatusResponse()
        status = response.model_version_status.add()
        status.version = self.version
        status.state = self.state
        if self.state == 50:  # END
            status.status.error_code = 5
            status.status.error_message = "no saved_model.pb"
        return response

    def _describe(self, spec):
        spec.name = "m"
        spec.version.value = self.version

    def _check_spec(self, spec, context):
        other = spec.HasField("version") and spec.version.value != self.version
        if spec.name != "m" or other:
            context.abort(grpc.StatusCode.NOT_FOUND, f"no servable {spec}")
        if spec.version_label not in ("", "stable"):
            reason = f"no version label {spec.version_label}"
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, reason)


def _write_specs(specs, infos):
    for name, (dtype, shape) in specs.items():
        infos[name].dtype = dtype
        infos[name].tensor_shape.SetInParent()
        for size in shape:
            infos[name].tensor_shape.dim.add().size = size


def _outputs(signature, inputs):
    if signature == "decode_predict":
        lengths = [len(data) for data in inputs["image_bytes"]]
        return {"lengths": np.array(lengths, np.int64)}
    if signature == "about":
        names = np.array([b"ape", b"bee", "cöw".encode()], object)
        return {"class_names": names[inputs["labels"]]}
    if signature == "total":
        return {"y": inputs["x"].sum()}
    if "x" in inputs:
        return {"y": inputs["x"]}
    pixels = inputs["images"]
    logits = pixels.sum((1, 2))
    classes = logits.argmax(-1)
    shown = inputs.get("labels", classes)
    maps = np.stack([p[..., c] for p, c in zip(pixels, shown, strict=True)])
    odds = np.exp(logits - logits.max(-1, keepdims=True))
    return {
        "logits": logits,
        "probabilities": odds / odds.sum(-1, keepdims=True),
        "classes": classes,
        "attention": maps,
        "attention_shift": np.full(len(pixels), 0.25, np.float32),
    }


def random_images(count, seed=0):
    """Returns float32 [count, 4, 4, 3] in [0, 1]."""
    pixels = np.random.default_rng(seed).random((count, 4, 4, 3))
    return pixels.astype(np.float32)
