"""The flags of tensorflow_model_server, for the embedded server.

One table holds every flag of the genuine server, and `--bind`, which is ours.
Words are read as TensorFlow reads them: `--name=value`, a bare `--name` for a
truth value, nothing else. Importing this file imports no TensorFlow.
"""

import dataclasses
import difflib
import re
import textwrap

from serving import config_files

_CPUS = config_files.num_cpus()
_LIMITS = {"int32": 2**31, "int64": 2**63}
_PORTS = ("port", "rest_api_port")
_AT_LEAST_ONE = ("grpc_max_threads", "rest_api_num_threads")
_IGNORED = "Accepted and ignored: the genuine server's, without effect here"


@dataclasses.dataclass(frozen=True)
class Flag:
    """A row of the table.

    Attributes:
      name: without the dashes.
      kind: "string", "int32", "int64", "float" or "bool".
      default: its value if the flag is not given.
      help: for a person; empty where the name has to do.
      group: heading of the help text.
    """

    name: str
    kind: str
    default: object
    help: str
    group: str

    @property
    def is_honoured(self):
        return self.group != _IGNORED


class FlagError(ValueError):
    """The command line cannot be followed; the text says what to write."""


def _group(heading, *rows):
    return tuple(Flag(*row, heading) for row in rows)


TABLE = (
    *_group(
        "Which models",
        ("model_name", "string", "default", "name of the one model"),
        (
            "model_base_path",
            "string",
            "",
            "absolute path of the folder that holds its numbered versions",
        ),
        (
            "model_config_file",
            "string",
            "",
            "ModelServerConfig in text format, for several models, version "
            "policies and labels; the two flags above are then ignored",
        ),
        (
            "model_config_file_poll_wait_seconds",
            "int32",
            0,
            "read that file again after so many seconds; 0: never",
        ),
        (
            "saved_model_tags",
            "string",
            "serve",
            "tags of the graph to load, comma-separated",
        ),
    ),
    *_group(
        "Where to listen",
        ("port", "int32", 8500, "gRPC; 0: no gRPC"),
        ("rest_api_port", "int32", 0, "HTTP; 0: no REST"),
        ("grpc_socket_path", "string", "", "gRPC on a unix socket, too"),
        (
            "bind",
            "string",
            "127.0.0.1",
            "address of both ports; 0.0.0.0: reachable from other machines "
            "(this server's own flag: the genuine one listens everywhere)",
        ),
        (
            "ssl_config_file",
            "string",
            "",
            "SSLConfig in text format: TLS for gRPC; REST stays without",
        ),
    ),
    *_group(
        "Loading and versions",
        (
            "file_system_poll_wait_seconds",
            "int32",
            1,
            "look for new versions after so many seconds; 0: only once",
        ),
        ("max_num_load_retries", "int32", 5, "tries after a failed load"),
        (
            "load_retry_interval_micros",
            "int64",
            60_000_000,
            "pause before such a try; negative: none",
        ),
        ("num_load_threads", "int32", 0, "loads at once; 0: one"),
        ("num_unload_threads", "int32", 0, "unloads at once; 0: one"),
        (
            "allow_version_labels_for_unavailable_models",
            "bool",
            False,
            "let a new label name a version that is not loaded; labels in the "
            "file that the server starts with need it",
        ),
        (
            "enable_model_warmup",
            "bool",
            True,
            "run the requests in assets.extra before a version is served",
        ),
        (
            "num_request_iterations_for_warmup",
            "int32",
            0,
            "times that each is run; 0: once",
        ),
    ),
    *_group(
        "Batching",
        ("enable_batching", "bool", False, "run waiting requests together"),
        (
            "batching_parameters_file",
            "string",
            "",
            "BatchingParameters in text format; needs --enable_batching",
        ),
        (
            "enable_per_model_batching_parameters",
            "bool",
            False,
            "read them from batching_params.pbtxt in each version's folder; "
            "of the file above only the threads count then",
        ),
    ),
    *_group(
        "gRPC and REST",
        ("grpc_max_threads", "int32", 4 * _CPUS, "calls at once"),
        (
            "grpc_channel_arguments",
            "string",
            "",
            "key=value, comma-separated, as grpc.max_connection_age_ms=2000",
        ),
        (
            "enable_grpc_healthcheck_service",
            "bool",
            False,
            "answer grpc.health.v1.Health",
        ),
        (
            "enable_serialization_as_tensor_content",
            "bool",
            False,
            "answer with raw bytes, which clients read faster",
        ),
        (
            "enable_signature_method_name_check",
            "bool",
            False,
            "refuse a call that a signature's method_name does not fit",
        ),
        ("rest_api_num_threads", "int32", 4 * _CPUS, "requests at once"),
        ("rest_api_timeout_in_ms", "int32", 30_000, "longest REST request"),
        (
            "rest_api_enable_cors_support",
            "bool",
            False,
            "let web pages of other origins call",
        ),
    ),
    *_group(
        "TensorFlow's threads",
        (
            "tensorflow_session_parallelism",
            "int64",
            0,
            "both of the next two; 0: one for each CPU",
        ),
        (
            "tensorflow_intra_op_parallelism",
            "int64",
            0,
            "threads within an operation",
        ),
        (
            "tensorflow_inter_op_parallelism",
            "int64",
            0,
            "operations at once",
        ),
    ),
    *_group(
        "Watching and help",
        (
            "monitoring_config_file",
            "string",
            "",
            "MonitoringConfig in text format: Prometheus metrics over REST",
        ),
        ("version", "bool", False, "print the versions and exit"),
        ("help", "bool", False, "print this and exit"),
    ),
    *_group(
        _IGNORED,
        ("flush_filesystem_caches", "bool", True, ""),
        ("tensorflow_session_config_file", "string", "", ""),
        ("platform_config_file", "string", "", ""),
        ("per_process_gpu_memory_fraction", "float", 0.0, ""),
        ("remove_unused_fields_from_bundle_metagraph", "bool", True, ""),
        ("thread_pool_factory_config_file", "string", "", ""),
        ("enable_profiler", "bool", True, ""),
        ("use_alts_credentials", "bool", False, ""),
        ("prefer_tflite_model", "bool", False, ""),
        ("num_tflite_pools", "int32", _CPUS, ""),
        ("num_tflite_interpreters_per_pool", "int32", 1, ""),
        ("xla_cpu_compilation_enabled", "bool", False, ""),
        ("xla_gpu_compilation_enabled", "bool", False, ""),
        ("mixed_precision", "string", "", ""),
        ("skip_initialize_tpu", "bool", False, ""),
    ),
)

