"""Draws the curves of reports as SVG: training, and accuracy against ε."""

import base64
import dataclasses
import io
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib import ticker
from matplotlib.figure import Figure

from atat_tf.reports.figures import drawing

# Inches; at 72 points each the texts are about as large as the page's.
_SIZE = (5.0, 3.6)
_INK, _GRID = "#555b64", "#ccd1d8"
_STYLE = {
    # Texts stay texts, in the reader's font.
    "svg.fonttype": "none",
    # Names inside an SVG come from a salt: the same rows are the same file.
    "svg.hashsalt": "atat_tf",
    "font.family": "sans-serif",
    "font.size": 12,
    **dict.fromkeys(("text.color", "xtick.color", "ytick.color"), _INK),
    **dict.fromkeys(("axes.labelcolor", "axes.edgecolor"), _INK),
}
_MARKERS = "os^D"
_MOST_MARKED = 40  # epochs; the marks of more run into each other

# Terms whose names in words are not their fields'.
_TERMS = {
    "train_cross_entropy": "cross-entropy",
    "train_kl_divergence": "KL divergence",
}
# Title, unit, whether shares are shown in percent, {metric: its name}.
_PANELS = (
    ("Training loss and its terms", "loss", False, None),
    (
        "Accuracy",
        "%",
        True,
        {
            "train_clean_accuracy": "training, clean",
            "train_adversarial_accuracy": "training, attacked",
            "validation_clean_accuracy": "validation, clean",
            "validation_pgd_accuracy": "validation, PGD",
            "validation_averaged_pgd_accuracy": "averaged, PGD",
            "validation_averaged_clean_accuracy": "averaged, clean",
        },
    ),
    (
        "Attention shift under attack",
        "1 − cosine",
        False,
        {"validation_attention_shift": "validation"},
    ),
    (
        "Learning rate",
        "rate",
        False,
        {"learning_rate": "learning rate"},
    ),
)


@dataclasses.dataclass(frozen=True)
class Panel:
    """One drawing.

    Attributes:
      title, unit: in words.
      series: {name of a line: {epoch or 255 ε: value}}.
      uri: the drawing, "data:image/svg+xml;base64,...".
    """

    title: str
    unit: str
    series: Mapping[str, Mapping[float, float]]
    uri: str

    @property
    def across(self) -> list[float]:
        """Where any line has a value, ascending."""
        return sorted(set().union(*self.series.values()))


def panels(
    rows: Sequence[Mapping[str, Any]], kept: int | None = None
) -> list[Panel]:
    """Returns the panels that the rows have values for.

    Args:
      rows: dictionaries as metrics.jsonl holds them, one an epoch.
      kept: the epoch to mark.
    """
    drawn = []
    for title, unit, in_percent, names in _PANELS:
        series = {
            name: _finite(rows, metric, 100 if in_percent else 1)
            for metric, name in (names or _terms(rows)).items()
        }
        series = {name: values for name, values in series.items() if values}
        if series:
            uri = _svg_uri(unit, series, kept)
            drawn.append(Panel(title, unit, series, uri))
    return drawn


def _terms(rows):
    """Returns {metric: its name} of the loss and whatever terms it has."""
    fields = dict.fromkeys(field for row in rows for field in row)
    return {
        field: _TERMS.get(field, field[len("train_") :].replace("_", " "))
        for field in fields
        if field.startswith("train_") and not field.endswith("_accuracy")
    }


def _finite(rows, metric, factor=1):
    return {
        row["epoch"]: factor * row[metric]
        for row in rows
        if math.isfinite(row.get(metric, math.nan))
    }


def radius_panel(series: Mapping[str, Mapping[float, float]]) -> Panel | None:
    """Returns the Panel of accuracy against ε, or None without a line.

    Args:
      series: {name of a run: {255 ε: percent}}; empty ones are left out.
    """
    series = {name: values for name, values in series.items() if values}
    if not series:
        return None
    uri = _svg_uri("%", series, None, "ε · 255")
    return Panel("Accuracy against ε", "%", series, uri)


def curves(
    unit: str,
    series: Mapping[str, Mapping[float, float]],
    kept: int | None,
    across: str = "epoch",
) -> Figure:
    """Returns the drawing of a panel: its lines over the epochs.

    Args:
      unit, series: as of a Panel.
      kept: the epoch that a dotted line marks; None for no line.
      across: what the horizontal axis is.
    """
    figure = Figure(figsize=_SIZE, layout="constrained")
    axes = figure.subplots()
    for (name, values), style, marker in zip(
        series.items(),
        itertools.cycle(drawing.LINE_STYLES),
        itertools.cycle(_MARKERS),
        strict=False,
    ):
        marker = marker if len(values) <= _MOST_MARKED else None
        epochs, heights = zip(*sorted(values.items()), strict=True)
        axes.plot(epochs, heights, **style, marker=marker, label=name)
    if kept is not None:
        axes.axvline(kept, color=_INK, linestyle=":")
    axes.set_xlabel(across)
    axes.set_ylabel(unit)
    axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
    axes.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
    axes.grid(color=_GRID)
    axes.spines[["top", "right"]].set_visible(False)
    legend = figure.legend(loc="outside lower left", ncols=2, frameon=False)
    for label in legend.get_texts():
        label.set_parse_math(False)  # a $ in a run's name begins no formula
    return figure


def _svg_uri(unit, series, kept, across="epoch"):
    file = io.BytesIO()
    with matplotlib.rc_context(_STYLE):
        curves(unit, series, kept, across).savefig(
            file, format="svg", transparent=True, metadata={"Date": None}
        )
    text = base64.b64encode(file.getvalue()).decode("ascii")
    return f"data:image/svg+xml;base64,{text}"
