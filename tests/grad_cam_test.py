"""Eq. 1-3, the inner tape, and the gradient of Eq. 7 through both."""

from unittest import mock

import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from atat_tf import grad_cam
from atat_tf.defenses import atat
from atat_tf.models import classifiers, graphs
from tests.support import toys


def _twin(activations, gradients):
    """Eq. 1-3 in loops."""
    batch, height, width, channels = activations.shape
    maps = np.zeros((batch, height, width))
    for i in range(batch):
        for k in range(channels):
            total = 0.0
            for row in range(height):
                for column in range(width):
                    total += gradients[i, row, column, k]
            maps[i] += total / (height * width) * activations[i, :, :, k]
    return np.maximum(maps, 0.0)


class EquationsTest(tf.test.TestCase):
    def test_hand_numbers(self):
        # One image, 1x2 pixels, 2 channels.
        activations = tf.constant([[[[1.0, 2.0], [3.0, 1.0]]]])
        gradients = tf.constant([[[[2.0, -4.0], [0.0, -2.0]]]])
        # Eq. 2: ((2 + 0) / 2, (−4 − 2) / 2) = (1, −3).
        weights = grad_cam.channel_weights(gradients)
        self.assertAllClose(weights, [[1.0, -3.0]])
        # Eq. 1: 1·1 − 3·2 = −5 and 1·3 − 3·1 = 0.
        self.assertAllClose(
            grad_cam.location_map(activations, weights), [[[-5.0, 0.0]]]
        )
        # Eq. 1 with (1, −½): 1 − 1 = 0 and 3 − ½ = 2.5.
        self.assertAllClose(
            grad_cam.location_map(activations, tf.constant([[1.0, -0.5]])),
            [[[0.0, 2.5]]],
        )
        # Eq. 3: ReLU.
        self.assertAllEqual(
            grad_cam.attention_map(activations, gradients), [[[0.0, 0.0]]]
        )
        # Of the opposite class: ReLU(5, 0).
        self.assertAllEqual(
            grad_cam.attention_map(activations, -gradients), [[[5.0, 0.0]]]
        )

    def test_equals_numpy_twin(self):
        generator = np.random.default_rng(0)
        activations = generator.normal(size=(3, 4, 5, 6)).astype("float32")
        gradients = generator.normal(size=(3, 4, 5, 6)).astype("float32")
        maps = grad_cam.attention_map(
            tf.constant(activations), tf.constant(gradients)
        )
        expected = _twin(activations, gradients)
        self.assertGreater(np.count_nonzero(expected), 0)
        self.assertAllClose(maps, expected, 1e-5, 1e-6)

    def test_keeps_float64_and_lifts_bfloat16(self):
        for given, wanted in (
            (tf.float64, tf.float64),
            (tf.float32, tf.float32),
            (tf.bfloat16, tf.float32),
            (tf.float16, tf.float32),
        ):
            x = tf.ones([1, 2, 2, 1], given)
            self.assertEqual(grad_cam.attention_map(x, x).dtype, wanted)


class ScoresTest(parameterized.TestCase, tf.test.TestCase):
    @parameterized.parameters(
        ("logit", 0, 5.0),
        ("centred", 0, 5.0 - 3.0),
        ("margin", 0, 5.0 - 6.0),
        ("margin", 2, 6.0 - 5.0),
    )
    def test_hand_numbers(self, name, label, expected):
        logits = tf.constant([[5.0, -2.0, 6.0]])
        score = grad_cam.SCORES[name](tf.constant([label]), logits)
        self.assertAllClose(score, [expected])

    @parameterized.parameters("centred", "margin")
    def test_one_map_added_to_all_classes_changes_nothing(self, name):
        """W + v for every class adds v · A to each map of a raw logit."""
        model = toys.small_classifier()
        images, labels = toys.random_images(4), toys.random_labels(4)
        tapped = graphs.with_taps(model, ["features"])

        def maps(score):
            return grad_cam.logits_and_attention(
                tapped, images, labels, score=score
            )[1]["features"]

        before = maps(name), maps("logit")
        kernel = model.get_layer("logits").kernel
        kernel.assign_add(tf.ones_like(kernel))
        self.assertAllClose(maps(name), before[0], 1e-5, 1e-6)
        self.assertGreater(np.max(np.abs(maps("logit") - before[1])), 1e-2)


