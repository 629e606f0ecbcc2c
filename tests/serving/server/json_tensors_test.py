"""JSON of REST calls: what is understood, what is refused, what is written."""

import base64
import json
import struct
import tracemalloc

import numpy as np
from absl.testing import absltest, parameterized
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import (
    classification_pb2,
    model_pb2,
    predict_pb2,
    regression_pb2,
)

from serving import tensors
from serving.server.rest import answers as json_answers
from serving.server.rest import examples as json_examples
from serving.server.rest import tensors as json_tensors
from serving.server.rest import text as json_text
from serving.status import StatusError


def _infos(**types):
    return {
        name: meta_graph_pb2.TensorInfo(
            dtype=types_pb2.DataType.Value(f"DT_{dtype.upper()}")
        )
        for name, dtype in types.items()
    }


def _request(body, **types):
    if isinstance(body, str):
        body = body.encode()
    request, form = json_tensors.predict_request(
        body,
        model_pb2.ModelSpec(name="m"),
        lambda spec: _infos(**(types or {"x": "float"})),
    )
    return request, form


def _rows(values):
    return f'{{"instances": {values}}}'


def _column(value):
    return f'{{"inputs": {value}}}'


def _arrays(body, **types):
    request, _ = _request(body, **types)
    return {n: tensors.from_proto(t) for n, t in request.inputs.items()}


def _answer(form=json_text.ROWS, **arrays):
    response = predict_pb2.PredictResponse()
    for name, array in arrays.items():
        tensors.to_proto(np.asarray(array), response.outputs[name])
    return json_answers.predict(response, form).decode()


class TestCase(parameterized.TestCase):
    def assert_refused(self, message, call, *args, code="INVALID_ARGUMENT"):
        with self.assertRaises(StatusError) as caught:
            call(*args)
        self.assertEqual(caught.exception.code, code)
        self.assertEqual(caught.exception.message, message)


