"""The client's image reading beside the project's own, and its pictures."""

import pathlib
import struct
import tempfile
import zlib

import numpy as np
from absl.testing import absltest, parameterized
from PIL import Image

from atat_tf.data import images as image_files
from serving.client import InvalidArgument, images


def _picture(height=21, width=37, channels=3):
    """Returns uint8 [h, w, channels]: a smooth picture with some noise."""
    y, x, c = np.mgrid[:height, :width, :channels]
    noise = np.random.default_rng(0).normal(0, 12, y.shape)
    waves = 127 + 100 * np.sin(x / 5 + c) * np.cos(y / 7)
    return (waves + noise).clip(0, 255).astype(np.uint8)


def _with_transparent_colour():
    image = Image.fromarray(_picture()).quantize(17)
    image.info["transparency"] = 3
    return image


def _turned():
    image = Image.fromarray(_picture())
    image.getexif()[0x0112] = 6  # orientation: turned by a quarter
    return image


def _png_header(*size):
    """Returns a PNG file of (width, height) that ends before its pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", *size, 8, 2, 0, 0, 0)
    checksum = struct.pack(">I", zlib.crc32(header))
    head = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + checksum
    return head + struct.pack(">I", 9) + b"IDAT"


# Name of a file, and the image in it.
_KINDS = {
    "rgb.png": lambda: Image.fromarray(_picture()),
    "tall.jpg": lambda: Image.fromarray(_picture(53, 9)),
    "large.webp": lambda: Image.fromarray(_picture(301, 467)),
    "turned.jpg": _turned,
    "gray.png": lambda: Image.fromarray(_picture()).convert("L"),
    "gray_alpha.png": lambda: Image.fromarray(_picture(channels=2), "LA"),
    "alpha.png": lambda: Image.fromarray(_picture(channels=4)),
    "palette.png": lambda: Image.fromarray(_picture()).quantize(17),
    "transparent_colour.png": _with_transparent_colour,
    "bits.png": lambda: Image.fromarray(_picture()).convert("1"),
    "deep.png": lambda: Image.fromarray(
        _picture(channels=1)[..., 0].astype(np.uint16) * 257
    ),
    "ink.jpg": lambda: Image.fromarray(_picture()).convert("CMYK"),
    "film.gif": lambda: Image.fromarray(_picture()),
    "small.bmp": lambda: Image.fromarray(_picture(8, 8)),
}


class LoadTest(parameterized.TestCase):
    def setUp(self):
        super().setUp()
        folder = self.enterContext(tempfile.TemporaryDirectory())
        self.folder = pathlib.Path(folder)

    @parameterized.product(
        name=list(_KINDS), image_shape=[(16, 16, 3), (21, 37, 3), (30, 9, 1)]
    )
    def test_pixels_are_those_of_the_projects_reader(self, name, image_shape):
        image = _KINDS[name]()
        image.save(self.folder / name, exif=image.getexif())
        pixels = images.load(self.folder / name, image_shape)
        self.assertEqual(pixels.dtype, np.float32)
        trained = image_files.load(self.folder / name, image_shape)
        self.assertGreater(np.ptp(trained), 4)
        np.testing.assert_array_equal(pixels, trained / np.float32(255))

    def test_both_read_the_same_formats(self):
        self.assertEqual(images.SUFFIXES, image_files.SUFFIXES)
        self.assertEqual(images.MAX_PIXELS, image_files.MAX_PIXELS)

    @parameterized.parameters(
        (None, "'.*cat.png' .*No such file"),
        (b"no image", "whole image file .*'.*cat.png' .*identify"),
        (_png_header(9, 9), "whole image file .*'.*cat.png'"),
        (
            _png_header(2**13 + 1, 2**13),
            "at most 67108864 pixels. Received: .* 8193 x 8192",
        ),
        # Pillow warns about a size from 2**26.4, and refuses one from 2**27.4.
        (_png_header(2**13, 12000), "at most 67108864 pixels"),
        (_png_header(2**31 - 1, 2**31 - 1), "limit"),
    )
    def test_what_cannot_be_read(self, content, pattern):
        path = self.folder / "cat.png"
        if content:
            path.write_bytes(content)
        with (
            self.assertNoLogs(),
            self.assertRaisesRegex(InvalidArgument, pattern),
        ):
            images.load(path, (8, 8, 3))

    def test_cut_short(self):
        for name in ("cat.png", "cat.jpg"):
            path = self.folder / name
            Image.fromarray(_picture()).save(path)
            path.write_bytes(path.read_bytes()[:-40])
            with self.assertRaisesRegex(InvalidArgument, "whole image file"):
                images.load(path, (8, 8, 3))

    def test_model_of_other_channels(self):
        with self.assertRaisesRegex(InvalidArgument, "gray or RGB.*13"):
            images.load(self.folder, (8, 8, 13))


class PicturesTest(parameterized.TestCase):
    @parameterized.parameters(
        ((32, 32, 3), 8), ((30, 100, 1), 3), ((300, 200, 3), 1)
    )
    def test_overlay_is_the_projects_own_enlarged(self, shape, scale):
        attention = np.random.default_rng(0).random((4, 4))
        pixels = _picture(*shape)
        picture = images.overlay(pixels / 255, attention)
        left, right = np.split(picture, 2, axis=1)
        enlarged = pixels.repeat(scale, 0).repeat(scale, 1)
        np.testing.assert_array_equal(
            left, np.broadcast_to(enlarged, left.shape)
        )
        expected = image_files.overlaid(enlarged, attention)
        np.testing.assert_allclose(right, expected.astype(int), atol=4)

    def test_text_map_by_hand(self):
        attention = [[0.0, 0.25], [0.45, 0.65], [0.99, 1.0]]
        self.assertEqual(images.text_map(attention), ["··░░", "▒▒▓▓", "████"])
        self.assertEqual(
            images.text_map(attention, images.ASCII), ["..::", "++##", "@@@@"]
        )
        self.assertEqual(images.text_map([[np.nan, np.inf]]), ["··██"])

    def test_text_map_of_a_fine_map_is_small(self):
        attention = np.zeros((64, 32))
        attention[:32] = 1
        lines = images.text_map(attention)
        self.assertEqual([len(line) for line in lines], [16] * 16)
        self.assertEqual((lines[0], lines[-1]), ("█" * 16, "·" * 16))


if __name__ == "__main__":
    absltest.main()
