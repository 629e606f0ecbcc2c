"""Loss surfaces of linear networks, in closed form."""

import numpy as np
import tensorflow as tf

from atat_tf.errors import InputError
from atat_tf.evaluation.attention import networks
from atat_tf.reports.figures import landscape as landscape_figures
from atat_tf.reports.figures import pictures
from tests.support import toys

_SHAPE = (2, 2, 1)
_WEIGHTS = np.array([1.0, -2.0, 3.0, 0.5]).reshape(2, 2, 1)


def _logits_fn():
    """z_0 = 0 and z_1 = ⟨w, x⟩."""
    weights = np.stack([np.zeros_like(_WEIGHTS), _WEIGHTS], -1)
    return toys.linear_logits(weights)


class LossSurfaceTest(tf.test.TestCase):
    def test_sign_gradient_by_hand(self):
        # ∂/∂x log(1 + exp(z_1 − z_0)) has the sign of w; for label 1 of −w.
        image = np.full(_SHAPE, 0.5, np.float32)
        for label, sign in ((0, 1), (1, -1)):
            found = landscape_figures.sign_gradient(_logits_fn(), image, label)
            self.assertAllEqual(found, sign * np.sign(_WEIGHTS))

    def test_rademacher_is_of_ones_and_of_seed_and_index_alone(self):
        drawn = landscape_figures.rademacher((50, 50, 3), 1, 9)
        self.assertAllEqual(np.abs(drawn), np.ones_like(drawn))
        # Five deviations of the mean of 7,500 draws: 5 / √7500.
        self.assertLess(abs(drawn.mean()), 0.058)
        again = landscape_figures.rademacher((50, 50, 3), 1, 9)
        self.assertAllEqual(drawn, again)
        for seed, index in ((1, 8), (2, 9)):
            other = landscape_figures.rademacher((50, 50, 3), seed, index)
            self.assertNotAllEqual(drawn, other)

    def test_surface_in_closed_form_rows_are_the_random_direction(self):
        image = np.full(_SHAPE, 0.5, np.float32)
        along = np.sign(_WEIGHTS)
        across = np.array([1.0, 1.0, -1.0, 1.0]).reshape(_SHAPE)
        grid = np.linspace(-2, 2, 21)
        found = landscape_figures.loss_surface(
            _logits_fn(), image, 0, (along, across), grid, 0.05
        )
        self.assertEqual(found.shape, (21, 21))
        # Rows are r, columns a.
        moved = image + 0.05 * (
            np.multiply.outer(grid, across)[:, None]
            + np.multiply.outer(grid, along)[None]
        )
        scores = np.tensordot(moved, _WEIGHTS, 3)
        self.assertAllClose(found, np.log1p(np.exp(scores)), 1e-5, 1e-6)

    def test_what_leaves_the_box_is_clipped(self):
        image = np.ones(_SHAPE, np.float32)
        ones = np.ones(_SHAPE, np.float32)
        grid = np.array([0.0, 1.0])
        found = landscape_figures.loss_surface(
            _logits_fn(), image, 0, (ones, ones), grid, 0.5
        )
        self.assertAllClose(found, np.full((2, 2), found[0, 0]))


class SurfaceFigureTest(tf.test.TestCase):
    def setUp(self):
        super().setUp()
        names = tuple("abcde")
        self.networks = [
            networks.Network(
                title, toys.small_classifier(seed), "features", names
            )
            for seed, title in enumerate(("Standard", "ATAT"))
        ]
        pixels = (255 * toys.random_images(1)[0].numpy()).astype(np.uint8)
        self.shown = [pictures.Picture("test image 3", 3, "c", pixels)]

    def _figure(self, extent=2.0, resolution=5):
        return landscape_figures.surface(
            self.networks, self.shown, 0.1, extent, resolution, 4, "caption"
        )

    def test_numbers_are_the_losses_and_are_what_is_drawn(self):
        figure, rows = self._figure()
        self.assertLen(rows, 2 * 5 * 5)
        middle = [
            row["cross_entropy"]
            for row in rows
            if row["sign_gradient"] == row["rademacher"] == 0
        ]
        image = tf.constant(self.shown[0].pixels[None] / np.float32(255))
        for loss, network in zip(middle, self.networks, strict=True):
            logits = network.classifier(image, training=False)
            self.assertAllClose(
                loss, -tf.nn.log_softmax(logits)[0, 2], 1e-5, 1e-5
            )
        losses = [row["cross_entropy"] for row in rows]
        # The same heights and the same camera for both, above a floor.
        first, second = figure.axes
        self.assertEqual(first.get_zlim(), second.get_zlim())
        self.assertEqual((first.elev, first.azim), (second.elev, second.azim))
        floor, highest = first.get_zlim()
        self.assertAllClose(highest, max(losses))
        self.assertLess(floor, min(losses))
        square, _ = first.lines
        x, y, z = square.get_data_3d()
        self.assertEqual((max(x), min(y), set(z)), (1, -1, {floor}))

    def test_refusals(self):
        for arguments, message in (
            ({"extent": 0.0}, "extent > 0"),
            ({"resolution": 4}, "odd resolution"),
            ({"resolution": 1}, "odd resolution"),
        ):
            with self.assertRaisesRegex(InputError, message):
                self._figure(**arguments)
