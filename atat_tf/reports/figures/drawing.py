"""Draws attention, loss surfaces and accuracy curves with Matplotlib."""

import dataclasses
import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import patheffects, ticker
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from atat_tf.data import images as image_files

_ENLARGED_SIDE = 192  # pixels of an image under a map, at least
# Okabe & Ito's colours, told apart by every kind of sight.
LINE_STYLES = tuple(
    {"color": color, "linestyle": dashes}
    for color, dashes in (
        ("#000000", "-"),
        ("#0072B2", "--"),
        ("#D55E00", "-."),
        ("#009E73", ":"),
        ("#CC79A7", (0, (5, 1))),
        ("#E69F00", (0, (1, 3))),
    )
)
# Of what is right and what is wrong, which ✓ and ✗ say too.
_RIGHT, _WRONG, _SOFT = "#17663d", "#a3261c", "#555b64"
_CAPTION_COLUMNS = 17  # characters an inch
_TITLE_COLUMNS = 11

# Of texts with names in them: a $ in one begins no formula.
_AS_IT_IS: dict[str, Any] = {"parse_math": False}


@dataclasses.dataclass(frozen=True)
class Panel:
    """One picture of a grid.

    Attributes:
      image: uint8 [H, W, 1 or 3].
      attention: float [h, w], >= 0, drawn over the image with a line at half
        of its maximum; None for none.
      text: below the picture.
      is_right: whether the text is a right prediction; None for another text.
      watermark: across it.
    """

    image: np.ndarray
    attention: np.ndarray | None = None
    text: str = ""
    is_right: bool | None = None
    watermark: str = ""


def picture_grid(
    rows: Sequence[Sequence[Panel]],
    column_titles: Sequence[str],
    title: str,
    caption: str,
    row_titles: Sequence[str] | None = None,
) -> Figure:
    """Returns a grid of images, some under attention maps.

    Args:
      rows: of as many panels as there are columns.
      column_titles: a text a column.
      title: of the whole.
      caption: a sentence or two at the foot, about what is shown.
      row_titles: a text a row, or None.

    Returns:
      Figure whose axes are the panels, row by row.
    """
    width = 2.05 * len(column_titles) + (1.3 if row_titles else 0.1)
    lines = max(p.text.count("\n") + 1 for row in rows for p in row)
    height = (1.95 + 0.17 * lines) * len(rows) + 1.1
    figure = _figure(width, height, title, caption)
    axes = figure.subplots(len(rows), len(column_titles), squeeze=False)
    for row, line in enumerate(rows):
        for column, panel in enumerate(line):
            _draw_panel(axes[row, column], panel)
    for column, text in enumerate(column_titles):
        axes[0, column].set_title(
            textwrap.fill(text, 24), fontsize=10, color=_SOFT, **_AS_IT_IS
        )
    for row, text in enumerate(row_titles or ()):
        axes[row, 0].set_ylabel(
            textwrap.fill(text, 13),
            fontsize=10,
            **_AS_IT_IS,
            fontweight="bold",
            rotation=0,
            ha="right",
            va="center",
        )
    return figure


def loss_surfaces(
    surfaces: np.ndarray | Sequence[Sequence[np.ndarray]],
    positions: np.ndarray,
    titles: tuple[Sequence[str], Sequence[str]],
    title: str,
    caption: str,
) -> Figure:
    """Returns each loss surface in three dimensions, over its contours.

    A square on the floor is the ball of radius ε.

    Args:
      surfaces: float [models, images, n, n], losses; the last axis is the
        sign-gradient's direction. Of an image all models have one z-axis.
      positions: float [n], along both directions, in units of ε.
      titles: of the models and of the images.
      title, caption: as for `picture_grid`.

    Returns:
      Figure with a row for each image, and in it axes for each model.
    """
    surfaces = np.asarray(surfaces, np.float64)
    models, images = surfaces.shape[:2]
    figure = _figure(4.6 * models + 0.3, 3.9 * images + 0.7, title, caption)
    grid = figure.add_gridspec(images, models)
    for image in range(images):
        limits = surfaces[:, image].min(), surfaces[:, image].max()
        for model in range(models):
            axes = figure.add_subplot(grid[image, model], projection="3d")
            text = f"{titles[0][model]}, {titles[1][image]}"
            values = surfaces[model, image]
            _draw_surface(axes, positions, values, limits, text)
    return figure


