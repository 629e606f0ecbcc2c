"""The command line of the server."""

import pytest

from serving.server import flags as server_flags

_MODEL = "--model_base_path=/m"


def test_defaults():
    """Those of tensorflow_model_server that clients or operators rely on."""
    flags, unknown = server_flags.parse([_MODEL])
    assert not unknown
    assert flags.model_base_path == "/m"
    assert flags.model_name == "default"
    assert (flags.port, flags.rest_api_port) == (8500, 0)
    assert flags.file_system_poll_wait_seconds == 1
    assert flags.max_num_load_retries == 5
    assert flags.rest_api_timeout_in_ms == 30_000
    assert not flags.allow_version_labels_for_unavailable_models
    # Ours.
    assert flags.bind == "127.0.0.1"
    assert flags.enable_batching


@pytest.mark.parametrize(
    ("word", "name", "value"),
    [
        ("--port=1", "port", 1),
        ("--load_retry_interval_micros=-1", "load_retry_interval_micros", -1),
        ("--model_name=a=b --c", "model_name", "a=b --c"),
        ("--model_name=", "model_name", ""),
        ("--enable_batching", "enable_batching", True),
        ("--enable_batching=true", "enable_batching", True),
        ("--enable_model_warmup=false", "enable_model_warmup", False),
        ("--rest_api_timeout_in_ms=0", "rest_api_timeout_in_ms", 0),
    ],
)
def test_value(word, name, value):
    flags, unknown = server_flags.parse([_MODEL, word])
    assert getattr(flags, name) == value
    assert not unknown


@pytest.mark.parametrize(
    "words",
    [
        ["--port=x"],
        ["--port=65536"],
        ["--rest_api_port=-1"],
        ["--rest_api_timeout_in_ms=-1"],
        *([f"--{name}=0"] for name in server_flags.LIMITS),
        ["--enable_batching=1"],
        ["--enable_batching="],
        ["--port=0"],
        ["--batching_parameters_file=f", "--enable_batching=false"],
        ["--model_base_path="],
    ],
)
def test_refused(words):
    name = words[0].partition("=")[0]
    with pytest.raises(server_flags.FlagError, match=name):
        server_flags.parse([_MODEL, *words])


@pytest.mark.parametrize(
    "words",
    [
        ["--model_config_file=f"],
        [_MODEL, "--batching_parameters_file=f"],
        [_MODEL, "--port=0", "--rest_api_port=1"],
        ["--help"],
        ["--version"],
    ],
)
def test_what_suffices(words):
    assert not server_flags.parse(words)[1]


def test_unknown_words_are_returned():
    words = ["--prot=1", "-port=2", "port=3"]
    flags, unknown = server_flags.parse([*words, _MODEL])
    assert unknown == words
    assert flags.port == 8500


def test_usage_has_every_flag_and_fits():
    text = server_flags.usage()
    flags, _ = server_flags.parse([_MODEL])
    for name in vars(flags):
        assert f"\n  --{name} " in text
    assert max(map(len, text.splitlines())) <= 80
