"""An ASGI application on a port, in a thread of its own."""

import asyncio
import os
import socket
import threading

import uvicorn


class Server:
    """An HTTP server.

    Attributes:
      port: where it listens; known once it is started.
    """

    def __init__(self, app, host, port, ssl=None):
        """Opens nothing yet.

        Args:
          app: ASGI application.
          host: address to listen on, such as "127.0.0.1" or "::1".
          port: 0 for any that is free.
          ssl: ssl.SSLContext; None for plain HTTP.
        """
        self.port = port
        self._host = host
        config = uvicorn.Config(
            app,
            lifespan="on",
            ws="none",
            http="h11",
            log_config=None,
            log_level="critical",
            access_log=False,
            server_header=False,
        )
        config.load()
        config.ssl = ssl
        self._server = _UvicornServer(config)
        self._thread = None

    def start(self):
        """Returns once calls are accepted.

        Raises:
          OSError: the address or the port cannot be had.
        """
        listener = self._listener()
        self.port = listener.getsockname()[1]
        self._thread = threading.Thread(
            target=self._run, args=(listener,), name="rest-loop", daemon=True
        )
        self._thread.start()
        self._server.ready.wait()
        if not self._server.started:
            raise OSError(f"could not serve on {self._host}:{self.port}")

    def stop(self, grace=None):
        """Takes no new calls and returns when those under way have ended.

        Args:
          grace: seconds after which they are dropped; None to wait for all.
        """
        if self._thread is None:
            return
        self._server.config.timeout_graceful_shutdown = grace
        self._server.should_exit = True
        self._thread.join()
        self._thread = None

    def _listener(self):
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        try:
            return socket.create_server(
                (self._host, self.port), family=family, backlog=2048
            )
        except OSError as error:
            reason = error.strerror
            if not isinstance(error, socket.gaierror):
                reason = os.strerror(error.errno)  # without the address
            raise OSError(
                error.errno,
                f"could not listen on {self._host}:{self.port}: {reason}",
            ) from None

    def _run(self, listener):
        try:
            asyncio.run(self._server.serve(sockets=[listener]))
        finally:
            listener.close()
            self._server.ready.set()


class _UvicornServer(uvicorn.Server):
    """Uvicorn's server, with an event for its start."""

    def __init__(self, config):
        super().__init__(config)
        self.ready = threading.Event()

    async def startup(self, sockets=None):
        await super().startup(sockets=sockets)
        self.ready.set()
