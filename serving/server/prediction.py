"""Predict: what a request has a session do, and the answer made of it."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from google.protobuf import message
from tensorflow_serving.apis import model_pb2, predict_pb2

from .. import tensors
from ..status import StatusError, invalid
from .servable import DEFAULT_SIGNATURE

_MOST_INPUTS = 1000
# What a string takes beside its bytes.
_BYTES_PER_STRING = 64


@dataclasses.dataclass(frozen=True)
class Plan:
    """What one request has a session do.

    Attributes:
      signature: the signature's name.
      feeds: {tensor name: array}.
      aliases: names of the outputs that are asked for.
      fetches: their tensors' names.
    """

    signature: str
    feeds: dict[str, np.ndarray]
    aliases: tuple[str, ...]
    fetches: tuple[str, ...]


def plan_of(
    signatures: Mapping[str, message.Message],
    request: predict_pb2.PredictRequest,
) -> Plan:
    """Returns the Plan of a PredictRequest.

    Args:
      signatures: {name: SignatureDef} of the model.
      request: what came.

    Raises:
      StatusError: the request does not fit the signature.
    """
    return plan(
        signatures,
        request.model_spec.signature_name,
        request.inputs,
        lambda proto, _: tensors.from_proto(proto),
        request.output_filter,
    )


def size_of(request: predict_pb2.PredictRequest) -> int:
    """Returns how many bytes the arrays of a request will take.

    Raises:
      StatusError: INVALID_ARGUMENT; to count them would take long.
    """
    size = 0
    if len(request.inputs) > _MOST_INPUTS:
        raise invalid(
            f"Expected at most {_MOST_INPUTS} inputs. Received: "
            f"{len(request.inputs)}."
        )
    for proto in request.inputs.values():
        dimensions = len(proto.tensor_shape.dim)
        if dimensions > tensors.MAX_DIMENSIONS:
            raise invalid(
                f"Expected at most {tensors.MAX_DIMENSIONS} dimensions. "
                f"Received: {dimensions}."
            )
        count = math.prod(dim.size for dim in proto.tensor_shape.dim)
        dtype = tensors.numpy_type(proto.dtype)
        each = _BYTES_PER_STRING if dtype.hasobject else dtype.itemsize
        size += max(count, 0) * each
    # More is refused: so much may be left to be filled in.
    return min(size, request.ByteSize() + 2**26)


def plan(
    signatures: Mapping[str, message.Message],
    signature_name: str,
    inputs: Mapping[str, object],
    read: Callable[[object, int], np.ndarray],
    output_filter: Sequence[str] = (),
) -> Plan:
    """Returns the Plan of a request's inputs.

    Args:
      signatures: {name: SignatureDef} of the model.
      signature_name: "" for the default.
      inputs: {alias: value}.
      read: (value, DataType's number) -> array; ValueError for a value that is
        none.
      output_filter: aliases of the outputs; empty: all.

    Raises:
      StatusError: they do not fit the signature.
    """
    name, signature = named(signatures, signature_name)
    if set(inputs) != set(signature.inputs):
        raise invalid(
            f"Expected the inputs {_joined(signature.inputs)} of signature "
            f"{name}. Received: {_joined(inputs)}."
        )
    feeds = {}
    for alias, info in signature.inputs.items():
        try:
            feeds[info.name] = read(inputs[alias], info.dtype)
        except (ValueError, MemoryError, OverflowError) as error:
            raise invalid(f"tensor parsing error: {alias}: {error}") from error
    aliases = tuple(output_filter) or tuple(sorted(signature.outputs))
    if len(set(aliases) & set(signature.outputs)) < len(aliases):
        raise invalid(
            f"Expected outputs among {_joined(signature.outputs)}, each once. "
            f"Received: {_joined(aliases)}."
        )
    fetches = tuple(signature.outputs[alias].name for alias in aliases)
    return Plan(name, feeds, aliases, fetches)


def named(
    signatures: Mapping[str, message.Message], name: str
) -> tuple[str, message.Message]:
    """Returns a signature's full name and itself.

    Raises:
      StatusError: FAILED_PRECONDITION; there is none.
    """
    name = name or DEFAULT_SIGNATURE
    if name not in signatures:
        raise StatusError(
            "FAILED_PRECONDITION", f'Serving signature key "{name}" not found.'
        )
    return name, signatures[name]


def answer(
    spec: model_pb2.ModelSpec,
    version: int,
    plan: Plan,
    outputs: Sequence[np.ndarray],
    as_content: bool,
) -> bytes:
    """Returns the serialized PredictResponse.

    Args:
      spec: of the request.
      version: that answered.
      plan: what was run.
      outputs: in the order of the plan's aliases.
      as_content: whether outputs are written as raw bytes.
    """
    response = predict_pb2.PredictResponse()
    # Never with a label.
    response.model_spec.name = spec.name
    response.model_spec.signature_name = plan.signature
    response.model_spec.version.value = version
    for alias, output in zip(plan.aliases, outputs, strict=True):
        tensors.to_proto(output, response.outputs[alias], as_content)
    return response.SerializeToString()


def _joined(names):
    return ",".join(sorted(names))
