"""Image files as the models are trained on them, and attention maps to look at.

Files are read by the rules of `atat_tf.data.images`, which are those of the
served `decode_predict`; a client needs nothing of either.
"""

import math
import os
import pathlib
import warnings

import numpy as np
from PIL import Image

from .errors import InvalidArgument, expect

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp")
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP")
# A file that says it holds more pixels is refused before it is decoded.
MAX_PIXELS = 2**26
_READABLE_SIDE = 256  # pixels on the longer side of an enlarged image
# Matplotlib's viridis, which a client need not have, in equal steps: even in
# lightness, also in grey and to the colour-blind.
_COLOURS = bytes.fromhex(
    "440154 48186a 472d7b 424086 3b528b 33638d"
    " 2c728e 26828e 21918c 1fa088 28ae80 3fbc73"
    " 5ec962 84d44b addc30 d8e219 fde725"
)
_OPACITY = 0.85  # of a map over an image, where attention is highest
BLOCKS = "·░▒▓█"
ASCII = ".:+#@"  # the same for terminals that cannot show blocks
_MAX_CELLS = 16  # on the longer side of a map of characters


def load(
    path: str | pathlib.Path, image_shape: tuple[int, int, int]
) -> np.ndarray:
    """Returns an image as the model takes it.

    Gray and palettes become RGB and the other way, as the model needs; alpha
    is dropped; of 16-bit samples the high byte is kept; a rotation that the
    file notes is not carried out; of a film the first picture is taken. The
    whole image is resized (bilinear, antialiased), whatever its aspect ratio.

    Args:
      path: of a PNG, JPEG, BMP, GIF or WebP file.
      image_shape: (H, W, C), C of 1 (gray) or 3.

    Returns:
      float32 [H, W, C] in [0, 1].

    Raises:
      InvalidArgument: it cannot be read, or is too large.
    """
    height, width, channels = image_shape
    expect(channels in (1, 3), "a model of gray or RGB images", channels)
    try:
        with (
            # Pillow's, about what is refused below.
            warnings.catch_warnings(action="ignore"),
            Image.open(path, formats=_FORMATS) as file,
        ):
            size = file.size
            is_small = math.prod(size) <= MAX_PIXELS
            if is_small:
                image = _rgb(file)
    except Exception as error:  # Pillow raises many kinds for broken files
        reason = str(error).split("\n")[0].rstrip(".") or type(error).__name__
        raise InvalidArgument(
            "INVALID_ARGUMENT",
            "Expected a whole image file (PNG, JPEG, BMP, GIF or WebP). "
            f"Received: {os.fspath(path)!r} ({reason}).",
        ) from error
    expect(
        is_small,
        f"an image of at most {MAX_PIXELS} pixels",
        f"{os.fspath(path)!r} of {size[0]} x {size[1]}",
    )
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    if channels == 1:
        image = image.convert("L")
    pixels = np.asarray(image, np.float32) / np.float32(255)
    return pixels.reshape(height, width, channels)


def overlay(image: np.ndarray, attention: np.ndarray) -> np.ndarray:
    """Returns an image and, to its right, its gray under its attention map.

    Args:
      image: float [H, W, 1 or 3] in [0, 1].
      attention: float [h, w] in [0, 1], resized to the image.

    Returns:
      uint8 [H * s, 2 * W * s, 3], with a whole number s that makes the image
      large enough to look at.
    """
    image = np.broadcast_to(image, (*np.shape(image)[:2], 3))
    enlarged = math.ceil(_READABLE_SIDE / max(image.shape[:2]))
    image = image.repeat(enlarged, axis=0).repeat(enlarged, axis=1)
    values = _resized(attention, *image.shape[:2])
    colours = np.frombuffer(_COLOURS, np.uint8).reshape(-1, 3) / 255
    steps = np.linspace(0, 1, len(colours))
    heat = np.stack([np.interp(values, steps, c) for c in colours.T], -1)
    gray = image @ np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
    opacity = _OPACITY * values[..., np.newaxis]
    covered = (1 - opacity) * gray[..., np.newaxis] + opacity * heat
    pair = np.concatenate([image, covered], axis=1)
    return np.rint(pair.clip(0, 1) * 255).astype(np.uint8)


def text_map(attention: np.ndarray, shades: str = BLOCKS) -> list[str]:
    """Returns the attention map as lines of characters.

    Args:
      attention: float [h, w] in [0, 1]; at most 16 x 16 cells are shown.
      shades: characters from 0 to 1.

    Returns:
      The lines; a cell is two columns wide, which makes it square.
    """
    shape = np.shape(attention)
    shrink = max(1.0, max(shape) / _MAX_CELLS)
    values = _resized(attention, *(max(1, round(n / shrink)) for n in shape))
    steps = np.minimum(values * len(shades), len(shades) - 1).astype(int)
    return ["".join(shades[step] * 2 for step in row) for row in steps]


def _rgb(image):
    """Returns the RGB image of an opened file."""
    if image.mode.startswith("I"):
        high = (np.asarray(image) >> 8).clip(0, 255).astype(np.uint8)
        return Image.fromarray(high).convert("RGB")
    return image.convert("RGB")


def _resized(attention, height, width):
    """Returns float32 [height, width] in [0, 1] of a map, whatever came."""
    values = np.nan_to_num(np.asarray(attention, np.float32), nan=0.0)
    image = Image.fromarray(values.clip(0, 1))
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(image).clip(0, 1)
