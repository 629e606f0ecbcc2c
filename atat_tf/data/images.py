"""The reader of image files, and the colours of attention maps.

Training, figures and the client see the pixels that a served model sees. What
its signature `decode_predict` can do in TensorFlow's graph therefore decides:
a rotation that a file only notes (EXIF) is not carried out, alpha is dropped,
and the whole image is stretched to the model's size.
"""

import base64
import io
import math
import pathlib
import warnings
from collections.abc import Iterable
from typing import BinaryIO

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont, UnidentifiedImageError

from atat_tf.errors import InputError, expect

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp")
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP")
# A file that says it holds more pixels is refused before it is decoded.
MAX_PIXELS = 2**26
# Pixels of a line of text, and of its letters.
LINE_HEIGHT, _LETTERS = 18, 12


def find(paths: Iterable[str | pathlib.Path]) -> list[pathlib.Path]:
    """Returns the image files that paths name, folders in order of names.

    Args:
      paths: of files, or of folders whose image files are taken.

    Raises:
      InputError: a path does not exist, or a folder has no image.
    """
    files = []
    for path in map(pathlib.Path, paths):
        if not path.is_dir():
            expect(path.is_file(), "an image file or folder", path=str(path))
            files.append(path)
            continue
        inside = [
            file
            for file in sorted(path.iterdir())
            if file.suffix.lower() in SUFFIXES and file.is_file()
        ]
        if not inside:
            raise InputError(
                f"Expected a folder with images ({', '.join(SUFFIXES)}). "
                f"Received: {str(path)!r}, which has none."
            )
        files += inside
    return files


def load(
    path: str | pathlib.Path, image_shape: tuple[int, int, int]
) -> np.ndarray:
    """Returns the pixels of an image file, at a model's size.

    Gray and palettes become RGB and the other way, as the model needs; alpha
    is dropped; of 16-bit samples the high byte is kept; a rotation that the
    file notes is not carried out; of a film the first picture is taken. The
    whole image is resized (bilinear, antialiased), whatever its aspect ratio.

    Args:
      path: of the file.
      image_shape: (H, W, C), C of 1 or 3.

    Returns:
      uint8 [H, W, C]; those of the served `decode_predict` to two levels.

    Raises:
      InputError: it cannot be read, or is too large.
    """
    height, width, channels = image_shape
    expect(
        channels in (1, 3), "a model of gray or RGB images", channels=channels
    )
    pixels = decoded(path, str(path))
    return resized(pixels, height, width, channels)


def decoded(
    file: str | pathlib.Path | BinaryIO, name: str, max_pixels: int = MAX_PIXELS
) -> np.ndarray:
    """Returns the pixels of an image file, in their own size.

    Args:
      file: its path, or the file itself.
      name: what an error calls it.
      max_pixels: a file that says it holds more is refused undecoded.

    Returns:
      uint8 [h, w, 3].

    Raises:
      InputError: it cannot be read, or is too large.
    """
    try:
        with (
            # Pillow's, about what is refused below.
            warnings.catch_warnings(action="ignore"),
            Image.open(file, formats=_FORMATS) as image,
        ):
            size = image.size
            pixels = _rgb(image) if math.prod(size) <= max_pixels else None
    except Exception as error:  # Pillow raises many kinds for broken files
        reason = str(error).split("\n")[0].rstrip(".") or type(error).__name__
        if isinstance(error, UnidentifiedImageError):
            reason = "it begins like none of these"
        raise InputError(
            "Expected a whole image file (PNG, JPEG, BMP, GIF or WebP). "
            f"Received: {name!r} ({reason})."
        ) from error
    if pixels is None:
        raise InputError(
            f"Expected an image of at most {max_pixels} pixels. "
            f"Received: {name!r} of {size[0]} x {size[1]}."
        )
    return pixels


def resized(
    pixels: np.ndarray, height: int, width: int, channels: int = 3
) -> np.ndarray:
    """Returns a whole image in another size: bilinear, antialiased.

    Args:
      pixels: uint8 [h, w, 1 or 3].
      height, width, channels: of what is returned.

    Returns:
      uint8 [height, width, channels].
    """
    if pixels.shape[-1] == 1:
        pixels = np.repeat(pixels, 3, axis=-1)
    image = Image.fromarray(pixels)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    if channels == 1:
        image = image.convert("L")
    return np.asarray(image).reshape(height, width, channels)


