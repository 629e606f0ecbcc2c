"""Progress bars and tables on the terminal, plain lines in a log file."""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

# In a file a line is printed after a minute at least, and after a twentieth of
# the work: twenty lines, however long it takes.
_LINE_EVERY_SECONDS = 60.0
_LINE_EVERY_SHARE = 0.05
_FILE_WIDTH = 200
_BAR_WIDTH = 20
# Of the time that is left, 0:00:00, and the spaces between columns.
_TIME_WIDTH = 12


# The console of the bar that is drawn now: what another one printed would
# stand on the bar's own line.
_drawn: list[Console] = []


def console(quiet: bool = False) -> Console:
    """Returns a console that writes to standard output as it is now."""
    if _drawn and not quiet:
        return _drawn[-1]
    # A notebook's `!command` has a terminal that keeps every line.
    in_notebook = "JPY_PARENT_PID" in os.environ
    return _plain_console(
        soft_wrap=True,
        quiet=quiet,
        force_terminal=False if in_notebook else None,
    )


def _plain_console(**options):
    """Returns a console that prints texts as they are.

    Names of files and classes may have brackets or colons, which rich would
    read as styles and pictures.
    """
    return Console(highlight=False, markup=False, emoji=False, **options)


# The last stage that a notebook was told.
_last: list[str] = []


def stage(text: str) -> None:
    """Says what takes its time now, on a line of standard error.

    As `note`, and with an ellipsis.
    """
    note(f"{text} ...")


def note(text: str) -> None:
    """Says something that is no result, on a line of standard error.

    Standard output has what was asked for, and a bar, above which the line is.
    """
    if "ipykernel" in sys.modules:
        # A notebook keeps every line: a loop of calls would fill it.
        if _last == [text]:
            return
        _last[:] = [text]
    screen = _plain_console(stderr=True, soft_wrap=True)
    if _drawn:
        screen = _drawn[-1]
    screen.print(text, style="dim")


@contextlib.contextmanager
def bar(
    description: str,
    total: int,
    images_each: int | None = None,
    done: int = 0,
    quiet: bool = False,
) -> Iterator[Callable[..., None]]:
    """Yields a function to call after each unit of work.

    On a terminal a bar is drawn, with as many figures behind it as the line
    has room for; in a file a line is printed first, and now and then.

    Args:
      description: what is going on; "" until the first call says it.
      total: units of work in all.
      images_each: images in one unit, for the images/s. None for units that
        mean nothing to a person: their share is shown, not their number.
      done: units that were done before.
      quiet: whether nothing is shown.

    Yields:
      advance(description=None, units=1, **figures): more units are done;
      figures are shown behind the bar, the first ones first.
    """
    screen = console(quiet)
    counted = (
        TaskProgressColumn() if images_each is None else MofNCompleteColumn()
    )
    progress = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(_BAR_WIDTH),
        counted,
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[state]}"),
        console=screen,
        transient=True,
        disable=not screen.is_terminal,
    )
    if progress.disable and description and not quiet:
        stage(description)
    start = shown = time.monotonic()
    shown_at: float = done
    with progress:
        number = progress.add_task(
            description, total=total, completed=done, state=""
        )
        (task,) = progress.tasks

        def advance(
            description: str = description, units: int = 1, **figures: float
        ) -> None:
            nonlocal shown, shown_at
            now = time.monotonic()
            progress.update(number, advance=units, description=description)
            rate = (task.completed - done) / max(now - start, 1e-9)
            words = [f"{name} {value:.3f}" for name, value in figures.items()]
            if images_each is not None:
                words.insert(0, f"{rate * images_each:.0f} images/s")
            share = counted.render(task).plain.strip()
            if not progress.disable:
                room = screen.width - len(description) - len(share)
                room -= _BAR_WIDTH + _TIME_WIDTH
                progress.update(number, state=_fitting(words, room))
            due = (
                now - shown >= _LINE_EVERY_SECONDS
                and task.completed - shown_at >= _LINE_EVERY_SHARE * total
                and rate > 0
            )
            if progress.disable and due:
                shown, shown_at = now, task.completed
                left = duration((total - task.completed) / rate)
                line = [description, share, f"{left} left", *words]
                screen.print("  ".join(line))

        if not progress.disable:
            _drawn.append(screen)
        try:
            yield advance
        finally:
            if not progress.disable:
                _drawn.pop()


def _fitting(words, room):
    """Returns as many of the first words as a line has room for."""
    text = ""
    for word in words:
        longer = f"{text}  {word}" if text else word
        if len(longer) > room:
            break
        text = longer
    return text


def duration(seconds: float) -> str:
    """Returns seconds in the unit a person would say: "42 s", "3.5 hours"."""
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def table(
    title: str, columns: Iterable[str], rows: Iterable[Iterable[str | Text]]
) -> None:
    """Prints a table; a cell with a colour is a `rich.text.Text`."""
    printed = Table()
    for number, column in enumerate(columns):
        printed.add_column(column, justify="right" if number else "left")
    for row in rows:
        printed.add_row(*row)
    screen = console()
    if not screen.is_terminal and "COLUMNS" not in os.environ:
        # A file has no width that cells would have to be broken for.
        screen = _plain_console(width=_FILE_WIDTH, force_terminal=False)
    # A table's own title would wrap at the table's width.
    screen.print(title, soft_wrap=True)
    screen.print(printed)
