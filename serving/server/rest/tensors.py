"""Bodies of REST calls as request protos.

The rules and the error texts are those of TensorFlow Serving. Beyond it, a key
that comes twice is refused, and so is text that is not UTF-8.
"""

import itertools
import math

import numpy as np

from ... import tensors
from ...status import StatusError, invalid
from . import text as json_text

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
_MAX_RANK = 64  # NumPy's
_KNOWN = {_STRING, _BOOL, *_FLOATS, *_INTEGERS}


def predict_request(body, model_spec, inputs_of):
    """Returns the PredictRequest of a body, and whether it came in ROWS.

    Args:
      body: bytes of JSON.
      model_spec: ModelSpec with name, and version or label if one was asked
        for; the body adds the signature's name.
      inputs_of: callable, ModelSpec -> dictionary of name -> TensorInfo. What
        it raises passes through.

    Returns:
      (PredictRequest, ROWS or COLUMNS).

    Raises:
      StatusError: INVALID_ARGUMENT, or UNIMPLEMENTED for a tensor's type.
    """
    from tensorflow_serving.apis import predict_pb2

    document = json_text.document(body)
    request = predict_pb2.PredictRequest(model_spec=model_spec)
    name_signature(document, request.model_spec)
    infos = inputs_of(request.model_spec)
    if not infos:
        name = request.model_spec.signature_name or "DEFAULT"
        raise invalid(f"Failed to get input map for signature: {name}")
    types = {name: infos[name].dtype for name in sorted(infos)}
    form = _form(document)
    if form == json_text.ROWS:
        arrays = _from_rows(document["instances"], types)
    else:
        arrays = _from_columns(document["inputs"], types)
    if any(a.dtype.kind == "f" and np.isinf(a).any() for a in arrays.values()):
        json_text.check_exponents(body)
    for name, array in arrays.items():
        tensors.to_proto(array, request.inputs[name])
    return request, form


def name_signature(document, model_spec):
    """Writes the signature's name that a body gives into its ModelSpec."""
    if "signature_name" not in document:
        return
    name = document["signature_name"]
    if not isinstance(name, str):
        raise json_text.format_error(
            document,
            "not formatted correctly. 'signature_name' key must be a string "
            "value.",
        )
    model_spec.signature_name = name


def _form(document):
    if "instances" not in document:
        if "inputs" not in document:
            raise invalid("Missing 'inputs' or 'instances' key")
        return json_text.COLUMNS
    if "inputs" in document:
        rule = (
            "Not formatted correctly expecting only one of 'inputs' or "
            "'instances' keys to exist "
        )
    elif not isinstance(document["instances"], list):
        rule = "Expecting 'instances' to be an list/array"
    elif not document["instances"]:
        rule = "No values in 'instances' array"
    else:
        return json_text.ROWS
    raise json_text.format_error(document, rule)


def _is_object(value):
    return isinstance(value, dict) and not json_text.is_base64(value)


def _from_rows(instances, types):
    if not isinstance(instances[0], dict) and len(types) > 1:
        raise invalid(
            "instances is a plain list, but expecting list of objects as "
            "multiple input tensors required as per tensorinfo_map"
        )
    named = _is_object(instances[0])
    uniform = all(
        _is_object(row) == named and (not named or row.keys() == types.keys())
        for row in instances
    )
    try:
        if not uniform:
            raise invalid("instances differ in kind")
        if not named:
            return {next(iter(types)): _tensor(instances, *types.values())}
        return {
            name: _tensor([row[name] for row in instances], number)
            for name, number in types.items()
        }
    except StatusError:
        _explain_rows(instances, types, named)
        raise


def _explain_rows(instances, types, named):
    """Raises for the first row that does not fit: all at once says less."""
    shapes = {}
    only = next(iter(types))
    for index, row in enumerate(instances):
        if _is_object(row) != named:
            wanted, got = "object", "list"
            if not named:
                wanted, got = "value/list", "object"
            raise invalid(
                f"Expecting {wanted} but got {got} at item {index} of input "
                "list"
            )
        for name, value in (row if named else {only: row}).items():
            try:
                _check_row(name, value, types, shapes)
            except StatusError as error:
                key = f" key: {name}" if named else ""
                raise invalid(
                    f"Failed to process element: {index}{key} of 'instances' "
                    f"list. Error: {error}"
                ) from None
        if named and row.keys() != types.keys():
            raise invalid(
                f"Failed to process element: {index} of 'instances' list. "
                f"JSON object: {json_text.shown(row)} keys must be equal to: "
                f"{','.join(types)}"
            )


def _check_row(name, value, types, shapes):
    if name not in types:
        raise invalid(f"JSON object: does not have named input: {name}")
    shape = _careful_tensor(value, types[name]).shape
    first = shapes.setdefault(name, shape)
    if math.prod(shape) != math.prod(first):
        raise invalid(
            f"Expecting tensor size: {math.prod(first)} but got: "
            f"{math.prod(shape)}"
        )
    if shape != first:
        first, shape = (",".join(map(str, s)) for s in (first, shape))
        raise invalid(f"Expecting shape [{first}] but got: [{shape}]")


