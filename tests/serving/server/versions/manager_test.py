"""Which models, versions and labels a config names."""

import asyncio
import os
import pathlib
import threading
from unittest import mock

from serving.server import config_files
from serving.status import StatusError
from tests.serving.server.versions import managed


class LookUpTest(managed.ManagerTest):
    async def test_versions_and_labels(self):
        for number, text in ((1, "one"), (2, "two"), (10, "ten")):
            self.publish(number, text)
        made = self.made(allow_version_labels_for_unavailable_models=True)
        labels = """version_labels { key: "stable" value: 1 }
            version_labels { key: "next" value: 99 }"""
        await made.apply(self.config(more=managed.ALL + labels))
        await self.until_states(made, dict.fromkeys((1, 2, 10), "AVAILABLE"))
        for text, expected in (
            ('name: "m"', ("ten", 10, "m")),
            ('name: "m" version { value: 2 }', ("two", 2, "m")),
            ('name: "m" version_label: "stable"', ("one", 1, "m")),
        ):
            self.assertEqual(managed.answer(made, text), expected)
        for text, code in (
            ("", "INVALID_ARGUMENT"),
            ('name: "nope"', "NOT_FOUND"),
            ('name: "m" version { value: 7 }', "NOT_FOUND"),
            ('name: "m" version {}', "NOT_FOUND"),
            ('name: "m" version_label: "x"', "INVALID_ARGUMENT"),
            ('name: "nope" version_label: "stable"', "INVALID_ARGUMENT"),
            ('name: "m" version_label: "next"', "NOT_FOUND"),
        ):
            with self.subTest(text):
                self.assert_refused(code, managed.answer, made, text)
        self.assertEqual([v.number for v in made.status("m")], [10, 2, 1])
        self.assertEqual([v.number for v in made.status("m", 2)], [2])
        self.assert_refused("NOT_FOUND", made.status, "x")
        self.assert_refused("NOT_FOUND", made.status, "m", 9)


class ConfigTest(managed.ManagerTest):
    async def test_an_empty_base_path_waits(self):
        (self.folder / "m").mkdir()
        manager = self.made(file_system_poll_wait_seconds=0.01)
        with self.assertLogs(level="WARNING") as logs:
            waiting = asyncio.create_task(manager.apply(self.config()))
            await self.until(lambda: "No versions of servable m" in str(logs))
        self.assertFalse(waiting.done())
        self.publish(1, "one")
        await waiting
        self.assertEqual(managed.answer(manager), ("one", 1, "m"))

    async def test_a_missing_base_path_is_refused(self):
        manager = await self.serving()
        await self.assert_not_applied(
            "INVALID_ARGUMENT", "base path", manager, self.config("n")
        )
        self.assertEqual(set(manager.model_names()), {"m"})
        self.assertEqual(managed.answer(manager), ("one", 1, "m"))

    async def test_what_is_listed_is_served_and_nothing_else(self):
        for model in "abc":
            self.publish(1, f"one of {model}", model)
        manager = self.made()
        await manager.apply(self.config("a", "b"))
        await manager.apply(self.config("b", "c"))
        self.assertEqual(set(manager.model_names()), {"b", "c"})
        await self.until_states(manager, {1: "END"}, "a")
        for model in "bc":
            answer = managed.answer(manager, f'name: "{model}"')
            self.assertEqual(answer, (f"one of {model}", 1, model))
        # The one that stayed was not loaded twice; the one that left can come
        # back.
        self.assertEqual(self.loader.attempts.count(("b", 1)), 1)
        await manager.apply(self.config("a"))
        self.assertEqual(managed.states(manager, "a"), {1: "AVAILABLE"})

    async def test_a_changed_policy_takes_effect(self):
        for number in (1, 2, 3):
            self.publish(number, str(number))
        manager = self.made()
        await manager.apply(self.config())
        self.assertEqual(managed.states(manager), {3: "AVAILABLE"})
        for policy, unwanted in (
            ("specific { versions: 1 versions: 2 }", 3),
            ("latest { num_versions: 2 }", 1),
        ):
            more = f"model_version_policy {{ {policy} }}"
            await manager.apply(self.config(more=more))
            expected = dict.fromkeys((1, 2, 3), "AVAILABLE")
            await self.until_states(manager, {**expected, unwanted: "END"})

    async def test_a_new_model_that_does_not_load(self):
        manager = await self.serving()
        self.publish(5, "no", model="n")
        await self.assert_not_applied(
            "UNKNOWN", "n version: 5.*cannot", manager, self.config("m", "n")
        )
        self.assertEqual(managed.answer(manager), ("one", 1, "m"))
        self.publish(6, "six", model="n")
        await manager.poll()
        await self.until_states(manager, {5: "END", 6: "AVAILABLE"}, "n")

    async def test_a_load_that_hangs_holds_up_no_other(self):
        self.publish(1, "slow")
        self.publish(1, "one", model="n")
        manager = self.made()
        waiting = asyncio.create_task(manager.apply(self.config("m", "n")))
        await self.until_states(manager, {1: "AVAILABLE"}, "n")
        self.assertEqual(managed.states(manager), {1: "LOADING"})
        self.assertFalse(waiting.done())
        self.loader.go.set()
        await waiting
        self.assertEqual(managed.states(manager), {1: "AVAILABLE"})

    async def test_a_folder_that_hangs_holds_up_no_other(self):
        self.publish(1, "one")
        self.publish(1, "other", model="n")
        manager = self.made(file_system_poll_wait_seconds=0.01)
        await manager.apply(self.config("m", "n"))
        go, real = threading.Event(), os.scandir
        self.addCleanup(go.set)

        def scandir(path):
            if pathlib.Path(path).name == "m":
                go.wait(managed.PATIENCE_SECONDS)
            return real(path)

        self.enterContext(mock.patch.object(os, "scandir", scandir))
        self.publish(2, "two", model="n")
        await self.until_states(manager, {1: "END", 2: "AVAILABLE"}, "n")
        self.publish(2, "two")
        go.set()
        await self.until_states(manager, {1: "END", 2: "AVAILABLE"})


