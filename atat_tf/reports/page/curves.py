"""Training curves as the geometry of small drawings.

A run's rows of metrics enter; panels of lines, marks and labelled ticks leave,
in the units of an SVG viewBox.
"""

import dataclasses
import math

WIDTH, HEIGHT = 360, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 50, 12, 10, 38
_TICKS = 5

# Title, unit, whether shares are shown in percent, {metric: its name}.
_PANELS = (
    (
        "Training loss and its terms",
        "loss",
        False,
        {
            "train_loss": "loss",
            "train_cross_entropy": "cross-entropy",
            "train_attention_transfer": "attention transfer",
            "train_logit_pairing": "logit pairing",
        },
    ),
    (
        "Accuracy",
        "%",
        True,
        {
            "train_clean_accuracy": "training, clean",
            "train_adversarial_accuracy": "training, attacked",
            "validation_clean_accuracy": "validation, clean",
            "validation_pgd_accuracy": "validation, PGD",
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
class Series:
    """One line.

    Attributes:
      name: in words.
      values: {epoch: value}.
      points: [(x, y)] in the drawing.
    """

    name: str
    values: dict
    points: list

    @property
    def path(self):
        """Returns the points as an SVG polyline has them."""
        return " ".join(f"{x:.1f},{y:.1f}" for x, y in self.points)


@dataclasses.dataclass(frozen=True)
class Panel:
    """One drawing.

    Attributes:
      title, unit: in words.
      series: list of Series.
      across, up: [(position, label)] of the ticks.
      kept: position of the epoch whose weights were kept, or None.
    """

    title: str
    unit: str
    series: list
    across: list
    up: list
    kept: float | None


def panels(rows):
    """Returns a list of Panel, those that the rows have values for.

    Args:
      rows: dictionaries as metrics.jsonl holds them, one an epoch.
    """
    drawn = []
    for title, unit, in_percent, names in _PANELS:
        values = {
            label: _finite(rows, metric, 100 if in_percent else 1)
            for metric, label in names.items()
        }
        values = {label: found for label, found in values.items() if found}
        if values:
            drawn.append(_panel(title, unit, values, kept_epoch(rows)))
    return drawn


def kept_epoch(rows):
    """Returns the epoch of best.weights.h5, or None where nothing tells it.

    The first of the highest validation accuracy: under the training attack,
    or clean where there is none.

    Args:
      rows: as for `panels`.
    """
    for metric in ("validation_pgd_accuracy", "validation_clean_accuracy"):
        scores = _finite(rows, metric)
        if scores:
            return max(scores, key=scores.get)
    return None


def ticks(low, high, whole=False):
    """Returns round numbers from `low` or below to `high` or above.

    Args:
      low, high: ends of the range.
      whole: whether only whole numbers will do, all inside the range.
    """
    span = high - low or abs(high) or 1.0
    rough = span / _TICKS
    power = 10 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
    if whole:
        step = max(1, round(step))
        return list(range(math.ceil(low), math.floor(high) + 1, step))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    last = max(last, first + 1)
    return [round(i * step, 12) for i in range(first, last + 1)]


def _finite(rows, metric, factor=1):
    return {
        row["epoch"]: factor * row[metric]
        for row in rows
        if math.isfinite(row.get(metric, math.nan))
    }


def _panel(title, unit, values, kept):
    epochs = sorted({epoch for found in values.values() for epoch in found})
    everything = [v for found in values.values() for v in found.values()]
    levels = ticks(min(0.0, *everything), max(everything))

    def across(epoch):
        share = (epoch - epochs[0]) / max(1, epochs[-1] - epochs[0])
        # One epoch stands in the middle.
        share = 0.5 if len(epochs) == 1 else share
        return _LEFT + share * (WIDTH - _LEFT - _RIGHT)

    def up(value):
        share = (value - levels[0]) / (levels[-1] - levels[0])
        return HEIGHT - _BOTTOM - share * (HEIGHT - _TOP - _BOTTOM)

    return Panel(
        title,
        unit,
        [
            Series(
                label,
                found,
                [(across(e), up(v)) for e, v in sorted(found.items())],
            )
            for label, found in values.items()
        ],
        [(across(e), f"{e}") for e in ticks(epochs[0], epochs[-1], True)],
        [(up(level), f"{level:g}") for level in levels],
        across(kept) if kept in epochs else None,
    )
