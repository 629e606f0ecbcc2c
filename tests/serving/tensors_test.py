"""Tensors on the wire, against TensorFlow's own reading and writing."""

import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized
from tensorflow.core.framework import tensor_pb2

from serving import tensors

_NUMBERS = (
    "float32 float64 float16 bfloat16 int8 int16 int32 int64 uint8 uint16 "
    "uint32 uint64 bool complex64 complex128"
).split()


def _array(name, shape=(3, 4)):
    values = np.random.default_rng(0).normal(size=shape) * 100
    if name.startswith("complex"):
        values = values + 2j * values[::-1]
    dtype = tf.as_dtype(name)
    if dtype.is_unsigned:
        values = np.abs(values)
    return values.astype(dtype.as_numpy_dtype)


def _proto(dtype, shape, **fields):
    proto = tensor_pb2.TensorProto(dtype=tf.as_dtype(dtype).as_datatype_enum)
    for size in shape:
        proto.tensor_shape.dim.add().size = size
    for name, values in fields.items():
        if name == "tensor_content":
            proto.tensor_content = values
        else:
            getattr(proto, name).extend(values)
    return proto


class RoundTripTest(parameterized.TestCase):
    @parameterized.product(name=_NUMBERS, as_content=(True, False))
    def test_numbers(self, name, as_content):
        array = _array(name)
        proto = tensors.to_proto(array, as_content=as_content)
        self.assertEqual(bool(proto.tensor_content), as_content)
        self.assertEqual(proto.dtype, tf.as_dtype(name).as_datatype_enum)
        for read in (tf.make_ndarray, tensors.from_proto):
            self.assertEqual(read(proto).dtype, array.dtype)
            np.testing.assert_array_equal(read(proto), array)

    @parameterized.parameters(*_NUMBERS)
    def test_reads_what_tensorflow_writes(self, name):
        array = _array(name)
        proto = tf.make_tensor_proto(array)
        np.testing.assert_array_equal(tensors.from_proto(proto), array)

    @parameterized.parameters((np.empty((0, 3), "f"),), (np.float32(2.5),))
    def test_no_elements_and_no_dimensions(self, array):
        for as_content in (True, False):
            proto = tensors.to_proto(array, as_content=as_content)
            read = tensors.from_proto(proto)
            self.assertEqual(read.shape, array.shape)
            np.testing.assert_array_equal(read, array)

    def test_strings(self):
        array = np.array([[b"a", b""], ["ä", b"\0" * 300]], object)
        proto = tensors.to_proto(array)
        read = tensors.from_proto(proto)
        self.assertEqual(
            read.tolist(), [[b"a", b""], ["ä".encode(), bytes(300)]]
        )
        np.testing.assert_array_equal(tf.make_ndarray(proto), read)

    def test_strings_as_content(self):
        # All lengths, the second in two bytes, then all of the bytes.
        content = b"\x01\xac\x02" + b"a" + b"b" * 300
        proto = _proto(tf.string, [2, 1], tensor_content=content)
        read = tensors.from_proto(proto)
        self.assertEqual(read.tolist(), [[b"a"], [b"b" * 300]])

    @parameterized.parameters(*_NUMBERS, "string")
    def test_types(self, name):
        kind = tf.as_dtype(name)
        self.assertEqual(
            tensors.numpy_type(kind.as_datatype_enum), kind.as_numpy_dtype
        )

    def test_a_type_that_tensors_lack_is_refused(self):
        with self.assertRaisesRegex(ValueError, "datetime64"):
            tensors.to_proto(np.array(["2020-01-01"], "M8[D]"))


class IncompleteTest(parameterized.TestCase):
    """What fewer or more values than elements mean."""

    @parameterized.parameters(
        ([1.0, 2.0], [1.0, 2.0, 2.0, 2.0]),  # the last one is repeated
        ([], [0.0] * 4),
        ([1.0, 2.0, 3.0, 4.0, 5.0], [1.0, 2.0, 3.0, 4.0]),  # surplus
    )
    def test_numbers(self, given, expected):
        proto = _proto(tf.float32, [2, 2], float_val=given)
        read = tensors.from_proto(proto)
        np.testing.assert_array_equal(read.ravel(), expected)
        # TensorFlow's C++ reads it the same way.
        parsed = tf.io.parse_tensor(proto.SerializeToString(), tf.float32)
        np.testing.assert_array_equal(parsed, read)

    def test_strings(self):
        proto = _proto(tf.string, [3], string_val=[b"x"])
        self.assertEqual(tensors.from_proto(proto).tolist(), [b"x"] * 3)
        proto = _proto(tf.string, [2])
        self.assertEqual(tensors.from_proto(proto).tolist(), [b"", b""])

    def test_small_integers_are_cut(self):
        proto = _proto(tf.uint8, [2], int_val=[257, -1])
        self.assertEqual(tensors.from_proto(proto).tolist(), [1, 255])
        proto = _proto(tf.half, [1], half_val=[0x3C00 + 2**16])
        self.assertEqual(tensors.from_proto(proto).tolist(), [1.0])


class MalformedTest(parameterized.TestCase):
    @parameterized.parameters(
        _proto(tf.float32, [2], tensor_content=b"1234567"),
        _proto(tf.float32, [2**40]),
        _proto(tf.float32, [2**40], float_val=[1.0]),
        _proto(tf.float32, [2**62, 2**62]),
        _proto(tf.float32, [-1]),
        _proto(tf.float32, [1] * 255),
        _proto(tf.string, [2], tensor_content=b"\x01"),
        _proto(tf.string, [1], tensor_content=b"\x05ab"),
        _proto(tf.string, [1], tensor_content=b"\xff" * 9),
        _proto(tf.string, [2**20 + 1], tensor_content=b"\0" * 2**20),
        _proto(tf.string, [2**20], string_val=[b"x"]),
        _proto(tf.string, [2**10], string_val=[b"x" * 2**17]),
        _proto(tf.complex64, [1], scomplex_val=[1.0]),
        _proto(tf.variant, [1]),
        _proto(tf.qint8, [1]),
        tensor_pb2.TensorProto(),
    )
    def test_is_refused_at_once(self, proto):
        with self.assertRaises(ValueError):
            tensors.from_proto(proto)

    def test_unknown_rank_is_that_of_the_dimensions(self):
        """As TensorFlow reads it."""
        proto = _proto(tf.float32, [], float_val=[1.0])
        proto.tensor_shape.unknown_rank = True
        self.assertEqual(tensors.from_proto(proto), 1.0)


if __name__ == "__main__":
    absltest.main()
