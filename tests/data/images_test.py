"""The reader of image files, and heat maps."""

import base64
import io
import pathlib
import tempfile

import numpy as np
from absl.testing import absltest, parameterized
from PIL import Image

from atat_tf.data import images as image_files
from atat_tf.errors import InputError
from tests.support import pictures

_SHAPE = (8, 8, 3)


class LoadTest(parameterized.TestCase):
    def setUp(self):
        super().setUp()
        folder = self.enterContext(tempfile.TemporaryDirectory())
        self.folder = pathlib.Path(folder)

    def _saved(self, image, name="a.png", **arguments):
        image.save(self.folder / name, **arguments)
        return self.folder / name

    @parameterized.parameters(".png", ".bmp", ".gif", ".webp")
    def test_every_format_by_hand(self, suffix):
        # Upper half red, lower half blue: stretched, they stay halves.
        pixels = np.zeros((16, 40, 3), np.uint8)
        pixels[:8, :, 0], pixels[8:, :, 2] = 255, 255
        path = self._saved(
            Image.fromarray(pixels),
            f"a{suffix}",
            **({"lossless": True} if suffix == ".webp" else {}),
        )
        loaded = image_files.load(path, (4, 6, 3))
        np.testing.assert_array_equal(loaded[0], np.tile([255, 0, 0], (6, 1)))
        np.testing.assert_array_equal(loaded[3], np.tile([0, 0, 255], (6, 1)))

    def test_a_file_of_the_size_is_its_own_pixels(self):
        pixels = pictures.picture(*_SHAPE)
        path = self._saved(Image.fromarray(pixels))
        np.testing.assert_array_equal(image_files.load(path, _SHAPE), pixels)

    @parameterized.parameters(
        ("text.png", b"no image", "whole image file.*'.*text.png' \\("),
        ("none.png", None, "whole image file.*No such file"),
        ("torn.png", slice(60), "whole image file.*torn.png"),
        ("torn.jpg", slice(-40), "whole image file.*torn.jpg"),
    )
    def test_refusals(self, name, content, message):
        path = self.folder / name
        if isinstance(content, slice):
            self._saved(Image.fromarray(pictures.picture(64, 64)), name)
            content = path.read_bytes()[content]
        if content:
            path.write_bytes(content)
        with self.assertRaisesRegex(InputError, message) as caught:
            image_files.load(path, _SHAPE)
        self.assertNotIn("\n", str(caught.exception))

    def test_too_large_and_other_channels_are_refused(self):
        # One bit a pixel: a small file of 2^26 + 2^13 pixels.
        path = self._saved(Image.new("1", (2**13 + 1, 2**13)))
        with self.assertRaisesRegex(InputError, "67108864.*8193 x 8192"):
            image_files.load(path, _SHAPE)
        with self.assertRaisesRegex(InputError, "gray or RGB.*channels=4"):
            image_files.load(path, (8, 8, 4))

    def test_find_takes_the_images_of_a_folder_in_order(self):
        for name in ("b.png", "a.JPG", "c.txt"):
            (self.folder / name).write_bytes(b"")
        files = image_files.find([self.folder, str(self.folder / "c.txt")])
        self.assertEqual(
            [path.name for path in files], ["a.JPG", "b.png", "c.txt"]
        )
        with self.assertRaisesRegex(InputError, "image file or folder.*nope"):
            image_files.find([self.folder / "nope"])
        (self.folder / "inner").mkdir()
        with self.assertRaisesRegex(InputError, "which has none"):
            image_files.find([self.folder / "inner"])


class HeatMapsTest(absltest.TestCase):
    def test_from_violet_to_yellow_and_ever_lighter(self):
        colours = image_files.coloured(np.linspace(0, 1, 32)).astype(int)
        np.testing.assert_array_equal(colours[0], [68, 1, 84])
        np.testing.assert_array_equal(colours[-1], [253, 231, 37])
        # ITU-R BT.601: what is left of a colour in grey.
        grey = colours @ [299, 587, 114]
        self.assertTrue(np.all(np.diff(grey) > 0))

    def test_a_map_covers_the_grey_of_the_image(self):
        # The grey of [200, 100, 0] is 0.299 · 200 + 0.587 · 100 = 118.5.
        image = np.full((4, 4, 3), [200, 100, 0], np.uint8)
        for highest in (1.0, 3.0):  # a map is divided by its maximum
            covered = image_files.overlaid(image, np.full((2, 2), highest))
            expected = 0.15 * 118.5 + 0.85 * np.array([253, 231, 37])
            np.testing.assert_allclose(covered[1, 2], expected, atol=1)

    def test_an_empty_map_hides_nothing(self):
        image = np.full((4, 4, 3), [200, 100, 0], np.uint8)
        covered = image_files.overlaid(image, np.zeros((2, 2)))
        np.testing.assert_allclose(covered, np.full((4, 4, 3), 118), atol=1)

    def test_a_map_is_enlarged_bilinearly_between_its_centres(self):
        image = np.zeros((1, 4, 3), np.uint8)
        covered = image_files.overlaid(image, np.array([[0.0, 8.0]]))
        # Centres of two cells among four: −0.25, 0.25, 0.75, 1.25.
        shares = np.array([0, 0.25, 0.75, 1])
        colours = 0.85 * shares[:, np.newaxis] * image_files.coloured(shares)
        np.testing.assert_allclose(covered[0], colours, atol=1)

    def test_a_map_keeps_its_place_on_a_gray_image(self):
        image = np.zeros((8, 8, 1), np.uint8)
        covered = image_files.overlaid(image, np.array([[0, 1], [0, 0]]))
        self.assertEqual(covered.shape, (8, 8, 3))
        brightest = np.argmax(covered[..., 1])
        row, column = np.unravel_index(brightest, (8, 8))
        self.assertLess(row, 4)
        self.assertGreaterEqual(column, 4)

    def test_png_files_hold_the_pixels(self):
        for channels in (1, 3):
            pixels = pictures.picture(5, 7, channels)
            kind, _, text = image_files.data_uri(pixels).partition(",")
            self.assertEqual(kind, "data:image/png;base64")
            image = Image.open(io.BytesIO(base64.b64decode(text)))
            read = np.asarray(image).reshape(pixels.shape)
            np.testing.assert_array_equal(read, pixels)
