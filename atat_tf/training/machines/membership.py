"""The workers of a training on many machines: who they are, who is lost.

`from_environment` reads TF_CONFIG, as TensorFlow's TFConfigClusterResolver
does, which refuses nothing. `watched` ends the process when a worker is lost.
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
from collections.abc import Iterable, Iterator, Mapping

import tensorflow as tf

from atat_tf.errors import InputError, expect

_FORM = (
    'TF_CONFIG as {"cluster": {"worker": ["host:port", ...]}, '
    '"task": {"type": "worker", "index": 0}}'
)
_JOBS = ("chief", "worker")
# That another worker has, before it counts as lost.
_SECONDS_TO_ANSWER = 2.0


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
    def count(self) -> int:
        return len(self.tasks)

    @property
    def is_chief(self) -> bool:
        return self.mine == 0

    def names(self, numbers: Iterable[int]) -> str:
        """Returns workers as sentences name them: "worker 1 (host:port)"."""
        tasks = (self.tasks[number] for number in numbers)
        return ", ".join(f"{job} {n} ({address})" for job, n, address in tasks)

    def lost(self) -> list[int]:
        """Returns the numbers of the other workers that do not answer."""
        lost = []
        for number, (_, _, address) in enumerate(self.tasks):
            host, _, port = address.rpartition(":")
            if number == self.mine:
                continue
            try:
                where = host.strip("[]"), int(port)
                socket.create_connection(where, _SECONDS_TO_ANSWER).close()
            except OSError:
                lost.append(number)
        return lost


def from_environment(environment: Mapping[str, str] | None = None) -> Cluster:
    """Returns the Cluster that TF_CONFIG names.

    Args:
      environment: a mapping; None for this process's.

    Raises:
      InputError: TF_CONFIG names no workers, or none that this process is.
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


# How often the others' addresses are tried; two failures in a row are a loss.
_LOOK_SECONDS = 4
# A worker that has noticed a loss stays for as long. If it left at once, the
# others would take it for the lost one.
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
def watched(cluster: Cluster) -> Iterator[None]:
    """Ends the process when another worker is lost, and says which.

    A thread notices a loss while this process communicates with nobody. All
    workers must pass a barrier before they leave the context.

    Args:
      cluster: one of a single worker is not watched.

    Raises:
      ConnectionError: a collective operation has failed, and a worker is lost.
    """
    if cluster.count == 1:
        yield
        return
    done = threading.Event()
    threading.Thread(target=_watch, args=(cluster, done), daemon=True).start()
    try:
        yield
    except LOSSES as error:
        done.set()
        if lost := _lost(cluster, error):
            raise ConnectionError(_sentence(cluster, lost)) from error
        raise
    finally:
        done.set()


def _watch(cluster, done):
    before: set[int] = set()
    while not done.wait(_LOOK_SECONDS):
        now = set(cluster.lost())
        lost, before = now & before, now
        # A main thread that waits for the others raises an error by itself.
        if lost and not done.wait(_LOOK_SECONDS):
            print(f"error: {_sentence(cluster, lost)}", file=sys.stderr)
            sys.stderr.flush()
            # No exception reaches a main thread that is inside TensorFlow.
            # This is like a kill, which the run's files survive.
            os._exit(1)


def _lost(cluster, error):
    """Returns the numbers of the workers that an error is about, if any."""
    if lost := cluster.lost():
        return lost
    # All answer: one hangs, or has been started again since.
    named = re.findall(r"/job:(\w+)/replica:0/task:(\d+)", str(error))
    return [
        number
        for number, (job, index, _) in enumerate(cluster.tasks)
        if (job, str(index)) in named and number != cluster.mine
    ]


def _sentence(cluster, lost):
    """Returns what happened, after _LINGER_SECONDS."""
    time.sleep(_LINGER_SECONDS)
    return (
        f"Expected all {cluster.count} workers to stay. Received: no answer "
        f"from {cluster.names(sorted(lost))}. The same command on every "
        "worker goes on from the last checkpoint."
    )
