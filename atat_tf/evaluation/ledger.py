"""The ledger of a run: one JSON line an image and attack.

Every figure is computed from these lines. They are appended group by group, so
that a killed evaluation goes on where it was. A packed file beside it, a
fortieth of its size, is read as if its lines came first.
"""

import contextlib
import json
import lzma
import os
import pathlib

from atat_tf.errors import InputError
from atat_tf.runs import folder as run_folder

FILE = "ledger.jsonl"
PACKED = "ledger.jsonl.xz"
# What a verdict depends on besides the attack; lines of others are not read.
IDENTITY = ("weights", "data", "bn_eval", "seed", "batch")


def is_in(workdir):
    """Returns whether a run folder has a ledger, packed or not."""
    return any((pathlib.Path(workdir) / f).exists() for f in (FILE, PACKED))


def pack(workdir, output):
    """Writes the lines of a run folder's ledger, packed, into a folder.

    The same line is written once; lines cut short by a kill are left out.

    Returns:
      How many lines there are.
    """
    lines = {}
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
      identity: {name: value} of IDENTITY: digest of the weights, provenance of
        the images, batch-norm mode, seed; "batch" is None where an image's
        verdict does not depend on its batch.

    Attributes:
      identity: as given.
    """

    def __init__(self, path, identity):
        if set(identity) != set(IDENTITY):
            raise ValueError(f"expected {IDENTITY}, received {list(identity)}")
        self._path = pathlib.Path(path)
        self.identity = identity
        self._by_attack = {}
        self._ends_torn = False
        self._read()

    def verdicts(self, attack):
        """Returns {image's index: line} of an attack, by its description."""
        return self._by_attack.setdefault(attack, {})

    def append(self, attack, lines):
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
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        self._add(attack, entries)

    def _read(self):
        open_groups = {}
        for text in _texts(self._path):
            self._ends_torn = not text.endswith("\n")
            line = _parsed(text)
            if line is None or any(
                line.get(name) != value for name, value in self.identity.items()
            ):
                continue
            group = (line["attack"], *line["group"])
            lines = open_groups.setdefault(group, {})
            lines[line["index"]] = line
            if len(lines) == line["group"][1]:
                self._add(line["attack"], open_groups.pop(group).values())

    def _add(self, attack, lines):
        known = self.verdicts(attack)
        known.update((line["index"], line) for line in lines)


def _texts(path):
    """Yields the lines of a ledger's file, those of the packed one first."""
    packed = path.with_name(PACKED)
    how = {"mode": "rt", "encoding": "utf-8", "errors": "replace"}
    if packed.exists():
        try:
            with lzma.open(packed, **how) as file:
                yield from file
        except (EOFError, lzma.LZMAError) as error:
            raise InputError(
                "Expected a packed ledger as `python -m atat_tf.archive` "
                f"writes it. Received: {packed} ({error})."
            ) from error
    with contextlib.suppress(FileNotFoundError), open(path, **how) as file:
        yield from file


def _parsed(text):
    try:
        line = json.loads(text)
    except ValueError:
        return None  # cut short by a kill
    complete = isinstance(line, dict) and {"index", "attack", "group"} <= set(
        line
    )
    return line if complete else None
