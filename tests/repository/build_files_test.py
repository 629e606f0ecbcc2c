"""The BUILD files are what the imports ask for, and Bazel can read them."""

import ast
import pathlib
import re
import shutil
import subprocess
import tempfile
import textwrap

import pytest
from absl.testing import absltest, parameterized

import atat_tf
from tools import build_files

_ROOT = pathlib.Path(__file__).resolve().parents[2]
# Folders in a circle, data, relative imports, third parties, tests.
_FILES = {
    "atat_tf/__init__.py": '"""Doc."""\n__version__ = "1"\n',
    "atat_tf/errors.py": "import sys\nimport atat_tf.configs.at\n",
    "atat_tf/train.py": """\
        import absl.app
        from atat_tf.models import nets
        if __name__ == "__main__":
            absl.app.run(nets)
        """,
    "atat_tf/models/nets.py": """\
        from google.protobuf import text_format
        from .. import errors
        def load(name):
            import importlib
            return importlib.import_module(f"configs.{name}")
        """,
    "atat_tf/models/deploy/all.yaml": "",
    "configs/__init__.py": "",
    "configs/at.py": "",
    "tests/models/nets_test.py": """\
        import subprocess
        import torch
        subprocess.run(["python", "-m", "atat_tf.train"])
        """,
}


def _generated(changes):
    with tempfile.TemporaryDirectory() as folder:
        for name, text in (_FILES | changes).items():
            path = pathlib.Path(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text))
        return build_files.build_files(pathlib.Path(folder))


class GeneratorTest(parameterized.TestCase):
    @parameterized.parameters(
        ("BUILD", "atat_tf.train", {"//atat_tf"}),
        ("atat_tf/BUILD", "base", {"//configs"}),
        (
            "atat_tf/BUILD",
            "atat_tf",
            {":base", "//atat_tf/models", "@pypi//absl_py"},
        ),
        (
            "atat_tf/models/BUILD",
            "models",
            {"//atat_tf:base", "//configs", "@pypi//protobuf"},
        ),
        ("tests/models/BUILD", "test", {"//atat_tf", "@pypi//pytest"}),
    )
    def test_a_target_depends_on_what_its_files_import(self, file, name, deps):
        (rule,) = (
            rule
            for rule in ast.parse(_generated({})[file]).body
            if f"name='{name}'" in ast.unparse(rule)
        )
        values = {k.arg: k.value for k in rule.value.keywords}
        self.assertEqual({*ast.literal_eval(values["deps"])}, deps)

    def test_a_circle_that_stays_is_an_error(self):
        circle = {
            "atat_tf/errors.py": "from atat_tf.models import nets\n",
        }
        with self.assertRaisesRegex(ValueError, "atat_tf:base -> atat_tf/mod"):
            _generated(circle)


class CheckoutTest(absltest.TestCase):
    def test_every_label_is_locked_and_every_pin_as_required(self):
        locked = _pins("requirements_lock.txt")
        required = _pins("requirements.txt") | _pins("requirements-dev.txt")
        behind = {*required.items()} - {*locked.items()}
        command = (_ROOT / "requirements_lock.txt").read_text().splitlines()[1]
        self.assertEmpty(behind, f"Run it anew: {command}")
        texts = "".join(build_files.build_files(_ROOT).values())
        labels = {*re.findall('@pypi//(.*?)"', texts)}
        self.assertContainsSubset(labels, required)

    def test_one_version(self):
        for name, pattern in {
            "MODULE.bazel": r'name = "atat_tf",\n    version = "(.*)"',
            "CITATION.cff": r"\nversion: (.*)",
        }.items():
            text = (_ROOT / name).read_text()
            self.assertEqual(
                re.search(pattern, text)[1], atat_tf.__version__, name
            )

    def test_one_version_of_ruff(self):
        hooks = (_ROOT / ".pre-commit-config.yaml").read_text()
        self.assertEqual(
            _pins("requirements-dev.txt")["ruff"],
            re.search(r"ruff-pre-commit\n.*\n *rev: v(.*)", hooks)[1],
        )

    @pytest.mark.long
    def test_bazel_reads_every_target(self):
        """Bazel 4 to 6, offline, with rules of its own as rules_python's."""
        if not shutil.which("bazel"):
            self.skipTest("there is no bazel")
        done = subprocess.run(
            ["bazel", "--version"], capture_output=True, text=True, check=True
        )
        # Debian's bazel-bootstrap, 4.2, says "no_version".
        number = re.search(r"\d+", done.stdout)
        if number and int(number[0]) >= 7:
            self.skipTest(f"{done.stdout}: it wants the real rules_python")
        with tempfile.TemporaryDirectory() as folder:
            everything, deps = _queried(pathlib.Path(folder))
        texts = build_files.build_files(_ROOT)
        names = [n for t in texts.values() for n in re.findall("name = ", t)]
        self.assertLen(everything, len(names))
        self.assertIn("//atat_tf:train.py", deps)
        self.assertIn("@pypi//tensorflow:tensorflow", deps)


def _pins(name):
    text = (_ROOT / name).read_text()
    found = re.findall(r"(?m)^([\w.-]+)==(\S+)", text)
    return {re.sub(r"[-_.]+", "_", n).lower(): v for n, v in found}


# Libraries all, since Bazel's own binaries need rules from the network.
_RULES = """
py_library = native.py_library

def py_binary(main_module, **attributes):
    py_library(**attributes)

def py_test(main_module, size, args, **attributes):
    py_library(testonly = True, **attributes)
"""


def _queried(folder):
    """Returns the labels of all targets, and of all that they depend on."""
    repositories = {
        "rules_python/WORKSPACE": "",
        "rules_python/python/BUILD": "",
        "rules_python/python/defs.bzl": _RULES,
        "pypi/WORKSPACE": "",
    }
    for name in _pins("requirements_lock.txt"):
        rule = (
            f'py_library(name = "{name}", visibility = ["//visibility:public"])'
        )
        repositories[f"pypi/{name}/BUILD"] = rule
    for name, text in repositories.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    workspace = folder / "workspace"
    workspace.mkdir()
    (workspace / "WORKSPACE").write_text(
        "".join(
            f'local_repository(name = "{name}", path = "{folder / name}")\n'
            for name in ("rules_python", "pypi")
        )
    )
    for path in _ROOT.iterdir():
        if not path.name.startswith(".") and path.name != "runs":
            (workspace / path.name).symlink_to(path)

    def bazel(*words):
        answer = subprocess.run(
            ["bazel", f"--output_user_root={folder / 'output'}", *words],
            cwd=workspace,
            capture_output=True,
            text=True,
        )
        if answer.returncode:
            raise AssertionError(answer.stderr[-2000:])
        return answer.stdout.split()

    try:
        # The second follows each label, so that one of nothing is an error.
        return [bazel("query", query) for query in ("//...", "deps(//...)")]
    finally:
        bazel("shutdown")
