"""Predict on one loaded model.

A PredictRequest enters, a PredictResponse leaves; what is refused, and in
which words, is as in TensorFlow Serving.
"""

from tensorflow_serving.apis import predict_pb2

from .. import tensors
from ..status import StatusError, invalid
from .servable import DEFAULT_SIGNATURE

CLASSIFY = "tensorflow/serving/classify"
REGRESS = "tensorflow/serving/regress"
_PREDICT = "tensorflow/serving/predict"


def predict(model, request, version, timeout_seconds=None, as_content=False):
    """Returns the PredictResponse.

    Args:
      model: a LoadedModel.
      request: PredictRequest.
      version: number of the model's version, or None.
      timeout_seconds: None for none.
      as_content: whether outputs are written as raw bytes.

    Raises:
      StatusError: the request does not fit the signature, or the graph's own.
    """
    name = request.model_spec.signature_name or DEFAULT_SIGNATURE
    if name not in model.signatures:
        raise StatusError(
            "FAILED_PRECONDITION", f'Serving signature key "{name}" not found.'
        )
    signature = model.signatures[name]
    _check_method(model, signature, (_PREDICT, CLASSIFY, REGRESS))
    _check_number_of_inputs(signature, request.inputs)
    feeds = _feeds(signature, request.inputs)
    aliases = _output_aliases(signature, request.output_filter)
    outputs = model.run(
        feeds,
        [signature.outputs[alias].name for alias in aliases],
        timeout_seconds,
    )
    response = predict_pb2.PredictResponse()
    write_spec(response.model_spec, request.model_spec, version)
    for alias, output in zip(aliases, outputs, strict=True):
        tensors.to_proto(output, response.outputs[alias], as_content)
    return response


def _check_method(model, signature, allowed):
    if model.checks_method_names and signature.method_name not in allowed:
        raise StatusError(
            "INTERNAL",
            "Expected prediction signature method_name to be one of "
            f"{{{', '.join(allowed)}}}. Was: {signature.method_name}",
        )


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


def _feeds(signature, inputs):
    """Returns {tensor name: array} of a request's inputs and the defaults."""
    feeds, used = {}, []
    for alias in sorted(signature.inputs):
        tensor_name = signature.inputs[alias].name
        if alias in inputs:
            proto = inputs[alias]
            used.append(alias)
        elif alias in signature.defaults:
            proto = signature.defaults[alias]
        else:
            raise invalid(
                f"Signature input alias: {alias}(feed name: {tensor_name}) "
                "not found in request and no default value provided. Inputs "
                f"expected to be in the request {{{_joined(inputs)}}}, or "
                f"default input alias set: {_joined(signature.defaults)}"
            )
        try:
            feeds[tensor_name] = tensors.from_proto(proto)
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
    return list(output_filter) or sorted(signature.outputs)


def write_spec(spec, asked, version):
    """Fills a response's ModelSpec: never with a label."""
    spec.name = asked.name
    spec.signature_name = asked.signature_name or DEFAULT_SIGNATURE
    if version is not None:
        spec.version.value = version


def _joined(names):
    return ",".join(sorted(names))
