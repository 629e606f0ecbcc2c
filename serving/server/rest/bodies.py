"""Bodies of REST calls: JSON as a session's plan, outputs and protos as JSON.

Linear in the size of a body, and bounded: a few bytes of JSON can become many
objects, and neither `json` nor NumPy lets other threads run in between.
"""

import base64
import dataclasses
import json
import zlib
from collections.abc import Callable, Mapping

import numpy as np
from google.protobuf import json_format, message
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
)

from ... import tensors
from ...status import invalid
from .. import prediction

# Lists, objects and values that a body may hold.
_MAX_CONTAINERS, _MAX_VALUES = 2**20, 2**21
# Kind of a NumPy type -> the Python types that JSON may have for it.
_PYTHON_TYPES = {
    "f": {int, float},
    "V": {int, float},  # bfloat16
    "i": {int},
    "u": {int},
    "b": {bool},
    "O": {str, dict},
}
# Outputs whose names end so are written as base64.
_BYTES = "_bytes"


@dataclasses.dataclass(frozen=True)
class Document:
    """A predict call's body.

    Attributes:
      signature_name: "" for the default.
      rows: the instances, a list; None if the call came in columns.
      columns: the inputs.
      size: bytes of it, unpacked.
    """

    signature_name: str
    rows: list | None
    columns: object
    size: int


def document(body: bytes, is_gzipped: bool, max_bytes: int) -> Document:
    """Returns what a body says.

    Args:
      body: as it came.
      is_gzipped: whether it is packed.
      max_bytes: that it may unpack to.

    Raises:
      StatusError: INVALID_ARGUMENT; it is no such JSON.
    """
    if is_gzipped:
        body = _unpacked(body, max_bytes)
    containers = body.count(b"[") + body.count(b"{")
    if containers > _MAX_CONTAINERS or body.count(b",") > _MAX_VALUES:
        raise invalid(
            f"Expected at most {_MAX_CONTAINERS} lists and objects and "
            f"{_MAX_VALUES} values in a body. Received: more; send several "
            "requests, or use gRPC."
        )
    try:
        value = json.loads(body.decode("utf-8"))
    except RecursionError:
        raise invalid("JSON Parse error: nested too deeply") from None
    except ValueError as error:
        raise invalid(f"JSON Parse error: {error}"[:1024]) from None
    if not isinstance(value, dict):
        raise invalid("Expected a JSON object as body. Received: none.")
    name = value.get("signature_name", "")
    if not isinstance(name, str):
        raise invalid("'signature_name' key must be a string value.")
    if ("instances" in value) == ("inputs" in value):
        raise invalid("Expected one of the keys 'inputs' and 'instances'.")
    rows = value.get("instances")
    if "instances" in value and not (isinstance(rows, list) and rows):
        raise invalid("Expecting 'instances' to be a list that is not empty.")
    return Document(name, rows, value.get("inputs"), len(body))


def plan_of(
    signatures: Mapping[str, message.Message], asked: Document
) -> prediction.Plan:
    """Returns the Plan of a predict call.

    Args:
      signatures: {name: SignatureDef} of the model.
      asked: the call's body.

    Raises:
      StatusError: the call does not fit the signature.
    """
    name, signature = prediction.named(signatures, asked.signature_name)
    values = asked.columns if asked.rows is None else _columns(asked.rows)
    if not _is_object(values):
        if len(signature.inputs) != 1:
            raise invalid(
                f"Expected objects with the inputs of signature {name} by "
                "name. Received: bare values."
            )
        values = {next(iter(signature.inputs)): values}
    return prediction.plan(signatures, name, values, _array)


def writer(asked: Document) -> Callable[..., bytes]:
    """Returns what writes an answer in the form that its call came in.

    A function of (Version, Plan, outputs). It raises StatusError,
    INVALID_ARGUMENT, for outputs without a JSON form.
    """

    def write(_, plan, outputs):
        values = {
            alias: _written(alias, np.asarray(output))
            for alias, output in zip(plan.aliases, outputs, strict=True)
        }
        try:
            if asked.rows is None:
                if len(values) == 1:
                    (values,) = values.values()
                return json.dumps({"outputs": values}).encode()
            return json.dumps({"predictions": _rows(values)}).encode()
        except TypeError:
            raise invalid(
                "Expected outputs with a JSON form. Received: complex numbers."
            ) from None

    return write


