"""JSON text read and written to the letter as TensorFlow Serving does.

Its JSON library is RapidJSON 1.1, whose refusals and whose layout are kept
here; Python's own parser does the reading and finds the places.
"""

import base64
import binascii
import collections
import json
import math
import re

import numpy as np

from ...status import invalid

# The two forms of a predict call: a list of rows, or a list for each name.
ROWS = "rows"
COLUMNS = "columns"
# Values are repeated in error texts up to here: indenting a deep one can take
# a thousand times its size.
MAX_SHOWN = 4096
# The places in a text this long are searched for the bracket that is open.
_MAX_SEARCHED = 2**20
_TOKENS = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)
_SURROGATES = re.compile(
    r"\\(?:u[dD][89abAB]..\\u[dD][c-fC-F]..|(u[dD][89a-fA-F])|.)", re.DOTALL
)
_CONTROL = re.compile(r"\\(?:u00([01][a-f])|.)")
_WHITE_SPACE = re.compile(r"[ \t\n\v\f\r]+")
_NUMBER = re.compile(
    rb'"(?:[^"\\]|\\.)*"|(?P<number>-?[0-9.]+[eE]\+?[0-9]+)', re.DOTALL
)
_TOO_BIG = "Number too big to be stored in double."
_WORDS = {"n": "null", "t": "true", "f": "false", "N": "NaN", "-": "-"}


def document(body):
    """Returns the JSON object that a request body holds.

    Args:
      body: bytes, UTF-8.

    Returns:
      A dictionary of lists, dictionaries, str, int, float, bool and None.

    Raises:
      StatusError: INVALID_ARGUMENT; it is no JSON object, is nested deeper
        than Python parses or has a key twice.
    """
    if not body:
        raise invalid("JSON Parse error: The document is empty")
    value = _parsed(_decoded(body))
    if not isinstance(value, dict):
        raise format_error(value, "Is not object")
    return value


def format_error(value, rule):
    """Returns the StatusError that repeats a value and what is wrong."""
    return invalid(f"JSON Value: {shown(value)} {rule}")


def shown(value):
    """Returns a value's JSON text for an error, at most MAX_SHOWN long."""
    if isinstance(value, float):
        narrow = abs(value) <= 3.4028234e38
        return decimals(np.array([value], np.float32 if narrow else float))[0]
    parts, length = [], 0
    # Iterating makes the text piece by piece, so that it can end early.
    for part in json.JSONEncoder(indent=4, ensure_ascii=False).iterencode(
        value
    ):
        parts.append(part)
        length += len(part)
        if length > MAX_SHOWN:
            return "".join(parts)[:MAX_SHOWN] + "...TRUNCATED"
    return "".join(parts)


def kind(value):
    """Returns a value's type by its name in error texts."""
    if value is None or isinstance(value, bool):
        return "Null" if value is None else str(value)
    names = {dict: "Object", list: "Array", str: "String"}
    return names.get(type(value), "Number")


def is_base64(value):
    """Returns whether a value is {"b64": text}."""
    return (
        isinstance(value, dict)
        and len(value) == 1
        and isinstance(value.get("b64"), str)
    )


def base64_bytes(value):
    """Returns the bytes of {"b64": text}; padding may be left out.

    Raises:
      StatusError: INVALID_ARGUMENT; it is something else, or no base64.
    """
    if not is_base64(value):
        raise format_error(value, "not formatted correctly for base64 data")
    text = _WHITE_SPACE.sub("", value["b64"])
    digits = text.rstrip("=")
    padding = "=" * (-len(digits) % 4)
    try:
        if text[len(digits) :] not in ("", padding):
            raise ValueError("padding of another length")
        return base64.b64decode(digits + padding, validate=True)
    except (ValueError, binascii.Error):
        raise invalid("Unable to base64 decode") from None


def as_double(number):
    """Returns an int or float as a double."""
    try:
        return float(number)
    except OverflowError:
        raise invalid(f"JSON Parse error: {_TOO_BIG}") from None


def quoted(text):
    """Returns a JSON string; characters beyond ASCII stay as they are."""
    escaped = json.dumps(text, ensure_ascii=False)
    if "\\u00" not in escaped:
        return escaped
    return _CONTROL.sub(_upper_case, escaped)


def decimals(values):
    """Returns the texts of floats: six digits, or all where six change it.

    Args:
      values: flat array of float32 or float64.

    Returns:
      A list of str such as 0.5, 3.0, 1e-05, NaN, -Infinity.
    """
    numbers = values.tolist()
    texts = (" %.6g" * len(numbers) % tuple(numbers)).split()
    with np.errstate(over="ignore"):
        read = np.array(list(map(float, texts)), float).astype(values.dtype)
    changed = np.flatnonzero(read != values).tolist()
    digits = " %.9g" if values.dtype == np.float32 else " %.17g"
    exact = digits * len(changed) % tuple(numbers[i] for i in changed)
    for index, text in zip(changed, exact.split(), strict=True):
        texts[index] = text
    return [t if "." in t or "e" in t else _whole(t) for t in texts]


