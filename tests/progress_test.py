"""Tables where there is no terminal."""

import contextlib
import io
import os
from unittest import mock

from absl.testing import absltest

from atat_tf import progress

_CELLS = [f"a cell of number {number}" for number in range(8)]


def _printed(environment):
    text = io.StringIO()
    with (
        mock.patch.dict(os.environ, environment),
        contextlib.redirect_stdout(text),
    ):
        if not environment:
            os.environ.pop("COLUMNS", None)
        progress.table("title", [str(n) for n in range(8)], [_CELLS])
    return text.getvalue()


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
