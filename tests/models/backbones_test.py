"""What every backbone must hold, and what each is in the literature."""

import pathlib
import tempfile
from unittest import mock

import keras
import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from atat_tf import grad_cam
from atat_tf.data import datasets
from atat_tf.errors import InputError
from atat_tf.models import cifar, classifiers, graphs, wide_resnet
from atat_tf.models import layers as model_layers
from atat_tf.runs import build
from atat_tf.runs import checks as run_checks
from atat_tf.runs import config as run_config
from tests.support import runs, toys

_BACKBONES = {**wide_resnet.BACKBONES, **cifar.BACKBONES}
_SHAPE = (16, 16, 3)
_every = parameterized.parameters(*_BACKBONES)


def _tiny(name, shape=_SHAPE, num_classes=5, **arguments):
    backbone = _BACKBONES[name](shape, num_classes, 10, 1, **arguments)
    return toys.randomise(backbone)


def _zeros(name, *arguments):
    """Returns a backbone of zeros, which are quicker to make than noise."""
    zeros = keras.initializers.Zeros()
    with mock.patch.object(
        keras.initializers, "VarianceScaling", lambda *_, **__: zeros
    ):
        return _BACKBONES[name](*arguments)


class LiteratureTest(parameterized.TestCase, tf.test.TestCase):
    """The literature's numbers, and the sums that give them.

    A group of n units of a Wide ResNet from i to c channels has 2i + 9ic + 2c
    + 9cc weights in its first unit (two batch norms, two 3x3 kernels), ic more
    for a projection shortcut, and 4c + 18cc in each of the other n − 1.
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
        ("wide_resnet", 34, 10, 640, 46_160_474),
        # n = 4: one unit less in each group, − 461440 − 1844480 − 7375360.
        ("wide_resnet", 28, 10, 640, 36_479_194),
        # n = 1, and no shortcut at 16 -> 16. Stem 432.
        # 16 -> 16: 32 + 2304 + 32 + 2304 = 4672.
        # 16 -> 32: 32 + 4608 + 64 + 9216 + 512 = 14432.
        # 32 -> 64: 64 + 18432 + 128 + 36864 + 2048 = 57536.
        # Last norm 128, head 64 · 10 + 10 = 650. In all 77850.
        ("wide_resnet", 10, 1, 64, 77_850),
        # As WRN-34-10 without its shortcuts, 2560 + 51200 + 204800 = 258560.
        ("madry_wide_resnet", 34, 10, 640, 45_901_914),
        # As WRN-10-1 without 512 + 2048.
        ("madry_wide_resnet", 10, 1, 64, 75_290),
        # n = 3, ResNet-20 with projections. Stem 432 + 32.
        # 16 -> 16: 3 · (2 · 2304 + 64) = 14016.
        # 16 -> 32: 4608 + 9216 + 128 + shortcut 512 + 64 = 14528,
        #   others 2 · (2 · 9216 + 128) = 37120.
        # 32 -> 64: 18432 + 36864 + 256 + 2048 + 128 = 57728,
        #   others 2 · (2 · 36864 + 256) = 147968. Head 650.
        ("resnet", 22, 1, 64, 272_474),
        # DenseNet-40-12: 12 layers a group, each of 2c + 9 · 12c weights on c
        # channels, c = 16, 28, ...: 110 · (984 + 2712 + 4440). Stem 432.
        # Transitions 320 + 160² and 608 + 304². Last norm 896, head 4490.
        ("densenet", 40, 1, 448, 1_019_722),
        # Two convolutions a group. 1728 + 36864 + 73728 + 147456 + 294912 +
        # 589824, norms 256 + 512 + 1024, head 2570.
        ("vgg", 10, 4, 256, 1_148_874),
    )
    def test_parameters(self, name, depth, width, channels, expected):
        model = _zeros(name, (32, 32, 3), 10, depth, width)
        count = sum(int(np.prod(v.shape)) for v in model.trainable_variables)
        self.assertEqual(count, expected)
        features = model.get_layer("features").output
        self.assertEqual(features.shape, (None, 8, 8, channels))

    def test_normalisation_and_activation(self):
        # [0, 1] -> [−2, 2].
        wide, madry = _tiny("wide_resnet"), _tiny("madry_wide_resnet")
        pixels = tf.constant([0.0, 0.25, 0.5, 1.0])[:, None, None, None]
        self.assertAllClose(
            np.ravel(wide.get_layer("normalise")(pixels)), [-2, -1, 0, 2]
        )
        x = tf.constant([-1.0, 2.0])
        self.assertAllClose(wide.get_layer("features")(x), [0.0, 2.0])
        self.assertAllClose(madry.get_layer("features")(x), [-0.1, 2.0])


class EveryBackboneTest(parameterized.TestCase, tf.test.TestCase):
    @_every
    def test_layers(self, name):
        for synchronized in (True, False):
            model = _tiny(name, synchronized=synchronized)
            self.assertEqual(model.layers[1].name, "normalise")
            self.assertEqual(list(graphs.spatial_layers(model))[-1], "features")
            norms = [
                layer
                for layer in model.layers
                if isinstance(layer, keras.layers.BatchNormalization)
            ]
            self.assertGreater(len(norms), 5)
            for norm in norms:
                # Which can be differentiated twice.
                self.assertIsInstance(norm, model_layers.BatchNormalization)
                self.assertEqual(norm.synchronized, synchronized)

    @parameterized.product(
        name=tuple(_BACKBONES),
        case=(((32, 32, 3), 100, (8, 8)), ((28, 28, 1), 10, (7, 7))),
    )
    def test_shapes_of_features_and_logits(self, name, case):
        shape, num_classes, space = case
        model = _tiny(name, shape, num_classes)
        self.assertEqual(model.get_layer("features").output.shape[1:3], space)
        self.assertEqual(model.output_shape, (None, num_classes))

    @_every
    def test_an_image_does_not_depend_on_its_batch(self, name):
        model, images = _tiny(name), toys.random_images(3, _SHAPE)
        before = toys.values(model.variables)
        logits = model(images, training=False)
        self.assertAllEqual(logits, model(images, training=False))
        for i in range(3):
            alone = model(images[i : i + 1], training=False)
            self.assertAllClose(alone[0], logits[i], 1e-4, 1e-4)
        self.assertGreater(np.max(np.abs(logits[0] - logits[1])), 1e-3)
        for old, new in zip(before, toys.values(model.variables), strict=True):
            self.assertAllEqual(old, new)

    @_every
    def test_attention_has_its_closed_form(self, name):
        model = _tiny(name)
        tapped = graphs.with_taps(model, ["features"])
        images, labels = toys.random_images(3, _SHAPE), toys.random_labels(3)
        _, maps = grad_cam.logits_and_attention(tapped, images, labels)
        head = classifiers.pooled_head(model, "features")
        self.assertIsNotNone(head)
        _, closed = grad_cam.explanation(tapped, images, labels, head)
        self.assertGreater(np.max(closed), 1e-3)
        self.assertAllClose(maps["features"], closed, 1e-4, 1e-6)

    @_every
    def test_penalty_is_2e_4_half_squares_of_kernels_alone(self, name):
        model = _tiny(name)
        kernels = [v for v in model.trainable_variables if v.name == "kernel"]
        self.assertLen(model.losses, len(kernels))
        expected = sum(
            2e-4 * 0.5 * np.sum(np.square(kernel, dtype=np.float64))
            for kernel in toys.values(kernels)
        )
        self.assertGreater(expected, 0.0)
        self.assertAllClose(sum(model.losses), expected, 1e-5, 1e-9)
        for variable in model.trainable_variables:
            if variable.name != "kernel":
                variable.assign(variable + 10.0)
        self.assertAllClose(sum(model.losses), expected, 1e-5, 1e-9)
        self.assertEmpty(_tiny(name, l2=0.0).losses)

    @_every
    def test_saves_and_loads(self, name):
        model, images = _tiny(name), toys.random_images(2, _SHAPE)
        folder = self.enterContext(tempfile.TemporaryDirectory())
        path = pathlib.Path(folder, "model.keras")
        model.save(path)
        loaded = keras.models.load_model(path)
        expected = model(images, training=False)
        self.assertAllClose(loaded(images, training=False), expected, 1e-6)
        self.assertAllClose(sum(loaded.losses), sum(model.losses), 1e-6)
        graphs.with_taps(loaded, ("features",))

    @_every
    def test_mixed_bfloat16_keeps_logits_and_variables_float32(self, name):
        reference = _tiny(name)
        with toys.precision("mixed_bfloat16"):
            model = _tiny(name)
        images = toys.random_images(2, _SHAPE)
        outputs = graphs.with_taps(model, ("features",))(images)
        self.assertEqual(outputs["features"].dtype, tf.bfloat16)
        self.assertEqual(model.get_layer("normalise").compute_dtype, "float32")
        self.assertEqual(outputs["logits"].dtype, tf.float32)
        for variable in model.variables:
            self.assertEqual(variable.dtype, "float32")
        # Eight bits of mantissa, through seven and more convolutions.
        logits = reference(images, training=False).numpy()
        self.assertAllClose(
            model(images, training=False), logits, 0.1, 0.15 * np.std(logits)
        )

    @_every
    def test_is_built_from_a_config(self, name):
        config = run_config.resolve(runs.config("at", backbone__name=name))
        run_checks.validate(config)
        model = build.build_classifier(config, datasets.SPECS["digits"])
        self.assertEqual(model.name, name)
        self.assertEqual(model.output_shape, (None, 10))

    @parameterized.product(
        name=tuple(_BACKBONES),
        case=((12, 1, r"6n \+ 4.*depth=12"), (4, 1, "4"), (10, 0, "width")),
    )
    def test_refusals(self, name, case):
        depth, width, pattern = case
        with self.assertRaisesRegex(InputError, pattern):
            _BACKBONES[name](_SHAPE, 5, depth, width)
