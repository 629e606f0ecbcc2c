"""The versions of all models and their states: what requests look up.

No threads and no files here: `model_manager` brings both. All is guarded by one
lock that is never held while something loads, closes or is written.
"""

import dataclasses
import threading
import time

from ...status import StatusError, invalid
from . import policy as version_policy
from .policy import AVAILABLE, END, LOADING, START, UNLOADING, Version


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


class Arrivals:
    """Models of which some version has yet to load or to fail.

    Attributes:
      pending: their names.
      failures: {Version or name: (code, message)} of those that will not come.
    """

    def __init__(self, names):
        self.pending = set(names)
        self.failures = {}

    def take_note(self, version):
        """Strikes out a version's model if that decides about it.

        A version that ends because another one replaces it decides nothing.
        """
        has_failed = version.state == END and version.wanted
        if version.name not in self.pending:
            return
        if has_failed or version.state == AVAILABLE:
            self.pending.remove(version.name)
        if has_failed:
            self.failures[version] = version.error


class ModelStates:
    """The life cycle of every version; each method takes the lock.

    Args:
      max_num_load_retries: attempts to load after the first one.
      load_retry_seconds: between two attempts.
    """

    def __init__(self, max_num_load_retries, load_retry_seconds):
        self._max_num_load_retries = max_num_load_retries
        self._load_retry_seconds = load_retry_seconds
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._versions = {}  # name -> {number: Version}, also those that ended
        self._available = {}  # (name, number) -> Version
        self._latest = {}  # name -> the largest available Version
        self._labels = {}  # name -> {label: number}
        self._arrivals = []
        self._deadline = None  # of calls in flight, once `close` was called

    def pin(self, name, number=None, label=None):
        """Returns an available Version that is not closed until `unpin`.

        Args:
          name: the model.
          number: the version; None for the largest one.
          label: a label of the version, in place of a number.

        Raises:
          StatusError: INVALID_ARGUMENT, no such label; NOT_FOUND, not
            available.
        """
        with self._lock:
            if label is not None:
                number = self._labels.get(name, {}).get(label)
                if number is None:
                    raise invalid(
                        f"Unrecognized servable version label: {label}"
                    )
            if number is None:
                version = self._latest.get(name)
            else:
                version = self._available.get((name, number))
            if version is not None:
                version.users += 1
                return version
        request = f"Latest({name})"
        if number is not None:
            request = f"Specific({name}, {number})"
        raise StatusError(
            "NOT_FOUND", f"Servable not found for request: {request}"
        )

    def unpin(self, version):
        """Ends one use of a version that `pin` returned."""
        with self._lock:
            version.users -= 1
            if not version.users and version.state == UNLOADING:
                self._changed.notify_all()

    def status(self, name, number=None):
        """Returns the list of VersionStatus of a model, newest first.

        Args:
          name: the model.
          number: only this version; None for all that ever were.

        Raises:
          StatusError: NOT_FOUND, there never was one.
        """
        with self._lock:
            listed = [
                VersionStatus(v.number, v.state, *_reported_error(v))
                for v in self._versions.get(name, {}).values()
                if number is None or v.number == number
            ]
        if not listed:
            what = "any versions" if number is None else f"version {number}"
            raise StatusError(
                "NOT_FOUND", f"Could not find {what} of model {name}"
            )
        return sorted(listed, key=lambda s: s.version, reverse=True)

    def assign_labels(self, labels, allow_unavailable):
        """Replaces all labels, or none of them.

        Args:
          labels: {name: {label: version number}}.
          allow_unavailable: whether a label that is new, or stays where it
            is, may name a version that is not available.

        Raises:
          StatusError: FAILED_PRECONDITION, a version is not available.
        """
        with self._lock:
            for name, numbers in labels.items():
                old = self._labels.get(name, {})
                for label, number in sorted(numbers.items()):
                    may_wait = old.get(label, number) == number
                    may_wait = may_wait and allow_unavailable
                    if not may_wait and (name, number) not in self._available:
                        raise StatusError(
                            "FAILED_PRECONDITION",
                            f"Request to assign label to version {number} of "
                            f"model {name}, which is not currently available "
                            "for inference",
                        )
            self._labels = labels

    def want(self, name, paths):
        """Sets the versions of a model that should be served.

        One that failed is tried anew after it was not wanted for a while.

        Args:
          name: the model.
          paths: {version number: folder}; all others are unloaded.
        """
        with self._lock:
            if self._deadline is not None:
                return
            versions = self._versions.setdefault(name, {})
            for version in versions.values():
                if version.number not in paths:
                    self._withdraw(version)
            for number, path in paths.items():
                version = versions.get(number)
                if version is None or _is_over(version):
                    versions[number] = Version(name, number, path)
                elif not version.wanted:
                    version.wanted, version.path = True, path
            self._retire(name)
            self._changed.notify_all()

    def next_to_load(self):
        """Returns the next Version to load, now LOADING; waits for it.

        `loaded` or `failed` must follow. None means that all is over.
        """
        with self._lock:
            while self._deadline is None:
                version, wait_seconds = self._due()
                if version is not None:
                    version.is_busy = True
                    self._move(version, LOADING)
                    return version
                self._changed.wait(wait_seconds)
            return None

    def loaded(self, version, servable):
        """Makes a version available that has loaded."""
        with self._lock:
            version.is_busy = False
            version.servable, version.error = servable, ("OK", "")
            self._available[version.name, version.number] = version
            self._move(version, AVAILABLE)
            self._choose_latest(version.name)
            self._retire(version.name)

    def failed(self, version, code, message):
        """Returns the seconds until a failed load is tried again, or None."""
        with self._lock:
            version.is_busy, version.error = False, (code, message)
            version.failures += 1
            is_last = version.failures > self._max_num_load_retries
            if is_last or not version.wanted:
                self._move(version, END)
                return None
            now = time.monotonic()
            version.next_attempt = now + self._load_retry_seconds
            self._changed.notify_all()
            return self._load_retry_seconds

    def next_to_close(self):
        """Returns the next Version to close, in use by no call; waits for it.

        `closed` must follow. None means that all is over.
        """
        with self._lock:
            while True:
                wait_seconds, is_late = None, False
                if self._deadline is not None:
                    if all(v.state == END for v in self._all()):
                        return None
                    remaining = self._deadline - time.monotonic()
                    is_late = remaining <= 0
                    wait_seconds = None if is_late else remaining
                for version in self._all():
                    is_idle = version.state == UNLOADING and not version.is_busy
                    if is_idle and (is_late or not version.users):
                        version.is_busy = True
                        return version
                self._changed.wait(wait_seconds)

    def closed(self, version):
        """Ends a version that was closed; one wanted again starts anew."""
        with self._lock:
            version.is_busy, version.servable = False, None
            if version.wanted:
                new = Version(version.name, version.number, version.path)
                self._versions[version.name][version.number] = new
                self._changed.notify_all()
            else:
                self._move(version, END)

    def close(self, grace_seconds):
        """Unloads everything; whatever waits for more returns.

        Args:
          grace_seconds: how long calls may go on before what they use is
            closed regardless.
        """
        with self._lock:
            if self._deadline is None:
                self._deadline = time.monotonic() + grace_seconds
            for name, versions in self._versions.items():
                for version in versions.values():
                    self._withdraw(version)
                self._retire(name)
            self._changed.notify_all()

    def expect(self, names):
        """Returns the Arrivals of models, to be awaited with `await_all`."""
        arrivals = Arrivals(names)
        with self._lock:
            self._arrivals.append(arrivals)
        return arrivals

    def abandon(self, name):
        """Unloads a model that is no longer listed; nobody waits for it."""
        self.want(name, {})
        with self._lock:
            for arrivals in self._arrivals:
                if name in arrivals.pending:
                    arrivals.pending.remove(name)
                    error = ("CANCELLED", "No longer in the config.")
                    arrivals.failures[name] = error
            self._changed.notify_all()

    def await_all(self, arrivals, timeout_seconds=None):
        """Returns whether a version of each model has loaded or failed.

        Args:
          arrivals: from `expect`; not used again.
          timeout_seconds: None to wait until that is so, or until `close`.
        """
        with self._lock:
            self._changed.wait_for(
                lambda: not arrivals.pending or self._deadline is not None,
                timeout_seconds,
            )
            self._arrivals.remove(arrivals)
            return not arrivals.pending

    # The lock is held where the following are called.

    def _all(self):
        for versions in self._versions.values():
            yield from versions.values()

    def _move(self, version, state):
        version.state = state
        for arrivals in self._arrivals:
            arrivals.take_note(version)
        self._changed.notify_all()

    def _withdraw(self, version):
        version.wanted = False
        is_waiting = version.state == LOADING and not version.is_busy
        if version.state == START or is_waiting:
            self._move(version, END)

    def _retire(self, name):
        versions = self._versions[name].values()
        while (old := version_policy.next_unload(versions)) is not None:
            del self._available[name, old.number]
            self._move(old, UNLOADING)
            self._choose_latest(name)

    def _choose_latest(self, name):
        versions = self._versions[name].values()
        available = [v for v in versions if v.state == AVAILABLE]
        if available:
            self._latest[name] = max(available, key=lambda v: v.number)
        else:
            self._latest.pop(name, None)

    def _due(self):
        """Returns a Version to load; or None and the seconds to wait."""
        for versions in self._versions.values():
            version = version_policy.next_load(versions.values())
            if version is not None:
                return version, None
        waiting = [
            v for v in self._all() if v.state == LOADING and not v.is_busy
        ]
        if not waiting:
            return None, None
        first = min(waiting, key=lambda v: v.next_attempt)
        wait_seconds = first.next_attempt - time.monotonic()
        return (None, wait_seconds) if wait_seconds > 0 else (first, None)


def _is_over(version):
    return version.state == END and not version.wanted


def _reported_error(version):
    return version.error if version.state == END else ("OK", "")
