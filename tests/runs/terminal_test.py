"""Bars and tables where there is no terminal."""

import io
import re
import sys

import pytest
from rich.console import Console
from rich.text import Text

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


def _on_a_terminal(monkeypatch, width, doing="atat epoch 2/30"):
    """Returns what is printed to a terminal of a width."""
    screen = Console(
        file=io.StringIO(), force_terminal=True, width=width, highlight=False
    )
    monkeypatch.setattr(terminal, "console", lambda quiet=False: screen)
    with terminal.bar(doing, 2106, 128, done=300) as advance:
        advance(doing, loss=1.685, adversarial_accuracy=0.25)
        advance(doing, loss=1.685, adversarial_accuracy=0.25)
    return screen.file.getvalue()


def test_the_bar_on_a_terminal_of_80_columns(monkeypatch):
    printed = _on_a_terminal(monkeypatch, 80)
    for words in ("epoch 2/30", "302/2106", "━", "images/s"):
        assert words in printed


def test_a_wide_terminal_has_the_figures_too(monkeypatch):
    printed = _on_a_terminal(monkeypatch, 130)
    assert "loss 1.685  adversarial_accuracy 0.250" in printed


class _Terminal(io.StringIO):
    def isatty(self):
        return True


def test_rows_and_stages_stand_above_the_bar(monkeypatch):
    monkeypatch.delenv("JPY_PARENT_PID", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stdout", _Terminal())
    with terminal.bar("working", 2, 1) as advance:
        advance()
        terminal.console().print("a row")
        terminal.stage("validating")
    # The bar's line is emptied before each.
    printed = re.sub(r"\x1b\[\d*m", "", sys.stdout.getvalue())
    assert "\x1b[2Ka row\n" in printed
    assert "\x1b[2Kvalidating ...\n" in printed
    assert terminal.console() is not terminal.console()


def test_a_file_has_twenty_lines(monkeypatch, capsys):
    monkeypatch.setattr(terminal, "_LINE_EVERY_SECONDS", 0.0)
    with terminal.bar("working", 1000, 1) as advance:
        for _ in range(1000):
            advance()
    assert len(capsys.readouterr().out.splitlines()) == 20


def test_a_notebooks_command_is_no_terminal(monkeypatch):
    monkeypatch.setenv("JPY_PARENT_PID", "1")
    assert not terminal.console().is_terminal


def test_a_notebook_is_told_of_a_stage_once(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ipykernel", sys)
    for text in ("attacking", "attacking", "drawing", "attacking"):
        terminal.stage(text)
    lines = capsys.readouterr().err.split("\n")[:-1]
    assert lines == ["attacking ...", "drawing ...", "attacking ..."]


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


@pytest.mark.parametrize("text", ["net[a].keras", "[n, k]", "a [/x]", ":x:"])
def test_texts_are_printed_as_they_are(monkeypatch, capsys, text):
    terminal.table(text, [text], [[text]])
    terminal.console().print(text)
    assert capsys.readouterr().out.count(text) == 4
    assert f" {text} " in _on_a_terminal(monkeypatch, 80, f" {text} ")


def test_a_cell_may_have_a_colour(monkeypatch):
    screen = Console(file=io.StringIO(), force_terminal=True)
    monkeypatch.setattr(terminal, "console", lambda: screen)
    terminal.table("title", ["verdict"], [[Text("fail", "red")]])
    assert "\x1b[31mfail" in screen.file.getvalue()
