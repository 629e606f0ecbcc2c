"""The text files of the server: fields, defaults, checks, errors."""

import pathlib

import pytest
from google.protobuf import text_format

from serving.server import batching, config_files
from serving.server.config_files import (
    BatchingParameters,
    ConfigFileError,
    ModelServerConfig,
    MonitoringConfig,
)
from serving.status import StatusError

_KEY = "-----BEGIN PRIVATE KEY-----\\nc2VjcmV0\\n-----END PRIVATE KEY-----"
_CERT = "-----BEGIN CERTIFICATE-----\\nAA==\\n-----END CERTIFICATE-----"
_ALL_PARAMETERS = """
    max_batch_size { value: 8 } batch_timeout_micros { value: 2 }
    max_enqueued_batches { value: 3 } num_batch_threads { value: 4 }
    thread_pool_name { value: "p" } allowed_batch_sizes: [2, 8]
    pad_variable_length_inputs: true
    enable_large_batch_splitting { value: true }
    max_execution_batch_size { value: 2 }
"""


@pytest.fixture
def write(tmp_path):
    """write(text): the path of a file."""

    def written(text):
        path = tmp_path / "a.config"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return written


def _options(text):
    parameters = text_format.Parse(text, BatchingParameters())
    return config_files.batching_options(parameters)


def test_models(write):
    config = config_files.read(
        write(
            """
            model_config_list {
              config {
                name: "m" base_path: "/m" model_platform: "tensorflow"
                model_version_policy { specific { versions: 3 } }
                version_labels { key: "stable" value: 3 }
              }
            }
            """
        )
    )
    config_files.check_models(config)
    (model,) = config.model_config_list.config
    assert (model.name, model.base_path) == ("m", "/m")
    assert list(model.model_version_policy.specific.versions) == [3]
    assert dict(model.version_labels) == {"stable": 3}


def test_monitoring(write):
    path = write('prometheus_config { enable: true path: "/x" }')
    config = config_files.read(path, MonitoringConfig)
    assert config.prometheus_config.enable
    assert config.prometheus_config.path == "/x"


def test_ssl(write):
    config = config_files.read_ssl(
        write(
            f'server_key: "{_KEY}" server_cert: "{_CERT}"\n'
            f'custom_ca: "{_CERT}" client_verify: true'
        )
    )
    assert config.server_key == _KEY.replace("\\n", "\n")
    assert config.client_verify


@pytest.mark.parametrize(
    ("kind", "text", "pattern"),
    [
        (ModelServerConfig, "model_config_list {\n nam: 1 }", "2:.*nam"),
        (BatchingParameters, "\nmax_batchsize { value: 1 }", "2:.*batchsize"),
        (BatchingParameters, "max_batch_size: 8", "1:"),
        (MonitoringConfig, "prometheus_config {\n", "1:"),
        (ModelServerConfig, b"\xff\xfe", "no UTF-8 text"),
    ],
)
def test_mistakes_are_told_with_file_and_line(write, kind, text, pattern):
    pattern = f"Expected a {kind.DESCRIPTOR.name} in .*a.config.*{pattern}"
    with pytest.raises(ConfigFileError, match=pattern):
        config_files.read(write(text), kind)


@pytest.mark.parametrize("path", ["/nowhere/a", "/"])
def test_no_such_file(path):
    with pytest.raises(ConfigFileError, match=f"the file {path}. Received:"):
        config_files.read(path)


@pytest.mark.parametrize(
    ("text", "field"),
    [
        (f'server_key: "/etc/key.pem" server_cert: "{_CERT}"', "server_key"),
        (f'server_key: "{_KEY}"', "server_cert"),
        (
            f'server_key: "{_KEY}" server_cert: "{_CERT}" client_verify: true',
            "custom_ca",
        ),
    ],
)
def test_ssl_needs_pem_texts(write, text, field):
    with pytest.raises(ConfigFileError, match=field):
        config_files.read_ssl(write(text))


@pytest.mark.parametrize(
    "text",
    [
        'server_key: "c2VjcmV0" "unclosed',
        "server_key: c2VjcmV0",
        'server_key: "c2VjcmV0" sever_cert: "b"',
        'server_key: "c2VjcmV0" server_cert: "b"',
    ],
)
def test_no_error_repeats_a_key(write, text):
    with pytest.raises(ConfigFileError) as caught:
        config_files.read_ssl(write(text))
    assert "c2VjcmV0" not in str(caught.value)


def test_a_single_model_passes():
    config = config_files.single_model("m", pathlib.Path("/models/m"))
    config_files.check_models(config)
    assert config.model_config_list.config[0].base_path == "/models/m"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "model_config_list"),
        ("custom_model_config {}", "model_config_list"),
        (
            "model_config_list {"
            + "config { name: 'm' base_path: '/m' model_platform: 'tensorflow'}"
            * 2
            + "}",
            "multiple times",
        ),
        (
            "model_config_list { config { name: 'm' base_path: 'gs://m' "
            "model_platform: 'tensorflow' } }",
            "absolute path",
        ),
        (
            "model_config_list { config { name: 'm' base_path: '/m' } }",
            "platform none",
        ),
    ],
)
def test_refused_models(text, words):
    config = text_format.Parse(text, ModelServerConfig())
    with pytest.raises(StatusError, match=words) as caught:
        config_files.check_models(config)
    assert caught.value.code == "INVALID_ARGUMENT"


def test_batching_defaults():
    assert _options("") == batching.BatchingOptions(
        max_batch_size=1000, max_execution_batch_size=1000, splits=False
    )
    threads = config_files.batch_threads(BatchingParameters())
    assert threads == config_files.num_cpus()


def test_batching_parameters():
    assert _options(_ALL_PARAMETERS) == batching.BatchingOptions(
        max_batch_size=8,
        max_execution_batch_size=2,
        splits=True,
    )


def test_without_splitting_a_batch_is_as_large_as_a_request():
    options = _options(
        "max_batch_size { value: 8 } max_execution_batch_size { value: 2 }"
    )
    assert options.max_execution_batch_size == 8


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("max_batch_size { value: 0 }", "max_batch_size must be positive"),
        ("num_batch_threads { value: 0 }", "num_batch_threads must be"),
        (
            "enable_large_batch_splitting { value: true } "
            "max_batch_size { value: 8 }",
            "at least max_execution_batch_size",
        ),
    ],
)
def test_refused_batching(text, words):
    with pytest.raises(StatusError, match=words) as caught:
        _options(text)
    assert caught.value.code == "INVALID_ARGUMENT"