class PredictRequestTest(TestCase):
    def test_rows_of_one_input_are_bare_values(self):
        request, form = _request('{"instances": [[1, 2], [3, 4], [5, 6]]}')
        self.assertEqual(form, json_text.ROWS)
        self.assertEqual(request.model_spec.name, "m")
        array = tensors.from_proto(request.inputs["x"])
        self.assertEqual(array.dtype, np.float32)
        np.testing.assert_array_equal(array, [[1, 2], [3, 4], [5, 6]])

    def test_rows_of_several_inputs_are_objects(self):
        arrays = _arrays(
            '{"instances": [{"i": [1, 2], "s": "foo", "f": [NaN]},'
            ' {"s": "bar", "i": [3, -4], "f": [-Infinity]}]}',
            i="int32",
            s="string",
            f="double",
        )
        np.testing.assert_array_equal(arrays["i"], [[1, 2], [3, -4]])
        self.assertEqual(arrays["s"].tolist(), [b"foo", b"bar"])
        np.testing.assert_array_equal(arrays["f"], [[np.nan], [-np.inf]])

    def test_one_input_may_be_named(self):
        array = _arrays('{"instances": [{"x": [1]}, {"x": [2]}]}')["x"]
        np.testing.assert_array_equal(array, [[1], [2]])

    def test_columns(self):
        request, form = _request(
            '{"inputs": {"x": [1, 2, 3], "s": {"b64": "aGVsbG8="}},'
            ' "signature_name": "two"}',
            x="int64",
            s="string",
        )
        self.assertEqual(form, json_text.COLUMNS)
        self.assertEqual(request.model_spec.signature_name, "two")
        x = tensors.from_proto(request.inputs["x"])
        np.testing.assert_array_equal(x, [1, 2, 3])
        s = tensors.from_proto(request.inputs["s"])
        self.assertEqual((s.shape, s.item()), ((), b"hello"))

    def test_a_column_of_one_input_is_bare(self):
        np.testing.assert_array_equal(_arrays('{"inputs": 7}')["x"], 7)

    def test_base64_rows(self):
        body = '{"instances": [{"b64": "aGVsbG8="}, {"b64": "d29ybGQ"}]}'
        array = _arrays(body, x="string")["x"]
        self.assertEqual(array.tolist(), [b"hello", b"world"])

    @parameterized.parameters(
        ("bool", "[true, false]", [True, False]),
        ("uint8", "[255, 256]", [255, 0]),
        ("int8", "[127, 128]", [127, -128]),
        ("uint32", "[4294967295]", [2**32 - 1]),
        ("uint64", "[18446744073709551615]", [2**64 - 1]),
        ("int64", "[-9223372036854775808]", [-(2**63)]),
        ("float", "[18446744073709551616, 1]", [2.0**64, 1]),
        ("float", "[1e300, 1]", [np.inf, 1]),
        ("float", "[[], []]", np.zeros((2, 0))),
        ("double", "[0.1, 1, -0.0]", [0.1, 1, -0.0]),
    )
    def test_types(self, dtype, values, expected):
        array = _arrays(_rows(values), x=dtype)["x"]
        np.testing.assert_array_equal(array, expected)
        self.assertEqual(array.shape, np.shape(expected))

    @parameterized.parameters(
        ("float", [[1, 2.5], [-3e40, 4]]),
        ("double", [0.1]),
        ("int8", [[[1], [300]]]),
        ("uint64", [2**64 - 1]),
        ("string", [["a", "\u00e4"], ["", "b"]]),
        ("bool", [True, False]),
    )
    def test_reading_whole_and_row_by_row_agree(self, dtype, rows):
        number = _infos(x=dtype)["x"].dtype
        fast = json_tensors._fast_tensor(rows, number)
        careful = json_tensors._careful_tensor(rows, number)
        self.assertEqual(fast.dtype, careful.dtype)
        np.testing.assert_array_equal(fast, careful)
        np.testing.assert_array_equal(
            fast, _arrays(_column(json.dumps(rows)), x=dtype)["x"]
        )

    def test_one_long_string_among_numbers_takes_no_memory(self):
        values = json.dumps(["x" * 2**20] + [1] * 2**20)
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        with self.assertRaisesRegex(StatusError, "not of expected type: float"):
            _request(_column(values))
        self.assertLess(tracemalloc.get_traced_memory()[1], 2**27)

    @parameterized.parameters(
        (
            '["a"]',
            'JSON Value: "a" Type: String is not of expected type: float',
        ),
        (
            "[true]",
            "JSON Value: true Type: True is not of expected type: float",
        ),
        (
            "[null]",
            "JSON Value: null Type: Null is not of expected type: float",
        ),
        (
            '[[{"b64": "AA=="}]]',
            'JSON Value: {\n    "b64": "AA=="\n} Type: Object is not of '
            "expected type: float",
        ),
        ("[1, [1]]", "Expecting shape [] but got: [1]"),
        ("[[1, 2], [3]]", "Expecting tensor size: 2 but got: 1"),
        ("[[[1, 2]], [[3], [4]]]", "Expecting shape [1,2] but got: [2,1]"),
        (
            "[[[1, 2], [3]]]",
            "Encountered list at unexpected size: 1 at level: 1 expected "
            "size: 2",
        ),
        (
            "[[1, [2]]]",
            "Encountered list at unexpected level: 1 expected < 1",
        ),
        (
            "[[[1], 2.5]]",
            "JSON Value: 2.5 found at incorrect level: 2 in the JSON DOM. "
            "Expected at level: 2",
        ),
    )
    def test_wrong_rows(self, values, reason):
        index = 1 if reason.startswith("Expecting") else 0
        self.assert_refused(
            f"Failed to process element: {index} of 'instances' list. Error: "
            f"INVALID_ARGUMENT: {reason}",
            _request,
            _rows(values),
        )

    @parameterized.parameters(
        ("int32", "2147483648", "Number is not of expected type: int32"),
        ("int32", "1.0", "Number is not of expected type: int32"),
        ("uint64", "-1", "Number is not of expected type: uint64"),
        ("string", "1.5", "Number is not of expected type: string"),
        ("bool", "1", "Number is not of expected type: bool"),
    )
    def test_wrong_type(self, dtype, value, reason):
        self.assert_refused(
            f"JSON Value: {value} Type: {reason}",
            lambda: _request(_column(f"[{value}]"), x=dtype),
        )

    def test_true_among_numbers_is_not_one(self):
        self.assert_refused(
            "JSON Value: true Type: True is not of expected type: int32",
            lambda: _request('{"inputs": [1, true]}', x="int32"),
        )

    def test_types_without_a_json_form(self):
        text = "Conversion of JSON Value: 1 to type: half"
        self.assert_refused(
            text,
            lambda: _request('{"inputs": [1]}', x="half"),
            code="UNIMPLEMENTED",
        )
        self.assert_refused(
            "Failed to process element: 0 of 'instances' list. Error: "
            f"UNIMPLEMENTED: {text}",
            lambda: _request('{"instances": [1]}', x="half"),
        )

    @parameterized.parameters(
        (
            '{"instances": [1]}',
            "instances is a plain list, but expecting list of objects as "
            "multiple input tensors required as per tensorinfo_map",
        ),
        (
            '{"inputs": [1]}',
            "inputs is a plain value/list, but expecting an object as "
            "multiple input tensors required as per tensorinfo_map",
        ),
        (
            '{"inputs": {"a": 1}}',
            "Missing named input: b in 'inputs' object.",
        ),
        (
            '{"instances": [{"a": 1}]}',
            "Failed to process element: 0 of 'instances' list. JSON object: "
            '{\n    "a": 1\n} keys must be equal to: a,b',
        ),
        (
            '{"instances": [{"a": 1, "b": 2}, {"a": 1, "c": 2}]}',
            "Failed to process element: 1 key: c of 'instances' list. Error: "
            "INVALID_ARGUMENT: JSON object: does not have named input: c",
        ),
        (
            '{"instances": [{"a": 1, "b": 2}, [1]]}',
            "Expecting object but got list at item 1 of input list",
        ),
    )
    def test_wrong_names(self, body, message):
        self.assert_refused(
            message, lambda: _request(body, b="float", a="float")
        )

    def test_an_object_among_values(self):
        self.assert_refused(
            "Expecting value/list but got object at item 1 of input list",
            _request,
            '{"instances": [1, {"x": 1}]}',
        )

    @parameterized.parameters(
        ("{}", "Missing 'inputs' or 'instances' key"),
        ("[1]", "JSON Value: [\n    1\n] Is not object"),
        (
            '{"instances": 1}',
            "JSON Value: {\n    \"instances\": 1\n} Expecting 'instances' to "
            "be an list/array",
        ),
        (
            '{"instances": []}',
            "JSON Value: {\n    \"instances\": []\n} No values in 'instances' "
            "array",
        ),
        (
            '{"instances": [], "inputs": {}}',
            'JSON Value: {\n    "instances": [],\n    "inputs": {}\n} Not '
            "formatted correctly expecting only one of 'inputs' or "
            "'instances' keys to exist ",
        ),
        (
            '{"signature_name": 5}',
            'JSON Value: {\n    "signature_name": 5\n} not formatted '
            "correctly. 'signature_name' key must be a string value.",
        ),
    )
    def test_wrong_documents(self, body, message):
        self.assert_refused(message, _request, body)

    @parameterized.parameters(
        ('{"b64": "a"}', "Unable to base64 decode"),
        ('{"b64": "a==="}', "Unable to base64 decode"),
        ('{"b64": "ä"}', "Unable to base64 decode"),
        (
            '{"b64": 1}',
            'JSON Value: {\n    "b64": 1\n} not formatted correctly for '
            "base64 data",
        ),
    )
    def test_wrong_base64(self, value, message):
        self.assert_refused(
            message, lambda: _request(_column(f"[{value}]"), x="string")
        )

    def test_signature_without_inputs(self):
        self.assert_refused(
            "Failed to get input map for signature: DEFAULT",
            json_tensors.predict_request,
            b'{"inputs": 1}',
            model_pb2.ModelSpec(),
            lambda _: {},
        )


