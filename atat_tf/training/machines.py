"""Who the workers of a run on many machines are, from TF_CONFIG.

The environment enters; a Cluster leaves, of one worker where TF_CONFIG is not
set. Which of the others still answer is asked here too.
"""

import contextlib
import dataclasses
import json
import os
import re
import socket
import sys
import threading
import time

import tensorflow as tf

from atat_tf.errors import InputError, expect

_FORM = (
    'TF_CONFIG as {"cluster": {"worker": ["host:port", ...]}, '
    '"task": {"type": "worker", "index": 0}}'
)
_JOBS = ("chief", "worker")


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The workers of a run; the first one, the chief, writes its files.

    Attributes:
      tasks: ((job, index, "host:port"), ...), the chief first; one where
        there is no cluster.
      mine: which of them this process is.
    """

    tasks: tuple[tuple[str, int, str], ...] = (("worker", 0, ""),)
    mine: int = 0

    @property
    def count(self):
        return len(self.tasks)

    @property
    def is_chief(self):
        return self.mine == 0

    def name(self, number):
        """Returns how sentences call a worker: "worker 1 (host:port)"."""
        job, index, address = self.tasks[number]
        return f"{job} {index} ({address})"

    def lost(self, timeout=2.0):
        """Returns the numbers of the others that nobody answers for.

        Args:
          timeout: seconds to wait for each.
        """
        lost = []
        for number, (_, _, address) in enumerate(self.tasks):
            host, _, port = address.rpartition(":")
            if number == self.mine:
                continue
            try:
                where = host.strip("[]"), int(port)
                socket.create_connection(where, timeout).close()
            except OSError:
                lost.append(number)
        return lost


def from_environment(environment=None):
    """Returns the Cluster that TF_CONFIG names.

    Args:
      environment: a mapping; None for this process's.

    Raises:
      InputError: TF_CONFIG is not what TensorFlow's workers are told by.
    """
    environment = os.environ if environment is None else environment
    text = environment.get("TF_CONFIG", "")
    if not text:
        return Cluster()
    try:
        values = json.loads(text)
    except ValueError as error:
        raise InputError(
            f"Expected {_FORM}. Received: {text[:80]!r} (no JSON: {error})."
        ) from None
    jobs, task = _sections(values)
    tasks = _tasks(jobs)
    kind, index = task.get("type"), task.get("index")
    mine = [n for n, (j, i, _) in enumerate(tasks) if (j, i) == (kind, index)]
    expect(
        mine and not isinstance(index, bool),
        "a TF_CONFIG task among "
        f"{', '.join(f'{job} {number}' for job, number, _ in tasks)}",
        type=kind,
        index=index,
    )
    return Cluster(tasks, mine[0])


def _sections(values):
    parts = []
    for name in ("cluster", "task"):
        part = values.get(name) if isinstance(values, dict) else None
        expect(isinstance(part, dict), _FORM, **{name: part})
        parts.append(part)
    return parts


def _tasks(jobs):
    expect(
        jobs and set(jobs) <= set(_JOBS),
        "jobs of TF_CONFIG among chief, worker",
        cluster=sorted(jobs),
    )
    tasks = []
    for job in _JOBS:
        addresses = jobs.get(job, [])
        expect(isinstance(addresses, list), _FORM, **{job: addresses})
        tasks += [(job, number, a) for number, a in enumerate(addresses)]
    expect(
        len(jobs.get("chief", [])) <= 1, "one chief", chief=jobs.get("chief")
    )
    for _, _, address in tasks:
        usable = isinstance(address, str) and re.fullmatch(
            r"(\[[0-9a-fA-F:.]+\]|[\w.-]+):\d{1,5}", address
        )
        port = int(address.rpartition(":")[2]) if usable else 0
        expect(
            0 < port < 2**16,
            "addresses of TF_CONFIG as host:port",
            address=address,
        )
    addresses = [address for _, _, address in tasks]
    expect(
        tasks and len(set(addresses)) == len(addresses),
        "a TF_CONFIG with an address of its own for each worker",
        addresses=addresses,
    )
    return tuple(tasks)


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
