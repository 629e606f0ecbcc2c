"""What memory cannot hold is read as it is asked for, to the same bits."""

import io
import os
import pathlib
import tempfile
from unittest import mock

import numpy as np
import pytest
import tensorflow as tf
from absl.testing import parameterized
from PIL import Image

from atat_tf.data import (
    arrays,
    batches,
    datasets,
    folders,
    stored,
    training_data,
)
from atat_tf.data import extra as extra_images
from atat_tf.errors import InputError

_SIDE, _COUNT = 16, 48
_BYTES = _COUNT * _SIDE * _SIDE * 3


def _pixels(count=_COUNT, seed=0):
    draw = np.random.default_rng(seed)
    return draw.integers(0, 256, (count, _SIDE, _SIDE, 3), np.uint8)


def _folder(base):
    for number, pixels in enumerate(_pixels()):
        folder = base / ("dark", "light")[number % 2]
        folder.mkdir(exist_ok=True)
        suffix = (".png", ".jpg")[number % 3 == 0]
        Image.fromarray(pixels).save(folder / f"{number}{suffix}")
    return {"name": f"folder:{base}", "image_size": 12}


def _arrays(base):
    labels = np.arange(_COUNT) % 2
    np.savez(
        base / "set.npz",
        x_train=_pixels(),
        y_train=labels,
        x_test=_pixels(10, seed=1),
        y_test=labels[:10],
    )
    return {"name": str(base / "set.npz")}


def _tfds(base):
    import tensorflow_datasets as tfds

    # A second one of the name would be refused.
    with tfds.core.registered.skip_registration():

        class InTwoFiles(tfds.core.GeneratorBasedBuilder):
            """Images of noise, some resized, some of whose files are JPEG."""

            VERSION = tfds.core.Version("1.0.0")

            def _info(self):
                features = {
                    "image": tfds.features.Image(shape=(None, None, 3)),
                    "label": tfds.features.ClassLabel(num_classes=2),
                }
                return self.dataset_info_from_configs(
                    features=tfds.features.FeaturesDict(features)
                )

            def _split_generators(self, manager):
                return {
                    "train": self._generate_examples(_COUNT),
                    "test": self._generate_examples(10),
                }

            def _generate_examples(self, count):
                for number, pixels in enumerate(_pixels(count)):
                    file = io.BytesIO()
                    encoding = ("PNG", "JPEG")[number % 3 == 0]
                    Image.fromarray(pixels).save(file, encoding)
                    file.seek(0)
                    yield number, {"image": file, "label": number % 2}

    builder = InTwoFiles(data_dir=base)
    config = tfds.download.DownloadConfig(num_shards=2)
    builder.download_and_prepare(download_config=config)
    return {
        "name": "in_two_files",
        "data_dir": str(base),
        "image_size": 12,
        "num_validation": 6,
    }


_KINDS = {"folder": _folder, "arrays": _arrays, "tfds": _tfds}


@pytest.fixture(scope="module", params=_KINDS)
def both(request):
    """A data set held in memory, and the same one read as it is asked for."""
    with tempfile.TemporaryDirectory() as base:
        named = _KINDS[request.param](pathlib.Path(base))
        held = datasets.load(**named, memory_budget=10 * _BYTES)
        unread = datasets.load(**named, memory_budget=_BYTES / 10)
        yield held, unread


def test_every_split_has_the_same_images(both):
    held, unread = both
    assert held.provenance == unread.provenance
    for name in ("train", "validation", "test"):
        here, there = getattr(held, name), getattr(unread, name)
        assert isinstance(here.images, np.ndarray)
        assert isinstance(there.images, stored.Images)
        np.testing.assert_array_equal(here.labels, there.labels)
        for index in (slice(None), slice(1, 3), np.array([2, 0, 0]), -1):
            np.testing.assert_array_equal(
                here.images[index], there.images[index]
            )
        assert here.images.shape == there.images.shape
        assert here.images.nbytes == there.images.nbytes
        assert here.images.dtype == there.images.dtype
        first = there.take(2)
        assert isinstance(first.images, stored.Images)
        np.testing.assert_array_equal(here.take(2).images, first.images[:])


