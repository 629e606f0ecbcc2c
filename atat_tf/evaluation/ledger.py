"""The ledger of a run: one JSON line for each image and attack.

Every figure is computed from these lines. They are appended group by group, so
that a killed evaluation goes on where it was. A packed file beside it, a
fortieth of its size, is read as if its lines came first.
"""

import contextlib
import functools
import json
import lzma
import os
import pathlib
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from atat_tf.errors import InputError
from atat_tf.runs import folder as run_folder
from atat_tf.runs import terminal

FILE = "ledger.jsonl"
PACKED = "ledger.jsonl.xz"
# Stands where lines name their attack, for the images as they are.
CLEAN = "none"
# What a verdict depends on besides the attack; lines of others are not read.
IDENTITY = ("weights", "data", "bn_eval", "seed", "batch")
_SHARED = {*IDENTITY, "attack", "group"}


def identity(
    digest: str,
    provenance: str,
    bn_eval: str,
    seed: int,
    batch: Sequence[int] | None,
    split: str = "test",
) -> dict:
    """Returns what marks the lines of one evaluation, {name: value}.

    Args:
      digest: of the weights.
      provenance: of the data set.
      bn_eval: "frozen" or "batch".
      seed: of the random starts.
      batch: [batch size, number of images], which verdicts do not depend on
        with frozen statistics.
      split: "test" or "validation": which images were attacked.
    """
    values = (
        digest,
        f"{provenance}, {split}",
        bn_eval,
        seed,
        None if bn_eval == "frozen" else batch,
    )
    return dict(zip(IDENTITY, values, strict=True))


def is_in(workdir: run_folder.Path) -> bool:
    """Returns whether a run folder has a ledger, packed or not."""
    return any((pathlib.Path(workdir) / f).exists() for f in (FILE, PACKED))


def pack(workdir: run_folder.Path, output: run_folder.Path) -> int:
    """Writes the lines of a run folder's ledger, packed, into a folder.

    The same line is written once; lines cut short by a kill are left out.

    Returns:
      How many lines there are.
    """
    lines: dict[str, None] = {}
    for text in _texts(pathlib.Path(workdir) / FILE):
        if _parsed(text) is not None:
            lines.pop(text.strip(), None)  # a later line wins, so it moves
            lines[text.strip()] = None
    with (
        run_folder.replacing(pathlib.Path(output) / PACKED) as temporary,
        lzma.open(temporary, "wt", encoding="utf-8") as file,
    ):
        file.writelines(line + "\n" for line in lines)
    return len(lines)


class Ledger:
    """The lines of one evaluation in a file that may hold others' too.

    Args:
      path: the file; neither it nor a packed one beside it need exist.
      identity: from the function of this name.

    Attributes:
      identity: as given.
    """

    def __init__(self, path: run_folder.Path, identity: Mapping) -> None:
        if set(identity) != set(IDENTITY):
            raise ValueError(f"expected {IDENTITY}, received {list(identity)}")
        self._path = pathlib.Path(path)
        self.identity = dict(identity)
        self._seen = _stamp(self._path)
        self._has_others = False
        index = _index(self._path, self._seen)
        own = index.get(_key(identity), {})
        self._by_attack = {attack: dict(known) for attack, known in own.items()}
        self._ends_torn = _ends_torn(self._path)

    def again(self) -> "Ledger":
        """Returns the ledger as its file is now.

        It is this one, unless another process has added lines.
        """
        if self._has_others or _stamp(self._path) != self._seen:
            return Ledger(self._path, self.identity)
        return self

    def verdicts(self, attack: str) -> dict[int, dict]:
        """Returns {image's index: line as appended} of an attack.

        Args:
          attack: description with all parameters.
        """
        return self._by_attack.setdefault(attack, {})

    def margins(self, attack: str, count: int) -> np.ndarray:
        """Returns the margins that an attack has left, float [n].

        Args:
          attack: description with all parameters.
          count: n, the first so many images; NaN for those without a line.
        """
        lines = self.verdicts(attack)
        return np.array(
            [
                lines[index]["margin"] if index in lines else np.nan
                for index in range(count)
            ]
        )

    def refuted(self, attacks: Iterable[str], count: int) -> int:
        """Returns how many candidates of attacks did not hold alone.

        Args:
          attacks: descriptions with all parameters.
          count: n, the first so many images; a ledger may have more.
        """
        return self._counted("refuted", attacks, count)

    def broken(self, attacks: Iterable[str], count: int) -> int:
        """Returns how many candidates of attacks held alone; as `refuted`."""
        return self._counted("broken", attacks, count)

    def _counted(self, field, attacks, count):
        return sum(
            line[field]
            for attack in attacks
            for index, line in self.verdicts(attack).items()
            if index < count
        )

    def deciding(self, attacks: Iterable[str], index: int) -> dict | None:
        """Returns the line that decides whether an image withstands attacks.

        Args:
          attacks: descriptions, in the order in which they were run. The clean
            image comes before them.
          index: of the image.

        Returns:
          The line of the first attack that breaks the image, else that of the
          last attack; None where a line before it is missing.
        """
        line = None
        for attack in (CLEAN, *attacks):
            line = self.verdicts(attack).get(index)
            if line is None or line["broken"]:
                break
        return line

    def standing(self, attacks: Sequence[str], count: int) -> np.ndarray | None:
        """Returns which images are classified right under all of some attacks.

        Args:
          attacks: descriptions, in the order in which they were run.
          count: n, the first so many images.

        Returns:
          bool [n]; None where a line that decides is missing.
        """
        if self.identity["bn_eval"] == "batch":
            # A verdict is of a whole batch, so that every image is attacked.
            everyone = set(range(count))
            if any(everyone - set(self.verdicts(a)) for a in attacks):
                return None
        found = (self.deciding(attacks, index) for index in range(count))
        lines = [line for line in found if line is not None]
        if len(lines) < count:
            return None
        return np.array([not line["broken"] for line in lines], bool)

    def append(self, attack: str, lines: Sequence[dict]) -> None:
        """Writes a group of lines to the disk, whole or not at all.

        Args:
          attack: description with all parameters.
          lines: dictionaries with "index" and what is known of the image.
        """
        first = lines[0]["index"]
        entries = [
            {
                **line,
                "attack": attack,
                # Of a group that was cut short no line is read.
                "group": [first, len(lines)],
                **self.identity,
            }
            for line in lines
        ]
        text = "".join(json.dumps(entry) + "\n" for entry in entries)
        if self._ends_torn:
            text = "\n" + text
            self._ends_torn = False
        self._has_others |= _stamp(self._path) != self._seen
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        self._seen = _stamp(self._path)
        known = self.verdicts(attack)
        known.update((line["index"], dict(line)) for line in lines)


