"""Pictures of every kind that image files hold."""

import io
import struct
import zlib

import numpy as np
from PIL import Image


def picture(height=21, width=37, channels=3):
    """Returns uint8 [h, w, channels]: a smooth picture with some noise."""
    y, x, c = np.mgrid[:height, :width, :channels]
    noise = np.random.default_rng(0).normal(0, 12, y.shape)
    waves = 127 + 100 * np.sin(x / 5 + c) * np.cos(y / 7)
    return (waves + noise).clip(0, 255).astype(np.uint8)


def file(pixels, kind="PNG"):
    """Returns the bytes of an image file of uint8 pixels."""
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, kind)
    return content.getvalue()


def _with_transparent_colour():
    image = Image.fromarray(picture()).quantize(17)
    image.info["transparency"] = 3
    return image


def _turned():
    image = Image.fromarray(picture())
    image.getexif()[0x0112] = 6  # orientation: turned by a quarter
    return image


def _of_16_bits():
    levels = picture(channels=1)[..., 0].astype(np.uint16)
    return Image.fromarray(levels << 8 | 0xFF)


# {file name: the image in it}.
KINDS = {
    "rgb.png": lambda: Image.fromarray(picture()),
    "tall.jpg": lambda: Image.fromarray(picture(53, 9)),
    "large.jpg": lambda: Image.fromarray(picture(301, 467)),
    "turned.jpg": _turned,
    "gray.png": lambda: Image.fromarray(picture()).convert("L"),
    "gray.jpg": lambda: Image.fromarray(picture()).convert("L"),
    "gray_alpha.png": lambda: Image.fromarray(picture(channels=2), "LA"),
    "alpha.png": lambda: Image.fromarray(picture(channels=4)),
    "palette.png": lambda: Image.fromarray(picture()).quantize(17),
    "transparent_colour.png": _with_transparent_colour,
    "bits.png": lambda: Image.fromarray(picture()).convert("1"),
    "deep.png": _of_16_bits,
    "ink.jpg": lambda: Image.fromarray(picture()).convert("CMYK"),
}


def chunk(kind, content):
    """Returns a chunk of a PNG file: its kind and content, as bytes."""
    check = zlib.crc32(kind + content)
    size = struct.pack(">I", len(content))
    return size + kind + content + struct.pack(">I", check)


def png_head(width, height, rest=bytes([8, 2, 0, 0, 0])):
    """Returns the begin of a PNG file that says it has so many pixels.

    Args:
      width, height: as the header has them.
      rest: of the header; RGB in bytes.
    """
    header = struct.pack(">II", width, height) + rest
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
