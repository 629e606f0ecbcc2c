"""The command line of the server, read as TensorFlow reads its own."""

import dataclasses

from absl.testing import absltest, parameterized

from serving.server import config_files, flag_table
from serving.server import flags as server_flags

_MODEL = "--model_base_path=/m"
# The defaults of tensorflow_model_server; CPUs are filled in.
_DEFAULTS = """
    port 8500, rest_api_port 0, grpc_socket_path "", model_name "default",
    model_config_file "", model_config_file_poll_wait_seconds 0,
    file_system_poll_wait_seconds 1, max_num_load_retries 5,
    load_retry_interval_micros 60000000, num_load_threads 0,
    num_unload_threads 0, enable_batching False, batching_parameters_file "",
    enable_per_model_batching_parameters False,
    allow_version_labels_for_unavailable_models False,
    enable_model_warmup True, num_request_iterations_for_warmup 0,
    rest_api_timeout_in_ms 30000, rest_api_enable_cors_support False,
    grpc_channel_arguments "", ssl_config_file "", monitoring_config_file "",
    enable_grpc_healthcheck_service False,
    enable_serialization_as_tensor_content False, saved_model_tags "serve",
    tensorflow_session_parallelism 0, tensorflow_intra_op_parallelism 0,
    tensorflow_inter_op_parallelism 0, version False, bind "127.0.0.1"
"""