class LogitsAndAttentionTest(parameterized.TestCase, tf.test.TestCase):
    def setUp(self):
        super().setUp()
        self.images = toys.random_images(4)
        self.labels = toys.random_labels(4)

    def test_closed_form_of_pooled_linear_head(self):
        classifier = toys.small_classifier()
        tapped = graphs.with_taps(classifier, ("features",))
        logits, maps = grad_cam.logits_and_attention(
            tapped, self.images, self.labels
        )
        expected = toys.closed_form_maps(
            tapped(self.images, training=False)["features"],
            classifier.get_layer("logits").kernel,
            self.labels,
        )
        self.assertGreater(np.count_nonzero(expected), 0)
        self.assertAllClose(maps["features"], expected, 1e-5, 1e-6)
        self.assertAllClose(
            logits, classifier(self.images, training=False), 1e-5, 1e-5
        )

    def test_layers_do_not_disturb_each_other(self):
        classifier = toys.small_wide_resnet()
        names = ("group1_0_add", "features")
        _, both = grad_cam.logits_and_attention(
            graphs.with_taps(classifier, names), self.images, self.labels
        )
        self.assertCountEqual(both, names)
        for name in names:
            _, alone = grad_cam.logits_and_attention(
                graphs.with_taps(classifier, (name,)), self.images, self.labels
            )
            self.assertAllClose(both[name], alone[name], 1e-5, 1e-7)

    def test_map_of_an_image_is_the_same_alone(self):
        tapped = graphs.with_taps(
            toys.small_wide_resnet(), ("group1_0_add", "features")
        )
        _, maps = grad_cam.logits_and_attention(
            tapped, self.images, self.labels
        )
        for i in range(len(self.images)):
            _, alone = grad_cam.logits_and_attention(
                tapped, self.images[i : i + 1], self.labels[i : i + 1]
            )
            for layer, values in alone.items():
                self.assertAllClose(values[0], maps[layer][i], 1e-4, 1e-6)

    def test_maps_of_mixed_precision_are_float32(self):
        with toys.precision("mixed_bfloat16"):
            classifier = toys.small_wide_resnet()
        tapped = graphs.with_taps(classifier, ("group1_0_add", "features"))
        self.assertEqual(
            tapped(self.images, training=False)["features"].dtype, tf.bfloat16
        )
        logits, maps = grad_cam.logits_and_attention(
            tapped, self.images, self.labels
        )
        self.assertEqual(logits.dtype, tf.float32)
        for values in maps.values():
            self.assertEqual(values.dtype, tf.float32)
            self.assertAllInRange(values, 0.0, np.inf)


