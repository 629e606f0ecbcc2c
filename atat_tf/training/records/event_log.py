"""A run's TensorBoard files, in which nothing is written twice.

Event files only grow, and a killed run resumes at a step before its last one.
What an earlier process has written at such a step is not written again.
"""

import contextlib
import pathlib
import re
from collections.abc import Iterator

import numpy as np
import tensorflow as tf


class EventLog:
    """Scalars and pictures by step, in the files of a folder.

    Args:
      folder: made where it is not there; what its files hold is not repeated.
      writes: whether this process writes; of many workers one does.

    Raises:
      OSError: a file cannot be written; from every method too.
    """

    def __init__(self, folder: str | pathlib.Path, writes: bool = True):
        self._written = recorded(folder) if writes else set()
        with _writing():
            self._writer = (
                tf.summary.create_file_writer(str(folder))
                if writes
                else tf.summary.create_noop_writer()
            )

    def scalar(self, tag: str, value: float, step: int) -> None:
        """Writes a number, unless the tag has one at this step."""
        if self._is_new(tag, step):
            with _writing(), self._writer.as_default(step=step):
                tf.summary.scalar(tag, value)

    def picture(self, tag: str, pixels: np.ndarray, step: int) -> None:
        """Writes uint8 [H, W, 3], unless the tag has one at this step."""
        if self._is_new(tag, step):
            with _writing(), self._writer.as_default(step=step):
                tf.summary.image(tag, pixels[None])

    def flush(self) -> None:
        """Hands what was written to the disk."""
        with _writing():
            self._writer.flush()

    def close(self) -> None:
        """Ends the file."""
        with _writing():
            self._writer.close()

    def _is_new(self, tag, step):
        is_new = (tag, step) not in self._written
        self._written.add((tag, step))
        return is_new


@contextlib.contextmanager
def _writing() -> Iterator[None]:
    """Raises TensorFlow's error about a file as the OSError that it is."""
    try:
        yield
    except tf.errors.OpError as error:
        # "{{node}} PATH; REASON [Op:NAME]", and lines that say it again.
        first = error.message.splitlines()[0]
        said = re.sub(r"\{\{.*?\}\} *| \[Op:.*", "", first)
        raise OSError(
            f"could not write {said.replace('; ', ': ', 1)}"
        ) from error


def recorded(folder: str | pathlib.Path) -> set[tuple[str, int]]:
    """Returns (tag, step) of all that a folder's event files hold.

    Args:
      folder: it need not exist.
    """
    written = set()
    for path in sorted(pathlib.Path(folder).glob("events.out.tfevents.*")):
        try:
            for record in tf.data.TFRecordDataset(str(path)):
                event = tf.compat.v1.Event.FromString(record.numpy())
                written |= {(v.tag, event.step) for v in event.summary.value}
        except tf.errors.DataLossError:
            continue  # a kill cut its end off
    return written
