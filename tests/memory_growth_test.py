"""Memory of a long training: 1,000 steps take no more than the first did."""

import gc
import pathlib
import re

import pytest
import tensorflow as tf

from benchmarks import timings

_WARM_UP, _STEPS, _EVERY = 200, 1000, 50
# Of a step on average. A batch of these images is 48 KiB, as floats, and the
# allocator's own coming and going was below 1 KiB.
_BYTES_A_STEP = 4096


def _resident():
    """Returns the bytes of this process in memory."""
    gc.collect()
    text = pathlib.Path("/proc/self/status").read_text()
    return 1024 * int(re.search(r"VmRSS:\s+(\d+) kB", text)[1])


def growth(step):
    """Returns the bytes a step by which memory grows after the warm-up.

    The slope of a straight line through what is resident every _EVERY steps.
    """
    for _ in range(_WARM_UP):
        step()
    counts = range(0, _STEPS - _WARM_UP + 1, _EVERY)
    resident = [_resident()]
    for _ in counts[1:]:
        for _ in range(_EVERY):
            step()
        resident.append(_resident())
    x = [count - sum(counts) / len(counts) for count in counts]
    products = (a * b for a, b in zip(x, resident, strict=True))
    return sum(products) / sum(a * a for a in x)


@pytest.mark.long
class MemoryGrowthTest(tf.test.TestCase):
    def test_a_thousand_steps(self):
        config = timings.resolved_config("atat", 10, 1, 4)
        step = timings.training_step(config, timings.random_split(4))
        self.assertLess(growth(step), _BYTES_A_STEP)

    def test_what_is_kept_is_seen(self):
        """A step that keeps 16 KiB is found, and by how much."""
        kept = []
        found = growth(lambda: kept.append(bytearray(b"1" * 16384)))
        self.assertAllClose(found, 16384, rtol=0.25)


if __name__ == "__main__":
    tf.test.main()
