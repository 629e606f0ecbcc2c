"""The folded copy is the same function, and so are its gradients."""

import keras
import numpy as np
import tensorflow as tf
from absl.testing import parameterized
from keras import layers

from atat_tf.models import cifar, frozen, wide_resnet
from tests.support import toys

_BACKBONES = {**wide_resnet.BACKBONES, **cifar.BACKBONES}


def _settled(classifier, seed=0):
    """Returns the classifier with batch norms that have seen something."""
    draw = np.random.default_rng(seed)
    for layer in classifier.layers:
        if isinstance(layer, layers.BatchNormalization):
            shape = layer.moving_mean.shape
            layer.moving_mean.assign(draw.normal(0, 0.3, shape))
            layer.moving_variance.assign(draw.uniform(0.5, 2, shape))
            if layer.beta is not None:
                layer.beta.assign(draw.normal(0, 0.3, shape))
            if layer.gamma is not None:
                # Of both signs.
                signs = draw.choice((-1.0, 1.0), shape)
                layer.gamma.assign(draw.uniform(0.5, 1.5, shape) * signs)
    return classifier


def _mixed():
    """Returns a network of what is folded and of what is not."""
    inputs = keras.Input(toys.IMAGE_SHAPE)
    # Read twice: not folded.
    shared = layers.Conv2D(4, 3, padding="same", use_bias=False)(inputs)
    x = layers.BatchNormalization()(shared)
    x = layers.Add()([x, shared])
    # A bias, a stride, and no scale.
    x = layers.Conv2D(6, 3, strides=2, padding="same")(x)
    x = layers.BatchNormalization(scale=False)(x)
    x = layers.ReLU()(x)
    # An activation of its own in between.
    x = layers.Conv2D(6, 2, padding="valid", activation="tanh")(x)
    x = layers.BatchNormalization(center=False)(x)
    x = layers.Conv2D(6, 1, padding="same", groups=2)(x)
    x = layers.Dropout(0.5)(layers.BatchNormalization()(x))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(toys.NUM_CLASSES)(x))


def _gradient(logits_fn, images):
    """Returns the gradient of a smooth function of the logits."""
    with tf.GradientTape() as tape:
        tape.watch(images)
        value = tf.reduce_sum(tf.sin(logits_fn(images)))
    return tape.gradient(value, images)


class _Doubled(layers.Layer):
    def call(self, x):
        return 2.0 * x


class _Gated(layers.BatchNormalization):
    """A batch norm of its own, which begins as Keras'."""

    def build(self, shape):
        super().build(shape)
        self.gate = self.add_weight(initializer="ones", name="gate")

    def call(self, x, training=None, mask=None):
        return self.gate * super().call(x, training=training)


class FrozenTest(parameterized.TestCase, tf.test.TestCase):
    def _expect_same(self, classifier):
        logits_fn = frozen.logits_function(classifier)
        # That it is a copy at all.
        self.assertEqual(logits_fn.__name__, "frozen")
        exact, images = toys.inference(classifier), toys.random_images(6)
        self.assertAllClose(logits_fn(images), exact(images), 1e-5, 1e-5)
        here, there = _gradient(logits_fn, images), _gradient(exact, images)
        self.assertAllClose(here, there, 1e-4, 1e-5 * np.abs(there).max())
        compiled = tf.function(logits_fn)
        self.assertAllClose(compiled(images), exact(images), 1e-5, 1e-5)

    @parameterized.parameters(*_BACKBONES)
    def test_backbones(self, name):
        build = _BACKBONES[name]
        classifier = build(toys.IMAGE_SHAPE, toys.NUM_CLASSES, 10, 1)
        self._expect_same(_settled(classifier))

    def test_layers_that_are_folded_and_that_are_not(self):
        self._expect_same(_settled(_mixed()))

    def test_a_batch_norm_of_its_own_is_called(self):
        norm, inputs = _Gated(), keras.Input(toys.IMAGE_SHAPE)
        x = layers.Flatten()(norm(layers.Conv2D(4, 3)(inputs)))
        classifier = keras.Model(inputs, layers.Dense(toys.NUM_CLASSES)(x))
        logits_fn = frozen.refreshed(classifier)
        norm.gate.assign(-2.0)
        images = toys.random_images(3)
        found = tf.function(lambda x: logits_fn()(x))(images)
        self.assertAllClose(found, classifier(images, training=False), 1e-5)

    def test_a_layer_that_is_called_by_a_private_class(self):
        inputs = keras.Input(toys.IMAGE_SHAPE)
        x = layers.Flatten()(_Doubled()(inputs))
        classifier = keras.Model(inputs, layers.Dense(toys.NUM_CLASSES)(x))
        self.assertStartsWith(classifier.layers[1].name, "_")
        self._expect_same(classifier)

    def test_the_gradient_of_a_gradient(self):
        inputs = keras.Input(toys.IMAGE_SHAPE)
        x = layers.Conv2D(4, 3, padding="same", activation=None)(inputs)
        x = layers.Activation("tanh")(layers.BatchNormalization()(x))
        x = layers.GlobalAveragePooling2D()(x)
        classifier = keras.Model(inputs, layers.Dense(toys.NUM_CLASSES)(x))
        _settled(classifier)
        logits_fn = frozen.logits_function(classifier)

        def twice(function):
            images = toys.random_images(6)
            with tf.GradientTape() as tape:
                tape.watch(images)
                squares = tf.reduce_sum(_gradient(function, images) ** 2)
            return tape.gradient(squares, images)

        there = twice(toys.inference(classifier))
        self.assertGreater(np.abs(there).max(), 0)
        self.assertAllClose(
            twice(logits_fn), there, 1e-4, 1e-5 * np.abs(there).max()
        )

    def test_later_weights_change_nothing(self):
        classifier = _settled(toys.small_wide_resnet())
        logits_fn, images = (
            frozen.logits_function(classifier),
            toys.random_images(6),
        )
        before = logits_fn(images)
        for variable in classifier.variables:
            variable.assign(variable + 1.0)
        self.assertAllEqual(logits_fn(images), before)

    def test_refreshed_has_the_weights_of_each_run(self):
        """As a training step needs it: traced once, weights move between."""
        classifier = _settled(toys.small_wide_resnet())
        refreshed, images = frozen.refreshed(classifier), toys.random_images(6)
        compiled = tf.function(lambda images: refreshed()(images))
        exact = toys.inference(classifier)
        before = compiled(images)
        self.assertAllClose(before, exact(images), 1e-5, 1e-5)
        for variable in classifier.variables:
            variable.assign(variable * 1.1 + 0.1)
        self.assertNotAllClose(before, exact(images), 1e-2, 1e-2)
        self.assertAllClose(compiled(images), exact(images), 1e-5, 1e-5)

    def test_what_cannot_be_copied_is_called_itself(self):
        inputs = keras.Input(toys.IMAGE_SHAPE)
        body = toys.small_classifier()(inputs)

        class Subclass(keras.Model):
            def __init__(self):
                super().__init__()
                self.classifier = toys.small_classifier()

            def call(self, images):
                return self.classifier(images)

        for classifier in (
            keras.Model(inputs, toys.RandomLayer()(body)),
            Subclass(),
        ):
            logits_fn = frozen.logits_function(classifier)
            self.assertEqual(logits_fn.__name__, "exact")
            shape = (6, toys.NUM_CLASSES)
            self.assertEqual(logits_fn(toys.random_images(6)).shape, shape)