class JsonTextTest(TestCase):
    @parameterized.parameters(
        (b"  ", "The document is empty.", 2),
        (b"instances = [1]", "Invalid value.", 0),
        (b'{"a": nul}', "Invalid value.", 9),
        (b'{"a": -}', "Invalid value.", 7),
        (b'{"a": [1,]}', "Invalid value.", 9),
        (b'{"a": 1. }', "Miss fraction part in number.", 8),
        (b'{"a": 1e}', "Miss exponent in number.", 8),
        (b'{"a": [1 2]}', "Missing a comma or ] after an array element.", 9),
        (
            b'{"]": [1] "b": 2}',
            "Missing a comma or } after an object member.",
            10,
        ),
        (b'{"a" 1}', "Missing a colon after a name of object member.", 5),
        (b"{1: 2}", "Missing a name for object member.", 1),
        (
            b"{}x",
            "The document root must not be followed by other values.",
            2,
        ),
        (b'{"a', "Missing a closing quotation mark in string.", 3),
        (b'{"\xc3\xa4\n"}', "Invalid escape character in string.", 4),
        (b'{"\\q"}', "Invalid escape character in string.", 2),
        (b'{"\\u12G4"}', "Incorrect hex digit after \\u escape in string.", 2),
        (b'{"\\ud800": 1}', "The surrogate pair in string is invalid.", 2),
        (b'{"\xff"}', "Invalid encoding in string.", 2),
    )
    def test_refusals_name_the_byte(self, body, reason, offset):
        self.assert_refused(
            f"JSON Parse error: {reason} at offset: {offset}",
            json_text.document,
            body,
        )

    def test_empty_body(self):
        self.assert_refused(
            "JSON Parse error: The document is empty", json_text.document, b""
        )

    def test_a_key_twice(self):
        self.assert_refused(
            'JSON object: has the key "a" more than once.',
            json_text.document,
            b'{"a": 1, "b": 2, "a": 3}',
        )

    def test_surrogate_pairs_and_escaped_backslashes(self):
        body = rb'{"a": "\ud83d\ude00", "b": "\\ud800"}'
        self.assertEqual(
            json_text.document(body), {"a": "\N{GRINNING FACE}", "b": r"\ud800"}
        )

    @parameterized.parameters("[", '{"a":', '{"inputs": [')
    def test_deep_nesting(self, opening):
        for body in (opening * 200_000, opening * 900):
            with self.assertRaises(StatusError) as caught:
                _request(body)
            self.assertEqual(caught.exception.code, "INVALID_ARGUMENT")

    @parameterized.parameters(65, 600, 900)
    def test_depth_that_no_array_has(self, depth):
        values = "[" * depth + "1, 2]" + "]" * (depth - 1)
        message = f"A tensor has at most 64 dimensions, received {depth}"
        self.assert_refused(message, _request, _column(values))
        self.assert_refused(
            f"Encountered list at unexpected size: 1 at level: {depth - 1} "
            "expected size: 2",
            _request,
            _column("[" * (depth - 1) + "[1, 2], [1]]" + "]" * (depth - 2)),
        )

    @parameterized.parameters("1e999", "-1E+400", "1" * 400, "1" * 5000)
    def test_numbers_beyond_a_double(self, number):
        for body in (_column(f"[{number}]"), _rows(f"[Infinity, {number}]")):
            with self.assertRaisesRegex(StatusError, "Number too big"):
                _request(body)
        with self.assertRaisesRegex(StatusError, "Number too big"):
            json_examples.regression_request(
                f'{{"examples": [{{"x": {number}}}]}}'.encode(),
                model_pb2.ModelSpec(),
            )

    def test_infinity_beside_a_string_with_a_large_number(self):
        body = '{"note": "1e999", "inputs": [Infinity, 1e-999]}'
        np.testing.assert_array_equal(_arrays(body)["x"], [np.inf, 0])

    def test_values_in_errors_are_cut(self):
        deep = "[" * 500 + "1" + "]" * 500
        with self.assertRaises(StatusError) as caught:
            _request('{"signature_name": ' + deep + "}")
        self.assertLess(len(caught.exception.message), 5000)
        self.assertIn("...TRUNCATED", caught.exception.message)

    def test_bytes_at_random_raise_nothing_else(self):
        random = np.random.default_rng(1)
        good = b'{"instances": [[1.5, -2e3], [null, true], {"b64": "AA=="}]}'
        for _ in range(2000):
            body = bytearray(good)
            for place in random.integers(len(body), size=3):
                body[place] = random.integers(256)
            for dtype in ("float", "string"):
                try:
                    _request(bytes(body), x=dtype)
                except StatusError as error:
                    self.assertEqual(error.code, "INVALID_ARGUMENT")


