"""The deployment files are valid, as their programs' own schemas have it."""

import importlib.resources
import json
import pathlib

import jsonschema
import kubernetes_validate
import yaml
from absl.testing import absltest, parameterized

_ROOT = pathlib.Path(__file__).parents[2]


class SchemasTest(parameterized.TestCase):
    @parameterized.parameters(
        "serving/deploy/compose.yaml", "training-compose.yaml"
    )
    def test_compose(self, file):
        folder = importlib.resources.files("check_jsonschema.builtin_schemas")
        schema = json.loads((folder / "vendor/compose-spec.json").read_text())
        validator = jsonschema.validators.validator_for(schema)(schema)
        content = yaml.safe_load((_ROOT / file).read_text())
        validator.validate(content)
        (service, *_) = content["services"].values()
        service["imagee"] = service.pop("image")
        self.assertFalse(validator.is_valid(content))

    @parameterized.product(
        file=("serving/deploy/kubernetes.yaml", "training-kubernetes.yaml"),
        version=("1.30", "1.37"),
    )
    def test_kubernetes(self, file, version):
        contents = [*yaml.safe_load_all((_ROOT / file).read_text())]
        for content in contents:
            kubernetes_validate.validate(content, version, strict=True)
        contents[0]["metadata"]["nam"] = "misspelt"
        with self.assertRaises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(contents[0], version, strict=True)


if __name__ == "__main__":
    absltest.main()
