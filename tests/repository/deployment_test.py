"""The deployment files are valid: schemas, flags, names, TF_CONFIG, bash."""

import importlib.resources
import json
import pathlib
import re
import subprocess
import threading
from http import server as http_server

import jsonschema
import kubernetes_validate
import pytest
import yaml

from atat_tf.evaluation import sharding
from atat_tf.runs import command_line, recipes
from atat_tf.training.machines import membership
from serving.server import config_files
from serving.server import flags as server_flags
from tests.support import commands

_ROOT = pathlib.Path(__file__).parents[2]
_FOLDER = _ROOT / "serving" / "deploy"
_COMPOSE = "serving/deploy/compose.yaml", "training-compose.yaml"
_KUBERNETES = (
    "serving/deploy/kubernetes.yaml",
    "training-kubernetes.yaml",
    "evaluation-kubernetes.yaml",
)
_SERVED, _TRAINED = (
    yaml.safe_load((_ROOT / file).read_text())["services"] for file in _COMPOSE
)
_SERVING = _SERVED["serving"]


def _kinds(file):
    """Returns {kind: content} of a Kubernetes file, and its pod's template."""
    contents = [*yaml.safe_load_all((_ROOT / file).read_text())]
    kinds = {content["kind"]: content for content in contents}
    (template,) = (
        content["spec"]["template"]
        for content in contents
        if "template" in content.get("spec", ())
    )
    return kinds, template


@pytest.mark.parametrize("file", _COMPOSE)
def test_compose_fits_its_schema(file):
    folder = importlib.resources.files("check_jsonschema.builtin_schemas")
    schema = json.loads((folder / "vendor/compose-spec.json").read_text())
    validator = jsonschema.validators.validator_for(schema)(schema)
    validator.validate(yaml.safe_load((_ROOT / file).read_text()))


@pytest.mark.parametrize("file", _KUBERNETES)
@pytest.mark.parametrize("version", ["1.30", "1.37"])
def test_kubernetes_fits_its_schema(file, version):
    for content in yaml.safe_load_all((_ROOT / file).read_text()):
        kubernetes_validate.validate(content, version, strict=True)


@pytest.mark.parametrize("file", _KUBERNETES)
def test_names_in_kubernetes_meet(file):
    kinds, template = _kinds(file)
    labels = template["metadata"]["labels"]
    for kind, content in kinds.items():
        spec = content.get("spec", {})
        selector = spec.get("selector") or spec.get("podSelector") or labels
        assert selector.get("matchLabels", selector) == labels, kind
    (container,) = template["spec"]["containers"]
    volumes = {volume["name"] for volume in template["spec"]["volumes"]}
    assert volumes == {mount["name"] for mount in container["volumeMounts"]}
    for volume in template["spec"]["volumes"]:
        for field, kind, key in (
            ("persistentVolumeClaim", "PersistentVolumeClaim", "claimName"),
            ("configMap", "ConfigMap", "name"),
        ):
            if field in volume and kind in kinds:
                name = kinds[kind]["metadata"]["name"]
                assert volume[field][key] == name
    ports = {port["name"] for port in container.get("ports", ())}
    services = [kinds["Service"]] if "Service" in kinds else []
    for port in (port for of in services for port in of["spec"]["ports"]):
        assert port.get("targetPort", port["name"]) in ports


def test_the_servers_flags_and_files():
    """Its own reader knows them; Kubernetes has the same."""
    flags, unknown = server_flags.parse(_SERVING["command"])
    # Of threads a call takes none in the embedded server.
    names = [word.partition("=")[0] for word in unknown]
    assert names == ["--grpc_max_threads", "--rest_api_num_threads"]
    files = {
        flags.model_config_file: config_files.ModelServerConfig,
        flags.batching_parameters_file: config_files.BatchingParameters,
        flags.monitoring_config_file: config_files.MonitoringConfig,
    }
    kinds, template = _kinds(_KUBERNETES[0])
    copies = kinds["ConfigMap"]["data"]
    assert len(copies) == len(files)
    for path, message in files.items():
        folder, _, name = path.rpartition("/")
        assert folder == "/config"
        assert copies[name] == (_FOLDER / name).read_text()
        config_files.read(_FOLDER / name, message)
    config_files.check_models(config_files.read(_FOLDER / "models.config"))
    kserve = yaml.safe_load((_FOLDER / "kserve.yaml").read_text())
    for pod in (template["spec"], kserve["spec"]["predictor"]):
        (container,) = pod["containers"]
        assert container["args"] == _SERVING["command"]
        assert container["command"] == _SERVING["entrypoint"]
        assert container["image"] == _SERVING["image"]
        assert pod["volumes"] == template["spec"]["volumes"]


