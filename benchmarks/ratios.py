"""Comparisons of measured values with each other and with a goal.

A comparison has the median of the rounds, their range, and whether a goal like
"<= 1.10" is met. The form is the same for all benchmarks, so that
`benchmarks.run` can put them into one table.
"""

import operator
import statistics
from collections.abc import Iterable, Sequence

_RULES = {"<=": operator.le, ">=": operator.ge}
_COLUMNS = ("what", "against", "median", "range", "goal", "")


def summary(values: Sequence[float]) -> dict[str, float]:
    """Returns the median, the smallest and the largest of some numbers."""
    return {
        "median": statistics.median(values),
        "min": min(values),
        "max": max(values),
    }


def over(values: Iterable[float], others: Iterable[float]) -> list[float]:
    """Returns [value / other], round by round."""
    return [a / b for a, b in zip(values, others, strict=True)]


def comparison(
    what: str,
    against: str,
    values: Sequence[float],
    goal: str = "",
    unit: str = "",
) -> dict:
    """Returns one comparison, ready for JSON.

    Args:
      what: what was measured.
      against: what it was compared with; "" for a plain measurement.
      values: the ratio, or the measured value, of each round.
      goal: "<= NUMBER", ">= NUMBER", or "" where a figure is only stated.
      unit: of the values; "" for ratios.
    """
    return {
        "what": what,
        "against": against,
        **summary(values),
        "rounds": len(values),
        "unit": unit,
        "goal": goal,
    }


def not_run(what: str, against: str, reason: str, goal: str = "") -> dict:
    """Returns the comparison that could not be made, and why."""
    return {"what": what, "against": against, "not_run": reason, "goal": goal}


def against_peers(
    what: str,
    ours: Sequence[float],
    theirs: dict[str, Sequence[float]],
    goal: str,
    absent: dict[str, str],
) -> list[dict]:
    """Returns how many times faster ours is than each peer, as comparisons.

    Args:
      what: what was measured.
      ours: seconds of each round.
      theirs: {peer: seconds of each round}.
      goal: of the fastest peer's comparison; the others are stated.
      absent: {peer: why it was not run}.
    """
    medians = {peer: statistics.median(theirs[peer]) for peer in theirs}
    fastest = min(medians, key=medians.get, default=None)
    return [
        comparison(
            what,
            f"{peer}, the fastest" if peer == fastest else peer,
            over(seconds, ours),
            goal if peer == fastest else "",
        )
        for peer, seconds in theirs.items()
    ] + [not_run(what, peer, reason) for peer, reason in absent.items()]


def verdict(compared: dict) -> str:
    """Returns "met" or "not met" by the median, "stated", or why not run.

    A goal that the median meets and some round does not is "met, not in all
    rounds".
    """
    if "not_run" in compared:
        return f"NOT RUN: {compared['not_run']}"
    if not compared["goal"]:
        return "stated"
    if not _meets(compared["median"], compared["goal"]):
        return "not met"
    ends = compared["min"], compared["max"]
    if all(_meets(value, compared["goal"]) for value in ends):
        return "met"
    return "met, not in all rounds"


def _meets(value, goal):
    rule, number = goal.split()
    return _RULES[rule](value, float(number))


def cells(compared: dict) -> list[str]:
    """Returns the texts of a table's row: _COLUMNS."""
    middle = ["", ""]
    if "not_run" not in compared:
        values = [compared[name] for name in ("median", "min", "max")]
        median, spread = figures(values)
        middle = [f"{median} {compared['unit']}".strip(), spread]
    first = [compared["what"], compared["against"]]
    return [*first, *middle, compared["goal"], verdict(compared)]


def figures(values: Sequence[float], factor: float = 1) -> tuple[str, str]:
    """Returns the texts of a median and of a range, times a factor."""
    median, low, high = (written(factor * v) for v in summary(values).values())
    return median, f"{low}..{high}"


def written(value: float) -> str:
    """Returns a number with three digits that count, and no exponent."""
    if isinstance(value, int):
        return f"{value:,}"
    size = abs(value)
    digits = 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 0.1 else 4
    return f"{value:,.{digits}f}"


def print_table(title: str, comparisons: Iterable[dict]) -> None:
    """Prints comparisons as a table."""
    from atat_tf.runs import terminal

    rows = [cells(compared) for compared in comparisons]
    terminal.table(title, _COLUMNS, rows)
