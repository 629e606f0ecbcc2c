"""The client's image reading, against TensorFlow's own, and its pictures."""

import io
import pathlib
import struct
import tempfile
import zlib

import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized
from PIL import Image, PngImagePlugin

from serving.client import images

_WIDTH, _HEIGHT = 37, 21
_ADAM7 = [
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
]


def _chunk(kind, content):
    checksum = zlib.crc32(kind + content)
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", checksum)
    )


def _png(depth, colour, channels, extra=b"", interlaced=False):
    """Returns a PNG file of random samples, built byte by byte."""
    random = np.random.default_rng(0)
    rows = b""
    # Left, top and distance to the next column and row of each pass.
    for x, y, dx, dy in _ADAM7 if interlaced else [(0, 0, 1, 1)]:
        width = len(range(x, _WIDTH, dx))
        line = (width * depth * channels + 7) // 8
        for _ in range(y, _HEIGHT, dy):
            rows += b"\0" + random.bytes(line)
    header = struct.pack(
        ">IIBBBBB", _WIDTH, _HEIGHT, depth, colour, 0, 0, interlaced
    )
    return (
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", header)
        + extra
        + _chunk(b"IDAT", zlib.compress(rows))
        + _chunk(b"IEND", b"")
    )


def _header_only(width, height):
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", header)
        + _chunk(b"IDAT", zlib.compress(b"\0"))
        + _chunk(b"IEND", b"")
    )


