"""Attention on a few images: what is looked at, and the picture of it."""

import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from atat_tf import grad_cam
from atat_tf.attacks import linf
from atat_tf.data import datasets
from atat_tf.data import images as image_files
from atat_tf.errors import InputError
from atat_tf.evaluation.attention.views import verdict
from atat_tf.models import classifiers, graphs
from atat_tf.training.records import panels
from tests.support import toys

_NAMES = [f"class {number}" for number in range(toys.NUM_CLASSES)]
_PGD = linf.pgd(8 / 255, 4 / 255, 3)


def _split(count=4):
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (count, *toys.IMAGE_SHAPE), np.uint8)
    labels = generator.integers(0, toys.NUM_CLASSES, count, np.int32)
    return datasets.Split(images, labels)


class PanelsTest(parameterized.TestCase, tf.test.TestCase):
    @parameterized.parameters("logit", "centred")
    def test_what_is_attended_is_grad_cam_of_the_attacked_images(self, score):
        student, split = toys.small_wide_resnet(), _split()
        seen = panels.AttentionPanels(
            student, _PGD, ("features",), split, _NAMES, 7, score
        ).attended()
        images = tf.constant(split.images / np.float32(255))
        expected = _PGD(
            toys.inference(student),
            images,
            tf.constant(split.labels),
            toys.seeds(4, 7),
        )
        self.assertAllClose(seen.attacked.images, expected, atol=1e-5)
        tapped = graphs.with_taps(student, ["features"])
        for points, maps in (
            (images, seen.clean.maps),
            (tf.constant(seen.attacked.images), seen.attacked.maps),
        ):
            _, expected = grad_cam.logits_and_attention(
                tapped, points, split.labels, score=score
            )
            self.assertAllClose(maps, expected["features"], atol=1e-5)
        self.assertGreater(np.max(seen.shift), 0)

    def test_it_follows_the_weights_and_moves_none(self):
        student = toys.small_classifier()
        drawn = panels.AttentionPanels(student, _PGD, (), _split(), _NAMES, 0)
        first = drawn.attended()
        before = toys.values(student.variables)
        self.assertAllEqual(first.clean.maps, drawn.attended().clean.maps)
        for old, new in zip(
            before, toys.values(student.variables), strict=True
        ):
            self.assertAllEqual(old, new)
        toys.randomise(student, seed=1)
        self.assertNotAllClose(first.clean.maps, drawn.attended().clean.maps)

    def test_the_picture_has_heads_images_maps_and_verdicts(self):
        split = _split(2)
        drawn = panels.AttentionPanels(
            toys.small_classifier(), _PGD, ("hidden",), split, _NAMES, 0
        )
        seen = drawn.attended()
        picture = drawn.picture(seen)
        times, gap = 16, 4  # 8 pixels are enlarged to 128
        side, line = 8 * times, image_files.LINE_HEIGHT
        head, row = line + gap, side + line + gap
        self.assertEqual(picture.shape, (head + 2 * row, 4 * (side + gap), 3))
        columns = [
            picture[:, (side + gap) * i : (side + gap) * i + side]
            for i in range(4)
        ]
        tiles = [
            column[head + row :][:side:times, ::times] for column in columns
        ]
        self.assertAllEqual(tiles[0], split.images[1])
        adversarial = image_files.as_uint8(seen.attacked.images[1])
        self.assertAllEqual(tiles[2], adversarial)
        heat = seen.clean.maps[1] / max(seen.clean.maps[1].max(), 1e-9)
        self.assertAllClose(
            tiles[1], image_files.overlaid(split.images[1], heat), atol=1
        )
        self.assertNotAllClose(tiles[1], tiles[3], atol=10)
        texts = [column[-gap - line : -gap] for column in columns]
        is_right = seen.clean.predictions[1] == split.labels[1]
        words = verdict(seen.clean, 1, split.labels[1], _NAMES)
        self.assertEqual(words[1], is_right)
        self.assertStartsWith(words[0], "✓ class" if is_right else "✗ class")
        colour = "#17663d" if is_right else "#a3261c"
        self.assertAllEqual(texts[0], image_files.line(words[0], side, colour))
        self.assertTrue((texts[1] == 255).all())
        for column, title in zip(
            columns,
            ("image", "attention", "attacked, ε = 8/255", "now"),
            strict=True,
        ):
            self.assertAllEqual(column[:line], image_files.line(title, side))

    def test_layers(self):
        student = toys.small_classifier()
        shown = classifiers.shown_layer
        self.assertEqual(shown(student, ("hidden", "features")), "features")
        self.assertEqual(shown(student, ("hidden",)), "hidden")
        self.assertEqual(shown(student, ()), "features")
        with self.assertRaisesRegex(InputError, "spatial map.*'pool'"):
            shown(student, ("pool",))
