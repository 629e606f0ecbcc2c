"""Every argument of every public name, of another kind than it should be."""

import inspect
import re

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