class DecimalsTest(TestCase):
    @parameterized.parameters(
        (0.2, "0.2"),
        (3.0, "3.0"),
        (-0.0, "-0.0"),
        (9e6, "9e+06"),
        (0.00003, "3e-05"),
        (555557.5, "555557.5"),
        (1 / 3, "0.333333343"),
        (16777216.0, "16777216.0"),
        (3.4028235e38, "3.40282347e+38"),
        (1e-45, "1.4013e-45"),
        (float("nan"), "NaN"),
        (float("-inf"), "-Infinity"),
    )
    def test_float32(self, value, expected):
        values = np.array([value], np.float32)
        self.assertEqual(json_text.decimals(values), [expected])

    @parameterized.parameters((0.1, "0.1"), (1 / 3, "0.33333333333333331"))
    def test_float64(self, value, expected):
        self.assertEqual(json_text.decimals(np.array([value])), [expected])

    def test_every_float32_comes_back(self):
        random = np.random.default_rng(2)
        bits = random.integers(2**32, size=50_000, dtype=np.uint32)
        values = bits.view(np.float32)
        values = values[np.isfinite(values)]
        texts = json_text.decimals(values)
        read = np.array([float(text) for text in texts]).astype(np.float32)
        np.testing.assert_array_equal(read, values)
        # One by one, as the C++ does it.
        for value, text in zip(values[:2000].tolist(), texts, strict=False):
            short = f"{value:.6g}"
            same = struct.pack("f", float(short)) == struct.pack("f", value)
            wanted = short if same else f"{value:.9g}"
            if "." not in wanted and "e" not in wanted:
                wanted += ".0"
            self.assertEqual(text, wanted)


