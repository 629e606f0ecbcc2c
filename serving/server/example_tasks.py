"""Classify, Regress and MultiInference on one loaded model.

Requests of tf.Examples enter, classes with scores or numbers leave; what is
refused, and in which words, is as in TensorFlow Serving.
"""

import numpy as np
from tensorflow_serving.apis import (
    classification_pb2,
    inference_pb2,
    regression_pb2,
)

from .. import tensors
from ..status import StatusError, invalid
from .prediction import CLASSIFY, REGRESS, write_spec
from .servable import DEFAULT_SIGNATURE


def classify(model, request, version, timeout_seconds=None):
    """Returns the ClassificationResponse to a ClassificationRequest."""
    response = classification_pb2.ClassificationResponse()
    _run_task(
        _Classification, model, request, version, timeout_seconds, response
    )
    return response


def regress(model, request, version, timeout_seconds=None):
    """Returns the RegressionResponse to a RegressionRequest."""
    response = regression_pb2.RegressionResponse()
    _run_task(_Regression, model, request, version, timeout_seconds, response)
    return response


def multi_inference(model, request, version, timeout_seconds=None):
    """Returns the MultiInferenceResponse: several tasks on the same input."""
    tasks = _tasks(model, request)
    fetches = sorted({name for task, _ in tasks for name in task.fetches})
    examples = _examples(request.input)
    feeds = {tasks[0][0].input_name: examples} if tasks else {}
    outputs = model.run(feeds, fetches, timeout_seconds)
    by_name = dict(zip(fetches, outputs, strict=True))
    response = inference_pb2.MultiInferenceResponse()
    for task, spec in tasks:
        result = response.results.add()
        write_spec(result.model_spec, spec, version)
        task.write(by_name, len(examples), getattr(result, task.result_field))
    return response


def _run_task(kind, model, request, version, timeout_seconds, response):
    name = request.model_spec.signature_name or DEFAULT_SIGNATURE
    if name not in model.signatures:
        raise invalid(f"No signature was found with the name: {name}")
    task = kind(model.signatures[name], model.checks_method_names)
    write_spec(response.model_spec, request.model_spec, version)
    examples = _examples(request.input)
    outputs = model.run(
        {task.input_name: examples}, task.fetches, timeout_seconds
    )
    by_name = dict(zip(task.fetches, outputs, strict=True))
    task.write(by_name, len(examples), response.result)


def _tasks(model, request):
    """Returns (task, its ModelSpec) of each task of a MultiInferenceRequest."""
    tasks, model_name, input_name, seen = [], "", "", set()
    for asked in request.tasks:
        spec = asked.model_spec
        if not spec.name:
            raise invalid("Found ModelSpec with an empty model name.")
        if model_name and spec.name != model_name:
            raise invalid(
                "All ModelSpecs in a MultiInferenceRequest must access the "
                "same model name."
            )
        model_name = spec.name
        name = spec.signature_name or DEFAULT_SIGNATURE
        if name in seen:
            raise invalid(f"Duplicate evaluation of signature: {name}")
        seen.add(name)
        if name not in model.signatures:
            raise invalid(
                f"Requested signature not found in model graph: {name}"
            )
        kinds = {CLASSIFY: _Classification, REGRESS: _Regression}
        if asked.method_name not in kinds:
            raise StatusError(
                "UNIMPLEMENTED",
                f"Unsupported signature method_name: {asked.method_name}",
            )
        task = kinds[asked.method_name](
            model.signatures[name], model.checks_method_names
        )
        if input_name and task.input_name != input_name:
            raise invalid("Input tensor must be the same for all Signatures.")
        input_name = task.input_name
        tasks.append((task, spec))
    return tasks


def _examples(request_input):
    """Returns serialised tf.Examples as an array of bytes.

    Those with a context are the context's bytes and the example's, one after
    the other, which is how messages of one type are merged.
    """
    kind = request_input.WhichOneof("kind")
    serialized = []
    if kind == "example_list":
        serialized = [
            example.SerializeToString()
            for example in request_input.example_list.examples
        ]
    elif kind == "example_list_with_context":
        with_context = request_input.example_list_with_context
        context = with_context.context.SerializeToString()
        serialized = [
            context + example.SerializeToString()
            for example in with_context.examples
        ]
    if not serialized:
        raise invalid("Input is empty.")
    array = np.empty(len(serialized), object)
    array[:] = serialized
    return array


