"""What is drawn, as the arrays that the axes hold."""

import numpy as np
from absl.testing import absltest, parameterized

from atat_tf.reports.figures import drawing


def _image(seed=0, side=4):
    return np.random.default_rng(seed).uniform(size=(side, side, 3))


class OverlayTest(parameterized.TestCase):
    def test_is_gray_under_the_colour_of_the_share(self):
        image = np.full((2, 2, 3), 0.5)
        image[0, 0] = [1.0, 0.0, 0.0]
        drawn = drawing.overlay(image, np.array([[3.0]]))
        self.assertEqual(drawn.shape, (192, 192, 3))
        # The one place is the maximum: all of it is viridis' last colour.
        yellow = np.array(drawing.COLOURS(1.0)[:3])
        opacity = drawing.OPACITY
        np.testing.assert_allclose(
            drawn[0, 0], (1 - opacity) * 0.299 + opacity * yellow
        )
        np.testing.assert_allclose(
            drawn[-1, -1], (1 - opacity) * 0.5 + opacity * yellow
        )

    def test_an_empty_map_is_all_of_the_lowest_colour(self):
        drawn = drawing.overlay(np.zeros((8, 8, 3)), np.zeros((2, 2)))
        low = np.array(drawing.COLOURS(0.0)[:3])
        np.testing.assert_allclose(
            drawn, np.broadcast_to(drawing.OPACITY * low, drawn.shape)
        )

    def test_uint8_and_gray_images_are_drawn_alike(self):
        gray = np.array([[[51], [102]]], np.uint8)
        np.testing.assert_allclose(
            drawing.as_rgb(gray), [[[0.2] * 3, [0.4] * 3]]
        )

    def test_enlarged_is_bilinear_between_centres(self):
        # Centres of two places among four: −0.25, 0.25, 0.75, 1.25.
        enlarged = drawing.enlarged(np.array([[0.0, 8.0]]), 1, 4)
        np.testing.assert_allclose(enlarged, [[0, 2, 6, 8]])
        twice = drawing.enlarged(np.array([[0.0, 8.0], [4.0, 12.0]]), 4, 4)
        np.testing.assert_allclose(twice[:, 0], [0, 1, 3, 4])
        np.testing.assert_allclose(twice[3], [4, 6, 10, 12])

    def test_scaled(self):
        np.testing.assert_allclose(drawing.scaled([[1.0, 4.0]]), [[0.25, 1.0]])


class PictureGridTest(absltest.TestCase):
    def setUp(self):
        super().setUp()
        self.attention = np.array([[0.0, 1.0], [2.0, 3.0]])
        rows = [
            [
                drawing.Panel(_image(row), text=f"image {row}"),
                drawing.Panel(
                    _image(row), self.attention, "cat ✓", "untrained"
                ),
            ]
            for row in range(2)
        ]
        self.figure = drawing.picture_grid(
            rows, ["image", "attention"], "title", "command\nseed 0", ["a", "b"]
        )

    def test_axes_hold_the_images_and_the_maps_over_them(self):
        axes = self.figure.axes
        self.assertLen(axes, 5)  # four panels and the colour bar
        for row in range(2):
            (plain,) = axes[2 * row].images
            np.testing.assert_allclose(plain.get_array(), _image(row))
            (covered,) = axes[2 * row + 1].images
            np.testing.assert_allclose(
                covered.get_array(),
                drawing.overlay(_image(row), self.attention),
            )

    def test_words(self):
        axes = self.figure.axes
        self.assertEqual(axes[0].get_title(), "image")
        self.assertEqual(axes[1].get_title(), "attention")
        self.assertEqual(axes[2].get_ylabel(), "b")
        self.assertEqual(axes[3].get_xlabel(), "cat ✓")
        self.assertEqual(axes[3].texts[0].get_text(), "untrained")
        self.assertEmpty(axes[2].texts)
        self.assertIn("maximum", axes[4].get_ylabel())
        self.assertEqual(self.figure.get_suptitle(), "title")
        self.assertEqual(self.figure.get_supxlabel(), "command\nseed 0")

    def test_nothing_overlaps_or_is_clipped(self):
        self.figure.draw_without_rendering()
        width, height = self.figure.canvas.get_width_height()
        boxes = [axes.get_tightbbox() for axes in self.figure.axes]
        for box in boxes:
            self.assertBetween(box.x0, 0, width)
            self.assertBetween(box.x1, 0, width)
            self.assertBetween(box.y0, 0, height)
            self.assertBetween(box.y1, 0, height)
        for i, first in enumerate(boxes):
            for second in boxes[:i]:
                self.assertFalse(first.overlaps(second), (first, second))


class LandscapeTest(absltest.TestCase):
    def test_an_image_has_one_z_axis_over_the_models(self):
        generator = np.random.default_rng(0)
        surfaces = generator.uniform(0, [[[[1.0]]], [[[9.0]]]], (2, 1, 5, 5))
        figure = drawing.loss_surfaces(
            surfaces,
            np.linspace(-2, 2, 5),
            (["raw", "ATAT"], ["test image 0 (cat)"]),
            "title",
            "command",
        )
        first, flat_first, second, flat_second, _ = figure.axes
        limits = surfaces.min(), surfaces.max()
        for axes, title in ((first, "raw"), (second, "ATAT")):
            np.testing.assert_allclose(axes.get_zlim(), limits)
            self.assertEqual(
                axes.get_title(), f"{title}, test image 0 (cat)\ncross-entropy"
            )
        for axes in (flat_first, flat_second):
            np.testing.assert_allclose(axes.collections[0].get_clim(), limits)
            self.assertEqual(axes.get_xlim(), (-2, 2))
            self.assertIn("ε", axes.get_xlabel())

    def test_curves_in_percent_all_and_the_first_steps(self):
        shares = {"AT": [0.9, 0.5, 0.4, 0.3], "ATAT": [0.8, 0.6, 0.5, 0.5]}
        figure = drawing.accuracy_curves(shares, 2, "title", "command")
        whole, zoom = figure.axes
        for axes, last in ((whole, 3), (zoom, 2)):
            for line, values in zip(axes.lines, shares.values(), strict=True):
                np.testing.assert_array_equal(
                    line.get_xdata(), np.arange(1, last + 1)
                )
                np.testing.assert_allclose(
                    line.get_ydata(), 100 * np.array(values[1 : last + 1])
                )
            names = [t.get_text() for t in axes.get_legend().get_texts()]
            self.assertEqual(names, ["AT", "ATAT"])


if __name__ == "__main__":
    absltest.main()
