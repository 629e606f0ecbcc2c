"""What the person at the terminal sees while long work runs.

On a terminal a bar with rate, time left and figures; elsewhere (a log file) a
plain line now and then.
"""

import contextlib
import os
import time

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


def console(quiet=False):
    """Returns a console that writes to standard output as it is now."""
    return Console(highlight=False, soft_wrap=True, quiet=quiet)


@contextlib.contextmanager
def bar(description, total, images_each=None, done=0, quiet=False):
    """Yields a function to call after each unit of work.

    Args:
      description: what is going on.
      total: units of work in all.
      images_each: images in one unit, for the images/s; None for units that
        say nothing to a person: their share is shown instead of their number.
      done: units that were done before.
      quiet: whether nothing is shown.

    Yields:
      advance(description=None, units=1, **figures): more units are done;
      figures are shown behind the bar.
    """
    screen = console(quiet)
    start = time.monotonic()
    shown = start
    finished = done

    def state(figures):
        words = []
        if images_each is not None:
            rate = (finished - done) / (time.monotonic() - start)
            words.append(f"{rate * images_each:.0f} images/s")
        words += [f"{name} {value:.3f}" for name, value in figures.items()]
        return "  ".join(words)

    if not screen.is_terminal:

        def advance_quietly(description=description, units=1, **figures):
            nonlocal finished, shown
            finished += units
            now = time.monotonic()
            if now - shown >= _LINE_EVERY_SECONDS and finished > done:
                shown = now
                left = (now - start) / (finished - done) * (total - finished)
                if images_each is None:
                    share = f"{finished / total:.0%}"
                else:
                    share = f"{finished}/{total}"
                line = [description, share, f"{duration(left)} left"]
                screen.print("  ".join([*line, state(figures)]).rstrip())

        yield advance_quietly
        return

    columns = (
        TextColumn("{task.description}"),
        BarColumn(20),
        TaskProgressColumn() if images_each is None else MofNCompleteColumn(),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[state]}"),
    )
    with Progress(*columns, console=screen, transient=True) as progress:
        task = progress.add_task(
            description, total=total, completed=done, state=""
        )

        def advance(description=description, units=1, **figures):
            nonlocal finished
            finished += units
            progress.update(
                task,
                advance=units,
                description=description,
                state=state(figures),
            )

        yield advance


def duration(seconds):
    """Returns seconds in the unit a person would say: "42 s", "3.5 hours"."""
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def table(title, columns, rows):
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
