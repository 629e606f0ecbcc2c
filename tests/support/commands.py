"""Runs a command in this process, as `python -m NAME` would in another."""

import contextlib
import io
import runpy
import sys
from unittest import mock

# These define flags when they are first imported, and are to keep them.
import tensorflow_datasets  # noqa: F401
from absl import app, flags
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
        _without_flags_of_commands(),
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


@contextlib.contextmanager
def _without_flags_of_commands():
    """Sets aside what commands that tests have imported define.

    Two commands may have a flag of one name, which a process has once.
    """
    defined = flags.FLAGS.flags_by_module_dict()
    aside = {
        flag.name: (module, flag)
        for module, its in defined.items()
        if module.startswith(("atat_tf.", "serving."))
        and module != command_line.__name__
        for flag in its
    }
    for name in aside:
        delattr(flags.FLAGS, name)
    try:
        yield
    finally:
        for name, (module, flag) in aside.items():
            flags.FLAGS[name] = flag
            flags.FLAGS.register_flag_by_module(module, flag)
