"""What `benchmarks.serving` runs: servers, callers, and calls of known time.

The embedded server, an echo server and the callers over gRPC are processes of
their own, so that none of them waits for another's interpreter lock.
"""

import contextlib
import multiprocessing
import os
import pathlib
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent import futures

import grpc

from benchmarks import command

_CALL_SECONDS = 120
_CHANNEL_OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),
)
_ECHO = "/echo.Echo/"
_PREDICT = "/tensorflow.serving.PredictionService/Predict"
# What a process of this module keeps from one call of it to the next.
_kept = {}


def timed_calls(calls: Sequence[Callable], seconds: float) -> dict:
    """Returns how long calls took, made by as many threads at a time.

    Args:
      calls: functions without argument, one for each thread, each called
        again and again.
      seconds: after which none is called any more.

    Returns:
      Dictionary: "latencies", the seconds of each call; "seconds", until the
      last one had ended; "processor", this process's processor seconds.
    """
    latencies = [[] for _ in calls]
    end = time.perf_counter() + seconds

    def work(call, own):
        while (begin := time.perf_counter()) < end:
            call()
            own.append(time.perf_counter() - begin)

    begin = time.perf_counter(), time.process_time()
    with futures.ThreadPoolExecutor(len(calls)) as threads:
        list(threads.map(work, calls, latencies))
    return {
        "latencies": [one for own in latencies for one in own],
        "seconds": time.perf_counter() - begin[0],
        "processor": time.process_time() - begin[1],
    }


def echo_started() -> tuple[int, int]:
    """Starts an echo server in this process; returns its pid and port.

    "/echo.Echo/N" answers N bytes to any request: what gRPC itself takes.
    """

    class Echo(grpc.GenericRpcHandler):
        def service(self, details):
            answer = bytes(int(details.method.removeprefix(_ECHO)))
            return grpc.unary_unary_rpc_method_handler(lambda *_: answer)

    server = grpc.server(
        futures.ThreadPoolExecutor(16), [Echo()], options=_CHANNEL_OPTIONS
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    _kept["server"] = server
    return os.getpid(), port


def calls_of(target: str, method: str, payload: bytes, clients: int) -> int:
    """Prepares calls in this process, each client on a connection of its own.

    Args:
      target: address.
      method: full name.
      payload: the request's bytes.
      clients: how many.

    Returns:
      The length of an answer: each connection is called once.
    """
    calls = []
    for number in range(clients):
        if (target, number) not in _kept:
            channel = grpc.insecure_channel(target, _CHANNEL_OPTIONS)
            _kept[target, number] = channel
        calls.append(_call(_kept[target, number].unary_unary(method), payload))
    _kept["calls"] = calls
    return max(len(call()) for call in calls)


def timed_prepared(seconds: float) -> dict:
    """Returns `timed_calls` of what `calls_of` has prepared last."""
    return timed_calls(_kept["calls"], seconds)


def _call(method, payload):
    return lambda: method(payload, timeout=_CALL_SECONDS)


class Processes:
    """The processes of a benchmark; a context manager that ends them.

    Args:
      model_folder: folder of the versions to serve as "model".
    """

    def __init__(self, model_folder: str) -> None:
        self._model_folder = model_folder

    def __enter__(self) -> "Processes":
        with contextlib.ExitStack() as stack:
            self._server = self._started_server(stack)
            self._echo = self._own_process(stack).submit(echo_started).result()
            self._callers = self._own_process(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def predict(self, payload: bytes, clients: int, seconds: float) -> dict:
        """Returns what Predict calls of the embedded server took.

        Args:
          payload: a PredictRequest's bytes.
          clients: how many call at a time, each on a connection of its own.
          seconds: how long.

        Returns:
          As `timed_calls`, with the server's processor seconds; and "answer",
          the length of an answer.
        """
        return self._timed(self._server, _PREDICT, payload, clients, seconds)

    def echo(
        self, payload: bytes, answer: int, clients: int, seconds: float
    ) -> dict:
        """Returns the same for answers of so many bytes without content."""
        method = f"{_ECHO}{answer}"
        return self._timed(self._echo, method, payload, clients, seconds)

    def _timed(self, server, method, payload, clients, seconds):
        pid, port = server
        given = f"127.0.0.1:{port}", method, payload, clients
        answer = self._callers.submit(calls_of, *given).result()
        before = _processor_seconds(pid)
        timed = self._callers.submit(timed_prepared, seconds).result()
        processor = _processor_seconds(pid) - before
        return {**timed, "processor": processor, "answer": answer}

    def _own_process(self, stack):
        context = multiprocessing.get_context("spawn")
        return stack.enter_context(futures.ProcessPoolExecutor(1, context))

    def _started_server(self, stack):
        """Returns the pid and the port of the embedded server."""
        log = stack.enter_context(tempfile.TemporaryFile("w+"))
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        server = subprocess.Popen(
            [sys.executable, "-m", "serving.local_server", f"--port={port}"]
            + ["--model_name=model", f"--model_base_path={self._model_folder}"],
            cwd=command.ROOT,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        stack.callback(server.communicate)
        stack.callback(server.kill)
        if not server.stdout.readline().startswith("Serving"):
            log.seek(0)
            raise RuntimeError(f"the server did not start: {log.read()}")
        return server.pid, port


def _processor_seconds(pid):
    """Returns what a process has used by now, in steps of 10 ms."""
    text = pathlib.Path("/proc", str(pid), "stat").read_text()
    # The command's name, in brackets, may hold anything.
    fields = re.sub(r"^.*\) ", "", text).split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