def _from_columns(inputs, types):
    if not _is_object(inputs):
        if len(types) > 1:
            raise invalid(
                "inputs is a plain value/list, but expecting an object as "
                "multiple input tensors required as per tensorinfo_map"
            )
        inputs = {next(iter(types)): inputs}
    arrays = {}
    for name, number in types.items():
        if name not in inputs:
            raise invalid(f"Missing named input: {name} in 'inputs' object.")
        arrays[name] = _tensor(inputs[name], number)
    return arrays


def _tensor(value, number):
    """Returns the array of a value, bytes objects for strings."""
    array = _fast_tensor(value, number)
    return _careful_tensor(value, number) if array is None else array


def _fast_tensor(value, number):
    """Returns the array if types and sizes say that all is well, else None.

    Whole levels are looked at, not values: an image takes a millisecond.
    """
    shape, items = [], [value]
    while items and type(items[0]) is list:
        sizes = set(map(len, items)) if _types(items) == {list} else ()
        if len(sizes) != 1:
            return None
        shape.extend(sizes)
        items = list(itertools.chain.from_iterable(items))
    if not items or not _fits(items, number):
        return None
    if number == _STRING:
        items = list(map(str.encode, items))
    try:
        return _array(items, shape, number)
    except OverflowError:  # an integer beyond a double
        return None


def _types(items):
    return set(map(type, items))


def _fits(items, number):
    """Returns whether values, not empty, all belong in a tensor of a type."""
    if number in _FLOATS:
        return _types(items) <= {int, float}
    if number in _INTEGERS:
        _, least, greatest = _INTEGERS[number]
        return (
            _types(items) == {int}
            and least <= min(items)
            and max(items) <= greatest
        )
    return _types(items) == {_STRING: {str}, _BOOL: {bool}}.get(number)


def _careful_tensor(value, number):
    """Returns the array, value by value; raises at the first that is wrong."""
    shape, first = [], value
    while isinstance(first, list):
        shape.append(len(first))
        first = first[0] if first else None
    leaves, open_lists = [], [iter((value,))]
    while open_lists:
        level = len(open_lists) - 1
        for item in open_lists[-1]:
            if isinstance(item, list):
                _check_list(item, level, shape)
                open_lists.append(iter(item))
                break
            leaves.append(_leaf(item, level, len(shape), number))
        else:
            open_lists.pop()
    return _array(leaves, shape, number)


def _check_list(item, level, shape):
    if level >= len(shape):
        raise invalid(
            f"Encountered list at unexpected level: {level} expected < "
            f"{len(shape)}"
        )
    if len(item) != shape[level]:
        raise invalid(
            f"Encountered list at unexpected size: {len(item)} at level: "
            f"{level} expected size: {shape[level]}"
        )


def _leaf(item, level, rank, number):
    if level != rank:
        raise invalid(
            f"JSON Value: {json_text.shown(item)} found at incorrect level: "
            f"{level + 1} in the JSON DOM. Expected at level: {rank}"
        )
    if number == _STRING and isinstance(item, dict):
        return json_text.base64_bytes(item)
    if number == _STRING and isinstance(item, str):
        return item.encode()
    if number in _FLOATS and type(item) in (int, float):
        return json_text.as_double(item)
    if number in _INTEGERS and type(item) is int:
        _, least, greatest = _INTEGERS[number]
        if least <= item <= greatest:
            return item
    if number == _BOOL and isinstance(item, bool):
        return item
    if number not in _KNOWN and not isinstance(item, dict):
        raise StatusError(
            "UNIMPLEMENTED",
            f"Conversion of JSON Value: {json_text.shown(item)} to type: "
            f"{_type_name(number)}",
        )
    raise invalid(
        f"JSON Value: {json_text.shown(item)} Type: {json_text.kind(item)} is "
        f"not of expected type: {_type_name(number)}"
    )


def _array(leaves, shape, number):
    if len(shape) > _MAX_RANK:
        raise invalid(
            f"A tensor has at most {_MAX_RANK} dimensions, received "
            f"{len(shape)}"
        )
    if number in _FLOATS:
        with np.errstate(over="ignore"):
            array = np.array(leaves, np.float64).astype(_FLOATS[number])
    elif number in _INTEGERS:
        wide = np.uint64 if number == 23 else np.int64
        array = np.array(leaves, wide).astype(_INTEGERS[number][0])
    else:
        array = np.array(leaves, np.bool_ if number == _BOOL else object)
    return array.reshape(shape)


def _type_name(number):
    from tensorflow.core.framework import types_pb2

    return types_pb2.DataType.Name(number).removeprefix("DT_").lower()
