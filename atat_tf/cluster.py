"""Who the workers of a run on many machines are, from TF_CONFIG.

The environment enters; a Cluster leaves, of one worker where TF_CONFIG is not
set. Which of the others still answer is asked here too.
"""

import dataclasses
import json
import os
import re
import socket

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
