"""Calls a function in a new process, and reads a process's memory.

What a first call costs, and the most memory that it takes, is nobody else's
there.
"""

import multiprocessing
import pathlib
import re
import time
from collections.abc import Callable
from concurrent import futures

_STATUS = pathlib.Path("/proc/self/status")


def called(function: Callable[..., dict], **arguments: object) -> dict:
    """Returns what a function returns in a new process, and the process's time.

    Args:
      function: of a module; it returns a dictionary.
      **arguments: its own, plain values.

    Returns:
      The dictionary, with "process_seconds" from the start of the interpreter
      to its end.
    """
    begin = time.perf_counter()
    context = multiprocessing.get_context("spawn")
    with futures.ProcessPoolExecutor(1, context) as process:
        answer = process.submit(function, **arguments).result()
    return {**answer, "process_seconds": time.perf_counter() - begin}


def peak_bytes(function: Callable[[], object], calls: int) -> int:
    """Returns by how many bytes this process's memory was highest in calls."""
    before = _kilobytes("VmRSS")
    # Lets the high-water mark begin again at what there is now.
    pathlib.Path("/proc/self/clear_refs").write_text("5")
    for _ in range(calls):
        function()
    return 1024 * (_kilobytes("VmHWM") - before)


def _kilobytes(field):
    return int(re.search(rf"{field}:\s+(\d+) kB", _STATUS.read_text())[1])
