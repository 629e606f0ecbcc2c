"""One shard of an evaluation: its images, its name and its folder.

Nothing here loads TensorFlow: a command reads the name before it does.
"""

import dataclasses
import pathlib
import re

from atat_tf.errors import expect
from atat_tf.runs import folder as run_folder

FOLDER = "shards"
# Written last: a shard without it is not done.
FILE = "shard.json"


@dataclasses.dataclass(frozen=True)
class Shard:
    """Every `count`-th image, from image `index` on.

    Attributes:
      index: in [0, count), as array jobs count their tasks.
      count: of all shards.
    """

    index: int
    count: int

    def __str__(self) -> str:
        return f"{self.index}-of-{self.count}"

    def folder(self, workdir: run_folder.Path) -> pathlib.Path:
        """Returns where the shard of a run has its files."""
        return pathlib.Path(workdir) / FOLDER / str(self)


def parsed(text: str) -> Shard:
    """Returns the Shard that is called so.

    Args:
      text: "3/16", the fourth of sixteen: the first is 0/16.

    Raises:
      InputError: it is called otherwise.
    """
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    shard = Shard(*map(int, found.groups())) if found else Shard(0, 0)
    expect(
        shard.index < shard.count,
        "a shard as 3/16, of which the first is 0/16 and the last 15/16",
        shard=text,
    )
    return shard


def finished(workdir: run_folder.Path) -> list[Shard]:
    """Returns the Shards of a run, each of which is done.

    Raises:
      InputError: there is none, one is missing, or they are of two numbers.
    """
    place = pathlib.Path(workdir) / FOLDER
    there = [
        parsed(path.parent.name.replace("-of-", "/"))
        for path in place.glob(f"*-of-*/{FILE}")
    ]
    expect(
        there,
        f"a finished shard in {place}: evaluate --shard=0/N makes the first "
        "of N",
        finished=0,
    )
    counts = sorted({shard.count for shard in there})
    expect(
        len(counts) == 1,
        f"the shards of one evaluation in {place}: remove those of others",
        shards_are_of=counts,
    )
    shards = [Shard(index, counts[0]) for index in range(counts[0])]
    missing = [shard.index for shard in shards if shard not in there]
    expect(
        not missing,
        f"all of {counts[0]} shards in {place}: the same command evaluates a "
        "missing one, or goes on with it",
        missing=missing,
    )
    return shards
