"""Versions come and go; whoever uses one never notices."""

import asyncio
import concurrent.futures
import logging
import time
from unittest import mock

from serving import local_server
from serving.status import StatusError
from tests.serving.server.versions import managed


class VersionsTest(managed.ManagerTest):
    async def test_the_config_file_wins_over_a_call(self):
        manager = await self.serving()
        self.publish(1, "other", "n")
        await manager.apply(self.config("n"))
        await self.until_states(manager, {1: "AVAILABLE"}, "n")
        logged = "logging_config { sampling_config { sampling_rate: 1 } }"
        reads = []

        def read(path):
            reads.append(path)
            return self.config("m", more=logged)

        with self.assertLogs(level="WARNING") as logs:
            manager.watch_config_file("file", read, 0.01)
            await self.until_states(manager, {1: "AVAILABLE"})
            effective = manager._models
            await self.until(lambda: len(reads) > 4)
            # An unchanged file leaves all as it is, and is silent.
            self.assertIs(manager._models, effective)
            await manager.apply(self.config("n"))
            await self.until(lambda: "m" in manager.model_names())
            await self.until_states(manager, {1: "AVAILABLE"})
        self.assertEqual(managed.answer(manager), ("one", 1, "m"))
        said = [line for line in logs.output if "requests are logged" in line]
        self.assertEqual(len(said), 1)

    async def test_each_model_without_a_version_is_said_to_have_none(self):
        records = []
        handler = logging.StreamHandler()
        handler.emit = records.append
        with mock.patch.object(logging.getLogger(), "handlers", [handler]):
            local_server._limit_log()
            manager = self.made()
            for name in "abc":
                (self.folder / name).mkdir()
            applying = asyncio.ensure_future(manager.apply(self.config(*"abc")))
            await self.until(lambda: len(records) == 3)
            await asyncio.sleep(0.01)
            applying.cancel()
        self.assertEqual(len(records), 3)

    async def test_a_new_version_loads_before_the_old_one_unloads(self):
        manager = await self.serving()
        self.publish(2, "slow")
        await manager.poll()
        await self.until_states(manager, {1: "AVAILABLE", 2: "LOADING"})
        self.assertEqual(managed.answer(manager), ("one", 1, "m"))
        self.loader.go.set()
        await self.until_states(manager, {1: "END", 2: "AVAILABLE"})
        self.assertEqual(managed.answer(manager), ("slow", 2, "m"))
        self.assertEqual([s.closed for s in self.loader.servables], [1, 0])

    async def test_unloading_waits_for_calls(self):
        manager = await self.serving()
        with manager.pinned(managed.spec()) as old:
            with manager.pinned(managed.spec()):
                self.publish(2, "two")
                await manager.poll()
                await self.until_states(
                    manager, {1: "UNLOADING", 2: "AVAILABLE"}
                )
                self.assertEqual(managed.answer(manager), ("two", 2, "m"))
                first = 'name: "m" version { value: 1 }'
                self.assert_refused("NOT_FOUND", managed.answer, manager, first)
            await asyncio.sleep(0.01)
            self.assertEqual(old.servable.read(), "one")
            servable = old.servable
        await self.until_states(manager, {1: "END", 2: "AVAILABLE"})
        self.assertEqual(servable.closed, 1)

    async def test_a_bad_version_ends_and_the_old_one_serves_on(self):
        manager = await self.serving()
        self.publish(2, "no")
        await manager.poll()
        await self.until_states(manager, {1: "AVAILABLE", 2: "END"})
        (bad,) = manager.status("m", 2)
        self.assertEqual(bad.error, ("UNKNOWN", "cannot read this"))
        self.assertEqual(managed.answer(manager), ("one", 1, "m"))
        # Looking again does not try again; coming back does.
        await manager.poll()
        self.withdraw(2)
        await manager.poll()
        self.publish(2, "two")
        await manager.poll()
        await self.until_states(manager, {1: "END", 2: "AVAILABLE"})
        self.assertEqual(self.loader.attempts, [("m", 1), ("m", 2), ("m", 2)])

    async def test_a_vanished_version_is_unloaded(self):
        self.publish(2, "two")
        self.publish(1, "one")
        manager = self.made()
        await manager.apply(self.config(more=managed.ALL))
        await self.until_states(manager, {1: "AVAILABLE", 2: "AVAILABLE"})
        self.withdraw(2)
        await manager.poll()
        await self.until_states(manager, {1: "AVAILABLE", 2: "END"})
        self.assertEqual(managed.answer(manager), ("one", 1, "m"))
        # The last one goes as well, as in TensorFlow Serving.
        self.withdraw(1)
        await manager.poll()
        await self.until_states(manager, {1: "END", 2: "END"})
        self.assert_refused("NOT_FOUND", managed.answer, manager)

    async def test_a_version_that_comes_back_while_it_unloads(self):
        manager = await self.serving()
        with manager.pinned(managed.spec()):
            self.withdraw(1)
            await manager.poll()
            await self.until_states(manager, {1: "UNLOADING"})
            self.publish(1, "another")
            await manager.poll()
        await self.until_states(manager, {1: "AVAILABLE"})
        self.assertEqual(managed.answer(manager), ("another", 1, "m"))

    async def test_the_poller_finds_versions_and_survives_errors(self):
        manager = await self.serving(file_system_poll_wait_seconds=0.01)
        base, elsewhere = self.folder / "m", self.folder / "elsewhere"
        with self.assertLogs(level="ERROR") as logs:
            base.rename(elsewhere)
            await self.until(lambda: str(base) in "".join(logs.output))
        elsewhere.rename(base)
        self.publish(2, "two")
        await self.until_states(manager, {1: "END", 2: "AVAILABLE"})


