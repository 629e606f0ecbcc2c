"""Bodies of classify and regress calls as request protos.

The rules and the error texts are those of TensorFlow Serving.
"""

import itertools
import math

from ...status import invalid
from . import tensors as json_tensors
from . import text as json_text


def classification_request(body, model_spec):
    """Returns the ClassificationRequest of a body; errors are StatusErrors."""
    from tensorflow_serving.apis import classification_pb2

    request = classification_pb2.ClassificationRequest(model_spec=model_spec)
    return _with_examples(request, body)


def regression_request(body, model_spec):
    """Returns the RegressionRequest of a body; errors are StatusErrors."""
    from tensorflow_serving.apis import regression_pb2

    request = regression_pb2.RegressionRequest(model_spec=model_spec)
    return _with_examples(request, body)


def _with_examples(request, body):
    document = json_text.document(body)
    json_tensors.name_signature(document, request.model_spec)
    examples = request.input.example_list.examples
    if "context" in document:
        listed = request.input.example_list_with_context
        examples = listed.examples
        _fill_example(document["context"], listed.context)
    values = document.get("examples")
    if "examples" not in document:
        rule = (
            "When method is classify, key 'examples' is expected and was not "
            "found"
        )
    elif not isinstance(values, list):
        rule = "Expecting 'examples' value to be an list/array"
    elif not values:
        rule = "'examples' value is an empty array"
    else:
        if any(map(_has_infinity, [document.get("context"), *values])):
            json_text.check_exponents(body)
        for value in values:
            _fill_example(value, examples.add())
        return request
    raise json_text.format_error(document, rule)


def _has_infinity(value):
    contents = value.values() if isinstance(value, dict) else ()
    items = itertools.chain.from_iterable(
        c if isinstance(c, list) else [c] for c in contents
    )
    return any(isinstance(i, float) and math.isinf(i) for i in items)


def _fill_example(value, example):
    if not isinstance(value, dict):
        raise invalid(
            "Example must be JSON object but got JSON " + json_text.kind(value)
        )
    for name, content in value.items():
        feature = example.features.feature[name]
        items = content if isinstance(content, list) else [content]
        pairs = [_feature_value(name, item) for item in items]
        if not pairs:
            continue
        wanted = pairs[0][0]
        if any(kind != wanted for kind, _ in pairs):
            raise invalid(
                f"Unexpected element type in feature: {name} expecting type: "
                f"{wanted}"
            )
        target = getattr(feature, f"{wanted}_list").value
        target.extend(converted for _, converted in pairs)


def _feature_value(name, item):
    """Returns (bytes, float or int64; the value of that type)."""
    if isinstance(item, bool):
        return "int64", int(item)
    if isinstance(item, str):
        return "bytes", item.encode()
    if json_text.is_base64(item):
        return "bytes", json_text.base64_bytes(item)
    if type(item) is int and -(2**63) <= item < 2**63:
        return "int64", item
    if type(item) is int and 2**63 <= item < 2**64:
        raise invalid(
            f"Feature: {name} has uint64_t element. Only int64_t is supported."
        )
    if isinstance(item, (int, float)):
        return "float", json_text.as_double(item)
    raise invalid(
        f"Feature: {name} has element with unexpected JSON type: "
        f"{json_text.kind(item)}"
    )
