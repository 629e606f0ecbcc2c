"""The flags of tensorflow_model_server, for the embedded server.

Words are read as TensorFlow reads them: `--name=value`, a bare `--name` for a
truth value, nothing else. Importing this file imports no TensorFlow.
"""

import dataclasses
import difflib
import re
import textwrap

from . import flag_table

_LIMITS = {"int32": 2**31, "int64": 2**63}
_PORTS = ("port", "rest_api_port")
_AT_LEAST_ONE = ("grpc_max_threads", "rest_api_num_threads")

Flags = dataclasses.make_dataclass(
    "Flags",
    [
        (flag.name, type(flag.default), dataclasses.field(default=flag.default))
        for flag in flag_table.TABLE
    ],
    frozen=True,
    namespace={"__doc__": "The value of every flag, an attribute for each."},
)
_BY_NAME = {flag.name: flag for flag in flag_table.TABLE}


class FlagError(ValueError):
    """The command line cannot be followed; the text says what to write."""


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
        for flag in flag_table.TABLE
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
    for flag in flag_table.TABLE:
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
