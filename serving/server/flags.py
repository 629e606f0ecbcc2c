"""The flags of tensorflow_model_server, and of this server's own limits.

`--name=value`, or a bare `--name` for a truth value. Importing this file
imports no TensorFlow.
"""

import argparse
import re
from collections.abc import Sequence

# Under each heading a flag with its default, which says its type, and what it
# is for.
_TABLE = """
Which models
  model_name=default  name of the one model
  model_base_path=  absolute path of the folder with its numbered versions
  model_config_file=  ModelServerConfig in text format, for several models,
      version policies and labels; the two flags above are then ignored
  model_config_file_poll_wait_seconds=0  between two readings of it; 0: one only

Where to listen
  port=8500  gRPC; 0: no gRPC
  rest_api_port=0  HTTP; 0: no REST
  grpc_socket_path=  gRPC on a unix socket, too
  bind=127.0.0.1  address of both ports; 0.0.0.0: reachable from other machines
      (this server's own flag: the genuine one listens everywhere)
  ssl_config_file=  SSLConfig in text format: TLS for gRPC; REST stays without

Loading and versions
  file_system_poll_wait_seconds=1  between two looks for versions; 0: one only
  max_num_load_retries=5  tries after a failed load
  load_retry_interval_micros=60000000  pause before one; negative: none
  allow_version_labels_for_unavailable_models=false  let a new label name a
      version that is not loaded; labels in the file at the start need it
  enable_model_warmup=true  run the requests in assets.extra before serving

Batching
  enable_batching=true  run requests together that wait for a free thread
  batching_parameters_file=  BatchingParameters in text format

gRPC and REST
  enable_grpc_healthcheck_service=false  answer grpc.health.v1.Health
  enable_serialization_as_tensor_content=false  answer with raw bytes, which
      clients read faster
  rest_api_timeout_in_ms=30000  longest REST request; 0: no limit

Limits (this server's own flags)
  max_connections=400  of each protocol; REST closes the idlest for a new one
  request_arrival_seconds=10  a request must be here so long after it began; as
      long may a connection to REST be without one
  grpc_max_request_bytes=67108864  largest message to gRPC
  rest_api_max_request_bytes=16777216  largest body to REST, packed or not
  max_waiting_calls=1024  of both protocols that run or wait; more are refused
  max_waiting_bytes=536870912  that the requests of those calls hold together

TensorFlow's threads
  tensorflow_intra_op_parallelism=0  threads in an operation; 0: all CPUs
  tensorflow_inter_op_parallelism=0  operations at once; 0: all CPUs

Watching and help
  monitoring_config_file=  MonitoringConfig in text format: Prometheus metrics
      over REST
  version=false  print the versions and exit
  help=false  print this and exit
"""

LIMITS = (
    "max_connections",
    "request_arrival_seconds",
    "grpc_max_request_bytes",
    "rest_api_max_request_bytes",
    "max_waiting_calls",
    "max_waiting_bytes",
)
_PORTS = ("port", "rest_api_port")


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


def usage() -> str:
    """Returns the help text."""
    return _parser().format_help()


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="atat serve",
        usage="%(prog)s --model_base_path=FOLDER [--name=value]",
        allow_abbrev=False,
        add_help=False,
    )
    for part in _TABLE.strip().split("\n\n"):
        heading, *lines = part.splitlines()
        group = parser.add_argument_group(heading.strip())
        for flag in re.split(r"\n(?=  \w)", "\n".join(lines)):
            words, text = re.split(r"  +|\n +", flag.strip(), maxsplit=1)
            name, _, default = words.partition("=")
            is_truth = default in ("true", "false")
            kind = int if default.isdecimal() else str
            kind = _truth if is_truth else kind
            shown = f" (default: {default})" if default else ""
            group.add_argument(
                f"--{name}",
                type=kind,
                default=kind(default),
                metavar="true|false" if is_truth else "VALUE",
                help=" ".join(text.split()) + shown,
                **({"nargs": "?", "const": True} if is_truth else {}),
            )
    return parser


def _truth(text: str) -> bool:
    if text not in ("true", "false"):
        raise argparse.ArgumentTypeError(
            f"Expected true or false. Received: {text!r}."
        )
    return text == "true"


def _check(flags: argparse.Namespace) -> None:
    if not flags.model_base_path and not flags.model_config_file:
        raise FlagError(
            "Expected --model_base_path or --model_config_file. Received: none "
            "of them."
        )
    if not (flags.port or flags.grpc_socket_path or flags.rest_api_port):
        raise FlagError(
            "Expected --port, --grpc_socket_path or --rest_api_port. Received: "
            "none of them."
        )
    if flags.batching_parameters_file and not flags.enable_batching:
        raise FlagError(
            "Expected --enable_batching with --batching_parameters_file. "
            "Received: --enable_batching=false."
        )
    for name, value in vars(flags).items():
        least, most = 1, 2**31 - 1
        if name in _PORTS:
            least, most = 0, 2**16 - 1
        elif name == "rest_api_timeout_in_ms":
            least = 0
        elif name not in LIMITS:
            continue
        if not least <= value <= most:
            raise FlagError(
                f"Expected a number from {least} to {most} in --{name}. "
                f"Received: {value}."
            )
