"""Records which ledger lines of a run make which column of a table.

A record is a small JSON file in the run folder that names, for each column,
the images, the attacks and the identity of the ledger's lines; verdicts are
then read from the ledger alone, without the network.
"""

import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from atat_tf.evaluation import ledger
from atat_tf.runs import folder as run_folder


def folder_of(
    folder: str | pathlib.Path, data_set: str, key: str, seed: int
) -> pathlib.Path:
    """Returns the run folder of a row and seed; tables share them."""
    return pathlib.Path(folder) / data_set / key / f"seed{seed}"


def add(
    workdir: str | pathlib.Path,
    bn_eval: str,
    parts: Sequence[Mapping[str, Any]],
    facts: Mapping[str, str],
) -> None:
    """Writes which columns of a run are whole, beside those written before.

    Columns of other weights or images are dropped.

    Args:
      workdir: the run folder.
      bn_eval: "frozen" or "batch".
      parts: dictionaries {"num_images", "identity": the ledger's, "columns":
        {column: descriptions of its attacks}}.
      facts: what else is recorded: data, commit, hardware.
    """
    new = {column for part in parts for column in part["columns"]}
    same = ("weights", "data", "seed")
    about = [parts[0]["identity"][name] for name in same]
    kept = []
    for part in (read(workdir, bn_eval) or {"parts": ()})["parts"]:
        columns = {
            column: attacks
            for column, attacks in part["columns"].items()
            if column not in new
        }
        if columns and [part["identity"][name] for name in same] == about:
            kept.append({**part, "columns": columns})
    record = {**facts, "bn_eval": bn_eval, "parts": [*kept, *parts]}
    run_folder.write_json(_path(workdir, bn_eval), record)


def read(workdir: str | pathlib.Path, bn_eval: str) -> dict[str, Any] | None:
    """Returns the record that `add` wrote, or None."""
    path = _path(workdir, bn_eval)
    return run_folder.read_json(path) if path.exists() else None


def missing(
    record: Mapping[str, Any] | None, wanted: Mapping[str, int]
) -> dict[str, int]:
    """Returns the columns that are not yet evaluated on as many images.

    Args:
      record: from `read`, or None.
      wanted: {column: number of images}.

    Returns:
      The part of `wanted` that is missing.
    """
    images = {}
    for part in record["parts"] if record else ():
        images |= dict.fromkeys(part["columns"], part["num_images"])
    return {
        column: count
        for column, count in wanted.items()
        if images.get(column) != count
    }


def standing(
    workdir: str | pathlib.Path, bn_eval: str
) -> dict[str, np.ndarray]:
    """Returns which images withstand each recorded column, from the ledger.

    Args:
      workdir: the run folder.
      bn_eval: "frozen" or "batch".

    Returns:
      {column: bool [n]}; a column whose lines are not all there is left out.
    """
    return {name: stands for _, name, stands in recorded(workdir, bn_eval)}


def recorded(
    workdir: str | pathlib.Path, bn_eval: str
) -> Iterator[tuple[dict[str, Any], str, np.ndarray]]:
    """Yields (part of the record, column, bool [n]); else as `standing`."""
    record = read(workdir, bn_eval)
    path = pathlib.Path(workdir) / ledger.FILE
    for part in record["parts"] if record else ():
        lines = ledger.Ledger(path, part["identity"])
        for column, attacks in part["columns"].items():
            stands = lines.standing(attacks, part["num_images"])
            if stands is not None:
                yield part, column, stands


def lines(
    workdir: str | pathlib.Path, part: Mapping[str, Any], attack: str
) -> dict[int, dict[str, Any]]:
    """Returns {image's index: line} of one attack of a record's part."""
    path = pathlib.Path(workdir) / ledger.FILE
    return ledger.Ledger(path, part["identity"]).verdicts(attack)


def _path(workdir, bn_eval):
    return pathlib.Path(workdir) / f"evaluation_{bn_eval}.json"
