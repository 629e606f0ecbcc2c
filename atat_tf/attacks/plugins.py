"""Names that tell the functions and classes of a plugin from all others."""

import contextlib
import functools
import hashlib
import inspect
import json
import sys
import types
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from atat_tf.errors import expect

# Told by their names: a release changes them, and no plugin.
_LIBRARIES = {"atat_tf", "keras", "numpy", "tensorflow"}
_LIBRARIES |= sys.stdlib_module_names
# Counts of classes at which a loss is asked, and sizes of the logits.
_CLASSES = (10, 100, 1000)
_SIZES = (0.1, 3, 100)
_ROWS = 48


def name(given: Callable) -> str:
    """Returns what a description calls a function, an object or a class.

    One of this package is called by its name, which archived ledgers hold. To
    the name of any other a digest is added. It is of the compiled code, of the
    values that the code holds (defaults, cells, globals, what `partial` binds,
    the fields of an object), and of what a loss answers to a few logits: code
    does not say what it reads in other modules. Imported again, a plugin finds
    its own verdicts. Under another Python its attack may be run again.

    Args:
      given: a loss (labels [b], logits [b, k]) -> [b], any other function, or
        the class of an attack.

    Raises:
      InputError: it is another one at each call, as one that draws numbers, so
        that nothing tells which verdicts are its own.
    """
    called = getattr(given, "__name__", type(given).__name__)
    is_plain = inspect.isfunction(given) or inspect.isclass(given)
    if is_plain and _module(given) == "atat_tf":
        return called
    digest, again = _digest(given), _digest(given)
    expect(
        digest == again,
        "an attack whose functions answer the same at each call",
        function=called,
    )
    return f"{called}#{digest}"


def _module(value):
    """Returns the package that a function or a class is written in.

    A decorator that copies `__module__` does not copy the globals.
    """
    space = getattr(value, "__globals__", None)
    if not isinstance(space, dict):
        space = {"__name__": getattr(value, "__module__", None)}
    return str(space.get("__name__")).partition(".")[0]


def _digest(given):
    if isinstance(given, type):
        told = [_methods(given, {})]
    else:
        told = [_parts(given, {}), [_answers(given, k) for k in _CLASSES]]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]


def _parts(value, seen):
    """Returns the code and the values that a value is made of, for JSON.

    Args:
      value: anything.
      seen: {id: (number, value)} of what has been met, which is not met again.
    """

    def of(*values):
        return [_parts(each, seen) for each in values]

    if value is None or isinstance(value, (bool, int, float, str, bytes)):
        return repr(value)
    if isinstance(value, tuple):
        return of(*value)
    if inspect.iscode(value):
        return of(value.co_code, value.co_names, *value.co_consts)
    if isinstance(value, (np.ndarray, np.generic, tf.Tensor, tf.Variable)):
        array = np.asarray(value)
        return [str(array.dtype), array.shape, array.tobytes().hex()]
    if id(value) in seen:
        return seen[id(value)][0]
    seen[id(value)] = len(seen), value
    kind = type(value)
    if isinstance(value, (type, types.ModuleType)):
        return [_module(value), value.__name__]
    if inspect.isfunction(value) and _module(value) not in _LIBRARIES:
        held = value.__defaults__, value.__kwdefaults__, _read(value)
        return of(value.__code__, *held)
    if isinstance(value, functools.partial):
        return of(value.func, value.args, value.keywords)
    if inspect.ismethod(value):
        return of(value.__func__, value.__self__)
    if isinstance(value, (set, frozenset)):
        return sorted(map(repr, value))
    if isinstance(value, list):
        return of(*value)
    if isinstance(value, (dict, types.MappingProxyType)):
        return of(*value, *value.values())
    if hasattr(value, "__wrapped__"):  # as from tf.function
        return of(value.__wrapped__)
    if _module(kind) in _LIBRARIES:
        return [kind.__name__, getattr(value, "__name__", "")]
    return [
        kind.__name__,
        _methods(kind, seen),
        *of(getattr(value, "__dict__", None)),
    ]


def _methods(kind, seen):
    """Returns the parts of a class's own functions, and of its bases'."""
    return [
        [called, _parts(getattr(value, "fget", value), seen)]
        for each in kind.__mro__
        if _module(each) not in _LIBRARIES
        for called, value in vars(each).items()
        if inspect.isfunction(getattr(value, "fget", value))
    ]


def _read(function):
    """Returns what a function reads from around it, {name: value}."""
    cells = zip(
        function.__code__.co_freevars, function.__closure__ or (), strict=True
    )
    read = {}
    for called, cell in cells:
        with contextlib.suppress(ValueError):  # empty so far
            read[called] = cell.cell_contents
    names, codes = [], [function.__code__]
    for code in codes:
        names += code.co_names
        codes += filter(inspect.iscode, code.co_consts)
    space = function.__globals__
    return {n: space[n] for n in names if n in space} | read


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
