"""The deployment files are valid, as their programs' own schemas have it."""

import importlib.resources
import json
import pathlib

import jsonschema
import kubernetes_validate
import yaml
from absl.testing import parameterized

_ROOT = pathlib.Path(__file__).parents[2]


class SchemasTest(parameterized.TestCase):
    @parameterized.parameters(
        "serving/deploy/compose.yaml", "training-compose.yaml"
    )
    def test_compose(self, file):
        folder = importlib.resources.files("check_jsonschema.builtin_schemas")
        schema = json.loads((folder / "vendor/compose-spec.json").read_text())
        validator = jsonschema.validators.validator_for(schema)(schema)
        validator.validate(yaml.safe_load((_ROOT / file).read_text()))

    @parameterized.product(
        file=("serving/deploy/kubernetes.yaml", "training-kubernetes.yaml"),
        version=("1.30", "1.37"),
    )
    def test_kubernetes(self, file, version):
        for content in yaml.safe_load_all((_ROOT / file).read_text()):
            kubernetes_validate.validate(content, version, strict=True)

    def test_kserve(self):
        """What KServe hands on to a pod is a pod's; it has two fields more."""
        text = (_ROOT / "serving/deploy/kserve.yaml").read_text()
        service = yaml.safe_load(text)
        predictor = service["spec"]["predictor"]
        for own in ("minReplicas", "maxReplicas"):
            self.assertGreater(predictor.pop(own), 0)
        pod = {"apiVersion": "v1", "kind": "Pod", "spec": predictor}
        pod["metadata"] = service["metadata"]
        kubernetes_validate.validate(pod, "1.37", strict=True)
