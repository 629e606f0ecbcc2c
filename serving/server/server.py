"""The embedded server: models, gRPC and REST, put together from its flags."""

import concurrent.futures
import errno
import gc
import os
import socket
import time

import grpc

from . import config_files, grpc_services, inference, loaded_model, metrics
from . import flags as server_flags
from .rest import application as rest_application
from .rest import http as http_server
from .versions import manager as model_manager

_METRICS_PATH = "/monitoring/prometheus/metrics"
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
# Calls that wait for one that runs.
_WAITING_PER_SLOT = 32
# Threads for calls that need no slot, and for refusing.
_SPARE_THREADS = 8
# Calls that wait to be refused; gRPC itself refuses more, in its own words.
_WAITING_TO_BE_REFUSED = 1024
_MAX_MESSAGE_BYTES = 2**31 - 1
_GRACE_SECONDS = 30.0


class Server:
    """A server on loopback, as tensorflow_model_server would be.

    Attributes:
      port: of gRPC, once started; None if it is off.
      rest_port: of REST, once started; None if it is off.
      warnings: sentences that the person who starts it should read.
    """

    def __init__(self, flags):
        """Reads the configuration files; loads nothing yet.

        Args:
          flags: as from `server_flags.parse`. Port 0 means off.

        Raises:
          config_files.ConfigFileError: a file is wrong.
          StatusError: the batching parameters contradict each other.
          OSError: a port is in use.
        """
        self._flags = flags
        self._config = _model_config(flags)
        self._tls = None
        if flags.ssl_config_file:
            self._tls = config_files.read_ssl(flags.ssl_config_file)
        self._metrics_path = None
        if flags.monitoring_config_file:
            monitoring = config_files.read_monitoring(
                flags.monitoring_config_file
            ).prometheus_config
            if monitoring.enable:
                self._metrics_path = monitoring.path or _METRICS_PATH
        for port in {flags.port, flags.rest_api_port} - {0}:
            _expect_free(flags.bind, port)
        self._loader = loaded_model.Loader(flags)
        self._manager = model_manager.ModelManager(
            self._loader,
            file_system_poll_wait_seconds=flags.file_system_poll_wait_seconds,
            max_num_load_retries=flags.max_num_load_retries,
            load_retry_interval_micros=flags.load_retry_interval_micros,
            num_load_threads=flags.num_load_threads,
            num_unload_threads=flags.num_unload_threads,
            allow_version_labels_for_unavailable_models=(
                flags.allow_version_labels_for_unavailable_models
            ),
        )
        self._metrics = metrics.Metrics(known_models=self._manager.model_names)
        self._inference = inference.Inference(
            self._manager,
            self._metrics,
            flags.enable_serialization_as_tensor_content,
        )
        self._grpc = self._health = self._rest = None
        self.port = self.rest_port = None
        self.warnings = self._warnings()

    def start(self, any_port=False):
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
        self._manager.apply(self._config)
        if flags.model_config_file:
            self._manager.watch_config_file(
                flags.model_config_file,
                config_files.read_models,
                flags.model_config_file_poll_wait_seconds,
            )
        if flags.rest_api_port or any_port:
            self._start_rest(0 if any_port else flags.rest_api_port)
        self._start_grpc(any_port)

    def stop(self, grace_seconds=_GRACE_SECONDS):
        """Takes no new calls, lets those under way end, unloads the models.

        Args:
          grace_seconds: after which calls under way are cut off.
        """
        deadline = time.monotonic() + grace_seconds
        if self._health:
            self._health.enter_graceful_shutdown()
        stopping = self._grpc.stop(grace_seconds) if self._grpc else None
        if self._rest:
            self._rest.stop(grace_seconds)
        if stopping:
            stopping.wait()
        self._manager.close(max(0.0, deadline - time.monotonic()))
        self._loader.close()

    def _start_grpc(self, any_port):
        flags = self._flags
        gate = grpc_services.Gate(
            flags.grpc_max_threads, _WAITING_PER_SLOT * flags.grpc_max_threads
        )
        threads = gate.capacity + _SPARE_THREADS
        self._grpc = grpc.server(
            concurrent.futures.ThreadPoolExecutor(threads, "grpc"),
            maximum_concurrent_rpcs=threads + _WAITING_TO_BE_REFUSED,
            options=[
                ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
                ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
                # A second server on the port would take half of the calls.
                ("grpc.so_reuseport", 0),
                *server_flags.channel_arguments(flags.grpc_channel_arguments),
            ],
        )
        self._health = grpc_services.add_services(
            self._grpc,
            self._inference,
            gate,
            flags.enable_grpc_healthcheck_service,
        )
        if flags.port or any_port:
            address = _address(flags.bind, 0 if any_port else flags.port)
            self.port = self._listen(address, self._credentials())
        if flags.grpc_socket_path:
            self._listen(f"unix:{os.path.abspath(flags.grpc_socket_path)}")
        self._grpc.start()

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
        if self._tls is None:
            return None
        return grpc.ssl_server_credentials(
            [(self._tls.server_key.encode(), self._tls.server_cert.encode())],
            self._tls.custom_ca.encode() or None,
            self._tls.client_verify,
        )

    def _start_rest(self, port):
        flags = self._flags
        application = rest_application.application(
            self._inference,
            timeout_seconds=flags.rest_api_timeout_in_ms / 1000,
            num_threads=flags.rest_api_num_threads,
            enable_cors=flags.rest_api_enable_cors_support,
            metrics=self._metrics,
            metrics_path=self._metrics_path,
        )
        self._rest = http_server.Server(application, flags.bind, port)
        self._rest.start()
        self.rest_port = self._rest.port

    def _warnings(self):
        flags, sentences = self._flags, []
        is_open = flags.bind not in _LOOPBACK
        if is_open and flags.port and self._tls is None:
            sentences.append(
                f"gRPC is open on {flags.bind} without TLS: anybody who "
                "reaches the port can call and reconfigure this server."
            )
        if is_open and flags.rest_api_port:
            sentences.append(
                f"REST is open on {flags.bind}, which never has TLS here: put "
                "a proxy before it."
            )
        if self._metrics_path and not flags.rest_api_port:
            sentences.append(
                "Metrics are served on the REST port: --rest_api_port is off."
            )
        return sentences


def _model_config(flags):
    if flags.model_config_file:
        return config_files.read_models(flags.model_config_file)
    return config_files.single_model(flags.model_name, flags.model_base_path)


def _address(host, port):
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _expect_free(host, port):
    """Raises OSError where a port is taken, before anything is loaded."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # Connections of an ended server that linger are no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise OSError(
                error.errno,
                f"Expected a free port. Received: {_address(host, port)} "
                f"({error.strerror}).",
            ) from None
