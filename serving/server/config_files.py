"""The server's text-format files: models, batching, monitoring, TLS.

The messages of three of them are not in tensorflow-serving-api and are built
here, field by field and number by number as TensorFlow Serving declares them.
Importing this file imports no TensorFlow; `read_models` and `single_model` do.
"""

import dataclasses
import difflib
import os
import pathlib
import re

from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    message_factory,
    text_format,
    wrappers_pb2,
)

from ..status import invalid

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
        message = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            _add_field(message, field, number, kind)
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(file.SerializeToString())
    return {
        name: message_factory.GetMessageClass(
            pool.FindMessageTypeByName(f"{_PACKAGE}.{name}")
        )
        for name in _MESSAGES
    }


def _add_field(message, name, number, kind):
    field = message.field.add(name=name, number=number)
    field.label = field.LABEL_OPTIONAL
    if kind.startswith("repeated "):
        field.label = field.LABEL_REPEATED
        kind = kind.removeprefix("repeated ")
    if kind.startswith("."):
        field.type = field.TYPE_MESSAGE
        field.type_name = kind
    else:
        field.type = field.Type.Value(f"TYPE_{kind.upper()}")


_CLASSES = _message_classes()
SSLConfig = _CLASSES["SSLConfig"]
PrometheusConfig = _CLASSES["PrometheusConfig"]
MonitoringConfig = _CLASSES["MonitoringConfig"]
BatchingParameters = _CLASSES["BatchingParameters"]


class ConfigFileError(ValueError):
    """A file cannot be read as its message; the text names file and line."""


@dataclasses.dataclass(frozen=True)
class BatchingOptions:
    """BatchingParameters with every default filled in.

    Attributes:
      max_batch_size: the most rows that one request may have.
      batch_timeout_micros: how long a batch waits for more rows.
      max_enqueued_batches: the most batches that wait for a thread.
      num_batch_threads: batches that run at once.
      allowed_batch_sizes: ascending; a batch is padded up to the next of them.
        Empty: every size.
      pad_variable_length_inputs: pad the other dimensions, too.
      enable_large_batch_splitting: cut a request that does not fit.
      max_execution_batch_size: the most rows of a batch that runs; smaller
        than `max_batch_size` only with splitting.
    """

    max_batch_size: int = _DEFAULT_BATCH_SIZE
    batch_timeout_micros: int = 0
    max_enqueued_batches: int = _DEFAULT_ENQUEUED_BATCHES
    num_batch_threads: int = 1
    allowed_batch_sizes: tuple = ()
    pad_variable_length_inputs: bool = False
    enable_large_batch_splitting: bool = False
    max_execution_batch_size: int = _DEFAULT_BATCH_SIZE