Flags = dataclasses.make_dataclass(
    "Flags",
    [
        (flag.name, type(flag.default), dataclasses.field(default=flag.default))
        for flag in TABLE
    ],
    frozen=True,
    namespace={"__doc__": "The value of every flag, an attribute for each."},
)
_BY_NAME = {flag.name: flag for flag in TABLE}


def parse(words):
    """Returns the Flags of a command line, and the words that are no flag.

    With --help or --version nothing is required. A lone `--` ends the flags.

    Args:
      words: the command line without the command.

    Returns:
      (Flags, list of unknown words); `unknown_words` describes the latter.

    Raises:
      FlagError: a value cannot be read, or the flags contradict each other.
    """
    values, unknown = {}, []
    for index, word in enumerate(words):
        if word == "--":
            unknown += words[index:]
            break
        name, equals, value = word.removeprefix("--").partition("=")
        flag = _BY_NAME.get(name) if word.startswith("--") else None
        # As there, a bare flag that needs a value is an unknown word.
        if flag is None or (not equals and flag.kind != "bool"):
            unknown.append(word)
        else:
            values[name] = _value(flag, value if equals else "true")
    flags = Flags(**values)
    if not flags.help and not flags.version:
        _check(flags)
    return flags, unknown


def unknown_words(words):
    """Returns the line that is printed about words that are no flag."""
    word = words[0]
    name = word.removeprefix("--").partition("=")[0]
    near = difflib.get_close_matches(name, _BY_NAME, 1, 0.6)
    if not near:
        return f"unknown argument: {word}"
    value = "" if _BY_NAME[near[0]].kind == "bool" else "=VALUE"
    return f"unknown argument: {word}. Did you mean --{near[0]}{value}?"


