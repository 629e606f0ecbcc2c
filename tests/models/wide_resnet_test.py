"""Backbones: counts, shapes, normalisation, taps, reload, L2, dtypes."""

import os
import tempfile
from unittest import mock

import keras
import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from atat_tf.errors import InputError
from atat_tf.models import graphs, wide_resnet
from atat_tf.models import layers as model_layers
from tests.support import toys

CIFAR_SHAPE = (32, 32, 3)


def _trainable_count(model):
    return sum(int(np.prod(v.shape)) for v in model.trainable_variables)


def _tiny(name, shape=(16, 16, 3), num_classes=5, **arguments):
    build = wide_resnet.BACKBONES[name]
    return toys.randomise(build(shape, num_classes, 10, 1, **arguments))


class ParameterCountTest(parameterized.TestCase, tf.test.TestCase):
    """The literature's numbers, and the sums that give them.

    A group of n units from i to c channels has 2i + 9ic + 2c + 9cc weights in
    its first unit (two batch norms, two 3x3 kernels), ic more for a projection
    shortcut, and 4c + 18cc in each of the other n − 1.
    """

    @parameterized.parameters(
        # n = 5. Stem 3·3·3·16 = 432.
        # 16 -> 160: 32 + 23040 + 320 + 230400 + shortcut 2560 = 256352,
        #   others 4 · (640 + 460800) = 1845760.
        # 160 -> 320: 320 + 460800 + 640 + 921600 + 51200 = 1434560,
        #   others 4 · (1280 + 1843200) = 7377920.
        # 320 -> 640: 640 + 1843200 + 1280 + 3686400 + 204800 = 5736320,
        #   others 4 · (2560 + 7372800) = 29501440.
        # Last norm 1280, head 640 · 10 + 10 = 6410. In all 46160474.
        ("wide_resnet", 34, 10, 46_160_474),
        # n = 4: one unit less in each group, − 461440 − 1844480 − 7375360.
        ("wide_resnet", 28, 10, 36_479_194),
        # n = 1, and no shortcut at 16 -> 16. Stem 432.
        # 16 -> 16: 32 + 2304 + 32 + 2304 = 4672.
        # 16 -> 32: 32 + 4608 + 64 + 9216 + 512 = 14432.
        # 32 -> 64: 64 + 18432 + 128 + 36864 + 2048 = 57536.
        # Last norm 128, head 64 · 10 + 10 = 650. In all 77850.
        ("wide_resnet", 10, 1, 77_850),
        # As WRN-34-10 without its shortcuts, 2560 + 51200 + 204800 = 258560.
        ("madry_wide_resnet", 34, 10, 45_901_914),
        # As WRN-10-1 without 512 + 2048.
        ("madry_wide_resnet", 10, 1, 75_290),
    )
    def test_trainable_parameters(self, name, depth, width, expected):
        # Zeros are quicker to make than random numbers.
        zeros = keras.initializers.Zeros()
        with mock.patch.object(
            keras.initializers, "VarianceScaling", lambda *_, **__: zeros
        ):
            model = wide_resnet.BACKBONES[name](CIFAR_SHAPE, 10, depth, width)
        self.assertEqual(_trainable_count(model), expected)
        self.assertEqual(model.get_layer("features").output.shape[1:3], (8, 8))
        self.assertEqual(
            model.get_layer("features").output.shape[3], 64 * width
        )