class RetryTest(managed.ManagerTest):
    async def test_as_often_as_told(self):
        self.publish(1, "missing")
        manager = self.made(max_num_load_retries=3)
        await self.assert_not_applied(
            "UNKNOWN", "NOT_FOUND: no graph", manager, self.config()
        )
        self.assertEqual(self.loader.attempts, [("m", 1)] * 4)
        self.assertEqual(manager.status("m")[0].error[0], "NOT_FOUND")

    async def test_a_later_attempt_may_succeed(self):
        self.publish(1, "no")
        manager = self.made(max_num_load_retries=10**6)
        waiting = asyncio.create_task(manager.apply(self.config()))
        await self.until(lambda: len(self.loader.attempts) > 2)
        self.assertEqual(managed.states(manager), {1: "LOADING"})
        (self.folder / "m" / "1" / "text").write_text("one")
        await waiting
        self.assertEqual(manager.status("m")[0].error, ("OK", ""))

    async def test_a_withdrawn_version_is_not_retried(self):
        manager = await self.serving(
            max_num_load_retries=5,
            load_retry_interval_micros=managed.FOREVER_MICROS,
        )
        self.publish(2, "no")
        await manager.poll()
        await self.until(lambda: ("m", 2) in self.loader.attempts)
        self.publish(3, "three")
        await manager.poll()
        await self.until_states(manager, {1: "END", 2: "END", 3: "AVAILABLE"})
        self.assertEqual(manager.status("m", 2)[0].error[0], "UNKNOWN")
        self.assertEqual(self.loader.attempts.count(("m", 2)), 1)

    async def test_closing_does_not_wait_for_a_retry(self):
        self.publish(1, "no")
        manager = self.made(
            max_num_load_retries=5,
            load_retry_interval_micros=managed.FOREVER_MICROS,
        )
        waiting = asyncio.create_task(manager.apply(self.config()))
        await self.until(lambda: self.loader.attempts)
        async with asyncio.timeout(managed.PATIENCE_SECONDS):
            await manager.close()
        with self.assertRaisesRegex(StatusError, "shutting down"):
            await waiting
        self.assertEqual(managed.states(manager), {1: "END"})


class CloseTest(managed.ManagerTest):
    async def test_everything_is_unloaded(self):
        manager = await self.serving(file_system_poll_wait_seconds=3600)
        await manager.close()
        self.assertEqual(managed.states(manager), {1: "END"})
        self.assert_refused("NOT_FOUND", managed.answer, manager)
        for call in (manager.poll, manager.close):
            await call()  # late, and of no effect
        await self.assert_not_applied(
            "CANCELLED", "shutting down", manager, self.config()
        )
        self.assertEqual([s.closed for s in self.loader.servables], [1])

    async def test_calls_in_flight_end_first(self):
        manager = await self.serving()
        with manager.pinned(managed.spec()) as version:
            closing = asyncio.create_task(
                manager.close(managed.PATIENCE_SECONDS)
            )
            await self.until_states(manager, {1: "UNLOADING"})
            self.assertEqual(version.servable.read(), "one")
            self.assertFalse(closing.done())
        await closing
        self.assertEqual([s.closed for s in self.loader.servables], [1])

    async def test_but_not_longer_than_the_grace_period(self):
        manager = await self.serving()
        with manager.pinned(managed.spec()):
            await manager.close(0.01)
            self.assertEqual([s.closed for s in self.loader.servables], [1])

    async def test_what_is_loading_is_closed_when_it_has_loaded(self):
        self.publish(1, "slow")
        manager = self.made()
        waiting = asyncio.create_task(manager.apply(self.config()))
        await self.until(lambda: self.loader.attempts)
        await manager.close(0.01)
        with self.assertRaisesRegex(StatusError, "CANCELLED"):
            await waiting
        self.assertEqual(managed.states(manager), {1: "LOADING"})
        self.loader.go.set()
        await self.until_states(manager, {1: "END"})
        self.assertEqual([s.closed for s in self.loader.servables], [1])


class HammerTest(managed.ManagerTest):
    async def test_no_call_fails_while_versions_are_swapped(self):
        """Calls run in threads through swaps, one version in three bad."""
        manager = await self.serving(
            file_system_poll_wait_seconds=0.005, max_num_load_retries=1
        )
        pool = concurrent.futures.ThreadPoolExecutor(4)
        self.addCleanup(pool.shutdown)
        stop, seen = asyncio.Event(), set()

        async def call():
            loop = asyncio.get_running_loop()
            while not stop.is_set():
                with manager.pinned(managed.spec()) as version:
                    text = await loop.run_in_executor(
                        pool, _read_slowly, version.servable
                    )
                    seen.add(version.number)
                    self.assertIn(text, (str(version.number), "one"))

        callers = [asyncio.create_task(call()) for _ in range(4)]
        for number in range(2, 14):
            is_bad = number % 3 == 0
            self.publish(number, "no" if is_bad else str(number))
            end = "END" if is_bad else "AVAILABLE"
            await self.until(lambda: managed.states(manager).get(number) == end)  # noqa: B023
            if is_bad:
                self.withdraw(number)
                continue
            await self.until(lambda: number in seen)  # noqa: B023
            self.withdraw(number - (2 if number % 3 == 1 else 1))
        stop.set()
        await asyncio.gather(*callers)
        self.assertEqual(seen, {n for n in range(1, 14) if n % 3} | {1})
        await manager.close()
        closed = [s.closed for s in self.loader.servables]
        self.assertEqual(closed, [1] * len(seen))


def _read_slowly(servable):
    servable.read()
    time.sleep(0.001)
    return servable.read()
