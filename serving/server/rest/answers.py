"""Response protos as bodies of REST answers, laid out as TensorFlow Serving's.

Names come sorted, so that equal answers are equal texts.
"""

import base64
import json
import math

import numpy as np

from ... import tensors
from ...status import StatusError, invalid
from . import text as json_text

# NumPy kinds and the types among them that have no JSON form.
_KINDS = "fiubO"
_UNWRITTEN = {"float16", "bfloat16", "uint16"}
_BYTES = "_bytes"


def predict(response, form):
    """Returns the body that answers a predict call.

    Args:
      response: PredictResponse.
      form: json_text.ROWS or COLUMNS, as the request came.

    Raises:
      StatusError: INVALID_ARGUMENT; the outputs have no JSON form.
    """
    if not response.outputs:
        raise invalid("Cannot convert empty tensor map to JSON")
    arrays = {
        name: _array(response.outputs[name])
        for name in sorted(response.outputs)
    }
    text = _rows(arrays) if form == json_text.ROWS else _columns(arrays)
    # Strings that are no UTF-8 leave as the bytes that they are.
    return text.encode("utf-8", "surrogateescape")


def classification(response):
    """Returns the body that answers a classify call."""
    results = response.result.classifications
    if not results:
        raise invalid("Cannot convert empty ClassificationResults to JSON")
    texts = []
    for result in results:
        scores = json_text.decimals(
            np.array([c.score for c in result.classes], np.float32)
        )
        pairs = [
            f"[{json_text.quoted(c.label)}, {score}]"
            for c, score in zip(result.classes, scores, strict=True)
        ]
        texts.append(f"[{', '.join(pairs)}]")
    return _member("results", _line_of_rows(texts)).encode()


def regression(response):
    """Returns the body that answers a regress call."""
    results = response.result.regressions
    if not results:
        raise invalid("Cannot convert empty RegressionResults to JSON")
    texts = json_text.decimals(np.array([r.value for r in results], np.float32))
    return _member("results", f"[{', '.join(texts)}]").encode()


def error(message):
    """Returns the body that answers a failed call."""
    text = _member("error", json_text.quoted(message))
    return text.encode("utf-8", "replace")


def model_status(response):
    """Returns the body for a GetModelStatusResponse."""
    return _message(response).encode()


def model_metadata(response):
    """Returns the body for a GetModelMetadataResponse.

    Raises:
      StatusError: INTERNAL; it carries no signatures.
    """
    from tensorflow_serving.apis import get_model_metadata_pb2

    if "signature_def" not in response.metadata:
        raise StatusError(
            "INTERNAL",
            "Failed to find 'signature_def' key in the "
            "GetModelMetadataResponse metadata map.",
        )
    signatures = get_model_metadata_pb2.SignatureDefMap()
    response.metadata["signature_def"].Unpack(signatures)
    return (
        f'{{\n"model_spec":{_message(response.model_spec)},\n'
        f'"metadata": {{"signature_def": {_message(signatures)}}}\n}}\n'
    ).encode()


def _array(proto):
    try:
        return tensors.from_proto(proto)
    except ValueError:
        raise _unwritten(proto.dtype) from None


def _unwritten(number):
    from tensorflow.core.framework import types_pb2

    name = types_pb2.DataType.Name(number).removeprefix("DT_").lower()
    return invalid(f"Failed to write JSON value for tensor type: {name}")


def _rows(arrays):
    batch = None
    for name, array in arrays.items():
        if array.ndim == 0:
            raise invalid(f"Tensor name: {name} has no shape information ")
        size = array.shape[0]
        if batch is not None and size != batch:
            raise invalid(
                f"Tensor name: {name} has inconsistent batch size: {size} "
                f"expecting: {batch}"
            )
        batch = size
    if len(arrays) == 1:
        ((name, array),) = arrays.items()
        texts = _row_texts(name, array, 2)
        return _member("predictions", _line_of_rows(texts))
    columns = [_row_texts(name, array, 3) for name, array in arrays.items()]
    texts = [
        _object(dict(zip(arrays, row, strict=True)), 2)
        for row in zip(*columns, strict=True)
    ]
    return _member("predictions", json_text.nested(texts, (batch,), 1, False))


def _row_texts(name, array, level):
    """Returns the text of each row, `level` brackets deep."""
    shape, rank = array.shape[1:], array.ndim - 1
    values = _texts(name, array, level + rank)
    size = math.prod(shape)
    return [
        json_text.nested(values[i * size : (i + 1) * size], shape, level, True)
        for i in range(len(array))
    ]


def _columns(arrays):
    level = 1 if len(arrays) == 1 else 2
    texts = {
        name: json_text.nested(
            _texts(name, array, level + array.ndim), array.shape, level, False
        )
        for name, array in arrays.items()
    }
    if len(texts) == 1:
        return _member("outputs", *texts.values())
    return _member("outputs", _object(texts, 1))


def _texts(name, array, level):
    """Returns the texts of an array's values, `level` brackets deep."""
    flat = array.ravel()
    if flat.size == 0:
        return []
    kind = flat.dtype.kind
    if kind not in _KINDS or flat.dtype.name in _UNWRITTEN:
        raise _unwritten(tensors.to_proto(flat[:1]).dtype)
    if kind == "f":
        return json_text.decimals(flat)
    if kind == "b":
        return ["true" if value else "false" for value in flat.tolist()]
    if kind != "O":
        return list(map(str, flat.tolist()))
    if name.endswith(_BYTES):
        coded = (base64.b64encode(v).decode() for v in flat)
        return [_object({"b64": f'"{text}"'}, level) for text in coded]
    return [
        json_text.quoted(v.decode("utf-8", "surrogateescape")) for v in flat
    ]


def _line_of_rows(texts):
    """Returns an array on one line, whose bracket alone closes on its own."""
    if not texts:
        return "[]"
    return f"[{', '.join(texts)}{json_text.indented(1)}]"


def _member(name, text):
    return _object({name: text}, 0)


def _object(members, level):
    inner = json_text.indented(level + 1)
    lines = [f"{json_text.quoted(n)}: {text}" for n, text in members.items()]
    end = json_text.indented(level)
    return "{" + inner + ("," + inner).join(lines) + end + "}"


def _message(message):
    """Returns a proto as JSON, default values included."""
    from google.protobuf import json_format

    fields = json_format.MessageToDict(
        message,
        preserving_proto_field_name=True,
        always_print_fields_with_no_presence=True,
    )
    ordered = _ordered(fields, message.DESCRIPTOR)
    text = json.dumps(ordered, indent=1, ensure_ascii=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e") + "\n"


def _ordered(fields, descriptor):
    """Returns a message's fields as C++ prints them, members of a oneof last.

    Maps are sorted by key.
    """
    if not isinstance(fields, dict):  # a wrapper such as Int64Value
        return fields
    known = descriptor.fields_by_name
    names = sorted(
        fields, key=lambda n: (bool(known[n].containing_oneof), known[n].index)
    )
    return {name: _ordered_field(fields[name], known[name]) for name in names}


def _ordered_field(value, field):
    inner = field.message_type
    if inner is None:
        return value
    if inner.GetOptions().map_entry:
        entry = inner.fields_by_name["value"]
        return {k: _ordered_field(value[k], entry) for k in sorted(value)}
    if isinstance(value, list):
        return [_ordered(item, inner) for item in value]
    return _ordered(value, inner)
