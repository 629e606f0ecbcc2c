"""Radii and steps as people write them, 8/255, and as attacks take them."""

import re

from atat_tf.errors import expect


def parsed(text: str | float) -> float:
    """Returns a radius or step written as "8/255" or "0.031".

    Raises:
      InputError: it is neither, or not above 0.
    """
    match = re.fullmatch(r"\s*([\d.]+)\s*(?:/\s*([\d.]+))?\s*", str(text))
    try:
        value = float(match[1]) / float(match[2] or 1) if match else 0.0
    except (ValueError, ZeroDivisionError):
        value = 0.0
    expect(value > 0, "a radius above 0, as 8/255 or 0.03", radius=text)
    return value


def written(value: float) -> str:
    """Returns a radius as text: "8/255" where it is a short share of 255.

    Args:
      value: in the unit of pixels in [0, 1].
    """
    in_255ths = f"{value * 255:.6g}"
    return f"{in_255ths}/255" if len(in_255ths) < 6 else repr(value)
