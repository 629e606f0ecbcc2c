"""Files appear whole or not at all; what is wrong is said in one sentence."""

import errno
import fcntl
import json
import os
import pathlib
import resource
from unittest import mock

import tensorflow as tf

from atat_tf.errors import InputError
from atat_tf.runs import folder as run_folder
from tests.support import runs, toys


class ReplacingTest(tf.test.TestCase):
    def test_a_failure_leaves_the_old_file_and_no_other(self):
        folder = self._folder()
        (folder / "a").write_text("old")
        with self.assertRaises(RuntimeError):
            with run_folder.replacing(folder / "a") as temporary:
                temporary.write_text("half of the n")
                raise RuntimeError
        self.assertEqual((folder / "a").read_text(), "old")
        self.assertEqual(os.listdir(folder), ["a"])

    def test_a_full_disk_names_the_file(self):
        """A file-size limit stands in for the disk: the same OSError."""
        folder = self._folder()
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
        try:
            with self.assertRaisesRegex(OSError, "could not write .*results"):
                run_folder.write_json(folder / "results.json", ["x" * 5000])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        self.assertEqual(os.listdir(folder), [])

    def _folder(self):
        folder = pathlib.Path(self.get_temp_dir()) / self.id()
        folder.mkdir(parents=True)
        return folder


class FilesTest(tf.test.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = pathlib.Path(self.get_temp_dir()) / self.id()
        run_folder.create(self.folder)

    def test_json_round_trip(self):
        path = self.folder / "config.json"
        run_folder.write_json(path, {"a": [1, 2.5, None]})
        self.assertEqual(run_folder.read_json(path), {"a": [1, 2.5, None]})

    def test_reading_no_run(self):
        with self.assertRaisesRegex(InputError, "run folder with config.json"):
            run_folder.read_json(self.folder / "config.json")

    def test_torn_metrics_line_is_left_out(self):
        path = self.folder / run_folder.METRICS
        path.write_text(json.dumps({"epoch": 1}) + '\n{"epoch": 2, "lo')
        self.assertEqual(run_folder.read_metrics(self.folder), [{"epoch": 1}])

    def test_weights_round_trip(self):
        model, other = toys.small_classifier(0), toys.small_classifier(1)
        run_folder.save_weights(self.folder, "best", model)
        run_folder.load_weights(self.folder, "best", other)
        for a, b in zip(model.get_weights(), other.get_weights(), strict=True):
            self.assertAllEqual(a, b)

    def test_missing_weights_name_those_present(self):
        model = toys.small_classifier()
        with self.assertRaisesRegex(InputError, "no weights"):
            run_folder.load_weights(self.folder, "best", model)
        run_folder.save_weights(self.folder, "last", model)
        with self.assertRaisesRegex(InputError, "a run folder with last"):
            run_folder.load_weights(self.folder, "ema", model)

    def test_weights_that_do_not_fit(self):
        run_folder.save_weights(self.folder, "best", toys.small_classifier())
        with self.assertRaisesRegex(InputError, "does not fit"):
            run_folder.load_weights(
                self.folder, "best", toys.small_wide_resnet()
            )

    def test_unwritable_folder(self):
        file = self.folder / "file"
        file.write_text("")
        with self.assertRaisesRegex(InputError, "can be written"):
            run_folder.create(file / "run")

    def test_commit_is_of_this_repository(self):
        self.assertRegex(run_folder.commit(), r"^[0-9a-f]{12}(-dirty)?$|^unk")


class HeldTest(tf.test.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = pathlib.Path(self.get_temp_dir()) / self.id()

    def _hold(self):
        with run_folder.held(self.folder):
            pass

    def test_one_process_at_a_time(self):
        with runs.held_elsewhere(self.folder) as other:
            with self.assertRaisesRegex(
                run_folder.Busy, "no other process writes to.*another --workdir"
            ):
                self._hold()
            with run_folder.held(self.folder / "teacher"):
                pass
            # Killed, it lets go, and leaves nothing behind.
            other.kill()
            other.wait()
            self._hold()
        self.assertEqual(os.listdir(self.folder), ["teacher"])

    def test_twice_within_a_process(self):
        with run_folder.held(self.folder):
            self._hold()
            self._refused_elsewhere()
        with self.assertRaises(ZeroDivisionError):
            with run_folder.held(self.folder):
                raise ZeroDivisionError
        with runs.held_elsewhere(self.folder):
            pass

    def _refused_elsewhere(self):
        with self.assertRaisesRegex(AssertionError, "could not be held"):
            with runs.held_elsewhere(self.folder):
                pass

    def test_a_file_system_without_locks(self):
        no_locks = OSError(errno.ENOLCK, "No locks available")
        with mock.patch.object(fcntl, "flock", side_effect=no_locks):
            self._hold()

    def test_no_place_for_it(self):
        self.folder.write_text("a file")
        with self.assertRaisesRegex(InputError, "can be written"):
            with run_folder.held(self.folder / "run"):
                pass


if __name__ == "__main__":
    tf.test.main()
