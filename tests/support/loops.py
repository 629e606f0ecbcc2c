"""An event loop in a thread of its own, for what a blocking test asks."""

import asyncio
import contextlib
import threading


@contextlib.contextmanager
def running():
    """Yields start(coroutine), a concurrent future of what it returns."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield lambda coroutine: asyncio.run_coroutine_threadsafe(
            coroutine, loop
        )
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
