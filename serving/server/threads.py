"""Work of the event loop's that blocks, done by threads.

What may hang, in a dead file system, is done by daemons: they do not keep the
process from ending, as an executor's threads would.
"""

import asyncio
import threading
import traceback
from collections.abc import Callable
from concurrent import futures


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
        self._pool = futures.ThreadPoolExecutor(1, name)

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
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, function, *args)

    def close(self) -> None:
        """Ends the thread with what it does."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def _work(future, function, args):
    try:
        outcome = function(*args), None
    except BaseException as error:
        outcome = None, error
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
