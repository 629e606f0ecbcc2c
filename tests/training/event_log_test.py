"""Event files: what is in them, once, also after a kill."""

import pathlib

import numpy as np
import tensorflow as tf

from atat_tf.training import event_log


def _values(folder):
    """Returns [(tag, step, tensor)] of all event files, in order."""
    found = []
    for path in sorted(pathlib.Path(folder).iterdir()):
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            found += [
                (value.tag, event.step, tf.make_ndarray(value.tensor))
                for value in event.summary.value
            ]
    return found


class EventLogTest(tf.test.TestCase):
    def setUp(self):
        super().setUp()
        name = self.id().rpartition(".")[2]
        self.folder = pathlib.Path(self.get_temp_dir()) / name

    def _write(self, *steps):
        log = event_log.EventLog(self.folder)
        for step in steps:
            log.scalar("train/loss", step / 2, step)
            log.picture("maps", np.full((4, 6, 3), step, np.uint8), step)
        log.close()

    def test_what_is_written_is_read(self):
        self._write(3)
        (_, _, loss), (_, step, picture) = _values(self.folder)
        self.assertEqual(loss, 1.5)
        self.assertEqual(step, 3)
        width, height, png = picture
        self.assertEqual((width, height), (b"6", b"4"))
        self.assertAllEqual(tf.image.decode_png(png), np.full((4, 6, 3), 3))

    def test_a_step_is_told_once(self):
        self._write(1, 2)
        self._write(2, 3)
        said = [(tag, step) for tag, step, _ in _values(self.folder)]
        expected = [(t, s) for s in (1, 2, 3) for t in ("train/loss", "maps")]
        self.assertEqual(sorted(said), sorted(expected))

    def test_a_file_that_a_kill_cut_short(self):
        self._write(1, 2)
        (path,) = self.folder.iterdir()
        path.write_bytes(path.read_bytes()[:-20])  # inside the last picture
        self.assertEqual(
            event_log.recorded(self.folder),
            {("train/loss", 1), ("maps", 1), ("train/loss", 2)},
        )

    def test_no_folder(self):
        self.assertEmpty(event_log.recorded(self.folder))


if __name__ == "__main__":
    tf.test.main()
