"""Threads that do an event loop's blocking work, with a bounded queue."""

import asyncio
import concurrent.futures
import threading
import time

from ...status import StatusError


class WorkerThreads:
    """A number of threads, and a number of callers that may wait for one."""

    def __init__(self, num_threads, max_waiting):
        """Starts no thread before it is needed.

        Args:
          num_threads: >= 1.
          max_waiting: further callers are refused.
        """
        self._pool = concurrent.futures.ThreadPoolExecutor(
            num_threads, thread_name_prefix="rest"
        )
        self._places = num_threads + max_waiting
        self._taken = 0
        self._lock = threading.Lock()

    async def run(self, function, timeout_seconds):
        """Returns what `function` returns in a thread.

        Args:
          function: called with its deadline, a time of time.monotonic() or
            None. A call under way at the deadline goes on unattended, and
            keeps its place until it ends.
          timeout_seconds: None for no limit.

        Raises:
          StatusError: RESOURCE_EXHAUSTED if all places are taken,
            DEADLINE_EXCEEDED after `timeout_seconds`.
          Exception: what `function` raises.
        """
        deadline = timeout_seconds and time.monotonic() + timeout_seconds
        self._take_place()
        try:
            future = self._pool.submit(function, deadline)
        except RuntimeError:  # closed
            self._free_place(None)
            raise StatusError(
                "UNAVAILABLE", "The server is shutting down."
            ) from None
        future.add_done_callback(self._free_place)
        try:
            # Where it has not begun, this also takes it out of the queue.
            return await asyncio.wait_for(
                asyncio.wrap_future(future), timeout_seconds
            )
        except TimeoutError:
            raise timed_out() from None

    def in_progress(self):
        """Returns how many calls have a thread or wait for one."""
        return self._taken

    def close(self):
        """Drops the calls that wait; those under way end by themselves."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _take_place(self):
        with self._lock:
            if self._taken >= self._places:
                raise StatusError(
                    "RESOURCE_EXHAUSTED", "Server Threadpool Exhausted"
                )
            self._taken += 1

    def _free_place(self, _):
        with self._lock:
            self._taken -= 1


def timed_out():
    """Returns the StatusError of a call whose deadline has passed."""
    return StatusError(
        "DEADLINE_EXCEEDED", "Timed out waiting for notification"
    )


def seconds_left(deadline):
    """Returns the seconds until a time of time.monotonic(), None for None.

    Raises:
      StatusError: DEADLINE_EXCEEDED; it has passed.
    """
    if deadline is None:
        return None
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise timed_out()
    return seconds
