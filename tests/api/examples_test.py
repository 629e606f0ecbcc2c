"""The examples in the docstrings of the public names run."""

import doctest
import importlib
import inspect
import pkgutil

import pytest

import atat_tf
from atat_tf import api
from tests.support import digits

MODULES = [f"atat_tf.api.{m.name}" for m in pkgutil.iter_modules(api.__path__)]


def _examples(module):
    return [
        test
        for test in doctest.DocTestFinder().find(
            importlib.import_module(module)
        )
        if test.examples
    ]


@pytest.mark.parametrize("module", MODULES)
def test_examples_run(module, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    x, y = digits.test_images(20)
    for test in _examples(module):
        test.globs = {
            "atat": atat_tf,
            "model": digits.classifier(),
            "x": x,
            "y": y,
        }
        result = doctest.DocTestRunner().run(test)
        assert result.failed == 0, test.name


def test_public_functions_have_examples():
    """What they return needs none; `load` shows a run folder's."""
    documented = {
        test.name.rpartition(".")[2] for m in MODULES for test in _examples(m)
    }
    functions = {
        name
        for name in atat_tf.__all__
        if inspect.isfunction(getattr(atat_tf, name))
        and getattr(atat_tf, name).__module__ in MODULES
    }
    assert len(functions) >= 7
    assert functions - {"load"} <= documented


def test_every_name_is_that_of_the_package():
    assert {*atat_tf.__all__} == {*api.__all__} - {"layers"}
    assert {*atat_tf.__all__} <= {*dir(atat_tf)}
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = atat_tf.nothing
