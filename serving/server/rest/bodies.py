"""Bodies of REST calls: JSON as a session's plan, outputs and protos as JSON.

Linear in the size of a body, and bounded: a few bytes of JSON can become many
objects, and neither `json` nor NumPy lets other threads run in between.
"""

import base64
import binascii
import dataclasses
import json
import zlib
from collections.abc import Callable, Mapping

import numpy as np
from google.protobuf import json_format, message
from tensorflow.core.framework import types_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
)

from ...status import StatusError, invalid
from .. import prediction

# Lists, objects and values that a body may hold.
_MAX_CONTAINERS, _MAX_VALUES = 2**20, 2**21
_STRING, _BOOL = 7, 10
_FLOATS = {1: np.float32, 2: np.float64}
# DataType number -> NumPy type and the range that is let in. As in TensorFlow
# Serving it is int32's for all small integers, which are cut afterwards.
_INT32 = (-(2**31), 2**31 - 1)
_INTEGERS = {
    3: (np.int32, *_INT32),
    4: (np.uint8, *_INT32),
    5: (np.int16, *_INT32),
    6: (np.int8, *_INT32),
    9: (np.int64, -(2**63), 2**63 - 1),
    22: (np.uint32, 0, 2**32 - 1),
    23: (np.uint64, 0, 2**64 - 1),
}
# Kinds of array, and types among them, that have no JSON form.
_WRITTEN_KINDS = "fiubOSU"
_UNWRITTEN = ("float16", "bfloat16", "uint16")
_BYTES = "_bytes"


@dataclasses.dataclass(frozen=True)
class Document:
    """A predict call's body.

    Attributes:
      signature_name: "" for the default.
      rows: the instances, a list; None if the call came in columns.
      columns: the inputs.
      infinities: how often the word Infinity stands in it.
      size: bytes of it, unpacked.
    """

    signature_name: str
    rows: list | None
    columns: object
    infinities: int
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
    infinities = 0

    def constant(name):
        nonlocal infinities
        infinities += name != "NaN"
        return float(name)

    try:
        value = json.loads(body.decode("utf-8"), parse_constant=constant)
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
    return Document(name, rows, value.get("inputs"), infinities, len(body))


def plan_of(
    signatures: Mapping[str, message.Message], asked: Document
) -> prediction.Plan:
    """Returns the Plan of a predict call.

    Args:
      signatures: {name: SignatureDef} of the model.
      asked: the call's body.

    Raises:
      StatusError: INVALID_ARGUMENT, or UNIMPLEMENTED for a tensor's type.
    """
    name = asked.signature_name or "serving_default"
    if name not in signatures:
        raise invalid(
            f'Serving signature name: "{name}" not found in signature def'
        )
    infos = signatures[name].inputs
    if asked.rows is None:
        values = _columns(asked.columns, infos)
    else:
        values = _named_columns(asked.rows, infos)
    arrays = {
        key: _array(key, value, infos[key].dtype, asked.infinities)
        for key, value in values.items()
        if key in infos
    }
    return prediction.plan(
        signatures, name, {**values, **arrays}, lambda value: value
    )


def writer(asked: Document) -> Callable[..., bytes]:
    """Returns what writes an answer in the form that its call came in.

    A function of (Version, Plan, outputs). It raises StatusError,
    INVALID_ARGUMENT, for outputs without a JSON form.
    """

    def write(_, plan, outputs):
        arrays = dict(zip(plan.aliases, outputs, strict=True))
        if asked.rows is None:
            return _write_columns(arrays)
        return _write_rows(arrays)

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


def _named_columns(rows, infos):
    """Returns {input: list of values} of a list of rows."""
    if not _is_object(rows[0]):
        if len(infos) != 1:
            raise invalid(
                "instances is a plain list, but expecting list of objects as "
                "multiple input tensors required as per tensorinfo_map"
            )
        return {next(iter(infos)): rows}
    names = rows[0].keys()
    if not all(_is_object(row) and row.keys() == names for row in rows):
        raise invalid("Expected objects of the same keys in 'instances'.")
    return {name: [row[name] for row in rows] for name in names}


def _columns(columns, infos):
    if _is_object(columns):
        return dict(columns)
    if len(infos) != 1:
        raise invalid(
            "inputs is a plain value/list, but expecting an object as "
            "multiple input tensors required as per tensorinfo_map"
        )
    return {next(iter(infos)): columns}


