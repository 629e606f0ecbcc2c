"""The graph of any Keras model: recorded, tapped, laid open, counted."""

import keras
import tensorflow as tf
from absl.testing import parameterized
from keras import layers

from atat_tf.errors import InputError
from atat_tf.models import graphs
from tests.support import toys
from tests.support.any_model import (
    subclassed,
)


class RecordedTest(parameterized.TestCase, tf.test.TestCase):
    def _model(self):
        """Returns a graph of a layer that is called twice, and of keywords."""
        inputs = keras.Input((6, 6, 3))
        twice = layers.Conv2D(3, 3, padding="same", name="twice")
        x = layers.Add(name="sum")([twice(twice(inputs)), inputs])
        attended = layers.MultiHeadAttention(1, 3, name="attended")
        flat = layers.Reshape((36, 3))(x)
        x = layers.Flatten()(attended(flat, value=flat, key=flat))
        x = layers.Dropout(0.5, name="drop")(x, training=False)
        return toys.randomise(keras.Model(inputs, layers.Dense(4)(x)))

    def test_runs_again_with_shared_layers_and_keywords(self):
        model = self._model()
        graph = graphs.recorded(model)
        self.assertIs(graphs.recorded(model), graph)
        names = [call.layer.name for call in graph.calls]
        self.assertEqual(names.count("twice"), 2)
        images = toys.random_images(2, (6, 6, 3))
        (outputs,) = graph.run([images], lambda layer: layer)
        self.assertAllClose(outputs, model(images), 1e-6)
        first = {"sum": lambda tensors: tensors[0]}
        (other,) = graph.run([images], lambda x: first.get(x.name, x))
        self.assertNotAllClose(other, outputs)

    def test_made_by(self):
        graph = graphs.recorded(self._model())
        last = graph.made_by(graph.outputs[0])
        self.assertIsInstance(last.layer, layers.Dense)
        self.assertEqual(graph.made_by(last.inputs[0]).layer.name, "drop")
        self.assertIsNone(graph.made_by(graph.inputs[0]))

    def test_a_compiled_model_with_a_loss_of_its_own(self):
        model = self._model()
        model.compile("sgd", loss=lambda y, z: tf.reduce_mean(z))
        self.assertLen(graphs.recorded(model).outputs, 1)

    def test_a_sequential_that_has_changed_is_recorded_anew(self):
        model = keras.Sequential(
            [keras.Input((4, 4, 1)), layers.Flatten(), layers.Dense(3)]
        )
        before = graphs.recorded(model)
        model.pop()
        model.add(layers.Dense(7))
        after = graphs.recorded(model)
        self.assertEqual(before.outputs[0].shape, (None, 3))
        self.assertEqual(after.outputs[0].shape, (None, 7))

    def test_a_subclassed_model_has_none(self):
        self.assertIsNone(graphs.recorded(subclassed()))


class WithTapsTest(parameterized.TestCase, tf.test.TestCase):
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

    def test_a_layer_that_is_called_twice_stands_where_it_is_last(self):
        relu = layers.ReLU(name="relu")
        inputs = keras.Input((8, 8, 3))
        x = relu(layers.Conv2D(4, 3, name="first")(inputs))
        x = relu(layers.Conv2D(4, 3, name="second")(x))
        x = layers.Dense(2)(layers.GlobalAveragePooling2D()(x))
        found = graphs.spatial_layers(keras.Model(inputs, x))
        self.assertEqual([*found], ["first", "second", "relu"])
        self.assertEqual(found["relu"].shape, (None, 4, 4, 4))

    def test_dropout_and_noise_have_no_map_of_their_own(self):
        inputs = x = keras.Input((8, 8, 1))
        x = keras.layers.Conv2D(2, 3, name="maps")(x)
        x = keras.layers.GaussianNoise(0.1)(keras.layers.Dropout(0.5)(x))
        x = keras.layers.Dense(3)(keras.layers.Flatten()(x))
        model = keras.Model(inputs, x)
        self.assertEqual(list(graphs.spatial_layers(model)), ["maps"])
        # Named, it has the map of the layer before it.
        noise = model.layers[3].name
        tapped = graphs.with_taps(model, [noise])
        images = tf.ones((1, 8, 8, 1))
        found = tapped(images, training=True)[noise]
        named = graphs.with_taps(model, ["maps"])
        self.assertAllEqual(found, named(images)["maps"])

    def test_a_map_of_one_pixel_is_not_spatial(self):
        inputs = keras.Input((2, 2, 1))
        x = layers.Conv2D(3, 1, name="two")(inputs)
        x = layers.Conv2D(3, 2, name="one")(x)
        x = layers.Flatten()(x)
        model = keras.Model(inputs, layers.Dense(2, name="logits")(x))
        self.assertEqual(list(graphs.spatial_layers(model)), ["two"])


def _tokens(image):
    x = layers.Conv2D(6, 2, strides=2, name="patches")(image)
    return layers.Reshape((12, 6), name="tokens")(x)


def _heads(image):
    """Attention by hand: [b, 12, heads, c] has four axes and is no map."""
    x = _tokens(image)
    split = layers.Reshape((12, 2, 3), name="split")(layers.Dense(6)(x))
    heads = layers.Permute((2, 1, 3), name="heads")(split)
    scores = keras.ops.matmul(heads, keras.ops.transpose(heads, (0, 1, 3, 2)))
    mixed = keras.ops.matmul(layers.Softmax(name="scores")(scores), heads)
    mixed = layers.Permute((2, 1, 3), name="heads_last")(mixed)
    return layers.Reshape((12, 6), name="joined")(mixed)


def _grid(image):
    x = layers.LayerNormalization(name="norm")(_tokens(image))
    return layers.Reshape((4, 3, 6), name="grid")(x)


def _channels_first(image):
    x = layers.Permute((3, 1, 2), name="first")(image)
    arguments = {"padding": "same", "data_format": "channels_first"}
    x = layers.Conv2D(4, 3, name="maps", **arguments)(x)
    x = layers.ReLU(name="relu")(x)
    x = layers.Permute((2, 3, 1), name="last")(x)
    return layers.Conv2D(4, 3, name="picture")(x)


class LayoutTest(parameterized.TestCase, tf.test.TestCase):
    @parameterized.parameters(
        (_heads, ["patches"]),
        (_grid, ["patches", "grid"]),
        (_channels_first, ["last", "picture"]),
        (lambda image: layers.Dense(8)(layers.Flatten()(image)), []),
    )
    def test_what_is_no_picture_is_no_map(self, body, expected):
        image = keras.Input((8, 6, 3))
        x = layers.Flatten()(body(image))
        model = keras.Model(image, layers.Dense(4)(x), name="mine")
        self.assertEqual(list(graphs.spatial_layers(model)), expected)
        if not expected:
            with self.assertRaisesRegex(InputError, "training alone.*'mine'"):
                graphs.with_taps(model, [graphs.DEEPEST])


class FlopsTest(tf.test.TestCase):
    def test_hand_numbers(self):
        inputs = keras.Input((8, 8, 3))
        x = layers.Conv2D(4, 3, strides=2, padding="same")(inputs)
        x = layers.BatchNormalization()(x)
        x = layers.ReLU()(x)
        x = layers.Conv2D(6, 1, use_bias=False)(x)
        x = layers.GlobalAveragePooling2D()(x)
        model = keras.Model(inputs, layers.Dense(5)(x))
        # 4·4 positions · 3·3·3·4 weights = 1728, 4·4 · 4·6 = 384, and
        # 6·5 = 30: 2142 products, each with its sum.
        self.assertEqual(graphs.flops_per_image(model), 2 * 2142)
