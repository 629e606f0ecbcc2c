"""Bars and tables where there is no terminal."""

import re

import pytest

from atat_tf.runs import terminal

_CELLS = [f"a cell of number {number}" for number in range(8)]


@pytest.mark.parametrize(
    "total, units, images_each, lines",
    [
        # Units for a person are counted, others are a share.
        (
            4,
            (1, 3),
            128,
            (
                r"working  1/4  .* left  \d+ images/s  loss 0\.500",
                r"working  4/4  0 s left  \d+ images/s  loss 0\.500",
            ),
        ),
        (
            9700,
            (2425, 7275),
            None,
            (
                r"working  25%  .* left  loss 0\.500",
                r"working  100%  0 s left  loss 0\.500",
            ),
        ),
    ],
)
def test_bar(monkeypatch, capsys, total, units, images_each, lines):
    monkeypatch.setattr(terminal, "_LINE_EVERY_SECONDS", 0.0)
    with terminal.bar("working", total, images_each) as advance:
        for count in units:
            advance(units=count, loss=0.5)
    printed = capsys.readouterr().out.splitlines()
    for line, pattern in zip(printed, lines, strict=True):
        assert re.fullmatch(pattern, line)


def test_a_table_in_a_file_keeps_cells_whole(monkeypatch, capsys):
    monkeypatch.delenv("COLUMNS", raising=False)
    terminal.table("title", map(str, range(8)), [_CELLS])
    (line,) = (x for x in capsys.readouterr().out.splitlines() if "cell" in x)
    assert all(cell in line for cell in _CELLS)


def test_a_table_keeps_a_width_that_was_asked_for(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "60")
    terminal.table("title", map(str, range(8)), [_CELLS])
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 60
    assert _CELLS[0] not in printed
