"""Models come and go; whoever uses one never notices."""

import asyncio
import concurrent.futures
import contextlib
import os
import pathlib
import shutil
import tempfile
import threading
import time
from unittest import mock

from absl.testing import absltest, parameterized
from google.protobuf import text_format
from tensorflow_serving.apis import model_pb2
from tensorflow_serving.config import model_server_config_pb2

from serving.server.versions import manager as model_manager
from serving.status import StatusError

# Far more than anything here takes; only a failing test waits so long.
PATIENCE_SECONDS = 60
FOREVER_MICROS = 3_600_000_000


class Text:
    """A servable: the text of a file, which may not be read once closed."""

    def __init__(self, content):
        self._content = content
        self.closed = 0

    def read(self):
        if self.closed:
            raise ValueError("used after it was closed")
        return self._content

    def close(self):
        self.closed += 1


class TextLoader:
    """Loads `text` of a version's folder, as the text itself asks.

    "no": fails; "missing": fails with a StatusError; "slow": waits for `go`;
    "slow no": waits and fails. `has_read` is set once a text was read.
    """

    def __init__(self):
        self.servables = []
        self.attempts = []
        self.go = threading.Event()
        self.has_read = threading.Event()
        self.running = 0
        self.most_running = 0
        self._lock = threading.Lock()

    def __call__(self, name, version, path):
        with self._lock:
            self.attempts.append((name, version))
            self.running += 1
            self.most_running = max(self.most_running, self.running)
        try:
            return self._load(path)
        finally:
            with self._lock:
                self.running -= 1

    def _load(self, path):
        content = (pathlib.Path(path) / "text").read_text()
        self.has_read.set()
        if content.startswith("slow") and not self.go.wait(PATIENCE_SECONDS):
            raise RuntimeError("nobody said go")
        if content.endswith("no"):
            raise RuntimeError("cannot read this")
        if content == "missing":
            raise StatusError("NOT_FOUND", "no graph")
        servable = Text(content)
        with self._lock:
            self.servables.append(servable)
        return servable


class Managed:
    """A ModelManager in an event loop of its own, called from a test."""

    def __init__(self, loader, **options):
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._manager = self._do(model_manager.ModelManager, loader, **options)

    def end(self):
        self.close(PATIENCE_SECONDS)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __getattr__(self, name):
        method = getattr(self._manager, name)
        return lambda *args: self._do(method, *args)

    def apply(self, config, timeout_seconds=None):
        async def apply():
            async with asyncio.timeout(timeout_seconds):
                await self._manager.apply(config)

        self._do(apply)

    @contextlib.contextmanager
    def servable(self, model_spec):
        pinned = self.pinned(model_spec)
        version = self._do(pinned.__enter__)
        try:
            yield version.servable, version.number, version.name
        finally:
            self._do(pinned.__exit__, None, None, None)

    def seen(self, name, *number):
        """Returns (number, state, error code) of the versions that are seen."""
        return [
            (one.number, one.state, one.error[0])
            for one in self.status(name, *number)
        ]

    def _do(self, function, *args, **kwargs):
        async def call():
            result = function(*args, **kwargs)
            return await result if asyncio.iscoroutine(result) else result

        return asyncio.run_coroutine_threadsafe(call(), self._loop).result()


