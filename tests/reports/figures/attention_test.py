"""Figures of attention on a tiny network: the arrays drawn, and the numbers."""

import numpy as np
import tensorflow as tf

from atat_tf import attention
from atat_tf.attacks import linf, randomness
from atat_tf.errors import InputError
from atat_tf.models import graphs
from atat_tf.reports.figures import attention as attention_figures
from atat_tf.reports.figures import drawing, networks, pictures
from atat_tf.reports.figures import methods as method_figures
from tests.support import toys

_NAMES = ("ant", "bee", "cat", "dog", "eel")
_SETTING = attention_figures.Setting(
    0.1, 0.03, 3, seed=5, data="noise", caption="command"
)


def _source(seed=0, title="AT", watermark=""):
    classifier = toys.small_classifier(seed)
    return networks.Source(
        title, classifier, "features", _NAMES, watermark, "toy"
    )


def _pictures(labels=("ant", "cat")):
    pixels = (255 * toys.random_images(len(labels)).numpy()).astype(np.uint8)
    return [
        pictures.Picture(f"test image {7 + i}", 7 + i, label, pixels[i])
        for i, label in enumerate(labels)
    ]


def _drawn(figure):
    return [
        axes.images[0].get_array().data for axes in figure.axes if axes.images
    ]


class AttentionFiguresTest(tf.test.TestCase):
    def setUp(self):
        super().setUp()
        self.source, self.shown = _source(), _pictures()
        pixels = np.stack([picture.pixels for picture in self.shown])
        self.images = pixels / np.float32(255)
        self.labels = np.array([0, 2], np.int32)

    def _maps(self, images, source=None, labels=None):
        tapped = graphs.with_taps(
            (source or self.source).classifier, ["features"]
        )
        labels = self.labels if labels is None else labels
        logits, maps = attention.logits_and_attention(
            tapped, tf.constant(images), labels
        )
        return np.argmax(logits, -1), maps["features"].numpy()

    def _attacked(self, num_steps, source=None, epsilon=0.1):
        attack = linf.pgd(epsilon, 0.03, num_steps)
        classifier = (source or self.source).classifier
        return attack(
            toys.inference(classifier),
            tf.constant(self.images),
            self.labels,
            randomness.example_seeds(5, 0, [7, 8]),
        ).numpy()

    def test_shift_draws_clean_and_attacked_maps_of_each_network(self):
        other = _source(1, "ATAT", "untrained")
        figure, rows = attention_figures.shift(
            [self.source, other], self.shown, _SETTING
        )
        drawn = _drawn(figure)[:10]
        for i in range(2):
            self.assertAllClose(drawn[5 * i], self.images[i], atol=1e-6)
            for k, source in enumerate((self.source, other)):
                attacked = self._attacked(3, source)
                for column, images in ((1, self.images), (2, attacked)):
                    _, maps = self._maps(images, source)
                    expected = drawing.overlay(images[i], maps[i])
                    there = drawn[5 * i + 2 * k + column]
                    self.assertAllClose(there, expected, atol=1e-3)
        marks = [text for axes in figure.axes for text in axes.texts]
        self.assertLen(marks, 4)
        _, clean = self._maps(self.images)
        predicted, moved = self._maps(self._attacked(3))
        expected = attention.shift_numbers(clean, moved)
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
        _, rows = attention_figures.shift([self.source], shown, _SETTING)
        for row in rows:
            self.assertEqual(row["label"], row["clean_prediction"])

    def test_rounds_are_those_of_one_attack(self):
        figure, rows = attention_figures.rounds(
            [self.source], self.shown, _SETTING, [0, 1, 4]
        )
        drawn = _drawn(figure)
        for column, steps in enumerate((0, 1, 4)):
            images = self._attacked(steps) if steps else self.images
            _, maps = self._maps(images)
            for i in range(2):
                self.assertAllClose(
                    drawn[4 * i + 1 + column],
                    drawing.overlay(images[i], maps[i]),
                    atol=1e-3,
                )
        self.assertEqual([row["rounds"] for row in rows], [0, 0, 1, 1, 4, 4])
        for row in rows[:2]:
            self.assertAllClose(row["cosine_distance"], 0, atol=1e-6)
            self.assertEqual(row["linf"], 0)

    def test_ablation_says_which_predictions_are_rectified(self):
        # A network whose logits its bias decides is never moved; the other's
        # labels are what it predicts, so that the attack alone makes it wrong.
        raw = _source(0, "Standard")
        logits = raw.classifier(self.images, training=False)
        bias = raw.classifier.get_layer("logits").bias
        bias.assign_sub(tf.reduce_mean(logits, axis=0))
        labels, _ = self._maps(self.images, raw)
        shown = _pictures([_NAMES[label] for label in labels])
        fixed = _source(0, "ATAT")
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
        other = _source(1, "ATAT")
        figure, _ = attention_figures.ablation(
            [self.source, other], self.shown, _SETTING, "raw"
        )
        images = self._attacked(3)  # of the first network
        _, maps = self._maps(images, other)
        # To one step of the colour map.
        self.assertAllClose(
            _drawn(figure)[2], drawing.overlay(images[0], maps[0]), atol=4e-3
        )
        with self.assertRaisesRegex(InputError, "--crafted among each, raw"):
            attention_figures.ablation([other], self.shown, _SETTING, "rwa")

    def test_rounds_refused(self):
        with self.assertRaisesRegex(InputError, "--rounds as numbers"):
            attention_figures.rounds([self.source], self.shown, _SETTING, [])

    def test_methods_beside_ours(self):
        names = ["gradcam", "saliency"]
        figure, rows = method_figures.methods(
            self.source, self.shown, _SETTING, names
        )
        self.assertLen(rows, 4)
        for row in rows:
            self.assertLess(row["gradcam_difference"], 1e-4)
            self.assertLess(row["gradcam_cosine_distance"], 1e-6)
            self.assertNotIn("saliency_cosine_distance", row)
        _, maps = self._maps(self.images)
        drawn = _drawn(figure)
        expected = drawing.overlay(self.images[0], maps[0])
        self.assertAllClose(drawn[1], expected, atol=1e-5)
        self.assertAllClose(drawn[2], expected, atol=1e-3)

    def test_unknown_method(self):
        with self.assertRaisesRegex(InputError, "Did you mean 'scorecam'"):
            method_figures.methods(
                self.source, self.shown, _SETTING, ["scorcam"]
            )


if __name__ == "__main__":
    tf.test.main()
