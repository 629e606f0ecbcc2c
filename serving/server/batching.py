"""Runs calls in a few threads, and together those that wait for a thread.

A call that finds a thread free runs at once; a thread that becomes free takes
all the calls of one kind that wait. So calls are merged exactly when there are
more of them than threads, and none waits for a timer.
"""

import asyncio
import collections
import dataclasses
import threading
import time
from collections.abc import Callable, Hashable, Sequence

import numpy as np

from ..status import StatusError, invalid
from . import threads

# Rows that are run together where no batching file says how many.
_MERGED_ROWS = 64


@dataclasses.dataclass(frozen=True)
class BatchingOptions:
    """TensorFlow Serving's BatchingParameters; the defaults are ours.

    Attributes:
      max_batch_size: the most rows that one call may have; None: no limit.
      max_execution_batch_size: the most rows that run together.
      splits: whether a call with more rows than that is cut, and waits anew
        after each cut, so that others have their turn.
    """

    max_batch_size: int | None = None
    max_execution_batch_size: int = _MERGED_ROWS
    splits: bool = True


@dataclasses.dataclass(eq=False)
class Call:
    """One call on its way through a session.

    Attributes:
      kind: equal for calls that may run together; None: it runs alone.
      run: (feeds, timeout in seconds or None) -> list of arrays.
      feeds: {tensor name: array}.
      finish: list of arrays -> answer; runs in the thread.
      deadline: a time of time.monotonic(), or None.
      rows: of the feeds; 0 for a call that runs alone, as it is.
      is_whole: whether it is not to be cut: its outputs do not have a row for
        each row.
    """

    kind: Hashable
    run: Callable
    feeds: dict[str, np.ndarray]
    finish: Callable[[list[np.ndarray]], object]
    deadline: float | None = None
    rows: int = dataclasses.field(init=False, default=0)
    is_whole: bool = dataclasses.field(init=False, default=False)
    future: asyncio.Future | None = dataclasses.field(init=False, default=None)
    parts: list = dataclasses.field(init=False, default_factory=list)
    has_left: bool = dataclasses.field(init=False, default=False)

    def run_first(self, rows: int) -> None:
        """Runs so many rows; what is left are the others."""
        first = {name: array[:rows] for name, array in self.feeds.items()}
        outputs = self.run(first, self.remaining())
        if not self.parts and not _have_rows(outputs, rows):
            self.is_whole = True
            return
        self.parts.append(outputs)
        self.feeds = {name: array[rows:] for name, array in self.feeds.items()}
        self.rows -= rows

    def answer(self, outputs: list[np.ndarray]) -> object:
        """Returns the answer, given the outputs of the last rows.

        Raises:
          StatusError: FAILED_PRECONDITION; parts have no row for each row.
        """
        if self.parts:
            _expect_rows(outputs, self.rows)
            parts = zip(*self.parts, outputs, strict=True)
            outputs = [np.concatenate(part) for part in parts]
        return self.finish(outputs)

    def remaining(self) -> float | None:
        """Returns the seconds that are left, or None for no limit."""
        if self.deadline is None:
            return None
        return self.deadline - time.monotonic()


