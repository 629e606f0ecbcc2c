"""Which versions of which models are loaded, as TensorFlow Serving does it.

A poller tells `ModelStates` what the config and the file system ask for; worker
threads load and close; requests look up what is there and wait for none of it.
"""

import contextlib
import copy
import logging
import os
import pathlib
import threading
import time

from ...status import StatusError, invalid
from . import policy as version_policy
from . import states as model_states


class ModelManager:
    """The models of a server and their life cycle.

    Args:
      load: (name, version, path) -> servable with `close()`. It may raise; a
        StatusError keeps its code, anything else is UNKNOWN.
      check: ModelServerConfig -> None, raises StatusError; None for
        `config_files.check_models`.
      file_system_poll_wait_seconds: between two looks for versions; 0 looks
        only when a config is applied, a negative number never.
      max_num_load_retries: attempts to load after the first one.
      load_retry_interval_micros: between two attempts.
      num_load_threads: versions that may load at a time; 0 is 1.
      num_unload_threads: versions that may close at a time; 0 is 1.
      allow_version_labels_for_unavailable_models: whether a new label may name
        a version that is not available.
    """

    def __init__(
        self,
        load,
        *,
        check=None,
        file_system_poll_wait_seconds=1,
        max_num_load_retries=5,
        load_retry_interval_micros=60_000_000,
        num_load_threads=0,
        num_unload_threads=0,
        allow_version_labels_for_unavailable_models=False,
    ):
        if check is None:
            from ..config_files import check_models as check
        self._load = load
        self._check = check
        self._poll_seconds = file_system_poll_wait_seconds
        self._may_label_early = allow_version_labels_for_unavailable_models
        self._states = model_states.ModelStates(
            max_num_load_retries, load_retry_interval_micros / 1e6
        )
        # Held while a config or a look at the file system takes effect.
        self._config_lock = threading.Lock()
        self._models = None  # name -> ModelConfig, once there was a config
        self._closing = threading.Event()
        self._said = {}
        self._threads = []
        for _ in range(max(num_load_threads, 1)):
            self._start(self._keep_loading)
        for _ in range(max(num_unload_threads, 1)):
            self._start(self._keep_closing)

    def servable(self, model_spec):
        """Returns a context that keeps a servable from being closed.

        Args:
          model_spec: ModelSpec; None if the request had none.

        Returns:
          A context manager of (servable, version, model's name). Entering
          raises StatusError where TensorFlow Serving would refuse.
        """
        return _Use(self._states, model_spec)

    def status(self, name, version=None):
        """Returns the list of VersionStatus of a model, newest first.

        Args:
          name: the model.
          version: only this one; None for all that ever were.

        Raises:
          StatusError: NOT_FOUND.
        """
        return self._states.status(name, version)

    def model_names(self):
        """Returns the set of the configured models' names."""
        return set(self._models or ())

    def apply(self, config, timeout_seconds=None):
        """Serves what a config lists, and waits for the models new in it.

        A model without any version is waited for. A refused config changes
        nothing; one whose models then do not load stays in effect.

        Args:
          config: ModelServerConfig.
          timeout_seconds: of the wait for new models; None for no limit.

        Raises:
          StatusError: it is refused; or a model did not load (UNKNOWN), the
            time is up (DEADLINE_EXCEEDED) or `close` was called (CANCELLED).
        """
        is_first = self._models is None
        arrivals = self._configure(config)
        if not self._states.await_all(arrivals, timeout_seconds):
            if self._closing.is_set():
                raise _shutting_down()
            raise StatusError(
                "DEADLINE_EXCEEDED",
                "Still waiting for models: "
                f"{', '.join(sorted(arrivals.pending))}",
            )
        if arrivals.failures:
            kind = "servable" if is_first else "model"
            raise StatusError("UNKNOWN", _failure_text(kind, arrivals.failures))

    def poll(self):
        """Looks once which versions there are and has them served.

        A folder that cannot be read leaves its model as it is; an empty one
        has all of the model's versions unloaded.
        """
        with self._config_lock:
            for model in (self._models or {}).values():
                try:
                    self._look_at(model)
                except (OSError, ValueError) as error:
                    self._say(logging.ERROR, model.name, str(error))

    def watch_config_file(self, path, read, seconds):
        """Applies a config file anew whenever its content has changed.

        A file that cannot be read, or is refused, is logged, tried again and
        leaves the old config in effect. New models are not waited for.

        Args:
          path: the file.
          read: path -> ModelServerConfig; may raise.
          seconds: between two looks; 0 or less for never.
        """
        if seconds > 0:
            self._start(self._keep_reading, path, read, seconds)

    def close(self, grace_seconds=30.0):
        """Unloads all models and ends the threads.

        Not to be called from a signal handler, which would stop the thread
        that it waits for.

        Args:
          grace_seconds: how long calls in flight may keep their servables; so
            long is also waited for a version that is loading.
        """
        self._closing.set()
        self._states.close(grace_seconds)
        # A second more, for the closing of what was used until the end.
        deadline = time.monotonic() + grace_seconds + 1
        for thread in self._threads:
            thread.join(max(deadline - time.monotonic(), 0))

    def _configure(self, config):
        """Returns the Arrivals of the models that are new in a config."""
        with self._config_lock:
            if self._closing.is_set():
                raise _shutting_down()
            is_first = self._models is None
            kind = config.WhichOneof("config")
            _expect_transition(is_first, kind)
            self._check(config)
            if kind is None:
                return self._states.expect(())
            # A copy: the caller may change the message afterwards.
            listed = copy.deepcopy(config.model_config_list).config
            models = {model.name: model for model in listed}
            old = self._models or {}
            _expect_base_paths(old, models)
            labels = {m.name: dict(m.version_labels) for m in models.values()}
            self._states.assign_labels(labels, self._may_label_early)
            arrivals = self._states.expect(models.keys() - old.keys())
            self._models = models
            for name in old.keys() - models.keys():
                self._states.abandon(name)
            if is_first and self._poll_seconds > 0:
                self._start(self._keep_polling)
        if self._poll_seconds >= 0:
            self.poll()
        return arrivals

    def _look_at(self, model):
        folders = _version_folders(model.base_path)
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
        self._states.want(
            model.name, {v: str(base_path / folders[v]) for v in wanted}
        )

    def _keep_polling(self):
        while not self._closing.wait(self._poll_seconds):
            self.poll()

    def _keep_reading(self, path, read, seconds):
        applied = None
        while not self._closing.wait(seconds):
            try:
                content = pathlib.Path(path).read_bytes()
                if content != applied:
                    arrivals = self._configure(read(path))
                    self._states.await_all(arrivals, timeout_seconds=0)
                    applied = content
                self._say(logging.ERROR, path, None)
            except Exception as error:  # the file may hold anything
                self._say(
                    logging.ERROR, path, f"Keeping the old config: {error}"
                )

    def _keep_loading(self):
        while (version := self._states.next_to_load()) is not None:
            # In a function of its own: a variable here would keep the servable
            # alive after it was closed.
            self._load_one(version)

    def _load_one(self, version):
        logging.info("Loading servable version %s", version)
        try:
            servable = self._load(version.name, version.number, version.path)
        except StatusError as error:
            self._fail(version, error.code, error.message)
        except Exception as error:  # a loader may raise anything
            self._fail(version, "UNKNOWN", str(error) or repr(error))
        else:
            self._states.loaded(version, servable)
            logging.info("Loaded servable version %s", version)

    def _fail(self, version, code, message):
        seconds = self._states.failed(version, code, message)
        outlook = "" if seconds is None else f"; retrying in {seconds:g} s"
        logging.error(
            "Servable %s cannot be loaded: %s: %s%s",
            version,
            code,
            message,
            outlook,
        )

    def _keep_closing(self):
        while (version := self._states.next_to_close()) is not None:
            try:
                version.servable.close()
            except Exception:  # a servable may raise anything
                logging.exception("Servable %s did not close", version)
            self._states.closed(version)
            logging.info("Unloaded servable version %s", version)

    def _start(self, target, *args):
        thread = threading.Thread(
            target=target, args=args, name=target.__name__, daemon=True
        )
        thread.start()
        self._threads.append(thread)

    def _say(self, level, topic, text):
        """Logs a complaint once, until there is another or none."""
        if text is not None and text != self._said.get(topic):
            logging.log(level, text)
        self._said[topic] = text


class _Use:
    """A use of a servable; a class, as a generator takes twice the time."""

    def __init__(self, states, model_spec):
        self._states = states
        self._spec = model_spec
        self._version = None

    def __enter__(self):
        spec = self._spec
        if spec is None:
            raise invalid("Missing ModelSpec")
        if not spec.name:
            raise invalid("ModelSpec has no name specified.")
        choice = spec.WhichOneof("version_choice")
        version = self._states.pin(
            spec.name,
            spec.version.value if choice == "version" else None,
            spec.version_label if choice == "version_label" else None,
        )
        self._version = version
        return version.servable, version.number, version.name

    def __exit__(self, *_):
        self._states.unpin(self._version)


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


def _failure_text(kind, failures):
    """Returns TensorFlow Serving's sentence about what did not load."""
    parts = []
    for version, (code, message) in failures.items():
        parts.append(f"{{{version} due to error: {code}: {message}}}, ")
    return (
        f"{len(parts)} {kind}(s) did not become available: {{{''.join(parts)}}}"
    )


def _shutting_down():
    return StatusError("CANCELLED", "The server is shutting down.")
