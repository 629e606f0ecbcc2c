"""How every benchmark that runs TensorFlow begins."""

import logging
import os
import sys

from benchmarks.peers import process as peers


def begin(argv, onednn=None):
    """Refuses words that are no flags, and loads TensorFlow quietly.

    Called by a main, so that --help needs no TensorFlow.

    Args:
      argv: of the main.
      onednn: whether TensorFlow has oneDNN's kernels; None as in commands.
    """
    expect_flags_only(argv)
    if onednn is not None:
        os.environ.update(peers.environment(onednn))
    # Here, because it brings other commands' flags along.
    from atat_tf.runs import command_line

    with command_line.quiet_start():
        import tensorflow  # noqa: F401
    logging.getLogger().setLevel(logging.WARNING)


def begin_for_processes(argv):
    """The same for a main that leaves TensorFlow to processes of its own.

    They have oneDNN's kernels as commands do.
    """
    expect_flags_only(argv)
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")


def expect_flags_only(argv):
    """Ends the process with a sentence where there are other words."""
    if len(argv) > 1:
        sys.exit(f"error: expected flags only. Received: {argv[1:]}.")