class PredictResponseTest(TestCase):
    def test_one_output_in_rows(self):
        self.assertEqual(
            _answer(y=np.float32([3.5, 4, 5.5])),
            '{\n    "predictions": [3.5, 4.0, 5.5\n    ]\n}',
        )
        self.assertEqual(
            _answer(y=np.int32([[[1, 2], [3, 4]], [[5, 6], [7, 8]]])),
            '{\n    "predictions": [[[1, 2], [3, 4]], [[5, 6], [7, 8]]\n    ]'
            "\n}",
        )

    def test_several_outputs_in_rows(self):
        text = _answer(
            b=np.float64([[1], [2]]),
            a=np.int64([8, 9]),
            s_bytes=[b"hello", b"tf"],
        )
        self.assertEqual(
            text,
            """{
    "predictions": [
        {
            "a": 8,
            "b": [1.0],
            "s_bytes": {
                "b64": "aGVsbG8="
            }
        },
        {
            "a": 9,
            "b": [2.0],
            "s_bytes": {
                "b64": "dGY="
            }
        }
    ]
}""",
        )

    def test_columns_take_a_line_for_each_value(self):
        self.assertEqual(
            _answer(json_text.COLUMNS, y=np.float32([[1, 2], [3, 4]])),
            """{
    "outputs": [
        [
            1.0,
            2.0
        ],
        [
            3.0,
            4.0
        ]
    ]
}""",
        )
        self.assertEqual(
            _answer(json_text.COLUMNS, b=True, a=np.zeros((2, 0))),
            """{
    "outputs": {
        "a": [
            [],
            []
        ],
        "b": true
    }
}""",
        )

    def test_zero_rows(self):
        expected = '{\n    "predictions": []\n}'
        zero = np.zeros((0, 3), np.float32)
        self.assertEqual(_answer(y=zero), expected)
        self.assertEqual(_answer(y=zero, z=zero), expected)

    def test_strings(self):
        response = predict_pb2.PredictResponse()
        values = np.array([b'q"\\/\n\x0b', "ä".encode(), b"\xff"], object)
        tensors.to_proto(values, response.outputs["s"])
        body = json_answers.predict(response, json_text.ROWS)
        self.assertEqual(
            body,
            b'{\n    "predictions": ["q\\"\\\\/\\n\\u000B", "\xc3\xa4", '
            b'"\xff"\n    ]\n}',
        )

    def test_base64_of_several_ranks_is_json(self):
        values = np.array([[b"a", b"b"], [b"c", b"\0\xff"]], object)
        for form, key in (
            (json_text.ROWS, "predictions"),
            (json_text.COLUMNS, "outputs"),
        ):
            read = json.loads(_answer(form, y_bytes=values))[key]
            decoded = [[base64.b64decode(v["b64"]) for v in r] for r in read]
            self.assertEqual(decoded, values.tolist())

    def test_answers_are_json_of_the_same_values(self):
        random = np.random.default_rng(3)
        outputs = {
            "f": random.normal(size=(4, 2, 3)).astype(np.float32),
            "i": random.integers(-9, 9, size=(4, 1)),
            "b": random.integers(2, size=(4,)).astype(bool),
        }
        rows = json.loads(_answer(**outputs))["predictions"]
        columns = json.loads(_answer(json_text.COLUMNS, **outputs))["outputs"]
        for name, array in outputs.items():
            column = np.array(columns[name], array.dtype)
            np.testing.assert_array_equal(column, array)
            row = np.array([row[name] for row in rows], array.dtype)
            np.testing.assert_array_equal(row, array)

    @parameterized.parameters(
        (np.float16, "half"), (np.complex64, "complex64"), (np.uint16, "uint16")
    )
    def test_types_without_a_json_form(self, dtype, name):
        self.assert_refused(
            f"Failed to write JSON value for tensor type: {name}",
            lambda: _answer(y=np.zeros(1, dtype)),
        )

    def test_what_is_not_rows(self):
        self.assert_refused(
            "Tensor name: y has no shape information ",
            lambda: _answer(y=np.float32(1)),
        )
        self.assert_refused(
            "Tensor name: z has inconsistent batch size: 1 expecting: 2",
            lambda: _answer(y=np.zeros(2), z=np.zeros(1)),
        )
        self.assert_refused("Cannot convert empty tensor map to JSON", _answer)

    def test_error(self):
        self.assertEqual(
            json_answers.error('Bad key: "key"'),
            b'{\n    "error": "Bad key: \\"key\\""\n}',
        )


