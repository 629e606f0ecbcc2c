"""The command line of the server."""

from absl.testing import absltest, parameterized

from serving.server import flags as server_flags

_MODEL = "--model_base_path=/m"
# Those of tensorflow_model_server that clients or operators rely on.
_DEFAULTS = {
    "port": 8500,
    "rest_api_port": 0,
    "model_name": "default",
    "file_system_poll_wait_seconds": 1,
    "max_num_load_retries": 5,
    "load_retry_interval_micros": 60_000_000,
    "enable_model_warmup": True,
    "rest_api_timeout_in_ms": 30_000,
    "enable_grpc_healthcheck_service": False,
    "allow_version_labels_for_unavailable_models": False,
    "saved_model_tags": "serve",
    "tensorflow_session_parallelism": 0,
    # Ours.
    "bind": "127.0.0.1",
    "enable_batching": True,
}


class ParseTest(parameterized.TestCase):
    def test_defaults(self):
        flags, unknown = server_flags.parse([_MODEL])
        self.assertEmpty(unknown)
        self.assertEqual(flags.model_base_path, "/m")
        self.assertEqual({n: getattr(flags, n) for n in _DEFAULTS}, _DEFAULTS)

    @parameterized.parameters(
        ("--port=1", "port", 1),
        ("--load_retry_interval_micros=-1", "load_retry_interval_micros", -1),
        ("--num_load_threads=+2", "num_load_threads", 2),
        ("--model_name=a=b --c", "model_name", "a=b --c"),
        ("--model_name=", "model_name", ""),
        ("--enable_batching", "enable_batching", True),
        ("--enable_batching=true", "enable_batching", True),
        ("--enable_model_warmup=false", "enable_model_warmup", False),
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
        "--max_connections=0",
        "--num_load_threads=2147483648",
        "--load_retry_interval_micros=9223372036854775808",
        f"--num_load_threads={'9' * 5000}",
        "--enable_batching=1",
        "--enable_batching=",
        "--enable_batching=True",
        "--grpc_channel_arguments=a",
        "--grpc_channel_arguments=a=1,",
    )
    def test_unreadable_value(self, word):
        name = word.partition("=")[0]
        with self.assertRaisesRegex(
            server_flags.FlagError, f"{name}.*Received|Expected.*{name}"
        ):
            server_flags.parse([_MODEL, word])

    @parameterized.parameters(
        ((), "model_base_path and .*model_config_file are empty!"),
        ((_MODEL, "--port=0"), "grpc_port is not set"),
        (
            (
                _MODEL,
                "--batching_parameters_file=f",
                "--enable_batching=false",
            ),
            "enable_batching",
        ),
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
            [_MODEL, "--batching_parameters_file=f"],
            [_MODEL, "--port=0", "--rest_api_port=1"],
            ["--help"],
            ["--version"],
        ):
            self.assertEmpty(server_flags.parse(words)[1])

    def test_unknown_words(self):
        words = ["--prot=1", "-port=2", "port=3"]
        flags, unknown = server_flags.parse([*words, _MODEL])
        self.assertEqual(unknown, words)
        self.assertEqual(flags.port, 8500)
        for word, line in (
            ("--prot=1", "--prot=1. Did you mean --port?"),
            ("--enable_batchin", "--enable_batchin. Did you mean --enable_b"),
            ("--qqqqqq", "--qqqqqq."),
        ):
            self.assertStartsWith(
                server_flags.unknown_words([word]), f"unknown argument: {line}"
            )

    def test_channel_arguments(self):
        self.assertEqual(server_flags.channel_arguments(""), [])
        self.assertEqual(
            server_flags.channel_arguments("grpc.a=2000,grpc.b=x=y,c=-1,d="),
            [("grpc.a", 2000), ("grpc.b", "x=y"), ("c", -1), ("d", "")],
        )


class UsageTest(absltest.TestCase):
    def test_has_every_flag_and_fits(self):
        text = server_flags.usage()
        flags, _ = server_flags.parse([_MODEL])
        for name in vars(flags):
            self.assertRegex(text, rf"(?m)^  --{name}\b")
        self.assertLessEqual(max(map(len, text.splitlines())), 80)


if __name__ == "__main__":
    absltest.main()
