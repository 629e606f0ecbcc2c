"""What is drawn, as the arrays that the axes hold."""

import io

import numpy as np
from absl.testing import absltest

from atat_tf.data import images as image_files
from atat_tf.reports.figures import drawing


def _image(seed=0, side=4):
    generator = np.random.default_rng(seed)
    return generator.integers(0, 256, (side, side, 3), np.uint8)


class PictureGridTest(absltest.TestCase):
    def setUp(self):
        super().setUp()
        self.attention = np.array([[0.0, 1.0], [2.0, 3.0]])
        rows = [
            [
                drawing.Panel(_image(row), text=f"image {row}"),
                drawing.Panel(
                    _image(row), self.attention, "✓ cat", True, "untrained"
                ),
            ]
            for row in range(2)
        ]
        self.figure = drawing.picture_grid(
            rows, ["image", "attention"], "title", "a caption", ["a", "b"]
        )

    def test_axes_hold_the_images_and_the_maps_over_them(self):
        axes = self.figure.axes
        self.assertLen(axes, 4)
        for row in range(2):
            (plain,) = axes[2 * row].images
            np.testing.assert_array_equal(plain.get_array(), _image(row))
            (covered,) = axes[2 * row + 1].images
            large = _image(row).repeat(48, 0).repeat(48, 1)  # of 192 pixels
            np.testing.assert_array_equal(
                covered.get_array(), image_files.overlaid(large, self.attention)
            )

    def test_words(self):
        axes = self.figure.axes
        self.assertEqual(axes[0].get_title(), "image")
        self.assertEqual(axes[1].get_title(), "attention")
        self.assertEqual(axes[2].get_ylabel(), "b")
        self.assertEqual(axes[3].get_xlabel(), "✓ cat")
        self.assertEqual(axes[3].texts[0].get_text(), "untrained")
        self.assertEmpty(axes[2].texts)
        self.assertEqual(self.figure.get_suptitle(), "title")
        self.assertEqual(self.figure.get_supxlabel(), "a caption")

    def test_a_dollar_in_a_name_begins_no_formula(self):
        panel = drawing.Panel(_image(), text="$5 to $10")
        figure = drawing.picture_grid(
            [[panel]], ["a$_$b"], "a$_$b", "a$_$b", ["a$_$b"]
        )
        figure.savefig(io.BytesIO(), format="svg")
        self.assertFalse(figure.axes[0].xaxis.label.get_parse_math())

    def test_a_line_is_drawn_at_half_of_the_maximum_of_a_map(self):
        empty = drawing.Panel(_image(), np.zeros((2, 2)))
        full = drawing.Panel(_image(), self.attention)
        figure = drawing.picture_grid([[empty, full]], ["", ""], "", "")
        without, with_line = (axes.collections for axes in figure.axes)
        self.assertEmpty(without)
        (points,) = with_line[0].get_paths()
        large = image_files.enlarged(self.attention, 192, 192)
        for x, y in points.vertices:
            self.assertAlmostEqual(large[round(y), round(x)], 0.5, delta=0.02)

    def test_right_and_wrong_differ_in_colour(self):
        panels = [
            drawing.Panel(_image(), text="x", is_right=is_right)
            for is_right in (True, False, None)
        ]
        figure = drawing.picture_grid([panels], ["", "", ""], "", "")
        colours = {axes.xaxis.label.get_color() for axes in figure.axes}
        self.assertLen(colours, 3)

    def test_nothing_overlaps_or_is_clipped(self):
        self.figure.draw_without_rendering()
        width, height = self.figure.canvas.get_width_height()
        boxes = [axes.get_tightbbox() for axes in self.figure.axes]
        for i, box in enumerate(boxes):
            self.assertTrue(0 <= box.x0 and box.x1 <= width, box)
            self.assertTrue(0 <= box.y0 and box.y1 <= height, box)
            for other in boxes[:i]:
                self.assertFalse(box.overlaps(other), (box, other))
