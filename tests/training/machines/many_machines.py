"""Several processes on loopback, each told by TF_CONFIG which worker it is."""

import json
import os
import socket
import subprocess
import time

from tests.support import runs


def addresses(count):
    """Returns addresses on loopback that nobody listens at."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    found = [f"127.0.0.1:{one.getsockname()[1]}" for one in held]
    for one in held:
        one.close()
    return found


def environment(all_addresses, number):
    """Returns this process's environment with TF_CONFIG of one worker."""
    config = {
        "cluster": {"worker": all_addresses},
        "task": {"type": "worker", "index": number},
    }
    return {
        **os.environ,
        "TF_CONFIG": json.dumps(config),
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }


def start(commands):
    """Starts one worker for each list of words; returns the processes."""
    where = addresses(len(commands))
    return [
        subprocess.Popen(
            words,
            cwd=runs.ROOT,
            env=environment(where, number),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for number, words in enumerate(commands)
    ]


def finish(processes, timeout=300):
    """Waits for processes; returns [(exit status, what it printed)].

    Raises:
      subprocess.TimeoutExpired: together they took longer; all are killed.
    """
    ends = time.monotonic() + timeout
    try:
        outputs = [
            process.communicate(timeout=max(ends - time.monotonic(), 0.1))[0]
            for process in processes
        ]
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
                process.wait()
    statuses = [process.returncode for process in processes]
    return list(zip(statuses, outputs, strict=True))
