"""Figures of attention on a tiny network: the arrays drawn, and the numbers."""

import numpy as np
import tensorflow as tf

from atat_tf import grad_cam
from atat_tf.attacks import linf, randomness
from atat_tf.data import images as image_files
from atat_tf.errors import InputError
from atat_tf.evaluation.attention import networks
from atat_tf.models import graphs
from atat_tf.reports.figures import attention as attention_figures
from atat_tf.reports.figures import methods as method_figures
from atat_tf.reports.figures import pictures
from tests.support import toys

_NAMES = ("ant", "bee", "cat", "dog", "eel")
_SETTING = attention_figures.Setting(0.1, 0.03, 3, seed=5, caption="command")


def _network(seed=0, title="AT", watermark=""):
    classifier = toys.small_classifier(seed)
    return networks.Network(
        title, classifier, "features", _NAMES, "toy", watermark=watermark
    )


def _pictures(labels=("ant", "cat")):
    pixels = (255 * toys.random_images(len(labels)).numpy()).astype(np.uint8)
    return [
        pictures.Picture(f"test image {7 + i}", 7 + i, label, pixels[i])
        for i, label in enumerate(labels)
    ]


class AttentionFiguresTest(tf.test.TestCase):
    def setUp(self):
        super().setUp()
        self.network, self.shown = _network(), _pictures()
        pixels = np.stack([picture.pixels for picture in self.shown])
        self.images = pixels / np.float32(255)
        self.labels = np.array([0, 2], np.int32)

    def _maps(self, images, network):
        """Returns predictions and Eq. 3's maps of the labels."""
        tapped = graphs.with_taps(network.classifier, ["features"])
        logits, maps = grad_cam.logits_and_attention(
            tapped, tf.constant(images), self.labels
        )
        return np.argmax(logits, -1), maps["features"].numpy()

    def _attacked(self, num_steps, network):
        return linf.pgd(0.1, 0.03, num_steps)(
            toys.inference(network.classifier),
            tf.constant(self.images),
            self.labels,
            randomness.example_seeds(5, 0, [7, 8]),
        ).numpy()

    def _assert_draws(self, figure, columns, pairs=False):
        """Asserts that the figure has each picture, and below maps of these.

        Args:
          figure: of pictures, one below the other, and a column for each of
          columns: (images, network).
          pairs: whether each map has the image without it on its left.
        """
        drawn = iter([axes.images[0] for axes in figure.axes if axes.images])
        maps = [self._maps(*column)[1] for column in columns]
        for i, picture in enumerate(self.shown):
            if not pairs:
                self.assertAllEqual(next(drawn).get_array(), picture.pixels)
            for (images, _), of_column in zip(columns, maps, strict=True):
                pixels = image_files.as_uint8(images[i])
                if pairs:
                    plain = next(drawn).get_array().astype(int)
                    self.assertAllClose(plain, pixels, atol=1)
                large = pixels.repeat(24, 0).repeat(24, 1)  # of 192 pixels
                # One of 255, and the rounding of attacked pixels.
                self.assertAllClose(
                    next(drawn).get_array().astype(int),
                    image_files.overlaid(large, of_column[i]),
                    atol=2,
                )

    def test_shift_draws_clean_and_attacked_maps_of_each_network(self):
        other = _network(1, "ATAT", "untrained")
        figure, rows = attention_figures.shift(
            [self.network, other], self.shown, _SETTING
        )
        columns = [
            (images, network)
            for network in (self.network, other)
            for images in (self.images, self._attacked(3, network))
        ]
        self._assert_draws(figure, columns, pairs=True)
        self.assertLen([t for axes in figure.axes for t in axes.texts], 4)
        _, clean = self._maps(*columns[0])
        predicted, moved = self._maps(*columns[1])
        expected = grad_cam.shift_numbers(clean, moved)
        self.assertLen(rows, 4)
        for i, row in enumerate(rows[:2]):
            self.assertEqual(row["model"], "AT")
            self.assertEqual(row["image"], f"test image {7 + i}")
            self.assertEqual(row["label"], _NAMES[self.labels[i]])
            self.assertEqual(row["attacked_prediction"], _NAMES[predicted[i]])
            self.assertLessEqual(row["linf"], 0.1 + 1e-6)
            for name, values in expected.items():
                self.assertAllClose(row[name], values[i], 1e-3, 1e-4)

    def test_unknown_labels_are_the_predictions(self):
        shown = _pictures((None, "zebra"))
        _, rows = attention_figures.shift([self.network], shown, _SETTING)
        for row in rows:
            self.assertEqual(row["label"], row["clean_prediction"])

    def test_rounds_are_those_of_one_attack(self):
        figure, rows = attention_figures.rounds(
            [self.network], self.shown, _SETTING, [0, 1, 4]
        )
        points = [self._attacked(steps, self.network) for steps in (1, 4)]
        columns = [(at, self.network) for at in (self.images, *points)]
        self._assert_draws(figure, columns)
        self.assertEqual([row["rounds"] for row in rows], [0, 0, 1, 1, 4, 4])
        for row in rows[:2]:
            self.assertAllClose(row["cosine_distance"], 0, atol=1e-6)
            self.assertEqual(row["linf"], 0)

    def test_ablation_says_which_predictions_are_rectified(self):
        # A network whose logits its bias decides is never moved; the other's
        # labels are what it predicts, so that the attack alone makes it wrong.
        raw = _network(0, "Standard")
        logits = raw.classifier(self.images, training=False)
        bias = raw.classifier.get_layer("logits").bias
        bias.assign_sub(tf.reduce_mean(logits, axis=0))
        labels, _ = self._maps(self.images, raw)
        shown = _pictures([_NAMES[label] for label in labels])
        fixed = _network(0, "ATAT")
        head = fixed.classifier.get_layer("logits")
        head.kernel.assign(0 * head.kernel)
        head.bias.assign(10 * tf.one_hot(labels[0], 5))
        setting = attention_figures.Setting(1.0, 0.3, 5, seed=5)
        for crafted in attention_figures.CRAFTED:
            _, rows = attention_figures.ablation(
                [raw, fixed], shown, setting, crafted
            )
            of_raw, of_fixed = rows[:2], rows[2:]
            self.assertFalse(any(row["rectified"] for row in of_raw))
            for before, after in zip(of_raw, of_fixed, strict=True):
                broken = before["attacked_prediction"] != before["label"]
                right = after["attacked_prediction"] == after["label"]
                self.assertEqual(after["rectified"], broken and right)
            self.assertTrue(of_fixed[0]["rectified"])

    def test_ablation_on_the_raw_networks_images(self):
        other = _network(1, "ATAT")
        figure, _ = attention_figures.ablation(
            [self.network, other], self.shown, _SETTING, "raw"
        )
        images = self._attacked(3, self.network)
        self._assert_draws(figure, [(images, self.network), (images, other)])

    def test_methods_beside_ours(self):
        figure, rows = method_figures.methods(
            self.network, self.shown, _SETTING, ["gradcam", "saliency"]
        )
        self.assertLen(rows, 4)
        for row in rows:
            self.assertLess(row["gradcam_difference"], 1e-4)
            self.assertLess(row["gradcam_cosine_distance"], 1e-6)
            self.assertNotIn("saliency_cosine_distance", row)
        ours, theirs = (
            axes.images[0].get_array().astype(int) for axes in figure.axes[1:3]
        )
        self.assertAllClose(ours, theirs, atol=1)

    def test_refusals(self):
        one = [self.network]
        for message, figure, networks_shown, last in (
            ("among each, raw", attention_figures.ablation, one, "rwa"),
            ("--rounds as numbers", attention_figures.rounds, one, []),
            ("gradcam, .*'cam'", method_figures.methods, one[0], ["cam"]),
        ):
            with self.assertRaisesRegex(InputError, message):
                figure(networks_shown, self.shown, _SETTING, last)