class SecondOrderTest(parameterized.TestCase, tf.test.TestCase):
    """The weight gradient of Eq. 7 crosses the gradient inside Eq. 2."""

    def setUp(self):
        super().setUp()
        precision = toys.precision("float64", "float64")
        precision.__enter__()
        self.addCleanup(precision.__exit__, None, None, None)
        self.student = toys.small_classifier(seed=1)
        self.teacher = toys.small_classifier(seed=2)
        self.teacher.trainable = False
        self.images = toys.random_images(3, dtype="float64")
        noise = toys.random_images(3, seed=9, dtype="float64")
        self.adversarial = self.images + 0.1 * (noise - 0.5)
        self.labels = toys.random_labels(3)

    def _objective(self, names=("features",), **fields):
        # The student is in training mode throughout: its moving statistics
        # change from call to call, but the loss does not read them.
        return atat.ATAT(0.7, 0.3, 0.4, names, **fields)(
            graphs.with_taps(self.student, names),
            graphs.with_taps(self.teacher, names),
            self.images,
            self.adversarial,
            self.labels,
        )

    def _gradient(self, variable, names=("features",), **fields):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(self._objective(names, **fields).loss)
        self.assertEqual(loss.dtype, tf.float64)
        return tape.gradient(loss, variable.value).numpy()

    def _slope(self, variable, index, names, step=1e-6, **fields):
        """Central difference; the variable is restored afterwards."""
        (middle,) = toys.values([variable])
        losses = []
        for sign in (1, -1):
            moved = middle.copy()
            moved[index] += sign * step
            variable.assign(moved)
            losses.append(np.mean(self._objective(names, **fields).loss))
        variable.assign(middle)
        return (losses[0] - losses[1]) / (2 * step)

    def _assert_equals_finite_differences(self, layer, name, names, **fields):
        variable = getattr(self.student.get_layer(layer), name)
        gradient = self._gradient(variable, names, **fields)
        self.assertGreater(np.max(np.abs(gradient)), 1e-3)
        generator = np.random.default_rng(5)
        flat = generator.choice(gradient.size, 4, replace=False)
        for index in zip(*np.unravel_index(flat, gradient.shape), strict=True):
            slope = self._slope(variable, index, names, **fields)
            self.assertAllClose(gradient[index], slope, 1e-5, 1e-8)

    @parameterized.parameters(
        ("logits", "kernel"),
        ("logits", "bias"),
        ("features_conv", "kernel"),
        ("features_norm", "gamma"),
        ("features_norm", "beta"),
        ("hidden_conv", "kernel"),
        ("hidden_norm", "gamma"),
        ("hidden_norm", "beta"),
    )
    def test_equals_finite_differences(self, layer, name):
        self._assert_equals_finite_differences(layer, name, ("features",))

    @parameterized.parameters(
        {"score": "centred", "map_distance": "cosine", "pairing": "mse"},
        {"score": "margin", "map_distance": "rms", "pairing": "kl"},
        {"classes": "two", "distillation": 0.6, "label_smoothing": 0.2},
    )
    def test_what_the_paper_has_not_equals_finite_differences(self, **fields):
        for layer in ("logits", "features_conv", "hidden_conv"):
            self._assert_equals_finite_differences(
                layer, "kernel", ("features",), **fields
            )

    @parameterized.parameters(
        ("logits", "kernel"),
        ("features_conv", "kernel"),
        ("features_norm", "gamma"),
        ("hidden_conv", "kernel"),
    )
    def test_layer_below_a_batch_norm_equals_finite_differences(
        self, layer, name
    ):
        # The inner gradient of "hidden" crosses batch norm in training mode,
        # where Keras' own layer is right to the first order only.
        self._assert_equals_finite_differences(
            layer, name, ("hidden", "features")
        )

    @parameterized.parameters("gradients", "activations")
    def test_a_stop_gradient_would_be_noticed(self, stopped):
        original = grad_cam.attention_map

        def stopping(activations, gradients):
            if stopped == "gradients":
                gradients = tf.stop_gradient(gradients)
            else:
                activations = tf.stop_gradient(activations)
            return original(activations, gradients)

        # "features" does not depend on the head, so the kernel of the head
        # feels L_at through the inner gradient only.
        layer = "logits" if stopped == "gradients" else "features_conv"
        kernel = self.student.get_layer(layer).kernel
        gradient = self._gradient(kernel)
        with mock.patch.object(grad_cam, "attention_map", stopping):
            broken = self._gradient(kernel)
        self.assertGreater(np.max(np.abs(gradient - broken)), 1e-3)


class ExplanationTest(tf.test.TestCase, parameterized.TestCase):
    """What is shown and served, against what the training follows."""

    @parameterized.parameters(*grad_cam.SCORES)
    def test_closed_form_equals_the_tape(self, score):
        model = toys.small_classifier()
        tapped = graphs.with_taps(model, ["features"])
        head = classifiers.pooled_head(model, "features")
        images, labels = toys.random_images(5), toys.random_labels(5)
        logits, maps = grad_cam.logits_and_attention(
            tapped, images, labels, score=score
        )
        closed_logits, closed = grad_cam.explanation(
            tapped, images, labels, head, score
        )
        self.assertGreater(np.max(maps["features"]), 1e-3)
        self.assertAllClose(closed, maps["features"], 1e-5, 1e-6)
        self.assertAllClose(closed_logits, logits, 1e-6, 1e-6)

    @parameterized.parameters("features", "hidden")
    def test_without_labels_the_predicted_classes_are_followed(self, layer):
        model = toys.small_classifier()
        tapped = graphs.with_taps(model, [layer])
        head = classifiers.pooled_head(model, layer)
        images = toys.random_images(6)
        # Without its mean the largest logit is not always the same one.
        bias = model.get_layer("logits").bias
        bias.assign_sub(tf.reduce_mean(model(images), axis=0))
        logits, maps = grad_cam.explanation(tapped, images, None, head)
        predicted = tf.argmax(logits, -1)
        self.assertGreater(len(set(predicted.numpy())), 1)
        _, named = grad_cam.explanation(tapped, images, predicted, head)
        self.assertAllEqual(maps, named)
        _, twin = grad_cam.logits_and_attention(tapped, images, predicted)
        self.assertAllClose(maps, twin[layer], 1e-5, 1e-6)

    def test_scaled_for_reading(self):
        maps = tf.constant([[[0.0, 2.0], [4.0, 1.0]], [[0.0, 0.0], [0.0, 0.0]]])
        self.assertAllClose(
            grad_cam.scaled_for_reading(maps),
            [[[0.0, 0.5], [1.0, 0.25]], [[0.0, 0.0], [0.0, 0.0]]],
        )
