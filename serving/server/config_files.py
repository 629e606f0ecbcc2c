"""The server's text-format files: models, batching, monitoring, TLS.

The messages of three of them are not in tensorflow-serving-api and are built
here, field by field and number by number as TensorFlow Serving declares them.
Importing this file imports no TensorFlow.
"""

import argparse
import dataclasses
import difflib
import itertools
import os
import pathlib
import re

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
# tensorflow.serving.ModelType.TENSORFLOW, of the deprecated `model_type`.
_MODEL_TYPE_TENSORFLOW = 1
# What the batch scheduler uses where the file says nothing.
_DEFAULT_BATCH_SIZE = 1000
_DEFAULT_ENQUEUED_BATCHES = 10

# Message -> field -> (number, type); a type that starts with a dot is another
# message, one that starts with "repeated " is a list.
_PACKAGE = "tensorflow.serving"
_INT64 = ".google.protobuf.Int64Value"
_MESSAGES = {
    "SSLConfig": {
        "server_key": (1, "string"),
        "server_cert": (2, "string"),
        "custom_ca": (3, "string"),
        "client_verify": (4, "bool"),
    },
    "PrometheusConfig": {"enable": (1, "bool"), "path": (2, "string")},
    "MonitoringConfig": {
        "prometheus_config": (1, f".{_PACKAGE}.PrometheusConfig"),
    },
    "BatchingParameters": {
        "max_batch_size": (1, _INT64),
        "batch_timeout_micros": (2, _INT64),
        "max_enqueued_batches": (3, _INT64),
        "num_batch_threads": (4, _INT64),
        "thread_pool_name": (5, ".google.protobuf.StringValue"),
        "allowed_batch_sizes": (6, "repeated int64"),
        "pad_variable_length_inputs": (7, "bool"),
        "enable_large_batch_splitting": (8, ".google.protobuf.BoolValue"),
        "max_execution_batch_size": (9, _INT64),
    },
}


def _message_classes():
    """Returns the classes of _MESSAGES by name, in a pool of their own.

    In the default pool they would clash with a package that has them.
    """
    file = descriptor_pb2.FileDescriptorProto(
        name="serving/config_files.proto",
        package=_PACKAGE,
        syntax="proto3",
        dependency=["google/protobuf/wrappers.proto"],
    )
    for name, fields in _MESSAGES.items():
        added = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
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
    return {
        name: message_factory.GetMessageClass(
            pool.FindMessageTypeByName(f"{_PACKAGE}.{name}")
        )
        for name in _MESSAGES
    }


_CLASSES = _message_classes()
SSLConfig = _CLASSES["SSLConfig"]
PrometheusConfig = _CLASSES["PrometheusConfig"]
MonitoringConfig = _CLASSES["MonitoringConfig"]
BatchingParameters = _CLASSES["BatchingParameters"]


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
        models = read_models(flags.model_config_file)
    check_models(models)
    metrics_path = None
    if flags.monitoring_config_file:
        file = read_monitoring(flags.monitoring_config_file)
        if file.prometheus_config.enable:
            metrics_path = file.prometheus_config.path or _METRICS_PATH
    options, runners = batching.BatchingOptions(), num_cpus()
    if flags.batching_parameters_file:
        parameters = read_batching(flags.batching_parameters_file)
        options = batching_options(parameters)
        runners = batch_threads(parameters)
    return ServerFiles(
        models=models,
        tls=read_ssl(flags.ssl_config_file) if flags.ssl_config_file else None,
        metrics_path=metrics_path,
        batching=options if flags.enable_batching else None,
        runners=runners,
    )


