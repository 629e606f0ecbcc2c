"""Merges small requests into batches, as TensorFlow Serving's batching does.

Feeds of many callers enter; each caller gets the rows of the merged answer
that are its own.
"""

import collections
import threading
import time

import numpy as np

from ..status import StatusError, invalid


class Batcher:
    """One queue of requests for one set of inputs and outputs of a model.

    A batch is run when it is full or when its oldest request has waited for
    the timeout; at most `max_enqueued_batches` batches wait, further requests
    are refused.
    """

    def __init__(self, run, options, workers):
        """Takes what runs a batch.

        Args:
          run: function of (feeds, timeout_seconds) -> list of arrays.
          options: config_files.BatchingOptions.
          workers: concurrent.futures.Executor that runs batches; its threads
            are shared by all batchers of a server.
        """
        self._run = run
        self._options = options
        self._workers = workers
        self._largest = options.max_batch_size
        if options.enable_large_batch_splitting:
            self._largest = options.max_execution_batch_size
        self._lock = threading.Lock()
        self._batches = collections.deque()

    def __call__(self, feeds, timeout_seconds=None):
        """Returns the outputs for one request's feeds.

        Args:
          feeds: {name: array [n, ...]}, the same n for all.
          timeout_seconds: how long the caller waits; None for ever.

        Raises:
          StatusError: the request does not fit into a batch, the queue is
            full, the caller's time is over, or what the model objected to.
        """
        size = _size(feeds)
        options = self._options
        if size > options.max_batch_size:
            raise invalid(
                f"Task size {size} is larger than maximum input batch size "
                f"{options.max_batch_size}"
            )
        due = None
        if timeout_seconds is not None:
            due = time.monotonic() + timeout_seconds
        with self._lock:
            tasks = self._enqueued(feeds, size, due)
        outputs = [task.result() for task in tasks]
        if len(outputs) == 1:
            return outputs[0]
        return [np.concatenate(parts) for parts in zip(*outputs, strict=True)]

    def hurry(self):
        """Has no batch wait for more rows that is in the queue now."""
        with self._lock:
            for batch in self._batches:
                batch.closed.set()

    def _enqueued(self, feeds, size, due):
        """Returns the tasks of a request, now in the queue: all or none."""
        room = self._room()
        self._expect_capacity(size, room)
        tasks, start = [], 0
        for rows in self._part_sizes(size, room):
            part = {k: v[start : start + rows] for k, v in feeds.items()}
            tasks.append(_Task(part, rows, due))
            start += rows
        for task in tasks:
            batch = self._open_batch(task)
            batch.append(task)
            if batch.size >= self._largest:
                batch.closed.set()
        return tasks

    def _room(self):
        """Returns how many rows the last batch still takes."""
        if not self._batches or self._batches[-1].closed.is_set():
            return 0
        return self._largest - self._batches[-1].size

    def _expect_capacity(self, size, room):
        count, options = len(self._batches), self._options
        if options.enable_large_batch_splitting:
            free = options.max_enqueued_batches - count
            capacity = room + self._largest * free
            if size <= capacity:
                return
            reason = (
                f"task size is {size} but scheduling capacity is only "
                f"{capacity} (num_enqueued_batches={count}, "
                f"max_enqueued_batches={options.max_enqueued_batches}, "
                f"open_batch_size={self._largest - room if room else 0}, "
                f"max_execution_batch_size={self._largest})"
            )
        else:
            fits = room and size <= room
            if fits or count < options.max_enqueued_batches:
                return
            reason = (
                f"currently {count} batches enqueued and max_enqueued_batches "
                f"is {options.max_enqueued_batches}"
            )
        raise StatusError(
            "UNAVAILABLE",
            "The batch scheduling queue to which this task was submitted is "
            f"full; {reason}",
        )

    def _part_sizes(self, size, room):
        """Returns how many rows of a request go into one batch each."""
        splits = self._options.enable_large_batch_splitting
        if not splits or size <= max(room, 1):
            return [size]
        whole, rest = divmod(size - room, self._largest)
        sizes = [room, *[self._largest] * whole, rest]
        return [rows for rows in sizes if rows]

    def _open_batch(self, task):
        if self._batches:
            last = self._batches[-1]
            fits = last.size + task.size <= self._largest
            if fits and not last.closed.is_set():
                return last
            last.closed.set()
        batch = _Batch()
        self._batches.append(batch)
        self._workers.submit(self._work, batch)
        return batch

    def _work(self, batch):
        """Waits until the batch is due, takes it off the queue and runs it."""
        due = batch.born + self._options.batch_timeout_micros / 1e6
        batch.closed.wait(max(0.0, due - time.monotonic()))
        with self._lock:
            batch.closed.set()
            self._batches.remove(batch)
        tasks = [task for task in batch.tasks if task.begin()]
        if tasks:
            self._answer(tasks)

    def _answer(self, tasks):
        try:
            outputs = self._run_merged(tasks)
        except StatusError as error:
            if len(tasks) == 1:
                tasks[0].fail(error)
                return
            # One caller's bad request is no reason to refuse the others.
            for task in tasks:
                self._answer([task])
            return
        except BaseException as error:
            for task in tasks:
                task.fail(StatusError("INTERNAL", str(error)))
            raise
        start = 0
        for task in tasks:
            rows = slice(start, start + task.size)
            task.finish([output[rows] for output in outputs])
            start += task.size

    def _run_merged(self, tasks):
        size = sum(task.size for task in tasks)
        padded = self._padded(size)
        feeds = {}
        for name in tasks[0].feeds:
            parts = [task.feeds[name] for task in tasks]
            if self._options.pad_variable_length_inputs:
                parts = _of_one_shape(parts)
            if len({(p.dtype, p.shape[1:]) for p in parts}) > 1:
                raise StatusError(
                    "FAILED_PRECONDITION",
                    f"Tensors with name '{name}' from different tasks have "
                    "different shapes and padding is turned off.",
                )
            if padded > size:
                # Rows that the model has seen: no new numbers can fail.
                parts.append(np.repeat(parts[0][:1], padded - size, axis=0))
            feeds[name] = np.concatenate(parts) if len(parts) > 1 else parts[0]
        waits = [task.remaining() for task in tasks]
        timeout = None if None in waits else max(waits)
        outputs = self._run(feeds, timeout)
        for output in outputs:
            if output.ndim == 0:
                raise StatusError(
                    "FAILED_PRECONDITION",
                    "Batched output tensor has 0 dimensions",
                )
            if output.shape[0] != padded:
                raise StatusError(
                    "FAILED_PRECONDITION",
                    "Batched output tensor's 0th dimension does not equal the "
                    "sum of the 0th dimension sizes of the input tensors",
                )
        return outputs

    def _padded(self, size):
        allowed = self._options.allowed_batch_sizes if size else ()
        return next((n for n in allowed if n >= size), size)


