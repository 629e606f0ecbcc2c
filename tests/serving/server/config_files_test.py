"""The text files of the server: fields, defaults, checks, errors."""

import pathlib
import subprocess
import sys
import tempfile

from absl.testing import absltest, parameterized
from google.protobuf import text_format

from serving.server import batching, config_files
from serving.status import StatusError

_ROOT = pathlib.Path(__file__).parents[3]
_KEY = "-----BEGIN PRIVATE KEY-----\\nc2VjcmV0\\n-----END PRIVATE KEY-----"
_CERT = "-----BEGIN CERTIFICATE-----\\nAA==\\n-----END CERTIFICATE-----"


def _models(text):
    from tensorflow_serving.config import model_server_config_pb2

    return text_format.Parse(text, model_server_config_pb2.ModelServerConfig())


def _batching(text):
    return text_format.Parse(text, config_files.BatchingParameters())


class FilesTest(parameterized.TestCase):
    def write(self, text, name="a.config"):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        path = pathlib.Path(folder.name) / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    def test_models(self):
        config = config_files.read_models(
            self.write(
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
        (model,) = config.model_config_list.config
        self.assertEqual((model.name, model.base_path), ("m", "/m"))
        self.assertEqual(
            list(model.model_version_policy.specific.versions), [3]
        )
        self.assertEqual(dict(model.version_labels), {"stable": 3})

    def test_monitoring(self):
        config = config_files.read_monitoring(
            self.write('prometheus_config { enable: true path: "/x" }')
        )
        self.assertTrue(config.prometheus_config.enable)
        self.assertEqual(config.prometheus_config.path, "/x")

    def test_ssl(self):
        config = config_files.read_ssl(
            self.write(
                f'server_key: "{_KEY}" server_cert: "{_CERT}"\n'
                f'custom_ca: "{_CERT}" client_verify: true'
            )
        )
        self.assertEqual(config.server_key, _KEY.replace("\\n", "\n"))
        self.assertTrue(config.client_verify)

    def test_numbers_on_the_wire(self):
        """Bytes by hand: key = number << 3 | wire type, then the value."""
        ssl = config_files.SSLConfig(
            server_key="a", server_cert="b", custom_ca="c", client_verify=True
        )
        self.assertEqual(
            ssl.SerializeToString(), b"\x0a\x01a\x12\x01b\x1a\x01c\x20\x01"
        )
        monitoring = config_files.MonitoringConfig(
            prometheus_config=config_files.PrometheusConfig(
                enable=True, path="/"
            )
        )
        self.assertEqual(
            monitoring.SerializeToString(), b"\x0a\x05\x08\x01\x12\x01/"
        )
        batching = _batching(
            """
            max_batch_size { value: 1 } batch_timeout_micros { value: 2 }
            max_enqueued_batches { value: 3 } num_batch_threads { value: 4 }
            thread_pool_name { value: "p" } allowed_batch_sizes: 6
            pad_variable_length_inputs: true
            enable_large_batch_splitting { value: true }
            max_execution_batch_size { value: 9 }
            """
        )
        self.assertEqual(
            batching.SerializeToString(),
            b"\x0a\x02\x08\x01\x12\x02\x08\x02\x1a\x02\x08\x03\x22\x02\x08\x04"
            b"\x2a\x03\x0a\x01p\x32\x01\x06\x38\x01\x42\x02\x08\x01\x4a\x02\x08"
            b"\x09",
        )

    @parameterized.named_parameters(
        (
            "models",
            config_files.read_models,
            "model_config_list {\n  config {\n    base_pth: '/m'\n  }\n}",
            "Expected a ModelServerConfig in .*a.config, line 3. Received: an "
            "unknown field 'base_pth'. Did you mean 'base_path'.$",
        ),
        (
            "models_of_a_policy",
            config_files.read_models,
            "model_config_list { config {\nmodel_version_policy { lastest {} }",
            "line 2. .*'lastest'. Did you mean 'latest'",
        ),
        (
            "batching",
            config_files.read_batching,
            "\n\nmax_batchsize { value: 1 }",
            "a BatchingParameters in .*, line 3. .*Did you mean 'max_batch_siz",
        ),
        (
            "plain_value_for_a_wrapper",
            config_files.read_batching,
            "max_batch_size: 8",
            r'line 1. Received: a text that does not parse \(Expected "{"\).$',
        ),
        (
            "no_hint",
            config_files.read_monitoring,
            "zzzzzzzz: 1",
            "unknown field 'zzzzzzzz'.$",
        ),
        (
            "twice",
            config_files.read_monitoring,
            "prometheus_config {\n enable: true\n enable: true }",
            'line 3. .*should not have multiple "enable" fields',
        ),
        (
            "cut_off",
            config_files.read_monitoring,
            "prometheus_config {\n",
            "line 1. Received: a text that does not parse",
        ),
        (
            "not_text",
            config_files.read_models,
            b"\xff\xfe",
            "in the file .*a.config. Received: no UTF-8 text.$",
        ),
    )
    def test_mistake(self, read, text, message):
        with self.assertRaisesRegex(config_files.ConfigFileError, message):
            read(self.write(text))

    @parameterized.parameters(
        config_files.read_models,
        config_files.read_batching,
        config_files.read_monitoring,
        config_files.read_ssl,
    )
    def test_no_such_file(self, read):
        for path, reason in (
            ("/nowhere/a", "No such file or directory"),
            ("/", "Is a directory"),
        ):
            with self.assertRaisesRegex(
                config_files.ConfigFileError,
                f"^Expected a .* in the file {path}. Received: {reason}.$",
            ):
                read(path)

    @parameterized.named_parameters(
        ("path", "/etc/key.pem", _CERT, "", "server_key.*without '-----BEGIN"),
        ("no_certificate", _KEY, "", "", "server_cert.*Received: nothing"),
        ("no_authority", _KEY, _CERT, "client_verify: true", "custom_ca.*not"),
    )
    def test_ssl_mistake(self, key, certificate, more, message):
        path = self.write(
            f'server_key: "{key}" server_cert: "{certificate}" {more}'
        )
        with self.assertRaisesRegex(config_files.ConfigFileError, message):
            config_files.read_ssl(path)

    @parameterized.parameters(
        'server_key: "c2VjcmV0" "unclosed',
        "server_key: c2VjcmV0",
        'server_key: "a" server_key: "c2VjcmV0"',
        'server_key "c2VjcmV0"',
        'server_key: "c2VjcmV0" sever_cert: "b"',
        'server_key: "c2VjcmV0" server_cert: "b"',
    )
    def test_no_error_repeats_a_key(self, text):
        with self.assertRaises(config_files.ConfigFileError) as caught:
            config_files.read_ssl(self.write(text))
        self.assertNotIn("c2VjcmV0", str(caught.exception))

    def test_needs_no_tensorflow(self):
        program = (
            "import sys; from serving.server import config_files, flags; "
            "sys.exit('tensorflow' in sys.modules)"
        )
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=_ROOT, check=False
        )
        self.assertEqual(done.returncode, 0)


class CheckModelsTest(parameterized.TestCase):
    def test_single_model_passes(self):
        config = config_files.single_model("m", pathlib.Path("/models/m"))
        config_files.check_models(config)
        (model,) = config.model_config_list.config
        self.assertEqual(model.base_path, "/models/m")
        self.assertEqual(model.model_platform, "tensorflow")

    @parameterized.parameters(
        "",
        "model_config_list {}",
        "model_config_list { config { name: 'a' base_path: 'gs://b/c' "
        "model_type: TENSORFLOW } }",
    )
    def test_passes(self, text):
        config_files.check_models(_models(text))

    @parameterized.named_parameters(
        (
            "twice",
            "name: 'm' base_path: 'rel'",
            "name: 'm' base_path: 'rel'",
            "Illegal to list model m multiple times in config list",
        ),
        (
            "relative",
            "name: 'a' base_path: '/a' model_platform: 'tensorflow'",
            "name: 'r' base_path: 'rel' model_platform: 'tensorflow'",
            "Expected model r to have an absolute path or URI; got "
            "base_path()=rel",
        ),
        (
            "no_platform",
            "name: 'a' base_path: '/a'",
            "name: 'b' base_path: '/b'",
            "Model a requests unsupported platform none",
        ),
        (
            "other_platform",
            "name: 'a' base_path: '/a' model_platform: 'caffe'",
            "name: 'b' base_path: '/b'",
            "Model a requests unsupported platform caffe",
        ),
        (
            "other_type",
            "name: 'a' base_path: '/a' model_type: OTHER",
            "name: 'b' base_path: '/b'",
            "Model a requests unsupported platform type 2",
        ),
    )
    def test_refused(self, first, second, message):
        text = " ".join(f"config {{ {one} }}" for one in (first, second))
        with self.assertRaises(StatusError) as caught:
            config_files.check_models(_models(f"model_config_list {{{text}}}"))
        self.assertEqual(caught.exception.code, "INVALID_ARGUMENT")
        self.assertEqual(caught.exception.message, message)

    def test_custom_config(self):
        with self.assertRaisesRegex(StatusError, "not yet support custom"):
            config_files.check_models(_models("custom_model_config {}"))


class BatchingTest(parameterized.TestCase):
    def test_defaults(self):
        nothing = config_files.BatchingParameters()
        self.assertEqual(
            config_files.batching_options(nothing),
            batching.BatchingOptions(
                max_batch_size=1000,
                max_enqueued_batches=10,
                max_execution_batch_size=1000,
                splits=False,
            ),
        )
        self.assertEqual(
            config_files.batch_threads(nothing), config_files.num_cpus()
        )

    def test_without_splitting_a_batch_is_as_large_as_a_request(self):
        options = config_files.batching_options(
            _batching(
                "max_batch_size { value: 8 } max_execution_batch_size "
                "{ value: 2 } max_enqueued_batches { value: 0 } "
                "allowed_batch_sizes: [2, 8] pad_variable_length_inputs: true"
            )
        )
        self.assertEqual(options.max_execution_batch_size, 8)
        self.assertEqual(options.max_enqueued_batches, 1)
        self.assertEqual(options.allowed_batch_sizes, (2, 8))
        self.assertTrue(options.pad_variable_length_inputs)

    def test_with_splitting(self):
        options = config_files.batching_options(
            _batching(
                "max_batch_size { value: 8 } max_execution_batch_size "
                "{ value: 2 } enable_large_batch_splitting { value: true }"
            )
        )
        self.assertTrue(options.splits)
        self.assertEqual(options.max_execution_batch_size, 2)

    @parameterized.parameters(
        (
            "max_batch_size { value: 16 } allowed_batch_sizes: [4, 8]",
            "Last entry in allowed_batch_sizes must match max_batch_size; last "
            "entry was 8; expected 16",
        ),
        (
            "allowed_batch_sizes: 8",
            "Last entry in allowed_batch_sizes must match max_batch_size; last "
            "entry was 8; expected 1000",
        ),
        (
            "max_batch_size { value: 8 } allowed_batch_sizes: [4, 4, 8]",
            "allowed_batch_sizes entries must be monotonically increasing",
        ),
        (
            "max_batch_size { value: 8 } allowed_batch_sizes: [0, 8]",
            "allowed_batch_sizes must be positive; was 0",
        ),
        (
            "max_batch_size { value: 0 }",
            "max_batch_size must be positive; was 0",
        ),
        (
            "num_batch_threads { value: 0 }",
            "num_batch_threads must be positive; was 0",
        ),
        (
            "batch_timeout_micros { value: -1 }",
            "batch_timeout_micros must be non-negative; was -1",
        ),
        (
            "max_enqueued_batches { value: -1 }",
            "max_enqueued_batches must be non-negative; was -1",
        ),
        (
            "enable_large_batch_splitting { value: true } "
            "max_enqueued_batches { value: 0 }",
            "max_enqueued_batches must be positive; was 0",
        ),
        (
            "enable_large_batch_splitting { value: true } "
            "max_batch_size { value: 8 }",
            "When enable_large_batch_splitting is true, input_batch_size_limit "
            "must be greater than or equal to max_execution_batch_size.",
        ),
    )
    def test_refused(self, text, message):
        with self.assertRaisesRegex(StatusError, message) as caught:
            config_files.batching_options(_batching(text))
        self.assertEqual(caught.exception.code, "INVALID_ARGUMENT")


if __name__ == "__main__":
    absltest.main()