def address(host: str, port: int) -> str:
    """Returns a host and port as one word."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def read_models(path: str | os.PathLike) -> ModelServerConfig:
    """Returns the ModelServerConfig of a file, not yet checked.

    Raises:
      ConfigFileError: it cannot be read, or is no ModelServerConfig.
    """
    return _read(path, ModelServerConfig())


def read_batching(path: str | os.PathLike) -> message.Message:
    """Returns the BatchingParameters of a file; raises as `read_models`."""
    return _read(path, BatchingParameters())


def read_monitoring(path: str | os.PathLike) -> message.Message:
    """Returns the MonitoringConfig of a file; raises as `read_models`."""
    return _read(path, MonitoringConfig())


def read_ssl(path: str | os.PathLike) -> message.Message:
    """Returns the SSLConfig of a file.

    Raises:
      ConfigFileError: as `read_models`, or key, certificate or authority are
        not PEM text; none of it is repeated in the message.
    """
    config = _read(path, SSLConfig(), is_secret=True)
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


def single_model(name: str, base_path: str | os.PathLike) -> ModelServerConfig:
    """Returns the ModelServerConfig of one model, newest version only."""
    config = ModelServerConfig()
    config.model_config_list.config.add(
        name=name, base_path=str(base_path), model_platform=PLATFORM
    )
    return config


def check_models(config: ModelServerConfig) -> None:
    """Checks a ModelServerConfig as TensorFlow Serving does, in its words.

    Raises:
      StatusError: INVALID_ARGUMENT.
    """
    if config.HasField("custom_model_config"):
        raise invalid("ModelServer does not yet support custom model config.")
    models = config.model_config_list.config
    names = set()
    for model in models:
        if model.name in names:
            raise invalid(
                f"Illegal to list model {model.name} multiple times in config "
                "list"
            )
        names.add(model.name)
    for model in models:
        if not re.match(r"/|[a-zA-Z][0-9a-zA-Z.]*://", model.base_path):
            raise invalid(
                f"Expected model {model.name} to have an absolute path or URI; "
                f"got base_path()={model.base_path}"
            )
    for model in models:
        # `model_type` is deprecated and says the same.
        types = {0: "", _MODEL_TYPE_TENSORFLOW: PLATFORM}
        old = types.get(model.model_type, f"type {model.model_type}")
        platforms = {model.model_platform, old} - {""}
        if platforms != {PLATFORM}:
            raise invalid(
                f"Model {model.name} requests unsupported platform "
                f"{' and '.join(sorted(platforms)) or 'none'}"
            )


def batching_options(
    parameters: message.Message,
) -> batching.BatchingOptions:
    """Returns what BatchingParameters mean, defaults filled in.

    `batch_timeout_micros` is checked and means nothing: no call waits for a
    timer here. One check is stricter than in TensorFlow Serving: sizes that do
    not ascend are refused. There the batches are padded to the wrong size.

    Raises:
      StatusError: INVALID_ARGUMENT; the parameters contradict each other.
    """

    def value(name, default):
        given = parameters.HasField(name)
        return getattr(parameters, name).value if given else default

    largest = value("max_batch_size", _DEFAULT_BATCH_SIZE)
    splits = value("enable_large_batch_splitting", False)
    executed = largest
    if splits:
        executed = value("max_execution_batch_size", _DEFAULT_BATCH_SIZE)
    enqueued = value("max_enqueued_batches", _DEFAULT_ENQUEUED_BATCHES)
    sizes = tuple(parameters.allowed_batch_sizes)
    for name, number, least in (
        ("max_batch_size", largest, 1),
        ("batch_timeout_micros", value("batch_timeout_micros", 0), 0),
        ("max_enqueued_batches", enqueued, int(splits)),
        ("num_batch_threads", batch_threads(parameters), 1),
        ("max_execution_batch_size", executed, 1),
        ("allowed_batch_sizes", min(sizes, default=1), 1),
    ):
        if number < least:
            kind = "positive" if least else "non-negative"
            raise invalid(f"{name} must be {kind}; was {number}")
    if largest < executed:
        raise invalid(
            "When enable_large_batch_splitting is true, input_batch_size_limit "
            "must be greater than or equal to max_execution_batch_size."
        )
    if any(a >= b for a, b in itertools.pairwise(sizes)):
        raise invalid(
            "allowed_batch_sizes entries must be monotonically increasing"
        )
    if sizes and sizes[-1] != largest:
        raise invalid(
            "Last entry in allowed_batch_sizes must match max_batch_size; last "
            f"entry was {sizes[-1]}; expected {largest}"
        )
    return batching.BatchingOptions(
        max_batch_size=largest,
        # The scheduler takes 0 for 1.
        max_enqueued_batches=max(enqueued, 1),
        allowed_batch_sizes=sizes,
        pad_variable_length_inputs=parameters.pad_variable_length_inputs,
        max_execution_batch_size=executed,
        splits=splits,
    )


def batch_threads(parameters: message.Message) -> int:
    """Returns how many batches run at a time."""
    given = parameters.HasField("num_batch_threads")
    return parameters.num_batch_threads.value if given else num_cpus()


def _read(path, filled, is_secret=False):
    """Returns the message `filled` with a text-format file's content."""
    name = filled.DESCRIPTOR.name
    try:
        text = pathlib.Path(path).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "no UTF-8 text"
        raise ConfigFileError(
            f"Expected a {name} in the file {path}. Received: {reason}."
        ) from None
    try:
        return text_format.Parse(text, filled)
    except text_format.ParseError as error:
        line = error.GetLine() or 1
        reason = re.sub(r"^\d+:\d+ : ", "", str(error))
        unknown = re.search(r'type "(.*)" has no field named "(.*)"', reason)
        if unknown:
            reason = _unknown(unknown[2], filled.DESCRIPTOR, unknown[1])
        elif is_secret:
            reason = "a text that does not parse."
        else:
            # The parser repeats the line, which the number says.
            lines = text.splitlines()[line - 1 : line]
            reason = reason.removeprefix(f"'{''.join(lines)}': ").rstrip(".")
            reason = f"a text that does not parse ({reason})."
        raise ConfigFileError(
            f"Expected a {name} in {path}, line {line}. Received: {reason}"
        ) from None


def _unknown(field, descriptor, full_name):
    known = descriptor.file.pool.FindMessageTypeByName(full_name)
    near = difflib.get_close_matches(field, known.fields_by_name, 1, 0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"an unknown field {field!r}.{hint}"