class Runners:
    """A number of threads, and the calls that wait for one."""

    def __init__(
        self,
        count: int,
        options: BatchingOptions | None,
        loop: asyncio.AbstractEventLoop,
    ):
        """Starts the threads.

        Args:
          count: of threads, and so of sessions that run at a time.
          options: of batching; None: every call runs alone.
          loop: which `submit` is called in.
        """
        self._options = options or BatchingOptions()
        self._merges = options is not None
        self._loop = loop
        self._waiting = collections.OrderedDict()  # kind -> deque of Calls
        self._changed = threading.Condition()
        self._is_closed = False
        for number in range(count):
            threading.Thread(
                target=self._work, name=f"runner-{number}", daemon=True
            ).start()

    def submit(self, call: Call) -> asyncio.Future:
        """Returns the future of the call's answer.

        The future is done when the model is free again: a call that runs goes
        on to its end although its caller has left. Not to be cancelled; see
        `withdraw`.

        Raises:
          StatusError: INVALID_ARGUMENT; it does not fit into a batch.
        """
        if call.kind is None or not self._merges:
            call.kind = object()
        else:
            call.rows = _number_of_rows(call.feeds.values())
            limit = self._options.max_batch_size
            if limit is not None and call.rows > limit:
                raise invalid(
                    f"Task size {call.rows} is larger than maximum input batch "
                    f"size {limit}"
                )
        call.future = self._loop.create_future()
        with self._changed:
            self._enqueue(call)
        return call.future

    def _enqueue(self, call):
        self._waiting.setdefault(call.kind, collections.deque()).append(call)
        self._changed.notify()

    def withdraw(self, call: Call) -> None:
        """Cancels a call that nobody waits for any more, unless it runs."""
        with self._changed:
            call.has_left = True
            waiting = self._waiting.get(call.kind, ())
            if call not in waiting:
                return
            waiting.remove(call)
            if not waiting:
                del self._waiting[call.kind]
        call.future.cancel()

    def close(self) -> None:
        """Ends each thread with the call that it runs."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def _work(self):
        while calls := self._next():
            self._run(calls)
            # Or the model would be kept, even closed, until there is another.
            del calls

    def _run(self, calls):
        late = [call for call in calls if (call.remaining() or 1) < 0]
        ready = [call for call in calls if call not in late]
        answers = []
        options = self._options
        most = options.max_execution_batch_size
        if ready and options.splits and _is_cut(ready[0], most):
            answers = self._run_large(ready[0], most)
        elif ready:
            answers = _answers(ready)
        answers += [(call, None, _late()) for call in late]
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(_settle_all, answers)

    def _run_large(self, call, rows):
        """Runs a part of a call, which then waits again behind the others."""
        try:
            call.run_first(rows)
        except Exception as error:
            return [(call, None, error)]
        with self._changed:
            if not call.has_left:
                self._enqueue(call)
                return []
        return [(call, None, StatusError("CANCELLED", "The caller has gone."))]

    def _next(self):
        """Waits for calls of one kind and takes as many as run together."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_closed)
            if self._is_closed:
                return []
            kind, waiting = self._waiting.popitem(last=False)
            taken, rows = [], 0
            most = self._options.max_execution_batch_size
            while waiting:
                if taken and rows + waiting[0].rows > most:
                    break
                rows += waiting[0].rows
                taken.append(waiting.popleft())
            if waiting:  # behind the other kinds
                self._waiting[kind] = waiting
            return taken


def _settle_all(outcomes):
    for call, answer, error in outcomes:
        threads.settle(call.future, answer, error)


def _late():
    return StatusError(
        "DEADLINE_EXCEEDED", "Run() timeout exceeded while waiting for a thread"
    )


def _answers(calls: Sequence[Call]) -> list[tuple]:
    """Returns (call, answer, error) of calls that run together."""
    try:
        parts = _run(calls)
    except Exception as error:
        if len(calls) > 1:
            # One caller's bad request is no reason to refuse the others.
            return [_answers([call])[0] for call in calls]
        return [(calls[0], None, error)]
    answers = []
    for call, outputs in zip(calls, parts, strict=True):
        try:
            answers.append((call, call.answer(outputs), None))
        except Exception as error:
            answers.append((call, None, error))
    return answers


def _run(calls):
    """Returns the list of outputs of each call."""
    first, waits = calls[0], [call.remaining() for call in calls]
    timeout = None if None in waits else max(waits)
    if len(calls) == 1:
        return [first.run(first.feeds, timeout)]
    # Of other shapes or types: raises, and each then runs alone.
    feeds = {
        name: np.concatenate([call.feeds[name] for call in calls], casting="no")
        for name in first.feeds
    }
    outputs = first.run(feeds, timeout)
    ends = np.cumsum([call.rows for call in calls]).tolist()
    _expect_rows(outputs, ends[-1])
    return [
        [output[end - call.rows : end] for output in outputs]
        for call, end in zip(calls, ends, strict=True)
    ]


def _is_cut(call, most):
    return call.rows > most and not call.is_whole


def _have_rows(outputs, rows):
    return all(output.shape[:1] == (rows,) for output in outputs)


def _expect_rows(outputs, rows):
    if not _have_rows(outputs, rows):
        raise StatusError(
            "FAILED_PRECONDITION",
            "Expected outputs with a row for each row of the inputs.",
        )


def _number_of_rows(arrays):
    sizes = {array.shape[:1] for array in arrays}
    if len(sizes) != 1 or () in sizes:
        raise invalid("Expected inputs of one number of rows.")
    return next(iter(sizes))[0]
