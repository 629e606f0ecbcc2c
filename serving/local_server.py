"""Serves models as tensorflow_model_server does, from Python, on loopback.

  atat serve --model_name=atat \\
      --model_base_path=$PWD/runs/demo/models/atat \\
      --port=8500 --rest_api_port=8501

The flags and configuration files are TF Serving's own. SIGTERM and Ctrl-C let
the calls under way end first.
"""

import asyncio
import logging
import os
import resource
import signal
import sys
import time
from collections.abc import Sequence

from atat_tf import __version__
from atat_tf.runs import command_line

from . import ports
from .server import config_files
from .server import flags as server_flags
from .status import StatusError

_FAILED_START = 255
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
# Files that a process has open beside its connections.
_OTHER_FILES = 224


def main(words: Sequence[str]) -> int:
    """Returns the exit status of a server run with a command line.

    Args:
      words: the command line without the command.
    """
    try:
        flags, unknown = server_flags.parse(words)
    except server_flags.FlagError as error:
        return _failed(error, 1)
    if flags.help:
        print(__doc__ + "\n" + server_flags.usage(), end="")
        return 0
    if flags.version:
        print(f"atat_tf embedded server {__version__}")
        return 0
    if unknown:
        print(f"unknown argument: {' '.join(unknown)}", file=sys.stderr)
    _limit_log()
    try:
        files = config_files.read_all(flags)
        for port in {flags.port, flags.rest_api_port} - {0}:
            ports.expect_free(flags.bind, port)
        _allow_files(flags.max_connections)
    except (config_files.ConfigFileError, StatusError, OSError) as error:
        return _failed(error, _FAILED_START)
    for sentence in warnings(flags, files):
        print(f"warning: {sentence}", file=sys.stderr)
    return asyncio.run(_serve(flags, files))


def warnings(flags, files) -> list[str]:
    """Returns sentences that the person who starts a server should read."""
    sentences = []
    is_open = flags.bind not in _LOOPBACK
    if is_open and flags.port and files.tls is None:
        sentences.append(
            f"gRPC is open on {flags.bind} without TLS: anybody who reaches "
            "the port can call and reconfigure this server."
        )
    if is_open and flags.rest_api_port:
        sentences.append(
            f"REST is open on {flags.bind}, which never has TLS here: put a "
            "proxy before it."
        )
    if files.metrics_path and not flags.rest_api_port:
        sentences.append(
            "Metrics are served on the REST port: --rest_api_port is off."
        )
    return sentences


async def _serve(flags, files):
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    # TensorFlow: not for --help. Without oneDNN, whose convolution gives no
    # images the wrong number of channels and so refuses an empty request.
    with command_line.quiet_start(onednn=False):
        from .server import server as server_lib
    server = server_lib.Server(flags, files)
    starting = asyncio.ensure_future(server.start())
    stopping = asyncio.ensure_future(stop.wait())
    # A signal must be able to end the wait for a first version.
    await asyncio.wait(
        (starting, stopping), return_when=asyncio.FIRST_COMPLETED
    )
    if starting.done() and starting.exception():
        await server.stop(0)
        error = starting.exception()
        if not isinstance(error, (StatusError, OSError)):
            raise error  # a mistake in here, with its traceback
        return _failed(error, _FAILED_START)
    if not stop.is_set():
        print(_greeting(flags, server), flush=True)
        await stopping
    starting.cancel()
    print("Draining.", flush=True)
    await server.stop()
    return 0


def _greeting(flags, server):
    places = []
    if server.port:
        places.append(f"gRPC on {flags.bind}:{server.port}")
    if flags.grpc_socket_path:
        places.append(f"gRPC on unix:{flags.grpc_socket_path}")
    if server.rest_port:
        places.append(f"REST on {flags.bind}:{server.rest_port}")
    return f"Serving {', '.join(places)}."


def _failed(error, status):
    message = getattr(error, "message", None) or str(error)
    if isinstance(error, OSError):
        message = error.strerror or str(error)
    print(f"error: {message}", file=sys.stderr)
    return status


def _allow_files(max_connections):
    """Raises OSError where the process may not open as many files."""
    needed = 2 * max_connections + _OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard not in (-1, resource.RLIM_INFINITY) and hard < needed:
        raise OSError(
            None,
            f"Expected --max_connections={(hard - _OTHER_FILES) // 2} or less "
            f"where `ulimit -n` is {hard}. Received: {max_connections}.",
        )
    if soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def _limit_log():
    """Logs to standard error, of each kind of message one in a second."""
    logging.basicConfig(
        format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO
    )
    last = {}

    def is_due(record):
        kind, now = (record.levelno, record.module, record.lineno), time.time()
        is_first = now - last.get(kind, 0.0) >= 1.0
        # What is said once is not said again when the second is over.
        is_alone = getattr(record, "is_said_once", False)
        if is_first or is_alone or record.levelno < logging.WARNING:
            last[kind] = now
            return True
        return False

    logging.getLogger().handlers[0].addFilter(is_due)


if __name__ == "__main__":
    exit_status = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    # Without waiting for threads: one may hang in a dead file system.
    os._exit(exit_status)
