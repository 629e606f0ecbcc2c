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


_SHOWN_ITEMS = 8

_Parameters = typing.ParamSpec("_Parameters")
_Result = typing.TypeVar("_Result")
_Class = typing.TypeVar("_Class", bound=type)


def with_checked_types(
    function: Callable[_Parameters, _Result],
) -> Callable[_Parameters, _Result]:
    """Returns a function that refuses arguments of other types.

    It reads the annotations: numbers, texts, paths, None, sequences and
    classes, and unions of them. NumPy's numbers are numbers, and True, False
    and NaN are none. An array is a sequence, a list may stand for a tuple. The
    items of lists and tuples are read too. Those of arrays, and what an
    annotation says beyond, are the function's own to check.

    Raises:
      InputError: from the function returned, with the parameter's name.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def checked(*args: _Parameters.args, **kwargs: _Parameters.kwargs):
        try:
            given = signature.bind(*args, **kwargs).arguments
        except TypeError as error:
            name = function.__qualname__.removesuffix(".__init__")
            known = [known for known in signature.parameters if known != "self"]
            raise TypeError(
                f"{name}: {error}. It takes {', '.join(known)}."
            ) from None
        for name, hint in _hints(function).items():
            kind = signature.parameters[name].kind
            if name in given and kind is not inspect.Parameter.VAR_KEYWORD:
                value = given[name]
                is_nan = isinstance(value, numbers.Real) and value != value
                wanted = f"of the type {_written(hint)}"
                expect(
                    _is_of(hint, value),
                    f"{name} {'that is a number' if is_nan else wanted}",
                    **{name: value if _is_short(value) else type(value)},
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
        # A text is one, and a dictionary has items; neither is ever meant.
        has_items = hasattr(value, "__len__") and hasattr(value, "__getitem__")
        is_other = isinstance(value, str | bytes | collections.abc.Mapping)
        is_other |= getattr(value, "shape", None) == ()  # an array of no axis
        return has_items and not is_other and _items_are_of(hint, value)
    if origin is collections.abc.Callable:
        return callable(value)
    # Of protocols, as that of arrays, there are too many forms.
    is_class = isinstance(origin, type) and origin is not typing.Any
    if not is_class or getattr(origin, "_is_protocol", False):
        return True
    is_of = isinstance(value, _STANDS_FOR.get(origin, origin))
    if is_of and origin in (float, int):
        # Python counts True among the whole numbers, and NaN is no number.
        return not isinstance(value, bool) and bool(value == value)
    return is_of and (origin is not tuple or _items_are_of(hint, value))


def _items_are_of(hint, value):
    """Returns whether the items of a list or tuple are of an annotation."""
    items = [item for item in typing.get_args(hint) if item is not Ellipsis]
    if not items or not isinstance(value, list | tuple):
        return True
    return all(any(_is_of(item, one) for item in items) for one in value)


def _is_short(value):
    """Returns whether a value can stand in a sentence; an array hides it."""
    if isinstance(value, list | tuple):
        return len(value) <= _SHOWN_ITEMS and not any(
            hasattr(one, "__len__") and not isinstance(one, str)
            for one in value
        )
    return isinstance(value, str | numbers.Number)


def _written(hint):
    """Returns an annotation's classes, and those of plain items."""
    origin = typing.get_origin(hint) or hint
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(map(_written, typing.get_args(hint))))
    name = "None" if origin is types.NoneType else origin.__name__
    items = {item for item in typing.get_args(hint) if item is not Ellipsis}
    plain = items & {float, int, str}
    return (
        f"{name} of {plain.pop().__name__}" if items == plain != set() else name
    )


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
