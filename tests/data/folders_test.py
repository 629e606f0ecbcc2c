"""Folders of images: what is found, split, decoded and refused."""

import pathlib
import tempfile

import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from atat_tf.data import datasets
from atat_tf.data import folders as image_folders
from atat_tf.errors import InputError
from atat_tf.runs import checks as run_checks
from atat_tf.runs import config as run_config
from configs import at

_GRAY_LEVELS = {"bat": 40, "ant": 200}


def _write(path, level, size=(12, 10)):
    """Writes an image of one gray level, as the name's suffix says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((*size, 3), level, np.uint8)
    if path.suffix.lower() == ".png":
        path.write_bytes(tf.io.encode_png(pixels).numpy())
    else:
        path.write_bytes(tf.io.encode_jpeg(pixels, quality=100).numpy())


def _folder(count=20, splits=("",)):
    root = pathlib.Path(tempfile.mkdtemp())
    for split in splits:
        for name, level in _GRAY_LEVELS.items():
            for i in range(count):
                suffix = (".png", ".jpg", ".JPEG")[i % 3]
                size = (12, 10) if i % 2 else (30, 40)
                _write(root / split / name / f"{i:02d}{suffix}", level, size)
    return root


def _load(root, **arguments):
    arguments = {"image_size": (8, 6, 3), **arguments}
    return datasets.load(f"folder:{root}", **arguments)


class SplitsTest(parameterized.TestCase, tf.test.TestCase):
    def test_classes_are_the_sorted_folders(self):
        dataset = _load(_folder())
        self.assertEqual(dataset.class_names, ("ant", "bat"))
        self.assertEqual(dataset.spec.image_shape, (8, 6, 3))
        for split in (dataset.train, dataset.validation, dataset.test):
            self.assertEqual(split.images.dtype, np.uint8)
            # One gray level is resized to itself.
            levels = np.array([200, 40])[split.labels]
            self.assertAllClose(split.images[:, 3, 2, 1], levels, atol=1)

    def test_hidden_folders_are_passed_over(self):
        root = _folder(splits=("train",))
        whole = _load(root)
        _write(root / "train/ant/.ipynb_checkpoints/0-checkpoint.png", 9)
        self.assertEqual(_load(root).provenance, whole.provenance)

    def test_what_is_missing_is_held_out(self):
        """Of 2 · 20 images 2 · 2 are for the test, a tenth of 36 for

        validation; they are disjoint and the same every time.
        """
        root = _folder()
        for i, path in enumerate(sorted(root.rglob("*.*"))):
            _write(path.with_suffix(".png"), i)
            if path.suffix != ".png":
                path.unlink()
        first, again = _load(root), _load(root)
        parts = (first.train, first.validation, first.test)
        self.assertEqual([len(part) for part in parts], [33, 3, 4])
        self.assertAllEqual(np.bincount(first.test.labels), [2, 2])
        seen = [int(image[0, 0, 0]) for part in parts for image in part.images]
        self.assertCountEqual(seen, range(40))
        self.assertAllEqual(first.train.images, again.train.images)
        other = _load(root, split_seed=1)
        self.assertAllEqual(first.test.images, other.test.images)
        self.assertNotAllEqual(first.validation.images, other.validation.images)

    def test_given_splits(self):
        root = _folder(4, ("train", "validation", "test"))
        (root / "test" / "ant" / "more" / "x.png").parent.mkdir()
        _write(root / "test" / "ant" / "more" / "x.png", 200)
        (root / "test" / "ant" / "notes.txt").write_text("passed over")
        (root / "test" / "ant" / ".hidden.png").write_text("passed over")
        dataset = _load(root)
        parts = (dataset.train, dataset.validation, dataset.test)
        self.assertEqual([len(part) for part in parts], [8, 8, 9])
        with self.assertRaisesRegex(InputError, "beside a folder validation"):
            _load(root, num_validation=2)

    @parameterized.parameters(
        (("train", "val"), ("train", "validation")),
        (("Train", "valid", "Test"), ("train", "validation", "test")),
        (("training", "Testing"), ("train", "test")),
    )
    def test_other_names_of_splits(self, folders, meant):
        files = image_folders.listing(f"folder:{_folder(4, folders)}").files
        self.assertSequenceEqual([*files], meant)
        self.assertEqual({len(of_one) for of_one in files.values()}, {8})

    def test_a_class_may_have_the_name_of_a_split(self):
        root = _folder(4)
        (root / "bat").rename(root / "train")
        self.assertEqual(_load(root).class_names, ("ant", "train"))

    def test_what_could_mean_two_things_is_refused(self):
        both = _folder(2, ("train", ""))
        for root, pattern in (
            (_folder(2, ("test", "validation")), "a folder train/ beside test"),
            (_folder(2, ("train", "val", "valid")), "one name of the split"),
            (both, "splits .train. or classes.*'ant', 'bat'"),
        ):
            with self.assertRaisesRegex(InputError, pattern):
                _load(root)

    def test_folders_beside_the_splits_are_told(self):
        root = _folder(4, ("train", "test"))
        (root / "notes").mkdir()
        with self.assertLogs(level="WARNING") as logs:
            _load(root)
        self.assertIn("not used: notes", logs.output[0])

    def test_the_first_images_are_of_all_classes(self):
        dataset = _load(_folder(40, ("train", "test")))
        for split in (dataset.train, dataset.validation, dataset.test):
            first = split.take(8).labels
            self.assertBetween(np.sum(first), 1, 7)
        again = _load(_folder(40, ("train", "test")))
        self.assertAllEqual(again.test.labels, dataset.test.labels)

    def test_gray_images_of_one_channel(self):
        dataset = _load(_folder(4), image_size=(8, 8, 1))
        self.assertEqual(dataset.train.images.shape[1:], (8, 8, 1))

    def test_provenance_tells_names_and_sizes(self):
        root = _folder(4)
        before = _load(root).provenance
        self.assertRegex(
            before, r"^folder \w+, 8 files, sha256:[0-9a-f]{16}, shuffled$"
        )
        self.assertEqual(_load(root).provenance, before)
        _write(root / "ant" / "00.png", 200, (13, 10))
        self.assertNotEqual(_load(root).provenance, before)


class BadTest(parameterized.TestCase, tf.test.TestCase):
    def _damaged(self):
        root = _folder()
        whole = (root / "ant" / "01.jpg").read_bytes()
        (root / "ant" / "01.jpg").write_bytes(whole[: len(whole) // 2])
        (root / "bat" / "00.png").write_bytes(b"")
        (root / "bat" / "03.png").write_bytes(b"no image at all")
        return root

    def test_stop_names_the_files(self):
        with self.assertRaises(InputError) as caught:
            _load(self._damaged())
        for name in ("ant/01.jpg", "bat/00.png", "bat/03.png", "=skip"):
            self.assertIn(name, str(caught.exception))

    def test_skip_leaves_them_out_and_says_so(self):
        with self.assertLogs(level="WARNING") as logs:
            dataset = _load(self._damaged(), bad_images="skip")
        self.assertIn("bat/03.png", logs.output[0])
        parts = (dataset.train, dataset.validation, dataset.test)
        self.assertEqual(sum(len(part) for part in parts), 37)
        self.assertEndsWith(dataset.provenance, ", 3 skipped")

    def test_a_class_of_bad_files_alone(self):
        root = _folder(2)
        for path in (root / "ant").iterdir():
            path.write_bytes(b"")
        with self.assertRaisesRegex(InputError, "each class.*'ant'"):
            _load(root, bad_images="skip")

    def test_what_is_no_such_folder(self):
        empty = pathlib.Path(tempfile.mkdtemp())
        one = _folder(2)
        for path in (one / "bat").iterdir():
            path.unlink()
        extra = _folder(2, ("train", "test"))
        (extra / "test" / "bar").mkdir()
        for root, pattern in (
            (empty / "nowhere", "a folder of images"),
            (empty, "at least 2 classes"),
            (one, "JPEG or PNG files in .*bat"),
            (extra, "a class of .*'bar'. Did you mean 'bat'"),
        ):
            with self.assertRaisesRegex(InputError, pattern):
                _load(root)

    def test_a_size_and_a_choice_are_asked_for(self):
        root = _folder(2)
        with self.assertRaisesRegex(InputError, "config.image_size"):
            _load(root, image_size=None)
        with self.assertRaisesRegex(InputError, "image_size of 1 pixel"):
            _load(root, image_size=(8, 0, 3))
        with self.assertRaisesRegex(InputError, "image_size of the type int"):
            _load(root, image_size=True)
        with self.assertRaisesRegex(InputError, "bad_images.*'slip'. Did"):
            _load(root, bad_images="slip")


class ConfigTest(tf.test.TestCase):
    def test_the_config_tells_all_without_the_folder(self):
        """Classes and size, so that a run is served where no images are."""
        config = at.get_config()
        config.dataset, config.image_size = f"folder:{_folder(4)}", 96
        resolved = run_config.resolve(config)
        run_checks.validate(resolved)
        self.assertEqual(resolved.batch_size, 32)
        there = run_config.from_dict(run_config.to_dict(resolved))
        there.unlock()
        there.dataset = "folder:/nowhere"
        spec = run_config.data_spec(there)
        self.assertEqual(spec.class_names, ("ant", "bat"))
        self.assertEqual(spec.image_shape, (96, 96, 3))

    def test_names_are_made_absolute(self):
        here = image_folders.absolute("folder:photos")
        self.assertEqual(here, f"folder:{pathlib.Path('photos').resolve()}")
        self.assertEqual(image_folders.absolute("digits"), "digits")
