"""Docker Compose's schema, and trees with one key misspelt."""

import copy
import importlib.resources
import json

import jsonschema


def compose_validator():
    """Returns a jsonschema validator of Docker Compose files."""
    schemas = importlib.resources.files("check_jsonschema.builtin_schemas")
    schema = json.loads((schemas / "vendor/compose-spec.json").read_text())
    return jsonschema.validators.validator_for(schema)(schema)


def keys(tree, path=()):
    """Yields the path of every key of nested dictionaries and lists."""
    entries = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in entries:
        if isinstance(tree, dict):
            yield (*path, key)
        if isinstance(value, dict | list):
            yield from keys(value, (*path, key))


def misspelt(tree, path):
    """Returns a copy in which the key at the path has one letter more."""
    changed = copy.deepcopy(tree)
    inner = changed
    for key in path[:-1]:
        inner = inner[key]
    inner[f"{path[-1]}x"] = inner.pop(path[-1])
    return changed