def of_results(folder: run_folder.Path, results: Mapping[str, Any]) -> Ledger:
    """Returns the Ledger of the verdicts that a results.json counts.

    Args:
      folder: the run folder.
      results: what its results.json holds.
    """
    about = identity(
        results["weights_digest"],
        results["data"],
        results["bn_eval"],
        results["seed"],
        [results["batch_size"], results["num_images"]],
        results.get("split", "test"),
    )
    return Ledger(pathlib.Path(folder) / FILE, about)


def _stamp(path):
    """Returns what changes whenever the files of a ledger do."""
    stats = [
        file.stat() if file.exists() else None
        for file in (path.with_name(PACKED), path)
    ]
    return tuple(stat and (stat.st_mtime_ns, stat.st_size) for stat in stats)


# Bytes of a ledger that takes seconds to read.
_LARGE = 2**18


# One: a run's tables, report and card are made one run after the other.
@functools.lru_cache(maxsize=1)
def _index(path, stamp):
    """Returns {identity: {attack: {image's index: line}}} of a whole file.

    Args:
      path: of the ledger.
      stamp: of its files, so that what is kept is not older than they are.
    """
    if sum(size for _, size in filter(None, stamp)) >= _LARGE:
        terminal.stage(f"reading the verdicts in {path.parent}")
    index: dict[str, dict[str, dict[int, dict]]] = {}
    open_groups: dict[tuple, dict[int, dict]] = {}
    for text in _texts(path):
        line = _parsed(text)
        if line is None:
            continue
        about = _key(line), line["attack"]
        group = (*about, *line["group"])
        lines = open_groups.setdefault(group, {})
        lines[line["index"]] = {
            sys.intern(name): value
            for name, value in line.items()
            if name not in _SHARED
        }
        if len(lines) == line["group"][1]:
            of_identity = index.setdefault(about[0], {})
            of_identity.setdefault(about[1], {}).update(open_groups.pop(group))
    return index


def _key(identity):
    return json.dumps([identity.get(name) for name in IDENTITY])


def _ends_torn(path):
    """Returns whether the last line of a plain ledger was cut short."""
    with contextlib.suppress(OSError), open(path, "rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() != b"\n"
    return False


def _texts(path: pathlib.Path) -> Iterator[str]:
    """Yields the lines of a ledger's file, those of the packed one first."""
    packed = path.with_name(PACKED)
    how: dict[str, Any] = {
        "mode": "rt",
        "encoding": "utf-8",
        "errors": "replace",
    }
    if packed.exists():
        try:
            with lzma.open(packed, **how) as file:
                yield from file
        except (EOFError, lzma.LZMAError) as error:
            raise InputError(
                "Expected a packed ledger as `atat archive` "
                f"writes it. Received: {packed} ({error})."
            ) from error
    with contextlib.suppress(FileNotFoundError), open(path, **how) as file:
        yield from file


def _parsed(text):
    try:
        line = json.loads(text)
    except ValueError:
        return None  # cut short by a kill
    match line:
        case {"index": int(), "attack": str(), "group": [int(), int()]}:
            return line
    return None
