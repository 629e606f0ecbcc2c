"""An epoch judged: attention's maps and picture, and a collapse."""

import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from atat_tf import grad_cam
from atat_tf.attacks import linf
from atat_tf.data import datasets
from atat_tf.data import images as image_files
from atat_tf.errors import InputError
from atat_tf.models import classifiers, graphs
from atat_tf.training import validation
from tests.support import toys

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
        panels = validation.AttentionPanels(
            student, _PGD, ("features",), split, 7, score
        )
        seen = panels.attended()
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
        panels = validation.AttentionPanels(student, _PGD, (), _split(), 0)
        first = panels.attended()
        before = toys.values(student.variables)
        self.assertAllEqual(first.clean.maps, panels.attended().clean.maps)
        for old, new in zip(
            before, toys.values(student.variables), strict=True
        ):
            self.assertAllEqual(old, new)
        toys.randomise(student, seed=1)
        self.assertNotAllClose(first.clean.maps, panels.attended().clean.maps)

    def test_the_picture_has_clean_map_attacked_map(self):
        split = _split(2)
        panels = validation.AttentionPanels(
            toys.small_classifier(), _PGD, ("hidden",), split, 0
        )
        seen = panels.attended()
        picture = panels.picture(seen)
        times, gap = 12, 4  # 8 pixels are enlarged to 96
        side = 8 * times + gap
        self.assertEqual(picture.shape, (2 * side, 4 * side, 3))
        tiles = [
            picture[side:, side * i : side * (i + 1)][:-gap:times, :-gap:times]
            for i in range(4)
        ]
        self.assertAllEqual(tiles[0], split.images[1])
        adversarial = image_files.as_uint8(seen.attacked.images[1])
        self.assertAllEqual(tiles[2], adversarial)
        heat = seen.clean.maps[1] / max(seen.clean.maps[1].max(), 1e-9)
        self.assertAllClose(
            tiles[1], image_files.overlaid(split.images[1], heat), atol=1
        )
        self.assertNotAllClose(tiles[1], tiles[3], atol=10)

    def test_layers(self):
        student = toys.small_classifier()
        shown = classifiers.shown_layer
        self.assertEqual(shown(student, ("hidden", "features")), "features")
        self.assertEqual(shown(student, ("hidden",)), "hidden")
        self.assertEqual(shown(student, ()), "features")
        with self.assertRaisesRegex(InputError, "spatial map.*'pool'"):
            shown(student, ("pool",))


class CollapseTest(parameterized.TestCase):
    @parameterized.parameters(
        ([], 0.5, False),
        ([0.4], 0.5, False),
        ([0.0, 0.0], 0.5, False),
        ([0.4, 0.2], 0.5, False),
        ([0.4, 0.19], 0.5, True),
        # The best before, not the one before.
        ([0.4, 0.3, 0.19], 0.5, True),
        # It has recovered.
        ([0.4, 0.0, 0.3], 0.5, False),
        # Slow overfitting, as Rice et al. 2020 saw it: 53 to 46 %.
        ([0.45, 0.53, 0.5, 0.46], 0.5, False),
        ([0.4, 0.3], 0.8, True),
        ([0.4, 0.3], 0.7, False),
    )
    def test_below_a_share_of_the_best(self, scores, share, expected):
        self.assertEqual(validation.has_collapsed(scores, share), expected)

    def test_sentence(self):
        self.assertRegex(
            validation.collapse_sentence([0.2, 0.412, 0.021]),
            "2.1 % in epoch 3, after 41.2 % in epoch 2",
        )
