"""Which versions of a model should be served, and which unloaded next.

Pure functions of folder names, a version policy and the states of versions.
"""

import dataclasses
import re
from collections.abc import Collection, Iterable

from google.protobuf import message

# The life of a version, in the words of GetModelStatus.
START = "START"
LOADING = "LOADING"
AVAILABLE = "AVAILABLE"
UNLOADING = "UNLOADING"
END = "END"

NO_ERROR = ("OK", "")
_MAX_VERSION = 2**63 - 1


@dataclasses.dataclass(eq=False)
class Version:
    """One version of a model, from the moment it was wanted until its end.

    Attributes:
      name: the model's.
      number: the version.
      path: its folder.
      state: one of the five above.
      wanted: whether the version policy asks for it.
      error: (code, message) of the last attempt.
      servable: what was loaded, while it is.
      users: calls that use the servable right now.
    """

    name: str
    number: int
    path: str
    state: str = START
    wanted: bool = True
    error: tuple[str, str] = NO_ERROR
    servable: object = None
    users: int = 0

    @property
    def has_failed(self) -> bool:
        """Whether it is wanted and did not load."""
        return self.wanted and self.state == END

    def __str__(self) -> str:
        return f"{{name: {self.name} version: {self.number}}}"


def folders_by_version(folder_names: Iterable[str]) -> dict[int, str]:
    """Returns {version: folder name}, leaving out what is not a version.

    `00000123` is 123. Names with anything but digits are not versions, so a
    folder can be copied under another name and renamed when it is whole. Of
    several names of one version, the last in the order of text counts, as in
    TensorFlow Serving: `7` rather than `007`.
    """
    names = (
        name for name in sorted(folder_names) if re.match(r"[0-9]+\Z", name)
    )
    return {int(name): name for name in names if int(name) <= _MAX_VERSION}


def wanted_versions(
    policy: message.Message, present: Collection[int]
) -> set[int]:
    """Returns the set of versions to serve among those present.

    Args:
      policy: ServableVersionPolicy message; one without a choice means the
        latest version.
      present: version numbers.
    """
    choice = policy.WhichOneof("policy_choice")
    if choice == "all":
        return set(present)
    if choice == "specific":
        return set(policy.specific.versions) & set(present)
    count = max(policy.latest.num_versions, 1)
    return set(sorted(present)[-count:])


def next_unload(versions: Collection[Version]) -> Version | None:
    """Returns the version of a model to unload next, None if there is none.

    What is no longer wanted goes when something that is wanted is available,
    or nothing at all is wanted. Otherwise one version, the newest, stays to
    answer calls until its successor has loaded.

    Args:
      versions: the model's Versions.
    """
    available = [v for v in versions if v.state == AVAILABLE]
    surplus = [v for v in available if not v.wanted]
    has_successor = len(surplus) < len(available)
    is_withdrawn = not any(v.wanted for v in versions)
    if not (has_successor or is_withdrawn or len(surplus) > 1):
        return None
    return min(surplus, key=lambda v: v.number, default=None)