def ignored(flags):
    """Returns the names of flags that were set and have no effect here."""
    return [
        flag.name
        for flag in TABLE
        if not flag.is_honoured and getattr(flags, flag.name) != flag.default
    ]


def channel_arguments(text):
    """Returns gRPC's (key, value) pairs of --grpc_channel_arguments.

    Raises:
      FlagError: a part is not key=value.
    """
    pairs = []
    for part in text.split(",") if text else []:
        key, equals, value = part.partition("=")
        if not key or not equals:
            raise FlagError(
                "Expected key=value parts in --grpc_channel_arguments. "
                f"Received: {part!r}."
            )
        is_number = re.fullmatch(r"-?\d{1,9}", value)
        pairs.append((key, int(value) if is_number else value))
    return pairs


def usage(command="python -m serving.local_server"):
    """Returns the help text, in groups, 80 columns wide."""
    lines = [f"usage: {command} --model_base_path=FOLDER [--name=value]"]
    heading = None
    for flag in TABLE:
        if flag.group != heading:
            heading = flag.group
            lines += ["", f"{heading}:"]
        default = str(flag.default).lower() if flag.default != "" else '""'
        lines.append(f"  --{flag.name}={default} ({flag.kind})")
        indent = " " * 6
        lines += textwrap.wrap(
            flag.help, 80, initial_indent=indent, subsequent_indent=indent
        )
    return "\n".join(lines) + "\n"


def _value(flag, text):
    word = f"--{flag.name}={text}"
    if flag.kind == "string":
        return text
    if flag.kind == "bool":
        if text not in ("true", "false"):
            raise FlagError(
                f"Expected --{flag.name}=true or =false. Received: {word!r}."
            )
        return text == "true"
    if flag.kind == "float":
        pattern, limit, convert = r"[+-]?(\d+\.?\d*|\.\d+)", 2.0**127, float
    else:
        pattern, limit, convert = r"[+-]?\d{1,19}", _LIMITS[flag.kind], int
    # Python alone would take 1_000, blanks and digits of other scripts.
    is_number = re.fullmatch(pattern, text, re.ASCII)
    if not is_number or not -limit <= convert(text) < limit:
        raise FlagError(
            f"Expected a number ({flag.kind}) in --{flag.name}. Received: "
            f"{word!r}."
        )
    return convert(text)


def _check(flags):
    for name in _PORTS:
        if not 0 <= getattr(flags, name) < 2**16:
            raise FlagError(
                f"Expected 0 to 65535 in --{name}. Received: "
                f"{getattr(flags, name)}."
            )
    for name in _AT_LEAST_ONE:
        if getattr(flags, name) < 1:
            raise FlagError(
                f"Expected 1 or more in --{name}. Received: "
                f"{getattr(flags, name)}."
            )
    channel_arguments(flags.grpc_channel_arguments)
    if not flags.model_base_path and not flags.model_config_file:
        raise FlagError(
            "Expected --model_base_path or --model_config_file. Received: "
            "neither."
        )
    if flags.batching_parameters_file and not flags.enable_batching:
        raise FlagError(
            "Expected --enable_batching with --batching_parameters_file. "
            "Received: the file alone."
        )
    if (
        flags.tensorflow_session_parallelism > 0
        and flags.tensorflow_intra_op_parallelism > 0
        and flags.tensorflow_inter_op_parallelism > 0
    ):
        raise FlagError(
            "Expected --tensorflow_session_parallelism or the two of "
            "--tensorflow_intra_op_parallelism and "
            "--tensorflow_inter_op_parallelism. Received: all three."
        )
