"""Memory of a long training: 1,000 steps keep nothing of any of them."""

import ctypes
import gc
import pathlib
import re
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from atat_tf.attacks import linf
from atat_tf.data import batches as training_batches
from atat_tf.data import datasets
from atat_tf.defenses import atat
from atat_tf.training import trainer
from tests.support import runs, toys

_WARM_UP, _STEPS = 200, 800
# The images alone are 48 KiB a step. The runtime was seen to keep 0.4 of
# Python's blocks a step for a while, and to give freed memory back in whole
# pages only: 16 MB came and went.
_IMAGES = 64
_MOST_BLOCKS, _MOST_RESIDENT = 1, 32 * 2**20


def _memory():
    """Returns Python's blocks, and resident bytes without what was freed."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    text = pathlib.Path("/proc/self/status").read_text()
    resident = 1024 * int(re.search(r"VmRSS:\s+(\d+) kB", text)[1])
    return np.array([sys.getallocatedblocks(), resident])


def _growth(step):
    """Returns blocks a step, and resident bytes in all, after the warm-up."""
    for _ in range(_WARM_UP):
        step()
    before = _memory()
    for _ in range(_STEPS):
        step()
    blocks, resident = _memory() - before
    return blocks / _STEPS, resident


@pytest.mark.long
class MemoryGrowthTest(tf.test.TestCase):
    def test_a_thousand_steps(self):
        student, teacher = toys.small_classifier(1), toys.small_classifier(2)
        attack = linf.pgd(8 / 255, 2 / 255, 1)
        built = trainer.AdversarialTrainer(
            student, atat.ATAT(), attack, teacher
        )
        built.compile(keras.optimizers.SGD(0.01, momentum=0.9))
        built.make_train_function()
        batch = toys.random_images(_IMAGES), toys.random_labels(_IMAGES)
        batches = iter(tf.data.Dataset.from_tensors(batch).repeat())
        blocks, resident = _growth(lambda: built.train_function(batches))
        self.assertLess(blocks, _MOST_BLOCKS)
        self.assertLess(resident, _MOST_RESIDENT)

    def test_an_epoch_of_images_that_are_read_as_they_are_needed(self):
        data = datasets.load(
            runs.digits_folder(self.get_temp_dir()),
            image_size=128,
            memory_budget=0,
        )
        steps = _WARM_UP + _STEPS
        batches = training_batches.batches(data.train, 16, 0, 0, steps, True)
        following = iter(batches)
        blocks, resident = _growth(lambda: next(following))
        self.assertLess(blocks, _MOST_BLOCKS)
        self.assertLess(resident, _MOST_RESIDENT)
        # In memory they would take more than may be kept.
        self.assertGreater(data.train.images.nbytes, 1.5 * _MOST_RESIDENT)

    def test_what_is_kept_is_seen(self):
        kept = []
        image = toys.random_images(_IMAGES).numpy()
        blocks, resident = _growth(lambda: kept.append((image.copy(), {})))
        self.assertGreater(blocks, _MOST_BLOCKS)
        self.assertGreater(resident, _MOST_RESIDENT)
