"""The embedded server: models, gRPC and REST in one event loop."""

import argparse
import asyncio
import errno
import functools
import gc
import os
import time

import grpc

from .. import ports
from . import (
    batching,
    config_files,
    grpc_services,
    inference,
    loading,
    waiting_room,
)
from .rest import application as rest_application
from .rest import http
from .versions import manager as model_manager

_GRACE_SECONDS = 30.0
# A caller that asks for nothing may keep a connection open for so long.
_IDLE_MILLISECONDS = 3_600_000
# Calls that one gRPC connection may have under way.
_CALLS_PER_CONNECTION = 1000


class Server:
    """A server, as tensorflow_model_server would be.

    Attributes:
      port: of gRPC, once started; None if it is off.
      rest_port: of REST, once started; None if it is off.
    """

    def __init__(
        self, flags: argparse.Namespace, files: config_files.ServerFiles
    ):
        """Loads nothing yet. To be called in the event loop.

        Args:
          flags: as from `flags.parse`.
          files: as from `config_files.read_all`.
        """
        self._flags = flags
        self._files = files
        self._manager = model_manager.ModelManager(
            functools.partial(loading.load, flags),
            file_system_poll_wait_seconds=flags.file_system_poll_wait_seconds,
            max_num_load_retries=flags.max_num_load_retries,
            load_retry_interval_micros=flags.load_retry_interval_micros,
            allow_version_labels_for_unavailable_models=(
                flags.allow_version_labels_for_unavailable_models
            ),
        )
        self._runners = batching.Runners(
            files.runners, files.batching, asyncio.get_running_loop()
        )
        self._core = inference.Inference(
            self._manager,
            self._runners,
            waiting_room.WaitingRoom(
                flags.max_waiting_calls, flags.max_waiting_bytes
            ),
            flags.enable_serialization_as_tensor_content,
        )
        self._services = grpc_services.Services(
            self._core, grpc_services.Arrivals(flags.request_arrival_seconds)
        )
        self._grpc = self._rest = None
        self.port = self.rest_port = None

    async def start(self, any_port: bool = False) -> None:
        """Loads the models, then opens the ports.

        Args:
          any_port: choose free ports for gRPC and REST, for tests.

        Raises:
          StatusError: a model does not load, or the config is refused.
          OSError: a port is in use.
        """
        flags = self._flags
        # Nothing loaded by now is garbage, TensorFlow least of all. Looking
        # at it again, once calls have made enough lists or a version is
        # closed, takes 0.2 seconds. Models come later: they are garbage once.
        gc.freeze()
        await self._manager.apply(self._files.models)
        if flags.model_config_file:
            self._manager.watch_config_file(
                flags.model_config_file,
                config_files.read,
                flags.model_config_file_poll_wait_seconds,
            )
        if flags.rest_api_port or any_port:
            await self._start_rest(0 if any_port else flags.rest_api_port)
        if flags.port or flags.grpc_socket_path or any_port:
            await self._start_grpc(any_port)

    async def stop(self, grace_seconds: float = _GRACE_SECONDS) -> None:
        """Takes no new calls, lets those under way end, unloads the models.

        Args:
          grace_seconds: after which calls under way are cut off.
        """
        deadline = time.monotonic() + grace_seconds
        self._services.is_draining = True
        stops = []
        if self._grpc:
            stops.append(self._grpc.stop(grace_seconds))
        if self._rest:
            stops.append(self._rest.stop(grace_seconds))
        await asyncio.gather(*stops)
        await self._manager.close(max(0.0, deadline - time.monotonic()))
        self._runners.close()
        self._core.worker.close()

    async def _start_grpc(self, any_port):
        flags = self._flags
        self._grpc = grpc.aio.server(
            options=[
                (
                    "grpc.max_receive_message_length",
                    flags.grpc_max_request_bytes,
                ),
                ("grpc.max_send_message_length", -1),
                # A second server on the port would take half of the calls.
                ("grpc.so_reuseport", 0),
                (
                    "grpc.max_allowed_incoming_connections",
                    flags.max_connections,
                ),
                (
                    "grpc.server_handshake_timeout_ms",
                    1000 * flags.request_arrival_seconds,
                ),
                ("grpc.max_concurrent_streams", _CALLS_PER_CONNECTION),
                ("grpc.max_connection_idle_ms", _IDLE_MILLISECONDS),
            ],
        )
        self._services.add_to(self._grpc, flags.enable_grpc_healthcheck_service)
        if flags.port or any_port:
            address = ports.address(flags.bind, 0 if any_port else flags.port)
            self.port = self._listen(address, self._credentials())
        if flags.grpc_socket_path:
            self._listen(f"unix:{os.path.abspath(flags.grpc_socket_path)}")
        await self._grpc.start()

    def _listen(self, address, credentials=None):
        try:
            if credentials:
                return self._grpc.add_secure_port(address, credentials)
            return self._grpc.add_insecure_port(address)
        except RuntimeError as error:
            message = f"could not listen on {address}"
            if credentials:
                # gRPC does not say which of the two it is.
                message += (
                    ", or with the server_key and server_cert in "
                    f"{self._flags.ssl_config_file}"
                )
            raise OSError(errno.EADDRINUSE, message) from error

    def _credentials(self):
        tls = self._files.tls
        if tls is None:
            return None
        return grpc.ssl_server_credentials(
            [(tls.server_key.encode(), tls.server_cert.encode())],
            tls.custom_ca.encode() or None,
            tls.client_verify,
        )

    async def _start_rest(self, port):
        flags = self._flags
        application = rest_application.Application(
            self._core,
            timeout_seconds=flags.rest_api_timeout_in_ms / 1000,
            arrival_seconds=flags.request_arrival_seconds,
            max_bytes=flags.rest_api_max_request_bytes,
            metrics_path=self._files.metrics_path,
        )
        self._rest = http.Listener(
            application,
            flags.bind,
            port,
            max_connections=flags.max_connections,
            arrival_seconds=flags.request_arrival_seconds,
        )
        await self._rest.start()
        self.rest_port = self._rest.port
