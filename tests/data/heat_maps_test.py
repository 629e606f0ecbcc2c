"""Colours of attention maps."""

import base64
import io

import numpy as np
from absl.testing import absltest
from PIL import Image

from atat_tf.data import images as image_files


class HeatMapsTest(absltest.TestCase):
    def test_from_violet_to_yellow_and_ever_lighter(self):
        colours = image_files.coloured(np.linspace(0, 1, 32)).astype(int)
        np.testing.assert_array_equal(colours[0], [68, 1, 84])
        np.testing.assert_array_equal(colours[-1], [253, 231, 37])
        # ITU-R BT.601: what is left of a colour in grey.
        grey = colours @ [299, 587, 114]
        self.assertTrue(np.all(np.diff(grey) > 0))

    def test_a_map_covers_three_fifths(self):
        image = np.full((4, 4, 3), 100, np.uint8)
        covered = image_files.overlaid(image, np.ones((2, 2)))
        expected = np.rint(0.4 * 100 + 0.6 * np.array([253, 231, 37]))
        np.testing.assert_array_equal(covered[1, 2], expected)

    def test_a_map_keeps_its_place_on_a_gray_image(self):
        image = np.zeros((8, 8, 1), np.uint8)
        covered = image_files.overlaid(image, np.array([[0, 1], [0, 0]]))
        self.assertEqual(covered.shape, (8, 8, 3))
        brightest = np.argmax(covered[..., 1])
        row, column = np.unravel_index(brightest, (8, 8))
        self.assertLess(row, 4)
        self.assertGreaterEqual(column, 4)

    def test_png_files_hold_the_pixels(self):
        generator = np.random.default_rng(0)
        for channels in (1, 3):
            pixels = generator.integers(0, 256, (5, 7, channels), np.uint8)
            kind, _, text = image_files.data_uri(pixels).partition(",")
            self.assertEqual(kind, "data:image/png;base64")
            image = Image.open(io.BytesIO(base64.b64decode(text)))
            read = np.asarray(image).reshape(pixels.shape)
            np.testing.assert_array_equal(read, pixels)


if __name__ == "__main__":
    absltest.main()
