"""Bodies of REST calls: JSON to arrays, arrays to JSON, and what is refused."""

import gzip
import json
import time

import numpy as np
from absl.testing import parameterized
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import meta_graph_pb2

from serving.server import prediction
from serving.server.rest import bodies
from serving.status import StatusError

_MAX_BYTES = 2**24


def _signatures(**types):
    """Returns a default signature with inputs of types."""
    signature = meta_graph_pb2.SignatureDef()
    for name, dtype in types.items():
        signature.inputs[name].name = f"{name}:0"
        signature.inputs[name].dtype = types_pb2.DataType.Value(f"DT_{dtype}")
    signature.outputs["y"].name = "y:0"
    return {"serving_default": signature}


def _arrays(body, **types):
    """Returns {input: array} of a body."""
    if not isinstance(body, bytes):
        body = json.dumps(body).encode()
    asked = bodies.document(body, False, _MAX_BYTES)
    feeds = bodies.plan_of(_signatures(**types or {"x": "FLOAT"}), asked).feeds
    return {name.removesuffix(":0"): array for name, array in feeds.items()}


def _text(form, **arrays):
    asked = bodies.document(json.dumps({form: [0]}).encode(), False, _MAX_BYTES)
    plan = prediction.Plan("", {}, tuple(arrays), ())
    return bodies.writer(asked)(None, plan, arrays.values())


def _answer(form, **arrays):
    return json.loads(_text(form, **arrays))


class RequestTest(parameterized.TestCase):
    @parameterized.parameters(
        {"instances": [[1, 2.5], [3, -1]]},
        {"instances": [{"x": [1, 2.5]}, {"x": [3, -1]}]},
        {"inputs": [[1, 2.5], [3, -1]]},
        {"inputs": {"x": [[1, 2.5], [3, -1]]}, "other": {"ignored": None}},
    )
    def test_forms(self, **body):
        (array,) = _arrays(body).values()
        self.assertEqual(array.dtype, np.float32)
        np.testing.assert_array_equal(array, [[1, 2.5], [3, -1]])

    def test_several_inputs(self):
        rows = [{"a": 1, "b": ["x", {"b64": "AP8"}]}]
        columns = {"a": [1], "b": [["x", {"b64": "AP8="}]]}
        for body in {"instances": rows}, {"inputs": columns}:
            arrays = _arrays(body, a="INT64", b="STRING")
            self.assertEqual(arrays["a"].tolist(), [1])
            self.assertEqual(arrays["b"].tolist(), [[b"x", b"\x00\xff"]])

    @parameterized.parameters(
        ("DOUBLE", [1, 0.1], np.float64, [1, 0.1]),
        ("INT32", [-(2**31)], np.int32, [-(2**31)]),
        ("UINT8", [255], np.uint8, [255]),
        ("HALF", [0.5], np.float16, [0.5]),
        ("INT64", [2**63 - 1], np.int64, [2**63 - 1]),
        ("UINT64", [2**64 - 1], np.uint64, [2**64 - 1]),
        ("BOOL", [True, False], np.bool_, [True, False]),
        ("STRING", "é", object, "é".encode()),
        ("FLOAT", [[], []], np.float32, [[], []]),
    )
    def test_types(self, dtype, value, expected_dtype, expected):
        array = _arrays({"inputs": value}, x=dtype)["x"]
        self.assertEqual(array.dtype, expected_dtype)
        self.assertEqual(array.tolist(), expected)

    def test_words_for_no_numbers(self):
        body = b'{"inputs": [NaN, Infinity, -Infinity]}'
        np.testing.assert_array_equal(
            _arrays(body)["x"], [np.nan, np.inf, -np.inf]
        )

    @parameterized.parameters(
        ("FLOAT", ["a"]),
        ("FLOAT", [True]),
        ("FLOAT", [None]),
        ("FLOAT", [{"b64": "AA"}]),
        ("FLOAT", [10**400]),
        ("FLOAT", [1e39]),
        ("HALF", [1e5]),
        ("BFLOAT16", [1e39]),
        ("FLOAT", [[1, 2], [3]]),
        ("FLOAT", [[1], 2]),
        ("INT32", [0.5]),
        ("INT32", [2**31]),
        ("UINT8", [256]),
        ("INT64", [2**63]),
        ("UINT64", [-1]),
        ("INT64", [True]),
        ("BOOL", [1]),
        ("STRING", [1]),
        ("STRING", ["\ud800"]),
        ("STRING", [{"b64": "%%%"}]),
        ("STRING", [{"b64": 1}]),
        ("STRING", [{"b": "AA"}]),
        ("COMPLEX64", [1]),
    )
    def test_wrong_values(self, dtype, value):
        self.assert_refused({"inputs": value}, x=dtype)

    @parameterized.parameters(
        b"",
        b"{",
        b"[]",
        b"1",
        b"\xff{}",
        '{"inputs": 1}'.encode("utf-16"),
        b"]" * 2**20,
        b"[" * 100_000,
        b'{"inputs": %s}' % (b"9" * 5000),
        b"{}",
        b'{"inputs": 1, "instances": [1]}',
        b'{"instances": []}',
        b'{"instances": {}}',
        b'{"instances": [1], "signature_name": 1}',
        b'{"instances": [{"x": 1}, 2]}',
        b'{"instances": [{"x": 1}, {"z": 2}]}',
        b'{"instances": [{"z": 1}]}',
        b'{"inputs": {"x": 1, "z": 1}}',
        b'{"instances": %s1%s}' % (b"[" * 100, b"]" * 100),
    )
    def test_wrong_documents(self, body):
        self.assert_refused(body)

    def test_bare_values_for_several_inputs(self):
        for body in {"inputs": 1}, {"instances": [1]}:
            self.assert_refused(body, x="FLOAT", z="FLOAT")

    def test_gzip(self):
        body = b'{"inputs": [1]}'
        packed = gzip.compress(body)
        asked = bodies.document(packed, True, len(body))
        self.assertEqual(asked.columns, [1])
        for content, limit in (
            (packed, len(body) - 1),
            (packed[:-9], 100),
            (b"no gzip", 100),
            (b"", 100),
        ):
            with self.assertRaises(StatusError):
                bodies.document(content, True, limit)

    def test_a_long_number_takes_no_time(self):
        """It once took 25 seconds, and 4 MB of odd rows 9."""
        long = b'{"inputs": [0.%s, {}]}' % (b"1" * 2**20)
        odd = b'{"instances": [%s{}]}' % (b"[1]," * 2**20)
        begin = time.process_time()
        for body in long, odd:
            self.assert_refused(body)
        self.assertLess(time.process_time() - begin, 3)

    @parameterized.parameters(b"[],", b"{},", b"1,")
    def test_what_would_become_too_much(self, part):
        self.assert_refused(b'{"inputs": [%s1]}' % (part * (2**22 + 1)))

    def assert_refused(self, body, code="INVALID_ARGUMENT", **types):
        with self.assertRaises(StatusError) as raised:
            _arrays(body, **types)
        self.assertEqual(raised.exception.code, code)
        self.assertLess(len(raised.exception.message), 2000)


