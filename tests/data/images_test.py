"""Image files of every mode and size, and the sentences about bad ones."""

import pathlib
import tempfile

import numpy as np
from absl.testing import absltest, parameterized
from PIL import Image

from atat_tf.data import images as image_files
from atat_tf.errors import InputError

_SHAPE = (8, 8, 3)


class ImageFilesTest(parameterized.TestCase):
    def setUp(self):
        super().setUp()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def _saved(self, image, name="a.png", **arguments):
        image.save(self.folder / name, **arguments)
        return self.folder / name

    def test_pixels_of_a_file_of_the_size_are_the_files(self):
        pixels = np.random.default_rng(0).integers(0, 256, _SHAPE, np.uint8)
        path = self._saved(Image.fromarray(pixels))
        np.testing.assert_array_equal(image_files.load(path, _SHAPE), pixels)

    def test_gray_becomes_three_equal_colours_and_rgb_one_gray(self):
        gray = np.arange(64, dtype=np.uint8).reshape(8, 8)
        path = self._saved(Image.fromarray(gray))
        loaded = image_files.load(path, _SHAPE)
        for channel in range(3):
            np.testing.assert_array_equal(loaded[..., channel], gray)
        np.testing.assert_array_equal(
            image_files.load(path, (8, 8, 1))[..., 0], gray
        )

    def test_what_is_transparent_lies_over_white(self):
        # Red at opacity 0, 255 and 51 (a fifth).
        pixels = np.zeros((8, 8, 4), np.uint8)
        pixels[..., 0] = 200
        pixels[:, 2:, 3] = 255
        pixels[:, 5:, 3] = 51
        loaded = image_files.load(self._saved(Image.fromarray(pixels)), _SHAPE)
        np.testing.assert_array_equal(loaded[0, 0], [255, 255, 255])
        np.testing.assert_array_equal(loaded[0, 3], [200, 0, 0])
        np.testing.assert_array_equal(loaded[0, 6], [244, 204, 204])

    def test_a_palette_with_a_transparent_colour(self):
        image = Image.new("P", (8, 8), 1)
        image.putpalette([255, 0, 0, 0, 0, 255])
        image.putpixel((0, 0), 0)
        path = self._saved(image, transparency=0)
        loaded = image_files.load(path, _SHAPE)
        np.testing.assert_array_equal(loaded[0, 0], [255, 255, 255])
        np.testing.assert_array_equal(loaded[0, 1], [0, 0, 255])

    def test_the_high_byte_of_16_bits(self):
        deep = np.full((8, 8), 0x7F01, np.uint16)
        loaded = image_files.load(self._saved(Image.fromarray(deep)), _SHAPE)
        np.testing.assert_array_equal(loaded, np.full(_SHAPE, 0x7F))

    def test_a_noted_rotation_is_carried_out(self):
        pixels = np.zeros(_SHAPE, np.uint8)
        pixels[0] = 255  # white above; orientation 6 turns it to the right
        exif = Image.Exif()
        exif[0x0112] = 6
        path = self._saved(Image.fromarray(pixels), exif=exif)
        loaded = image_files.load(path, _SHAPE)
        np.testing.assert_array_equal(loaded[:, -1], 255)
        np.testing.assert_array_equal(loaded[:, :-1], 0)

    def test_the_middle_of_an_oblong_image(self):
        # 16 × 64: the middle 16 columns, of which pairs become one. The
        # triangle of weights reaches one column further at both ends.
        pixels = np.zeros((16, 64, 3), np.uint8)
        pixels[:, 24:32], pixels[:, 32:40] = 100, 200
        loaded = image_files.load(self._saved(Image.fromarray(pixels)), _SHAPE)
        np.testing.assert_array_equal(loaded[:, 1:3], 100)
        np.testing.assert_array_equal(loaded[:, 5:7], 200)

    @parameterized.parameters((9, 31), (100, 17), (8, 8))
    def test_odd_sizes(self, width, height):
        path = self._saved(Image.new("RGB", (width, height), (10, 20, 30)))
        loaded = image_files.load(path, (12, 10, 3))
        np.testing.assert_array_equal(
            loaded, np.broadcast_to([10, 20, 30], (12, 10, 3))
        )

    def test_refusals(self):
        (self.folder / "text.png").write_text("no image")
        whole = self._saved(Image.new("RGB", (64, 64)), "whole.png")
        torn = self.folder / "torn.png"
        torn.write_bytes(whole.read_bytes()[:60])
        small = self._saved(Image.new("RGB", (3, 40)), "small.png")
        for path, message in (
            (self.folder / "text.png", "whole image file.*'.*text.png' \\("),
            (torn, "whole image file.*torn.png"),
            (small, "at least 8 pixels a side.*of 3 x 40"),
            (self.folder / "none.png", "whole image file.*No such file"),
        ):
            with self.assertRaisesRegex(InputError, message) as caught:
                image_files.load(path, _SHAPE)
            self.assertNotIn("\n", str(caught.exception))
        with self.assertRaisesRegex(InputError, "gray or RGB.*channels=4"):
            image_files.load(whole, (8, 8, 4))

    def test_find_takes_the_images_of_a_folder_in_order(self):
        for name in ("b.png", "a.JPG", "c.txt"):
            (self.folder / name).write_bytes(b"")
        named = self.folder / "c.txt"
        found = image_files.find([self.folder, str(named)])
        self.assertEqual(
            [path.name for path in found], ["a.JPG", "b.png", "c.txt"]
        )

    def test_find_refuses_what_is_not_there_and_folders_without_images(self):
        with self.assertRaisesRegex(InputError, "image file or folder.*nope"):
            image_files.find([self.folder / "nope"])
        with self.assertRaisesRegex(InputError, "which has none"):
            image_files.find([self.folder])


if __name__ == "__main__":
    absltest.main()
