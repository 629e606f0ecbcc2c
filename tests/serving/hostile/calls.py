"""What the hostile calls over gRPC are made of.

They are meant for a server of the model `toy`: images [n, 8, 8, 3] and five
classes.
"""

import dataclasses
import inspect
import sys

import grpc
import numpy as np
from tensorflow.core.framework import tensor_pb2
from tensorflow_serving.apis import predict_pb2

from serving import tensors

IMAGE_SHAPE = (8, 8, 3)
NUM_CLASSES = 5
PREDICTION = "/tensorflow.serving.PredictionService/"
_FLOAT = 1


@dataclasses.dataclass(frozen=True)
class Case:
    """A call.

    Attributes:
      method: full name of the method.
      payload: the message's bytes.
      right: names of the statuses that are right.
      options: more arguments of the call.
    """

    method: str
    payload: bytes
    right: tuple
    options: dict

    def outcome(self, channel, rest_port):
        """Returns the name of the status that the server answers with."""
        del rest_port
        call = channel.unary_unary(self.method)
        try:
            call(self.payload, **{"timeout": 60, **self.options})
        except grpc.RpcError as error:
            return error.code().name
        return "OK"


def case(message, *right, method=PREDICTION + "Predict", **options):
    """Returns a Case of a message, or of bytes.

    Args:
      message: what to send.
      *right: statuses; without any it is INVALID_ARGUMENT.
      method: full name of the method.
      **options: more arguments of the call.
    """
    if not isinstance(message, bytes):
        message = message.SerializeToString()
    return Case(method, message, right or ("INVALID_ARGUMENT",), options)


def predict(inputs, signature="", model="toy"):
    """Returns a PredictRequest.

    Args:
      inputs: {name: array or TensorProto}.
      signature: "" for the default one.
      model: its name.
    """
    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    request.model_spec.signature_name = signature
    for name, value in inputs.items():
        if isinstance(value, tensor_pb2.TensorProto):
            request.inputs[name].CopyFrom(value)
        else:
            tensors.to_proto(value, request.inputs[name])
    return request


def images(draw, count=1, shape=IMAGE_SHAPE):
    """Returns float32 [count, *shape] in [0, 1]."""
    return draw.uniform(size=(count, *shape)).astype(np.float32)


def tensor(shape, dtype=_FLOAT, **fields):
    """Returns a TensorProto, right or wrong."""
    proto = tensor_pb2.TensorProto(dtype=dtype, **fields)
    for size in shape:
        proto.tensor_shape.dim.add().size = size
    return proto


def kinds(module):
    """Returns a module's own public functions, of which each draws a case."""
    return [
        function
        for name, function in vars(sys.modules[module]).items()
        if inspect.isfunction(function)
        and function.__module__ == module
        and not name.startswith("_")
    ]


def any_of(draw, *choices):
    """Returns one of the choices, all equally likely."""
    return choices[draw.integers(len(choices))]
