"""What the README shows is so: its program runs, its names exist."""

import pathlib
import re
import subprocess
import sys

from absl.testing import absltest

from tests.serving import exports as serving_runs

_ROOT = pathlib.Path(__file__).parents[2]
_TEXT = (_ROOT / "README.md").read_text()


def _programs():
    return re.findall(r"```python\n(.*?)```", _TEXT, re.DOTALL)


class ReadmeTest(absltest.TestCase):
    def test_the_library_example_runs(self):
        program = _programs()[1]
        shortened = program.replace("epochs=6", "epochs=1, steps_per_epoch=2")
        self.assertNotEqual(shortened, program)
        done = subprocess.run(
            [sys.executable, "-c", shortened],
            cwd=_ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("attention_transfer", done.stdout)

    def test_the_client_example_runs(self):
        program = _programs()[0]
        names = {"images": serving_runs.test_images(3)}
        with serving_runs.serving() as server:
            here = program.replace("localhost:8500", f"127.0.0.1:{server.port}")
            self.assertNotEqual(here, program)
            exec(here, names)
        self.assertEqual(names["answer"]["attention"].shape, (3, 8, 8))

    def test_files_exist(self):
        """Every path in backquotes or links that looks like a file of ours."""
        names = re.findall(r"`((?:[\w.]+/)+[\w.]+\.\w+)`", _TEXT)
        names += re.findall(r"\]\(([\w./]+)\)", _TEXT)
        self.assertGreater(len(names), 10)
        for name in names:
            self.assertTrue((_ROOT / name).exists(), name)

    def test_flags_exist(self):
        output = ""
        for module in (
            "atat_tf.train",
            "atat_tf.evaluate",
            "atat_tf.reproduce",
            "benchmarks.train_step",
            "serving.export",
            "serving.client",
        ):
            done = subprocess.run(
                [sys.executable, "-m", module, "--help"],
                cwd=_ROOT,
                capture_output=True,
                text=True,
                check=False,
            )
            output += done.stdout
        for flag in set(re.findall(r"`--([a-z_]+)", _TEXT)):
            self.assertRegex(output, rf"--(\[no\])?{flag}\b")

    def test_make_targets_exist(self):
        makefile = (_ROOT / "Makefile").read_text()
        for target in set(re.findall(r"make ([a-z-]+)[ `]", _TEXT)):
            self.assertRegex(makefile, rf"(?m)^{target}:")


if __name__ == "__main__":
    absltest.main()
