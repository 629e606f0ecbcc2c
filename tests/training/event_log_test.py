"""Event files: what is in them, once, also after a kill."""

import pathlib

import numpy as np
import tensorflow as tf

from atat_tf.training import event_log
from tests.support import runs


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

    def test_a_step_is_written_once(self):
        self._write(1, 2)
        self._write(2, 3)
        events = runs.events(self.folder)
        self.assertLen(events, 6)
        for step in (1, 2, 3):
            (loss,) = events["train/loss", step]
            self.assertEqual(loss, step / 2)
            ((width, height, png),) = events["maps", step]
            self.assertEqual((width, height), (b"6", b"4"))
            pixels = np.full((4, 6, 3), step)
            self.assertAllEqual(tf.image.decode_png(png), pixels)

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
