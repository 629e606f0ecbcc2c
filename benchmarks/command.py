"""How every benchmark begins and how it ends."""

import contextlib
import json
import logging
import os
import pathlib
import sys
from collections.abc import Iterable, Sequence

from absl import flags

from benchmarks import ratios, surroundings

JSON = flags.DEFINE_string("json", None, "file for all of the figures")


def environment(onednn: bool) -> dict[str, str]:
    """Returns the variables of a process: oneDNN in TensorFlow on or off.

    TensorFlow leaves it off on processors without AVX-512.
    """
    return {
        "TF_ENABLE_ONEDNN_OPTS": "1" if onednn else "0",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        # OpenMP threads that wait would take turns with those that work.
        "OMP_WAIT_POLICY": "PASSIVE",
    }


def begin(argv: Sequence[str], onednn: bool | None = None) -> dict:
    """Refuses words that are no flags, and loads TensorFlow quietly.

    Called by a main, so that --help needs no TensorFlow.

    Args:
      argv: of the main.
      onednn: whether TensorFlow has oneDNN's kernels; None as in commands.

    Returns:
      The surroundings, before anything is measured.
    """
    expect_flags_only(argv)
    if onednn is None:
        # Here, because it brings other commands' flags along.
        from atat_tf.runs import command_line

        start = command_line.quiet_start()
    else:
        os.environ.update(environment(onednn))
        start = contextlib.nullcontext()
    with start:
        import tensorflow  # noqa: F401
    logging.getLogger().setLevel(logging.WARNING)
    return surroundings.surroundings()


def begin_for_processes(argv: Sequence[str]) -> dict:
    """The same for a main that leaves TensorFlow to processes of its own.

    They have oneDNN's kernels as commands do.
    """
    expect_flags_only(argv)
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    return surroundings.surroundings()


def expect_flags_only(argv: Sequence[str]) -> None:
    """Ends the process with a sentence where there are other words."""
    if len(argv) > 1:
        sys.exit(f"error: Expected flags only. Received: {argv[1:]}.")


def expect_names(what: str, names: Iterable[str], known: Iterable[str]) -> None:
    """Ends the process with a sentence where a name is none of the known."""
    if unknown := {*names} - {*known}:
        sys.exit(
            f"error: Expected {what} among {', '.join(known)}. Received: "
            f"{', '.join(sorted(unknown))}."
        )


def finish(title: str, results: dict) -> None:
    """Prints the comparisons and what they hold for; writes --json.

    Args:
      title: of the table.
      results: ready for JSON, with "comparisons", see `ratios`, and
        "surroundings".
    """
    ratios.print_table(title, results["comparisons"])
    surroundings.print_sentences(results["surroundings"])
    if JSON.value:
        pathlib.Path(JSON.value).write_text(json.dumps(results, indent=2))
