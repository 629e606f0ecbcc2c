"""Image files as the served model reads them, and attention maps to look at.

What `decode_predict` does inside the graph with TensorFlow is done here with
Pillow and NumPy, to the same pixels, so that a client needs no TensorFlow to
prepare an image.
"""

import io
import math
import os
import struct
import zlib

import numpy as np
from PIL import JpegImagePlugin, PngImagePlugin

# A file that says it holds more pixels is refused before it is decoded.
MAX_PIXELS = 2**26
_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
# All that RGB without alpha needs. Text, colour profiles and animation are not
# even looked at, so they cannot be traps either.
_PNG_CHUNKS = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
# Red, green and blue in gray (ITU-R BT.601), as tf.image.rgb_to_grayscale.
_GRAY = np.array([[0.2989], [0.5870], [0.1140]], np.float32)
# From violet to yellow in equal steps of lightness in the OKLab colour space,
# so that a brighter colour is a larger value also in print and to the colour
# blind.
_COLOURS = np.array(
    [
        (49, 24, 82),
        (49, 55, 114),
        (36, 87, 138),
        (0, 119, 154),
        (0, 151, 161),
        (55, 181, 158),
        (112, 208, 146),
        (181, 230, 124),
        (255, 244, 103),
    ],
    np.float32,
)
_READABLE_SIDE = 256  # pixels on the longer side of an enlarged image
_OPACITY = 0.6  # of the attention map that lies over an image
BLOCKS = "·░▒▓█"
ASCII = ".:+#@"  # the same for terminals that cannot show blocks
_MAX_CELLS = 16  # on the longer side of a map of characters


class ImageError(ValueError):
    """An image cannot be read; the text says what was expected."""


def decode(data, name="bytes"):
    """Returns the pixels of a PNG or JPEG file, as TensorFlow decodes them.

    Alpha is dropped, gray and palettes become RGB, of 16-bit samples the high
    byte is kept, a rotation that EXIF notes is not carried out.

    Args:
      data: bytes of the whole file.
      name: what errors call it.

    Returns:
      uint8 [h, w, 3].

    Raises:
      ImageError: another format, a broken or cut file, more than MAX_PIXELS.
    """
    if not data.startswith((_PNG, _JPEG)):
        raise ImageError(
            f"Expected a PNG or JPEG image. Received: {name}, which begins "
            f"with {bytes(data[:8])!r}."
        )
    try:
        image = _opened(data)
        too_large = math.prod(image.size) > MAX_PIXELS
        pixels = None if too_large else _rgb(image)
    except Exception as error:  # Pillow raises many kinds for broken files
        raise ImageError(
            f"Expected a whole image file. Received: {name}, which is cut "
            f"short or broken ({_reason(error)})."
        ) from error
    if too_large:
        raise ImageError(
            f"Expected an image of at most {MAX_PIXELS} pixels. Received: "
            f"{name} of {image.width} x {image.height}."
        )
    return pixels


def load(source, image_shape):
    """Returns an image as the model takes it.

    Args:
      source: path of a PNG or JPEG file, or its bytes.
      image_shape: (H, W, C), C of 1 (gray) or 3.

    Returns:
      float32 [H, W, C] in [0, 1].

    Raises:
      ImageError: it cannot be read or decoded, or `image_shape` is no shape
        of images.
    """
    height, width, channels = image_shape
    if channels not in (1, 3) or height < 1 or width < 1:
        raise ImageError(
            "Expected an image_shape of (height, width, 1 or 3). Received: "
            f"{tuple(image_shape)}."
        )
    if isinstance(source, bytes | bytearray | memoryview):
        pixels = decode(bytes(source))
    else:
        pixels = decode(_contents(source), repr(os.fspath(source)))
    image = pixels.astype(np.float32) / np.float32(255)
    if channels == 1:
        image = image @ _GRAY
    return resized(image, height, width)


def resized(image, height, width):
    """Returns an image of another size: bilinear, antialiased when shrunk.

    As tf.image.resize(antialias=True), down to its float32 arithmetic.

    Args:
      image: float32 [h, w, C] in [0, 1].
      height, width: what to return.

    Returns:
      float32 [height, width, C] in [0, 1].
    """
    if image.shape[:2] == (height, width):
        return image
    rows = _resized_rows(image, height)
    columns = _resized_rows(rows.swapaxes(0, 1), width)
    # A weighted mean may end a rounding error above 1.
    return np.clip(columns.swapaxes(0, 1), 0.0, 1.0)


def overlay(image, attention):
    """Returns an image and, to its right, the same under its attention map.

    Args:
      image: [H, W, 1 or 3], float in [0, 1] or uint8.
      attention: float [h, w] in [0, 1], resized to the image.

    Returns:
      uint8 [H * s, 2 * W * s, 3], with a whole number s that makes the image
      large enough to look at.
    """
    image = np.asarray(image)
    scale = 255 if image.dtype == np.uint8 else 1
    image = np.broadcast_to(image / np.float32(scale), (*image.shape[:2], 3))
    enlarged = math.ceil(_READABLE_SIDE / max(image.shape[:2]))
    image = image.repeat(enlarged, axis=0).repeat(enlarged, axis=1)
    heat = _coloured(resized(_map(attention), *image.shape[:2])[..., 0])
    covered = (1 - _OPACITY) * image + _OPACITY * heat
    pair = np.concatenate([image, covered], axis=1)
    return np.rint(pair.clip(0, 1) * 255).astype(np.uint8)


