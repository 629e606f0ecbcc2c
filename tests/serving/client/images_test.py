"""The client's images beside the served model's own, and its pictures."""

import struct

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from atat_tf.data import images as image_files
from serving.client import InvalidArgument, images
from serving.saved_model import signatures
from tests.support import pictures


@pytest.mark.parametrize("image_shape", [(16, 16, 3), (21, 37, 3), (30, 9, 1)])
@pytest.mark.parametrize("name", pictures.KINDS)
def test_pixels_are_those_of_the_served_model(tmp_path, name, image_shape):
    """Of the client, and of what reads files for a figure or a page."""
    image = pictures.KINDS[name]()
    path = tmp_path / name
    image.save(path, exif=image.getexif())
    there = signatures.decoded(tf.constant(path.read_bytes()), image_shape)
    here = images.load(path, image_shape)
    assert here.dtype == np.float32
    assert np.ptp(here) > 4 / 255
    # Pillow rounds to bytes, after each direction of resizing.
    np.testing.assert_allclose(here, there, 0, 1.6 / 255)
    shown = image_files.load(path, image_shape)
    assert shown.dtype == np.uint8
    np.testing.assert_allclose(shown, 255 * there.numpy(), 0, 1.6)


@pytest.mark.parametrize("suffix", images.SUFFIXES)
def test_formats(tmp_path, suffix):
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[:8, :, 0] = pixels[8:, :, 2] = 255
    path = tmp_path / f"cat{suffix.upper()}"
    lossless = {"quality": 100, "subsampling": 0, "lossless": True}
    options = lossless if suffix in (".jpg", ".jpeg", ".webp") else {}
    Image.fromarray(pixels).save(path, **options)
    image = images.load(path, (16, 16, 3))
    np.testing.assert_allclose(image, pixels / 255, atol=0.02)


def _png_header(*size):
    """Returns a PNG file of (width, height) that ends before its pixels."""
    return pictures.png_head(*size) + struct.pack(">I", 9) + b"IDAT"


@pytest.mark.parametrize(
    ("content", "pattern"),
    [
        (None, "'.*cat.png' .*No such file"),
        (b"no image", "whole image file .*'.*cat.png' .*identify"),
        (_png_header(9, 9), "whole image file .*'.*cat.png'"),
        (
            _png_header(2**13 + 1, 2**13),
            "at most 67108864 pixels.* 8193 x 8192",
        ),
        # Pillow warns about a size from 2**26.4, and refuses one from 2**27.4.
        (_png_header(2**13, 12000), "at most 67108864 pixels"),
        (_png_header(2**31 - 1, 2**31 - 1), "limit"),
    ],
)
def test_what_cannot_be_read(tmp_path, content, pattern, recwarn):
    path = tmp_path / "cat.png"
    if content:
        path.write_bytes(content)
    with pytest.raises(InvalidArgument, match=pattern):
        images.load(path, (8, 8, 3))
    assert not recwarn


@pytest.mark.parametrize("name", ["cat.png", "cat.jpg"])
def test_cut_short(tmp_path, name):
    path = tmp_path / name
    Image.fromarray(pictures.picture()).save(path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InvalidArgument, match="whole image file"):
        images.load(path, (8, 8, 3))


def test_model_of_other_channels(tmp_path):
    with pytest.raises(InvalidArgument, match="gray or RGB.*13"):
        images.load(tmp_path, (8, 8, 13))


@pytest.mark.parametrize(
    ("shape", "scale"),
    [((32, 32, 3), 8), ((30, 100, 1), 3), ((300, 200, 3), 1)],
)
def test_overlay_is_the_projects_own_enlarged(shape, scale):
    attention = np.random.default_rng(0).random((4, 4))
    attention /= attention.max()
    pixels = pictures.picture(*shape)
    left, right = np.split(images.overlay(pixels / 255, attention), 2, axis=1)
    enlarged = pixels.repeat(scale, 0).repeat(scale, 1)
    np.testing.assert_array_equal(left, np.broadcast_to(enlarged, left.shape))
    expected = image_files.overlaid(enlarged, attention).astype(int)
    np.testing.assert_allclose(right, expected, atol=6)


def test_overlays_have_a_line_below():
    pixels, attention = pictures.picture(32, 32, 3) / 255, np.ones((4, 4))
    plain = images.overlay(pixels, attention)
    written = images.overlay(pixels, attention, ["cat, 87 %", "w" * 99])
    assert written.shape == (256 + 22, 512, 3)
    np.testing.assert_array_equal(written[:256], plain)
    assert (written[256:] == 255).any() and (written[256:] < 128).any()


@pytest.mark.parametrize(
    ("colours", "red", "gray"),
    [(images.TRUE_COLOUR, "2;255;0;0", "2;0;0;0"), (256, "5;196", "5;232")],
)
def test_colour_map_by_hand(colours, red, gray):
    image = np.zeros((2, 1, 3))
    image[0, 0, 0] = 1
    # Dots are never fewer than the picture has.
    lines = images.colour_map(image, np.zeros((1, 1)), colours)
    assert len(lines) == 12 and images.colour_map_width(image) == 2 * 12 + 2
    assert lines[0].startswith(f"\x1b[38;{red};48;{red}m▀")
    assert f"\x1b[38;{gray};48;{gray}m▀" in lines[-1]
    assert all(line.count("▀") == 24 for line in lines)


def test_text_map_by_hand():
    attention = [[0.0, 0.25], [0.45, 0.65], [0.99, 1.0]]
    assert images.text_map(attention) == ["··░░", "▒▒▓▓", "████"]
    ascii_map = images.text_map(attention, images.ASCII)
    assert ascii_map == ["..::", "++##", "@@@@"]
    assert images.text_map([[np.nan, np.inf]]) == ["··██"]


def test_text_map_of_a_fine_map_is_small():
    attention = np.zeros((64, 32))
    attention[:32] = 1
    lines = images.text_map(attention)
    assert [len(line) for line in lines] == [16] * 16
    assert (lines[0], lines[-1]) == ("█" * 16, "·" * 16)
