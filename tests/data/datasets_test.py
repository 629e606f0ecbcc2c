"""Splits are fixed by their seed, and data that is not there is said so."""

import os
import pathlib
import tempfile

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl.testing import parameterized

from atat_tf.data import datasets
from atat_tf.data import extra as extra_images
from atat_tf.errors import InputError

_SHARED = pathlib.Path(__file__).parents[3] / "shared" / "tfds"


def _pictures(folder):
    """Writes two classes of two pictures; returns their folder."""
    for label in ("cat", "dog"):
        place = pathlib.Path(folder, label)
        place.mkdir()
        for number in range(2):
            keras.utils.save_img(place / f"{number}.png", np.ones((4, 4, 3)))
    return folder


class LoadTest(parameterized.TestCase, tf.test.TestCase):
    def test_digits(self):
        dataset = datasets.load("digits")
        sizes = [
            len(s) for s in (dataset.train, dataset.validation, dataset.test)
        ]
        self.assertEqual(sizes, [1277, 160, 360])
        self.assertEqual(dataset.train.images.shape, (1277, 32, 32, 3))
        self.assertEqual(dataset.train.images.dtype, np.uint8)
        self.assertEqual(dataset.train.images.max(), 255)
        self.assertEqual(set(dataset.test.labels), set(range(10)))

    def test_splits_are_disjoint_and_fixed_by_the_split_seed(self):
        first = datasets.load("digits")
        again = datasets.load("digits")
        other = datasets.load("digits", split_seed=1)
        self.assertAllEqual(first.validation.images, again.validation.images)
        self.assertNotAllEqual(first.validation.labels, other.validation.labels)
        # The test images never depend on a seed.
        self.assertAllEqual(first.test.images, other.test.images)
        parts = (first.train, first.validation, first.test)
        seen = [image.tobytes() for part in parts for image in part.images]
        self.assertLen(set(seen), 1797)  # sklearn's digits are all distinct

    @parameterized.parameters(0, 1437, -1)
    def test_number_of_validation_images(self, number):
        with self.assertRaisesRegex(InputError, "num_validation between 1"):
            datasets.load("digits", num_validation=number)

    @parameterized.parameters(
        ("data_dir", 3),
        ("split_seed", "x"),
        ("num_validation", 1.5),
        ("image_size", -3),
        ("image_size", (8, 8)),
        ("image_size", (8, -8, 3)),
        ("image_size", "8"),
        ("memory_budget", -1),
        ("memory_budget", []),
    )
    def test_odd_settings(self, name, value):
        with tempfile.TemporaryDirectory() as folder:
            arguments = {"name": f"folder:{_pictures(folder)}", "image_size": 4}
            arguments[name] = value
            message = name.replace("memory_", "memory.")
            with self.assertRaisesRegex(InputError, message):
                datasets.load(**arguments)

    def test_unknown_name_suggests_near_ones(self):
        with self.assertRaisesRegex(InputError, "Received: 'cifar1O'. Did"):
            datasets.spec("cifar1O")

    def test_missing_data_without_network_is_one_sentence(self):
        with tempfile.TemporaryDirectory() as folder:
            os.environ["no_proxy"] = "*"
            with self.assertRaisesRegex(
                InputError, "data set 'cifar100' in data_dir=.*or a network"
            ):
                datasets.load("cifar100", folder)

    @pytest.mark.long
    def test_cifar10_as_prepared_for_tfds(self):
        if not _SHARED.exists():
            self.skipTest("needs ../shared/tfds")
        dataset = datasets.load("cifar10", str(_SHARED))
        self.assertLen(dataset.train, 49_000)
        self.assertLen(dataset.validation, 1_000)
        self.assertLen(dataset.test, 10_000)
        self.assertEqual(dataset.provenance, "tfds cifar10/3.0.2, JPEG copy")
        self.assertEqual(dataset.class_names[:2], ("airplane", "automobile"))
        self.assertAllEqual(np.bincount(dataset.test.labels), [1000] * 10)


def _any_size():
    import tensorflow_datasets as tfds

    return tfds.features.Image(shape=(None, None, 3))