class ExamplesTest(TestCase):
    def _input(self, body):
        spec = model_pb2.ModelSpec(name="m")
        requests = [
            json_examples.classification_request(body, spec),
            json_examples.regression_request(body, spec),
        ]
        self.assertEqual(requests[0].input, requests[1].input)
        self.assertEqual(requests[0].model_spec, requests[1].model_spec)
        return requests[0].model_spec, requests[0].input

    def test_examples(self):
        _, read = self._input(
            b'{"examples": [{"s": ["foo", {"b64": "aGVsbG8="}], "f": 6.5,'
            b' "i": [1, true, false], "n": []}, {"f": [NaN, Infinity]}]}'
        )
        first, second = read.example_list.examples
        features = first.features.feature
        self.assertEqual(features["s"].bytes_list.value, [b"foo", b"hello"])
        self.assertEqual(features["f"].float_list.value, [6.5])
        self.assertEqual(features["i"].int64_list.value, [1, 1, 0])
        self.assertIsNone(features["n"].WhichOneof("kind"))
        np.testing.assert_array_equal(
            second.features.feature["f"].float_list.value, [np.nan, np.inf]
        )

    def test_context_and_signature(self):
        spec, read = self._input(
            b'{"signature_name": "s", "context": {"q": "pizza"},'
            b' "examples": [{"x": 1}]}'
        )
        self.assertEqual((spec.name, spec.signature_name), ("m", "s"))
        listed = read.example_list_with_context
        query = listed.context.features.feature["q"].bytes_list.value
        self.assertEqual(query, [b"pizza"])
        self.assertLen(listed.examples, 1)

    @parameterized.parameters(
        (
            "{}",
            "JSON Value: {} When method is classify, key 'examples' is "
            "expected and was not found",
        ),
        (
            '{"examples": 1}',
            "JSON Value: {\n    \"examples\": 1\n} Expecting 'examples' value "
            "to be an list/array",
        ),
        (
            '{"examples": []}',
            "JSON Value: {\n    \"examples\": []\n} 'examples' value is an "
            "empty array",
        ),
        (
            '{"context": [1]}',
            "Example must be JSON object but got JSON Array",
        ),
        (
            '{"examples": [null]}',
            "Example must be JSON object but got JSON Null",
        ),
        (
            '{"examples": [{"n": [10, null]}]}',
            "Feature: n has element with unexpected JSON type: Null",
        ),
        (
            '{"examples": [{"n": [[10]]}]}',
            "Feature: n has element with unexpected JSON type: Array",
        ),
        (
            '{"examples": [{"n": {"t": 1}}]}',
            "Feature: n has element with unexpected JSON type: Object",
        ),
        (
            '{"examples": [{"n": [10, 10.0]}]}',
            "Unexpected element type in feature: n expecting type: int64",
        ),
        (
            '{"examples": [{"n": 18446744073709551603}]}',
            "Feature: n has uint64_t element. Only int64_t is supported.",
        ),
    )
    def test_refusals(self, body, message):
        self.assert_refused(message, self._input, body.encode())

    def test_classification_response(self):
        response = classification_pb2.ClassificationResponse()
        for scores in ((0.2, 0.7), (0.5, 1)):
            classes = response.result.classifications.add().classes
            for label, score in zip(("car", 'b"'), scores, strict=True):
                classes.add(label=label, score=score)
        self.assertEqual(
            json_answers.classification(response),
            b'{\n    "results": [[["car", 0.2], ["b\\"", 0.7]], '
            b'[["car", 0.5], ["b\\"", 1.0]]\n    ]\n}',
        )
        self.assert_refused(
            "Cannot convert empty ClassificationResults to JSON",
            json_answers.classification,
            classification_pb2.ClassificationResponse(),
        )

    def test_regression_response(self):
        response = regression_pb2.RegressionResponse()
        for value in (0.2, 1, float("inf")):
            response.result.regressions.add(value=value)
        self.assertEqual(
            json_answers.regression(response),
            b'{\n    "results": [0.2, 1.0, Infinity]\n}',
        )
        self.assert_refused(
            "Cannot convert empty RegressionResults to JSON",
            json_answers.regression,
            regression_pb2.RegressionResponse(),
        )


if __name__ == "__main__":
    absltest.main()
