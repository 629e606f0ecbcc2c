"""Nested and subclassed models laid open, with the weights of the model."""

import keras
import numpy as np
import tensorflow as tf
from absl.testing import parameterized
from keras import layers

from atat_tf.errors import InputError
from atat_tf.models import classifiers, functional
from tests.support import toys
from tests.support.any_model import (
    NUM_CLASSES,
    SHAPE,
    Subclassed,
    arrays,
    sequential,
    subclassed,
)


class FunctionalModelTest(parameterized.TestCase, tf.test.TestCase):
    def test_a_flat_functional_model_stays(self):
        model = toys.small_classifier()
        self.assertIs(functional.functional_model(model), model)

    @parameterized.named_parameters(
        ("list", True, lambda x: [x], lambda y: y),
        ("dictionary", False, lambda x: {"image": x}, lambda y: y),
        ("answer", True, lambda x: x, lambda y: {"logits": y}),
        ("both", True, lambda x: {"image": x}, lambda y: [y]),
    )
    def test_one_tensor_in_a_structure(self, nested, given, answered):
        inputs = keras.Input(SHAPE, name="image")
        x = sequential()(inputs) if nested else inputs
        x = layers.Dense(NUM_CLASSES)(layers.Flatten()(x))
        model = keras.Model(given(inputs), answered(x))
        graph = classifiers.logits_model(model)
        images, _ = arrays()
        (expected,) = keras.tree.flatten(model(given(images)))
        self.assertAllClose(graph(images), expected, 1e-5)

    def test_subclassed(self):
        """One graph: nested models are open, the weights are the same."""
        model = subclassed()
        graph = functional.functional_model(model)
        names = [layer.name for layer in graph.layers]
        self.assertContainsSubset({"stem", "stem_relu", "inner"}, names[:5])
        self.assertIs(
            graph.get_layer("inner").kernel, model.block.convolution.kernel
        )
        images, _ = arrays()
        self.assertAllClose(
            graph(images, training=False), model(images, training=False), 1e-6
        )

    def test_nested_in_training_mode(self):
        base = keras.Model(
            inputs := keras.Input(SHAPE),
            layers.BatchNormalization(name="norm")(
                layers.Conv2D(6, 3, name="maps")(inputs)
            ),
            name="base",
        )
        outer = keras.Input(SHAPE)
        x = base(layers.Rescaling(2.0)(outer), training=False)
        x = layers.Dense(NUM_CLASSES)(layers.GlobalAveragePooling2D()(x))
        model = toys.randomise(keras.Model(outer, x))
        graph = functional.functional_model(model)
        self.assertEqual(classifiers.attention_layer(graph), "norm")
        images, _ = arrays()
        for training in (False, True):
            self.assertAllClose(
                graph(images, training=training),
                model(images, training=training),
                1e-5,
            )

    def test_a_mode_of_its_own_is_refused(self):
        class Moody(Subclassed):
            def call(self, images, training=None):
                logits = super().call(images, training)
                return 2.0 * logits if training else logits

        model = Moody()
        model(np.zeros((1, *SHAPE), np.float32))
        with self.assertRaisesRegex(InputError, "if training.*Moody"):
            functional.functional_model(model)

    def test_tensorflow_functions_are_refused(self):
        class Plain(Subclassed):
            def call(self, images):
                return super().call(tf.nn.relu(images))

        model = Plain()
        model(np.zeros((1, *SHAPE), np.float32))
        with self.assertRaisesRegex(InputError, "keras.ops.*Plain"):
            functional.functional_model(model)

    def test_a_model_never_called_is_refused(self):
        with self.assertRaisesRegex(InputError, "called once on images"):
            functional.functional_model(Subclassed())

    def test_a_softmax_operation_is_taken_off(self):
        inputs = keras.Input(SHAPE)
        x = layers.Dense(NUM_CLASSES)(layers.Flatten()(inputs))
        model = keras.Model(inputs, keras.ops.softmax(x))
        logits = classifiers.logits_model(model)
        images, _ = arrays()
        self.assertAllClose(tf.nn.softmax(logits(images)), model(images))
