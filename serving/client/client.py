"""The gRPC client of a served model: TF Serving's, or the embedded server's.

    with Client("localhost:8500", "atat") as client:
        client.wait_until_ready(timeout=60)
        answer = client.predict(images)  # {"classes": int64 [n], ...}

Two ways to send what `asking.Calls` asks: one blocks, one is for asyncio.
"""

import asyncio
import time
from collections.abc import Mapping
from typing import Any, Self

import grpc

from . import channel as client_channel
from .asking import Calls
from .errors import serving_error


class Client(Calls):
    """A client for any number of threads; a context manager that closes.

    Every call has a deadline. What comes back is NumPy arrays, or a
    ServingError with the server's reason. UNAVAILABLE and RESOURCE_EXHAUSTED
    are tried again while there is time, nothing else is.
    """

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection; calls under way fail as CANCELLED."""
        self._closed = True
        self._channel.close()

    def _start(self):
        self._channel = client_channel.opened(
            grpc, self._target, self._credentials, self._server_name
        )
        self._stubs = client_channel.methods(self._channel)

    def _run(self, coroutine):
        try:
            coroutine.send(None)
        except StopIteration as stop:
            return stop.value
        raise RuntimeError("a blocking client's coroutine has suspended")

    async def _send(self, method, request, seconds):
        self._check_open()
        try:
            return self._stubs[method](request, timeout=seconds)
        except grpc.RpcError as error:
            raise client_channel.failure(error) from error
        except ValueError:  # closed by another thread a moment ago
            self._check_open()
            raise

    async def _sleep(self, seconds):
        time.sleep(seconds)


class AsyncClient(Calls):
    """The same for asyncio: what the annotations say is returned, is awaited.

    It belongs to the event loop of its first call, and may be built before.
    """

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends the connection; calls under way fail as CANCELLED."""
        self._closed = True
        if self._channel:
            await self._channel.close()

    def _start(self):
        self._channel: grpc.aio.Channel | None = None
        self._stubs: Mapping[str, Any] = {}

    def _run(self, coroutine):
        return coroutine

    async def _send(self, method, request, seconds):
        self._check_open()
        if not self._channel:  # here, since it binds to the running loop
            self._channel = client_channel.opened(
                grpc.aio, self._target, self._credentials, self._server_name
            )
            self._stubs = client_channel.methods(self._channel)
        try:
            return await self._stubs[method](request, timeout=seconds)
        except grpc.RpcError as error:
            raise client_channel.failure(error) from error
        except asyncio.CancelledError:
            if self._closed:  # by `close`, nobody has cancelled the task
                raise serving_error("CANCELLED", "Channel closed!") from None
            raise

    async def _sleep(self, seconds):
        await asyncio.sleep(seconds)