class TfdsTest(parameterized.TestCase, tf.test.TestCase):
    """Small sets in the real format of tfds, made here."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.folder = tempfile.mkdtemp()

    def _store(
        self, name, splits, image=None, label=None, value=None, pixels=None
    ):
        import tensorflow_datasets as tfds

        features = tfds.features
        image = image or features.Image(shape=(8, 8, 3))
        label = label or features.ClassLabel(names=["cat", "dog"])
        value = value or (lambda split, i: i % 2)
        pixels = pixels or (
            lambda i: np.full(image.shape, i).astype(image.np_dtype)
        )

        def example(split, i):
            return {"image": pixels(i), "label": value(split, i)}

        tfds.dataset_builders.store_as_tfds_dataset(
            name=name,
            version="1.0.0",
            data_dir=self.folder,
            features=features.FeaturesDict({"image": image, "label": label}),
            split_datasets={
                split: [(i, example(split, i)) for i in range(20)]
                for split in splits
            },
        )

    def _load(self, name):
        return datasets.load(name, self.folder, num_validation=4)

    def test_two_sizes_are_resized_and_the_only_split_is_split(self):
        def pixels(i):
            size = 16 if i % 4 < 2 else 20
            return np.full((size, size, 3), 200 * (i % 2), np.uint8)

        self._store("two_sizes", ["train"], _any_size(), pixels=pixels)
        dataset = datasets.load(
            "two_sizes", self.folder, num_validation=3, image_size=12
        )
        self.assertEqual(dataset.spec.image_shape, (12, 12, 3))
        self.assertEqual(dataset.spec.num_classes, 2)
        parts = dataset.train, dataset.validation, dataset.test
        self.assertEqual([len(part) for part in parts], [15, 3, 2])
        for split in parts:
            brightness = split.images.mean(axis=(1, 2, 3))
            self.assertAllEqual(brightness, 200 * split.labels)
        with self.assertRaisesRegex(InputError, "config.image_size"):
            datasets.spec("two_sizes", self.folder)

    def test_a_test_split_that_nobody_has_labelled(self):
        splits = ("train", "validation", "test")
        self._store(
            "secret", splits, value=lambda s, i: -1 if s == "test" else i % 2
        )
        with self.assertLogs(level="WARNING") as logs:
            dataset = self._load("secret")
        self.assertIn("test has no labels", " ".join(logs.output))
        self.assertEqual({*dataset.test.labels}, {0, 1})
        self.assertEndsWith(dataset.provenance, ", validation split")
        self._store(
            "all_secret",
            splits[::2],
            value=lambda s, i: -1 if s == "test" else i % 2,
        )
        with self.assertRaisesRegex(InputError, "smallest=-1"):
            self._load("all_secret")

    def test_sets_that_are_refused(self):
        import tensorflow_datasets as tfds

        features, usual = tfds.features, ("train", "test")
        sixteen = features.Image(
            shape=(8, 8, 1), dtype=np.uint16, encoding_format="png"
        )
        floats = features.Tensor(shape=(8, 8, 3), dtype=np.float32)
        for name, message, arguments in (
            ("test_only", "a training split", {"splits": ("test",)}),
            ("sixteen", "images of bytes.*uint16", {"image": sixteen}),
            ("floats", "images of bytes.*float32", {"image": floats}),
            (
                "number",
                "a ClassLabel.*Scalar",
                {"label": features.Scalar(np.int64)},
            ),
            (
                "words",
                "a ClassLabel.*Text",
                {"label": features.Text(), "value": lambda s, i: "cat"},
            ),
        ):
            self._store(name, **{"splits": usual, **arguments})
            with self.assertRaisesRegex(InputError, message):
                self._load(name)

    def test_a_folder_without_its_prefix(self):
        with self.assertRaisesRegex(InputError, "Did you mean 'folder:"):
            datasets.spec(self.folder)


class ExtraImagesTest(parameterized.TestCase, tf.test.TestCase):
    def _written(self, **arrays):
        path = os.path.join(tempfile.mkdtemp(), "extra.npz")
        np.savez(path, **arrays)
        return path

    def test_reads_images_and_labels(self):
        images = np.zeros((3, 32, 32, 3), np.uint8)
        path = self._written(image=images, label=np.array([0, 9, 4]))
        extra = extra_images.load(path, datasets.SPECS["cifar10"])
        self.assertAllEqual(extra.labels, [0, 9, 4])
        self.assertEqual(extra.labels.dtype, np.int32)

    @parameterized.parameters(
        ({"images": np.zeros(3)}, "arrays image, label"),
        ({"image": np.zeros((1, 32, 32, 3)), "label": [0]}, "uint8"),
        (
            {"image": np.zeros((1, 28, 28, 1), np.uint8), "label": [0]},
            r"uint8 \[n, 32, 32, 3\]",
        ),
        (
            {"image": np.zeros((1, 32, 32, 3), np.uint8), "label": [10]},
            "from 0 to 9. Received: smallest=10, largest=10",
        ),
        (
            {"image": np.zeros((2, 32, 32, 3), np.uint8), "label": [-1, 4]},
            "from 0 to 9. Received: smallest=-1, largest=4",
        ),
        (
            {"image": np.zeros((2, 32, 32, 3), np.uint8), "label": [1]},
            "an integer label for each",
        ),
    )
    def test_refuses(self, arrays, message):
        path = self._written(**arrays)
        with self.assertRaisesRegex(InputError, message):
            extra_images.load(path, datasets.SPECS["cifar10"])
