"""What the pages show is so: programs run, files, flags and targets exist."""

import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import unittest

import numpy as np
import pytest
from absl.testing import absltest, parameterized
from PIL import Image

from atat_tf.runs import folder as run_folder
from atat_tf.runs import shipped
from tests.serving import exports

_ROOT = pathlib.Path(__file__).parents[2]
_PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    "serving/README.md",
    *(
        str(path.relative_to(_ROOT))
        for path in sorted((_ROOT / "docs").glob("**/*.md"))
        if not {"generated", "_build"} & {*path.parts}
    ),
)


def _text(page):
    return (_ROOT / page).read_text()


def _blocks(page, language):
    return re.findall(rf"```{language}\n(.*?)```", _text(page), re.DOTALL)


def _finish(words, folder):
    return subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(_ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


class NamesTest(parameterized.TestCase):
    @parameterized.parameters(*_PAGES)
    def test_files_exist(self, page):
        """Links, and what in backquotes is a path of a source file."""
        folder, text = (_ROOT / page).parent, _text(page)
        for name in re.findall(r"\]\(([\w./]+)(?:#[\w-]+)?\)", text):
            self.assertTrue((folder / name).exists(), name)
        tops = "atat_tf|benchmarks|configs|docs|serving|tests|tools"
        for name in re.findall(rf"`((?:{tops})/[\w./]+\.\w+)[`: ]", text):
            self.assertTrue((_ROOT / name).exists(), name)

    def test_changes_that_contributing_shows_can_be_made(self):
        text = _text("CONTRIBUTING.md")
        found = re.findall(
            r"`([\w/]+\.py)`\n\n```diff\n(.*?)```", text, re.DOTALL
        )
        self.assertLen(found, 2)
        for name, change in found:
            kept = re.sub(r"(?m)^\+.*\n", "\0", change)
            for part in re.split("\0+", kept):
                lines = re.sub(r"(?m)^[ -]", "", part)
                self.assertIn(lines, _text(name))

    @parameterized.parameters(*_PAGES)
    def test_flags_exist(self, page):
        """As a string in the sources, or in what runs the genuine server."""
        known = {*re.findall(r"--(\w+)=", _text("serving/deploy/compose.yaml"))}
        for folder in ("atat_tf", "benchmarks", "serving", "tools"):
            for path in (_ROOT / folder).rglob("*.py"):
                known |= {*re.findall(r'"(?:--)?(\w+)"', path.read_text())}
        # The server's are the lines of one table.
        table = _text("serving/server/flags.py")
        known |= {*re.findall(r"(?m)^  (\w+)=", table)}
        named = {*re.findall(r"`--(\w+)", _text(page))}
        known |= {f"no{name}" for name in known}
        self.assertEmpty(named - known)

    @parameterized.parameters(*_PAGES)
    def test_make_targets_exist(self, page):
        makefile = _text("Makefile")
        for target in {*re.findall(r"(?m)[`^]make ([a-z-]+)", _text(page))}:
            self.assertRegex(makefile, rf"(?m)^{target}:")


@pytest.mark.early
class ReadmeTest(absltest.TestCase):
    def test_its_figures_are_those_of_the_results(self):
        """docs/results.md is written by `reproduce` from the ledgers."""
        rows = re.findall(
            r"(?m)^\| ([^`\n:]+): .* \| ([\d.]+ ± [\d.]+) \| "
            r"([\d.]+ ± [\d.]+) \|$",
            _text("README.md"),
        )
        self.assertLen(rows, 5)
        table = _text("docs/results.md").split("table final, scale final:")[1]
        for name, *shares in rows:
            cells = re.search(rf"(?m)^\| {re.escape(name)} \|(.*)\|$", table)
            found = [
                cell.split(" (")[0].strip() for cell in cells[1].split("|")
            ]
            self.assertEqual(found, shares, name)

    def test_the_verdict_is_the_finals(self):
        table = _text("docs/results.md").split("table final, scale final:")[1]
        for page in ("README.md", "docs/index.md"):
            text = re.sub(r"\s+(> )?", " ", _text(page))
            for row, words in (
                ("ATAT, as written", r"{} % .*clean.* {} % under AutoAttack"),
                ("AT (adversarial only)", "alone .*has {} and {} %"),
                ("ATAT, half the mean square", "equal cost has {} and {} %"),
            ):
                cells = re.search(rf"(?m)^\| {re.escape(row)} \|(.*)\|$", table)
                shares = [float(c.split()[0]) for c in cells[1].split("|")]
                figures = (f"{share:.1f}" for share in shares)
                self.assertRegex(text, words.format(*figures), page)

    def test_figures_of_networks_that_come_along(self):
        """Here and in docs/results.md, as their results.json has them."""
        for name in shipped.NETWORKS:
            results = run_folder.read_json(shipped.found(name) / "results.json")
            columns = "clean", "pgd20", "autoattack"
            expected = [
                f"{100 * accuracy:.2f}"
                for column, accuracy in results["accuracy"].items()
                if column in columns
            ]
            for estimate in results.get("estimates", {}).values():
                middle, low, high = (
                    f"{100 * estimate[name]:.1f}"
                    for name in ("accuracy", "low", "high")
                )
                expected.append(f"about {middle} ({low}–{high})")
            expected += ["not run"] * (len(columns) - len(expected))
            for page in ("README.md", "docs/results.md"):
                rows = re.findall(rf"(?m)^\| .*`{name}`.*\|$", _text(page))
                (cells,) = (
                    # Wilson's intervals, which docs/results.md has, are not
                    # in results.json.
                    [
                        re.sub(r"^ ([\d.]+) \(.*", r"\1", c)
                        for c in row.split("|")
                    ]
                    for row in rows
                    if expected[0] in row
                )
                cells = [cell.strip() for cell in cells]
                self.assertEqual(cells[-4:-1], expected, page)

    def test_it_is_short(self):
        self.assertLess(len(_text("README.md").splitlines()), 150)

    def test_the_client_example_runs(self):
        _, program = _blocks("README.md", "python")
        names = {"images": exports.test_images(3)}
        with exports.serving() as server:
            here = program.replace("localhost:8500", f"127.0.0.1:{server.port}")
            self.assertNotEqual(here, program)
            exec(here, names)
        self.assertEqual(names["answer"]["attention"].shape, (3, 8, 8))

    @unittest.skipUnless(shutil.which("curl"), "there is no curl")
    def test_the_rest_example_runs(self):
        (commands,) = _blocks("serving/README.md", "sh")
        pixels = (255 * exports.test_images(1)[0]).astype(np.uint8)
        with (
            tempfile.TemporaryDirectory() as folder,
            exports.serving("--rest_api_port=8501") as server,
        ):
            Image.fromarray(pixels).save(pathlib.Path(folder) / "image.png")
            here = f"127.0.0.1:{server.rest_port}"
            done = subprocess.run(
                ["bash", "-ec", commands.replace("localhost:8501", here)],
                cwd=folder,
                capture_output=True,
                text=True,
                check=True,
            )
        self.assertIn('"state": "AVAILABLE"', done.stdout)
        answer = json.loads(done.stdout[done.stdout.index('{"predictions') :])
        self.assertIn("attention", answer["predictions"][0])

    @pytest.mark.long
    def test_the_library_example_runs(self):
        program, _ = _blocks("README.md", "python")
        shortened = program.replace("epochs=6", "epochs=1, steps_per_epoch=2")
        self.assertNotEqual(shortened, program)
        with tempfile.TemporaryDirectory() as folder:  # it saves a model
            done = _finish(["-c", shortened], folder)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("attention_transfer", done.stdout)


@pytest.mark.long
class YourOwnTest(parameterized.TestCase):
    @parameterized.parameters(
        ("docs/your_model.md", "adversarial_accuracy"),
        ("docs/your_images.md", "folder photos, "),
    )
    def test_program_and_commands(self, page, printed):
        """The commands read the files that the program leaves."""
        with tempfile.TemporaryDirectory() as folder:
            program = "\n".join(_blocks(page, "python"))
            done = _finish(["-c", program], folder)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertIn(printed, done.stdout)
            (commands,) = _blocks(page, "sh")
            for line in commands.splitlines():
                python, *words = shlex.split(line)
                self.assertEqual(python, "python")
                done = _finish(words, folder)
                self.assertEqual(done.returncode, 0, f"{line}\n{done.stderr}")
