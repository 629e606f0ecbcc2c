"""The files for the genuine server hold: flags, names, real bash."""

import contextlib
import http.server
import pathlib
import re
import subprocess
import sys
import tempfile
import threading

import yaml
from absl.testing import absltest, parameterized

from serving.server import config_files
from serving.server import flags as server_flags

_ROOT = pathlib.Path(__file__).parents[2]
_FOLDER = _ROOT / "serving" / "deploy"
_KINDS = {
    "models.config": config_files.ModelServerConfig,
    "batching.config": config_files.BatchingParameters,
    "monitoring.config": config_files.MonitoringConfig,
}
_COMPOSE = yaml.safe_load((_FOLDER / "compose.yaml").read_text())
_KUBERNETES = list(
    yaml.safe_load_all((_FOLDER / "kubernetes.yaml").read_text())
)
_KSERVE = yaml.safe_load((_FOLDER / "kserve.yaml").read_text())
_SERVICE = _COMPOSE["services"]["serving"]


def _words(*command, **arguments):
    """Returns the finished process of a command."""
    return subprocess.run(
        command, capture_output=True, text=True, check=False, **arguments
    )


def _kind(name):
    (found,) = (one for one in _KUBERNETES if one["kind"] == name)
    return found


def _pod():
    return _kind("Deployment")["spec"]["template"]["spec"]


class TextFilesTest(absltest.TestCase):
    def test_pass_the_servers_own_checks(self):
        models, batching, monitoring = (
            config_files.read(_FOLDER / name, kind)
            for name, kind in _KINDS.items()
        )
        config_files.check_models(models)
        (model,) = models.model_config_list.config
        self.assertEqual(
            (model.name, model.base_path), ("atat", "/models/atat")
        )
        versions = model.model_version_policy.specific.versions
        self.assertContainsSubset(model.version_labels.values(), versions)
        options = config_files.batching_options(batching)
        self.assertEqual(options.allowed_batch_sizes, (1, 2, 4, 8, 16, 32, 64))
        self.assertTrue(monitoring.prometheus_config.enable)
        self.assertEqual(
            monitoring.prometheus_config.path, "/monitoring/prometheus/metrics"
        )

    def test_what_is_commented_out_would_work(self):
        text = (_FOLDER / "models.config").read_text()
        text = text.replace("    # version_labels {", "    version_labels {")
        text = re.sub(r"(?m)^    # (  key| {2}value|})", r"    \1", text)
        text = text.replace("versions: 1", "versions: 1\n        versions: 2")
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "models.config"
            path.write_text(text)
            (model,) = config_files.read(path).model_config_list.config
        self.assertEqual(dict(model.version_labels), {"stable": 1, "canary": 2})


class CommandLineTest(parameterized.TestCase):
    def test_flags_are_known(self):
        """Except those for threads, of which a call takes none here."""
        _, unknown = server_flags.parse(_SERVICE["command"])
        names = [word.partition("=")[0] for word in unknown]
        self.assertEqual(
            names, ["--grpc_max_threads", "--rest_api_num_threads"]
        )
        self.assertNotIn("bind", "".join(_SERVICE["command"]))

    @parameterized.parameters("kubernetes.yaml", "kserve.yaml")
    def test_clusters_have_the_same(self, file):
        pod = _KSERVE["spec"]["predictor"] if "kserve" in file else _pod()
        (container,) = pod["containers"]
        self.assertEqual(container["args"], _SERVICE["command"])
        self.assertEqual(container["command"], _SERVICE["entrypoint"])
        self.assertEqual(container["image"], _SERVICE["image"])
        self.assertEqual(pod["volumes"], _pod()["volumes"])
        self.assertRegex(
            container["image"], r"^tensorflow/serving:\d+\.\d+\.\d"
        )

    def test_files_are_where_the_flags_look(self):
        flags, _ = server_flags.parse(_SERVICE["command"])
        for path in (
            flags.model_config_file,
            flags.batching_parameters_file,
            flags.monitoring_config_file,
        ):
            folder, _, name = path.rpartition("/")
            self.assertEqual(folder, "/config")
            self.assertIn(name, _KINDS)

    def test_sizes_fit_together(self):
        flags, unknown = server_flags.parse(_SERVICE["command"])
        calls, requests = (int(w.partition("=")[2]) for w in unknown)
        parameters = config_files.read(
            _FOLDER / "batching.config", config_files.BatchingParameters
        )
        options = config_files.batching_options(parameters)
        self.assertGreaterEqual(calls, 2 * options.max_batch_size)
        self.assertLess(calls + requests, _SERVICE["pids_limit"])
        self.assertEqual(
            config_files.batch_threads(parameters), _SERVICE["cpus"]
        )
        self.assertEqual(
            flags.tensorflow_intra_op_parallelism, _SERVICE["cpus"]
        )
        client = _words(sys.executable, "-m", "serving.client", "--help")
        pattern = r"--batch_size \S+\s.*\(default: (\d+)\)"
        sent = re.search(pattern, client.stdout)
        self.assertLessEqual(int(sent[1]), options.max_batch_size)