class AnswerTest(parameterized.TestCase):
    def test_rows(self):
        y = np.float32([[1, 0.1], [2, 3]])
        self.assertEqual(
            _answer("instances", y=y)["predictions"], y.astype(float).tolist()
        )
        self.assertEqual(
            _answer("instances", y=y[:, 0], n=np.array([5, 6]))["predictions"],
            [{"y": 1, "n": 5}, {"y": 2, "n": 6}],
        )

    def test_columns(self):
        self.assertEqual(_answer("inputs", y=np.int64(3))["outputs"], 3)
        self.assertEqual(
            _answer("inputs", y=np.float32([1]), n=np.array([[True]])),
            {"outputs": {"y": [1.0], "n": [[True]]}},
        )

    def test_floats_survive(self):
        values = np.random.default_rng(0).normal(size=1000).astype(np.float32)
        read = np.float32(_answer("inputs", y=values)["outputs"])
        np.testing.assert_array_equal(read, values)

    def test_no_numbers(self):
        text = _text("inputs", y=np.float32([np.nan, -np.inf]))
        self.assertEqual(text, b'{"outputs": [NaN, -Infinity]}')

    def test_strings(self):
        values = np.array([b"a\xff", b'"'], object)
        self.assertEqual(
            _answer("inputs", y=values)["outputs"], ["a\ufffd", '"']
        )
        self.assertEqual(
            _answer("inputs", y_bytes=values)["outputs"],
            [{"b64": "Yf8="}, {"b64": "Ig=="}],
        )

    @parameterized.parameters(
        {"y": np.complex64([1])},
        {"y": np.float32(1)},
        {"y": np.float32([1]), "n": np.float32([1, 2])},
    )
    def test_refused(self, **arrays):
        with self.assertRaises(StatusError) as raised:
            _answer("instances", **arrays)
        self.assertEqual(raised.exception.code, "INVALID_ARGUMENT")
