"""Attention maps as colours: viridis, alone or laid over the image.

Maps in [0, 1] enter; uint8 pixels, or PNG files of them, leave.
"""

import base64
import io

import matplotlib
import numpy as np
from PIL import Image

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
