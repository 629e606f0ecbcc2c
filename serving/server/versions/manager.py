"""Which versions of which models are loaded, as TensorFlow Serving does it.

All of it happens in one event loop, so nothing is locked: a task for each
version leads it from START to END, another looks for new ones, and requests
look up what is there and wait for none of it. What touches files or TensorFlow
runs in threads, and one that hangs there holds up nobody else.
"""

import asyncio
import contextlib
import copy
import dataclasses
import logging
import os
import pathlib
from collections.abc import Callable, Iterable

from google.protobuf import message

from ...status import StatusError, invalid
from .. import config_files
from ..threads import in_thread
from . import policy as version_policy
from .policy import AVAILABLE, END, LOADING, START, UNLOADING, Version

# A load that takes longer lets the next one begin beside it.
_PATIENCE_SECONDS = 30.0


@dataclasses.dataclass(frozen=True)
class VersionStatus:
    """What GetModelStatus tells of a version.

    Attributes:
      version: its number.
      state: START, LOADING, AVAILABLE, UNLOADING or END.
      error_code: canonical name; "OK" unless the version did not load.
      error_message: why it did not load.
    """

    version: int
    state: str
    error_code: str = "OK"
    error_message: str = ""


class ModelManager:
    """The models of a server and their life cycle.

    Every method is called in the event loop.
    """

    def __init__(
        self,
        load: Callable[[str, int, str], object],
        *,
        file_system_poll_wait_seconds: float = 1,
        max_num_load_retries: int = 5,
        load_retry_interval_micros: int = 60_000_000,
        num_load_threads: int = 0,
        allow_version_labels_for_unavailable_models: bool = False,
        patience_seconds: float = _PATIENCE_SECONDS,
    ):
        """Loads nothing yet.

        Args:
          load: (name, version, path) -> servable with `close()`; called in a
            thread. It may raise; a StatusError keeps its code, anything else
            is UNKNOWN.
          file_system_poll_wait_seconds: between two looks for versions; 0
            looks only when a config is applied, a negative number never.
          max_num_load_retries: attempts to load after the first one.
          load_retry_interval_micros: between two attempts.
          num_load_threads: versions that may load at a time; 0 is 1.
          allow_version_labels_for_unavailable_models: whether a new label may
            name a version that is not available.
          patience_seconds: a load that takes longer does not count as one of
            `num_load_threads`.
        """
        self._load = load
        self._poll_seconds = file_system_poll_wait_seconds
        self._attempts = 1 + max(max_num_load_retries, 0)
        self._retry_seconds = load_retry_interval_micros / 1e6
        self._may_label_early = allow_version_labels_for_unavailable_models
        self._patience_seconds = patience_seconds
        self._free_loads = max(num_load_threads, 1)
        self._models = None  # {name: ModelConfig}, once there was a config
        self._versions = {}  # {name: {number: Version}}, also those that ended
        self._available = {}  # {(name, number): Version}
        self._latest = {}  # {name: the largest available Version}
        self._labels = {}  # {name: {label: number}}
        self._config_lock = asyncio.Lock()
        self._changed = asyncio.Event()
        self._closing = self._is_late = False
        self._lives, self._watches = set(), set()
        self._looking = set()  # ids of ModelConfigs whose folder is being read
        self._said = {}

    def pin(self, spec: message.Message) -> Version:
        """Returns an available Version that is not closed until `unpin`.

        Args:
          spec: ModelSpec.

        Raises:
          StatusError: where TensorFlow Serving would refuse.
        """
        name, number = spec.name, None
        if not name:
            raise invalid("ModelSpec has no name specified.")
        choice = spec.WhichOneof("version_choice")
        if choice == "version_label":
            label = spec.version_label
            number = self._labels.get(name, {}).get(label)
            if number is None:
                raise invalid(f"Unrecognized servable version label: {label}")
        elif choice == "version":
            number = spec.version.value
        version = self._latest.get(name)
        if number is not None:
            version = self._available.get((name, number))
        if version is None:
            request = f"Latest({name})"
            if number is not None:
                request = f"Specific({name}, {number})"
            raise StatusError(
                "NOT_FOUND", f"Servable not found for request: {request}"
            )
        version.users += 1
        return version

    def unpin(self, version: Version) -> None:
        """Ends one use of a version that `pin` returned."""
        version.users -= 1
        if not version.users and version.state == UNLOADING:
            self._notify()

    @contextlib.contextmanager
    def pinned(self, spec: message.Message) -> Iterable[Version]:
        """Yields a Version that is not closed within the context; see `pin`."""
        version = self.pin(spec)
        try:
            yield version
        finally:
            self.unpin(version)

    def status(
        self, name: str, version: int | None = None
    ) -> list[VersionStatus]:
        """Returns the states of a model's versions, newest first.

        Args:
          name: the model.
          version: only this one; None for all that ever were.

        Raises:
          StatusError: NOT_FOUND.
        """
        listed = [
            VersionStatus(
                v.number, v.state, *(v.error if v.state == END else ())
            )
            for v in self._versions.get(name, {}).values()
            if version is None or v.number == version
        ]
        if not listed:
            what = "any versions" if version is None else f"version {version}"
            raise StatusError(
                "NOT_FOUND", f"Could not find {what} of model {name}"
            )
        return sorted(listed, key=lambda s: s.version, reverse=True)

    def model_names(self) -> Iterable[str]:
        """Returns the names of the configured models."""
        return self._models or ()

    async def apply(self, config: message.Message) -> None:
        """Serves what a config lists, and waits for the models new in it.

        A model without any version is waited for, until the caller cancels. A
        refused config changes nothing; one whose models then do not load, or
        were not waited for, stays in effect.

        Args:
          config: ModelServerConfig.

        Raises:
          StatusError: it is refused; or a model did not load (UNKNOWN), or
            `close` was called (CANCELLED).
        """
        kind = "servable" if self._models is None else "model"
        new = await self._configure(config)
        await self._until(
            lambda: self._closing or all(map(self._is_decided, new))
        )
        if self._closing:
            raise _shutting_down()
        if failures := [text for name in new for text in self._failures(name)]:
            raise StatusError(
                "UNKNOWN",
                f"{len(failures)} {kind}(s) did not become available: "
                f"{{{''.join(failures)}}}",
            )

    async def poll(self) -> None:
        """Looks once which versions there are and has them served.

        A folder that cannot be read leaves its model as it is; an empty one
        has all of the model's versions unloaded.
        """
        looks = [
            self._watch(self._look_at(model))
            for model in (self._models or {}).values()
            if id(model) not in self._looking
        ]
        if looks:
            await asyncio.wait(looks, timeout=self._patience_seconds)

    def watch_config_file(
        self, path: str, read: Callable[[str], message.Message], seconds: float
    ) -> None:
        """Applies a config file anew whenever its content has changed.

        A file that cannot be read, or is refused, is logged, tried again and
        leaves the old config in effect. New models are not waited for.

        Args:
          path: the file.
          read: path -> ModelServerConfig; may raise.
          seconds: between two looks; 0 or less for never.
        """
        if seconds > 0:
            self._watch(self._keep_reading(path, read, seconds))

    async def close(self, grace_seconds: float = 30.0) -> None:
        """Unloads all models.

        Args:
          grace_seconds: how long calls in flight may keep their servables; so
            long is also waited for a version that is loading.
        """
        self._closing = True
        for watch in self._watches:
            watch.cancel()
        for name in self._versions:
            self._want(name, {})
        self._notify()
        # A second more, for the closing of what was used until the end.
        for seconds in (grace_seconds, 1.0):
            if self._lives:
                await asyncio.wait(self._lives, timeout=seconds)
            self._is_late = True
            self._notify()

    # Configurations.

    async def _configure(self, config):
        """Puts a config into effect; returns the names that are new in it."""
        async with self._config_lock:
            if self._closing:
                raise _shutting_down()
            kind = config.WhichOneof("config")
            _expect_transition(self._models is None, kind)
            config_files.check_models(config)
            if kind is None:
                return set()
            # A copy: the caller may change the message afterwards.
            listed = copy.deepcopy(config.model_config_list).config
            models = {model.name: model for model in listed}
            old = self._models or {}
            await in_thread(_expect_base_paths, old, models)
            self._assign_labels(models.values())
            if self._models is None and self._poll_seconds > 0:
                self._watch(self._keep_polling())
            self._models = models
            for name in old.keys() - models.keys():
                self._want(name, {})
        if self._poll_seconds >= 0:
            await self.poll()
        return models.keys() - old.keys()

    def _is_decided(self, name):
        """Returns whether a model has a version, will get none, or has gone."""
        versions = self._versions.get(name, {}).values()
        return name not in self._models or any(
            v.state == AVAILABLE or v.has_failed for v in versions
        )

    def _failures(self, name):
        """Returns texts about why a model has no version, empty if it has."""
        text = "{{{} due to error: {}: {}}}, "
        if name not in self._models:
            return [text.format(name, "CANCELLED", "No longer in the config.")]
        versions = self._versions[name].values()
        if any(v.state == AVAILABLE for v in versions):
            return []
        return [text.format(v, *v.error) for v in versions if v.has_failed]

    def _assign_labels(self, models):
        """Replaces all labels, or none of them."""
        labels = {model.name: dict(model.version_labels) for model in models}
        for name, numbers in labels.items():
            old = self._labels.get(name, {})
            for label, number in sorted(numbers.items()):
                may_wait = old.get(label, number) == number
                may_wait = may_wait and self._may_label_early
                if not may_wait and (name, number) not in self._available:
                    raise StatusError(
                        "FAILED_PRECONDITION",
                        f"Request to assign label to version {number} of model "
                        f"{name}, which is not currently available for "
                        "inference",
                    )
        self._labels = labels

    async def _keep_reading(self, path, read, seconds):
        applied = None
        while True:
            await asyncio.sleep(seconds)
            try:
                content = await in_thread(pathlib.Path(path).read_bytes)
                if content != applied:
                    config = await in_thread(read, path)
                    await self._configure(config)
                    applied = content
                self._say(logging.ERROR, path, None)
            except Exception as error:  # the file may hold anything
                self._say(
                    logging.ERROR, path, f"Keeping the old config: {error}"
                )

    # Folders.

    async def _keep_polling(self):
        while True:
            await asyncio.sleep(self._poll_seconds)
            # Not waited for: a folder that hangs keeps no other from a look.
            self._watch(self.poll())

    async def _look_at(self, model):
        self._looking.add(id(model))
        try:
            folders = await in_thread(_version_folders, model.base_path)
        except OSError as error:
            self._say(logging.ERROR, model.name, str(error))
            return
        finally:
            self._looking.discard(id(model))
        if self._closing or self._models.get(model.name) is not model:
            return  # another config came in the meantime
        policy = model.model_version_policy
        wanted = version_policy.wanted_versions(policy, folders)
        missing = version_policy.missing_versions(policy, folders)
        complaint = None
        if not wanted:
            complaint = (
                f"No versions of servable {model.name} found under base path "
                f"{model.base_path}. Did you forget to name your leaf "
                "directory as a number (eg. '/1/')?"
            )
        elif missing:
            complaint = f"Versions {missing} of {model.name} are not there."
        self._say(logging.WARNING, model.name, complaint)
        base_path = pathlib.Path(model.base_path)
        self._want(model.name, {v: str(base_path / folders[v]) for v in wanted})

    def _want(self, name, paths):
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
        self._notify()

    # The life of a version.

    async def _live(self, version):
        while version.wanted and await self._has_loaded(version):
            await self._until(
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
                    async with asyncio.timeout(max(self._retry_seconds, 0)):
                        await self._until(lambda: not version.wanted)
            await self._until(
                lambda: not version.wanted or self._is_turn_of(version)
            )
            if not version.wanted:
                return False
            try:
                version.servable = await self._loading(version)
            except Exception as error:  # a loader may raise anything
                version.error = ("UNKNOWN", str(error) or repr(error))
                if isinstance(error, StatusError):
                    version.error = (error.code, error.message)
                logging.error(
                    "Servable %s cannot be loaded: %s: %s",
                    version,
                    *version.error,
                )
            else:
                version.error = ("OK", "")
                self._available[version.name, version.number] = version
                self._move(version, AVAILABLE)
                self._choose_latest(version.name)
                self._retire(version.name)
                logging.info("Loaded servable version %s", version)
                return True
        return False

    def _is_turn_of(self, version):
        """Returns whether a version may load now: the newest comes first."""
        siblings = self._versions[version.name].values()
        is_next = version_policy.next_load(siblings) is version
        return self._free_loads > 0 and (is_next or version.state == LOADING)

    async def _loading(self, version):
        self._free_loads -= 1
        held = True

        def give_back():
            nonlocal held
            self._free_loads += held
            held = False
            self._notify()

        loop = asyncio.get_running_loop()
        patience = loop.call_later(self._patience_seconds, give_back)
        self._move(version, LOADING)
        logging.info("Loading servable version %s", version)
        try:
            return await in_thread(
                self._load, version.name, version.number, version.path
            )
        finally:
            patience.cancel()
            give_back()

    def _move(self, version, state):
        version.state = state
        self._notify()

    def _retire(self, name):
        versions = self._versions[name].values()
        while (old := version_policy.next_unload(versions)) is not None:
            del self._available[name, old.number]
            self._move(old, UNLOADING)
            self._choose_latest(name)

    def _choose_latest(self, name):
        versions = self._versions[name].values()
        available = [v for v in versions if v.state == AVAILABLE]
        self._latest.pop(name, None)
        if available:
            self._latest[name] = max(available, key=lambda v: v.number)

    def _notify(self):
        """Has everything that waits in `_until` look again."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def _until(self, is_so):
        while not is_so():
            await self._changed.wait()

    def _watch(self, coroutine):
        task = asyncio.create_task(coroutine)
        self._watches.add(task)
        task.add_done_callback(self._watches.discard)
        return task

    def _say(self, level, topic, text):
        """Logs a complaint once, until there is another or none."""
        if text is not None and text != self._said.get(topic):
            logging.log(level, text)
        self._said[topic] = text


def _version_folders(base_path):
    """Returns {version: folder name} of a base path's folders."""
    with os.scandir(base_path) as entries:
        names = []
        for entry in entries:
            # It may have gone since it was listed.
            with contextlib.suppress(OSError):
                if entry.is_dir():
                    names.append(entry.name)
    return version_policy.folders_by_version(names)


def _expect_transition(is_first, kind):
    if not is_first and kind != "model_config_list":
        raise StatusError(
            "FAILED_PRECONDITION",
            "Cannot transition to requested config. It is only legal to "
            "transition from one ModelConfigList to another.",
        )


def _expect_base_paths(old, models):
    """Raises StatusError for a new base path that does not exist."""
    for name, model in models.items():
        is_new = name not in old or old[name].base_path != model.base_path
        if is_new and not os.path.isdir(model.base_path):
            raise invalid(
                f"Could not find base path {model.base_path} for servable "
                f"{name}"
            )


def _shutting_down():
    return StatusError("CANCELLED", "The server is shutting down.")