def text_map(attention, shades=BLOCKS):
    """Returns the attention map as lines of characters.

    Args:
      attention: float [h, w] in [0, 1]; at most 16 x 16 cells are shown.
      shades: characters from 0 to 1.

    Returns:
      The lines; a cell is two columns wide, which makes it square.
    """
    values = _map(attention)
    shrink = max(1.0, max(values.shape) / _MAX_CELLS)
    size = [max(1, round(side / shrink)) for side in values.shape[:2]]
    values = resized(values, *size)[..., 0]
    steps = np.minimum(values * len(shades), len(shades) - 1).astype(int)
    return ["".join(shades[step] * 2 for step in row) for row in steps]


def _opened(data):
    """Returns the image with its header read and its pixels not yet.

    Pillow's own classes and not Image.open: they print no warning about
    large images and never take a JPEG for a film of several.
    """
    if data.startswith(_PNG):
        return PngImagePlugin.PngImageFile(io.BytesIO(_essential(data)))
    return JpegImagePlugin.JpegImageFile(io.BytesIO(data))


def _essential(data):
    """Returns a PNG file without the chunks that pixels do not need.

    Raises:
      ValueError: it ends early or a checksum is wrong.
    """
    kept, position, kind = [_PNG], len(_PNG), None
    while kind != b"IEND":
        if position + 12 > len(data):
            raise ValueError("the file ends early")
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length  # length, kind, data, checksum
        chunk = data[position:end]
        if len(chunk) < 12 + length:
            raise ValueError("the file ends early")
        if kind in _PNG_CHUNKS:
            if zlib.crc32(chunk[4:-4]) != int.from_bytes(chunk[-4:], "big"):
                raise ValueError(f"wrong checksum of {kind.decode()}")
            kept.append(chunk)
        position = end
    return b"".join(kept)


def _rgb(image):
    """Returns uint8 [h, w, 3] of an opened image."""
    image.load()
    if image.mode == "P":
        # Colours that the palette lacks are black; Pillow makes them gray.
        palette = np.zeros((256, 3), np.uint8)
        colours = np.array(image.getpalette("RGB"), np.uint8).reshape(-1, 3)
        palette[: len(colours)] = colours
        return palette[np.asarray(image)]
    if image.mode.startswith("I"):
        high = (np.asarray(image) >> 8).astype(np.uint8)
        return np.repeat(high[..., np.newaxis], 3, axis=2)
    if image.mode == "CMYK":
        # Pillow has inverted the file's values, which TensorFlow reads as
        # light if Adobe's marker is there and as ink if it is not.
        light = np.asarray(image).astype(np.uint16)
        if "adobe" in image.info:
            light = 255 - light
        return (light[..., :3] * light[..., 3:] // 255).astype(np.uint8)
    return np.array(image.convert("RGB"))


def _resized_rows(image, count):
    """Returns float32 [count, w, C]: rows of weighted means, in a triangle."""
    half, one = np.float32(0.5), np.float32(1)
    step = one / (np.float32(count) / np.float32(len(image)))
    radius = max(step, one)
    rows = np.empty((count, *image.shape[1:]), np.float32)
    for row in range(count):
        center = (np.float32(row) + half) * step
        start = max(0, math.ceil(center - radius - half))
        end = min(len(image) - 1, math.floor(center + radius - half)) + 1
        positions = np.arange(start, end, dtype=np.float32) + half
        weights = np.abs(positions - center) * (one / radius)
        weights = np.maximum(one - weights, 0)
        weights *= one / weights.sum()
        rows[row] = np.tensordot(weights, image[start:end], 1)
    return rows


def _map(attention):
    """Returns float32 [h, w, 1] in [0, 1], whatever came."""
    values = np.nan_to_num(np.asarray(attention, np.float32), nan=0.0)
    if values.ndim != 2 or not values.size:
        raise ValueError(
            f"Expected attention [h, w]. Received: shape {values.shape}."
        )
    return values.clip(0, 1)[..., np.newaxis]


def _coloured(values):
    """Returns float [h, w, 3] in [0, 1] of values [h, w] in [0, 1]."""
    anchors = np.linspace(0, 1, len(_COLOURS))
    channels = [np.interp(values, anchors, c / 255) for c in _COLOURS.T]
    return np.stack(channels, axis=-1)


def _contents(path):
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise ImageError(
            "Expected an image file that can be read. Received: "
            f"{os.fspath(path)!r} ({_reason(error)})."
        ) from error


def _reason(error):
    text = getattr(error, "strerror", None) or str(error)
    return text.split("\n")[0].rstrip(".") or type(error).__name__