def _picture(height, width, seed=0):
    """Returns uint8 [h, w, 3]: a smooth picture with some noise."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    waves = np.stack(
        [np.sin(x / 5), np.cos(y / 7), np.sin((x + y) / 3)], axis=-1
    )
    noise = random.normal(0, 12, waves.shape)
    return (127 + 100 * waves + noise).clip(0, 255).astype(np.uint8)


def _saved(pixels, file_format, **options):
    file = io.BytesIO()
    image = Image.fromarray(pixels)
    mode = options.pop("mode", image.mode)
    image.convert(mode).save(file, file_format, **options)
    return file.getvalue()


def _tensorflow_jpeg(data):
    return tf.io.decode_jpeg(
        data,
        channels=3,
        dct_method="INTEGER_ACCURATE",
        fancy_upscaling=True,
    ).numpy()


def _tensorflow_loaded(data, image_shape):
    """Returns what the graph makes of a PNG file."""
    image = tf.cast(tf.io.decode_png(data, channels=3), tf.float32) / 255.0
    if image_shape[2] == 1:
        image = tf.image.rgb_to_grayscale(image)
    return tf.image.resize(image, image_shape[:2], antialias=True).numpy()


class DecodeTest(parameterized.TestCase):
    @parameterized.product(
        kind=[
            (0, 1, None),
            (0, 1, b"\0\1"),  # one gray is transparent
            (2, 3, None),
            (2, 3, b"\0\1\0\2\0\3"),  # one colour is
            (4, 2, None),
            (6, 4, None),
        ],
        depth=[8, 16],
        interlaced=[False, True],
    )
    def test_png_equals_tensorflow(self, kind, depth, interlaced):
        colour, channels, key = kind
        extra = _chunk(b"tRNS", key) if key else b""
        data = _png(depth, colour, channels, extra, interlaced)
        pixels = images.decode(data)
        self.assertEqual(pixels.dtype, np.uint8)
        np.testing.assert_array_equal(
            pixels, tf.io.decode_png(data, channels=3).numpy()
        )

    @parameterized.parameters(1, 2, 4)
    def test_png_of_few_grays_equals_tensorflow(self, depth):
        data = _png(depth, 0, 1)
        pixels = images.decode(data)
        self.assertEqual(pixels.max(), 255)
        np.testing.assert_array_equal(
            pixels, tf.io.decode_png(data, channels=3).numpy()
        )

    @parameterized.product(depth=[1, 2, 4, 8], transparent=[False, True])
    def test_png_with_palette_equals_tensorflow(self, depth, transparent):
        # One colour fewer than there are indices: the last one is missing.
        colours = np.random.default_rng(1).bytes(3 * (2**depth - 1))
        extra = _chunk(b"PLTE", colours)
        if transparent:
            extra += _chunk(b"tRNS", b"\x40")
        data = _png(depth, 3, 1, extra)
        np.testing.assert_array_equal(
            images.decode(data), tf.io.decode_png(data, channels=3).numpy()
        )

    def test_text_and_profiles_change_nothing(self):
        info = PngImagePlugin.PngInfo()
        # More text, once inflated, than Pillow reads without protest.
        info.add_text("comment", "x" * 2**21, zip=True)
        pixels = _picture(9, 11)
        data = _saved(pixels, "PNG", pnginfo=info, icc_profile=b"broken")
        np.testing.assert_array_equal(images.decode(data), pixels)

    @parameterized.product(
        options=[
            {},
            {"progressive": True},
            {"subsampling": "4:4:4", "quality": 95},
            {"subsampling": "4:2:2"},
            {"subsampling": "4:2:0"},
            {"subsampling": "4:2:0", "quality": 10, "progressive": True},
        ],
        mode=["RGB", "L", "CMYK"],
        size=[(37, 53), (8, 8), (1, 3)],
    )
    def test_jpeg_equals_tensorflow(self, options, mode, size):
        data = _saved(_picture(*size), "JPEG", mode=mode, **options)
        np.testing.assert_array_equal(
            images.decode(data), _tensorflow_jpeg(data)
        )

    def test_ink_jpeg_without_adobe_marker_equals_tensorflow(self):
        data = _saved(_picture(16, 16), "JPEG", mode="CMYK")
        start = data.index(b"\xff\xee")
        length = int.from_bytes(data[start + 2 : start + 4], "big") + 2
        data = data[:start] + data[start + length :]
        np.testing.assert_array_equal(
            images.decode(data), _tensorflow_jpeg(data)
        )

    def test_noted_rotation_is_not_carried_out(self):
        exif = Image.Exif()
        exif[0x0112] = 6  # orientation: turned by a quarter
        data = _saved(_picture(8, 16), "JPEG", exif=exif)
        self.assertEqual(images.decode(data).shape, (8, 16, 3))
        np.testing.assert_array_equal(
            images.decode(data), _tensorflow_jpeg(data)
        )

    def test_broken_files_are_refused_where_tensorflow_refuses_them(self):
        random = np.random.default_rng(2)
        refused = 0
        for whole in (
            _saved(_picture(24, 24), "PNG"),
            _saved(_picture(24, 24), "JPEG"),
        ):
            for _ in range(150):
                data = bytearray(whole)
                data[random.integers(8, len(data))] = random.integers(256)
                if random.random() < 0.3:
                    del data[random.integers(8, len(data)) :]
                refused += self._assert_same_answer(bytes(data))
        self.assertBetween(refused, 30, 290)

    def _assert_same_answer(self, data):
        """Returns whether both refuse; they must answer alike."""
        is_png = data.startswith(b"\x89PNG")
        try:
            if is_png:
                expected = tf.io.decode_png(data, channels=3).numpy()
            else:
                expected = _tensorflow_jpeg(data)
        except tf.errors.InvalidArgumentError:
            with self.assertRaises(images.ImageError):
                images.decode(data)
            return True
        np.testing.assert_array_equal(images.decode(data), expected)
        return False

    @parameterized.parameters(
        (b"", "Expected a PNG or JPEG image. Received: it, which begins with"),
        (b"GIF89a\0\0\0\0", "begins with b'GIF89a"),
        (b"BM" + b"\0" * 60, "Expected a PNG or JPEG image."),
        (b"\x89PNG\r\n\x1a\n", "it, which is cut short or broken"),
        (b"\xff\xd8\xff", "it, which is cut short or broken"),
    )
    def test_no_image(self, data, text):
        with self.assertRaisesRegex(images.ImageError, text):
            images.decode(data, "it")

    def test_cut_short(self):
        for file_format in ("PNG", "JPEG"):
            data = _saved(_picture(16, 16), file_format)
            for length in (20, len(data) // 2, len(data) - 1):
                with self.assertRaisesRegex(images.ImageError, "cut short"):
                    images.decode(data[:length])

    @parameterized.parameters((2**13 + 1, 2**13), (2**31 - 1, 2**31 - 1))
    def test_too_large_by_its_header_alone(self, width, height):
        with self.assertRaisesRegex(
            images.ImageError,
            f"at most {2**26} pixels. Received: bytes of {width} x {height}",
        ):
            images.decode(_header_only(width, height))

    def test_largest_is_not_refused_for_its_size(self):
        with self.assertRaisesRegex(images.ImageError, "cut short"):
            images.decode(_header_only(2**13, 2**13))


class LoadTest(parameterized.TestCase):
    @parameterized.product(
        size=[(32, 32), (33, 41), (5, 3), (1, 1), (301, 467), (31, 32)],
        image_shape=[(32, 32, 3), (33, 29, 1), (1, 1, 3), (96, 64, 3)],
    )
    def test_equals_tensorflow(self, size, image_shape):
        data = _saved(_picture(*size), "PNG")
        image = images.load(data, image_shape)
        self.assertEqual(image.dtype, np.float32)
        self.assertEqual(image.shape, image_shape)
        self.assertBetween(image.min(), 0, 1)
        self.assertBetween(image.max(), 0, 1)
        np.testing.assert_allclose(
            image, _tensorflow_loaded(data, image_shape), rtol=0, atol=1e-6
        )

    def test_white_stays_in_range(self):
        data = _saved(np.full((223, 97, 3), 255, np.uint8), "PNG")
        for side in (7, 31, 224):
            image = images.load(data, (side, side, 3))
            np.testing.assert_allclose(image, 1, atol=1e-6)
            self.assertLessEqual(image.max(), 1)

    def test_halved_by_hand(self):
        # From 4 to 2: the triangle reaches 2 pixels to both sides, so pixels
        # 0, 1, 2 weigh 3/4, 3/4, 1/4, divided by their sum 7/4.
        row = np.array([0, 1, 1, 1], np.float32).reshape(1, 4, 1)
        np.testing.assert_allclose(
            images.resized(row, 1, 2)[0, :, 0], [4 / 7, 1], atol=1e-7
        )

    def test_path_is_named(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "cat.png"
            with self.assertRaisesRegex(
                images.ImageError,
                r"can be read. Received: '.*cat.png' \(No such file",
            ):
                images.load(path, (8, 8, 3))
            path.write_bytes(b"no image")
            with self.assertRaisesRegex(images.ImageError, "'.*cat.png'"):
                images.load(path, (8, 8, 3))
            path.write_bytes(_saved(_picture(8, 8), "PNG"))
            np.testing.assert_array_equal(
                images.load(path, (8, 8, 3)),
                images.load(path.read_bytes(), (8, 8, 3)),
            )

    @parameterized.parameters(((8, 8, 4),), ((0, 8, 3),))
    def test_shape_of_no_image(self, image_shape):
        with self.assertRaisesRegex(images.ImageError, "Expected an image_sh"):
            images.load(_saved(_picture(8, 8), "PNG"), image_shape)


class PicturesTest(parameterized.TestCase):
    @parameterized.parameters(
        ((32, 32, 3), (256, 512, 3)),
        ((30, 100, 1), (90, 600, 3)),
        ((300, 200, 3), (300, 400, 3)),
    )
    def test_overlay_is_enlarged_by_a_whole_number(self, shape, expected):
        image = np.random.default_rng(0).random(shape)
        picture = images.overlay(image, np.zeros((4, 4)))
        self.assertEqual(picture.dtype, np.uint8)
        self.assertEqual(picture.shape, expected)
        enlarged = expected[0] // shape[0]
        left = picture[::enlarged, : expected[1] // 2 : enlarged]
        np.testing.assert_allclose(
            left, np.broadcast_to(image * 255, left.shape), atol=0.51
        )

    def test_overlay_is_brightest_where_attention_is(self):
        attention = np.zeros((4, 4))
        attention[0, 3] = 1
        picture = images.overlay(np.full((32, 32, 3), 128, np.uint8), attention)
        brightness = picture[:, 256:].astype(int).sum(-1)
        row, column = np.unravel_index(brightness.argmax(), brightness.shape)
        self.assertLess(row, 64)
        self.assertGreaterEqual(column, 192)
        self.assertEqual(brightness[200, 20], brightness.min())

    def test_colours_brighten_with_the_value(self):
        image = np.zeros((1, 256, 3))
        attention = np.linspace(0, 1, 256)[np.newaxis]
        picture = images.overlay(image, attention)[0, 256:].astype(float)
        luminance = picture @ [0.2126, 0.7152, 0.0722]
        self.assertGreaterEqual(np.diff(luminance).min(), -1)
        self.assertGreater(luminance[-1], 4 * luminance[0])

    def test_text_map_by_hand(self):
        attention = [[0.0, 0.25], [0.45, 0.65], [0.99, 1.0]]
        self.assertEqual(images.text_map(attention), ["··░░", "▒▒▓▓", "████"])
        self.assertEqual(
            images.text_map(attention, images.ASCII), ["..::", "++##", "@@@@"]
        )

    def test_text_map_of_a_fine_map_is_small(self):
        attention = np.zeros((64, 32))
        attention[:32] = 1
        lines = images.text_map(attention)
        self.assertEqual({len(line) for line in lines}, {16})
        self.assertLen(lines, 16)
        self.assertEqual(lines[0], "█" * 16)
        self.assertEqual(lines[-1], "·" * 16)

    def test_what_is_not_finite_is_not_shown(self):
        self.assertEqual(images.text_map([[np.nan, np.inf]]), ["··██"])

    def test_no_map(self):
        with self.assertRaisesRegex(ValueError, r"attention \[h, w\]"):
            images.text_map([1.0, 2.0])


if __name__ == "__main__":
    absltest.main()
