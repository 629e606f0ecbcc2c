"""Questions asked of a classifier, on models small enough to know."""

import keras
import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized
from keras import layers

from atat_tf.errors import InputError
from atat_tf.models import classifiers, wide_resnet
from tests.support import toys


class _Scaled(layers.Dense):
    """A dense layer of its own: its scores are half of a dense layer's."""

    def call(self, inputs):
        return self.activation(0.5 * (inputs @ self.kernel))


class _Squared(layers.GlobalAveragePooling2D):
    def call(self, inputs):
        return super().call(inputs**2)


class Softmax(layers.Layer):
    """Keras' is of the same name, and of the scores themselves."""

    def call(self, inputs):
        return keras.ops.softmax(-inputs)


def softmax(inputs):
    return keras.ops.softmax(-inputs)


def _pooled(*ending, pool=None):
    inputs = keras.Input(toys.IMAGE_SHAPE)
    x = layers.Conv2D(6, 3, name="maps")(inputs)
    x = (pool or layers.GlobalAveragePooling2D())(x)
    for layer in ending:
        x = layer(x)
    return toys.randomise(keras.Model(inputs, x))


class AttentionLayerTest(absltest.TestCase):
    def test_is_the_last_with_spatial_extent(self):
        self.assertEqual(
            classifiers.attention_layer(toys.small_wide_resnet()), "features"
        )

    def test_a_name_is_checked(self):
        model = toys.small_classifier()
        self.assertEqual(classifiers.attention_layer(model, "hidden"), "hidden")
        with self.assertRaisesRegex(InputError, "hidden.*Received: 'pool'"):
            classifiers.attention_layer(model, "pool")

    def test_a_model_without_maps_is_refused(self):
        inputs = keras.Input((4, 4, 1))
        logits = layers.Dense(2)(layers.Flatten()(inputs))
        with self.assertRaisesRegex(InputError, "spatial maps"):
            classifiers.attention_layer(keras.Model(inputs, logits))


class PooledHeadTest(parameterized.TestCase):
    def test_is_the_kernel_of_the_dense_layer(self):
        for model in (toys.small_classifier(), toys.small_wide_resnet()):
            head = classifiers.pooled_head(model, "features")
            np.testing.assert_array_equal(
                head, model.get_layer("logits").kernel
            )

    def test_dropout_is_seen_through(self):
        model = _pooled(layers.Dropout(0.5), layers.Dense(3))
        self.assertIsNotNone(classifiers.pooled_head(model, "maps"))

    @parameterized.parameters(
        ("two layers", [layers.Dense(4), layers.Dense(3)], None),
        ("activation", [layers.Dense(3, activation="relu")], None),
        ("normalised", [layers.BatchNormalization(), layers.Dense(3)], None),
        ("maximum", [layers.Dense(3)], layers.GlobalMaxPooling2D()),
        ("dense layer of its own", [_Scaled(3)], None),
        ("pooling of its own", [layers.Dense(3)], _Squared()),
    )
    def test_none_where_there_is_no_closed_form(self, _, ending, pool):
        model = _pooled(*ending, pool=pool)
        self.assertIsNone(classifiers.pooled_head(model, "maps"))

    def test_none_for_a_layer_further_down(self):
        self.assertIsNone(
            classifiers.pooled_head(toys.small_classifier(), "hidden")
        )


class LogitsModelTest(parameterized.TestCase):
    def test_logits_stay_as_they_are(self):
        model = toys.small_classifier()
        self.assertIs(classifiers.logits_model(model), model)

    @parameterized.parameters(
        ([layers.Dense(3, activation="softmax")],),
        ([layers.Dense(3), layers.Softmax()],),
        ([layers.Dense(3), layers.Activation("softmax")],),
        ([layers.Dense(3, activation=keras.ops.softmax)],),
    )
    def test_a_softmax_is_taken_off(self, ending):
        model = _pooled(*ending)
        logits = classifiers.logits_model(model)
        images = toys.random_images(4)
        values = logits(images, training=False)
        self.assertGreater(float(tf.reduce_max(tf.abs(values))), 1e-3)
        np.testing.assert_allclose(
            tf.nn.softmax(values), model(images, training=False), 1e-6, 1e-7
        )
        # One set of weights: no copy that could be left behind.
        self.assertEqual(logits.count_params(), model.count_params())

    @parameterized.parameters(
        ([layers.Dense(3, activation="sigmoid")], "activation='sigmoid'"),
        ([layers.Dense(1)], "classes >= 2"),
        ([_Scaled(3, activation="softmax")], r"Softmax\(\).*'_Scaled'"),
        ([layers.Dense(3, activation=softmax)], "softmax, not of Keras"),
    )
    def test_others_are_refused(self, ending, pattern):
        with self.assertRaisesRegex(InputError, pattern):
            classifiers.logits_model(_pooled(*ending))

    def test_a_softmax_after_a_dense_layer_of_its_own_is_taken_off(self):
        model = _pooled(_Scaled(3), layers.Softmax())
        images = toys.random_images(4)
        values = classifiers.logits_model(model)(images, training=False)
        np.testing.assert_allclose(
            tf.nn.softmax(values), model(images, training=False), 1e-6, 1e-7
        )

    def test_what_is_called_softmax_and_is_none_stays(self):
        model = _pooled(layers.Dense(3), Softmax())
        self.assertIs(classifiers.logits_model(model), model)

    def test_images_of_any_size_are_refused(self):
        inputs = keras.Input((None, None, 3))
        x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(inputs))
        model = keras.Model(inputs, layers.Dense(2)(x))
        with self.assertRaisesRegex(InputError, "images of one size"):
            classifiers.logits_model(model)


class DigestTest(absltest.TestCase):
    def test_tells_any_weight_apart(self):
        model = wide_resnet.wide_resnet((8, 8, 3), 3, depth=10, width=1)
        first = classifiers.weights_digest(model)
        self.assertRegex(first, "^sha256:[0-9a-f]{64}$")
        self.assertEqual(classifiers.weights_digest(model), first)
        variance = model.get_layer("features_norm").moving_variance
        before = np.array(variance)
        variance.assign(before * 1.0001)
        self.assertNotEqual(classifiers.weights_digest(model), first)
        variance.assign(before)
        self.assertEqual(classifiers.weights_digest(model), first)
