"""What the pages under docs/ show is so: their programs run, in order."""

import os
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile

import pytest
from absl.testing import absltest, parameterized

_ROOT = pathlib.Path(__file__).parents[2]


def _blocks(page, language):
    text = (_ROOT / "docs" / f"{page}.md").read_text()
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def _finish(words, folder):
    return subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(_ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def _run_program(page, folder):
    return _finish(["-c", "\n".join(_blocks(page, "python"))], folder)


class PagesTest(parameterized.TestCase):
    @parameterized.parameters(
        ("your_model", "adversarial_accuracy"),
        ("your_images", "folder photos, "),
    )
    @pytest.mark.long
    def test_python(self, page, printed):
        done = _run_program(page, tempfile.mkdtemp())
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn(printed, done.stdout)

    @parameterized.parameters("your_model", "your_images", "architecture")
    def test_files_exist(self, page):
        text = (_ROOT / "docs" / f"{page}.md").read_text()
        for name in re.findall(r"\]\(([\w./]+)(?:#[\w-]+)?\)", text):
            self.assertTrue((_ROOT / "docs" / name).exists(), name)


@pytest.mark.long
class CommandsTest(parameterized.TestCase):
    @parameterized.parameters("your_model", "your_images")
    def test_commands(self, page):
        """After the page's program, which leaves the files they read."""
        folder = tempfile.mkdtemp()
        self.assertEqual(_run_program(page, folder).returncode, 0)
        (commands,) = _blocks(page, "sh")
        for line in commands.splitlines():
            python, *words = shlex.split(line)
            self.assertEqual(python, "python")
            done = _finish(words, folder)
            self.assertEqual(done.returncode, 0, f"{line}\n{done.stderr}")


if __name__ == "__main__":
    absltest.main()
