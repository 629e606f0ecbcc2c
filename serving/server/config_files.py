"""The server's text-format files: models, batching, monitoring, TLS.

The messages of three of them are not in tensorflow-serving-api and are declared
here by the names of their fields, which are all that a text needs. Importing
this file imports no TensorFlow.
"""

import argparse
import dataclasses
import os
import pathlib

from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    message,
    message_factory,
    text_format,
    wrappers_pb2,
)
from tensorflow_serving.config import model_server_config_pb2

from ..status import invalid
from . import batching

ModelServerConfig = model_server_config_pb2.ModelServerConfig
_METRICS_PATH = "/monitoring/prometheus/metrics"
PLATFORM = "tensorflow"
# What the batch scheduler uses where the file says nothing.
_DEFAULT_BATCH_SIZE = 1000

# Message -> field -> type; one that starts with a dot is another message.
_INT64 = ".google.protobuf.Int64Value"
_MESSAGES = {
    "SSLConfig": {
        "server_key": "string",
        "server_cert": "string",
        "custom_ca": "string",
        "client_verify": "bool",
    },
    "PrometheusConfig": {"enable": "bool", "path": "string"},
    "MonitoringConfig": {"prometheus_config": ".atat.PrometheusConfig"},
    "BatchingParameters": {
        "max_batch_size": _INT64,
        "batch_timeout_micros": _INT64,
        "max_enqueued_batches": _INT64,
        "num_batch_threads": _INT64,
        "thread_pool_name": ".google.protobuf.StringValue",
        "allowed_batch_sizes": "repeated int64",
        "pad_variable_length_inputs": "bool",
        "enable_large_batch_splitting": ".google.protobuf.BoolValue",
        "max_execution_batch_size": _INT64,
    },
}


def _message_classes():
    """Returns the classes of _MESSAGES by name."""
    file = descriptor_pb2.FileDescriptorProto(
        name="atat/config_files.proto",
        package="atat",
        syntax="proto3",
        dependency=[wrappers_pb2.DESCRIPTOR.name],
    )
    for name, fields in _MESSAGES.items():
        added = file.message_type.add(name=name)
        for number, (field, kind) in enumerate(fields.items(), 1):
            label, _, kind = kind.rpartition(" ")
            is_message = kind.startswith(".")
            added.field.add(
                name=field,
                number=number,
                label=f"LABEL_{label or 'optional'}".upper(),
                type=f"TYPE_{'message' if is_message else kind}".upper(),
                type_name=kind if is_message else None,
            )
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(file.SerializeToString())
    return [
        message_factory.GetMessageClass(
            pool.FindMessageTypeByName(f"atat.{name}")
        )
        for name in _MESSAGES
    ]


SSLConfig, _, MonitoringConfig, BatchingParameters = _message_classes()


class ConfigFileError(ValueError):
    """A file cannot be read as its message; the text names file and line."""


@dataclasses.dataclass(frozen=True)
class ServerFiles:
    """What a server's flags and their files say.

    Attributes:
      models: ModelServerConfig, checked.
      tls: SSLConfig, or None.
      metrics_path: where Prometheus reads, or None.
      batching: BatchingOptions, or None for no batching.
      runners: how many sessions run at a time.
    """

    models: ModelServerConfig
    tls: message.Message | None
    metrics_path: str | None
    batching: batching.BatchingOptions | None
    runners: int


