"""Predict: what a request has a session do, and the answer made of it.

What is refused, and in which words, is as in TensorFlow Serving.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from google.protobuf import message
from tensorflow_serving.apis import model_pb2, predict_pb2

from .. import tensors
from ..status import StatusError, invalid
from .servable import DEFAULT_SIGNATURE

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
        tensors.from_proto,
        request.output_filter,
    )


def size_of(request: predict_pb2.PredictRequest) -> int:
    """Returns how many bytes the arrays of a request will take."""
    size = 0
    for proto in request.inputs.values():
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
    read: Callable[[object], np.ndarray],
    output_filter: Sequence[str] = (),
) -> Plan:
    """Returns the Plan of a request's inputs.

    Args:
      signatures: {name: SignatureDef} of the model.
      signature_name: "" for the default.
      inputs: {alias: value}.
      read: value -> array; ValueError for a value that is none.
      output_filter: aliases of the outputs; empty: all.

    Raises:
      StatusError: they do not fit the signature.
    """
    name = signature_name or DEFAULT_SIGNATURE
    if name not in signatures:
        raise StatusError(
            "FAILED_PRECONDITION", f'Serving signature key "{name}" not found.'
        )
    signature = signatures[name]
    _check_number_of_inputs(signature, inputs)
    feeds = _feeds(signature, inputs, read)
    aliases = _output_aliases(signature, output_filter)
    fetches = tuple(signature.outputs[alias].name for alias in aliases)
    return Plan(name, feeds, aliases, fetches)


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


def _check_number_of_inputs(signature, inputs):
    expected, sent = len(signature.inputs), len(inputs)
    if sent == expected or (sent < expected and signature.defaults):
        return
    there, here = set(inputs), set(signature.inputs)
    raise invalid(
        f"input size does not match signature: {sent}!={expected} "
        f"len({{{_joined(there)}}}) != len({{{_joined(here)}}}). "
        f"Sent extra: {{{_joined(there - here)}}}. "
        f"Missing but required: {{{_joined(here - there)}}}."
    )


def _feeds(signature, inputs, read):
    """Returns {tensor name: array} of a request's inputs and the defaults."""
    feeds, used = {}, []
    for alias in sorted(signature.inputs):
        tensor_name = signature.inputs[alias].name
        if alias not in inputs and alias not in signature.defaults:
            raise invalid(
                f"Signature input alias: {alias}(feed name: {tensor_name}) "
                "not found in request and no default value provided. Inputs "
                f"expected to be in the request {{{_joined(inputs)}}}, or "
                f"default input alias set: {_joined(signature.defaults)}"
            )
        if alias not in inputs:
            feeds[tensor_name] = tensors.from_proto(signature.defaults[alias])
            continue
        used.append(alias)
        try:
            feeds[tensor_name] = read(inputs[alias])
        except (ValueError, MemoryError, OverflowError) as error:
            raise invalid(f"tensor parsing error: {alias}") from error
    if len(used) != len(inputs):
        raise invalid(
            "Inputs contains invalid name. Used request inputs: "
            f"{_joined(used)}, request input: {_joined(inputs)}"
        )
    return feeds


def _output_aliases(signature, output_filter):
    seen = set()
    for alias in output_filter:
        if alias not in signature.outputs:
            raise invalid(
                f"output tensor alias not found in signature: {alias} Outputs "
                f"expected to be in the set {{{_joined(signature.outputs)}}}."
            )
        if alias in seen:
            raise invalid(f"duplicate output tensor alias: {alias}")
        seen.add(alias)
    return tuple(output_filter) or tuple(sorted(signature.outputs))


def _joined(names):
    return ",".join(sorted(names))
