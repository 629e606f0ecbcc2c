"""Every argument of every public name, of another kind than it should be."""

import collections
import inspect
import math
import re
import types
import typing

import keras
import numpy as np
import pytest
import tensorflow as tf

import atat_tf as atat
from atat_tf.errors import InputError

X = np.random.default_rng(0).random((3, 4, 4, 1), np.float32)
Y = np.array([0, 1, 0])
ODD = {"None": None, "-1": -1, "x": "x", "[]": [], "object": object()}
# What they return, and what is raised: nobody makes these.
_RESULTS = {
    "Attention",
    "Checklist",
    "InputError",
    "Robustness",
    "RobustnessCurve",
    "Run",
    "layers",
}

# Where the sentence has the word that stands for a parameter.
_SAID = {
    "x": "images",
    "y": "label",
    "targets": "label",
    "name": "name|attack",
    "attacks": "attack",
    "map_distance": "map_distance|distance of maps",
    "data_dir": "data_dir|run folder",
}


def _model():
    keras.utils.set_random_seed(0)
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((4, 4, 1)),
            layers.Conv2D(2, 3),
            layers.GlobalAveragePooling2D(),
            layers.Dense(2),
        ]
    )


def _function(images):
    return tf.reshape(images, [-1, 16])[:, :2]


def _given():
    """Returns {name: right arguments}, of those without a default, and more."""
    ball = {"epsilon": 0.1, "step_size": 0.1, "num_steps": 1}
    examples = {"model": _function, "x": X, "y": Y}
    pairs = (np.zeros((20, 4, 4, 1), np.uint8), np.arange(20) % 2)
    return {
        "robust_accuracy": examples | {"attacks": "clean"},
        "attack": examples | {"name": "clean"},
        "checklist": examples,
        "attention": {"model": _model(), "x": X},
        "harden": {
            "model": _model(),
            "x": X,
            "y": Y,
            "defense": "standard",
            "epochs": 1,
        },
        "load": {"folder": "nowhere"},
        "register": {"kind": "attack", "name": "odd"},
        "Data": {"train": pairs},
        "AdversarialTrainer": {
            "student": _model(),
            "defense": atat.Standard(),
        },
        "LinfAttack": ball,
        "pgd": ball,
        "ifgsm": ball,
        "trades": ball,
        "fgsm": {"epsilon": 0.1},
        "fgsm_rs": {"epsilon": 0.1},
        "n_fgsm": {"epsilon": 0.1},
    }


def _parameters():
    for name in sorted({*atat.__all__} - _RESULTS):
        for parameter in inspect.signature(getattr(atat, name)).parameters:
            if parameter != "fit":
                yield name, parameter


@pytest.fixture(name="given", scope="module")
def _given_once():
    return _given()