def test_kserve_hands_a_valid_pod_on():
    """What KServe hands on to a pod is a pod's; it has two fields more."""
    service = yaml.safe_load((_FOLDER / "kserve.yaml").read_text())
    predictor = service["spec"]["predictor"]
    for own in ("minReplicas", "maxReplicas"):
        assert predictor.pop(own) > 0
    pod = {"apiVersion": "v1", "kind": "Pod", "spec": predictor}
    pod["metadata"] = service["metadata"]
    kubernetes_validate.validate(pod, "1.37", strict=True)


def test_threads_are_as_many_as_batches_wait_for():
    _, unknown = server_flags.parse(_SERVING["command"])
    calls, requests = (int(word.partition("=")[2]) for word in unknown)
    parameters = config_files.read(
        _FOLDER / "batching.config", config_files.BatchingParameters
    )
    options = config_files.batching_options(parameters)
    assert calls >= 2 * options.max_batch_size
    assert calls + requests < _SERVING["pids_limit"]
    assert config_files.batch_threads(parameters) == _SERVING["cpus"]


@pytest.mark.parametrize("status, code", [(200, 0), (404, 1)])
def test_health_check_in_bash(status, code):
    """Against a server that answers every GET so."""

    class Handler(http_server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            self.end_headers()

    kind, *words, script = _SERVING["healthcheck"]["test"]
    assert kind == "CMD"
    with http_server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        # Compose reads $$ as $.
        script = script.replace("/8501", f"/{server.server_port}")
        done = subprocess.run([*words, script.replace("$$", "$")], timeout=20)
        server.shutdown()
        thread.join()
    assert done.returncode == code


def test_each_worker_is_told_who_it_is():
    """By TF_CONFIG; in Kubernetes with WORKER_INDEX put into it."""
    for number, (name, service) in enumerate(_TRAINED.items()):
        members = membership.from_environment(service["environment"])
        assert (members.count, members.mine) == (len(_TRAINED), number)
        assert members.tasks[number][2].partition(":")[0] == name
    kinds, template = _kinds(_KUBERNETES[1])
    (container,) = template["spec"]["containers"]
    entries = {entry["name"]: entry for entry in container["env"]}
    # Variables are put in from lines above.
    assert [*entries].index("WORKER_INDEX") < [*entries].index("TF_CONFIG")
    job = kinds["Job"]
    count = job["spec"]["completions"]
    assert job["spec"]["parallelism"] == count
    # Pods of an indexed Job are called after it and their index.
    subdomain = kinds["Service"]["metadata"]["name"]
    assert template["spec"]["subdomain"] == subdomain
    port = container["ports"][0]["containerPort"]
    for number in range(count):
        text = entries["TF_CONFIG"]["value"]
        told = text.replace("$(WORKER_INDEX)", str(number))
        members = membership.from_environment({"TF_CONFIG": told})
        assert (members.count, members.mine) == (count, number)
        pod = f"{job['metadata']['name']}-{number}.{subdomain}:{port}"
        assert members.tasks[number][2] == pod


def test_each_pod_has_a_shard_of_its_own():
    kinds, template = _kinds(_KUBERNETES[2])
    job = kinds["Job"]["spec"]
    count = job["completions"]
    assert job["completionMode"] == "Indexed" and job["parallelism"] == count
    (container,) = template["spec"]["containers"]
    assert container["command"] == ["python", "-m", "atat_tf.evaluate"]
    # Kubernetes gives each pod of an indexed Job this variable.
    (word,) = (w for w in container["args"] if w.startswith("--shard="))
    names = [
        word.replace("$(JOB_COMPLETION_INDEX)", str(i)) for i in range(count)
    ]
    found = [sharding.parsed(name.partition("=")[2]) for name in names]
    assert found == [sharding.Shard(index, count) for index in range(count)]
    status, flags = commands.run("atat_tf.evaluate", "--help")
    assert status == 0
    for word in container["args"]:
        assert f"  {word.partition('=')[0]}=" in flags


def test_workers_run_the_command_with_known_flags():
    _, template = _kinds(_KUBERNETES[1])
    words = [*template["spec"]["containers"][0]["args"]]
    for service in _TRAINED.values():
        words += service["command"]
    recipe = recipes.load("atat")
    for word in words:
        name = re.fullmatch(r"--([\w.]+)=.+", word)[1]
        known = {*recipe.keys(), *command_line.flags.FLAGS}
        assert name.removeprefix("config.") in known
