"""Bars and tables where there is no terminal."""

import contextlib
import io
import os
from unittest import mock

from absl.testing import absltest

from atat_tf.runs import terminal

_CELLS = [f"a cell of number {number}" for number in range(8)]


def _printed(environment):
    text = io.StringIO()
    with (
        mock.patch.dict(os.environ, environment),
        contextlib.redirect_stdout(text),
    ):
        if not environment:
            os.environ.pop("COLUMNS", None)
        terminal.table("title", [str(n) for n in range(8)], [_CELLS])
    return text.getvalue()


def _bar_lines(total, units, *images_each):
    text = io.StringIO()
    with (
        mock.patch.object(terminal, "_LINE_EVERY_SECONDS", 0.0),
        contextlib.redirect_stdout(text),
        terminal.bar("working", total, *images_each) as advance,
    ):
        for count in units:
            advance(units=count, loss=0.5)
    return text.getvalue().splitlines()


class BarTest(absltest.TestCase):
    def test_units_for_a_person_are_counted(self):
        first, last = _bar_lines(4, (1, 3), 128)
        self.assertRegex(
            first, r"^working  1/4  .* left  \d+ images/s  loss 0\.500$"
        )
        self.assertRegex(last, r"^working  4/4  0 s left")

    def test_other_units_are_a_share(self):
        first, last = _bar_lines(9700, (2425, 7275))
        self.assertRegex(first, r"^working  25%  .* left  loss 0\.500$")
        self.assertRegex(last, r"^working  100%  0 s left")


class TableTest(absltest.TestCase):
    def test_a_file_keeps_cells_whole(self):
        (line,) = (
            line for line in _printed({}).splitlines() if "number" in line
        )
        for cell in _CELLS:
            self.assertIn(cell, line)

    def test_a_width_that_was_asked_for_is_kept(self):
        lines = _printed({"COLUMNS": "60"}).splitlines()
        self.assertLessEqual(max(map(len, lines)), 60)
        self.assertNotIn(_CELLS[0], "\n".join(lines))


if __name__ == "__main__":
    absltest.main()