class _Classification:
    """Signature of "inputs" -> "classes" and "scores", or one of them."""

    result_field = "classification_result"

    def __init__(self, signature, checks_method_name):
        _check_task(signature, checks_method_name, CLASSIFY, "classification")
        outputs = signature.outputs
        if len(outputs) not in (1, 2):
            raise invalid(
                f"Expected one or two output Tensors, found {len(outputs)}"
            )
        self.input_name = _task_input(signature, "classification")
        self._names = {
            alias: outputs[alias].name
            for alias in ("classes", "scores")
            if alias in outputs
        }
        if not self._names:
            raise invalid(
                "Expected classification signature outputs to contain at "
                'least one of "classes" or "scores". Signature was: '
                f"{signature}"
            )
        self.fetches = list(self._names.values())

    def write(self, by_name, count, result):
        values = {alias: by_name[name] for alias, name in self._names.items()}
        wanted = {
            "classes": (object, "STRING"),
            "scores": (np.float32, "FLOAT"),
        }
        for alias, value in values.items():
            dtype, type_name = wanted[alias]
            if value.ndim != 2:
                raise invalid(
                    "Expected Tensor shape: [batch_size num_classes] but got "
                    f"{_shape(value)}"
                )
            if value.dtype != dtype:
                raise invalid(
                    f"Expected {alias} Tensor of DT_{type_name}. Got: "
                    f"{_type_name(value)}"
                )
            if len(value) != count:
                raise invalid(
                    f"Expected {alias} output batch size of {count}. Got: "
                    f"{len(value)}"
                )
        widths = [value.shape[1] for value in values.values()]
        if len(set(widths)) > 1:
            raise invalid(
                "Tensors class and score should match in dim_size(1). Got "
                f"{widths[0]} vs. {widths[1]}"
            )
        for row in range(count):
            classes = result.classifications.add().classes
            for column in range(widths[0]):
                entry = classes.add()
                if "classes" in values:
                    entry.label = values["classes"][row, column]
                if "scores" in values:
                    entry.score = values["scores"][row, column]


class _Regression:
    """Signature of "inputs" -> "outputs", one number an example."""

    result_field = "regression_result"

    def __init__(self, signature, checks_method_name):
        _check_task(signature, checks_method_name, REGRESS, "regression")
        if len(signature.outputs) != 1:
            raise invalid("Expected one output Tensor.")
        self.input_name = _task_input(signature, "regression")
        if "outputs" not in signature.outputs:
            raise invalid(
                f"No regression outputs found in SignatureDef: {signature}"
            )
        self.fetches = [signature.outputs["outputs"].name]

    def write(self, by_name, count, result):
        value = by_name[self.fetches[0]]
        if not (value.ndim == 1 or (value.ndim == 2 and value.shape[1] == 1)):
            raise invalid(
                "Expected output Tensor shape to be either [batch_size] or "
                f"[batch_size, 1] but got {_shape(value)}"
            )
        if len(value) != count:
            raise invalid(
                "Input batch size did not match output batch size: "
                f"{count} vs. {len(value)}"
            )
        if value.dtype != np.float32:
            raise invalid(
                f"Expected output Tensor of DT_FLOAT.  Got: {_type_name(value)}"
            )
        for number in value.ravel().tolist():
            result.regressions.add().value = number


def _check_task(signature, checks_method_name, method, kind):
    if checks_method_name and signature.method_name != method:
        raise invalid(
            f"Expected {kind} signature method_name to be {method}. Was: "
            f"{signature.method_name}"
        )
    if len(signature.inputs) != 1:
        raise invalid("Expected one input Tensor.")


def _task_input(signature, kind):
    if "inputs" not in signature.inputs:
        raise invalid(f"No {kind} inputs found in SignatureDef: {signature}")
    return signature.inputs["inputs"].name


def _shape(value):
    return f"[{','.join(str(size) for size in value.shape)}]"


def _type_name(value):
    from tensorflow.core.framework import types_pb2

    proto = tensors.to_proto(value.ravel()[:1])
    return types_pb2.DataType.Name(proto.dtype)
