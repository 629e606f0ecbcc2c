"""The commands that draw: their files, refusals, and the page about them."""

import csv
import pathlib
import re

import pytest
import tensorflow as tf
from absl.testing import absltest, parameterized
from PIL import Image

from atat_tf.errors import InputError
from atat_tf.reports.figures import landscape
from atat_tf.runs import shipped
from tests.support import commands, untrained_runs

_ROOT = pathlib.Path(__file__).parents[3]
INSPECT, LANDSCAPE = "atat_tf.inspect_attention", "atat_tf.landscape"


class FigureCommandsTest(parameterized.TestCase, tf.test.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.folder = pathlib.Path(cls.get_temp_dir(cls()))
        cls.run_folder = untrained_runs.write(cls.folder / "run")
        untrained_runs.write(cls.folder / "run/teacher", "standard", 1)
        Image.new("LA", (40, 20), (90, 128)).save(cls.folder / "gray.png")

    @parameterized.parameters(
        (INSPECT, "shift", 2, "--indices=3,1 --epsilon=4/255 --num_steps=2"),
        (LANDSCAPE, "steps", 4, "--num_steps=3 --num_images=20"),
    )
    def test_draws(self, *arguments):
        self._assert_draws(*arguments)

    @parameterized.parameters(
        (INSPECT, "rounds", 2, "--rounds=0,1 --epsilon=16/255 --num_images=1"),
        (INSPECT, "ablation", 4, "--num_steps=2 --num_images=2"),
        (INSPECT, "methods", 2, "--images={}/gray.png --num_steps=2"),
        (LANDSCAPE, "surface", 18, "--indices=2 --resolution=3"),
    )
    @pytest.mark.long
    def test_draws_the_others(self, *arguments):
        self._assert_draws(*arguments)

    def _assert_draws(self, module, figure, count, words):
        stem = self.folder / figure / "drawn"
        status, output = commands.run(
            module,
            f"--figure={figure}",
            f"--workdir={self.run_folder}",
            f"--output={stem}",
            *words.format(self.folder).split(),
        )
        self.assertEqual(status, 0, output)
        self.assertNotIn("warning", output)  # digits have one order
        files = [f"{stem}{suffix}" for suffix in (".png", ".svg", ".csv")]
        self.assertEqual(output.splitlines()[-3:], files)
        with Image.open(files[0]) as image:
            self.assertIn(f"-m {module} --fig", image.info["Description"])
            self.assertGreater(min(image.size), 100)
        first, *lines = pathlib.Path(files[2]).read_text().splitlines()
        self.assertIn(f"--figure={figure}", first)
        self.assertLen(list(csv.DictReader(lines)), count)

    def test_curves_of_two_data_sets_are_refused(self):
        workdirs = {"a": self.run_folder, "b": shipped.found("reference_small")}
        with self.assertRaisesRegex(InputError, "runs on one data set"):
            landscape.steps(workdirs, 1, 1, 1)

    @parameterized.parameters(
        ((INSPECT, "--figure=shfit"), "Did you mean 'shift'"),
        ((INSPECT, "--epsilon=8:255"), "radius above 0.*'8:255'"),
        ((INSPECT, "--indices=1,x"), "--indices as whole numbers.*'x'"),
        ((INSPECT, "--rounds=-1"), "--rounds as whole numbers.*'-1'"),
        ((INSPECT, "--attention_of=x"), "label, predicted"),
        ((INSPECT,), "a network: --workdir, --workdirs or --models"),
        ((LANDSCAPE, "--figure=stpes"), "Did you mean 'steps'"),
        ((LANDSCAPE,), "--workdir=RUN_FOLDER"),
    )
    def test_errors_are_one_sentence(self, words, pattern):
        status, output = commands.run(*words)
        self.assertEqual(status, 1, output)
        self.assertRegex(output, "^error: .*" + pattern)
        self.assertLen(output.splitlines(), 1)


class PageTest(absltest.TestCase):
    """docs/figures.md and the pictures that it shows."""

    def setUp(self):
        super().setUp()
        self.page = (_ROOT / "docs" / "figures.md").read_text()

    def test_pictures_are_of_the_commands_beside_them(self):
        lines = re.findall(r"(?m)^python -m atat_tf.*$", self.page)
        shown = re.findall(r"\]\((figures/\w+\.png)\)", self.page)
        self.assertLen(shown, len(lines))
        for line, name in zip(lines, shown, strict=True):
            path = _ROOT / "docs" / name
            self.assertLess(path.stat().st_size, 200_000, name)
            with Image.open(path) as image:
                self.assertEqual(image.info["Description"], line)