@pytest.mark.parametrize("parts", [None, ((4, 8), (0, 4)), ((1, 6),)])
def test_batches_are_the_same(both, parts):
    drawn = [
        list(
            batches.batches(
                dataset.train,
                batch_size=8,
                seed=3,
                first_step=2,
                num_steps=6,
                flip=True,
                parts=parts,
            ).as_numpy_iterator()
        )
        for dataset in both
    ]
    assert len(drawn[0]) == 6 * len(parts or [()])
    for (images, labels), (others, their_labels) in zip(*drawn, strict=True):
        np.testing.assert_array_equal(images, others)
        np.testing.assert_array_equal(labels, their_labels)


class StoredTest(parameterized.TestCase, tf.test.TestCase):
    def setUp(self):
        super().setUp()
        self.base = pathlib.Path(self.get_temp_dir()) / self.id()
        self.base.mkdir()

    def test_a_compressed_file_is_refused(self):
        labels = np.arange(_COUNT) % 2
        path = str(self.base / "small.npz")
        np.savez_compressed(
            path,
            x_train=_pixels(),
            y_train=labels,
            x_test=_pixels(),
            y_test=labels,
        )
        self.assertIsInstance(arrays.load(path)[1][0], np.ndarray)
        with self.assertRaisesRegex(InputError, "not compressed"):
            arrays.load(path, _BYTES)

    def test_extra_images(self):
        path = self.base / "extra.npz"
        np.savez(path, image=_pixels(), label=np.arange(_COUNT) % 2)
        spec = datasets.Spec(2, (_SIDE, _SIDE, 3))
        extra = extra_images.load(path, spec, _BYTES / 10)
        self.assertIsInstance(extra.images, stored.Images)
        self.assertAllEqual(extra.images[:], _pixels())

    def test_damaged_files_are_found_before_training(self):
        name = _folder(self.base)["name"]
        (self.base / "dark" / "bad.png").write_bytes(b"no image")
        listing = folders.listing(name)
        with self.assertRaisesRegex(InputError, "bad.png"):
            folders.splits(listing, (12, 12, 3), memory_budget=0)
        parts, skipped = folders.splits(listing, (12, 12, 3), "skip", 0)
        self.assertEqual(skipped, 1)
        self.assertLen(parts["train"][0], len(parts["train"][1]))

    def test_a_file_that_is_gone_is_named(self):
        named = _folder(self.base)
        train = datasets.load(**named, memory_budget=0).train
        os.remove(train.images.files[train.images.places[0]])
        with self.assertRaisesRegex(InputError, "as they were when"):
            train.images[0]

    @parameterized.parameters(
        ("max", 0, 1.0), ("1000000", 400000, None), ("1000", 4000, 0.0)
    )
    def test_free_memory_is_a_containers(self, limit, used, share):
        (self.base / "memory.max").write_text(f"{limit}\n")
        (self.base / "memory.current").write_text(f"{used}\n")
        with mock.patch.object(stored, "_CGROUP", self.base / "none"):
            whole = stored.free_memory()
        self.assertGreater(whole, 2**20)
        with mock.patch.object(stored, "_CGROUP", self.base):
            free = stored.free_memory()
        if share is None:
            self.assertEqual(free, 600000)
        else:
            self.assertAllClose(free, share * whole, 0.1)

    def test_a_file_that_is_cut_off_is_named(self):
        named = _arrays(self.base)
        train = datasets.load(**named, memory_budget=0).train
        os.truncate(named["name"], 100)
        with self.assertRaisesRegex(InputError, "as they were when"):
            train.images[0]

    @parameterized.parameters(_arrays, _folder, _tfds)
    def test_a_file_that_is_changed_in_place_is_named(self, written):
        train = datasets.load(**written(self.base), memory_budget=0).train
        train.images[:]
        for path in self.base.rglob("*"):
            later = path.stat().st_mtime_ns + 1_000_000
            os.utime(path, ns=(later, later))
        with self.assertRaisesRegex(InputError, "as they were when"):
            train.images[0]

    def test_a_file_that_is_gone_is_a_sentence_in_batches_too(self):
        train = datasets.load(**_folder(self.base), memory_budget=0).train
        for path in train.images.files[train.images.places]:
            os.remove(path)
        drawn = batches.batches(train, 4, 0, 0, 2, True)
        with self.assertRaisesRegex(
            InputError, r"^Expected the files of the data set.*\.$"
        ):
            with training_data.sentences():
                next(iter(drawn))
