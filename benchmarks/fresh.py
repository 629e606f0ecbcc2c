"""Functions of `benchmarks.fresh_work`, each called in a new process.

What a first call costs, and the most memory that it takes, is nobody else's
there.
"""

import json
import os
import pathlib
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]


def called(name: str, **arguments: object) -> dict:
    """Returns what a function of `fresh_work` returns, and the process's time.

    Args:
      name: of the function; it returns a dictionary.
      **arguments: its own, plain values.

    Returns:
      The dictionary, with "process_seconds" from the start of the interpreter
      to its end.

    Raises:
      RuntimeError: the process failed; the message is its last line.
    """
    code = (
        "import json; from benchmarks import fresh_work; "
        f"print(json.dumps(fresh_work.{name}(**{arguments!r})))"
    )
    begin = time.perf_counter()
    ran = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
    )
    seconds = time.perf_counter() - begin
    if ran.returncode:
        last = (ran.stderr.strip().splitlines() or [""])[-1]
        raise RuntimeError(f"{name} ended with {ran.returncode}: {last}")
    answer = json.loads(ran.stdout.splitlines()[-1])
    return {**answer, "process_seconds": seconds}


def over_activations(large: dict, small: dict) -> float:
    """Returns how many times the activations' size memory grows.

    Args:
      large, small: {"peak_bytes", "activation_bytes"} at two batch sizes.
    """
    grown = large["peak_bytes"] - small["peak_bytes"]
    return grown / (large["activation_bytes"] - small["activation_bytes"])
