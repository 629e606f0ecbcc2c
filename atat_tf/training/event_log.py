"""A run's TensorBoard files, in which nothing is written twice.

Event files only grow, and a killed run resumes at a step before its last one.
What an earlier process has written at such a step is not written again.
"""

import pathlib

import numpy as np
import tensorflow as tf


class EventLog:
    """Scalars and pictures by step, in the files of a folder.

    Args:
      folder: made where it is not there; what its files hold is not repeated.
      writes: whether this process writes; of many workers one does.
    """

    def __init__(self, folder: str | pathlib.Path, writes: bool = True):
        self._written = recorded(folder) if writes else set()
        self._writer = (
            tf.summary.create_file_writer(str(folder))
            if writes
            else tf.summary.create_noop_writer()
        )

    def scalar(self, tag: str, value: float, step: int) -> None:
        """Writes a number, unless the tag has one at this step."""
        if self._is_new(tag, step):
            with self._writer.as_default(step=step):
                tf.summary.scalar(tag, value)

    def picture(self, tag: str, pixels: np.ndarray, step: int) -> None:
        """Writes uint8 [H, W, 3], unless the tag has one at this step."""
        if self._is_new(tag, step):
            with self._writer.as_default(step=step):
                tf.summary.image(tag, pixels[None])

    def flush(self) -> None:
        """Hands what was written to the disk."""
        self._writer.flush()

    def close(self) -> None:
        """Ends the file."""
        self._writer.close()

    def _is_new(self, tag, step):
        is_new = (tag, step) not in self._written
        self._written.add((tag, step))
        return is_new


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
