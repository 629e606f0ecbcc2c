"""Runs the benchmarks, each in a process of its own, and sums them up.

  python -m benchmarks.run
  python -m benchmarks.run --only=train_step,startup --json=FILE
  python -m benchmarks.run --quick

What fails or cannot be run here is "NOT RUN" with its reason, and the rest goes
on. At the end one table has every comparison: the median of its rounds, their
range, the goal, and whether it is met. The JSON has all figures and is written
anew after each benchmark. --quick takes the smallest sizes: it shows that all
of them work, and its figures mean nothing. Run it on a quiet machine: the load
before it is in the last line. The peers need their own environment (see
benchmarks/requirements.txt).
"""

import json
import os
import pathlib
import sys

from absl import app, flags

from benchmarks import command, ratios, suites, surroundings

# Of tables in a file, here and in the benchmarks' own processes.
_WIDTH = "160"

_ONLY = flags.DEFINE_list(
    "only", None, "names of benchmarks, comma-separated (default: all)"
)
_LIST = flags.DEFINE_bool("list", False, "only print what there is")
_QUICK = flags.DEFINE_bool("quick", False, "the smallest sizes")
_MINUTES = flags.DEFINE_float(
    "minutes", 120, "the most that one may take", lower_bound=0
)


def run(
    about: dict,
    chosen: list[suites.Suite],
    is_quick: bool,
    minutes: float,
    path: pathlib.Path | None,
) -> dict:
    """Returns the report: surroundings, and each suite's results by name.

    Args:
      about: the surroundings.
      chosen: Suites.
      is_quick: whether with their quick flags.
      minutes: after which one is stopped.
      path: of the JSON, written after each; None for none.
    """
    from atat_tf.runs import folder as run_folder
    from atat_tf.runs import terminal

    console = terminal.console()
    report = {"surroundings": about, "quick": is_quick, "suites": {}}
    for number, suite in enumerate(chosen, 1):
        words = " ".join(suite.words(is_quick))
        console.print(f"[{number}/{len(chosen)}] python {words}", markup=False)
        # The suite's own process writes to the same place.
        sys.stdout.flush()
        result = suites.run(suite, is_quick, minutes)
        report["suites"][suite.name] = result
        taken = terminal.duration(result["seconds"])
        reason = result.get("not_run")
        console.print(f"NOT RUN: {reason}" if reason else f"took {taken}")
        if path:
            with run_folder.replacing(path) as temporary:
                temporary.write_text(json.dumps(report, indent=2))
    return report


def print_report(report: dict) -> None:
    """Prints one table of all comparisons, and what they hold for."""
    rows = [
        compared
        for result in report["suites"].values()
        for compared in result["comparisons"]
    ]
    title = "All, --quick: the figures mean nothing" if report["quick"] else ""
    ratios.print_table(title or "All", rows)
    surroundings.print_sentences(report["surroundings"])


def main(argv: list[str]) -> None:
    about = command.begin_for_processes(argv)
    known = [suite.name for suite in suites.SUITES]
    names = _ONLY.value or known
    command.expect_names("names", names, known)
    chosen = [suite for suite in suites.SUITES if suite.name in names]
    if _LIST.value:
        from atat_tf.runs import terminal

        terminal.table(
            "Benchmarks",
            ("name", "what", "against", "goal", "python"),
            [
                (s.name, s.what, s.against, s.goal, " ".join(s.words(False)))
                for s in chosen
            ],
        )
        return
    if not sys.stdout.isatty():
        os.environ.setdefault("COLUMNS", _WIDTH)
    path = pathlib.Path(command.JSON.value) if command.JSON.value else None
    report = run(about, chosen, _QUICK.value, _MINUTES.value, path)
    print_report(report)
    if any("not_run" in result for result in report["suites"].values()):
        sys.exit(1)


if __name__ == "__main__":
    app.run(main)
