"""Draws attention, loss surfaces and accuracy curves with Matplotlib."""

import dataclasses
import math
import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import cm, colors, patheffects, ticker
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
_CAPTION = {"fontsize": 6, "family": "monospace", "linespacing": 1.3}
# Characters an inch: 20 on paper, fewer on coarse grids, where each of them is
# rounded up to whole pixels.
_CAPTION_COLUMNS = 16
_TITLE_COLUMNS = 13


@dataclasses.dataclass(frozen=True)
class Panel:
    """One picture of a grid.

    Attributes:
      image: uint8 [H, W, 1 or 3].
      attention: float [h, w], >= 0, drawn over the image; None for none.
      text: below the picture.
      watermark: across it.
    """

    image: np.ndarray
    attention: np.ndarray | None = None
    text: str = ""
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
      caption: small text at the foot: the command, data, seed.
      row_titles: a text a row, or None.

    Returns:
      Figure whose axes are the panels, row by row, then a colour bar.
    """
    width = 1.75 * len(column_titles) + 1.4
    lines = max(p.text.count("\n") + 1 for row in rows for p in row)
    height = (1.6 + 0.15 * lines) * len(rows) + 1.3
    figure = _figure(width, height, title, caption)
    axes = figure.subplots(len(rows), len(column_titles), squeeze=False)
    for row, line in enumerate(rows):
        for column, panel in enumerate(line):
            _draw_panel(axes[row, column], panel)
    for column, text in enumerate(column_titles):
        axes[0, column].set_title(textwrap.fill(text, 22), fontsize=9)
    for row, text in enumerate(row_titles or ()):
        axes[row, 0].set_ylabel(textwrap.fill(text, 20), fontsize=8)
    if any(panel.attention is not None for row in rows for panel in row):
        bar = figure.colorbar(
            cm.ScalarMappable(colors.Normalize(0, 1), image_files.COLOURS),
            ax=axes,
            aspect=30,
            shrink=0.7,
            pad=0.02,
        )
        bar.set_label("attention / maximum of its map", fontsize=8)
        bar.ax.tick_params(labelsize=7)
    return figure


def loss_surfaces(
    surfaces: np.ndarray | Sequence[Sequence[np.ndarray]],
    positions: np.ndarray,
    titles: tuple[Sequence[str], Sequence[str]],
    title: str,
    caption: str,
) -> Figure:
    """Returns each loss surface in three dimensions and as contours.

    Args:
      surfaces: float [models, images, n, n], losses; the last axis is the
        sign-gradient's direction. Of an image all models have one z-axis.
      positions: float [n], along both directions, in units of ε.
      titles: of the models and of the images.
      title, caption: as for `picture_grid`.

    Returns:
      Figure with, for each model and image, axes of the surface and contours.
    """
    surfaces = np.asarray(surfaces, np.float64)
    models, images = surfaces.shape[:2]
    figure = _figure(6.6 * images + 0.4, 3.0 * models + 1.0, title, caption)
    ratios = [1.25, 1] * images
    grid = figure.add_gridspec(models, 2 * images, width_ratios=ratios)
    for image in range(images):
        limits = surfaces[:, image].min(), surfaces[:, image].max()
        flat = []
        for model in range(models):
            text = f"{titles[0][model]}, {titles[1][image]}"
            values = surfaces[model, image]
            cells = grid[model, 2 * image], grid[model, 2 * image + 1]
            _draw_surface(figure, cells[0], positions, values, limits, text)
            flat.append(
                _draw_contours(figure, cells[1], positions, values, limits)
            )
        bar = figure.colorbar(
            flat[0][1],
            ax=[axes for axes, _ in flat],
            aspect=40,
            shrink=0.8,
            ticks=ticker.MaxNLocator(6),
        )
        bar.set_label("cross-entropy", fontsize=8)
        bar.ax.tick_params(labelsize=7)
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
            shares = np.asarray(shares)[1 : last + 1 if last else None]
            axes.plot(
                np.arange(1, len(shares) + 1),
                100 * shares,
                **LINE_STYLES[number % len(LINE_STYLES)],
                marker="o" if last else None,
                markersize=3,
                label=name,
            )
        axes.set_xlabel("PGD steps")
        axes.set_ylabel("accuracy, %")
        axes.set_ylim(bottom=min(0, axes.get_ylim()[0]))
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    return figure


def _figure(width, height, title, caption):
    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    figure.get_layout_engine().set(h_pad=0.07)
    figure.suptitle(
        textwrap.fill(title, int(width * _TITLE_COLUMNS)), fontsize=11
    )
    columns = int(width * _CAPTION_COLUMNS)
    lines = [
        textwrap.fill(line, columns, break_long_words=True)
        for line in caption.splitlines()
    ]
    figure.supxlabel("\n".join(lines), **_CAPTION)
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
    axes.set_xlabel(panel.text, fontsize=8)
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


def _draw_surface(figure, cell, positions, values, limits, text):
    axes = figure.add_subplot(cell, projection="3d")
    first, second = np.meshgrid(positions, positions)
    axes.plot_surface(
        *(first, second, values),
        cmap=image_files.COLOURS,
        vmin=limits[0],
        vmax=limits[1],
        rcount=len(positions),
        ccount=len(positions),
        linewidth=0,
    )
    axes.set_zlim(*limits)
    # What is up says the colour bar too: a label there meets its neighbour.
    axes.set_title(f"{text}\ncross-entropy", fontsize=9)
    axes.set_xlabel("sign gradient, ε", fontsize=7, labelpad=-3)
    axes.set_ylabel("Rademacher, ε", fontsize=7, labelpad=-3)
    for axis in (axes.xaxis, axes.yaxis, axes.zaxis):
        axis.set_major_locator(ticker.MaxNLocator(4, steps=(1, 2, 5, 10)))
    axes.tick_params(labelsize=7, pad=-2)
    axes.set_box_aspect(None, zoom=0.95)


def _draw_contours(figure, cell, positions, values, limits):
    axes = figure.add_subplot(cell)
    high = limits[1] if limits[1] > limits[0] else limits[0] + 1
    levels = np.linspace(limits[0], high, 21)
    filled = axes.contourf(
        positions, positions, values, levels=levels, cmap=image_files.COLOURS
    )
    axes.contour(
        *(positions, positions, values),
        levels=levels,
        colors="black",
        linewidths=0.3,
    )
    axes.plot(0, 0, marker="+", color="white", markersize=8)
    axes.set_aspect("equal")
    axes.set_xlabel("sign gradient, ε", fontsize=8)
    axes.set_ylabel("Rademacher, ε", fontsize=8)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(ticker.MaxNLocator(4))
    axes.tick_params(labelsize=7)
    return axes, filled
