"""The flags of tensorflow_model_server, and of this server's own limits.

`--name=value`, or a bare `--name` for a truth value. Importing this file
imports no TensorFlow.
"""

import argparse
import difflib
import re
from collections.abc import Callable, Sequence

_INT32, _INT64 = 2**31, 2**63
_MIB = 2**20


class FlagError(ValueError):
    """The command line cannot be followed; the text says what to write."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:
        raise FlagError(message)


def parse(words: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Returns the flags of a command line, and the words that are no flag.

    With --help or --version nothing is required.

    Args:
      words: the command line without the command.

    Raises:
      FlagError: a value cannot be read, or the flags contradict each other.
    """
    flags, unknown = _parser().parse_known_args(words)
    if not flags.help and not flags.version:
        _check(flags)
    return flags, unknown


def unknown_words(words: Sequence[str]) -> str:
    """Returns the line that is printed about words that are no flag."""
    name = words[0].removeprefix("--").partition("=")[0]
    known = vars(_parser().parse_args([]))
    near = difflib.get_close_matches(name, known, 1, 0.6)
    hint = f" Did you mean --{near[0]}?" if near else ""
    return f"unknown argument: {words[0]}.{hint}"


def channel_arguments(text: str) -> list[tuple[str, int | str]]:
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
        is_number = re.fullmatch(r"-?[0-9]{1,9}", value)
        pairs.append((key, int(value) if is_number else value))
    return pairs


def usage() -> str:
    """Returns the help text."""
    return _parser().format_help()


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m serving.local_server",
        usage="%(prog)s --model_base_path=FOLDER [--name=value]",
        allow_abbrev=False,
        add_help=False,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = _group(parser, "Which models")
    add("model_name", str, "default", "name of the one model")
    add(
        "model_base_path",
        str,
        "",
        "absolute path of the folder that holds its numbered versions",
    )
    add(
        "model_config_file",
        str,
        "",
        "ModelServerConfig in text format, for several models, version "
        "policies and labels; the two flags above are then ignored",
    )
    add(
        "model_config_file_poll_wait_seconds",
        _integer(),
        0,
        "read that file again after so many seconds; 0: never",
    )
    add(
        "saved_model_tags",
        str,
        "serve",
        "tags of the graph to load, comma-separated",
    )
    add = _group(parser, "Where to listen")
    add("port", _integer(0, 2**16), 8500, "gRPC; 0: no gRPC")
    add("rest_api_port", _integer(0, 2**16), 0, "HTTP; 0: no REST")
    add("grpc_socket_path", str, "", "gRPC on a unix socket, too")
    add(
        "bind",
        str,
        "127.0.0.1",
        "address of both ports; 0.0.0.0: reachable from other machines (this "
        "server's own flag: the genuine one listens everywhere)",
    )
    add(
        "ssl_config_file",
        str,
        "",
        "SSLConfig in text format: TLS for gRPC; REST stays without",
    )
    add = _group(parser, "Loading and versions")
    add(
        "file_system_poll_wait_seconds",
        _integer(),
        1,
        "look for new versions after so many seconds; 0: only once",
    )
    add("max_num_load_retries", _integer(), 5, "tries after a failed load")
    add(
        "load_retry_interval_micros",
        _integer(-_INT64, _INT64),
        60_000_000,
        "pause before such a try; negative: none",
    )
    add("num_load_threads", _integer(), 0, "loads at once; 0: one")
    add(
        "allow_version_labels_for_unavailable_models",
        _truth,
        False,
        "let a new label name a version that is not loaded; labels in the "
        "file that the server starts with need it",
    )
    add(
        "enable_model_warmup",
        _truth,
        True,
        "run the requests in assets.extra before a version is served",
    )
    add(
        "num_request_iterations_for_warmup",
        _integer(),
        0,
        "times that each is run; 0: once",
    )
    add = _group(parser, "Batching")
    add(
        "enable_batching",
        _truth,
        True,
        "run requests together that wait for a free thread",
    )
    add(
        "batching_parameters_file", str, "", "BatchingParameters in text format"
    )
    add(
        "enable_per_model_batching_parameters",
        _truth,
        False,
        "read them from batching_params.pbtxt in each version's folder; of "
        "the file above only the threads count then",
    )
    add = _group(parser, "gRPC and REST")
    add(
        "grpc_channel_arguments",
        str,
        "",
        "key=value, comma-separated, as grpc.max_connection_age_ms=2000",
    )
    add(
        "enable_grpc_healthcheck_service",
        _truth,
        False,
        "answer grpc.health.v1.Health",
    )
    add(
        "enable_serialization_as_tensor_content",
        _truth,
        False,
        "answer with raw bytes, which clients read faster",
    )
    add(
        "rest_api_timeout_in_ms",
        _integer(),
        30_000,
        "longest REST request; 0: no limit",
    )
    add(
        "rest_api_enable_cors_support",
        _truth,
        False,
        "let web pages of other origins call",
    )
    add = _group(parser, "Limits (this server's own flags)")
    add(
        "max_connections",
        _integer(1),
        400,
        "connections of each protocol; REST closes the idlest for a new one",
    )
    add(
        "request_arrival_seconds",
        _integer(1),
        10,
        "a request must be here so long after it began; as long may a "
        "connection be without one",
    )
    add(
        "grpc_max_request_bytes",
        _integer(1),
        64 * _MIB,
        "largest message to gRPC",
    )
    add(
        "rest_api_max_request_bytes",
        _integer(1),
        16 * _MIB,
        "largest body to REST, and what it may unpack to",
    )
    add(
        "max_waiting_calls",
        _integer(1),
        1024,
        "calls of both protocols that run or wait; more are refused",
    )
    add(
        "max_waiting_bytes",
        _integer(1, _INT64),
        512 * _MIB,
        "what the requests of those calls may hold together",
    )
    add = _group(parser, "TensorFlow's threads")
    large = _integer(-_INT64, _INT64)
    add(
        "tensorflow_session_parallelism",
        large,
        0,
        "both of the next two; 0: one for each CPU",
    )
    add("tensorflow_intra_op_parallelism", large, 0, "threads in an operation")
    add("tensorflow_inter_op_parallelism", large, 0, "operations at once")
    add = _group(parser, "Watching and help")
    add(
        "monitoring_config_file",
        str,
        "",
        "MonitoringConfig in text format: Prometheus metrics over REST",
    )
    add("version", _truth, False, "print the versions and exit")
    add("help", _truth, False, "print this and exit")
    return parser


