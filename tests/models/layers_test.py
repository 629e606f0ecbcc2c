"""Layers of our own: twins in NumPy, Keras' numbers, second derivatives."""

import keras
import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from atat_tf.models import layers as model_layers
from tests.support import toys


class LayersTest(parameterized.TestCase, tf.test.TestCase):
    def test_per_image_standardisation_equals_numpy_twin(self):
        images = toys.random_images(4, (6, 5, 3)).numpy()
        images[1] *= 0.1
        # Deviation 0.02 on the scale of 0-255: under the floor 1 / √90.
        images[2] = 0.5 + 1e-4 * (images[2] - 0.5)
        images[3] = 0.7
        expected = []
        for image in 255.0 * images.astype(np.float64):
            floor = 1.0 / np.sqrt(image.size)
            expected.append((image - image.mean()) / max(image.std(), floor))
        self.assertLess(255.0 * images[2].std(), 1.0 / np.sqrt(90))
        outputs = model_layers.PerImageStandardization()(images)
        self.assertAllClose(outputs, expected, 1e-3, 1e-3)

    @parameterized.parameters((2, 6, 2), (2, 7, 2), (3, 3, 0), (1, 2, 0))
    def test_pad_channels(self, channels, padded, before):
        x = toys.random_images(2, (3, 2, channels)).numpy()
        layer = model_layers.PadChannels(padded)
        outputs = layer(x)
        expected = np.zeros((2, 3, 2, padded), np.float32)
        expected[..., before : before + channels] = x
        self.assertAllEqual(outputs, expected)
        self.assertEqual(layer.compute_output_shape(x.shape), outputs.shape)
        again = model_layers.PadChannels.from_config(layer.get_config())
        self.assertEqual(again.channels, padded)


class BatchNormalizationTest(parameterized.TestCase, tf.test.TestCase):
    @parameterized.named_parameters(
        ("kernel", {}, 4),
        ("vectors", {}, 2),
        ("other_axis", {"axis": 1}, 4),
        ("no_scale", {"scale": False}, 4),
        ("no_center", {"center": False}, 4),
        ("double", {"dtype": "float64"}, 4),
        ("bfloat16", {"dtype": "mixed_bfloat16"}, 2),
        ("frozen", {"trainable": False}, 4),
    )
    def test_numbers_are_keras_own(self, settings, rank):
        draw = np.random.default_rng(0)
        shape = (6, 4, 5, 3)[-rank:]
        inputs = tf.constant(draw.normal(2, 3, shape).astype(np.float32))
        if settings.get("dtype") == "float64":
            inputs = tf.cast(inputs, tf.float64)
        ours = model_layers.BatchNormalization(**settings)
        theirs = keras.layers.BatchNormalization(**settings)
        for training in (True, True, False):
            expected = theirs(inputs, training=training)
            outputs = ours(inputs, training=training)
            self.assertEqual(outputs.dtype, expected.dtype)
            self.assertAllClose(
                tf.cast(outputs, tf.float64),
                tf.cast(expected, tf.float64),
                1e-5,
                1e-5,
            )
        for mine, other in zip(ours.weights, theirs.weights, strict=True):
            self.assertAllClose(mine, other, 1e-5, 1e-6)

    def test_kernels_derivatives_are_those_of_the_operations(self):
        """First and second, of a function that needs both statistics."""
        images = toys.random_images(6)

        def derivatives(dtype):
            # The kernel takes float32 alone.
            layer = model_layers.BatchNormalization(dtype=dtype)
            layer.build(images.shape)
            layer.gamma.assign([0.5, -1.2, 2.0])
            x = tf.cast(images, dtype)
            with tf.GradientTape() as outer:
                outer.watch(x)
                with tf.GradientTape() as inner:
                    inner.watch(x)
                    value = tf.reduce_sum(tf.sin(layer(x, training=True)))
                first = inner.gradient(value, x)
                squares = tf.reduce_sum(first**2 * tf.cos(x))
            return first, *outer.gradient(squares, [x, layer.gamma.value])

        for fused, plain in zip(
            derivatives("float32"), derivatives("float64"), strict=True
        ):
            self.assertGreater(np.abs(plain).max(), 0)
            self.assertAllClose(fused, plain, 1e-4, 1e-4 * np.abs(plain).max())

    def test_second_derivative(self):
        """Of var(x, 0) in x, by hand.

        var(x, 0) = x²/2 − (x/2)² = x²/4, so the second derivative is ½; with
        the mean held constant it would be 1.
        """
        layer = model_layers.BatchNormalization(axis=-1)
        layer.build((None, 1))
        x = tf.constant(3.0)
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                inputs = tf.stack([x, 0.0 * x])[:, None]
                _, variance = layer.statistics(inputs)
            slope = inner.gradient(variance, x)
        self.assertAllClose(slope, 1.5)
        self.assertAllClose(outer.gradient(slope, x), 0.5)