def error(text: str) -> bytes:
    """Returns the body that answers a failed call."""
    return json.dumps({"error": text}).encode()


def model_status(
    response: get_model_status_pb2.GetModelStatusResponse,
) -> bytes:
    """Returns the body for a model's states."""
    return json.dumps(_dictionary(response), indent=1).encode()


def model_metadata(
    response: get_model_metadata_pb2.GetModelMetadataResponse,
) -> bytes:
    """Returns the body for a model's signatures."""
    signatures = get_model_metadata_pb2.SignatureDefMap()
    response.metadata["signature_def"].Unpack(signatures)
    return json.dumps(
        {
            "model_spec": _dictionary(response.model_spec),
            "metadata": {"signature_def": _dictionary(signatures)},
        },
        indent=1,
    ).encode()


def _unpacked(body, max_bytes):
    unpacker = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    try:
        content = unpacker.decompress(body, max_bytes)
    except zlib.error as error:
        raise invalid(f"Expected a gzip body. Received: {error}.") from None
    if not unpacker.eof:
        raise invalid(
            f"Expected a gzip body of at most {max_bytes} bytes. Received: "
            "more, or only a part of one."
        )
    return content


def _columns(rows):
    """Returns {input: list of values}, or the rows themselves if bare."""
    if not _is_object(rows[0]):
        return rows
    names = rows[0].keys()
    if not all(_is_object(row) and row.keys() == names for row in rows):
        raise invalid("Expected objects of the same keys in 'instances'.")
    return {name: [row[name] for row in rows] for name in names}


def _is_object(value):
    return isinstance(value, dict) and value.keys() != {"b64"}


def _array(value, number):
    """Returns the array of nested lists, bytes objects for strings.

    Raises:
      ValueError: lists of several lengths, or values of another type.
    """
    dtype = tensors.numpy_type(number)
    objects = np.array(value, object)
    flat = objects.ravel().tolist()
    if not set(map(type, flat)) <= _PYTHON_TYPES.get(dtype.kind, set()):
        raise ValueError(f"expected lists of one shape, with values of {dtype}")
    if dtype.kind == "O":
        strings = np.empty(objects.size, object)
        strings[:] = [_content(one) for one in flat]
        return strings.reshape(objects.shape)
    with np.errstate(over="ignore"):
        array = objects.astype(dtype)
    if dtype.kind in "fV" and not np.all(finite := np.isfinite(array)):
        # What is not finite as it is given may stay so.
        if np.any(np.isfinite(objects[~finite].astype(np.float64))):
            raise ValueError(f"expected numbers that {dtype} holds")
    return array


def _content(value):
    """Returns the bytes of a string, or of {"b64": text}."""
    if isinstance(value, str):
        return value.encode()
    text = value.get("b64") if len(value) == 1 else None
    if not isinstance(text, str):
        raise ValueError("expected strings, or objects with base64 in 'b64'")
    text = text.rstrip("=")
    return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)


def _rows(values):
    """Returns a value for each row, an object where there are several."""
    lengths = {len(v) if isinstance(v, list) else None for v in values.values()}
    if len(lengths) != 1 or None in lengths:
        raise invalid(
            "Expected outputs of one batch size in an answer of rows; ask with "
            "'inputs'. Received: several."
        )
    if len(values) == 1:
        return next(iter(values.values()))
    return [
        dict(zip(values, row, strict=True))
        for row in zip(*values.values(), strict=True)
    ]


def _written(name, array):
    """Returns an output as lists of what `json` writes."""
    if array.dtype.kind not in "OSU":
        return array.tolist()
    write = _base64 if name.endswith(_BYTES) else _string
    return np.vectorize(write, otypes=[object])(array).tolist()


def _base64(value):
    return {"b64": base64.b64encode(value).decode()}


def _string(value):
    return value.decode("utf-8", "replace")


def _dictionary(proto):
    """Returns a proto's fields, default values included."""
    return json_format.MessageToDict(
        proto,
        preserving_proto_field_name=True,
        always_print_fields_with_no_presence=True,
    )
