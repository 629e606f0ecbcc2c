"""Work of the event loop's that blocks, done by threads that nobody waits for.

They are daemons: a thread that hangs in a dead file system, or in an endless
call, does not keep the process from ending, as an executor's would.
"""

import asyncio
import queue
import threading
import traceback
from collections.abc import Callable


def in_thread(function: Callable, *args: object) -> asyncio.Future:
    """Returns the future of a function's result in a thread of its own."""
    future = asyncio.get_running_loop().create_future()
    threading.Thread(
        target=_work, args=(future, function, args), daemon=True
    ).start()
    return future


class Worker:
    """One thread that does one thing after the other.

    One: neither `json` nor NumPy lets other threads run meanwhile, and what a
    body becomes for a while can be many times its size.
    """

    def __init__(self, name: str):
        self._queue = queue.SimpleQueue()
        threading.Thread(target=self._run, name=name, daemon=True).start()

    async def do(
        self, at_once: bool, function: Callable, *args: object
    ) -> object:
        """Returns a function's result.

        What nobody waits for any more when its turn comes is not done.

        Args:
          at_once: whether it takes so little that the loop itself calls it.
          function: what to call.
          *args: its arguments.
        """
        if at_once:
            return function(*args)
        future = asyncio.get_running_loop().create_future()
        self._queue.put((future, function, args))
        return await future

    def close(self) -> None:
        """Ends the thread once all is done."""
        self._queue.put(None)

    def _run(self):
        while (item := self._queue.get()) is not None:
            if not item[0].cancelled():
                _work(*item)
            # Or what it was about would be kept until there is another.
            del item


def _work(future, function, args):
    try:
        outcome = function(*args), None
    except BaseException as error:
        outcome = None, error
    # An error holds this frame, which must not hold a request in turn.
    del function, args
    loop = future.get_loop()
    if not loop.is_closed():
        loop.call_soon_threadsafe(settle, future, *outcome)


def settle(
    future: asyncio.Future, result: object, error: BaseException | None
) -> None:
    """Gives a future its result or its error, unless nobody waits for it."""
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)


def let_go(error: BaseException | None) -> None:
    """Frees what the frames hold that a caught error has come through.

    A future holds its error, which holds the frame that waited for the future:
    a request would be kept until the garbage is collected.
    """
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
