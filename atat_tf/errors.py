"""The exceptions with a sentence for the user, and how one is put.

InputError is for bad input; TrainingError for a training that went wrong.
"""

import collections.abc
import difflib
import functools
import inspect
import numbers
import pathlib
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping

# Import name of an optional distribution -> the extras that install it.
_EXTRAS = {
    "tensorflow": ("tensorflow", "cpu"),
    "sklearn": ("datasets",),
    "tensorflow_datasets": ("datasets",),
    "importlib_resources": ("datasets",),
    "jinja2": ("figures",),
    "tf_keras_vis": ("figures",),
    "grpc": ("client",),
    "tensorflow_serving": ("client",),
    "grpc_health": ("serve",),
    "prometheus_client": ("serve",),
    "starlette": ("serve",),
    "uvicorn": ("serve",),
}


class InputError(ValueError):
    """Something the caller gave is wrong; the text says what to do.

    Command lines print it as one sentence, without a traceback.
    """


class TrainingError(RuntimeError):
    """A training has ended early; the text says why, and how to go on."""


def expect(holds: object, rule: str, **received: object) -> None:
    """Raises InputError with the rule and what was received instead.

    Args:
      holds: whether the rule holds.
      rule: completes "Expected ...".
      **received: name=value of what was checked.

    Raises:
      InputError: `holds` is false.
    """
    if not holds:
        values = ", ".join(f"{k}={v!r}" for k, v in received.items())
        raise InputError(f"Expected {rule}. Received: {values}.")


def unknown(kind: str, name: object, known: Iterable[str]) -> InputError:
    """Returns the InputError for a name outside a registry.

    Args:
      kind: what the name should name, as in "Expected a backbone among ...".
      name: what was received.
      known: the names there are; near misses are suggested.
    """
    known = sorted(known)
    near = difflib.get_close_matches(str(name), known, 1, 0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return InputError(
        f"Expected {kind} among {', '.join(known)}. Received: {name!r}.{hint}"
    )


def expect_known(kind: str, name: object, known: Collection[str]) -> None:
    """Raises InputError unless a name is in a registry; as for `unknown`."""
    if name not in known:
        raise unknown(kind, name, known)


def summary(error: Exception) -> str:
    """Returns the kind of another library's error and how its text begins."""
    first = str(error).strip().split("\n")[0]
    return f"{type(error).__name__}: {first[:200]}"


def registered(
    kind: str, name: str, registry: Mapping[str, typing.Any]
) -> typing.Any:
    """Returns what a registry has under a name; raises as `expect_known`."""
    expect_known(kind, name, registry)
    return registry[name]


_Parameters = typing.ParamSpec("_Parameters")
_Result = typing.TypeVar("_Result")
_Class = typing.TypeVar("_Class", bound=type)


def with_checked_types(
    function: Callable[_Parameters, _Result],
) -> Callable[_Parameters, _Result]:
    """Returns a function that refuses arguments of other types.

    It reads the annotations: numbers, texts, paths, None, sequences and
    classes, and unions of them. NumPy's numbers are numbers, an array is a
    sequence, a list may stand for a tuple. What an annotation says beyond its
    class, as of the items of a sequence, is the function's own to check.

    Raises:
      InputError: from the function returned, with the parameter's name.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def checked(*args: _Parameters.args, **kwargs: _Parameters.kwargs):
        given = signature.bind(*args, **kwargs).arguments
        for name, hint in _hints(function).items():
            kind = signature.parameters[name].kind
            if name in given and kind is not inspect.Parameter.VAR_KEYWORD:
                value = given[name]
                # An array's values would hide the sentence.
                is_short = isinstance(value, str | numbers.Number)
                expect(
                    _is_of(hint, value),
                    f"{name} of the type {_written(hint)}",
                    **{name: value if is_short else type(value)},
                )
        return function(*args, **kwargs)

    return checked


def with_checked_fields(kind: _Class) -> _Class:
    """Returns a dataclass whose constructor is `with_checked_types`."""
    kind.__init__ = with_checked_types(kind.__init__)  # type: ignore[misc]
    return kind


@functools.cache
def _hints(function):
    hints = typing.get_type_hints(function)
    return {name: hint for name, hint in hints.items() if name != "return"}


# {what an annotation says: what may stand for it}
_STANDS_FOR: dict[typing.Any, typing.Any] = {
    float: numbers.Real,
    int: numbers.Integral,
    pathlib.Path: pathlib.PurePath,
    tuple: (tuple, list),
}


def _is_of(hint, value):
    """Returns whether a value is of an annotation; True where none can say."""
    origin = typing.get_origin(hint) or hint
    if origin in (typing.Union, types.UnionType):
        return any(_is_of(each, value) for each in typing.get_args(hint))
    if origin is collections.abc.Sequence:
        # A text is one, and never meant.
        has_items = hasattr(value, "__len__") and hasattr(value, "__getitem__")
        return has_items and not isinstance(value, str)
    if origin is collections.abc.Callable:
        return callable(value)
    # Of protocols, as that of arrays, there are too many forms.
    is_class = isinstance(origin, type) and origin is not typing.Any
    if not is_class or getattr(origin, "_is_protocol", False):
        return True
    return isinstance(value, _STANDS_FOR.get(origin, origin))


def _written(hint):
    """Returns an annotation's classes, without what it says of their items."""
    origin = typing.get_origin(hint) or hint
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(map(_written, typing.get_args(hint))))
    return "None" if origin is types.NoneType else origin.__name__


def missing_extra(error: ModuleNotFoundError) -> str | None:
    """Returns which extra to install for a module that is not there.

    Args:
      error: what the import raised.

    Returns:
      A sentence, or None for a module that no extra installs.
    """
    module = (error.name or "").partition(".")[0]
    if module not in _EXTRAS:
        return None
    commands = " or ".join(
        f"pip install 'atat-tf[{extra}]'" for extra in _EXTRAS[module]
    )
    return (
        f"Expected the module {module}: {commands}. Received: no such module."
    )
