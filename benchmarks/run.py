"""Runs the benchmarks, each in a process of its own, and sums them up.

  python -m benchmarks.run
  python -m benchmarks.run --only=train_step,startup --json=FILE
  python -m benchmarks.run --quick

What fails or cannot be run here is "NOT RUN" with its reason, and the rest goes
on. At the end one table has every comparison: the median of its rounds, their
range, the goal, and whether it is met. The JSON has all figures and is written
anew after each benchmark. --quick takes the smallest sizes: it shows that all
of them work, and its figures mean nothing. Run it on a quiet machine: the load
before it is in the last lines. `attacks` needs an interpreter that has
pyautoattack, .venv-peers/bin/python (see benchmarks/requirements.txt).
"""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

from absl import flags

from atat_tf.runs import command_line, terminal
from benchmarks import command, ratios

# Of tables in a file, here and in the benchmarks' own processes.
_WIDTH = "160"
_TINY = ("--depth=10", "--width=1", "--batch_size=8", "--repeats=1")


@dataclasses.dataclass(frozen=True)
class Suite:
    """A benchmark of this folder, run with certain flags.

    Attributes:
      module: to run, as after `python -m`.
      flags: of the module.
      quick: flags after these, for the smallest run that says anything at all.
    """

    module: str
    flags: tuple[str, ...] = ()
    quick: tuple[str, ...] = ()

    def words(self, is_quick: bool) -> list[str]:
        """Returns the words after `python`."""
        more = self.quick if is_quick else ()
        return ["-m", self.module, *self.flags, *more]


SUITES = {
    "train_step": Suite(
        "benchmarks.train_step", ("--depth=16", "--width=1"), _TINY
    ),
    "train_step_wide": Suite(
        "benchmarks.train_step", ("--depth=16", "--width=4"), _TINY
    ),
    "attacks": Suite(
        "benchmarks.attacks",
        ("--attacks=standard",),
        # The least that APGD takes.
        ("--num_images=16", "--batch_size=8", "--repeats=1")
        + ("--num_steps=4", "--num_queries=10"),
    ),
    "serving": Suite(
        "benchmarks.serving",
        (),
        ("--batch=1", "--clients=1", "--repeats=3", "--seconds=0.05"),
    ),
    "startup": Suite(
        "benchmarks.startup",
        (),
        ("--parts=help", "--commands=serving.client", "--repeats=1"),
    ),
    "pipeline": Suite("benchmarks.pipeline", (), (*_TINY, "--batches=2")),
    "memory": Suite("benchmarks.memory", (), (*_TINY, "--small_batch_size=2")),
}

flags.adopt_module_key_flags(command)
_ONLY = flags.DEFINE_list("only", list(SUITES), "which, comma-separated")
_QUICK = flags.DEFINE_bool("quick", False, "the smallest sizes")
_MINUTES = flags.DEFINE_float(
    "minutes", 120, "the most that one may take", lower_bound=0
)


def run(
    suite: Suite, is_quick: bool, minutes: float, environment: dict[str, str]
) -> dict:
    """Returns what a suite found; what it prints goes to standard output.

    Args:
      suite: Suite.
      is_quick: whether with its quick flags.
      minutes: after which it is stopped.
      environment: variables of its process.

    Returns:
      Dictionary: "command", "seconds", "comparisons", "figures" (all that the
      suite wrote), and "not_run" with the reason where it failed.
    """
    words = suite.words(is_quick)
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "figures.json")
        reason = _reason([*words, f"--json={path}"], minutes, environment)
        figures = json.loads(path.read_text()) if path.exists() else {}
    result = {
        "command": " ".join(["python", *words]),
        "seconds": time.perf_counter() - begin,
        "comparisons": figures.pop("comparisons", []),
        "figures": figures,
    }
    if reason:
        result["not_run"] = reason
        result["comparisons"].append(ratios.not_run(suite.module, reason))
    return result


def _reason(words, minutes, environment):
    """Returns why a command failed, "" where it did not."""
    with tempfile.TemporaryFile("w+") as errors:
        try:
            ran = subprocess.run(
                [sys.executable, *words],
                cwd=command.ROOT,
                env=environment,
                stderr=errors,
                timeout=60 * minutes,
            )
        except subprocess.TimeoutExpired:
            return f"it took more than {minutes:g} minutes"
        if not ran.returncode:
            return ""
        errors.seek(0)
        lines = errors.read().strip().splitlines() or ["nothing"]
    return lines[-1].strip().removeprefix("error: ")


def main(argv: list[str]) -> None:
    del argv
    command.expect_names("--only", _ONLY.value, SUITES)
    if not sys.stdout.isatty():
        os.environ.setdefault("COLUMNS", _WIDTH)
    # Each benchmark chooses its own kernels, as a command of its own would.
    environment = dict(os.environ)
    report = {"surroundings": command.begin(), "comparisons": [], "suites": {}}
    for number, name in enumerate(_ONLY.value, 1):
        words = " ".join(SUITES[name].words(_QUICK.value))
        # The suite's own process writes to the same place.
        print(f"[{number}/{len(_ONLY.value)}] python {words}", flush=True)
        chosen = SUITES[name], _QUICK.value, _MINUTES.value
        result = run(*chosen, environment)
        report["suites"][name] = result
        report["comparisons"] += result["comparisons"]
        command.write(report)
        taken = f"took {terminal.duration(result['seconds'])}"
        reason = result.get("not_run")
        print(f"NOT RUN: {reason}" if reason else taken)
    title = "All, --quick: the figures mean nothing" if _QUICK.value else "All"
    command.finish(title, report)
    if any("not_run" in result for result in report["suites"].values()):
        sys.exit(1)


if __name__ == "__main__":
    command_line.run(main, recipes=False)
