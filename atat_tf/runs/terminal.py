"""Progress bars and tables on the terminal, plain lines in a log file."""

import contextlib
import os
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

_LINE_EVERY_SECONDS = 60.0
_FILE_WIDTH = 200


def console(quiet: bool = False) -> Console:
    """Returns a console that writes to standard output as it is now."""
    return Console(highlight=False, soft_wrap=True, quiet=quiet)


@contextlib.contextmanager
def bar(
    description: str,
    total: int,
    images_each: int | None = None,
    done: int = 0,
    quiet: bool = False,
) -> Iterator[Callable[..., None]]:
    """Yields a function to call after each unit of work.

    On a terminal a bar is drawn; in a file a line is printed now and then.

    Args:
      description: what is going on.
      total: units of work in all.
      images_each: images in one unit, for the images/s. None for units that
        mean nothing to a person: their share is shown, not their number.
      done: units that were done before.
      quiet: whether nothing is shown.

    Yields:
      advance(description=None, units=1, **figures): more units are done;
      figures are shown behind the bar.
    """
    screen = console(quiet)
    counted = (
        TaskProgressColumn() if images_each is None else MofNCompleteColumn()
    )
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(20),
        counted,
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[state]}"),
        console=screen,
        transient=True,
        disable=not screen.is_terminal,
    )
    start = shown = time.monotonic()
    with progress:
        number = progress.add_task(
            description, total=total, completed=done, state=""
        )
        (task,) = progress.tasks

        def advance(
            description: str = description, units: int = 1, **figures: float
        ) -> None:
            nonlocal shown
            now = time.monotonic()
            progress.update(number, advance=units, description=description)
            rate = (task.completed - done) / max(now - start, 1e-9)
            words = [f"{name} {value:.3f}" for name, value in figures.items()]
            if images_each is not None:
                words.insert(0, f"{rate * images_each:.0f} images/s")
            progress.update(number, state="  ".join(words))
            due = now - shown >= _LINE_EVERY_SECONDS and rate > 0
            if progress.disable and due:
                shown = now
                share = counted.render(task).plain.strip()
                left = duration((total - task.completed) / rate)
                line = [description, share, f"{left} left", *words]
                screen.print("  ".join(line))

        yield advance


def duration(seconds: float) -> str:
    """Returns seconds in the unit a person would say: "42 s", "3.5 hours"."""
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def table(
    title: str, columns: Iterable[str], rows: Iterable[Iterable[str]]
) -> None:
    """Prints a table; every cell is text."""
    printed = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        printed.add_column(column, justify="right" if number else "left")
    for row in rows:
        printed.add_row(*row)
    screen = console()
    if not screen.is_terminal and "COLUMNS" not in os.environ:
        # A file has no width that cells would have to be broken for.
        screen = Console(highlight=False, width=_FILE_WIDTH)
    screen.print(printed)
