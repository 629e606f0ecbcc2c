"""A run's TensorBoard files, in which nothing is written twice.

Event files are only ever added to, and a killed run goes on from a step before
its last: what such a step has told already is left out.
"""

import pathlib

import tensorflow as tf


class EventLog:
    """Scalars and pictures by step, in the files of a folder.

    Args:
      folder: made where it is not there; what its files hold is not repeated.
      writes: whether anything is written at all; of many workers one does.
    """

    def __init__(self, folder, writes=True):
        self._written = recorded(folder) if writes else set()
        self._writer = (
            tf.summary.create_file_writer(str(folder))
            if writes
            else tf.summary.create_noop_writer()
        )

    def scalar(self, tag, value, step):
        """Writes a number, unless the tag has one at this step."""
        if self._is_new(tag, step):
            with self._writer.as_default(step=step):
                tf.summary.scalar(tag, value)

    def picture(self, tag, pixels, step):
        """Writes uint8 [H, W, 3], unless the tag has one at this step."""
        if self._is_new(tag, step):
            with self._writer.as_default(step=step):
                tf.summary.image(tag, pixels[None])

    def flush(self):
        """Hands what was written to the disk."""
        self._writer.flush()

    def close(self):
        """Ends the file."""
        self._writer.close()

    def _is_new(self, tag, step):
        is_new = (tag, step) not in self._written
        self._written.add((tag, step))
        return is_new


def recorded(folder):
    """Returns {(tag, step)} of all that a folder's event files hold.

    Args:
      folder: it need not exist.
    """
    found = set()
    for path in sorted(pathlib.Path(folder).glob("events.out.tfevents.*")):
        try:
            for record in tf.data.TFRecordDataset(str(path)):
                event = tf.compat.v1.Event.FromString(record.numpy())
                found |= {(v.tag, event.step) for v in event.summary.value}
        except tf.errors.DataLossError:
            continue  # a kill cut its end off
    return found
