"""The examples in the docstrings of the public names run."""

import doctest
import importlib
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
    """Classes that are only returned have theirs in what returns them."""
    documented = {
        test.name.rpartition(".")[2] for m in MODULES for test in _examples(m)
    }
    assert {"robust_accuracy", "attack"} <= documented