class LabelTest(managed.ManagerTest):
    def labelled(self, **numbers):
        labels = (
            f'version_labels {{ key: "{label}" value: {number} }} '
            for label, number in numbers.items()
        )
        return self.config(more=managed.ALL + "".join(labels))

    def label(self, manager, label):
        return managed.answer(manager, f'name: "m" version_label: "{label}"')[1]

    async def assert_no_label(self, number, manager, **numbers):
        await self.assert_not_applied(
            "FAILED_PRECONDITION",
            f"version {number} of model m",
            manager,
            self.labelled(**numbers),
        )

    async def test_labels_come_after_their_versions(self):
        self.publish(1, "one")
        manager = self.made()
        await self.assert_no_label(1, manager, stable=1)
        self.assertEqual(self.loader.attempts, [])
        await manager.apply(self.labelled())
        await manager.apply(self.labelled(stable=1))
        self.assertEqual(self.label(manager, "stable"), 1)

    async def test_all_labels_or_none(self):
        self.publish(1, "one")
        self.publish(2, "two")
        manager = self.made()
        await manager.apply(self.labelled())
        await self.until_states(manager, {1: "AVAILABLE", 2: "AVAILABLE"})
        await manager.apply(self.labelled(stable=1, canary=2))
        await self.assert_no_label(99, manager, stable=2, canary=99)
        self.assertEqual(self.label(manager, "stable"), 1)
        self.assertEqual(self.label(manager, "canary"), 2)
        await manager.apply(self.labelled(stable=2))
        self.assertEqual(self.label(manager, "stable"), 2)
        self.assert_refused("INVALID_ARGUMENT", self.label, manager, "canary")

    async def test_early_labels(self):
        self.publish(1, "one")
        manager = self.made(allow_version_labels_for_unavailable_models=True)
        await manager.apply(self.labelled(stable=1, next=7))
        self.assertEqual(self.label(manager, "stable"), 1)
        # A label that is in use moves only to what is there.
        await self.assert_no_label(7, manager, stable=7, next=7)
        self.assertEqual(self.label(manager, "stable"), 1)


class ConfigFileTest(managed.ManagerTest):
    def write(self, text):
        temporary = self.folder / "models.config.new"
        temporary.write_text(text)
        os.replace(temporary, self.folder / "models.config")

    async def watching(self, **options):
        """Returns a manager of the model that the file names."""
        path = self.folder / "models.config"
        manager = await self.serving(**options)
        self.write(str(self.config("m")))
        manager.watch_config_file(path, config_files.read, 0.01)
        return manager

    async def test_a_changed_file_is_applied_and_a_broken_one_is_not(self):
        self.publish(1, "other", model="n")
        manager = await self.watching()
        self.write(str(self.config("m", "n")))
        await self.until_states(manager, {1: "AVAILABLE"}, "n")
        with self.assertLogs(level="ERROR") as logs:
            self.write("model_config_list { nonsense")
            await self.until(lambda: "nonsense" in str(logs.output))
            (self.folder / "models.config").unlink()
            await self.until(lambda: "No such file" in str(logs.output))
        self.assertEqual(set(manager.model_names()), {"m", "n"})
        self.assertEqual(managed.answer(manager), ("one", 1, "m"))
        self.write(str(self.config("n")))
        await self.until(lambda: set(manager.model_names()) == {"n"})

    async def test_a_label_is_assigned_once_its_version_has_loaded(self):
        manager = await self.watching(file_system_poll_wait_seconds=0.01)
        label = 'version_labels { key: "stable" value: 2 }'
        with self.assertLogs(level="ERROR") as logs:
            self.write(str(self.config(more=label)))
            await self.until(lambda: "version 2 of model m" in str(logs.output))
        self.publish(2, "two")

        def is_labelled():
            try:
                return managed.answer(
                    manager, 'name: "m" version_label: "stable"'
                )
            except StatusError:
                return None

        await self.until(is_labelled)
        self.assertEqual(is_labelled(), ("two", 2, "m"))
