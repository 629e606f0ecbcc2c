"""The exceptions with a sentence for the user, and how one is put.

InputError is for bad input; TrainingError for a training that went wrong.
"""

import difflib
from collections.abc import Collection, Iterable

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
