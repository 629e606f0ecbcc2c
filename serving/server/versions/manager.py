"""Which versions of which models are loaded, as TensorFlow Serving does it.

All of it happens in one event loop, so nothing is locked: a task for each
version leads it from START to END, another looks for new ones, and requests
look up what is there and wait for none of it. What touches files or TensorFlow
runs in a thread of its own, and one that hangs there holds up nobody else.
"""

import asyncio
import contextlib
import copy
import logging
import os
import pathlib
from collections.abc import Callable, Collection, Coroutine, Iterator

from google.protobuf import message

from ...status import StatusError, invalid
from .. import config_files
from ..threads import in_thread
from . import lives
from . import policy as version_policy
from .policy import UNLOADING, Version

# A look at a folder that takes longer is not waited for.
_PATIENCE_SECONDS = 30.0


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
        allow_version_labels_for_unavailable_models: bool = False,
    ):
        """Loads nothing yet.

        Args:
          load: (name, version, path) -> servable with `close()`; called in a
            thread. It may raise; a StatusError keeps its code, anything else
            is UNKNOWN.
          file_system_poll_wait_seconds: between two looks for versions; 0
            looks only when a config is applied.
          max_num_load_retries: attempts to load after the first one.
          load_retry_interval_micros: between two attempts.
          allow_version_labels_for_unavailable_models: whether a new label may
            name a version that is not available.
        """
        self._versions = lives.Versions(
            load, max_num_load_retries, load_retry_interval_micros / 1e6
        )
        self._may_label_early = allow_version_labels_for_unavailable_models
        self._config = None  # the ModelServerConfig in effect
        self._models = {}  # {name: ModelConfig}
        self._labels = {}  # {name: {label: number}}
        self._config_lock = asyncio.Lock()
        self._closing = False
        self._watches = set()
        self._looking = set()  # ids of ModelConfigs whose folder is being read
        self._said = {}
        if file_system_poll_wait_seconds > 0:
            self._watch(self._keep_polling(file_system_poll_wait_seconds))

    @contextlib.contextmanager
    def pinned(self, spec: message.Message) -> Iterator[Version]:
        """Yields an available Version that is not closed within the context.

        Args:
          spec: ModelSpec.

        Raises:
          StatusError: NOT_FOUND, or INVALID_ARGUMENT for no name and for an
            unknown label.
        """
        version = self._available_version(spec)
        version.users += 1
        try:
            yield version
        finally:
            version.users -= 1
            if not version.users and version.state == UNLOADING:
                self._versions.notify()

    def _available_version(self, spec):
        name, number = spec.name, None
        if not name:
            raise invalid("ModelSpec has no name specified.")
        choice = spec.WhichOneof("version_choice")
        if choice == "version_label":
            number = self._labels.get(name, {}).get(spec.version_label)
            if number is None:
                raise invalid(
                    f"Unrecognized servable version label: {spec.version_label}"
                )
        elif choice == "version":
            number = spec.version.value
        fitting = [
            version
            for version in self._versions.available(name)
            if number in (None, version.number)
        ]
        if not fitting:
            asked = f"Latest({name})"
            if number is not None:
                asked = f"Specific({name}, {number})"
            raise StatusError(
                "NOT_FOUND", f"Servable not found for request: {asked}"
            )
        return max(fitting, key=lambda version: version.number)

    def status(self, name: str, number: int | None = None) -> list[Version]:
        """Returns a model's versions, newest first.

        Args:
          name: the model.
          number: only this one; None for all that ever were.

        Raises:
          StatusError: NOT_FOUND.
        """
        versions = [
            version
            for version in self._versions.of(name)
            if number in (None, version.number)
        ]
        if not versions:
            what = "any versions" if number is None else f"version {number}"
            raise StatusError(
                "NOT_FOUND", f"Could not find {what} of model {name}"
            )
        return sorted(versions, key=lambda one: one.number, reverse=True)

    def model_names(self) -> Collection[str]:
        """Returns the names of the configured models."""
        return self._models.keys()

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
        new = await self._configure(config)
        await self._versions.until(
            lambda: self._closing or all(map(self._is_decided, new))
        )
        self._expect_open()
        failed = [
            f"{version}: {': '.join(version.error)}"
            for name in sorted(new & self._models.keys())
            for version in self._versions.of(name)
            if version.has_failed and not self._versions.available(name)
        ]
        if failed:
            raise StatusError(
                "UNKNOWN",
                "Expected models that load. Received: " + "; ".join(failed),
            )

    async def poll(self) -> None:
        """Looks once which versions there are and has them served.

        A folder that cannot be read leaves its model as it is; an empty one
        has all of the model's versions unloaded.
        """
        looks = [
            self._watch(self._look_at(model))
            for model in self._models.values()
            if id(model) not in self._looking
        ]
        if looks:
            await asyncio.wait(looks, timeout=_PATIENCE_SECONDS)

    def watch_config_file(
        self, path: str, read: Callable[[str], message.Message], seconds: float
    ) -> None:
        """Applies a config file at every look, also over what a call has set.

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
        await self._versions.close(grace_seconds)

    # Configurations.

    async def _configure(self, config):
        """Puts a config into effect; returns the names that are new in it."""
        async with self._config_lock:
            self._expect_open()
            config_files.check_models(config)
            # A copy: the caller may change the message afterwards.
            config = copy.deepcopy(config)
            listed = config.model_config_list.config
            models = {model.name: model for model in listed}
            old = self._models
            await in_thread(_expect_base_paths, old, models)
            self._assign_labels(models.values())
            self._config, self._models = config, models
            for model in listed:
                self._say_what_is_ignored(model)
            for name in old.keys() - models.keys():
                self._versions.want(name, {})
        await self.poll()
        return models.keys() - old.keys()

    def _expect_open(self):
        if self._closing:
            raise StatusError("CANCELLED", "The server is shutting down.")

    def _is_decided(self, name):
        """Returns whether a model has a version, will get none, or has gone."""
        return (
            name not in self._models
            or bool(self._versions.available(name))
            or any(version.has_failed for version in self._versions.of(name))
        )

    def _assign_labels(self, models):
        """Replaces all labels, or none of them."""
        labels = {model.name: dict(model.version_labels) for model in models}
        for name, numbers in labels.items():
            old = self._labels.get(name, {})
            for label, number in sorted(numbers.items()):
                is_new = old.get(label, number) == number
                is_there = any(
                    version.number == number
                    for version in self._versions.available(name)
                )
                if not is_there and not (is_new and self._may_label_early):
                    raise StatusError(
                        "FAILED_PRECONDITION",
                        f"Request to assign label to version {number} of model "
                        f"{name}, which is not currently available for "
                        "inference",
                    )
        self._labels = labels

    async def _keep_reading(self, path, read, seconds):
        while True:
            await asyncio.sleep(seconds)
            try:
                config = await in_thread(read, path)
                # A config that came by a call lasts until here, as in the
                # genuine server.
                if config != self._config:
                    await self._configure(config)
                self._say(logging.ERROR, path, None)
            except Exception as error:  # the file may hold anything
                self._say(
                    logging.ERROR, path, f"Keeping the old config: {error}"
                )

    # Folders.

    async def _keep_polling(self, seconds):
        while True:
            await asyncio.sleep(seconds)
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
        missing = set(policy.specific.versions) - set(folders)
        complaint = None
        if not wanted:
            complaint = (
                f"No versions of servable {model.name} found under base path "
                f"{model.base_path}: expected a folder named by a number."
            )
        elif missing:
            complaint = f"Versions {missing} of {model.name} are not there."
        self._say(logging.WARNING, model.name, complaint)
        base_path = pathlib.Path(model.base_path)
        self._versions.want(
            model.name, {v: str(base_path / folders[v]) for v in wanted}
        )

    def _watch(self, coroutine: Coroutine) -> asyncio.Task:
        task = asyncio.create_task(coroutine)
        self._watches.add(task)
        task.add_done_callback(self._watches.discard)
        return task

    def _say_what_is_ignored(self, model):
        text = f"Model {model.name}: no requests are logged here."
        is_asked = model.HasField("logging_config")
        topic = model.name, "logging_config"
        self._say(logging.WARNING, topic, text if is_asked else None)

    def _say(self, level, topic, text):
        """Logs a complaint once, until there is another or none."""
        if text is not None and text != self._said.get(topic):
            logging.log(level, text, extra={"is_said_once": True})
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


def _expect_base_paths(old, models):
    """Raises StatusError for a new base path that does not exist."""
    for name, model in models.items():
        is_new = name not in old or old[name].base_path != model.base_path
        if is_new and not os.path.isdir(model.base_path):
            raise invalid(
                f"Could not find base path {model.base_path} for servable "
                f"{name}"
            )