class ShapeTest(parameterized.TestCase, tf.test.TestCase):
    @parameterized.product(
        name=tuple(wide_resnet.BACKBONES),
        case=(
            (CIFAR_SHAPE, 10, (8, 8)),
            ((28, 28, 1), 10, (7, 7)),
            (CIFAR_SHAPE, 100, (8, 8)),
        ),
    )
    def test_features_and_logits(self, name, case):
        shape, num_classes, space = case
        model = wide_resnet.BACKBONES[name](shape, num_classes, 10, 1)
        taps = graphs.with_taps(model, ("features",))
        outputs = taps(toys.random_images(2, shape), training=False)
        self.assertEqual(outputs["features"].shape, (2, *space, 64))
        self.assertEqual(outputs["logits"].shape, (2, num_classes))
        # Logits, not probabilities.
        self.assertGreater(np.max(np.abs(np.sum(outputs["logits"], 1) - 1)), 0)

    @parameterized.parameters(*wide_resnet.BACKBONES)
    def test_is_deterministic_and_batch_independent(self, name):
        model = _tiny(name)
        images = toys.random_images(3, (16, 16, 3))
        before = toys.values(model.variables)
        logits = model(images, training=False)
        self.assertAllEqual(logits, model(images, training=False))
        for i in range(3):
            alone = model(images[i : i + 1], training=False)
            self.assertAllClose(alone[0], logits[i], 1e-4, 1e-4)
        self.assertGreater(np.max(np.abs(logits[0] - logits[1])), 1e-3)
        for old, new in zip(before, toys.values(model.variables), strict=True):
            self.assertAllEqual(old, new)

    @parameterized.product(
        name=tuple(wide_resnet.BACKBONES), depth=(0, 4, 9, 11, 29, 35, -2)
    )
    def test_depth_is_6n_plus_4(self, name, depth):
        with self.assertRaisesRegex(
            InputError, rf"depth of 6n \+ 4.*depth={depth}"
        ):
            wide_resnet.BACKBONES[name](CIFAR_SHAPE, 10, depth, 1)

    @parameterized.product(name=tuple(wide_resnet.BACKBONES), width=(0, -1))
    def test_width_is_positive(self, name, width):
        with self.assertRaisesRegex(InputError, f"width >= 1.*width={width}"):
            wide_resnet.BACKBONES[name](CIFAR_SHAPE, 10, 10, width)

    @parameterized.parameters((10, 1), (16, 2), (28, 4), (34, 5))
    def test_units_per_group(self, depth, units):
        self.assertEqual(model_layers.units_per_group(depth, 1), units)
        convolutions = [
            layer
            for layer in wide_resnet.madry_wide_resnet(
                (8, 8, 3), 2, depth, 1
            ).layers
            if isinstance(layer, keras.layers.Conv2D)
        ]
        # The stem, and two in each unit of the three groups.
        self.assertLen(convolutions, 1 + 6 * units)


class LayersTest(parameterized.TestCase, tf.test.TestCase):
    @parameterized.parameters(*wide_resnet.BACKBONES)
    def test_first_layer_normalises(self, name):
        model = _tiny(name)
        self.assertIsInstance(model.layers[0], keras.layers.InputLayer)
        self.assertEqual(model.layers[1].name, "normalise")

    def test_wide_resnet_rescales(self):
        # [0, 1] -> [−2, 2].
        normalise = _tiny("wide_resnet").get_layer("normalise")
        pixels = tf.constant([0.0, 0.25, 0.5, 1.0])[:, None, None, None]
        self.assertAllClose(
            np.ravel(normalise(pixels)), [-2.0, -1.0, 0.0, 2.0], 1e-6, 1e-6
        )

    def test_per_image_standardisation_equals_numpy_twin(self):
        images = toys.random_images(4, (6, 5, 3)).numpy()
        images[1] *= 0.1
        # Deviation 0.02 on the scale of 0-255: under the floor 1 / √90.
        images[2] = 0.5 + 1e-4 * (images[2] - 0.5)
        images[3] = 0.7
        expected = []
        for image in 255.0 * images.astype(np.float64):
            floor = 1.0 / np.sqrt(image.size)
            expected.append(
                (image - image.mean()) / max(image.std(), floor),
            )
        self.assertLess(255.0 * images[2].std(), 1.0 / np.sqrt(90))
        outputs = model_layers.PerImageStandardization()(images)
        self.assertAllClose(outputs, expected, 1e-3, 1e-3)
        self.assertAllClose(np.mean(outputs[0]), 0.0, atol=1e-5)
        self.assertAllClose(np.std(outputs[0]), 1.0, atol=1e-5)

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

    def test_leaky_slope_of_madry_and_relu_of_wide_resnet(self):
        x = tf.constant([-1.0, 2.0])
        wide = _tiny("wide_resnet").get_layer("features")
        madry = _tiny("madry_wide_resnet").get_layer("features")
        self.assertAllClose(wide(x), [0.0, 2.0])
        self.assertAllClose(madry(x), [-0.1, 2.0])

    @parameterized.parameters(*wide_resnet.BACKBONES)
    def test_synchronized_reaches_every_batch_norm(self, name):
        for wanted in (True, False):
            norms = [
                layer.synchronized
                for layer in _tiny(name, synchronized=wanted).layers
                if isinstance(layer, keras.layers.BatchNormalization)
            ]
            self.assertEqual(norms, 7 * [wanted])


