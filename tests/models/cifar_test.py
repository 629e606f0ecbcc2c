"""VGG, ResNet and DenseNet: the literature's sizes, the house's promises."""

from unittest import mock

import keras
import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from atat_tf import attention
from atat_tf.data import datasets
from atat_tf.errors import InputError
from atat_tf.models import cifar, classifiers, frozen, graphs
from atat_tf.models import layers as model_layers
from atat_tf.runs import build
from atat_tf.runs import checks as run_checks
from atat_tf.runs import config as run_config
from tests.support import runs, toys

_BACKBONES = tuple(cifar.BACKBONES)
_SHAPE = (16, 16, 3)


def _tiny(name):
    build = cifar.BACKBONES[name]
    return toys.randomise(build(_SHAPE, 5, 10, 1))


class CifarBackbonesTest(parameterized.TestCase, tf.test.TestCase):
    @parameterized.parameters(
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
        # Zeros are quicker to make than random numbers.
        zeros = keras.initializers.Zeros()
        with mock.patch.object(
            keras.initializers, "VarianceScaling", lambda *_, **__: zeros
        ):
            model = cifar.BACKBONES[name]((32, 32, 3), 10, depth, width)
        count = sum(int(np.prod(v.shape)) for v in model.trainable_variables)
        self.assertEqual(count, expected)
        features = model.get_layer("features").output
        self.assertEqual(features.shape, (None, 8, 8, channels))

    @parameterized.parameters(*_BACKBONES)
    def test_last_map_is_features_and_attention_has_its_closed_form(self, name):
        model = _tiny(name)
        self.assertEqual(list(graphs.spatial_layers(model))[-1], "features")
        tapped = graphs.with_taps(model, ["features"])
        images, labels = toys.random_images(3, _SHAPE), toys.random_labels(3)
        _, maps = attention.logits_and_attention(tapped, images, labels)
        _, closed = attention.explanation(
            tapped, images, labels, classifiers.pooled_head(model, "features")
        )
        self.assertGreater(np.max(closed), 1e-3)
        self.assertAllClose(maps["features"], closed, 1e-4, 1e-6)

    @parameterized.parameters(*_BACKBONES)
    def test_its_folded_copy_is_the_same_function(self, name):
        model = _tiny(name)
        images = toys.random_images(3, _SHAPE)
        self.assertAllClose(
            frozen.logits_function(model)(images),
            model(images, training=False),
            1e-4,
            1e-4,
        )

    @parameterized.parameters(*_BACKBONES)
    def test_every_norm_can_be_differentiated_twice(self, name):
        for layer in _tiny(name).layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                self.assertIsInstance(layer, model_layers.BatchNormalization)

    @parameterized.parameters(*_BACKBONES)
    def test_is_built_from_a_config(self, name):
        config = run_config.resolve(runs.config("at", backbone__name=name))
        run_checks.validate(config)
        model = build.build_classifier(config, datasets.SPECS["digits"])
        self.assertEqual(model.name, name)
        self.assertEqual(model.output_shape, (None, 10))

    @parameterized.parameters(*_BACKBONES)
    def test_refusals(self, name):
        build = cifar.BACKBONES[name]
        with self.assertRaisesRegex(InputError, r"6n \+ 4.*depth=12"):
            build(_SHAPE, 5, 12, 1)
        with self.assertRaisesRegex(InputError, "width >= 1"):
            build(_SHAPE, 5, 10, 0)


if __name__ == "__main__":
    tf.test.main()
