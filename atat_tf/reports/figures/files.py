"""Writes a figure as PNG and SVG, and the numbers behind it as CSV.

Each file says inside itself which command made it.
"""

import csv
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from atat_tf.errors import InputError
from atat_tf.runs import folder as run_folder
from atat_tf.runs import terminal

SUFFIXES = (".png", ".svg", ".csv")


def stem(output: str | pathlib.Path) -> pathlib.Path:
    """Returns the path without suffix under which a figure is written.

    Its folder is made.

    Args:
      output: a path, with the suffix of a figure or without.

    Raises:
      InputError: the folder cannot be made or written, or the path is one.
    """
    path = pathlib.Path(output)
    if path.suffix in SUFFIXES:
        path = path.with_suffix("")
    if not path.name or path.is_dir():
        raise InputError(
            "Expected a file name for the figure, as figures/shift. "
            f"Received: output={str(output)!r}."
        )
    run_folder.create(path.parent)
    return path


def save(
    figure: Figure,
    path: pathlib.Path,
    command: str,
    rows: Sequence[Mapping[str, Any]],
    dpi: int = 150,
    source: str = "",
) -> list[pathlib.Path]:
    """Writes a figure as PNG and SVG, and its numbers as CSV, each whole.

    Args:
      figure: to write.
      path: from `stem`.
      command: what made it; in the metadata of both pictures, and the first
        line of the numbers, after a #.
      rows: dictionaries of the same keys, the numbers.
      dpi: pixels an inch of the PNG.
      source: where the networks came from; in the metadata of both pictures.

    Returns:
      The three paths.
    """
    metadata = {"Description": command, "Source": source}
    paths = [path.with_name(path.name + suffix) for suffix in SUFFIXES]
    terminal.stage("writing the pictures")
    with run_folder.replacing(paths[0], ".png") as temporary:
        figure.savefig(
            temporary,
            dpi=dpi,
            metadata=metadata,
            pil_kwargs={"optimize": True},
        )
    # Names inside an SVG come from a salt, its date from the clock: without
    # both the same picture is the same file.
    with matplotlib.rc_context({"svg.hashsalt": "atat_tf"}):
        with run_folder.replacing(paths[1], ".svg") as temporary:
            figure.savefig(temporary, metadata={**metadata, "Date": None})
    with run_folder.replacing(paths[2], ".csv") as temporary:
        with open(temporary, "w", newline="", encoding="utf-8") as file:
            file.write(f"# {' '.join(command.split())}\n")
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    return paths
