"""A figure's three files, and what they say about themselves."""

import csv
import pathlib
import tempfile

from absl.testing import absltest
from matplotlib.figure import Figure
from PIL import Image

from atat_tf.errors import InputError
from atat_tf.reports.figures import files as figure_files

_COMMAND = "python -m atat_tf.landscape --workdir=a --epsilon=8/255"
_ROWS = [{"model": "ÄT", "loss": 0.5}, {"model": "AT, 2", "loss": 1e-9}]


class FigureFilesTest(absltest.TestCase):
    def setUp(self):
        super().setUp()
        folder = self.enter_context(tempfile.TemporaryDirectory())
        self.folder = pathlib.Path(folder)

    def _saved(self, name):
        figure = Figure(figsize=(1, 1))
        figure.subplots().plot([1, 2])
        stem = figure_files.stem(self.folder / name)
        return figure_files.save(figure, stem, _COMMAND, _ROWS, 50, "origin")

    def test_three_files_with_the_command_inside_the_same_bytes_again(self):
        files = self._saved("new/a")
        png, svg, numbers = files
        self.assertCountEqual((self.folder / "new").iterdir(), files)
        with Image.open(png) as image:
            self.assertEqual(image.size, (50, 50))
            self.assertEqual(image.info["Description"], _COMMAND)
            self.assertEqual(image.info["Source"], "origin")
        self.assertIn(_COMMAND, svg.read_text())
        first, *lines = numbers.read_text().splitlines()
        self.assertEqual(first, f"# {_COMMAND}")
        read = list(csv.DictReader(lines))
        self.assertEqual(read[1]["model"], "AT, 2")
        self.assertEqual(float(read[1]["loss"]), 1e-9)
        for path, again in zip(files, self._saved("b"), strict=True):
            self.assertEqual(path.read_bytes(), again.read_bytes())

    def test_stem(self):
        folder = self.folder
        for name in ("x/a", "x/a.png", "x/a.svg", "x/a.csv"):
            self.assertEqual(figure_files.stem(folder / name), folder / "x/a")
        self.assertEqual(figure_files.stem(folder / "v1.2").name, "v1.2")

    def test_refuses_a_folder_and_a_path_below_a_file(self):
        with self.assertRaisesRegex(InputError, "file name for the figure"):
            figure_files.stem(self.folder)
        (self.folder / "file").write_text("")
        with self.assertRaisesRegex(InputError, "can be written"):
            figure_files.stem(self.folder / "file/a")