def _grouped(**settings):
    return keras.layers.Conv2D(8, 3, **{"groups": 4, **settings})


_LEAN = {
    "batch_norm": keras.layers.BatchNormalization,
    "depthwise": _grouped,
    "strided": lambda: _grouped(strides=2, padding="same", use_bias=False),
    "dilated": lambda: _grouped(dilation_rate=(2, 1), activation="relu"),
}
_LEFT = {
    "two_channels_a_group": lambda: _grouped(groups=2),
    "one_group": lambda: _grouped(groups=1),
    "unequal_strides": lambda: _grouped(strides=(1, 2)),
    "subclass": lambda: model_layers.BatchNormalization(),
}


class ByFewerOperationsTest(parameterized.TestCase, tf.test.TestCase):
    def setUp(self):
        super().setUp()
        self.images = toys.random_images(6, (7, 6, 4))

    @parameterized.parameters(*_LEAN)
    def test_same_state_and_function(self, name):
        keras.utils.set_random_seed(0)
        layer = _LEAN[name]()
        layer.build(self.images.shape)
        lean = model_layers.by_fewer_operations(layer)
        self.assertIsNot(type(lean), type(layer))

        def answers(called):
            called.set_weights(weights)
            with tf.GradientTape() as tape:
                tape.watch(self.images)
                outputs = called(self.images, training=True)
                loss = tf.reduce_sum(outputs**3)
            sources = [self.images, *(v.value for v in layer.trainable_weights)]
            gradients = tape.gradient(loss, sources)
            # Statistics moved.
            return [outputs, *gradients, *called.get_weights()]

        weights = layer.get_weights()
        expected = answers(layer)
        for here, there in zip(answers(lean), expected, strict=True):
            self.assertAllClose(here, there, 1e-4, 1e-4)
        for here, there in zip(lean.weights, layer.weights, strict=True):
            self.assertIs(here, there)
        layer.trainable = False
        self.assertFalse(lean.trainable)
        self.assertEmpty(lean.trainable_weights)

    @parameterized.parameters(*_LEAN)
    def test_fewer_operations_and_none_by_xla(self, name):
        layer = _LEAN[name]()
        layer.build(self.images.shape)

        def operations(called):
            @tf.function(autograph=False)
            def gradient(images):
                with tf.GradientTape() as tape:
                    tape.watch(images)
                    total = tf.reduce_sum(called(images, training=True))
                return tape.gradient(total, images)

            graph = gradient.get_concrete_function(self.images).graph
            definition = graph.as_graph_def()
            inside = definition.library.function
            count = sum(len(each.node_def) for each in inside)
            return len(definition.node) + count, [
                each.signature.name
                for each in inside
                if "xla" in each.signature.name
            ]

        ours, by_xla = operations(model_layers.by_fewer_operations(layer))
        theirs, keras_by_xla = operations(layer)
        self.assertLess(ours, theirs)
        self.assertEmpty(by_xla)
        self.assertEqual(name != "batch_norm", bool(keras_by_xla))

    @parameterized.parameters(*_LEAN)
    def test_state_is_saved_and_loaded_once(self, name):
        """A trainer's file has no more weights than its student's."""
        layer = _LEAN[name]()
        layer.build(self.images.shape)
        by_layer, by_lean = {}, {}
        layer.save_own_variables(by_layer)
        lean = model_layers.by_fewer_operations(layer)
        lean.save_own_variables(by_lean)
        self.assertLen(by_layer, len(layer.weights))
        self.assertEmpty(by_lean)
        lean.load_own_variables(by_lean)  # of files without them

    @parameterized.parameters(*_LEFT)
    def test_others_are_left_alone(self, name):
        layer = _LEFT[name]()
        layer.build(self.images.shape)
        self.assertIs(model_layers.by_fewer_operations(layer), layer)
