"""Maps of tf-keras-vis against ours and against NumPy."""

import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from atat_tf import grad_cam
from atat_tf.models import graphs
from atat_tf.reports.figures import methods as method_figures
from tests.support import toys


class TfKerasVisMapsTest(tf.test.TestCase, parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.classifier = toys.small_wide_resnet()
        self.images, self.labels = toys.random_images(3), toys.random_labels(3)

    def _map(self, method, layer="group1_0_add", score="logit"):
        return method_figures.attention_map(
            method, self.classifier, layer, self.images, self.labels, score
        )

    @parameterized.product(
        layer=("features", "group1_0_add"), score=tuple(grad_cam.SCORES)
    )
    def test_gradcam_is_ours_before_it_is_enlarged(self, layer, score):
        _, ours = grad_cam.logits_and_attention(
            graphs.with_taps(self.classifier, [layer]),
            self.images,
            self.labels,
            score=score,
        )
        self.assertGreater(np.max(ours[layer]), 1e-3)
        self.assertAllClose(
            self._map("gradcam", layer, score), ours[layer], 1e-4, 1e-6
        )

    def test_layercam_is_the_sum_of_activations_times_positive_gradients(self):
        tapped = graphs.with_taps(self.classifier, ["group1_0_add"])
        with tf.GradientTape() as tape:
            tape.watch(self.images)
            outputs = tapped(self.images, training=False)
            score = tf.gather(outputs["logits"], self.labels, batch_dims=1)
        activations = outputs["group1_0_add"]
        slopes = np.maximum(tape.gradient(score, activations), 0)
        expected = np.maximum((activations * slopes).numpy().sum(-1), 0)
        self.assertAllClose(self._map("layercam"), expected, 1e-4, 1e-5)

    def test_saliency_is_the_largest_slope_over_the_colours(self):
        with tf.GradientTape() as tape:
            tape.watch(self.images)
            logits = self.classifier(self.images, training=False)
            score = tf.gather(logits, self.labels, batch_dims=1)
        slopes = np.abs(tape.gradient(score, self.images))
        self.assertAllClose(self._map("saliency"), slopes.max(-1), 1e-4, 1e-6)

    @parameterized.parameters("gradcam++", "scorecam")
    def test_others_have_the_layers_size_and_say_nothing(self, method):
        maps = self._map(method)
        self.assertEqual(maps.shape, (3, 4, 4))
        self.assertAllGreaterEqual(maps, 0)
        self.assertGreater(maps.max(), 0)
