"""The files of a run folder, each written whole or not at all.

docs/run_folder.md lists them.
"""

import contextlib
import filecmp
import json
import math
import os
import pathlib
import shutil
import subprocess
import tempfile
import uuid
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from typing import TYPE_CHECKING, Any

import filelock

from atat_tf.errors import InputError, expect, expect_known, summary
from atat_tf.runs import shipped

if TYPE_CHECKING:
    import keras

CONFIG = "config.json"
METRICS = "metrics.jsonl"
RESULTS = "results.json"
CHECKLIST = "checklist.json"
WEIGHTS = ("best", "last", "ema")
_IN_WORDS = {"best": "best", "last": "last", "ema": "averaged"}
# The saved model that the run's classifier is built from, where there is one.
MODEL = "model.keras"
# What a process locks while it writes into a folder.
LOCK = ".lock"

Path = str | os.PathLike[str]


class Busy(InputError):
    """Another process works in a folder."""


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keeps other processes from holding a folder while this one writes there.

    The operating system releases the lock when the process ends, killed or
    not. Within the process the folder may be held once more. On file systems
    without locks, as some networks', nothing is held.

    Args:
      folder: made if absent.

    Raises:
      Busy: another process holds it.
      InputError: it cannot be made.
    """
    folder = pathlib.Path(folder).resolve()
    if not folder.exists():
        create(folder)
    lock = filelock.FileLock(
        folder / LOCK,
        timeout=0,
        thread_local=False,
        is_singleton=True,
        # A file as the lock would outlive a killed process.
        fallback_to_soft=False,
    )
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(lock)
        except filelock.Timeout:
            raise Busy(
                "Expected a folder that no other process writes to. Received: "
                f"{str(folder)!r}, where another command is at work; wait for "
                "it, or name another --workdir."
            ) from None
        except OSError:  # no locks on this file system
            pass
        yield


@contextlib.contextmanager
def replacing(path: Path, suffix: str = "") -> Iterator[pathlib.Path]:
    """Yields a path to write to; it takes the place of `path` at the end.

    The file appears whole or not at all, also after a kill or a full disk.

    Args:
      path: the file to write.
      suffix: what the temporary name must end in.

    Raises:
      OSError: the disk is full or the folder cannot be written.
    """
    path = pathlib.Path(path)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}{suffix}")
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise OSError(
            error.errno, f"could not write {path}: {error.strerror or error}"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def create(workdir: Path) -> pathlib.Path:
    """Makes the folder, and returns its path.

    Raises:
      InputError: it cannot be made or written.
    """
    workdir = pathlib.Path(workdir)
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=workdir, prefix=".writable"):
            pass  # a name of its own: others may ask at the same moment
    except OSError as error:
        raise InputError(
            "Expected a folder that can be written. Received: "
            f"workdir={str(workdir)!r} ({error.strerror or error})."
        ) from None
    return workdir


def write_text(path: Path, text: str) -> None:
    """Writes a text in UTF-8."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, values: object) -> None:
    """Writes `values` as indented JSON."""
    write_text(path, json.dumps(values, indent=2) + "\n")


def read_json(path: Path, fields: Set[str] = frozenset()) -> Any:
    """Returns what `write_json` wrote.

    Args:
      path: the file.
      fields: which it must have.

    Raises:
      InputError: no such file, not JSON, or without one of the fields.
    """
    path = pathlib.Path(path)
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(
            f"Expected a run folder with {path.name}. Received: "
            f"{str(path.parent)!r} ({getattr(error, 'strerror', error)})."
        ) from None
    missing = fields - set(values if isinstance(values, dict) else ())
    expect(
        not missing,
        f"{path.name} with {', '.join(sorted(fields))}",
        path=str(path),
        missing=sorted(missing),
    )
    return values


def keep_model(path: Path, workdir: Path) -> None:
    """Copies a .keras file into a run folder, unless it is there.

    Another one is there where a command ended before it wrote the config.
    """
    path, kept = pathlib.Path(path), pathlib.Path(workdir) / MODEL
    is_there = kept.exists() and not path.exists()
    if not is_there and not _is_copy(path, kept):
        with replacing(kept) as temporary:
            shutil.copyfile(path, temporary)


def _is_copy(path, kept):
    return kept.exists() and filecmp.cmp(path, kept, shallow=False)


def weights_path(workdir: Path, which: str) -> pathlib.Path:
    """Returns the file of the weights "best", "last" or "ema"."""
    return pathlib.Path(workdir) / f"{which}.weights.h5"


def save_weights(workdir: Path, which: str, model: "keras.Model") -> None:
    """Writes a model's weights."""
    path = weights_path(workdir, which)
    with replacing(path, suffix=".weights.h5") as temporary:
        model.save_weights(temporary)


