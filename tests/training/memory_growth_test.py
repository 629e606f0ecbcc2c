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
from atat_tf.defenses import atat
from atat_tf.training import trainer
from tests.support import toys

_WARM_UP, _STEPS, _EVERY = 200, 1000, 50
# 64 images and what is made of them are more than 48 KiB a step. The runtime
# was seen to keep 0.4 of Python's blocks a step for a while, and to give freed
# memory back in whole pages only: 16 MB came and went.
_MOST_BLOCKS, _MOST_RESIDENT = 1, 32 * 2**20


def _memory():
    """Returns Python's blocks, and resident bytes without what was freed."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    text = pathlib.Path("/proc/self/status").read_text()
    resident = 1024 * int(re.search(r"VmRSS:\s+(\d+) kB", text)[1])
    return sys.getallocatedblocks(), resident


def _growth(step):
    """Returns blocks a step, and resident bytes in all, after the warm-up."""
    for _ in range(_WARM_UP):
        step()
    memory = []
    counts = np.arange(0, _STEPS - _WARM_UP + 1, _EVERY)
    for _ in counts:
        memory.append(_memory())
        for _ in range(_EVERY):
            step()
    blocks, resident = np.array(memory, float).T
    slope = np.polyfit(counts, blocks, 1)[0]
    return slope, np.median(resident[-5:]) - np.median(resident[:5])


@pytest.mark.long
class MemoryGrowthTest(tf.test.TestCase):
    def test_a_thousand_steps(self):
        student, teacher = toys.small_classifier(1), toys.small_classifier(2)
        built = trainer.AdversarialTrainer(
            student, atat.ATAT(), linf.pgd(8 / 255, 2 / 255, 1), teacher
        )
        built.compile(keras.optimizers.SGD(0.01, momentum=0.9))
        built.make_train_function()
        batch = toys.random_images(64), toys.random_labels(64)
        batches = iter(tf.data.Dataset.from_tensors(batch).repeat())
        blocks, resident = _growth(lambda: built.train_function(batches))
        print(f"{blocks:.2f} blocks a step, {resident:.0f} bytes")
        self.assertLess(blocks, _MOST_BLOCKS)
        self.assertLess(resident, _MOST_RESIDENT)

    def test_what_is_kept_is_seen(self):
        """48 KiB in three blocks a step: a list of a tuple of bytes."""
        kept = []

        def step():
            kept.append((bytearray(b"1" * 49152), object()))

        blocks, resident = _growth(step)
        self.assertGreater(blocks, _MOST_BLOCKS)
        self.assertGreater(resident, _MOST_RESIDENT)


if __name__ == "__main__":
    tf.test.main()
