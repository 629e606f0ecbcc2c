"""Names that tell the functions and classes of a plugin from all others."""

import contextlib
import functools
import hashlib
import inspect
import json
import linecache
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from atat_tf.errors import expect

_PACKAGE = "atat_tf"
# Counts of classes at which a loss is asked, and sizes of the logits.
_CLASSES = (2, 10, 100, 1000)
_SIZES = (0.1, 3, 100)
_ROWS = 48


def name(given: Callable) -> str:
    """Returns what a description calls a function, an object or a class.

    One of this package is called by its name, which archived ledgers hold. To
    the name of any other a digest is added: of the files that it is written in,
    of the numbers that it holds (cells, defaults, what `partial` binds, an
    object's fields), and of what a loss answers to a few logits, since no file
    says what a function in another one does. Imported again, a plugin finds its
    own verdicts; once its file has changed, its attacks are run again.

    Args:
      given: a loss (labels [b], logits [b, k]) -> [b], any other function, or
        the class of an attack.

    Raises:
      InputError: it is another one at each call, as one that draws numbers, so
        that nothing tells which verdicts are its own.
    """
    called = getattr(given, "__name__", type(given).__name__)
    is_plain = inspect.isfunction(given) or inspect.isclass(given)
    if is_plain and _package(given) == _PACKAGE:
        return called
    digest, again = _digest(given), _digest(given)
    expect(
        digest == again,
        "an attack whose functions answer the same at each call",
        function=called,
    )
    return f"{called}#{digest}"


def _package(value):
    """Returns the package that a function or a class is written in.

    A decorator that copies `__module__` does not copy the globals.
    """
    space = getattr(value, "__globals__", None)
    if not isinstance(space, dict):
        space = {"__name__": getattr(value, "__module__", None)}
    return str(space.get("__name__")).partition(".")[0]


def _digest(given):
    plain = getattr(given, "python_function", given)  # of a tf.function
    told = [_written(plain), _held(plain)]
    if not isinstance(given, type):
        told.append([_answers(given, count) for count in _CLASSES])
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]


def _written(given):
    """Returns what the files hold that a function or a class is written in.

    Of a function that is in no file, as at a prompt, its compiled code.
    """
    if isinstance(given, functools.partial):
        return _written(given.func)
    code = getattr(given, "__code__", None)  # of a method too
    if code:
        return linecache.getlines(code.co_filename) or [code.co_code.hex()]
    kind = given if inspect.isclass(given) else type(given)
    texts = []
    for each in kind.__mro__:
        if _package(each) != _PACKAGE:
            with contextlib.suppress(OSError, TypeError):  # built in
                texts += linecache.getlines(inspect.getfile(each))
    return texts


def _held(given):
    """Returns the numbers, texts and arrays that something holds, for JSON."""
    values = [*getattr(given, "args", ()), getattr(given, "keywords", None)]
    for cell in getattr(given, "__closure__", None) or ():
        with contextlib.suppress(ValueError):  # empty so far
            values.append(cell.cell_contents)
    values += getattr(given, "__defaults__", None) or ()
    if not isinstance(given, type):
        for of in (given, getattr(given, "__self__", None)):
            values.append(getattr(of, "__dict__", None))
    return [_told(value) for value in values]


def _told(value):
    if value is None or isinstance(value, (bool, int, float, str)):
        return repr(value)
    if isinstance(value, dict):
        return [[str(key), _told(value[key])] for key in value]
    if isinstance(value, (list, tuple)):
        return [_told(each) for each in value]
    if hasattr(value, "__array__"):
        array = np.asarray(value)
        return [str(array.dtype), array.shape, array.tobytes().hex()]
    return [type(value).__name__, getattr(value, "__name__", "")]


def _answers(loss, num_classes):
    """Returns a loss's means at fixed logits, and its gradient's; [] if none.

    For logits of each size, and to a few digits: the last ones are a machine's.
    """
    draw = np.random.default_rng(0)
    labels = draw.integers(0, num_classes, _ROWS, np.int32)
    sizes = np.repeat(_SIZES, _ROWS // len(_SIZES))[:, None]
    logits, weights = draw.normal(size=(2, _ROWS, num_classes))
    found = []
    with (
        contextlib.suppress(Exception),  # whatever it raises
        tf.device("CPU"),
        tf.GradientTape() as tape,
    ):
        given = tf.constant(sizes * logits, tf.float32)
        tape.watch(given)
        answered = loss(tf.constant(labels), given)
        gradient = tape.gradient(answered, given, unconnected_gradients="zero")
        for rows in (answered, np.mean(weights * gradient, -1)):
            parts = np.broadcast_to(rows, _ROWS).reshape(len(_SIZES), -1)
            found += [f"{mean:.3e}" for mean in np.mean(parts, -1)]
    return found