def expect_weights(workdir: Path, which: str) -> pathlib.Path:
    """Returns the file of the weights "best", "last" or "ema".

    Raises:
      InputError: there is no such file, or they have no such name.
    """
    expect_known("weights", which, WEIGHTS)
    path = weights_path(workdir, which)
    if not path.exists():
        present = [w for w in WEIGHTS if weights_path(workdir, w).exists()]
        raise InputError(
            f"Expected the weights {path}. Received: a run folder with "
            f"{', '.join(present) or 'no weights (training has not got there)'}"
            "."
        )
    return path


def load_weights(workdir: Path, which: str, model: "keras.Model") -> None:
    """Reads weights into a model of the same architecture.

    Raises:
      InputError: the file is missing, or of another architecture.
    """
    path = expect_weights(workdir, which)
    try:
        with warnings.catch_warnings():
            # A layer that the file lacks would keep its random weights, and
            # Keras would only warn.
            warnings.simplefilter("error", UserWarning)
            model.load_weights(path)
    except Exception as error:  # h5py and Keras raise many kinds
        raise InputError(
            f"Expected weights of {model.name} in {path}. Received: a file "
            f"that does not fit ({summary(error)})."
        ) from error


def teacher_folder(workdir: Path, named: str = "") -> pathlib.Path:
    """Returns where the run folder of a run's teacher is, if it has one.

    Args:
      workdir: the run folder.
      named: `teacher` of its config: "" for teacher/ inside it; or a folder,
        relative to the current one or else to one above the run, so that runs
        move together; or the name of a network that comes with the package.
    """
    workdir = pathlib.Path(workdir)
    if not named:
        return workdir / "teacher"
    for base in (pathlib.Path(), *workdir.resolve().parents):
        if (base / named / CONFIG).exists():
            return base / named
    return shipped.found(named)


def portable(path: Path) -> str:
    """Returns a path as another machine would name it: relative.

    Of one outside of the current folder it is the last part alone.
    """
    path = pathlib.Path(path)
    if path.is_absolute():
        here = pathlib.Path.cwd()
        path = path.relative_to(here) if path.is_relative_to(here) else path
    return path.name if path.is_absolute() else path.as_posix()


def read_metrics(workdir: Path) -> list[dict]:
    """Returns the epochs' metrics, lines cut short by a kill left out."""
    path = pathlib.Path(workdir) / METRICS
    rows = []
    if path.exists():
        for line in path.read_text().splitlines():
            with contextlib.suppress(ValueError):
                rows.append(json.loads(line))
    return [row for row in rows if isinstance(row, dict) and "epoch" in row]


def validation_field(attack: str, averaged: bool = False) -> str:
    """Returns the field of metrics.jsonl with an accuracy on validation images.

    Args:
      attack: "pgd" or "clean".
      averaged: that of the averaged weights, in place of the epoch's last.
    """
    return f"validation_{'averaged_' * averaged}{attack}_accuracy"


def kept_epoch(rows: Sequence[Mapping], weights: str = "best") -> int | None:
    """Returns the epoch of a run's weights, or None where nothing tells it.

    The best weights are of the first epoch with the highest validation
    accuracy, under the PGD of validation or clean where there is none. The last
    and the averaged ones are of the last epoch, or of the best one where the
    guard has rolled the training back to it.

    Args:
      rows: as `read_metrics` returns them.
      weights: "best", "last" or "ema".
    """
    if weights != "best":
        if not rows:
            return None
        return rows[-1].get("rolled_back_to", rows[-1]["epoch"])
    for metric in map(validation_field, ("pgd", "clean")):
        scores = {
            row["epoch"]: row[metric]
            for row in rows
            if math.isfinite(row.get(metric, math.nan))
        }
        if scores:
            return max(scores, key=scores.__getitem__)
    return None


def kept_in_words(rows: Sequence[Mapping], weights: str) -> str | None:
    """Returns weights with their epoch, "averaged, epoch 6", or None."""
    epoch = kept_epoch(rows, weights)
    return None if epoch is None else f"{_IN_WORDS[weights]}, epoch {epoch}"


def write_metrics(workdir: Path, rows: Iterable[dict]) -> None:
    """Writes one line for each epoch."""
    lines = (json.dumps(row) + "\n" for row in rows)
    write_text(pathlib.Path(workdir) / METRICS, "".join(lines))


def commit() -> str:
    """Returns the source's git commit, "-dirty" with changes, or "unknown"."""
    here = pathlib.Path(__file__).parent
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--abbrev=12", "--dirty"],
            cwd=here,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return described.stdout.strip()
