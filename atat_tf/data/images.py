"""Image files, whatever their size and mode, as pixels of one size.

Paths of files and folders enter; uint8 arrays leave, or one sentence about
what is wrong with a file.
"""

import base64
import io
import math
import pathlib

import matplotlib
import numpy as np
from PIL import Image, ImageOps

from atat_tf.errors import InputError, expect

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp")
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP")
# A file that says it holds more pixels is refused before it is decoded.
MAX_PIXELS = 2**26
# Smaller pictures have nothing to look at.
MIN_SIDE = 8


def find(places):
    """Returns the image files that paths name, folders in order of names.

    Args:
      places: paths of files, or of folders whose image files are taken.

    Returns:
      list of pathlib.Path.

    Raises:
      InputError: a path does not exist, or a folder has no image.
    """
    found = []
    for place in map(pathlib.Path, places):
        if not place.is_dir():
            expect(place.is_file(), "an image file or folder", path=str(place))
            found.append(place)
            continue
        inside = [
            path
            for path in sorted(place.iterdir())
            if path.suffix.lower() in SUFFIXES and path.is_file()
        ]
        if not inside:
            raise InputError(
                f"Expected a folder with images ({', '.join(SUFFIXES)}). "
                f"Received: {str(place)!r}, which has none."
            )
        found += inside
    return found


def load(path, image_shape):
    """Returns the pixels of an image file, at a model's size.

    Gray becomes RGB and the other way, as the model needs; what is transparent
    lies over white; of 16-bit samples the high byte is kept; a rotation that
    the file notes is carried out; of a film the first picture is taken. The
    middle of the image in the model's aspect ratio is resized, antialiased.

    Args:
      path: of the file.
      image_shape: (H, W, C), C of 1 or 3.

    Returns:
      uint8 [H, W, C].

    Raises:
      InputError: it cannot be read, is too large or too small.
    """
    height, width, channels = image_shape
    expect(
        channels in (1, 3), "a model of gray or RGB images", channels=channels
    )
    try:
        with Image.open(path, formats=_FORMATS) as image:
            size = image.size
            fits = math.prod(size) <= MAX_PIXELS and min(size) >= MIN_SIDE
            pixels = _rgb(image) if fits else None
    except Exception as error:  # Pillow raises many kinds for broken files
        reason = str(error).split("\n")[0].rstrip(".") or type(error).__name__
        raise InputError(
            "Expected a whole image file (PNG, JPEG, BMP, GIF or WebP). "
            f"Received: {str(path)!r} ({reason})."
        ) from error
    if pixels is None:
        raise InputError(
            f"Expected an image of at least {MIN_SIDE} pixels a side and at "
            f"most {MAX_PIXELS} in all. Received: {str(path)!r} of "
            f"{size[0]} x {size[1]}."
        )
    return resized(pixels, height, width, channels)


def resized(pixels, height, width, channels=3):
    """Returns the middle of an image in another size.

    Args:
      pixels: uint8 [h, w, 1 or 3].
      height, width, channels: of what is returned.

    Returns:
      uint8 [height, width, channels].
    """
    if pixels.shape[-1] == 1:
        pixels = np.repeat(pixels, 3, axis=-1)
    image = Image.fromarray(pixels)
    if image.size != (width, height):
        image = ImageOps.fit(image, (width, height), Image.Resampling.BILINEAR)
    if channels == 1:
        image = image.convert("L")
    return np.asarray(image).reshape(height, width, channels)


def _rgb(image):
    """Returns uint8 [h, w, 3] of an opened image."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        high = (np.asarray(image) >> 8).clip(0, 255).astype(np.uint8)
        return np.repeat(high[..., np.newaxis], 3, axis=2)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return np.asarray(image.convert("RGB"))


# Even in lightness, also in grey and to the colour-blind.
_COLOURS = "viridis"
_OPACITY = 0.6  # of a map that lies over an image


def coloured(maps):
    """Returns the colour of each value.

    Args:
      maps: float [...] in [0, 1].

    Returns:
      uint8 [..., 3].
    """
    colours = matplotlib.colormaps[_COLOURS](np.asarray(maps))
    return np.rint(255 * colours[..., :3]).astype(np.uint8)


def overlaid(image, attention):
    """Returns an image under its attention map.

    Args:
      image: uint8 [H, W, 1 or 3].
      attention: float [h, w] in [0, 1]; enlarged to the image, bilinearly.

    Returns:
      uint8 [H, W, 3].
    """
    height, width = image.shape[:2]
    small = Image.fromarray(np.asarray(attention, np.float32))
    enlarged = small.resize((width, height), Image.Resampling.BILINEAR)
    heat = coloured(np.clip(enlarged, 0.0, 1.0))
    mixed = (1 - _OPACITY) * image + _OPACITY * heat
    return np.rint(mixed).astype(np.uint8)


def as_uint8(images):
    """Returns images in [0, 1] as uint8, rounded."""
    return np.rint(255 * np.clip(images, 0.0, 1.0)).astype(np.uint8)


def data_uri(pixels):
    """Returns "data:image/png;base64,..." of uint8 [H, W, 1 or 3]."""
    if pixels.shape[-1] == 1:
        pixels = pixels[..., 0]
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", optimize=True)
    text = base64.b64encode(file.getvalue()).decode("ascii")
    return f"data:image/png;base64,{text}"
