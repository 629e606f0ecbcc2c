"""Image files that are broken, or made to hurt who decodes them.

Every function draws one; none of them is a picture that a model should answer.
"""

import struct
import zlib

import numpy as np

from tests.support import pictures

_PNG = b"\x89PNG\r\n\x1a\n"
_SIDE = 8


def file(draw):
    """Returns the bytes of a file of one of the kinds, all equally likely."""
    return KINDS[draw.integers(len(KINDS))](draw)


def good(draw, kind="PNG"):
    """Returns a file that can be read: 8 x 8 pixels at random."""
    pixels = draw.integers(0, 256, (_SIDE, _SIDE, 3), np.uint8)
    return pictures.file(pixels, kind)


def nothing(draw):
    del draw
    return b""


def noise(draw):
    return draw.bytes(int(draw.integers(1, 500)))


def other_format(draw):
    return good(draw, str(draw.choice(["GIF", "BMP", "TIFF", "WEBP"])))


def bare_signature(draw):
    start = [_PNG, b"\xff\xd8\xff"][draw.integers(2)]
    return start + draw.bytes(int(draw.integers(0, 60)))


def truncated(draw):
    whole = good(draw, str(draw.choice(["PNG", "JPEG"])))
    # A JPEG that lacks only its end is still decoded.
    return whole[: draw.integers(1, len(whole) // 2)]


def enormous_png(draw):
    """Returns 58 bytes that promise up to 2**62 pixels."""
    sides = 2 ** draw.integers(14, 32, 2) - 1
    return _png(*map(int, sides), zlib.compress(bytes(8)))


def wide_png(draw):
    """Returns a line of pixels wider than libpng's limit, below ours."""
    width = int(draw.integers(2**20, 2**26))
    return _png(width, 1, zlib.compress(bytes(8)))


def empty_png(draw):
    width, height = [(0, 0), (0, 8), (8, 0)][draw.integers(3)]
    return _png(width, height, zlib.compress(b""))


def hollow_png(draw):
    """Returns a file whose pixels are not there, for a buffer of 12 MiB."""
    return _png(2048, 2048, zlib.compress(draw.bytes(20)))


def cut_stream(draw):
    row = bytes(1 + 3 * _SIDE)
    return _png(_SIDE, _SIDE, zlib.compress(row * _SIDE)[: draw.integers(9)])


def wrong_checksum(draw):
    broken = bytearray(good(draw))
    broken[29 + draw.integers(4)] ^= 0xFF  # of the header's four bytes
    return bytes(broken)


def unknown_depth(draw):
    depth, colour = draw.integers(17, 256), draw.integers(7, 256)
    return _png(_SIDE, _SIDE, b"", bytes([depth, colour, 0, 0, 0]))


def enormous_jpeg(draw):
    """Returns a JPEG whose header promises up to 65535 x 65535 pixels."""
    broken = bytearray(good(draw, "JPEG"))
    place = broken.index(b"\xff\xc0") + 5
    broken[place : place + 4] = struct.pack(">HH", 65535, 60000)
    return bytes(broken)


def empty_jpeg(draw):
    broken = bytearray(good(draw, "JPEG"))
    place = broken.index(b"\xff\xc0") + 5
    broken[place : place + 4] = struct.pack(">HH", 0, 0)
    return bytes(broken)


KINDS = (
    nothing,
    noise,
    other_format,
    bare_signature,
    truncated,
    enormous_png,
    wide_png,
    empty_png,
    hollow_png,
    cut_stream,
    wrong_checksum,
    unknown_depth,
    enormous_jpeg,
    empty_jpeg,
)


def inflating(draw):
    """Returns a whole 8 x 8 picture, and 16 MiB more in a few kilobytes.

    Decoders stop at the picture's end: it may well be answered.
    """
    del draw
    return _png(_SIDE, _SIDE, zlib.compress(bytes(2**24)))


def _png(width, height, stream, *rest):
    """Returns a PNG of RGB bytes, or whatever `rest` of the header says."""
    pixels = pictures.chunk(b"IDAT", stream) + pictures.chunk(b"IEND", b"")
    return pictures.png_head(width, height, *rest) + pixels
