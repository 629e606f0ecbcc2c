"""Event files: what is in them, once, also after a kill."""

import pathlib
import resource

import numpy as np
import tensorflow as tf

from atat_tf.training.records import event_log
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

    def test_a_full_disk_is_an_error_of_the_file(self):
        """A limit on file sizes stands in for the disk."""
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        log = event_log.EventLog(self.folder)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
        try:
            with self.assertRaisesRegex(
                OSError, r"^could not write \S+/events\S+: File too large$"
            ):
                for step in range(100):
                    log.scalar("train/loss", 0.5, step)
                log.flush()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    def test_a_folder_that_cannot_be_made(self):
        self.folder.write_text("a file")
        with self.assertRaisesRegex(OSError, "could not write .*folder"):
            event_log.EventLog(self.folder / "below")

    def test_no_folder(self):
        self.assertEmpty(event_log.recorded(self.folder))