class ComposeTest(parameterized.TestCase):
    def test_is_locked_down(self):
        for field, value in {
            "user": "65534:65534",
            "read_only": True,
            "init": True,
            "cap_drop": ["ALL"],
            "security_opt": ["no-new-privileges:true"],
        }.items():
            self.assertEqual(_SERVICE[field], value)
        self.assertContainsSubset(("mem_limit", "cpus", "tmpfs"), _SERVICE)
        for volume in _SERVICE["volumes"]:
            self.assertTrue(volume["read_only"])
        for port in _SERVICE["ports"]:
            self.assertStartsWith(port, "${PUBLISH:-127.0.0.1}:")

    @parameterized.parameters((200, 0), (404, 1), (None, 1))
    def test_health_check(self, status, code):
        """Its command, in bash, against a server that answers so."""
        kind, *command, script = _SERVICE["healthcheck"]["test"]
        self.assertEqual(kind, "CMD")
        with _http_server(status or 200) as port:
            if status is None:
                port = 1  # nobody listens there
            self.assertIn("/8501", script)
            # Compose reads $$ as $.
            script = script.replace("/8501", f"/{port}").replace("$$", "$")
            done = _words(*command, script, timeout=20)
        self.assertEqual(done.returncode, code, done.stderr)


class KubernetesTest(absltest.TestCase):
    def test_copies_of_the_files(self):
        for name, text in _kind("ConfigMap")["data"].items():
            self.assertEqual(text, (_FOLDER / name).read_text(), name)
        self.assertCountEqual(_kind("ConfigMap")["data"], _KINDS)

    def test_names_meet(self):
        labels = _kind("Deployment")["spec"]["template"]["metadata"]["labels"]
        for kind, *path in (
            ("Deployment", "selector", "matchLabels"),
            ("Service", "selector"),
            ("PodDisruptionBudget", "selector", "matchLabels"),
            ("NetworkPolicy", "podSelector", "matchLabels"),
        ):
            selector = _kind(kind)["spec"]
            for key in path:
                selector = selector[key]
            self.assertEqual(selector, labels, kind)
        (container,) = _pod()["containers"]
        volumes = {volume["name"] for volume in _pod()["volumes"]}
        mounts = {mount["name"] for mount in container["volumeMounts"]}
        self.assertEqual(volumes, mounts)
        for volume in _pod()["volumes"]:
            for field, kind, key in (
                ("persistentVolumeClaim", "PersistentVolumeClaim", "claimName"),
                ("configMap", "ConfigMap", "name"),
            ):
                if field in volume:
                    name = _kind(kind)["metadata"]["name"]
                    self.assertEqual(volume[field][key], name)
        ports = {port["name"] for port in container["ports"]}
        for port in _kind("Service")["spec"]["ports"]:
            self.assertIn(port["targetPort"], ports)


class ReadmeTest(absltest.TestCase):
    def test_limits(self):
        """The table names every limit with its default."""
        defaults, _ = server_flags.parse(["--help"])
        text = (_FOLDER.parent / "README.md").read_text()
        table = text.partition("| limit |")[2].partition("\n\n")[0]
        rows = re.findall(r"`--(\w+)=(\d+)`", table)
        self.assertLen(rows, 7)
        for flag, value in rows:
            self.assertEqual(getattr(defaults, flag), int(value), flag)


@contextlib.contextmanager
def _http_server(status):
    """Yields the port of a server that answers every GET with the status."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            self.end_headers()

        def log_message(self, *words):
            del words

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()