class _Task:
    """One request, or a part of a large one, and who waits for it."""

    def __init__(self, feeds, size, due):
        self.feeds = feeds
        self.size = size
        self._due = due
        self._runs = self._abandoned = False
        self._done = threading.Event()
        self._outputs = self._error = None

    def remaining(self):
        """Returns the seconds that are left, or None for no limit."""
        if self._due is None:
            return None
        return max(0.0, self._due - time.monotonic())

    def begin(self):
        """Returns whether to run the task: whether anybody waits for it."""
        self._runs = not self._abandoned
        return self._runs

    def finish(self, outputs):
        self._outputs = outputs
        self._done.set()

    def fail(self, error):
        self._error = error
        self._done.set()

    def result(self):
        """Returns the outputs as soon as they are there.

        Raises:
          StatusError: what went wrong, or the time is over.
        """
        if not self._done.wait(self.remaining()):
            self._abandoned = True
            if self._runs:
                raise StatusError(
                    "DEADLINE_EXCEEDED", "Timed out waiting for notification"
                )
            raise StatusError(
                "RESOURCE_EXHAUSTED",
                "Run() timeout exceeded while waiting in batching queue",
            )
        if self._error:
            raise self._error
        return self._outputs


class _Batch:
    """Tasks that will be run together."""

    def __init__(self):
        self.born = time.monotonic()
        self.closed = threading.Event()
        self.tasks = []
        self.size = 0

    def append(self, task):
        self.tasks.append(task)
        self.size += task.size


def _size(feeds):
    if not feeds:
        raise invalid(
            "Batching session Run() must have at least one input tensor"
        )
    if any(array.ndim == 0 for array in feeds.values()):
        raise invalid(
            "Batching session Run() input tensors must have at least one "
            "dimension"
        )
    sizes = {array.shape[0] for array in feeds.values()}
    if len(sizes) > 1:
        raise invalid(
            "Batching session Run() input tensors must have equal "
            "0th-dimension size"
        )
    return sizes.pop()


def _of_one_shape(parts):
    """Returns the arrays padded at their ends to the largest of each axis.

    With the first element of each array, as the genuine server pads.
    """
    if len({part.ndim for part in parts}) > 1:
        return parts
    largest = np.max([part.shape[1:] for part in parts], axis=0)
    padded = []
    for part in parts:
        missing = largest - part.shape[1:]
        filler = part.flat[0] if part.size else 0
        widths = [(0, 0), *((0, int(after)) for after in missing)]
        padded.append(np.pad(part, widths, constant_values=filler))
    return padded