def num_cpus():
    """Returns the number of CPUs that this process may run on."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def read_models(path):
    """Returns the ModelServerConfig of a file, not yet checked.

    Raises:
      ConfigFileError: it cannot be read, or is no ModelServerConfig.
    """
    from tensorflow_serving.config import model_server_config_pb2

    return _read(path, model_server_config_pb2.ModelServerConfig())


def read_batching(path):
    """Returns the BatchingParameters of a file; raises as `read_models`."""
    return _read(path, BatchingParameters())


def read_monitoring(path):
    """Returns the MonitoringConfig of a file; raises as `read_models`."""
    return _read(path, MonitoringConfig())


def read_ssl(path):
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


def single_model(name, base_path):
    """Returns the ModelServerConfig of one model, newest version only."""
    from tensorflow_serving.config import model_server_config_pb2

    config = model_server_config_pb2.ModelServerConfig()
    config.model_config_list.config.add(
        name=name, base_path=str(base_path), model_platform=PLATFORM
    )
    return config


def check_models(config):
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
        platform = _platform(model)
        if platform != PLATFORM:
            raise invalid(
                f"Model {model.name} requests unsupported platform {platform}"
            )


def _platform(model):
    if not model.model_type:
        if not model.model_platform:
            raise invalid(
                "Illegal setting neither ModelServerConfig::model_type "
                "(deprecated) nor ModelServerConfig::model_platform."
            )
        return model.model_platform
    if model.model_platform:
        raise invalid(
            "Illegal setting both ModelServerConfig::model_type (deprecated) "
            "and ModelServerConfig::model_platform."
        )
    if model.model_type != _MODEL_TYPE_TENSORFLOW:
        raise invalid(
            f"ModelServerConfig::model_type choice {model.model_type} not "
            "supported."
        )
    return PLATFORM


def check_batching(parameters):
    """Checks BatchingParameters as TensorFlow Serving does, in its words.

    One check is stricter: sizes that do not ascend are refused. There they
    are accepted, and the batches are then padded to the wrong size.

    Raises:
      StatusError: INVALID_ARGUMENT.
    """
    options = _filled(parameters)
    splits = options.enable_large_batch_splitting
    for name, value, least in (
        # The scheduler's own name for max_batch_size.
        ("input_batch_size_limit", options.max_batch_size, 1),
        ("batch_timeout_micros", options.batch_timeout_micros, 0),
        ("max_enqueued_batches", options.max_enqueued_batches, int(splits)),
        ("num_batch_threads", options.num_batch_threads, 1),
        ("max_execution_batch_size", options.max_execution_batch_size, 1),
        ("allowed_batch_sizes", min(options.allowed_batch_sizes, default=1), 1),
    ):
        if value < least:
            kind = "positive" if least else "non-negative"
            raise invalid(f"{name} must be {kind}; was {value}")
    if options.max_batch_size < options.max_execution_batch_size:
        raise invalid(
            "When enable_large_batch_splitting is true, input_batch_size_limit "
            "must be greater than or equal to max_execution_batch_size."
        )
    _check_allowed(options.allowed_batch_sizes, options.max_batch_size)


def _check_allowed(sizes, max_batch_size):
    if any(a >= b for a, b in zip(sizes, sizes[1:], strict=False)):
        raise invalid(
            "allowed_batch_sizes entries must be monotonically increasing"
        )
    if sizes and sizes[-1] != max_batch_size:
        raise invalid(
            "Last entry in allowed_batch_sizes must match max_batch_size; last "
            f"entry was {sizes[-1]}; expected {max_batch_size}"
        )


def batching_options(parameters):
    """Returns the BatchingOptions of BatchingParameters; checks them first.

    Raises:
      StatusError: as `check_batching`.
    """
    check_batching(parameters)
    options = _filled(parameters)
    # The scheduler takes 0 for 1.
    return dataclasses.replace(
        options, max_enqueued_batches=max(options.max_enqueued_batches, 1)
    )


def _filled(parameters):
    def value(name, default):
        given = parameters.HasField(name)
        return getattr(parameters, name).value if given else default

    max_batch_size = value("max_batch_size", _DEFAULT_BATCH_SIZE)
    splits = value("enable_large_batch_splitting", False)
    return BatchingOptions(
        max_batch_size=max_batch_size,
        batch_timeout_micros=value("batch_timeout_micros", 0),
        max_enqueued_batches=value(
            "max_enqueued_batches", _DEFAULT_ENQUEUED_BATCHES
        ),
        num_batch_threads=value("num_batch_threads", num_cpus()),
        allowed_batch_sizes=tuple(parameters.allowed_batch_sizes),
        pad_variable_length_inputs=parameters.pad_variable_length_inputs,
        enable_large_batch_splitting=splits,
        max_execution_batch_size=(
            value("max_execution_batch_size", _DEFAULT_BATCH_SIZE)
            if splits
            else max_batch_size
        ),
    )


def _read(path, message, is_secret=False):
    """Returns `message`, filled from a text-format file."""
    name = message.DESCRIPTOR.name
    try:
        text = pathlib.Path(path).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "no UTF-8 text"
        raise ConfigFileError(
            f"Expected a {name} in the file {path}. Received: {reason}."
        ) from None
    try:
        return text_format.Parse(text, message)
    except text_format.ParseError as error:
        line = error.GetLine() or 1
        reason = re.sub(r"^\d+:\d+ : ", "", str(error))
        unknown = re.search(r'type "(.*)" has no field named "(.*)"', reason)
        if unknown:
            reason = _unknown(unknown[2], message.DESCRIPTOR, unknown[1])
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
    near = difflib.get_close_matches(
        field, _fields(descriptor, full_name, set()), 1, 0.5
    )
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"an unknown field {field!r}.{hint}"


def _fields(descriptor, full_name, seen):
    """Returns a message's field names, looked for below a descriptor."""
    if descriptor.full_name == full_name:
        return [field.name for field in descriptor.fields]
    seen.add(descriptor.full_name)
    for field in descriptor.fields:
        below = field.message_type
        if below is not None and below.full_name not in seen:
            found = _fields(below, full_name, seen)
            if found:
                return found
    return []
