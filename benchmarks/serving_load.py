"""What `benchmarks.serving` runs: servers, callers, and calls of known time.

The embedded server, an echo server and the callers over gRPC are processes of
their own, so that none of them waits for another's interpreter lock.
"""

import contextlib
import json
import os
import pathlib
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence

import grpc

_ROOT = pathlib.Path(__file__).resolve().parents[1]
_CALL_SECONDS = 120
_CHANNEL_OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),
)
_ECHO = "/echo.Echo/"


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
    errors = []
    end = time.perf_counter() + seconds

    def work(call, own):
        try:
            while (begin := time.perf_counter()) < end:
                call()
                own.append(time.perf_counter() - begin)
        except Exception as error:
            errors.append(error)

    threads = [
        threading.Thread(target=work, args=pair)
        for pair in zip(calls, latencies, strict=True)
    ]
    begin = time.perf_counter(), time.process_time()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return {
        "latencies": [one for own in latencies for one in own],
        "seconds": time.perf_counter() - begin[0],
        "processor": time.process_time() - begin[1],
    }


def echo_server() -> None:
    """Serves until standard input ends; prints the port.

    "/echo.Echo/N" answers N bytes to any request: what gRPC itself takes.
    """
    from concurrent import futures

    class Echo(grpc.GenericRpcHandler):
        def service(self, details):
            answer = bytes(int(details.method.removeprefix(_ECHO)))
            return grpc.unary_unary_rpc_method_handler(lambda *_: answer)

    server = grpc.server(
        futures.ThreadPoolExecutor(16), [Echo()], options=_CHANNEL_OPTIONS
    )
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    server.start()
    sys.stdin.read()
    server.stop(None)


def callers() -> None:
    """Makes the calls that lines of standard input order, as JSON.

    Each line: "target", "method", "payload" (a file), "clients", "seconds".
    Calls once on each connection, prints the length of an answer, waits for
    another line and prints what `timed_calls` returns.
    """
    channels = {}
    for line in sys.stdin:
        order = json.loads(line)
        payload = pathlib.Path(order["payload"]).read_bytes()
        calls = []
        for number in range(order["clients"]):
            key = order["target"], number
            if key not in channels:
                channels[key] = grpc.insecure_channel(key[0], _CHANNEL_OPTIONS)
            method = channels[key].unary_unary(order["method"])
            calls.append(_call(method, payload))
        lengths = {len(call()) for call in calls}
        print(max(lengths), flush=True)
        sys.stdin.readline()
        print(json.dumps(timed_calls(calls, order["seconds"])), flush=True)


def _call(method, payload):
    return lambda: method(payload, timeout=_CALL_SECONDS)


class Processes:
    """The processes of a benchmark; a context manager that ends them.

    Args:
      model_folder: folder of the versions to serve as "model".
    """

    def __init__(self, model_folder):
        self._stack = contextlib.ExitStack()
        folder = self._stack.enter_context(tempfile.TemporaryDirectory())
        self._folder = pathlib.Path(folder)
        self._model_folder = model_folder

    def __enter__(self):
        with self._stack:
            self._server, port = self._started_server()
            self._echo = self._own("echo_server")
            echo_port = int(self._echo.stdout.readline())
            self._callers = self._own("callers")
            self._targets = {
                True: (self._server.pid, f"127.0.0.1:{port}"),
                False: (self._echo.pid, f"127.0.0.1:{echo_port}"),
            }
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *details):
        return self._stack.__exit__(*details)

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
        method = "/tensorflow.serving.PredictionService/Predict"
        return self._timed(True, method, payload, clients, seconds)

    def echo(
        self, payload: bytes, answer: int, clients: int, seconds: float
    ) -> dict:
        """Returns the same for answers of so many bytes without content."""
        method = f"{_ECHO}{answer}"
        return self._timed(False, method, payload, clients, seconds)

    def _timed(self, is_served, method, payload, clients, seconds):
        pid, target = self._targets[is_served]
        path = self._folder / "payload"
        path.write_bytes(payload)
        order = {"target": target, "method": method, "payload": str(path)}
        order |= {"clients": clients, "seconds": seconds}
        answer = int(self._said(json.dumps(order)))
        before = _processor_seconds(pid)
        timed = json.loads(self._said("begin"))
        processor = _processor_seconds(pid) - before
        return {**timed, "processor": processor, "answer": answer}

    def _said(self, line):
        """Returns the line with which the callers answer a line."""
        self._callers.stdin.write(line + "\n")
        self._callers.stdin.flush()
        answer = self._callers.stdout.readline()
        if not answer:
            raise RuntimeError(f"the callers ended: {self._errors()}")
        return answer

    def _started_server(self):
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        server = self._process(
            ["-m", "serving.local_server", f"--port={port}"]
            + ["--model_name=model", f"--model_base_path={self._model_folder}"]
        )
        if not server.stdout.readline().startswith("Serving"):
            raise RuntimeError(f"the server did not start: {self._errors()}")
        return server, port

    def _own(self, name):
        code = f"from benchmarks import serving_load; serving_load.{name}()"
        return self._process(["-c", code])

    def _process(self, words):
        log = self._stack.enter_context(open(self._folder / "log", "a"))
        process = subprocess.Popen(
            [sys.executable, *words],
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        self._stack.callback(_end, process)
        return process

    def _errors(self):
        return (self._folder / "log").read_text()[-2000:]


def _end(process):
    process.kill()
    process.communicate()


def _processor_seconds(pid):
    """Returns what a process has used by now, in steps of 10 ms."""
    text = pathlib.Path("/proc", str(pid), "stat").read_text()
    # The command's name, in brackets, may hold anything.
    fields = re.sub(r"^.*\) ", "", text).split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
