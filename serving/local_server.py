"""Serves models as tensorflow_model_server does, from Python, on loopback.

  python -m serving.local_server --model_name=atat \\
      --model_base_path=$PWD/runs/demo/models/atat \\
      --port=8500 --rest_api_port=8501

The flags and configuration files are TF Serving's own. SIGTERM and Ctrl-C let
the calls under way end first.
"""

import logging
import signal
import sys
import threading

from atat_tf import __version__
from atat_tf.runs import command_line

from .server import config_files
from .server import flags as server_flags
from .status import StatusError

_FAILED_START = 255


def main(words):
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
        print(server_flags.unknown_words(unknown), file=sys.stderr)
    for name in server_flags.ignored(flags):
        print(f"--{name} has no effect here", file=sys.stderr)
    return _serve(flags)


def _serve(flags):
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    logging.basicConfig(
        format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO
    )
    # TensorFlow: not for --help. Without oneDNN, whose convolution gives no
    # images the wrong number of channels and so refuses an empty request.
    with command_line.quiet_start(onednn=False):
        from .server import server as server_lib
    try:
        server = server_lib.Server(flags)
    except (config_files.ConfigFileError, StatusError, OSError) as error:
        return _failed(error, _FAILED_START)
    for sentence in server.warnings:
        print(f"warning: {sentence}", file=sys.stderr)
    starting = _Starting(server)
    starting.start()
    # A signal must be able to end the wait for a first version.
    while starting.is_alive() and not stop.wait(0.05):
        pass
    if starting.error:
        server.stop(0)
        if not isinstance(starting.error, (StatusError, OSError)):
            raise starting.error  # a mistake in here, with its traceback
        return _failed(starting.error, _FAILED_START)
    if not stop.is_set():
        print(_greeting(flags, server), flush=True)
        stop.wait()
    print("Draining.", flush=True)
    server.stop()
    return 0


class _Starting(threading.Thread):
    """Starts a server; `error` is what went wrong."""

    def __init__(self, server):
        super().__init__(daemon=True)
        self._server = server
        self.error = None

    def run(self):
        try:
            self._server.start()
        except Exception as error:
            self.error = error


def _greeting(flags, server):
    places = []
    if server.port:
        places.append(f"gRPC on {flags.bind}:{server.port}")
    if flags.grpc_socket_path:
        places.append(f"gRPC on unix:{flags.grpc_socket_path}")
    if server.rest_port:
        places.append(f"REST on {flags.bind}:{server.rest_port}")
    return f"Serving {', '.join(places) or 'nothing: all ports are off'}."


def _failed(error, status):
    message = getattr(error, "message", None) or str(error)
    if isinstance(error, OSError):
        message = error.strerror or str(error)
    print(f"error: {message}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
