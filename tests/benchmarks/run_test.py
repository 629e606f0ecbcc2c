"""The benchmarks' runner: what fails is said, and the rest goes on."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

import pytest
from absl.testing import parameterized

from benchmarks import command, ratios, run


def _ran(module, *words):
    """Returns a benchmark's ended process; two have flags of one name."""
    return subprocess.run(
        [sys.executable, "-m", module, *words],
        cwd=command.ROOT,
        capture_output=True,
        text=True,
    )


def _refused(module, *words):
    ran = _ran(module, *words)
    assert ran.returncode == 1 and "Traceback" not in ran.stderr, ran.stderr
    return ran.stderr


class RunTest(parameterized.TestCase):
    def test_flags_exist(self):
        """Of each suite, whole and quick; read in the text of its module."""
        for name, suite in run.SUITES.items():
            file = command.ROOT / f"{suite.module.replace('.', '/')}.py"
            text = " ".join(file.read_text().split())
            for flag in (*suite.flags, *suite.quick):
                flag = flag.removeprefix("--").partition("=")[0]
                self.assertRegex(text, rf'DEFINE_\w+\( ?"{flag}"', name)

    @parameterized.parameters(
        ("memory", "--depth=no", 1, "depth"),
        ("nothing", "--depth=10", 1, "No module named benchmarks.nothing"),
        # Every command's --help, five times.
        ("startup", "--parts=help", 0.005, "it took more than 0.005 minutes"),
    )
    def test_what_fails_is_not_run_and_says_why(self, name, flag, minutes, why):
        suite = run.Suite(f"benchmarks.{name}", (flag,))
        result = run.run(suite, False, minutes, dict(os.environ))
        self.assertIn(why, result["not_run"])
        (compared,) = result["comparisons"]
        self.assertStartsWith(ratios.verdict(compared), "NOT RUN: ")

    def test_refused_before_anything_is_measured(self):
        modules = {suite.module for suite in run.SUITES.values()}
        for module in (*modules, "benchmarks.run"):
            said = _refused(module, "--json=/nowhere/all.json")
            self.assertIn("a file for --json in an existing folder", said)
            shown = _ran(module, "--help")
            self.assertEqual(shown.returncode, 0, shown.stderr)
            self.assertIn("--json=VALUE", shown.stdout)
        said = _refused("benchmarks.run", "--only=")
        self.assertIn("one at least of train_step", said)
        said = _refused("benchmarks.run", "--minutes=nan")
        self.assertIn("a number for --minutes", said)

    @pytest.mark.long
    def test_quick_run_of_one(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, "all.json")
            words = ["--only=startup", "--quick", f"--json={path}"]
            ran = _ran("benchmarks.run", *words)
            report = json.loads(path.read_text())
        self.assertEqual(ran.returncode, 0, ran.stderr)
        self.assertIn("[1/1] python -m benchmarks.startup", ran.stdout)
        self.assertIn("the figures mean nothing", ran.stdout)
        for field in ("hardware", "tensorflow", "commit", "date"):
            self.assertTrue(report["surroundings"][field], field)
        result = report["suites"]["startup"]
        slowest, heavy = result["comparisons"]
        # What it says is what was measured.
        (seconds,) = result["figures"]["help"]["serving.client"]["seconds"]
        self.assertEqual(slowest["median"], seconds)
        self.assertGreater(seconds, 0)
        self.assertEqual(heavy["median"], 0)
