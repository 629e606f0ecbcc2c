"""Image files as the models are trained on them, and attention maps to look at.

Files are read by the rules of `atat_tf.data.images`, which are those of the
served `decode_predict`; a client needs nothing of either.
"""

import math
import os
import pathlib
import warnings
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

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
_MAX_DOTS = 24  # on the longer side of a picture of half blocks
_UPPER_HALF = "▀"
# Pixels of a line below an overlay, and of its letters.
_LINE_HEIGHT, _LETTERS = 22, 15
TRUE_COLOUR = 2**24


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


def overlay(
    image: np.ndarray, attention: np.ndarray, texts: Sequence[str] = ()
) -> np.ndarray:
    """Returns an image and, to its right, its gray under its attention map.

    Args:
      image: float [H, W, 1 or 3] in [0, 1].
      attention: float [h, w] in [0, 1], resized to the image.
      texts: a line below each of the two, or none.

    Returns:
      uint8 [H * s, 2 * W * s, 3], with a whole number s that makes the image
      large enough to look at; with texts a few more rows.
    """
    enlarged = math.ceil(_READABLE_SIDE / max(np.shape(image)[:2]))
    image = np.asarray(image).repeat(enlarged, axis=0).repeat(enlarged, axis=1)
    pair = np.concatenate(_looked_at(image, attention), axis=1)
    if not texts:
        return pair
    lines = [_line(text, image.shape[1]) for text in texts]
    return np.concatenate([pair, np.concatenate(lines, axis=1)])


def _looked_at(image, attention):
    """Returns uint8 [H, W, 3] of an image, and of its gray under its map."""
    image = np.broadcast_to(image, (*np.shape(image)[:2], 3))
    values = _resized(attention, *image.shape[:2])
    colours = np.frombuffer(_COLOURS, np.uint8).reshape(-1, 3) / 255
    steps = np.linspace(0, 1, len(colours))
    heat = np.stack([np.interp(values, steps, c) for c in colours.T], -1)
    gray = image @ np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
    opacity = _OPACITY * values[..., np.newaxis]
    covered = (1 - opacity) * gray[..., np.newaxis] + opacity * heat
    return [
        np.rint(part.clip(0, 1) * 255).astype(np.uint8)
        for part in (image, covered)
    ]


def _line(text, width):
    """Returns a line of text in the middle of white; too long, it ends in …."""
    font = ImageFont.load_default(_LETTERS)
    while text and font.getlength(text) > width:
        text = f"{text.removesuffix('…')[:-1]}…" if len(text) > 1 else ""
    image = Image.new("RGB", (width, _LINE_HEIGHT), "white")
    middle = width // 2, _LINE_HEIGHT // 2
    ImageDraw.Draw(image).text(middle, text, "black", font, "mm")
    return np.asarray(image)


def colour_map(
    image: np.ndarray, attention: np.ndarray, colours: int
) -> list[str]:
    """Returns an image, and its gray under its map, as lines in colours.

    A character is two dots, one above the other: half a block.

    Args:
      image: float [H, W, 1 or 3] in [0, 1].
      attention: float [h, w] in [0, 1].
      colours: TRUE_COLOUR, or 256 for terminals with a palette.

    Returns:
      The lines, with the codes that terminals take for colours; all are as
      wide as `colour_map_width` says.
    """
    height, width = _dots(image)
    small = np.stack(
        [
            _resized(np.asarray(image)[..., channel], height, width)
            for channel in range(np.shape(image)[-1])
        ],
        -1,
    )
    pictures = _looked_at(small, attention)
    return [
        "  ".join(
            _half_blocks(part[row : row + 2], colours) for part in pictures
        )
        for row in range(0, height, 2)
    ]


def colour_map_width(image: np.ndarray) -> int:
    """Returns how many columns of the terminal `colour_map` takes."""
    return 2 * _dots(image)[1] + 2


def _dots(image):
    """Returns height, an even number, and width of a picture of dots."""
    height, width = np.shape(image)[:2]
    shrink = max(height, width) / _MAX_DOTS
    return 2 * max(1, round(height / shrink / 2)), max(1, round(width / shrink))


def _half_blocks(rows, colours):
    """Returns uint8 [2, W, 3] as characters: letters above, ground below."""
    code = _true_colour if colours == TRUE_COLOUR else _of_palette
    cells = "".join(
        f"\x1b[38;{code(upper)};48;{code(lower)}m{_UPPER_HALF}"
        for upper, lower in zip(rows[0].tolist(), rows[1].tolist(), strict=True)
    )
    return f"{cells}\x1b[0m"


def _true_colour(rgb):
    return "2;{};{};{}".format(*rgb)


def _of_palette(rgb):
    """Returns the code of the nearest gray or of the 6 × 6 × 6 colours.

    Their levels are 0, 95, 135, 175, 215 and 255.
    """
    red, green, blue = rgb
    if max(rgb) - min(rgb) < 12:
        return f"5;{232 + round(green * 23 / 255)}"
    red, green, blue = (
        (value >= 48) + max(0, (value - 75) // 40) for value in rgb
    )
    return f"5;{16 + 36 * red + 6 * green + blue}"


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