@pytest.mark.parametrize("name, parameter", [*_parameters()])
@pytest.mark.filterwarnings("ignore")
def test_a_result_or_a_sentence_about_it(
    given, name, parameter, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    for odd in ODD.values():
        arguments = {**given.get(name, {}), parameter: odd}
        try:
            getattr(atat, name)(**arguments)
        except InputError as error:
            assert "\n" not in str(error)
            assert re.search(_SAID.get(parameter, parameter), str(error))


# {what an annotation says: what is none of it}
_OTHERS = {
    float: (True, np.True_, "1", math.nan, np.float32("nan"), np.array(1.0)),
    int: (True, np.True_, "1", 10.0, np.float64(10), np.array(10)),
}
_OTHER_ITEMS = {float: (True, "1"), int: (True, "1", 1.0), str: (1, None)}


def _is_a_sequence(hint):
    origin = typing.get_origin(hint) or hint
    return origin in (collections.abc.Sequence, tuple)


def _none_of(hint):
    """Returns values that no part of an annotation says."""
    parts = typing.get_args(hint) if _is_a_union(hint) else (hint,)
    found: list = []
    for kind, others in _OTHERS.items():
        if kind in parts and bool not in parts and str not in parts:
            found += others
    sequences = [part for part in parts if _is_a_sequence(part)]
    if sequences and str not in parts:
        found.append("01")
        found.append({0: 1})
    for part in sequences:
        items = {*typing.get_args(part)} - {Ellipsis}
        for kind in items & {*_OTHER_ITEMS} if len(items) == 1 else ():
            found += [[other] for other in _OTHER_ITEMS[kind]]
    return found


def _is_a_union(hint):
    return typing.get_origin(hint) in (typing.Union, types.UnionType)


def _functions():
    """Yields (name, function) of all that the public names can be called by."""
    # The constructors of results take what was found.
    results = {"Checklist", "InputError", "Robustness", "RobustnessCurve"}
    for name in sorted({*atat.__all__} - results):
        public = getattr(atat, name)
        if not inspect.isclass(public):
            yield name, public
            continue
        for method, function in inspect.getmembers(public, inspect.isfunction):
            is_own = function.__qualname__.startswith(public.__name__)
            if is_own and (method == "__init__" or method[0] != "_"):
                yield f"{name}.{method}", function


def _typed():
    for name, function in _functions():
        hints = typing.get_type_hints(function)
        for parameter in inspect.signature(function).parameters.values():
            is_one = parameter.kind in (
                parameter.POSITIONAL_OR_KEYWORD,
                parameter.KEYWORD_ONLY,
            )
            others = _none_of(hints.get(parameter.name))
            if is_one and others:
                yield pytest.param(
                    name,
                    function,
                    parameter.name,
                    id=f"{name}-{parameter.name}",
                )


@pytest.mark.parametrize("name, function, parameter", [*_typed()])
def test_what_no_annotation_says_is_refused(given, name, function, parameter):
    right = {
        each.name: "x"
        for each in inspect.signature(function).parameters.values()
        if each.default is each.empty and each.kind is not each.VAR_KEYWORD
    }
    right |= given.get(name.removesuffix(".__init__"), {})
    hint = typing.get_type_hints(function)[parameter]
    for other in _none_of(hint):
        with pytest.raises(
            InputError,
            match=f"^Expected {parameter} (of the type|that is a number)",
        ) as raised:
            function(**{**right, parameter: other})
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["attack", "attention", "harden", "checklist"])
@pytest.mark.parametrize(
    "bounds",
    [("0", "1"), (False, True), np.array([False, True]), (0, 1j)],
    ids=str,
)
def test_bounds_are_two_numbers(given, name, bounds):
    with pytest.raises(InputError, match=r"^Expected bounds \(low, high\)"):
        getattr(atat, name)(**given[name], bounds=bounds)


def test_radii_in_an_array_are_numbers(given):
    with pytest.raises(InputError, match="^Expected epsilon > 0, a number"):
        atat.robust_accuracy(
            **given["robust_accuracy"], epsilon=np.array([True])
        )


@pytest.mark.parametrize("batch_size", [True, "8", 8.0, 0])
def test_what_fit_is_given_is_of_its_type_too(given, batch_size):
    with pytest.raises(InputError, match="^Expected batch_size"):
        atat.harden(**given["harden"], batch_size=batch_size)


@pytest.mark.parametrize("name", ["robust_accuracy", "attack", "checklist"])
def test_an_unknown_argument_is_told_the_known_ones(given, name):
    with pytest.raises(TypeError, match=f"{name}: .*eps.*epsilon"):
        getattr(atat, name)(**given[name], eps=0.1)


def test_an_argument_of_no_fit_is_refused(given):
    with pytest.raises(InputError, match="argument of harden.*'layers'"):
        atat.harden(**given["harden"], layers="conv")


def test_names_may_be_one_text_with_commas(given):
    arguments = {**given["robust_accuracy"], "attacks": "clean,fgsm"}
    found = atat.robust_accuracy(**arguments)
    assert [*found.accuracy] == ["clean", "fgsm"]
