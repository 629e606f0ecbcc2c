"""Splits are fixed by their seed; batches are a function of (seed, step)."""

import os
import pathlib
import tempfile

import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from atat_tf import datasets
from atat_tf.errors import InputError

_SHARED = pathlib.Path(__file__).parents[2] / "shared" / "tfds"


def _numbered(count, size=8):
    """A split whose every pixel says which image it is of."""
    images = np.arange(count, dtype=np.uint8)[:, None, None, None]
    images = np.broadcast_to(images, (count, size, size, 3)).copy()
    return datasets.Split(images, np.arange(count, dtype=np.int32))


def _batches(split, batch_size, seed, first, count, flip=False):
    return list(
        datasets.training_batches(
            split, batch_size, seed, first, count, flip
        ).as_numpy_iterator()
    )


class BatchesTest(tf.test.TestCase):
    def test_an_epoch_visits_every_image_once(self):
        split = _numbered(24)
        labels = [labels for _, labels in _batches(split, 8, 0, 0, 3)]
        self.assertCountEqual(np.concatenate(labels), range(24))

    def test_epochs_and_seeds_have_orders_of_their_own(self):
        split = _numbered(24)
        first, second = _batches(split, 24, 0, 0, 2)
        (other,) = _batches(split, 24, 1, 0, 1)
        self.assertNotAllEqual(first[1], second[1])
        self.assertNotAllEqual(first[1], other[1])

    def test_any_step_is_reached_at_once(self):
        """Resuming at step 5 gives the batches an uninterrupted run had."""
        split = _numbered(20)
        whole = _batches(split, 6, 3, 0, 9, flip=True)
        resumed = _batches(split, 6, 3, 5, 4, flip=True)
        for before, after in zip(whole[5:], resumed, strict=True):
            self.assertAllEqual(before[0], after[0])
            self.assertAllEqual(before[1], after[1])

    def test_parts_of_a_batch_are_the_batch(self):
        """What two workers make, one of 3 and 2 images, the other of 2."""
        split = _numbered(20)
        arguments = split, 7, 3, 1, 4, True
        whole = list(datasets.training_batches(*arguments))
        mine = list(datasets.training_batches(*arguments, ((0, 3), (3, 5))))
        theirs = list(datasets.training_batches(*arguments, ((5, 7),)))
        self.assertLen(mine, 2 * 4)
        self.assertEqual(theirs[0][0].shape, (2, 8, 8, 3))
        for step, batch in enumerate(whole):
            pieces = [*mine[2 * step : 2 * step + 2], theirs[step]]
            for number in (0, 1):
                joined = tf.concat([piece[number] for piece in pieces], 0)
                self.assertAllEqual(batch[number], joined)

    def test_images_keep_their_labels_and_stay_uint8(self):
        for images, labels in _batches(_numbered(24), 8, 0, 0, 3, flip=True):
            self.assertEqual(images.dtype, np.uint8)
            # Shifted by at most 4 of 8 pixels, a corner of the image is left.
            self.assertAllEqual(images.max(axis=(1, 2, 3)), labels)


class ShiftAndFlipTest(tf.test.TestCase):
    def test_equals_a_crop_of_the_padded_image(self):
        """NumPy twin: each result is one of the 81 crops, or its mirror."""
        rng = np.random.default_rng(0)
        images = rng.integers(1, 256, (32, 6, 6, 3), dtype=np.uint8)
        result = datasets.shift_and_flip(images, [1, 2], flip=True).numpy()
        found = {"plain": 0, "mirrored": 0}
        for image, shifted in zip(images, result, strict=True):
            padded = np.pad(image, [(4, 4), (4, 4), (0, 0)])
            crops = [
                padded[y : y + 6, x : x + 6] for y in range(9) for x in range(9)
            ]
            plain = any(np.array_equal(shifted, crop) for crop in crops)
            mirrored = any(
                np.array_equal(shifted, crop[:, ::-1]) for crop in crops
            )
            self.assertTrue(plain or mirrored)
            found["plain" if plain else "mirrored"] += 1
        self.assertGreater(min(found.values()), 5)

    def test_every_shift_occurs_and_none_is_flipped_unasked(self):
        images = np.zeros((2000, 9, 9, 1), np.uint8)
        images[:, 4, 4] = 1  # the centre shows where an image went
        images[:, 4, 5] = 2
        result = datasets.shift_and_flip(images, [0, 0], flip=False).numpy()
        _, ys, xs, _ = np.nonzero(result == 1)
        self.assertEqual(set(ys), set(range(9)))
        self.assertEqual(set(xs), set(range(9)))
        # The neighbour stays on the right, where it is inside at all.
        right = np.argwhere(result == 2)
        left = {tuple(p) for p in np.argwhere(result == 1)}
        for image, y, x, channel in right:
            if x > 0:
                self.assertIn((image, y, x - 1, channel), left)


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


class OtherTfdsSetTest(tf.test.TestCase):
    """A small set in tfds' real format: two sizes of image, no test split."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        import tensorflow_datasets as tfds

        class TwoSizes(tfds.core.GeneratorBasedBuilder):
            """Generated images, class by brightness."""

            VERSION = tfds.core.Version("1.0.0")

            def _info(self):
                features = {
                    "image": tfds.features.Image(shape=(None, None, 3)),
                    "label": tfds.features.ClassLabel(names=["dark", "light"]),
                }
                return self.dataset_info_from_configs(
                    features=tfds.features.FeaturesDict(features)
                )

            def _split_generators(self, manager):
                return {"train": self._generate_examples()}

            def _generate_examples(self):
                for i in range(40):
                    size = 16 if i % 4 < 2 else 20
                    image = np.full((size, size, 3), 200 * (i % 2), np.uint8)
                    yield i, {"image": image, "label": i % 2}

        cls.folder = tempfile.mkdtemp()
        TwoSizes(data_dir=cls.folder).download_and_prepare()

    def test_is_resized_and_split(self):
        dataset = datasets.load(
            "two_sizes", self.folder, num_validation=6, image_size=12
        )
        self.assertEqual(dataset.spec.image_shape, (12, 12, 3))
        self.assertEqual(dataset.spec.num_classes, 2)
        self.assertLen(dataset.train, 30)
        self.assertLen(dataset.test, 4)
        for split in (dataset.train, dataset.validation, dataset.test):
            brightness = split.images.mean(axis=(1, 2, 3))
            self.assertAllEqual(brightness, 200 * split.labels)

    def test_asks_for_a_size(self):
        with self.assertRaisesRegex(InputError, "config.image_size"):
            datasets.spec("two_sizes", self.folder)


if __name__ == "__main__":
    tf.test.main()
