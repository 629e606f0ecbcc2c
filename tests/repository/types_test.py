"""The public functions that mypy reads have annotations."""

import ast
import pathlib
import tomllib

import pytest

ROOT = pathlib.Path(__file__).parents[2]
CONFIG = tomllib.loads((ROOT / "pyproject.toml").read_text())
MODULES = sorted(
    str(module.relative_to(ROOT))
    for path in map(ROOT.joinpath, CONFIG["tool"]["mypy"]["files"])
    for module in (path.rglob("*.py") if path.is_dir() else [path])
)


def _unannotated(body):
    """Yields what has no annotation in public functions and methods."""
    for node in body:
        name = getattr(node, "name", "_")
        if name.startswith("_") and name not in ("__init__", "__call__"):
            continue
        if isinstance(node, ast.ClassDef):
            yield from _unannotated(node.body)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            of = node.args
            arguments = [*of.posonlyargs, *of.args, *of.kwonlyargs]
            arguments += [a for a in (of.vararg, of.kwarg) if a]
            for argument in arguments:
                if argument.arg not in ("self", "cls"):
                    if argument.annotation is None:
                        yield f"{name}({argument.arg})"
            if node.returns is None and name != "__init__":
                yield f"{name} ->"


@pytest.mark.parametrize("module", MODULES)
def test_public_functions_are_annotated(module):
    assert not [*_unannotated(ast.parse((ROOT / module).read_text()).body)]
