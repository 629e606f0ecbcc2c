"""Checkpoints: every variable and a few facts, in one file written atomically.

`save` writes checkpoints/step-N.npz; `read` reads the newest one that is
whole, and warns of each that is not.
"""

import json
import logging
import pathlib
import zipfile
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from atat_tf.runs import folder as run_folder

FOLDER = "checkpoints"
_KEEP = 2


def save(
    workdir: str | pathlib.Path,
    step: int,
    variables: Sequence[keras.Variable],
    facts: Any,
    writes: bool = True,
) -> None:
    """Writes a checkpoint and removes all but the newest two.

    Args:
      workdir: the run folder.
      step: global step, names the file.
      variables: in an order that a resumed run repeats.
      facts: anything JSON can hold.
      writes: whether this process writes. On many machines one of them does,
        but reading the variables takes all of them.

    Raises:
      FloatingPointError: a variable is not finite; nothing is written, so
        the checkpoint before stays the newest.
      OSError: the file cannot be written, say on a full disk.
    """
    arrays: dict[str, Any] = {}
    values = capture(variables)
    for number, (variable, value) in enumerate(
        zip(variables, values, strict=True)
    ):
        if not np.all(np.isfinite(value)):
            raise FloatingPointError(
                f"Expected finite weights at step {step}. Received: a NaN or "
                f"an infinity in {variable.path}."
            )
        arrays[_key(number, variable)] = value
    if not writes:
        return
    folder = pathlib.Path(workdir) / FOLDER
    folder.mkdir(exist_ok=True)
    with run_folder.replacing(folder / f"step-{step:010d}.npz") as temporary:
        with open(temporary, "wb") as file:
            np.savez(file, facts=json.dumps(facts), **arrays)
    for old in sorted(folder.glob("step-*.npz"))[:-_KEEP]:
        old.unlink()


def read(
    workdir: str | pathlib.Path, variables: Sequence[keras.Variable]
) -> tuple[Any, list[np.ndarray]] | None:
    """Returns the newest whole checkpoint; nothing is assigned.

    Args:
      workdir: the run folder.
      variables: as given to `save`.

    Returns:
      The facts saved with it and the variables' values, or None where there
      is no whole checkpoint.
    """
    folder = pathlib.Path(workdir) / FOLDER
    for path in sorted(folder.glob("step-*.npz"), reverse=True):
        try:
            # Read whole before the first assignment: zip files carry a
            # checksum of each array, which only reading verifies.
            with np.load(path) as stored:
                facts = json.loads(str(stored["facts"]))
                values = [
                    stored[_key(number, variable)]
                    for number, variable in enumerate(variables)
                ]
            _expect_shapes(values, variables)
        except (
            OSError,
            ValueError,
            KeyError,
            EOFError,
            zipfile.BadZipFile,
        ) as e:
            logging.warning("Skipping the damaged checkpoint %s: %s", path, e)
            continue
        return facts, values
    return None


def capture(variables: Sequence[keras.Variable]) -> list[np.ndarray]:
    """Returns the variables' values, for `assign` to put back."""
    return [np.asarray(variable) for variable in variables]


def assign(
    variables: Sequence[keras.Variable], values: Sequence[np.ndarray]
) -> None:
    """Gives each variable its value."""
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def _key(number, variable):
    # Not its path: Keras numbers optimizers anew in each process.
    return f"{number:05d}/{variable.name}"


def _expect_shapes(values, variables):
    for value, variable in zip(values, variables, strict=True):
        if value.shape != tuple(variable.shape):
            raise ValueError(
                f"{variable.path} has shape {value.shape} there and "
                f"{tuple(variable.shape)} here"
            )