def nested(texts, shape, level, single_line):
    """Returns the text of a tensor.

    Args:
      texts: its values' texts, row by row.
      shape: of any rank; rank 0 gives the value itself.
      level: how many brackets are open around it.
      single_line: whether arrays go without line breaks.
    """
    for axis in range(len(shape) - 1, -1, -1):
        outer, size = math.prod(shape[:axis]), shape[axis]
        if size == 0:
            texts = ["[]"] * outer
            continue
        start, comma, end = _brackets(level + axis, single_line)
        texts = [
            start + comma.join(texts[i * size : (i + 1) * size]) + end
            for i in range(outer)
        ]
    return texts[0]


def indented(level):
    """Returns a line break and the indentation inside `level` brackets."""
    return "\n" + "    " * level


def _brackets(level, single_line):
    if single_line:
        return "[", ", ", "]"
    inner = indented(level + 1)
    return "[" + inner, "," + inner, indented(level) + "]"


def _whole(text):
    names = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
    return names.get(text) or text + ".0"


def _upper_case(match):
    digits = match.group(1)
    return "\\u00" + digits.upper() if digits else match.group()


def _decoded(body):
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _parse_error("Invalid encoding in string.", error.start) from None


def _parsed(text):
    try:
        value = json.loads(text, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        reason, position = _refusal(error)
        raise _parse_error(reason, _bytes_before(text, position)) from None
    except RecursionError:
        raise invalid(
            "JSON Parse error: The document is nested too deeply."
        ) from None
    except ValueError:  # an integer of more digits than Python reads
        raise invalid(f"JSON Parse error: {_TOO_BIG}") from None
    if "\\u" in text:
        _check_surrogates(text)
    return value


def check_exponents(body):
    """Raises for a number that Python reads as infinity, such as 1e999.

    To be called where infinity came out: looking for it takes long.

    Args:
      body: bytes of JSON that `document` has read.

    Raises:
      StatusError: INVALID_ARGUMENT.
    """
    for match in _NUMBER.finditer(body):
        if math.isinf(float(match.group("number") or 0)):
            raise _parse_error(_TOO_BIG, match.start())


def _parse_error(reason, offset):
    return invalid(f"JSON Parse error: {reason} at offset: {offset}")


def _unique(pairs):
    members = dict(pairs)
    if len(members) != len(pairs):
        counts = collections.Counter(name for name, _ in pairs)
        twice = shown(counts.most_common(1)[0][0])
        raise invalid(f"JSON object: has the key {twice} more than once.")
    return members


def _check_surrogates(text):
    for match in _SURROGATES.finditer(text):
        if match.group(1):
            raise _parse_error(
                "The surrogate pair in string is invalid.",
                _bytes_before(text, match.start()),
            )


def _bytes_before(text, position):
    return len(text[:position].encode("utf-8", "surrogatepass"))


def _refusal(error):
    """Returns RapidJSON's reason and place for an error of Python's parser."""
    text, position = error.doc, error.pos
    rest = text[position : position + 8]
    if error.msg.startswith("Expecting value"):
        if not text.strip():
            return "The document is empty.", len(text)
        return "Invalid value.", position + _common(rest)
    if error.msg.startswith("Expecting property name"):
        return "Missing a name for object member.", position
    if error.msg.startswith("Expecting ':'"):
        return "Missing a colon after a name of object member.", position
    if error.msg.startswith("Expecting ','"):
        return _after_value(text, position, rest)
    if error.msg.startswith("Extra data"):
        reason = "The document root must not be followed by other values."
        return reason, position
    if error.msg.startswith("Unterminated string"):
        return "Missing a closing quotation mark in string.", len(text)
    if error.msg.startswith("Invalid \\u"):
        reason = "Incorrect hex digit after \\u escape in string."
        return reason, position - 1
    return "Invalid escape character in string.", position


def _common(rest):
    """Returns how much of a misspelt null, true, false or NaN is right."""
    word = _WORDS.get(rest[:1], "")
    same = [a == b for a, b in zip(word, rest, strict=False)]
    return same.index(False) if False in same else len(same)


def _after_value(text, position, rest):
    if rest[:1] == ".":
        return "Miss fraction part in number.", position + 1
    if rest[:1] in ("e", "E"):
        signed = rest[1:2] in ("+", "-")
        return "Miss exponent in number.", position + 1 + signed
    open_brackets = []
    for token in _TOKENS.findall(text[: min(position, _MAX_SEARCHED)]):
        if token in "[{":
            open_brackets.append(token)
        elif token in "]}":
            open_brackets.pop()
    if open_brackets and open_brackets[-1] == "{":
        return "Missing a comma or } after an object member.", position
    return "Missing a comma or ] after an array element.", position
