"""Runs a command in this process, as `python -m NAME` would in another."""

import contextlib
import io
import runpy
import sys
from unittest import mock

# These define flags when they are first imported, and are to keep them.
import tensorflow_datasets  # noqa: F401
from absl import app
from absl.testing import flagsaver

from atat_tf.runs import command_line  # noqa: F401

app.define_help_flags()  # likewise


def run(name, *words):
    """Runs a command; its flags are gone afterwards.

    Args:
      name: of the module, as "atat_tf.report".
      *words: its flags.

    Returns:
      Exit status, and what it printed on both streams.
    """
    printed = io.StringIO()
    with (
        flagsaver.flagsaver(),
        mock.patch.object(sys, "argv", [name, *words]),
        contextlib.redirect_stdout(printed),
        contextlib.redirect_stderr(printed),
    ):
        try:
            runpy.run_module(name, run_name="__main__", alter_sys=True)
            status = 0
        except SystemExit as ended:
            status = ended.code or 0
    if isinstance(status, str):  # as sys.exit prints it
        return 1, f"{printed.getvalue()}{status}\n"
    return status, printed.getvalue()
