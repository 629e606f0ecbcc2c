"""Drawings of things that networks of CIFAR-10 know, made of few shapes."""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

# Drawn large, so that edges are smooth at a network's size.
_SIZE = 256
_SKY, _SEA, _GRASS, _ROAD = "#9ec5e8", "#2b5f93", "#5c8a3c", "#6d6d70"


def drawn() -> dict[str, np.ndarray]:
    """Returns {what it shows: uint8 [256, 256, 3]}."""
    return {name: _picture(draw) for name, draw in _DRAWINGS.items()}


def _picture(draw: Callable[[ImageDraw.ImageDraw], None]) -> np.ndarray:
    image = Image.new("RGB", (_SIZE, _SIZE), _SKY)
    draw(ImageDraw.Draw(image))
    return np.asarray(image)


def _boat(draw):
    draw.rectangle((0, 170, 256, 256), _SEA)
    draw.polygon([(36, 150), (220, 150), (190, 196), (66, 196)], "#7a2f22")
    draw.rectangle((70, 118, 170, 150), "#f2f0ea")
    draw.rectangle((110, 84, 140, 118), "#c93b2e")
    for left in (82, 108, 134):
        draw.rectangle((left, 126, left + 14, 140), "#30506e")


def _aeroplane(draw):
    draw.ellipse((24, 108, 232, 148), "#eef1f4")
    draw.polygon([(110, 128), (150, 128), (96, 214), (72, 214)], "#c4ccd4")
    draw.polygon([(112, 118), (142, 118), (102, 60), (84, 60)], "#d8dee4")
    draw.polygon([(28, 122), (62, 116), (40, 70), (18, 70)], "#c93b2e")
    for left in range(84, 204, 18):
        draw.ellipse((left, 118, left + 8, 126), "#30506e")


def _car(draw):
    draw.rectangle((0, 176, 256, 256), _ROAD)
    draw.polygon([(72, 118), (98, 78), (172, 78), (200, 118)], "#b3261e")
    draw.rounded_rectangle((22, 114, 236, 174), 20, "#c93b2e")
    draw.polygon([(86, 116), (104, 88), (132, 88), (132, 116)], "#bcd6ea")
    draw.polygon([(140, 116), (140, 88), (168, 88), (184, 116)], "#bcd6ea")
    for left in (48, 164):
        draw.ellipse((left, 148, left + 48, 196), "#1d1d1f")
        draw.ellipse((left + 14, 162, left + 34, 182), "#b9bdc2")


def _lorry(draw):
    draw.rectangle((0, 186, 256, 256), _ROAD)
    draw.rectangle((14, 62, 168, 176), "#f4f4f2")
    draw.polygon(
        [(174, 98), (218, 98), (242, 138), (242, 176), (174, 176)], "#2e6fb7"
    )
    draw.polygon([(186, 108), (212, 108), (228, 138), (186, 138)], "#cfe2f1")
    for left in (34, 84, 190):
        draw.ellipse((left, 158, left + 42, 200), "#1d1d1f")
        draw.ellipse((left + 13, 171, left + 29, 187), "#b9bdc2")


def _frog(draw):
    draw.rectangle((0, 0, 256, 256), "#8a7a52")
    draw.ellipse((44, 96, 212, 214), _GRASS)
    for left in (58, 154):
        draw.ellipse((left, 64, left + 46, 112), _GRASS)
        draw.ellipse((left + 11, 74, left + 35, 98), "#f3e9b4")
        draw.ellipse((left + 18, 80, left + 30, 92), "#141414")
    draw.arc((86, 110, 170, 172), 20, 160, "#2d4a1c", 6)
    for left in (20, 176):
        draw.ellipse((left, 170, left + 60, 222), "#4a7430")


def _bird(draw):
    draw.rectangle((0, 206, 256, 256), _GRASS)
    draw.polygon([(40, 132), (8, 110), (16, 158)], "#8c2f1e")
    draw.ellipse((36, 92, 186, 186), "#c0492c")
    draw.ellipse((146, 58, 216, 128), "#c0492c")
    draw.polygon([(210, 84), (246, 94), (210, 106)], "#e6a42a")
    draw.ellipse((180, 78, 194, 92), "#141414")
    draw.ellipse((66, 104, 150, 160), "#8c2f1e")
    for left in (98, 130):
        draw.line((left, 184, left, 220), "#4a3418", 6)


_DRAWINGS = {
    "a boat": _boat,
    "an aeroplane": _aeroplane,
    "a car": _car,
    "a lorry": _lorry,
    "a frog": _frog,
    "a bird": _bird,
}
