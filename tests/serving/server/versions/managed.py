"""A manager of models that are texts, for its tests."""

import asyncio
import pathlib
import shutil
import tempfile
import threading
import unittest

from google.protobuf import text_format
from tensorflow_serving.apis import model_pb2
from tensorflow_serving.config import model_server_config_pb2

from serving.server.versions import manager as model_manager
from serving.status import StatusError

# Far more than anything here takes; only a failing test waits so long.
PATIENCE_SECONDS = 60
FOREVER_MICROS = 3_600_000_000
ALL = "model_version_policy { all {} } "


class _Text:
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


class _Loader:
    """Loads `text` of a version's folder, as the text itself asks.

    "no": fails; "missing": fails with a StatusError; "slow": waits for `go`.
    """

    def __init__(self):
        self.servables = []
        self.attempts = []
        self.go = threading.Event()

    def __call__(self, name, version, path):
        self.attempts.append((name, version))
        content = (pathlib.Path(path) / "text").read_text()
        if content == "slow" and not self.go.wait(PATIENCE_SECONDS):
            raise RuntimeError("nobody said go")
        if content == "no":
            raise RuntimeError("cannot read this")
        if content == "missing":
            raise StatusError("NOT_FOUND", "no graph")
        self.servables.append(_Text(content))
        return self.servables[-1]


class ManagerTest(unittest.IsolatedAsyncioTestCase):
    def setUp(self):
        self.folder = pathlib.Path(
            self.enterContext(tempfile.TemporaryDirectory())
        )
        self.loader = _Loader()

    def made(self, **options):
        """Returns a manager that looks for versions only when told to."""
        defaults = {
            "file_system_poll_wait_seconds": 0,
            "max_num_load_retries": 0,
            "load_retry_interval_micros": 1000,
        }
        made = model_manager.ModelManager(self.loader, **defaults | options)
        self.addAsyncCleanup(made.close, PATIENCE_SECONDS)
        # Runs first, so that no load is left to wait for.
        self.addCleanup(self.loader.go.set)
        return made

    async def serving(self, **options):
        """Returns a manager that has loaded version 1 of "m"."""
        self.publish(1, "one")
        made = self.made(**options)
        await made.apply(self.config())
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

    def config(self, *models, more=""):
        """Returns a config of models below the test's folder."""
        config = model_server_config_pb2.ModelServerConfig()
        config.model_config_list.SetInParent()
        for name in models or ("m",):
            text = f"""name: "{name}" base_path: "{self.folder / name}"
                model_platform: "tensorflow" {more}"""
            text_format.Parse(text, config.model_config_list.config.add())
        return config

    async def until(self, condition):
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not condition():
                await asyncio.sleep(0.002)

    async def until_states(self, manager, expected, name="m"):
        await self.until(lambda: states(manager, name) == expected)

    def assert_refused(self, code, call, *args):
        with self.assertRaises(StatusError) as caught:
            call(*args)
        self.assertEqual(caught.exception.code, code)

    async def assert_not_applied(self, code, words, manager, config):
        with self.assertRaisesRegex(StatusError, words) as caught:
            await manager.apply(config)
        self.assertEqual(caught.exception.code, code)


def spec(text='name: "m"'):
    return text_format.Parse(text, model_pb2.ModelSpec())


def states(manager, name="m"):
    """Returns {version: state}, empty if the model never had one."""
    try:
        return {one.number: one.state for one in manager.status(name)}
    except StatusError:
        return {}


def answer(manager, text='name: "m"'):
    """Returns text, version and name that a call sees."""
    with manager.pinned(spec(text)) as version:
        return version.servable.read(), version.number, version.name
