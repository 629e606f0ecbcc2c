"""Comparisons of measured values with each other and with a goal.

A comparison has the median of the rounds, their range, and whether a goal like
"<= 1.10" is met. The form is the same for all benchmarks, so that
`benchmarks.run` can put them into one table. Functions are timed in turns, so
that whatever else the machine does meets all alike.
"""

import operator
import statistics
import time
from collections.abc import Callable, Iterable, Sequence

from atat_tf.runs import terminal

_RULES = {"<=": operator.le, ">=": operator.ge}
_COLUMNS = ("what", "against", "median", "range", "goal", "")


def round_robin(
    timed: dict[str, Callable], repeats: int
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Returns seconds by the clock and of processor, one of each a round.

    Processor seconds are this process's alone, over all of its threads: where
    other work shares the machine, their ratios can be trusted further.

    Args:
      timed: {name: function}; each runs once beforehand, untimed.
      repeats: number of rounds.

    Returns:
      {name: [seconds]} and {name: [processor seconds]}.
    """
    for function in timed.values():
        function()
    clock = {name: [] for name in timed}
    processor = {name: [] for name in timed}
    for _ in range(repeats):
        for name, function in timed.items():
            begin = time.perf_counter(), time.process_time()
            function()
            processor[name].append(time.process_time() - begin[1])
            clock[name].append(time.perf_counter() - begin[0])
    return clock, processor


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
        "median": statistics.median(values),
        "min": min(values),
        "max": max(values),
        "rounds": len(values),
        "unit": unit,
        "goal": goal,
    }


def not_run(what: str, reason: str) -> dict:
    """Returns the comparison that could not be made, and why."""
    return {"what": what, "against": "", "not_run": reason, "goal": ""}


def verdict(compared: dict) -> str:
    """Returns "met" or "not met" by the median, "stated", or why not run.

    A goal that the median meets and some round does not is "met, not in all
    rounds".
    """
    if "not_run" in compared:
        return f"NOT RUN: {compared['not_run']}"
    if not compared["goal"]:
        return "stated"
    rule, number = compared["goal"].split()
    median, *ends = (
        _RULES[rule](compared[name], float(number))
        for name in ("median", "min", "max")
    )
    if not median:
        return "not met"
    return "met" if all(ends) else "met, not in all rounds"


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
    ends = f"{written(factor * min(values))}..{written(factor * max(values))}"
    return written(factor * statistics.median(values)), ends


def written(value: float) -> str:
    """Returns a number with three digits that count, and no exponent."""
    size = abs(value)
    digits = 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 0.1 else 4
    return f"{value:,.{digits}f}"


def print_table(title: str, comparisons: Iterable[dict]) -> None:
    """Prints comparisons as a table."""
    rows = [cells(compared) for compared in comparisons]
    terminal.table(title, _COLUMNS, rows)
