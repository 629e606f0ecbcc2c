"""TensorProto from and to NumPy arrays, fast in both of its encodings.

A TensorProto holds its values as typed fields (float_val, ...) or as raw bytes
(tensor_content); either may arrive, and TensorFlow Serving answers with the
first unless told otherwise.
"""

import math

import ml_dtypes
import numpy as np
from google.protobuf import message

# DataType number -> NumPy type and typed field of tensorflow.TensorProto.
_TYPES = {
    1: (np.float32, "float_val"),
    2: (np.float64, "double_val"),
    3: (np.int32, "int_val"),
    4: (np.uint8, "int_val"),
    5: (np.int16, "int_val"),
    6: (np.int8, "int_val"),
    7: (object, "string_val"),
    8: (np.complex64, "scomplex_val"),
    9: (np.int64, "int64_val"),
    10: (np.bool_, "bool_val"),
    14: (ml_dtypes.bfloat16, "half_val"),
    17: (np.uint16, "int_val"),
    18: (np.complex128, "dcomplex_val"),
    19: (np.float16, "half_val"),
    22: (np.uint32, "uint32_val"),
    23: (np.uint64, "uint64_val"),
}
_STRING = 7
_NUMBERS = {
    np.dtype(dtype): number
    for number, (dtype, _) in _TYPES.items()
    if number != _STRING
}
MAX_DIMENSIONS = 254
# Values that a message does not carry are made up to this size (repeats of
# the last one), so that a few bytes cannot ask for gigabytes.
_MAX_FILLED_BYTES = 2**26
# An array of strings takes a hundred times the bytes of a message of empty
# ones: an object each here, and TensorFlow's own beside it.
_MAX_STRINGS = 2**18
_STRING_BYTES = 64


def numpy_type(number: int) -> np.dtype:
    """Returns the NumPy type of a DataType's number, objects for strings.

    Types without numbers in them, as resources, are objects too.
    """
    return np.dtype(_TYPES.get(number, (object, ""))[0])


def from_proto(proto: message.Message) -> np.ndarray:
    """Returns the array that a TensorProto holds.

    Typed fields with too few values repeat the last one, none at all gives
    zeros, surplus is dropped; all as TensorFlow itself does. At most 64 MiB
    are filled in that way, and at most 2**18 strings are read.

    Args:
      proto: tensorflow.TensorProto.

    Returns:
      An array, of bytes objects for strings. It may be read-only.

    Raises:
      ValueError: type, shape and content do not fit together.
    """
    if proto.dtype not in _TYPES:
        raise ValueError(f"type {proto.dtype} is not supported")
    dtype, field = _TYPES[proto.dtype]
    shape = _shape(proto.tensor_shape)
    size = math.prod(shape)
    content = proto.tensor_content
    if proto.dtype == _STRING:
        return _strings(proto, size).reshape(shape)
    if content:
        if len(content) != size * np.dtype(dtype).itemsize:
            raise ValueError("tensor_content does not have the shape's length")
        return np.frombuffer(content, dtype).reshape(shape)
    return _filled(
        _typed_values(getattr(proto, field), proto.dtype), size, dtype, 0
    ).reshape(shape)


def to_proto(
    array: np.ndarray,
    proto: message.Message | None = None,
    as_content: bool = True,
) -> message.Message:
    """Returns a TensorProto that holds an array.

    Args:
      array: of a type that TensorFlow has; bytes objects for strings.
      proto: the message to fill; None for a new one.
      as_content: write raw bytes and not typed fields. Strings are always
        written as typed fields.

    Raises:
      ValueError: TensorProto has no such type.
    """
    if proto is None:
        # Importing it imports all of TensorFlow.
        from tensorflow.core.framework import tensor_pb2

        proto = tensor_pb2.TensorProto()
    array = np.asarray(array)
    is_string = array.dtype.kind in "OSU"
    number = _STRING if is_string else _NUMBERS.get(array.dtype)
    if number is None:
        raise ValueError(f"type {array.dtype} is not supported")
    proto.dtype = number
    for size in array.shape:
        proto.tensor_shape.dim.add().size = size
    if is_string:
        proto.string_val.extend(_as_bytes(v) for v in array.ravel())
    elif as_content:
        proto.tensor_content = array.tobytes()
    else:
        _write_typed(proto, array.ravel(), _TYPES[number][1])
    return proto


def _shape(tensor_shape):
    if len(tensor_shape.dim) > MAX_DIMENSIONS:
        raise ValueError("the shape has too many dimensions")
    shape = tuple(dim.size for dim in tensor_shape.dim)
    if any(size < 0 for size in shape):
        raise ValueError("the shape has a negative dimension")
    if math.prod(shape) >= 2**63:
        raise ValueError("the shape has too many elements")
    return shape


def _typed_values(values, number):
    if number in (8, 18):  # complex: real and imaginary parts in turn
        parts = np.array(values, np.float64)
        if len(parts) % 2:
            raise ValueError("complex values come in pairs")
        return parts[::2] + 1j * parts[1::2]
    if number in (14, 19):  # the bits of 16-bit floats, as integers
        return np.array(values, np.uint16).view(_TYPES[number][0])
    if number in (4, 5, 6, 17):  # int_val is 32 bits wide: cut, as C++ does
        return np.array(values, np.int32).astype(_TYPES[number][0])
    return np.array(values, _TYPES[number][0])


def _strings(proto, size):
    """Returns bytes objects [size]."""
    if max(size, len(proto.string_val)) > _MAX_STRINGS:
        raise ValueError(f"more than {_MAX_STRINGS} strings")
    if not proto.tensor_content:
        return _filled(list(proto.string_val[:size]), size, object, b"")
    # All lengths, then all bytes. Only C++ writes strings so: it reads them.
    import tensorflow as tf

    try:
        read = tf.io.parse_tensor(proto.SerializeToString(), tf.string)
    except tf.errors.InvalidArgumentError as error:
        raise ValueError("tensor_content holds no such strings") from error
    return read.numpy().ravel()


def _filled(values, size, dtype, zero):
    given = min(len(values), size)
    itemsize = np.dtype(dtype).itemsize
    if dtype is object:
        itemsize = _STRING_BYTES + (len(values[-1]) if given else 0)
    if (size - given) * itemsize > _MAX_FILLED_BYTES:
        raise ValueError("the shape is far larger than the values that came")
    array = np.empty(size, dtype)
    array[:given] = values[:given]
    if given < size:
        array[given:] = values[given - 1] if given else zero
    return array


def _write_typed(proto, flat, field):
    descriptor = proto.DESCRIPTOR.fields_by_name[field]
    if flat.dtype.kind == "c":
        flat = flat.view(flat.real.dtype)
    if field == "half_val":
        flat = flat.view(np.uint16)
    if flat.dtype.itemsize * 8 in (32, 64) and flat.dtype.kind == "f":
        # Packed floats are their own bytes on the wire: parsing those takes
        # microseconds, extending a repeated field milliseconds.
        raw = flat.astype(flat.dtype.newbyteorder("<")).tobytes()
        key = descriptor.number << 3 | 2
        proto.MergeFromString(_varint(key) + _varint(len(raw)) + raw)
    else:
        getattr(proto, field).extend(flat.tolist())


def _varint(value):
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _as_bytes(value):
    return value.encode() if isinstance(value, str) else bytes(value)
