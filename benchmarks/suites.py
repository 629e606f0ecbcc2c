"""The benchmarks that `benchmarks.run` goes through, as data, and one's run.

A suite is a module with its flags; it runs in a process of its own and writes
its comparisons (see `ratios`) as JSON.
"""

import dataclasses
import json
import pathlib
import subprocess
import sys
import tempfile
import time

from benchmarks import fresh, ratios

_TINY = ("--depth=10", "--width=1", "--batch_size=8", "--repeats=1")
_TINY_ATTACK = ("--num_images=16", "--batch_size=8", "--num_steps=2")


@dataclasses.dataclass(frozen=True)
class Suite:
    """One benchmark.

    Attributes:
      name: by which it is chosen.
      what: is measured.
      against: what.
      goal: in words.
      module: to run, as after `python -m`.
      flags: of the module.
      quick: flags after these, for the smallest run that says anything at all.
    """

    name: str
    what: str
    against: str
    goal: str
    module: str
    flags: tuple[str, ...] = ()
    quick: tuple[str, ...] = ()

    def words(self, is_quick: bool) -> list[str]:
        """Returns the words after `python`."""
        more = self.quick if is_quick else ()
        return ["-m", self.module, *self.flags, *more]


SUITES = (
    Suite(
        "train_step",
        "ATAT training step, WRN-16-1",
        "the sum of its unavoidable passes; the AT step",
        "<= 1.10; <= 1.15",
        "benchmarks.train_step",
        ("--depth=16", "--width=1"),
        _TINY,
    ),
    Suite(
        "train_step_wide",
        "ATAT training step, WRN-16-4",
        "the sum of its unavoidable passes; the AT step",
        "<= 1.10; <= 1.15",
        "benchmarks.train_step",
        ("--depth=16", "--width=4"),
        _TINY,
    ),
    Suite(
        "training_peers",
        "ATAT training step, WRN-16-1 and WRN-16-4, images/s at equal passes",
        "CleverHans, ART, a plain PyTorch loop",
        ">= 1.3 x the fastest",
        "benchmarks.peers.training_steps",
        (),
        ("--networks=10-1", "--batch_size=8", "--num_steps=2", "--repeats=1"),
    ),
    Suite(
        "attacks",
        "PGD-20 evaluation",
        "CleverHans, Foolbox, ART, torchattacks",
        ">= 2 x the fastest",
        "benchmarks.attacks",
        (),
        (*_TINY_ATTACK, "--repeats=1"),
    ),
    Suite(
        "autoattack",
        "AutoAttack, standard",
        "torchattacks",
        ">= 2 x, within 1 point",
        "benchmarks.peers.autoattack_parity",
        ("--cases=robust", "--attacks=standard", "--repeats=5"),
        # The least that APGD takes.
        (*_TINY_ATTACK, "--num_steps=4", "--num_queries=10", "--repeats=1"),
    ),
    Suite(
        "autoattack_art",
        "AutoAttack, standard",
        "ART",
        ">= 3 x, within 1 point",
        "benchmarks.peers.autoattack_parity",
        ("--cases=robust", "--attacks=standard", "--peer=art", "--repeats=5"),
        # ART's own has no number of steps.
        ("--num_images=2", "--batch_size=2", "--num_steps=4", "--repeats=1"),
    ),
    Suite(
        "serving",
        "exported predict with attention; the embedded server",
        "without attention; in process and an empty echo",
        "<= 1.10; added p50 <= 2 ms, rate >= 0.9 x",
        "benchmarks.serving",
        (),
        ("--batch=1", "--clients=1", "--repeats=3", "--seconds=0.05"),
    ),
    Suite(
        "startup",
        "--help; first training step and first evaluation batch, WRN-34-10",
        "",
        "<= 1 s; <= 30 s; <= 15 s",
        "benchmarks.startup",
        (),
        ("--parts=help", "--commands=serving.client", "--repeats=1"),
    ),
    Suite(
        "memory",
        "peak memory of a training step and of its attack",
        "the activations' own size",
        "stated",
        "benchmarks.memory",
        (),
        (*_TINY, "--small_batch_size=2"),
    ),
)


def run(suite: Suite, is_quick: bool, minutes: float) -> dict:
    """Returns what a suite found; what it prints goes to standard output.

    Args:
      suite: Suite.
      is_quick: whether with its quick flags.
      minutes: after which it is stopped.

    Returns:
      Dictionary: "command", "seconds", "comparisons", "figures" (all that the
      suite wrote), and "not_run" with the reason where it failed.
    """
    words = suite.words(is_quick)
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "figures.json")
        reason = _reason(
            [sys.executable, *words, f"--json={path}"], minutes, folder
        )
        figures = json.loads(path.read_text()) if path.exists() else {}
    result = {
        "command": " ".join(["python", *words]),
        "seconds": time.perf_counter() - begin,
        "comparisons": figures.pop("comparisons", []),
        "figures": figures,
    }
    if reason:
        result["not_run"] = reason
        result["comparisons"].append(
            ratios.not_run(suite.what, suite.against, reason)
        )
    return result


def _reason(command, minutes, folder):
    """Returns why a command failed, "" where it did not."""
    with open(pathlib.Path(folder, "errors"), "w+") as errors:
        try:
            ran = subprocess.run(
                command, cwd=fresh.ROOT, stderr=errors, timeout=60 * minutes
            )
        except subprocess.TimeoutExpired:
            return f"it took more than {minutes:g} minutes"
        if not ran.returncode:
            return ""
        errors.seek(0)
        lines = errors.read().strip().splitlines()
    # What absl writes behind the error of a flag.
    lines = [line for line in lines if not line.startswith("Pass --help")]
    last = lines[-1].strip() if lines else ""
    last = last.removeprefix("error: ").removeprefix("NOT RUN: ")
    return last or f"it ended with {ran.returncode}"
