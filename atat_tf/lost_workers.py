"""What happens when a worker of a training is gone.

A Cluster enters; the process ends with one sentence that names who no longer
answers, whether it waits for the others at that moment or not.
"""

import contextlib
import os
import re
import sys
import threading
import time

import tensorflow as tf

# Its address is tried so often; two failures in a row count.
_LOOK_SECONDS = 4
# Who has noticed a loss stays for a while, so that the others, when they
# look, find the right worker missing.
_LINGER_SECONDS = 2 * _LOOK_SECONDS + 4
# What collectives raise when a worker goes away.
LOSSES = (
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.FailedPreconditionError,
    tf.errors.InternalError,
    tf.errors.UnavailableError,
    tf.errors.UnknownError,
)


@contextlib.contextmanager
def watched(members):
    """Ends the process when another worker is gone, with a sentence on whom.

    All workers leave the context together. A loss during long work of this
    process alone is noticed by a thread.

    Args:
      members: Cluster; of one worker nothing is watched.

    Raises:
      ConnectionError: a collective operation has failed with a worker.
    """
    if members.count == 1:
        yield
        return
    done = threading.Event()
    threading.Thread(target=_watch, args=(members, done), daemon=True).start()
    try:
        yield
    except LOSSES as error:
        done.set()
        if gone := _gone(members, error):
            raise ConnectionError(_sentence(members, gone)) from error
        raise
    finally:
        done.set()


def _watch(members, done):
    before = set()
    while not done.wait(_LOOK_SECONDS):
        lost = set(members.lost())
        gone, before = lost & before, lost
        # Where the main thread waits for the others it notices by itself.
        if gone and not done.wait(_LOOK_SECONDS):
            print(f"error: {_sentence(members, gone)}", file=sys.stderr)
            sys.stderr.flush()
            # Like a kill, which the files are made for: the main thread may
            # be anywhere, and cannot be told.
            os._exit(1)


def _gone(members, error):
    """Returns the numbers of the workers that an error is about, if any."""
    if lost := members.lost():
        return lost
    # All answer: one hangs, or was started again since.
    named = re.findall(r"/job:(\w+)/replica:0/task:(\d+)", str(error))
    return [
        number
        for number, (job, index, _) in enumerate(members.tasks)
        if (job, str(index)) in named and number != members.mine
    ]


def _sentence(members, gone):
    """Returns what happened; takes its time, see _LINGER_SECONDS."""
    time.sleep(_LINGER_SECONDS)
    return (
        f"Expected all {members.count} workers to stay. Received: no answer "
        f"from {', '.join(members.name(number) for number in sorted(gone))}. "
        "The same command on every worker goes on from the last checkpoint."
    )
