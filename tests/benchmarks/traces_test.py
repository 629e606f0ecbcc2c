"""Times of operations from a trace: nested events, names, a real trace."""

import pathlib

import tensorflow as tf
from absl.testing import parameterized

from benchmarks.cost import traces


class TracesTest(tf.test.TestCase, parameterized.TestCase):
    def test_an_event_counts_without_what_is_inside(self):
        events = [
            (0, 100, "a"),
            (10, 30, "b"),
            (15, 5, "a"),
            (50, 20, "b"),
            (100, 7, "c"),
        ]
        # a: 100 − 30 − 20, and 5 inside of b; b: 30 − 5, and 20.
        self.assertEqual(traces.own_times(events), {"a": 55, "b": 45, "c": 7})

    @parameterized.parameters(
        ("student/stem/convolution:Conv2D", "Conv2D"),
        ("a/b:_FusedConv2D#id=3,x=y:z#", "_FusedConv2D"),
        ("while:While", ""),
        ("ThreadPool::Run", ""),
        ("Iterator::Map", ""),
        ("Conv2D", ""),
    )
    def test_type_of_a_name(self, name, kind):
        self.assertEqual(traces.operation_type(name), kind)

    def test_a_real_trace(self):
        """A function with a product has a product's seconds, within its own."""
        product = tf.function(lambda x: tf.reduce_sum(x @ x))
        x = tf.ones((256, 256))
        product(x)
        folder = pathlib.Path(self.get_temp_dir())
        tf.profiler.experimental.start(str(folder))
        for _ in range(3):
            product(x).numpy()
        tf.profiler.experimental.stop()
        found = traces.seconds_by_type(folder)
        self.assertGreater(found["MatMul"], 0)
        self.assertIn("Sum", found)
        self.assertLess(sum(found.values()), 5)


if __name__ == "__main__":
    tf.test.main()