def _group(parser: argparse.ArgumentParser, heading: str) -> Callable:
    group = parser.add_argument_group(heading)

    def add(name, kind, default, text):
        bare = {"nargs": "?", "const": True} if kind is _truth else {}
        group.add_argument(
            f"--{name}",
            type=kind,
            default=default,
            metavar="true|false" if kind is _truth else "VALUE",
            help=text,
            **bare,
        )

    return add


def _integer(least: int = -_INT32, limit: int = _INT32) -> Callable:
    def read(text):
        # Python alone would take 1_000, blanks and digits of other scripts.
        is_number = re.fullmatch(r"[+-]?[0-9]{1,19}", text)
        if not is_number or not least <= int(text) < limit:
            raise argparse.ArgumentTypeError(
                f"Expected a number from {least} to {limit - 1}. Received: "
                f"{text!r}."
            )
        return int(text)

    return read


def _truth(text: str) -> bool:
    if text not in ("true", "false"):
        raise argparse.ArgumentTypeError(
            f"Expected true or false. Received: {text!r}."
        )
    return text == "true"


def _check(flags: argparse.Namespace) -> None:
    channel_arguments(flags.grpc_channel_arguments)
    if not flags.model_base_path and not flags.model_config_file:
        raise FlagError(
            "Both server_options.model_base_path and "
            "server_options.model_config_file are empty!"
        )
    if not (flags.port or flags.grpc_socket_path or flags.rest_api_port):
        raise FlagError(
            "server_options.grpc_port is not set. Expected --port, "
            "--grpc_socket_path or --rest_api_port. Received: none of them."
        )
    if flags.batching_parameters_file and not flags.enable_batching:
        raise FlagError(
            "server_options.batching_parameters_file is set without setting "
            "server_options.enable_batching to true."
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
