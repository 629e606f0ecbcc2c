"""Memory of a long training: 1,000 steps keep nothing of any of them."""

import ctypes
import gc
import pathlib
import re
import sys

import numpy as np
import pytest
import tensorflow as tf

from benchmarks import timings

_WARM_UP, _STEPS, _EVERY = 200, 1000, 50
# A step. One image of the batch is 12 KiB, a Python object at least one block;
# the runtime was seen to keep 22 bytes and 0.4 blocks for a while.
_MOST_BYTES, _MOST_BLOCKS = 1024, 1
# In all. Freed memory is given back in whole pages only: 16 MB came and went.
_MOST_RESIDENT = 32 * 2**20


class _Allocated(ctypes.Structure):
    """What glibc's mallinfo2 returns; uordblks and hblkhd are in use."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks "
        "uordblks fordblks keepcost".split()
    ]


_C_LIBRARY = ctypes.CDLL("libc.so.6")
_C_LIBRARY.mallinfo2.restype = _Allocated


def _memory():
    """Returns bytes in use of C's allocator, Python's blocks, and resident.

    What was freed and not given back would be resident too: it is given back.
    """
    gc.collect()
    _C_LIBRARY.malloc_trim(0)
    found = _C_LIBRARY.mallinfo2()
    text = pathlib.Path("/proc/self/status").read_text()
    resident = 1024 * int(re.search(r"VmRSS:\s+(\d+) kB", text)[1])
    blocks = sys.getallocatedblocks()
    return found.uordblks + found.hblkhd, blocks, resident


def growth(step):
    """Returns by how much memory grows after the warm-up.

    Returns:
      Bytes and Python's blocks a step, the slopes of straight lines through
      what there is every _EVERY steps; and resident bytes, the median of the
      last five times less that of the first five.
    """
    for _ in range(_WARM_UP):
        step()
    memory = []
    counts = np.arange(0, _STEPS - _WARM_UP + 1, _EVERY)
    for _ in counts:
        memory.append(_memory())
        for _ in range(_EVERY):
            step()
    in_use, blocks, resident = np.array(memory, float).T
    slopes = (np.polyfit(counts, each, 1)[0] for each in (in_use, blocks))
    return *slopes, np.median(resident[-5:]) - np.median(resident[:5])


@pytest.mark.long
class MemoryGrowthTest(tf.test.TestCase):
    def test_a_thousand_steps(self):
        config = timings.resolved_config("atat", 10, 1, 4)
        config.attack.num_steps = 1
        step = timings.training_step(config, timings.random_split(4))
        in_use, blocks, resident = growth(step)
        print(f"{in_use:.0f} bytes, {blocks:.2f} blocks, {resident:.0f}")
        self.assertLess(in_use, _MOST_BYTES)
        self.assertLess(blocks, _MOST_BLOCKS)
        self.assertLess(resident, _MOST_RESIDENT)

    def test_what_is_kept_is_seen(self):
        """4 KiB and 3 small objects a step are found, and how much it is."""
        kept = []

        def step():
            kept.append((bytearray(b"1" * 4096), object(), object()))

        in_use, blocks, _ = growth(step)
        self.assertAllClose(in_use, 4096, rtol=0.1)
        # And the tuple, the bytearray and what it holds.
        self.assertAllClose(blocks, 5, rtol=0.1)


if __name__ == "__main__":
    tf.test.main()
