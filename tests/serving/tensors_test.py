"""Tensors on the wire, against TensorFlow's own reading and writing."""

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2

from serving import tensors

_NUMBERS = (
    "float32 float64 float16 bfloat16 int8 int16 int32 int64 uint8 uint16 "
    "uint32 uint64 bool complex64 complex128"
).split()


def _array(name):
    values = np.random.default_rng(0).normal(size=(3, 4)) * 100
    if name.startswith("complex"):
        values = values + 2j * values[::-1]
    dtype = tf.as_dtype(name)
    if dtype.is_unsigned:
        values = np.abs(values)
    return values.astype(dtype.as_numpy_dtype)


def _proto(dtype, shape, tensor_content=b"", **values):
    proto = tensor_pb2.TensorProto(
        dtype=tf.as_dtype(dtype).as_datatype_enum,
        tensor_content=tensor_content,
        **values,
    )
    for size in shape:
        proto.tensor_shape.dim.add().size = size
    return proto


@pytest.mark.parametrize("as_content", [True, False])
@pytest.mark.parametrize("name", _NUMBERS)
def test_numbers(name, as_content):
    array = _array(name)
    proto = tensors.to_proto(array, as_content=as_content)
    assert bool(proto.tensor_content) == as_content
    number = tf.as_dtype(name).as_datatype_enum
    assert proto.dtype == number
    assert tensors.numpy_type(number) == array.dtype
    for read in (
        tf.make_ndarray(proto),
        tensors.from_proto(proto),
        tensors.from_proto(tf.make_tensor_proto(array)),
    ):
        assert read.dtype == array.dtype
        np.testing.assert_array_equal(read, array)


@pytest.mark.parametrize("as_content", [True, False])
@pytest.mark.parametrize("array", [np.empty((0, 3), "f"), np.float32(2.5)])
def test_no_elements_and_no_dimensions(array, as_content):
    read = tensors.from_proto(tensors.to_proto(array, as_content=as_content))
    assert read.shape == array.shape
    np.testing.assert_array_equal(read, array)


def test_strings():
    array = np.array([[b"a", b""], ["ä", b"\0" * 300]], object)
    proto = tensors.to_proto(array)
    read = tensors.from_proto(proto)
    assert read.tolist() == [[b"a", b""], ["ä".encode(), bytes(300)]]
    np.testing.assert_array_equal(tf.make_ndarray(proto), read)


def test_strings_as_content():
    # All lengths, the second in two bytes, then all of the bytes.
    content = b"\x01\xac\x02" + b"a" + b"b" * 300
    proto = _proto(tf.string, [2, 1], content)
    assert tensors.from_proto(proto).tolist() == [[b"a"], [b"b" * 300]]


def test_a_type_that_tensors_lack_is_refused():
    with pytest.raises(ValueError, match="datetime64"):
        tensors.to_proto(np.array(["2020-01-01"], "M8[D]"))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([1.0, 2.0], [1.0, 2.0, 2.0, 2.0]),  # the last one is repeated
        ([], [0.0] * 4),
        ([1.0, 2.0, 3.0, 4.0, 5.0], [1.0, 2.0, 3.0, 4.0]),  # surplus
    ],
)
def test_fewer_or_more_values_than_elements(given, expected):
    proto = _proto(tf.float32, [2, 2], float_val=given)
    read = tensors.from_proto(proto)
    assert read.ravel().tolist() == expected
    # TensorFlow's C++ reads it the same way.
    parsed = tf.io.parse_tensor(proto.SerializeToString(), tf.float32)
    np.testing.assert_array_equal(parsed, read)


@pytest.mark.parametrize(
    ("proto", "expected"),
    [
        (_proto(tf.string, [3], string_val=[b"x"]), [b"x"] * 3),
        (_proto(tf.string, [2]), [b"", b""]),
        (_proto(tf.uint8, [2], int_val=[257, -1]), [1, 255]),
        (_proto(tf.half, [1], half_val=[0x3C00 + 2**16]), [1.0]),
    ],
)
def test_repeated_strings_and_cut_integers(proto, expected):
    assert tensors.from_proto(proto).tolist() == expected


def test_unknown_rank_is_that_of_the_dimensions():
    """As TensorFlow reads it."""
    proto = _proto(tf.float32, [], float_val=[1.0])
    proto.tensor_shape.unknown_rank = True
    assert tensors.from_proto(proto) == 1.0


@pytest.mark.parametrize(
    "proto",
    [
        _proto(tf.float32, [2], b"1234567"),
        _proto(tf.float32, [2**40]),
        _proto(tf.float32, [2**40], float_val=[1.0]),
        _proto(tf.float32, [2**62, 2**62]),
        _proto(tf.float32, [-1]),
        _proto(tf.float32, [1] * 255),
        _proto(tf.string, [2], b"\x01"),
        _proto(tf.string, [1], b"\x05ab"),
        _proto(tf.string, [1], b"\xff" * 9),
        _proto(tf.string, [2**18 + 1], b"\0" * (2**18 + 1)),
        _proto(tf.string, [1], string_val=[b""] * (2**18 + 1)),
        _proto(tf.string, [2**10], string_val=[b"x" * 2**17]),
        _proto(tf.complex64, [1], scomplex_val=[1.0]),
        _proto(tf.variant, [1]),
        _proto(tf.qint8, [1]),
        tensor_pb2.TensorProto(),
    ],
)
def test_malformed_is_refused_at_once(proto):
    with pytest.raises(ValueError):
        tensors.from_proto(proto)