def accuracy_curves(
    curves: Mapping[str, np.ndarray], zoom: int, title: str, caption: str
) -> Figure:
    """Returns accuracy against attack steps: all of them, and the first few.

    Args:
      curves: {name: float [n + 1]}, shares of images right after 0 (clean), 1,
        ..., n steps.
      zoom: the last step of the right-hand side.
      title, caption: as for `picture_grid`.

    Returns:
      Figure of two axes.
    """
    figure = _figure(9, 3.9, title, caption)
    for axes, last in zip(figure.subplots(1, 2), (None, zoom), strict=True):
        for number, (name, shares) in enumerate(curves.items()):
            shares = np.asarray(shares)[: last + 1 if last else None]
            axes.plot(
                np.arange(len(shares)),
                100 * shares,
                **LINE_STYLES[number % len(LINE_STYLES)],
                marker="o" if last else None,
                markersize=3,
                label=name,
            )
        axes.set_xlabel("PGD steps; 0: clean")
        axes.set_ylabel("accuracy, %")
        axes.set_ylim(bottom=min(0, axes.get_ylim()[0]))
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        for label in axes.legend(fontsize=8).get_texts():
            label.set(**_AS_IT_IS)
    return figure


def _figure(width, height, title, caption):
    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    figure.get_layout_engine().set(h_pad=0.07)
    figure.suptitle(
        textwrap.fill(title, int(width * _TITLE_COLUMNS)),
        fontsize=12,
        fontweight="bold",
        **_AS_IT_IS,
    )
    figure.supxlabel(
        textwrap.fill(caption, int(width * _CAPTION_COLUMNS)),
        fontsize=8,
        color=_SOFT,
        **_AS_IT_IS,
    )
    return figure


def _draw_panel(axes, panel):
    axes.set_xticks([])
    axes.set_yticks([])
    pixels = panel.image
    if panel.attention is not None:
        # Of a small image the map would have steps.
        times = math.ceil(_ENLARGED_SIDE / max(pixels.shape[:2]))
        pixels = pixels.repeat(times, 0).repeat(times, 1)
        pixels = image_files.overlaid(pixels, panel.attention)
    axes.imshow(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))
    if panel.attention is not None and np.any(panel.attention):
        shares = image_files.enlarged(panel.attention, *pixels.shape[:2])
        axes.contour(shares, levels=[0.5], colors="white", linewidths=1)
    colours = {None: _SOFT, True: _RIGHT, False: _WRONG}
    axes.set_xlabel(
        panel.text,
        fontsize=10,
        **_AS_IT_IS,
        color=colours[panel.is_right],
        fontweight="normal" if panel.is_right is None else "bold",
    )
    axes.spines[:].set_visible(False)
    if panel.watermark:
        text = axes.text(
            *(0.5, 0.5, panel.watermark),
            transform=axes.transAxes,
            ha="center",
            va="center",
            rotation=30,
            fontsize=13,
            color="white",
        )
        text.set_path_effects([patheffects.withStroke(linewidth=2)])


def _draw_surface(axes, positions, values, limits, text):
    low, high = limits
    high = high if high > low else low + 1
    floor = low - 0.45 * (high - low)
    first, second = np.meshgrid(positions, positions)
    colours = {"cmap": image_files.COLOURS, "vmin": low, "vmax": high}
    axes.contourf(
        *(first, second, values),
        levels=np.linspace(low, high, 15),
        zdir="z",
        offset=floor,
        alpha=0.75,
        **colours,
    )
    axes.plot_surface(
        *(first, second, values),
        rcount=len(positions),
        ccount=len(positions),
        linewidth=0,
        antialiased=False,
        **colours,
    )
    square = np.array([[-1, -1, 1, 1, -1], [-1, 1, 1, -1, -1]])
    axes.plot(*square, floor, color="black", linewidth=1.5)
    axes.plot(0, 0, floor, marker="+", color="black", markersize=9)
    axes.set_zlim(floor, high)
    axes.view_init(elev=24, azim=-55)
    axes.set_title(f"{text}\ncross-entropy", fontsize=10, pad=0, **_AS_IT_IS)
    axes.set_xlabel("sign gradient, ε", fontsize=9)
    axes.set_ylabel("Rademacher, ε", fontsize=9)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(ticker.MaxNLocator(4, steps=(1, 2, 5, 10)))
    # The floor lies below every loss, where the axis has nothing to say.
    heights = ticker.MaxNLocator(4).tick_values(low, high)
    axes.set_zticks([height for height in heights if low <= height <= high])
    axes.tick_params(labelsize=8, pad=0)
    axes.set_box_aspect((4, 4, 3), zoom=1.04)
