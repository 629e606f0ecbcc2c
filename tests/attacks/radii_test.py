"""Radii as fractions, alone and on command lines."""

import pathlib
import subprocess
import sys

from absl.testing import absltest, parameterized

from atat_tf.attacks import radii
from atat_tf.errors import InputError

_ROOT = pathlib.Path(__file__).parents[2]


class RadiiTest(parameterized.TestCase):
    @parameterized.parameters(
        ("8/255", 8 / 255), ("0.031", 0.031), (" 1 / 4 ", 0.25), (0.5, 0.5)
    )
    def test_parsed(self, text, value):
        self.assertEqual(radii.parsed(text), value)

    @parameterized.parameters("0", "8/0", "8/", "/255", "-1/255", "x", "1/2/3")
    def test_refused(self, text):
        with self.assertRaisesRegex(InputError, "above 0.*Received: radius="):
            radii.parsed(text)

    @parameterized.parameters("8/255", "0.5/255", "16/255")
    def test_written_as_it_was_read(self, text):
        self.assertEqual(radii.written(radii.parsed(text)), text)

    def test_other_numbers_are_written_whole(self):
        self.assertEqual(radii.written(0.0312345), "0.0312345")


class CommandLineTest(absltest.TestCase):
    def test_fractions_in_fields_that_are_numbers(self):
        """In a process of its own: recipes' flags are defined once."""
        program = (
            "from atat_tf.runs import command_line as c\n"
            "def main(argv):\n"
            "    config = c.config()\n"
            "    print(config.attack.epsilon, config.attack.step_size,\n"
            "          config.teacher)\n"
            "c.run(main)"
        )
        words = (
            "--config.attack.epsilon=16/255",
            "--config.attack.step_size",
            "1/255",
            "--config.teacher=1/2",
        )
        printed = subprocess.check_output(
            [sys.executable, "-c", program, *words], cwd=_ROOT, text=True
        )
        self.assertEqual(printed, f"{16 / 255} {1 / 255} 1/2\n")


if __name__ == "__main__":
    absltest.main()
