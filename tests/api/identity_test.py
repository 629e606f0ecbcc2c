"""What tells classifiers apart in a ledger: all that changes their answers."""

import functools
import itertools

import keras
import numpy as np
import pytest
from keras import layers, ops

from atat_tf.api import arrays

SHAPE = (8, 8, 1)
X = np.random.default_rng(0).random((6, *SHAPE), np.float32)
Y = np.arange(6) % 3
_GLOBAL = {"factor": 1.0}


def _times(factor):
    """Returns a decorator whose effect no text of what it decorates shows."""

    def decorate(call):
        @functools.wraps(call)
        def scaled(self, inputs):
            return factor * call(self, inputs)

        return scaled

    return decorate


def _decorated(factor):
    class Own(layers.Layer):
        @_times(factor)
        def call(self, inputs):
            return inputs

        def compute_output_shape(self, input_shape):
            return input_shape

    return Own()


def _typed(factor):
    """Returns a layer without a file of its text."""
    names = {"layers": layers, "__name__": "__console__"}
    exec(
        "class Own(layers.Layer):\n"
        "    def call(self, inputs):\n"
        f"        return {factor} * inputs\n",
        names,
    )
    return names["Own"]()


def _reads_a_global(factor):
    class Own(layers.Layer):
        def call(self, inputs):
            return _GLOBAL["factor"] * inputs

    _GLOBAL["factor"] = factor
    return Own()


def _inherits(factor):
    kind = type(_typed(factor))
    return type("Child", (kind,), {"__module__": __name__})()


def _activation(factor):
    def scaled(values):
        return factor * values

    return layers.Activation(scaled)


def _lambda(factor):
    return layers.Lambda(lambda values: _GLOBAL["factor"] * values)


_KINDS = {
    "a decorated call": _decorated,
    "typed into an interpreter": _typed,
    "a global value": _reads_a_global,
    "a base class": _inherits,
    "an activation": _activation,
    "a lambda": _lambda,
    "nested": lambda factor: keras.Sequential(
        [keras.Input(SHAPE), _decorated(factor)]
    ),
    "wrapped": lambda factor: layers.TimeDistributed(_decorated(factor)),
    "an operation": lambda factor: lambda images: ops.multiply(images, factor),
    "the order of arguments": lambda factor: (
        lambda images: layers.Subtract()(
            [images, factor * images][:: 1 if factor > 1 else -1]
        )
    ),
}


def _identity(between, factor):
    """Returns a classifier's digest, of the same weights for all of them."""
    _GLOBAL["factor"] = factor
    image = keras.Input(SHAPE)
    hidden = layers.Flatten()(between(factor)(image))
    model = keras.Model(image, layers.Dense(3)(hidden))
    draw = np.random.default_rng(1)
    model.set_weights([draw.normal(size=w.shape) for w in model.weights])
    found = arrays.examples(model, X, Y, (0, 1))
    assert found.classifier.is_keras
    return found.classifier.digest(X)


@pytest.mark.parametrize("between", _KINDS.values(), ids=_KINDS)
def test_two_functions_have_two_identities_and_one_has_one(between):
    first, again, other = (_identity(between, f) for f in (1.5, 1.5, 0.5))
    assert first == again != other


def test_layers_of_keras_need_no_answers():
    """Which would be others on a device of another order of sums."""
    plain = [
        _identity(lambda factor, kind=kind: kind, 1.0)
        for kind in (
            layers.Rescaling(2.0),
            layers.Rescaling(3.0),
            layers.ReLU(),
            layers.Activation("relu"),
        )
    ]
    assert not any("answers" in identity for identity in plain)
    for one, other in itertools.combinations(plain, 2):
        assert one != other
