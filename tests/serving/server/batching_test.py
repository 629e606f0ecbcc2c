"""Batches by hand: what is merged, padded, split, refused, and who waits."""

import concurrent.futures
import threading

import numpy as np
from absl.testing import absltest, parameterized

from serving.server import batching
from serving.server.config_files import BatchingOptions
from serving.status import StatusError, invalid

_FOREVER = 60_000_000


class _Model:
    """Doubles "x"; remembers its batches; waits where it is told to."""

    def __init__(self):
        self.batches = []
        self.timeouts = []
        self.may_run = threading.Event()
        self.may_run.set()
        self.runs = threading.Semaphore(0)

    def __call__(self, feeds, timeout_seconds):
        self.runs.release()
        self.may_run.wait(20)
        self.batches.append(feeds["x"].tolist())
        self.timeouts.append(timeout_seconds)
        if np.any(feeds["x"] < 0):
            raise invalid("negative")
        return [2 * feeds["x"]]


class BatcherTest(parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.model = _Model()
        self.workers = concurrent.futures.ThreadPoolExecutor(2)
        self.callers = concurrent.futures.ThreadPoolExecutor(8)
        self.addCleanup(self.callers.shutdown)
        self.addCleanup(self.workers.shutdown)
        self.addCleanup(self.model.may_run.set)

    def _batcher(self, **options):
        return batching.Batcher(
            self.model, BatchingOptions(**options), self.workers
        )

    def _call(self, batcher, *values, timeout=20.0):
        feeds = {"x": np.array(values, np.float32)}
        return self.callers.submit(batcher, feeds, timeout)

    def _answers(self, *futures):
        return [future.result(20)[0].tolist() for future in futures]

    def test_full_batches_are_merged_and_split_again(self):
        batcher = self._batcher(max_batch_size=3, batch_timeout_micros=_FOREVER)
        first = self._call(batcher, 1)
        second = self._call(batcher, 2, 3)
        self.assertEqual(self._answers(first, second), [[2.0], [4.0, 6.0]])
        self.assertLen(self.model.batches, 1)
        self.assertCountEqual(self.model.batches[0], [1.0, 2.0, 3.0])

    def test_a_batch_does_not_wait_longer_than_its_timeout(self):
        batcher = self._batcher(max_batch_size=100, batch_timeout_micros=1000)
        self.assertEqual(self._answers(self._call(batcher, 5)), [[10.0]])

    def test_padding_repeats_a_row_and_is_cut_off(self):
        batcher = self._batcher(
            max_batch_size=8, batch_timeout_micros=0, allowed_batch_sizes=(4, 8)
        )
        self.assertEqual(
            self._answers(self._call(batcher, 7, 9)), [[14.0, 18.0]]
        )
        self.assertEqual(self.model.batches, [[7.0, 9.0, 7.0, 7.0]])

    def test_a_request_larger_than_a_batch_is_refused(self):
        batcher = self._batcher(max_batch_size=8)
        with self.assertRaisesRegex(
            StatusError,
            "Task size 9 is larger than maximum input batch size 8",
        ):
            self._call(batcher, *range(9)).result(20)

    def test_or_split_where_that_is_asked_for(self):
        batcher = self._batcher(
            max_batch_size=8,
            batch_timeout_micros=0,
            enable_large_batch_splitting=True,
            max_execution_batch_size=3,
        )
        (answer,) = self._answers(self._call(batcher, *range(8)))
        self.assertEqual(answer, [2.0 * x for x in range(8)])
        self.assertCountEqual(
            [len(batch) for batch in self.model.batches], [3, 3, 2]
        )

    def test_one_bad_request_fails_alone(self):
        batcher = self._batcher(max_batch_size=3, batch_timeout_micros=_FOREVER)
        good, bad, other = (self._call(batcher, x) for x in (1, -1, 2))
        self.assertEqual(self._answers(good, other), [[2.0], [4.0]])
        with self.assertRaisesRegex(StatusError, "negative"):
            bad.result(20)

    def test_requests_of_other_shapes_fail_or_pass_alone(self):
        batcher = self._batcher(max_batch_size=2, batch_timeout_micros=_FOREVER)
        flat = self._call(batcher, 1)
        deep = self.callers.submit(batcher, {"x": np.ones((1, 2), "f")}, 20.0)
        self.assertEqual(self._answers(flat, deep), [[2.0], [[2.0, 2.0]]])

    def test_variable_lengths_are_padded_where_that_is_asked_for(self):
        batcher = self._batcher(
            max_batch_size=2,
            batch_timeout_micros=_FOREVER,
            pad_variable_length_inputs=True,
        )
        short = self.callers.submit(batcher, {"x": np.array([[3.0]])}, 20.0)
        long = self.callers.submit(batcher, {"x": np.array([[5.0, 6.0]])}, 20.0)
        # Filled up with its own first value, then doubled.
        self.assertEqual(
            self._answers(short, long), [[[6.0, 6.0]], [[10.0, 12.0]]]
        )
        self.assertLen(self.model.batches, 1)

    @parameterized.parameters(
        ({}, "at least one input tensor"),
        ({"x": np.float32(1.0)}, "at least one dimension"),
        ({"x": np.ones(2), "y": np.ones(3)}, "equal 0th-dimension size"),
    )
    def test_what_has_no_batch_is_refused(self, feeds, pattern):
        with self.assertRaisesRegex(StatusError, pattern) as caught:
            self._batcher()(feeds, 1.0)
        self.assertEqual(caught.exception.code, "INVALID_ARGUMENT")

    @parameterized.parameters(
        (lambda x: np.float32(1.0), "has 0 dimensions"),
        (lambda x: np.ones(7), "does not equal the sum"),
    )
    def test_outputs_without_the_batch_are_refused(self, output, pattern):
        batcher = batching.Batcher(
            lambda feeds, _: [output(feeds)],
            BatchingOptions(batch_timeout_micros=0),
            self.workers,
        )
        with self.assertRaisesRegex(StatusError, pattern) as caught:
            batcher({"x": np.ones(2)}, 20.0)
        self.assertEqual(caught.exception.code, "FAILED_PRECONDITION")

    def test_no_more_batches_wait_than_allowed(self):
        self.model.may_run.clear()
        batcher = self._batcher(
            max_batch_size=1, batch_timeout_micros=0, max_enqueued_batches=2
        )
        running = [self._call(batcher, x) for x in (1, 2)]
        for _ in running:
            self.assertTrue(self.model.runs.acquire(timeout=20))
        waiting = []
        with self.assertRaisesRegex(StatusError, "is full") as caught:
            for x in (3, 4, 5):
                waiting.append(self._call(batcher, x))
            # Which of the three came last is the threads' to decide.
            done, _ = concurrent.futures.wait(
                waiting, 20, concurrent.futures.FIRST_COMPLETED
            )
            done.pop().result()
        self.assertEqual(caught.exception.code, "UNAVAILABLE")
        self.model.may_run.set()
        answered = [f for f in (*running, *waiting) if not f.exception(20)]
        self.assertLen(answered, 4)

    def test_who_waits_too_long_leaves_and_is_not_run(self):
        self.model.may_run.clear()
        batcher = self._batcher(max_batch_size=1, batch_timeout_micros=0)
        running = [self._call(batcher, x) for x in (1, 2)]
        for _ in running:
            self.assertTrue(self.model.runs.acquire(timeout=20))
        late = self._call(batcher, 3, timeout=0.05)
        with self.assertRaisesRegex(
            StatusError, "exceeded while waiting in batching queue"
        ) as caught:
            late.result(20)
        self.assertEqual(caught.exception.code, "RESOURCE_EXHAUSTED")
        self.model.may_run.set()
        self.assertCountEqual(self._answers(*running), [[2.0], [4.0]])
        self.assertEqual(self._answers(self._call(batcher, 4)), [[8.0]])
        self.assertNotIn([3.0], self.model.batches)

    def test_the_session_gets_the_longest_time_that_is_left(self):
        batcher = self._batcher(max_batch_size=2, batch_timeout_micros=_FOREVER)
        calls = [
            self._call(batcher, 1, timeout=5.0),
            self._call(batcher, 2, timeout=20.0),
        ]
        self._answers(*calls)
        self.assertBetween(self.model.timeouts[0], 5.0, 20.0)


if __name__ == "__main__":
    absltest.main()