def num_cpus() -> int:
    """Returns the number of CPUs that this process may run on."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def read_all(flags: argparse.Namespace) -> ServerFiles:
    """Returns what flags and the files that they name say, all checked.

    Raises:
      ConfigFileError: a file cannot be read, or is something else.
      StatusError: INVALID_ARGUMENT; what it says cannot be done.
    """
    models = single_model(flags.model_name, flags.model_base_path)
    if flags.model_config_file:
        models = read(flags.model_config_file, ModelServerConfig)
    elif _is_relative(flags.model_base_path):
        absolute = os.path.abspath(flags.model_base_path)
        raise ConfigFileError(
            f"Expected an absolute path, --model_base_path={absolute}. "
            f"Received: --model_base_path={flags.model_base_path}."
        )
    check_models(models)
    metrics_path = None
    if flags.monitoring_config_file:
        file = read(flags.monitoring_config_file, MonitoringConfig)
        if file.prometheus_config.enable:
            metrics_path = file.prometheus_config.path or _METRICS_PATH
    options, runners = batching.BatchingOptions(), num_cpus()
    if flags.batching_parameters_file:
        parameters = read(flags.batching_parameters_file, BatchingParameters)
        options = batching_options(parameters)
        runners = batch_threads(parameters)
    return ServerFiles(
        models=models,
        tls=read_ssl(flags.ssl_config_file) if flags.ssl_config_file else None,
        metrics_path=metrics_path,
        batching=options if flags.enable_batching else None,
        runners=runners,
    )


def read(
    path: str | os.PathLike, kind: type[message.Message] = ModelServerConfig
) -> message.Message:
    """Returns a file's message, not yet checked.

    Args:
      path: the file.
      kind: ModelServerConfig, or one of the classes above.

    Raises:
      ConfigFileError: it cannot be read, or is no such message. Of an
        SSLConfig, which holds a key, the error tells the line alone.
    """
    what = f"Expected a {kind.DESCRIPTOR.name} in the file {path}. Received: "
    try:
        text = pathlib.Path(path).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "no UTF-8 text"
        raise ConfigFileError(f"{what}{reason}.") from None
    try:
        return text_format.Parse(text, kind())
    except text_format.ParseError as error:
        reason = f"{error}".rstrip(".")
        if kind is SSLConfig:
            reason = f"a mistake in line {error.GetLine() or 1}"
        raise ConfigFileError(f"{what}{reason}.") from None


def read_ssl(path: str | os.PathLike) -> message.Message:
    """Returns the SSLConfig of a file.

    Raises:
      ConfigFileError: as `read`, or key, certificate or authority are
        not PEM text; none of it is repeated in the message.
    """
    config = read(path, SSLConfig)
    needed = ["server_key", "server_cert"]
    if config.client_verify or config.custom_ca:
        needed.append("custom_ca")
    for field in needed:
        text = getattr(config, field)
        if "-----BEGIN " not in text:
            what = "a text without '-----BEGIN '" if text else "nothing"
            raise ConfigFileError(
                f"Expected the PEM text itself (not a path) in the field "
                f"{field!r} of {path}. Received: {what}."
            )
    return config


def _is_relative(path):
    return bool(path) and "://" not in path and not os.path.isabs(path)


def single_model(name: str, base_path: str | os.PathLike) -> ModelServerConfig:
    """Returns the ModelServerConfig of one model, newest version only."""
    config = ModelServerConfig()
    config.model_config_list.config.add(
        name=name, base_path=str(base_path), model_platform=PLATFORM
    )
    return config


def check_models(config: ModelServerConfig) -> None:
    """Checks a ModelServerConfig.

    Raises:
      StatusError: INVALID_ARGUMENT.
    """
    if config.WhichOneof("config") != "model_config_list":
        raise invalid("Expected a model_config_list. Received: none.")
    names = set()
    for model in config.model_config_list.config:
        if model.name in names:
            raise invalid(
                f"Illegal to list model {model.name} multiple times in config "
                "list"
            )
        names.add(model.name)
        if not os.path.isabs(model.base_path):
            raise invalid(
                f"Expected model {model.name} to have an absolute path; "
                f"got base_path()={model.base_path}"
            )
        if model.model_platform != PLATFORM:
            raise invalid(
                f"Model {model.name} requests unsupported platform "
                f"{model.model_platform or 'none'}"
            )


def batching_options(
    parameters: message.Message,
) -> batching.BatchingOptions:
    """Returns what BatchingParameters mean, defaults filled in.

    What has no meaning here is read and not looked at: no call waits for a
    timer (`batch_timeout_micros`), the waiting calls are bounded by the server
    (`max_enqueued_batches`), and calls of several shapes run one by one
    (`pad_variable_length_inputs`), and no batch is padded
    (`allowed_batch_sizes`).

    Raises:
      StatusError: INVALID_ARGUMENT; the parameters contradict each other.
    """
    largest = _value(parameters, "max_batch_size", _DEFAULT_BATCH_SIZE)
    splits = _value(parameters, "enable_large_batch_splitting", False)
    executed = largest
    if splits:
        executed = _value(
            parameters, "max_execution_batch_size", _DEFAULT_BATCH_SIZE
        )
    numbers = {
        "max_batch_size": largest,
        "num_batch_threads": batch_threads(parameters),
        "max_execution_batch_size": executed,
    }
    for name, number in numbers.items():
        if number < 1:
            raise invalid(f"{name} must be positive; was {number}")
    if largest < executed:
        raise invalid(
            "Expected max_batch_size of at least max_execution_batch_size, "
            f"{executed}. Received: {largest}."
        )
    return batching.BatchingOptions(
        max_batch_size=largest,
        max_execution_batch_size=executed,
        splits=splits,
    )


def batch_threads(parameters: message.Message) -> int:
    """Returns how many batches run at a time."""
    return _value(parameters, "num_batch_threads", num_cpus())


def _value(parameters, name, default):
    """Returns what a wrapper's field holds, if there is one."""
    given = parameters.HasField(name)
    return getattr(parameters, name).value if given else default
