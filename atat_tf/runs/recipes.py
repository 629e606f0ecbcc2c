"""Finds recipes: by name from anywhere, or in a file of one's own."""

import importlib
import inspect
import pathlib
import pkgutil
import re
import runpy
import sys
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

import ml_collections

from atat_tf.attacks import radii
from atat_tf.errors import InputError, unknown

# `atat_tf` finds it inside a wheel, and beside itself in a checkout.
_PACKAGE = "atat_tf.configs"
# What the recipes share, and no recipe.
_SHARED = "base"


def names() -> list[str]:
    """Returns the names of the recipes that come with the package."""
    folders = importlib.import_module(_PACKAGE).__path__
    found = (module.name for module in pkgutil.iter_modules(folders))
    return sorted(name for name in found if name != _SHARED)


def load(recipe: str) -> ml_collections.ConfigDict:
    """Returns the config of a recipe.

    Args:
      recipe: the name of a recipe, as at; the path of a Python file with a
        function get_config; either with :VARIANT, as small:at, which is the
        function's argument.

    Raises:
      InputError: no such recipe, file or variant.
    """
    source, _, variant = recipe.partition(":")
    get_config = _get_config(source, recipe)
    try:
        return get_config(variant) if variant else get_config()
    except ValueError as error:
        raise InputError(str(error)) from error
    except TypeError as error:
        raise InputError(
            f"Expected a recipe without a variant. Received: {recipe!r} "
            f"({error})."
        ) from error


def _get_config(source, recipe):
    path = pathlib.Path(source)
    if source in names() or _is_ours(path):
        return importlib.import_module(f"{_PACKAGE}.{path.stem}").get_config
    if path.suffix != ".py":
        raise unknown("a recipe or the path of a Python file", source, names())
    if not path.is_file():
        raise InputError(
            f"Expected a recipe ({', '.join(names())}) or the path of a Python "
            f"file. Received: --config={recipe}, and there is no such file."
        )
    # A checkout's own file may import `configs`, wherever the command starts.
    sys.path.insert(0, str(_folder().parent))
    try:
        values = runpy.run_path(str(path))
    finally:
        sys.path.pop(0)
    if "get_config" not in values:
        raise InputError(
            "Expected a function get_config that returns a ConfigDict. "
            f"Received: {source!r} without it."
        )
    return values["get_config"]


def _folder():
    (folder,) = importlib.import_module(_PACKAGE).__path__
    return pathlib.Path(folder)


def _is_ours(path):
    return path.is_file() and path.resolve().parent == _folder().resolve()


def described(values: ml_collections.ConfigDict) -> str:
    """Returns every field of a recipe with its value and what it means.

    What a field means is the comment above it in configs/base.py.
    """
    meant: dict[str, str] = {}
    comment: list[str] = []
    shared = importlib.import_module(f"{_PACKAGE}.{_SHARED}")
    for line in inspect.getsource(shared).splitlines():
        words = line.strip()
        field = re.match(r"config\.([\w.]+) = ", words)
        if words.startswith("#"):
            comment.append(words.lstrip("# "))
            continue
        if field:
            meant[field[1]] = " ".join(comment)
        comment = []
    lines = []
    for path, value in flat(values):
        shown = "by the data set or the attack" if value is None else value
        if path in ("attack.epsilon", "attack.step_size"):
            shown = radii.written(value)
        lines.append(f"--config.{path}={shown}")
        lines += textwrap.wrap(
            meant.get(path, ""),
            79,
            initial_indent="      ",
            subsequent_indent="      ",
        )
    return "\n".join(lines)


def flat(
    values: ml_collections.ConfigDict | Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, Any]]:
    """Yields (path, value) of a nested config, names joined by dots."""
    for name, value in values.items():
        if isinstance(value, ml_collections.ConfigDict | dict):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
