"""An ASGI application on a port, in the running event loop.

Uvicorn's protocol with a bound on connections, and on how long one may be
without a whole request head.
"""

import asyncio
from collections.abc import Callable

import uvicorn
from uvicorn import server as uvicorn_server
from uvicorn.protocols.http import h11_impl

# Connections that the kernel holds until they are accepted, all at once.
_BACKLOG = 128


class Listener:
    """Accepts connections and serves them.

    Attributes:
      port: where it listens; known once it is started.
    """

    def __init__(
        self,
        app: Callable,
        host: str,
        port: int,
        *,
        max_connections: int,
        arrival_seconds: float,
    ):
        """Opens nothing yet.

        Args:
          app: ASGI application.
          host: address to listen on, such as "127.0.0.1" or "::1".
          port: 0 for any that is free.
          max_connections: for one more, the idlest is closed.
          arrival_seconds: a connection may be without a request for so long.
        """
        self.port = port
        self._host = host
        self._max_connections = max_connections
        self._arrival_seconds = arrival_seconds
        self._config = uvicorn.Config(
            app,
            ws="none",
            log_config=None,
            log_level="critical",
            access_log=False,
            timeout_keep_alive=arrival_seconds,
        )
        self._config.load()
        self._state = uvicorn_server.ServerState()
        self._open = {}  # _Connection -> None, the idlest first
        self._server = None

    async def start(self) -> None:
        """Accepts connections from now on.

        Raises:
          OSError: the address or the port cannot be had.
        """
        try:
            self._server = await asyncio.get_running_loop().create_server(
                lambda: _Connection(self, self._config, self._state, {}),
                self._host,
                self.port,
                backlog=_BACKLOG,
            )
        except OSError as error:
            raise OSError(
                error.errno,
                f"could not listen on {self._host}:{self.port}: "
                f"{error.strerror}",
            ) from None
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self, grace_seconds: float) -> None:
        """Takes no new calls and returns when those under way have ended.

        Args:
          grace_seconds: after which they are cut off.
        """
        if self._server is None:
            return
        self._server.close()
        for connection in list(self._open):
            connection.shutdown()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + grace_seconds
        while self._open and loop.time() < deadline:
            await asyncio.sleep(0.02)
        for connection in list(self._open):
            connection.transport.abort()
        for task in self._state.tasks:
            task.cancel()

    # Called by connections.

    def admit(self, connection: "_Connection") -> None:
        """Has an idle connection make room for a new one, or closes that."""
        self._open[connection] = None
        if len(self._open) > self._max_connections:
            idle = (c for c in self._open if c.is_idle and c.has_sent_all)
            leaving = next(idle)  # the new one itself, at the last
            leaving.transport.abort()
            del self._open[leaving]

    def rest(self, connection: "_Connection") -> None:
        """Makes a connection the one that is idle for the shortest time."""
        if self._open.pop(connection, self) is not self:
            self._open[connection] = None

    def forget(self, connection: "_Connection") -> None:
        """Strikes out a connection that is closed."""
        self._open.pop(connection, None)

    def watch(self, connection: "_Connection") -> asyncio.TimerHandle:
        """Looks at a connection after a while."""
        loop = asyncio.get_running_loop()
        return loop.call_later(self._arrival_seconds, connection.expire)


class _Connection(h11_impl.H11Protocol):
    """A connection of a Listener."""

    def __init__(self, listener, config, state, app_state):
        super().__init__(config, state, app_state)
        self._listener = listener
        self._timer = None
        self._unsent = 0

    @property
    def is_idle(self) -> bool:
        """Whether no request is under way."""
        return self.cycle is None or self.cycle.response_complete

    @property
    def has_sent_all(self) -> bool:
        """Whether no answer is still on its way."""
        return not self.transport.get_write_buffer_size()

    def connection_made(self, transport):
        super().connection_made(transport)
        self._listener.admit(self)
        self._timer = self._listener.watch(self)

    def connection_lost(self, exc):
        super().connection_lost(exc)
        self._timer.cancel()
        self._listener.forget(self)

    def on_response_complete(self):
        self._timer.cancel()
        self._unsent = self.transport.get_write_buffer_size() + 1
        self._timer = self._listener.watch(self)
        self._listener.rest(self)
        super().on_response_complete()

    def timeout_keep_alive_handler(self):
        """Left to `expire`, which knows of answers still being read."""

    def expire(self):
        """Closes the connection if neither a request nor an answer moves."""
        unsent = self.transport.get_write_buffer_size()
        # Of a request under way nothing may have been written at the last look.
        moves = not self._unsent or unsent < self._unsent
        if moves and (unsent or not self.is_idle):
            self._unsent = unsent
            self._timer = self._listener.watch(self)
        else:
            self.transport.abort()