def _rgb(image):
    """Returns uint8 [h, w, 3] of an opened image."""
    if image.mode.startswith("I"):
        high = (np.asarray(image) >> 8).clip(0, 255).astype(np.uint8)
        return np.repeat(high[..., np.newaxis], 3, axis=2)
    return np.asarray(image.convert("RGB"))


# Of attention maps: lighter is more, also in print and to the colour-blind.
COLOURS = matplotlib.colormaps["viridis"]
OPACITY = 0.85  # of a map over an image, where attention is highest


def coloured(maps: np.ndarray) -> np.ndarray:
    """Returns the colour of each value.

    Args:
      maps: float [...] in [0, 1].

    Returns:
      uint8 [..., 3].
    """
    return as_uint8(COLOURS(np.asarray(maps))[..., :3])


def tinted(maps: np.ndarray) -> np.ndarray:
    """Returns the colour and the opacity of each value.

    Opacity follows attention, so that an empty map hides nothing.

    Args:
      maps: float [...] in [0, 1].

    Returns:
      uint8 [..., 4]; opacity is OPACITY times the value.
    """
    opacity = as_uint8(OPACITY * np.asarray(maps, np.float32))
    return np.concatenate([coloured(maps), opacity[..., np.newaxis]], axis=-1)


def enlarged(attention: np.ndarray, height: int, width: int) -> np.ndarray:
    """Returns an attention map at an image's size, as shares of its maximum.

    Args:
      attention: float [h, w], >= 0; an empty map stays empty.
      height, width: of the image.

    Returns:
      float32 [height, width] in [0, 1], enlarged bilinearly.
    """
    shares = np.asarray(attention, np.float32) / (np.max(attention) or 1)
    image = Image.fromarray(shares).resize(
        (width, height), Image.Resampling.BILINEAR
    )
    return np.clip(np.asarray(image), 0.0, 1.0)


def overlaid(image: np.ndarray, attention: np.ndarray) -> np.ndarray:
    """Returns an image in gray under its attention map in colours.

    Args:
      image: uint8 [H, W, 1 or 3].
      attention: as for `enlarged`.

    Returns:
      uint8 [H, W, 3].
    """
    height, width = image.shape[:2]
    rgb = Image.fromarray(np.broadcast_to(image, (height, width, 3)))
    gray = np.asarray(rgb.convert("L"))[..., np.newaxis]
    tint = tinted(enlarged(attention, height, width))
    opacity = tint[..., 3:] / 255
    covered = (1 - opacity) * gray + opacity * tint[..., :3]
    return np.rint(covered).astype(np.uint8)


def line(text: str, width: int, colour: str = "#000000") -> np.ndarray:
    """Returns a line of text in the middle of white.

    Args:
      text: what is too long for the width ends in "…".
      width: pixels.
      colour: of the letters.

    Returns:
      uint8 [LINE_HEIGHT, width, 3].
    """
    # Matplotlib's own font, which has ✓, ✗ and ε.
    path = pathlib.Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf")
    font = ImageFont.truetype(path, _LETTERS)
    while text and font.getlength(text) > width:
        text = f"{text.removesuffix('…')[:-1]}…" if len(text) > 1 else ""
    image = Image.new("RGB", (width, LINE_HEIGHT), "white")
    middle = width // 2, LINE_HEIGHT // 2
    ImageDraw.Draw(image).text(middle, text, colour, font, "mm")
    return np.asarray(image)


def as_uint8(images: np.ndarray) -> np.ndarray:
    """Returns images in [0, 1] as uint8, rounded."""
    return np.rint(255 * np.clip(images, 0.0, 1.0)).astype(np.uint8)


def data_uri(pixels: np.ndarray) -> str:
    """Returns "data:image/png;base64,..." of uint8 [H, W, 1, 3 or 4].

    Of four channels the last is alpha.
    """
    if pixels.shape[-1] == 1:
        pixels = pixels[..., 0]
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", optimize=True)
    text = base64.b64encode(file.getvalue()).decode("ascii")
    return f"data:image/png;base64,{text}"
