"""Every flag of the genuine server in one table, and `--bind`, ours."""

import dataclasses

from . import config_files

_CPUS = config_files.num_cpus()
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