class ParseTest(parameterized.TestCase):
    def test_defaults(self):
        flags, unknown = server_flags.parse([_MODEL])
        self.assertEmpty(unknown)
        self.assertEqual(flags.model_base_path, "/m")
        for entry in _DEFAULTS.replace("\n", " ").split(","):
            name, value = entry.split()
            with self.subTest(name):
                received = getattr(flags, name)
                wanted = value.strip('"') if '"' in value else value
                self.assertEqual(str(received), wanted)
                self.assertEqual(isinstance(received, str), '"' in value)
        for name in ("grpc_max_threads", "rest_api_num_threads"):
            self.assertEqual(
                getattr(flags, name), 4 * config_files.num_cpus(), name
            )

    def test_cannot_be_changed(self):
        flags, _ = server_flags.parse([_MODEL])
        with self.assertRaises(dataclasses.FrozenInstanceError):
            flags.port = 1

    @parameterized.parameters(
        ("--port=1", "port", 1),
        ("--port=0", "port", 0),
        ("--load_retry_interval_micros=-1", "load_retry_interval_micros", -1),
        ("--num_load_threads=+2", "num_load_threads", 2),
        ("--model_name=a=b --c", "model_name", "a=b --c"),
        ("--model_name=", "model_name", ""),
        ("--enable_batching", "enable_batching", True),
        ("--enable_batching=true", "enable_batching", True),
        ("--enable_model_warmup=false", "enable_model_warmup", False),
        (
            "--per_process_gpu_memory_fraction=.5",
            "per_process_gpu_memory_fraction",
            0.5,
        ),
    )
    def test_value(self, word, name, value):
        flags, unknown = server_flags.parse([_MODEL, word])
        self.assertEqual(getattr(flags, name), value)
        self.assertEmpty(unknown)

    def test_the_last_of_two_counts(self):
        flags, _ = server_flags.parse([_MODEL, "--port=1", "--port=2"])
        self.assertEqual(flags.port, 2)

    @parameterized.parameters(
        "--port=",
        "--port=x",
        "--port=1.5",
        "--port=1_0",
        "--port= 1",
        "--port=²",
        "--port=65536",
        "--rest_api_port=-1",
        "--num_load_threads=2147483648",
        "--load_retry_interval_micros=9223372036854775808",
        f"--num_load_threads={'9' * 5000}",
        "--per_process_gpu_memory_fraction=a",
        "--per_process_gpu_memory_fraction=nan",
        "--enable_batching=1",
        "--enable_batching=",
        "--enable_batching=True",
        "--grpc_max_threads=0",
        "--rest_api_num_threads=-1",
        "--grpc_channel_arguments=a",
        "--grpc_channel_arguments=a=1,",
    )
    def test_unreadable_value(self, word):
        name = word.partition("=")[0]
        with self.assertRaisesRegex(
            server_flags.FlagError, f"^Expected .*{name}.*Received: .*$"
        ):
            server_flags.parse([_MODEL, word])

    @parameterized.parameters(
        ((), "--model_base_path or --model_config_file. Received: neither"),
        ((_MODEL, "--batching_parameters_file=f"), "with --batching_param"),
        (
            (
                _MODEL,
                "--tensorflow_session_parallelism=1",
                "--tensorflow_intra_op_parallelism=1",
                "--tensorflow_inter_op_parallelism=1",
            ),
            "Received: all three",
        ),
    )
    def test_contradiction(self, words, message):
        with self.assertRaisesRegex(server_flags.FlagError, message):
            server_flags.parse(words)

    def test_what_suffices(self):
        for words in (
            ["--model_config_file=f"],
            [_MODEL, "--batching_parameters_file=f", "--enable_batching"],
            ["--help"],
            ["--version"],
        ):
            self.assertEmpty(server_flags.parse(words)[1])

    def test_unknown_words(self):
        """A flag with its value apart is two unknown words, as there."""
        flags, unknown = server_flags.parse(
            ["--prot=1", "-port=2", "port=3", "--port", "4", _MODEL]
            + ["--", "--port=5"]
        )
        self.assertEqual(
            unknown,
            ["--prot=1", "-port=2", "port=3", "--port", "4", "--", "--port=5"],
        )
        self.assertEqual(flags.port, 8500)
        for words, line in (
            (["--prot=1"], "--prot=1. Did you mean --port=VALUE?"),
            (["--port", "4"], "--port. Did you mean --port=VALUE?"),
            (["--enable_batchin"], "--enable_batchin. Did you mean --enable_b"),
            (["qqqqqq"], "qqqqqq"),
        ):
            self.assertStartsWith(
                server_flags.unknown_words(words), f"unknown argument: {line}"
            )

    def test_ignored(self):
        flags, _ = server_flags.parse(
            [_MODEL, "--use_alts_credentials", "--enable_profiler", "--port=1"]
        )
        # The profiler is on by default: asking for it changes nothing.
        self.assertEqual(server_flags.ignored(flags), ["use_alts_credentials"])

    def test_channel_arguments(self):
        self.assertEqual(server_flags.channel_arguments(""), [])
        self.assertEqual(
            server_flags.channel_arguments("grpc.a=2000,grpc.b=x=y,c=-1,d="),
            [("grpc.a", 2000), ("grpc.b", "x=y"), ("c", -1), ("d", "")],
        )


class UsageTest(absltest.TestCase):
    def test_has_every_flag_once_and_fits(self):
        text = server_flags.usage()
        for flag in flag_table.TABLE:
            self.assertEqual(text.count(f"  --{flag.name}="), 1, flag.name)
        self.assertLessEqual(max(map(len, text.splitlines())), 80)

    def test_explains_what_works_and_lists_the_rest_last(self):
        honoured = [flag.is_honoured for flag in flag_table.TABLE]
        self.assertEqual(honoured, sorted(honoured, reverse=True))
        for flag in flag_table.TABLE:
            self.assertEqual(bool(flag.help), flag.is_honoured, flag.name)
            self.assertNotEndsWith(flag.help, ".")

    def test_shows_defaults_as_they_are_typed(self):
        text = server_flags.usage("serve")
        self.assertStartsWith(text, "usage: serve --model_base_path=FOLDER")
        self.assertIn(
            "  --enable_batching=false (bool)\n"
            "      run waiting requests together\n",
            text,
        )


if __name__ == "__main__":
    absltest.main()
