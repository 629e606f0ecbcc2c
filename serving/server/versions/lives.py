"""The life of each version: wanted, loaded, unloaded; no call is cut off.

A task for each version leads it from START to END, in the event loop. What
touches files or TensorFlow runs in a thread of its own, so that a version that
hangs holds up no other.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection, Mapping

from ...status import StatusError
from ..threads import in_thread
from . import policy as version_policy
from .policy import AVAILABLE, END, LOADING, START, UNLOADING, Version


class Versions:
    """The versions of all models, those that ended included."""

    def __init__(
        self,
        load: Callable[[str, int, str], object],
        retries: int,
        retry_seconds: float,
    ):
        """Loads nothing yet.

        Args:
          load: (name, version, path) -> servable with `close()`.
          retries: attempts to load after the first one.
          retry_seconds: between two attempts.
        """
        self._load = load
        self._attempts = 1 + max(retries, 0)
        self._retry_seconds = max(retry_seconds, 0.0)
        self._versions = {}  # {name: {number: Version}}
        self._changed = asyncio.Event()
        self._lives = set()
        self._is_late = False

    def of(self, name: str) -> Collection[Version]:
        """Returns all versions that a model ever had."""
        return self._versions.get(name, {}).values()

    def available(self, name: str) -> list[Version]:
        """Returns the versions of a model that answer calls."""
        return [one for one in self.of(name) if one.state == AVAILABLE]

    def want(self, name: str, paths: Mapping[int, str]) -> None:
        """Sets the versions of a model that should be served.

        One that failed is tried anew after it was not wanted for a while.

        Args:
          name: the model.
          paths: {version number: folder}; all others are unloaded.
        """
        versions = self._versions.setdefault(name, {})
        for version in versions.values():
            version.wanted &= version.number in paths
        for number, path in paths.items():
            version = versions.get(number)
            is_over = version and version.state == END and not version.wanted
            if version is None or is_over:
                version = versions[number] = Version(name, number, path)
                life = asyncio.create_task(self._live(version))
                self._lives.add(life)
                life.add_done_callback(self._lives.discard)
            version.wanted, version.path = True, path
        self._retire(name)
        self.notify()

    async def close(self, grace_seconds: float) -> None:
        """Unloads everything; see `ModelManager.close`."""
        for name in self._versions:
            self.want(name, {})
        self.notify()
        # A second more, for the closing of what was used until the end.
        for seconds in (grace_seconds, 1.0):
            if self._lives:
                await asyncio.wait(self._lives, timeout=seconds)
            self._is_late = True
            self.notify()

    def notify(self) -> None:
        """Has everything that waits in `until` look again."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def until(self, is_so: Callable[[], bool]) -> None:
        """Waits until a condition holds, which each change of state may do."""
        while not is_so():
            await self._changed.wait()

    async def _live(self, version):
        while version.wanted and await self._has_loaded(version):
            await self.until(
                lambda: (
                    version.state == UNLOADING
                    and (not version.users or self._is_late)
                )
            )
            try:
                await in_thread(version.servable.close)
            except Exception:  # a servable may raise anything
                logging.exception("Servable %s did not close", version)
            version.servable = None
            logging.info("Unloaded servable version %s", version)
            version.state = START  # again, if it is wanted again by now
        self._move(version, END)

    async def _has_loaded(self, version):
        """Returns whether a version is AVAILABLE, after all attempts."""
        for attempt in range(self._attempts):
            if attempt:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._retry_seconds):
                        await self.until(lambda: not version.wanted)
            if not version.wanted:
                return False
            self._move(version, LOADING)
            logging.info("Loading servable version %s", version)
            try:
                version.servable = await in_thread(
                    self._load, version.name, version.number, version.path
                )
            except Exception as error:  # a loader may raise anything
                version.error = ("UNKNOWN", str(error) or repr(error))
                if isinstance(error, StatusError):
                    version.error = (error.code, error.message)
                logging.error("Servable %s: %s: %s", version, *version.error)
            else:
                version.error = version_policy.NO_ERROR
                self._move(version, AVAILABLE)
                self._retire(version.name)
                logging.info("Loaded servable version %s", version)
                return True
        return False

    def _retire(self, name):
        versions = self._versions[name].values()
        while (old := version_policy.next_unload(versions)) is not None:
            self._move(old, UNLOADING)

    def _move(self, version, state):
        version.state = state
        self.notify()