def _is_object(value):
    return isinstance(value, dict) and value.keys() != {"b64"}


def _array(name, value, number, infinities):
    """Returns the array of nested lists, bytes objects for strings."""
    known = number in (_STRING, _BOOL) or number in _FLOATS | _INTEGERS
    if not known:
        raise StatusError(
            "UNIMPLEMENTED",
            f"Conversion of JSON Value to type: {_type_name(number)}",
        )
    try:
        objects = np.array(value, object)
    except ValueError:  # lists of different lengths
        objects = np.array(None)
    kinds = set(map(type, objects.ravel().tolist()))
    try:
        return _converted(objects, kinds, number, infinities)
    except (ValueError, TypeError, OverflowError, KeyError, AttributeError):
        raise invalid(
            f"Expected lists of one shape with values of type "
            f"{_type_name(number)} in {name!r}. Received: others."
        ) from None


def _converted(objects, kinds, number, infinities):
    """Returns an array of a type; raises where a value is of another."""
    if number in _FLOATS and kinds <= {int, float}:
        wide = objects.astype(np.float64)
        if np.isinf(wide).sum() > infinities:
            raise invalid("Number too big to be stored in double.")
        with np.errstate(over="ignore"):
            return wide.astype(_FLOATS[number])
    if number in _INTEGERS and kinds <= {int}:
        dtype, least, greatest = _INTEGERS[number]
        flat = objects.ravel().tolist()
        if flat and not (least <= min(flat) and max(flat) <= greatest):
            raise OverflowError
        wide = np.uint64 if number == 23 else np.int64
        return objects.astype(wide).astype(dtype)
    if number == _BOOL and kinds <= {bool}:
        return objects.astype(np.bool_)
    if number == _STRING and kinds <= {str, dict}:
        content = np.empty(objects.size, object)
        content[:] = [_content(value) for value in objects.ravel().tolist()]
        return content.reshape(objects.shape)
    raise TypeError


def _content(value):
    """Returns the bytes of a string, or of {"b64": text}."""
    if isinstance(value, str):
        return value.encode()
    text = "".join(value["b64"].split()).rstrip("=")
    try:
        padding = "=" * (-len(text) % 4)
        return base64.b64decode(text + padding, validate=True)
    except (ValueError, binascii.Error):
        raise invalid("Unable to base64 decode") from None


def _type_name(number):
    return types_pb2.DataType.Name(number).removeprefix("DT_").lower()


def _write_rows(arrays):
    sizes = {array.shape[:1] for array in arrays.values()}
    if len(sizes) != 1 or () in sizes:
        shapes = {name: array.shape for name, array in arrays.items()}
        raise invalid(
            "Expected outputs of one batch size in an answer of rows; ask with "
            f"'inputs'. Received: {shapes}."
        )
    values = {name: _values(name, array) for name, array in arrays.items()}
    if len(values) == 1:
        return _text({"predictions": next(iter(values.values()))})
    rows = [
        dict(zip(values, row, strict=True))
        for row in zip(*values.values(), strict=True)
    ]
    return _text({"predictions": rows})


def _write_columns(arrays):
    values = {name: _values(name, array) for name, array in arrays.items()}
    if len(values) == 1:
        (values,) = values.values()
    return _text({"outputs": values})


def _text(value):
    # Strings that are no UTF-8 leave as the bytes that they are.
    text = json.dumps(value, ensure_ascii=False)
    return text.encode("utf-8", "surrogateescape")


def _values(name, array):
    array = np.asarray(array)
    kind = array.dtype.kind
    if kind not in _WRITTEN_KINDS or array.dtype.name in _UNWRITTEN:
        raise invalid(
            f"Failed to write JSON value for tensor type: {array.dtype.name}"
        )
    if kind not in "OSU":
        return array.tolist()
    write = _base64 if name.endswith(_BYTES) else _string
    return np.vectorize(write, otypes=[object])(array).tolist()


def _base64(value):
    return {"b64": base64.b64encode(value).decode()}


def _string(value):
    return value.decode("utf-8", "surrogateescape")


def _dictionary(proto):
    """Returns a proto's fields, default values included."""
    return json_format.MessageToDict(
        proto,
        preserving_proto_field_name=True,
        always_print_fields_with_no_presence=True,
    )