class BatchNormalizationTest(parameterized.TestCase, tf.test.TestCase):
    def test_is_keras_own_but_for_the_second_derivative(self):
        images = toys.random_images(6)
        ours, theirs = (
            model_layers.BatchNormalization(),
            keras.layers.BatchNormalization(),
        )
        for training in (True, True, False):
            self.assertAllClose(
                ours(images, training=training),
                theirs(images, training=training),
                1e-5,
                1e-5,
            )
        for mine, other in zip(ours.weights, theirs.weights, strict=True):
            self.assertAllClose(mine, other, 1e-6, 1e-6)

    @parameterized.named_parameters(
        ("kernel", {}, 4, True),
        ("vectors", {}, 2, False),
        ("other_axis", {"axis": 1}, 4, False),
        ("no_scale", {"scale": False}, 4, False),
        ("no_center", {"center": False}, 4, False),
        ("double", {"dtype": "float64"}, 4, False),
    )
    def test_statistics_are_keras_own(self, settings, rank, is_fused):
        draw = np.random.default_rng(0)
        shape = (6, 4, 5, 3)[-rank:]
        inputs = tf.constant(draw.normal(2, 3, shape).astype(np.float32))
        if "dtype" in settings:
            inputs = tf.cast(inputs, settings["dtype"])
        ours = model_layers.BatchNormalization(**settings)
        theirs = keras.layers.BatchNormalization(**settings)
        self.assertAllClose(
            ours(inputs, training=True), theirs(inputs, training=True), 1e-5
        )
        self.assertEqual(ours._is_fused(inputs, None), is_fused)
        for mine, other in zip(ours.weights, theirs.weights, strict=True):
            self.assertAllClose(mine, other, 1e-5, 1e-6)

    def test_a_frozen_layer_stays_as_it_is(self):
        layer = model_layers.BatchNormalization(trainable=False)
        images = toys.random_images(6)
        self.assertAllClose(
            layer(images, training=True), layer(images, training=False)
        )
        self.assertAllEqual(layer.moving_mean, np.zeros(3))

    def test_kernels_derivatives_are_those_of_the_operations(self):
        """First and second, of a function that needs both statistics."""
        images = toys.random_images(6)

        def derivatives(is_fused):
            layer = model_layers.BatchNormalization()
            layer.build(images.shape)
            layer.gamma.assign([0.5, -1.2, 2.0])
            if not is_fused:
                layer._is_fused = lambda *_: False
            x = tf.constant(images)
            with tf.GradientTape() as outer:
                outer.watch(x)
                with tf.GradientTape() as inner:
                    inner.watch(x)
                    value = tf.reduce_sum(tf.sin(layer(x, training=True)))
                first = inner.gradient(value, x)
                squares = tf.reduce_sum(first**2 * tf.cos(x))
            return first, *outer.gradient(squares, [x, layer.gamma.value])

        for fused, plain in zip(
            derivatives(True), derivatives(False), strict=True
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
                _, variance = layer._moments(inputs, None)
            slope = inner.gradient(variance, x)
        self.assertAllClose(slope, 1.5)
        self.assertAllClose(outer.gradient(slope, x), 0.5)


class RegularizationTest(parameterized.TestCase, tf.test.TestCase):
    @parameterized.parameters(*wide_resnet.BACKBONES)
    def test_penalty_is_2e_4_half_squares_of_kernels(self, name):
        model = _tiny(name)
        kernels = [v for v in model.trainable_variables if v.name == "kernel"]
        self.assertLen(model.losses, len(kernels))
        expected = sum(
            2e-4 * 0.5 * np.sum(np.square(kernel, dtype=np.float64))
            for kernel in toys.values(kernels)
        )
        self.assertGreater(expected, 0.0)
        self.assertAllClose(sum(model.losses), expected, 1e-5, 1e-9)

    @parameterized.parameters(*wide_resnet.BACKBONES)
    def test_no_penalty_on_batch_norm_and_biases(self, name):
        model = _tiny(name)
        before = float(sum(model.losses))
        for variable in model.trainable_variables:
            if variable.name != "kernel":
                variable.assign(variable + 10.0)
        self.assertEqual(float(sum(model.losses)), before)

    @parameterized.parameters(*wide_resnet.BACKBONES)
    def test_factor_is_an_argument(self, name):
        self.assertEmpty(_tiny(name, l2=0.0).losses)
        once, twice = _tiny(name, l2=1e-3), _tiny(name, l2=2e-3)
        self.assertAllClose(2.0 * sum(once.losses), sum(twice.losses), 1e-5)


class WithTapsTest(parameterized.TestCase, tf.test.TestCase):
    @parameterized.parameters(*wide_resnet.BACKBONES)
    def test_answers_the_logits_of_the_classifier(self, name):
        model = _tiny(name)
        taps = graphs.with_taps(model, ("group1_0_add", "features"))
        images = toys.random_images(2, (16, 16, 3))
        outputs = taps(images, training=False)
        self.assertCountEqual(outputs, ("logits", "group1_0_add", "features"))
        self.assertAllClose(
            outputs["logits"], model(images, training=False), 1e-6, 1e-6
        )
        self.assertEqual(outputs["group1_0_add"].shape, (2, 8, 8, 32))
        self.assertEqual(outputs["features"].shape, (2, 4, 4, 64))

    def test_features_are_what_the_pool_receives(self):
        model = toys.small_wide_resnet()
        images = toys.random_images(2)
        outputs = graphs.with_taps(model, ("features",))(images, training=False)
        head = model.get_layer("logits")
        pooled = np.mean(outputs["features"], axis=(1, 2))
        kernel, bias = toys.values([head.kernel, head.bias])
        self.assertAllClose(
            outputs["logits"], pooled @ kernel + bias, 1e-5, 1e-5
        )

    def test_shares_the_weights(self):
        model = toys.small_classifier()
        taps = graphs.with_taps(model, ("features",))
        self.assertLen(taps.weights, len(model.weights))
        ours = {id(weight) for weight in model.weights}
        self.assertEqual({id(weight) for weight in taps.weights}, ours)
        images = toys.random_images(2)
        before = taps(images, training=False)["logits"]
        model.get_layer("logits").bias.assign_add(tf.ones(toys.NUM_CLASSES))
        after = taps(images, training=False)["logits"]
        self.assertAllClose(after, before + 1.0, 1e-5, 1e-5)

    def test_without_layers_there_are_logits_only(self):
        taps = graphs.with_taps(toys.small_classifier(), ())
        outputs = taps(toys.random_images(2), training=False)
        self.assertEqual(list(outputs), ["logits"])

    @parameterized.parameters("pool", "logits", "images", "feature", "")
    def test_other_names_list_the_layers_with_maps(self, name):
        # In the order of the network; "pool" has no spatial extent.
        known = (
            "hidden_conv, hidden_norm, hidden, "
            "features_conv, features_norm, features"
        )
        with self.assertRaisesRegex(
            InputError, rf"spatial map: {known}\. Received: '{name}'"
        ):
            graphs.with_taps(toys.small_classifier(), ("features", name))

    def test_a_map_of_one_pixel_is_not_spatial(self):
        inputs = keras.Input((2, 2, 1))
        x = keras.layers.Conv2D(3, 1, name="two")(inputs)
        x = keras.layers.Conv2D(3, 2, name="one")(x)
        x = keras.layers.Flatten()(x)
        model = keras.Model(inputs, keras.layers.Dense(2, name="logits")(x))
        self.assertEqual(list(graphs.spatial_layers(model)), ["two"])


class ReloadTest(parameterized.TestCase, tf.test.TestCase):
    @parameterized.parameters(*wide_resnet.BACKBONES)
    def test_saves_and_loads(self, name):
        model = _tiny(name)
        path = os.path.join(
            self.enterContext(tempfile.TemporaryDirectory()), "model.keras"
        )
        model.save(path)
        loaded = keras.models.load_model(path)
        images = toys.random_images(2, (16, 16, 3))
        self.assertAllClose(
            loaded(images, training=False),
            model(images, training=False),
            1e-6,
            1e-6,
        )
        self.assertAllClose(sum(loaded.losses), sum(model.losses), 1e-6)
        graphs.with_taps(loaded, ("features",))


class FlopsTest(tf.test.TestCase):
    def test_hand_numbers(self):
        inputs = keras.Input((8, 8, 3))
        x = keras.layers.Conv2D(4, 3, strides=2, padding="same")(inputs)
        x = keras.layers.BatchNormalization()(x)
        x = keras.layers.ReLU()(x)
        x = keras.layers.Conv2D(6, 1, use_bias=False)(x)
        x = keras.layers.GlobalAveragePooling2D()(x)
        model = keras.Model(inputs, keras.layers.Dense(5)(x))
        # 4·4 positions · 3·3·3·4 weights = 1728, 4·4 · 4·6 = 384, and
        # 6·5 = 30: 2142 products, each with its sum.
        self.assertEqual(graphs.flops_per_image(model), 2 * 2142)

    def test_wide_resnet(self):
        model = wide_resnet.wide_resnet(CIFAR_SHAPE, 10, 10, 1)
        # 32² · (432 + 2·2304) = 5160960;
        # 16² · (4608 + 9216 + 512) = 3670016;
        # 8² · (18432 + 36864 + 2048) = 3670016; head 640.
        self.assertEqual(
            graphs.flops_per_image(model),
            2 * (5_160_960 + 3_670_016 + 3_670_016 + 640),
        )


class PrecisionTest(parameterized.TestCase, tf.test.TestCase):
    @parameterized.parameters(*wide_resnet.BACKBONES)
    def test_mixed_bfloat16_keeps_logits_and_variables_float32(self, name):
        reference = _tiny(name)
        with toys.precision("mixed_bfloat16"):
            model = _tiny(name)
        self.assertEqual(keras.config.dtype_policy().name, "float32")
        images = toys.random_images(2, (16, 16, 3))
        outputs = graphs.with_taps(model, ("features",))(images)
        self.assertEqual(outputs["features"].dtype, tf.bfloat16)
        self.assertEqual(model.get_layer("normalise").compute_dtype, "float32")
        self.assertEqual(outputs["logits"].dtype, tf.float32)
        for variable in model.variables:
            self.assertEqual(variable.dtype, "float32")
        # Eight bits of mantissa, through seven convolutions.
        logits = reference(images, training=False).numpy()
        self.assertAllClose(
            model(images, training=False), logits, 0.1, 0.1 * np.std(logits)
        )


if __name__ == "__main__":
    tf.test.main()
