"""Batches are a function of (seed, step), of images shifted and mirrored."""

import numpy as np
import tensorflow as tf

from atat_tf.data import batches as training_batches
from atat_tf.data import datasets


def _numbered(count, size=8):
    """A split whose every pixel says which image it is of."""
    images = np.arange(count, dtype=np.uint8)[:, None, None, None]
    images = np.broadcast_to(images, (count, size, size, 3)).copy()
    return datasets.Split(images, np.arange(count, dtype=np.int32))


def _batches(split, batch_size, seed, first, count, flip=False):
    return list(
        training_batches.batches(
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
        whole = list(training_batches.batches(*arguments))
        mine = list(training_batches.batches(*arguments, ((0, 3), (3, 5))))
        theirs = list(training_batches.batches(*arguments, ((5, 7),)))
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


class ExtraTest(tf.test.TestCase):
    def _batch_labels(self, share, count, extra=7, **kwargs):
        own, other = _numbered(20), _numbered(extra)
        other = datasets.Split(other.images + 100, other.labels + 100)
        batches = training_batches.batches(
            own,
            10,
            0,
            0,
            count,
            False,
            extra=other,
            extra_share=share,
            **kwargs,
        )
        pairs = list(batches.as_numpy_iterator())
        for images, labels in pairs:
            self.assertAllEqual(images.max(axis=(1, 2, 3)), labels)
        return np.stack([labels for _, labels in pairs])

    def test_their_share_is_spread_over_each_batch(self):
        labels = self._batch_labels(0.3, 4)
        self.assertAllEqual((labels >= 100).sum(axis=1), 4 * [3])
        for half in labels[:, :5], labels[:, 5:]:
            self.assertAllInRange((half >= 100).sum(axis=1), 1, 2)

    def test_both_are_visited_whole_before_anew(self):
        labels = self._batch_labels(0.3, 2)
        own, other = labels[labels < 100], labels[labels >= 100]
        self.assertLen(set(own), 14)
        self.assertLen(set(other), 6)

    def test_parts_have_them_too(self):
        whole = self._batch_labels(0.7, 3)
        halves = self._batch_labels(0.7, 3, parts=((0, 5), (5, 10)))
        self.assertAllEqual(halves.reshape(whole.shape), whole)

    def test_fewer_of_them_than_a_batch_asks_for_are_repeated(self):
        labels = self._batch_labels(0.7, 3, extra=2)
        self.assertAllEqual((labels >= 100).sum(axis=1), 3 * [7])


class AugmentationTest(tf.test.TestCase):
    def test_crop_shift_pastes_a_crop_on_black(self):
        """NumPy twin: what is not black is one rectangle of the image."""
        draw = np.random.default_rng(0)
        images = draw.integers(1, 256, (300, 16, 16, 1), dtype=np.uint8)
        split = datasets.Split(images, np.arange(300, dtype=np.int32))
        ((result, labels),) = training_batches.batches(
            split, 300, 1, 0, 1, False, augmentation="crop_shift"
        ).as_numpy_iterator()
        lost = []
        for label, pasted in zip(labels, result[..., 0], strict=True):
            rows, columns = (
                np.nonzero(pasted.any(1))[0],
                np.nonzero(pasted.any(0))[0],
            )
            height, width = len(rows), len(columns)
            crop = pasted[
                rows[0] : rows[0] + height, columns[0] : columns[0] + width
            ]
            windows = np.lib.stride_tricks.sliding_window_view(
                images[label, ..., 0], (height, width)
            )
            self.assertTrue((windows == crop).all(axis=(2, 3)).any())
            lost.append((16 - height, 16 - width))
        # One strength for both sides, 0 to 10 of 32 pixels, 0 to 4 of 16, and
        # each of its splits.
        splits = {(s - w, w) for s in range(5) for w in range(s + 1)}
        self.assertEqual(set(lost), splits)
        counts = np.bincount([sum(sides) for sides in lost])
        self.assertGreater(counts.min(), 40)  # of 60 expected

    def test_equals_a_crop_of_the_padded_image(self):
        """NumPy twin: each result is one of the 81 crops, or its mirror."""
        draw = np.random.default_rng(0)
        images = draw.integers(1, 256, (32, 6, 6, 3), dtype=np.uint8)
        split = datasets.Split(images, np.arange(32, dtype=np.int32))
        ((result, labels),) = _batches(split, 32, 1, 0, 1, flip=True)
        found = {"plain": 0, "mirrored": 0}
        for label, shifted in zip(labels, result, strict=True):
            padded = np.pad(images[label], [(4, 4), (4, 4), (0, 0)])
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
        split = datasets.Split(images, np.zeros(2000, np.int32))
        ((result, _),) = _batches(split, 2000, 0, 0, 1)
        _, ys, xs, _ = np.nonzero(result == 1)
        self.assertEqual(set(ys), set(range(9)))
        self.assertEqual(set(xs), set(range(9)))
        # The neighbour stays on the right, where it is inside at all.
        right = np.argwhere(result == 2)
        left = {tuple(p) for p in np.argwhere(result == 1)}
        for image, y, x, channel in right:
            if x > 0:
                self.assertIn((image, y, x - 1, channel), left)
