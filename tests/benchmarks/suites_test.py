"""The benchmarks' runner: what fails is said, and the rest goes on."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

import pytest
from absl.testing import absltest, parameterized

from benchmarks import fresh, ratios, suites

_RUN = [sys.executable, "-m", "benchmarks.run"]


def _run(*words):
    return subprocess.run(
        [*_RUN, *words],
        cwd=fresh.ROOT,
        # Wide enough for the table's words to stay whole.
        env={**os.environ, "COLUMNS": "300"},
        capture_output=True,
        text=True,
    )


def _suite(module, *flags):
    return suites.Suite("name", "what", "against", "<= 1", module, flags)


class SuitesTest(parameterized.TestCase):
    def test_names_are_unique_and_modules_exist(self):
        names = [suite.name for suite in suites.SUITES]
        self.assertLen(set(names), len(names))
        for suite in suites.SUITES:
            file = f"{suite.module.replace('.', '/')}.py"
            self.assertTrue((fresh.ROOT / file).exists(), file)

    def test_flags_exist(self):
        """Of each suite, whole and quick; read in the text of its module."""
        for suite in suites.SUITES:
            file = fresh.ROOT / f"{suite.module.replace('.', '/')}.py"
            text = " ".join(file.read_text().split())
            for flag in (*suite.flags, *suite.quick):
                name = flag.removeprefix("--").partition("=")[0]
                self.assertRegex(text, rf'DEFINE_\w+\( ?"{name}"', suite.name)

    def test_quick_flags_come_last_to_be_the_ones_that_count(self):
        suite = suites.Suite("a", "", "", "", "m", ("--depth=34",), ("--b=1",))
        self.assertEqual(suite.words(False), ["-m", "m", "--depth=34"])
        self.assertEqual(suite.words(True)[-1], "--b=1")

    def test_a_module_that_fails_is_not_run_and_says_why(self):
        result = suites.run(_suite("benchmarks.memory", "--depth=no"), False, 1)
        self.assertIn("depth", result["not_run"])
        (compared,) = result["comparisons"]
        self.assertStartsWith(ratios.verdict(compared), "NOT RUN: ")
        self.assertEqual(
            (compared["what"], compared["against"]), ("what", "against")
        )

    def test_a_module_that_is_not_there(self):
        result = suites.run(_suite("benchmarks.nothing"), False, 1)
        self.assertIn("No module named benchmarks.nothing", result["not_run"])

    def test_a_module_that_takes_too_long_is_stopped(self):
        # Every command's --help, five times.
        slow = _suite("benchmarks.startup", "--parts=help")
        result = suites.run(slow, False, 0.005)
        self.assertEqual(result["not_run"], "it took more than 0.005 minutes")

    @pytest.mark.long
    def test_quick_run_of_one(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, "all.json")
            ran = _run("--only=startup", "--quick", f"--json={path}")
            report = json.loads(path.read_text())
        self.assertEqual(ran.returncode, 0, ran.stderr)
        self.assertIn("[1/1] python -m benchmarks.startup", ran.stdout)
        self.assertIn("the figures mean nothing", ran.stdout)
        self.assertIn("commit", ran.stdout)
        self.assertEqual(list(report["suites"]), ["startup"])
        for field in ("cpu", "cores", "versions", "commit", "date"):
            self.assertTrue(report["surroundings"][field], field)
        result = report["suites"]["startup"]
        slowest, heavy = result["comparisons"]
        # What it says is what was measured.
        (seconds,) = result["figures"]["help"]["serving.client"]["seconds"]
        self.assertEqual(slowest["median"], seconds)
        self.assertGreater(seconds, 0)
        self.assertEqual(heavy["median"], 0)

    def test_unknown_name(self):
        ran = _run("--only=startup,sturtap")
        self.assertEqual(ran.returncode, 1)
        self.assertRegex(ran.stderr, "Received: sturtap")


class FreshTest(absltest.TestCase):
    def test_memory_over_activations_by_hand(self):
        small = {"peak_bytes": 150, "activation_bytes": 10}
        large = {"peak_bytes": 390, "activation_bytes": 130}
        # 240 bytes more for 120 more of activations.
        self.assertEqual(fresh.over_activations(large, small), 2.0)

    def test_a_failure_says_the_last_line(self):
        with self.assertRaisesRegex(RuntimeError, "no_such_function"):
            fresh.called("no_such_function")


if __name__ == "__main__":
    absltest.main()
