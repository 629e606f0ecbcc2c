"""Which calls run together: merged, padded, split, refused, left out."""

import asyncio
import threading
import time
import unittest

import numpy as np

from serving.server import batching
from serving.status import StatusError, invalid

_PATIENCE_SECONDS = 60


class _Model:
    """Doubles "x"; remembers its batches; waits where it is told to."""

    def __init__(self):
        self.batches = []
        self.timeouts = []
        self.may_run = threading.Event()
        self.running = threading.Semaphore(0)

    def __call__(self, feeds, timeout_seconds):
        self.running.release()
        self.may_run.wait(_PATIENCE_SECONDS)
        self.batches.append(feeds["x"].tolist())
        self.timeouts.append(timeout_seconds)
        if np.any(feeds["x"] < 0):
            raise invalid("negative")
        return [2 * feeds["x"]]


class RunnersTest(unittest.IsolatedAsyncioTestCase):
    """One thread, busy with a first call until `may_run`."""

    async def asyncSetUp(self):
        await self.start()

    async def start(self, **options):
        self.model = _Model()
        loop = asyncio.get_running_loop()
        self.runners = batching.Runners(
            1, batching.BatchingOptions(**options), loop
        )
        self.addCleanup(self.runners.close)
        self.addCleanup(self.model.may_run.set)
        self.first = self.submitted([0], kind=None)
        await loop.run_in_executor(None, self.model.running.acquire)

    def call(self, values, kind="x", deadline=None):
        return batching.Call(
            kind,
            self.model,
            {"x": np.array(values, np.float32)},
            lambda outputs: outputs[0].tolist(),
            deadline,
        )

    def submitted(self, values, **kwargs):
        return self.runners.submit(self.call(values, **kwargs))

    async def answers(self, *futures):
        self.model.may_run.set()
        return await asyncio.gather(*futures, return_exceptions=True)

    def assert_error(self, error, code, text):
        self.assertIsInstance(error, StatusError)
        self.assertEqual(error.code, code)
        self.assertIn(text, error.message)

    async def test_what_waits_is_merged(self):
        calls = [self.submitted([1]), self.submitted([2, 3])]
        self.assertEqual(await self.answers(*calls), [[2], [4, 6]])
        self.assertEqual(self.model.batches, [[0], [1, 2, 3]])

    async def test_kinds_take_turns_and_some_run_alone(self):
        kinds = ["a", "b", None, "a", None]
        await self.start(max_execution_batch_size=1)
        calls = [
            self.submitted([n], kind=kind) for n, kind in enumerate(kinds, 1)
        ]
        self.assertEqual(await self.answers(*calls), [[2], [4], [6], [8], [10]])
        self.assertEqual(self.model.batches, [[0], [1], [2], [3], [5], [4]])

    async def test_not_more_rows_than_a_batch_has(self):
        await self.start(max_execution_batch_size=3)
        calls = [self.submitted([n, n]) for n in (1, 2)]
        calls += [self.submitted([3])]
        self.assertEqual(await self.answers(*calls), [[2, 2], [4, 4], [6]])
        self.assertEqual(self.model.batches, [[0], [1, 1], [2, 2, 3]])

    async def test_a_large_call_runs_alone_or_is_refused_where_told(self):
        await self.start(max_batch_size=100)
        large = self.submitted(range(100))
        with self.assertRaises(StatusError) as raised:
            self.submitted(range(101))
        self.assert_error(
            raised.exception, "INVALID_ARGUMENT", "Task size 101 is larger"
        )
        (answer,) = await self.answers(large)
        self.assertEqual(answer, list(range(0, 200, 2)))

    async def test_a_large_call_is_cut_and_lets_others_in_between(self):
        await self.start(max_execution_batch_size=2)
        large = self.submitted([1, 2, 3, 4, 5])
        small = [self.submitted([n]) for n in (6, 7)]
        other = self.submitted([8], kind="other")
        self.assertEqual(
            await self.answers(large, *small, other),
            [[2, 4, 6, 8, 10], [12], [14], [16]],
        )
        # The last row of the large one goes with whatever else there is.
        self.assertEqual(
            self.model.batches, [[0], [1, 2], [8], [6, 7], [3, 4], [5]]
        )

    async def test_a_large_call_of_rows_that_depend_on_each_other(self):
        await self.start(max_execution_batch_size=2)
        call = self.call([1, 2, 6])
        call.run = lambda feeds, _: [feeds["x"].mean(keepdims=True)]
        self.assertEqual(await self.answers(self.runners.submit(call)), [[3]])

    async def test_a_large_call_whose_caller_leaves_ends_early(self):
        await self.start(max_execution_batch_size=2)
        call = self.call(range(6))

        def run(feeds, timeout_seconds):
            self.runners.withdraw(call)
            return self.model(feeds, timeout_seconds)

        call.run = run
        (error,) = await self.answers(self.runners.submit(call))
        self.assert_error(error, "CANCELLED", "gone")
        self.assertEqual(self.model.batches, [[0], [0, 1]])

    async def test_a_large_call_is_not_cut_where_not_told(self):
        await self.start(max_execution_batch_size=2, splits=False)
        large = self.submitted([1, 2, 3])
        self.assertEqual(await self.answers(large), [[2, 4, 6]])
        self.assertEqual(self.model.batches, [[0], [1, 2, 3]])

    async def test_other_shapes_run_alone(self):
        calls = [self.submitted(values) for values in ([[1, 2]], [[3]])]
        self.assertEqual(await self.answers(*calls), [[[2, 4]], [[6]]])

    async def test_a_bad_call_fails_alone(self):
        calls = [self.submitted([n]) for n in (1, -1, 3)]
        first, error, last = await self.answers(*calls)
        self.assertEqual((first, last), ([2], [6]))
        self.assert_error(error, "INVALID_ARGUMENT", "negative")

    async def test_calls_without_rows_of_one_number(self):
        for feeds in ({}, {"x": np.float32(1)}, {"x": [1], "y": [1, 2]}):
            feeds = {name: np.asarray(value) for name, value in feeds.items()}
            with self.assertRaises(StatusError):
                self.runners.submit(batching.Call("x", self.model, feeds, None))

    async def test_who_has_left_is_not_run(self):
        calls = [self.call([n]) for n in range(1, 5)]
        futures = [self.runners.submit(call) for call in calls]
        for call in calls[:3]:
            self.runners.withdraw(call)
        self.assertTrue(all(future.cancelled() for future in futures[:3]))
        self.assertEqual(await self.answers(futures[3]), [[8]])
        self.assertEqual(self.model.batches, [[0], [4]])
        self.runners.withdraw(calls[3])  # late, and of no effect

    async def test_a_deadline_that_passes_before_the_turn(self):
        late = self.submitted([1], deadline=time.monotonic() - 1)
        good = self.submitted([2])
        error, answer = await self.answers(late, good)
        self.assert_error(error, "DEADLINE_EXCEEDED", "waiting for a thread")
        self.assertEqual(answer, [4])
        self.assertEqual(self.model.batches, [[0], [2]])

    async def test_the_longest_deadline_bounds_the_run(self):
        now = time.monotonic()
        calls = [self.submitted([1], deadline=now + s) for s in (100, 200)]
        await self.answers(*calls)
        self.assertGreater(self.model.timeouts[1], 100)
        await self.answers(self.submitted([1], deadline=now + 100))
        self.assertLess(self.model.timeouts[2], 100)
        self.assertIsNone(self.model.timeouts[0])
