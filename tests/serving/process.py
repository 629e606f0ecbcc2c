"""The embedded server as a process of its own, for tests that try to break it.

What ends, grows or leaks there is the server, whatever the test itself does.
"""

import contextlib
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

_ROOT = pathlib.Path(__file__).parents[2]
_START_SECONDS = 120.0
_STOP_SECONDS = 60.0
# For measuring memory: has what is freed go back to the system at once, where
# glibc would keep some of it, and a changing amount.
FREEING = {
    "MALLOC_ARENA_MAX": "2",
    "MALLOC_MMAP_THRESHOLD_": "131072",
    "MALLOC_TRIM_THRESHOLD_": "131072",
}
_READINGS = 10
_BETWEEN_READINGS = 0.1  # seconds


class ServerProcess:
    """A running `python -m serving.local_server`.

    Attributes:
      target: where it speaks gRPC, as a client takes it.
      rest_port: where it speaks HTTP, on 127.0.0.1.
    """

    def __init__(self, process, folder, rest_port):
        self.target = f"unix:{folder / 'grpc'}"
        self.rest_port = rest_port
        self._process = process
        self._log = folder / "log"

    def is_alive(self):
        """Returns whether the process has not ended."""
        return self._process.poll() is None

    def log(self):
        """Returns what it wrote to standard error until now."""
        return self._log.read_text(errors="replace")

    def resident_mib(self):
        """Returns the memory that it occupies, in MiB.

        The least of a second: what a call still holds is not counted.
        """
        least = self._status("VmRSS")
        for _ in range(_READINGS):
            time.sleep(_BETWEEN_READINGS)
            least = min(least, self._status("VmRSS"))
        return least / 1024

    def threads(self):
        """Returns the number of its threads."""
        return self._status("Threads")

    def open_files(self):
        """Returns the number of its files and connections."""
        return len(list(self._proc().joinpath("fd").iterdir()))

    def stop(self):
        """Returns the exit status after a SIGTERM."""
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(_STOP_SECONDS)

    def _status(self, field):
        text = self._proc().joinpath("status").read_text()
        return int(re.search(rf"^{field}:\s+(\d+)", text, re.MULTILINE)[1])

    def _proc(self):
        return pathlib.Path("/proc", str(self._process.pid))


@contextlib.contextmanager
def started(*words, environment=FREEING, most_files=None):
    """Yields a ServerProcess whose models have loaded.

    Args:
      *words: flags that name the models, and others but those of the ports.
      environment: variables, added to the test's own.
      most_files: that it may open, as by `ulimit -n`.
    """
    with tempfile.TemporaryDirectory() as folder:
        folder, rest_port = pathlib.Path(folder), free_port()
        command = [sys.executable, "-m", "serving.local_server", "--port=0"]
        command += [f"--grpc_socket_path={folder / 'grpc'}"]
        command += [f"--rest_api_port={rest_port}", *words]
        if most_files:
            limit = f'ulimit -n {most_files}; exec "$@"'
            command = ["bash", "-c", limit, "bash", *command]
        with open(folder / "log", "wb") as log:
            process = subprocess.Popen(
                command,
                cwd=_ROOT,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, **environment},
            )
        server = ServerProcess(process, folder, rest_port)
        watch = threading.Timer(_START_SECONDS, process.kill)
        watch.start()
        try:
            greeting = process.stdout.readline()
            watch.cancel()
            if not greeting.startswith(b"Serving "):
                raise RuntimeError(f"the server did not start: {server.log()}")
            yield server
        finally:
            watch.cancel()
            process.kill()
            process.wait()
            process.stdout.close()


def free_port():
    """Returns a port of loopback that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]