class ManagerTestCase(parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = pathlib.Path(
            self.enterContext(tempfile.TemporaryDirectory())
        )
        self.loader = TextLoader()

    def manager(self, **options):
        """Returns a manager that looks for versions only when told to."""
        defaults = {
            "file_system_poll_wait_seconds": 0,
            "max_num_load_retries": 0,
            "load_retry_interval_micros": 1000,
        }
        made = Managed(self.loader, **defaults | options)
        self.addCleanup(made.end)
        # Runs first, so that no load is left to wait for.
        self.addCleanup(self.loader.go.set)
        return made

    def publish(self, number, text, model="m"):
        """Writes a version beside its place and renames it into it."""
        base = self.folder / model
        temporary = base / f"tmp-{number}"
        temporary.mkdir(parents=True)
        (temporary / "text").write_text(text)
        temporary.rename(base / str(number))

    def withdraw(self, number, model="m"):
        # Renamed first: no one sees a version without its file.
        folder = self.folder / model / str(number)
        shutil.rmtree(folder.rename(folder.with_name(f"old-{number}")))

    def config(self, *models, **policies):
        """Returns a config of models below the test's folder."""
        config = model_server_config_pb2.ModelServerConfig()
        config.model_config_list.SetInParent()
        for name in models or ("m",):
            text = f"""name: "{name}" base_path: "{self.folder / name}"
                model_platform: "tensorflow" {policies.get(name, "")}"""
            text_format.Parse(text, config.model_config_list.config.add())
        return config

    def states(self, manager, name="m"):
        """Returns {version: state}, empty if the model never had one."""
        try:
            return {s.number: s.state for s in manager.status(name)}
        except StatusError:
            return {}

    def wait_for(self, condition):
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            self.assertLess(time.monotonic(), deadline, "nothing happened")
            time.sleep(0.002)

    def wait_for_states(self, manager, expected, name="m"):
        self.wait_for(lambda: self.states(manager, name) == expected)

    def wait_for_state(self, manager, number, expected):
        self.wait_for(lambda: self.states(manager).get(number) == expected)

    def in_thread(self, function, *args):
        """Returns the Future of a call in a thread of its own."""
        pool = concurrent.futures.ThreadPoolExecutor(1)
        self.addCleanup(pool.shutdown)
        return pool.submit(function, *args)

    def assert_refused(self, code, words, function, *args):
        with self.assertRaisesRegex(StatusError, words) as caught:
            function(*args)
        self.assertEqual(caught.exception.code, code)

    def assert_not_found(self, manager, text='name: "m"'):
        self.assert_refused("NOT_FOUND", "", answer, manager, spec(text))


def spec(text='name: "m"'):
    return text_format.Parse(text, model_pb2.ModelSpec())


def answer(manager, model_spec=None):
    """Returns text, version and name that a call sees."""
    with manager.servable(model_spec or spec()) as (servable, version, name):
        return servable.read(), version, name


class LookUpTest(ManagerTestCase):
    def setUp(self):
        super().setUp()
        for number, text in ((1, "one"), (2, "two"), (10, "ten")):
            self.publish(number, text)
        self.served = self.manager(
            allow_version_labels_for_unavailable_models=True
        )
        labels = """model_version_policy { all {} }
            version_labels { key: "stable" value: 1 }
            version_labels { key: "next" value: 99 }"""
        self.served.apply(self.config("m", m=labels))
        self.wait_for_states(
            self.served, {1: "AVAILABLE", 2: "AVAILABLE", 10: "AVAILABLE"}
        )

    @parameterized.parameters(
        ('name: "m"', ("ten", 10, "m")),
        ('name: "m" version { value: 2 }', ("two", 2, "m")),
        ('name: "m" version_label: "stable"', ("one", 1, "m")),
        ('name: "m" signature_name: "explain"', ("ten", 10, "m")),
    )
    def test_found(self, text, expected):
        self.assertEqual(answer(self.served, spec(text)), expected)

    @parameterized.parameters(
        ("", "INVALID_ARGUMENT"),
        ("version { value: 1 }", "INVALID_ARGUMENT"),
        ('name: "nope"', "NOT_FOUND"),
        ('name: "m" version { value: 7 }', "NOT_FOUND"),
        ('name: "m" version {}', "NOT_FOUND"),
        ('name: "m" version_label: "x"', "INVALID_ARGUMENT"),
        ('name: "nope" version_label: "stable"', "INVALID_ARGUMENT"),
        ('name: "m" version_label: "next"', "NOT_FOUND"),
    )
    def test_refused(self, text, code):
        self.assert_refused(code, "", answer, self.served, spec(text))

    def test_status(self):
        listed = [(n, "AVAILABLE", "OK") for n in (10, 2, 1)]
        self.assertEqual(self.served.seen("m"), listed)
        self.assertEqual(self.served.seen("m", 2), listed[1:2])
        for unknown in (("x",), ("m", 9)):
            self.assert_refused("NOT_FOUND", "", self.served.seen, *unknown)


class VersionsTest(ManagerTestCase):
    def test_a_new_version_loads_before_the_old_one_unloads(self):
        self.publish(1, "one")
        manager = self.manager()
        manager.apply(self.config())
        self.publish(2, "slow")
        manager.poll()
        self.wait_for_states(manager, {1: "AVAILABLE", 2: "LOADING"})
        # A call is answered while the next version loads.
        self.assertEqual(
            self.in_thread(answer, manager).result(PATIENCE_SECONDS),
            ("one", 1, "m"),
        )
        self.loader.go.set()
        self.wait_for_states(manager, {1: "END", 2: "AVAILABLE"})
        self.assertEqual(answer(manager), ("slow", 2, "m"))
        self.assertEqual([s.closed for s in self.loader.servables], [1, 0])

    def test_unloading_waits_for_calls(self):
        self.publish(1, "one")
        manager = self.manager()
        manager.apply(self.config())
        with manager.servable(spec()) as (old, version, _):
            with manager.servable(spec()):
                self.publish(2, "two")
                manager.poll()
                self.wait_for_states(manager, {1: "UNLOADING", 2: "AVAILABLE"})
                self.assertEqual(answer(manager), ("two", 2, "m"))
                self.assert_not_found(manager, 'name: "m" version { value: 1 }')
            self.assertEqual((old.read(), version), ("one", 1))
            self.assertEqual(self.states(manager)[1], "UNLOADING")
        self.wait_for_states(manager, {1: "END", 2: "AVAILABLE"})
        self.assertEqual(old.closed, 1)

    def test_a_bad_version_ends_and_the_old_one_serves_on(self):
        self.publish(1, "one")
        manager = self.manager()
        manager.apply(self.config())
        self.publish(2, "no")
        manager.poll()
        self.wait_for_states(manager, {1: "AVAILABLE", 2: "END"})
        (bad,) = manager.status("m", 2)
        self.assertEqual(bad.error, ("UNKNOWN", "cannot read this"))
        self.assertEqual(answer(manager), ("one", 1, "m"))
        # Looking again does not try again; a third version does.
        manager.poll()
        self.publish(3, "three")
        manager.poll()
        self.wait_for_states(manager, {1: "END", 2: "END", 3: "AVAILABLE"})
        self.assertEqual(self.loader.attempts, [("m", 1), ("m", 2), ("m", 3)])

    def test_a_vanished_version_is_unloaded(self):
        self.publish(1, "one")
        self.publish(2, "two")
        manager = self.manager()
        everything = "model_version_policy { all {} }"
        manager.apply(self.config("m", m=everything))
        self.wait_for_states(manager, {1: "AVAILABLE", 2: "AVAILABLE"})
        self.withdraw(2)
        manager.poll()
        self.wait_for_states(manager, {1: "AVAILABLE", 2: "END"})
        self.assertEqual(answer(manager), ("one", 1, "m"))
        # The last one goes as well, as in TensorFlow Serving.
        self.withdraw(1)
        manager.poll()
        self.wait_for_states(manager, {1: "END", 2: "END"})
        self.assert_not_found(manager)

    def test_the_poller_finds_versions_and_survives_errors(self):
        self.publish(1, "one")
        manager = self.manager(file_system_poll_wait_seconds=0.01)
        manager.apply(self.config())
        base, elsewhere = self.folder / "m", self.folder / "elsewhere"
        with self.assertLogs(level="ERROR") as logs:
            base.rename(elsewhere)
            self.wait_for(lambda: str(base) in "".join(logs.output))
        elsewhere.rename(base)
        self.publish(2, "two")
        self.wait_for_states(manager, {1: "END", 2: "AVAILABLE"})


class RetryTest(ManagerTestCase):
    def test_as_often_as_told(self):
        self.publish(1, "missing")
        manager = self.manager(max_num_load_retries=3)
        self.assert_refused(
            "UNKNOWN", "NOT_FOUND: no graph", manager.apply, self.config()
        )
        self.assertLen(self.loader.attempts, 4)
        self.assertEqual(manager.seen("m"), [(1, "END", "NOT_FOUND")])

    def test_a_later_attempt_may_succeed(self):
        self.publish(1, "no")
        manager = self.manager(max_num_load_retries=10**6)
        waiting = self.in_thread(manager.apply, self.config())
        self.wait_for(lambda: len(self.loader.attempts) > 2)
        self.assertEqual(self.states(manager), {1: "LOADING"})
        (self.folder / "m" / "1" / "text").write_text("one")
        waiting.result(PATIENCE_SECONDS)
        self.assertEqual(manager.seen("m"), [(1, "AVAILABLE", "OK")])

    def test_a_withdrawn_version_is_not_retried(self):
        self.publish(1, "one")
        manager = self.manager(
            max_num_load_retries=5, load_retry_interval_micros=FOREVER_MICROS
        )
        manager.apply(self.config())
        self.publish(2, "no")
        manager.poll()
        self.wait_for(lambda: ("m", 2) in self.loader.attempts)
        # Another model and another version load while 2 waits for its turn.
        self.publish(1, "other", model="n")
        manager.apply(self.config("m", "n"))
        self.assertEqual(self.states(manager), {1: "AVAILABLE", 2: "LOADING"})
        self.publish(3, "three")
        manager.poll()
        self.wait_for_states(manager, {1: "END", 2: "END", 3: "AVAILABLE"})
        self.assertEqual(manager.status("m", 2)[0].error[0], "UNKNOWN")
        self.assertEqual(self.loader.attempts.count(("m", 2)), 1)

    def test_closing_does_not_wait_for_a_retry(self):
        self.publish(1, "no")
        manager = self.manager(
            max_num_load_retries=5, load_retry_interval_micros=FOREVER_MICROS
        )
        waiting = self.in_thread(manager.apply, self.config())
        self.wait_for(lambda: self.loader.attempts)
        self.in_thread(manager.close).result(PATIENCE_SECONDS)
        with self.assertRaisesRegex(StatusError, "shutting down"):
            waiting.result(PATIENCE_SECONDS)
        self.assertEqual(self.states(manager), {1: "END"})


class ConfigTest(ManagerTestCase):
    def test_an_empty_base_path_waits(self):
        (self.folder / "m").mkdir()
        manager = self.manager(file_system_poll_wait_seconds=0.01)
        with self.assertLogs(level="WARNING") as logs:
            waiting = self.in_thread(manager.apply, self.config())
            self.wait_for(lambda: "No versions of servable m" in str(logs))
        with self.assertRaises(concurrent.futures.TimeoutError):
            waiting.result(0.05)
        self.publish(1, "one")
        waiting.result(PATIENCE_SECONDS)
        self.assertEqual(answer(manager), ("one", 1, "m"))

    def test_a_missing_base_path_is_refused(self):
        self.publish(1, "one")
        manager = self.manager()
        manager.apply(self.config())
        self.assert_refused(
            "INVALID_ARGUMENT", "base path", manager.apply, self.config("n")
        )
        self.assertEqual(set(manager.model_names()), {"m"})
        self.assertEqual(answer(manager), ("one", 1, "m"))

    def test_what_is_listed_is_served_and_nothing_else(self):
        for model in "abc":
            self.publish(1, f"one of {model}", model)
        manager = self.manager()
        manager.apply(self.config("a", "b"))
        self.assertEqual(set(manager.model_names()), {"a", "b"})
        manager.apply(self.config("b", "c"))
        self.assertEqual(set(manager.model_names()), {"b", "c"})
        self.wait_for_states(manager, {1: "END"}, "a")
        for model in "bc":
            self.assertEqual(
                answer(manager, spec(f'name: "{model}"')),
                (f"one of {model}", 1, model),
            )
        # The one that stayed was not loaded twice; the one that left can come
        # back.
        self.assertEqual(self.loader.attempts.count(("b", 1)), 1)
        manager.apply(self.config("a"))
        self.assertEqual(self.states(manager, "a"), {1: "AVAILABLE"})
        empty = self.config()
        del empty.model_config_list.config[:]
        manager.apply(empty)
        self.assertEqual(set(manager.model_names()), set())
        self.wait_for_states(manager, {1: "END"}, "a")

    def test_a_changed_policy_takes_effect(self):
        for number in (1, 2, 3):
            self.publish(number, str(number))
        manager = self.manager()
        manager.apply(self.config())
        self.assertEqual(self.states(manager), {3: "AVAILABLE"})
        some = "model_version_policy { specific { versions: 1 versions: 2 } }"
        manager.apply(self.config("m", m=some))
        self.wait_for_states(
            manager, {1: "AVAILABLE", 2: "AVAILABLE", 3: "END"}
        )
        two = "model_version_policy { latest { num_versions: 2 } }"
        manager.apply(self.config("m", m=two))
        self.wait_for_states(
            manager, {1: "END", 2: "AVAILABLE", 3: "AVAILABLE"}
        )

    def test_a_new_model_that_does_not_load(self):
        self.publish(1, "one")
        self.publish(5, "no", model="n")
        manager = self.manager()
        manager.apply(self.config())
        self.assert_refused(
            "UNKNOWN",
            "n version: 5.*cannot read this",
            manager.apply,
            self.config("m", "n"),
        )
        self.assertEqual(answer(manager), ("one", 1, "m"))
        self.publish(6, "six", model="n")
        manager.poll()
        self.wait_for_states(manager, {5: "END", 6: "AVAILABLE"}, "n")

    def test_a_load_that_hangs_holds_up_no_other(self):
        self.publish(1, "slow")
        self.publish(1, "one", model="n")
        manager = self.manager()
        waiting = self.in_thread(manager.apply, self.config("m", "n"))
        self.wait_for_states(manager, {1: "AVAILABLE"}, "n")
        self.assertEqual(self.states(manager), {1: "LOADING"})
        self.assertFalse(waiting.done())
        self.loader.go.set()
        waiting.result(PATIENCE_SECONDS)
        self.assertEqual(self.states(manager), {1: "AVAILABLE"})

    def test_a_folder_that_hangs_holds_up_no_other(self):
        self.publish(1, "one")
        self.publish(1, "other", model="n")
        manager = self.manager(file_system_poll_wait_seconds=0.01)
        manager.apply(self.config("m", "n"))
        go, real = threading.Event(), os.scandir
        self.addCleanup(go.set)

        def scandir(path):
            if pathlib.Path(path).name == "m":
                go.wait(PATIENCE_SECONDS)
            return real(path)

        self.enterContext(mock.patch.object(os, "scandir", scandir))
        self.publish(2, "two", model="n")
        self.wait_for_states(manager, {1: "END", 2: "AVAILABLE"}, "n")
        self.publish(2, "two")
        go.set()
        self.wait_for_states(manager, {1: "END", 2: "AVAILABLE"})


class LabelTest(ManagerTestCase):
    def labelled(self, **numbers):
        text = "model_version_policy { all {} }"
        for label, number in numbers.items():
            text += f'version_labels {{ key: "{label}" value: {number} }}'
        return self.config("m", m=text)

    def label(self, manager, label):
        return answer(manager, spec(f'name: "m" version_label: "{label}"'))[1]

    def test_labels_come_after_their_versions(self):
        self.publish(1, "one")
        manager = self.manager()
        self.assert_refused(
            "FAILED_PRECONDITION",
            "version 1 of model m",
            manager.apply,
            self.labelled(stable=1),
        )
        self.assertEqual(self.loader.attempts, [])
        manager.apply(self.labelled())
        manager.apply(self.labelled(stable=1))
        self.assertEqual(self.label(manager, "stable"), 1)

    def test_all_labels_or_none(self):
        self.publish(1, "one")
        self.publish(2, "two")
        manager = self.manager()
        manager.apply(self.labelled())
        self.wait_for_states(manager, {1: "AVAILABLE", 2: "AVAILABLE"})
        manager.apply(self.labelled(stable=1, canary=2))
        self.assert_refused(
            "FAILED_PRECONDITION",
            "version 99 of model m",
            manager.apply,
            self.labelled(stable=2, canary=99),
        )
        self.assertEqual(self.label(manager, "stable"), 1)
        self.assertEqual(self.label(manager, "canary"), 2)
        manager.apply(self.labelled(stable=2))
        self.assertEqual(self.label(manager, "stable"), 2)
        with self.assertRaisesRegex(StatusError, "Unrecognized .* canary"):
            self.label(manager, "canary")

    def test_early_labels(self):
        self.publish(1, "one")
        manager = self.manager(allow_version_labels_for_unavailable_models=True)
        manager.apply(self.labelled(stable=1, next=7))
        self.assertEqual(self.label(manager, "stable"), 1)
        # A label that is in use moves only to what is there.
        self.assert_refused(
            "FAILED_PRECONDITION",
            "version 7 of model m",
            manager.apply,
            self.labelled(stable=7, next=7),
        )
        self.assertEqual(self.label(manager, "stable"), 1)


class ConfigFileTest(ManagerTestCase):
    def setUp(self):
        super().setUp()
        self.publish(1, "one")
        self.publish(1, "other", model="n")
        self.path = self.folder / "models.config"
        self.reads = 0

    def read(self, path):
        self.reads += 1
        text = pathlib.Path(path).read_text()
        return text_format.Parse(
            text, model_server_config_pb2.ModelServerConfig()
        )

    def write(self, text):
        temporary = self.folder / "models.config.new"
        temporary.write_text(text)
        os.replace(temporary, self.path)

    def test_a_changed_file_is_applied_and_a_broken_one_is_not(self):
        self.write(str(self.config("m")))
        manager = self.manager()
        manager.apply(self.read(self.path))
        manager.watch_config_file(self.path, self.read, 0.01)
        self.write(str(self.config("m", "n")))
        self.wait_for(lambda: set(manager.model_names()) == {"m", "n"})
        self.wait_for_states(manager, {1: "AVAILABLE"}, "n")
        with self.assertLogs(level="ERROR") as logs:
            self.write("model_config_list { nonsense")
            self.wait_for(lambda: "nonsense" in str(logs.output))
            self.path.unlink()
            self.wait_for(lambda: "No such file" in str(logs.output))
        self.assertEqual(set(manager.model_names()), {"m", "n"})
        self.assertEqual(answer(manager), ("one", 1, "m"))
        self.write(str(self.config("n")))
        self.wait_for(lambda: set(manager.model_names()) == {"n"})

    def test_a_label_is_assigned_once_its_version_has_loaded(self):
        self.write(str(self.config("m")))
        manager = self.manager(file_system_poll_wait_seconds=0.01)
        manager.apply(self.read(self.path))
        label = 'version_labels { key: "stable" value: 2 }'
        with self.assertLogs(level="ERROR") as logs:
            self.write(str(self.config("m", m=label)))
            manager.watch_config_file(self.path, self.read, 0.01)
            self.wait_for(lambda: "version 2 of model m" in str(logs.output))
        self.publish(2, "two")

        def is_labelled():
            try:
                return answer(
                    manager, spec('name: "m" version_label: "stable"')
                )
            except StatusError:
                return None

        self.wait_for(is_labelled)
        self.assertEqual(is_labelled(), ("two", 2, "m"))


class CloseTest(ManagerTestCase):
    def test_everything_is_unloaded_and_all_threads_end(self):
        self.publish(1, "one")
        self.publish(1, "other", model="n")
        manager = self.manager(file_system_poll_wait_seconds=3600)
        manager.apply(self.config("m", "n"))
        manager.watch_config_file("nowhere", None, 3600)
        manager.close()
        self.assertEqual([s.closed for s in self.loader.servables], [1, 1])
        self.assertEqual(self.states(manager), {1: "END"})
        self.assert_not_found(manager)
        for call in (manager.poll, manager.close):
            call()  # late, and of no effect
        with self.assertRaisesRegex(StatusError, "CANCELLED.*shutting down"):
            manager.apply(self.config())
        self.assertEqual([s.closed for s in self.loader.servables], [1, 1])

    def test_calls_in_flight_end_first(self):
        self.publish(1, "one")
        manager = self.manager()
        manager.apply(self.config())
        with manager.servable(spec()) as (servable, _, _):
            closing = self.in_thread(manager.close, PATIENCE_SECONDS)
            self.wait_for_states(manager, {1: "UNLOADING"})
            self.assertEqual(servable.read(), "one")
        closing.result(PATIENCE_SECONDS)
        self.assertEqual(servable.closed, 1)

    def test_what_is_loading_is_closed_when_it_has_loaded(self):
        self.publish(1, "slow")
        manager = self.manager()
        waiting = self.in_thread(manager.apply, self.config())
        self.wait_for(lambda: self.loader.attempts)
        manager.close(0.01)
        with self.assertRaisesRegex(StatusError, "CANCELLED"):
            waiting.result(PATIENCE_SECONDS)
        self.assertEqual(self.states(manager), {1: "LOADING"})
        self.loader.go.set()
        self.wait_for_states(manager, {1: "END"})
        self.assertEqual([s.closed for s in self.loader.servables], [1])


class HammerTest(ManagerTestCase):
    def test_no_call_fails_while_versions_are_swapped(self):
        """Threads call without pause through swaps, one in three bad."""
        self.publish(1, "1")
        manager = self.manager(
            file_system_poll_wait_seconds=0.005,
            max_num_load_retries=1,
        )
        manager.apply(self.config())
        stop = threading.Event()
        pool = concurrent.futures.ThreadPoolExecutor(4)
        self.addCleanup(pool.shutdown)
        self.addCleanup(stop.set)
        callers = [pool.submit(self.call, manager, stop) for _ in range(4)]
        for number in range(2, 14):
            is_bad = number % 3 == 0
            self.publish(number, "no" if is_bad else str(number))
            end = "END" if is_bad else "AVAILABLE"
            self.wait_for_state(manager, number, end)
            if is_bad:
                self.withdraw(number)
                continue
            self.assertEqual(answer(manager), (str(number), number, "m"))
            self.withdraw(number - (2 if number % 3 == 1 else 1))
        stop.set()
        seen = [caller.result(PATIENCE_SECONDS) for caller in callers]
        good = {n for n in range(1, 14) if n % 3 or n == 1}
        self.assertContainsSubset(set().union(*seen), good)
        manager.close()
        self.assertEqual(
            [s.closed for s in self.loader.servables],
            [1] * len(self.loader.servables),
        )
        self.assertLen(self.loader.servables, len(good))

    def call(self, manager, stop):
        """Returns the versions seen, each by a call that ran to its end."""
        seen, last = set(), 0
        while not stop.is_set():
            with manager.servable(spec()) as (servable, version, _):
                for _ in range(5):
                    self.assertEqual(servable.read(), str(version))
                # What was new is not followed by what is old.
                self.assertGreaterEqual(version, last)
                last = version
            seen.add(version)
        return seen


if __name__ == "__main__":
    absltest.main()
